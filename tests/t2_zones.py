"""Zones, watermarks, fallback between migratetypes, GFP flags, compaction, boot pages.

Modules: cmafs.mm.fallback, cmafs.mm.boot_pages.
"""

from __future__ import annotations

import pytest
from mm_support import Booted, boot, layout, names, recorded, small

from cmafs.abi import kernel_abi
from cmafs.mm.compaction import compact_memory
from cmafs.mm.contig_alloc import alloc_contig_range, free_contig_range
from cmafs.mm.gfp import (
    GFP_ATOMIC,
    GFP_DMA,
    GFP_DMA32,
    GFP_HIGHMEM_BIT,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_SLAB_RECLAIMABLE,
    gfp_migratetype,
    zonelist,
)
from cmafs.mm.mm_init import free_reserved_range, mm_init
from cmafs.mm.mmzone import (
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_RECLAIMABLE,
    MIGRATE_TYPES,
    MIGRATE_UNMOVABLE,
    ZONE_RANKS,
    MemoryLayout,
    ZoneSpan,
)
from cmafs.mm.page_alloc import OutOfMemory, alloc_pages, alloc_pages_bulk, free_pages
from cmafs.mm.page_owner import pfns_of
from cmafs.mm.vmscan import drop_caches, reclaimable, try_to_free_pages
from cmafs.sim import workload

GIB = 1 << 18


def test_gfp_flags_to_migratetype() -> None:
    """The table of seeds/002."""
    memory = small().memory
    expected = {
        GFP_KERNEL: MIGRATE_UNMOVABLE,
        GFP_ATOMIC: MIGRATE_UNMOVABLE,
        GFP_SLAB_RECLAIMABLE: MIGRATE_RECLAIMABLE,
        GFP_HIGHUSER_MOVABLE: MIGRATE_MOVABLE,
    }
    assert {gfp: gfp_migratetype(memory, gfp) for gfp in expected} == expected


def test_gfp_flags_are_those_of_5_10() -> None:
    """include/linux/gfp.h@v5.10"""
    memory = mm_init(layout(2048, pageblock_order=4, max_page_order=5), kernel_abi("5.10").mm)
    types = [gfp_migratetype(memory, flag) for flag in (0x8, 0x10, 0x7E7)]
    assert types == [MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE]
    assert (GFP_DMA, GFP_DMA32, GFP_ATOMIC, GFP_KERNEL) == (0x1, 0x4, 0x820, 0xCC0)
    assert (GFP_HIGHUSER_MOVABLE, GFP_SLAB_RECLAIMABLE) == (0xCCA, 0xCD0)


def test_zonelists() -> None:
    zones = (ZoneSpan("DMA", 0, 4096), ZoneSpan("DMA32", 4096, 4 * GIB), ZoneSpan("Normal", 4 * GIB, 6 * GIB))
    memory = mm_init(MemoryLayout(12, 9, 10, zones, ((0, 6 * GIB),), ()), kernel_abi("6.12").mm)
    order = {
        GFP_DMA: ["DMA"],
        GFP_DMA32: ["DMA32", "DMA"],
        GFP_KERNEL: ["Normal", "DMA32", "DMA"],
        GFP_HIGHUSER_MOVABLE: ["Normal", "DMA32", "DMA"],
    }
    assert {gfp: [zone.name for zone in zonelist(memory, gfp)] for gfp in order} == order


def test_watermarks_are_those_a_real_kernel_printed() -> None:
    """6.12/pressure-0, out of memory: min:1968kB low:2460kB high:2952kB, once init memory had been freed."""
    machine = recorded("6.12/pressure-0").machine
    zone = machine.memory.zones[0]
    end = zone.end_pfn
    assert zone.managed_pages == 242192 // 4
    free_reserved_range(machine.memory, end - 158, end)
    assert [pages * 4 for pages in zone.watermark] == [1968, 2460, 2952]


def test_movable_memory_is_for_movable_requests_only() -> None:
    zones = (ZoneSpan("Normal", 0, 8192), ZoneSpan("HighMem", 8192, 12288), ZoneSpan("Movable", 12288, 16384))
    memory = mm_init(MemoryLayout(12, 10, 10, zones, ((0, 16384),), ()), kernel_abi("5.10").mm)
    order = {
        GFP_KERNEL: ["Normal"],
        GFP_KERNEL | GFP_HIGHMEM_BIT: ["HighMem", "Normal"],
        GFP_HIGHUSER_MOVABLE: ["Movable", "HighMem", "Normal"],
        GFP_DMA: ["Normal"],
    }
    assert {gfp: [zone.name for zone in zonelist(memory, gfp)] for gfp in order} == order


