"""The order in which /reserved-memory is initialised, and its overlap report.

The kernel's sort() is not stable, so that equal nodes (all ``size`` nodes are, before they are placed) come
out in an order that only the algorithm yields. ``lib/sort.c``, ``drivers/of/of_reserved_mem.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol, TypeVar

from cmafs.abi.boot import SORT_HEAP_BOTTOM_UP, SORT_HEAP_CLASSIC

T = TypeVar("T")


class Placed(Protocol):
    """What the sort looks at: bytes."""

    base: int
    size: int


P = TypeVar("P", bound=Placed)


def heap_sort_bottom_up(items: list[T], key: Callable[[T], tuple[int, int]]) -> None:
    """sort_r() since 5.2, in place: down to a leaf by the larger child, then up again to the right place."""
    last, parent = len(items), len(items) // 2
    while parent or last > 1:
        if parent:
            parent -= 1
        else:
            last -= 1
            items[0], items[last] = items[last], items[0]
        path = _leaf(items, key, parent, last)
        while path != parent and key(items[parent]) >= key(items[path]):
            path = (path - 1) // 2
        place = path
        while path != parent:
            path = (path - 1) // 2
            items[path], items[place] = items[place], items[path]
        if last <= 1:
            return


def _leaf(items: list[T], key: Callable[[T], tuple[int, int]], top: int, end: int) -> int:
    """The leaf reached from ``top`` by always taking the larger child, the left one if they are equal."""
    while 2 * top + 2 < end:
        left = 2 * top + 1
        top = left if key(items[left]) >= key(items[left + 1]) else left + 1
    return 2 * top + 1 if 2 * top + 2 == end else top


def heap_sort_classic(items: list[T], key: Callable[[T], tuple[int, int]]) -> None:
    """sort() up to 5.1, in place: sift down, stopping where the parent is not smaller."""
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
    if how == SORT_HEAP_BOTTOM_UP:
        heap_sort_bottom_up(items, key)
    elif how == SORT_HEAP_CLASSIC:
        heap_sort_classic(items, key)
    else:
        items.sort(key=key)


def overlaps(items: list[P], at_zero: bool = True) -> list[tuple[P, P]]:
    """Neighbours of a sorted list that overlap, not those with base 0 unless ``at_zero``.

    ``drivers/of/of_reserved_mem.c:__rmem_check_for_overlap()``.
    """
    pairs = [pair for pair in pairwise(items) if at_zero or (pair[0].base and pair[1].base)]
    return [(this, following) for this, following in pairs if this.base + this.size > following.base]
