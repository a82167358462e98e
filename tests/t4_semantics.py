"""What the adapter adds between the tables and a system call: attributes, sizes, errors, types, owners."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import Mount
from run_support import REPOSITORY, cmafs

CMA = "sys/kernel/debug/cma/reserved"
TRACING = "sys/kernel/tracing"


def error_of(call: object, *args: object) -> int:
    """The errno of a call that must fail."""
    with pytest.raises(OSError) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.errno or 0


def test_sizes_follow_truncation_at_once(machine: Path) -> None:
    alloc = machine / CMA / "alloc"
    sizes = [alloc.stat().st_size]
    os.truncate(alloc, 10)
    sizes.append(alloc.stat().st_size)
    with open(alloc, "ab", buffering=0) as file:
        file.write(b"1\n")
        sizes.append(os.fstat(file.fileno()).st_size)
        os.ftruncate(file.fileno(), 7)
        sizes.append(alloc.stat().st_size)
    with open(alloc, "wb", buffering=0):
        sizes.append(alloc.stat().st_size)
    assert sizes == [0, 10, 10, 7, 0]


def test_a_sysfs_file_keeps_its_size(machine: Path) -> None:
    file = machine / "sys/kernel/mm/cma/reserved/alloc_pages_success"
    assert error_of(os.open, file, os.O_WRONLY | os.O_TRUNC) == errno.EACCES
    assert file.stat().st_size == 4096


def test_modes_owners_and_times_can_be_changed(machine: Path) -> None:
    used = machine / CMA / "used"
    used.chmod(0o640)
    os.chown(used, 1, 2)
    os.utime(used, ns=(10**18, 10**18 + 5))
    st = used.stat()
    assert (stat.filemode(st.st_mode), st.st_uid, st.st_gid) == ("-rw-r-----", 1, 2)
    assert (st.st_atime_ns, st.st_mtime_ns) == (10**18, 10**18 + 5)


def test_nothing_can_be_made_or_removed(machine: Path) -> None:
    area = machine / CMA
    assert {
        "create": error_of(open, area / "new", "w"),
        "mkdir": error_of(os.mkdir, area / "new"),
        "mknod": error_of(os.mkfifo, area / "new"),
        "symlink": error_of(os.symlink, "x", area / "new"),
        "link": error_of(os.link, area / "used", area / "new"),
        "rename": error_of(os.rename, area / "used", area / "new"),
        "unlink": error_of(os.unlink, area / "used"),
        "rmdir": error_of(os.rmdir, area),
        "unlink directory": error_of(os.unlink, area),
        "rmdir file": error_of(os.rmdir, area / "used"),
        "mkdir there": error_of(os.mkdir, area),
    } == {
        "create": errno.EACCES,
        "mkdir": errno.EPERM,
        "mknod": errno.EPERM,
        "symlink": errno.EPERM,
        "link": errno.EPERM,
        "rename": errno.EPERM,
        "unlink": errno.EPERM,
        "rmdir": errno.EPERM,
        "unlink directory": errno.EISDIR,
        "rmdir file": errno.ENOTDIR,
        "mkdir there": errno.EEXIST,
    }


def test_errors_come_at_read_not_at_open(machine: Path) -> None:
    fd = os.open(machine / CMA / "alloc", os.O_RDONLY)
    assert error_of(os.read, fd, 10) == errno.EACCES
    os.close(fd)


def test_a_simple_attribute_is_a_stream(machine: Path) -> None:
    fd = os.open(machine / CMA / "used", os.O_RDONLY)
    assert error_of(os.pread, fd, 10, 0) == errno.ESPIPE
    assert error_of(os.lseek, fd, 0, os.SEEK_SET) == errno.ESPIPE
    assert [os.read(fd, 1), os.read(fd, 10), os.read(fd, 10)] == [b"9", b"6\n", b""]
    os.close(fd)


def test_a_proc_file_is_rendered_anew_from_its_start(machine: Path) -> None:
    fd = os.open(machine / "proc/meminfo", os.O_RDONLY)
    before = os.read(fd, 65536)
    (machine / CMA / "alloc").write_text("1024\n")
    os.lseek(fd, 0, os.SEEK_SET)
    after = os.read(fd, 65536)
    os.close(fd)
    free = [int(text.split(b"CmaFree:")[1].split()[0]) for text in (before, after)]
    assert free[0] - free[1] == 4096


def test_ioctl_on_what_has_none(machine: Path) -> None:
    with open(machine / CMA / "used", "rb") as file:
        assert error_of(fcntl.ioctl, file, 0x40044D01, bytes(4)) == errno.ENOTTY


def test_a_directory_made_in_instances_and_removed(machine: Path) -> None:
    instance = machine / TRACING / "instances/one"
    links = instance.parent.stat().st_nlink
    instance.mkdir()
    assert instance.parent.stat().st_nlink == links + 1
    assert error_of(os.mkdir, instance) == errno.EEXIST
    assert "trace" in os.listdir(instance)
    instance.rmdir()
    assert not instance.exists()
    assert instance.parent.stat().st_nlink == links
    instance.mkdir()
    assert (instance / "tracing_on").read_text() == "1\n"


def test_trace_pipe_waits_for_what_happens(machine: Path) -> None:
    (machine / TRACING / "events/cma/enable").write_text("1\n")
    pipe = machine / TRACING / "trace_pipe"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    lines: list[bytes] = []

    def read() -> None:
        with open(pipe, "rb") as file:
            for line in file:
                lines.append(line)
                if b"cma_alloc_finish" in line:
                    return

    reader = threading.Thread(target=read)
    reader.start()
    (machine / CMA / "alloc").write_text("5\n")
    reader.join(30)
    assert not reader.is_alive()
    assert [line.split(b": ")[1] for line in lines] == [b"cma_alloc_start", b"cma_alloc_finish"]
    assert b"name=reserved pfn=0x7dc60" in lines[1]
    assert b"count=5 align=0 errorno=0" in lines[1]


def test_the_tracer_names_the_process_that_calls(machine: Path) -> None:
    (machine / TRACING / "events/cma/enable").write_text("1\n")
    script = f"echo $$; echo 5 > {machine / CMA / 'alloc'}"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    last = (machine / TRACING / "trace").read_text().splitlines()[-1]
    assert last.split()[0] == f"sh-{done.stdout.strip()}"


def test_directory_entries_have_types_and_numbers(machine: Path) -> None:
    with os.scandir(machine / "proc") as entries:
        seen = {entry.name: (entry.is_symlink(), entry.is_dir(follow_symlinks=False)) for entry in entries}
        numbers = {entry.name: entry.inode() for entry in os.scandir(machine / "proc")}
    assert seen["device-tree"] == (True, False)
    assert seen["sys"] == (False, True)
    assert seen["meminfo"] == (False, False)
    assert numbers["meminfo"] == os.stat(machine / "proc/meminfo").st_ino
    assert len(set(numbers.values())) == len(numbers)


def test_large_writes_and_reads_are_whole(machine: Path) -> None:
    assert error_of((machine / "sim/control").write_bytes, b"x" * 100_000) == errno.EINVAL
    (machine / "sim/control").write_text("".join(f"spawn t{i} anon 4096\n" for i in range(2000)))
    assert len((machine / "sim/tasks").read_text().splitlines()) == 2001


def test_ctl_and_dmesg(machine: Path) -> None:
    assert cmafs("ctl", str(machine), "spawn", "a", "anon", "1M").returncode == 0
    done = cmafs("ctl", str(machine), "spawn", "a", "anon", "1M")
    assert (done.returncode, done.stderr) == (1, "cmafs: spawn: task 'a' exists\n")
    assert cmafs("ctl", str(machine), "spawn a anon 1M").stderr == "cmafs: spawn: task 'a' exists\n"
    assert cmafs("ctl", str(machine), " ").returncode == 2
    for _ in range(4100):  # more than sim/log keeps
        with pytest.raises(OSError, match="No such file"):
            (machine / "sim/control").write_text("kill nobody")
    done = cmafs("ctl", str(machine), "kill", "b")
    assert done.stderr == "cmafs: kill: no task 'b'\n"
    assert (done.returncode, done.stderr.startswith("cmafs: kill: ")) == (1, True)
    log = cmafs("dmesg", str(machine)).stdout
    assert log == (machine / "sim/dmesg").read_text()
    assert "Linux version 6.12.117" in log
    assert cmafs("dmesg", "-c", str(machine)).stdout == log
    assert cmafs("dmesg", str(machine)).stdout == ""


def test_ctl_where_nothing_is_mounted(tmp_path: Path) -> None:
    for words in (["ctl", str(tmp_path), "kill", "a"], ["dmesg", str(tmp_path)]):
        done = cmafs(*words)
        why = "no machine is mounted there (No such file or directory)"
        assert (done.returncode, done.stderr) == (1, f"cmafs: {tmp_path}: {why}\n")


def test_the_log_file_has_what_sim_log_has(mount: Mount, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    place = mount("--log", str(log))
    assert error_of((place / "sim/control").write_text, "kill nobody\n") == errno.ENOENT
    assert log.read_text() == (place / "sim/log").read_text()
    assert log.read_text().startswith("kill: ")


_WITH_A_BUG = """
import sys
from cmafs import api
from cmafs.mount import server
from cmafs.fs.dentry import File

