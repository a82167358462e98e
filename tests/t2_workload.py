"""The verbs of ``sim/control``: what they do to memory, and that a refused one does nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from mm_support import Booted, boot, layout, small

from cmafs.mm.cma import cma_alloc
from cmafs.mm.mmzone import MIGRATE_CMA, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, Memory
from cmafs.mm.vmscan import drop_caches
from cmafs.sim import workload


def info(memory: Memory, name: str) -> workload.TaskInfo:
    return next(task for task in workload.tasks(memory) if task.name == name)


def block_types(machine: Booted, name: str) -> set[int]:
    occupant = machine.memory.owners.by_name(name)
    assert occupant is not None
    return {machine.memory.pageblock_migratetype(pfn) for pfn in occupant.pfns()}


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("anon", MIGRATE_MOVABLE),
        ("file", MIGRATE_MOVABLE),
        ("tmpfs", MIGRATE_MOVABLE),
        ("kernel", MIGRATE_UNMOVABLE),
        ("slab", MIGRATE_RECLAIMABLE),
    ],
)
def test_kinds_go_to_page_blocks_of_their_type(kind: str, first: int) -> None:
    machine = small()
    workload.spawn(machine.memory, "a", kind, 100)
    assert block_types(machine, "a") == {first}
    machine.check()


def test_only_movable_pages_ever_enter_cma() -> None:
    for kind, enters in (("anon", True), ("kernel", False), ("slab", False)):
        machine = small()
        room = machine.free() - (0 if enters else machine.cma_free()) - machine.memory.zones[0].watermark[0]
        workload.spawn(machine.memory, "a", kind, room)
        assert (MIGRATE_CMA in block_types(machine, "a")) == enters
        assert (machine.cma_free() == 4096) != enters
        with pytest.raises(OSError, match=r"1 pages wanted, 0 available") as refused:
            workload.spawn(machine.memory, "b", kind, 1)
        assert refused.value.errno == errno.ENOMEM
        machine.check()


def test_half_rule_from_5_8_on() -> None:
    """A quarter of memory is CMA: it stays untouched until free memory is twice as much, then both fall
    together.
    """
    for kernel in ("5.4", "5.10", "7.2"):
        machine = small(kernel)
        workload.spawn(machine.memory, "a", "anon", machine.free() - 2 * machine.cma_free())
        assert machine.cma_free() == 4096
        workload.grow(machine.memory, "a", 1000)
        assert machine.cma_free() == (4096 if kernel == "5.4" else 4096 - 500)
        machine.check()
        if kernel == "5.4":
            workload.grow(machine.memory, "a", machine.free() - machine.cma_free())
            workload.grow(machine.memory, "a", 10)
            assert machine.cma_free() == 4086


def test_killed_is_as_before() -> None:
    machine = small()
    before = machine.free(), machine.cma_free()
    workload.spawn(machine.memory, "a", "anon", 14000)
    workload.spawn(machine.memory, "b", "slab", 300)
    workload.kill(machine.memory, "a")
    workload.kill(machine.memory, "b")
    assert (machine.free(), machine.cma_free()) == before
    assert workload.tasks(machine.memory) == []
    assert machine.memory.owners.tags == {}
    machine.check()


def test_shrink_takes_the_newest_pages() -> None:
    machine = small()
    workload.spawn(machine.memory, "a", "anon", 100)
    occupant = machine.memory.owners.by_name("a")
    assert occupant is not None
    oldest = occupant.frames[:60].tolist()
    workload.shrink(machine.memory, "a", 40)
    assert occupant.frames.tolist() == oldest
    machine.check()


def test_tasks_show_who_holds_what_where() -> None:
    machine = small()
    workload.spawn(machine.memory, "cam", "tmpfs", 10)
    base = machine.area.base_pfn
    workload.pin_pfn(machine.memory, base + 5)
    workload.pin(machine.memory, "cam", 3)
    workload.mlock(machine.memory, "cam")
    assert workload.tasks(machine.memory) == [
        workload.TaskInfo("cam", "tmpfs", 10, 0, 3, 10, ((0, 9),), 0),
        workload.TaskInfo(workload.PIN_OWNER, "anon", 1, 1, 1, 0, ((base + 5, base + 5),), 0),
    ]


def test_pages_in_a_range_are_counted_anew_when_frames_change() -> None:
    machine = small()
    memory, base = machine.memory, machine.area.base_pfn
    workload.spawn(memory, "a", "anon", machine.free() * 15 // 16)
    workload.mlock(memory, "a")
    occupant = memory.owners.by_name("a")
    assert occupant is not None

    def count(start: int, end: int) -> int:
        counted = occupant.pages_in(start, end)
        assert counted == sum(start <= pfn < end for pfn in occupant.pfns())
        return counted

    in_use = count(base, base + 100)
    everywhere = count(0, 1 << 20)
    workload.shrink(memory, "a", 50)
    assert count(0, 1 << 20) == everywhere - 50
    workload.grow(memory, "a", 70)
    assert count(0, 1 << 20) == everywhere + 20 == memory.global_zone_page_state("nr_mlock")
    assert cma_alloc(machine.area, 100) == base  # migrates
    assert (in_use, count(base, base + 100)) == (100, 0)


def test_at_most_32_ranges_are_listed() -> None:
    machine = small()
    for i in range(80):
        workload.spawn(machine.memory, f"t{i}", "anon", 1)
    for i in range(0, 80, 2):
        workload.kill(machine.memory, f"t{i}")
    workload.spawn(machine.memory, "scattered", "anon", 40)
    task = info(machine.memory, "scattered")
    assert (len(task.ranges), task.more) == (32, 8)


def test_pins_are_counted() -> None:
    machine = small()
    memory, pfn = machine.memory, machine.area.base_pfn + 77
    before = machine.free()
    workload.pin_pfn(memory, pfn)
    workload.pin_pfn(memory, pfn)
    assert (machine.free(), memory.pins) == (before - 1, {pfn: 2})
    workload.unpin_pfn(memory, pfn)
    assert memory.owners.tag_at(pfn)
    workload.unpin_pfn(memory, pfn)
    assert (machine.free(), memory.pins) == (before, {})
    machine.check()


def test_pin_takes_the_lowest_pages_not_yet_pinned() -> None:
    machine = small()
    memory = machine.memory
    workload.spawn(memory, "a", "anon", 10)
    occupant = memory.owners.by_name("a")
    assert occupant is not None
    workload.pin_pfn(memory, occupant.frames[1])
    workload.pin(memory, "a", 2)
    assert occupant.pinned == {0, 2}
    workload.unpin(memory, "a")
    assert memory.pins == {occupant.frames[1]: 1}
    machine.check()


def test_mlocked_cache_is_not_reclaimed() -> None:
    machine = small()
    for name in ("keep", "go"):
        workload.spawn(machine.memory, name, "file", 200)
    workload.mlock(machine.memory, "keep")
    workload.pin(machine.memory, "go", 5)
    drop_caches(machine.memory, 1)
    assert (info(machine.memory, "keep").pages, info(machine.memory, "go").pages) == (200, 5)
    machine.check()
    workload.shrink(machine.memory, "keep", 200)


def test_clean_cache_makes_room_and_anonymous_memory_does_not() -> None:
    machine = small()
    memory = machine.memory
    room = machine.free() - memory.zones[0].watermark[0]
    workload.spawn(memory, "cache", "file", room // 2)
    workload.spawn(memory, "a", "anon", room - room // 2 + 1000)
    assert info(memory, "cache").pages <= room // 2 - 1000
    assert memory.vmstat.vm_event("pgsteal_kswapd") + memory.vmstat.vm_event("pgsteal_direct") >= 1000
    machine.check()
    left = info(memory, "cache").pages
    with pytest.raises(OSError, match="available after reclaim"):
        workload.grow(memory, "a", left + 1000)
    assert info(memory, "cache").pages == left


def test_the_oldest_cache_goes_first_and_no_more_than_is_wanted() -> None:
    """kswapd wants each zone above its high watermark; caches give in the order in which they came."""
    machine = boot(layout(16384))
    memory, zone = machine.memory, machine.memory.zones[0]
    for name in ("first", "second"):
        workload.spawn(memory, name, "file", 2000)
    workload.spawn(memory, "a", "anon", machine.free() - zone.watermark[1])
    assert memory.vmstat.vm_event("pageoutrun") == 0
    before = machine.free()
    wanted = zone.watermark[2] + 1 - before
    workload.grow(memory, "a", 1)
    assert [info(memory, name).pages for name in ("first", "second")] == [2000 - wanted, 2000]
    for event in ("pgscan_kswapd", "pgsteal_kswapd", "pgscan_file", "pgsteal_file"):
        assert memory.vmstat.vm_event(event) == wanted, event
    assert (memory.vmstat.vm_event("pageoutrun"), memory.vmstat.vm_event("pgsteal_direct")) == (1, 0)
    workload.grow(memory, "a", 2500)
    assert info(memory, "first").pages == 0
    assert 0 < info(memory, "second").pages < 2000
    machine.check()


def test_slab_goes_with_drop_caches_2() -> None:
    machine = small()
    workload.spawn(machine.memory, "dentries", "slab", 300)
    workload.spawn(machine.memory, "cache", "file", 300)
    before = machine.free()
    drop_caches(machine.memory, 2)
    assert machine.free() == before + 300
    assert info(machine.memory, "dentries").pages == 0
    drop_caches(machine.memory, 1)
    assert machine.free() == before + 600
    machine.check()


def busy() -> Booted:
    machine = boot(layout(16384, ((8192, 1024),), ((64, 96),)), ((8192, 1024),))
    memory = machine.memory
    workload.spawn(memory, "a", "anon", 100)
    workload.spawn(memory, "k", "kernel", 100)
    workload.spawn(memory, "held", "anon", 10)
    occupant = memory.owners.by_name("held")
    assert occupant is not None
    workload.pin_pfn(memory, occupant.frames[9])
    assert cma_alloc(machine.area, 64) == 8192
    return machine


def test_used_pages_have_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    booted = small()
    monkeypatch.setattr(workload, "MAX_USED_PAGES", 100)
    workload.spawn(booted.memory, "a", "anon", 100)
    with pytest.raises(OSError, match="more than 100 used pages are not simulated"):
        workload.grow(booted.memory, "a", 1)
    booted.check()


REFUSED: dict[str, tuple[Callable[[Memory], None], int, str]] = {
    "name taken": (lambda m: workload.spawn(m, "a", "anon", 1), errno.EEXIST, "task 'a' exists"),
    "bad name": (lambda m: workload.spawn(m, "a b", "anon", 1), errno.EINVAL, "not a name: 'a b'"),
    "long name": (lambda m: workload.spawn(m, "a" * 65, "anon", 1), errno.EINVAL, "not a name"),
    "hidden name": (lambda m: workload.spawn(m, workload.PIN_OWNER, "anon", 1), errno.EINVAL, "not a name"),
    "kind": (
        lambda m: workload.spawn(m, "x", "zram", 1),
        errno.EINVAL,
        "unknown kind 'zram', known are anon",
    ),
    "too much": (lambda m: workload.spawn(m, "x", "anon", 16384), errno.ENOMEM, "16384 pages wanted"),
    "huge": (lambda m: workload.spawn(m, "x", "anon", 1 << 50), errno.ENOMEM, f"{1 << 50} pages wanted"),
    "no such": (lambda m: workload.kill(m, "x"), errno.ENOENT, "no task 'x'"),
    "grow none": (lambda m: workload.grow(m, "x", 1), errno.ENOENT, "no task 'x'"),
    "grow much": (lambda m: workload.grow(m, "a", 16384), errno.ENOMEM, "16384 pages wanted"),
    "shrink much": (lambda m: workload.shrink(m, "a", 101), errno.EINVAL, "task 'a' has only 100 pages"),
    "shrink pinned": (lambda m: workload.shrink(m, "held", 1), errno.EBUSY, "is pinned"),
    "kill pinned": (lambda m: workload.kill(m, "held"), errno.EBUSY, "is pinned"),
    "pin much": (lambda m: workload.pin(m, "a", 101), errno.EINVAL, "has only 100 pages that are not pinned"),
    "unpin none": (lambda m: workload.unpin(m, "a"), errno.EINVAL, "task 'a' has no pins"),
    "pin outside": (lambda m: workload.pin_pfn(m, 16384), errno.EINVAL, "pfn 0x4000 is outside memory"),
    "pin reserved": (lambda m: workload.pin_pfn(m, 70), errno.EBUSY, "pfn 0x46 is reserved"),
    "pin of CMA": (lambda m: workload.pin_pfn(m, 8200), errno.EBUSY, "pfn 0x2008 is allocated from CMA"),
    "unpin free": (lambda m: workload.unpin_pfn(m, 9000), errno.EINVAL, "pfn 0x2328 is not pinned"),
    "unpin used": (
        lambda m: workload.unpin_pfn(m, m.owners.occupants[1].frames[0]),
        errno.EINVAL,
        "is not pinned",
    ),
    "mlock kernel": (lambda m: workload.mlock(m, "k"), errno.EINVAL, "cannot be mlocked"),
    "munlock": (lambda m: workload.munlock(m, "a"), errno.EINVAL, "task 'a' is not mlocked"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_verb_changes_nothing(case: str) -> None:
    machine = busy()
    memory = machine.memory
    verb, error, reason = REFUSED[case]
    before = workload.tasks(memory), machine.free(), dict(memory.pins), dict(memory.zones[0].buddy)
    with pytest.raises(OSError) as refused:
        verb(memory)
    assert refused.value.errno == error
    assert reason in refused.value.strerror
    assert (workload.tasks(memory), machine.free(), dict(memory.pins), dict(memory.zones[0].buddy)) == before
    machine.check()
