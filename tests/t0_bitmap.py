"""The bitmap and its index of holes, against a plain list of booleans."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmafs.lib import bitmap as bitmap_module
from cmafs.lib.bitmap import Bitmap


def find_slowly(bits: list[bool], start: int, nr: int, mask: int, offset: int) -> int | None:
    """lib/bitmap.c's loop, bit by bit."""
    place = start
    while True:
        while place < len(bits) and bits[place]:
            place += 1
        place = ((place + offset + mask) & ~mask) - offset
        if place + nr > len(bits):
            return None
        taken = [i for i in range(place, place + nr) if bits[i]]
        if not taken:
            return place
        place = taken[0] + 1


@pytest.mark.parametrize("bucket", [128, 2])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_first_fit_agrees_with_the_bits(bucket: int, data: st.DataObject) -> None:
    """With buckets of two holes nearly every step splits, merges or empties one."""
    with mock.patch.object(bitmap_module, "_BUCKET", bucket):
        use_at_random(data)


def use_at_random(data: st.DataObject) -> None:
    nbits = data.draw(st.integers(1, 700))
    bitmap, plain = Bitmap(nbits), [False] * nbits
    for _ in range(data.draw(st.integers(1, 60))):
        nr = data.draw(st.integers(1, 40))
        if data.draw(st.booleans()):
            start = data.draw(st.integers(0, nbits - 1))
            mask = (1 << data.draw(st.integers(0, 5))) - 1
            offset = data.draw(st.integers(0, mask))
            place = bitmap.bitmap_find_next_zero_area_off(start, nr, mask, offset)
            assert place == find_slowly(plain, start, nr, mask, offset)
            if place is None:
                continue
            assert bitmap.hole_end(place) >= place + nr
            bitmap.set(place, nr)
            plain[place : place + nr] = [True] * nr
        else:
            start = data.draw(st.integers(0, nbits - 1))
            end = start
            while end < min(start + nr, nbits) and plain[end]:
                end += 1
            bitmap.clear(start, end - start)
            plain[start:end] = [False] * (end - start)
        assert bitmap.weight == sum(plain)
    assert bitmap.check() == []
    assert bitmap.to_bytes() == bytes(
        sum(bit << i for i, bit in enumerate(plain[at : at + 8])) for at in range(0, nbits, 8)
    )


def test_many_holes_split_buckets_and_merge_again() -> None:
    bitmap = Bitmap(4096)
    bitmap.set(0, 4096)
    for bit in range(0, 4096, 2):
        bitmap.clear(bit, 1)
    assert bitmap.check() == []
    assert bitmap.holes.longest == 1
    assert bitmap.bitmap_find_next_zero_area_off(0, 2, 0, 0) is None
    for bit in range(1, 4096, 2):
        bitmap.clear(bit, 1)
    assert list(bitmap.holes) == [(0, 4096)]
    assert bitmap.check() == []


def test_words_have_32_bits_and_bytes_have_eight() -> None:
    bitmap = Bitmap(40)
    bitmap.set(31, 2)
    assert list(bitmap.to_u32()) == [1 << 31, 1]
    assert bitmap.to_bytes() == bytes([0, 0, 0, 128, 1])


def test_the_check_sees_sabotage() -> None:
    bitmap = Bitmap(64)
    bitmap.set(3, 5)
    bitmap._words[0] ^= 1
    assert len(bitmap.check()) == 2
