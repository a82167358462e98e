"""Declaring an area before the page allocator runs: where it goes, or why it does not.

Addresses and sizes are bytes. Kernel: ``mm/cma.c:cma_declare_contiguous_nid()`` and its helpers; the order
of the checks is the interface, because it decides which line a wrong request gets.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from cmafs.abi.boot import BOTTOM_UP_BY_LIMIT, BOTTOM_UP_BY_MEMORY
from cmafs.lib.kstrtox import U64_MAX
from cmafs.lib.math import rounddown, roundup
from cmafs.lib.sizes import SZ_1M, SZ_4G
from cmafs.mm.cma import Cma, CmaMemrange, cma_init_reserved_mem
from cmafs.mm.early import EarlyMm
from cmafs.mm.memblock import NUMA_NO_NODE

#: CMA_MAX_RANGES, mm/cma.h@7.2
_CMA_MAX_RANGES = 8


class CmaRefused(OSError):
    """An area was not made: the kernel's error number, and ``reason``, a key for ``cmafs check``."""

    def __init__(self, error: int, reason: str) -> None:
        super().__init__(error, reason)
        self.reason = reason


@dataclass(frozen=True)
class CmaRequest:
    """The arguments of cma_declare_contiguous_nid(); bytes. ``limit`` 0: none; ``alignment`` 0: the unit."""

    size: int
    name: str
    base: int = 0
    limit: int = 0
    alignment: int = 0
    order_per_bit: int = 0
    fixed: bool = False
    nid: int = NUMA_NO_NODE


@dataclass(eq=False)
class _Sanitised:
    """A request after the rounding that the kernel does in place."""

    base: int
    size: int
    limit: int
    alignment: int
    fixed: bool
    nid: int


def init_reserved_mem(early: EarlyMm, base: int, size: int, order_per_bit: int, name: str) -> Cma:
    """cma_init_reserved_mem() with its question to memblock, which the area table cannot ask.

    Raises CmaRefused: ENOSPC (no slot), EINVAL (size 0, not reserved, not aligned).
    """
    areas = early.areas
    if len(areas) < areas.max_areas:
        if not size:
            raise CmaRefused(errno.EINVAL, "size-zero")
        if not early.memblock.is_region_reserved(base, size):
            raise CmaRefused(errno.EINVAL, "not-reserved")
    try:
        return cma_init_reserved_mem(areas, base, size, order_per_bit, name)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise CmaRefused(
            errno.ENOSPC if full else errno.EINVAL, "no-slot" if full else "misaligned"
        ) from error


def cma_declare_contiguous_nid(early: EarlyMm, request: CmaRequest) -> Cma:
    """Find or check the place of an area, reserve it, take a slot, say so.

    Raises CmaRefused with the kernel's error after its lines.
    ``mm/cma.c:cma_declare_contiguous_nid()@v6.12``.
    """
    rounded = _Sanitised(
        request.base, request.size, request.limit, request.alignment, request.fixed, request.nid
    )
    try:
        cma = _declare(early, request, rounded)
    except CmaRefused as refused:
        _say_failed(early, request, rounded, refused)
        raise
    size = rounded.size if early.abi.boot.mib_after_rounding else request.size
    base = cma.base_pfn << early.config.page_shift
    node = _on_node(early, rounded)
    early.log.printk(f"cma: Reserved {size // SZ_1M} MiB at {early.pa(base)}{node}")
    return cma


def _on_node(early: EarlyMm, rounded: _Sanitised) -> str:
    return f" on node {rounded.nid}" if early.abi.boot.reserved_says_node else ""


#: Errors that return before the Failed line in the kernels where not every error gets one.
_SILENT = frozenset({"no-slot", "size-zero", "alignment-not-a-power-of-two", "size-off-bits"})


def _say_failed(early: EarlyMm, request: CmaRequest, rounded: _Sanitised, refused: CmaRefused) -> None:
    if refused.reason in _SILENT and not early.abi.boot.failed_after_every_error:
        return
    size = rounded.size if early.abi.boot.mib_after_rounding else request.size
    early.cma_error(f"Failed to reserve {size // SZ_1M} MiB{_on_node(early, rounded)}")


