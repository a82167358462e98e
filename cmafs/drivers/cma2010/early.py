"""Early regions of the 2010 framework: wanted before there is an allocator, reserved from boot memory.

Source: ``mm/cma.c:cma_early_region_register()``, ``cma_early_regions_reserve()`` (2010).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import takewhile

from cmafs.drivers.cma2010.profile import Profile, Quirks, Word, is_power_of_two_or_zero
from cmafs.drivers.cma2010.regions import CmaRegion, round_region
from cmafs.mm.memblock import MEMBLOCK_ALLOC_ANYWHERE, Memblock

Printer = Callable[[str], None]


class EarlyRegions:
    """The list of early regions until ``cma_init()`` takes it over.

    ``regions`` in the order in which they were wanted; ``unreserved``: those that got no memory.
    """

    def __init__(self, profile: Profile, quirks: Quirks, word: Word, debug: Printer, warn: Printer) -> None:
        self.profile = profile
        self.quirks = quirks
        self.word = word
        self.regions: list[CmaRegion] = []
        self.unreserved: list[CmaRegion] = []
        self._debug = debug
        self._warn = warn

    def add(self, reg: CmaRegion) -> None:
        """Append a region that round_region() has seen."""
        self.regions.append(reg)
        self._debug(f"param: registering early region {reg.label} ({self._where(reg)})")

    def register(self, reg: CmaRegion) -> None:
        """``cma_early_region_register()``: round and append. Raises OSError EINVAL (alignment, wrap)."""
        if not is_power_of_two_or_zero(reg.alignment):
            raise OSError(errno.EINVAL, "alignment is not a power of two")
        round_region(self.profile, self.quirks, self.word, reg)
        self.add(reg)

    def reserve_all(self, memblock: Memblock) -> None:
        """``cma_early_regions_reserve()``: a region that cannot be had costs only itself.

        v1's table ends at its first entry of size 0, and loses what has no memory; later versions drop that
        in ``cma_init()``.
        """
        self._debug("init: reserving early regions")
        wanted = list(takewhile(lambda reg: reg.size or not self.profile.table, self.regions))
        for reg in wanted:
            reg.reserved = self._reserve(reg, memblock)
            if reg.reserved:
                self._debug(f"init: {reg.label}: reserved {self._place(reg)}")
            else:
                self._warn(f"init: {reg.label}: unable to reserve {self._where(reg)}")
        self.unreserved = [reg for reg in self.regions if not reg.reserved]
        if self.profile.table:
            self.regions = [reg for reg in wanted if reg.reserved]

    def _reserve(self, reg: CmaRegion, memblock: Memblock) -> bool:
        """``cma_early_region_reserve()``: a given start exactly or not at all, else the highest free place.

        A place that reaches the top of the address space is not used.
        """
        if not reg.size:
            return False
        if not reg.start:
            start = memblock.find_in_range_node(reg.size, reg.alignment, 0, MEMBLOCK_ALLOC_ANYWHERE)
        else:
            start = 0 if memblock.is_region_reserved(reg.start, reg.size) else reg.start
        if not start or start + reg.size >= self.word.mask:
            return False
        memblock.reserve(start, reg.size)
        reg.start = start
        return True

    def _place(self, reg: CmaRegion) -> str:
        return f"{self.word.pointer(reg.size)}@{self.word.pointer(reg.start)}"

    def _where(self, reg: CmaRegion) -> str:
        return f"{self._place(reg)}/{self.word.pointer(reg.alignment)}"
