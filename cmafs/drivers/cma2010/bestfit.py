"""``bf``, the best-fit allocator of the 2010 framework (``mm/cma-best-fit.c``, 2010).

It keeps holes only, by start and by size. Among holes of equal size the one that changed last is found first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable

from cmafs.drivers.cma2010.profile import KernelOops, Quirks, Word
from cmafs.drivers.cma2010.regions import CmaAllocator, CmaChunk, CmaRegion
from cmafs.lib.math import round_up


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
        """Take the hole that starts there out; its size."""
        key = self._key.pop(start)
        del self.by_start[bisect_left(self.by_start, start)]
        del self.by_size[bisect_left(self.by_size, key)]
        return key[0]

    def size_at(self, start: int) -> int | None:
        """The size of the hole that starts there, None where none does."""
        key = self._key.get(start)
        return None if key is None else key[0]

    def ending_at(self, end: int) -> int | None:
        """The start of the hole that ends there, None where none does."""
        index = bisect_left(self.by_start, end) - 1
        if index < 0:
            return None
        start = self.by_start[index]
        return start if start + self._key[start][0] == end else None


class BestFit:
    """The callbacks of ``bf``; ``warn`` prints a line where the code has a WARN_ON().

    Nothing here is ever handed a size of 0 but with Q17, where a size that wraps to it takes an empty chunk.
    """

    def __init__(self, quirks: Quirks, word: Word, warn: Callable[[str], None]) -> None:
        self._quirks = quirks
        self._word = word
        self._warn = warn

    def allocator(self) -> CmaAllocator:
        """The ``struct cma_allocator`` to register."""
        return CmaAllocator("bf", self._init, self._cleanup, self._alloc, self._free)

    @staticmethod
    def _init(reg: CmaRegion) -> None:
        holes = _Holes()
        holes.insert(reg.start, reg.size)
        reg.private_data = holes

    def _cleanup(self, reg: CmaRegion) -> None:
        if len(reg.private_data.by_start) != 1:  # an empty chunk has cut a hole in two
            self._warn(f"bf: {reg.label}: more than one hole is left")
        reg.private_data = None

    def _alloc(self, reg: CmaRegion, size: int, alignment: int) -> CmaChunk | None:
        holes: _Holes = reg.private_data
        start = self._find(holes, size, alignment)
        if start is None:
            return None
        return CmaChunk(reg, self._take(holes, start, size, alignment), size)

    def _find(self, holes: _Holes, size: int, alignment: int) -> int | None:
        """The first hole in order of size that still fits once its start is aligned.

        Raises KernelOops: with Q18 where aligning passes the top of the word, and so finds "room" from 0 on;
        with Q6 where the best hole does not fit.
        """
        for hole_size, _, start in holes.by_size[bisect_left(holes.by_size, (size,)) :]:
            place, end = round_up(start, alignment), start + hole_size
            if place < end and end - place >= size:
                return start
            if self._quirks.q18_aligning_wraps and place > self._word.mask:
                raise KernelOops(
                    "Q18", f"aligning {self._word.pointer(start)} wraps to 0, outside the region"
                )
            if self._quirks.q6_bestfit_null_advance:
                raise KernelOops(
                    "Q6", "the best hole fits only unaligned, the next one is sought from a null node"
                )
        return None

    @staticmethod
    def _take(holes: _Holes, start: int, size: int, alignment: int) -> int:
        """Cut a chunk out of a hole: at an edge if possible, else at the end, else in the middle."""
        end = start + holes.remove(start)
        place = round_up(start, alignment)
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
            self._warn(f"bf: a hole starts at {self._word.pointer(start)} already, the chunk is lost")
            return
        if not chunk.size:
            return  # the code keeps it as a hole of no bytes, which no request can get
        before = holes.ending_at(start)
        if before is not None:
            holes.remove(before)
            start = before
        if holes.size_at(end) is not None:
            end += holes.remove(end)
        holes.insert(start, end - start)
