"""Who reads trace_pipe is fed by one thread, which writes into its own mount alone and sleeps when idle."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from conftest import Mount
from run_support import cmafs, cmafs_after, eventually

from cmafs.mount.mounts import mounted_at
from cmafs.mount.presence import server_of

TRACING, ALLOC = "sys/kernel/tracing", "sys/kernel/debug/cma/reserved/alloc"
#: Files that a server may open, threads that it may start: its own, and the feeder.
THREADS = 2


def server(machine: Path) -> int:
    """The pid of the server of a mount."""
    mount = mounted_at(str(machine))
    assert mount
    with server_of(mount.device, mount.owner) as found:
        assert found
        return found.pid


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def ticks(pid: int) -> int:
    """Processor time in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Reader:
    """A `cat` of a FIFO; ``text`` is what it has printed so far."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self.text = b""

    def said(self, word: bytes) -> bool:
        """Whether it has printed a word by now."""
        self.text += self._output.read() or b""
        return word in self.text


@contextlib.contextmanager
def reading(pipe: Path) -> Iterator[Reader]:
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
        try:
            yield Reader(process.stdout)
        finally:
            process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="what only root's server could do")
def test_a_link_below_the_mount_is_not_written_to(tmp_path: Path, mount: Mount) -> None:
    """Attack 1: the path of the FIFO leads into a victim's file once the mount is gone from there."""
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    below = os.open(tmp_path, os.O_RDONLY)
    machine = mount("--cmdline", "cma=16M")
    os.listdir(machine / TRACING)
    (machine / TRACING / "trace_pipe").lstat()
    (machine / "sys/kernel/debug/tracing/trace_pipe").lstat()
    (machine / TRACING / "events/cma/enable").write_text("1\n")
    (machine / ALLOC).write_text("4\n")
    pid = server(machine)
    holder = subprocess.Popen(["sleep", "60"], cwd=machine / TRACING)
    try:
        subprocess.run(["umount", "-l", str(machine)], check=True)
        os.close(below)
        for kind in (TRACING, "sys/kernel/debug/tracing"):
            (machine / kind).mkdir(parents=True)
            (machine / kind / "trace_pipe").symlink_to(victim)
        inside = Path(f"/proc/{holder.pid}/cwd")
        for _ in range(30):
            (inside / "trace_marker").write_text("written into the victim\n")
            time.sleep(0.05)
        assert victim.read_text() == "precious\n"
        (machine / TRACING / "trace_pipe").unlink()
        os.mkfifo(machine / TRACING / "trace_pipe")  # nor is another FIFO told anything
        with open(os.open(machine / TRACING / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK), "rb") as other:
            (inside / "trace_marker").write_text("told to another FIFO\n")
            time.sleep(1.5)
            assert not other.read()
        assert "told to another" in (inside / "trace").read_text()
    finally:
        holder.kill()
        holder.wait()
    assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_two_hundred_instances_at_rest(machine: Path) -> None:
    """Attack 13: a thread each, and polls that took an eighth of a processor."""
    pid = server(machine)
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    for number in range(200):
        instance = machine / TRACING / f"instances/{number}"
        instance.mkdir()
        (instance / "trace_pipe").stat()
    assert threads(pid) <= THREADS
    time.sleep(4)  # the looks for readers grow rare
    before = ticks(pid)
    time.sleep(4)
    assert ticks(pid) - before <= 4  # one percent
    with reading(machine / TRACING / "instances/117/trace_pipe") as reader:
        (machine / TRACING / "instances/117/trace_marker").write_text("hello\n")
        assert eventually(lambda: reader.said(b"hello"))
        assert threads(pid) <= THREADS
    for number in range(200):
        assert eventually(lambda number=number: _removed(machine / TRACING / f"instances/{number}"))
    assert len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + 2


def _removed(instance: Path) -> bool:
    """Whether an instance could be removed: a reader's end is seen within a moment."""
    with contextlib.suppress(OSError):
        instance.rmdir()
    return not instance.exists()


def test_a_new_instance_does_not_say_what_the_old_one_saw(machine: Path) -> None:
    instance = machine / TRACING / "instances/b"
    instance.mkdir()
    with reading(instance / "trace_pipe") as reader:
        (instance / "trace_marker").write_text("of the old one\n")
        assert eventually(lambda: reader.said(b"of the old one"))
    (instance / "trace_marker").write_text("never read\n")
    assert eventually(lambda: _removed(instance))
    instance.mkdir()
    with reading(instance / "trace_pipe") as reader:
        (instance / "trace_marker").write_text("of the new one\n")
        assert eventually(lambda: reader.said(b"of the new one"))
    assert b"never read" not in reader.text


