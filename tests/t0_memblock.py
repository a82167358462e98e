"""memblock against a model that marks every page; the sorts of lib/sort.c; the memmap's places."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmafs.abi.boot import SORT_HEAP, SORT_NONE, SORT_STABLE
from cmafs.lib.sort import heap_sort, overlaps, rmem_sort
from cmafs.mm.memblock import MEMBLOCK_ALLOC_ACCESSIBLE, MEMBLOCK_ALLOC_ANYWHERE, Memblock
from cmafs.mm.sparse import SparseLayout, sparse_init

PAGE = 4096
RANGE = st.tuples(st.integers(0, 60), st.integers(1, 20))


def spans(regions) -> list[tuple[int, int]]:
    return [(region.base, region.end) for region in regions]


@given(st.lists(st.tuples(st.sampled_from(["reserve", "phys_free", "add", "remove"]), RANGE), max_size=20))
def test_ranges_follow_a_page_by_page_model(steps) -> None:
    memblock, memory, reserved = Memblock(), set(range(64)), set()
    memblock.add(0, 64 * PAGE)
    for name, (start, count) in steps:
        getattr(memblock, name)(start * PAGE, count * PAGE)
        pages = set(range(start, start + count))
        if name == "add":
            memory |= pages
        elif name == "remove":
            memory -= pages
        elif name == "reserve":
            reserved |= pages
        else:
            reserved -= pages
    for regions, model in ((memblock.memory, memory), (memblock.reserved, reserved)):
        assert {n for low, high in spans(regions) for n in range(low // PAGE, high // PAGE)} == model
        assert all(a.end < b.base for a, b in pairwise(regions))
    free = {n for low, high in memblock.free_ranges() for n in range(low // PAGE, high // PAGE)}
    assert free == memory - reserved
    assert list(memblock.free_ranges_reverse()) == list(memblock.free_ranges())[::-1]


@given(
    st.lists(RANGE, max_size=8),
    st.integers(1, 16),
    st.sampled_from([1, 2, 4, 8]),
    RANGE,
    st.booleans(),
)
def test_search_finds_the_outermost_place(taken, count, align, window, bottom_up) -> None:
    memblock = Memblock(bottom_up=bottom_up)
    memblock.add(0, 64 * PAGE)
    for start, pages in taken:
        memblock.reserve(start * PAGE, pages * PAGE)
    low, high = window[0], window[0] + window[1] + 16
    busy = {n for start, pages in taken for n in range(start, start + pages)} | {0}
    places = [
        n
        for n in range(0, 64, align)
        if low <= n and n + count <= min(high, 64) and not busy & set(range(n, n + count))
    ]
    found = memblock.find_in_range_node(count * PAGE, align * PAGE, low * PAGE, high * PAGE)
    assert found == ((min(places) if bottom_up else max(places)) * PAGE if places else 0)


@given(
    st.lists(RANGE, max_size=8),
    st.lists(RANGE, max_size=3),
    st.integers(0, 40),
    st.sampled_from([1, 2]),
    RANGE,
)
def test_single_pages_stand_where_one_after_the_other_would(taken, nomap, count, unit, limit) -> None:
    """Pages may be larger than what reservations are made of."""
    found = []
    for at_once in (True, False):
        memblock = Memblock(current_limit=(limit[0] + limit[1]) * PAGE + 7, page_size=unit * PAGE)
        memblock.add(0, 64 * PAGE)
        for start, pages in taken:
            memblock.reserve(start * PAGE, pages * PAGE)
        for start, pages in nomap:
            memblock.mark_nomap(start * PAGE, pages * PAGE)
        if at_once:
            memblock.alloc_pages(count)
        for _ in range(0 if at_once else count):
            memblock.alloc(unit * PAGE, unit * PAGE)
        found.append(spans(memblock.reserved))
    assert found[0] == found[1]


@pytest.mark.parametrize("shift", [12, 14, 16])
@pytest.mark.parametrize("bottom_up", [False, True])
def test_the_first_page_of_any_size_is_never_given_out(shift: int, bottom_up: bool) -> None:
    page = 1 << shift
    memblock = Memblock(page_size=page, bottom_up=bottom_up)
    memblock.add(0, 2 * page)
    assert (memblock.alloc(page, 64), memblock.alloc(64)) == (page, 0)
    memblock = Memblock(page_size=page)
    memblock.add(0, 3 * page)
    assert (memblock.alloc_pages(3), spans(memblock.reserved)) == (1, [(page, 3 * page)])


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (1, [(0x1000, 0x1001)]),
        (0x1000, [(0x1000, 0x2000)]),
        (0x1001, [(0x1000, 0x2000), (0x8000, 0x8001)]),
        (0x2000, [(0x1000, 0x2000), (0x8000, 0x9000)]),
        (0x3000, [(0x1000, 0x2000), (0x8000, 0xA000)]),
        (0x3001, [(0x1000, 0x2000), (0x8000, 0xA000)]),
    ],
)
def test_memory_up_to_an_amount(limit: int, left: list[tuple[int, int]]) -> None:
    """mm/memblock.c:memblock_mem_limit_remove_map()@v6.12"""
    memblock = Memblock()
    memblock.add(0x1000, 0x1000)
    memblock.add(0x8000, 0x2000)
    memblock.mem_limit_remove_map(limit)
    assert spans(memblock.memory) == left


def test_questions_about_every_small_range() -> None:
    """memblock_overlaps_region(), memblock_is_region_memory(), memblock_is_region_reserved()@v6.12"""
    memblock, memory, taken = Memblock(), {2, 3, 4, 7, 8, 9, 10}, {1, 2, 8}
    for base, size, nid in ((2, 3, 0), (7, 2, 0), (9, 2, 1)):
        memblock.add(base, size, nid)
    memblock.reserve(1, 2)
    memblock.reserve(8, 1)
    for base in range(12):
        for size in range(1, 12 - base):
            piece = set(range(base, base + size))
            assert memblock.overlaps_memory(base, size) is bool(piece & memory)
            assert memblock.is_region_reserved(base, size) is bool(piece & taken)
            assert memblock.covers(base, size) is (piece <= memory)
            one = any(piece <= region for region in ({2, 3, 4}, {7, 8}, {9, 10}))
            assert memblock.is_region_memory(base, size) is one
    assert (memblock.start_of_dram(), memblock.end_of_dram(), memblock.phys_mem_size()) == (2, 11, 7)


@pytest.mark.parametrize("nid", [-1, 0, 1])
def test_what_is_free_of_two_banks(nid: int) -> None:
    """All that can be reserved of six pages, one page of which is no-map."""
    nodes = {1: 0, 2: 0, 4: 1}
    for bits in range(1 << 6):
        memblock = Memblock()
        memblock.add(1, 2, 0)
        memblock.add(4, 2, 1)
        memblock.mark_nomap(5, 1)
        for page in range(6):
            if bits >> page & 1:
                memblock.reserve(page, 1)
        free = [page for page in nodes if not bits >> page & 1 and nid in (-1, nodes[page])]
        runs = [(1, 3)] if free[:2] == [1, 2] else [(page, page + 1) for page in free if page < 3]
        runs += [(4, 5)] if 4 in free else []
        assert list(memblock.free_ranges(nid)) == runs
        assert list(memblock.free_ranges_reverse(nid)) == runs[::-1]


@pytest.mark.parametrize("bottom_up", [False, True])
def test_the_first_page_is_never_given_out(bottom_up: bool) -> None:
    memblock = Memblock(bottom_up=bottom_up)
    memblock.add(0, 2 * PAGE)
    found = [memblock.phys_alloc_range(PAGE, PAGE, 0, MEMBLOCK_ALLOC_ANYWHERE) for _ in range(2)]
    assert found == [PAGE, 0]


def test_nomap_memory_is_never_found_and_comes_back() -> None:
    memblock = Memblock()
    memblock.add(0x100000, 0x100000)
    memblock.mark_nomap(0x180000, 0x80000)
    assert memblock.find_in_range_node(PAGE, PAGE, 0, MEMBLOCK_ALLOC_ANYWHERE) == 0x17F000
    assert memblock.phys_mem_size() == 0x100000
    memblock.clear_nomap(0x180000, 0x80000)
    assert spans(memblock.memory) == [(0x100000, 0x200000)]
    assert memblock.find_in_range_node(PAGE, PAGE, 0, MEMBLOCK_ALLOC_ANYWHERE) == 0x1FF000


def test_current_limit_bounds_accessible_searches_only() -> None:
    memblock = Memblock(current_limit=0x150000)
    memblock.add(0x100000, 0x100000)
    for end in (0, MEMBLOCK_ALLOC_ACCESSIBLE):  # it is 0 in include/linux/memblock.h
        assert memblock.find_in_range_node(PAGE, PAGE, 0, end) == 0x14F000
    assert memblock.find_in_range_node(PAGE, PAGE, 0, MEMBLOCK_ALLOC_ANYWHERE) == 0x1FF000


@pytest.mark.parametrize("nid", [0, -1])
def test_small_things_stand_on_cache_lines(nid: int) -> None:
    """SMP_CACHE_BYTES is 64 on arm64 and x86: what memblock_phys_alloc_range() aligns to if asked for 0."""
    memblock = Memblock()
    memblock.add(0x100000, 0x100000)
    assert memblock.alloc(1, nid=nid) == 0x1FFFC0
    assert memblock.phys_alloc_range(65, 0, 0, 0, nid) == 0x1FFF40
    assert memblock.alloc(64) == 0x1FFF00
    assert spans(memblock.reserved) == [(0x1FFF00, 0x1FFF81), (0x1FFFC0, 0x1FFFC1)]


def test_an_alignment_that_is_no_power_of_two_is_used_as_a_mask() -> None:
    memblock = Memblock()
    memblock.add(0x1000000, 0x1000000)
    assert memblock.find_in_range_node(0x100000, 0x300000, 0, MEMBLOCK_ALLOC_ANYWHERE) == 0x1D00000


def test_nodes_are_kept_apart_and_exact_when_asked() -> None:
    memblock = Memblock()
    memblock.add(0x100000, 0x100000, 0)
    memblock.add(0x200000, 0x100000, 1)
    assert len(memblock.memory) == 2
    assert (
        memblock.phys_alloc_range(0x100000, PAGE, 0, MEMBLOCK_ALLOC_ANYWHERE, 0, exact_nid=True) == 0x100000
    )
    assert memblock.phys_alloc_range(PAGE, PAGE, 0, MEMBLOCK_ALLOC_ANYWHERE, 0, exact_nid=True) == 0
    assert memblock.phys_alloc_range(PAGE, PAGE, 0, MEMBLOCK_ALLOC_ANYWHERE, 0) == 0x2FF000


@given(keys=st.lists(st.integers(0, 5), max_size=12))
def test_heap_sort_sorts(keys) -> None:
    items = [(key, 0) for key in keys]
    heap_sort(items, lambda item: item)
    assert items == sorted((key, 0) for key in keys)


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        ("", ""),
        ("0", "1"),
        ("00", "21"),
        ("000", "231"),
        ("0000", "2341"),
        ("00000", "23451"),
        ("00000000", "23456781"),
        ("010101", "351642"),
        ("201020102", "862437591"),
        ("543210", "654321"),
        ("0090050", "2745163"),
    ],
)
def test_equal_keys_come_out_as_from_the_kernels_code(keys: str, order: str) -> None:
    """lib/sort.c of 4.4, of 5.10 and of 6.1, compiled and run; up to three keys as recorded."""
    items = list(enumerate(keys, 1))
    heap_sort(items, lambda item: (int(item[1]), 0))
    assert "".join(str(place) for place, _ in items) == order


@dataclass
class Region:
    base: int
    size: int


@pytest.mark.parametrize("how", [SORT_HEAP, SORT_STABLE, SORT_NONE])
@pytest.mark.parametrize("by_size", [False, True])
def test_regions_are_sorted_by_base_and_by_size_unless_the_kernel_is_too_old(how: str, by_size: bool) -> None:
    """__rmem_cmp(): equal bases by size, but not in older kernels; every algorithm sorts."""
    items = [Region(base, size) for base, size in ((5, 1), (2, 9), (2, 3), (7, 1), (1, 4))]
    rmem_sort(items, how, by_size)
    assert [item.base for item in items] == [1, 2, 2, 5, 7]
    if by_size or how in (SORT_STABLE, SORT_NONE):
        assert [item.size for item in items] == ([4, 3, 9, 1, 1] if by_size else [4, 9, 3, 1, 1])


@pytest.mark.parametrize(
    ("spans", "at_zero", "older"),
    [
        ([(0, 4), (4, 4), (8, 1)], [], []),  # they touch
        ([(0, 5), (4, 4), (7, 1)], [(0, 4), (4, 7)], [(4, 7)]),
        ([(0, 0), (0, 4), (3, 1)], [(0, 3)], []),
        ([(0, 1), (0, 4)], [(0, 0)], []),
        ([(1, 9), (2, 1), (4, 1)], [(1, 2)], [(1, 2)]),  # only neighbours are compared
        ([(3, 2)], [], []),
    ],
)
def test_neighbours_that_overlap(
    spans: list[tuple[int, int]], at_zero: list[tuple[int, int]], older: list[tuple[int, int]]
) -> None:
    """__rmem_check_for_overlap(): until 5.10, 5.4.76 and 4.19.156 not where a base is 0."""
    items = [Region(*span) for span in spans]
    assert [(this.base, other.base) for this, other in overlaps(items)] == at_zero
    assert [(this.base, other.base) for this, other in overlaps(items, at_zero=False)] == older


@pytest.mark.parametrize(
    ("end", "taken", "expected"),
    [
        (0x80000000, [(0x7FFED000, 0x13000)], [(0x7E200000, 0x7F000000)]),
        (
            0x1C0000000,
            [(0x100000000, 0x80000000), (0x1BFFED000, 0x13000)],
            [(0x1B9200000, 0x1BA000000), (0x1BAC00000, 0x1BF200000)],
        ),
        (0x1C0000000, [(0x1ABFEC000, 0x14014000)], [(0x1A5000000, 0x1A5E00000), (0x1A6A00000, 0x1AB000000)]),
    ],
)
def test_memmap_without_vmemmap_stands_where_5_10_put_it(end, taken, expected) -> None:
    """Recorded on arm64: sections of 1 GiB, 56-byte page structs, 14 MiB used as a mask."""
    memblock = Memblock()
    memblock.add(0x40000000, end - 0x40000000)
    for base, size in taken:
        memblock.reserve(base, size)
    layout = SparseLayout(30, 56, False, 12, 0xFFFF000000000000 - 0x40000000)
    assert sparse_init(memblock, layout) == sum(high - low for low, high in expected)
    assert set(expected) <= set(spans(memblock.reserved))


@pytest.mark.parametrize(("full", "tables"), [(False, 2), (True, 2), (True, 0)])
def test_memmap_of_a_full_node_stands_on_another(full: bool, tables: int) -> None:
    """mm/sparse.c:sparse_init_nid()@v6.12: only the buffer has to be the node's own."""
    mib = 1 << 20
    memblock = Memblock()
    memblock.add(1 << 30, 1 << 30, 0)
    memblock.add(2 << 30, 256 * mib, 1)
    if full:
        memblock.reserve(2 << 30, 256 * mib)
    layout = SparseLayout(27, 64, True, 12, 0, tables)
    assert sparse_init(memblock, layout) == (8 + 2) * 2 * mib + 2 * tables * PAGE
    own = sum(max(region.end - max(region.base, 2 << 30), 0) for region in memblock.reserved)
    assert own == (256 * mib if full else 4 * mib + tables * PAGE)


