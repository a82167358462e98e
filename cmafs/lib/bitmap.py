"""The bitmap of a CMA range, and the index of its holes that makes first fit cheap.

The words are the truth, as in the kernel (``lib/bitmap.c``); ``Holes`` repeats them as sorted runs of clear
bits, so that a search looks at runs instead of bits. ``Bitmap.check()`` says where the two disagree.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from cmafs.lib.intervals import Interval, without
from cmafs.lib.math import div_round_up

#: Runs a bucket holds before it is split.
_BUCKET = 128

_U32_BITS = 32
_U32_ONES = (1 << _U32_BITS) - 1

#: Whether the words of an array must be turned round to be bytes.
_BIG_ENDIAN = struct.pack("=H", 1) == struct.pack(">H", 1)

#: Words between the ends of a range from which on assigning a slice is faster than a loop.
_SLICE_WORDS = 8


class Holes:
    """Sorted, disjoint runs of clear bits in buckets, each bucket with a bound for its longest run.

    ``starts[b][i]``, ``lengths[b][i]``: run ``i`` of bucket ``b``, in bits; ``firsts[b]`` the first start in
    it; ``at_most[b]``: no run of it is longer. Taking bits leaves the bound as it is: it is made exact when a
    search finds it wrong.
    """

    def __init__(self, nbits: int) -> None:
        self._code = "I" if nbits < 1 << _U32_BITS else "Q"
        self._starts = [array(self._code, [0] if nbits else [])]
        self._lengths = [array(self._code, [nbits] if nbits else [])]
        self._firsts = [0]
        self._at_most = [nbits]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(start, length) of every hole, ascending."""
        for starts, lengths in zip(self._starts, self._lengths, strict=True):
            yield from zip(starts, lengths, strict=True)

    @property
    def longest(self) -> int:
        """Bits of the longest hole, 0 when there is none."""
        while True:
            bound = max(self._at_most)
            bucket = self._at_most.index(bound)
            self._at_most[bucket] = max(self._lengths[bucket], default=0)
            if self._at_most[bucket] == bound:
                return bound

    def find(self, nr: int) -> int | None:
        """Start of the lowest hole of at least ``nr`` bits."""
        for bucket, bound in enumerate(self._at_most):
            if bound >= nr:
                lengths = self._lengths[bucket]
                for index, length in enumerate(lengths):
                    if length >= nr:
                        return self._starts[bucket][index]
                self._at_most[bucket] = max(lengths, default=0)
        return None

    def at_least(self, nr: int, start: int) -> Iterator[tuple[int, int]]:
        """(start, end) of the holes that reach beyond ``start`` and have ``nr`` bits, ascending."""
        first = max(bisect_right(self._firsts, start) - 1, 0)
        for bucket in range(first, len(self._firsts)):
            if self._at_most[bucket] < nr:
                continue
            lengths, found = self._lengths[bucket], False
            for low, length in zip(self._starts[bucket], lengths, strict=True):
                if length >= nr:
                    found = True
                    if low + length > start:
                        yield low, low + length
            if not found:
                self._at_most[bucket] = max(lengths, default=0)

    def take(self, start: int, nr: int) -> None:
        """``nr`` clear bits from ``start``, all inside one hole, become set."""
        bucket = bisect_right(self._firsts, start) - 1
        starts, lengths = self._starts[bucket], self._lengths[bucket]
        index = bisect_right(starts, start) - 1
        low, length = starts[index], lengths[index]
        head, tail = start - low, low + length - start - nr
        assert head >= 0 and tail >= 0, "bits are not clear"
        if head:
            lengths[index] = head
            if tail:
                starts.insert(index + 1, start + nr)
                lengths.insert(index + 1, tail)
        elif tail:
            starts[index] = start + nr
            lengths[index] = tail
        else:
            del starts[index]
            del lengths[index]
        if not index or len(starts) > _BUCKET:
            self._changed(bucket)

    def give(self, start: int, nr: int) -> None:
        """``nr`` set bits from ``start`` become clear; the hole merges with its neighbours."""
        end = start + nr
        bucket = max(bisect_right(self._firsts, start) - 1, 0)
        starts, lengths = self._starts[bucket], self._lengths[bucket]
        index = bisect_left(starts, start)
        if index == len(starts) and bucket + 1 < len(self._firsts) and self._firsts[bucket + 1] == end:
            nr += self._drop_first(bucket + 1)
        elif index < len(starts) and starts[index] == end:
            nr += lengths[index]
            del starts[index]
            del lengths[index]
        if index and starts[index - 1] + lengths[index - 1] == start:
            index -= 1
            nr += lengths[index]
            lengths[index] = nr
        else:
            starts.insert(index, start)
            lengths.insert(index, nr)
        if nr > self._at_most[bucket]:
            self._at_most[bucket] = nr
        if not index or len(starts) > _BUCKET:
            self._changed(bucket)

    def _drop_first(self, bucket: int) -> int:
        length = self._lengths[bucket][0]
        del self._starts[bucket][0]
        del self._lengths[bucket][0]
        self._changed(bucket)
        return length

    def _changed(self, bucket: int) -> None:
        """The first hole of a bucket is another one, or there are too many or none in it."""
        starts = self._starts[bucket]
        if starts:
            self._firsts[bucket] = starts[0]
            if len(starts) > _BUCKET:
                self._split(bucket)
        elif len(self._firsts) > 1:
            del self._starts[bucket], self._lengths[bucket], self._firsts[bucket], self._at_most[bucket]
        else:
            self._firsts[bucket] = 0

    def _split(self, bucket: int) -> None:
        half = len(self._starts[bucket]) // 2
        for lists in (self._starts, self._lengths):
            lists.insert(bucket + 1, lists[bucket][half:])
            del lists[bucket][half:]
        self._firsts.insert(bucket + 1, self._starts[bucket + 1][0])
        self._at_most.insert(bucket + 1, self._at_most[bucket])


