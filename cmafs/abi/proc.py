"""Proc rows: the formats of /proc, see cmafs.abi. Each field has its citation.

V was read in the source of the release named, H asked of a running 6.18, P follows from a change log (the row
may be one off), M is from memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.abi import vmstat_items as vm
from cmafs.abi.rows import Rows
from cmafs.abi.vmstat_items import Items, VmstatItems, after, items

#: ``fs/proc/meminfo.c:meminfo_proc_show()@4.4`` (V), then hugetlb's lines and the architecture's.
_MEMINFO_4_4 = items(
    """MemTotal MemFree MemAvailable Buffers Cached SwapCached Active Inactive Active(anon) Inactive(anon)
    Active(file) Inactive(file) Unevictable Mlocked HighTotal?HIGHMEM HighFree?HIGHMEM LowTotal?HIGHMEM
    LowFree?HIGHMEM SwapTotal SwapFree Dirty Writeback AnonPages Mapped Shmem Slab SReclaimable SUnreclaim
    KernelStack PageTables NFS_Unstable Bounce WritebackTmp CommitLimit Committed_AS VmallocTotal VmallocUsed
    VmallocChunk AnonHugePages?TRANSPARENT_HUGEPAGE CmaTotal?CMA CmaFree?CMA HugePages_Total?HUGETLB_PAGE
    HugePages_Free?HUGETLB_PAGE HugePages_Rsvd?HUGETLB_PAGE HugePages_Surp?HUGETLB_PAGE
    Hugepagesize?HUGETLB_PAGE DirectMap4k?X86_64 DirectMap2M?X86_64 DirectMap1G?X86_64"""
)
#: 4.8 (P).
_MEMINFO_4_15 = after(
    _MEMINFO_4_4,
    "AnonHugePages?TRANSPARENT_HUGEPAGE",
    "ShmemHugePages?TRANSPARENT_HUGEPAGE ShmemPmdMapped?TRANSPARENT_HUGEPAGE",
)
#: 4.16: Hugetlb, 4.19: Percpu (P).
_MEMINFO_4_19 = after(
    after(_MEMINFO_4_15, "Hugepagesize?HUGETLB_PAGE", "Hugetlb?HUGETLB_PAGE"), "VmallocChunk", "Percpu"
)
#: 4.20: KReclaimable, 5.4: FileHugePages (P).
_MEMINFO_5_4 = after(
    after(_MEMINFO_4_19, "Shmem", "KReclaimable"),
    "ShmemPmdMapped?TRANSPARENT_HUGEPAGE",
    "FileHugePages?TRANSPARENT_HUGEPAGE FilePmdMapped?TRANSPARENT_HUGEPAGE",
)
#: 6.1 (P; H).
_MEMINFO_6_1 = after(_MEMINFO_5_4, "PageTables", "SecPageTables")
#: 6.16 (V).
_MEMINFO_6_18 = after(_MEMINFO_6_1, "CmaFree?CMA", "Balloon")
#: 7.0 (V).
_MEMINFO_7_2 = after(_MEMINFO_6_18, "Balloon", "GPUActive GPUReclaim")
#: What came after 2.6.36: transparent huge pages 2.6.38, MemAvailable 3.14, CMA 3.5 and 3.19 (M).
_MEMINFO_2010 = tuple(
    line
    for line in _MEMINFO_4_4
    if line.partition("?")[0] not in ("MemAvailable", "AnonHugePages", "CmaTotal", "CmaFree")
)


@dataclass(frozen=True)
class ProcAbi:
    """One row.

    ``vmstat``: the counters of /proc/vmstat in their order.
    ``meminfo``: the lines of /proc/meminfo in their order; ``NAME?OPTION`` only with that CONFIG_ option.
    ``freecount_limit``: at most so many blocks are counted in pagetypeinfo, then ``>`` (5.4, P
    93b3a674485f; V 5.10).
    ``migratetypes``: the columns of pagetypeinfo, likewise; in 2.6.36 neither CMA nor HighAtomic, but Reserve
    (M).
    ``pagetypeinfo_mode``: 0400 since 5.4 (P abaed0112c1d; V 5.10).
    ``online_subsections``: with MEMORY_HOTPLUG and SPARSEMEM_VMEMMAP a page block counts there where its
    subsection has memory, not its section (mm/memory_hotplug.c:pfn_to_online_page()@v6.1; 5.12, P
    9f9b02e5b3ad; V 6.1, 6.12).
    ``zoneinfo_by_node``: counters of the node stand before the first zone, zones without memory are shown too
    (4.8, 4.12; V 4.19); before, ``scanned``, and other lines at the end (V 4.4).
    ``zoneinfo_managed``: a zone's ``managed`` line (3.9, M).
    ``zoneinfo_cma``: a zone's ``cma`` line (5.12, P 3c381db1fac8). ``zoneinfo_boost`` (5.16, P a6ea8b5b9f1c).
    ``zoneinfo_promo`` (6.16, and 6.12.117; V). ``pcp_high_range``: ``high_min`` and ``high_max`` (not in
    6.12.117, V; in 6.18, H).
    ``pcp_high_from_watermark``: pcp->high is the low watermark (5.14, P b92ca18e8ca5; H), before six batches.
    ``compact_memory_checks``: only ``1`` is taken (6.5, P 8b9167cd9ef0); before, any write compacts.
    ``sysctl_writes_strict``: a write behind the start of the file is swallowed (4.5, P 41662f5cc553; V 6.12).
    ``cmdline_size``: stat shows how long /proc/cmdline is (V 6.12, not 6.1).
    ``drop_caches_mode``: 0200 since 5.5 (P 204cb79ad42f).
    """

    vmstat: VmstatItems
    meminfo: Items
    freecount_limit: int | None
    migratetypes: Items
    pagetypeinfo_mode: int
    online_subsections: bool
    zoneinfo_by_node: bool
    zoneinfo_managed: bool
    zoneinfo_cma: bool
    zoneinfo_boost: bool
    zoneinfo_promo: bool
    pcp_high_range: bool
    pcp_high_from_watermark: bool
    compact_memory_checks: bool
    sysctl_writes_strict: bool
    drop_caches_mode: int
    cmdline_size: bool


ROWS = Rows(
    ProcAbi(
        vmstat=vm.ITEMS_4_4,
        meminfo=_MEMINFO_4_4,
        freecount_limit=None,
        migratetypes=items("Unmovable Movable Reclaimable HighAtomic CMA?CMA Isolate?MEMORY_ISOLATION"),
        pagetypeinfo_mode=0o444,
        online_subsections=False,
        zoneinfo_by_node=False,
        zoneinfo_managed=True,
        zoneinfo_cma=False,
        zoneinfo_boost=False,
        zoneinfo_promo=False,
        pcp_high_range=False,
        pcp_high_from_watermark=False,
        compact_memory_checks=False,
        sysctl_writes_strict=False,
        drop_caches_mode=0o644,
        cmdline_size=False,
    ),
    {
        "4.4.110": {"vmstat": vm.ITEMS_4_4_110},
        "4.15": {
            "vmstat": vm.ITEMS_4_15,
            "meminfo": _MEMINFO_4_15,
            "zoneinfo_by_node": True,
            "sysctl_writes_strict": True,
        },
        "4.19": {"meminfo": _MEMINFO_4_19},
        "5.4": {
            "vmstat": vm.ITEMS_5_4,
            "meminfo": _MEMINFO_5_4,
            "freecount_limit": 100000,
            "pagetypeinfo_mode": 0o400,
        },
        "5.10": {"vmstat": vm.ITEMS_5_10, "drop_caches_mode": 0o200},
        "5.15": {
            "vmstat": vm.ITEMS_5_15,
            "online_subsections": True,
            "zoneinfo_cma": True,
            "pcp_high_from_watermark": True,
        },
        "6.1": {"vmstat": vm.ITEMS_6_1, "meminfo": _MEMINFO_6_1, "zoneinfo_boost": True},
        "6.6": {"vmstat": vm.ITEMS_6_6, "compact_memory_checks": True},
        "6.12": {"vmstat": vm.ITEMS_6_12, "zoneinfo_promo": True, "cmdline_size": True},
        "6.18": {
            "vmstat": vm.ITEMS_6_18,
            "meminfo": _MEMINFO_6_18,
            "pcp_high_range": True,
        },
        "7.2": {"vmstat": vm.ITEMS_7_2, "meminfo": _MEMINFO_7_2},
        "2010": {
            "vmstat": vm.ITEMS_2010,
            "meminfo": _MEMINFO_2010,
            "migratetypes": ("Unmovable", "Reclaimable", "Movable", "Reserve", "Isolate"),
            "zoneinfo_managed": False,
        },
    },
)
