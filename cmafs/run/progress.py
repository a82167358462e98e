"""A line on a terminal that says how far a long command is."""

from __future__ import annotations

import sys


class Progress:
    """``3 of 11 kernels`` on standard error, if that is a terminal and there is more than one to wait for."""

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what = total, what
        self._shown = False
        self._wanted = total > 1 and sys.stderr.isatty()

    def show(self, done: int) -> None:
        """Say that so many are done; nothing more when all are."""
        self.clear()
        if self._wanted and done < self._total:
            print(f"{done} of {self._total} {self._what}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def clear(self) -> None:
        """Take the line away, before anything else is printed."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False
