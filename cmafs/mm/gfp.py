"""GFP flags, and what they mean for zone and migratetype (``include/linux/gfp.h``).

The values are those of 5.10 (``include/linux/gfp.h@v5.10``) for all kernels: nothing shows them.
"""

from __future__ import annotations

from cmafs.mm.mmzone import (
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    ZONE_RANKS,
    Memory,
    Zone,
)

GFP_DMA_BIT = 0x01
GFP_HIGHMEM_BIT = 0x02
GFP_DMA32_BIT = 0x04
GFP_MOVABLE_BIT = 0x08
GFP_RECLAIMABLE_BIT = 0x10
GFP_HIGH_BIT = 0x20
GFP_IO_BIT = 0x40
GFP_FS_BIT = 0x80
GFP_DIRECT_RECLAIM_BIT = 0x400
GFP_KSWAPD_RECLAIM_BIT = 0x800

GFP_ATOMIC = GFP_HIGH_BIT | GFP_KSWAPD_RECLAIM_BIT
GFP_KERNEL = GFP_DIRECT_RECLAIM_BIT | GFP_KSWAPD_RECLAIM_BIT | GFP_IO_BIT | GFP_FS_BIT
GFP_USER = GFP_KERNEL
GFP_DMA = GFP_DMA_BIT
GFP_DMA32 = GFP_DMA32_BIT
GFP_HIGHUSER_MOVABLE = GFP_USER | GFP_HIGHMEM_BIT | GFP_MOVABLE_BIT
GFP_SLAB_RECLAIMABLE = GFP_KERNEL | GFP_RECLAIMABLE_BIT


def get_order(size: int, page_shift: int) -> int:
    """``get_order()``: the smallest order whose pages hold ``size`` bytes; 0 for one page."""
    return max((size - 1) >> page_shift, 0).bit_length()


def gfp_migratetype(memory: Memory, gfp: int) -> int:
    """``gfp_migratetype()``: on whose lists a request looks first (seeds/002: GFP flag to migratetype)."""
    if memory.page_group_by_mobility_disabled:
        return MIGRATE_UNMOVABLE
    if gfp & GFP_MOVABLE_BIT:
        return MIGRATE_MOVABLE
    return MIGRATE_RECLAIMABLE if gfp & GFP_RECLAIMABLE_BIT else MIGRATE_UNMOVABLE


def gfp_zone_rank(gfp: int) -> int:
    """``gfp_zone()``: the highest zone that a request may use, as a rank of ``ZONE_RANKS``."""
    if gfp & GFP_DMA_BIT:
        return ZONE_RANKS["DMA"]
    if gfp & GFP_DMA32_BIT:
        return ZONE_RANKS["DMA32"]
    if not gfp & GFP_HIGHMEM_BIT:
        return ZONE_RANKS["Normal"]
    return ZONE_RANKS["Movable" if gfp & GFP_MOVABLE_BIT else "HighMem"]


def zonelist(memory: Memory, gfp: int) -> list[Zone]:
    """``node_zonelist()``: the populated zones that a request may use, best first.

    Those of the first node, on which everything runs here, come before those of the next. A machine without
    the DMA zone asked for answers from its lowest zone, as a kernel built without it.
    """
    zones = [zone for zone in memory.zones if zone.present_pages]
    highest = max(gfp_zone_rank(gfp), min(zone.rank for zone in zones))
    usable = [zone for zone in zones if zone.rank <= highest]
    return sorted(usable, key=lambda zone: (zone.nid, -zone.rank))
