"""The early allocator: which physical ranges are memory, which are taken, and where the next one goes.

Addresses and sizes are bytes; ranges are half open. Kernel: ``mm/memblock.c``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from cmafs.lib.intervals import Interval, length, union, within, without
from cmafs.lib.kstrtox import U64_MAX
from cmafs.lib.math import round_down, round_up

#: ``end`` of a search: no limit at all, or ``Memblock.current_limit``.
MEMBLOCK_ALLOC_ANYWHERE = _PHYS_ADDR_MAX = U64_MAX
MEMBLOCK_ALLOC_ACCESSIBLE = 0
NUMA_NO_NODE = -1
SMP_CACHE_BYTES = 64


@dataclass(frozen=True)
class MemblockRegion:
    """``struct memblock_region``: ``[base, end)`` in bytes, its node, and whether it has MEMBLOCK_NOMAP."""

    base: int
    end: int
    nid: int = 0
    nomap: bool = False

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.end - self.base


def _clamp(address: int, low: int, high: int) -> int:
    return min(max(address, low), high)


def _base(region: MemblockRegion) -> int:
    return region.base


def _span(region: MemblockRegion) -> Interval:
    return region.base, region.end


def _merged(regions: list[MemblockRegion]) -> list[MemblockRegion]:
    """memblock_merge_regions(): neighbours of one node and the same flags become one region."""
    result: list[MemblockRegion] = []
    for region in regions:
        last = result[-1] if result else None
        if last and last.end == region.base and (last.nid, last.nomap) == (region.nid, region.nomap):
            result[-1] = replace(last, end=region.end)
        else:
            result.append(region)
    return result


def _add(regions: list[MemblockRegion], new: MemblockRegion) -> list[MemblockRegion]:
    """memblock_add_range(): only what is not covered yet is added; what is there keeps its node and flags."""
    at = bisect_left(regions, new.base, key=_base)
    if (not at or regions[at - 1].end <= new.base) and (at == len(regions) or new.end <= regions[at].base):
        first = max(at - 1, 0)
        return regions[:first] + _merged([*regions[first:at], new, *regions[at : at + 1]]) + regions[at + 1 :]
    gaps = [replace(new, base=base, end=end) for base, end in without([_span(new)], map(_span, regions))]
    return _merged(sorted(regions + gaps, key=_base))


def _without(regions: list[MemblockRegion], base: int, end: int) -> list[MemblockRegion]:
    """memblock_remove_range(): cut a range out."""
    return [
        replace(region, base=low, end=high)
        for region in regions
        for low, high in without([_span(region)], union([(base, end)]))
    ]


@dataclass(eq=False)
class Memblock:
    """``struct memblock``. ``current_limit`` bytes; ``bottom_up`` the direction of the next search.

    ``page_size``: the kernel's PAGE_SIZE, in bytes.
    """

    memory: list[MemblockRegion] = field(default_factory=list)
    reserved: list[MemblockRegion] = field(default_factory=list)
    current_limit: int = MEMBLOCK_ALLOC_ANYWHERE
    bottom_up: bool = False
    page_size: int = 4096

    def add(self, base: int, size: int, nid: int = 0) -> None:
        """memblock_add_node(): the range is memory of a node, as far as it was not memory before."""
        if size := min(size, _PHYS_ADDR_MAX - base):
            self.memory = _add(self.memory, MemblockRegion(base, base + size, nid))

    def remove(self, base: int, size: int) -> None:
        """memblock_remove(): the range is no memory any more."""
        self.memory = _without(self.memory, base, base + size)

    def reserve(self, base: int, size: int) -> None:
        """memblock_reserve(): taken, whether it is memory or not."""
        if size := min(size, _PHYS_ADDR_MAX - base):
            self.reserved = _add(self.reserved, MemblockRegion(base, base + size))

    def mem_limit_remove_map(self, limit: int) -> None:
        """``memblock_mem_limit_remove_map()``: keep the first ``limit`` bytes."""
        for region in list(self.memory):
            if limit <= region.size:
                end = region.base + limit
                self.remove(end, _PHYS_ADDR_MAX - end)
                return
            limit -= region.size

    def phys_free(self, base: int, size: int) -> None:
        """memblock_phys_free(), memblock_free() up to 5.15: no longer taken, whoever took it."""
        self.reserved = _without(self.reserved, base, base + size)

    def mark_nomap(self, base: int, size: int) -> None:
        """memblock_mark_nomap(): memory the kernel must not touch; searches pass over it."""
        self._change(base, base + size, lambda region: replace(region, nomap=True))

    def clear_nomap(self, base: int, size: int) -> None:
        """memblock_clear_nomap(): the kernel may use it after all."""
        self._change(base, base + size, lambda region: replace(region, nomap=False))

    def set_node(self, base: int, size: int, nid: int) -> None:
        """memblock_set_node(): the memory in a range is that node's."""
        self._change(base, base + size, lambda region: replace(region, nid=nid))

    def _change(self, base: int, end: int, change: Callable[[MemblockRegion], MemblockRegion]) -> None:
        """Memory in ``[base, end)`` becomes regions of its own, and these what ``change`` makes of them."""
        inside = [
            change(replace(region, base=low, end=high))
            for region in self.memory
            for low, high in within([_span(region)], base, end)
        ]
        outside = _without(self.memory, base, end)
        self.memory = _merged(sorted(outside + inside, key=_base))

    def start_of_dram(self) -> int:
        """memblock_start_of_DRAM(): the lowest address."""
        return self.memory[0].base

    def end_of_dram(self) -> int:
        """memblock_end_of_DRAM(): one past the highest address."""
        return self.memory[-1].end

    def phys_mem_size(self) -> int:
        """memblock_phys_mem_size(): bytes of memory, no-map included."""
        return sum(region.size for region in self.memory)

    def overlaps_memory(self, base: int, size: int) -> bool:
        """Whether any byte of the range is memory: memblock_overlaps_region(&memblock.memory, ...)."""
        return any(region.base < base + size and region.end > base for region in self.memory)

    def is_region_memory(self, base: int, size: int) -> bool:
        """memblock_is_region_memory(): every byte lies in one region of memory."""
        return any(region.base <= base and region.end >= base + size for region in self.memory)

    def covers(self, base: int, size: int) -> bool:
        """Whether every byte of the range is memory, in however many regions."""
        return length(within(map(_span, self.memory), base, base + size)) == size

    def is_region_reserved(self, base: int, size: int) -> bool:
        """memblock_is_region_reserved(): any byte of the range is taken."""
        return any(region.base < base + size and region.end > base for region in self.reserved)

    def free_ranges(self, nid: int = NUMA_NO_NODE) -> Iterator[Interval]:
        """for_each_free_mem_range(): (start, end) of memory neither taken nor no-map, lowest first."""
        memory = (r for r in self.memory if not r.nomap and nid in (NUMA_NO_NODE, r.nid))
        return without(map(_span, memory), map(_span, self.reserved))

    def free_ranges_reverse(self, nid: int = NUMA_NO_NODE) -> Iterator[Interval]:
        """for_each_free_mem_range_reverse(): the same, highest first, for a search that ends early."""
        index = len(self.reserved)
        for region in reversed(self.memory):
            if region.nomap or nid not in (NUMA_NO_NODE, region.nid):
                continue
            end = region.end
            while index and self.reserved[index - 1].base >= end:
                index -= 1
            for taken in map(self.reserved.__getitem__, range(index - 1, -1, -1)):
                if taken.end <= region.base:
                    break
                if taken.end < end:
                    yield taken.end, end
                end = taken.base
            if region.base < end:
                yield region.base, end

    def find_in_range_node(self, size: int, align: int, start: int, end: int, nid: int = NUMA_NO_NODE) -> int:
        """memblock_find_in_range_node(): the address a search in [start, end) finds, 0 for none.

        The first page is never given out.
        """
        if end == MEMBLOCK_ALLOC_ACCESSIBLE:
            end = self.current_limit
        start = max(start, self.page_size)
        end = max(start, end)
        # A range outside shrinks to nothing at the nearer end of the search, where a size of 0 still fits.
        free = self.free_ranges(nid) if self.bottom_up else self.free_ranges_reverse(nid)
        ranges = ((_clamp(low, start, end), _clamp(high, start, end)) for low, high in free)
        if self.bottom_up:
            starts = ((round_up(low, align), high) for low, high in ranges)
            found = (low for low, high in starts if low < high and high - low >= size)
        else:
            starts = ((low, round_down(high - size, align)) for low, high in ranges)
            found = (place for low, place in starts if place >= low)
        return next(found, 0)

    def phys_alloc_range(
        self, size: int, align: int, start: int, end: int, nid: int = NUMA_NO_NODE, exact_nid: bool = False
    ) -> int:
        """memblock_alloc_range_nid(): find and take; the address, 0 for none.

        Another node's memory is as good unless ``exact_nid``.
        """
        align = align or SMP_CACHE_BYTES
        found = self.find_in_range_node(size, align, start, end, nid)
        if not found and nid != NUMA_NO_NODE and not exact_nid:
            found = self.find_in_range_node(size, align, start, end)
        if found:
            self.reserve(found, size)
        return found

    def alloc(self, size: int, align: int = SMP_CACHE_BYTES, nid: int = NUMA_NO_NODE) -> int:
        """memblock_phys_alloc(): anywhere below ``current_limit``."""
        return self.phys_alloc_range(size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, nid)

    def alloc_pages(self, count: int, nid: int = NUMA_NO_NODE) -> int:
        """``count`` single pages, each where alloc() would place it: the highest that are free, of a node.

        Returns how many there were not.
        """
        for low, high in list(self.free_ranges_reverse(nid)):
            high = round_down(min(high, self.current_limit), self.page_size)
            taken = min(count, max(high - max(low, self.page_size), 0) // self.page_size)
            self.reserve(high - taken * self.page_size, taken * self.page_size)
            count -= taken
        return count