def test_memmaps_come_in_the_order_of_nodes() -> None:
    """mm/sparse.c:sparse_init()@v6.12: the map of a full node 1 stands above that of node 2, of a full node 8
    below.
    """
    mib, section = 1 << 20, 1 << 27
    memblock = Memblock()
    for number, nid, sections in ((8, 1, 1), (9, 8, 1), (10, 2, 3)):
        memblock.add(number * section, sections * section, nid)
    end = 13 * section
    memblock.reserve(8 * section, 2 * section + 100 * mib)
    memblock.reserve(10 * section + 116 * mib, end - 8 * mib - (10 * section + 116 * mib))
    assert sparse_init(memblock, SparseLayout(27, 64, True, 12, 0)) == 5 * 2 * mib
    assert list(memblock.free_ranges()) == [(10 * section + 100 * mib, 10 * section + 114 * mib)]


@pytest.mark.parametrize(
    ("shift", "bits", "gib", "taken", "expected"),
    [
        (14, 27, 2, 0, [(0x9FFF8000, 0xA0800000)]),  # 16 maps of 512 KiB at the start of 16 * 32 MiB
        (14, 27, 2, 0x4000, [(0x9E000000, 0x9E800000), (0xBFFF4000, 0xC0000000)]),
        (
            16,
            29,
            1,
            0x10000,
            [(0x7FED0000, 0x80000000)],
        ),  # no room for 2 * 512 MiB: page by page from the top
    ],
)
def test_the_map_of_larger_pages_is_made_of_single_ones(
    shift: int, bits: int, gib: int, taken: int, expected: list[tuple[int, int]]
) -> None:
    """T 6.12 with pages of 16 KiB: arch/arm64/mm/mmu.c:vmemmap_populate()@v6.12."""
    memblock, end = Memblock(page_size=1 << shift), (1 + gib) << 30
    memblock.add(1 << 30, gib << 30)
    memblock.reserve(end - taken, taken)
    sparse_init(memblock, SparseLayout(bits, 64, True, shift, 0, 2))
    assert spans(memblock.reserved) == expected


