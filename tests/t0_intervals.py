"""lib/intervals against sets of integers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cmafs.lib.intervals import Interval, length, union, within, without

INTERVALS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def integers(intervals: list[Interval]) -> set[int]:
    return {number for start, end in intervals for number in range(start, end)}


@given(INTERVALS)
def test_union(intervals: list[Interval]) -> None:
    joined = union(intervals)
    assert integers(joined) == integers(intervals)
    assert length(joined) == len(integers(intervals))
    assert all(start < end for start, end in joined)
    assert all(one[1] < two[0] for one, two in pairwise(joined))


@given(INTERVALS, INTERVALS)
def test_without(intervals: list[Interval], cover: list[Interval]) -> None:
    rest = list(without(intervals, union(cover)))
    assert integers(rest) == integers(intervals) - integers(cover)
    assert all(start < end for start, end in rest)
    assert list(without(union(intervals), union(cover))) == union(rest)


@given(INTERVALS, st.integers(0, 40), st.integers(0, 40))
def test_within(intervals: list[Interval], low: int, high: int) -> None:
    inside = list(within(intervals, low, high))
    assert integers(inside) == integers(intervals) & set(range(low, high))
    assert all(start < end for start, end in inside)
