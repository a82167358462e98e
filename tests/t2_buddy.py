"""The buddy lists: every bulk short cut does exactly what the same number of single steps would do."""

from __future__ import annotations

import copy
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mm_support import Booted, boot, layout
from soak_support import examples

from cmafs.abi import kernel_abi
from cmafs.mm.buddy import carve, free_one_page, free_range
from cmafs.mm.contig_alloc import alloc_contig_range, alloc_contig_range_slowly
from cmafs.mm.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_SLAB_RECLAIMABLE
from cmafs.mm.mm_init import mm_init
from cmafs.mm.mmzone import (
    MIGRATE_CMA,
    MIGRATE_HIGHATOMIC,
    MIGRATE_ISOLATE,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_TYPES,
    MIGRATE_UNMOVABLE,
    Memory,
    Zone,
)
from cmafs.mm.page_alloc import prepare_alloc_pages, rmqueue, rmqueue_bulk
from cmafs.mm.page_owner import contiguous, pfns_of
from cmafs.mm.runs import RunList

KERNELS = ("4.4", "5.4", "5.10", "6.1", "6.12", "7.2")
PAGES, CMA_START, CMA_PAGES = 2048, 1024, 512
GFPS = (GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_SLAB_RECLAIMABLE)

SINGLE_STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60), st.integers(0, 7)), max_size=12)


def lists(zone: Zone) -> dict[tuple[int, int], list[int]]:
    """Every free list, head first."""
    found = {}
    for migratetype in range(MIGRATE_TYPES):
        for order in range(zone.max_page_order):
            found[order, migratetype] = list(reversed(zone.free_area[order << 3 | migratetype]))
        found[zone.max_page_order, migratetype] = list(zone.top_area[migratetype])
    return found


def state(memory: Memory, ordered: bool = True) -> object:
    """All that allocation can see; ``ordered``: with the positions inside the lists."""
    zones = []
    for zone in memory.zones:
        found = lists(zone)
        content = found if ordered else {key: sorted(blocks) for key, blocks in found.items()}
        zones.append((content, dict(zone.buddy), zone.nr_free, zone.nr_free_cma))
    return zones, bytes(memory.pageblock_flags)


def machine(kernel: str, steps: list[tuple[int, int, int]]) -> tuple[Booted, list[int]]:
    """A machine of small page blocks, fragmented by single pages taken and partly given back; what is still
    held.
    """
    cma = ((CMA_START, CMA_PAGES),)
    booted = boot(layout(PAGES, cma, ((5, 9),), pageblock_order=4, max_page_order=5), cma, kernel)
    memory, held = booted.memory, []
    zone = memory.zones[0]
    for kind, pages, keep in steps:
        ac = prepare_alloc_pages(memory, GFPS[kind])
        taken = [rmqueue(memory, zone, 0, ac.migratetype, ac.alloc_cma) for _ in range(pages)]
        for i, pfn in enumerate(taken):
            assert pfn is not None
            if i % 8 <= keep:
                held.append(pfn)
            else:
                free_one_page(memory, zone, pfn, 0, memory.pageblock_migratetype(pfn))
    return booted, sorted(held)


