"""x86_64: everything that is taken before CMA stands in the tree's /memreserve/. Kernel: ``arch/x86/kernel/setup.c``."""

from __future__ import annotations

from cmafs.init.early import EarlyBoot

#: __PAGE_OFFSET with four-level page tables.
_PAGE_OFFSET = 0xFFFF888000000000


def reserve(boot: EarlyBoot) -> tuple[int, int]:
    """The tree's reservations; the limit of the default area is the end of mapped memory (max_pfn_mapped)."""
    boot.scan.early_init_fdt_scan_reserved_mem()
    return boot.memblock.end_of_dram(), _PAGE_OFFSET
