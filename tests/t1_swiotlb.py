"""swiotlb=: how large the bounce buffer becomes, and what is said of it (kernel/dma/swiotlb.c).

Modules: cmafs.arch.swiotlb.
"""

from __future__ import annotations

import re

import pytest
from boot_support import boot, lines_with, tree_of

from cmafs.arch.swiotlb import swiotlb_init
from cmafs.init.journal import Journal
from cmafs.init.main import _early_setup
from cmafs.init.options import MachineOptions
from cmafs.lib.clock import ManualClock
from cmafs.lib.panic import KernelPanic

M = 1 << 20
FROM = "software IO TLB: "


def told(kernel: str, cmdline: str, size: int = 1 << 30, arch: str = "arm64") -> tuple[list[str], int]:
    """What the log says before the buffer is mapped, and bytes of the buffer."""
    reg = f"<0 0x40000000 {size >> 32:#x} {size & 0xFFFFFFFF:#x}>"
    lines = lines_with(boot(tree_of(memory=reg), kernel, f"cma=0 {cmdline}", arch), FROM)
    texts = [line.removeprefix(FROM) for line in lines]
    mapped = [re.fullmatch(r"mapped \[mem (0x\w+)-(0x\w+)\] \((\d+)MB\)", text) for text in texts]
    spans = [(int(m[1], 16), int(m[2], 16), int(m[3])) for m in mapped if m]
    assert all(mib == end - start >> 20 for start, end, mib in spans) and len(spans) < 2
    return [text for text in texts if not text.startswith("mapped")], sum(
        end - start for start, end, _ in spans
    )


def adjusted(mib: int) -> str:
    return f"SWIOTLB bounce buffer size adjusted to {mib}MB"


def failed(*mib: int) -> list[str]:
    return [f"swiotlb_memblock_alloc: Failed to allocate {n * M} bytes tlb structure" for n in mib]


@pytest.mark.parametrize(
    ("cmdline", "lines", "size"),
    [
        ("", [adjusted(1), "area num 1."], M),  # a KiB of each MiB of memory, where all is in reach
        ("swiotlb=1024", ["area num 1."], 2 * M),  # slots of 2 KiB
        ("swiotlb=0x3f9", ["area num 1."], 2 * M),  # whole segments of 128
        ("swiotlb=1025", ["area num 1.", "SWIOTLB bounce buffer size roundup to 4MB"], 4 * M),
        ("swiotlb=1000,3", ["area num 4."], 2 * M),
        ("swiotlb=512,8", ["area num 8.", "SWIOTLB bounce buffer size roundup to 2MB"], 2 * M),
        ("swiotlb=1024,8", ["area num 8."], 2 * M),
        ("swiotlb=1024,9", ["area num 16.", "SWIOTLB bounce buffer size roundup to 4MB"], 4 * M),
        ("swiotlb=noforce", [adjusted(1)], 0),
        ("swiotlb=1024,2,noforce", [], 0),
        ("swiotlb=1024,noforce", [], 0),
        ("swiotlb=,,noforce", [adjusted(1)], 0),
        ("swiotlb=,2,noforce", [adjusted(1)], 0),
        ("swiotlb=1024,noforced", ["area num 1."], 2 * M),
        ("swiotlb=noforce swiotlb=1024", [], 0),
        ("swiotlb=1024 swiotlb=force", ["area num 1."], 2 * M),  # the number stays
        ("swiotlb", [adjusted(1), "area num 1."], M),
    ],
)
def test_sizes_of_6_12(cmdline: str, lines: list[str], size: int) -> None:
    """kernel/dma/swiotlb.c:setup_io_tlb_npages(), swiotlb_adjust_nareas()@v6.12"""
    assert told("6.12", cmdline) == (lines, size)


@pytest.mark.parametrize(
    ("cmdline", "size"),
    [
        ("", 0),
        ("swiotlb=1024", 0),
        ("swiotlb=force", 64 * M),  # IO_TLB_DEFAULT_SIZE
        ("swiotlb=1024,force", 2 * M),
        ("swiotlb=,force", 64 * M),
        ("swiotlb=1024,2,force", 0),  # areas came with 6.0
        ("swiotlb=1025,force", 1152 << 11),
        ("swiotlb=noforce", 0),
    ],
)
def test_sizes_of_5_10(cmdline: str, size: int) -> None:
    """Only where memory is out of reach, or when forced."""
    assert told("5.10", cmdline) == ([], size)


@pytest.mark.parametrize("kernel", ["5.10", "6.12"])
def test_half_of_it_until_there_is_room(kernel: str) -> None:
    areas = ["area num 1."] if kernel == "6.12" else []
    found = told(kernel, "swiotlb=65536,1,force" if areas else "swiotlb=65536,force", 64 * M)
    halved = "SWIOTLB bounce buffer size adjusted 65536 -> 8192 slabs"
    assert found == ([*areas, *failed(128, 64, 32), halved], 16 * M)


@pytest.mark.parametrize(("kernel", "size"), [("5.10", 64 * M), ("6.12", 64 * M)])
def test_memory_out_of_reach(kernel: str, size: int) -> None:
    """x86_64: memory beyond 4 GiB makes a buffer of 64 MiB below it."""
    areas = ["area num 1."] if kernel == "6.12" else []
    assert told(kernel, "", 4 << 30, "x86_64") == (areas, size)
    assert told(kernel, "", (3 << 30) - M, "x86_64") == ([], 0)
    assert told(kernel, "", 3 << 30, "x86_64") == ([], 0)


@pytest.mark.parametrize(("room", "tried", "size"), [(M - 4096, [4, 2, 1], 0), (M, [4, 2], M)])
def test_no_buffer_is_smaller_than_1_mib(room: int, tried: list[int], size: int) -> None:
    """kernel/dma/swiotlb.c:swiotlb_init_remap()@v6.12: IO_TLB_MIN_SLABS"""
    options = MachineOptions(kernel="6.12", arch="arm64", cmdline="swiotlb=2048,1,force", config=("tiny",))
    boot = _early_setup(tree_of(), options, Journal(ManualClock()))
    boot.memblock.reserve(0x40000000, 0x40000000 - room)
    swiotlb_init(boot, True, 1 << 32)
    lines = [line.removeprefix(FROM) for line in boot.log.lines()]
    halved = "SWIOTLB bounce buffer size adjusted 2048 -> 512 slabs"
    mapped = f"mapped [mem {0x80000000 - M:#018x}-{0x80000000:#018x}] (1MB)"
    assert lines == ["area num 1.", *failed(*tried), *([halved, mapped] if size else [])]


def test_memory_given_back_but_not_mapped_kills() -> None:
    """drivers/of/of_reserved_mem.c@v6.12 gives such a region back; the buffer is cleared once it is taken."""
    region = 'p { compatible = "shared-dma-pool"; reusable; no-map; reg = <0 0x7a000000 0 0x1000000>; };'
    assert told("6.12", "swiotlb=16384,1,force") == (["area num 1."], 32 * M)
    assert boot(tree_of(region), "6.12", "cma=0 swiotlb=16384,1,force")  # it lies above
    with pytest.raises(KernelPanic, match=r"p: 0x7a000000-0x7affffff is given back but not mapped, and"):
        boot(tree_of(region), "6.12", "cma=0 swiotlb=65536,1,force")
