"""Dma-buf heaps without a mount: which there are, what they check, where buffers lie, what files tell.

Modules: cmafs.fs.dma_buf.
"""

from __future__ import annotations

import errno
import struct

import pytest

import cmafs
from cmafs.drivers.dma_buf.heap import AllocIoctl, Request, allocate, release

ALLOC = 0xC0184800
O_RDWR = 2
HEADING = {
    "5.10": "size    \tflags   \tmode    \tcount   \texp_name\tino     \n",
    "6.12": "size    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n",
    "7.2": "size    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n",
}


def boot(kernel: str = "6.12", **options: object) -> cmafs.Machine:
    return cmafs.Machine.boot(kernel=kernel, **{"dts": "virt", "cmdline": "cma=16M", **options})


def sizes(length: int, fd: int = 0, fd_flags: int = O_RDWR, heap_flags: int = 0) -> bytes:
    return struct.pack("=QIIQ", length, fd, fd_flags, heap_flags)


@pytest.mark.parametrize(
    ("kernel", "config", "names"),
    [
        ("5.4", [], None),
        ("5.10", [], ["system", "linux,cma"]),
        ("6.12", [], ["system", "linux,cma"]),
        ("6.18", [], ["system", "default_cma_region", "linux,cma"]),
        ("6.18", ["DMABUF_HEAPS_CMA_LEGACY=n"], ["system", "default_cma_region"]),
        ("7.2", [], ["system", "default_cma_region", "linux,cma", "camera@60000000", "vpu@70000000"]),
        ("7.2", ["DMABUF_HEAPS_SYSTEM=n", "DMABUF_HEAPS_CMA=n"], []),
        ("7.2", ["DMABUF_HEAPS=n"], None),
        ("6.12", ["DMA_CMA=n"], ["system"]),
        ("6.12", ["tiny"], None),
    ],
)
def test_which_heaps_there_are(kernel: str, config: list[str], names: list[str] | None) -> None:
    machine = boot(kernel, dts="camera", cmdline=None, config=config)
    assert (machine.listdir("/dev/dma_heap") if "dma_heap" in machine.listdir("/dev") else None) == names
    assert list(machine.booted.dma_heaps) == (names or [])


def test_an_area_of_the_command_line_has_a_heap_beside_those_of_the_tree() -> None:
    assert boot("7.2").listdir("/dev/dma_heap") == ["system", "default_cma_region", "reserved"]


@pytest.mark.parametrize(
    ("cmd", "in_size", "out_size"),
    [(ALLOC, 24, 24), (0xC0104800, 16, 16), (0xC0204800, 32, 32), (0x40184800, 24, 0), (0x5400, 0, 0)],
)
def test_of_the_number_only_size_and_direction_count(cmd: int, in_size: int, out_size: int) -> None:
    assert AllocIoctl.of(cmd) == AllocIoctl(in_size, out_size)


def test_other_numbers_are_refused() -> None:
    with pytest.raises(OSError, match="no such ioctl") as caught:
        AllocIoctl.of(ALLOC + 1)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("wrong", [{"fd": 1}, {"fd_flags": 0o4000}, {"heap_flags": 1}])
def test_what_a_request_may_not_have(wrong: dict[str, int]) -> None:
    with pytest.raises(OSError, match="fd") as caught:
        AllocIoctl.of(ALLOC).request(sizes(4096, **wrong))
    assert caught.value.errno == errno.EINVAL


def test_structs_of_other_sizes() -> None:
    older, newer = AllocIoctl(16, 16), AllocIoctl(32, 32)
    assert (
        older.request(sizes(4096)[:16]) == newer.request(sizes(4096) + b"moreplus") == Request(4096, O_RDWR)
    )
    assert older.answer(sizes(4096)[:16], 5) == sizes(4096, 5)[:16]
    assert newer.answer(sizes(4096) + b"moreplus", 5) == sizes(4096, 5) + b"moreplus"
    assert AllocIoctl(24, 0).answer(sizes(4096), 5) == b""


