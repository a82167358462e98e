"""sim/ without a mount: the verbs, what they refuse, and what sim/ shows of them.

Modules: cmafs.fs.sim.control, cmafs.fs.sim.root.
"""

from __future__ import annotations

import errno

import pytest
from boot_support import boot, tree_of

from cmafs.fs.namei import O_RDONLY, Syscalls
from cmafs.fs.tree import build_tree
from cmafs.init.machine import BootedMachine

MIB_PAGES = 256
POOL = (
    """camera@50000000 { compatible = "shared-dma-pool"; reusable; reg = <0x0 0x50000000 0x0 0x1000000>; };"""
)


class Sim:
    """A booted machine and its sim/ directory."""

    def __init__(self, cmdline: str = "cma=16M") -> None:
        self.machine: BootedMachine = boot(tree_of(POOL), "6.12", cmdline)
        self.calls = Syscalls(build_tree(self.machine))

    def control(self, lines: str) -> int:
        return self.calls.write_file("/sim/control", lines.encode())

    def read(self, name: str) -> str:
        return self.calls.read_file(f"/sim/{name}").decode()

    def tasks(self) -> dict[str, list[str]]:
        header, *lines = self.read("tasks").splitlines()
        assert header == "NAME\tKIND\tPAGES\tCMA\tPINNED\tMLOCKED\tRANGES"
        return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}

    def state(self) -> tuple[str, ...]:
        files = ("/proc/meminfo", "/proc/buddyinfo", "/proc/pagetypeinfo", "/proc/zoneinfo", "/sim/tasks")
        return tuple(self.calls.read_file(name).decode() for name in files)

    def refused(self, lines: str) -> tuple[int, str]:
        """The errno of a refused write, and the line that it left in the log."""
        before = self.read("log")
        with pytest.raises(OSError) as error:
            self.control(lines)
        added = self.read("log").removeprefix(before)
        assert added.count("\n") == 1
        return error.value.errno or 0, added.rstrip("\n")


@pytest.fixture
def sim() -> Sim:
    return Sim()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("closed")])
def test_a_log_that_cannot_be_written_answers_nobody(sim: Sim, error: Exception) -> None:
    def sink(line: str) -> None:
        raise error

    sim.machine.simlog.sink = sink
    assert sim.refused("grow nobody 1M") == (errno.ENOENT, "grow: no task 'nobody'")


def test_spawn_grow_shrink_kill(sim: Sim) -> None:
    free = sim.machine.memory.zones[0].nr_free
    assert sim.control("spawn app anon 1M\n") == len("spawn app anon 1M\n")
    kind, pages, cma, pinned, mlocked, ranges = sim.tasks()["app"]
    assert (kind, pages, cma, pinned, mlocked) == ("anon", "256", "0", "0", "0")
    spans = [range_.split("-") for range_ in ranges.split(",")]
    assert sum(int(last, 16) - int(first, 16) + 1 for first, last in spans) == 256
    sim.control("grow app 0x1000")
    sim.control("grow app 1")  # rounded up to a page
    assert sim.tasks()["app"][1] == "258"
    sim.control("shrink app 4097")  # two pages
    assert sim.tasks()["app"][1] == "256"
    assert sim.machine.memory.zones[0].nr_free == free - 256
    sim.control("kill app")
    assert sim.tasks() == {}
    assert sim.machine.memory.zones[0].nr_free == free
    assert sim.read("verify") == "ok\n"


def test_who_shows_tasks_as_processes_is_told(sim: Sim) -> None:
    told: list[tuple[str, str]] = []
    sim.machine.on_task = lambda verb, name: told.append((verb, name))
    sim.control(
        "spawn a anon 1M\nspawn k kernel 1M\nspawn c file 1M\nspawn s slab 1M\ngrow a 1M\nshrink a 1M\n"
    )
    sim.control("pin a 1\nkill a\n")
    sim.refused("kill a")
    assert told == [("spawn", "a"), ("spawn", "c"), ("kill", "a")]


