"""The memmap: where boot puts the page structs of each memory section.

Addresses and sizes are bytes. Kernel: ``mm/sparse.c``, ``mm/sparse-vmemmap.c``. Without vmemmap the size of
one section's map is no power of two and yet is used as an alignment mask, which leaves holes that an area may
land in: so the sequence of requests is followed as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.lib.intervals import Interval
from cmafs.lib.math import roundup
from cmafs.mm.memblock import MEMBLOCK_ALLOC_ACCESSIBLE, Memblock

_SHIFT_4K = 12


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
        """section_map_size(): rounded to what a PMD maps with vmemmap, else to a page."""
        return self._rounded_to(2 * self.page_shift - 3 if self.vmemmap else self.page_shift)

    def basepages(self) -> int:
        """Pages of a section's map where it is made of single ones: all but pages of 4 KiB with vmemmap
        (``arch/arm64/mm/mmu.c:vmemmap_populate()@v6.12``); else 0.
        """
        single = self.vmemmap and self.page_shift != _SHIFT_4K
        return self._rounded_to(self.page_shift) >> self.page_shift if single else 0

    def _rounded_to(self, shift: int) -> int:
        size = self.struct_page_bytes << (self.section_bits - self.page_shift)
        return -(-size >> shift) << shift


def present_sections(memblock: Memblock, section_bits: int) -> list[tuple[int, int]]:
    """(section number, node) of every section with memory in it, ascending: memory_present()."""
    sections: dict[int, int] = {}
    for region in memblock.memory:
        for number in range(region.base >> section_bits, -(-region.end >> section_bits)):
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
    if layout.basepages():
        _populate_basepages(memblock, layout.basepages() * count, page, nid, (start, end))
        return
    for _ in range(count):
        place = _rounded_up(start, size, layout.linear_offset)
        if not buffer or place + size > end:
            _alloc(memblock, size, size, nid, exact=False)
            continue
        if place > start:
            memblock.phys_free(start, place - start)
        start = place + size
    memblock.phys_free(start, end - start)


def _populate_basepages(memblock: Memblock, pages: int, page: int, nid: int, buffer: Interval) -> None:
    """vmemmap_populate_basepages(): from the start of the buffer, if there was memory for one."""
    start, end = buffer
    if start:
        memblock.phys_free(start + pages * page, end - start - pages * page)
    else:
        memblock.alloc_pages(memblock.alloc_pages(pages, nid))


def _rounded_up(address: int, size: int, linear_offset: int) -> int:
    """sparse_buffer_alloc(): a true multiple of ``size`` by virtual address."""
    virtual = address + linear_offset
    return roundup(virtual, size) - linear_offset
