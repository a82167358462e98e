"""``alloc_contig_range()``: isolate, migrate, take, undo (``mm/page_alloc.c``).

Positions are pfns, sizes pages.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from cmafs.mm.boot_pages import settle
from cmafs.mm.buddy import carve, free_contiguous, free_unref_pages
from cmafs.mm.gfp import GFP_MOVABLE_BIT, GFP_USER
from cmafs.mm.migrate import (
    COMPACT_CLUSTER_MAX,
    LOCKED,
    MOVABLE,
    SKIPPED,
    all_movable,
    batches,
    movability,
    move_pages,
)
from cmafs.mm.mmzone import Memory, Zone
from cmafs.mm.page_alloc import OutOfMemory, alloc_pages_bulk
from cmafs.mm.page_isolation import start_isolate_page_range, undo_isolate_page_range
from cmafs.mm.page_owner import TAG_SHIFT, Page, pfns_of
from cmafs.mm.pcp import drain_all_pages
from cmafs.mm.vmscan import reclaim_clean_pages_from_list
from cmafs.mm.walk import (
    MR_CONTIG_RANGE,
    step,
    step_isolate,
    step_migrate,
    test_pages_isolated_event,
    trace_migrate_pages,
)

#: How often ``__alloc_contig_migrate_range()`` tries a batch that does not move.
MIGRATE_TRIES = 5


class ContigBusy(OSError):
    """EBUSY: a page of the range cannot move.

    ``failing``: migrate_pages() failed on a page, which ends the scan, else a page was not even isolated.
    ``pfn``: the first page of that kind if failing, else the last. ``locked``: it is mlocked or pinned, in a
    dialect that calls both a lock.
    """

    def __init__(self, pfn: int, failing: bool, locked: bool) -> None:
        super().__init__(errno.EBUSY, f"pfn {pfn:#x} cannot move")
        self.pfn = pfn
        self.failing = failing
        self.locked = locked


class Scan(NamedTuple):
    """What ``isolate_migratepages_range()`` finds in a range.

    ``pages``: those that move, ascending; ``failing``: (pfn, kind of hindrance) of the first page on which
    migration fails; ``staying``: the last page that is left alone, being pinned or unmovable.
    """

    pages: Sequence[Page] = ()
    failing: tuple[int, int] | None = None
    staying: int | None = None


_NOBODY = Scan()


def alloc_contig_range(memory: Memory, start: int, end: int) -> None:
    """``alloc_contig_range()``: takes ``[start, end)`` of one zone, moving out whoever uses it.

    Where nobody moves, isolating and undoing cancel out: what is free is carved out of the free lists at once
    (same lists and counters; positions inside a list may differ). Raises ContigBusy, or OutOfMemory when
    there is no room to move pages to; part of them may have moved by then.
    Source: ``mm/page_alloc.c:alloc_contig_range()@v6.12``.
    """
    zone = memory.zone_of(start)
    if memory.walk is not None:
        step(memory, 0, f"alloc_contig_range({start:#x}, {end:#x})")
    if memory.pcp is not None:
        drain_all_pages(memory)
    scan = scan_range(memory, start, end) if memory.owners.any_in(start, end) else _NOBODY
    if scan.pages or memory.walk is not None:
        alloc_contig_range_slowly(memory, zone, start, end, scan)
    else:
        if memory.trace is not None or scan.failing is not None:
            _account_calls(memory, end, scan, ())
        _take(memory, zone, start, end, scan)


def alloc_contig_range_slowly(
    memory: Memory, zone: Zone, start: int, end: int, scan: Scan | None = None
) -> None:
    """The definition of ``alloc_contig_range()``: every step, also where nobody moves."""
    with _isolated(memory, zone, start, end):
        scan = scan or scan_range(memory, start, end)
        _account_calls(memory, end, scan, _migrate(memory, start, end, scan.pages))
        _take(memory, zone, start, end, scan)


def migrate_contig_range(memory: Memory, start: int, end: int, tries: int) -> Scan:
    """Moves what so many tries of ``alloc_contig_range()`` move of a range that stays busy; what they find.

    Raises OutOfMemory, which names the first page for which there was no room.
    """
    scan = scan_range(memory, start, end, tries)
    if scan.pages:
        with _isolated(memory, memory.zone_of(start), start, end):
            moved = _migrate(memory, start, end, scan.pages)
            trace_migrate_pages(memory, batches(scan.pages, moved), MR_CONTIG_RANGE)
    return scan


@contextmanager
def _isolated(memory: Memory, zone: Zone, start: int, end: int) -> Iterator[None]:
    """The page blocks of a range are MIGRATE_ISOLATE, and afterwards what they were."""
    low, high = isolated_range(memory, zone, start, end)
    migratetype = memory.pageblock_migratetype(start)
    start_isolate_page_range(memory, zone, low, high)
    step_isolate(memory, "start", low, high, migratetype)
    try:
        yield
    finally:
        step_isolate(memory, "undo", low, high, migratetype)
        undo_isolate_page_range(memory, zone, low, high, migratetype)


def isolated_range(memory: Memory, zone: Zone, start: int, end: int) -> tuple[int, int]:
    """The page blocks around a range, or on older kernels the blocks of the largest order."""
    unit = memory.layout.max_page_order if memory.abi.isolates_max_order else memory.pageblock_order
    unit = max(unit, memory.pageblock_order)
    return max(start >> unit << unit, zone.start_pfn), min(-(-end >> unit << unit), zone.end_pfn)


def _take(memory: Memory, zone: Zone, start: int, end: int, scan: Scan) -> None:
    """``test_pages_isolated()`` and ``isolate_freepages_range()``. Raises ContigBusy."""
    if memory.trace is not None:
        memory.trace(*test_pages_isolated_event(*tested_pages(memory, zone, start, end)))
    if scan.failing is None and scan.staying is None and carve(zone, start, end):
        memory.cma_allocated += end - start
        if memory.walk is not None:
            step(memory, 1, f"isolate_freepages_range({start:#x}, {end:#x}): {end - start} pages taken")
        return
    busy = _busy(memory, zone, end, scan)
    step(memory, 1, f"test_pages_isolated({start:#x}, {end:#x}): -EBUSY, {busy.pfn:#x} is in the way")
    raise busy


def tested_pages(memory: Memory, zone: Zone, start: int, end: int) -> tuple[int, int, int]:
    """What ``test_pages_isolated()`` looks at: (start, end, where it stops).

    It starts with the free block that the range begins in, and walks from block to block up to a page that is
    not free, or out of the range. Isolation cuts blocks at its own bounds.
    """
    low, high = isolated_range(memory, zone, start, end)
    first = zone.find_free(start)
    pfn = start
    while pfn < end and (found := zone.find_free(pfn)) is not None:
        head, order, migratetype = found
        run = zone.top_area[migratetype].find(pfn)
        pfn = min(run.end if run else head + (1 << order), -(-end >> order) << order, high)
    return max(first[0], low) if first else start, end, pfn


def _migrate(memory: Memory, start: int, end: int, isolated: Sequence[Page]) -> Sequence[Page]:
    """``__alloc_contig_migrate_range()``, for the pages that move; those that did. Raises OutOfMemory."""
    pages = _drop_clean(memory, isolated)
    reclaimed = memory.vmstat.events.get("pgsteal_file", 0)
    segments = alloc_pages_bulk(memory, GFP_USER | GFP_MOVABLE_BIT, len(pages), partial=True)
    got = sum(n for _, _, _, n in segments)
    moving = pages[:got]
    if memory.walk is not None:
        reclaimed = memory.vmstat.events.get("pgsteal_file", 0) - reclaimed
        step_migrate(memory, (start, end), moving, segments, reclaimed)
    move_pages(memory, moving, pfns_of(segments, got))
    free_unref_pages(memory, [pfn for pfn, _ in moving])
    if memory.on_migrate is not None:
        memory.on_migrate(got)
    if got < len(pages):
        trace_migrate_pages(memory, batches(isolated, moving), MR_CONTIG_RANGE)
        tries = 1 if memory.abi.enomem_ends_migration else MIGRATE_TRIES
        memory.vmstat.count_vm_event("pgmigrate_fail", tries * min(len(pages) - got, COMPACT_CLUSTER_MAX))
        raise OutOfMemory(f"{len(pages)} pages to move, room for {got}", pages[got][0])
    return pages


def _account_calls(memory: Memory, end: int, scan: Scan, moved: Sequence[Page]) -> None:
    """What the ``migrate_pages()`` calls of a range leave behind.

    One is made for the end of the range, even if nobody is there (T 6.12). The batch in which a page fails is
    tried five times.
    """
    if scan.failing is not None:
        memory.vmstat.count_vm_event("pgmigrate_fail", MIGRATE_TRIES)
    if memory.trace is None:
        return
    calls, full = list(batches(scan.pages, moved)), len(scan.pages) % COMPACT_CLUSTER_MAX == 0
    if scan.failing is not None:
        with_it = 0 if full or not calls else calls.pop()[0]
        calls += [(with_it, 1), *[(0, 1)] * (MIGRATE_TRIES - 1)]
    elif full and (not scan.pages or scan.pages[-1][0] != end - 1):
        calls.append((0, 0))
    trace_migrate_pages(memory, calls, MR_CONTIG_RANGE)


def _drop_clean(memory: Memory, pages: Sequence[Page]) -> Sequence[Page]:
    """The pages that are not clean page cache, which need not move."""
    kept = reclaim_clean_pages_from_list(memory, pages)
    dropped = len(pages) - len(kept)
    if dropped:
        step(memory, 2, f"reclaim_clean_pages_from_list(): {dropped} pages of page cache dropped")
    return kept


def scan_range(memory: Memory, start: int, end: int, tries: int = 1) -> Scan:
    """What of a range would move in so many tries, and what would not."""
    used = memory.owners.used_in(start, end)
    if memory.pins:
        return _until_failing(memory, used, tries)
    pages = list(used)
    return Scan(pages) if all_movable(memory, pages) else _until_failing(memory, pages, tries)


def _until_failing(memory: Memory, used: Iterable[Page], tries: int) -> Scan:
    """The scan over used pages, ascending, that isolates batch after batch.

    The batch in which a page fails still moves, what lies behind it is not looked at. A further try of the
    same range starts its batch with the pages that failed and fills it with those behind, so each try gets
    one batch further, until a batch is full of pages that fail.
    """
    occupants = memory.owners.occupants
    moving: list[Page] = []
    failing = staying = None
    isolated = failed = 0
    for pfn, tag in used:
        kind = movability(memory, pfn, occupants[tag >> TAG_SHIFT])
        if kind == SKIPPED:
            staying = pfn
            continue
        if kind == MOVABLE:
            moving.append((pfn, tag))
        else:
            failing = failing or (pfn, kind)
            failed += 1
        isolated += 1
        if isolated == COMPACT_CLUSTER_MAX:
            isolated = failed
            tries -= bool(failed)
            if not tries or failed == COMPACT_CLUSTER_MAX:
                break
    return Scan(moving, failing, staying)


def _busy(memory: Memory, zone: Zone, end: int, scan: Scan) -> ContigBusy:
    """Who is in the way: a page that the scan found, else one that another area has handed out."""
    if scan.failing is not None:
        pfn, kind = scan.failing
    else:
        pfn, kind = _last_in_use(zone, end) if scan.staying is None else scan.staying, SKIPPED
    locked = kind == LOCKED or (memory.abi.mlock_stops_migration and pfn in memory.pins)
    return ContigBusy(pfn, kind != SKIPPED, locked)


def _last_in_use(zone: Zone, end: int) -> int:
    """The highest page below ``end`` that is not free."""
    pfn = end - 1
    while (found := zone.find_free(pfn)) is not None:
        head, _, migratetype = found
        run = zone.top_area[migratetype].find(pfn)
        pfn = (run.start if run else head) - 1
    return pfn


def free_contig_range(memory: Memory, start: int, nr_pages: int) -> None:
    """``free_contig_range()``: gives pages back to the free lists of their page blocks, ascending."""
    free_contiguous(memory, start, start + nr_pages)
    memory.cma_allocated -= nr_pages
    settle(memory)
