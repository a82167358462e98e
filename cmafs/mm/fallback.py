"""Taking from another migratetype (``mm/page_alloc.c:__rmqueue_fallback()`` and its successors).

Four ways, a row's ``fallback`` says which; all look at the largest blocks first, so that types mix rarely.
``order`` is that of the request, ``current_order`` that of the block at hand; positions are pfns.
"""

from __future__ import annotations

from cmafs.abi.mm import FALLBACK_CLAIM, FALLBACK_HYGIENE, FALLBACK_TAKE_LARGEST
from cmafs.mm.buddy import (
    account_freepages,
    add_to_free_list,
    del_page_from_free_list,
    expand,
    free_blocks,
    rmqueue_smallest,
)
from cmafs.mm.mmzone import (
    CODE_SHIFT,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    Memory,
    Zone,
)
from cmafs.mm.page_owner import TAG_SHIFT

#: ``fallbacks[]``: where each type looks next, in this order.
FALLBACKS = (
    (MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE),
    (MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE),
    (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE),
)


def can_steal_fallback(memory: Memory, order: int, migratetype: int) -> bool:
    """``can_steal_fallback()``: whether a request may take all of the page block that a block is in.

    ``order``: of that block; ``migratetype``: of the request.
    """
    if order >= memory.pageblock_order // 2 or memory.page_group_by_mobility_disabled:
        return True
    return migratetype in (MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE)


def find_suitable_fallback(zone: Zone, order: int, migratetype: int) -> int | None:
    """``find_suitable_fallback()``: the first fallback type that has a block of exactly ``order``."""
    return next((mt for mt in FALLBACKS[migratetype] if zone.nr_free_blocks(order, mt)), None)


def _first(zone: Zone, order: int, migratetype: int) -> int:
    """``get_page_from_free_area()``: the block at the head of a list that is not empty."""
    if order == zone.max_page_order:
        return zone.top_area[migratetype].first()
    return next(reversed(zone.free_area[order << CODE_SHIFT | migratetype]))


def _pageblock(memory: Memory, zone: Zone, pfn: int) -> tuple[int, int]:
    """``prep_move_freepages_block()``: the page block around a pfn, empty if it leaves the zone."""
    start = pfn >> memory.pageblock_order << memory.pageblock_order
    end = start + memory.pageblock_nr_pages
    return (start, end) if zone.start_pfn <= start and end <= zone.end_pfn else (start, start)


def _worth_claiming(memory: Memory, start: int, end: int, free: int, old_type: int, migratetype: int) -> bool:
    """Whether half of a page block is free or already of a compatible type."""
    alike = 0
    if memory.abi.claim_counts_alike:
        owners = memory.owners
        movable = sum(owners.occupants[tag >> TAG_SHIFT].movable for _, tag in owners.used_in(start, end))
        if migratetype == MIGRATE_MOVABLE:
            alike = movable
        elif old_type == MIGRATE_MOVABLE:
            alike = end - start - free - movable
    return free + alike >= 1 << (memory.pageblock_order - 1) or memory.page_group_by_mobility_disabled


def _pages(blocks: list[tuple[int, int, int]]) -> int:
    return sum(end - start for start, end, _ in blocks)


def _move_freepages(memory: Memory, zone: Zone, blocks: list[tuple[int, int, int]], migratetype: int) -> None:
    """``move_freepages()``: onto the lists of another type."""
    for start, end, old in blocks:
        order = (end - start).bit_length() - 1
        del_page_from_free_list(zone, start, order, old)
        add_to_free_list(zone, start, order, migratetype, tail=memory.abi.moves_to_tail)


def steal_suitable_fallback(
    memory: Memory, zone: Zone, order: int, found: int, migratetype: int, whole: bool
) -> None:
    """``steal_suitable_fallback()``, until 6.9: puts a foreign block on the lists of the wanted type.

    ``order``: of that block; ``found``: the type of its list; ``whole``: whether all free blocks of its page
    block may go along, and the page block itself be claimed.
    """
    pfn = _first(zone, order, found)
    if order >= memory.pageblock_order:
        memory.set_pageblock_migratetype(pfn, pfn + (1 << order), migratetype)
    elif whole:
        start, end = _pageblock(memory, zone, pfn)
        blocks = free_blocks(zone, start, end)
        if blocks:
            old_type = memory.pageblock_migratetype(pfn)
            _move_freepages(memory, zone, blocks, migratetype)
            if _worth_claiming(memory, start, end, _pages(blocks), old_type, migratetype):
                memory.set_pageblock_migratetype(start, end, migratetype)
            return
    _move_freepages(memory, zone, [(pfn, pfn + (1 << order), found)], migratetype)