class Bitmap:
    """``nbits`` bits, all clear at first; ``weight`` of them are set (``bitmap_weight()``)."""

    def __init__(self, nbits: int) -> None:
        self.nbits = nbits
        self.weight = 0
        self.holes = Holes(nbits)
        self._words = array("I", bytes(div_round_up(nbits, _U32_BITS) * 4))

    def bitmap_find_next_zero_area_off(self, start: int, nr: int, mask: int, offset: int) -> int | None:
        """Lowest place from ``start`` for ``nr`` clear bits with ``(place + offset) & mask == 0``, or None.

        ``mask`` is one less than a power of two. Source: ``lib/bitmap.c:bitmap_find_next_zero_area_off()``.
        """
        if not start and not mask:
            return self.holes.find(nr)
        for low, end in self.holes.at_least(nr, start):
            place = ((max(low, start) + offset + mask) & ~mask) - offset
            if place + nr <= end:
                return place
        return None

    def hole_end(self, place: int) -> int:
        """End of the hole that a clear bit lies in."""
        return next(end for low, end in self.holes.at_least(1, place) if low <= place)

    def set(self, start: int, nr: int) -> None:
        """``bitmap_set()`` of clear bits."""
        if nr:
            self.holes.take(start, nr)
            self.weight += nr
            self._flip(start, start + nr, _U32_ONES)

    def clear(self, start: int, nr: int) -> None:
        """``bitmap_clear()`` of set bits."""
        if nr:
            self.holes.give(start, nr)
            self.weight -= nr
            self._flip(start, start + nr, 0)

    def all_set(self, start: int, nr: int) -> bool:
        """Whether no bit of a range is clear."""
        return next((low for low, _ in self.holes.at_least(1, start)), self.nbits) >= start + nr

    def runs(self) -> Iterator[Interval]:
        """(start, end) of every run of set bits, ascending."""
        return without([(0, self.nbits)], ((start, start + length) for start, length in self.holes))

    def to_u32(self) -> tuple[int, ...]:
        """The bits as words of 32 bits, bit 0 of word 0 first."""
        return tuple(self._words)

    def to_bytes(self) -> bytes:
        """The bits as bytes, bit 0 of byte 0 first, no more bytes than bits need."""
        return self._little_endian()[: div_round_up(self.nbits, 8)]

    def _little_endian(self) -> bytes:
        words = self._words
        if _BIG_ENDIAN:
            words = words[:]
            words.byteswap()
        return words.tobytes()

    def check(self) -> list[str]:
        """Where the index disagrees with the bits: a message each, none when all is well."""
        problems = []
        found = list(self._runs())
        if found != list(self.holes):
            problems.append("index of holes differs from the bitmap")
        if self.nbits - sum(length for _, length in found) != self.weight:
            problems.append("weight differs from the bitmap")
        if self.holes.longest != max((length for _, length in self.holes), default=0):
            problems.append("longest hole differs from the index")
        return problems

    def _runs(self) -> Iterator[tuple[int, int]]:
        text = "".join(f"{byte:08b}"[::-1] for byte in self._little_endian())[: self.nbits]
        end = 0
        while (low := text.find("0", end)) >= 0:
            end = text.find("1", low)
            end = len(text) if end < 0 else end
            yield low, end - low

    def _flip(self, start: int, end: int, now: int) -> None:
        """Flips the bits of ``[start, end)``, all alike; ``now``: what a word of them becomes."""
        words = self._words
        first, last = start >> 5, (end - 1) >> 5
        head, tail = _U32_ONES << (start & 31) & _U32_ONES, _U32_ONES >> (-end & 31)
        if first == last:
            words[first] ^= head & tail
            return
        words[first] ^= head
        words[last] ^= tail
        first += 1
        if last - first > _SLICE_WORDS:
            words[first:last] = array("I", (now,)) * (last - first)
        else:
            while first < last:
                words[first] = now
                first += 1