@pytest.mark.parametrize("alignment", [4, 8])
def test_buffers_are_aligned_to_their_order_at_most_cma_alignment(alignment: int) -> None:
    machine = boot(config=[f"CMA_ALIGNMENT={alignment}"])
    heap = machine.dma_heap("reserved")
    base = machine.booted.cma.default.ranges[0].base_pfn
    small, large = heap.alloc(1), heap.alloc(2 << 20)
    assert (small.size, large.size) == (4096, 2 << 20)
    assert (large.pfn - base) % (1 << alignment) == 0
    first = small.pfn - base + 1
    assert large.pfn - base == -(-first // (1 << alignment)) * (1 << alignment)
    assert machine.verify() == []


@pytest.mark.parametrize(("length", "code"), [(0, "EINVAL"), ((1 << 64) - 1, "EINVAL"), (1 << 30, "ENOMEM")])
def test_lengths_that_cannot_be(length: int, code: str) -> None:
    for name in ("reserved", "system"):
        machine = boot()
        before = machine.read("/proc/buddyinfo")
        if (name, length) == ("system", 1 << 30):
            length <<= 2
        with pytest.raises(OSError, match=r"length|bytes") as caught:
            machine.dma_heap(name).alloc(length)
        assert errno.errorcode[caught.value.errno] == code
        assert (machine.read("/proc/buddyinfo"), machine.verify()) == (before, [])


def test_on_32_bits_a_length_is_cut_to_size_t() -> None:
    machine = boot(arch="arm", config=["DMABUF_HEAPS=y", "DMABUF_HEAPS_CMA=y", "DMABUF_HEAPS_SYSTEM=y"])
    assert machine.dma_heap("reserved").alloc((1 << 32) + 5).size == 4096


@pytest.mark.parametrize("kernel", ["5.10", "6.12"])
def test_the_system_heap_takes_pages_outside_cma_and_gives_all_back(kernel: str) -> None:
    machine = boot(kernel)
    free = machine.read("/proc/meminfo").splitlines()[1]
    with machine.dma_heap("system").alloc(5_000_000):
        assert machine.read("/proc/meminfo").splitlines()[1] != free
        assert machine.verify() == []
    assert machine.read("/proc/meminfo").splitlines()[1] == free
    assert machine.verify() == []


@pytest.mark.parametrize("kernel", ["5.10", "6.12", "7.2"])
def test_bufinfo(kernel: str) -> None:
    machine = boot(kernel)
    reserved = machine.booted.dma_heaps["reserved"]
    one = allocate(machine.booted, reserved, Request(5000, 0), 7, "camera")
    machine.dma_heap("system").alloc(4096).set_name("frame")
    mode, none = {"5.10": (0x80004, ""), "6.12": (0x80004, "<none>"), "7.2": (0x2080004, "<none>")}[kernel]
    exporters = ("heap_helpers", "heap_helpers") if kernel == "5.10" else ("system", "reserved")
    tail = "\tAttached Devices:\nTotal 0 devices attached\n\n"
    assert machine.read("/sys/kernel/debug/dma_buf/bufinfo").decode() == (
        "\nDma-buf Objects:\n"
        + HEADING[kernel]
        + f"00004096\t00000002\t{mode + 3:08x}\t00000001\t{exporters[0]}\t00000002\tframe\n{tail}"
        + f"00008192\t00000000\t{mode + 1:08x}\t00000001\t{exporters[1]}\t00000001\t{none}\n{tail}"
        + "\nTotal 2 objects, 12288 bytes\n"
    )
    area = machine.booted.cma.default
    held = f"{one.pfn:#x}\t{one.pfn << 12:#x}\t8192\t{area.name}\tcamera[7]\n"
    assert machine.read("/sim/devices/dma_heap:reserved").decode() == held
    assert "camera[7] 2" in machine.read("/sim/why").decode()
    release(machine.booted, one)
    assert machine.read("/sim/devices/dma_heap:reserved") == b""


def test_statistics_in_sysfs_where_they_are_built_in() -> None:
    machine = boot("6.12", config=["DMABUF_SYSFS_STATS=y"])
    buffers = "/sys/kernel/dmabuf/buffers"
    with machine.dma_heap("reserved").alloc(5000):
        assert machine.listdir(buffers) == ["1"]
        assert machine.listdir(f"{buffers}/1") == ["exporter_name", "size"]
        assert machine.read(f"{buffers}/1/exporter_name") == b"reserved\n"
        assert machine.read(f"{buffers}/1/size") == b"8192\n"
    assert machine.listdir(buffers) == []
    assert "dmabuf" not in boot("7.2", config=["DMABUF_HEAPS=y"]).listdir("/sys/kernel")


def test_names_end_within_32_bytes() -> None:
    buffer = boot().dma_heap("reserved").alloc(1)
    buffer.set_name("x" * 31)
    with pytest.raises(OSError, match="name too long"):
        buffer.set_name("x" * 32)


def test_a_name_cannot_break_the_lines_of_sim() -> None:
    machine = boot()
    buffer = machine.dma_heap("reserved").alloc(1)
    buffer.set_name("a\n0x1\t\udcffb")
    assert machine.read("/sim/devices/dma_heap:reserved").endswith(b"\tsh[38] a?0x1??b\n")
    assert b"\ta\n0x1\t\xffb\n" in machine.read("/sys/kernel/debug/dma_buf/bufinfo")


def test_an_unknown_heap_says_which_there_are() -> None:
    with pytest.raises(OSError, match="no heap camera; there are: system, reserved"):
        boot().dma_heap("camera")


def test_a_leak_is_seen_and_a_wrong_buffer_is_a_violation() -> None:
    machine = boot()
    buffer = machine.dma_heap("reserved").alloc(8192)
    buffer.close()
    buffer.close()
    held = machine.booted.dma_heaps["reserved"]
    leaked = allocate(machine.booted, held, Request(8192, O_RDWR), 7, "leaky")
    leaked.pfn += 64
    assert machine.verify() == [f"reserved: buffer at {leaked.pfn:#x}: its pages are not used in reserved"]


def test_without_a_supervisor_the_ioctl_is_not_there() -> None:
    machine = boot()
    fd = machine.syscalls.open("/dev/dma_heap/reserved", O_RDWR)
    for cmd, code in ((ALLOC, errno.ENOTTY), (ALLOC + 1, errno.EINVAL)):
        with pytest.raises(OSError, match="E") as caught:
            machine.syscalls.ioctl(fd, cmd, bytearray(sizes(4096)))
        assert caught.value.errno == code
