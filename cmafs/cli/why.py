"""`cmafs why`: why requests to CMA failed, on a board or in a kernel log."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmafs.cli.options import CommandFailed, Commands, add_root_options, read_given

if TYPE_CHECKING:
    from cmafs.board.root import Root

_DESCRIPTION = """\
Explain the last failed requests to CMA. On a mounted machine every way out is tried on a copy of it; from a
log, whichever kernel from 3.5 to 7.2 wrote it, what helps in general is said, and marked so.
"""
_EXAMPLES = """\
examples:
  cmafs why /mnt/m                            # a mounted machine
  sudo cmafs why                              # this machine
  cmafs why --dmesg log.txt
  adb shell dmesg | cmafs why --dmesg -
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `why` to the parser."""
    parser = commands.add_parser(
        "why",
        help="explain failed requests, of a board or in a kernel log",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    add_root_options(parser)
    parser.add_argument("--dmesg", metavar="FILE", help="explain this kernel log; - is standard input")
    parser.add_argument("--last", metavar="N", type=int, default=5, help="failures of a log (default: 5)")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the explanation; 1 if there is nothing to read."""
    from cmafs.cli.roots import root_is_read, root_of

    if args.dmesg is not None and (args.root is not None or args.load is not None):
        raise CommandFailed(f"why: either {'--load FILE' if args.load else 'ROOT'} or --dmesg FILE", 2)
    if args.last < 1:
        raise CommandFailed("why: --last must be 1 or more", 2)
    with root_is_read():
        if args.dmesg:
            lines = list(_of_log(read_given(args.dmesg).decode("utf-8", "replace"), args.last))
        else:
            lines = list(_of_root(root_of(args), args.last))
    print(*lines, sep="\n")
    return 0


def _of_log(text: str, last: int, release: str = "", page: int = 4096) -> Iterator[str]:
    from cmafs.board.klog import read_log
    from cmafs.view.why import explain_log

    report = read_log(text)
    report.release = report.release or release
    return explain_log(report, last, page)


def _of_root(root: Root, last: int) -> Iterator[str]:
    """A simulated machine explains itself; of others their areas now, and their log."""
    texts = [root.read(f"sim/{file}") for file in ("why", "advice")]
    if texts[0] is None:
        yield from _of_board(root, last)
    for text in texts:
        yield from (text or b"").decode("utf-8", "replace").splitlines()


def _of_board(root: Root, last: int) -> Iterator[str]:
    from cmafs.board.areas import read_areas
    from cmafs.board.memory import failed_pages, page_size, release
    from cmafs.board.root import RootError, kernel_log
    from cmafs.view.picture import pictures_of

    log = kernel_log(root)
    try:
        areas = read_areas(root)
    except RootError:
        if log is None:
            raise
        areas = []
    size = page_size(root, areas)
    for picture in pictures_of([(area, []) for area in areas], size):
        failed = failed_pages(root, picture.name)
        yield picture.heading
        yield from (f"  {fact}" for fact in picture.facts)
        if failed is not None:
            yield f"  pages asked for in vain since boot: {failed}"
    if log is None:
        yield f"{root.name}: no kernel log in it: `cmafs why --dmesg FILE` takes one"
        return
    yield from _of_log(log, last, release(root), size)
