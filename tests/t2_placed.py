"""Fallback, compaction and alloc_contig_range() with every page where the test has put it: what follows is
counted by hand.

Modules: cmafs.mm.fallback, cmafs.mm.page_isolation, cmafs.mm.cma_retry, cmafs.mm.migrate, cmafs.mm.mm_init.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest
from cma_support import debug_all
from mm_support import Booted, Listener, boot, layout

from cmafs.mm.boot_pages import settle
from cmafs.mm.buddy import carve, free_range
from cmafs.mm.cma import cma_alloc
from cmafs.mm.compaction import compact_memory, compact_zone, try_to_compact_pages
from cmafs.mm.contig_alloc import ContigBusy, alloc_contig_range, migrate_contig_range
from cmafs.mm.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_KSWAPD_RECLAIM_BIT
from cmafs.mm.mmzone import (
    MIGRATE_CMA,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    Memory,
    MemoryLayout,
    ZoneSpan,
)
from cmafs.mm.page_alloc import OutOfMemory, alloc_pages, alloc_pages_bulk, rmqueue
from cmafs.mm.page_owner import Occupant, pfns_of
from cmafs.mm.pcp import park_cma_block
from cmafs.mm.vmscan import drop_caches, drop_pagecache, drop_slab, reclaimable, try_to_free_pages
from cmafs.sim.workload import kill, pin_pfn, spawn, tasks, unpin_pfn

BLOCK = 512
Ranges = Sequence[tuple[int, int]]


def hold(memory: Memory, name: str, kind: str, ranges: Ranges, visible: bool = True) -> Occupant:
    """A task that uses free pages, as (first pfn, pages)."""
    occupant = memory.owners.add(name, kind, visible)
    for pfn, count in ranges:
        if count:
            assert carve(memory.zone_of(pfn), pfn, pfn + count)
            memory.owners.extend(occupant, [(0, 1, pfn, count)])
    return occupant


# other migratetypes

CLAIM_4_4, STEAL, HYGIENE, CLAIM_FIRST = "4.4", "5.10", "6.12", "6.18"
FALLBACK = (CLAIM_4_4, STEAL, HYGIENE, CLAIM_FIRST)


def nearly_full(kernel: str, blocks: Sequence[int], free: Ranges, pages: int = 8 * BLOCK) -> Memory:
    """Page blocks of these migratetypes (the rest are MOVABLE), and nothing free but some ranges."""
    memory = boot(layout(pages), (), kernel).memory
    zone = memory.zones[0]
    assert carve(zone, 0, pages)
    for number, migratetype in enumerate(blocks):
        memory.set_pageblock_migratetype(number * BLOCK, (number + 1) * BLOCK, migratetype)
    for pfn, count in free:
        free_range(memory, zone, pfn, pfn + count)
    return memory


@pytest.mark.parametrize("kernel", FALLBACK)
@pytest.mark.parametrize(
    ("wanted", "from_"),
    [
        (MIGRATE_UNMOVABLE, (MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE)),
        (MIGRATE_MOVABLE, (MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE)),
        (MIGRATE_RECLAIMABLE, (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE)),
    ],
)
def test_where_a_type_looks_next(kernel: str, wanted: int, from_: tuple[int, int]) -> None:
    """mm/page_alloc.c:fallbacks[]@v5.10, @v6.12; CMA is nobody's fallback but by ALLOC_CMA. Pages that do not
    move make a MOVABLE page block theirs from 4.12 on.
    """
    types = (*from_, MIGRATE_CMA)
    memory = nearly_full(kernel, types, [(i * BLOCK, 1) for i in range(3)])
    zone = memory.zones[0]
    assert [rmqueue(memory, zone, 0, wanted, alloc_cma=False) for _ in range(3)] == [0, BLOCK, None]
    assert rmqueue(memory, zone, 0, wanted, alloc_cma=True) == 2 * BLOCK
    turns = MIGRATE_MOVABLE in from_ and kernel != CLAIM_4_4
    assert list(memory.pageblock_flags[:3]) == ([from_[0], wanted, MIGRATE_CMA] if turns else list(types))


@pytest.mark.parametrize("kernel", FALLBACK)
def test_the_largest_block_is_taken_from_unless_it_may_not_be_claimed(kernel: str) -> None:
    """A movable request that may claim neither piece takes the smallest from 4.13 on (7a8f58f39188)."""
    memory = nearly_full(kernel, (MIGRATE_UNMOVABLE,) * 2, [(0, 8), (BLOCK, 2)])
    found = rmqueue(memory, memory.zones[0], 0, MIGRATE_MOVABLE, alloc_cma=False)
    assert found == (0 if kernel == CLAIM_4_4 else BLOCK)
    assert list(memory.pageblock_flags[:2]) == [MIGRATE_UNMOVABLE] * 2
    memory = nearly_full(kernel, (MIGRATE_MOVABLE,) * 2, [(0, 8), (BLOCK, 2)])
    assert rmqueue(memory, memory.zones[0], 0, MIGRATE_UNMOVABLE, alloc_cma=False) in (
        (0,) if kernel != CLAIM_FIRST else (0, BLOCK)
    )


@pytest.mark.parametrize("kernel", FALLBACK)
@pytest.mark.parametrize(
    ("wanted", "old", "free", "movable", "other", "claims"),
    [
        (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, 256, 256, 0, "always"),
        (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, 255, 257, 0, "never"),
        (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, 128, 256, 128, "since 4.12"),
        (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, 128, 257, 127, "never"),
        (MIGRATE_UNMOVABLE, MIGRATE_RECLAIMABLE, 128, 0, 384, "never"),
        (MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE, 128, 256, 128, "since 4.12"),
        (MIGRATE_MOVABLE, MIGRATE_UNMOVABLE, 128, 128, 256, "since 4.12"),
        (MIGRATE_MOVABLE, MIGRATE_UNMOVABLE, 128, 127, 257, "never"),
        (MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, 128, 127, 257, "never"),
    ],
)
def test_half_of_a_page_block_free_or_alike_is_claimed(
    kernel: str, wanted: int, old: int, free: int, movable: int, other: int, claims: str
) -> None:
    """mm/page_alloc.c:steal_suitable_fallback()@v5.10, try_to_claim_block()@v6.12: pages of the kernel are
    alike to each other unless the page block is RECLAIMABLE or UNMOVABLE, whose pages cannot be told apart.
    """
    memory = nearly_full(kernel, (MIGRATE_MOVABLE, old), [(BLOCK, BLOCK)])
    for kind, pfn, count in (("anon", BLOCK + free, movable), ("kernel", 2 * BLOCK - other, other)):
        hold(memory, kind, kind, [(pfn, count)])
    zone = memory.zones[0]
    pfn = rmqueue(memory, zone, 0, wanted, alloc_cma=False)
    assert pfn is not None and pfn - BLOCK < free
    claimed = claims == "always" or (claims == "since 4.12" and kernel != CLAIM_4_4)
    assert memory.pageblock_flags[1] == (wanted if claimed else old)
    left = {mt: zone.nr_free_of(mt) for mt in (wanted, old)}
    moved = claimed or kernel in (CLAIM_4_4, STEAL)  # all free pages of the page block go along
    assert left == ({wanted: free - 1, old: 0} if moved else {wanted: 0, old: free - 1})


@pytest.mark.parametrize("kernel", FALLBACK)
@pytest.mark.parametrize("pages", [8 * BLOCK, 8 * BLOCK - 64])
def test_a_page_block_that_leaves_its_zone_is_not_claimed(kernel: str, pages: int) -> None:
    """mm/page_alloc.c:prep_move_freepages_block()@v6.12, move_freepages_block()@v5.10"""
    memory = nearly_full(kernel, (), [(7 * BLOCK, 400)], pages)
    zone = memory.zones[0]
    assert rmqueue(memory, zone, 0, MIGRATE_UNMOVABLE, alloc_cma=False) is not None
    whole = pages == 8 * BLOCK
    assert memory.pageblock_flags[7] == (MIGRATE_UNMOVABLE if whole else MIGRATE_MOVABLE)
    assert zone.nr_free == 400 - 1


@pytest.mark.parametrize("kernel", FALLBACK)
@pytest.mark.parametrize("wanted", [MIGRATE_UNMOVABLE, MIGRATE_MOVABLE])
def test_a_smaller_block_is_no_fallback(kernel: str, wanted: int) -> None:
    memory = nearly_full(kernel, (MIGRATE_RECLAIMABLE,), [(0, 4), (16, 2)])
    zone = memory.zones[0]
    assert rmqueue(memory, zone, 3, wanted, alloc_cma=False) is None
    assert zone.nr_free_of(MIGRATE_RECLAIMABLE) == 6
    assert rmqueue(memory, zone, 2, wanted, alloc_cma=False) == 0


@pytest.mark.parametrize("kernel", FALLBACK)
@pytest.mark.parametrize("wanted", [MIGRATE_UNMOVABLE, MIGRATE_MOVABLE])
def test_a_page_block_is_not_claimed_for_a_request_that_it_cannot_serve(kernel: str, wanted: int) -> None:
    other = MIGRATE_UNMOVABLE + MIGRATE_MOVABLE - wanted
    memory = nearly_full(kernel, [other] * 8, [(0, BLOCK // 2)])
    zone = memory.zones[0]
    assert rmqueue(memory, zone, 9, wanted, alloc_cma=False) is None
    assert memory.pageblock_migratetype(0) == other
    assert zone.nr_free_of(other) == zone.nr_free == BLOCK // 2


def test_what_is_left_of_a_foreign_block_is_the_next_to_be_taken() -> None:
    """mm/page_alloc.c:page_del_and_expand()@v6.12: the pieces go to the heads of their lists."""
    memory = boot(layout(8 * BLOCK), (), HYGIENE).memory
    zone = memory.zones[0]
    spare = BLOCK + 2, BLOCK + 4
    hold(memory, "m", "anon", [(0, 8), (16, spare[0] - 16), (spare[1], 8 * BLOCK - spare[1])])
    assert rmqueue(memory, zone, 0, MIGRATE_UNMOVABLE, alloc_cma=False) == 8
    taken = [rmqueue(memory, zone, order, MIGRATE_MOVABLE, alloc_cma=False) for order in (1, 2, 0, 1)]
    assert taken == [10, 12, 9, spare[0]]


@pytest.mark.parametrize("kernel", FALLBACK)
@pytest.mark.parametrize("order", [9, 10])
def test_whole_page_blocks_turn_with_the_first_page(kernel: str, order: int) -> None:
    memory = nearly_full(kernel, (), [(2 * BLOCK, 1 << order)])
    zone = memory.zones[0]
    assert rmqueue(memory, zone, 3, MIGRATE_UNMOVABLE, alloc_cma=False) == 2 * BLOCK
    turned = [MIGRATE_UNMOVABLE] * (1 << order - 9)
    assert list(memory.pageblock_flags) == ([MIGRATE_MOVABLE] * 2 + turned + [MIGRATE_MOVABLE] * 6)[:8]
    assert zone.nr_free_of(MIGRATE_UNMOVABLE) == zone.nr_free == (1 << order) - 8


# compaction


def compacted(memory: Memory) -> tuple[int, int, int, int]:
    """(pages scanned for some to move, for free ones, pages isolated, pages moved)"""
    names = ("compact_migrate_scanned", "compact_free_scanned", "compact_isolated", "pgmigrate_success")
    scanned, free, isolated, moved = (memory.vmstat.vm_event(name) for name in names)
    return scanned, free, isolated, moved


def test_compaction_fills_the_highest_page_blocks_that_are_partly_free() -> None:
    """10 pages of block 0 go to the 2 free ones of block 6, then to those of 5; 7 is unmovable."""
    machine = boot(layout(8 * BLOCK))
    memory, listener = machine.memory, Listener()
    moving = hold(memory, "a", "anon", [(0, 10)])
    hold(memory, "k", "kernel", [(5 * BLOCK, 500), (6 * BLOCK, 510), (7 * BLOCK, 100)])
    memory.set_pageblock_migratetype(7 * BLOCK, 8 * BLOCK, MIGRATE_UNMOVABLE)
    unmovable, memory.trace = machine.free(), listener
    compact_memory(memory)
    top, below = 7 * BLOCK - 2, 6 * BLOCK - 12
    assert list(moving.frames) == [top, top + 1, *range(below, below + 8)]
    assert compacted(memory) == (BLOCK, 2 * BLOCK, 20, 10)
    assert memory.vmstat.vm_event("compact_stall") == 0
    assert [(e["succeeded"], e["failed"], e["reason"]) for _, e in listener.events] == [(10, 0, 0)]
    assert machine.free() == unmovable
    free = {pfn: code >> 3 for pfn, code in memory.zones[0].buddy.items()}
    assert free[6 * BLOCK - 4] == 2
    machine.check()


def test_compaction_ends_where_its_scanners_meet() -> None:
    """4 free pages above 10 in use: what does not fit stays, and neither a lower page block nor one that is
    wholly free is filled; the page blocks between are not looked at any more.
    """
    machine = boot(layout(6 * BLOCK))
    memory = machine.memory
    moving = hold(memory, "a", "anon", [(BLOCK, 10)])
    between = hold(memory, "b", "anon", [(2 * BLOCK, BLOCK)])
    hold(memory, "k", "kernel", [(0, 1), (4 * BLOCK, BLOCK - 4)])
    compact_memory(memory)
    assert list(moving.frames) == [*range(5 * BLOCK - 4, 5 * BLOCK), *range(BLOCK + 4, BLOCK + 10)]
    assert between.frames[0] == 2 * BLOCK
    assert compacted(memory) == (2 * BLOCK, BLOCK, 8, 4)
    machine.check()


def test_compaction_ends_without_a_page_block_to_fill() -> None:
    machine = boot(layout(4 * BLOCK))
    memory = machine.memory
    moving = hold(memory, "a", "anon", [(0, 2 * BLOCK)])
    hold(memory, "k", "kernel", [(2 * BLOCK, BLOCK - 4), (3 * BLOCK, BLOCK)])
    compact_memory(memory)
    assert list(moving.frames[:5]) == [*range(3 * BLOCK - 4, 3 * BLOCK), 4]
    assert compacted(memory) == (BLOCK, BLOCK, 8, 4)
    machine.check()


@pytest.mark.parametrize(("lower", "upper", "filled"), [(2, 1, 1), (1, 2, 1), (2, 2, 1), (2, 3, 2)])
def test_free_pages_that_are_left_serve_the_next_page_block(lower: int, upper: int, filled: int) -> None:
    """No page block is taken from before the one above it is full."""
    machine = boot(layout(6 * BLOCK))
    memory = machine.memory
    first = hold(memory, "a", "anon", [(0, lower)])
    second = hold(memory, "b", "anon", [(BLOCK, upper)])
    hold(memory, "k", "kernel", [(4 * BLOCK, BLOCK - 9), (5 * BLOCK, BLOCK - 4)])
    compact_memory(memory)
    targets = [*range(6 * BLOCK - 4, 6 * BLOCK), *range(5 * BLOCK - 9, 5 * BLOCK)]
    assert [*first.frames, *second.frames] == targets[: lower + upper]
    assert compacted(memory)[1:] == (filled * BLOCK, 2 * (lower + upper), lower + upper)
    machine.check()


@pytest.mark.parametrize("lower", range(1, 10))
def test_no_free_page_is_left_while_pages_could_move(lower: int) -> None:
    """mm/compaction.c:compaction_alloc()@v6.12: what is left of isolated pages serves on."""
    memory = boot(layout(6 * BLOCK)).memory
    tasks = [hold(memory, f"a{i}", "anon", [(i * BLOCK, n)]) for i, n in enumerate((lower, 10 - lower))]
    used = [(10 - lower + BLOCK, BLOCK - 10 + lower), (4 * BLOCK, BLOCK), (5 * BLOCK, BLOCK - 10)]
    hold(memory, "k", "kernel", used)
    compact_memory(memory)
    moved = [pfn for task in tasks for pfn in task.frames]
    assert moved == list(range(6 * BLOCK - 10, 6 * BLOCK))
    assert memory.zones[0].nr_free_of(MIGRATE_MOVABLE) == memory.zones[0].nr_free


def test_compaction_stays_in_its_zone_and_looks_at_all_of_it() -> None:
    memory = boot(layout(8 * BLOCK, dma32_end=4 * BLOCK)).memory
    low, high = memory.zones
    for pfn in (3 * BLOCK, 4 * BLOCK, 7 * BLOCK):
        hold(memory, f"at {pfn}", "anon", [(pfn, 1)])
    assert compact_zone(memory, low, -1) == 0
    assert compacted(memory) == (BLOCK, 0, 0, 0)
    assert compact_zone(memory, high, -1) == 1
    assert compacted(memory) == (2 * BLOCK, BLOCK, 2, 1)
    assert memory.owners.by_name(f"at {4 * BLOCK}").frames[0] == 7 * BLOCK + 1  # type: ignore[union-attr]


def test_direct_compaction_for_single_pages_finds_them_there() -> None:
    memory = boot(layout(4 * BLOCK)).memory
    hold(memory, "a", "anon", [(0, 1), (BLOCK, 1)])
    hold(memory, "k", "kernel", [(2 * BLOCK, 200), (3 * BLOCK, 200)])
    try_to_compact_pages(memory, memory.zones, 0)
    assert compacted(memory) == (0, 0, 0, 0)


@pytest.mark.parametrize(("order", "scanned"), [(9, 1), (10, 2)])
def test_direct_compaction_ends_with_the_block_that_was_wanted(order: int, scanned: int) -> None:
    memory = boot(layout(4 * BLOCK)).memory
    hold(memory, "a", "anon", [(0, 1), (BLOCK, 1)])
    hold(memory, "k", "kernel", [(2 * BLOCK, 200), (3 * BLOCK, 200)])
    try_to_compact_pages(memory, memory.zones, order)
    assert compacted(memory) == (scanned * BLOCK, BLOCK, 2 * scanned, scanned)
    assert memory.vmstat.vm_event("compact_stall") == 1


def test_compaction_moves_batches_of_32_and_leaves_what_boot_left() -> None:
    memory, listener = boot(layout(4 * BLOCK)).memory, Listener()
    stays = hold(memory, "boot", "anon", [(200, 5)], visible=False)
    hold(memory, "a", "anon", [(0, 70)])
    hold(memory, "k", "kernel", [(3 * BLOCK, 1), (100, 1)])
    memory.trace = listener
    compact_memory(memory)
    assert [event["succeeded"] for _, event in listener.events] == [32, 32, 6]
    assert list(stays.frames) == list(range(200, 205))
    assert compacted(memory)[3] == 70


# a range of pages

BASE = 8 * BLOCK


def one_area(kernel: str = "6.12") -> Booted:
    """Four page blocks of CMA, nothing in memory."""
    return boot(layout(32 * BLOCK, ((BASE, 4 * BLOCK),)), ((BASE, 4 * BLOCK),), kernel)


def why_busy(memory: Memory, start: int, end: int) -> tuple[int, bool, bool]:
    with pytest.raises(ContigBusy, match=r"\] pfn 0x[0-9a-f]+ cannot move$") as busy:
        alloc_contig_range(memory, start, end)
    return busy.value.pfn - BASE, busy.value.failing, busy.value.locked


@pytest.mark.parametrize(
    ("kind", "pins", "reason", "moved", "failures"),
    [
        ("anon", (10, 20), (20, False, False), 98, 0),  # not isolated: all others move, the last one is named
        ("tmpfs", (10, 20), (10, True, False), 30, 5),  # the first fails, the batch of 32 moves, no more
        ("tmpfs", (31,), (31, True, False), 31, 5),
        ("tmpfs", (32,), (32, True, False), 63, 5),
        ("tmpfs", (99,), (99, True, False), 99, 5),
    ],
)
def test_what_moves_before_a_pinned_page_stops_it(
    kind: str, pins: tuple[int, ...], reason: tuple[int, bool, bool], moved: int, failures: int
) -> None:
    """mm/compaction.c:isolate_migratepages_block()@v6.12; each try of a range gets a batch further."""
    machine = one_area()
    memory = machine.memory
    hold(memory, "a", kind, [(BASE, 100)])
    for offset in pins:
        pin_pfn(memory, BASE + offset)
    assert why_busy(memory, BASE, BASE + 200) == reason
    assert memory.vmstat.vm_event("pgmigrate_success") == moved
    assert memory.vmstat.vm_event("pgmigrate_fail") == failures
    assert memory.cma_allocated == 0
    machine.check()


@pytest.mark.parametrize(("tries", "moved"), [(1, 12), (2, 24), (3, 36), (9, 100)])
def test_each_try_of_a_busy_range_fills_its_batch_with_pages_further_on(tries: int, moved: int) -> None:
    """Twenty pages fail in each batch of 32, so twelve others move."""
    memory = one_area().memory
    hold(memory, "a", "tmpfs", [(BASE, 120)])
    for pfn in range(BASE, BASE + 20):
        pin_pfn(memory, pfn)
    scan = migrate_contig_range(memory, BASE, BASE + 200, tries)
    assert [pfn for pfn, _ in scan.pages] == list(range(BASE + 20, BASE + 20 + moved))
    assert (scan.failing and scan.failing[0], scan.staying) == (BASE, None)
    assert memory.vmstat.vm_event("pgmigrate_success") == moved


def test_a_first_failure_counts_though_pages_behind_it_were_left_alone() -> None:
    memory = one_area().memory
    hold(memory, "file", "tmpfs", [(BASE + 5, 1)])
    hold(memory, "anon", "anon", [(BASE + 7, 1)])
    for offset in (5, 7):
        pin_pfn(memory, BASE + offset)
    assert why_busy(memory, BASE, BASE + 100) == (5, True, False)
    assert why_busy(memory, BASE + 6, BASE + 100) == (7, False, False)
    assert why_busy(memory, BASE + 7, BASE + 8) == (7, False, False)


@pytest.mark.parametrize("kernel", ["6.12", "article"])
def test_pages_of_another_area_are_not_locked(kernel: str) -> None:
    """A page handed out is in the way as such; the article's lock is that of pins and mlock alone."""
    areas = ((BASE, 2 * BLOCK), (BASE + BLOCK, 2 * BLOCK))
    machine = boot(layout(32 * BLOCK, areas), areas, kernel)
    assert cma_alloc(machine.areas[1], 3) == BASE + BLOCK
    assert why_busy(machine.memory, BASE, BASE + BLOCK + 1) == (BLOCK, False, False)
    assert why_busy(machine.memory, BASE, BASE + 3 * BLOCK) == (BLOCK + 2, False, False)