def test_pins_and_locks(sim: Sim) -> None:
    sim.control("spawn app anon 40K\npin app 3\nmlock app\n")
    assert sim.tasks()["app"][3:5] == ["3", "10"]
    sim.control("pin app 0x2")
    assert sim.tasks()["app"][3] == "5"
    sim.control("unpin app\nmunlock app")
    assert sim.tasks()["app"][3:5] == ["0", "0"]
    pfn = sim.machine.cma[0].base_pfn + 5
    sim.control(f"pin pfn {pfn}\npin pfn {pfn:#x}")
    assert sim.tasks()["[pin]"] == ["anon", "1", "1", "1", "0", f"{pfn:#x}-{pfn:#x}"]
    sim.control(f"unpin pfn {pfn}")
    assert sim.tasks()["[pin]"][3] == "1"
    sim.control(f"unpin pfn {pfn}")
    assert list(sim.tasks()) == ["app"]
    assert sim.read("verify") == "ok\n"


def test_lines_run_until_the_first_that_is_refused(sim: Sim) -> None:
    code, reason = sim.refused("spawn a file 8K\nspawn a file 8K\nspawn b file 8K\n")
    assert (code, reason) == (errno.EEXIST, "spawn: task 'a' exists")
    assert list(sim.tasks()) == ["a"]
    assert sim.control("\n\n  \n") == 5  # blank lines are nothing


