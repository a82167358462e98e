"""The counters of /proc/vmstat, kernel by kernel, in the order of ``mm/vmstat.c:vmstat_text[]``.

``name?OPTION``: only with that CONFIG_ option; ``name_*``: one for each zone (``TEXTS_FOR_ZONES``).
The lists of 4.4, 4.19, 5.10, 6.16 and 7.x were read in sources (V), 6.18 on a running kernel (H); the rows
between follow from the change logs (P).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

Items = tuple[str, ...]


def items(text: str) -> Items:
    """Names as a tuple."""
    return tuple(text.split())


def after(listed: Items, anchor: str, text: str) -> Items:
    """A list with names put in behind one."""
    at = listed.index(anchor) + 1
    return (*listed[:at], *items(text), *listed[at:])


def without(listed: Items, text: str) -> Items:
    """A list with names taken out."""
    gone = items(text)
    assert set(gone) <= set(listed), set(gone) - set(listed)
    return tuple(item for item in listed if item not in gone)


@dataclass(frozen=True)
class VmstatItems:
    """``zone``, ``numa``, ``node``, ``global_``, ``events``: the five groups in their order;
    ``deprecated``: at the end.
    """

    zone: Items
    numa: Items
    node: Items
    global_: Items
    events: Items
    deprecated: Items = ()

    def all(self) -> Items:
        """Every line of /proc/vmstat."""
        return self.zone + self.numa + self.node + self.global_ + self.events + self.deprecated


_NUMA = items(
    "numa_hit?NUMA numa_miss?NUMA numa_foreign?NUMA numa_interleave?NUMA numa_local?NUMA numa_other?NUMA"
)
_DIRTY_LIMITS = items("nr_dirty_threshold nr_dirty_background_threshold")

#: 4.4 counts everything by zone; ``nr_free_cma`` comes after the NUMA counters.
ITEMS_4_4 = VmstatItems(
    zone=items(
        """nr_free_pages nr_alloc_batch nr_inactive_anon nr_active_anon nr_inactive_file nr_active_file
        nr_unevictable nr_mlock nr_anon_pages nr_mapped nr_file_pages nr_dirty nr_writeback
        nr_slab_reclaimable
        nr_slab_unreclaimable nr_page_table_pages nr_kernel_stack nr_unstable nr_bounce nr_vmscan_write
        nr_vmscan_immediate_reclaim nr_writeback_temp nr_isolated_anon nr_isolated_file nr_shmem nr_dirtied
        nr_written nr_pages_scanned numa_hit?NUMA numa_miss?NUMA numa_foreign?NUMA numa_interleave?NUMA
        numa_local?NUMA numa_other?NUMA workingset_refault workingset_activate workingset_nodereclaim
        nr_anon_transparent_hugepages nr_free_cma"""
    ),
    numa=(),
    node=(),
    global_=_DIRTY_LIMITS,
    events=items(
        """pgpgin pgpgout pswpin pswpout pgalloc_* pgfree pgactivate pgdeactivate pgfault pgmajfault
        pgrefill_*
        pgsteal_kswapd_* pgsteal_direct_* pgscan_kswapd_* pgscan_direct_* pgscan_direct_throttle
        zone_reclaim_failed?NUMA pginodesteal slabs_scanned kswapd_inodesteal kswapd_low_wmark_hit_quickly
        kswapd_high_wmark_hit_quickly pageoutrun allocstall pgrotated drop_pagecache drop_slab
        pgmigrate_success pgmigrate_fail compact_migrate_scanned compact_free_scanned compact_isolated
        compact_stall compact_fail compact_success htlb_buddy_alloc_success?HUGETLB_PAGE
        htlb_buddy_alloc_fail?HUGETLB_PAGE unevictable_pgs_culled unevictable_pgs_scanned
        unevictable_pgs_rescued unevictable_pgs_mlocked unevictable_pgs_munlocked unevictable_pgs_cleared
        unevictable_pgs_stranded thp_fault_alloc?TRANSPARENT_HUGEPAGE thp_fault_fallback?TRANSPARENT_HUGEPAGE
        thp_collapse_alloc?TRANSPARENT_HUGEPAGE thp_collapse_alloc_failed?TRANSPARENT_HUGEPAGE
        thp_split?TRANSPARENT_HUGEPAGE thp_zero_page_alloc?TRANSPARENT_HUGEPAGE
        thp_zero_page_alloc_failed?TRANSPARENT_HUGEPAGE"""
    ),
)

#: 4.8 moved the LRU lists to the node and gave each zone its own sums.
ITEMS_4_15 = VmstatItems(
    zone=items(
        """nr_free_pages nr_zone_inactive_anon nr_zone_active_anon nr_zone_inactive_file nr_zone_active_file
        nr_zone_unevictable nr_zone_write_pending nr_mlock nr_page_table_pages nr_kernel_stack nr_bounce
        nr_zspages?ZSMALLOC nr_free_cma"""
    ),
    numa=_NUMA,
    node=items(
        """nr_inactive_anon nr_active_anon nr_inactive_file nr_active_file nr_unevictable nr_slab_reclaimable
        nr_slab_unreclaimable nr_isolated_anon nr_isolated_file workingset_refault workingset_activate
        workingset_nodereclaim nr_anon_pages nr_mapped nr_file_pages nr_dirty nr_writeback nr_writeback_temp
        nr_shmem nr_shmem_hugepages nr_shmem_pmdmapped nr_anon_transparent_hugepages nr_unstable
        nr_vmscan_write nr_vmscan_immediate_reclaim nr_dirtied nr_written"""
    ),
    global_=_DIRTY_LIMITS,
    events=items(
        """pgpgin pgpgout pswpin pswpout pgalloc_* allocstall_* pgskip_* pgfree pgactivate pgdeactivate
        pglazyfree pgfault pgmajfault pglazyfreed pgrefill pgsteal_kswapd pgsteal_direct pgscan_kswapd
        pgscan_direct pgscan_direct_throttle zone_reclaim_failed?NUMA pginodesteal slabs_scanned
        kswapd_inodesteal kswapd_low_wmark_hit_quickly kswapd_high_wmark_hit_quickly pageoutrun pgrotated
        drop_pagecache drop_slab oom_kill pgmigrate_success pgmigrate_fail compact_migrate_scanned
        compact_free_scanned compact_isolated compact_stall compact_fail compact_success compact_daemon_wake
        compact_daemon_migrate_scanned compact_daemon_free_scanned htlb_buddy_alloc_success?HUGETLB_PAGE
        htlb_buddy_alloc_fail?HUGETLB_PAGE unevictable_pgs_culled unevictable_pgs_scanned
        unevictable_pgs_rescued unevictable_pgs_mlocked unevictable_pgs_munlocked unevictable_pgs_cleared
        unevictable_pgs_stranded thp_fault_alloc?TRANSPARENT_HUGEPAGE thp_fault_fallback?TRANSPARENT_HUGEPAGE
        thp_collapse_alloc?TRANSPARENT_HUGEPAGE thp_collapse_alloc_failed?TRANSPARENT_HUGEPAGE
        thp_file_alloc?TRANSPARENT_HUGEPAGE thp_file_mapped?TRANSPARENT_HUGEPAGE
        thp_split_page?TRANSPARENT_HUGEPAGE thp_split_page_failed?TRANSPARENT_HUGEPAGE
        thp_deferred_split_page?TRANSPARENT_HUGEPAGE thp_split_pmd?TRANSPARENT_HUGEPAGE
        thp_split_pud?X86_64 thp_zero_page_alloc?TRANSPARENT_HUGEPAGE
        thp_zero_page_alloc_failed?TRANSPARENT_HUGEPAGE thp_swpout?TRANSPARENT_HUGEPAGE
        thp_swpout_fallback?TRANSPARENT_HUGEPAGE swap_ra?SWAP swap_ra_hit?SWAP"""
    ),
)


def _5_4(old: VmstatItems) -> VmstatItems:
    """4.20: workingset_nodes, workingset_restore, nr_kernel_misc_reclaimable; 5.4: huge file pages (P)."""
    node = after(old.node, "nr_isolated_file", "workingset_nodes")
    node = after(node, "workingset_activate", "workingset_restore")
    node = after(node, "nr_shmem_pmdmapped", "nr_file_hugepages nr_file_pmdmapped")
    return replace(old, node=after(node, "nr_written", "nr_kernel_misc_reclaimable"))


def _5_10(old: VmstatItems) -> VmstatItems:
    """V ``mm/vmstat.c@5.10``: working set by anon and file, stacks by node, foll_pin, scans by anon and
    file.
    """
    node = without(old.node, "workingset_refault workingset_activate workingset_restore nr_unstable")
    node = after(
        node,
        "workingset_nodes",
        """workingset_refault_anon workingset_refault_file workingset_activate_anon workingset_activate_file
        workingset_restore_anon workingset_restore_file""",
    )
    node = after(
        node, "nr_kernel_misc_reclaimable", "nr_foll_pin_acquired nr_foll_pin_released nr_kernel_stack"
    )
    events = after(old.events, "pgrefill", "pgreuse")
    events = after(events, "pgscan_direct_throttle", "pgscan_anon pgscan_file pgsteal_anon pgsteal_file")
    events = after(events, "pgmigrate_fail", "thp_migration_success thp_migration_fail thp_migration_split")
    events = after(
        events, "thp_fault_fallback?TRANSPARENT_HUGEPAGE", "thp_fault_fallback_charge?TRANSPARENT_HUGEPAGE"
    )
    events = after(
        events,
        "thp_file_alloc?TRANSPARENT_HUGEPAGE",
        "thp_file_fallback?TRANSPARENT_HUGEPAGE thp_file_fallback_charge?TRANSPARENT_HUGEPAGE",
    )
    zone = without(old.zone, "nr_kernel_stack")
    return replace(old, zone=zone, node=node, events=events, deprecated=("nr_unstable",))


def _5_15(old: VmstatItems) -> VmstatItems:
    """5.11: page tables by node; 5.12: swap cache; 5.13: cma, direct map (P); 5.15: demotion (P)."""
    node = after(old.node, "nr_kernel_stack", "nr_page_table_pages nr_swapcached?SWAP")
    events = after(
        old.events, "htlb_buddy_alloc_fail?HUGETLB_PAGE", "cma_alloc_success?CMA cma_alloc_fail?CMA"
    )
    events = after(events, "pgsteal_direct", "pgdemote_kswapd pgdemote_direct")
    events = (*events, "direct_map_level2_splits?X86_64", "direct_map_level3_splits?X86_64")
    return replace(old, zone=without(old.zone, "nr_page_table_pages"), node=node, events=events)


def _6_1(old: VmstatItems) -> VmstatItems:
    """5.16: throttled writes; 5.17: khugepaged scans; 6.1: secondary page tables (P)."""
    node = after(old.node, "nr_written", "nr_throttled_written")
    events = after(
        old.events,
        "thp_split_pmd?TRANSPARENT_HUGEPAGE",
        """thp_scan_exceed_none_pte?TRANSPARENT_HUGEPAGE thp_scan_exceed_swap_pte?TRANSPARENT_HUGEPAGE
        thp_scan_exceed_share_pte?TRANSPARENT_HUGEPAGE""",
    )
    return replace(old, node=after(node, "nr_page_table_pages", "nr_sec_page_table_pages"), events=events)


def _6_6(old: VmstatItems) -> VmstatItems:
    """6.2: what khugepaged reclaims (P)."""
    events = after(old.events, "pgsteal_direct", "pgsteal_khugepaged")
    events = after(events, "pgdemote_direct", "pgdemote_khugepaged")
    return replace(old, events=after(events, "pgscan_direct", "pgscan_khugepaged"))


def _6_12(old: VmstatItems) -> VmstatItems:
    """6.8: demotion by node; 6.11: iommu pages; 6.12: memmap pages, underused huge pages, zero-filled swap
    (P).
    """
    demoted = "pgdemote_kswapd pgdemote_direct pgdemote_khugepaged"
    node = after(old.node, "nr_sec_page_table_pages", "nr_iommu_pages?IOMMU_SUPPORT")
    events = without(old.events, demoted)
    events = after(
        events,
        "thp_deferred_split_page?TRANSPARENT_HUGEPAGE",
        "thp_underused_split_page?TRANSPARENT_HUGEPAGE",
    )
    events = after(events, "swap_ra_hit?SWAP", "swpin_zero?SWAP swpout_zero?SWAP")
    return replace(
        old,
        node=(*node, *items(demoted)),
        global_=(*old.global_, "nr_memmap_pages", "nr_memmap_boot_pages"),
        events=events,
    )


def _6_18(old: VmstatItems) -> VmstatItems:
    """H: hugetlb, balloon and kernel file pages, proactive reclaim, free page blocks; bounce buffers are
    gone.
    """
    node = after(old.node, "pgdemote_khugepaged", "pgdemote_proactive nr_hugetlb?HUGETLB_PAGE")
    node = without((*node, "nr_balloon_pages", "nr_kernel_file_pages"), "nr_writeback_temp")
    events = after(old.events, "pgsteal_khugepaged", "pgsteal_proactive")
    events = after(events, "pgscan_khugepaged", "pgscan_proactive")
    events = after(events, "direct_map_level3_splits?X86_64", "direct_map_level2_collapses?X86_64")
    events = after(events, "direct_map_level2_collapses?X86_64", "direct_map_level3_collapses?X86_64")
    at = events.index("zone_reclaim_failed?NUMA")
    events = (*events[:at], "zone_reclaim_success?NUMA", *events[at:])
    zone = without(after(old.zone, "nr_free_pages", "nr_free_pages_blocks"), "nr_bounce")
    return replace(old, zone=zone, node=node, events=events)


def _7_2(old: VmstatItems) -> VmstatItems:
    """V ``mm/vmstat.c@7.x``: reclaim is counted by node, vmalloc and GPU pages are counted."""
    reclaim = items(
        """pgsteal_kswapd pgsteal_direct pgsteal_khugepaged pgsteal_proactive pgsteal_anon pgsteal_file
        pgscan_kswapd pgscan_direct pgscan_khugepaged pgscan_proactive pgscan_anon pgscan_file pgrefill"""
    )
    node = after(old.node, "pgdemote_proactive", " ".join(reclaim))
    node = after(node, "nr_foll_pin_released", "nr_vmalloc")
    events = without(old.events, " ".join(reclaim))
    return replace(old, node=(*node, "nr_gpu_active", "nr_gpu_reclaim"), events=events)


ITEMS_5_4 = _5_4(ITEMS_4_15)
ITEMS_5_10 = _5_10(ITEMS_5_4)
ITEMS_5_15 = _5_15(ITEMS_5_10)
ITEMS_6_1 = _6_1(ITEMS_5_15)
ITEMS_6_6 = _6_6(ITEMS_6_1)
ITEMS_6_12 = _6_12(ITEMS_6_6)
ITEMS_6_18 = _6_18(ITEMS_6_12)
ITEMS_7_2 = _7_2(ITEMS_6_18)

#: The page-table isolation of the stable series counts its tables (T 4.4.155; 4.4.110, P).
ITEMS_4_4_110 = replace(ITEMS_4_4, zone=after(ITEMS_4_4.zone, "nr_kernel_stack", "nr_overhead"))

#: The row of 2010. Later than 2.6.36 are: transparent huge pages 2.6.38, CMA 3.7, pgmigrate 3.8,
#: nr_alloc_batch 3.12, workingset and drop counters 3.15, nr_pages_scanned 3.17 (M).
ITEMS_2010 = replace(
    ITEMS_4_4,
    zone=without(
        ITEMS_4_4.zone,
        """nr_alloc_batch nr_pages_scanned workingset_refault workingset_activate workingset_nodereclaim
        nr_anon_transparent_hugepages nr_free_cma""",
    ),
    events=tuple(
        name
        for name in ITEMS_4_4.events
        if not name.startswith(("thp_", "pgmigrate_", "drop_", "pgscan_direct_throttle"))
    ),
)