def _declare(early: EarlyMm, request: CmaRequest, rounded: _Sanitised) -> Cma:
    """__cma_declare_contiguous_nid(): everything but the last line."""
    areas = early.areas
    pa = early.pa
    early.log.pr_debug(
        areas.abi.sites.declare,
        areas.abi.sites.declare.function,
        *(pa(value) for value in (request.size, request.base, request.limit, request.alignment)),
    )
    if len(areas) >= areas.max_areas:
        early.cma_error("Not enough slots for CMA reserved regions!")
        raise CmaRefused(errno.ENOSPC, "no-slot")
    if not request.size:
        raise CmaRefused(errno.EINVAL, "size-zero")
    if request.alignment & (request.alignment - 1):
        raise CmaRefused(errno.EINVAL, "alignment-not-a-power-of-two")
    _sanitise(early, request, rounded)
    base = _reserve_fixed(early, rounded) if rounded.fixed else _find_place(early, rounded)
    try:
        cma = init_reserved_mem(early, base, rounded.size, request.order_per_bit, request.name)
    except CmaRefused:
        early.memblock.phys_free(base, rounded.size)
        raise
    cma.nid = rounded.nid
    return cma


def _sanitise(early: EarlyMm, request: CmaRequest, rounded: _Sanitised) -> None:
    """Round base and size up, the limit down; check them against each other and the machine."""
    rounded.alignment = alignment = max(request.alignment, early.areas.min_alignment)
    if not early.config.on("NUMA"):
        rounded.nid = NUMA_NO_NODE
    if early.abi.boot.checks_place and request.fixed and request.base & (alignment - 1):
        early.cma_error(
            f"Region at {early.pa(request.base)} must be aligned to {early.pa(alignment)} bytes",
        )
        raise CmaRefused(errno.EINVAL, "base-misaligned")
    rounded.base = roundup(request.base, alignment) & U64_MAX
    rounded.size = roundup(request.size, alignment) & U64_MAX
    rounded.limit = request.limit & ~(alignment - 1)
    rounded.fixed = request.fixed and rounded.base != 0
    if (rounded.size >> early.config.page_shift) & ((1 << request.order_per_bit) - 1):
        raise CmaRefused(errno.EINVAL, "size-off-bits")
    if not early.abi.boot.boundary_highmem_only:
        _check_boundary(early, rounded)
    end = early.memblock.end_of_dram()
    if rounded.limit == 0 or rounded.limit > end:
        rounded.limit = end
    if early.abi.boot.checks_place and (rounded.base + rounded.size) & U64_MAX > rounded.limit:
        size, base, limit = (early.pa(v) for v in (rounded.size, rounded.base, rounded.limit))
        early.cma_error(f"Size ({size}) of region at {base} exceeds limit ({limit})")
        raise CmaRefused(errno.EINVAL, "exceeds-limit")


def _check_boundary(early: EarlyMm, rounded: _Sanitised) -> None:
    """A fixed area must not cross the end of the linear map."""
    start = early.highmem_start()
    if rounded.fixed and rounded.base < start < rounded.base + rounded.size:
        early.cma_error(
            f"Region at {early.pa(rounded.base)} defined on low/high memory boundary ({early.pa(start)})",
        )
        raise CmaRefused(errno.EINVAL, "low-high-boundary")


def _reserve_fixed(early: EarlyMm, rounded: _Sanitised) -> int:
    """cma_fixed_reserve(): the place asked for, or EBUSY."""
    if early.abi.boot.boundary_highmem_only and early.high_memory is not None:
        _check_boundary(early, rounded)
    if early.memblock.is_region_reserved(rounded.base, rounded.size):
        raise CmaRefused(errno.EBUSY, "taken")
    early.memblock.reserve(rounded.base, rounded.size)
    return rounded.base


