"""The CMA areas of a board, as its debugfs shows them on any kernel. Positions are pfns, sizes pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cmafs.board.root import Root, RootError
from cmafs.lib.intervals import Interval, union, without
from cmafs.lib.kstrtox import kstrtoull, u32_array

#: Where debugfs has them; Android calls debugfs /d too.
PLACES = ("sys/kernel/debug/cma", "d/cma")
#: log2 of the pages of one bit: less than the bits of an unsigned long.
_MAX_ORDER = 63
#: A few bytes of a bitmap that are alike, or one that is mixed.
_BYTES = re.compile(rb"\x00+|\xff+|[^\x00\xff]", re.DOTALL)


@dataclass(frozen=True)
class AreaRange:
    """One contiguous piece of an area: ``allocated`` are the (start, end) pfns of set bits, ascending."""

    base_pfn: int
    count: int
    allocated: tuple[Interval, ...]

    @property
    def end_pfn(self) -> int:
        """The pfn after the last page."""
        return self.base_pfn + self.count

    def holes(self) -> Iterator[Interval]:
        """(start, end) of every run of clear bits, ascending."""
        return without([(self.base_pfn, self.end_pfn)], self.allocated)


@dataclass(frozen=True)
class Area:
    """What debugfs says of an area; ``name``: its directory, ``ranges`` empty where there is no bitmap."""

    name: str
    count: int
    order_per_bit: int
    used: int
    maxchunk: int
    ranges: tuple[AreaRange, ...]

    def holes(self) -> list[Interval]:
        """(start, end) of the holes of all ranges."""
        return [hole for one in self.ranges for hole in one.holes()]


def is_directory_of(directory: str, area: str) -> bool:
    """Whether debugfs calls an area so: by its name, up to 5.15 with ``cma-`` before it in 15 bytes.

    Source: ``mm/cma_debug.c:cma_debugfs_add_one()@v5.10``.
    """
    return directory in (area, f"cma-{area}"[:15])


def read_areas(root: Root) -> list[Area]:
    """The areas of a board, by name. Raises RootError, also if it shows none."""
    for place in PLACES:
        names = root.names(place)
        if names:
            return [_area(root, f"{place}/{name}", name) for name in names]
    raise RootError(
        f"{root.name}: no CMA area in {PLACES[0]}; the kernel needs CONFIG_CMA_DEBUGFS=y, "
        "and debugfs must be mounted"
    )


def _area(root: Root, path: str, name: str) -> Area:
    count = _number(root, f"{path}/count")
    if count is None:
        raise RootError(f"{root.name}: {path}/count is missing: that is no CMA area")
    order = _number(root, f"{path}/order_per_bit") or 0
    if order > _MAX_ORDER:
        raise RootError(f"{root.name}: {path}/order_per_bit: {order} is no order")
    ranges = _ranges(root, path, count, order)
    clear = [end - start for one in ranges for start, end in one.holes()]
    used, maxchunk = (_number(root, f"{path}/{file}") for file in ("used", "maxchunk"))
    return Area(
        name,
        count,
        order,
        count - sum(clear) if used is None and ranges else used or 0,
        max(clear, default=0) if maxchunk is None else maxchunk,
        ranges,
    )


def _ranges(root: Root, path: str, count: int, order: int) -> tuple[AreaRange, ...]:
    """The ranges of an area: their sizes are in no file, but for the length of each bitmap."""
    several = root.names(f"{path}/ranges")
    found = []
    for place in sorted((f"{path}/ranges/{name}" for name in several), key=len) if several else [path]:
        base, bitmap = _number(root, f"{place}/base_pfn"), root.read(f"{place}/bitmap")
        if base is None or bitmap is None:
            continue
        try:
            words = u32_array(bitmap)
        except OSError:
            raise RootError(f"{root.name}: {place}/bitmap is not a list of 32-bit numbers") from None
        pages = min(8 * len(words) << order, count)
        count -= pages
        found.append(AreaRange(base, pages, tuple(set_runs(words, base, base + pages, order))))
    return tuple(found)


def set_runs(bits: bytes, base: int, end: int, order: int) -> Iterator[Interval]:
    """(start, end) pfns of the runs of set bits, cut at ``end``."""
    for low, high in union(_set_bits(bits)):
        start = base + (low << order)
        if start < end:
            yield start, min(base + (high << order), end)


def _set_bits(bits: bytes) -> Iterator[Interval]:
    """(first, behind) of set bits, a run of whole bytes or a bit at a time."""
    for found in _BYTES.finditer(bits):
        first, byte = 8 * found.start(), found[0][0]
        if byte == 0xFF:
            yield first, 8 * found.end()
        elif byte:
            yield from ((first + bit, first + bit + 1) for bit in range(8) if byte >> bit & 1)


def _number(root: Root, path: str) -> int | None:
    data = root.read(path)
    if data is None:
        return None
    try:
        return kstrtoull(data.decode("latin-1"), 10)
    except OSError:
        raise RootError(f"{root.name}: {path}: not a number: {data[:40]!r}") from None
