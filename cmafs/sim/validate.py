"""Every consistency rule of the memory manager, each told as one line when it is broken. Positions are pfns.

Cost follows what was touched. ``tests/t2_validate.py`` proves each rule by sabotage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from cmafs.lib.intervals import length, union, without
from cmafs.mm.cma import Cma
from cmafs.mm.mmzone import (
    CODE_MASK,
    CODE_SHIFT,
    MIGRATE_CMA,
    MIGRATE_ISOLATE,
    MIGRATE_PCPTYPES,
    MIGRATE_TYPES,
    Memory,
    Zone,
)
from cmafs.mm.page_owner import TAG_INDEX, TAG_SHIFT
from cmafs.sim.cma_owner import allocated


def validate(memory: Memory, areas: Sequence[Cma] = (), before: dict[str, int] | None = None) -> list[str]:
    """All violations, one line each; an empty list is a clean machine.

    ``areas``: the CMA areas; ``before``: event counters of an earlier check, which cannot have been higher.
    """
    wrong: list[str] = []
    for zone in memory.zones:
        wrong += check_free_lists(zone)
        wrong += check_counters(zone)
        wrong += check_merged(memory, zone)
        wrong += check_types(memory, zone)
    wrong += check_owners(memory)
    wrong += check_content(memory)
    wrong += check_pins(memory)
    wrong += check_one_state(memory, areas)
    wrong += check_areas(areas)
    wrong += check_monotonic(memory, before or {})
    return wrong


def free_blocks(zone: Zone) -> Iterator[tuple[int, int, int]]:
    """Every free block, or run of blocks of the largest order: (start, end, migratetype of its list)."""
    for pfn, code in zone.buddy.items():
        yield pfn, pfn + (1 << (code >> CODE_SHIFT)), code & CODE_MASK
    for migratetype, area in enumerate(zone.top_area):
        for run in area.runs():
            yield run.start, run.end, migratetype


def check_free_lists(zone: Zone) -> Iterator[str]:
    """Each block is on the list that its head says and on no other, aligned, and inside its zone."""
    listed = 0
    for code, blocks in enumerate(zone.free_area):
        listed += len(blocks)
        for pfn in blocks:
            if zone.buddy.get(pfn) != code:
                yield f"{zone.name}: block {pfn:#x} is on list {code}, its head says {zone.buddy.get(pfn)}"
            if pfn & ((1 << (code >> CODE_SHIFT)) - 1):
                yield f"{zone.name}: block {pfn:#x} of order {code >> CODE_SHIFT} is not aligned"
    if listed != len(zone.buddy):
        yield f"{zone.name}: {listed} blocks on lists, {len(zone.buddy)} free heads"
    for migratetype, area in enumerate(zone.top_area):
        if area.nr_pages != sum(run.end - run.start for run in area.runs()):
            yield f"{zone.name}: the list of the largest blocks of type {migratetype} miscounts its pages"
    extents = sorted((start, end) for start, end, _ in free_blocks(zone))
    for (start, end), (following, _) in pairwise(extents):
        if end > following:
            yield f"{zone.name}: free blocks {start:#x} and {following:#x} overlap"
    if extents and not zone.start_pfn <= extents[0][0] <= extents[-1][1] <= zone.end_pfn:
        yield f"{zone.name}: a free block is outside the zone"


def check_counters(zone: Zone) -> Iterator[str]:
    """NR_FREE_PAGES and NR_FREE_CMA_PAGES are what is on the lists; isolated pages are in neither."""
    pages = [zone.nr_free_of(migratetype) for migratetype in range(MIGRATE_TYPES)]
    free = sum(pages) - pages[MIGRATE_ISOLATE]
    if zone.nr_free != free:
        yield f"{zone.name}: nr_free_pages is {zone.nr_free}, the lists hold {free}"
    if zone.nr_free_cma != pages[MIGRATE_CMA]:
        yield f"{zone.name}: nr_free_cma is {zone.nr_free_cma}, the lists hold {pages[MIGRATE_CMA]}"
    blocks, isolated = zone.nr_isolate_pageblock, pages[MIGRATE_ISOLATE]
    if blocks or isolated:
        yield f"{zone.name}: {blocks} page blocks and {isolated} free pages are isolated"
    if not 0 <= zone.nr_free <= zone.managed_pages <= zone.present_pages + zone.cma_pages:
        yield f"{zone.name}: {zone.nr_free} free, {zone.managed_pages} managed, {zone.present_pages} present"


def check_merged(memory: Memory, zone: Zone) -> Iterator[str]:
    """No two free buddies stand side by side that could be one block."""
    for pfn, code in zone.buddy.items():
        order = code >> CODE_SHIFT
        buddy = pfn ^ 1 << order
        other = zone.buddy.get(buddy)
        if pfn > buddy or other is None or other >> CODE_SHIFT != order:
            continue
        types = {memory.pageblock_migratetype(pfn), memory.pageblock_migratetype(buddy)}
        if order < memory.pageblock_order or len(types) == 1 or max(types) < MIGRATE_PCPTYPES:
            yield f"{zone.name}: free buddies {pfn:#x} and {buddy:#x} of order {order} are not merged"


def check_types(memory: Memory, zone: Zone) -> Iterator[str]:
    """CMA pages are on CMA lists and no others are; other page blocks of several types may have merged."""
    for start, end, migratetype in free_blocks(zone):
        step = end - start if memory.one_migratetype(start, end) else 1 << memory.pageblock_order
        for pfn in range(start, end, step):
            own = memory.pageblock_migratetype(pfn)
            if (own == MIGRATE_CMA) != (migratetype == MIGRATE_CMA):
                yield f"{zone.name}: block {pfn:#x} of type {own} is on a list of type {migratetype}"


def check_owners(memory: Memory) -> Iterator[str]:
    """Forward and reverse map agree: each index of each occupant is in one frame, and that frame says so."""
    owners = memory.owners
    for occupant in owners.occupants.values():
        if occupant.resident != sum(pfn >= 0 for pfn in occupant.frames):
            yield f"{occupant.name}: {occupant.resident} pages counted, others mapped"
        for index, pfn in enumerate(occupant.frames):
            if pfn >= 0 and owners.tag_at(pfn) != occupant.ident << TAG_SHIFT | index:
                yield f"{occupant.name}: page {index} is not in frame {pfn:#x}"
                break
        for (start, end), count in occupant.counted.items():
            if count != sum(start <= pfn < end for pfn in occupant.frames):
                yield f"{occupant.name}: {count} pages remembered in [{start:#x}, {end:#x}), others there"
    for block, tags in owners.tags.items():
        if owners.used.get(block) != sum(map(bool, tags)):
            yield f"page block {block:#x}: {owners.used.get(block)} used pages counted, others found"


def check_content(memory: Memory) -> Iterator[str]:
    """Every page's content is in memory once: it adds up to the witness that migration never touches."""
    found: dict[int, list[int]] = {ident: [0, 0] for ident in memory.owners.occupants}
    for tags in memory.owners.tags.values():
        for tag in tags:
            if tag:
                sums = found.setdefault(tag >> TAG_SHIFT, [0, 0])
                sums[0] += 1
                sums[1] += (tag & TAG_INDEX) + 1
    for ident, (count, checksum) in found.items():
        occupant = memory.owners.occupants.get(ident)
        if occupant is None:
            yield f"{count} pages of nobody (owner {ident})"
        elif (count, checksum) != (occupant.resident, occupant.checksum):
            yield f"{occupant.name}: not the content of its {occupant.resident} pages in memory"


