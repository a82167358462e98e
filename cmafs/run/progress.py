"""A line on a terminal that says how far a long command is."""

from __future__ import annotations

import sys
import time

#: Seconds between two pictures of a bar.
_REDRAW = 0.1
_BAR = 30


class Line:
    """A line on standard error that is replaced, if that is a terminal and the line is ``wanted``."""

    def __init__(self, wanted: bool = True) -> None:
        self.wanted = wanted and sys.stderr.isatty()
        self._shown = False

    def write(self, text: str) -> None:
        """Show a text instead of what was shown."""
        self.clear()
        print(text, end="", file=sys.stderr, flush=True)
        self._shown = True

    def clear(self) -> None:
        """Take the line away, before anything else is printed."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False


class Progress(Line):
    """``3 of 11 kernels``, if there is more than one to wait for."""

    def __init__(self, total: int, what: str) -> None:
        super().__init__(total > 1)
        self._total, self._what = total, what

    def show(self, done: int) -> None:
        """Say that so many are done; nothing more when all are."""
        self.clear()
        if self.wanted and done < self._total:
            self.write(f"{done} of {self._total} {self._what}")


class Bar(Line):
    """``replaying [#####     ]  50%``."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title, self._last = title, 0.0

    def show(self, done: int, total: int) -> None:
        """Draw it, at most ten times a second."""
        if not self.wanted or (now := time.monotonic()) - self._last < _REDRAW:
            return
        self._last = now
        share = min(done / total, 1) if total else 0
        self.write(f"{self._title} [{'#' * round(share * _BAR):{_BAR}}] {share:4.0%}")
