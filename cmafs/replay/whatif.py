"""What if the pool were another: a capture's requests, made in their order, each going where it then goes.

Positions are pfns, counts pages.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable

from cmafs.mm.cma import CmaAreas, cma_alloc, cma_release
from cmafs.mm.cma_areas import Cma
from cmafs.replay.capture import ALLOC, Event
from cmafs.replay.session import MAX_DIVERGED, Divergence, Outcome, shown
from cmafs.replay.survey import Unseen


class WhatIf:
    """Requests over ``areas``, which need not be the board's; ``unseen`` as Replay has it.

    A request that failed on the board is given back at once where it finds room: nobody knows how long its
    caller would have kept it. ``area_of`` says whose turn it is where there are several areas.
    """

    def __init__(self, areas: CmaAreas, unseen: Iterable[Unseen] = ()) -> None:
        self.areas = areas
        self.outcome = Outcome()
        self.peak = 0
        self._live: dict[int, tuple[Cma, int | None, int]] = {}
        self._starts: list[int] = []
        for one in sorted(unseen, key=lambda unseen: unseen.start):
            if one.since < 0:
                self._allocate(self.areas[0], one.start, one.end - one.start, 0)

    def run(self, events: Iterable[Event], until_failure: bool = False) -> Outcome:
        """Make all requests; ``until_failure``: only up to the first that finds no room."""
        for event in events:
            if not event.counts or not event.count:
                continue
            self.outcome.events += 1
            if event.kind == ALLOC:
                pfn = self._request(event)
                if pfn is None and until_failure:
                    break
            else:
                self._release(event.pfn, event.count)
                self.outcome.reproduced += 1
        return self.outcome

    def _area(self, event: Event) -> Cma:
        return next((cma for cma in self.areas if cma.name == event.area), self.areas[0])

    def _allocate(self, cma: Cma, recorded: int, count: int, align: int) -> int | None:
        """A buffer that the board has at ``recorded``; where it goes here, None for nowhere."""
        pfn = cma_alloc(cma, count, align, no_warn=True)
        if recorded not in self._live:
            insort(self._starts, recorded)
        self._live[recorded] = cma, pfn, count
        self.peak = max(self.peak, cma.count - cma.available_count)
        return pfn

    def _request(self, event: Event) -> int | None:
        cma = self._area(event)
        assert event.count is not None
        if event.pfn is None:
            pfn = cma_alloc(cma, event.count, event.align, no_warn=True)
            if pfn is not None:
                cma_release(cma, pfn, event.count)
        else:
            pfn = self._allocate(cma, event.pfn, event.count, event.align)
        if pfn == event.pfn:
            self.outcome.reproduced += 1
        else:
            self._differs(cma, event, pfn)
        return pfn

    def _differs(self, cma: Cma, event: Event, pfn: int | None) -> None:
        if len(self.outcome.diverged) >= MAX_DIVERGED:
            self.outcome.more += 1
            return
        if pfn is None:
            holes = f"{cma.available_count} pages are free, the longest hole has {cma.maxchunk()}"
            why = f"no room for {event.count} pages in this pool: {holes}"
        elif event.pfn is None:
            why = f"{event.count} pages find room in this pool"
        else:
            why = "this pool is laid out otherwise"
        recorded = shown(event.pfn, event.error)
        self.outcome.diverged.append(Divergence(event.line, recorded, shown(pfn), why))

    def _release(self, recorded: int | None, count: int) -> None:
        """Pages of the board's, perhaps only a part of a buffer or of several, go back here."""
        while recorded is not None and count > 0:
            index = bisect_right(self._starts, recorded) - 1
            start = self._starts[index] if index >= 0 else -1
            cma, pfn, length = self._live.get(start, (None, None, 0))
            if cma is None or start + length <= recorded:
                return
            offset = recorded - start
            part = min(count, length - offset)
            del self._live[start], self._starts[index]
            if pfn is not None:
                cma_release(cma, pfn + offset, part)
            for low, size in ((0, offset), (offset + part, length - offset - part)):
                if size:
                    insort(self._starts, start + low)
                    self._live[start + low] = cma, None if pfn is None else pfn + low, size
            recorded, count = recorded + part, count - part
