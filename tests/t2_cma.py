"""mm/cma.c: what an allocation or a release does, says and counts, kernel by kernel.

Modules: cmafs.mm.cma_areas.
"""

from __future__ import annotations

import errno
import random
from itertools import pairwise
from typing import Any

import pytest
from cma_support import MIB, PAGE, build_areas, debug_all
from mm_support import Listener

from cmafs.abi import kernel_abi
from cmafs.lib.bitmap import Bitmap
from cmafs.lib.clock import NSEC_PER_SEC, ManualClock
from cmafs.lib.printk import Printk
from cmafs.mm.cma import (
    Cma,
    CmaAreas,
    CmaMemrange,
    cma_activate_area,
    cma_alloc,
    cma_init_reserved_mem,
    cma_release,
)
from cmafs.mm.cma_failure import CmaFailure, longest_aligned
from cmafs.mm.cma_report import cma_debug_show_areas, page_address
from cmafs.mm.mmzone import MIGRATE_CMA, MIGRATE_MOVABLE
from cmafs.sim.workload import pin_pfn, unpin_pfn

KERNELS = ("4.4", "4.15", "5.10", "5.15", "6.1", "6.6", "6.12", "6.18", "7.2")


def listen(areas: CmaAreas) -> list[tuple[str, dict[str, Any]]]:
    """Collect the trace events of a machine."""
    areas.trace = listener = Listener()
    return listener.events


def failures(cma: Cma) -> int:
    return cma.areas.memory.vmstat.vm_event("cma_alloc_fail")


@pytest.mark.parametrize("kernel", KERNELS)
def test_lowest_hole_first_and_release_merges(kernel: str) -> None:
    cma = build_areas(kernel)[0]
    base = cma.base_pfn
    assert [cma_alloc(cma, n) for n in (10, 20, 30)] == [base, base + 10, base + 30]
    assert cma_release(cma, base + 10, 20)
    assert cma_alloc(cma, 21) == base + 60
    assert cma_alloc(cma, 20) == base + 10
    assert (cma.used(), cma.maxchunk()) == (81, 4096 - 81)
    assert cma.ranges[0].bitmap.check() == []


@pytest.mark.parametrize(
    ("kernel", "count", "vmstat", "sysfs", "events", "lines"),
    [
        ("4.4", 4097, 0, 0, ["cma_alloc"], []),
        ("4.4", (1 << 64) - 1, 0, 0, ["cma_alloc"], []),
        ("4.15", (1 << 64) - 1, 0, 0, [], []),
        ("5.10", 0, 0, 0, [], []),
        ("6.1", 0, 1, 0, [], []),
        ("6.12", 0, 0, 0, ["cma_alloc_start"], []),
        ("7.2", 0, 0, 0, [], []),
        ("5.10", 4097, 0, 0, [], []),
        ("6.1", 4097, 1, 4097, ["cma_alloc_start"], []),
        ("6.12", 4097, 0, 0, ["cma_alloc_start"], []),
        ("7.2", 4097, 1, 4097, ["cma_alloc_start", "cma_alloc_finish"], ["4097 pages, ret: -16"]),
        ("6.1", (1 << 64) - 1, 1, (1 << 64) - 1, ["cma_alloc_start"], []),
        ("6.12", (1 << 64) - 1, 0, 0, ["cma_alloc_start"], []),
        (
            "7.2",
            (1 << 64) - 1,
            1,
            (1 << 64) - 1,
            ["cma_alloc_start", "cma_alloc_finish"],
            ["18446744073709551615 pages, ret: -16"],
        ),
    ],
)
@pytest.mark.parametrize("order_per_bit", [0, 1])
def test_what_an_early_failure_leaves(
    kernel: str, count: int, vmstat: int, sysfs: int, events: list[str], lines: list[str], order_per_bit: int
) -> None:
    areas = build_areas(kernel, [("reserved", 64, 16, order_per_bit)])
    seen = listen(areas)
    assert cma_alloc(areas[0], count) is None
    assert failures(areas[0]) == vmstat
    assert areas[0].nr_pages_failed == (sysfs if vmstat else areas[0].nr_pages_failed)
    assert [name for name, _ in seen] == events
    assert (areas[0].available_count, areas[0].used()) == (4096, 0)
    assert [(failure.count, failure.pfn) for failure in areas[0].failures] == [(count, -1)]
    failed = [line.split("req-size: ")[1] for line in areas.log.lines() if "alloc failed" in line]
    assert failed == lines


