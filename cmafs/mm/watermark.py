"""Watermarks and lowmem reserves (``mm/page_alloc.c``), in pages unless said otherwise.

Watermark boosting (``boost_watermark()``) is left out: kswapd, which here runs at once, would undo it before
anything could see it.
"""

from __future__ import annotations

from itertools import accumulate
from math import isqrt

from cmafs.mm.mmzone import (
    MIGRATE_CMA,
    MIGRATE_PCPTYPES,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_RANKS,
    Memory,
    Zone,
)

#: ``sysctl_lowmem_reserve_ratio``
LOWMEM_RESERVE_RATIO = {"DMA": 256, "DMA32": 256, "Normal": 32, "HighMem": 0, "Movable": 0}


def init_per_zone_wmark_min(memory: Memory) -> None:
    """``init_per_zone_wmark_min()``: min_free_kbytes from low memory, then the watermarks of every zone."""
    lowmem = sum(zone.managed_pages for zone in memory.zones if zone.rank <= ZONE_RANKS["Normal"])
    kbytes = isqrt((lowmem << memory.layout.page_shift >> 10) * 16)
    memory.min_free_kbytes = max(128, min(kbytes, memory.abi.min_free_kbytes_limit))
    _setup_per_zone_wmarks(memory, lowmem)
    _setup_per_zone_lowmem_reserve(memory.zones)


def _setup_per_zone_wmarks(memory: Memory, lowmem: int) -> None:
    """``__setup_per_zone_wmarks()``: each zone's share of min_free_kbytes, low and high above it.

    HighMem, which the kernel itself does not need, keeps between 32 (SWAP_CLUSTER_MAX) and 128 pages.
    """
    pages_min = memory.min_free_kbytes >> (memory.layout.page_shift - 10)
    scale = memory.abi.watermark_scale_factor
    for zone in memory.zones:
        share = pages_min * zone.managed_pages // lowmem if lowmem else 0
        if zone.rank <= ZONE_RANKS["Normal"]:
            zone.watermark[WMARK_MIN] = share
        else:
            zone.watermark[WMARK_MIN] = max(32, min(zone.managed_pages // 1024, 128))
        step = max(share >> 2, zone.managed_pages * scale // 10000)
        zone.watermark[WMARK_LOW] = zone.watermark[WMARK_MIN] + step
        zone.watermark[WMARK_HIGH] = zone.watermark[WMARK_MIN] + 2 * step


def _setup_per_zone_lowmem_reserve(zones: list[Zone]) -> None:
    """``setup_per_zone_lowmem_reserve()``: what requests for a higher zone must leave in each lower one.

    The higher zones are those of the same node.
    """
    for zone in zones:
        managed = {other.rank: other.managed_pages for other in zones if other.nid == zone.nid}
        above = accumulate(managed.get(rank, 0) for rank in range(zone.rank + 1, len(ZONE_RANKS)))
        ratio = LOWMEM_RESERVE_RATIO.get(zone.name, 0)
        kept = (pages // ratio if ratio and zone.managed_pages else 0 for pages in above)
        zone.lowmem_reserve = [*[0] * (zone.rank + 1), *kept]


def headroom(zone: Zone, mark: int, highest: int, alloc_cma: bool) -> int:
    """Single pages that a zone can give before ``zone_watermark_ok(order 0)`` fails; negative below the mark.

    ``mark``: WMARK_MIN, WMARK_LOW or WMARK_HIGH; ``highest``: ``highest_zoneidx`` of the request, a rank;
    ``alloc_cma``: whether CMA pages are usable.
    """
    usable = zone.nr_free - (0 if alloc_cma else zone.nr_free_cma)
    return usable - zone.watermark[mark] - zone.lowmem_reserve[highest]


def zone_watermark_ok(zone: Zone, order: int, mark: int, highest: int, alloc_cma: bool) -> bool:
    """``zone_watermark_ok()``: enough free pages above the mark, and one free block that is large enough."""
    if headroom(zone, mark, highest, alloc_cma) - (1 << order) + 1 <= 0:
        return False
    return order == 0 or has_free_block(zone, order, alloc_cma)


def has_free_block(zone: Zone, order: int, alloc_cma: bool) -> bool:
    """Whether a block of ``order`` or larger is free; one of CMA counts only if ``alloc_cma``."""
    usable = (*range(MIGRATE_PCPTYPES), MIGRATE_CMA) if alloc_cma else range(MIGRATE_PCPTYPES)
    orders = range(order, zone.max_page_order + 1)
    return any(zone.nr_free_blocks(size, migratetype) for size in orders for migratetype in usable)
