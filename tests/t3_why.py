"""sim/why, to the letter.

Modules: cmafs.fs.sim.why, cmafs.fs.sim.map.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cmafs.api import Machine
from cmafs.drivers.dma.mapping import dma_alloc_coherent
from cmafs.mm.gfp import GFP_ATOMIC

ALLOC = "/sys/kernel/debug/cma/reserved/alloc"
START, PAGES = 0x60000, 1024

OWN_POOL = """/dts-v1/;
/ {
    #address-cells = <1>; #size-cells = <1>;
    memory@40000000 { device_type = "memory"; reg = <0x40000000 0x20000000>; };
    reserved-memory {
        #address-cells = <1>; #size-cells = <1>; ranges;
        pool: pool@50000000 { compatible = "shared-dma-pool"; no-map; reg = <0x50000000 0x100000>; };
    };
    dsp@1000 { compatible = "acme,dsp"; reg = <0x1000 0x100>; memory-region = <&pool>; };
};
"""


@pytest.fixture
def machine() -> Machine:
    """An area of 4 MiB, in which one atomic pool has 32 pages: without the other zones there is one pool."""
    one_zone = ("ZONE_DMA=n", "ZONE_DMA32=n")
    return Machine.boot(cmdline=f"cma=4M@{START << 12:#x} coherent_pool=128K", config=one_zone)


def lines(machine: Machine) -> list[str]:
    return machine.read("/sim/why").decode().splitlines()


def line(machine: Machine, start: str) -> str:
    """What follows ``start`` in the first line that begins with it."""
    return next(text.strip() for text in lines(machine) if text.strip().startswith(start)).removeprefix(start)


def refused(machine: Machine, pages: int) -> str:
    """What is said of the newest failure after another one."""
    with pytest.raises(OSError):
        machine.write(ALLOC, f"{pages}\n")
    return line(machine, "failed: ")


def test_an_idle_area(machine: Machine) -> None:
    assert lines(machine)[:-1] == [
        "reserved: 1024 pages, 32 allocated, largest hole 992",
        "  an allocation can get at most 992 pages now (writers see ENOMEM beyond that)",
        "  a driver at most 768: its larger buffers begin at a multiple of 256 pages",
        "  holes: 992 at 0x60020",
        "  used pages in the holes, which have to move: nobody",
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
    assert line(machine, "pinned pages in the holes, which cannot move: ") == ", ".join(shown) + " and 1 more"
    assert line(machine, "used pages in the holes, which have to move: ") == "[pin] 9"
    assert line(machine, "an allocation can get at most ") == (
        f"{PAGES - 42 - 400 - 1} pages now (writers see ENOMEM beyond that)"
    )
    machine.control(f"unpin pfn {START + 42:#x}")
    assert line(machine, "pinned pages in the holes, which cannot move: ") == ", ".join(
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
    owners = line(machine, "used pages in the holes, which have to move: ")
    assert [word for word in owners.replace(",", "").split() if not word.isdigit()] == ["most", "few"]
    pages = {task.name: task.cma for task in _tasks(machine)}
    assert owners == f"most {pages['most']}, few {pages['few']}"


def _tasks(machine: Machine) -> list:
    from cmafs.sim.workload import tasks

    return [task for task in tasks(machine.booted.memory) if task.cma]


BUSY = "every place for them held a page that could not move, last {} ([pin])"
NO_HOLE = "no hole was large enough: {} pages free, the largest hole {}"
STILL = "it would still fail: "


def test_a_pin_in_the_way_then_and_now(machine: Machine) -> None:
    pin = START + 512
    machine.control(f"pin pfn {pin:#x}")
    then = f"600 pages, -16 (EBUSY): {BUSY.format(hex(pin))}; "
    assert refused(machine, 600) == f"{then}{STILL}every place holds a pinned page"
    machine.control(f"unpin pfn {pin:#x}")
    assert line(machine, "failed: ") == f"{then}it would fit now"
    machine.write(ALLOC, "992\n")
    assert line(machine, "failed: ") == f"{then}{STILL}the largest hole has 0 pages"


def test_what_else_a_failure_can_mean(machine: Machine) -> None:
    none = NO_HOLE.format(992, 992)
    assert refused(machine, 993) == f"993 pages, -12 (ENOMEM): {none}; {STILL}the largest hole has 992 pages"
    larger = "larger than the area, which has 1024 pages; it can never fit"
    assert refused(machine, 1025) == f"1025 pages, -12 (ENOMEM): {larger}"
    assert refused(machine, 0) == "0 pages, -12 (ENOMEM): nothing was asked for; it can never fit"


def test_failures_are_kept_newest_first_and_counted(machine: Machine) -> None:
    for pages in (1025, *range(2001, 2009), 2008):
        refused_now(machine, pages)
    assert line(machine, "failed (2 times): ").startswith("2008 pages, ")
    refused_now(machine, 2008)
    failed = [text.strip() for text in lines(machine) if text.strip().startswith("failed")]
    assert failed[0].startswith("failed (3 times): 2008 pages, ")
    assert failed[1].startswith("failed: 2007 pages, ")
    assert [text.split(": ")[1].split()[0] for text in failed] == [str(2008 - i) for i in range(8)]


def refused_now(machine: Machine, pages: int) -> None:
    with pytest.raises(OSError):
        machine.write(ALLOC, f"{pages}\n")


def test_a_request_of_just_what_is_free_would_fit(machine: Machine) -> None:
    machine.control(f"pin pfn {START + 512:#x}")
    assert STILL in refused(machine, 992)
    machine.control(f"unpin pfn {START + 512:#x}")
    assert "; it would fit now" in line(machine, "failed: ")


def test_from_6_15_on_a_missing_hole_is_busy() -> None:
    machine = Machine.boot(kernel="6.18", cmdline=f"cma=4M@{START << 12:#x}", config=("ZONE_DMA=n",))
    machine.write(ALLOC, "900\n")
    left = int(machine.read("/sys/kernel/debug/cma/reserved/maxchunk"))
    assert refused(machine, left + 1).startswith(
        f"{left + 1} pages, -16 (EBUSY): {NO_HOLE.format(left, left)}; "
    )
    assert "larger than the area" in refused(machine, 2000)


def test_no_room_to_move_to(machine: Machine) -> None:
    free = int(lines(machine)[-1].split()[-2])
    machine.write(ALLOC, "992\n")
    machine.control(f"spawn filler anon {(free - 1200) * 4}K")
    machine.write("/sys/kernel/debug/cma/reserved/free", "992\n")
    machine.control("spawn late tmpfs 3M")
    assert [row for row in _map(machine) if row[2] != "allocated"] == [[START + 32, 280, "movable", "late"]]
    then = "-12 (ENOMEM): no free memory to which the pages at 0x60020 could move; "
    used = "it would fit now, if its place can be cleared ({} pages used)"
    assert refused(machine, 990) == f"990 pages, {then}{used.format(280)}"
    assert refused(machine, 600) == f"600 pages, {then}{used.format(280)}"
    for pinned, fits in ((300, used.format(11)), (311, "it would fit now")):  # behind it
        machine.control(f"pin pfn {START + pinned:#x}")
        assert line(machine, "failed: ") == f"600 pages, {then}{fits}"


def _map(machine: Machine) -> list[list]:
    """The lines of sim/map: first pfn, pages, state, owner."""
    rows = [row.split(" ", 3) for row in machine.read("/sim/map").decode().splitlines()]
    assert all(row[0] == hex(int(row[0], 16)) for row in rows)
    return [[int(first, 16), int(count), state, owner] for first, count, state, owner in rows]


def test_the_map_of_the_areas(machine: Machine) -> None:
    assert machine.read("/sim/map") == b"0x60000 32 allocated dma_atomic_pool\n"
    machine.write(ALLOC, "8\n")
    machine.write(ALLOC, "16\n")
    for pfn in (0x60100, 0x60101, 0x60200):
        machine.control(f"pin pfn {pfn:#x}")
    assert machine.read("/sim/map") == (
        b"0x60000 32 allocated dma_atomic_pool\n0x60020 8 allocated debugfs\n0x60028 16 allocated debugfs\n"
        b"0x60100 2 pinned [pin]\n0x60200 1 pinned [pin]\n"
    )


@pytest.mark.parametrize(
    ("allocated", "pins", "most", "driver"),
    [
        (224, (), 768, None),  # the hole begins at an aligned page
        (225, (), 767, 512),
        (224 + 512, (), 256, None),
        (224 + 513, (), 255, None),  # no request that long is aligned so far
        (0, (0x60120, 0x60200, 0x602FF, 0x603F0), 256, 240),
    ],
)
def test_what_a_driver_can_get_where_its_alignment_makes_that_less(
    machine: Machine, allocated: int, pins: tuple[int, ...], most: int, driver: int | None
) -> None:
    if allocated:
        machine.write(ALLOC, f"{allocated}\n")
    for pfn in pins:
        machine.control(f"pin pfn {pfn:#x}")
    said = [text.strip() for text in lines(machine) if "can get" in text or "a driver" in text]
    assert said == [f"an allocation can get at most {most} pages now (writers see ENOMEM beyond that)"] + (
        [f"a driver at most {driver}: its larger buffers begin at a multiple of 256 pages"] if driver else []
    )


def test_a_pin_takes_a_whole_bit_of_an_area() -> None:
    """hugetlb's areas have a bit for every huge page: mm/hugetlb.c:hugetlb_cma_reserve()@v6.12."""
    machine = Machine.boot(memory="4G", cmdline="hugetlb_cma=1G cma=0")
    base = machine.booted.cma[0].base_pfn
    assert lines(machine)[0] == "hugetlb0: 262144 pages, 0 allocated, largest hole 262144"
    machine.control(f"pin pfn {base + 511:#x}", f"pin pfn {base + 1024:#x}")
    assert line(machine, "an allocation can get at most ").split()[0] == str(262144 - 1536)
    with pytest.raises(OSError):
        machine.write("/sys/kernel/debug/cma/hugetlb0/alloc", f"{262144 - 1535}\n")
    machine.write("/sys/kernel/debug/cma/hugetlb0/alloc", f"{262144 - 1536}\n")


