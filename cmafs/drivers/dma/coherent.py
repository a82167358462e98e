"""A pool of a device's own: a ``shared-dma-pool`` that is not reusable (``kernel/dma/coherent.c@v6.12``)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cmafs.lib.bitmap import Bitmap


@dataclass(eq=False)
class DmaCoherentMem:
    """``struct dma_coherent_mem``: ``nr_pages`` pages from ``pfn_base`` on, the devices' for good."""

    pfn_base: int
    nr_pages: int
    bitmap: Bitmap = field(init=False)

    def __post_init__(self) -> None:
        self.bitmap = Bitmap(self.nr_pages)

    def alloc(self, order: int) -> int | None:
        """``__dma_alloc_from_coherent()``: the pfn of 2^order pages, aligned within the pool, or None."""
        place = self.bitmap.bitmap_find_next_zero_area_off(0, 1 << order, (1 << order) - 1, 0)
        if place is None:
            return None
        self.bitmap.set(place, 1 << order)
        return self.pfn_base + place

    def release(self, pfn: int, order: int) -> None:
        """``__dma_release_from_coherent()``: 2^order pages are free again."""
        self.bitmap.clear(pfn - self.pfn_base, 1 << order)
