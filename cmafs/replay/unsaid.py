"""What a log leaves unsaid up to 5.12: how many pages a release gives back.

``cma_release(page …)`` names a page and no number (``mm/cma.c:cma_release()@v5.10``; 5.13 prints the count).
The replay gives back the whole buffer, as drivers do. Where that cannot have been, what was left of it is
still in use: debugfs's ``free`` gives back the first pages of a buffer and keeps the others.

Positions are pfns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from cmafs.lib.intervals import Interval, union, without
from cmafs.mm.cma_areas import Cma
from cmafs.replay.addresses import Addresses
from cmafs.replay.machine import occupy, used_in, vacate

#: Releases that are remembered, the newest.
MAX_REGIONS = 256


class Unsaid:
    """Buffers that were given back by releases without a number, and what is believed to be left of them.

    ``addresses`` know what is left as a buffer without an address.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        #: (area, first pfn, end) of what was given back, the newest last.
        self._regions: deque[tuple[Cma, int, int]] = deque(maxlen=MAX_REGIONS)
        #: What is left: first pfn -> (area, end), the newest last.
        self._rests: dict[int, tuple[Cma, int]] = {}
        #: Whether anything was in doubt ever.
        self.doubt = False

    def released(self, cma: Cma, start: int, end: int) -> None:
        """A buffer was given back, all of it or not."""
        self.doubt = True
        self._rests.pop(start, None)
        self._regions.append((cma, start, end))

    def doubts(self, cma: Cma, start: int, end: int) -> bool:
        """Whether some of these pages may not have been given back."""
        return any(owner is cma and low < end and start < high for owner, low, high in self._regions)

    def keep(self, cma: Cma, start: int, end: int) -> None:
        """Pages are in use that were thought to be given back."""
        self._rests[start] = cma, end
        self._addresses.left(start, end - start)

    def _forget(self, start: int) -> None:
        self._rests.pop(start, None)
        self._addresses.dropped(start, start + 1)

    def listed(self, cma: Cma, holes: Iterable[Interval]) -> None:
        """An area is as a list of its holes (pages, bit) says."""
        base, end = cma.base_pfn, cma.ranges[-1].end_pfn
        starts = ((base + (bit << cma.order_per_bit), pages) for pages, bit in holes)
        free = union((start, start + pages) for start, pages in starts)
        for low, high in free:
            vacate(cma, used_in(cma, low, min(high, end)))
            self._addresses.dropped(low, high)
        for piece in list(without([(base, end)], free)):
            for low, high in occupy(cma, *piece):
                self.keep(cma, low, high)
        self._regions.clear()

    # what may have been so, for one allocation

    def kept(self, cma: Cma) -> Iterator[None]:
        """What is left of ever more buffers is in use, the newest first; none of it once asked for more."""
        taken: list[Interval] = []
        for owner, start, end in reversed(self._regions):
            pieces = occupy(cma, start + 1, end) if owner is cma and end - start > 1 else []
            taken += pieces
            for low, high in pieces:
                self.keep(cma, low, high)
            if pieces:
                yield
        for low, _ in taken:
            self._forget(low)
        vacate(cma, taken)

    def before(self, cma: Cma, pfn: int, count: int, limit: int) -> bool:
        """What lies at ``pfn`` is left of a buffer, up to ``limit``; False if it is not."""
        for owner, start, end in reversed(self._regions):
            low, high = max(pfn, start + 1), min(end, limit)
            if owner is cma and low < min(high, pfn + count):
                for first, last in occupy(cma, low, high):
                    self.keep(cma, first, last)
                    return True
        return False

    def gone(self, cma: Cma) -> Iterator[None]:
        """Nothing is left of ever more buffers, the oldest first; it is back once asked for more."""
        given: list[Interval] = []
        for start, (owner, end) in [*self._rests.items()]:
            if owner is cma and (used := used_in(cma, start, end)):
                self._forget(start)
                vacate(cma, used)
                given += used
                yield
        for low, high in given:
            for first, last in occupy(cma, low, high):
                self.keep(cma, first, last)
