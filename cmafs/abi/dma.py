"""Dma rows: how dma_alloc_coherent() uses CMA. See cmafs.abi.

V read in the source of that kernel, P from patch mail or change logs, M from memory of it, D derived.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.abi.rows import Rows


@dataclass(frozen=True)
class DmaAbi:
    """One row.

    ``default_area_serves_single_pages``: one page may come from the default area, not only a device's own
    (to 5.2: seeds/003 shows ``count 1`` on 4.15; ``contiguous.c:dma_alloc_contiguous()@v5.10`` skips it, V).
    ``node_areas``: areas of a device's node, tried before the default one in this order (5.10 V, 6.6 P, 7.2
    has one kind only, T).
    ``falls_back``: architectures where alloc_pages() is tried once the area failed; arm64 gave up until it
    used dma-direct (``arch/arm64/mm/dma-mapping.c:__dma_alloc_coherent()@v4.4``; 4.19, M), arm until 6.0
    (``arch/arm/mm/dma-mapping.c:__alloc_from_contiguous()@v5.10``, V; ae626eb97376, P).
    ``zones_by_mask``: a fallback page out of the device's reach is sought again in a lower zone (4.16, M).
    ``pool_grows``: the atomic pool doubles once less than its first size is free (5.8, V 5.10 ``pool.c``).
    ``knows_noncoherent``: ``dma-noncoherent`` undoes what a bus says (not in 5.10, V 6.1
    ``drivers/of/address.c:of_dma_is_coherent()``).
    ``bus_may_lack_dma_ranges``: of the buses above a device the first need not have ``dma-ranges``
    (``drivers/of/address.c:of_dma_get_range()``: V 5.10; 5.4, M).
    ``four_arguments``: dma_alloc_from_contiguous() takes (dev, size, dma_handle, gfp): only seeds/000.
    """

    default_area_serves_single_pages: bool = True
    node_areas: tuple[str, ...] = ()
    falls_back: frozenset[str] = frozenset({"x86_64"})
    zones_by_mask: bool = False
    pool_grows: bool = False
    knows_noncoherent: bool = False
    bus_may_lack_dma_ranges: bool = False
    four_arguments: bool = False


ROWS = Rows(
    DmaAbi(),
    {
        "4.19": {"falls_back": frozenset({"x86_64", "arm64"}), "zones_by_mask": True},
        "5.4": {"default_area_serves_single_pages": False},
        "5.10": {"node_areas": ("pernuma",), "pool_grows": True, "bus_may_lack_dma_ranges": True},
        "6.1": {"falls_back": frozenset({"x86_64", "arm64", "arm"}), "knows_noncoherent": True},
        "6.6": {"node_areas": ("pernuma", "numa")},
        "7.2": {"node_areas": ("numa",)},
        "article": {"four_arguments": True},
    },
)