def try_to_claim_block(
    memory: Memory, zone: Zone, order: int, current_order: int, found: int, migratetype: int
) -> int | None:
    """``try_to_claim_block()``, from 6.10: retypes the page block of a foreign block and allocates from it.

    ``current_order``: of the foreign block; ``found``: the type of its list. None where that is not worth it.
    """
    pfn = _first(zone, current_order, found)
    if current_order >= memory.pageblock_order:
        memory.set_pageblock_migratetype(pfn, pfn + (1 << current_order), migratetype)
        return _take(zone, pfn, order, current_order, found, migratetype)
    start, end = _pageblock(memory, zone, pfn)
    blocks = free_blocks(zone, start, end)
    if not blocks or not _worth_claiming(memory, start, end, _pages(blocks), found, migratetype):
        return None
    _move_freepages(memory, zone, blocks, migratetype)
    memory.set_pageblock_migratetype(start, end, migratetype)
    return rmqueue_smallest(zone, order, migratetype)


def _take(zone: Zone, pfn: int, order: int, current_order: int, listed: int, rest: int) -> int:
    """``page_del_and_expand()``: allocates a listed block, its rest going to the lists of type ``rest``."""
    del_page_from_free_list(zone, pfn, current_order, listed)
    expand(zone, pfn, order, current_order, rest)
    account_freepages(zone, -(1 << order), listed)
    return pfn


def _smallest_foreign(zone: Zone, order: int, migratetype: int) -> tuple[int, int] | None:
    """The smallest foreign block that fits: (its order, its type)."""
    for current_order in range(order, zone.max_page_order + 1):
        found = find_suitable_fallback(zone, current_order, migratetype)
        if found is not None:
            return current_order, found
    return None


def _largest_foreign(zone: Zone, order: int, migratetype: int) -> tuple[int, int] | None:
    """The largest foreign block, if it fits: (its order, its type)."""
    for current_order in range(zone.max_page_order, order - 1, -1):
        found = find_suitable_fallback(zone, current_order, migratetype)
        if found is not None:
            return current_order, found
    return None


def _choose(memory: Memory, zone: Zone, order: int, migratetype: int) -> tuple[int, int, bool] | None:
    """The block to take before 6.15: the largest, or the smallest where it must not be claimed whole."""
    largest = _largest_foreign(zone, order, migratetype)
    if largest is None:
        return None
    claim = can_steal_fallback(memory, largest[0], migratetype)
    if not claim and migratetype == MIGRATE_MOVABLE and memory.abi.fallback != FALLBACK_TAKE_LARGEST:
        largest = _smallest_foreign(zone, order, migratetype) or largest
    return *largest, claim


def rmqueue_fallback(memory: Memory, zone: Zone, order: int, migratetype: int) -> int | None:
    """One block of ``order`` out of another type's free pages: its first pfn, None if there are none."""
    if memory.abi.fallback == FALLBACK_CLAIM:
        pfn = _rmqueue_claim(memory, zone, order, migratetype)
        return _rmqueue_steal(zone, order, migratetype) if pfn is None else pfn
    chosen = _choose(memory, zone, order, migratetype)
    if chosen is None:
        return None
    current_order, found, claim = chosen
    if memory.abi.fallback == FALLBACK_HYGIENE:
        pfn = None
        if claim or current_order >= memory.pageblock_order:
            pfn = try_to_claim_block(memory, zone, order, current_order, found, migratetype)
        if pfn is None:
            pfn = _take(zone, _first(zone, current_order, found), order, current_order, found, found)
        return pfn
    steal_suitable_fallback(memory, zone, current_order, found, migratetype, claim)
    return rmqueue_smallest(zone, order, migratetype)


def _rmqueue_claim(memory: Memory, zone: Zone, order: int, migratetype: int) -> int | None:
    """``__rmqueue_claim()``: from the largest order down, the first page block that may be retyped."""
    for current_order in range(zone.max_page_order, order - 1, -1):
        if not can_steal_fallback(memory, current_order, migratetype):
            break
        found = find_suitable_fallback(zone, current_order, migratetype)
        if found is not None:
            pfn = try_to_claim_block(memory, zone, order, current_order, found, migratetype)
            if pfn is not None:
                return pfn
    return None


def _rmqueue_steal(zone: Zone, order: int, migratetype: int) -> int | None:
    """``__rmqueue_steal()``: the smallest foreign block, the rest of it staying foreign."""
    smallest = _smallest_foreign(zone, order, migratetype)
    if smallest is None:
        return None
    current_order, found = smallest
    return _take(zone, _first(zone, current_order, found), order, current_order, found, found)