@pytest.mark.parametrize("name", ["add", "reserve"])
def test_no_range_reaches_the_end_of_64_bits(name: str) -> None:
    """``PHYS_ADDR_MAX`` is the last end (mm/memblock.c:memblock_cap_size()@v6.12)."""
    memblock = Memblock()
    getattr(memblock, name)((1 << 64) - PAGE, PAGE)
    regions = memblock.memory if name == "add" else memblock.reserved
    assert spans(regions) == [((1 << 64) - PAGE, (1 << 64) - 1)]


def test_nothing_is_found_at_the_end_of_the_search() -> None:
    """Seen on 6.12.117 (arm64): a ``size`` node of 0 bytes stands at the end of its first range, taken or
    not, as soon as memory above is free.
    """
    memblock = Memblock()
    memblock.add(0x40000000, 0x40000000)
    memblock.reserve(0x5C000000, 0x4000000)
    assert memblock.find_in_range_node(0, 64, 0x5C000000, 0x60000000) == 0x60000000
    assert memblock.find_in_range_node(64, 64, 0x5C000000, 0x60000000) == 0
    memblock.bottom_up = True
    assert memblock.find_in_range_node(0, 64, 0x5C000000, 0x60000000) == 0


@pytest.mark.parametrize("name", ["mark_nomap", "clear_nomap", "phys_free", "remove"])
def test_a_range_of_0_bytes_changes_nothing(name: str) -> None:
    memblock = Memblock()
    memblock.add(0x40000000, 0x40000000)
    memblock.reserve(0x50000000, 0x10000000)
    getattr(memblock, name)(0x54000000, 0)
    assert spans(memblock.memory) == [(0x40000000, 0x80000000)]
    assert spans(memblock.reserved) == [(0x50000000, 0x60000000)]


