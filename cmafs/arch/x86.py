"""x86_64: what is taken before CMA stands in the tree's /memreserve/, one page aside.

Kernel: ``arch/x86/kernel/setup.c``.
"""

from __future__ import annotations

from cmafs.arch.numa import numa_emulation
from cmafs.arch.setup import ArchOps, EarlyBoot
from cmafs.arch.swiotlb import swiotlb_init
from cmafs.arch.x86_mapping import init_mem_mapping
from cmafs.lib.cmdline import memparse
from cmafs.lib.kstrtox import U64_MAX
from cmafs.lib.sizes import SZ_1M, SZ_2M, SZ_4G, SZ_16M
from cmafs.mm.memblock import Memblock

#: __PAGE_OFFSET with four-level page tables.
_PAGE_OFFSET = 0xFFFF888000000000

_PAGE_SIZE = 4096


def reserve(boot: EarlyBoot) -> int:
    """The tree's reservations, and what ``setup_arch()`` takes besides; the offset of the linear map."""
    memblock = boot.memblock
    for value in filter(None, boot.params.values("mem")):
        limit, _ = memparse(value)
        memblock.remove(limit, U64_MAX - limit)  # parse_memopt(): an address, not an amount
    boot.scan_reserved_mem()
    if boot.scan.parent() is not None:
        boot.scan.fdt_scan_reserved_mem_reg_nodes()
    init_mem_mapping(boot, _kernel_image(memblock))
    _relocate_initrd(memblock)
    numa_emulation(boot, SZ_4G)
    return _PAGE_OFFSET


def _kernel_image(memblock: Memblock) -> int:
    """Where the kernel is: what the tree reserves from a multiple of CONFIG_PHYSICAL_ALIGN on, or 16 MiB."""
    return next((r.base for r in memblock.reserved if r.base and not r.base % SZ_2M), SZ_16M)


def _relocate_initrd(memblock: Memblock) -> None:
    """``relocate_initrd()``: where ``mem=`` or ``memmap=`` took its memory, it moves to the top of the rest.

    The tree does not say which reservation is the initrd; but nothing else above the BIOS is whole pages and
    no memory. Source: ``arch/x86/kernel/setup.c:reserve_initrd()@v6.12``.
    """
    for region in memblock.reserved:
        in_pages = not (region.base | region.end) % _PAGE_SIZE and region.base >= SZ_1M
        if (
            in_pages
            and not memblock.covers(region.base, region.size)
            and memblock.phys_alloc_range(region.size, _PAGE_SIZE, 0, memblock.end_of_dram())
        ):
            memblock.phys_free(region.base, region.size)


def dma_phys_limit(boot: EarlyBoot) -> int:
    """The limit of the default area: the end of mapped memory (max_pfn_mapped)."""
    return boot.memblock.end_of_dram()


def zone_limits(boot: EarlyBoot) -> dict[str, int]:
    """``arch/x86/mm/init.c:zone_sizes_init()``: MAX_DMA_PFN and MAX_DMA32_PFN."""
    return {"DMA": SZ_16M, "DMA32": SZ_4G}


def _swiotlb_init(boot: EarlyBoot) -> None:
    """``pci_iommu_alloc()``: where memory passes 4 GiB."""
    swiotlb_init(boot, boot.memblock.end_of_dram() > SZ_4G, SZ_4G)


OPS = ArchOps(reserve, dma_phys_limit, zone_limits, _swiotlb_init, lambda boot: SZ_16M - 1)