@pytest.mark.parametrize(("kernel", "low", "high"), [("5.10", 0, 1024), ("6.12", 512, 1024)])
def test_the_steps_of_a_range_that_moves(kernel: str, low: int, high: int) -> None:
    """``Memory.walk``: page blocks, or blocks of the largest order up to 5.18, and each run of frames."""
    machine = one_area(kernel)
    memory = machine.memory
    task = hold(memory, "a", "anon", [(BASE + 520, 2), (BASE + 530, 1)])
    memory.walk = []
    alloc_contig_range(memory, BASE + 515, BASE + 600)
    blocks = (high - low) // BLOCK
    names, many = f"({BASE + low:#x}, {BASE + high:#x})", "s" if blocks > 1 else ""
    window = f"({BASE + 515:#x}, {BASE + 600:#x})"
    target = ",".join(f"{pfn:#x}-{pfn + n - 1:#x}" for pfn, n in runs(sorted(task.frames)))
    source = f"{BASE + 520:#x}-{BASE + 521:#x},{BASE + 530:#x}-{BASE + 530:#x}"
    change = f"{blocks} page block{many} MIGRATE_CMA -> MIGRATE_ISOLATE"
    back = f"{blocks} page block{many} MIGRATE_ISOLATE -> MIGRATE_CMA"
    assert memory.walk == [
        f"  alloc_contig_range{window}",
        f"    start_isolate_page_range{names}: {change}",
        f"    __alloc_contig_migrate_range{window}: 3 pages to move",
        f"      migrate_pages(): 3 pages {source} -> {target}",
        f"    isolate_freepages_range{window}: 85 pages taken",
        f"    undo_isolate_page_range{names}: {back}",
    ]
    assert memory.cma_allocated == 85
    assert not any(BASE + low <= pfn < BASE + high for pfn in task.frames)


