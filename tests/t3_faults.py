"""Faults that sim/control sets: what the kernel answers, and that each can be taken back.

Modules: cmafs.fs.sim.control, cmafs.fs.sim.root.
"""

from __future__ import annotations

import errno
import re

import pytest

from cmafs.api import Machine
from cmafs.fs.cma_debug import directory_name

AREAS = "/sys/kernel/debug/cma"
KERNELS = ["5.10", "6.1", "6.12", "7.2"]


def boot(kernel: str = "6.12", **options: object) -> Machine:
    return Machine.boot(kernel=kernel, cmdline="cma=16M@0x60000000 coherent_pool=128K", **options)


def faults(machine: Machine) -> list[str]:
    return machine.read("/sim/faults").decode().splitlines()


def directory(machine: Machine, area: str = "reserved") -> str:
    """Of an area; before 6.1 its name has a prefix, and is cut."""
    return f"{AREAS}/{next(directory_name(cma) for cma in machine.booted.cma if cma.name == area)}"


def alloc(machine: Machine, pages: int, area: str = "reserved") -> int:
    """0, or the errno."""
    try:
        machine.write(f"{directory(machine, area)}/alloc", f"{pages}\n")
    except OSError as error:
        return error.errno or -1
    return 0


def refused(machine: Machine, line: str) -> tuple[int | None, str]:
    with pytest.raises(OSError) as error:
        machine.control(line)
    return error.value.errno, str(error.value.strerror)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("error, number", [("ENOMEM", 12), ("EINTR", 4)])
def test_the_kth_allocation_fails(kernel: str, error: str, number: int) -> None:
    machine = boot(kernel)
    machine.control(f"fail reserved 2 {error}")
    assert faults(machine) == [f"fail reserved 2 {error}"]
    used = machine.read(f"{directory(machine)}/used")
    assert alloc(machine, 8) == 0
    assert faults(machine) == [f"fail reserved 1 {error}"]
    assert alloc(machine, 8) == errno.ENOMEM  # what the file answers, whatever the reason
    assert re.search(rf"alloc failed, req-size: 8 pages, ret: -{number}\n", machine.dmesg())
    assert int(machine.read(f"{directory(machine)}/used")) == int(used) + 8
    assert faults(machine) == [] and alloc(machine, 8) == 0
    assert machine.verify() == []


def test_a_failure_that_is_taken_back() -> None:
    machine = boot()
    machine.control("fail reserved 1 ENOMEM")
    machine.control("unfail reserved")
    assert faults(machine) == [] and alloc(machine, 8) == 0
    assert refused(machine, "unfail reserved") == (
        errno.EINVAL,
        "unfail: no allocation of that area is to fail",
    )
    assert refused(machine, "fail nowhere 1 ENOMEM") == (
        errno.ENOENT,
        "fail: no area 'nowhere', there are: reserved",
    )
    assert refused(machine, "fail reserved 1 EBUSY")[0] == errno.EINVAL
    assert refused(machine, "fail reserved 0 ENOMEM")[0] == errno.EINVAL


def test_an_allocation_of_a_driver_fails_too() -> None:
    machine = boot(dts="camera")
    machine.control("fail camera@60000000 1 EINTR")
    for where, used in ((0, b"0\n"), (1, b"1024\n")):  # the DMA API falls back to other pages
        machine.control("dma_alloc 32e00000.isi 4M")
        assert machine.read(f"{directory(machine, 'camera@60000000')}/used") == used, where
    assert "req-size: 1024 pages, ret: -4\n" in machine.dmesg()
    assert machine.verify() == []


@pytest.mark.parametrize("kernel", ["5.4", *KERNELS])
def test_lockdown_closes_what_can_be_written(kernel: str) -> None:
    machine = boot(kernel)
    machine.control("lockdown on")
    assert faults(machine) == ["lockdown on"]
    assert alloc(machine, 8) == errno.EPERM
    for name in ("alloc", "free"):
        with pytest.raises(PermissionError) as error:
            machine.read(f"{directory(machine)}/{name}")
        assert error.value.errno == errno.EPERM
    assert machine.read(f"{directory(machine)}/count") == b"4096\n"
    machine.control("lockdown off")
    assert alloc(machine, 8) == 0 and faults(machine) == []


