"""The free lists: splitting and merging of buddies (``mm/page_alloc.c``).

Positions are pfns, sizes pages. The bulk forms (``smallest_bulk``, ``free_range``, ``carve``) are short cuts;
each does what the same number of single steps would do, and tests/t2_buddy.py holds them to it.
"""

from __future__ import annotations

from cmafs.lib.math import roundup
from cmafs.mm.mmzone import (
    CODE_MASK,
    CODE_SHIFT,
    MIGRATE_CMA,
    MIGRATE_ISOLATE,
    MIGRATE_PCPTYPES,
    Memory,
    Zone,
)
from cmafs.mm.page_owner import contiguous


def account_freepages(zone: Zone, nr_pages: int, migratetype: int) -> None:
    """``account_freepages()``: NR_FREE_PAGES and NR_FREE_CMA_PAGES; isolated pages count in neither."""
    if migratetype != MIGRATE_ISOLATE:
        zone.nr_free += nr_pages
        if migratetype == MIGRATE_CMA:
            zone.nr_free_cma += nr_pages


def add_to_free_list(zone: Zone, pfn: int, order: int, migratetype: int, tail: bool = False) -> None:
    """``__add_to_free_list()``: a block to the head of a list, or its ``tail``; counters are the caller's."""
    if order == zone.max_page_order:
        end = pfn + (1 << order)
        if tail:
            zone.top_area[migratetype].add_tail(pfn, end)
        else:
            zone.top_area[migratetype].add(pfn, end)
        return
    code = order << CODE_SHIFT | migratetype
    zone.buddy[pfn] = code
    blocks = zone.free_area[code]
    blocks[pfn] = None
    if tail:
        blocks.move_to_end(pfn, last=False)


def del_page_from_free_list(zone: Zone, pfn: int, order: int, migratetype: int) -> None:
    """``__del_page_from_free_list()``: a block off its list; counters are the caller's."""
    if order == zone.max_page_order:
        zone.top_area[migratetype].discard(pfn, pfn + (1 << order))
    else:
        del zone.free_area[zone.buddy.pop(pfn)][pfn]


def _may_merge(memory: Memory, buddy: int, order: int, migratetype: int) -> bool:
    """Whether two page blocks (or more) may become one block; retypes the other one where the kernel does."""
    buddy_mt = memory.pageblock_migratetype(buddy)
    if buddy_mt == migratetype:
        return True
    if memory.abi.merges_only_mergeable:
        if migratetype >= MIGRATE_PCPTYPES or buddy_mt >= MIGRATE_PCPTYPES:
            return False
    elif MIGRATE_ISOLATE in (migratetype, buddy_mt):
        return False
    if memory.abi.merge_retypes_pageblock:
        memory.set_pageblock_migratetype(buddy, buddy + (1 << order), migratetype)
    return True


def _buddy_merge_likely(zone: Zone, pfn: int, order: int) -> bool:
    """``buddy_merge_likely()``: the next larger block waits only for this one's buddy, so keep it unused."""
    if order >= zone.max_page_order - 1:
        return False
    higher = pfn >> (order + 1) << (order + 1)
    code = zone.buddy.get(higher ^ 1 << (order + 1))
    return code is not None and code >> CODE_SHIFT == order + 1


def free_one_page(
    memory: Memory, zone: Zone, pfn: int, order: int, migratetype: int, tail: bool = False
) -> None:
    """``__free_one_page()``: gives a block back and merges it with its buddies.

    ``migratetype``: that of its page block; ``tail``: FPI_TO_TAIL.
    """
    account_freepages(zone, 1 << order, migratetype)
    buddies, top, block_order = zone.buddy, zone.max_page_order, memory.pageblock_order
    while order < top:
        buddy = pfn ^ 1 << order
        code = buddies.get(buddy)
        if code is None or code >> CODE_SHIFT != order:
            break
        if order >= block_order and not _may_merge(memory, buddy, order, migratetype):
            break
        del buddies[buddy]
        del zone.free_area[code][buddy]
        pfn &= ~(1 << order)
        order += 1
    add_to_free_list(zone, pfn, order, migratetype, tail or _buddy_merge_likely(zone, pfn, order))


def free_range(memory: Memory, zone: Zone, start: int, end: int, tail: bool = False) -> None:
    """Frees ``[start, end)`` of one zone as page by page, ascending, would: same lists, same order.

    Whole runs of the largest order go back in one step.
    """
    top = zone.max_page_order
    flags, base, block_order = memory.pageblock_flags, memory.block_base, memory.pageblock_order
    block = 1 << block_order
    while start < end:
        stop = min(end, (start | block - 1) + 1)
        if stop - start < block:
            _free_inside_pageblock(memory, zone, start, stop, flags[(start >> block_order) - base], tail)
            start = stop
            continue
        order = min((start & -start).bit_length() - 1 if start else top, (end - start).bit_length() - 1, top)
        if order == top:
            start = _free_top_blocks(memory, zone, start, end, tail)
            continue
        if not memory.one_migratetype(start, start + (1 << order)):
            order = block_order
        free_one_page(memory, zone, start, order, flags[(start >> block_order) - base], tail)
        start += 1 << order