# What a driver's allocation failed on


def dma_refused(machine: Machine, device: str, size: str) -> str:
    """The reason that sim/control gives, which is kept in sim/why."""
    with pytest.raises(OSError) as refusal:
        machine.control(f"dma_alloc {device} {size}")
    reason = refusal.value.strerror.removeprefix(f"dma_alloc: no memory for {device}: ")
    assert lines(machine)[-1] == "" or any(text.endswith(f": {reason}") for text in lines(machine))
    return reason


def test_a_buffer_that_does_not_fit_for_its_alignment() -> None:
    machine = Machine.boot(dts="imx8mm", cmdline="cma=96M@0x60000000", config=("ZONE_DMA=n", "ZONE_DMA32=n"))
    machine.write(ALLOC, "8\n")
    hole = int(machine.read("/sys/kernel/debug/cma/reserved/maxchunk"))
    aligned = hole // 256 * 256
    at = 0x60000 + 24576 - aligned
    assert dma_refused(machine, "32e20000.csi", f"{hole * 4}K") == (
        f"area reserved: {hole} pages that begin at a multiple of 256, -12 (ENOMEM): alignment: "
        f"the largest hole had {hole} pages, from an aligned page on {aligned} (at {at:#x}); "
        "page allocator: 32768 pages, more than its 1024 in a piece"
    )
    then = line(machine, "failed: ")
    assert then.endswith(f"; {STILL}no hole has so many pages from an aligned one on")
    machine.control(f"dma_alloc 32e20000.csi {aligned * 4}K")


