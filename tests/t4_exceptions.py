"""docs/exceptions.md is true: where a mount differs from the kernel, it differs as written there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import subprocess
from pathlib import Path

import pytest

from cmafs import Machine

ALLOC = "sys/kernel/debug/cma/reserved/alloc"
USED = "sys/kernel/debug/cma/reserved/used"


def test_a_write_of_no_bytes_never_arrives(machine: Path) -> None:
    fd = os.open(machine / ALLOC, os.O_WRONLY)
    assert os.write(fd, b"") == 0
    os.close(fd)
    in_process = Machine.boot(cmdline="cma=16M")
    with pytest.raises(OSError, match="EINVAL"):
        in_process.write("/" + ALLOC, b"")


def test_a_long_write_comes_in_pieces(machine: Path) -> None:
    data = b"1\n" + b"\0" * 300_000
    fd = os.open(machine / ALLOC, os.O_WRONLY)
    assert 0 < os.write(fd, data) <= 1 << 17
    os.close(fd)
    assert (machine / USED).read_text() == "97\n"
    in_process = Machine.boot(cmdline="cma=16M")
    assert in_process.write("/" + ALLOC, data) == len(data)


def test_seeking_is_of_fuse(machine: Path) -> None:
    fd = os.open(machine / "proc/meminfo", os.O_RDONLY)
    assert os.lseek(fd, 0, os.SEEK_END) == 0
    with pytest.raises(OSError) as caught:
        os.lseek(fd, 0, os.SEEK_DATA)
    os.close(fd)
    assert caught.value.errno == errno.ENXIO


def test_everything_is_always_ready(machine: Path) -> None:
    fd = os.open(machine / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0) == [(fd, select.POLLIN)]
    os.close(fd)


def test_the_end_of_the_log_is_an_end(machine: Path) -> None:
    fd = os.open(machine / "dev/kmsg", os.O_RDONLY)
    records = 0
    while os.read(fd, 8192):
        records += 1
    assert records == len((machine / "sim/dmesg").read_text().splitlines())
    os.close(fd)
    fd = os.open(machine / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    for _ in range(records):
        assert os.read(fd, 8192)
    with pytest.raises(BlockingIOError):
        os.read(fd, 8192)
    os.close(fd)


def test_a_simple_attribute_is_not_spliced(machine: Path, tmp_path: Path) -> None:
    source = os.open(machine / USED, os.O_RDONLY)
    with open(tmp_path / "copy", "wb") as copy, pytest.raises(OSError) as caught:
        os.sendfile(copy.fileno(), source, None, 100)
    os.close(source)
    assert caught.value.errno == errno.EINVAL


def test_there_are_no_extended_attributes(machine: Path) -> None:
    with pytest.raises(OSError) as caught:
        os.listxattr(machine / USED)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_types_that_are_not_the_kernels(machine: Path) -> None:
    assert stat.S_ISREG((machine / "dev/kmsg").stat().st_mode)
    assert stat.S_ISREG((machine / "dev/cma_test").stat().st_mode)
    assert stat.S_ISFIFO((machine / "sys/kernel/tracing/trace_pipe").stat().st_mode)
    words = ["stat", "-f", "-c", "%T", str(machine / "proc")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout in ("fuseblk\n", "fuse\n")  # two names that coreutils gave the same number


def test_an_empty_trace_pipe_that_does_not_wait(machine: Path) -> None:
    """Nothing; or EAGAIN, as the kernel says, if the server has opened its end by then."""
    fd = os.open(machine / "sys/kernel/tracing/trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            assert os.read(fd, 100) == b""
    finally:
        os.close(fd)


def test_an_instance_removed_by_the_other_path_cannot_be_used(machine: Path) -> None:
    both = "sys/kernel/tracing", "sys/kernel/debug/tracing"
    names = [machine / place / "instances/one" for place in both]
    names[0].mkdir()
    assert "trace" in os.listdir(names[1])
    names[0].rmdir()
    with pytest.raises(OSError):
        os.listdir(names[1])


def test_a_plain_mount_hands_out_no_descriptors(machine: Path) -> None:
    fd = os.open(machine / "dev/dma_heap/reserved", os.O_RDWR)
    for command, code in ((0xC0184800, errno.ENOTTY), (0xC0184801, errno.EINVAL)):
        with pytest.raises(OSError) as caught:
            fcntl.ioctl(fd, command, bytearray(24))
        assert caught.value.errno == code
    os.close(fd)


@pytest.mark.parametrize("arch", ["x86_64", "arm64", "arm"])
def test_pages_of_4_4_stand_where_x86_64_has_them(arch: str) -> None:
    machine = Machine.boot(kernel="4.4", arch=arch, cmdline="cma=16M")
    area, tracing = "/sys/kernel/debug/cma/cma-0", "/sys/kernel/debug/tracing"
    machine.write(f"{tracing}/events/cma/enable", b"1")
    machine.write(f"{area}/alloc", b"1")
    pfn = int(machine.read_text(f"{area}/base_pfn")) + int(machine.read_text(f"{area}/used")) - 1
    page = f"{0xFFFFEA0000000000 + pfn * 64:x}"[8 if arch == "arm" else 0 :]  # a pointer's width
    assert f"pfn={pfn:x} page={page} count=1" in machine.read_text(f"{tracing}/trace")