@pytest.mark.parametrize(
    ("kernel", "line", "ret"),
    [
        ("4.15", "cma: cma_alloc: alloc failed, req-size: 4096 pages, ret: -12", -12),
        ("5.10", "cma: cma_alloc: alloc failed, req-size: 4096 pages, ret: -12", -12),
        ("6.1", "cma: cma_alloc: reserved: alloc failed, req-size: 4096 pages, ret: -12", -12),
        ("6.12", "cma: __cma_alloc: reserved: alloc failed, req-size: 4096 pages, ret: -12", -12),
        ("6.18", "cma: __cma_alloc: reserved: alloc failed, req-size: 4096 pages, ret: -16", -16),
        ("7.2", "cma: __cma_alloc_frozen: reserved: alloc failed, req-size: 4096 pages, ret: -16", -16),
    ],
)
def test_no_hole(kernel: str, line: str, ret: int) -> None:
    areas = build_areas(kernel)
    events = listen(areas)
    cma_alloc(areas[0], 1)
    del events[:]
    assert cma_alloc(areas[0], 4096) is None
    assert line in areas.log.lines()
    name, last = events[-1]
    assert last["page"] == 0
    assert last["pfn"] == (0 if areas.abi.failed_pfn_is_zero else (1 << 64) - 1)
    if areas.abi.finish_errno:
        assert (name, last["errorno"]) == ("cma_alloc_finish", ret)


def test_oldest_kernel_says_nothing_of_a_failure() -> None:
    areas = build_areas("4.4", cma_debug=True)
    cma_alloc(areas[0], 1)
    cma_alloc(areas[0], 4096)
    assert not [line for line in areas.log.lines() if "failed" in line or "number of" in line]


def test_events_of_the_recorded_kernels() -> None:
    for kernel, wanted in {
        "5.10": [
            ("cma_alloc", {"pfn": 65536, "page": 65536, "count": 7, "align": 0}),
            ("cma_release", {"pfn": 65536, "page": 65536, "count": 7}),
        ],
        "6.12": [
            ("cma_alloc_start", {"name": "reserved", "count": 7, "align": 0}),
            (
                "cma_alloc_finish",
                {"name": "reserved", "pfn": 65536, "page": 65536, "count": 7, "align": 0, "errorno": 0},
            ),
            ("cma_release", {"name": "reserved", "pfn": 65536, "page": 65536, "count": 7}),
        ],
    }.items():
        areas = build_areas(kernel)
        events = listen(areas)
        pfn = cma_alloc(areas[0], 7)
        assert pfn is not None
        cma_release(areas[0], pfn, 7)
        assert events == wanted


def test_start_event_carries_counts_since_6_18() -> None:
    areas = build_areas("7.2")
    cma_alloc(areas[0], 96)
    events = listen(areas)
    cma_alloc(areas[0], 5)
    assert events[0] == (
        "cma_alloc_start",
        {"name": "reserved", "request_count": 5, "available_count": 4000, "total_count": 4096, "align": 0},
    )


def test_a_pinned_page_makes_a_window_busy_and_the_last_errno_stays() -> None:
    areas = build_areas("6.12")
    debug_all(areas.log)
    pin_pfn(areas.memory, areas[0].base_pfn + 2000)
    assert cma_alloc(areas[0], 3000) is None
    lines = areas.log.lines()
    assert sum("is busy, retrying" in line for line in lines) == 4096 - 3000 + 1
    assert lines[1].startswith("cma: __cma_alloc(): memory range at pfn 0x10000 ")
    assert "cma: __cma_alloc: reserved: alloc failed, req-size: 3000 pages, ret: -16" in lines
    assert cma_alloc(areas[0], 2000) == areas[0].base_pfn
    assert cma_alloc(areas[0], 2000) == areas[0].base_pfn + 2001
    unpin_pfn(areas.memory, areas[0].base_pfn + 2000)
    assert cma_alloc(areas[0], 1) == areas[0].base_pfn + 2000


