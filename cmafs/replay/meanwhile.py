"""What several CPUs do at once: an allocation takes its bits before it is printed, others go on meanwhile.

Positions are pfns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from cmafs.lib.intervals import Interval
from cmafs.mm.cma_areas import Cma
from cmafs.replay.capture import Event
from cmafs.replay.machine import occupy, vacate

#: Releases that may have come after an allocation took its bits and are printed before it.
MAX_RELEASES = 16


class Meanwhile:
    """The last releases of a replay, which can be as if they had not happened yet."""

    def __init__(self) -> None:
        self._released: deque[tuple[Cma, int, int, str]] = deque(maxlen=MAX_RELEASES)
        self._held: list[tuple[Cma, Interval]] = []

    def released(self, cma: Cma, start: int, end: int, task: str) -> None:
        """Pages were given back."""
        self._released.append((cma, start, end, task))

    def not_yet(self, cma: Cma, task: str) -> Iterator[None]:
        """Ever more of the last releases by others did not happen yet, until ``happened()``."""
        for owner, start, end, other in reversed(self._released):
            if owner is cma and other != task and (taken := occupy(cma, start, end)):
                self._held += [(cma, piece) for piece in taken]
                yield
        self.happened()

    def happened(self) -> None:
        """All of them did."""
        for cma, piece in self._held:
            vacate(cma, [piece])
        self._held.clear()


def under_way(ahead: Iterable[Event], task: str) -> list[Event]:
    """What each other task does next: that it may have done already. Nothing where tasks are not told."""
    found: dict[str, Event] = {}
    for event in ahead if task else ():
        if event.counts and event.task != task:
            found.setdefault(event.task, event)
    return [event for event in found.values() if event.pfn is not None and event.pages]