def test_old_kernels_have_no_lockdown() -> None:
    machine = Machine.boot(kernel="4.19", config=["CMA_DEBUGFS=y"])
    assert refused(machine, "lockdown on")[0] == errno.EOPNOTSUPP
    assert refused(boot(), "lockdown maybe")[0] == errno.EINVAL


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_area_that_is_not_active(kernel: str) -> None:
    machine = boot(kernel, dts="camera")
    area = next(cma.name for cma in machine.booted.cma if cma.available_count == cma.count)
    files = directory(machine, area)
    count = machine.read(f"{files}/count")
    before = {name: machine.read(f"/proc/{name}") for name in ("meminfo", "buddyinfo", "pagetypeinfo")}
    machine.control(f"deactivate {area}")
    assert faults(machine) == [f"deactivate {area}"]
    assert machine.read(f"{files}/count") == b"0\n"
    assert alloc(machine, 1, area) == errno.ENOMEM
    assert f"cma: CMA area {area} could not be activated\n" in machine.dmesg()
    gone = machine.booted.abi.cma.failed_returns_pages
    assert (machine.read("/proc/meminfo") != before["meminfo"]) == gone
    assert refused(machine, f"deactivate {area}")[0] == errno.EINVAL
    assert machine.verify() == []
    machine.control(f"activate {area}")
    assert faults(machine) == []
    assert machine.read(f"{files}/count") == count
    assert {name: machine.read(f"/proc/{name}") for name in ("meminfo", "buddyinfo")} == {
        name: before[name] for name in ("meminfo", "buddyinfo")
    }
    assert alloc(machine, int(count), area) == 0 and machine.verify() == []
    assert refused(machine, f"deactivate {area}")[0] == errno.EBUSY


def test_a_migration_takes_its_time() -> None:
    machine = boot()
    machine.control("spawn a anon 980M")
    machine.control("slow 250")
    start = machine.clock.now()
    assert alloc(machine, 512) == 0
    assert machine.clock.now() - start == 250_000_000
    assert faults(machine) == ["slow 250"]
    machine.control("slow 0")
    start = machine.clock.now()
    assert alloc(machine, 512) == 0 and machine.clock.now() == start
    assert refused(machine, "slow 1000000")[0] == errno.EINVAL


def test_a_pin_for_a_time() -> None:
    machine = boot()
    machine.control("spawn a anon 980M")
    machine.control("pin a 10")
    machine.control("pin_for a 249000 5")
    assert faults(machine) == ["pin_for a 249000 5"]
    assert alloc(machine, 4000) == errno.ENOMEM
    machine.clock.advance(4_000_000_000)
    assert faults(machine) == ["pin_for a 249000 1"]
    machine.clock.advance(1_000_000_000)
    task = machine.read("/sim/tasks").decode().splitlines()[1].split("\t")
    assert task[4] == "10" and faults(machine) == []
    assert machine.verify() == []
    for line in ("pin_for a 0 5", "pin_for a 5 0", "pin_for b 1 1", "pin_for a 1"):
        assert refused(machine, line)[0] in (errno.EINVAL, errno.ENOENT)


def test_a_timed_pin_of_a_task_that_ended() -> None:
    machine = boot()
    machine.control("spawn a anon 1M")
    machine.control("pin_for a 10 1")
    machine.control("kill a")
    machine.control("spawn a anon 1M")
    machine.clock.advance(2_000_000_000)
    assert faults(machine) == [] and machine.verify() == []


def test_dirty_pages_are_not_dropped_and_move() -> None:
    machine = boot()
    machine.control("spawn cache file 64M")
    machine.control("dirty cache 1000")
    assert faults(machine) == ["dirty cache 1000"]
    assert b"Dirty:              4000 kB\n" in machine.read("/proc/meminfo")
    assert b"\nnr_dirty 1000\n" in machine.read("/proc/vmstat")
    machine.write("/proc/sys/vm/drop_caches", "3")
    task = machine.read("/sim/tasks").decode().splitlines()[1].split("\t")
    assert task[2] == "1000"
    machine.control("clean cache")
    machine.write("/proc/sys/vm/drop_caches", "3")
    assert machine.read("/sim/tasks").decode().splitlines()[1].split("\t")[2] == "0"
    assert faults(machine) == [] and machine.verify() == []
    machine.control("spawn a anon 1M")
    for line in ("dirty a 1", "dirty cache 1", "clean cache", "dirty none 1"):
        assert refused(machine, line)[0] in (errno.EINVAL, errno.ENOENT)


def test_dirty_pages_in_a_window_are_migrated() -> None:
    moved = []
    for dirty in (0, 1000):
        machine = boot()
        machine.control("spawn a anon 960M")
        machine.control("spawn cache file 8M")
        if dirty:
            machine.control(f"dirty cache {dirty}")
        machine.control("shrink a 20M")
        before = machine.booted.memory.vmstat.vm_event("pgmigrate_success")
        assert alloc(machine, 4000) == 0
        moved.append(machine.booted.memory.vmstat.vm_event("pgmigrate_success") - before)
        assert machine.verify() == []
    assert moved[1] >= moved[0]


def test_a_machine_without_faults_says_nothing() -> None:
    assert faults(boot()) == []
