"""The bounce buffer for devices that do not reach all memory: its size, its place, its lines.

Kernel: ``kernel/dma/swiotlb.c@v6.12``. Sizes are bytes, slabs 2 KiB.
"""

from __future__ import annotations

from cmafs.arch.setup import EarlyBoot
from cmafs.lib.kstrtox import simple_strtoull
from cmafs.lib.math import roundup
from cmafs.lib.printk import LOGLEVEL_WARNING
from cmafs.lib.sizes import SZ_1M

_IO_TLB_SHIFT = 11
_IO_TLB_SEGSIZE = 128
_IO_TLB_DEFAULT_SLABS = (64 << 20) >> _IO_TLB_SHIFT
_IO_TLB_MIN_SLABS = (1 << 20) >> _IO_TLB_SHIFT

#: What its tables take besides the slots on x86_64 (T, 4 GiB guests).
_EXTRA = 4 << 10


def _pr_info(boot: EarlyBoot, text: str) -> None:
    boot.log.printk(f"software IO TLB: {text}")


def _aligned(slabs: int) -> int:
    return roundup(slabs, _IO_TLB_SEGSIZE)


def _parameters(boot: EarlyBoot) -> tuple[int, int, str]:
    """``setup_io_tlb_npages()``, ``swiotlb=``: (slabs, areas, ``force``, ``noforce`` or ""); 0: not given."""
    slabs, areas, how = 0, 0, ""
    for value in boot.params.values("swiotlb"):
        rest = value or ""
        if rest[:1].isdecimal():
            number, rest = simple_strtoull(rest)
            slabs = _aligned(number)
        rest = rest.removeprefix(",")
        if boot.abi.boot.swiotlb_has_areas:
            if rest[:1].isdecimal():
                areas, rest = simple_strtoull(rest)
            rest = rest.removeprefix(",")
        how = rest if rest in ("force", "noforce") else how
    return slabs, areas, how


def swiotlb_size_or_default(boot: EarlyBoot) -> int:
    """How many bytes the buffer is to have: ``swiotlb=``, else 64 MiB."""
    return (_parameters(boot)[0] or _IO_TLB_DEFAULT_SLABS) << _IO_TLB_SHIFT


def swiotlb_init(boot: EarlyBoot, limited: bool, low: int, adjusted: int = 0) -> None:
    """``swiotlb_init_remap()``: take the buffer from below ``low``, whose last byte the limit spares.

    ``limited``: some memory is out of the reach of some device; else ``adjusted`` is the size wanted all the
    same, 0 for none.
    """
    slabs, areas, how = _parameters(boot)
    wanted = slabs or _IO_TLB_DEFAULT_SLABS
    if adjusted and not limited:
        if not slabs:
            wanted = _aligned(min(adjusted, wanted << _IO_TLB_SHIFT) >> _IO_TLB_SHIFT)
            size = (wanted << _IO_TLB_SHIFT) // SZ_1M
            _pr_info(boot, f"SWIOTLB bounce buffer size adjusted to {size}MB")
        limited = True
    if (not limited and how != "force") or how == "noforce":
        return
    if boot.abi.boot.swiotlb_has_areas:
        wanted = _adjust_nareas(boot, areas or boot.nr_cpus, wanted)
    _allocate(boot, wanted, low - 1)


def _adjust_nareas(boot: EarlyBoot, cpus: int, slabs: int) -> int:
    """``swiotlb_adjust_nareas()``: an area a CPU, a power of two of slabs; the slabs that makes."""
    areas = 1 << (cpus - 1).bit_length()
    _pr_info(boot, f"area num {areas}.")
    rounded = max(slabs, _IO_TLB_SEGSIZE * areas)
    rounded = 1 << (rounded - 1).bit_length()
    if rounded != slabs:
        size = (rounded << _IO_TLB_SHIFT) // SZ_1M
        _pr_info(boot, f"SWIOTLB bounce buffer size roundup to {size}MB")
    return rounded


def _allocate(boot: EarlyBoot, wanted: int, low: int) -> None:
    slabs, size = wanted, boot.page_size
    low = min(low, boot.memblock.current_limit)  # memblock_alloc_internal(): low memory on 32-bit ARM
    while not (start := boot.memblock.phys_alloc_range(slabs << _IO_TLB_SHIFT, size, 0, low)):
        text = f"swiotlb_memblock_alloc: Failed to allocate {slabs << _IO_TLB_SHIFT} bytes tlb structure"
        boot.log.printk(f"software IO TLB: {text}", LOGLEVEL_WARNING)
        if slabs <= _IO_TLB_MIN_SLABS:
            return
        slabs = _aligned(slabs >> 1)
    boot.touch(start, slabs << _IO_TLB_SHIFT)
    if slabs != wanted:
        _pr_info(boot, f"SWIOTLB bounce buffer size adjusted {wanted} -> {slabs} slabs")
    table = roundup(slabs * boot.data.swiotlb_slot_bytes, size)
    boot.memblock_alloc(table + (_EXTRA if boot.config.arch == "x86_64" else 0), size)
    end = start + (slabs << _IO_TLB_SHIFT)
    _pr_info(boot, f"mapped [mem {boot.pa(start)}-{boot.pa(end)}] ({(end - start) // SZ_1M}MB)")
