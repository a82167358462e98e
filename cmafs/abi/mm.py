"""Mm rows: page blocks, watermarks, fallbacks, free-list order. See cmafs.abi; each field has its citation.

P marks what is known from patch mail and change logs, so that the row may be one release off; V what was read
in the source of the release named; T what a transcript shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.abi.rows import Rows

#: How a request that finds its own lists empty takes from another migratetype (``MmAbi.fallback``).
FALLBACK_TAKE_LARGEST = "largest"  # take the largest block, whatever it is; claim where half of it is free
FALLBACK_STEAL = "steal"  # move the block to the list of the wanted type, then search that list again
FALLBACK_HYGIENE = "hygiene"  # what is not claimed stays on the list of its own page block
FALLBACK_CLAIM = "claim"  # claim whole page blocks first, steal single blocks, smallest first, after that


@dataclass(frozen=True)
class MmAbi:
    """One row.

    ``cma_half_rule``: a movable request is served from CMA first while more than half of the zone's free
    pages are CMA (5.8, ``mm/page_alloc.c:__rmqueue()@v5.10``; T); before, CMA is only its fallback.
    ``boot_frees_to_tail``: memory freed at boot goes to the tail of its list (FPI_TO_TAIL, 5.10;
    ``__free_pages_core()@v5.10``), so that the lowest block is used first; before, the highest.
    ``moves_to_tail``: blocks moved between lists go to the tail (``move_to_free_list()@v5.10``,
    293ffa5ebb9c).
    ``max_order_inclusive``: ARCH_FORCE_MAX_ORDER is the largest order and not one more (6.4, P 23baf831a32c).
    ``pageblock_follows_thp``: page blocks are huge pages with CONFIG_TRANSPARENT_HUGEPAGE too, not only with
    CONFIG_HUGETLB_PAGE (include/linux/pageblock-flags.h: V 6.12, not 6.1).
    ``isolates_max_order``: alloc_contig_range() isolates whole blocks of the largest order
    (``pfn_max_align_down()@v5.15``), from 5.19 single page blocks (P b2c9e2fbba32).
    ``merges_only_mergeable``: page blocks of CMA, HIGHATOMIC or ISOLATE never merge with others (5.17, P
    1dd214b8f21c); before, only ISOLATE keeps apart (``__free_one_page()@v5.10``).
    ``merge_retypes_pageblock``: a merge of two page blocks gives both one type (6.10, P, the series on free
    list hygiene).
    ``fallback``: one of the FALLBACK_ constants: 4.13 searches the smallest block where it may not claim
    (P 7a8f58f39188), 6.10 keeps lists and page blocks in agreement (P, same series), 6.15 claims first (P,
    ``__rmqueue_claim()``).
    ``claim_counts_alike``: allocated pages of a compatible type count towards claiming a page block
    (4.12, P 02aa0cdd7248).
    ``watermark_scale_factor``: low and high are at least this many 1/10000 of the zone apart (4.6, P
    795ae7a0de6b); 0: a quarter of min.
    ``min_free_kbytes_limit``: KiB, upper bound of the value computed at boot
    (``init_per_zone_wmark_min()@v5.10``; 65536 before 5.8, P).
    ``enomem_ends_migration``: no further tries in a window once there is nowhere to migrate to (5.14, P).
    ``reports_pfns_busy``: alloc_contig_range() says which window was busy (until 5.12; V 5.10, P removal).
    ``mlock_stops_migration``: mlocked pages stay where they are and say so; only the dialect ``article``
    (seeds/000).
    ``boot_kernel_kib``, ``boot_user_kib``, ``boot_cache_kib``: KiB that the kernel (beyond reservations and
    memmap), the first processes, and clean page cache hold once user space is up. Fitted to one guest, that
    of the ``pressure`` transcripts: x86_64 with 256 MiB, one CPU, tinyconfig, a static shell in its
    initramfs; 5.15 has 5.10's figures, 6.6 has 6.1's, 6.18 has 6.12's. 4.4 to 5.4 have 5.10's sum, more of it
    the kernel's: their out-of-memory killer came while CMA was whole and 419 other pages were free (T
    5.4.286), or 113 (T 4.15.0), those of page blocks that the kernel has claimed. Seen were MemFree at the
    start, how much of it was movable (CmaFree of an area larger than half the memory), and how much came back
    when memory ran out; a kernel that had freed its init memory by then shows a smaller share. On 7.2 the
    cache stands for what rests on per-CPU lists, too. They would be derived from the slabs, kernel stacks,
    page tables and per-CPU areas of a configuration and its CPUs, and from what init reads and runs.
    ``pcp_batch_kib``: KiB, upper bound of what a per-CPU list's batch is derived from
    (``zone_batchsize()``; 512 to 4.17, T 4.15, T 4.19; d8a759b57035, P).
    ``parks_cma_block``: a page block of CMA rests on a per-CPU list while nothing of CMA is allocated (T 7.2:
    CmaFree at boot, and after all was freed, 2 MiB short of CmaTotal).
    """

    cma_half_rule: bool
    boot_frees_to_tail: bool
    moves_to_tail: bool
    max_order_inclusive: bool
    pageblock_follows_thp: bool
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
    boot_kernel_kib: int
    boot_user_kib: int
    boot_cache_kib: int
    pcp_batch_kib: int
    parks_cma_block: bool


ROWS = Rows(
    MmAbi(
        cma_half_rule=False,
        boot_frees_to_tail=False,
        moves_to_tail=False,
        max_order_inclusive=False,
        pageblock_follows_thp=False,
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
        boot_kernel_kib=2460,
        boot_user_kib=540,
        boot_cache_kib=200,
        pcp_batch_kib=512,
        parks_cma_block=False,
    ),
    {
        "4.15": {"fallback": FALLBACK_STEAL, "claim_counts_alike": True, "watermark_scale_factor": 10},
        "4.19": {"pcp_batch_kib": 1024},
        "5.10": {
            "cma_half_rule": True,
            "boot_frees_to_tail": True,
            "moves_to_tail": True,
            "min_free_kbytes_limit": 262144,
            "boot_kernel_kib": 60,
            "boot_user_kib": 2940,
        },
        "5.15": {"enomem_ends_migration": True, "reports_pfns_busy": False},
        "6.1": {
            "isolates_max_order": False,
            "merges_only_mergeable": True,
            "boot_kernel_kib": 1348,
            "boot_user_kib": 2660,
            "boot_cache_kib": 800,
        },
        "6.6": {"max_order_inclusive": True},
        "6.12": {
            "pageblock_follows_thp": True,
            "fallback": FALLBACK_HYGIENE,
            "merge_retypes_pageblock": True,
            "boot_kernel_kib": 1368,
            "boot_user_kib": 3020,
            "boot_cache_kib": 600,
        },
        "6.18": {"fallback": FALLBACK_CLAIM},
        "7.2": {
            "boot_kernel_kib": 4740,
            "boot_user_kib": 168,
            "boot_cache_kib": 3552,
            "parks_cma_block": True,
        },
        "article": {"mlock_stops_migration": True},
    },
)