def test_an_instance_that_is_read_is_in_use(machine: Path) -> None:
    instance = machine / TRACING / "instances/b"
    instance.mkdir()
    with reading(instance / "trace_pipe") as reader:
        (instance / "trace_marker").write_text("hello\n")
        assert eventually(lambda: reader.said(b"hello"))
        with pytest.raises(OSError) as busy:
            instance.rmdir()
        assert busy.value.errno == errno.EBUSY
    assert eventually(lambda: _removed(instance))


def test_a_reader_after_a_long_rest(machine: Path) -> None:
    (machine / TRACING / "trace_pipe").stat()
    time.sleep(3)
    start = time.monotonic()
    with open(machine / TRACING / "trace_pipe", "rb") as pipe:  # opens within a look for readers
        assert time.monotonic() - start < 2
        (machine / TRACING / "trace_marker").write_text("hello\n")
        assert b"hello" in pipe.readline()


def test_two_readers_by_two_names(machine: Path) -> None:
    places = [machine / TRACING, machine / "sys/kernel/debug/tracing"]
    with reading(places[0] / "trace_pipe") as first, reading(places[1] / "trace_pipe") as second:
        number = iter(range(1000))

        def either() -> bool:
            (places[0] / "trace_marker").write_text(f"number {next(number)}\n")
            return first.said(b"number") or second.said(b"number")

        assert eventually(either)


def does_not_read_at_first(machine: Path) -> None:
    """A reader that lets more than a pipe holds wait for room; nothing is lost."""
    with open(machine / TRACING / "trace_pipe", "rb") as pipe:
        (machine / TRACING / "buffer_size_kb").write_text("1408\n")
        for number in range(2000):
            (machine / TRACING / "trace_marker").write_text(f"{number} {'x' * 60}\n")
        time.sleep(0.2)
        for number in range(2000):
            assert b": %d x" % number in pipe.readline()


def test_a_reader_that_does_not_read_holds_nobody_up(machine: Path) -> None:
    """The mount answers meanwhile."""
    does_not_read_at_first(machine)


_REFUSES_A_TABLE = """
import errno, os
import cmafs.mount.fuse_fifo as fuse_fifo
def unshare(flags):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
fuse_fifo.unshare = unshare
"""


def test_a_sandbox_that_refuses_a_table_of_descriptors(tmp_path: Path, fuse_device: None) -> None:
    """The thread does with the server's, and says nothing."""
    words = [*cmafs_after(_REFUSES_A_TABLE), "mount", "--cmdline", "cma=16M", str(tmp_path)]
    assert subprocess.run(words, timeout=60, check=False).returncode == 0
    try:
        does_not_read_at_first(tmp_path)
        assert (tmp_path / "sim/log").read_text() == ""
    finally:
        assert cmafs("umount", str(tmp_path)).returncode == 0


def test_numbers_and_times_go_with_an_instance(machine: Path) -> None:
    """Attack 21: they were kept by an address that the next object may have."""
    seen = set()
    for _ in range(5):
        instance = machine / TRACING / "instances/b"
        instance.mkdir()
        file = instance / "tracing_on"
        assert file.stat().st_mtime > 10**9
        assert file.stat().st_ino not in seen
        seen.add(file.stat().st_ino)
        os.utime(file, (1000, 1000))
        assert file.stat().st_mtime == 1000
        instance.rmdir()


def test_direct_opens_do_not_hold_an_instance(machine: Path) -> None:
    instance = machine / TRACING / "instances/b"
    instance.mkdir()
    for _ in range(3):
        with pytest.raises(OSError) as refused:
            os.open(instance / "trace", os.O_RDONLY | os.O_DIRECT)
        assert refused.value.errno == errno.EINVAL
    instance.rmdir()


def test_a_server_that_may_start_no_thread(mount: Mount) -> None:
    machine = mount("--cmdline", "cma=16M")
    pid = server(machine)
    text = subprocess.run(["prlimit", f"--pid={pid}", "--nproc=1"], check=False, capture_output=True)
    if text.returncode:
        pytest.skip("prlimit is missing")
    (machine / TRACING / "trace_pipe").stat()
    (machine / TRACING / "trace_marker").write_text("hello\n")
    assert re.search(r"hello", (machine / TRACING / "trace").read_text())
    assert (machine / "sim/verify").read_text() == "ok\n"
