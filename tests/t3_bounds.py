"""Everything that grows has an end, and nothing is taken for its likes."""

from __future__ import annotations

import errno
import gc
import os
import weakref

import pytest
from cma_support import refused_with

from cmafs import api
from cmafs.fs.dentry import Inode, RegularFile, walk
from cmafs.fs.namei import O_DIRECT, O_RDONLY, O_RDWR, O_WRONLY
from cmafs.init.task import Task
from cmafs.lib.dynamic_debug import DynamicDebug
from cmafs.sim.log import MAX_LINE, MAX_LINES
from cmafs.trace.array import LOG_ERRS_MAX, TRACE_BUF_SIZE_DEFAULT
from cmafs.trace.cmdlines import NR_CMDLINES

TRACING, ALLOC = "/sys/kernel/tracing", "/sys/kernel/debug/cma/reserved/alloc"
INSTANCES = f"{TRACING}/instances"


@pytest.fixture
def machine() -> api.Machine:
    return api.boot(cmdline="cma=16M")


def lines(machine: api.Machine, directory: str = TRACING) -> list[str]:
    text = machine.read(f"{directory}/trace").decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


class TestIdentity:
    def test_rmdir_leaves_the_top_array_alone(self, machine: api.Machine) -> None:
        calls = machine.syscalls
        calls.mkdir(f"{INSTANCES}/e")
        machine.write(f"{INSTANCES}/e/events/cma/enable", "1")
        machine.write(f"{TRACING}/events/cma/enable", "1")
        calls.rmdir(f"{INSTANCES}/e")
        machine.write(ALLOC, "4")
        assert any("cma_alloc_finish" in line for line in lines(machine))

    def test_rmdir_of_one_of_two_alike(self, machine: api.Machine) -> None:
        calls = machine.syscalls
        for name in "abc":
            calls.mkdir(f"{INSTANCES}/{name}")
        calls.rmdir(f"{INSTANCES}/b")
        for name in "ac":
            machine.write(f"{INSTANCES}/{name}/events/cma/enable", "1")
        machine.write(ALLOC, "4")
        assert all(lines(machine, f"{INSTANCES}/{name}") for name in "ac")
        calls.rmdir(f"{INSTANCES}/a")
        calls.rmdir(f"{INSTANCES}/c")
        assert calls.listdir(INSTANCES) == []

    def test_a_new_instance_of_an_old_name_is_empty(self, machine: api.Machine) -> None:
        calls = machine.syscalls
        calls.mkdir(f"{INSTANCES}/b")
        machine.write(f"{INSTANCES}/b/events/cma/enable", "1")
        machine.write(ALLOC, "4")
        calls.rmdir(f"{INSTANCES}/b")
        calls.mkdir(f"{INSTANCES}/b")
        machine.write(ALLOC, "4")
        assert lines(machine, f"{INSTANCES}/b") == []
        assert machine.read(f"{INSTANCES}/b/trace_pipe") == b""

    def test_a_removed_instance_is_gone_from_memory(self, machine: api.Machine) -> None:
        calls = machine.syscalls
        calls.mkdir(f"{INSTANCES}/b")
        directory = weakref.ref(calls.inode(f"{INSTANCES}/b"))
        calls.rmdir(f"{INSTANCES}/b")
        gc.collect()
        assert directory() is None