@pytest.mark.parametrize(
    ("kernel", "config", "zone"),
    [
        ("6.12", ("ZONE_DMA=n", "ZONE_DMA32=n"), "any zone"),
        ("6.12", ("ZONE_DMA=n",), "ZONE_DMA32"),
        ("6.12", (), "ZONE_DMA"),
        ("5.4", (), "ZONE_DMA32"),
    ],
)
def test_an_area_out_of_a_devices_reach_and_zones_that_do_not_help(
    kernel: str, config: tuple[str, ...], zone: str
) -> None:
    """The zone in reach is asked for at once, and lower ones if there are any; 5.4 has no ZONE_DMA."""
    cmdline = "cma=64M" if zone != "any zone" else "cma=64M@0x140000000"
    machine = Machine.boot(kernel=kernel, memory="8G", cmdline=cmdline, config=config)
    machine.booted.devices["cma_test"].dma_set_coherent_mask(30)
    reach = "the device reaches bus addresses up to 0x3fffffff"
    first, *others = dma_refused(machine, "cma_test", "1M").split("; ")
    assert first.startswith("area reserved: gave 0x")
    assert [text.partition(": gave 0x")[0] for text in others] == [f"page allocator, {zone}"]
    assert all(text.endswith(reach) for text in (first, *others))


def test_a_pool_of_the_devices_own(tmp_path: Path) -> None:
    (tree := tmp_path / "board.dts").write_text(OWN_POOL)
    machine = Machine.boot(dts=str(tree))
    machine.control("dma_alloc 1000.dsp 512K")
    assert dma_refused(machine, "1000.dsp", "1M") == (
        "its own pool has 128 of 256 pages free, but no 256 in one aligned piece; "
        "where there is such a pool nobody else is asked"
    )


def test_a_kernel_that_asks_nobody_else() -> None:
    machine = Machine.boot(kernel="4.4", arch="arm64", cmdline="cma=16M")
    assert dma_refused(machine, "cma_test", "32M").endswith("; this kernel asks nobody else")


def test_a_caller_that_may_not_sleep_and_a_pool_that_is_too_small(machine: Machine) -> None:
    assert dma_alloc_coherent(machine.booted.devices["cma_test"], 1 << 20, GFP_ATOMIC) is None
    failed = "dma_alloc failed: cma_test, 1048576 bytes: atomic pool: "
    assert lines(machine)[-1] == f"{failed}32 of its 32 pages free, but no 256 in one aligned piece"
