"""The bitmap and its index of holes, against a plain list of booleans."""

from __future__ import annotations

from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from soak_support import examples

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


#: (whether to look for a place, where, pages, order of the alignment, its offset), the numbers as they come.
STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 699), st.integers(1, 40), st.integers(0, 5), st.integers(0, 31)),
    min_size=1,
    max_size=60,
)


@pytest.mark.parametrize("bucket", [128, 2])
@examples(60)
@given(nbits=st.integers(1, 700), steps=STEPS)
def test_first_fit_agrees_with_the_bits(
    bucket: int, nbits: int, steps: list[tuple[bool, int, int, int, int]]
) -> None:
    """With buckets of two holes nearly every step splits, merges or empties one."""
    with mock.patch.object(bitmap_module, "_BUCKET", bucket):
        use(nbits, steps)


def use(nbits: int, steps: list[tuple[bool, int, int, int, int]]) -> None:
    """The bitmap and a list of booleans side by side."""
    bitmap, plain = Bitmap(nbits), [False] * nbits
    for take, where, nr, order, shift in steps:
        start, mask = where % nbits, (1 << order) - 1
        if take:
            offset = shift & mask
            place = bitmap.bitmap_find_next_zero_area_off(start, nr, mask, offset)
            assert place == find_slowly(plain, start, nr, mask, offset)
            if place is None:
                continue
            assert bitmap.hole_end(place) == next((i for i in range(place, nbits) if plain[i]), nbits)
            bitmap.set(place, nr)
            plain[place : place + nr] = [True] * nr
        else:
            end = start
            while end < min(start + nr, nbits) and plain[end]:
                end += 1
            bitmap.clear(start, end - start)
            plain[start:end] = [False] * (end - start)
        assert bitmap.weight == sum(plain)
        assert bitmap.all_set(start, nr) == all(plain[start : start + nr])
    assert bitmap.check() == []
    edges = [0, *(i for i in range(1, nbits) if plain[i] != plain[i - 1]), nbits]
    assert list(bitmap.runs()) == [(low, end) for low, end in pairwise(edges) if plain[low]]
    assert list(bitmap.holes) == [(low, end - low) for low, end in pairwise(edges) if not plain[low]]
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


def test_a_bucket_that_is_split_keeps_what_is_known_of_the_next() -> None:
    with mock.patch.object(bitmap_module, "_BUCKET", 2):
        bitmap = Bitmap(200)
        bitmap.set(0, 200)
        for bit in (0, 10, 20, 2):
            bitmap.clear(bit, 1)
        assert bitmap.bitmap_find_next_zero_area_off(0, 2, 0, 0) is None
        bitmap.clear(4, 3)
        for start, place in ((0, 4), (1, 4), (5, None)):
            assert bitmap.bitmap_find_next_zero_area_off(start, 3, 0, 0) == place


def test_words_have_32_bits_and_bytes_have_eight() -> None:
    bitmap = Bitmap(40)
    bitmap.set(31, 2)
    assert list(bitmap.to_u32()) == [1 << 31, 1]
    assert bitmap.to_bytes() == bytes([0, 0, 0, 128, 1])


def test_the_check_sees_sabotage() -> None:
    bitmap = Bitmap(64)
    bitmap.set(3, 5)
    bitmap._words[0] ^= 1
    assert bitmap.check() == ["index of holes differs from the bitmap", "weight differs from the bitmap"]
    bitmap._words[0] ^= 1
    assert bitmap.check() == []
    with mock.patch.object(bitmap_module, "_BUCKET", 2):
        for bit in (10, 20, 30, 50):
            bitmap.set(bit, 1)
    assert (bitmap.check(), bitmap.holes.longest) == ([], 19)
    bitmap.holes._at_most[-1] = bitmap.holes._at_most[-2] = 0
    assert bitmap.check() == ["longest hole differs from the index"]