def test_retries_beyond_the_ring_are_counted_not_written() -> None:
    areas = build_areas("6.12", [("big", 16384, 16384, 0)], mib=65536)
    debug_all(areas.log)
    cma = areas[0]
    pin_pfn(areas.memory, cma.base_pfn + cma.count - 1)
    before = areas.log.next_seq
    assert cma_alloc(cma, 1000) == cma.base_pfn
    assert cma_alloc(cma, cma.count - 1000) is None
    assert cma_alloc(cma, cma.count // 2) == cma.base_pfn + 1000
    pin_pfn(areas.memory, cma.base_pfn + cma.count - 1)
    assert cma_alloc(cma, cma.count // 2 - 1000) is None
    assert areas.log.next_seq - before > 4
    assert len(areas.log.lines()) <= 4096


def test_failure_lines_are_limited_and_hole_lists_are_not() -> None:
    areas = build_areas("6.12")
    clock = areas.log.clock
    assert isinstance(clock, ManualClock)
    cma_alloc(areas[0], 1)
    for _ in range(25):
        cma_alloc(areas[0], 4096)
    lines = areas.log.lines()
    assert sum("alloc failed" in line for line in lines) == 10
    assert sum("number of available pages" in line for line in lines) == 25
    clock.advance(5 * NSEC_PER_SEC)
    cma_alloc(areas[0], 4096)
    assert sum("alloc failed" in line for line in areas.log.lines()) == 10
    clock.advance(1)
    cma_alloc(areas[0], 4096)
    assert areas.log.lines()[-3:-1] == [
        "__cma_alloc: 16 callbacks suppressed",
        "cma: __cma_alloc: reserved: alloc failed, req-size: 4096 pages, ret: -12",
    ]


@pytest.mark.parametrize(("kernel", "limited"), [("5.10", False), ("5.15", True)])
def test_older_kernels_do_not_limit(kernel: str, limited: bool) -> None:
    areas = build_areas(kernel)
    cma_alloc(areas[0], 1)
    for _ in range(12):
        cma_alloc(areas[0], 4096)
    assert sum("alloc failed" in line for line in areas.log.lines()) == (10 if limited else 12)


def test_hole_lists() -> None:
    one_line = build_areas("6.12", [("a", 256, 4, 0)])
    cma_alloc(one_line[0], 3)
    pfn = cma_alloc(one_line[0], 5)
    cma_alloc(one_line[0], 2)
    assert pfn is not None
    cma_release(one_line[0], pfn, 5)
    cma_debug_show_areas(one_line[0])
    assert one_line.log.lines() == [
        "cma: number of available pages: 5@3+1014@10=> 1019 free of 1024 total pages"
    ]
    ranges = build_areas("7.2", [("a", 256, 4, 0)])
    cma_alloc(ranges[0], 3)
    cma_debug_show_areas(ranges[0])
    assert ranges.log.lines() == [
        "cma: number of available pages: ",
        "cma: range 0: +1021@3",
        "cma: ",
        "=> 1021 free of 1024 total pages",
    ]
    assert [record.level for record in ranges.log.records()] == [6, 6, 6, 4]


def test_a_long_hole_list_goes_on_in_records_without_prefix() -> None:
    areas = build_areas("6.12", [("a", 256, 4, 0)])
    held = [cma_alloc(areas[0], 1) for _ in range(1024)]
    for pfn in held[::2]:
        assert pfn is not None
        cma_release(areas[0], pfn, 1)
    cma_debug_show_areas(areas[0])
    records = list(areas.log.records())
    assert len(records) > 2
    assert all(len(record.text) <= 1024 for record in records)
    assert [record.continued for record in records] == [False] + [True] * (len(records) - 1)
    text = "".join(record.text for record in records)
    assert text.endswith("+1@1020+1@1022=> 512 free of 1024 total pages")


@pytest.mark.parametrize(("kernel", "used"), [("6.12", 2 * 512), ("7.2", 513)])
def test_more_than_a_page_a_bit(kernel: str, used: int) -> None:
    areas = build_areas(kernel, [("hugetlb0", 256, 16, 9)])
    cma = areas[0]
    assert cma_alloc(cma, 513) == cma.base_pfn
    assert (cma.used(), cma.maxchunk()) == (used, 6 * 512)
    assert areas.memory.zones[0].nr_free_cma == 4096 - 513
    assert cma_alloc(cma, 1) == cma.base_pfn + 1024
    cma_release(cma, cma.base_pfn, 513)
    assert (cma.ranges[0].bitmap.weight, cma.available_count) == (1, 4095)


def test_alignment_counts_from_pfn_zero() -> None:
    cma = build_areas("6.12", [("a", 2, 16, 0)])[0]
    assert cma.base_pfn % 1024 == 512
    assert cma_alloc(cma, 3) == cma.base_pfn
    assert cma_alloc(cma, 3, align=4) == cma.base_pfn + 16
    assert cma_alloc(cma, 8, align=10) == 1024
    wide = build_areas("6.12", [("wide", 2, 16, 2)])[0]  # four pages a bit
    places = [cma_alloc(wide, 1, align=align) for align in (0, 2, 3, 4, 6)]
    assert places == [512, 516, 520, 528, 576]


def test_names_are_cut_and_an_area_without_one_has_a_newline() -> None:
    long = "n" * 80
    for kernel, cut, unnamed in (("5.4", 80, "cma1\n"), ("6.12", 63, "cma1\n"), ("7.2", 63, "cma2\n")):
        areas = build_areas(kernel, [(long, 64, 4, 0), (None, 128, 4, 0)])
        assert [cma.name for cma in areas] == [long[:cut], unnamed]


@pytest.mark.parametrize("kernel", ["4.4", "5.10", "6.12", "7.2"])
def test_a_whole_area_can_be_had_at_once(kernel: str) -> None:
    areas = build_areas(kernel, [("one", 64, 4, 0), ("two", 128, 4, 0)])
    assert [cma_alloc(cma, cma.count) for cma in areas] == [cma.base_pfn for cma in areas]
    assert [cma.available_count for cma in areas] == [0, 0]
    assert [cma_alloc(cma, 1) for cma in areas] == [None, None]
    events = [areas.memory.vmstat.vm_event(f"cma_alloc_{how}") for how in ("success", "fail")]
    assert events == ([0, 0] if kernel in ("4.4", "5.10") else [2, 2])
    assert all(cma_release(cma, cma.base_pfn, cma.count) for cma in areas)
    assert [cma_alloc(cma, 1) for cma in areas] == [cma.base_pfn for cma in areas]


def test_structs_of_areas_are_aligned_and_apart() -> None:
    """What 4.4 prints of them unhashed: kernel addresses, of which no two are the same."""
    addresses = [cma.address for cma in build_areas("4.4", [(f"a{i}", 64 * (i + 1), 4, 0) for i in range(4)])]
    assert all(address % 8 == 0 and address >> 47 == (1 << 17) - 1 for address in addresses)
    assert addresses == sorted(set(addresses))


def test_slots_and_alignment() -> None:
    areas = build_areas("6.12", [])
    areas.max_areas = 1
    with pytest.raises(OSError) as refused:
        cma_init_reserved_mem(areas, 64 * MIB, 0, 0, "empty")
    assert refused.value.errno == errno.EINVAL
    with pytest.raises(OSError) as refused:
        cma_init_reserved_mem(areas, 64 * MIB + PAGE, 4 * MIB, 0, "off")
    assert refused.value.errno == errno.EINVAL
    cma_init_reserved_mem(areas, 64 * MIB, 4 * MIB, 0, "one")
    with pytest.raises(OSError) as refused:
        cma_init_reserved_mem(areas, 128 * MIB, 4 * MIB, 0, "two")
    assert refused.value.errno == errno.ENOSPC
    with pytest.raises(OSError) as refused:
        cma_init_reserved_mem(areas, 128 * MIB + PAGE, 0, 0, "three")
    assert refused.value.errno == errno.ENOSPC
    assert areas.log.lines() == ["cma: Not enough slots for CMA reserved regions!"] * 2
    assert areas.totalcma_pages == 1024


@pytest.mark.parametrize(
    ("kernel", "total"), [("4.19", 2048 + 1024), ("5.4", 3072), ("5.10", 3072), ("5.15", 1024), ("7.2", 1024)]
)
def test_an_area_across_zones_cannot_be_activated(kernel: str, total: int) -> None:
    half = 512 * MIB // PAGE
    zones = (("DMA32", 0, half), ("Normal", half, 2 * half))
    areas = build_areas(kernel, [("across", 508, 8, 0), ("later", 768, 4, 0)], zones=zones)
    across, later = areas
    assert areas.log.lines() == ["cma: CMA area across could not be activated"]
    assert (across.count, across.used(), across.maxchunk()) == (0, 0, 0)
    assert areas.totalcma_pages == total
    assert cma_alloc(across, 1) is None
    assert areas.log.lines() == ["cma: CMA area across could not be activated"]
    low, high = areas.memory.zones
    free = [zone.find_free(pfn) for zone, pfn in ((low, half - 1024), (low, half - 1), (high, half))]
    if total == 1024:  # all pages go to the page allocator
        assert [found and found[2] for found in free] == [MIGRATE_MOVABLE] * 3
    else:  # the page blocks before the border have become the area's
        assert [found and found[2] for found in free] == [MIGRATE_CMA, MIGRATE_CMA, None]
    assert not any(across.find_range(pfn) for pfn in range(half - 1024, half + 1024))
    assert not cma_release(across, half - 1024, 1)
    assert (later.ranges[0].bitmap.nbits == 0) == (kernel == "4.19")


def test_release_of_pages_of_another_area() -> None:
    for kernel, line in {
        "5.10": "cma: cma_release(page {})",
        "5.15": "cma: cma_release(page {}, count 4)",
        "6.12": "cma: cma_pages_valid(page {}, count 4)",
        "7.2": "cma: find_cma_memrange(page {}, count 4)",
    }.items():
        areas = build_areas(kernel)
        debug_all(areas.log)
        assert not cma_release(areas[0], 5, 4)
        pointer = areas.log.hash_ptr(page_address(5))
        assert areas.log.lines() == [line.format(pointer)]


def test_random_requests_keep_every_count() -> None:
    rng = random.Random(5)
    areas = build_areas("7.2", [("a", 256, 8, 0), ("b", 512, 4, 9)])
    held: list[tuple[Cma, int, int]] = []
    for _ in range(600):
        cma = areas[rng.randrange(2)]
        if held and rng.random() < 0.45:
            owner, pfn, count = held.pop(rng.randrange(len(held)))
            assert cma_release(owner, pfn, count)
        elif (pfn_or_none := cma_alloc(cma, count := rng.randint(1, 60), rng.choice((0, 0, 3)))) is not None:
            held.append((cma, pfn_or_none, count))
        for cma in areas:
            mine = sum(count for owner, _, count in held if owner is cma)
            assert (cma.count - cma.available_count, cma.used()) == (mine, mine)
    taken = sorted((pfn, pfn + count) for _, pfn, count in held)
    assert all(end <= start for (_, end), (start, _) in pairwise(taken))
    assert [cma.ranges[0].bitmap.check() for cma in areas] == [[], []]


def test_an_area_of_ranges_fails_as_a_whole() -> None:
    """mm/cma.c:cma_activate_area()@7.2: each range lies in one zone, or none becomes usable."""
    half = 512 * MIB // PAGE
    zones = (("DMA32", 0, half), ("Normal", half, 2 * half))
    for second, count in ((half - 1024, 0), (half, 1024 + 2048)):
        areas = build_areas("7.2", [("parts", 256, 4, 0)], zones=zones)
        cma = areas[0]
        assert cma.count == 1024
        parts = areas.cma_new_area("more", 1024 + 2048, 0)
        parts.ranges += [CmaMemrange(half // 2, 1024), CmaMemrange(second, 2048)]
        assert cma_activate_area(parts) is (count > 0)
        assert parts.count == count


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"count": 0}, "0 pages, -16 (EBUSY): nothing was asked for"),
        ({"injected": True, "count": 5000}, "5000 pages, -16 (EBUSY): it was told to fail (sim/control)"),
        ({"count": 4097}, "4097 pages, -16 (EBUSY): larger than the area, which has 4096 pages"),
        (
            {"count": 4096, "in_the_way": "0x10 (task)"},
            "4096 pages, -16 (EBUSY): every place for them held a page that could not move, last 0x10 (task)",
        ),
        (
            {"pfn": 0, "error": 12},
            "1 page, -12 (ENOMEM): no free memory to which the pages at 0x0 could move",
        ),
        (
            {"count": 21, "longest": 20},
            "21 pages, -16 (EBUSY): no hole was large enough: 100 pages free, the largest hole 20",
        ),
        (
            {"count": 20, "longest": 20, "align": 4, "aligned": (0x20, 7)},
            "20 pages that begin at a multiple of 16, -16 (EBUSY): alignment: the largest hole had 20 pages, "
            "from an aligned page on 7 (at 0x20)",
        ),
        (
            {"count": 2, "longest": 20, "align": 1, "aligned": (0, 0)},
            "2 pages that begin at a multiple of 2, -16 (EBUSY): alignment: the largest hole had 20 pages, "
            "from an aligned page on none",
        ),
    ],
)
def test_a_failure_in_words(changed: dict[str, Any], text: str) -> None:
    made = {"count": 1, "align": 0, "error": errno.EBUSY, "pfn": -1, "area": 4096, "free": 100, "longest": 50}
    assert str(CmaFailure(**(made | {"aligned": (0, 0), "in_the_way": ""} | changed))) == text


