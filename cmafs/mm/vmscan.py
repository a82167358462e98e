"""Reclaim (``mm/vmscan.c``): only clean page cache can go, as there is no swap.

kswapd is not a thread here: it runs at once when a request finds every zone below its low watermark.
Sizes are pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from cmafs.lib.intervals import union
from cmafs.mm.buddy import free_unref_pages
from cmafs.mm.mmzone import MIGRATE_CMA, WMARK_HIGH, ZONE_RANKS, Memory, Zone, zone_item
from cmafs.mm.page_owner import KIND_FILE, KIND_SLAB, TAG_INDEX, TAG_SHIFT, Occupant, Page
from cmafs.mm.pcp import drain_all_pages


def _caches(memory: Memory) -> list[Occupant]:
    """Page caches whose pages may go, the oldest first."""
    return [
        o for o in memory.owners.occupants.values() if o.kind == KIND_FILE and o.resident and not o.mlocked
    ]


def _held(memory: Memory, occupant: Occupant, index: int) -> bool:
    return occupant.frames[index] in memory.pins or index in occupant.dirty


def reclaimable(memory: Memory, alloc_cma: bool) -> dict[int, int]:
    """Clean pages that nobody holds, by zone index.

    ``alloc_cma``: those in CMA count as well, the page block on the per-CPU list included.
    """
    count: dict[int, int] = {}
    if memory.pcp is not None and alloc_cma:
        count[memory.zone_of(memory.pcp.frames[0]).index] = memory.pcp.resident
    for cache in _caches(memory):
        for index, pfn in enumerate(cache.frames):
            if pfn < 0 or _held(memory, cache, index):
                continue
            if alloc_cma or memory.pageblock_migratetype(pfn) != MIGRATE_CMA:
                zone = memory.zone_of(pfn).index
                count[zone] = count.get(zone, 0) + 1
    return count


def _shrink_cache(memory: Memory, cache: Occupant, want: int, highest: int = len(ZONE_RANKS)) -> int:
    """Drops up to ``want`` pages of a cache from zones up to rank ``highest``, the oldest first; how many.

    A scan goes on where the last one stopped, and round once, as on a list of least recently used pages.
    """
    frames = cache.frames
    start = min(cache.reclaimed, len(frames))
    spans = union((zone.start_pfn, zone.end_pfn) for zone in memory.zones if zone.rank <= highest)
    indices: list[int] = []
    for index in chain(range(start, len(frames)), range(start)):
        if len(indices) == want:
            break
        cache.reclaimed = index + 1
        pfn = frames[index]
        if any(low <= pfn < high for low, high in spans) and not _held(memory, cache, index):
            indices.append(index)
    free_unref_pages(memory, memory.owners.punch(cache, indices))
    return len(indices)


def _shrink(memory: Memory, want: int, highest: int, who: str) -> int:
    """``shrink_node()``: drops up to ``want`` clean pages, and says how many; ``who``: kswapd or direct."""
    drained = drain_all_pages(memory)
    freed = 0
    for cache in _caches(memory):
        freed += _shrink_cache(memory, cache, want - freed, highest)
    if freed:
        for event in (f"pgscan_{who}", f"pgsteal_{who}", "pgscan_file", "pgsteal_file"):
            memory.vmstat.count_vm_event(event, freed)
    return freed + drained


def reclaim_clean_pages_from_list(memory: Memory, pages: Sequence[Page]) -> Sequence[Page]:
    """``reclaim_clean_pages_from_list()``: clean page cache that must leave a range is dropped, not moved.

    ``pages``: (pfn, tag), ascending; the rest of them is returned (mm/page_alloc.c at v5.10, v6.12).
    """
    dropped: dict[int, list[int]] = {}
    kept = []
    caches = {cache.ident: cache.dirty for cache in _caches(memory)}
    if not caches:
        return pages
    for pfn, tag in pages:
        dirty = caches.get(tag >> TAG_SHIFT)
        if dirty is not None and tag & TAG_INDEX not in dirty and pfn not in memory.pins:
            dropped.setdefault(tag >> TAG_SHIFT, []).append(tag & TAG_INDEX)
        else:
            kept.append((pfn, tag))
    for ident, indices in dropped.items():
        free_unref_pages(memory, memory.owners.punch(memory.owners.occupants[ident], indices))
    return kept


def balance_pgdat(memory: Memory, zones: Sequence[Zone]) -> int:
    """``balance_pgdat()``: kswapd reclaims until each zone is above its high watermark; pages freed."""
    short = sum(max(0, zone.watermark[WMARK_HIGH] + 1 - zone.nr_free) for zone in zones)
    if not short:
        return 0
    memory.vmstat.count_vm_event("pageoutrun")
    return _shrink(memory, short, max(zone.rank for zone in zones), "kswapd")


def try_to_free_pages(memory: Memory, highest: int, pages: int) -> int:
    """``try_to_free_pages()``: direct reclaim of up to ``pages``, from zones up to rank ``highest``; pages
    freed."""
    memory.vmstat.count_vm_event(f"allocstall_{zone_item(tuple(ZONE_RANKS)[highest])}")
    return _shrink(memory, pages, highest, "direct")


def drop_pagecache(memory: Memory) -> int:
    """``drop_caches`` bit 0: every clean page cache page that nobody holds; pages freed.

    What was dropped on purpose is not read in again by itself.
    """
    memory.vmstat.count_vm_event("drop_pagecache")
    memory.boot_cache = {}
    return sum(_shrink_cache(memory, cache, cache.resident) for cache in _caches(memory))


def drop_slab(memory: Memory) -> int:
    """``drop_caches`` bit 1: every reclaimable slab page that nobody holds; pages freed."""
    memory.vmstat.count_vm_event("drop_slab")
    freed = 0
    for slab in [o for o in memory.owners.occupants.values() if o.kind == KIND_SLAB]:
        indices = [i for i, pfn in enumerate(slab.frames) if pfn >= 0 and not _held(memory, slab, i)]
        free_unref_pages(memory, memory.owners.punch(slab, indices))
        freed += len(indices)
    return freed


def drop_caches(memory: Memory, value: int) -> None:
    """``drop_caches_sysctl_handler()``: bit 0 of ``value`` drops page cache, bit 1 reclaimable slab."""
    if value & 1:
        drop_pagecache(memory)
    if value & 2:
        drop_slab(memory)