@pytest.mark.parametrize("reserved", [0, 100])
def test_pages_that_boot_frees_are_counted(reserved: int) -> None:
    base = 8192
    taken = ((64, 64 + reserved),) if reserved else ()
    machine = boot(layout(16384, ((base, 1024),), taken), ((base, 1024),), "6.12")
    assert machine.memory.zones[0].managed_pages == 16384 - reserved
    assert machine.memory.vmstat.vm_event("pgfree") == 16384 - reserved
    if reserved:
        free_reserved_range(machine.memory, 64, 164)
        assert machine.memory.zones[0].managed_pages == machine.memory.vmstat.vm_event("pgfree") == 16384
    machine.check()


@pytest.mark.parametrize("kernel", ["4.4", "6.12"])
def test_watermarks_by_row(kernel: str) -> None:
    """4 GiB: 8192 KiB at least; the distance is a quarter of that before 4.6, then at least a thousandth
    of the zone.
    """
    zone = mm_init(layout(4 * GIB, dma32_end=0), kernel_abi(kernel).mm).zones[0]
    distance = 512 if kernel == "4.4" else 4 * GIB // 1000
    assert zone.watermark == [2048, 2048 + distance, 2048 + 2 * distance]


def test_lower_zones_keep_a_reserve() -> None:
    """A request that may use Normal leaves DMA32 its reserve above the watermark; one for DMA32 does not."""
    memory = mm_init(layout(8 * GIB), kernel_abi("6.12").mm)
    dma32, normal = memory.zones
    assert dma32.lowmem_reserve == [0, 0, *[normal.managed_pages // 256] * 4]
    assert normal.lowmem_reserve == [0] * 6
    workload.spawn(memory, "a", "anon", normal.managed_pages + 1000)
    assert normal.nr_free == normal.watermark[1]
    room = normal.nr_free - normal.watermark[0]
    room += dma32.nr_free - dma32.watermark[0] - dma32.lowmem_reserve[ZONE_RANKS["Normal"]]
    with pytest.raises(OutOfMemory, match=f"{room + 1} pages wanted, {room} available"):
        workload.grow(memory, "a", room + 1)
    workload.grow(memory, "a", room)
    with pytest.raises(OutOfMemory, match=r"1 pages wanted, 0 available after reclaim$"):
        workload.grow(memory, "a", 1)
    assert dma32.nr_free == dma32.watermark[0] + dma32.lowmem_reserve[ZONE_RANKS["Normal"]]
    for order in (0, 3):
        with pytest.raises(OutOfMemory):
            alloc_pages(memory, GFP_ATOMIC, order)
        free_pages(memory, alloc_pages(memory, GFP_DMA32, order), order)


@pytest.mark.parametrize("kernel", ["4.4", "5.4", "5.10", "6.1", "6.12", "7.2"])
def test_unmovable_requests_claim_whole_page_blocks(kernel: str) -> None:
    machine = boot(layout(16384), (), kernel)
    memory = machine.memory
    workload.spawn(memory, "k", "kernel", 600)
    occupant = memory.owners.by_name("k")
    assert occupant is not None
    assert {memory.pageblock_migratetype(pfn) for pfn in occupant.pfns()} == {MIGRATE_UNMOVABLE}
    assert memory.pageblock_flags.count(MIGRATE_UNMOVABLE) == 2
    machine.check()


@pytest.mark.parametrize("kernel", ["4.4", "5.4", "5.10", "6.1", "6.12", "7.2"])
@pytest.mark.parametrize(("held", "becomes"), [(256, MIGRATE_MOVABLE), (257, MIGRATE_UNMOVABLE)])
def test_half_a_page_block_free_is_claimed(kernel: str, held: int, becomes: int) -> None:
    """A page block of the kernel's turns movable when movable pages need it and half of it is free: here from
    page 200 on, in blocks of many orders side by side.
    """
    machine = boot(layout(4096), (), kernel)
    memory = machine.memory
    for name, pages in (("k", 200), ("gap", 512 - held), ("behind", held - 200), ("other", 512)):
        workload.spawn(memory, name, "kernel", pages)
    workload.kill(memory, "gap")
    block = memory.owners.by_name("k").frames[0] >> 9  # type: ignore[union-attr]
    assert memory.pageblock_flags[block] == MIGRATE_UNMOVABLE
    workload.spawn(memory, "a", "anon", machine.free() - memory.zones[0].watermark[0])
    assert memory.pageblock_flags[block] == becomes
    machine.check()


@pytest.mark.parametrize("kernel", ["4.4", "5.4", "5.10", "6.1", "6.12", "7.2"])
@pytest.mark.parametrize(("pages", "claims"), [(8, False), (16, True)])
def test_only_large_pieces_let_a_movable_request_claim(kernel: str, pages: int, claims: bool) -> None:
    """Two page blocks, half of each free, in pieces below or at half the order of a page block (4 of 9)."""
    machine = boot(layout(16384), (), kernel)
    memory = machine.memory
    for i in range(1024 // pages):
        workload.spawn(memory, f"k{i}", "kernel", pages)
    for i in range(0, 1024 // pages, 2):
        workload.kill(memory, f"k{i}")
    blocks = {pfn >> 9 for task in workload.tasks(memory) for pfn, _ in task.ranges}
    assert len(blocks) == 2
    workload.spawn(memory, "a", "anon", machine.free() - memory.zones[0].watermark[0])
    assert (MIGRATE_MOVABLE in {memory.pageblock_flags[block] for block in blocks}) == claims
    machine.check()


@pytest.mark.parametrize(
    ("kernel", "taken", "left"),
    [
        *((kernel, [168, 0], [212, 44]) for kernel in ("4.4", "5.4", "5.10", "6.1")),
        *((kernel, [84, 84], [256, 0]) for kernel in ("6.12", "6.18", "7.2")),
    ],
)
def test_movable_requests_borrow_without_claiming(kernel: str, taken: list[int], left: list[int]) -> None:
    """Less than half of two unmovable page blocks is free: both stay unmovable, whoever uses them. Until 6.9
    all that is free in the first moves to the movable lists, from 6.10 on only what is taken.
    """
    machine = boot(layout(16384), (), kernel)
    memory, zone = machine.memory, machine.memory.zones[0]
    for name, pages in (("k1", 300), ("gap", 212), ("k2", 300)):
        workload.spawn(memory, name, "kernel", pages)
    workload.kill(memory, "gap")
    workload.spawn(memory, "a", "anon", machine.free() - zone.watermark[0])
    held, borrowed = (memory.owners.by_name(name) for name in ("k1", "a"))
    assert held is not None and borrowed is not None
    first = held.frames[0] >> 9
    used = [sum(pfn >> 9 == block for pfn in borrowed.pfns()) for block in (first, first + 1)]
    assert used == taken
    assert [memory.pageblock_flags[block] for block in (first, first + 1)] == [MIGRATE_UNMOVABLE] * 2
    assert [zone.nr_free_of(mt) for mt in (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE)] == left
    machine.check()
    for name in ("k1", "k2", "a"):
        workload.kill(memory, name)
    machine.check()
    assert machine.free() == 16384


def fragmented(kernel: str = "6.12", tasks: int = 2, start: int = 0) -> Booted:
    """Memory full of single pages of ``t0``, ``t1``, … in turns, and ``t0`` killed: no two free pages side
    by side.
    """
    machine = boot(layout(8192, start=start), (), kernel)
    memory = machine.memory
    for i in range(tasks):
        workload.spawn(memory, f"t{i}", "anon", 0)
    for _ in range(3000 // tasks):
        for i in range(tasks):
            workload.grow(memory, f"t{i}", 1)
    workload.spawn(memory, "rest", "anon", machine.free() - memory.zones[0].watermark[0])
    workload.kill(memory, "t0")
    return machine


def test_lists_and_page_blocks_may_disagree_only_before_6_10() -> None:
    """A quarter of each page block free is too little to claim it: what moves to other lists moves back
    only when freed.
    """
    for kernel, agree in (("5.10", False), ("6.1", False), ("6.12", True), ("7.2", True)):
        machine = fragmented(kernel, tasks=4)
        memory = machine.memory
        workload.spawn(memory, "k", "kernel", 200)
        blocks = memory.zones[0].buddy.items()
        wrong = [pfn for pfn, code in blocks if code & 7 != memory.pageblock_migratetype(pfn)]
        assert (not wrong) == agree, kernel
        machine.check()


@pytest.mark.parametrize("kernel", ["5.10", "6.12"])
def test_compaction_makes_large_blocks(kernel: str) -> None:
    machine = fragmented(kernel)
    memory, zone = machine.memory, machine.memory.zones[0]
    before = sum(zone.nr_free_blocks(0, mt) for mt in range(3))
    assert before >= 1500
    compact_memory(memory)
    assert sum(zone.nr_free_blocks(0, mt) for mt in range(3)) < 256  # only where the scanners met
    for item in ("compact_migrate_scanned", "compact_free_scanned", "compact_isolated", "pgmigrate_success"):
        assert memory.vmstat.vm_event(item) > 0
    machine.check()


@pytest.mark.parametrize(("tasks", "killed"), [(2, 1), (5, 1), (5, 4), (10, 9)])
def test_compaction_moves_pages_up_until_its_scanners_meet(tasks: int, killed: int) -> None:
    """No page block gives pages away and takes some: what moves comes from below all that it goes to."""
    machine = fragmented(tasks=tasks, start=510 * 512)
    memory = machine.memory
    for i in range(1, killed):
        workload.kill(memory, f"t{i}")
    before = {task.name: memory.owners.by_name(task.name).frames[:] for task in workload.tasks(memory)}  # type: ignore[union-attr]
    compact_memory(memory)
    moved = []
    for name, frames in before.items():
        now = memory.owners.by_name(name).frames  # type: ignore[union-attr]
        moved += [(old, new) for old, new in zip(frames, now, strict=True) if old != new]
    assert len(moved) == memory.vmstat.vm_event("pgmigrate_success") > 200
    assert max(old for old, _ in moved) >> 9 < min(new for _, new in moved) >> 9
    machine.check()


def test_compaction_leaves_pinned_pages() -> None:
    machine = fragmented()
    memory = machine.memory
    workload.pin(memory, "t1", 40)
    held = {pfn: memory.owners.tag_at(pfn) for pfn in memory.pins}
    compact_memory(memory)
    assert {pfn: memory.owners.tag_at(pfn) for pfn in held} == held
    machine.check()


def test_a_large_block_is_made_by_direct_compaction() -> None:
    machine = fragmented()
    memory, zone = machine.memory, machine.memory.zones[0]
    assert not any(zone.nr_free_blocks(order, mt) for order in (9, 10) for mt in range(3))
    pfn = alloc_pages(memory, GFP_KERNEL, 9)
    assert pfn % 512 == 0
    assert memory.vmstat.vm_event("compact_stall") == 1
    free_pages(memory, pfn, 9)
    machine.check()


def test_an_atomic_request_does_not_wait_for_compaction() -> None:
    machine = fragmented()
    with pytest.raises(OutOfMemory, match="no free block of order 9"):
        alloc_pages(machine.memory, GFP_ATOMIC, 9)


@pytest.mark.parametrize("kernel", ["4.4", "6.12", "7.2"])
def test_boot_pages_come_back_after_pressure(kernel: str) -> None:
    base = 8192
    machine = boot(layout(65536, ((base, 4096),)), ((base, 4096),), kernel, boot_pages=True)
    memory = machine.memory
    start = machine.free(), machine.cma_free()
    room = machine.free() - memory.zones[0].watermark[0]
    workload.spawn(memory, "a", "tmpfs", room + 40)
    machine.check()
    workload.kill(memory, "a")
    machine.check()
    assert (machine.free(), machine.cma_free()) == start


def test_7_2_parks_a_block_of_cma_until_an_allocation() -> None:
    base = 8192
    machine = boot(layout(65536, ((base, 4096),)), ((base, 4096),), "7.2", boot_pages=True)
    assert machine.cma_free() == 4096 - 512
    alloc_contig_range(machine.memory, base, base + 10)
    assert machine.cma_free() == 4096 - 10
    free_contig_range(machine.memory, base, 10)
    assert machine.cma_free() == 4096 - 512
    machine.check()
    clean = reclaimable(machine.memory, True)[0]
    assert try_to_free_pages(machine.memory, ZONE_RANKS["Normal"], 1 << 30) == clean  # that block among them
    assert machine.cma_free() == 4096 and clean > 512


def test_a_tiny_machine_boots() -> None:
    machine = boot(layout(2048, ((1024, 512),)), ((1024, 512),), "6.12", boot_pages=True)
    machine.check()
    assert machine.free() > 1500


def test_dropping_the_cache_of_a_booted_machine() -> None:
    machine = recorded("6.12/pressure-0").machine
    before = machine.free()
    drop_caches(machine.memory, 3)
    dropped = machine.free()
    assert dropped > before
    workload.spawn(machine.memory, "a", "anon", 100)
    workload.kill(machine.memory, "a")
    assert machine.free() == dropped
    machine.check()


def test_too_little_memory_for_page_blocks() -> None:
    """64 KiB pages have page blocks of 512 MiB: with less than six of them everything is unmovable."""
    machine = boot(layout(16384, page_shift=16, pageblock_order=13, max_page_order=13), (), "6.12")
    assert machine.memory.page_group_by_mobility_disabled
    workload.spawn(machine.memory, "a", "anon", 100)
    workload.spawn(machine.memory, "k", "kernel", 100)
    machine.check()


@pytest.mark.parametrize("start", [0, 4096])
@pytest.mark.parametrize(("pages", "disabled"), [(6 * 512, False), (6 * 512 - 1, True)])
def test_one_page_block_of_each_type_is_enough(start: int, pages: int, disabled: bool) -> None:
    """mm/page_alloc.c:build_all_zonelists()@v6.12: less than pageblock_nr_pages * MIGRATE_TYPES."""
    memory = boot(layout(pages, start=start)).memory
    assert memory.page_group_by_mobility_disabled is disabled
    pfn = alloc_pages(memory, GFP_KERNEL, 0)
    assert memory.pageblock_migratetype(pfn) == MIGRATE_UNMOVABLE


def test_every_recorded_boot_is_consistent() -> None:
    for name in names("exhaust"):
        recorded(name).machine.check()


def test_high_memory_is_used_first_and_only_by_those_who_may() -> None:
    """32-bit arm: user pages come from HighMem, the kernel's own never do."""
    zones = (ZoneSpan("Normal", 0, 8192), ZoneSpan("HighMem", 8192, 16384))
    machine_layout = MemoryLayout(12, 10, 10, zones, ((0, 16384),), ((4096, 6144),))
    machine = boot(machine_layout, ((4096, 2048),), "5.10")
    normal, high = machine.memory.zones
    workload.spawn(machine.memory, "a", "anon", 5000)
    assert (normal.nr_free, high.nr_free) == (8192, 8192 - 5000)
    workload.spawn(machine.memory, "k", "kernel", 5000)
    assert (normal.nr_free, high.nr_free) == (8192 - 5000, 8192 - 5000)
    assert machine.memory.vmstat.vm_event("pgalloc_high") == 5000
    with pytest.raises(OSError, match="wanted"):
        workload.grow(machine.memory, "k", 2000)
    workload.grow(machine.memory, "a", 5000)
    machine.check()


@pytest.mark.parametrize(
    ("pages", "kbytes"), [(256, 128), (1024, 256), (16384, 1024), (GIB, 4096), (16 * GIB, 16384)]
)
def test_min_free_kbytes_is_the_root_of_16_times_low_memory(pages: int, kbytes: int) -> None:
    assert mm_init(layout(pages), kernel_abi("6.12").mm).min_free_kbytes == kbytes


@pytest.mark.parametrize(("kernel", "most"), [("5.4", 65536), ("6.12", 262144)])
def test_min_free_kbytes_has_a_limit(kernel: str, most: int) -> None:
    memory = mm_init(layout(1 << 32, dma32_end=0), kernel_abi(kernel).mm)
    assert memory.min_free_kbytes == most


def test_high_memory_has_watermarks_of_its_own() -> None:
    """__setup_per_zone_wmarks(): a thousandth of the zone, from 32 to 128 pages; no share of the rest."""
    for high, least in ((1024, 32), (65536, 64), (4 * GIB, 128)):
        zones = (ZoneSpan("Normal", 0, 16384), ZoneSpan("HighMem", 16384, 16384 + high))
        memory = mm_init(MemoryLayout(12, 10, 10, zones, ((0, 16384 + high),), ()), kernel_abi("5.10").mm)
        normal, highmem = memory.zones
        assert (memory.min_free_kbytes, normal.watermark[0]) == (1024, 256)
        share = 256 * high // 16384
        step = max(share // 4, high // 1000)
        assert highmem.watermark == [least, least + step, least + 2 * step]
        assert normal.lowmem_reserve == [0, 0, 0, *[high // 32] * 3]


def test_direct_compaction_counts_what_became_of_it() -> None:
    machine = fragmented()
    memory = machine.memory
    held = [alloc_pages(memory, GFP_KERNEL, 9)]
    counts = {item: memory.vmstat.vm_event(f"compact_{item}") for item in ("stall", "success", "fail")}
    assert counts == {"stall": 1, "success": 1, "fail": 0}
    with pytest.raises(OutOfMemory):
        while True:
            held.append(alloc_pages(memory, GFP_KERNEL, 9))
    assert memory.vmstat.vm_event("compact_fail") > 0
    assert memory.vmstat.vm_event("compact_stall") == memory.vmstat.vm_event(
        "compact_success"
    ) + memory.vmstat.vm_event("compact_fail")
    for pfn in held:
        free_pages(memory, pfn, 9)
    machine.check()


@pytest.mark.parametrize("order", [1, 4, 9])
def test_a_block_of_an_order_is_aligned_and_comes_back(order: int) -> None:
    machine = boot(layout(16384), (), "6.12")
    memory, zone = machine.memory, machine.memory.zones[0]
    before = machine.free()
    freed = memory.vmstat.vm_event("pgfree")
    blocks = [alloc_pages(memory, GFP_KERNEL, order) for _ in range(5)]
    assert [pfn % (1 << order) for pfn in blocks] == [0] * 5
    assert len({pfn >> order for pfn in blocks}) == 5
    assert machine.free() == before - (5 << order)
    assert memory.vmstat.vm_event(f"pgalloc_{zone.item}") == 5 << order
    for pfn in blocks:
        free_pages(memory, pfn, order)
    assert (machine.free(), memory.vmstat.vm_event("pgfree") - freed) == (before, 5 << order)


def test_the_first_and_the_last_page_are_memory() -> None:
    memory = boot(layout(16384, start=4096), (), "6.12").memory
    assert [memory.in_memory(pfn) for pfn in (4095, 4096, 20479, 20480)] == [False, True, True, False]
    with pytest.raises(LookupError, match=r"^pfn 0xfff is in no zone$"):
        memory.zone_of(4095)
    assert memory.zone_of(20479) is memory.zone_of(4096) is memory.zones[0]
    with pytest.raises(LookupError):
        memory.zone_of(20480)


def test_which_zone_and_which_page_block() -> None:
    """Memory from 3 page blocks on, with a hole of one and a half; zones side by side."""
    start, size = 3 * 512, 512
    zones = (
        ZoneSpan("DMA32", start, start + 1024), ZoneSpan("HighMem", start + 1024, start + 3072),
        ZoneSpan("Movable", start + 3072, start + 4096, 1),
    )  # fmt: skip
    ranges = ((start, start + 1300), (start + 2048, start + 4096))
    for high, names_ in (
        (start + 1024, ["HighMem", "Movable"]),
        (start + 3073, ["HighMem"]),
        (None, ["HighMem"]),
    ):
        found = MemoryLayout(12, 9, 10, zones, ranges, (), high)
        memory = mm_init(found, kernel_abi("6.12").mm)
        assert [zone.name for zone in memory.high_zones()] == names_
    assert (memory.nodes(), [zone.item for zone in memory.zones]) == ([0, 1], ["dma32", "high", "movable"])
    for first, name in ((start, "DMA32"), (start + 1024, "HighMem"), (start + 3072, "Movable")):
        assert memory.zone_of(first).name == name
        assert first == start or memory.zone_of(first - 1).name != name
    for pfn in (start - 1, start + 4096):
        with pytest.raises(LookupError, match=f"^pfn {pfn:#x} is in no zone$"):
            memory.zone_of(pfn)
    edges = (
        start - 1,
        start,
        start + 1299,
        start + 1300,
        start + 2047,
        start + 2048,
        start + 4095,
        start + 4096,
    )
    assert [memory.in_memory(pfn) for pfn in edges] == [False, True, True, False, False, True, True, False]
    assert [(zone.spanned_pages, zone.present_pages, zone.managed_pages) for zone in memory.zones] == [
        (1024, 1024, 1024), (2048, 276 + 1024, 1300), (1024, 1024, 1024),
    ]  # fmt: skip
    memory.set_pageblock_migratetype(start + size - 1, start + 2 * size, MIGRATE_UNMOVABLE)
    memory.set_pageblock_migratetype(start + 4 * size, start + 4 * size + 1, MIGRATE_RECLAIMABLE)
    types = [memory.pageblock_migratetype(start + size * block) for block in range(8)]
    u, r, m = MIGRATE_UNMOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE
    assert types == [u, u, m, m, r, m, m, m]
    assert memory.pageblock_migratetype(start + size - 1) == memory.pageblock_migratetype(start) == u
    spans = {(0, 1024): True, (0, 1025): False, (512, 1024): True, (1024, 2048): True, (2047, 2049): False,
             (2048, 2560): True, (2560, 4096): True, (100, 101): True}  # fmt: skip
    assert {span: memory.one_migratetype(start + span[0], start + span[1]) for span in spans} == spans
    memory.page_group_by_mobility_disabled = True  # of what is allocated only one kind is left
    for migratetype in range(MIGRATE_TYPES):
        memory.set_pageblock_migratetype(start, start + 1, migratetype)
        assert memory.pageblock_migratetype(start) == (migratetype if migratetype >= MIGRATE_PCPTYPES else u)


def test_free_blocks_are_found_from_any_of_their_pages() -> None:
    found = layout(4096, reserved=((5, 9), (1030, 1031)), dma32_end=0)
    memory = mm_init(found, kernel_abi("6.12").mm)
    (zone,) = memory.zones
    pfn = alloc_pages(memory, GFP_KERNEL, 9)
    blocks: dict[int, tuple[int, int, int]] = {}
    for order in range(zone.max_page_order + 1):
        for migratetype in range(len(zone.top_area)):
            top = order == zone.max_page_order
            area = zone.top_area[migratetype] if top else zone.free_area[order << 3 | migratetype]
            assert zone.nr_free_blocks(order, migratetype) == len(list(area))
            blocks |= {
                page: (head, order, migratetype) for head in area for page in range(head, head + (1 << order))
            }
    assert {page: zone.find_free(page) for page in range(4096)} == {
        page: blocks.get(page) for page in range(4096)
    }
    assert sorted(set(range(4096)) - blocks.keys()) == [5, 6, 7, 8, 1030, *range(pfn, pfn + 512)]
    kinds = range(len(zone.top_area))
    assert [zone.nr_free_of(kind) for kind in kinds] == [
        sum(k == kind for _, _, k in blocks.values()) for kind in kinds
    ]
    assert zone.nr_free == len(blocks)


@pytest.mark.parametrize(("kernel", "spare"), [("5.10", 0), ("6.12", 0), ("6.12", 1), ("7.2", 300)])
def test_single_pages_come_down_to_the_lowest_watermark(kernel: str, spare: int) -> None:
    memory = mm_init(layout(8192, dma32_end=0), kernel_abi(kernel).mm)
    (zone,) = memory.zones
    low, room = zone.watermark[1], zone.nr_free - zone.watermark[0]
    assert zone.watermark[0] < low < zone.watermark[2]
    with pytest.raises(OutOfMemory, match=f"{room + 1} pages wanted, {room} available after reclaim"):
        alloc_pages_bulk(memory, GFP_KERNEL, room + 1)
    segments = alloc_pages_bulk(memory, GFP_KERNEL, room - spare)
    pfns = pfns_of(segments, room - spare).tolist()
    assert len(set(pfns)) == sum(count for _, _, _, count in segments) == room - spare
    assert zone.nr_free == zone.watermark[0] + spare
    assert memory.vmstat.vm_event("pgalloc_normal") == room - spare
    rest = alloc_pages_bulk(memory, GFP_KERNEL, 1000, partial=True)
    assert sum(count for _, _, _, count in rest) == spare
    assert memory.vmstat.vm_event("allocstall_normal") == 1
