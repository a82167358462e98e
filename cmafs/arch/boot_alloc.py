"""What the kernel takes from memblock between the memmap and the page allocator: the rest of ``reserved``.

Kernel: ``mm/mm_init.c:alloc_large_system_hash()``, ``kernel/dma/swiotlb.c``, ``drivers/of/fdt.c``. Bytes
unless named pages.
"""

from __future__ import annotations

from cmafs.arch.ops import arch_ops
from cmafs.arch.setup import EarlyBoot
from cmafs.lib.intervals import length
from cmafs.lib.kconfig import Kconfig
from cmafs.lib.math import div_round_up, roundup
from cmafs.lib.sizes import SZ_1K, SZ_1M, SZ_64G
from cmafs.mm.sparse import SparseLayout, sparse_init

#: sizeof(struct hlist_bl_head), sizeof(struct hlist_head).
_BUCKET_BYTES = 8

#: Of the log's ring buffer: alignment; sizeof(struct prb_desc), sizeof(struct printk_info)
#: (kernel/printk/printk_ringbuffer.h@v6.12).
_LOG_ALIGN = 8
_RECORD_BYTES = (24, 88)

#: The vmemmap's page tables of arm64, one of each level below the kernel's own; for each further 64 GiB of
#: memory there is one more (mm/sparse-vmemmap.c:vmemmap_alloc_block_zero()@v6.12).
_VMEMMAP_TABLES = 2

#: sizeof(struct mem_section), of which each root holds a page; of a pointer to a root.
_MEM_SECTION_BYTES = 16
_POINTER_BYTES = 8

#: Small allocations, which fill the gaps that the others leave in their pages, are made in pieces of this.
_SMALL = 256


def unflatten_device_tree(boot: EarlyBoot) -> None:
    """The unflattened tree, and from 6.12 on the second pass over /reserved-memory."""
    data, parent = boot.data, boot.scan.parent()
    if data.reserved_mem_bytes and boot.scan.count:
        boot.memblock_alloc(data.reserved_mem_bytes * boot.scan.count)
    boot.scan.fdt_scan_reserved_mem_reg_nodes()
    nodes = data.tree_node_bytes[0] + data.tree_node_bytes[1] * len(parent.children) if parent else 0
    boot.memblock_alloc(data.tree_bytes + nodes, 8)


def _max_physmem_bits(config: Kconfig) -> int:
    """``MAX_PHYSMEM_BITS`` of arm64."""
    wide = config.on("ARM64_64K_PAGES") and config.on("ARM64_PA_BITS_52")
    return 52 if wide or config.on("CPU_LPA2") else 48


def memmap_init(boot: EarlyBoot, linear_offset: int) -> None:
    """``sparse_init()``: the table of section roots, the memmap."""
    section_bits = boot.data.section_size_bits(boot.config.page_shift)
    if boot.config.arch == "arm64":
        sections = 1 << _max_physmem_bits(boot.config) - section_bits
        roots = div_round_up(sections * _MEM_SECTION_BYTES, boot.page_size)
        boot.memblock_alloc(roots * _POINTER_BYTES)
    vmemmap = boot.config.on("SPARSEMEM_VMEMMAP")
    layout = SparseLayout(
        section_bits,
        boot.struct_page_bytes,
        vmemmap,
        boot.config.page_shift,
        linear_offset,
        _VMEMMAP_TABLES if vmemmap and boot.config.arch == "arm64" else 0,
    )
    sparse_init(boot.memblock, layout)


def nr_kernel_pages(boot: EarlyBoot) -> int:
    """Pages that hash tables are sized by: all but the memmap, or what is free."""
    if boot.data.hash_counts_free:
        return length(boot.memblock.free_ranges()) >> boot.config.page_shift
    pages = boot.memblock.phys_mem_size() >> boot.config.page_shift
    return pages - pages * boot.struct_page_bytes // boot.page_size


def large_system_hash_bytes(pages: int, scale: int, page_shift: int) -> int:
    """alloc_large_system_hash(): a bucket for 2^scale bytes, fewer from 64 GiB on; a power of two."""
    unit = SZ_1M >> page_shift
    entries = roundup(pages, unit)
    limit = SZ_64G >> page_shift
    while limit < entries:
        scale += 1
        limit <<= 2
    entries = entries >> (scale - page_shift) if scale >= page_shift else entries << (page_shift - scale)
    return _BUCKET_BYTES << max(entries - 1, 1).bit_length()


def allocated_kib(boot: EarlyBoot, dentry_buckets: int) -> int:
    """KiB in use when the ``Memory:`` line is printed: measured; in between, proportional to the buckets."""
    table = boot.data.allocated_kib
    below = max((row for row in table if 1 << row[0] <= dentry_buckets), default=table[0])
    above = min((row for row in table if 1 << row[0] >= dentry_buckets), default=table[-1])
    if above[0] <= below[0]:
        return below[1]
    share = (dentry_buckets - (1 << below[0])) / ((1 << above[0]) - (1 << below[0]))
    return below[1] + round(share * (above[1] - below[1]) / 4) * 4


def setup_log_buf(boot: EarlyBoot) -> None:
    """``setup_log_buf()``: a log larger than the static one, with its descriptors and infos (5.10 on).

    On x86_64 it is taken before memory is dumped: the tree's /memreserve/ has it.
    """
    size, per_record = boot.log.log_buf_len, boot.abi.printk.bytes_per_descriptor
    if boot.config.arch == "x86_64" or size <= 1 << boot.config.number("LOG_BUF_SHIFT"):
        return
    boot.memblock_alloc(size, _LOG_ALIGN)
    if per_record:
        for record in _RECORD_BYTES:
            boot.memblock_alloc(size // per_record * record, _LOG_ALIGN)


def mm_core_init(boot: EarlyBoot) -> None:
    """Log buffer, hash tables, bounce buffer, and everything small, from the top of memory down."""
    setup_log_buf(boot)
    size, shift = boot.page_size, boot.config.page_shift
    pages = nr_kernel_pages(boot)
    boot.allocated_kib = allocated_kib(boot, large_system_hash_bytes(pages, 13, shift) // _BUCKET_BYTES)
    hashdist = boot.config.on("NUMA") and len(boot.nodes()) > 1  # then they come from vmalloc(), later
    for scale in () if hashdist else (13, 14):
        boot.memblock_alloc(large_system_hash_bytes(pages, scale, shift), size)
    arch_ops(boot).swiotlb_init(boot)
    boot.memblock_alloc(boot.data.other_kib * SZ_1K, size)
    for _ in range(boot.data.small_bytes // _SMALL):
        boot.memblock_alloc(_SMALL)
    _pad_to_board(boot)


def _pad_to_board(boot: EarlyBoot) -> None:
    """A board may say how much its kernel reported as reserved (``cmafs,boot-reserved-kib`` of /chosen)."""
    wanted = boot.tree.chosen.property_read_u32("cmafs,boot-reserved-kib")
    if wanted is None:
        return
    layout = boot.layout(())
    memory = length(layout.memory)
    free = length(boot.memblock.free_ranges()) >> boot.config.page_shift
    missing = wanted * SZ_1K // boot.page_size - (memory - free - boot.areas.totalcma_pages)
    for start, end in list(boot.memblock.free_ranges_reverse()):
        take = min(end - start, max(missing, 0) * boot.page_size)
        boot.memblock.reserve(end - take, take)
        missing -= take // boot.page_size
