"""``bf``, the best-fit allocator of the 2010 framework (``mm/cma-best-fit.c``, 2010).

It keeps holes only, by start and by size. Among holes of equal size the one that changed last is found first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable

from cmafs.drivers.cma2010.profile import KernelOops
from cmafs.drivers.cma2010.regions import CmaAllocator, CmaChunk, CmaRegion


class _Holes:
    """The holes of one region: byte ranges, ordered by start and by (size, youngest first)."""

    def __init__(self) -> None:
        self.by_start: list[int] = []
        self.by_size: list[tuple[int, int, int]] = []  # (size, -age, start)
        self._key: dict[int, tuple[int, int, int]] = {}
        self._age = 0

    def insert(self, start: int, size: int) -> None:
        """Add a hole; it goes before all holes of its size."""
        self._age += 1
        key = (size, -self._age, start)
        self._key[start] = key
        insort(self.by_start, start)
        insort(self.by_size, key)

    def remove(self, start: int) -> int:
        """Take a hole out; returns its size."""
        key = self._key.pop(start)
        del self.by_start[bisect_left(self.by_start, start)]
        del self.by_size[bisect_left(self.by_size, key)]
        return key[0]

    def size_at(self, start: int) -> int | None:
        """The size of the hole that starts there."""
        key = self._key.get(start)
        return None if key is None else key[0]

    def ending_at(self, end: int) -> int | None:
        """The start of the hole that ends there."""
        index = bisect_left(self.by_start, end) - 1
        if index < 0:
            return None
        start = self.by_start[index]
        return start if start + self._key[start][0] == end else None


def _align_up(address: int, alignment: int) -> int:
    return (address + alignment - 1) & ~(alignment - 1)


class BestFit:
    """The callbacks of ``bf``; ``null_advance``: quirk Q6, a null pointer leads to the second hole."""

    def __init__(self, warn: Callable[[str], None], null_advance: bool = False) -> None:
        self._warn = warn
        self._null_advance = null_advance

    def allocator(self) -> CmaAllocator:
        """The ``struct cma_allocator`` to register."""
        return CmaAllocator("bf", self._init, self._cleanup, self._alloc, self._free)

    @staticmethod
    def _init(reg: CmaRegion) -> None:
        holes = _Holes()
        holes.insert(reg.start, reg.size)
        reg.private_data = holes

    @staticmethod
    def _cleanup(reg: CmaRegion) -> None:
        assert len(reg.private_data.by_start) == 1, "bf: cleanup with live chunks"
        reg.private_data = None

    def _alloc(self, reg: CmaRegion, size: int, alignment: int) -> CmaChunk | None:
        holes: _Holes = reg.private_data
        start = self._find(holes, size, alignment)
        if start is None:
            return None
        return CmaChunk(reg, self._take(holes, start, size, alignment), size)

    def _find(self, holes: _Holes, size: int, alignment: int) -> int | None:
        """The first hole in order of size that still fits once its start is aligned."""
        for hole_size, _, start in holes.by_size[bisect_left(holes.by_size, (size,)) :]:
            if _align_up(start, alignment) + size <= start + hole_size:
                return start
            if self._null_advance:
                raise KernelOops(
                    "Q6", "the best hole fits only unaligned, the next one is sought from a null node"
                )
        return None

    @staticmethod
    def _take(holes: _Holes, start: int, size: int, alignment: int) -> int:
        """Cut a chunk out of a hole: at an edge if possible, else at the end, else in the middle."""
        end = start + holes.remove(start)
        place = _align_up(start, alignment)
        if start < place and place + size < end and (end - (place + size)) % alignment == 0:
            place = end - size
        if place + size < end:
            holes.insert(place + size, end - (place + size))
        if start < place:
            holes.insert(start, place - start)
        return place

    def _free(self, chunk: CmaChunk) -> None:
        holes: _Holes = chunk.reg.private_data
        start, end = chunk.start, chunk.start + chunk.size
        if holes.size_at(start) is not None:
            self._warn(f"bf: a hole starts at {start:#x} already, the chunk is lost")
            return
        before = holes.ending_at(start)
        if before is not None:
            holes.remove(before)
            start = before
        if holes.size_at(end) is not None:
            end += holes.remove(end)
        holes.insert(start, end - start)
