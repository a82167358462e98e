"""Half-open intervals of integers, (start, end): bytes, pages, bits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Interval = tuple[int, int]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same integers, ascending, in as few intervals as possible: what overlaps or touches is joined."""
    joined: list[Interval] = []
    for start, end in sorted(intervals):
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def within(intervals: Iterable[Interval], low: int, high: int) -> Iterator[Interval]:
    """What of each interval lies in ``[low, high)``."""
    for start, end in intervals:
        if max(start, low) < min(end, high):
            yield max(start, low), min(end, high)


def without(intervals: Iterable[Interval], cover: Iterable[Interval]) -> Iterator[Interval]:
    """What of each interval is outside ``cover``, which is ascending and disjoint (``union()``)."""
    cover = list(cover)
    ends = [end for _, end in cover]
    for start, end in intervals:
        for index in range(bisect_right(ends, start), len(cover)):
            low, high = cover[index]
            if low >= end:
                break
            if start < low:
                yield start, low
            start = high
        if start < end:
            yield start, end


def length(intervals: Iterable[Interval]) -> int:
    """How many integers the intervals have, those twice that are in two."""
    return sum(end - start for start, end in intervals)
