"""Areas declared at boot: the place, the error, and the lines, request by request.

Modules: cmafs.mm.cma, cmafs.mm.cma_areas.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest

from cmafs.abi import kernel_abi
from cmafs.lib.clock import ManualClock
from cmafs.lib.cmdline import parse_early_params
from cmafs.lib.kconfig import parse_config
from cmafs.lib.printk import DPRINTK_FLAGS_PRINT, Printk
from cmafs.mm.cma_declare import (
    CmaRefused,
    CmaRequest,
    cma_declare_contiguous_multi,
    cma_declare_contiguous_nid,
    init_reserved_mem,
)
from cmafs.mm.early import EarlyMm
from cmafs.mm.memblock import NUMA_NO_NODE, Memblock

M, G = 1 << 20, 1 << 30
A = 0x40000000
U64 = (1 << 64) - 1


def early(
    *memory: tuple[int, int], kernel: str = "6.12", high: int | None = None, config: tuple[str, ...] = ()
) -> EarlyMm:
    """A machine of arm64 (of 32-bit ARM where ``high`` is the end of its linear map), nothing taken."""
    arch, abi = "arm64" if high is None else "arm", kernel_abi(kernel)
    memblock = Memblock()
    for base, size in memory or ((A, G),):
        memblock.add(base, size)
    log = Printk(ManualClock(), 0, 17, abi.printk, bits_per_long=32 if arch == "arm" else 64)
    made = parse_config(("tiny", *config), arch, abi)
    params = parse_early_params("", False)
    return EarlyMm(abi=abi, config=made, params=params, log=log, memblock=memblock, high_memory=high)


@dataclass(frozen=True)
class Want:
    """The error and the lines of a request."""

    code: int
    reason: str
    lines: tuple[str, ...] = ()


FAILED = "cma: Failed to reserve {} MiB on node -1"


@pytest.mark.parametrize(
    ("request_", "want"),
    [
        (CmaRequest(0, "z"), Want(errno.EINVAL, "size-zero")),
        (CmaRequest(M, "z", alignment=3), Want(errno.EINVAL, "alignment-not-a-power-of-two")),
        (CmaRequest(M, "z", alignment=M + 4096), Want(errno.EINVAL, "alignment-not-a-power-of-two")),
        (
            CmaRequest(16 * M, "z", base=A + M, fixed=True),
            Want(
                errno.EINVAL,
                "base-misaligned",
                (
                    "cma: Region at 0x0000000040100000 must be aligned to 0x0000000000200000 bytes",
                    FAILED.format(16),
                ),
            ),
        ),
        (
            CmaRequest(16 * M, "z", base=A + 2 * M, alignment=4 * M, fixed=True),
            Want(
                errno.EINVAL,
                "base-misaligned",
                (
                    "cma: Region at 0x0000000040200000 must be aligned to 0x0000000000400000 bytes",
                    FAILED.format(16),
                ),
            ),
        ),
        (CmaRequest(2 * M, "z", order_per_bit=10), Want(errno.EINVAL, "size-off-bits")),
        (
            CmaRequest(G + 1, "z", base=A),
            Want(
                errno.EINVAL,
                "exceeds-limit",
                (
                    "cma: Size (0x0000000040200000) of region at 0x0000000040000000 exceeds limit "
                    "(0x0000000080000000)",
                    FAILED.format(1026),
                ),
            ),
        ),
        (
            CmaRequest(16 * M, "z", base=0x50000000, limit=0x50FFFFFF),
            Want(
                errno.EINVAL,
                "exceeds-limit",
                (
                    "cma: Size (0x0000000001000000) of region at 0x0000000050000000 exceeds limit "
                    "(0x0000000050e00000)",
                    FAILED.format(16),
                ),
            ),
        ),
        (
            CmaRequest(16 * M, "z", base=0x60000000, fixed=True),
            Want(errno.EBUSY, "taken", (FAILED.format(16),)),
        ),
        (CmaRequest(G, "z"), Want(errno.ENOMEM, "no-room", (FAILED.format(1024),))),
        # sums are 64 bits wide: an end beyond that is low
        (
            CmaRequest(U64 - 4 * M, "z", base=A),
            Want(errno.ENOMEM, "no-room", (FAILED.format((1 << 44) - 4),)),
        ),
        (
            CmaRequest(U64 - A - 2 * M, "z", base=A),
            Want(
                errno.EINVAL,
                "exceeds-limit",
                (
                    "cma: Size (0xffffffffbfe00000) of region at 0x0000000040000000 exceeds limit "
                    "(0x0000000080000000)",
                    FAILED.format((1 << 44) - 1026),
                ),
            ),
        ),
    ],
)
def test_refused(request_: CmaRequest, want: Want) -> None:
    """mm/cma.c:cma_declare_contiguous_nid()@v6.12; 7.2 says Failed after each, with the size asked for."""
    machine = early()
    machine.memblock.reserve(0x607FF000, 4096)
    taken = list(machine.memblock.reserved)
    with pytest.raises(CmaRefused) as caught:
        cma_declare_contiguous_nid(machine, request_)
    assert (caught.value.errno, caught.value.reason) == (want.code, want.reason)
    assert tuple(machine.log.lines()) == want.lines
    assert machine.memblock.reserved == taken and len(machine.areas) == 0
    newest = early(kernel="7.2")
    newest.memblock.reserve(0x607FF000, 4096)
    with pytest.raises(CmaRefused) as caught:
        cma_declare_contiguous_nid(newest, request_)
    assert caught.value.errno == want.code
    assert newest.log.lines()[-1] == f"cma: Failed to reserve {request_.size >> 20} MiB"


@pytest.mark.parametrize(
    ("request_", "place", "line"),
    [
        (CmaRequest(16 * M, "z"), (0x7F000000, 16 * M), "16 MiB at 0x000000007f000000"),
        (CmaRequest(M, "z"), (0x7FE00000, 2 * M), "2 MiB at 0x000000007fe00000"),
        (CmaRequest(16 * M, "z", base=A, fixed=True), (A, 16 * M), "16 MiB at 0x0000000040000000"),
        (CmaRequest(G, "z", base=A, fixed=True), (A, G), "1024 MiB at 0x0000000040000000"),
        (CmaRequest(G, "z", base=A, limit=A + G), (A, G), "1024 MiB at 0x0000000040000000"),
        (CmaRequest(16 * M, "z", limit=2 * G + 5), (0x7F000000, 16 * M), "16 MiB at 0x000000007f000000"),
        (
            CmaRequest(16 * M, "z", base=A, limit=0x50FFFFFF),
            (0x4FE00000, 16 * M),
            "16 MiB at 0x000000004fe00000",
        ),
        (CmaRequest(16 * M, "z", fixed=True), (0x7F000000, 16 * M), "16 MiB at 0x000000007f000000"),
        (CmaRequest(M, "z", alignment=1), (0x7FE00000, 2 * M), "2 MiB at 0x000000007fe00000"),
        (CmaRequest(M, "z", alignment=2), (0x7FE00000, 2 * M), "2 MiB at 0x000000007fe00000"),
        (CmaRequest(5 * M, "z", alignment=64 * M), (0x7C000000, 64 * M), "64 MiB at 0x000000007c000000"),
        (CmaRequest(4 * M, "z", order_per_bit=10), (0x7FC00000, 4 * M), "4 MiB at 0x000000007fc00000"),
    ],
)
def test_placed(request_: CmaRequest, place: tuple[int, int], line: str) -> None:
    machine = early()
    cma = cma_declare_contiguous_nid(machine, request_)
    assert (cma.base_pfn << 12, cma.count << 12) == place
    assert [(region.base, region.size) for region in machine.memblock.reserved] == [place]
    assert machine.log.lines() == [f"cma: Reserved {line} on node -1"]


@pytest.mark.parametrize(
    ("kernel", "end", "limit", "base"),
    [
        ("6.12", 5 * G, 0, 4 * G),  # bottom-up from 4 GiB where memory reaches that much further
        ("6.12", 4 * G + 16 * M, 0, 4 * G),
        ("6.12", 4 * G + 14 * M, 0, 4 * G - 2 * M),  # else top-down, across 4 GiB if need be
        ("5.10", 5 * G, 0, 5 * G - 16 * M),
        ("6.12", 5 * G, 4 * G, 4 * G - 16 * M),
        ("7.2", 5 * G, 4 * G + 16 * M, 4 * G),  # from 6.17 on the limit decides
        ("7.2", 5 * G, 4 * G + 14 * M, 4 * G - 2 * M),
    ],
)
def test_from_4_gib_upwards(kernel: str, end: int, limit: int, base: int) -> None:
    machine = early((G, end - G), kernel=kernel)
    cma = cma_declare_contiguous_nid(machine, CmaRequest(16 * M, "z", limit=limit))
    assert cma.base_pfn << 12 == base
    assert not machine.memblock.bottom_up


@pytest.mark.parametrize("kernel", ["6.12", "7.2"])
def test_a_machine_that_searches_bottom_up_goes_on_so(kernel: str) -> None:
    """mm/cma.c:cma_alloc_mem()@v6.17: ``if (!memblock_bottom_up() && ...)``, as with movable_node on x86."""
    machine = early((G, 4 * G), kernel=kernel)
    machine.memblock.bottom_up = True
    cma = cma_declare_contiguous_nid(machine, CmaRequest(16 * M, "z"))
    assert (cma.base_pfn << 12, machine.memblock.bottom_up) == (G, True)


@pytest.mark.parametrize("kernel", ["5.10", "6.12", "7.2"])
def test_low_and_high_memory(kernel: str) -> None:
    """An area lies in one of them; high memory comes first (mm/cma.c@v6.12)."""

    def place(size: int, **more: int | bool) -> int:
        machine = early((A, 512 * M), kernel=kernel, high=0x50000000, config=("HIGHMEM=y",))
        return cma_declare_contiguous_nid(machine, CmaRequest(size, "z", **more)).base_pfn << 12  # type: ignore[arg-type]

    assert place(16 * M) == 0x5F000000
    assert place(256 * M) == 0x50000000
    assert place(16 * M, limit=0x50000000) == 0x4F000000
    assert place(16 * M, limit=0x50800000) == 0x4F000000  # too little of it is high
    assert place(16 * M, base=0x4F000000, fixed=True) == 0x4F000000
    assert place(16 * M, base=0x50000000, fixed=True) == 0x50000000
    machine = early((A, 512 * M), kernel=kernel, high=0x50000000, config=("HIGHMEM=y",))
    with pytest.raises(CmaRefused, match=r"low-high-boundary$"):
        cma_declare_contiguous_nid(machine, CmaRequest(16 * M, "z", base=0x4F800000, fixed=True))
    assert machine.log.lines()[-2] == (
        "cma: Region at 0x4f800000 defined on low/high memory boundary (0x50000000)"
    )
    with pytest.raises(CmaRefused, match=r"no-room$"):
        place(257 * M)


def test_no_slot_comes_first() -> None:
    machine = early(config=("CMA_AREAS=1",))
    for index in range(machine.areas.max_areas):
        cma_declare_contiguous_nid(machine, CmaRequest(2 * M, f"a{index}"))
    with pytest.raises(CmaRefused) as caught:
        cma_declare_contiguous_nid(machine, CmaRequest(0, "z"))
    assert (caught.value.errno, caught.value.reason) == (errno.ENOSPC, "no-slot")
    assert machine.log.lines()[-1] == "cma: Not enough slots for CMA reserved regions!"
    machine.memblock.reserve(A, 2 * M)
    with pytest.raises(CmaRefused) as caught:
        init_reserved_mem(machine, A, 2 * M, 0, "z")
    assert (caught.value.errno, caught.value.reason) == (errno.ENOSPC, "no-slot")


@pytest.mark.parametrize(
    ("base", "size", "reason"),
    [(A, 0, "size-zero"), (A + 16 * M, 2 * M, "not-reserved"), (A + M, 2 * M, "misaligned")],
)
def test_reserved_memory_that_cannot_be_an_area(base: int, size: int, reason: str) -> None:
    """mm/cma.c:cma_init_reserved_mem()@v6.12"""
    machine = early()
    machine.memblock.reserve(A, 8 * M)
    with pytest.raises(CmaRefused) as caught:
        init_reserved_mem(machine, base, size, 0, "z")
    assert (caught.value.errno, caught.value.reason) == (errno.EINVAL, reason)


HOLES = ((G, G), (4 * G, 64 * M), (5 * G + M, 129 * M), (6 * G, 256 * M), (7 * G, 2 * M))


@pytest.mark.parametrize(
    ("size", "ranges"),
    [
        (256 * M, [(6 * G, 256 * M)]),
        (1024 * M, [(G, 1024 * M)]),  # one range, and below 4 GiB, comes before several
    ],
)
def test_one_range_is_enough(size: int, ranges: list[tuple[int, int]]) -> None:
    machine = early(*HOLES, kernel="7.2")
    cma = cma_declare_contiguous_multi(machine, CmaRequest(size, "z"))
    assert [(r.base_pfn << 12, r.count << 12) for r in cma.ranges] == ranges
    assert machine.log.lines()[-1] == f"cma: Reserved {size // M} MiB in 1 range"


@pytest.mark.parametrize(
    ("size", "more", "reason"),
    [
        (0, {}, "size-zero"),
        (400 * M, {"alignment": 3}, "alignment-not-a-power-of-two"),
        (8 * G, {}, "exceeds-limit"),
        (400 * M, {"base": 4 * G, "fixed": True}, "taken"),
    ],
)
def test_only_want_of_room_leads_to_several_ranges(size: int, more: dict[str, int], reason: str) -> None:
    machine = early((G, 64 * M), *HOLES[1:], kernel="7.2")
    machine.memblock.reserve(4 * G, 4096)
    with pytest.raises(CmaRefused, match=f"{reason}$"):
        cma_declare_contiguous_multi(machine, CmaRequest(size, "z", **more))  # type: ignore[arg-type]
    assert len(machine.areas) == 0
    assert machine.log.lines()[-1] == f"cma: Failed to reserve {size // M} MiB"


def test_several_ranges_above_4_gib_the_largest_first() -> None:
    """mm/cma.c:cma_declare_contiguous_multi()@7.2: whole units of them, then in the order of addresses."""
    low = (G, 64 * M)
    machine = early(low, *HOLES[1:], kernel="7.2")
    cma = cma_declare_contiguous_multi(machine, CmaRequest(400 * M, "z"))
    found = [(r.base_pfn << 12, r.count << 12) for r in cma.ranges]
    assert found == [(4 * G, 16 * M), (5 * G + 2 * M, 128 * M), (6 * G, 256 * M)]
    assert [(region.base, region.size) for region in machine.memblock.reserved] == found
    assert cma.count << 12 == 400 * M
    assert machine.log.lines()[-1] == "cma: Reserved 400 MiB in 3 ranges"
    machine = early(low, *HOLES[1:], kernel="7.2")
    assert len(cma_declare_contiguous_multi(machine, CmaRequest(450 * M, "z")).ranges) == 4
    machine = early(low, *HOLES[1:], kernel="7.2")
    with pytest.raises(CmaRefused, match=r"no-room$"):
        cma_declare_contiguous_multi(machine, CmaRequest(452 * M, "z"))
    assert machine.log.lines()[-1] == "cma: Failed to reserve 452 MiB"
    many = early(low, *((4 * G + i * 16 * M, 2 * M) for i in range(9)), kernel="7.2")
    with pytest.raises(CmaRefused, match=r"no-room$"):
        cma_declare_contiguous_multi(many, CmaRequest(66 * M, "z"))
    many = early((G, 2 * M), *((4 * G + i * 16 * M, 2 * M) for i in range(9)), kernel="7.2")
    assert len(cma_declare_contiguous_multi(many, CmaRequest(16 * M, "z")).ranges) == 8
    many = early((G, 2 * M), *((4 * G + i * 16 * M, 2 * M) for i in range(9)), kernel="7.2")
    with pytest.raises(CmaRefused, match=r"no-room$"):
        cma_declare_contiguous_multi(many, CmaRequest(18 * M, "z"))


@pytest.mark.parametrize("debug", ["y", "n"])
@pytest.mark.parametrize("debugfs", ["y", "n"])
def test_which_debug_lines_print_from_the_start(debug: str, debugfs: str) -> None:
    """CONFIG_CMA_DEBUG defines DEBUG for mm/cma.c, but not for mm/cma_debug.c (mm/cma.c@v5.10)."""
    machine = early(kernel="5.10", config=(f"CMA_DEBUG={debug}", f"CMA_DEBUGFS={debugfs}"))
    sites, flags = machine.areas.abi.sites, machine.log.debug_flags
    assert flags[sites.declare] == (DPRINTK_FLAGS_PRINT if debug == "y" else 0)
    assert flags.get(sites.partial_block) == (0 if debugfs == "y" else None)


@pytest.mark.parametrize(("numa", "node"), [("NUMA=y", 0), ("NUMA=n", NUMA_NO_NODE)])
@pytest.mark.parametrize(("size", "ranges"), [(256 * M, 1), (400 * M, 3)])
def test_an_area_knows_its_node_where_there_are_nodes(numa: str, node: int, size: int, ranges: int) -> None:
    machine = early((G, 64 * M), *HOLES[1:], kernel="7.2", config=(numa,))
    cma = cma_declare_contiguous_multi(machine, CmaRequest(size, "z", nid=0))
    assert (cma.nid, len(cma.ranges)) == (node, ranges)
    assert cma_declare_contiguous_nid(machine, CmaRequest(2 * M, "y", nid=0)).nid == node