def _above_4g_wanted(early: EarlyMm, rounded: _Sanitised) -> bool:
    rule = early.abi.boot.bottom_up_rule
    if not early.phys_64 or early.memblock.bottom_up:
        return False
    if rule == BOTTOM_UP_BY_MEMORY:
        return early.memblock.end_of_dram() >= SZ_4G + rounded.size
    return rule == BOTTOM_UP_BY_LIMIT and rounded.limit >= SZ_4G + rounded.size


def _search(early: EarlyMm, rounded: _Sanitised, start: int, limit: int) -> int:
    return early.memblock.phys_alloc_range(
        rounded.size, rounded.alignment, start, limit, rounded.nid, exact_nid=True
    )


def _find_place(early: EarlyMm, rounded: _Sanitised) -> int:
    """cma_alloc_mem(): from 4 GiB upwards first, then high memory, then top-down. Raises ENOMEM."""
    memblock, limit, found = early.memblock, rounded.limit, 0
    if _above_4g_wanted(early, rounded):
        memblock.bottom_up = True
        found = _search(early, rounded, SZ_4G, limit)
        memblock.bottom_up = False
    highmem = early.highmem_start()
    if not found and rounded.base < highmem < limit:
        found = _search(early, rounded, highmem, limit)
        limit = highmem
    found = found or _search(early, rounded, rounded.base, limit)
    if not found:
        raise CmaRefused(errno.ENOMEM, "no-room")
    return found


def cma_declare_contiguous_multi(early: EarlyMm, request: CmaRequest) -> Cma:
    """An area of one range if there is room for it, else of up to eight above 4 GiB.

    Raises CmaRefused after its Failed line. ``mm/cma.c:cma_declare_contiguous_multi()@7.2``.
    """
    rounded = _Sanitised(
        request.base, request.size, request.limit, request.alignment, request.fixed, request.nid
    )
    try:
        try:
            cma = _declare(early, request, rounded)
        except CmaRefused as refused:
            if refused.errno != errno.ENOMEM:
                raise
            cma = _declare_ranges(early, request, rounded)
    except CmaRefused:
        early.cma_error(f"Failed to reserve {request.size // SZ_1M} MiB")
        raise
    nr = len(cma.ranges)
    plural = "s" if nr > 1 else ""
    early.log.printk(f"cma: Reserved {request.size // SZ_1M} MiB in {nr} range{plural}")
    return cma


def _largest_ranges(early: EarlyMm, rounded: _Sanitised) -> list[tuple[int, int]]:
    """Aligned free ranges above 4 GiB as (base, size), the largest first, at most CMA_MAX_RANGES."""
    align = rounded.alignment
    ranges = []
    for start, end in early.memblock.free_ranges(rounded.nid):
        start, end = roundup(start, align), rounddown(end, align)
        if start >= SZ_4G and start < end:
            ranges.append((start, end - start))
    return sorted(ranges, key=lambda found: -found[1])[:_CMA_MAX_RANGES]


def _declare_ranges(early: EarlyMm, request: CmaRequest, rounded: _Sanitised) -> Cma:
    """Collect the largest ranges until the size is reached, then put them in address order."""
    ranges = _largest_ranges(early, rounded)
    if sum(size for _, size in ranges) < rounded.size:
        raise CmaRefused(errno.ENOMEM, "no-room")
    shift, left = early.config.page_shift, rounded.size
    cma = early.areas.cma_new_area(request.name, rounded.size >> shift, request.order_per_bit)
    chosen = []
    for base, size in ranges:
        if left:
            chosen.append((base, min(size, left)))
            left -= min(size, left)
    for base, size in sorted(chosen):
        early.memblock.reserve(base, size)
        cma.ranges.append(CmaMemrange(base >> shift, size >> shift))
    cma.nid = rounded.nid
    return cma


__all__ = [
    "CmaRefused",
    "CmaRequest",
    "cma_declare_contiguous_multi",
    "cma_declare_contiguous_nid",
    "init_reserved_mem",
]
