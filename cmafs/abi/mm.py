"""Mm rows: page blocks, watermarks, fallbacks, free-list order. See cmafs.abi; each field has its citation.

P marks what is known from patch mail and change logs, so that the row may be one release off;
V what was read in the source of the release named; T what a transcript shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.abi.rows import rows_from

#: How a request that finds its own lists empty takes from another migratetype (``MmAbi.fallback``).
FALLBACK_TAKE_LARGEST = "largest"  # take the largest block, whatever it is; claim where half of it is free
FALLBACK_STEAL = "steal"  # move the block to the list of the wanted type, then search that list again
FALLBACK_HYGIENE = "hygiene"  # what is not claimed stays on the list of its own page block
FALLBACK_CLAIM = "claim"  # claim whole page blocks first, steal single blocks, smallest first, after that


@dataclass(frozen=True)
class MmAbi:
    """One row.

    ``cma_half_rule``: a movable request is served from CMA first while more than half of the zone's free pages are
    CMA (5.8, ``mm/page_alloc.c:__rmqueue()@v5.10``; T); before, CMA is only its fallback.
    ``boot_frees_to_tail``: memory freed at boot goes to the tail of its list (FPI_TO_TAIL, 5.10;
    ``__free_pages_core()@v5.10``), so that the lowest block is used first; before, the highest.
    ``moves_to_tail``: blocks moved between lists go to the tail (``move_to_free_list()@v5.10``).
    ``isolates_max_order``: alloc_contig_range() isolates whole blocks of the largest order
    (``pfn_max_align_down()@v5.15``), from 5.19 single page blocks (P b2c9e2fbba32).
    ``merges_only_mergeable``: page blocks of CMA, HIGHATOMIC or ISOLATE never merge with others (5.17, P 1dd214b8f21c);
    before, only ISOLATE keeps apart (``__free_one_page()@v5.10``).
    ``merge_retypes_pageblock``: a merge of two page blocks gives both one type (6.10, P e1f42a577f63).
    ``fallback``: one of the FALLBACK_ constants: 4.13 searches the smallest block where it may not claim
    (P 7a8f58f39188), 6.10 keeps lists and page blocks in agreement (P c0cd6f557b90), 6.15 claims first (P a211c6550efc).
    ``claim_counts_alike``: allocated pages of a compatible type count towards claiming a page block
    (4.12, P 02aa0cdd7248).
    ``watermark_scale_factor``: low and high are at least this many 1/10000 of the zone apart (4.6, P 795ae7a0de6b);
    0: a quarter of min.
    ``min_free_kbytes_limit``: KiB, upper bound of the value computed at boot (``init_per_zone_wmark_min()@v5.10``;
    65536 before 5.8, P ee8eb9a5fe86).
    ``enomem_ends_migration``: no further tries in a window once there is nowhere to migrate to (5.14, P c8e28b47af45).
    ``reports_pfns_busy``: alloc_contig_range() says which window was busy (until 5.12; V 5.10, P removal).
    ``mlock_stops_migration``: mlocked pages stay where they are and say so; only the dialect ``article`` (seeds/000).
    ``struct_page_bytes``: bytes of memmap a page (56 in 5.10, else 64; T by the place of the area below the memmap).
    ``boot_used_kib``, ``boot_cache_kib``: KiB that the kernel, and its page cache and first processes, hold after boot
    on a small machine beyond the reservations and the memmap, measured on the guests of the ``pressure`` transcripts.
    """

    cma_half_rule: bool
    boot_frees_to_tail: bool
    moves_to_tail: bool
    isolates_max_order: bool
    merges_only_mergeable: bool
    merge_retypes_pageblock: bool
    fallback: str
    claim_counts_alike: bool
    watermark_scale_factor: int
    min_free_kbytes_limit: int
    enomem_ends_migration: bool
    reports_pfns_busy: bool
    mlock_stops_migration: bool
    struct_page_bytes: int
    boot_used_kib: int
    boot_cache_kib: int


ROWS = rows_from(
    MmAbi(
        cma_half_rule=False,
        boot_frees_to_tail=False,
        moves_to_tail=False,
        isolates_max_order=True,
        merges_only_mergeable=False,
        merge_retypes_pageblock=False,
        fallback=FALLBACK_TAKE_LARGEST,
        claim_counts_alike=False,
        watermark_scale_factor=0,
        min_free_kbytes_limit=65536,
        enomem_ends_migration=False,
        reports_pfns_busy=True,
        mlock_stops_migration=False,
        struct_page_bytes=64,
        boot_used_kib=3000,
        boot_cache_kib=1000,
    ),
    {
        "4.15": dict(fallback=FALLBACK_STEAL, claim_counts_alike=True, watermark_scale_factor=10),
        "5.10": dict(
            cma_half_rule=True,
            boot_frees_to_tail=True,
            moves_to_tail=True,
            min_free_kbytes_limit=262144,
            struct_page_bytes=56,
        ),
        "5.15": dict(enomem_ends_migration=True, reports_pfns_busy=False, struct_page_bytes=64),
        "6.1": dict(isolates_max_order=False, merges_only_mergeable=True),
        "6.12": dict(fallback=FALLBACK_HYGIENE, merge_retypes_pageblock=True),
        "6.18": dict(fallback=FALLBACK_CLAIM),
        "article": dict(mlock_stops_migration=True),
    },
)
