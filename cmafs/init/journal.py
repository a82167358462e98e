"""What was done to a machine since its boot, so that it can be done again: what a snapshot consists of.

A machine is decided by its options, its tree, and by every operation on its files together with what the
clock and ``current`` answered meanwhile. All of that is kept here: the journal stands between the machine and
its clock. What only reads leaves no trace in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from cmafs.init.task import Task, shell
from cmafs.lib.clock import Clock, ManualClock

#: The longest journal, in bytes; past that it is given up and forgotten, so that a machine that serves for
#: weeks does not grow.
MAX_BYTES = 4 << 20
#: What one operation with its names, and one answer count for: some 20,000 operations are kept.
_OPERATION, _ANSWER = 200, 16

#: Why there is no journal: what is said of sim/snapshot.
_TOO_LONG = "more was done to this machine since its boot than is kept"

T = TypeVar("T")


class BadSnapshot(ValueError):
    """A file that cannot be loaded: one line saying why."""


class Diverged(Exception):
    """A replayed operation asked something else than it did when it was recorded."""


class Journal:
    """The clock and the ``current`` of one machine, and what was done to it.

    ``clock`` and ``task`` answer outside a replay. ``entries``: an operation each: its name, its arguments
    and the answers that it got; None once it was given up, and ``why``.
    """

    def __init__(self, clock: Clock, task: Callable[[], Task] = shell) -> None:
        self.clock = clock
        self.task = task
        self.start = clock.now()
        self.entries: list[list[Any]] | None = []
        self.why = ""
        self._left = MAX_BYTES
        self._answers: list[Any] | None = None
        self._given: Iterator[Any] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Journal:
        """Of a copy of the machine, on which something is tried."""
        copied = Journal(deepcopy(self.clock, memo), self.task)
        copied.entries = None
        return copied

    # the clock of the machine, and its task

    def now(self) -> int:
        """Nanoseconds since the machine's boot."""
        value = self.clock.now() if self._given is None else self._again(int)
        if self._answers is not None:
            self._answers.append(value)
        return value

    def advance(self, nanoseconds: int) -> None:
        """Let time pass; in a replay that is in the recorded answers."""
        if self._given is None:
            self.clock.advance(nanoseconds)

    def current(self) -> Task:
        """Who acts."""
        task = self.task() if self._given is None else Task(*self._again(list))
        if self._answers is not None:
            self._answers.append([task.pid, task.comm])
        return task

    def _again(self, kind: type[T]) -> T:
        """The next recorded answer. Raises Diverged."""
        answer = next(self._given or iter(()), None)
        if not isinstance(answer, kind):
            raise Diverged
        return answer

    # operations

    def do(self, call: Callable[[], T], name: str, *arguments: Any, size: int = 0) -> T:
        """Run an operation that may change the machine, and keep it; ``size``: bytes of data in it.

        Raises what ``call`` raises.
        """
        entries = self.entries
        if entries is None or self._answers is not None:  # given up; part of another operation
            return call()
        answers: list[Any] = []
        self._answers = answers
        entries.append([name, *arguments, answers])
        try:
            return call()
        finally:
            self._answers = None
            self._left -= _OPERATION + _ANSWER * len(answers) + size
            if self._left < 0:
                self.entries, self.why = None, _TOO_LONG

    def drop(self) -> None:
        """The last operation turned out to have changed nothing."""
        if self.entries:
            self.entries.pop()
            self._left += _OPERATION

    def redo(self, call: Callable[[], object], answers: Sequence[Any]) -> None:
        """Run a recorded operation, which makes an entry again. Raises Diverged."""
        self._given = iter(answers)
        try:
            call()
        except OSError:
            pass  # as it may have been answered when it was recorded
        finally:
            rest = list(self._given)
            self._given = None
        if rest:
            raise Diverged

    def at(self, nanoseconds: int, call: Callable[[], T]) -> T:
        """What ``call``, which only reads, gives at one moment, however long it takes."""
        clock = self.clock
        self.clock = ManualClock(nanoseconds)
        try:
            return call()
        finally:
            self.clock = clock
