"""Watermarks at their edges, against mm/page_alloc.c@v6.12 written down in a few lines.

Modules: cmafs.mm.pcp.
"""

from __future__ import annotations

from math import isqrt

import pytest
from mm_support import Booted, boot, small

from cmafs.abi import kernel_abi
from cmafs.mm.mmzone import (
    MIGRATE_CMA,
    MIGRATE_MOVABLE,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_RANKS,
    MemoryLayout,
    ZoneSpan,
)
from cmafs.mm.pcp import zone_batchsize
from cmafs.mm.watermark import LOWMEM_RESERVE_RATIO, has_free_block, headroom, zone_watermark_ok

NORMAL = ZONE_RANKS["Normal"]


def low_and_high(low: int, high: int, kernel: str = "6.12", page_shift: int = 12) -> Booted:
    """Pages of low memory, then of high memory."""
    zones = [ZoneSpan("Normal", 0, low)] + ([ZoneSpan("HighMem", low, low + high)] if high else [])
    return boot(MemoryLayout(page_shift, 9, 10, tuple(zones), ((0, low + high),), ()), (), kernel)


@pytest.mark.parametrize(
    ("low", "high", "kib"),
    [
        (1 << 10, 0, 256),  # 4 MiB: 4 times the root of the KiB
        (200, 0, 128),  # at least 128 KiB
        (1 << 16, 1 << 14, 2048),
        (1 << 18, 1 << 18, 4096),
        (1 << 18, 1 << 12, 4096),
        (1 << 20, 1 << 10, 8192),
        (1000000, 0, 8000),  # where a thousandth is what lies between the marks
    ],
)
def test_marks_of_low_and_high_memory(low: int, high: int, kib: int) -> None:
    """init_per_zone_wmark_min(), __setup_per_zone_wmarks(): high memory has a 1024th, from 32 to 128."""
    memory = low_and_high(low, high).memory
    managed = memory.zones[0].managed_pages
    assert memory.min_free_kbytes == kib == max(128, isqrt(managed * 4 * 16))
    share = kib // 4
    step = max(share // 4, managed * 10 // 10000)
    assert memory.zones[0].watermark == [share, share + step, share + 2 * step]
    for zone in memory.zones[1:]:
        least = min(max(zone.managed_pages // 1024, 32), 128)
        step = max(kib // 4 * zone.managed_pages // managed // 4, zone.managed_pages * 10 // 10000)
        assert zone.watermark == [least, least + step, least + 2 * step]


def test_high_memory_without_pages_has_marks_as_well() -> None:
    """clamp(zone_managed_pages(zone) / 1024, SWAP_CLUSTER_MAX, 128UL): of 0 pages too."""
    zones = (ZoneSpan("Normal", 0, 4096), ZoneSpan("HighMem", 4096, 8192))
    memory = boot(MemoryLayout(12, 9, 10, zones, ((0, 4096),), ())).memory
    assert (memory.zones[1].managed_pages, memory.zones[1].watermark) == (0, [32, 32, 32])


def test_the_largest_reserve() -> None:
    """64 MiB up to 5.4, 256 MiB later (mm/page_alloc.c@v5.10)."""
    for kernel, kib in (("5.4", 65536), ("5.10", 262144)):
        zones = (ZoneSpan("Normal", 0, 1 << 31),)
        memory = boot(MemoryLayout(12, 9, 10, zones, ((0, 1 << 31),), ()), (), kernel).memory
        assert memory.min_free_kbytes == kib


def test_reserves_against_requests_for_higher_zones() -> None:
    """setup_per_zone_lowmem_reserve(), with sysctl_lowmem_reserve_ratio of 256, 256, 32, 0, 0."""
    assert LOWMEM_RESERVE_RATIO == {"DMA": 256, "DMA32": 256, "Normal": 32, "HighMem": 0, "Movable": 0}
    spans = (("DMA", 1 << 12), ("DMA32", 1 << 16), ("Normal", 1 << 17), ("HighMem", 1 << 18))
    zones = tuple(ZoneSpan(name, end >> 1 if name != "DMA" else 0, end) for name, end in spans)
    zones = tuple(
        ZoneSpan(zone.name, zones[i - 1].end_pfn if i else 0, zone.end_pfn) for i, zone in enumerate(zones)
    )
    memory = boot(MemoryLayout(12, 9, 10, zones, ((0, 1 << 18),), ())).memory
    dma32, normal, high = (memory.zones[i].managed_pages for i in (1, 2, 3))
    kept = [zone.lowmem_reserve for zone in memory.zones]
    both = dma32 + normal
    assert kept[0] == [0, dma32 // 256, both // 256, (both + high) // 256, *[(both + high) // 256] * 2]
    assert kept[1] == [0, 0, normal // 256, *[(normal + high) // 256] * 3]
    assert kept[2] == [0, 0, 0, *[high // 32] * 3]
    assert kept[3] == [0] * 6


@pytest.mark.parametrize(
    ("kernel", "page_shift", "pages", "batch"),
    [
        ("5.10", 12, 100, 0),
        ("5.10", 12, 8191, 0),
        ("5.10", 12, 8192, 1),
        ("5.10", 12, 12288, 3),
        ("5.10", 12, 16384, 3),
        ("5.10", 12, 1 << 16, 15),
        ("5.10", 12, 1 << 20, 63),
        ("4.4", 12, 1 << 20, 31),
        ("5.10", 16, 1 << 20, 3),
    ],
)
def test_how_many_pages_per_cpu_lists_move_at_once(
    kernel: str, page_shift: int, pages: int, batch: int
) -> None:
    """mm/page_alloc.c:zone_batchsize()@v5.10: a 4096th of the zone, then a power of two less one."""
    assert zone_batchsize(kernel_abi(kernel).mm, pages, page_shift) == batch


@pytest.mark.parametrize("mark", [WMARK_MIN, WMARK_LOW, WMARK_HIGH])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_enough_is_one_page_above_the_mark(mark: int, order: int) -> None:
    """__zone_watermark_ok(): free pages but for the rest of the block are more than the mark."""
    zone = small().memory.zones[0]
    nr_free = zone.nr_free
    limit = zone.watermark[mark] + (1 << order) - 1
    for free, enough in ((limit, False), (limit + 1, True)):
        zone.lowmem_reserve[NORMAL] = nr_free - free
        assert zone_watermark_ok(zone, order, mark, NORMAL, True) is enough
    zone.lowmem_reserve[NORMAL] = 0
    assert headroom(zone, mark, NORMAL, True) == nr_free - zone.watermark[mark]
    assert headroom(zone, mark, NORMAL, False) == nr_free - zone.watermark[mark] - zone.nr_free_cma


def test_blocks_of_cma_count_only_for_who_may_use_them() -> None:
    machine = low_and_high(1 << 10, 0)
    zone = machine.memory.zones[0]
    assert has_free_block(zone, 10, False)
    assert not has_free_block(zone, 11, True)
    only_cma = boot(
        MemoryLayout(12, 9, 10, (ZoneSpan("Normal", 0, 1024),), ((0, 1024),), ((0, 1024),)), ((0, 1024),)
    )
    zone = only_cma.memory.zones[0]
    assert [zone.nr_free_blocks(10, kind) for kind in (MIGRATE_MOVABLE, MIGRATE_CMA)] == [0, 1]
    assert [has_free_block(zone, order, True) for order in (9, 10)] == [True, True]
    assert not has_free_block(zone, 0, False)
