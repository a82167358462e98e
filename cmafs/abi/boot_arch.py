"""What the kernel holds early, by row and architecture: what moves areas, what ``Memory:`` counts.

Where a kernel was recorded (x86_64: 5.10, 6.1, 6.12, 7.2; arm64: 5.10, 6.12, 7.2) the figures are those of
its transcripts' ``boot`` lines (T); other rows take the figures of the nearest recorded kernel (D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cmafs.abi.rows import Rows


@dataclass(frozen=True)
class ArchAbi:
    """One row of one architecture.

    ``kernel_sizes_kib``: code, rwdata, rodata, init, bss of the ``Memory:`` line.
    ``iomem_rodata``: read-only data is told from code and data in /proc/iomem; x86_64 (5.5, P a94691680bac;
    V 6.1).
    ``image``: what the kernel image reserves, as (offset, end) in bytes from where the loader puts it;
    x86_64: none, its tree's /memreserve/ says it. ``image_align``: where that is: the first multiple of this
    above the start of memory.
    ``page_tables``: pages taken from the top of memory for the linear map; on x86_64 those that the image has
    room for (INIT_PGD_PAGE_COUNT: arch/x86/mm/init.c@v6.12, V 5.10, 6.1); ``maps_pages``: the linear map
    is in single pages unless ``rodata=`` says otherwise, one table for each 2 MiB besides (7.2); before,
    CONFIG_RODATA_FULL_DEFAULT_ENABLED decides. ``page_tables_full``: instead of ``page_tables`` where it is;
    ``maps_image_apart``: the tables of the image itself come from elsewhere
    (``arch/arm64/kernel/pi/map_kernel.c@v6.12``; 6.9, P), so that those of the linear map can be told: none
    for 2 MiB of code and read-only data, which stay a block.
    ``struct_page_bytes``, ``section_bits``: what the memmap costs (mm/sparse.c); a section is never smaller
    than ``section_bits_64k`` with pages of 64 KiB (arch/arm64/include/asm/sparsemem.h@v6.12, 5.12 P).
    ``pfn_valid_mapped``: page structs count only where memory is mapped, not in all of its section (arm64's
    own pfn_valid(): arch/arm64/mm/init.c@v5.10; until 5.14, P 16c9afc77660).
    ``tree_bytes``: the unflattened tree of QEMU's machine without /reserved-memory; ``tree_node_bytes``:
    what that node and each child of it add; ``reserved_mem_bytes``: of each record of the second pass's
    table; ``pgdat_bytes``: the node's data.
    ``hash_counts_free``: the dentry and inode caches are sized by memory that is free at boot (6.12), else
    by all.
    ``swiotlb_scaled``: a bounce buffer also where all memory is in reach, 1 KiB per MiB of it
    (CONFIG_DMA_BOUNCE_UNALIGNED_KMALLOC: arm64, 6.5 P; V 6.12).
    ``swiotlb_slot_bytes``: its bookkeeping for each 2 KiB.
    ``other_kib``, ``small_bytes``: per-CPU areas and other things, in whole pages and below a page,
    measured on the recorded guests.
    ``allocated_kib``: what is no longer free when the ``Memory:`` line is printed, by log2 of the dentry
    cache's buckets (T).
    """

    kernel_sizes_kib: tuple[int, int, int, int, int]
    iomem_rodata: bool = False
    image: tuple[tuple[int, int], ...] = ()
    image_align: int = 1 << 21
    page_tables: int = 0
    page_tables_full: int = 0
    maps_image_apart: bool = False
    maps_pages: bool = False
    struct_page_bytes: int = 56
    section_bits: int = 27
    section_bits_64k: int = 29
    pfn_valid_mapped: bool = False
    tree_bytes: int = 0
    tree_node_bytes: tuple[int, int] = (0x280, 0x220)
    reserved_mem_bytes: int = 0
    pgdat_bytes: int = 0x2500
    hash_counts_free: bool = False
    swiotlb_scaled: bool = False
    swiotlb_slot_bytes: int = 12
    other_kib: int = 0
    small_bytes: int = 0
    allocated_kib: tuple[tuple[int, int], ...] = ((15, 0),)

    def section_size_bits(self, page_shift: int) -> int:
        """SECTION_SIZE_BITS: bytes of a section, log2."""
        return max(self.section_bits, self.section_bits_64k) if page_shift == 16 else self.section_bits


_X86 = Rows(
    ArchAbi(
        kernel_sizes_kib=(6148, 1020, 1060, 764, 2268),
        page_tables=6,
        other_kib=328,
    ),
    {
        "5.10": {"allocated_kib": ((15, 256),), "iomem_rodata": True},
        "5.15": {"swiotlb_slot_bytes": 24, "other_kib": 804},
        "6.1": {"kernel_sizes_kib": (6147, 1090, 1236, 776, 2180), "page_tables": 8},
        "6.12": {
            "kernel_sizes_kib": (6144, 1194, 1496, 836, 2008),
            "struct_page_bytes": 64,
            "hash_counts_free": True,
            "other_kib": 796,
            "allocated_kib": ((15, 1384), (17, 1772), (19, 1900)),
        },
        "7.2": {
            "kernel_sizes_kib": (5636, 1219, 1648, 892, 272),
            "other_kib": 804,
            "allocated_kib": ((15, 1368), (17, 1784), (19, 1912)),
        },
    },
)

_ARM64 = Rows(
    ArchAbi(
        kernel_sizes_kib=(2622, 834, 780, 320, 234),
        image=((0, 0x4BC000), (0x4BE000, 0x4C0000)),
        page_tables=5,
        page_tables_full=5,
        section_bits=30,
        pfn_valid_mapped=True,
        tree_bytes=0x8B14,
        other_kib=116,
    ),
    {
        "5.15": {"section_bits": 27, "struct_page_bytes": 64, "pfn_valid_mapped": False},
        "6.6": {"swiotlb_scaled": True, "swiotlb_slot_bytes": 24},
        "6.12": {
            "kernel_sizes_kib": (3072, 952, 1108, 448, 254),
            "image": ((0, 0x5E0000),),
            "page_tables": 4,
            "page_tables_full": 0,
            "maps_image_apart": True,
            "tree_bytes": 0xA524,
            "tree_node_bytes": (0x2F8, 0x288),
            "reserved_mem_bytes": 48,
            "pgdat_bytes": 0x2800,
            "hash_counts_free": True,
            "other_kib": 104,
            "small_bytes": 0xC00,
            "allocated_kib": ((17, 1464), (19, 1592), (20, 1720)),
        },
        "7.2": {
            "kernel_sizes_kib": (3392, 970, 1248, 512, 245),
            "image": ((0, 0x660000),),
            "page_tables_full": 2,
            "maps_pages": True,
            "other_kib": 92,
            "allocated_kib": ((17, 1504), (19, 1632), (20, 1760)),
        },
    },
)

#: 32-bit ARM: a 4-byte word and a memmap of 32-byte page structs; the rest is arm64's (D).
_ARM = Rows(
    ArchAbi(
        kernel_sizes_kib=(7168, 561, 1708, 1024, 222),
        image=((0, 0x900000),),
        image_align=0x8000,
        page_tables=8,
        struct_page_bytes=32,
        section_bits=28,
        tree_bytes=0x8B14,
        pgdat_bytes=0x1000,
        other_kib=116,
    ),
    {
        "6.12": {
            "tree_bytes": 0xA524,
            "tree_node_bytes": (0x2F8, 0x288),
            "reserved_mem_bytes": 48,
            "hash_counts_free": True,
            "other_kib": 112,
            "small_bytes": 0xC00,
            "allocated_kib": ((17, 1464), (19, 1592), (20, 1720)),
        },
    },
)

#: Architecture -> row name -> figures.
ARCH_ROWS: Mapping[str, Rows[ArchAbi]] = {
    "x86_64": _X86,
    "arm64": _ARM64,
    "arm": _ARM,
}
