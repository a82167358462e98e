"""The order in which /reserved-memory is initialised, and its overlap report.

The kernel's sort() is not stable, so that equal nodes (all ``size`` nodes are, before they are placed) come
out in an order that only the algorithm yields. ``lib/sort.c``, ``drivers/of/of_reserved_mem.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol, TypeVar

from cmafs.abi.boot import SORT_HEAP

T = TypeVar("T")


class Placed(Protocol):
    """What the sort looks at: bytes."""

    base: int
    size: int


P = TypeVar("P", bound=Placed)


def heap_sort(items: list[T], key: Callable[[T], tuple[int, int]]) -> None:
    """sort(), in place: sift down, stopping where the parent is not smaller.

    What 5.2 made of it (down to a leaf, then up again) compares less and ends in the same order.
    """
    for root in range(len(items) // 2 - 1, -1, -1):
        _sift(items, key, root, len(items))
    for end in range(len(items) - 1, 0, -1):
        items[0], items[end] = items[end], items[0]
        _sift(items, key, 0, end)


def _sift(items: list[T], key: Callable[[T], tuple[int, int]], root: int, end: int) -> None:
    while (child := 2 * root + 1) < end:
        if child + 1 < end and key(items[child]) < key(items[child + 1]):
            child += 1
        if key(items[root]) >= key(items[child]):
            return
        items[root], items[child] = items[child], items[root]
        root = child


def by_base_and_size(region: Placed) -> tuple[int, int]:
    """__rmem_cmp(): a ``size`` node that has no place yet counts as (0, 0)."""
    return region.base, region.size


def by_base(region: Placed) -> tuple[int, int]:
    """__rmem_cmp() of older kernels."""
    return region.base, 0


def rmem_sort(items: list[P], how: str, by_size: bool = True) -> None:
    """Sort in place by base, then by size unless the kernel is too old; equal ones as its algorithm does."""
    key = by_base_and_size if by_size else by_base
    if how == SORT_HEAP:
        heap_sort(items, key)
    else:
        items.sort(key=key)


def overlaps(items: list[P], at_zero: bool = True) -> list[tuple[P, P]]:
    """Neighbours of a sorted list that overlap, not those with base 0 unless ``at_zero``.

    ``drivers/of/of_reserved_mem.c:__rmem_check_for_overlap()``.
    """
    pairs = [pair for pair in pairwise(items) if at_zero or (pair[0].base and pair[1].base)]
    return [(this, following) for this, following in pairs if this.base + this.size > following.base]
