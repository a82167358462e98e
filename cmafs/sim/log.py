"""The simulator's own log, sim/log: refused control lines and the tracebacks of its own bugs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

#: Lines kept; the oldest go first.
MAX_LINES = 4096
#: Characters of a line that are kept: what a user wrote may be part of it.
MAX_LINE = 512


class SimLog(deque[str]):
    """A bounded ring of lines. ``sink``, if set, is given every line too (``--log FILE``)."""

    def __init__(self, lines: Iterable[str] = (), maxlen: int | None = MAX_LINES) -> None:
        super().__init__(lines, maxlen)  # the arguments of a deque, with which it is copied
        self.sink: Callable[[str], object] | None = None
        self.internal_errors = 0

    def append(self, line: str) -> None:
        """Add one line."""
        if len(line) > MAX_LINE:
            line = line[:MAX_LINE] + "…"
        super().append(line)
        if self.sink:
            with suppress(OSError, ValueError):  # a full disk is no answer to whoever wrote the line
                self.sink(line)

    def report(self, trace: str) -> None:
        """Add the traceback of a bug of ours; sim/verify then says so."""
        self.internal_errors += 1
        for line in trace.rstrip("\n").split("\n"):
            self.append(line)