def runs(pfns: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending pfns as (first, how many)."""
    found: list[tuple[int, int]] = []
    for pfn in pfns:
        if found and sum(found[-1]) == pfn:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((pfn, 1))
    return found


@pytest.mark.parametrize(
    ("pages", "wanted", "batches"),
    [(31, 31, [31]), (32, 32, [32]), (32, 33, [32, 0]), (64, 64, [32, 32]), (70, 100, [32, 32, 6])],
)
def test_the_calls_of_migrate_pages_for_a_range(pages: int, wanted: int, batches: list[int]) -> None:
    """mm/page_alloc.c:__alloc_contig_migrate_range()@v6.12: a call a batch, one more after a full one unless
    the range ends with it; mode MIGRATE_SYNC, reason MR_CONTIG_RANGE.
    """
    memory, listener = one_area().memory, Listener()
    hold(memory, "a", "tmpfs", [(BASE, pages)])
    memory.trace = listener
    alloc_contig_range(memory, BASE, BASE + wanted)
    migrated = [event for name, event in listener.events if name == "mm_migrate_pages"]
    assert [event["succeeded"] for event in migrated] == batches
    assert {(event["failed"], event["mode"], event["reason"]) for event in migrated} == {(0, 2, 6)}
    assert listener.events[-1][1]["fin_pfn"] == BASE + BLOCK  # the free block that the range ends in


@pytest.mark.parametrize(
    ("others", "calls"),
    [
        (0, [(0, 1)] * 5),
        (9, [(9, 1), *[(0, 1)] * 4]),
        (32, [(32, 0), *[(0, 1)] * 5]),
        (40, [(32, 0), (8, 1), *[(0, 1)] * 4]),
    ],
)
def test_the_calls_of_migrate_pages_that_fail(others: int, calls: list[tuple[int, int]]) -> None:
    """Five tries of the batch in which a page stays, and then the range is tested, which stops before it."""
    memory, listener = one_area().memory, Listener()
    hold(memory, "a", "tmpfs", [(BASE, others + 1)])
    pin_pfn(memory, BASE + others)
    memory.trace = listener
    assert why_busy(memory, BASE, BASE + 100) == (others, True, False)
    *migrated, (name, tested) = listener.events
    assert [(event["succeeded"], event["failed"]) for _, event in migrated] == calls
    assert (name, tested["fin_pfn"]) == ("test_pages_isolated", BASE + others)


@pytest.mark.parametrize(("pages", "tested_to"), [(64, BLOCK), (BLOCK, BLOCK), (BLOCK + 1, 2 * BLOCK)])
def test_nobody_to_move_is_one_call(pages: int, tested_to: int) -> None:
    memory, listener = one_area().memory, Listener()
    memory.trace = listener
    alloc_contig_range(memory, BASE, BASE + pages)
    (_, migrated), (name, tested) = listener.events
    assert (migrated["succeeded"], migrated["failed"]) == (0, 0)
    assert (name, list(tested.values())) == ("test_pages_isolated", [BASE, BASE + pages, BASE + tested_to])


ENTRY = {
    "4.4": "cma_alloc(cma {area}, count 3, align 0)",
    "5.10": "cma_alloc(cma {area}, count 3, align 0)",
    "6.1": "cma_alloc(cma {area}, count 3, align 0)",
    "6.12": "__cma_alloc(cma {area}, name: reserved, count 3, align 0)",
    "7.2": "__cma_alloc_frozen(cma {area}, name: reserved, count 3, align 0)",
}
RETRY = {
    "4.4": "cma_alloc(): memory range at {page} is busy, retrying",
    "5.10": "cma_alloc(): memory range at {page} is busy, retrying",
    "6.1": "cma_alloc(): memory range at {page} is busy, retrying",
    "6.12": "__cma_alloc(): memory range at pfn {pfn:#x} {page} is busy, retrying",
    "7.2": "cma_range_alloc(): memory range at pfn {pfn:#x} {page} is busy, retrying",
}


def past_a_file_page(kernel: str) -> tuple[Booted, Listener]:
    """Three pages are wanted where the third is pinned: three windows are busy, the fourth is not."""
    machine, listener = one_area(kernel), Listener()
    debug_all(machine.log)
    hold(machine.memory, "a", "tmpfs", [(BASE + 2, 1)])
    pin_pfn(machine.memory, BASE + 2)
    machine.areas.trace = machine.memory.trace = listener
    assert cma_alloc(machine.area, 3) == BASE + 3
    assert machine.memory.vmstat.vm_event("pgmigrate_fail") == 15
    return machine, listener


@pytest.mark.parametrize("kernel", list(RETRY))
def test_the_events_of_busy_windows(kernel: str) -> None:
    """mm/cma.c:cma_alloc()@v6.1; the range is tested from the free block on that it begins in."""
    _, listener = past_a_file_page(kernel)
    old = kernel in ("4.4", "5.10")
    same = {"name": "reserved", "count": 3, "align": 0}
    start = {**same, "count": 3}
    if kernel == "7.2":
        del start["count"]
        start |= {"request_count": 3, "available_count": 4 * BLOCK, "total_count": 4 * BLOCK}
    expected: list[object] = [] if old else [("cma_alloc_start", start)]
    for window, low, high in ((0, 0, 3), (1, 0, 4), (2, 2, 5)):
        expected += [(0, 1)] * 5 + [(BASE + low, BASE + high, BASE + 2)]
        at = {"pfn": BASE + window, "page": BASE + window}
        expected += [] if old else [("cma_alloc_busy_retry", {**same, **at})]
    found = {"pfn": BASE + 3, "page": BASE + 3, "count": 3, "align": 0}
    expected += [(0, 0), (BASE + 3, BASE + 6, BASE + 8)]
    named = {"name": "reserved", **found, **({} if kernel == "6.1" else {"errorno": 0})}
    expected += [("cma_alloc", found) if old else ("cma_alloc_finish", named)]
    heard: list[object] = []
    for name, fields in listener.events:
        if name == "mm_migrate_pages":
            heard.append((fields["succeeded"], fields["failed"]))
        elif name == "test_pages_isolated":
            heard.append(tuple(fields.values()))
        else:
            heard.append((name, fields))
    assert heard == expected


@pytest.mark.parametrize("kernel", list(RETRY))
def test_the_lines_of_busy_windows(kernel: str) -> None:
    """Pointers are hashed, each page to its own; 64 bytes apart as 4.4 shows them unhashed."""
    machine, _ = past_a_file_page(kernel)
    log = machine.log
    pages = [log.hash_ptr(0xFFFFEA0000000000 + (BASE + i) * 64) for i in range(4)]
    entry = f"cma: {ENTRY[kernel]}".format(area=log.hash_ptr(machine.area.address))
    retries = [f"cma: {RETRY[kernel]}".format(pfn=BASE + i, page=pages[i]) for i in range(3)]
    busy = [
        f"alloc_contig_range: [{BASE + a:x}, {BASE + b:x}) PFNs busy" for a, b in ((0, 3), (0, 4), (2, 5))
    ]
    if kernel in ("4.4", "5.10"):
        retries = [line for pair in zip(busy, retries, strict=True) for line in pair]
    done = f"cma: {ENTRY[kernel].partition('(')[0]}(): returned {pages[3]}"
    assert log.lines()[-len(retries) - 2 :] == [entry, *retries, done]


def test_the_steps_of_a_range_that_stays_busy() -> None:
    memory = one_area().memory
    hold(memory, "a", "anon", [(BASE + 4, 1)])
    pin_pfn(memory, BASE + 4)
    memory.walk = []
    assert why_busy(memory, BASE, BASE + 8) == (4, False, False)
    block, window = f"({BASE:#x}, {BASE + BLOCK:#x})", f"({BASE:#x}, {BASE + 8:#x})"
    assert memory.walk == [
        f"  alloc_contig_range{window}",
        f"    start_isolate_page_range{block}: 1 page block MIGRATE_CMA -> MIGRATE_ISOLATE",
        f"    __alloc_contig_migrate_range{window}: 0 pages to move",
        f"    test_pages_isolated{window}: -EBUSY, {BASE + 4:#x} is in the way",
        f"    undo_isolate_page_range{block}: 1 page block MIGRATE_ISOLATE -> MIGRATE_CMA",
    ]


# where room is scarce


def scarce(kernel: str, room: int, cache: int) -> Memory:
    """100 pages of ``a`` at BASE, room for some of them above the lowest watermark, and clean page cache."""
    memory = one_area(kernel).memory
    free = memory.zones[0].watermark[0] + room
    hold(memory, "a", "anon", [(BASE, 100)])
    hold(memory, "b", "anon", [(BASE + 2 * BLOCK, 2 * BLOCK)])
    hold(memory, "k", "kernel", [(free, BASE - free), (BASE + 4 * BLOCK, 20 * BLOCK - cache)])
    hold(memory, "c", "file", [(32 * BLOCK - cache, cache)])
    if not memory.abi.isolates_max_order:
        hold(memory, "d", "anon", [(BASE + BLOCK, BLOCK)])
    return memory


@pytest.mark.parametrize(("kernel", "tries"), [("4.4", 5), ("5.10", 5), ("5.15", 1), ("6.12", 1), ("7.2", 1)])
@pytest.mark.parametrize(("room", "failing"), [(40, 32), (68, 32), (70, 30)])
def test_what_moves_where_there_is_room_for_some(kernel: str, tries: int, room: int, failing: int) -> None:
    """mm/page_alloc.c:__alloc_contig_migrate_range()@v5.10: a batch without room is tried five times, from
    5.14 on once.
    """
    memory = scarce(kernel, room, 0)
    with pytest.raises(OutOfMemory, match=f"100 pages to move, room for {room}$") as caught:
        alloc_contig_range(memory, BASE, BASE + 200)
    assert caught.value.pfn == BASE + room
    assert memory.vmstat.vm_event("pgmigrate_success") == room
    assert memory.vmstat.vm_event("pgmigrate_fail") == tries * failing
    assert memory.zones[0].nr_free - memory.zones[0].watermark[0] >= room


@pytest.mark.parametrize("kernel", ["5.10", "6.12", "7.2"])
def test_a_window_that_reaches_a_page_without_room_ends_the_search(kernel: str) -> None:
    """mm/cma.c:cma_alloc()@v6.12 goes on after EBUSY only: page 10 is pinned, page 20 has nowhere to go."""
    machine = one_area(kernel)
    memory, least = machine.memory, machine.memory.zones[0].watermark[0]
    hold(memory, "a", "anon", [(BASE + 10, 1), (BASE + 20, 1), (BASE + 30, 4 * BLOCK - 30)])
    hold(memory, "k", "kernel", [(least - 28, BASE - least + 28), (BASE + 4 * BLOCK, 20 * BLOCK)])
    pin_pfn(memory, BASE + 10)
    assert memory.zones[0].nr_free == least
    assert cma_alloc(machine.area, 15) is None
    failure = machine.area.failures[0]
    assert (failure.error, failure.pfn) == (errno.ENOMEM, BASE + 6)
    assert memory.vmstat.vm_event("pgmigrate_success") == 0
    machine.check()


@pytest.mark.parametrize("earlier", [0, 20])
def test_page_cache_makes_room_and_the_steps_say_how_much(earlier: int) -> None:
    """kswapd up to the high watermark each time that the low one is reached, while there is cache; what went
    earlier is not spoken of.
    """
    memory = scarce("6.12", 40, 100 + earlier)
    assert try_to_free_pages(memory, memory.zones[0].rank, earlier) == earlier
    hold(memory, "e", "kernel", [(32 * BLOCK - 100 - earlier, earlier)])
    memory.walk = []
    before = memory.vmstat.vm_event("pgsteal_file")
    scanned = memory.vmstat.vm_event("pgscan_file")
    alloc_contig_range(memory, BASE, BASE + 200)
    dropped = memory.vmstat.vm_event("pgsteal_file") - before
    assert dropped == memory.vmstat.vm_event("pgsteal_kswapd") == 100
    assert memory.vmstat.vm_event("pgscan_file") - scanned == 100
    assert memory.walk[2:4] == [
        f"    __alloc_contig_migrate_range({BASE:#x}, {BASE + 200:#x}): 100 pages to move",
        "      try_to_free_pages(): 100 pages of page cache dropped",
    ]
    assert memory.vmstat.vm_event("pgmigrate_success") == 100


@pytest.mark.parametrize("wanted", [10, 11, 50, 110])
def test_direct_reclaim_gives_single_pages_what_is_missing(wanted: int) -> None:
    """Free pages of CMA keep kswapd asleep, but are not for the kernel."""
    memory = one_area().memory
    free = memory.zones[0].watermark[0] + 10
    hold(memory, "k", "kernel", [(free, BASE - free), (BASE + 4 * BLOCK, 20 * BLOCK - 100)])
    cache = hold(memory, "c", "file", [(32 * BLOCK - 100, 100)])
    segments = alloc_pages_bulk(memory, GFP_KERNEL, wanted)
    assert len(set(pfns_of(segments, wanted))) == sum(count for _, _, _, count in segments) == wanted
    assert memory.vmstat.vm_event("pgsteal_direct") == 100 - cache.resident == wanted - 10
    assert memory.vmstat.vm_event("pgsteal_kswapd") == 0
    with pytest.raises(OutOfMemory, match=f"111 pages wanted, {110 - wanted} available after reclaim$"):
        alloc_pages_bulk(memory, GFP_KERNEL, 111)


def test_kswapd_gives_single_pages_what_is_missing_and_keeps_the_rest() -> None:
    memory = boot(layout(32 * BLOCK)).memory
    (zone,) = [zone for zone in memory.zones if zone.present_pages]
    _, low, high = zone.watermark
    hold(memory, "k", "kernel", [(low + 10, 30 * BLOCK - low - 10)])
    cache = hold(memory, "c", "file", [(30 * BLOCK, 2 * BLOCK)])
    assert high - low > 40
    segments = alloc_pages_bulk(memory, GFP_KERNEL, 30)
    assert sum(count for _, _, _, count in segments) == 30
    assert zone.nr_free == high + 1 - 20
    assert memory.vmstat.vm_event("pgsteal_kswapd") == 2 * BLOCK - cache.resident == high + 1 - low


@pytest.mark.parametrize("room", [1, 30])
def test_a_full_zone_gives_nothing(room: int) -> None:
    """Exactly the pages of the other zone above its lowest watermark can be had."""
    memory = boot(layout(32 * BLOCK, dma32_end=16 * BLOCK)).memory
    low, high = memory.zones
    free = high.start_pfn + high.watermark[0] + room
    hold(memory, "k", "kernel", [(0, 16 * BLOCK), (free, 32 * BLOCK - free)])
    assert (low.nr_free, high.nr_free) == (0, high.watermark[0] + room)
    with pytest.raises(OutOfMemory, match=f"{room + 1} pages wanted, {room} available after reclaim$"):
        alloc_pages_bulk(memory, GFP_KERNEL, room + 1)
    assert sum(count for _, _, _, count in alloc_pages_bulk(memory, GFP_KERNEL, room)) == room


def test_reclaim_goes_on_where_it_stopped_and_round() -> None:
    """As from the end of a list of least recently used pages: what was passed over comes last."""
    memory = boot(layout(32 * BLOCK)).memory
    rank = memory.zones[0].rank
    cache = hold(memory, "c", "file", [(4 * BLOCK, 100)])
    held = [4 * BLOCK + index for index in (*range(10), 29)]
    for pfn in held:
        pin_pfn(memory, pfn)
    assert reclaimable(memory, alloc_cma=True) == {0: 89}
    assert try_to_free_pages(memory, rank, 20) == 20
    for pfn in held:
        unpin_pfn(memory, pfn)
    assert try_to_free_pages(memory, rank, 64) == 64
    assert [index for index, pfn in enumerate(cache.frames) if pfn >= 0] == [*range(10), 29, *range(95, 100)]
    assert try_to_free_pages(memory, rank, 10) == 10
    assert [index for index, pfn in enumerate(cache.frames) if pfn >= 0] == [*range(5, 10), 29]
    assert reclaimable(memory, alloc_cma=True) == {0: 6}


def test_reclaim_goes_from_cache_to_cache_the_oldest_first() -> None:
    memory = boot(layout(32 * BLOCK)).memory
    rank = memory.zones[0].rank
    caches = [hold(memory, f"c{i}", "file", [(i * 4 * BLOCK, 20 + 20 * i)]) for i in range(3)]
    hold(memory, "a", "anon", [(20 * BLOCK, 100)])
    caches[2].mlocked = True
    caches[1].dirty |= {5, 6}
    assert reclaimable(memory, alloc_cma=True) == {0: 20 + 38}
    assert try_to_free_pages(memory, rank, 30) == 30
    assert [cache.resident for cache in caches] == [0, 30, 60]
    assert try_to_free_pages(memory, rank, 100) == 28
    assert [cache.resident for cache in caches] == [0, 2, 60]
    events = ("allocstall_dma32", "pgscan_direct", "pgsteal_direct", "pgscan_file", "pgsteal_file")
    assert [memory.vmstat.vm_event(event) for event in events] == [2, 58, 58, 58, 58]
    assert try_to_free_pages(memory, rank, 100) == 0


def test_what_is_dropped_by_hand() -> None:
    """mm/drop_caches: clean page cache and slab that nobody holds, the first page of memory among them."""
    machine = boot(layout(32 * BLOCK))
    memory = machine.memory
    cache = hold(memory, "c", "file", [(0, 1), (BLOCK, 50)])
    slab = hold(memory, "s", "slab", [(10, 40)])
    kernel = hold(memory, "k", "kernel", [(2 * BLOCK, 10)])
    for pfn in (BLOCK + 3, 20):
        pin_pfn(memory, pfn)
    cache.dirty |= {7}
    free = machine.free()
    assert (drop_pagecache(memory), cache.resident, slab.resident) == (49, 2, 40)
    assert (drop_slab(memory), cache.resident, slab.resident) == (39, 2, 1)
    assert (drop_pagecache(memory), drop_slab(memory)) == (0, 0)
    assert (machine.free(), kernel.resident) == (free + 88, 10)
    events = [memory.vmstat.vm_event(event) for event in ("drop_pagecache", "drop_slab", "pgsteal_file")]
    assert events == [2, 2, 0]
    first = hold(memory, "t", "slab", [(0, 1)])
    assert (drop_slab(memory), first.resident) == (1, 0)


@pytest.mark.parametrize(("value", "left"), [(1, [0, 20]), (2, [10, 0]), (3, [0, 0]), (4, [10, 20])])
def test_the_bits_of_drop_caches(value: int, left: list[int]) -> None:
    memory = boot(layout(32 * BLOCK)).memory
    holders = hold(memory, "c", "file", [(0, 10)]), hold(memory, "s", "slab", [(10, 20)])
    drop_caches(memory, value)
    assert [holder.resident for holder in holders] == left


def test_clean_cache_of_a_range_goes_and_what_is_held_moves() -> None:
    """mm/vmscan.c:reclaim_clean_pages_from_list()@v6.12"""
    memory = one_area().memory
    clean = hold(memory, "c", "file", [(BASE, 20)])
    dirty = hold(memory, "d", "file", [(BASE + 20, 20)])
    locked = hold(memory, "l", "file", [(BASE + 40, 20)])
    other = hold(memory, "a", "anon", [(BASE + 60, 20)])
    dirty.dirty |= {*range(5)}
    locked.mlocked = True
    alloc_contig_range(memory, BASE, BASE + 100)
    assert [holder.resident for holder in (clean, dirty, locked, other)] == [0, 5, 20, 20]
    assert [pfn >= 0 for pfn in dirty.frames] == [True] * 5 + [False] * 15
    assert memory.vmstat.vm_event("pgmigrate_success") == 45
    assert not memory.owners.any_in(BASE, BASE + 100)


@pytest.mark.parametrize(("order", "stolen", "stalls"), [(0, 1, (0, 0, 0)), (3, 8, (2, 1, 1))])
def test_direct_reclaim_takes_what_is_missing(order: int, stolen: int, stalls: tuple[int, int, int]) -> None:
    """mm/page_alloc.c:__alloc_pages_slowpath()@v6.12 where nobody wakes kswapd."""
    memory = boot(layout(16 * BLOCK)).memory
    free = memory.zones[0].watermark[0]
    hold(memory, "k", "kernel", [(free, 15 * BLOCK - free)])
    hold(memory, "c", "file", [(15 * BLOCK, BLOCK)])
    assert memory.zones[0].nr_free == free
    pfn = alloc_pages(memory, GFP_KERNEL & ~GFP_KSWAPD_RECLAIM_BIT, order)
    assert pfn % (1 << order) == 0
    assert memory.zones[0].nr_free == free + stolen - (1 << order)
    assert memory.vmstat.vm_event("pgsteal_direct") == memory.vmstat.vm_event("pgsteal_file") == stolen
    counts = tuple(memory.vmstat.vm_event(f"compact_{name}") for name in ("stall", "fail", "success"))
    assert counts == stalls
    assert memory.vmstat.vm_event("allocstall_normal") + memory.vmstat.vm_event("allocstall_dma32") == 1


@pytest.mark.parametrize(("gfp", "compacted_"), [(GFP_KERNEL, True), (GFP_HIGHUSER_MOVABLE, False)])
def test_a_free_block_of_cma_ends_compaction_only_for_movable_requests(gfp: int, compacted_: bool) -> None:
    """mm/compaction.c:__compact_finished()@v6.12: MIGRATE_MOVABLE can fall back on MIGRATE_CMA, no other."""
    area = ((12 * BLOCK, 4 * BLOCK),)
    memory = boot(layout(16 * BLOCK, area), area).memory
    hold(memory, "a", "anon", [(i * BLOCK, 1) for i in range(12)])
    pfn = alloc_pages(memory, gfp, 9)
    assert (pfn < 12 * BLOCK) == compacted_ == (compacted(memory)[3] > 0)


def test_nothing_is_reclaimed_where_compaction_has_made_the_block() -> None:
    machine = boot(layout(16 * BLOCK))
    memory = machine.memory
    hold(memory, "a", "anon", [(pfn, 1) for pfn in range(0, 12 * BLOCK, BLOCK)])
    hold(memory, "k", "kernel", [(12 * BLOCK, 100), (13 * BLOCK, 100), (14 * BLOCK, 100), (15 * BLOCK, 100)])
    cache = hold(memory, "c", "file", [(12 * BLOCK + 100, 50)])
    free = machine.free()
    assert alloc_pages(memory, GFP_KERNEL, 10) % 1024 == 0
    assert machine.free() == free - 1024
    assert cache.resident == 50
    counts = [memory.vmstat.vm_event(f"compact_{name}") for name in ("stall", "fail", "success")]
    assert counts == [1, 0, 1]


# what boot leaves


@pytest.mark.parametrize(
    ("kernel", "pages", "page_shift", "used"),
    [
        ("6.12", 128 * BLOCK, 12, (342, 755, 150)),  # MmAbi.boot_*_kib
        ("6.12", 128 * BLOCK, 16, (21, 47, 9)),
        ("4.4", 128 * BLOCK, 12, (615, 135, 50)),
        ("6.12", 4 * BLOCK, 12, (128, 128, 128)),  # a sixteenth each at most
        ("6.12", 8 * BLOCK, 12, (256, 256, 150)),
    ],
)
def test_what_is_in_memory_after_boot(
    kernel: str, pages: int, page_shift: int, used: tuple[int, int, int]
) -> None:
    machine = boot(layout(pages, page_shift=page_shift), (), kernel, boot_pages=True)
    occupants = [machine.memory.owners.by_name(name) for name in ("[kernel]", "[user]", "[cache]")]
    assert tuple(occupant.resident for occupant in occupants if occupant) == used
    assert machine.free() == pages - sum(used)
    assert tasks(machine.memory) == []
    machine.check()


@pytest.mark.parametrize("kernel", ["5.10", "6.12", "6.18"])
def test_the_cache_comes_back_to_where_it_was(kernel: str) -> None:
    """Half of memory is CMA: the cache lies in both halves."""
    machine = boot(
        layout(128 * BLOCK, ((32 * BLOCK, 64 * BLOCK),)), ((32 * BLOCK, 64 * BLOCK),), kernel, boot_pages=True
    )
    memory = machine.memory
    start = machine.free(), machine.cma_free()
    cache = memory.cache
    assert cache is not None
    in_cma = sum(memory.pageblock_migratetype(pfn) == MIGRATE_CMA for pfn in cache.pfns())
    assert abs(2 * in_cma - cache.resident) <= 1
    spawn(memory, "a", "tmpfs", machine.free() - memory.zones[0].watermark[0] + cache.resident)
    assert cache.resident == 0
    kill(memory, "a")
    assert (machine.free(), machine.cma_free()) == start
    assert sum(memory.pageblock_migratetype(pfn) == MIGRATE_CMA for pfn in cache.pfns()) == in_cma
    machine.check()


@pytest.mark.parametrize(("lost", "room", "back"), [(20, 20, 0), (20, 21, 20), (1, 100, 1)])
def test_the_cache_reads_in_what_it_lost_while_memory_is_plentiful(lost: int, room: int, back: int) -> None:
    """More than is missing must be free above the high watermark."""
    memory = boot(layout(32 * BLOCK), boot_pages=True).memory
    zone, cache = memory.zones[0], memory.cache
    assert cache is not None
    spawn(memory, "k", "kernel", zone.nr_free - zone.watermark[2] - room + lost)
    assert try_to_free_pages(memory, zone.rank, lost) == lost
    allocated = memory.vmstat.vm_event("pgalloc_dma32")
    settle(memory)
    assert cache.resident == 150 - lost + back
    assert zone.nr_free == zone.watermark[2] + room - back
    if back:  # then its first page is the oldest again
        assert try_to_free_pages(memory, zone.rank, 1) == 1
        assert cache.frames[0] < 0 and cache.resident == 149
    assert memory.vmstat.vm_event("pgalloc_dma32") - allocated == back


@pytest.mark.parametrize(
    ("high_pfn", "high"),
    [
        (8192, ["HighMem", "Movable"]),
        (12288, ["HighMem", "Movable"]),
        (12289, ["HighMem"]),
        (None, ["HighMem"]),
    ],
)
def test_which_zones_are_high_memory(high_pfn: int | None, high: list[str]) -> None:
    """include/linux/highmem-internal.h:is_highmem_idx()@v6.12"""
    zones = (ZoneSpan("Normal", 0, 8192), ZoneSpan("HighMem", 8192, 12288), ZoneSpan("Movable", 12288, 16384))
    found = MemoryLayout(12, 10, 10, zones, ((0, 16384),), (), high_pfn)
    assert [zone.name for zone in boot(found).memory.high_zones()] == high


def test_nodes_come_in_the_order_of_their_numbers() -> None:
    zones = tuple(ZoneSpan("Normal", BLOCK * i, BLOCK * (i + 1), nid) for i, nid in enumerate((9, 1, 8, 1)))
    found = MemoryLayout(12, 9, 10, zones, ((0, 4 * BLOCK),), ())
    assert boot(found).memory.nodes() == [1, 8, 9]


@pytest.mark.parametrize(("spare", "parked"), [(0, False), (1, True)])
def test_a_page_block_rests_on_a_per_cpu_list_if_it_can_be_spared(spare: int, parked: bool) -> None:
    """More than a page block must be free above the high watermark."""
    machine = one_area("7.2")
    memory, zone = machine.memory, machine.memory.zones[0]
    free = zone.watermark[2] + BLOCK + spare
    hold(memory, "k", "kernel", [(0, BASE), (BASE + 4 * BLOCK, 20 * BLOCK)])
    hold(memory, "a", "anon", [(BASE + free, 4 * BLOCK - free)])
    assert zone.nr_free == free
    park_cma_block(memory)
    assert (memory.pcp is not None) is parked
    assert machine.cma_free() == (free - BLOCK if parked else free)


def test_the_types_of_page_blocks_of_memory_that_begins_late() -> None:
    memory = boot(layout(4 * BLOCK, start=64 * BLOCK)).memory
    memory.set_pageblock_migratetype(65 * BLOCK, 66 * BLOCK, MIGRATE_CMA)
    flags = [MIGRATE_MOVABLE, MIGRATE_CMA, MIGRATE_MOVABLE, MIGRATE_MOVABLE]
    assert [memory.pageblock_migratetype((64 + i) * BLOCK + 511) for i in range(4)] == flags
    spans = ((0, 512), (0, 513), (512, 1024), (1023, 1025), (1024, 2048))
    same = [memory.one_migratetype(64 * BLOCK + low, 64 * BLOCK + high) for low, high in spans]
    assert same == [True, False, True, False, True]
