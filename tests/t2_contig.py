"""alloc_contig_range(): what moves, what stays, what is left behind when it fails, and what is said about
it.

Modules: cmafs.mm.page_isolation, cmafs.mm.migrate.
"""

from __future__ import annotations

import errno

import pytest
from mm_support import Booted, boot, layout, small

from cmafs.lib.clock import NSEC_PER_SEC, ManualClock
from cmafs.mm.buddy import carve, free_blocks
from cmafs.mm.cma import cma_alloc, cma_release
from cmafs.mm.contig_alloc import ContigBusy, alloc_contig_range, alloc_contig_range_slowly, free_contig_range
from cmafs.mm.mmzone import MIGRATE_CMA
from cmafs.mm.page_alloc import OutOfMemory
from cmafs.sim.workload import kill, mlock, pin, pin_pfn, shrink, spawn, tasks

KERNELS = ("4.4", "5.10", "6.1", "6.12", "7.2", "article")


def full_area(kernel: str = "6.12", kind: str = "anon") -> Booted:
    """64 MiB, 16 MiB of it CMA, and every page of CMA in use by task ``a``: the rest, but 8 MiB, was full."""
    machine = small(kernel)
    other = machine.free() - machine.cma_free()
    spawn(machine.memory, "filler", "kernel", other - 1000)
    spawn(machine.memory, "a", kind, machine.free() - 500)
    kill(machine.memory, "filler")
    assert machine.cma_free() == 0
    return machine


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["anon", "tmpfs"])
def test_movable_pages_move_out_with_their_content(kernel: str, kind: str) -> None:
    machine = full_area(kernel, kind)
    memory, base = machine.memory, machine.area.base_pfn
    free, before = machine.free(), dict(memory.vmstat.events)
    alloc_contig_range(memory, base + 100, base + 1300)
    assert machine.free() == free - 1200
    assert not memory.owners.any_in(base + 100, base + 1300)
    assert memory.vmstat.vm_event("pgmigrate_success") == 1200
    assert memory.vmstat.vm_event("pgfree") - before["pgfree"] == 1200
    assert sum(task.pages for task in tasks(memory)) == memory.owners.occupants[2].resident
    assert memory.pageblock_migratetype(base + 100) == MIGRATE_CMA
    free_contig_range(memory, base + 100, 1200)
    machine.check()
    parked = memory.pageblock_nr_pages if kernel == "7.2" else 0
    assert machine.free() == free - parked


@pytest.mark.parametrize("kernel", KERNELS)
def test_clean_page_cache_is_dropped_instead(kernel: str) -> None:
    machine = full_area(kernel, "file")
    memory, base = machine.memory, machine.area.base_pfn
    cache = memory.owners.occupants[2]
    free, pages = machine.free(), cache.resident
    alloc_contig_range(memory, base + 100, base + 1300)
    assert (machine.free(), cache.resident) == (free, pages - 1200)
    assert memory.vmstat.vm_event("pgmigrate_success") == 0
    mlock(memory, "a")
    free_contig_range(memory, base + 100, 1200)
    if kernel != "article":
        alloc_contig_range(memory, base + 1300, base + 1400)
        free_contig_range(memory, base + 1300, 100)
    assert cache.resident == pages - 1200
    machine.check()


def test_cache_that_moves_is_not_reclaimed_meanwhile() -> None:
    """Pages that wait for their new frames are off the lists that reclaim looks at."""
    machine = small()
    memory, base = machine.memory, machine.area.base_pfn
    spawn(memory, "cache", "file", machine.free() - memory.zones[0].watermark[0])
    spawn(memory, "a", "anon", 2000)
    for pages in (64, 1000, 3000):
        alloc_contig_range(memory, base, base + pages)
        free_contig_range(memory, base, pages)
        machine.check()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pinned_page_keeps_the_range_busy(kernel: str) -> None:
    machine = full_area(kernel)
    memory, base = machine.memory, machine.area.base_pfn
    pin_pfn(memory, base + 700)
    tag = memory.owners.tag_at(base + 700)
    with pytest.raises(ContigBusy) as busy:
        alloc_contig_range(memory, base + 600, base + 900)
    locked = kernel == "article"  # which calls every page that is held so
    assert (busy.value.errno, busy.value.pfn, busy.value.locked) == (errno.EBUSY, base + 700, locked)
    assert memory.owners.tag_at(base + 700) == tag
    machine.check()
    alloc_contig_range(memory, base + 701, base + 900)
    alloc_contig_range(memory, base + 600, base + 700)
    free_contig_range(memory, base + 701, 199)
    free_contig_range(memory, base + 600, 100)
    machine.check()


