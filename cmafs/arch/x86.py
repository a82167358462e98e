"""x86_64: what is taken before CMA stands in the tree's /memreserve/, one page aside.

Kernel: ``arch/x86/kernel/setup.c``.
"""

from __future__ import annotations

from cmafs.arch.setup import EarlyBoot

#: __PAGE_OFFSET with four-level page tables.
_PAGE_OFFSET = 0xFFFF888000000000

_PAGE_SIZE = 4096
_SZ_4G = 1 << 32


def reserve(boot: EarlyBoot) -> tuple[int, int]:
    """The tree's reservations; the limit of the default area is the end of mapped memory (max_pfn_mapped).

    Above 4 GiB the linear map needs more tables than the six pages of the kernel image
    (INIT_PGD_PAGE_COUNT): the next
    stands at the top of memory, before any area (D; T 5.10: ``hugetlb_cma=2G`` on 6 GiB does not end at
    the top).
    """
    memblock = boot.memblock
    boot.scan_reserved_mem()
    if boot.scan.parent() is not None:
        boot.scan.fdt_scan_reserved_mem_reg_nodes()
    end = memblock.end_of_dram()
    memblock.phys_alloc_range(_PAGE_SIZE, _PAGE_SIZE, _SZ_4G, max(end, _SZ_4G))
    return end, _PAGE_OFFSET