VERBS = (
    "spawn grow shrink kill pin unpin mlock munlock dma_alloc dma_free dirty clean fail unfail pin_for slow "
    "deactivate activate lockdown"
)
QUOTED = "\\x00ÿ" * 20
UNKNOWN = f": unknown verb, known are {VERBS}"
KINDS = "anon, file, tmpfs, kernel, slab"
AREAS = "there are: camera@50000000 reserved"
WANTED = "{} pages wanted, 253019 available after reclaim"
ALL = WANTED.format(1 << 52)  # what 64 bits cannot hold is as much as they can


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        ("frobnicate x", errno.EINVAL, f"frobnicate{UNKNOWN}"),
        ("Spawn b anon 4K", errno.EINVAL, f"Spawn{UNKNOWN}"),
        ("spawn app anon 4K", errno.EEXIST, "spawn: task 'app' exists"),
        ("spawn b jelly 4K", errno.EINVAL, f"spawn: unknown kind 'jelly', known are {KINDS}"),
        ("spawn b anon 0", errno.EINVAL, "spawn: the size is 0"),
        ("spawn b anon 0K", errno.EINVAL, "spawn: the size is 0"),
        ("spawn b anon 4X", errno.EINVAL, "spawn: not a size: '4X'"),
        ("spawn b anon 4KK", errno.EINVAL, "spawn: not a size: '4KK'"),
        ("spawn b anon K", errno.EINVAL, "spawn: not a size: 'K'"),
        ("spawn b anon -1", errno.EINVAL, "spawn: not a size: '-1'"),
        ("spawn b anon 08", errno.EINVAL, "spawn: not a size: '08'"),
        (f"spawn b anon {'z' * 40}", errno.EINVAL, f"spawn: not a size: '{'z' * 40}'"),
        (f"spawn b anon {'z' * 41}", errno.EINVAL, f"spawn: not a size: '{'z' * 40}'…"),
        ("spawn b anon 99999999999999999999999999", errno.ENOMEM, f"spawn: {ALL}"),
        ("spawn b anon 18446744073709555712", errno.ENOMEM, f"spawn: {ALL}"),
        ("spawn b anon 18446744073709551616", errno.ENOMEM, f"spawn: {ALL}"),
        ("spawn b anon 16E", errno.ENOMEM, f"spawn: {ALL}"),
        ("spawn b anon 15e", errno.ENOMEM, f"spawn: {WANTED.format(15 << 48)}"),
        ("spawn b anon 3T", errno.ENOMEM, f"spawn: {WANTED.format(3 << 28)}"),
        ("spawn b anon 2G", errno.ENOMEM, f"spawn: {WANTED.format(2 << 18)}"),
        ("spawn b/c anon 4K", errno.EINVAL, "spawn: not a name: 'b/c'"),
        (f"spawn {'n' * 65} anon 4K", errno.EINVAL, f"spawn: not a name: '{'n' * 65}'"),
        ("spawn pfn anon 4K", errno.EINVAL, "spawn: 'pfn' is no name: it is a word of 'pin pfn'"),
        ("spawn b anon", errno.EINVAL, "spawn: expected NAME anon|file|tmpfs|kernel|slab SIZE"),
        ("spawn b anon 4K 4K", errno.EINVAL, "spawn: expected NAME anon|file|tmpfs|kernel|slab SIZE"),
        ("grow nobody 4K", errno.ENOENT, "grow: no task 'nobody'"),
        ("grow app 2G", errno.ENOMEM, f"grow: {WANTED.format(2 << 18)}"),
        ("shrink app 16E", errno.EINVAL, "shrink: task 'app' has only 10 pages"),
        ("shrink app 1M", errno.EINVAL, "shrink: task 'app' has only 10 pages"),
        ("shrink app 40961", errno.EINVAL, "shrink: task 'app' has only 10 pages"),
        ("kill nobody", errno.ENOENT, "kill: no task 'nobody'"),
        ("pin app", errno.EINVAL, "pin: expected NAME N"),
        ("pin app 11", errno.EINVAL, "pin: task 'app' has only 10 pages that are not pinned"),
        ("pin app 0", errno.EINVAL, "pin: the number of pages is 0"),
        ("pin app 0x", errno.EINVAL, "pin: not a number: '0x'"),
        ("pin app 1K", errno.EINVAL, "pin: not a number: '1K'"),
        ("pin pfn 1", errno.EINVAL, "pin: pfn 0x1 is outside memory"),
        ("pin pfn 0X40200", errno.EBUSY, "pin: pfn 0x40200 is reserved"),
        ("unpin app", errno.EINVAL, "unpin: task 'app' has no pins"),
        ("unpin pfn 0x50000", errno.EINVAL, "unpin: pfn 0x50000 is not pinned"),
        ("unpin pfn", errno.EINVAL, "unpin: expected pfn PFN"),
        ("unpin pfn 1 1", errno.EINVAL, "unpin: expected pfn PFN"),
        ("unpin app 1", errno.EINVAL, "unpin: expected NAME"),
        ("mlock nobody", errno.ENOENT, "mlock: no task 'nobody'"),
        ("munlock app", errno.EINVAL, "munlock: task 'app' is not mlocked"),
        ("dma_alloc nodevice 4K", errno.ENOENT, "dma_alloc: no device nodevice"),
        ("dma_alloc cma_test 0", errno.EINVAL, "dma_alloc: the size is 0"),
        ("dma_free nodevice 4K", errno.ENOENT, "dma_free: no device nodevice"),
        ("dirty app 1", errno.EINVAL, "dirty: pages of kind anon are never dirty: only those of files"),
        ("clean app", errno.EINVAL, "clean: task 'app' has no dirty pages"),
        ("fail nowhere 1 EINTR", errno.ENOENT, f"fail: no area 'nowhere', {AREAS}"),
        ("fail reserved x EINTR", errno.EINVAL, "fail: not a number: 'x'"),
        ("fail reserved 1 EIO", errno.EINVAL, "fail: unknown errno 'EIO', known are ENOMEM, EINTR"),
        ("fail reserved 0 EINTR", errno.EINVAL, "fail: allocations are counted from 1"),
        ("unfail reserved~", errno.ENOENT, f"unfail: no area 'reserved~', {AREAS}"),
        ("pin_for app 0 1", errno.EINVAL, "pin_for: the number of pages is 0"),
        ("pin_for app 1 x", errno.EINVAL, "pin_for: not a number: 'x'"),
        ("pin_for app 1 1000001", errno.EINVAL, "pin_for: 1 to 1000000 seconds"),
        ("slow 10001", errno.EINVAL, "slow: at most 10000 ms"),
        ("activate reserved", errno.EINVAL, "activate: that area was not deactivated"),
        ("deactivate reserved", errno.EBUSY, "deactivate: 32 of its pages are allocated"),
        ("lockdown maybe", errno.EINVAL, "lockdown: expected on|off"),
        ("\x1b[31m", errno.EINVAL, f"'\\x1b[31m'{UNKNOWN}"),
        ("n" * 64, errno.EINVAL, f"{'n' * 64}{UNKNOWN}"),
        ("n" * 65, errno.EINVAL, f"'{'n' * 40}'…{UNKNOWN}"),
        ("x" * 1_000_000, errno.EINVAL, f"'{'x' * 40}'…{UNKNOWN}"),
        ("x " * 500_000, errno.EINVAL, f"x{UNKNOWN}"),
        ("\0\xff" * 1000, errno.EINVAL, f"'{QUOTED}'…{UNKNOWN}"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_what_is_refused_changes_nothing(sim: Sim, line: str, code: int, reason: str) -> None:
    sim.control("spawn app anon 40K")
    before = sim.state()
    assert sim.refused(line) == (code, reason)
    assert sim.state() == before
    assert sim.read("verify") == "ok\n"


def test_a_machine_without_areas_says_so() -> None:
    machine = boot(tree_of(), "6.12", "cma=0")
    calls = Syscalls(build_tree(machine))
    with pytest.raises(OSError, match=r"no area 'reserved', there are: none$"):
        calls.write_file("/sim/control", b"unfail reserved")


def test_allocated_frames_cannot_be_pinned(sim: Sim) -> None:
    sim.calls.write_file("/sys/kernel/debug/cma/camera@50000000/alloc", b"8\n")
    code, reason = sim.refused("pin pfn 0x50003")
    assert (code, reason) == (errno.EBUSY, "pin: pfn 0x50003 is allocated from CMA")


def test_a_line_cut_by_the_mount_is_left_for_the_next_write(sim: Sim) -> None:
    lines = "\n" * ((128 << 10) - 4) + "\nspa"
    assert sim.control(lines) == len(lines) - 3


def test_modes(sim: Sim) -> None:
    modes = {name: sim.calls.lstat(f"/sim/{name}").st_mode & 0o7777 for name in sim.calls.listdir("/sim")}
    assert modes == {
        "control": 0o200,
        "snapshot": 0o400,
        "tasks": 0o444,
        "verify": 0o444,
        "why": 0o444,
        "advice": 0o444,
        "map": 0o444,
        "faults": 0o444,
        "log": 0o444,
        "dmesg": 0o600,
        "devices": 0o755,
    }
    with pytest.raises(OSError) as error:
        sim.calls.read(sim.calls.open("/sim/control", O_RDONLY), 1)
    assert error.value.errno == errno.EACCES


def test_verify_tells_what_is_wrong(sim: Sim) -> None:
    sim.machine.memory.zones[0].nr_free -= 1
    assert "nr_free_pages is" in sim.read("verify")


def test_verify_remembers_the_counters_of_its_last_reader(sim: Sim) -> None:
    sim.control("spawn a anon 1M")
    assert sim.read("verify") == "ok\n"
    events = sim.machine.memory.vmstat.events
    events["pgfree"] += 5
    assert sim.read("verify") == "ok\n"
    now = events["pgfree"]
    events["pgfree"] -= 1
    assert sim.read("verify") == f"event pgfree went from {now} to {now - 1}\n"
    assert sim.read("verify") == "ok\n"


def test_verify_after_a_bug_of_ours(sim: Sim) -> None:
    sim.machine.simlog.report("Traceback (most recent call last):\n  somewhere\nKeyError: 1\n")
    assert sim.read("verify") == "internal error: see sim/log\n"
    assert sim.read("log").endswith("KeyError: 1\n")


def test_why(sim: Sim) -> None:
    alloc = "/sys/kernel/debug/cma/camera@50000000/alloc"
    assert "no allocation has failed" in sim.read("why")
    sim.control("pin pfn 0x50800")
    with pytest.raises(OSError):
        sim.calls.write_file(alloc, b"3000\n")
    lines = sim.read("why").splitlines()
    at = lines.index("camera@50000000: 4096 pages, 0 allocated, largest hole 4096")
    assert lines[at + 1 : at + 6] == [
        "  an allocation can get at most 2048 pages now (writers see ENOMEM beyond that)",
        "  holes: 4096 at 0x50000",
        "  used pages in the holes, which have to move: [pin] 1",
        "  pinned pages in the holes, which cannot move: 0x50800 ([pin])",
        "  failed: 3000 pages, -16 (EBUSY): every place for them held a page that could not move, last "
        "0x50800 ([pin]); it would still fail: every place holds a pinned page",
    ]
    sim.calls.write_file(alloc, b"2048\n")
    sim.control("unpin pfn 0x50800")
    assert "at most 2048 pages now" in sim.read("why")
