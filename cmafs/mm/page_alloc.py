"""Allocation by zone: the half rule, watermarks, the slow path (``mm/page_alloc.c``).

Positions are pfns, sizes pages. Per-CPU lists are not modelled: a page freed is on its buddy list at once, so
counters never lag.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from cmafs.mm.buddy import free_one_page, rmqueue_smallest, smallest_bulk
from cmafs.mm.compaction import try_to_compact_pages
from cmafs.mm.fallback import rmqueue_fallback
from cmafs.mm.gfp import (
    GFP_DIRECT_RECLAIM_BIT,
    GFP_KSWAPD_RECLAIM_BIT,
    gfp_migratetype,
    gfp_zone_rank,
    zonelist,
)
from cmafs.mm.mmzone import MIGRATE_CMA, MIGRATE_MOVABLE, WMARK_LOW, WMARK_MIN, Memory, Zone
from cmafs.mm.page_owner import Segment
from cmafs.mm.vmscan import balance_pgdat, reclaimable, try_to_free_pages
from cmafs.mm.watermark import headroom, zone_watermark_ok


class OutOfMemory(OSError):
    """ENOMEM: what is free above the watermarks and what can be reclaimed do not suffice.

    ``pfn``: the page that found no place to move to, if pages were to move.
    """

    def __init__(self, reason: str, pfn: int | None = None) -> None:
        super().__init__(errno.ENOMEM, reason)
        self.pfn = pfn


@dataclass(frozen=True)
class AllocContext:
    """``struct alloc_context``: what a request may have.

    ``zones``: best first; ``highest``: ``highest_zoneidx``, which the reserves of lower zones go by;
    ``alloc_cma``: ALLOC_CMA, set for movable requests; ``gfp``: GFP flags.
    """

    zones: list[Zone]
    highest: int
    migratetype: int
    alloc_cma: bool
    gfp: int


def prepare_alloc_pages(memory: Memory, gfp: int) -> AllocContext:
    """``prepare_alloc_pages()``: what the GFP flags mean on this machine."""
    migratetype = gfp_migratetype(memory, gfp)
    alloc_cma = migratetype == MIGRATE_MOVABLE
    return AllocContext(zonelist(memory, gfp), gfp_zone_rank(gfp), migratetype, alloc_cma, gfp)


def cma_first(memory: Memory, zone: Zone) -> bool:
    """The half rule: more than half of the zone's free pages are CMA (``__rmqueue()@v5.8``)."""
    return memory.abi.cma_half_rule and zone.nr_free_cma > zone.nr_free // 2


def rmqueue(memory: Memory, zone: Zone, order: int, migratetype: int, alloc_cma: bool) -> int | None:
    """``__rmqueue()``: one block of ``order``; its first pfn, None if the zone has none.

    ``alloc_cma``: ALLOC_CMA, set for movable requests.
    """
    if alloc_cma and cma_first(memory, zone):
        pfn = rmqueue_smallest(zone, order, MIGRATE_CMA)
        if pfn is not None:
            return pfn
    pfn = rmqueue_smallest(zone, order, migratetype)
    if pfn is None and alloc_cma:
        pfn = rmqueue_smallest(zone, order, MIGRATE_CMA)
    if pfn is None:
        pfn = rmqueue_fallback(memory, zone, order, migratetype)
    return pfn


def _segments(runs: list[tuple[int, int]], index: int, step: int, out: list[Segment]) -> None:
    """Appends (pfn, count) runs to ``out``; their pages are counted from ``index`` in steps of ``step``."""
    for pfn, count in runs:
        out.append((index, step, pfn, count))
        index += step * count


