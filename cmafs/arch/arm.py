"""32-bit ARM: low memory, high memory, and the mappings of areas that are remade at boot.

Kernel: ``arch/arm/mm/mmu.c``, ``arch/arm/mm/init.c``, ``arch/arm/mm/dma-mapping.c``. Bytes.
"""

from __future__ import annotations

from cmafs.arch import arm64
from cmafs.arch.setup import ArchOps, EarlyBoot
from cmafs.arch.swiotlb import swiotlb_init
from cmafs.lib.boot_event import EFFECT_NOTE, EFFECT_PANIC
from cmafs.lib.cmdline import memparse
from cmafs.lib.math import rounddown
from cmafs.lib.printk import LOGLEVEL_NOTICE, LOGLEVEL_WARNING
from cmafs.lib.sizes import SZ_1G, SZ_1M, SZ_16M, SZ_32M, SZ_256M
from cmafs.mm.memblock import MemblockRegion
from cmafs.of.memory import early_init_dt_add_memory_arch

_PMD_SIZE = 1 << 21

#: PAGE_OFFSET by VMSPLIT (arch/arm/Kconfig).
_PAGE_OFFSETS = {
    "VMSPLIT_1G": 0x40000000,
    "VMSPLIT_2G": 0x80000000,
    "VMSPLIT_3G_OPT": 0xB0000000,
    "VMSPLIT_3G": 0xC0000000,
}
_VMALLOC_END = 0xFF800000
_VMALLOC_OFFSET = 8 * SZ_1M
_VMALLOC_DEFAULT = 240 * SZ_1M

#: arm_dma_limit where the board does not say how far its bus masters reach.
_DMA_LIMIT = 0xFFFFFFFF

#: ``dma_zone_size`` of the machine descriptions under arch/arm/mach-*@v6.12, by the root's compatible.
_DMA_ZONE_SIZES = {
    "brcm,bcm2711": SZ_1G,
    "arm,realview-eb": SZ_256M,
    "arm,realview-pb1176": SZ_256M,
    "arm,realview-pba8": SZ_256M,
    "arm,realview-pbx": SZ_256M,
    "ti,omap5": 2 * SZ_1G,
    "ti,dra7": 2 * SZ_1G,
    "ti,keystone": 2 * SZ_1G,
    "calxeda,highbank": 4 * SZ_1G,
    "calxeda,ecx-2000": 4 * SZ_1G,
}


def page_offset(boot: EarlyBoot) -> int:
    """PAGE_OFFSET: where the linear map begins."""
    return next(offset for name, offset in _PAGE_OFFSETS.items() if boot.config.on(name))


def _vmalloc_size(boot: EarlyBoot) -> int:
    """``early_vmalloc()``: what ``vmalloc=`` leaves for low memory, with its warnings."""
    size = _VMALLOC_DEFAULT
    most = _VMALLOC_END - (page_offset(boot) + SZ_32M + _VMALLOC_OFFSET)
    for value in boot.params.values("vmalloc"):
        size = memparse(value or "")[0] & 0xFFFFFFFF
        for wrong, bound, word in ((size < SZ_16M, SZ_16M, "small"), (size > most, most, "big")):
            if wrong:
                size = bound
                text = f"vmalloc area is too {word}, limiting to {bound // SZ_1M}MiB"
                boot.log.printk(text, LOGLEVEL_WARNING)
    return size


def adjust_lowmem_bounds(boot: EarlyBoot) -> None:
    """``adjust_lowmem_bounds()``: how far the linear map goes, and how far memblock may allocate.

    Its first block must begin with a whole PMD; an end that is not one of a PMD limits the allocations.
    """
    memblock = boot.memblock
    limit = _VMALLOC_END - boot.vmalloc_size - _VMALLOC_OFFSET - page_offset(boot) + boot.phys_offset
    first = _mapped(boot)[0]
    if first.base % _PMD_SIZE:
        memblock.mark_nomap(first.base, -first.base % _PMD_SIZE)
    lowmem = allocations = 0
    for region in _mapped(boot):
        if region.base >= limit:
            continue
        lowmem = max(lowmem, min(limit, region.end))
        if not allocations and region.base % _PMD_SIZE:
            allocations = region.base
        elif not allocations and region.end % _PMD_SIZE:
            allocations = lowmem
    allocations = rounddown(allocations or lowmem, _PMD_SIZE)
    boot.high_memory = lowmem
    if not boot.config.on("HIGHMEM") and memblock.end_of_dram() > lowmem:
        end = memblock.end_of_dram()
        boot.log.printk(f"Ignoring RAM at {boot.pa(allocations)}-{boot.pa(end)}", LOGLEVEL_NOTICE)
        boot.log.printk("Consider using a HIGHMEM enabled kernel.", LOGLEVEL_NOTICE)
        memblock.remove(allocations, end - allocations)
    memblock.current_limit = allocations


