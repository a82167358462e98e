"""A pool of pages to ask: an area of the simulated kernel, or no more than its bitmap.

Where nobody else uses an area's pages, ``cma_alloc()`` is first fit and nothing else: the bitmap alone
answers the same, several times as fast (tests/t3_size.py compares them). ``cmafs size`` searches with it, and
asks the kernel's allocator in the end.

Positions are pfns, counts pages.
"""

from __future__ import annotations

from typing import Protocol

from cmafs.lib.bitmap import Holes
from cmafs.mm.cma import Cma, cma_alloc, cma_release


class Pool(Protocol):
    """What WhatIf asks."""

    name: str
    count: int
    order_per_bit: int

    @property
    def available_count(self) -> int:
        """Pages that are not handed out."""

    def alloc(self, count: int, align: int) -> int | None:
        """The first of ``count`` pages, aligned to an order; None: no room."""

    def release(self, pfn: int, count: int) -> None:
        """Pages go back."""

    def maxchunk(self) -> int:
        """Pages of the longest hole."""


class KernelPool:
    """An area of the simulated kernel."""

    def __init__(self, cma: Cma) -> None:
        self._cma = cma
        self.name, self.count, self.order_per_bit = cma.name, cma.count, cma.order_per_bit
        self.maxchunk = cma.maxchunk

    @property
    def available_count(self) -> int:
        """Pages that are not handed out."""
        return self._cma.available_count

    def alloc(self, count: int, align: int) -> int | None:
        """``cma_alloc()``"""
        return cma_alloc(self._cma, count, align, no_warn=True)

    def release(self, pfn: int, count: int) -> None:
        """``cma_release()``"""
        cma_release(self._cma, pfn, count)


class BitmapPool:
    """Holes between buffers, from a page aligned to every order; a bit is a page."""

    order_per_bit = 0

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count, self.available_count = name, count, count
        self._holes = Holes(count)

    def alloc(self, count: int, align: int) -> int | None:
        """First fit, as ``bitmap_find_next_zero_area_off()``."""
        pfn = self._find(count, (1 << align) - 1)
        if pfn is not None:
            self._holes.take(pfn, count)
            self.available_count -= count
        return pfn

    def _find(self, count: int, mask: int) -> int | None:
        if not mask:
            return self._holes.find(count)
        for low, end in self._holes.at_least(count, 0):
            place = (low + mask) & ~mask
            if place + count <= end:
                return place
        return None

    def release(self, pfn: int, count: int) -> None:
        """Pages become a hole."""
        self._holes.give(pfn, count)
        self.available_count += count

    def maxchunk(self) -> int:
        """Pages of the longest hole."""
        return self._holes.longest
