"""x86_64: what is taken before CMA stands in the tree's /memreserve/, one page aside.

Kernel: ``arch/x86/kernel/setup.c``.
"""

from __future__ import annotations

from cmafs.arch.numa import numa_emulation
from cmafs.arch.setup import ArchOps, EarlyBoot
from cmafs.arch.swiotlb import swiotlb_init
from cmafs.lib.cmdline import memparse

#: __PAGE_OFFSET with four-level page tables.
_PAGE_OFFSET = 0xFFFF888000000000

_PAGE_SIZE = 4096
_SZ_16M = 1 << 24
_SZ_4G = 1 << 32


def reserve(boot: EarlyBoot) -> int:
    """The tree's reservations; the offset of the linear map.

    Above 4 GiB the linear map needs more tables than the six pages of the kernel image (INIT_PGD_PAGE_COUNT):
    the next stands at the top of memory, before any area (D; T 5.10: ``hugetlb_cma=2G`` on 6 GiB does not end
    at the top).
    """
    memblock = boot.memblock
    limits = [memparse(value)[0] for value in boot.params.values("mem") if value]
    for limit in limits:
        memblock.remove(limit, (1 << 64) - 1 - limit)  # parse_memopt(): an address, not an amount
    boot.scan_reserved_mem()
    if boot.scan.parent() is not None:
        boot.scan.fdt_scan_reserved_mem_reg_nodes()
    numa_emulation(boot, _SZ_4G)
    end = memblock.end_of_dram()
    memblock.phys_alloc_range(_PAGE_SIZE, _PAGE_SIZE, _SZ_4G, max(end, _SZ_4G))
    if limits:
        _relocate_initrd(boot)
    return _PAGE_OFFSET


def _relocate_initrd(boot: EarlyBoot) -> None:
    """``relocate_initrd()``: what ``mem=`` leaves without memory moves to the top of the memory that is left.

    The tree does not say which of its reservations is the initrd; nothing else lies so high, since boot
    loaders put it there. Source: ``arch/x86/kernel/setup.c:reserve_initrd()@v6.12``.
    """
    memblock = boot.memblock
    end = memblock.end_of_dram()
    for beyond in [region for region in memblock.reserved if region.end > end]:
        size = -(-beyond.size // _PAGE_SIZE) * _PAGE_SIZE
        if memblock.phys_alloc_range(size, _PAGE_SIZE, 0, end):
            memblock.phys_free(beyond.base, beyond.size)


def dma_phys_limit(boot: EarlyBoot) -> int:
    """The limit of the default area: the end of mapped memory (max_pfn_mapped)."""
    return boot.memblock.end_of_dram()


def zone_limits(boot: EarlyBoot) -> dict[str, int]:
    """``arch/x86/mm/init.c:zone_sizes_init()``: MAX_DMA_PFN and MAX_DMA32_PFN."""
    return {"DMA": _SZ_16M, "DMA32": _SZ_4G}


def _swiotlb_init(boot: EarlyBoot) -> None:
    """``pci_iommu_alloc()``: where memory passes 4 GiB."""
    swiotlb_init(boot, boot.memblock.end_of_dram() > _SZ_4G, _SZ_4G)


OPS = ArchOps(reserve, dma_phys_limit, zone_limits, _swiotlb_init, lambda boot: _SZ_16M - 1)
