"""`cmafs top`: the areas of a board, live.

Drawn with curses: it is in the standard library, and does on a serial console or in an old terminal what it
does everywhere. It is imported only here, once there is a terminal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cmafs.cli.options import CommandFailed, Commands, add_root_options

if TYPE_CHECKING:
    from cmafs.board.root import Root
    from cmafs.board.sample import Sample
    from cmafs.view.table import State

_DESCRIPTION = """\
Show the areas of a board live: pages used and free, the largest hole, fragmentation (how much of what is free
lies outside the largest hole), failures and their rate, who holds what, the log. On a real board too.

Where standard output is no terminal, samples are printed one after another.
"""
_EXAMPLES = """\
examples:
  cmafs top /mnt/m
  sudo cmafs top --interval 5
  cmafs top /mnt/m --count 1 | head           # one sample, as text
"""
#: Lines and columns of a sample that is printed.
_PRINTED = 40


class _Ended(Exception):
    """A signal ends the program."""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `top` to the parser."""
    parser = commands.add_parser(
        "top",
        help="watch the areas of a board, simulated or real",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    add_root_options(parser)
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="default: 1")
    parser.add_argument("--count", metavar="N", type=int, help="end after so many samples")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Show until q, a signal, the end of the mount or of --count; 1 if there is nothing to show."""
    from cmafs.board.sample import take_sample
    from cmafs.cli.roots import root_is_read, root_of
    from cmafs.view.table import State

    if not 0.1 <= args.interval <= 3600 or (args.count is not None and args.count < 1):
        raise CommandFailed("top: --interval is 0.1 to 3600 seconds, --count 1 or more", 2)
    with root_is_read():
        root = root_of(args)
        first = take_sample(root, time.monotonic())
    top = _Top(root, first, State(interval=args.interval), args.count)
    before = {number: signal.signal(number, _end) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        if sys.stdout.isatty() and sys.stdin.isatty():
            top.on_terminal()
        else:
            top.as_text()
    except _Ended:
        with suppress(OSError):  # nobody may be there to read it
            sys.stdout.flush()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if top.gone:
        print(f"cmafs: {top.gone}", file=sys.stderr)
    return 0


def _end(number: int, frame: object) -> None:
    raise _Ended


class _Top:
    """The program: a root, the last two samples, what the user chose; ``gone``: why the root ended."""

    def __init__(self, root: Root, first: Sample, state: State, count: int | None) -> None:
        self._root, self._name, self._state, self._count = root, root.name, state, count
        self._now = first
        self._before: Sample | None = None
        self.gone = ""

    def _sample(self) -> bool:
        """Look again; False when that was the last time."""
        from cmafs.board.root import RootError
        from cmafs.board.sample import take_sample

        if self._count is not None:
            self._count -= 1
            if not self._count:
                return False
        try:
            sample = take_sample(self._root, time.monotonic())
        except RootError as error:  # unmounted, or its server has ended
            self.gone = str(error)
            return False
        self._before, self._now = self._now, sample
        return True

    def _lines(self, width: int, height: int) -> list[tuple[str, str]]:
        from cmafs.view.table import screen

        return screen(self._name, self._now, self._before, self._state, width, height)

    def as_text(self) -> None:
        """Print samples; one if nobody said how many."""
        self._count = self._count or 1
        more = True
        while more:
            for text, _ in self._lines(shutil.get_terminal_size().columns, _PRINTED)[:-1]:
                print(text.rstrip())
            sys.stdout.flush()
            if self._count > 1:
                time.sleep(self._state.interval)
            more = self._sample()
            if more:
                print()

    def on_terminal(self) -> None:
        """Draw until a key or a signal ends it; the terminal is put back whatever happens."""
        try:
            import curses
        except ImportError:
            raise CommandFailed(
                "top: this Python has no curses; `cmafs top … | cat` prints samples"
            ) from None
        os.environ.setdefault("ESCDELAY", "25")
        try:
            curses.wrapper(lambda window: self._loop(curses, window))
        except curses.error as error:
            raise CommandFailed(f"top: {error}; `cmafs top … | cat` prints samples") from None

    def _loop(self, curses: Any, window: Any) -> None:
        from cmafs.view.table import BOLD, PLAIN, TITLE, WARN, press

        with suppress(curses.error):
            curses.curs_set(0)
            curses.use_default_colors()
            curses.init_pair(1, curses.COLOR_RED, -1)
        styles = {PLAIN: 0, BOLD: curses.A_BOLD, TITLE: curses.A_REVERSE, WARN: curses.A_BOLD}
        if curses.has_colors():
            styles[WARN] |= curses.color_pair(1)
        names = {curses.KEY_DOWN: "down", curses.KEY_UP: "up"}
        more = True
        while more:
            self._draw(curses, window, styles)
            window.timeout(int(self._state.interval * 1000))
            key = window.getch()
            if key in (ord("q"), 27):
                return
            if key in (-1, ord(" ")):
                more = self._sample()
            elif key != curses.KEY_RESIZE:
                self._state = press(self._state, names.get(key, chr(key) if 0 < key < 128 else ""))

    def _draw(self, curses: Any, window: Any, styles: dict[str, int]) -> None:
        height, width = window.getmaxyx()
        window.erase()
        for row, (text, style) in enumerate(self._lines(width - 1, height)):
            clean = "".join(c if c.isprintable() else "?" for c in text)
            with suppress(curses.error):  # a terminal that has just become smaller
                window.addstr(row, 0, clean, styles[style])
        window.refresh()
