"""What if the pool were another: a capture's requests, made in their order, each going where it then goes.

Positions are pfns, counts pages.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cmafs.replay.capture import ALLOC, Event
from cmafs.replay.pool import Pool
from cmafs.replay.session import MAX_DIVERGED, Divergence, Outcome, shown
from cmafs.replay.survey import Unseen


@dataclass(eq=False)
class _Buffer:
    """One allocation: ``pfn`` its first page here, None if there was no room; ``left`` of its ``count``."""

    pool: Pool
    pfn: int | None
    count: int
    left: int

    def give_back(self, offset: int, count: int) -> None:
        """Pages of it go; where a bit stands for several pages, only with the last of them."""
        self.left -= count
        if self.pfn is None:
            return
        if not self.pool.order_per_bit:
            self.pool.release(self.pfn + offset, count)
        elif not self.left:
            self.pool.release(self.pfn, self.count)


class WhatIf:
    """Requests over ``pools``, which need not be the board's; ``unseen`` as Replay has it.

    ``peak``: pages in use at most; ``reach``: the pfn behind the last one ever used; ``refused``: the first
    event that found no room.

    A request that failed on the board is given back at once where it finds room: nobody knows how long its
    caller would have kept it.
    """

    def __init__(self, pools: Sequence[Pool], unseen: Iterable[Unseen] = ()) -> None:
        self.pools = pools
        self.outcome = Outcome()
        self.peak = self.reach = 0
        self.refused: Event | None = None
        #: Where a piece of a buffer begins on the board -> buffer, where in it, pages.
        self._live: dict[int, tuple[_Buffer, int, int]] = {}
        self._starts: list[int] = []
        for one in sorted(unseen, key=lambda unseen: unseen.start):
            if one.since < 0:
                pages = one.end - one.start
                if self._allocate(self.pools[0], one.start, pages, 0) is None:
                    self.refused = self.refused or Event(one.until, ALLOC, None, one.start, pages)

    def run(self, events: Iterable[Event], until_failure: bool = False) -> Outcome:
        """Make all requests; ``until_failure``: only up to the first that finds no room."""
        for event in events:
            if not event.counts or not event.pages:
                continue
            self.outcome.events += 1
            if event.kind == ALLOC:
                pfn = self._request(event)
                if pfn is None and until_failure:
                    break
            else:
                self._release(event.pfn, event.pages)
                self.outcome.reproduced += 1
        return self.outcome

    def _pool(self, event: Event) -> Pool:
        return next((pool for pool in self.pools if pool.name == event.area), self.pools[0])

    def _allocate(self, pool: Pool, recorded: int, count: int, align: int) -> int | None:
        """A buffer that the board has at ``recorded``; where it goes here, None for nowhere."""
        pfn = pool.alloc(count, align)
        if recorded not in self._live:
            insort(self._starts, recorded)
        self._live[recorded] = _Buffer(pool, pfn, count, count), 0, count
        if pfn is not None:
            self.peak = max(self.peak, pool.count - pool.available_count)
            self.reach = max(self.reach, pfn + count)
        return pfn

    def _request(self, event: Event) -> int | None:
        pool = self._pool(event)
        assert event.pages is not None
        if event.pfn is None:
            pfn = pool.alloc(event.pages, event.align)
            if pfn is not None:
                pool.release(pfn, event.pages)
                self.reach = max(self.reach, pfn + event.pages)
        else:
            pfn = self._allocate(pool, event.pfn, event.pages, event.align)
        if pfn is None:
            self.refused = self.refused or event
        if pfn == event.pfn:
            self.outcome.reproduced += 1
        else:
            self._differs(pool, event, pfn)
        return pfn

    def _differs(self, pool: Pool, event: Event, pfn: int | None) -> None:
        if len(self.outcome.diverged) >= MAX_DIVERGED:
            self.outcome.more += 1
            return
        if pfn is None:
            holes = f"{pool.available_count} pages are free, the longest hole has {pool.maxchunk()}"
            why = f"no room for {event.pages} pages in this pool: {holes}"
        elif event.pfn is None:
            why = f"{event.pages} pages find room in this pool"
        else:
            why = "this pool is laid out otherwise"
        recorded = shown(event.pfn, event.error)
        self.outcome.diverged.append(Divergence(event.line, recorded, shown(pfn), why))

    def _release(self, recorded: int | None, count: int) -> None:
        """Pages of the board's, perhaps only a part of a buffer or of several, go back here."""
        while recorded is not None and count > 0:
            index = bisect_right(self._starts, recorded) - 1
            start = self._starts[index] if index >= 0 else -1
            buffer, begin, length = self._live.get(start, (None, 0, 0))
            if buffer is None or start + length <= recorded:
                return
            offset = recorded - start
            part = min(count, length - offset)
            del self._live[start], self._starts[index]
            buffer.give_back(begin + offset, part)
            for low, size in ((0, offset), (offset + part, length - offset - part)):
                if size:
                    insort(self._starts, start + low)
                    self._live[start + low] = buffer, begin + low, size
            recorded, count = recorded + part, count - part