def check_pins(memory: Memory) -> Iterator[str]:
    """A pinned frame is a used page, and the pins of a task are among the pins of its frames."""
    for pfn, count in memory.pins.items():
        if count <= 0 or not memory.owners.tag_at(pfn):
            yield f"pfn {pfn:#x} has {count} pins and is not in use"
    for occupant in memory.owners.occupants.values():
        for index in occupant.pinned:
            if index >= len(occupant.frames) or occupant.frames[index] not in memory.pins:
                yield f"{occupant.name}: pinned page {index} is in no pinned frame"


def _used_runs(memory: Memory) -> Iterator[tuple[int, int]]:
    """Used frames, as runs, page block by page block."""
    for block, tags in memory.owners.tags.items():
        base = block << memory.pageblock_order
        if memory.owners.used[block] == memory.pageblock_nr_pages:
            yield base, base + memory.pageblock_nr_pages
        else:
            yield from ((base + i, base + i + 1) for i, tag in enumerate(tags) if tag)


def check_one_state(memory: Memory, areas: Sequence[Cma]) -> Iterator[str]:
    """Each managed page is free, used by an occupant or allocated from CMA: one of them, and only one."""
    states = [(start, end, "free") for zone in memory.zones for start, end, _ in free_blocks(zone)]
    states += [(start, end, "used") for start, end in _used_runs(memory)]
    for area in areas:
        taken = allocated(area)
        if area.order_per_bit:  # a bit stands for more pages than were asked for
            taken = without(taken, union((start, end) for start, end, _ in states))
        states += [(start, end, area.name) for start, end in taken]
    states.sort()
    for (start, end, state), (following, _, other) in pairwise(states):
        if end > following:
            yield f"pages from {following:#x} on are {state} (from {start:#x}) and {other}"
    managed = sum(zone.managed_pages for zone in memory.zones)
    total = sum(end - start for start, end, _ in states)
    areas_pages = length(union((r.base_pfn, r.end_pfn) for area in areas for r in area.ranges))
    twice = memory.totalcma_pages - areas_pages
    if areas and total != managed - twice:
        yield f"{managed - twice} pages managed, {total} accounted for"


def check_areas(areas: Sequence[Cma]) -> Iterator[str]:
    """Bitmaps agree with their index and their counter; allocations of two areas are disjoint.

    (Areas of a device tree may overlap; what they have handed out may not.)
    """
    for area in areas:
        for cmr in area.ranges:
            yield from (f"{area.name}: {line}" for line in cmr.bitmap.check())
        in_bits = length(allocated(area))
        taken = area.count - area.available_count
        if in_bits != taken and not (area.order_per_bit and in_bits > taken):
            yield f"{area.name}: {in_bits} pages in its bitmap, {taken} counted"
    taken_by = sorted((start, end, area.name) for area in areas for start, end in allocated(area))
    for (_, end, name), (start, _, other) in pairwise(taken_by):
        if end > start:
            yield f"areas {name} and {other} have both allocated pfn {start:#x}"


def check_monotonic(memory: Memory, before: dict[str, int]) -> Iterator[str]:
    """Event counters only grow."""
    for item, count in before.items():
        if memory.vmstat.vm_event(item) < count:
            yield f"event {item} went from {count} to {memory.vmstat.vm_event(item)}"
