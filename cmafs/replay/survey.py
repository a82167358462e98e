"""What a capture tells of the time before it and of its gaps: areas, and pages that were in use unseen.

A capture seldom begins with an empty area. A release whose allocation is not in it tells that its pages were
in use all the while; where no other machine is given, all pfns together tell where the area lies. One pass
over the events gathers this, before the replay makes a second one.

Positions are pfns, counts pages.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from cmafs.abi import UnknownKernel, kernel_abi
from cmafs.lib.bitmap import Holes
from cmafs.lib.intervals import Interval
from cmafs.lib.math import round_up
from cmafs.replay.capture import ALLOC, BUSY, LAYOUTS, LOST, RELEASE, Event, Facts

#: Pages between two pfns of one unnamed area, at most: 64 MiB with pages of 4 KiB.
GAP = 1 << 14
#: Areas begin and end at a multiple of so many pages at least: 4 MiB, the strictest unit with 4 KiB pages.
UNIT = 1 << 10
#: Two areas have no block of so many pages in common.
BLOCK = 1 << 9
#: Releases without an allocation that are kept.
MAX_UNSEEN = 1 << 16

_ALL = 1 << 52

#: First page, end, and what the area is called.
Span: TypeAlias = "tuple[int, int, str | None]"


@dataclass(frozen=True)
class Geometry:
    """An area: where it lies, how many pages one bit stands for, which pages something else uses."""

    name: str | None
    base_pfn: int
    count: int
    order_per_bit: int = 0
    used: tuple[Interval, ...] = ()

    @property
    def end_pfn(self) -> int:
        """The pfn after the last page."""
        return self.base_pfn + self.count


@dataclass(frozen=True)
class Unseen:
    """Pages ``[start, end)`` whose allocation is missing, in use from line ``since`` to ``until``."""

    start: int
    end: int
    since: int
    until: int


@dataclass(eq=False)
class Survey:
    """The outcome: ``spans`` name -> (lowest pfn, end); ``points`` the same without a name, first pfn -> end;
    ``totals`` name -> pages, where the kernel says so; ``busy_without_retry``: a failure was EBUSY at once.
    """

    events: int = 0
    spans: dict[str | None, Interval] = field(default_factory=dict)
    points: dict[int, int] = field(default_factory=dict)
    totals: dict[str | None, int] = field(default_factory=dict)
    unseen: list[Unseen] = field(default_factory=list)
    busy_without_retry: bool = False

    def kernel(self, facts: Facts) -> str:
        """A kernel that prints what this capture has: its own where it is told and known."""
        if facts.release and not facts.traced:
            with suppress(UnknownKernel):
                return kernel_abi(facts.release).release
        if self.busy_without_retry and facts.layout == "errno":
            return "6.18"  # EBUSY for no hole came in 6.15, the counts of cma_alloc_start in 6.18
        return "5.10" if facts.uncounted and not facts.layout else LAYOUTS[facts.layout]

    def geometries(self) -> list[Geometry]:
        """The smallest areas that hold everything seen, by address.

        Nothing went outside of what was seen, so that these pages are taken to be in use. A larger area would
        let no allocation land elsewhere: first fit chose the lowest place, and what fitted nowhere in all of
        the area fits nowhere in a part.
        """
        named = [(low, end, name) for name, (low, end) in self.spans.items() if name is not None]
        return whole_areas([*named, *((low, end, None) for low, end in self._unnamed())], UNIT, self.totals)

    def _unnamed(self) -> Iterator[Interval]:
        """Spans of what carries no name: a gap of GAP pages ends one."""
        low = end = -1
        for start, stop in sorted(self.points.items()):
            if low >= 0 and start > end + GAP:
                yield low, end
                low = -1
            low, end = (start if low < 0 else low), max(stop, end)
        if low >= 0:
            yield low, end


def whole_areas(
    spans: Iterable[Span], unit: int = BLOCK, totals: Mapping[str | None, int] = MappingProxyType({})
) -> list[Geometry]:
    """The areas of spans that were seen, by address, each of whole units, and of its pages in ``totals``."""
    made: list[Geometry] = []
    apart = list(_apart(spans))
    for index, (low, end, name) in enumerate(apart):
        floor = made[-1].end_pfn if made else 0
        ceiling = apart[index + 1][0] & -BLOCK if index + 1 < len(apart) else _ALL
        base = max(low & -unit, floor)
        last = min(max(round_up(end, unit), base + round_up(totals.get(name, 0), BLOCK)), ceiling)
        outside = tuple((start, stop) for start, stop in ((base, low), (end, last)) if start < stop)
        made.append(Geometry(name, base, last - base, 0, outside))
    return made


def _apart(spans: Iterable[Span]) -> Iterator[Span]:
    """Spans by address; those that have a block in common are one, by its first name."""
    low, end, name = -1, -1, None
    for start, stop, called in sorted(spans, key=lambda span: span[:2]):
        if start < round_up(end, BLOCK):
            end = max(end, stop)
            continue
        if low >= 0:
            yield low, end, name
        low, end, name = start, stop, called
    if low >= 0:
        yield low, end, name


class _Occupancy:
    """Which pages are in use in reality, and which ever were."""

    def __init__(self) -> None:
        self._free, self._never = Holes(_ALL), Holes(_ALL)
        self._gap: int | None = None

    def add(self, event: Event) -> list[Unseen]:
        """Follow an event; what a release tells of pages whose allocation is missing."""
        unseen: list[Unseen] = []
        if event.kind == LOST:
            self._gap = event.line
        elif event.counts and event.pfn is not None and event.pages:
            if event.kind == RELEASE:
                unseen += self._unseen(event.pfn, event.pfn + event.pages, event.line)
            self._take(event.pfn, event.pfn + event.pages)
            if event.kind == RELEASE:
                self._free.give(event.pfn, event.pages)
        return unseen

    def _unseen(self, start: int, end: int, line: int) -> Iterator[Unseen]:
        """Pages that go back and are not in use: they were since the last gap, or since before the capture.

        Of pages that were in use once, in a capture without a gap, it tells nothing: they went back twice.
        """
        for low, high in list(_pieces(self._free, start, end)):
            never = next(_pieces(self._never, low, high), None) == (low, high)
            if self._gap is not None:
                yield Unseen(low, high, self._gap, line)
            elif never:
                yield Unseen(low, high, -1, line)

    def _take(self, start: int, end: int) -> None:
        """Pages come into use; some may be already, their release being lost."""
        for holes in (self._free, self._never):
            for low, high in list(_pieces(holes, start, end)):
                holes.take(low, high - low)


def _pieces(holes: Holes, start: int, end: int) -> Iterator[Interval]:
    for low, high in holes.at_least(1, start):
        if low >= end:
            return
        yield max(low, start), min(high, end)


def survey(events: Iterable[Event]) -> Survey:
    """Go through the events of a capture once."""
    found, real = Survey(), _Occupancy()
    retried = False
    for event in events:
        found.events += event.counts
        if event.total and event.area:
            found.totals[event.area] = event.total
        if event.counts and event.pfn is not None and event.pages:
            _widen(found, event.area, event.pfn, event.pfn + event.pages)
        if event.kind == BUSY:
            retried = True
        elif event.kind == ALLOC:
            found.busy_without_retry |= event.error == -errno.EBUSY and not retried
            retried = False
        found.unseen += real.add(event)[: MAX_UNSEEN - len(found.unseen)]
    return found


def _widen(found: Survey, area: str | None, start: int, end: int) -> None:
    """The span of an area, or what carries no name, as far as these pages."""
    if area is None:
        found.points[start] = max(found.points.get(start, 0), end)
        return
    low, high = found.spans.get(area, (start, end))
    found.spans[area] = min(low, start), max(high, end)
