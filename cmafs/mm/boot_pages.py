"""What is in memory before anybody does anything: pages of the kernel, the first processes, the page cache.

The amounts are fitted to one guest (``MmAbi.boot_*``). The cache goes under memory pressure and comes back
when memory is free again, so that a machine whose tasks are gone is as it was. Sizes are pages.
"""

from __future__ import annotations

from cmafs.mm.buddy import smallest_bulk
from cmafs.mm.fallback import FALLBACKS
from cmafs.mm.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from cmafs.mm.mmzone import MIGRATE_CMA, MIGRATE_MOVABLE, WMARK_HIGH, Memory
from cmafs.mm.page_alloc import alloc_pages_bulk
from cmafs.mm.page_owner import KIND_ANON, KIND_FILE, KIND_KERNEL, Occupant
from cmafs.mm.pcp import park_cma_block

#: No task can have these names.
KERNEL, USER, CACHE = "[kernel]", "[user]", "[cache]"
#: Kernel, processes and cache take at most 1/16 each of what the page allocator has. Chosen, not measured: it
#: keeps one guest's amounts from filling a machine of 16 MiB, and no recorded guest is small enough (below
#: 76 MiB) to show it. It would be derived with those amounts: none of them grows with memory.
SMALL_SHARE = 16


def populate_boot_pages(memory: Memory) -> None:
    """The pages that are in use when user space is up. Called once, after the CMA areas are active."""
    abi = memory.abi
    _hold(memory, KERNEL, KIND_KERNEL, GFP_KERNEL, abi.boot_kernel_kib)
    _hold(memory, USER, KIND_ANON, GFP_HIGHUSER_MOVABLE, abi.boot_user_kib)
    memory.cache = _hold(memory, CACHE, KIND_FILE, GFP_HIGHUSER_MOVABLE, abi.boot_cache_kib)
    memory.boot_cache = _places(memory, memory.cache)
    park_cma_block(memory)


def _hold(memory: Memory, name: str, kind: str, gfp: int, kib: int) -> Occupant:
    """A new occupant with so many KiB, or its share of a small machine."""
    occupant = memory.owners.add(name, kind, visible=False)
    most = sum(zone.managed_pages for zone in memory.zones) // SMALL_SHARE
    pages = min(kib >> (memory.layout.page_shift - 10), most)
    memory.owners.extend(occupant, alloc_pages_bulk(memory, gfp, pages, partial=True))
    return occupant


def _places(memory: Memory, cache: Occupant) -> dict[tuple[int, bool], int]:
    """Pages by (zone index, whether in CMA)."""
    places: dict[tuple[int, bool], int] = {}
    for pfn in cache.pfns():
        place = (memory.zone_of(pfn).index, memory.pageblock_migratetype(pfn) == MIGRATE_CMA)
        places[place] = places.get(place, 0) + 1
    return places


def settle(memory: Memory) -> None:
    """What follows once memory was given back.

    The cache reads in what it lost, and a page block of CMA comes to rest on a per-CPU list.
    """
    cache = memory.cache
    if cache is not None and cache.resident < len(cache.frames):
        _read_in(memory, cache)
    park_cma_block(memory)


def _read_in(memory: Memory, cache: Occupant) -> None:
    """Fills the cache's holes, where memory is plentiful, with pages of the zones and kinds as at boot."""
    there = _places(memory, cache)
    for (index, in_cma), pages in memory.boot_cache.items():
        zone = memory.zones[index]
        missing = min(pages - there.get((index, in_cma), 0), len(cache.frames) - cache.resident)
        if 0 < missing < zone.nr_free - zone.watermark[WMARK_HIGH]:
            runs: list[tuple[int, int]] = []
            got = 0
            for kind in (MIGRATE_CMA,) if in_cma else (MIGRATE_MOVABLE, *FALLBACKS[MIGRATE_MOVABLE]):
                got += smallest_bulk(zone, missing - got, kind, runs)
            memory.owners.refill(cache, runs)
            memory.vmstat.count_vm_event(f"pgalloc_{zone.item}", got)
