"""mm/cma_retry.py: what is done in one step for many windows is what trying each of them does."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

import pytest
from cma_support import debug_all
from hypothesis import example, given
from hypothesis import strategies as st
from mm_support import Booted, Listener, boot, layout, small
from soak_support import examples

from cmafs.lib.printk import Printk
from cmafs.mm import cma_retry
from cmafs.mm.buddy import carve
from cmafs.mm.cma import cma_alloc, cma_release
from cmafs.mm.contig_alloc import MIGRATE_TRIES, ContigBusy
from cmafs.mm.migrate import COMPACT_CLUSTER_MAX
from cmafs.sim.workload import kill, mlock, pin_pfn, spawn

KERNELS = ("4.4", "5.10", "5.15", "6.1", "6.12", "7.2", "article")
PAGES, BASE, COUNT = 16384, 8192, 2048


class Left(NamedTuple):
    """All that a run leaves behind; ``walk``: the events of alloc_contig_range(), but those of pages that
    moved, of which only the number counts: what one window after the other would move goes at once.
    """

    found: list[int | None]
    used: list[tuple[int, int]]
    vmstat: dict[str, int]
    lines: list[str]
    next_seq: int
    missed: int
    events: list[object]
    walk: list[object]
    moved: int


def fill_outside(machine: Booted) -> None:
    """A task ``filler`` takes what it can outside the area, so that those who come next land inside."""
    area, memory = machine.area, machine.memory
    assert cma_alloc(area, area.count) == area.base_pfn
    spawn(memory, "filler", "anon", machine.free() - memory.zones[0].watermark[0] - 1)
    assert cma_release(area, area.base_pfn, area.count)


def _without_moved(event: tuple[str, dict[str, object]]) -> object:
    return event[0], {**event[1], "succeeded": None} if event[0] == "mm_migrate_pages" else event[1]


def left_by(machine: Booted, requests: list[tuple[int, int]]) -> Left:
    """What some requests, as (pages, order of alignment), leave behind."""
    memory, listener = machine.memory, Listener()
    debug_all(machine.log)
    machine.areas.trace = memory.trace = listener
    found = [cma_alloc(machine.area, pages, align) for pages, align in requests]
    machine.check()
    moves = [fields for name, fields in listener.events if name == "mm_migrate_pages"]
    return Left(
        found,
        list(memory.owners.used_in(0, PAGES)),
        {item: count for item, count in memory.vmstat.events.items() if count},
        machine.log.lines(),
        machine.log.next_seq,
        machine.areas.pfns_busy_limit.missed,
        [event for event in listener.events if event[0].startswith("cma_")],
        [
            _without_moved(event)
            for event in listener.events
            if not event[0].startswith("cma_") and (event[0] == "test_pages_isolated" or event[1]["failed"])
        ],
        sum(int(fields["succeeded"] or 0) for fields in moves),
    )


def quick_and_each(run: Callable[[], Left]) -> tuple[Left, Left]:
    """A run as it is, and the same with every window tried for itself."""
    quick = run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cma_retry, "_busy_until", lambda _memory, _busy: -1)
        return quick, run()


KINDS = st.sampled_from(["anon", "tmpfs", "file"])
TASKS = st.lists(st.tuples(KINDS, st.integers(1, 650), st.booleans()), max_size=3)
PINS = st.lists(
    st.tuples(st.integers(0, COUNT - 1), st.sampled_from([1, 1, 1, 3, 50])), min_size=1, max_size=8
)
REQUESTS = st.lists(
    st.tuples(st.integers(1, 64) | st.integers(1, COUNT), st.sampled_from([0, 0, 0, 2, 5, 8])),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("kernel", KERNELS)
@examples(25)
@example(  # windows that isolate other page blocks than the last of their row: found by a soak
    tasks=[("tmpfs", 594, False), ("anon", 170, False), ("anon", 335, False)],
    pins=[(195, 1), (1088, 1)],
    requests=[(929, 5)],
)
@given(tasks=TASKS, pins=PINS, requests=REQUESTS)
def test_one_step_leaves_what_each_window_leaves(
    kernel: str,
    tasks: list[tuple[str, int, bool]],
    pins: list[tuple[int, int]],
    requests: list[tuple[int, int]],
) -> None:
    """Pages of tasks in the area, pins among them and elsewhere, and room enough to move to."""

    def run() -> Left:
        machine = boot(layout(PAGES, ((BASE, COUNT),)), ((BASE, COUNT),), kernel)
        memory = machine.memory
        fill_outside(machine)
        for index, (kind, pages, locked) in enumerate(tasks):
            spawn(memory, f"task{index}", kind, pages)
            if locked:
                mlock(memory, f"task{index}")
        kill(memory, "filler")
        for offset, length in pins:
            for pfn in range(BASE + offset, BASE + min(offset + length, COUNT)):
                pin_pfn(memory, pfn)
        return left_by(machine, requests)

    quick, each = quick_and_each(run)
    if kernel == "article":  # it names a page in the way once
        each = each._replace(lines=quick.lines, next_seq=quick.next_seq)
    kept = min(len(quick.lines), len(each.lines))  # where records stand in the ring differs a little
    assert quick.lines[-kept:] == each.lines[-kept:]
    assert abs(len(quick.lines) - len(each.lines)) < 4
    assert quick._replace(lines=[]) == each._replace(lines=[])


def full_area(kernel: str, kind: str) -> Booted:
    """Nearly every page of the area belongs to ``task``, which has room outside to move to."""
    machine = small(kernel)
    fill_outside(machine)
    spawn(machine.memory, "task", kind, machine.free() - machine.memory.zones[0].watermark[0])
    kill(machine.memory, "filler")
    assert machine.cma_free() < 300
    return machine


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("held", ["pin", "mlock"])
def test_many_held_pages_in_a_row_are_passed_in_one_step(
    kernel: str, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a row of pages fails to migrate, windows that begin among them are not tried either."""
    rows = []
    pass_by = cma_retry.Retries.pass_by

    def watched(retries: cma_retry.Retries, busy: ContigBusy, windows: range) -> tuple[int, int]:
        rows.append(windows)
        return pass_by(retries, busy, windows)

    monkeypatch.setattr(cma_retry.Retries, "pass_by", watched)
    machine = full_area(kernel, "tmpfs")
    base = machine.area.base_pfn
    for pfn in range(base + 100, base + 1000):
        pin_pfn(machine.memory, pfn)
    if held == "mlock":
        mlock(machine.memory, "task")
    left = left_by(machine, [(1500, 0), (200, 0)])
    if kernel == "article" and held == "mlock":
        assert left.found == [None, None]
    else:
        assert left.found == [base + 1000, base + 2500]
    assert left.next_seq > 1700
    assert len(rows) < 2 * (1 + COMPACT_CLUSTER_MAX) + 1