@pytest.mark.parametrize("bottom_up", [False, True])
@pytest.mark.parametrize(
    ("size", "align", "start", "end", "found"),
    [
        (0x10000, 0x1000, 0, 0x200000, 0x110000),  # all of the hole
        (0x10001, 0x1000, 0, 0x200000, 0),
        (0x10000, 0x10000, 0x110000, 0x120000, 0x110000),  # all of the search
        (0x10000, 0x1000, 0x111000, 0x200000, 0),
        (0x10000, 0x1000, 0, 0x11F000, 0),
        (0x10000, 0x20000, 0, 0x200000, 0),  # aligned it would begin before the hole
        (0xF000, 0x1000, 0x111000, 0x120000, 0x111000),
    ],
)
def test_a_hole_that_is_just_large_enough(
    bottom_up: bool, size: int, align: int, start: int, end: int, found: int
) -> None:
    """mm/memblock.c:__memblock_find_range_bottom_up(), __memblock_find_range_top_down()@v6.12"""
    memblock = Memblock()
    memblock.add(0x100000, 0x40000)
    memblock.reserve(0x100000, 0x10000)
    memblock.reserve(0x120000, 0x20000)
    memblock.bottom_up = bottom_up
    assert memblock.find_in_range_node(size, align, start, end) == found
