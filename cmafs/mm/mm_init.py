"""From memblock to the page allocator (``mm/mm_init.c``, ``mm/page_alloc.c``).

Positions are pfns, sizes pages.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmafs.abi.mm import MmAbi
from cmafs.lib.intervals import length, union, within, without
from cmafs.mm.buddy import free_range
from cmafs.mm.mmzone import MIGRATE_CMA, MIGRATE_MOVABLE, MIGRATE_TYPES, Memory, MemoryLayout, Zone
from cmafs.mm.page_owner import PageOwners
from cmafs.mm.watermark import init_per_zone_wmark_min


def mm_init(layout: MemoryLayout, abi: MmAbi) -> Memory:
    """``free_area_init()`` and ``memblock_free_all()``: zones and page blocks, what is free on the lists."""
    unit = max(layout.max_page_order, layout.pageblock_order)
    start = min(s for s, _ in layout.memory) >> unit << unit
    end = -(-max(e for _, e in layout.memory) >> unit << unit)
    zones = [
        Zone(i, span, layout.max_page_order, length(within(layout.memory, span.start_pfn, span.end_pfn)))
        for i, span in enumerate(layout.zones)
    ]
    blocks = bytearray(bytes((MIGRATE_MOVABLE,)) * ((end - start) >> layout.pageblock_order))
    memory = Memory(layout, abi, zones, start, blocks, PageOwners(layout.pageblock_order))
    present = sum(zone.present_pages for zone in zones)
    memory.page_group_by_mobility_disabled = present < memory.pageblock_nr_pages * MIGRATE_TYPES
    memblock_free_all(memory)
    init_per_zone_wmark_min(memory)
    return memory


def memblock_free_all(memory: Memory) -> None:
    """``memblock_free_all()``: hands the free ranges to the buddy lists, lowest first."""
    ranges = tuple(without(sorted(memory.layout.memory), union(memory.layout.reserved)))
    tail = memory.abi.boot_frees_to_tail
    for zone in memory.zones:
        for start, end in within(ranges, zone.start_pfn, zone.end_pfn):
            free_range(memory, zone, start, end, tail)
            zone.managed_pages += end - start
            memory.vmstat.count_vm_event("pgfree", end - start)


def init_cma_reserved_range(memory: Memory, start_pfn: int, end_pfn: int) -> None:
    """``init_cma_reserved_pageblock()`` of an area's page blocks: they become MIGRATE_CMA, their pages free.

    Pages that an overlapping area has handed over before are counted once more, as the kernel does, but not
    freed a second time.
    """
    zone = memory.zone_of(start_pfn)
    fresh = list(_not_cma(memory, start_pfn, end_pfn))
    memory.set_pageblock_migratetype(start_pfn, end_pfn, MIGRATE_CMA)
    for low, high in fresh:
        free_range(memory, zone, low, high)
    pages = end_pfn - start_pfn
    zone.managed_pages += pages
    zone.cma_pages += pages
    memory.totalcma_pages += pages
    memory.vmstat.count_vm_event("pgfree", pages)
    init_per_zone_wmark_min(memory)


def free_reserved_range(memory: Memory, start_pfn: int, end_pfn: int) -> None:
    """``free_reserved_page()`` of every page of an area that could not be activated."""
    while start_pfn < end_pfn:
        zone = memory.zone_of(start_pfn)
        stop = min(end_pfn, zone.end_pfn)
        free_range(memory, zone, start_pfn, stop)
        zone.managed_pages += stop - start_pfn
        memory.vmstat.count_vm_event("pgfree", stop - start_pfn)
        start_pfn = stop
    init_per_zone_wmark_min(memory)


def _not_cma(memory: Memory, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a range, in whole page blocks, that are not CMA yet."""
    step = end - start if memory.one_migratetype(start, end) else memory.pageblock_nr_pages
    cma = (pfn for pfn in range(start, end, step) if memory.pageblock_migratetype(pfn) == MIGRATE_CMA)
    return without([(start, end)], ((pfn, pfn + step) for pfn in cma))