def _alternate(zone: Zone, pages: int, migratetype: int, index: int, out: list[Segment]) -> int:
    """At the line of the half rule: one page from the own lists, one from CMA, and so on; pages taken."""
    own = min((pages + 1) // 2, zone.nr_free_of(migratetype))
    runs: list[tuple[int, int]] = []
    smallest_bulk(zone, own, migratetype, runs)
    _segments(runs, index, 2, out)
    runs = []
    cma = smallest_bulk(zone, min(pages // 2, own), MIGRATE_CMA, runs)
    _segments(runs, index + 1, 2, out)
    return own + cma


def _one_list(memory: Memory, zone: Zone, pages: int, ac: AllocContext, runs: list[tuple[int, int]]) -> int:
    """Single pages for as long as the half rule and the lists point to the same list; how many.

    A page of CMA lowers ``2 * nr_free_cma - nr_free`` by one when it is taken, any other page raises it by
    one; the line of the half rule is 0. So the distance from it is how many pages come from the same side.
    """
    own = pages
    if ac.alloc_cma and memory.abi.cma_half_rule:
        above = 2 * zone.nr_free_cma - zone.nr_free
        if above > 0:
            return smallest_bulk(zone, min(above, pages), MIGRATE_CMA, runs)
        own = min(max(-above, 1), pages)
    taken = smallest_bulk(zone, own, ac.migratetype, runs)
    if not taken and ac.alloc_cma:
        taken = smallest_bulk(zone, pages, MIGRATE_CMA, runs)
    if not taken:
        pfn = rmqueue_fallback(memory, zone, 0, ac.migratetype)
        if pfn is not None:
            runs.append((pfn, 1))
            taken = 1
    return taken


def rmqueue_bulk(
    memory: Memory, zone: Zone, pages: int, ac: AllocContext, index: int, out: list[Segment]
) -> int:
    """``pages`` single pages of a zone, as calls of ``rmqueue(order 0)`` give them; how many there were.

    ``index``: what the first page is counted as in the segments appended to ``out``.
    """
    got = 0
    while got < pages:
        at_the_line = ac.alloc_cma and memory.abi.cma_half_rule and 2 * zone.nr_free_cma == zone.nr_free
        if at_the_line and zone.nr_free_of(ac.migratetype):
            got += _alternate(zone, pages - got, ac.migratetype, index + got, out)
            continue
        runs: list[tuple[int, int]] = []
        taken = _one_list(memory, zone, pages - got, ac, runs)
        if not taken:
            break
        _segments(runs, index + got, 1, out)
        got += taken
    return got


def _get_pages(memory: Memory, ac: AllocContext, pages: int, mark: int, out: list[Segment]) -> int:
    """``get_page_from_freelist()`` for single pages: zone after zone down to a watermark; how many."""
    done = sum(n for _, _, _, n in out)
    got = 0
    for zone in ac.zones:
        here = min(pages - got, headroom(zone, mark, ac.highest, ac.alloc_cma))
        if here > 0:
            taken = rmqueue_bulk(memory, zone, here, ac, done + got, out)
            memory.vmstat.count_vm_event(f"pgalloc_{zone.item}", taken)
            got += taken
    return got


def available(memory: Memory, ac: AllocContext) -> int:
    """Single pages that a request could get, reclaim included."""
    clean = reclaimable(memory, ac.alloc_cma)
    room = (headroom(z, WMARK_MIN, ac.highest, ac.alloc_cma) + clean.get(z.index, 0) for z in ac.zones)
    return sum(max(0, pages) for pages in room)


def alloc_pages_bulk(memory: Memory, gfp: int, pages: int, partial: bool = False) -> list[Segment]:
    """``pages`` single pages, as many calls of alloc_page() would give them.

    ``gfp``: GFP flags; ``partial``: hand out what there is. Raises OutOfMemory, and then nothing has changed.
    """
    ac = prepare_alloc_pages(memory, gfp)
    out: list[Segment] = []
    got = _get_pages(memory, ac, pages, WMARK_LOW, out) if _fits(memory, ac, pages) or partial else -1
    if got < 0:
        raise OutOfMemory(f"{pages} pages wanted, {available(memory, ac)} available after reclaim")
    while got < pages and balance_pgdat(memory, ac.zones):
        got += _get_pages(memory, ac, pages - got, WMARK_LOW, out)
    got += _get_pages(memory, ac, pages - got, WMARK_MIN, out)
    while got < pages and try_to_free_pages(memory, ac.highest, pages - got):
        got += _get_pages(memory, ac, pages - got, WMARK_MIN, out)
    assert partial or got == pages, f"available() promised {pages} pages, {got} found"
    return out


def _fits(memory: Memory, ac: AllocContext, pages: int) -> bool:
    """Whether a request can be met; looks for clean pages only when free memory alone does not suffice."""
    free = sum(max(0, headroom(z, WMARK_MIN, ac.highest, ac.alloc_cma)) for z in ac.zones)
    return pages <= free or pages <= available(memory, ac)


def _get_block(memory: Memory, ac: AllocContext, order: int, mark: int) -> int | None:
    for zone in ac.zones:
        if zone_watermark_ok(zone, order, mark, ac.highest, ac.alloc_cma):
            pfn = rmqueue(memory, zone, order, ac.migratetype, ac.alloc_cma)
            if pfn is not None:
                memory.vmstat.count_vm_event(f"pgalloc_{zone.item}", 1 << order)
                return pfn
    return None


def alloc_pages(memory: Memory, gfp: int, order: int) -> int:
    """``alloc_pages()``: the first pfn of a free block of ``order``; the caller says who uses it.

    Raises OutOfMemory.
    """
    ac = prepare_alloc_pages(memory, gfp)
    pfn = _get_block(memory, ac, order, WMARK_LOW)
    if pfn is None and gfp & GFP_KSWAPD_RECLAIM_BIT:
        balance_pgdat(memory, ac.zones)
        pfn = _get_block(memory, ac, order, WMARK_MIN)
    if pfn is None and gfp & GFP_DIRECT_RECLAIM_BIT:
        pfn = _alloc_pages_slowpath(memory, ac, order)
    if pfn is None:
        raise OutOfMemory(f"no free block of order {order}")
    return pfn


def _alloc_pages_direct_compact(memory: Memory, ac: AllocContext, order: int) -> int | None:
    """``__alloc_pages_direct_compact()``: a block, or None, and which of the two is counted."""
    try_to_compact_pages(memory, ac.zones, order, ac.alloc_cma)
    pfn = _get_block(memory, ac, order, WMARK_MIN)
    memory.vmstat.count_vm_event("compact_fail" if pfn is None else "compact_success")
    return pfn


def _alloc_pages_slowpath(memory: Memory, ac: AllocContext, order: int) -> int | None:
    """``__alloc_pages_slowpath()``: compaction for blocks, then reclaim and compaction again."""
    pfn = _alloc_pages_direct_compact(memory, ac, order) if order else None
    if pfn is None and try_to_free_pages(memory, ac.highest, 1 << order):
        if order:
            pfn = _alloc_pages_direct_compact(memory, ac, order)
        else:
            pfn = _get_block(memory, ac, order, WMARK_MIN)
    return pfn


def free_pages(memory: Memory, pfn: int, order: int) -> None:
    """``__free_pages()``: gives back a block of ``order``."""
    free_one_page(memory, memory.zone_of(pfn), pfn, order, memory.pageblock_migratetype(pfn))
    memory.vmstat.count_vm_event("pgfree", 1 << order)