class TestInUse:
    """``tr->ref``: rmdir of an instance answers EBUSY as long as one of its files is open."""

    def files(self, machine: api.Machine) -> list[tuple[str, Inode]]:
        machine.syscalls.mkdir(f"{INSTANCES}/b")
        directory = machine.syscalls.inode(f"{INSTANCES}/b")
        return [(path, inode) for path, inode in walk(directory) if isinstance(inode, RegularFile)]  # type: ignore[arg-type]

    def test_every_file_but_format_and_id(self, machine: api.Machine) -> None:
        calls = machine.syscalls
        free = set()
        for path, inode in self.files(machine):
            fd = calls.open(f"{INSTANCES}/b{path}", O_RDONLY if inode.mode & 0o400 else O_WRONLY)
            try:
                calls.rmdir(f"{INSTANCES}/b")
                calls.mkdir(f"{INSTANCES}/b")
                free.add(path.rpartition("/")[2])
            except OSError as error:
                assert error.errno == errno.EBUSY, path
            calls.close(fd)
        assert free == {"format", "id"}
        calls.rmdir(f"{INSTANCES}/b")

    def test_two_descriptors(self, machine: api.Machine) -> None:
        calls = machine.syscalls
        calls.mkdir(f"{INSTANCES}/b")
        first, second = (calls.open(f"{INSTANCES}/b/trace", O_RDONLY) for _ in range(2))
        calls.close(first)
        refused_with(errno.EBUSY, calls.rmdir, f"{INSTANCES}/b")
        machine.write(f"{INSTANCES}/b/events/cma/enable", "1")  # it is whole after the refusal
        machine.write(ALLOC, "1")
        assert calls.read(second, 1 << 16).count(b"cma_alloc_start:") == 1
        calls.close(second)
        calls.rmdir(f"{INSTANCES}/b")

    def test_an_open_that_is_refused_releases(self, machine: api.Machine) -> None:
        """fs/open.c:do_dentry_open(): O_DIRECT is refused after the file was opened."""
        calls = machine.syscalls
        calls.mkdir(f"{INSTANCES}/b")
        for name in ("trace", "tracing_on", "set_event"):
            refused_with(errno.EINVAL, calls.open, f"{INSTANCES}/b/{name}", O_RDWR | O_DIRECT)
        calls.rmdir(f"{INSTANCES}/b")


class TestBounds:
    def test_instances_and_rings_fit_free_memory(self) -> None:
        machine = api.boot(memory="64M", cmdline="cma=4M")
        made = 0
        with pytest.raises(OSError) as full:
            for made in range(64):
                machine.syscalls.mkdir(f"{INSTANCES}/{made}")
        assert full.value.errno == errno.ENOMEM
        free = sum(zone.nr_free for zone in machine.booted.memory.zones) << 12
        assert made == (free - (2 << 12)) // TRACE_BUF_SIZE_DEFAULT
        assert machine.syscalls.listdir(INSTANCES) == [str(number) for number in range(made)]
        before = machine.read(f"{INSTANCES}/0/buffer_size_kb")
        refused_with(errno.ENOMEM, machine.write, f"{INSTANCES}/0/buffer_size_kb", str(1408 + 1408))
        assert machine.read(f"{INSTANCES}/0/buffer_size_kb") == before
        machine.syscalls.rmdir(f"{INSTANCES}/1")
        machine.write(f"{INSTANCES}/0/buffer_size_kb", str(1408 + 1408))
        assert machine.verify() == []

    def test_a_ring_keeps_to_its_size(self, machine: api.Machine) -> None:
        machine.write(f"{TRACING}/buffer_size_kb", "64")
        for _ in range(3000):
            machine.write(f"{TRACING}/trace_marker", "x" * 100)
        assert 0 < len(lines(machine)) <= 64 * 1024 // 100
        assert sum(map(len, lines(machine))) < 2 * 64 * 1024

    def test_names_of_tasks(self, machine: api.Machine) -> None:
        """The oldest is overwritten, ``SAVED_CMDLINES_DEFAULT`` are kept."""
        machine.write(f"{TRACING}/events/cma/enable", "1")
        for pid in range(1000, 1000 + NR_CMDLINES + 3):
            machine.booted.current = lambda pid=pid: Task(pid, f"task{pid}")  # type: ignore[misc]
            machine.write(ALLOC, "1")
        saved = [line.split() for line in machine.read(f"{TRACING}/saved_cmdlines").decode().splitlines()]
        assert sorted(int(pid) for pid, _ in saved) == list(range(1003, 1003 + NR_CMDLINES))
        assert all(comm == f"task{pid}" for pid, comm in saved)
        assert lines(machine)[0].lstrip().startswith("<...>-1000 ")

    def test_error_log(self, machine: api.Machine) -> None:
        for number in range(3 * LOG_ERRS_MAX):
            filter = f"{TRACING}/events/cma/cma_release/filter"
            refused_with(errno.EINVAL, machine.write, filter, f"nothing{number} == 1")
        text = machine.read(f"{TRACING}/error_log").decode()
        assert text.count("Command: ") == LOG_ERRS_MAX
        assert f"nothing{3 * LOG_ERRS_MAX - 1} " in text

    def test_sim_log(self, machine: api.Machine) -> None:
        for _ in range(MAX_LINES + 10):
            refused_with(
                errno.EINVAL, machine.syscalls.write_file, "/sim/control", b"nonsense " + b"x" * 5000
            )
        text = machine.read("/sim/log")
        assert text.count(b"\n") == MAX_LINES
        assert len(text) < 300 * MAX_LINES

    def test_words_of_the_user_are_cut_in_the_log(self, machine: api.Machine) -> None:
        calls = "X|kill X|grow X 1|shrink X 1|pin X 1|mlock X|spawn a X 1|spawn X anon 1|spawn a anon X"
        for call in (calls + "|dma_alloc X 1|dma_free X 1|unpin pfn X|unpin X|munlock X").split("|"):
            with pytest.raises(OSError):
                machine.write("/sim/control", call.replace("X", "x" * 9000))
            assert len(machine.simlog[-1]) <= MAX_LINE + 1, call

    def test_the_log(self, machine: api.Machine) -> None:
        for number in range(30000):
            machine.booted.log.printk(f"line {number} " + "x" * 60)
        assert len(machine.read("/sim/dmesg")) < 4 << 20

    def test_call_sites_are_not_doubled(self) -> None:
        machine = api.boot(cmdline="cma=16M dyndbg=bad")
        assert machine.dmesg().count("bad flag-op b, at start of bad") == 1
        assert DynamicDebug(machine.booted.log).control().count("=_") > 3