@pytest.mark.parametrize("kernel", ["4.4", "5.4", "5.10", "6.1", "6.12", "7.2", "article"])
def test_lines_that_the_ring_cannot_hold_are_counted_not_made(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near many pins most lines are pushed out by later ones: the log is as if all had been printed."""

    def log_of_a_failure() -> Printk:
        machine = small(kernel)
        debug_all(machine.log)
        spawn(machine.memory, "app", "tmpfs", 9000)
        for i in range(32):
            pin_pfn(machine.memory, machine.area.base_pfn + 130 * i + i % 7)
        assert cma_alloc(machine.area, 300) is None
        return machine.log

    def all_of_them(log: Printk, _count: int, newest_first: list[tuple[str, int]]) -> None:
        for text, level in reversed(list(newest_first)):
            log.printk(text, level)

    sparing = log_of_a_failure()
    monkeypatch.setattr(Printk, "printk_many", all_of_them)
    writing = log_of_a_failure()
    assert sparing.next_seq == writing.next_seq
    assert sparing.next_seq > 3000
    count = min(len(sparing.lines()), len(writing.lines()))
    assert count > 1000
    assert sparing.lines()[-count:] == writing.lines()[-count:]


@pytest.mark.parametrize("kernel", ["4.4", "5.10", "6.12", "7.2"])
def test_a_page_that_there_is_no_room_for_ends_the_search(kernel: str) -> None:
    """The windows before the one that reaches it are busy, that one has ENOMEM."""

    def run() -> Left:
        machine = boot(layout(PAGES, ((BASE, COUNT),)), ((BASE, COUNT),), kernel)
        memory = machine.memory
        assert cma_alloc(machine.area, 500) == BASE
        spawn(memory, "task", "anon", machine.free() - memory.zones[0].watermark[0] - 100)
        assert cma_release(machine.area, BASE, 500)
        pin_pfn(memory, BASE + 503)
        left = left_by(machine, [(520, 0)])
        failure = machine.area.failures[0]
        assert failure.error == errno.ENOMEM
        assert BASE + 50 < failure.pfn < BASE + 500

        return left._replace(vmstat={"pgmigrate_success": memory.vmstat.vm_event("pgmigrate_success")})

    quick, each = quick_and_each(run)
    assert quick == each


@pytest.mark.parametrize(("order_per_bit", "align"), [(1, 0), (3, 0), (3, 2), (3, 5), (0, 3)])
def test_windows_begin_at_whole_bits(order_per_bit: int, align: int) -> None:
    """mm/cma.c:cma_range_alloc()@v6.12: ``start = bitmap_no + mask + 1``, of bits."""

    def run() -> Left:
        area = ((BASE, COUNT),)
        machine = boot(layout(PAGES, area), area, order_per_bit=order_per_bit)
        fill_outside(machine)
        spawn(machine.memory, "task", "tmpfs", 300)
        kill(machine.memory, "filler")
        for offset in (5, 64, 79, 151):
            pin_pfn(machine.memory, BASE + COUNT - 1 - offset)
        return left_by(machine, [(40, align), (COUNT - 100, align), (70, align)])

    quick, each = quick_and_each(run)
    assert quick == each
    unit = 1 << max(order_per_bit, align)
    assert all(pfn is None or pfn % unit == 0 for pfn in quick.found)


@pytest.mark.parametrize("align", [4, 5, 6])
@pytest.mark.parametrize("first", [10, 20])
def test_windows_that_begin_far_apart_leave_pages_behind(align: int, first: int) -> None:
    """A window moves 31 pages with the one that fails; one that begins 32 pages further on may meet more."""

    def run() -> Left:
        machine = boot(layout(PAGES, ((BASE, 512),)), ((BASE, 512),))
        memory = machine.memory
        task = memory.owners.add("task", "tmpfs")
        for start, pages in ((200, 1), (320, first), (352, 32), (384, 40), (448, 40)):
            assert carve(memory.zones[0], BASE + start, BASE + start + pages)
            memory.owners.extend(task, [(0, 1, BASE + start, pages)])
        pin_pfn(memory, BASE + 200)
        left = left_by(machine, [(320, align)])
        assert left.found == [None]
        return left

    quick, each = quick_and_each(run)
    assert quick == each


def test_windows_that_isolate_other_page_blocks_move_pages_elsewhere() -> None:
    """A page may move to where a later window, which reaches into the next page block, moves it on from."""

    def run() -> Left:
        machine = boot(layout(PAGES, ((BASE, COUNT),)), ((BASE, COUNT),))
        memory, zone = machine.memory, machine.memory.zones[0]
        for name, kind, ranges in (
            ("task", "anon", ((BASE + 505, 5), (BASE + 600, 50), (BASE + 651, 49))),
            ("rest", "kernel", ((0, BASE), (BASE + COUNT, PAGES - BASE - COUNT))),
        ):
            holder = memory.owners.add(name, kind)
            for start, pages in ranges:
                assert carve(zone, start, start + pages)
                memory.owners.extend(holder, [(0, 1, start, pages)])
        for offset in (100, 480):
            pin_pfn(memory, BASE + offset)
        left = left_by(machine, [(400, 0)])
        assert left.found == [BASE + 481]
        assert left.moved > 104
        return left

    quick, each = quick_and_each(run)
    assert quick == each


def test_failures_of_migration_are_counted_for_every_window() -> None:
    machine = full_area("6.12", "tmpfs")
    memory, base = machine.memory, machine.area.base_pfn
    pfn, _ = next(memory.owners.used_in(base + 900, base + 2000))
    pin_pfn(memory, pfn)
    assert cma_alloc(machine.area, 1500) == pfn + 1
    assert memory.vmstat.vm_event("pgmigrate_fail") == MIGRATE_TRIES * (pfn + 1 - base)
