"""The atomic pools: pages set aside at boot for devices that need remapping and callers that may not sleep.

Source: ``kernel/dma/pool.c@v5.10`` on ``lib/genalloc.c``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cmafs.lib.bitmap import Bitmap


@dataclass(eq=False)
class GenPoolChunk:
    """``struct gen_pool_chunk``: ``count`` pages from ``pfn`` on."""

    pfn: int
    count: int
    bits: Bitmap = field(init=False)

    def __post_init__(self) -> None:
        self.bits = Bitmap(self.count)

    @property
    def avail(self) -> int:
        """Pages of the chunk that nobody holds."""
        return self.count - self.bits.weight


@dataclass(eq=False)
class AtomicPool:
    """One ``struct gen_pool``: ``initial`` pages at boot, ``gfp``: of which zone, chunks youngest first."""

    initial: int
    gfp: int = 0
    chunks: list[GenPoolChunk] = field(default_factory=list)

    def add(self, pfn: int, count: int) -> None:
        """``gen_pool_add_virt()``: the newest chunk is searched first."""
        self.chunks.insert(0, GenPoolChunk(pfn, count))

    @property
    def size(self) -> int:
        """``gen_pool_size()``, in pages."""
        return sum(chunk.count for chunk in self.chunks)

    @property
    def avail(self) -> int:
        """``gen_pool_avail()``, in pages."""
        return sum(chunk.avail for chunk in self.chunks)

    def alloc(self, count: int) -> int | None:
        """``gen_pool_first_fit_order_align()``: pfn of ``count`` pages aligned to their order, or None."""
        mask = (1 << (count - 1).bit_length()) - 1
        for chunk in self.chunks:
            place = chunk.bits.bitmap_find_next_zero_area_off(0, count, mask, 0)
            if place is not None:
                chunk.bits.set(place, count)
                return chunk.pfn + place
        return None

    def free(self, pfn: int, count: int) -> bool:
        """``dma_free_from_pool()``: False when the pages are not the pool's."""
        for chunk in self.chunks:
            if chunk.pfn <= pfn < chunk.pfn + chunk.count:
                chunk.bits.clear(pfn - chunk.pfn, count)
                return True
        return False