def _free_inside_pageblock(
    memory: Memory, zone: Zone, start: int, end: int, migratetype: int, tail: bool
) -> None:
    """Frees a range that is less than a page block: the blocks that its pages would have merged to.

    Free blocks always are the largest aligned ones, so the free pages around the range decide them; each is
    listed where the last of its pages would have listed it.
    """
    buddies, areas, block = zone.buddy, zone.free_area, memory.pageblock_nr_pages
    account_freepages(zone, end - start, migratetype)
    pfn, end = _take_neighbours(zone, start, end, block)
    if end - pfn == block:
        account_freepages(zone, -block, migratetype)
        free_one_page(memory, zone, pfn, memory.pageblock_order, migratetype, tail)
        return
    while pfn < end:
        size = min((pfn | block) & -(pfn | block), 1 << (end - pfn).bit_length() - 1)
        order = size.bit_length() - 1
        buddies[pfn] = code = order << CODE_SHIFT | migratetype
        areas[code][pfn] = None
        higher = buddies.get((pfn ^ size << 1) & -size << 1)  # buddy_merge_likely()
        if tail or (higher is not None and higher >> CODE_SHIFT > order):
            areas[code].move_to_end(pfn, last=False)
        pfn += size


def _take_neighbours(zone: Zone, start: int, end: int, block: int) -> tuple[int, int]:
    """Takes the free blocks that a range will merge with off their lists: (start, end) with them.

    ``block``: pages of a page block, which the range lies in. A larger block crosses ``end`` only with all of
    the aligned block that begins there and all of the one that ends there; the first, if free, is listed as a
    whole. Likewise at ``start``.
    """
    buddies, areas, inside = zone.buddy, zone.free_area, block - 1
    while True:
        size = end & -end
        code = buddies.get(end) if end & inside and size <= end - start else None
        if code is not None and 1 << (code >> CODE_SHIFT) == size:
            del buddies[end], areas[code][end]
            end += size
            continue
        size = start & -start
        code = buddies.get(start - size) if start & inside and size <= end - start else None
        if code is None or 1 << (code >> CODE_SHIFT) != size:
            return start, end
        start -= size
        del buddies[start], areas[code][start]


def _free_top_blocks(memory: Memory, zone: Zone, start: int, end: int, tail: bool) -> int:
    """Frees blocks of the largest order from ``start`` on, as far as page blocks have one type; their end."""
    block = 1 << zone.max_page_order
    stop = start + (end - start) // block * block
    migratetype = memory.pageblock_migratetype(start)
    if not memory.one_migratetype(start, stop):
        stop = start + block
        if not memory.one_migratetype(start, stop):
            for pfn in range(start, stop, memory.pageblock_nr_pages):
                free_one_page(
                    memory, zone, pfn, memory.pageblock_order, memory.pageblock_migratetype(pfn), tail
                )
            return stop
    account_freepages(zone, stop - start, migratetype)
    if tail:
        zone.top_area[migratetype].add_tail(start, stop)
    else:
        zone.top_area[migratetype].add(start, stop)
    return stop


def free_contiguous(memory: Memory, start: int, end: int) -> None:
    """Gives back the single pages of ``[start, end)``, in whatever zones they lie, ascending."""
    while start < end:
        zone = memory.zone_of(start)
        stop = min(end, zone.end_pfn)
        free_range(memory, zone, start, stop)
        memory.vmstat.count_vm_event("pgfree", stop - start)
        start = stop


def free_unref_pages(memory: Memory, pfns: list[int]) -> None:
    """Gives back single pages, ``pfns`` ascending."""
    for pfn, count in contiguous(pfns):
        free_contiguous(memory, pfn, pfn + count)


def free_blocks(zone: Zone, start: int, end: int) -> list[tuple[int, int, int]]:
    """The free blocks of ``[start, end)``, which cuts none, ascending: (start, end, migratetype of the list).

    Neighbours of the largest order are one entry. Costs by how many there are, or by the range if that is
    cheaper.
    """
    found: list[tuple[int, int, int]] = []
    for migratetype, area in enumerate(zone.top_area):
        run = area.first_from(start)
        while run is not None and run.start < end:
            found.append((max(run.start, start), min(run.end, end), migratetype))
            run = area.first_from(run.end)
    buddy = zone.buddy
    few, many = sorted((buddy, range(start, end)), key=len)
    for pfn in filter(many.__contains__, few):
        found.append((pfn, pfn + (1 << (buddy[pfn] >> CODE_SHIFT)), buddy[pfn] & CODE_MASK))
    return sorted(found)


