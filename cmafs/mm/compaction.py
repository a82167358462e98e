"""Two-scanner compaction (``mm/compaction.c``): used pages move from the bottom of a zone to its top.

Both scanners visit only page blocks that were touched: one without used pages has nothing to move, one that
is wholly free is not a target anyway. Positions are pfns, sizes pages.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from cmafs.mm.buddy import account_freepages, del_page_from_free_list, free_blocks, free_range
from cmafs.mm.migrate import MOVABLE, batches, movability, move_pages
from cmafs.mm.mmzone import CODE_SHIFT, MIGRATE_CMA, MIGRATE_MOVABLE, WMARK_LOW, Memory, Zone
from cmafs.mm.page_owner import TAG_SHIFT, Page, contiguous
from cmafs.mm.walk import MR_COMPACTION, trace_migrate_pages
from cmafs.mm.watermark import zone_watermark_ok


class CompactControl:
    """``struct compact_control``: one run over one zone.

    ``order``: of the block that is wanted, -1 for compact_memory; ``alloc_cma``: one of CMA will do;
    ``freepages``: frames isolated for use, the lowest of the highest page block first; ``targets``: page
    blocks that the free scanner has yet to visit, ascending; ``free_block``: the one that it is in.
    """

    def __init__(self, memory: Memory, zone: Zone, order: int, alloc_cma: bool) -> None:
        self.memory = memory
        self.zone = zone
        self.order = order
        self.alloc_cma = alloc_cma
        self.freepages: list[int] = []
        self.targets = _blocks_with_free_pages(memory, zone)
        self.free_block = -(-zone.end_pfn >> memory.pageblock_order)

    def finished(self) -> bool:
        """``compact_finished()``: whether a block of the wanted order is there (never for compact_memory)."""
        if self.order < 0:
            return False
        return zone_watermark_ok(self.zone, self.order, WMARK_LOW, self.zone.rank, self.alloc_cma)


def _blocks_with_free_pages(memory: Memory, zone: Zone) -> list[int]:
    """Page blocks, ascending, that are partly free and whose type lets movable pages in."""
    order = memory.pageblock_order
    blocks = {pfn >> order for pfn, code in zone.buddy.items() if code >> CODE_SHIFT < order}
    return sorted(
        b for b in blocks if memory.pageblock_migratetype(b << order) in (MIGRATE_MOVABLE, MIGRATE_CMA)
    )


def isolate_freepages(cc: CompactControl, above: int, wanted: int) -> None:
    """``isolate_freepages()``: takes free pages of page blocks, from the top down, until there are enough.

    ``above``: the page block of the migration scanner, which stops this one.
    """
    memory, zone, order = cc.memory, cc.zone, cc.memory.pageblock_order
    while len(cc.freepages) < wanted and cc.targets and cc.targets[-1] > above:
        cc.free_block = cc.targets.pop()
        start = cc.free_block << order
        for low, high, migratetype in free_blocks(zone, start, start + memory.pageblock_nr_pages):
            del_page_from_free_list(zone, low, (high - low).bit_length() - 1, migratetype)
            account_freepages(zone, low - high, migratetype)
            cc.freepages.extend(range(low, high))
        memory.vmstat.count_vm_event("compact_free_scanned", memory.pageblock_nr_pages)


def isolate_migratepages(cc: CompactControl, block: int) -> list[Page]:
    """``isolate_migratepages_block()``: the pages of one page block that can move.

    What boot left stays where it is, so that a machine whose tasks are gone is as it was.
    """
    memory = cc.memory
    start = block << memory.pageblock_order
    occupants = memory.owners.occupants
    memory.vmstat.count_vm_event("compact_migrate_scanned", memory.pageblock_nr_pages)
    return [
        (pfn, tag)
        for pfn, tag in memory.owners.used_in(start, start + memory.pageblock_nr_pages)
        if (occupant := occupants[tag >> TAG_SHIFT]).visible and movability(memory, pfn, occupant) == MOVABLE
    ]


def compact_zone(memory: Memory, zone: Zone, order: int, alloc_cma: bool = True) -> int:
    """``compact_zone()``: runs until the scanners meet or a block of ``order`` is free; pages moved."""
    cc = CompactControl(memory, zone, order, alloc_cma)
    first, moved = zone.start_pfn >> memory.pageblock_order, 0
    for block in sorted(b for b in memory.owners.used if b >= first):
        if block >= cc.free_block or cc.finished():
            break
        pages = isolate_migratepages(cc, block)
        isolate_freepages(cc, block, len(pages))
        went = _migrate(cc, pages[: len(cc.freepages)])
        moved += went
        if went < len(pages):
            break
    _release_freepages(memory, zone, sorted(cc.freepages))
    return moved


def _migrate(cc: CompactControl, pages: list[Page]) -> int:
    """Moves pages into frames that were isolated, of which there are enough; how many."""
    if not pages:
        return 0
    targets = cc.freepages[: len(pages)]
    del cc.freepages[: len(pages)]
    move_pages(cc.memory, pages, array("q", targets))
    trace_migrate_pages(cc.memory, batches(pages, pages), MR_COMPACTION)
    _release_freepages(cc.memory, cc.zone, [pfn for pfn, _ in pages])
    cc.memory.vmstat.count_vm_event("compact_isolated", 2 * len(pages))
    return len(pages)


def _release_freepages(memory: Memory, zone: Zone, pfns: list[int]) -> None:
    """``release_free_list()``: frames back to the free lists, ascending."""
    for pfn, count in contiguous(pfns):
        free_range(memory, zone, pfn, pfn + count)


def compact_memory(memory: Memory) -> None:
    """``compact_memory`` written: every zone, whole (``mm/compaction.c:compact_nodes()``)."""
    for zone in memory.zones:
        compact_zone(memory, zone, -1)


def try_to_compact_pages(memory: Memory, zones: Iterable[Zone], order: int, alloc_cma: bool = True) -> None:
    """``try_to_compact_pages()``: direct compaction for a block of ``order``, in every zone of a request.

    ``alloc_cma``: whether a block of CMA will do, as it does for movable requests.
    """
    memory.vmstat.count_vm_event("compact_stall")
    for zone in zones:
        compact_zone(memory, zone, order, alloc_cma)
