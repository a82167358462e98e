"""The memmap: where boot puts the page structs of each memory section.

Addresses and sizes are bytes. Kernel: ``mm/sparse.c``, ``mm/sparse-vmemmap.c``. Without vmemmap the size of
one section's map is no power of two and yet is used as an alignment mask, which leaves holes that an area may
land in: so the sequence of requests is followed as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.mm.memblock import MEMBLOCK_ALLOC_ACCESSIBLE, Memblock

_PMD_SIZE = 1 << 21


@dataclass(frozen=True)
class SparseLayout:
    """What the size and place of the maps follow from.

    ``section_bits``: bytes of a section, log2; ``struct_page_bytes``: sizeof(struct page); ``vmemmap``:
    CONFIG_SPARSEMEM_VMEMMAP; ``linear_offset``: virtual minus physical address of the linear map, as
    alignment there is by virtual address; ``vmemmap_tables``: pages of page tables for the map itself.
    """

    section_bits: int
    struct_page_bytes: int
    vmemmap: bool
    page_shift: int
    linear_offset: int
    vmemmap_tables: int = 0

    def section_map_size(self) -> int:
        """section_map_size(): rounded to a huge page with vmemmap, else to a page."""
        size = self.struct_page_bytes << (self.section_bits - self.page_shift)
        unit = _PMD_SIZE if self.vmemmap else 1 << self.page_shift
        return -(-size // unit) * unit


def present_sections(memblock: Memblock, section_bits: int) -> list[tuple[int, int]]:
    """(section number, node) of every section with memory in it, ascending: memory_present()."""
    sections: dict[int, int] = {}
    for region in memblock.memory:
        for number in range(region.base >> section_bits, ((region.end - 1) >> section_bits) + 1):
            sections.setdefault(number, region.nid)
    return sorted(sections.items())


def sparse_init(memblock: Memblock, layout: SparseLayout) -> int:
    """Allocate the memmap of every present section, node by node; bytes taken."""
    before = sum(region.size for region in memblock.reserved)
    sections = present_sections(memblock, layout.section_bits)
    for nid in sorted({nid for _, nid in sections}):
        _sparse_init_nid(memblock, layout, nid, sum(1 for _, owner in sections if owner == nid))
    return sum(region.size for region in memblock.reserved) - before


def _alloc(memblock: Memblock, size: int, align: int, nid: int, exact: bool) -> int:
    return memblock.phys_alloc_range(size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, nid, exact_nid=exact)


def _sparse_init_nid(memblock: Memblock, layout: SparseLayout, nid: int, count: int) -> None:
    """sparse_init_nid(): one buffer for the node, maps cut from it, what does not fit allocated singly."""
    size, page = layout.section_map_size(), 1 << layout.page_shift
    buffer = _alloc(memblock, size * count, size, nid, exact=True)
    start, end = buffer, buffer + size * count if buffer else buffer
    for _ in range(layout.vmemmap_tables):
        _alloc(memblock, page, page, nid, exact=False)
    for _ in range(count):
        place = _rounded_up(start, size, layout.linear_offset)
        if not buffer or place + size > end:
            _alloc(memblock, size, size, nid, exact=False)
            continue
        if place > start:
            memblock.phys_free(start, place - start)
        start = place + size
    memblock.phys_free(start, end - start)


def _rounded_up(address: int, size: int, linear_offset: int) -> int:
    """sparse_buffer_alloc(): a true multiple of ``size`` by virtual address."""
    virtual = address + linear_offset
    return -(-virtual // size) * size - linear_offset
