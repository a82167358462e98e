"""Declaring an area before the page allocator runs: where it goes, or why it does not.

Addresses and sizes are bytes. Kernel: ``mm/cma.c:cma_declare_contiguous_nid()`` and its helpers; the order
of the checks is the interface, because it decides which line a wrong request gets.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from cmafs.abi.boot import BOTTOM_UP_BY_LIMIT, BOTTOM_UP_BY_MEMORY, BootAbi
from cmafs.mm.cma import Cma, CmaAreas, CmaMemrange, cma_init_reserved_mem
from cmafs.mm.memblock import NUMA_NO_NODE, Memblock
from cmafs.printk import LOGLEVEL_ERR

SZ_1M = 1 << 20
SZ_4G = 1 << 32

#: CMA_MAX_RANGES, mm/cma.h@7.2
_CMA_MAX_RANGES = 8

_U64 = (1 << 64) - 1


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


@dataclass
class CmaDeclare:
    """What the declaring functions work on.

    ``high_memory``: one past the linear map (``__pa(high_memory - 1) + 1``); None: the end of RAM, as without
    CONFIG_HIGHMEM. ``phys_64``: CONFIG_PHYS_ADDR_T_64BIT. ``numa``: CONFIG_NUMA.
    """

    memblock: Memblock
    areas: CmaAreas
    abi: BootAbi
    high_memory: int | None = None
    phys_64: bool = True
    numa: bool = False

    def pa(self, address: int) -> str:
        """``%pa``: 0x and 16 hex digits, 8 where physical addresses have 32 bits."""
        return f"{address:#018x}" if self.phys_64 else f"{address & 0xFFFFFFFF:#010x}"

    def highmem_start(self) -> int:
        """Where memory outside the linear map begins."""
        return self.memblock.end_of_dram() if self.high_memory is None else self.high_memory


@dataclass
class _Sanitised:
    """A request after the rounding that the kernel does in place."""

    base: int
    size: int
    limit: int
    alignment: int
    fixed: bool
    nid: int


def _error(context: CmaDeclare, text: str) -> None:
    context.areas.log.printk("cma: " + text, LOGLEVEL_ERR)


def init_reserved_mem(context: CmaDeclare, base: int, size: int, order_per_bit: int, name: str) -> Cma:
    """cma_init_reserved_mem() with its question to memblock, which the area table cannot ask.

    Raises CmaRefused: ENOSPC (no slot), EINVAL (size 0, not reserved, not aligned).
    """
    areas = context.areas
    if len(areas) < areas.max_areas:
        if not size:
            raise CmaRefused(errno.EINVAL, "size-zero")
        if not context.memblock.is_region_reserved(base, size):
            raise CmaRefused(errno.EINVAL, "not-reserved")
    try:
        return cma_init_reserved_mem(areas, base, size, order_per_bit, name)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise CmaRefused(
            errno.ENOSPC if full else errno.EINVAL, "no-slot" if full else "misaligned"
        ) from error


def cma_declare_contiguous_nid(context: CmaDeclare, request: CmaRequest) -> Cma:
    """Find or check the place of an area, reserve it, take a slot, say so.

    Raises CmaRefused with the kernel's error after its lines.
    ``mm/cma.c:cma_declare_contiguous_nid()@v6.12``.
    """
    rounded = _Sanitised(
        request.base, request.size, request.limit, request.alignment, request.fixed, request.nid
    )
    try:
        cma = _declare(context, request, rounded)
    except CmaRefused as refused:
        _say_failed(context, request, rounded, refused)
        raise
    size = rounded.size if context.abi.mib_after_rounding else request.size
    base = cma.base_pfn << context.areas.page_shift
    node = _on_node(context, rounded)
    context.areas.log.printk(f"cma: Reserved {size // SZ_1M} MiB at {context.pa(base)}{node}")
    return cma


def _on_node(context: CmaDeclare, rounded: _Sanitised) -> str:
    return f" on node {rounded.nid}" if context.abi.reserved_says_node else ""


#: Errors that return before the Failed line in the kernels where not every error gets one.
_SILENT = frozenset({"no-slot", "size-zero", "alignment-not-a-power-of-two", "size-off-bits"})


def _say_failed(context: CmaDeclare, request: CmaRequest, rounded: _Sanitised, refused: CmaRefused) -> None:
    if refused.reason in _SILENT and not context.abi.failed_after_every_error:
        return
    size = rounded.size if context.abi.mib_after_rounding else request.size
    _error(context, f"Failed to reserve {size // SZ_1M} MiB{_on_node(context, rounded)}")


def _declare(context: CmaDeclare, request: CmaRequest, rounded: _Sanitised) -> Cma:
    """__cma_declare_contiguous_nid(): everything but the last line."""
    areas = context.areas
    pa = context.pa
    areas.log.pr_debug(
        areas.abi.sites.declare,
        areas.abi.sites.declare.function,
        *(pa(value) for value in (request.size, request.base, request.limit, request.alignment)),
    )
    if len(areas) >= areas.max_areas:
        _error(context, "Not enough slots for CMA reserved regions!")
        raise CmaRefused(errno.ENOSPC, "no-slot")
    if not request.size:
        raise CmaRefused(errno.EINVAL, "size-zero")
    if request.alignment & (request.alignment - 1):
        raise CmaRefused(errno.EINVAL, "alignment-not-a-power-of-two")
    _sanitise(context, request, rounded)
    base = _reserve_fixed(context, rounded) if rounded.fixed else _find_place(context, rounded)
    try:
        cma = init_reserved_mem(context, base, rounded.size, request.order_per_bit, request.name)
    except CmaRefused:
        context.memblock.phys_free(base, rounded.size)
        raise
    cma.nid = rounded.nid
    return cma


def _sanitise(context: CmaDeclare, request: CmaRequest, rounded: _Sanitised) -> None:
    """Round base and size up, the limit down; check them against each other and the machine."""
    rounded.alignment = alignment = max(request.alignment, context.areas.min_alignment)
    if not context.numa:
        rounded.nid = NUMA_NO_NODE
    if request.fixed and request.base & (alignment - 1):
        _error(
            context,
            f"Region at {context.pa(request.base)} must be aligned to {context.pa(alignment)} bytes",
        )
        raise CmaRefused(errno.EINVAL, "base-misaligned")
    rounded.base = -(-request.base // alignment) * alignment & _U64
    rounded.size = -(-request.size // alignment) * alignment & _U64
    rounded.limit = request.limit & ~(alignment - 1)
    rounded.fixed = request.fixed and rounded.base != 0
    if (rounded.size >> context.areas.page_shift) & ((1 << request.order_per_bit) - 1):
        raise CmaRefused(errno.EINVAL, "size-off-bits")
    if not context.abi.boundary_highmem_only:
        _check_boundary(context, rounded)
    end = context.memblock.end_of_dram()
    if rounded.limit == 0 or rounded.limit > end:
        rounded.limit = end
    if (rounded.base + rounded.size) & _U64 > rounded.limit:
        size, base, limit = (context.pa(v) for v in (rounded.size, rounded.base, rounded.limit))
        _error(context, f"Size ({size}) of region at {base} exceeds limit ({limit})")
        raise CmaRefused(errno.EINVAL, "exceeds-limit")


def _check_boundary(context: CmaDeclare, rounded: _Sanitised) -> None:
    """A fixed area must not cross the end of the linear map."""
    start = context.highmem_start()
    if rounded.fixed and rounded.base < start < rounded.base + rounded.size:
        _error(
            context,
            f"Region at {context.pa(rounded.base)} defined on low/high memory boundary ({context.pa(start)})",
        )
        raise CmaRefused(errno.EINVAL, "low-high-boundary")


def _reserve_fixed(context: CmaDeclare, rounded: _Sanitised) -> int:
    """cma_fixed_reserve(): the place asked for, or EBUSY."""
    if context.abi.boundary_highmem_only and context.high_memory is not None:
        _check_boundary(context, rounded)
    if context.memblock.is_region_reserved(rounded.base, rounded.size):
        raise CmaRefused(errno.EBUSY, "taken")
    context.memblock.reserve(rounded.base, rounded.size)
    return rounded.base


def _above_4g_wanted(context: CmaDeclare, rounded: _Sanitised) -> bool:
    rule = context.abi.bottom_up_rule
    if not context.phys_64 or context.memblock.bottom_up:
        return False
    if rule == BOTTOM_UP_BY_MEMORY:
        return context.memblock.end_of_dram() >= SZ_4G + rounded.size
    return rule == BOTTOM_UP_BY_LIMIT and rounded.limit >= SZ_4G + rounded.size


def _search(context: CmaDeclare, rounded: _Sanitised, start: int, limit: int) -> int:
    return context.memblock.phys_alloc_range(
        rounded.size, rounded.alignment, start, limit, rounded.nid, exact_nid=True
    )


def _find_place(context: CmaDeclare, rounded: _Sanitised) -> int:
    """cma_alloc_mem(): from 4 GiB upwards first, then high memory, then top-down. Raises ENOMEM."""
    memblock, limit, found = context.memblock, rounded.limit, 0
    if _above_4g_wanted(context, rounded):
        memblock.bottom_up = True
        found = _search(context, rounded, SZ_4G, limit)
        memblock.bottom_up = False
    highmem = context.highmem_start()
    if not found and rounded.base < highmem < limit:
        found = _search(context, rounded, highmem, limit)
        limit = highmem
    found = found or _search(context, rounded, rounded.base, limit)
    if not found:
        raise CmaRefused(errno.ENOMEM, "no-room")
    return found


def cma_declare_contiguous_multi(context: CmaDeclare, request: CmaRequest) -> Cma:
    """An area of one range if there is room for it, else of up to eight above 4 GiB.

    Raises CmaRefused after its Failed line. ``mm/cma.c:cma_declare_contiguous_multi()@7.2``.
    """
    rounded = _Sanitised(
        request.base, request.size, request.limit, request.alignment, request.fixed, request.nid
    )
    try:
        try:
            cma = _declare(context, request, rounded)
        except CmaRefused as refused:
            if refused.errno != errno.ENOMEM:
                raise
            cma = _declare_ranges(context, request, rounded)
    except CmaRefused:
        _error(context, f"Failed to reserve {request.size // SZ_1M} MiB")
        raise
    nr = len(cma.ranges)
    plural = "s" if nr > 1 else ""
    context.areas.log.printk(f"cma: Reserved {request.size // SZ_1M} MiB in {nr} range{plural}")
    return cma


def _largest_ranges(context: CmaDeclare, rounded: _Sanitised) -> list[tuple[int, int]]:
    """Aligned free ranges above 4 GiB as (base, size), the largest first, at most CMA_MAX_RANGES."""
    align = rounded.alignment
    ranges = []
    for start, end in context.memblock.free_ranges(rounded.nid):
        start, end = -(-start // align) * align, end // align * align
        if start >= SZ_4G and start < end:
            ranges.append((start, end - start))
    return sorted(ranges, key=lambda found: -found[1])[:_CMA_MAX_RANGES]


def _declare_ranges(context: CmaDeclare, request: CmaRequest, rounded: _Sanitised) -> Cma:
    """Collect the largest ranges until the size is reached, then put them in address order."""
    ranges = _largest_ranges(context, rounded)
    if sum(size for _, size in ranges) < rounded.size:
        raise CmaRefused(errno.ENOMEM, "no-room")
    shift, left = context.areas.page_shift, rounded.size
    cma = context.areas.cma_new_area(request.name, rounded.size >> shift, request.order_per_bit)
    chosen = []
    for base, size in ranges:
        if left:
            chosen.append((base, min(size, left)))
            left -= min(size, left)
    for base, size in sorted(chosen):
        context.memblock.reserve(base, size)
        cma.ranges.append(CmaMemrange(base >> shift, size >> shift))
    cma.nid = rounded.nid
    return cma


__all__ = [
    "CmaDeclare",
    "CmaRefused",
    "CmaRequest",
    "cma_declare_contiguous_multi",
    "cma_declare_contiguous_nid",
    "init_reserved_mem",
]