@pytest.mark.parametrize(("kind", "still_there"), [("anon", 1), ("tmpfs", 300 - 128)])
def test_what_moves_although_the_range_stays_busy(kind: str, still_there: int) -> None:
    """Pinned anonymous pages are not even isolated; a file page fails in its batch of 32, and ends the
    scan.
    """
    machine = full_area("6.12", kind)
    memory, base = machine.memory, machine.area.base_pfn
    pin_pfn(memory, base + 600 + 100)
    with pytest.raises(ContigBusy):
        alloc_contig_range(memory, base + 600, base + 900)
    left = [pfn for pfn, _ in memory.owners.used_in(base + 600, base + 900)]
    assert base + 700 in left
    assert len(left) == still_there + (kind == "tmpfs")
    assert memory.vmstat.vm_event("pgmigrate_fail") == (5 if kind == "tmpfs" else 0)
    machine.check()


@pytest.mark.parametrize("kernel", KERNELS)
def test_nowhere_to_move_to_is_enomem_and_part_has_moved(kernel: str) -> None:
    machine = small(kernel)
    memory = machine.memory
    spawn(memory, "a", "anon", machine.free() - memory.zones[0].watermark[0] - 300)
    middle, end = machine.area.base_pfn + 2048, machine.area.base_pfn + 4096
    assert memory.owners.any_in(middle, end)
    with pytest.raises(OutOfMemory):
        alloc_contig_range(memory, middle, end)
    assert 0 < memory.vmstat.vm_event("pgmigrate_success") <= 300
    assert memory.vmstat.vm_event("pgmigrate_fail") > 0
    machine.check()


def test_cma_alloc_says_which_error() -> None:
    machine = full_area("6.12")
    pin_pfn(machine.memory, machine.area.base_pfn + 2000)
    assert cma_alloc(machine.area, 3000) is None
    assert any("ret: -16" in line for line in machine.log.lines())
    assert cma_alloc(machine.area, 2000) == machine.area.base_pfn
    machine.check()


def test_a_page_of_another_area_keeps_a_range_busy() -> None:
    """Two areas of a device tree may overlap: what one has handed out the other cannot take."""
    base = 4096
    areas = ((base, 2048), (base + 1024, 2048))
    machine = boot(layout(16384, areas), areas)
    assert cma_alloc(machine.areas[1], 100) == base + 1024
    for end in (base + 1025, base + 1100, base + 1124):
        with pytest.raises(ContigBusy) as busy:
            alloc_contig_range(machine.memory, base + 900, end)
        assert busy.value.pfn == end - 1
    with pytest.raises(ContigBusy) as busy:
        alloc_contig_range(machine.memory, base + 900, base + 3000)
    assert busy.value.pfn == base + 1123
    assert cma_alloc(machine.areas[0], 1100) is None
    assert cma_alloc(machine.areas[0], 1024) == base
    assert cma_alloc(machine.areas[0], 900) == base + 1024 + 100
    assert cma_release(machine.areas[1], base + 1024, 100)