class TestBytes:
    """What was written is read back byte by byte, whatever the bytes are."""

    @pytest.mark.parametrize("data", ["é".encode(), b"\xff\xfe!", "日本".encode(), b"caf\xc3"])
    def test_trace_marker(self, machine: api.Machine, data: bytes) -> None:
        machine.write(f"{TRACING}/trace_marker", data + b"\n")
        for name in ("trace", "trace_pipe"):
            assert machine.read(f"{TRACING}/{name}").endswith(b": tracing_mark_write: " + data + b"\n")

    def test_trace_marker_ends_at_a_nul(self, machine: api.Machine) -> None:
        machine.write(f"{TRACING}/trace_marker", b"seen\0unseen\n")
        assert machine.read(f"{TRACING}/trace").endswith(b": tracing_mark_write: seen")

    def test_filter(self, machine: api.Machine) -> None:
        path = f"{TRACING}/events/cma/cma_alloc_start/filter"
        machine.write(path, 'comm == "é"'.encode())
        assert machine.read(path) == 'comm == "é"\n'.encode()
        machine.write(f"{TRACING}/events/cma/enable", "1")
        for pid, comm in ((7, "é"), (8, "e")):
            machine.booted.current = lambda pid=pid, comm=comm: Task(pid, comm)  # type: ignore[misc]
            machine.write(ALLOC, "1")
        assert sum("cma_alloc_start:" in line for line in lines(machine)) == 1
        assert "é-7".encode() in machine.read(f"{TRACING}/trace")
        refused_with(errno.EINVAL, machine.write, path, "é == 1".encode())
        assert "Command: é == 1\n".encode() in machine.read(f"{TRACING}/error_log")

    def test_dynamic_debug_logs_what_was_written(self, machine: api.Machine) -> None:
        refused_with(errno.EINVAL, machine.write, "/sys/kernel/debug/dynamic_debug/control", "é 1 +p")
        assert 'unknown keyword "é"' in machine.dmesg()

    def test_a_read_at_an_offset_before_any_other(self, machine: api.Machine) -> None:
        calls = machine.syscalls
        for path in ("/sys/kernel/mm/cma/reserved/alloc_pages_success", "/proc/meminfo", f"{TRACING}/trace"):
            whole = calls.read_file(path)
            fd = calls.open(path, os.O_RDONLY)
            assert calls.pread(fd, 100, 1) == whole[1:101]
            calls.close(fd)
