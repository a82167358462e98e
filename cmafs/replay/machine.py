"""Areas by themselves: the allocator over a memory that holds nothing else, at the place the board has them.

What a replay runs on. Nobody else uses the pages, so that what happens follows from the area alone; where a
board found a range busy, or used before the capture, the replay says so with ``pinned()`` and ``occupy()``.

Positions are pfns, counts pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cmafs.abi import kernel_abi
from cmafs.lib.clock import ManualClock
from cmafs.lib.intervals import union, within, without
from cmafs.lib.math import roundup
from cmafs.lib.printk import Printk
from cmafs.mm.cma import CmaAreas, cma_alloc, cma_init_reserved_areas, cma_init_reserved_mem, cma_release
from cmafs.mm.cma_areas import Cma, CmaMemrange
from cmafs.mm.contig_alloc import alloc_contig_range
from cmafs.mm.mm_init import mm_init
from cmafs.mm.mmzone import MemoryLayout, ZoneSpan
from cmafs.replay.survey import Geometry
from cmafs.sim.workload import pin_pfn, unpin_pfn

#: Orders of a page block and of the largest free block with pages of 4 KiB.
_PAGEBLOCK_ORDER, _MAX_PAGE_ORDER = 9, 10
#: Busy places that one allocation is believed to pass by.
MAX_PASSED_BY = 1 << 14


#: Pages from the first to the last area: 16 TiB, as of a machine that is booted.
MAX_SPAN = 1 << 32
#: Pages of all areas together: 4 TiB, since each of them is a bit of a bitmap.
MAX_PAGES = 1 << 30


class TooLarge(ValueError):
    """More than can be simulated: one line for the user."""

    def __init__(self, areas: str, pages: int, most: int) -> None:
        most_shown = f"{most:#x} ({most >> 28} TiB)"
        super().__init__(f"{areas} {pages:#x} pages; at most {most_shown} can be simulated")


def bare_areas(kernel: str, geometries: Iterable[Geometry]) -> CmaAreas:
    """Areas of a kernel, activated, with their used pages in use. Raises UnknownKernel, TooLarge."""
    wanted = sorted(geometries, key=lambda area: area.base_pfn)
    if (span := wanted[-1].end_pfn - wanted[0].base_pfn) > MAX_SPAN:
        raise TooLarge("areas that span", span, MAX_SPAN)
    if (pages := sum(area.count for area in wanted)) > MAX_PAGES:
        raise TooLarge("areas of", pages, MAX_PAGES)
    abi = kernel_abi(kernel)
    areas = CmaAreas(Printk(ManualClock(), abi=abi.printk), abi.cma, max_areas=len(wanted), min_alignment=1)
    for area in wanted:
        base, size = area.base_pfn << areas.page_shift, area.count << areas.page_shift
        cma_init_reserved_mem(areas, base, size, area.order_per_bit, area.name or "")
    spans = tuple((area.base_pfn, area.end_pfn) for area in wanted)
    unit = 1 << _MAX_PAGE_ORDER
    memory = tuple(union((low & -unit, roundup(high, unit)) for low, high in spans))
    layout = MemoryLayout(
        page_shift=areas.page_shift,
        pageblock_order=_PAGEBLOCK_ORDER,
        max_page_order=_MAX_PAGE_ORDER,
        zones=(ZoneSpan("Normal", memory[0][0], memory[-1][1]),),
        memory=memory,
        reserved=spans,
    )
    cma_init_reserved_areas(areas, mm_init(layout, abi.mm))
    for cma, area in zip(areas, wanted, strict=True):
        for low, high in area.used:
            occupy(cma, low, high)
    return areas


def geometry(cma: Cma) -> Geometry:
    """What a booted machine's area is, with the pages that are in use now."""
    cmr = cma.ranges[0]
    return Geometry(cma.name, cmr.base_pfn, cmr.count, cma.order_per_bit, tuple(_used(cma, cmr)))


def _used(cma: Cma, cmr: CmaMemrange) -> Iterator[tuple[int, int]]:
    for low, high in cmr.bitmap.runs():
        yield cmr.base_pfn + (low << cma.order_per_bit), cmr.base_pfn + (high << cma.order_per_bit)


def holds(cma: Cma, start: int, end: int) -> bool:
    """Whether pages lie in an area."""
    cmr = cma.find_range(start)
    return cmr is not None and end <= cmr.end_pfn


def used_in(cma: Cma, start: int, end: int) -> list[tuple[int, int]]:
    """What of ``[start, end)`` is in use."""
    cmr = cma.find_range(start)
    return [] if cmr is None else list(within(_used_near(cma, cmr, start, end), start, end))


def _used_near(cma: Cma, cmr: CmaMemrange, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The runs in use around ``[start, end)``, from the holes there."""
    order, base = cma.order_per_bit, cmr.base_pfn
    holes = []
    for low, high in cmr.bitmap.holes.at_least(1, (start - base) >> order):
        if base + (low << order) >= end:
            break
        holes.append((base + (low << order), base + (high << order)))
    return without([(start, end)], holes)


def in_use(cma: Cma, start: int, end: int) -> bool:
    """Whether all pages of ``[start, end)`` are an area's and in use."""
    return holds(cma, start, end) and used_in(cma, start, end) == [(start, end)]


def occupy(cma: Cma, start: int, end: int) -> list[tuple[int, int]]:
    """What is free of ``[start, end)`` comes into use, without a search; what that was."""
    cmr = cma.find_range(start)
    assert cmr is not None
    taken = list(without([(start, end)], used_in(cma, start, end)))
    for low, high in taken:
        alloc_contig_range(cma.areas.memory, low, high)
        first, behind = ((pfn - cmr.base_pfn) >> cma.order_per_bit for pfn in (low, high))
        cmr.bitmap.set(first, behind - first)
        cma.available_count -= high - low
    return taken


def vacate(cma: Cma, ranges: Iterable[tuple[int, int]]) -> None:
    """Pages in use become free."""
    for low, high in ranges:
        cma_release(cma, low, high - low)


@contextmanager
def pinned(cma: Cma, pfns: Iterable[int]) -> Iterator[None]:
    """The first page of each range that the board found busy cannot move, here neither."""
    memory = cma.areas.memory
    held = [pfn for pfn in dict.fromkeys(pfns) if holds(cma, pfn, pfn + 1) and not used_in(cma, pfn, pfn + 1)]
    for pfn in held:
        pin_pfn(memory, pfn)
    try:
        yield
    finally:
        for pfn in held:
            unpin_pfn(memory, pfn)


@contextmanager
def passed_by(cma: Cma, count: int, align: int, times: int) -> Iterator[None]:
    """So many places that would do, the first, are busy: an allocation passes one after the other by."""
    memory = cma.areas.memory
    held: list[int] = []
    try:
        for _ in range(min(times, MAX_PASSED_BY)):
            pfn = cma_alloc(cma, count, align, no_warn=True)
            if pfn is None:
                break
            cma_release(cma, pfn, count)
            pin_pfn(memory, pfn)
            held.append(pfn)
        yield
    finally:
        for pfn in held:
            unpin_pfn(memory, pfn)