@pytest.mark.parametrize(("kernel", "printed"), [("4.4", 10), ("5.10", 10), ("6.1", 0)])
def test_ranges_that_were_busy_are_named_until_5_12(kernel: str, printed: int) -> None:
    """From the free block on that each begins in, ten in five seconds."""
    machine = small(kernel)
    base = machine.area.base_pfn
    assert cma_alloc(machine.area, 520) == base
    assert cma_release(machine.area, base + 512, 8)
    pin_pfn(machine.memory, base + 600)
    assert cma_alloc(machine.area, 180) == base + 601
    ranges = [(base + 512, base + 692)] + [(base + 512 + i // 64 * 64, base + 692 + i) for i in range(1, 10)]
    lines = [f"alloc_contig_range: [{start:x}, {end:x}) PFNs busy" for start, end in ranges]
    assert [line for line in machine.log.lines() if "PFNs" in line] == lines[:printed]
    assert machine.areas.pfns_busy_limit.missed == (89 - 10 if printed else 0)
    clock = machine.log.clock
    assert isinstance(clock, ManualClock)
    clock.advance(6 * NSEC_PER_SEC)
    assert cma_release(machine.area, base + 601, 180)
    assert cma_alloc(machine.area, 180) == base + 601
    suppressed = [line for line in machine.log.lines() if "suppressed" in line]
    assert suppressed == (["alloc_contig_range: 79 callbacks suppressed"] if printed else [])


def test_mlock_stops_migration_only_in_the_article() -> None:
    for kernel in ("6.12", "article"):
        machine = full_area(kernel)
        mlock(machine.memory, "a")
        if kernel == "6.12":
            task, window = (
                machine.memory.owners.by_name("a"),
                (machine.area.base_pfn, machine.area.base_pfn + 64),
            )
            assert task is not None and task.pages_in(*window) == 64
            alloc_contig_range(machine.memory, *window)
            assert task.pages_in(*window) == 0
            continue
        with pytest.raises(ContigBusy) as busy:
            alloc_contig_range(machine.memory, machine.area.base_pfn, machine.area.base_pfn + 64)
        base = machine.area.base_pfn
        assert (busy.value.locked, busy.value.pfn) == (True, base)
        assert cma_alloc(machine.area, machine.area.count) is None
        assert f"cma: migrate_pages failed, page {base:#x} is locked" in machine.log.lines()


def test_a_pin_in_a_large_area_costs_one_step() -> None:
    """64 GiB on a 1 TiB machine: millions of windows contain the pin; all of them are counted at once."""
    pages, base, count = 1 << 28, 1 << 27, 1 << 24
    machine = boot(layout(pages, ((base, count),)), ((base, count),))
    pin_pfn(machine.memory, base + count // 2)
    assert cma_alloc(machine.area, count // 2 - 1) == base
    assert cma_alloc(machine.area, count // 4) == base + count // 2 + 1
    machine.check()
    assert len(machine.memory.owners.tags) == 1


def test_isolation_takes_free_pages_of_its_blocks_out_of_reach() -> None:
    """Pages move out of the isolated page blocks, never into their free rest."""
    machine = full_area()
    memory, base = machine.memory, machine.area.base_pfn
    alloc_contig_range(memory, base, base + 10)
    free_contig_range(memory, base, 10)
    alloc_contig_range(memory, base + 100, base + 200)
    assert not memory.owners.any_in(base, base + 10)
    free_contig_range(memory, base + 100, 100)
    machine.check()


def test_pins_of_a_task_hold_its_lowest_pages() -> None:
    machine = full_area()
    pin(machine.memory, "a", 2)
    first = machine.memory.owners.occupants[2].frames[:2].tolist()
    for pfn in first:
        assert machine.memory.pins[pfn] == 1


def test_free_blocks_are_those_that_a_walk_over_all_pages_finds() -> None:
    machine = full_area("6.12")
    memory, zone, base = machine.memory, machine.memory.zones[0], machine.area.base_pfn
    pin(memory, "a", 1)
    assert cma_alloc(machine.area, 700) is not None
    shrink(memory, "a", 900)
    for start, end in ((0, zone.end_pfn), (base, base + 4096), (base, base + 512)):
        found, pfn = [], start
        while pfn < end:
            block = zone.find_free(pfn)
            if block is not None:
                found.append((block[0], block[0] + (1 << block[1]), block[2]))
            pfn += 1 << block[1] if block else 1
        split = []
        for low, high, migratetype in free_blocks(zone, start, end):
            step = min(high - low, 1 << zone.max_page_order)
            split += [(part, part + step, migratetype) for part in range(low, high, step)]
        assert split == found
        assert len(found) > 5 or start == base


def test_what_is_left_of_a_run_of_blocks_keeps_its_place() -> None:
    """Taking pages from one block of the largest order changes the order of no others."""
    memory = boot(layout(16384)).memory
    zone = memory.zones[0]
    before = list(zone.top_area[1])
    alloc_contig_range(memory, 4096 + 100, 4096 + 200)
    assert list(zone.top_area[1]) == [pfn for pfn in before if pfn != 4096]
    alloc_contig_range(memory, 8192 + 1000, 8192 + 1100)
    assert list(zone.top_area[1]) == [pfn for pfn in before if pfn not in (4096, 8192, 9216)]


def test_pages_of_both_kinds_are_counted_off_as_what_they_are() -> None:
    """A range that reaches from CMA into memory beside it, as only the lists see it."""
    machine = small()
    memory, zone, base = machine.memory, machine.memory.zones[0], machine.area.base_pfn
    free, cma = machine.free(), machine.cma_free()
    assert carve(zone, base - 700, base + 300)
    assert (machine.free(), machine.cma_free()) == (free - 1000, cma - 300)
    end = base + machine.area.count
    assert carve(zone, end - 10, end + 20)
    assert (machine.free(), machine.cma_free()) == (free - 1030, cma - 310)
    assert memory.cma_allocated == 0


@pytest.mark.parametrize("kernel", ["4.4", "5.4", "5.10", "7.2"])
def test_where_isolated_blocks_return_to(kernel: str) -> None:
    """Free blocks around a range that stays busy: on the lists' heads until 5.9, at their tails since."""
    machine = small(kernel)
    memory, zone, base = machine.memory, machine.memory.zones[0], machine.area.base_pfn
    largest = 1 << zone.max_page_order
    wanted, busy, beside = base + largest, base + 2 * largest, base + 3 * largest
    for pfn in (busy, base + 512):
        pin_pfn(memory, pfn)

    def of_order(order: int) -> list[int]:
        return list(reversed(zone.free_area[order << 3 | MIGRATE_CMA]))

    assert (sorted(of_order(9)), sorted(of_order(6))) == ([base, busy + 512], [base + 576, busy + 64])
    with pytest.raises(ContigBusy):
        alloc_contig_range_slowly(memory, zone, wanted + 5, beside - 5)
    found = list(zone.top_area[MIGRATE_CMA]), of_order(9), of_order(6)
    if kernel in ("4.4", "5.4"):
        assert found == ([wanted, beside], [busy + 512, base], [busy + 64, base + 576])
    else:
        assert found == ([beside, wanted], [base, busy + 512], [base + 576, busy + 64])
    machine.check()
