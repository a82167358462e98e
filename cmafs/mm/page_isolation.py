"""Isolating page blocks (``mm/page_isolation.c``), so that nobody takes their free pages meanwhile.

Positions are pfns; ranges are whole page blocks of one zone.
"""

from __future__ import annotations

from cmafs.mm.buddy import (
    account_freepages,
    add_to_free_list,
    del_page_from_free_list,
    free_blocks,
    free_one_page,
)
from cmafs.mm.mmzone import MIGRATE_ISOLATE, Memory, Zone


def _split_straddling(memory: Memory, zone: Zone, pfn: int) -> None:
    """``isolate_single_pageblock()``: splits a free block of several page blocks that a boundary cuts."""
    found = zone.find_free(pfn) if zone.start_pfn <= pfn < zone.end_pfn else None
    if found is None or found[0] == pfn:
        return
    head, order, migratetype = found
    del_page_from_free_list(zone, head, order, migratetype)
    for part in range(head, head + (1 << order), memory.pageblock_nr_pages):
        add_to_free_list(zone, part, memory.pageblock_order, migratetype)


def start_isolate_page_range(memory: Memory, zone: Zone, start: int, end: int) -> None:
    """``start_isolate_page_range()``: page blocks and their free blocks become MIGRATE_ISOLATE."""
    _split_straddling(memory, zone, start)
    _split_straddling(memory, zone, end)
    for low, high, migratetype in free_blocks(zone, start, end):
        account_freepages(zone, low - high, migratetype)
        _relist(zone, low, high, migratetype)
    memory.set_pageblock_migratetype(start, end, MIGRATE_ISOLATE)
    zone.nr_isolate_pageblock += (end - start) >> memory.pageblock_order


def _relist(zone: Zone, low: int, high: int, migratetype: int) -> None:
    """Moves a free block, or a run of the largest order, to the tail of the isolated ones."""
    code = zone.buddy.get(low)
    if code is None:
        zone.top_area[migratetype].discard(low, high)
        zone.top_area[MIGRATE_ISOLATE].add_tail(low, high)
    else:
        order = (high - low).bit_length() - 1
        del_page_from_free_list(zone, low, order, migratetype)
        add_to_free_list(zone, low, order, MIGRATE_ISOLATE, tail=True)


def undo_isolate_page_range(memory: Memory, zone: Zone, start: int, end: int, migratetype: int) -> None:
    """``undo_isolate_page_range()``: page blocks and their free blocks return to ``migratetype``."""
    memory.set_pageblock_migratetype(start, end, migratetype)
    zone.nr_isolate_pageblock -= (end - start) >> memory.pageblock_order
    tail = memory.abi.moves_to_tail
    for low, high, _ in free_blocks(zone, start, end):
        if low not in zone.buddy:
            zone.top_area[MIGRATE_ISOLATE].discard(low, high)
            account_freepages(zone, high - low, migratetype)
            area = zone.top_area[migratetype]
            (area.add_tail if tail else area.add)(low, high)
        else:
            order = (high - low).bit_length() - 1
            del_page_from_free_list(zone, low, order, MIGRATE_ISOLATE)
            if order >= memory.pageblock_order:  # may merge with what was not isolated
                free_one_page(memory, zone, low, order, migratetype, tail)
            else:
                account_freepages(zone, high - low, migratetype)
                add_to_free_list(zone, low, order, migratetype, tail)
