"""``alloc_contig_range()``: isolate, migrate, take, undo (``mm/page_alloc.c``). Positions are pfns, sizes
pages.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from cmafs.mm.boot_pages import settle
from cmafs.mm.buddy import carve
from cmafs.mm.gfp import GFP_MOVABLE_BIT, GFP_USER
from cmafs.mm.migrate import FAILING, LOCKED, MOVABLE, SKIPPED, all_movable, movability, move_pages
from cmafs.mm.mmzone import Memory, Zone
from cmafs.mm.page_alloc import OutOfMemory, alloc_pages_bulk, free_contiguous, free_unref_pages
from cmafs.mm.page_isolation import start_isolate_page_range, undo_isolate_page_range
from cmafs.mm.page_owner import TAG_SHIFT, Page, pfns_of
from cmafs.mm.pcp import drain_all_pages
from cmafs.mm.vmscan import reclaim_clean_pages_from_list
from cmafs.mm.walk import (
    MR_CONTIG_RANGE,
    step,
    step_isolate,
    step_migrate,
    trace_migrate_pages,
    trace_test_pages_isolated,
)

#: Pages that are isolated and migrated together (COMPACT_CLUSTER_MAX).
COMPACT_CLUSTER_MAX = 32
#: How often ``__alloc_contig_migrate_range()`` tries a batch that does not move.
MIGRATE_TRIES = 5


class ContigBusy(OSError):
    """EBUSY: a page of the range cannot move.

    ``pfn``: that page. ``until``: every range that starts at or below it and reaches beyond it fails as well,
    and moves nothing more; behind ``pfn`` where all pages in between are held, too.
    ``locked``: it is mlocked or pinned, in a dialect that calls both a lock. ``pfns_busy``: the range of
    ``alloc_contig_range: [%lx, %lx) PFNs busy`` (pfns, end exclusive) on kernels that print it, else None.
    """

    def __init__(self, pfn: int, until: int, locked: bool, pfns_busy: tuple[int, int] | None) -> None:
        super().__init__(errno.EBUSY, f"pfn {pfn:#x} cannot move")
        self.pfn = pfn
        self.until = until
        self.locked = locked
        self.pfns_busy = pfns_busy


def alloc_contig_range(memory: Memory, start: int, end: int) -> None:
    """``alloc_contig_range()``: takes ``[start, end)`` of one zone, moving out whoever uses it.

    Where nobody does, isolating and undoing cancel out and the range is carved out of the free lists at once
    (same lists and counters; positions inside a list may differ). Raises ContigBusy, or OutOfMemory when
    there is no room to move pages to; part of them may have moved by then. Source:
    ``mm/page_alloc.c:alloc_contig_range()@v6.12``.
    """
    zone = memory.zone_of(start)
    if memory.walk is not None:
        step(memory, 0, f"alloc_contig_range({start:#x}, {end:#x})")
    if memory.pcp is not None:
        drain_all_pages(memory)
    if memory.walk is not None or memory.owners.any_in(start, end) or not carve(zone, start, end):
        alloc_contig_range_slowly(memory, zone, start, end)
    if memory.trace is not None:
        trace_test_pages_isolated(memory, start, end, end)
    memory.cma_allocated += end - start


def alloc_contig_range_slowly(memory: Memory, zone: Zone, start: int, end: int) -> None:
    """The definition of ``alloc_contig_range()``: every step, also where nobody uses the range."""
    unit = memory.layout.max_page_order if memory.abi.isolates_max_order else memory.pageblock_order
    unit = max(unit, memory.pageblock_order)
    low = max(start >> unit << unit, zone.start_pfn)
    high = min(-(-end >> unit << unit), zone.end_pfn)
    migratetype = memory.pageblock_migratetype(start)
    start_isolate_page_range(memory, zone, low, high)
    step_isolate(memory, "start", low, high, migratetype)
    try:
        blocker = _migrate_range(memory, start, end)
        if blocker is not None or not carve(zone, start, end):
            busy = _busy(memory, zone, start, end, blocker)
            trace_test_pages_isolated(memory, start, end, busy.pfn)
            step(memory, 1, f"test_pages_isolated({start:#x}, {end:#x}): -EBUSY, {busy.pfn:#x} is in the way")
            raise busy
        step(memory, 1, f"isolate_freepages_range({start:#x}, {end:#x}): {end - start} pages taken")
    finally:
        step_isolate(memory, "undo", low, high, migratetype)
        undo_isolate_page_range(memory, zone, low, high, migratetype)


def _migrate_range(memory: Memory, start: int, end: int) -> tuple[int, int] | None:
    """``__alloc_contig_migrate_range()``: (pfn, kind of hindrance) where migration failed, None if it went
    through.

    Raises OutOfMemory.
    """
    pages, blocker = _pages_to_move(memory, start, end)
    pages = _drop_clean(memory, pages)
    reclaimed = memory.vmstat.events.get("pgsteal_file", 0)
    segments = alloc_pages_bulk(memory, GFP_USER | GFP_MOVABLE_BIT, len(pages), partial=True)
    got = sum(n for _, _, _, n in segments)
    moving = pages[:got]
    if memory.walk is not None:
        reclaimed = memory.vmstat.events.get("pgsteal_file", 0) - reclaimed
        step_migrate(memory, (start, end), moving, segments, reclaimed)
    move_pages(memory, moving, pfns_of(segments, got))
    free_unref_pages(memory, [pfn for pfn, _ in moving])
    failed = MIGRATE_TRIES if blocker is not None and got == len(pages) else 0
    trace_migrate_pages(memory, got, failed, MR_CONTIG_RANGE)
    if got < len(pages):
        tries = 1 if memory.abi.enomem_ends_migration else MIGRATE_TRIES
        memory.vmstat.count_vm_event("pgmigrate_fail", tries * min(len(pages) - got, COMPACT_CLUSTER_MAX))
        raise OutOfMemory(f"{len(pages)} pages to move, room for {got}")
    if blocker is not None:
        memory.vmstat.count_vm_event("pgmigrate_fail", MIGRATE_TRIES)
    return blocker


def _drop_clean(memory: Memory, pages: list[Page]) -> list[Page]:
    kept = reclaim_clean_pages_from_list(memory, pages)
    if len(kept) < len(pages):
        step(
            memory,
            2,
            f"reclaim_clean_pages_from_list(): {len(pages) - len(kept)} pages of page cache dropped",
        )
    return kept


def _pages_to_move(memory: Memory, start: int, end: int) -> tuple[list[Page], tuple[int, int] | None]:
    """The pages of a range that move, and (pfn, hindrance) of the one at which that ends."""
    used = memory.owners.used_in(start, end)
    if any(start <= pfn < end for pfn in memory.pins):
        return _until_failing(memory, used)
    pages = list(used)
    return (pages, None) if all_movable(memory, pages) else _until_failing(memory, pages)


def _until_failing(memory: Memory, pages: Iterable[Page]) -> tuple[list[Page], tuple[int, int] | None]:
    """The pages that move before the scan ends, and (pfn, hindrance) of the page that ended it.

    The scan isolates batches; the batch in which a page fails still moves, what lies behind it is not looked
    at.
    """
    occupants = memory.owners.occupants
    moving: list[Page] = []
    blocker = None
    isolated = 0
    for pfn, tag in pages:
        kind = movability(memory, pfn, occupants[tag >> TAG_SHIFT])
        if kind in (FAILING, LOCKED):
            blocker = blocker or (pfn, kind)
        elif kind == MOVABLE:
            moving.append((pfn, tag))
        else:
            continue
        isolated += 1
        if isolated == COMPACT_CLUSTER_MAX:
            if blocker:
                break
            isolated = 0
    return moving, blocker


def _busy(memory: Memory, zone: Zone, start: int, end: int, blocker: tuple[int, int] | None) -> ContigBusy:
    """``test_pages_isolated()`` says no: who is to blame, and the line that older kernels print."""
    line = None
    if memory.abi.reports_pfns_busy:
        found = zone.find_free(start)
        line = (found[0] if found else start, end)
    pfn, kind = blocker or (_last_in_use(zone, end), SKIPPED)
    locked = kind == LOCKED or (memory.abi.mlock_stops_migration and pfn in memory.pins)
    return ContigBusy(pfn, pfn if blocker is None else _held_until(memory, zone, pfn), locked, line)


def _held_until(memory: Memory, zone: Zone, pfn: int) -> int:
    """The last page from ``pfn`` on where a scan begins with a batch of pages that all fail."""
    occupants = memory.owners.occupants
    end = pfn
    for held, tag in memory.owners.used_in(pfn, zone.end_pfn):
        if held != end or movability(memory, held, occupants[tag >> TAG_SHIFT]) not in (FAILING, LOCKED):
            break
        end += 1
    return max(pfn, end - COMPACT_CLUSTER_MAX)


def _last_in_use(zone: Zone, end: int) -> int:
    """The highest page below ``end`` that is not free."""
    pfn = end - 1
    while (found := zone.find_free(pfn)) is not None:
        head, order, migratetype = found
        run = zone.top_area[migratetype].find(pfn) if order == zone.max_page_order else None
        pfn = (run.start if run else head) - 1
    return pfn


def free_contig_range(memory: Memory, start: int, nr_pages: int) -> None:
    """``free_contig_range()``: gives pages back to the free lists of their page blocks, ascending."""
    free_contiguous(memory, start, start + nr_pages)
    memory.cma_allocated -= nr_pages
    settle(memory)