def expand(zone: Zone, pfn: int, low: int, high: int, migratetype: int) -> None:
    """``expand()``: keeps the lowest ``1 << low`` pages of a block of order ``high`` and lists the rest.

    The largest piece, which is the highest, comes first.
    """
    while high > low:
        high -= 1
        add_to_free_list(zone, pfn + (1 << high), high, migratetype)


def rmqueue_smallest(zone: Zone, order: int, migratetype: int) -> int | None:
    """``__rmqueue_smallest()``: a block of ``order`` from the lists of one type; its first pfn or None."""
    found = _pop_smallest(zone, order, migratetype)
    if found is None:
        return None
    pfn, current_order = found
    expand(zone, pfn, order, current_order, migratetype)
    account_freepages(zone, -(1 << order), migratetype)
    return pfn


def _pop_smallest(zone: Zone, order: int, migratetype: int) -> tuple[int, int] | None:
    """Takes the smallest block of ``order`` or larger off its list: (first pfn, its order)."""
    areas, top = zone.free_area, zone.max_page_order
    for current_order in range(order, top):
        blocks = areas[current_order << CODE_SHIFT | migratetype]
        if blocks:
            pfn, _ = blocks.popitem()
            del zone.buddy[pfn]
            return pfn, current_order
    if zone.top_area[migratetype].nr_pages:
        return zone.top_area[migratetype].pop(), top
    return None


def smallest_bulk(zone: Zone, want: int, migratetype: int, out: list[tuple[int, int]]) -> int:
    """Up to ``want`` single pages from the lists of one type; how many there were.

    They use up the smallest block, ascending, before they touch another one. ``out`` gets (pfn, count) runs.
    """
    got = 0
    while got < want:
        found = _pop_smallest(zone, 0, migratetype)
        if found is None:
            break
        pfn, order = found
        count = min(want - got, 1 << order)
        out.append((pfn, count))
        got += count
        _list_pieces(zone, pfn + count, pfn + (1 << order), migratetype)
    account_freepages(zone, -got, migratetype)
    return got


def _list_pieces(zone: Zone, start: int, end: int, migratetype: int) -> None:
    """Lists ``[start, end)``, a part of one split block, as its largest aligned pieces.

    There is nothing to merge them with.
    """
    buddies, areas, block = zone.buddy, zone.free_area, 1 << zone.max_page_order
    while start < end:
        size = min((start | block) & -(start | block), 1 << (end - start).bit_length() - 1)
        if size == block:  # pieces of a run of largest blocks
            add_to_free_list(zone, start, zone.max_page_order, migratetype)
        else:
            buddies[start] = code = size.bit_length() - 1 << CODE_SHIFT | migratetype
            areas[code][start] = None
        start += size


def carve(zone: Zone, start: int, end: int) -> bool:
    """Takes ``[start, end)`` off the lists if all of it is free; False, and nothing changed, if it is not.

    What sticks out of its blocks is listed again.
    """
    blocks = _free_blocks(zone, start, end)
    if blocks is None:
        return False
    buddies, areas, largest = zone.buddy, zone.free_area, len(zone.free_area)
    for low, high, code in blocks:
        migratetype = code & CODE_MASK
        account_freepages(zone, max(low, start) - min(high, end), migratetype)
        if code < largest:
            del buddies[low], areas[code][low]
        else:
            zone.top_area[migratetype].discard(low, high)
    low, _, code = blocks[0]
    if low < start:
        _list_pieces(zone, low, start, code & CODE_MASK)
    if high > end:
        _list_pieces(zone, end, high, migratetype)
    return True


def _free_blocks(zone: Zone, start: int, end: int) -> list[tuple[int, int, int]] | None:
    """(start, end, code) of the free blocks that cover a range; None if they do not."""
    blocks: list[tuple[int, int, int]] = []
    get = zone.buddy.get
    while start < end:
        code = get(start)
        if code is not None:  # behind the first block every further one begins where the last ended
            high = start + (1 << (code >> CODE_SHIFT))
            blocks.append((start, high, code))
        else:
            found = _free_run(zone, start, end)
            if found is None:
                return None
            blocks.append(found)
            high = found[1]
        start = high
    return blocks


def _free_run(zone: Zone, pfn: int, end: int) -> tuple[int, int, int] | None:
    """Free pages around a pfn: (start, end, code) of its block, or of as much of its run as a range needs."""
    found = zone.find_free(pfn)
    if found is None:
        return None
    head, order, migratetype = found
    code = order << CODE_SHIFT | migratetype
    if order < zone.max_page_order:
        return head, head + (1 << order), code
    run = zone.top_area[migratetype].find(pfn)
    block = 1 << order
    assert run is not None, "find_free() found it"
    return head, min(run.end, roundup(end, block)), code