def test_what_is_kept_of_a_failure() -> None:
    """Who was in the way is told only of a search that ended with EBUSY."""
    areas = build_areas("6.12")
    cma = areas[0]
    pin_pfn(areas.memory, cma.base_pfn + 2000)
    assert cma_alloc(cma, 3000) is None
    assert cma_alloc(cma, 3000) is None
    assert cma_alloc(cma, 5000) is None
    assert cma_alloc(cma, 2000) == cma.base_pfn
    assert cma_alloc(cma, 2097) is None
    newest = [(f.count, f.times, f.error, f.free, f.longest, f.in_the_way) for f in cma.failures]
    assert newest == [
        (2097, 1, errno.ENOMEM, 2096, 2096, ""),
        (5000, 1, errno.ENOMEM, 4096, 4096, ""),
        (3000, 2, errno.EBUSY, 4096, 4096, f"{cma.base_pfn + 2000:#x} ([pin])"),
    ]


@pytest.mark.parametrize(
    ("pieces", "step", "found"),
    [
        ([], 4, (-1, 0)),
        ([(1, 4)], 4, (-1, 0)),
        ([(1, 5)], 4, (4, 1)),
        ([(4, 6), (9, 14), (16, 18)], 4, (4, 2)),
        ([(4, 6), (9, 15)], 4, (12, 3)),
        ([(3, 9), (12, 17)], 1, (3, 6)),
    ],
)
def test_the_longest_aligned_piece(pieces: list[tuple[int, int]], step: int, found: tuple[int, int]) -> None:
    assert longest_aligned(pieces, step) == found