class Buggy(File):
    def read(self, size, offset):
        return {}["a bug of ours"]
    def write(self, data, offset):
        raise SystemExit("nothing may pass into C")

class BuggyOperations:
    def open(self, inode, flags):
        return Buggy()

machine = api.boot()
machine.root.file("buggy", 0o600, BuggyOperations())
server.spawn(machine, sys.argv[1], {})
"""


def test_a_bug_of_ours_is_eio_and_a_traceback(tmp_path: Path, fuse_device: None) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    subprocess.run([sys.executable, "-c", _WITH_A_BUG, str(place)], cwd=REPOSITORY, check=True, timeout=60)
    try:
        assert (place / "sim/verify").read_text() == "ok\n"
        assert error_of((place / "buggy").read_text) == errno.EIO
        assert error_of((place / "buggy").write_text, "x") == errno.EIO
        log = (place / "sim/log").read_text()
        assert "KeyError: 'a bug of ours'" in log
        assert "SystemExit: nothing may pass into C" in log
        assert (place / "sim/verify").read_text() == "internal error: see sim/log\n"
    finally:
        assert cmafs("umount", str(place)).returncode == 0


def test_direct_io_is_refused(machine: Path) -> None:
    with pytest.raises(OSError) as refused:
        os.open(machine / "sys/kernel/debug/cma/reserved/used", os.O_RDONLY | os.O_DIRECT)
    assert refused.value.errno == errno.EINVAL
