"""Early regions of the 2010 framework: registered before there is an allocator, reserved from boot memory.

Source: ``mm/cma.c:cma_early_regions_reserve()`` (2010) and the vendor helper that boards call instead.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Protocol

from cmafs.drivers.cma2010.profile import Profile, Quirks, Word, is_power_of_two_or_zero
from cmafs.drivers.cma2010.regions import CmaRegion

Printer = Callable[[str], None]


class Bootmem(Protocol):
    """``bootmem``: the older of the two boot-time allocators."""

    def alloc(self, size: int, alignment: int, goal: int) -> int | None:
        """An aligned range of ``size`` bytes as near above ``goal`` as possible; None where there is none."""


class Memblock(Protocol):
    """``memblock``: the newer one."""

    def is_region_reserved(self, base: int, size: int) -> bool:
        """Whether the range of ``size`` bytes touches a reservation."""

    def reserve(self, base: int, size: int) -> None:
        """Reserve a range of ``size`` bytes, be it memory or not."""

    def free(self, base: int, size: int) -> None:
        """Undo a reservation."""

    def find(self, size: int, alignment: int, below: int | None) -> int | None:
        """The highest free aligned range of ``size`` bytes that ends at or below ``below``, or None."""


class EarlyRegions:
    """The list of early regions and what may be done with it until ``cma_init()`` takes it over."""

    def __init__(
        self,
        profile: Profile,
        quirks: Quirks,
        word: Word,
        debug: Printer,
        warn: Printer,
    ) -> None:
        self.profile = profile
        self.quirks = quirks
        self.word = word
        self.regions: list[CmaRegion] = []
        self.unreserved: list[CmaRegion] = []
        self._debug = debug
        self._warn = warn

    def add(self, reg: CmaRegion) -> None:
        """Append a region whose numbers are already rounded."""
        self.regions.append(reg)
        self._debug(f"param: registering early region {reg.label} ({self._where(reg)})")

    def register(self, reg: CmaRegion) -> None:
        """``cma_early_region_register()``: round and append. Raises OSError EINVAL (alignment, wrap)."""
        if not is_power_of_two_or_zero(reg.alignment):
            raise OSError(errno.EINVAL, "alignment is not a power of two")
        alignment = max(reg.alignment, self.word.page_size)
        start, size = self.word.align(reg.start, alignment), self.word.page_align(reg.size)
        if start + size > self.word.mask:
            raise OSError(errno.EINVAL, "start and size wrap")
        reg.alignment, reg.start, reg.size = alignment, start, size
        self.add(reg)

    def reserve_all(self, reserve: Callable[[CmaRegion], int]) -> int:
        """``cma_early_regions_reserve()``: a negative answer of ``reserve`` only costs that region.

        Returns how many were reserved: v1's helper returned that, negated by mistake (Q12).
        """
        self._debug("init: reserving early regions")
        for reg in [r for r in self.regions if not r.reserved]:
            if reserve(reg) >= 0:
                reg.reserved = True
                self._debug(f"init: {reg.label}: reserved {self._place(reg)}")
            else:
                self.unreserved.append(reg)
                self._warn(f"init: {reg.label}: unable to reserve {self._where(reg)}")
                if self.profile.table:
                    self.regions.remove(reg)
        count = sum(reg.reserved for reg in self.regions)
        return -count if self.quirks.q12_negative_count else count

    def default_reserve(
        self, bootmem: Bootmem | None, memblock: Memblock | None
    ) -> Callable[[CmaRegion], int]:
        """``cma_early_region_reserve()``: bootmem takes the start as a hint, memblock as an order.

        The callable answers 0, -EINVAL (size 0, alignment, reserved already), -ENOMEM, or -EOPNOTSUPP
        without either.
        """

        def reserve(reg: CmaRegion) -> int:
            if not reg.size or not is_power_of_two_or_zero(reg.alignment) or reg.reserved:
                return -errno.EINVAL
            if bootmem is None and memblock is None:
                return -errno.EOPNOTSUPP
            alignment = reg.alignment or self.word.page_size
            start = bootmem.alloc(reg.size, alignment, reg.start) if bootmem else None
            if start is None and memblock:
                start = self._from_memblock(reg, alignment, memblock)
            if start is None:
                return -errno.ENOMEM
            reg.start, reg.reserved = start, True
            return 0

        return reserve

    def _from_memblock(self, reg: CmaRegion, alignment: int, memblock: Memblock) -> int | None:
        if reg.start:
            start: int | None = None if memblock.is_region_reserved(reg.start, reg.size) else reg.start
        else:
            start = memblock.find(reg.size, alignment, None)
        if not start or start + reg.size >= self.word.mask:
            return None  # address 0 is not told from failure, nor is a range at the very top used
        memblock.reserve(start, reg.size)
        return start

    def _place(self, reg: CmaRegion) -> str:
        return f"{self.word.pointer(reg.size)}@{self.word.pointer(reg.start)}"

    def _where(self, reg: CmaRegion) -> str:
        return f"{self._place(reg)}/{self.word.pointer(reg.alignment)}"


class BoardHelper:
    """The helper of the Samsung and Meizu boards: reserve an array of regions, downwards from the top."""

    def __init__(self, early: EarlyRegions, memblock: Memblock, error: Printer) -> None:
        self.early = early
        self.word = early.word
        self.memblock = memblock
        self._error = error

    def reserve(
        self,
        regions: Sequence[CmaRegion],
        secure: Sequence[CmaRegion] = (),
        align_secure: int = 0,
    ) -> None:
        """Reserve and early-register ``regions`` in order, then ``secure`` as one block right below them.

        Sizes and ``align_secure`` in bytes; an entry that cannot be had costs only itself.
        """
        for reg in regions:
            reg.size = self.word.page_align(reg.size)
            if reg.reserved:
                continue
            reg.alignment = reg.alignment or self.word.page_size
            if not self._alignment_ok(reg.alignment):
                self._error(
                    f"{reg.label}: alignment {self.word.pointer(reg.alignment)} is not a multiple of a page"
                )
                continue
            if reg.start:
                self._fixed(reg)
            else:
                self._place(reg)
        placed = [reg.start for reg in regions if reg.reserved]
        if secure:
            self._secure_block(list(secure), align_secure or self.word.page_size, min(placed, default=None))

    def _alignment_ok(self, alignment: int) -> bool:
        if self.early.quirks.q13_fixed_start_unregistered:  # the power-of-two test has no effect
            return alignment % self.word.page_size == 0
        return is_power_of_two_or_zero(alignment) and alignment % self.word.page_size == 0

    def _fixed(self, reg: CmaRegion) -> None:
        if self.memblock.is_region_reserved(reg.start, reg.size):
            self._error(f"{reg.label}: {self.word.pointer(reg.start)} is reserved already")
            return
        self.memblock.reserve(reg.start, reg.size)
        reg.reserved = True
        if not self.early.quirks.q13_fixed_start_unregistered:
            self.early.register(reg)

    def _place(self, reg: CmaRegion) -> None:
        start = self.memblock.find(reg.size, reg.alignment, None)
        if start:
            self.memblock.reserve(start, reg.size)
            reg.start, reg.reserved = start, True
        else:
            self._error(f"{reg.label}: no room for {self.word.pointer(reg.size)} bytes")
        try:
            self.early.register(reg)  # without room too: cma_init() then drops it
        except OSError:
            self._error(f"{reg.label}: cannot be registered")
            if reg.reserved:
                self.memblock.free(reg.start, reg.size)
                reg.reserved = False

    def _secure_block(self, secure: list[CmaRegion], alignment: int, below: int | None) -> None:
        total = sum(reg.size for reg in secure)
        secure[-1].size += self.word.align(total, alignment) - total
        total = self.word.align(total, alignment)
        start = self.memblock.find(total, alignment, below)
        if not start:
            self._error(f"no room for the secure regions, {self.word.pointer(total)} bytes")
            return
        self.memblock.reserve(start, total)
        for reg in reversed(secure):
            reg.start, reg.reserved, reg.alignment = start, True, self.word.page_size
            start += reg.size
            self.early.register(reg)
