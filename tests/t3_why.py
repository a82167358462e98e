"""sim/why, to the letter."""

from __future__ import annotations

import pytest

from cmafs.api import Machine

ALLOC = "/sys/kernel/debug/cma/reserved/alloc"
START, PAGES = 0x60000, 1024


@pytest.fixture
def machine() -> Machine:
    """An area of 4 MiB; the atomic pool, if it lies in it, is not what these tests look at."""
    return Machine.boot(cmdline=f"cma=4M@{START << 12:#x} coherent_pool=128K")


def lines(machine: Machine) -> list[str]:
    return machine.read("/sim/why").decode().splitlines()


def line(machine: Machine, start: str) -> str:
    """What follows ``start`` in the only line that begins with it."""
    (found,) = (text.strip() for text in lines(machine) if text.strip().startswith(start))
    return found.removeprefix(start)


def refused(machine: Machine, pages: int) -> str:
    """What is said of the last failure after another one."""
    with pytest.raises(OSError):
        machine.write(ALLOC, f"{pages}\n")
    return line(machine, "last failure: ")


def test_an_idle_area(machine: Machine) -> None:
    assert lines(machine)[:-1] == [
        "reserved: 1024 pages, 32 allocated, largest hole 992",
        "  an allocation can get at most 992 pages now (writers see ENOMEM beyond that)",
        "  holes: 992 at 0x60020",
        "  pages of others in them, which must move: nobody",
        "  no allocation has failed",
        "  held by: dma_atomic_pool 32",
    ]
    memory = machine.booted.memory
    outside = sum(zone.nr_free - zone.nr_free_cma for zone in memory.zones)
    assert lines(machine)[-1] == f"free memory outside CMA, to which pages can move: {outside} pages"
    assert outside > 200_000


def test_a_full_area(machine: Machine) -> None:
    machine.write(ALLOC, "992\n")
    assert line(machine, "reserved: ") == "1024 pages, 1024 allocated, largest hole 0"
    assert line(machine, "holes: ") == "none"
    assert line(machine, "held by: ") == "debugfs 992, dma_atomic_pool 32"


def test_pins_are_named_and_counted_in(machine: Machine) -> None:
    for i in range(9):
        machine.control(f"pin pfn {START + 32 + 10 + i * 50:#x}")
    shown = [f"{START + 42 + i * 50:#x} ([pin])" for i in range(8)]
    assert line(machine, "pinned frames in them, which cannot move: ") == ", ".join(shown) + " and 1 more"
    assert line(machine, "pages of others in them, which must move: ") == "[pin] 9"
    assert line(machine, "an allocation can get at most ") == (
        f"{PAGES - 42 - 400 - 1} pages now (writers see ENOMEM beyond that)"
    )
    machine.control(f"unpin pfn {START + 42:#x}")
    assert line(machine, "pinned frames in them, which cannot move: ") == ", ".join(
        [*shown[1:], f"{START + 442:#x} ([pin])"]
    )


def test_the_piece_before_a_pin_counts_as_the_one_behind_it(machine: Machine) -> None:
    machine.control(f"pin pfn {START + 1000:#x}")
    assert line(machine, "an allocation can get at most ").startswith("968 ")
    machine.write(ALLOC, "968\n")
    assert line(machine, "holes: ") == f"24 at {START + 1000:#x}"
    assert line(machine, "an allocation can get at most ").startswith("23 ")


def test_tasks_in_the_holes_are_named_most_pages_first(machine: Machine) -> None:
    outside = int(lines(machine)[-1].split()[-2])
    machine.control(f"spawn filler kernel {(outside - 3000) * 4}K")
    for name, pages in (("few", 2300), ("most", 600)):
        machine.control(f"spawn {name} tmpfs {pages * 4}K")
    machine.control("kill filler")
    owners = line(machine, "pages of others in them, which must move: ")
    assert [word for word in owners.replace(",", "").split() if not word.isdigit()] == ["most", "few"]
    pages = {task.name: task.cma for task in _tasks(machine)}
    assert owners == f"most {pages['most']}, few {pages['few']}"


def _tasks(machine: Machine) -> list:
    from cmafs.sim.workload import tasks

    return [task for task in tasks(machine.booted.memory) if task.cma]


def test_what_the_last_failure_meant(machine: Machine) -> None:
    machine.control(f"pin pfn {START + 512:#x}")
    busy = "every window of that size held a page that cannot move"
    assert refused(machine, 600) == f"600 pages, -16 (EBUSY): {busy}; would still fail"
    machine.control(f"unpin pfn {START + 512:#x}")
    assert line(machine, "last failure: ") == f"600 pages, -16 (EBUSY): {busy}; would fit now"
    no_room = "no hole was large enough, or there was no memory to move the pages in it to"
    assert refused(machine, 993) == f"993 pages, -12 (ENOMEM): {no_room}; would still fail"
    machine.control(f"pin pfn {START + 512:#x}")
    assert refused(machine, 512) == f"512 pages, -16 (EBUSY): {busy}; would still fail"
    machine.write(ALLOC, "511\n")
    assert refused(machine, 1025) == "1025 pages, -12 (ENOMEM): the area is smaller; would still fail"
    assert refused(machine, 1024) == f"1024 pages, -12 (ENOMEM): {no_room}; would still fail"
    assert refused(machine, 0) == "0 pages, -12 (ENOMEM): nothing was asked for; would still fail"


def test_a_request_of_just_what_is_free_would_fit(machine: Machine) -> None:
    machine.control(f"pin pfn {START + 512:#x}")
    assert refused(machine, 992).endswith("; would still fail")
    machine.control(f"unpin pfn {START + 512:#x}")
    assert line(machine, "last failure: ").endswith("; would fit now")


def test_from_6_15_on_a_missing_hole_is_busy() -> None:
    machine = Machine.boot(kernel="6.18", cmdline=f"cma=4M@{START << 12:#x}")
    machine.write(ALLOC, "900\n")
    assert refused(machine, 100) == "100 pages, -16 (EBUSY): no hole was large enough; would still fail"
    assert refused(machine, 2000) == "2000 pages, -16 (EBUSY): the area is smaller; would still fail"