@pytest.mark.parametrize(("kernel", "bits"), [("6.12", 64), ("6.12", 32), ("7.2", 64)])
def test_an_area_of_several_ranges_counts_pages_and_bits(kernel: str, bits: int) -> None:
    """mm/cma.h, mm/cma.c@7.2: cma_bitmap_maxno(), cma_bitmap_pages_to_bits(), cma_used_get()"""
    abi = kernel_abi(kernel).cma
    areas = CmaAreas(Printk(ManualClock(), 0, 17, bits_per_long=bits), abi, max_areas=3)
    cmas = [areas.cma_new_area(name, 24, order) for name, order in (("a", 2), (None, 0))]
    assert [cma.slot for cma in cmas] == [0, 1] and areas.totalcma_pages == 48
    assert cmas[1].name == f"cma{1 + abi.unnamed_from}\n"
    assert cmas[1].address - cmas[0].address == 256
    cma = cmas[0]
    cma.ranges += [CmaMemrange(64, 16, Bitmap(4)), CmaMemrange(96, 8, Bitmap(2))]
    assert [cma.bitmap_maxno(cmr) for cmr in cma.ranges] == [4, 2]
    assert {pfn: found and found.base_pfn for pfn in (63, 64, 79, 80, 95, 96, 103, 104)
            if (found := cma.find_range(pfn)) or True} == {
        63: None, 64: 64, 79: 64, 80: None, 95: None, 96: 96, 103: 96, 104: None,
    }  # fmt: skip
    assert [cma.pages_to_bits(pages) for pages in (0, 1, 4, 5, (1 << bits) - 1, (1 << bits) - 3)] == [
        0, 1, 1, 2, 0, 0,
    ]  # fmt: skip
    assert cma.pages_to_bits((1 << bits) - 4) == (1 << bits - 2) - 1
    assert (cmas[1].pages_to_bits((1 << bits) - 1), cmas[1].alignment(0), cmas[1].alignment(1)) == (
        (1 << bits) - 1, 1, 2,
    )  # fmt: skip
    assert [cma.alignment(align) for align in (0, 2, 3, 4)] == [1, 1, 8, 16]
    cma.ranges[0].bitmap.set(1, 1)
    cma.available_count -= 3
    assert (list(cma.holes()), cma.maxchunk()) == ([(64, 68), (72, 80), (96, 104)], 8)
    assert cma.used() == (3 if abi.used_is_exact else 4)
    areas.cma_new_area("z", 1, 0)
    with pytest.raises(OSError) as full:
        areas.cma_new_area("y", 1, 0)
    assert full.value.errno == errno.ENOSPC and len(areas) == 3 and areas.totalcma_pages == 49
    assert areas.log.lines() == ["cma: Not enough slots for CMA reserved regions!"]