def _mapped(boot: EarlyBoot) -> list[MemblockRegion]:
    """``for_each_mem_range()``: memory that is mapped."""
    return [region for region in boot.memblock.memory if not region.nomap]


def reserve(boot: EarlyBoot) -> int:
    """arm_memblock_init() between two looks at the bounds of low memory; the offset of the linear map."""
    boot.phys_offset = boot.memblock.start_of_dram()
    _early_mem(boot)
    boot.vmalloc_size = _vmalloc_size(boot)
    adjust_lowmem_bounds(boot)
    arm64.load(boot)
    boot.scan_reserved_mem()
    return page_offset(boot) - boot.phys_offset


def _early_mem(boot: EarlyBoot) -> None:
    """``early_mem()``: ``mem=SIZE[@START]``, repeatable, instead of the memory that the tree has."""
    given = [value for value in boot.params.values("mem") if value]
    if given:
        boot.memblock.remove(0, boot.memblock.end_of_dram())
    for value in given:
        size, rest = memparse(value)
        start = memparse(rest[1:])[0] if rest.startswith("@") else boot.phys_offset
        boot.memblock.add(*early_init_dt_add_memory_arch(start, size, boot.page_size, boot.phys_mask))


def lowmem_again(boot: EarlyBoot) -> None:
    """The second look, after memory may have been removed; then the areas' mappings are remade."""
    adjust_lowmem_bounds(boot)
    _dma_contiguous_remap(boot)


def _dma_contiguous_remap(boot: EarlyBoot) -> None:
    """``dma_contiguous_remap()``: areas in low memory are unmapped in steps of a PMD, and mapped again.

    Raises KernelPanic where that leaves an old mapping below a new one, and where two areas overlap.
    """
    assert boot.high_memory is not None
    done: list[tuple[int, int]] = []
    for path, base, size in boot.fixups:
        end = min(base + size, boot.high_memory)
        if base >= end:
            continue
        last_cleared = base + rounddown(end - base - 1, _PMD_SIZE)
        span, where = f"{base:#x}-{end - 1:#x}", path or "the default area"
        if last_cleared // _PMD_SIZE != (end - 1) // _PMD_SIZE:
            boot.event(path, "remap-hangs", EFFECT_PANIC, "reg", span)
            why = f"{where}: {span} of low memory is remapped in steps of 2 MiB that do not fit it"
            raise boot.panic(why, "Attempted to kill the idle task!")
        if base % _PMD_SIZE or end % _PMD_SIZE:
            boot.event(path, "remap-unmaps", EFFECT_NOTE, "reg", span)
        if any(base < other_end and end > other for other, other_end in done):
            boot.event(path, "remap-overlaps", EFFECT_PANIC, "reg", span)
            why = f"{where}: {span} of low memory is remapped twice"
            raise boot.panic(why, "Attempted to kill the idle task!")
        done.append((base, end))


def dma_phys_limit(boot: EarlyBoot) -> int:
    """``arm_dma_limit``: how far dma_contiguous_reserve() may go."""
    sizes = (size for name, size in _DMA_ZONE_SIZES.items() if boot.tree.root.is_compatible(name))
    size = next(sizes, 0) if boot.config.on("ZONE_DMA") else 0
    return boot.memblock.start_of_dram() + size - 1 if size else _DMA_LIMIT


def zone_limits(boot: EarlyBoot) -> dict[str, int]:
    """``zone_sizes_init()``: DMA memory is all of low memory on machines whose bus masters reach it."""
    low = boot.high_memory or boot.memblock.end_of_dram()
    return {"DMA": min(dma_phys_limit(boot) + 1, low), "Normal": low}


def _swiotlb_init(boot: EarlyBoot) -> None:
    """``mem_init()``: only with LPAE is there memory beyond 4 GiB."""
    limit = dma_phys_limit(boot) + 1
    if boot.config.on("SWIOTLB"):
        swiotlb_init(boot, boot.memblock.end_of_dram() > limit, limit)


OPS = ArchOps(reserve, dma_phys_limit, zone_limits, _swiotlb_init, dma_phys_limit)