@given(
    st.lists(
        st.tuples(st.sampled_from(["head", "tail", "pop", "cut"]), st.integers(0, 15), st.integers(1, 6))
    )
)
def test_run_list_is_a_list_of_blocks(steps: list[tuple[str, int, int]]) -> None:
    runs, model = RunList(8), []
    for what, first, count in steps:
        blocks = list(range(first * 8, (first + count) * 8, 8))
        if what in ("head", "tail") and not set(blocks) & set(model):
            if what == "head":
                runs.add(blocks[0], blocks[-1] + 8)
                model = blocks[::-1] + model
            else:
                runs.add_tail(blocks[0], blocks[-1] + 8)
                model = model + blocks
        elif what == "pop" and model:
            assert runs.first() == model[0]
            assert runs.pop() == model.pop(0)
        elif what == "cut" and set(blocks) <= set(model):
            runs.discard(blocks[0], blocks[-1] + 8)
            model = [pfn for pfn in model if pfn not in blocks]
        assert list(runs) == model
        assert (len(runs), runs.nr_pages) == (len(model), len(model) * 8)
        for pfn in range(0, 200, 4):
            assert (runs.find(pfn) is not None) == (pfn // 8 * 8 in model)


@pytest.mark.parametrize("ends", list(product(["add", "add_tail"], repeat=4)))
def test_blocks_in_any_order_at_either_end(ends: tuple[str, ...]) -> None:
    """Four blocks of 8 side by side: listed, one of them cut out, found, and taken from the head."""
    for order, cut in product(permutations(range(0, 32, 8)), range(0, 32, 8)):
        runs = RunList(8)
        model: list[int] = []
        for end, pfn in zip(ends, order, strict=True):
            getattr(runs, end)(pfn, pfn + 8)
            model = [pfn, *model] if end == "add" else [*model, pfn]
            assert list(runs) == model
        runs.discard(cut, cut + 8)
        model.remove(cut)
        assert list(runs) == model
        assert runs.find(cut) is runs.find(cut + 7) is runs.find(32) is None
        left = [runs.find(pfn) for pfn in sorted(model)]
        assert [run and run.start <= pfn < run.end for run, pfn in zip(left, sorted(model), strict=True)]
        following = runs.first_from(cut)
        assert following is None if cut == 24 else following is runs.find(cut + 8)
        while model:
            assert (runs.first(), runs.pop(), runs.nr_pages) == (model[0], model.pop(0), 8 * len(model))
        assert (list(runs), len(runs)) == ([], 0)


def test_runs_that_continue_each_other_are_one() -> None:
    """Blocks of 8 in list order: a run goes up or down, a single block either way."""
    runs = RunList(8)

    def shape() -> list[tuple[int, int, bool]]:
        return [(run.start, run.end, run.down) for run in iterate(runs)]

    def iterate(of: RunList):
        run = of._root.next
        while run is not of._root:
            yield run
            run = run.next

    runs.add(8, 24)
    runs.add_tail(24, 40)
    assert (list(runs), shape()) == ([16, 8, 24, 32], [(8, 24, True), (24, 40, False)])
    runs.add(24 + 16, 48)
    assert list(runs) == [40, 16, 8, 24, 32]
    runs.discard(16, 24)
    runs.discard(24, 32)
    runs.add_tail(80, 88)
    runs.add_tail(88, 96)
    assert (list(runs), shape()[-1]) == ([40, 8, 32, 80, 88], (80, 96, False))
    runs.add(48, 64)
    assert (list(runs), shape()[0]) == ([56, 48, 40, 8, 32, 80, 88], (40, 64, True))
    runs.add(64, 72)
    assert (runs.pop(), shape()[0]) == (64, (40, 64, True))
    runs.add_tail(96, 104)
    assert shape()[-1] == (80, 104, False)
    runs.discard(96, 104)
    assert [run and run.start for run in map(runs.first_from, (0, 8, 9, 16, 63, 64, 96))] == [
        8, 8, 8, 32, 40, 80, None,
    ]  # fmt: skip
    for pfn in (216, 208, 200):
        runs.add(pfn, pfn + 8)
    assert (list(runs)[:3], shape()[0]) == ([200, 208, 216], (200, 224, False))
    runs.add(224, 232)
    runs.add(192, 200)
    assert shape()[:3] == [(192, 200, True), (224, 232, True), (200, 224, False)]
    runs = RunList(8)
    runs.add(8, 16)
    runs.add_tail(16, 24)
    assert (list(runs), shape()) == ([8, 16], [(8, 24, False)])


@pytest.mark.parametrize("kernel", KERNELS)
@examples(25)
@given(steps=SINGLE_STEPS, tail=st.booleans())
def test_free_range_is_page_by_page(kernel: str, steps: list[tuple[int, int, int]], tail: bool) -> None:
    booted, held = machine(kernel, steps)
    single = copy.deepcopy(booted.memory)
    for pfn, count in contiguous(held):
        free_range(booted.memory, booted.memory.zones[0], pfn, pfn + count, tail)
        for page in range(pfn, pfn + count):
            free_one_page(single, single.zones[0], page, 0, single.pageblock_migratetype(page), tail)
    assert state(booted.memory) == state(single)


@pytest.mark.parametrize("kernel", KERNELS)
@examples(25)
@given(steps=SINGLE_STEPS, kind=st.integers(0, 2), pages=st.integers(1, PAGES))
def test_rmqueue_bulk_is_page_by_page(
    kernel: str, steps: list[tuple[int, int, int]], kind: int, pages: int
) -> None:
    booted, _ = machine(kernel, steps)
    memory, single = booted.memory, copy.deepcopy(booted.memory)
    ac = prepare_alloc_pages(memory, GFPS[kind])
    segments: list[tuple[int, int, int, int]] = []
    got = rmqueue_bulk(memory, memory.zones[0], pages, ac, 0, segments)
    one_by_one = []
    while len(one_by_one) < pages:
        pfn = rmqueue(single, single.zones[0], 0, ac.migratetype, ac.alloc_cma)
        if pfn is None:
            break
        one_by_one.append(pfn)
    assert pfns_of(segments, got).tolist() == one_by_one
    assert state(memory) == state(single)


@pytest.mark.parametrize("kernel", ["5.10", "6.12"])
@pytest.mark.parametrize("types", ["mmmmmmmm", "mmmmmmmr", "mmccmmmm", "ccccmmmm", "ccmmccmm", "rmrmrmrm"])
def test_blocks_of_several_page_blocks_merge_as_page_by_page(kernel: str, types: str) -> None:
    """A largest block has eight page blocks here, as with CONFIG_PAGE_BLOCK_MAX_ORDER (7.2)."""
    full = mm_init(layout(64, pageblock_order=2, max_page_order=5, dma32_end=0), kernel_abi(kernel).mm)
    zone = full.zones[0]
    assert {rmqueue(full, zone, 5, MIGRATE_MOVABLE, False) for _ in range(2)} == {0, 32}
    kinds = {"m": MIGRATE_MOVABLE, "r": MIGRATE_RECLAIMABLE, "c": MIGRATE_CMA}
    for block, kind in enumerate(types * 2):
        full.set_pageblock_migratetype(4 * block, 4 * block + 1, kinds[kind])
    for start, end in ((0, 64), (0, 16), (8, 24), (16, 32), (4, 12), (1, 40)):
        memory, single = copy.deepcopy(full), copy.deepcopy(full)
        free_range(memory, memory.zones[0], start, end)
        for pfn in range(start, end):
            free_one_page(single, single.zones[0], pfn, 0, single.pageblock_migratetype(pfn))
        assert state(memory) == state(single)


@pytest.mark.parametrize(
    ("kernel", "never", "retyped"),
    [
        ("5.10", {MIGRATE_ISOLATE}, False),
        ("6.1", {MIGRATE_HIGHATOMIC, MIGRATE_CMA, MIGRATE_ISOLATE}, False),
        ("6.12", {MIGRATE_HIGHATOMIC, MIGRATE_CMA, MIGRATE_ISOLATE}, True),
    ],
)
@pytest.mark.parametrize("first", [0, 4])
def test_which_page_blocks_become_one(kernel: str, never: set[int], retyped: bool, first: int) -> None:
    """Two page blocks of four pages, ``first`` freed last, and neighbours in use that keep their type.

    mm/page_alloc.c:__free_one_page()@v5.10, v6.1, v6.12
    """
    for mine, other in product(range(MIGRATE_TYPES), repeat=2):
        memory = mm_init(layout(64, pageblock_order=2, max_page_order=5, dma32_end=0), kernel_abi(kernel).mm)
        zone = memory.zones[0]
        assert carve(zone, 0, 64)
        memory.set_pageblock_migratetype(first, first + 4, mine)
        memory.set_pageblock_migratetype(first ^ 4, (first ^ 4) + 4, other)
        free_one_page(memory, zone, first ^ 4, 2, other)
        free_one_page(memory, zone, first, 2, mine)
        found = {key: blocks for key, blocks in lists(zone).items() if blocks}
        types = [memory.pageblock_migratetype(pfn) for pfn in (first, first ^ 4, *range(8, 64, 4))]
        if mine != other and never & {mine, other}:
            assert found == {(2, mine): [first], (2, other): [first ^ 4]}
            assert types[:2] == [mine, other]
        else:
            assert found == {(3, mine): [0]}
            assert types[:2] == [mine, mine if retyped else other]
        assert set(types[2:]) == {MIGRATE_MOVABLE}


@pytest.mark.parametrize("above", range(-2, 3))
def test_rmqueue_bulk_near_the_line_of_the_half_rule(above: int) -> None:
    """So many pages above half of what is free are CMA (mm/page_alloc.c:__rmqueue()@v5.10)."""
    before = machine("6.12", [])[0].memory
    kernel, movable = (prepare_alloc_pages(before, gfp) for gfp in (GFP_KERNEL, GFP_HIGHUSER_MOVABLE))
    zone = before.zones[0]
    rmqueue_bulk(before, zone, above + zone.nr_free - 2 * zone.nr_free_cma, kernel, 0, [])
    assert 2 * zone.nr_free_cma - zone.nr_free == above
    for pages in (1, 2, 3, 4):
        memory, single = copy.deepcopy(before), copy.deepcopy(before)
        segments: list[tuple[int, int, int, int]] = []
        got = rmqueue_bulk(memory, memory.zones[0], pages, movable, 0, segments)
        singles = [rmqueue(single, single.zones[0], 0, movable.migratetype, True) for _ in range(pages)]
        assert (got, pfns_of(segments, got).tolist()) == (pages, singles)
        assert state(memory) == state(single)


@pytest.mark.parametrize("kernel", KERNELS)
@examples(25)
@given(steps=SINGLE_STEPS, start=st.integers(0, CMA_PAGES - 1), pages=st.integers(1, CMA_PAGES))
def test_carve_is_the_long_path(
    kernel: str, steps: list[tuple[int, int, int]], start: int, pages: int
) -> None:
    booted, _ = machine(kernel, [(kind, count, 0) for kind, count, _ in steps])
    memory, slow = booted.memory, copy.deepcopy(booted.memory)
    low, high = CMA_START + start, min(CMA_START + start + pages, CMA_START + CMA_PAGES)
    free = all(memory.zones[0].find_free(pfn) for pfn in range(low, high))
    if not free:
        before = state(memory)
        assert not carve(memory.zones[0], low, high)
        assert state(memory) == before
        return
    alloc_contig_range(memory, low, high)
    alloc_contig_range_slowly(slow, slow.zones[0], low, high)
    assert state(memory, ordered=False) == state(slow, ordered=False)


def test_boot_order_of_the_largest_blocks() -> None:
    """5.10 and later use the lowest block first, kernels before it the highest; a CMA area always its
    highest.
    """
    for kernel, first in (("5.4", PAGES - 32), ("6.12", 32)):
        booted, _ = machine(kernel, [])
        zone = booted.memory.zones[0]
        assert zone.top_area[MIGRATE_MOVABLE].first() == first
        assert zone.top_area[MIGRATE_CMA].first() == CMA_START + CMA_PAGES - 32


def test_split_keeps_the_lowest_part() -> None:
    """Pages 5 to 8 are reserved, so that boot leaves blocks of every small order."""
    booted, _ = machine("6.12", [])
    zone = booted.memory.zones[0]
    assert [lists(zone)[order, MIGRATE_MOVABLE] for order in range(4)] == [[4, 9], [10], [0, 12], []]
    assert rmqueue(booted.memory, zone, 1, MIGRATE_MOVABLE, alloc_cma=False) == 10
    assert rmqueue(booted.memory, zone, 1, MIGRATE_MOVABLE, alloc_cma=False) == 0
    assert [lists(zone)[order, MIGRATE_MOVABLE] for order in range(4)] == [[4, 9], [2], [12], []]
    assert zone.nr_free == PAGES - 4 - 4


def test_merge_likely_goes_to_the_tail() -> None:
    """A block whose larger buddy is free waits at the tail: it is likely to merge soon."""
    booted, _ = machine("6.12", [])
    memory, zone = booted.memory, booted.memory.zones[0]
    for _ in range(4):
        rmqueue(memory, zone, 0, MIGRATE_MOVABLE, alloc_cma=False)
    taken = [rmqueue(memory, zone, 0, MIGRATE_MOVABLE, alloc_cma=False) for _ in range(4)]
    assert taken == [0, 1, 2, 3]
    free_one_page(memory, zone, 9, 0, MIGRATE_MOVABLE)
    free_one_page(memory, zone, 2, 0, MIGRATE_MOVABLE)
    assert lists(zone)[0, MIGRATE_MOVABLE] == [2, 9]
    free_one_page(memory, zone, 1, 0, MIGRATE_MOVABLE)
    assert lists(zone)[0, MIGRATE_MOVABLE] == [1, 2, 9]
    free_one_page(memory, zone, 3, 0, MIGRATE_MOVABLE)
    assert lists(zone)[0, MIGRATE_MOVABLE] == [1, 9]
    assert lists(zone)[1, MIGRATE_MOVABLE] == [2]
    free_one_page(memory, zone, 11, 0, MIGRATE_MOVABLE)
    assert lists(zone)[0, MIGRATE_MOVABLE] == [11, 1, 9]


def test_only_a_whole_larger_buddy_makes_a_merge_likely() -> None:
    """The buddy of the pair 2, 3 is the pair 0, 1: free as one block, free in part, or far away."""
    for free, waits in (((0, 1), True), ((0,), False), ((1,), False), ((4, 5), False)):
        booted, _ = machine("6.12", [])
        memory, zone = booted.memory, booted.memory.zones[0]
        for _ in range(8):
            rmqueue(memory, zone, 0, MIGRATE_MOVABLE, alloc_cma=False)
        for pfn in (9, *free, 2):
            free_one_page(memory, zone, pfn, 0, MIGRATE_MOVABLE)
        singles = lists(zone)[0, MIGRATE_MOVABLE]
        assert singles.index(9) == (0 if waits else len(singles) - 1), free
        assert (singles[-1] == 2) == waits, free


@pytest.mark.parametrize("kernel", ["6.12", "6.18"])
@pytest.mark.parametrize(
    ("reserved", "order"),
    [(((768, 1024),), 9), (((256, 512), (640, 1024)), 8)],
    ids=["9", "8"],
)
def test_another_type_claims_the_largest_block(
    kernel: str, reserved: tuple[tuple[int, int], ...], order: int
) -> None:
    """Free are a block of that order at 0 and one of half its size, each in a page block of its own."""
    memory = boot(layout(1024, reserved=reserved), kernel=kernel).memory
    zone = memory.zones[0]
    assert [bool(lists(zone)[n, MIGRATE_MOVABLE]) for n in (order, order - 1)] == [True, True]
    assert rmqueue(memory, zone, 0, MIGRATE_UNMOVABLE, alloc_cma=False) == 0
    assert memory.pageblock_migratetype(0) == MIGRATE_UNMOVABLE
    assert memory.pageblock_migratetype(512) == MIGRATE_MOVABLE
