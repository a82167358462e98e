"""Boot rows: reservation, device tree, command line and their log lines. See cmafs.abi; each field has its
citation.

T: seen in a transcript; V: read in the source of the release named; P: from change logs, so the row may be
one release off; M: from memory of the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cmafs.abi.rows import Rows

#: When the rule "bottom-up from 4 GiB first" applies (``BootAbi.bottom_up_rule``).
BOTTOM_UP_NEVER = "never"
BOTTOM_UP_BY_MEMORY = "memory"  # memory ends at 4 GiB + size or above
BOTTOM_UP_BY_LIMIT = "limit"  # the limit of the request is 4 GiB + size or above

#: What sorts /reserved-memory before it is initialised (``BootAbi.reserved_mem_sort``).
SORT_HEAP = "heap"  # lib/sort.c: not stable
SORT_STABLE = "stable"  # equal ones in device-tree order
SORT_NONE = "none"  # size nodes, then reg nodes, each in device-tree order

#: How many nodes of MAX_RESERVED_REGIONS fit; from 6.12 on it counts size nodes only.
_REGIONS_OLD, _REGIONS_415, _REGIONS = 16, 32, 64


@dataclass(frozen=True)
class BootAbi:
    """One row.

    mm/cma.c, declaring an area:
    ``align_to_max_order``: the unit is max(MAX_ORDER-1, pageblock_order) pages (T 5.10), from 5.19 one
    page block (T 6.1).
    ``bottom_up_rule``: from 5.12 by memory (V 5.15, T 6.12), later by limit (V 7.2, T; P 6.17).
    ``boundary_highmem_only``: the low/high line needs CONFIG_HIGHMEM (T 7.2; P 6.17).
    ``reserved_says_node``: `` on node %d`` (T 6.12; 6.6 to 6.14 P).
    ``mib_after_rounding``: the MiB of Reserved and Failed are of the rounded size (T up to 6.12; P 6.15).
    ``failed_after_every_error``: the Failed line also follows a full table, size 0 ... (T 7.2; P 6.15).
    ``multi_range_areas``: cma_declare_contiguous_multi() (T 7.2; P 6.15).
    ``checks_place``: a place that was asked for must be aligned, and any must end below the limit (5.3, P
    c633324e3112, also in 4.4.188 and 4.19.65; not T 4.4.155, 4.15.0, T 4.19.72).
    ``hidden_extra_slot``: MAX_CMA_AREAS is 1 + CONFIG_CMA_AREAS (T 5.10; removed 6.9, T 6.12).

    kernel/dma/contiguous.c:
    ``user_limit_replaces``: the limit of ``cma=`` is used alone, not the smaller of it and the
    architecture's (V 6.18.2, 7.2; not 6.12).
    ``numa_cma_param`` 6.6 (T 5.10 does not know it). ``numa_cma_in_reserve``: per-node areas are made by
    dma_contiguous_reserve(), before the default (T 6.12; 6.6 P), else by the architecture (T 5.10).
    ``numa_cma_after_default``, ``numa_cma_single_name``: 7.2 makes them after the default and calls all
    ``numa<N>`` (T).
    ``cmdline_beats_default``: 5.9 (P; T 5.10). ``default_node_skipped``: 7.x refuses the node before it is
    reserved (T 7.2).
    ``unclaimed_stays``: a pool that no driver wants stays reserved, without a failure line (T 7.2).

    mm/hugetlb.c: ``hugetlb_cma`` 5.7 (T 5.10); ``hugetlb_cma_per_node`` 5.16 (P); ``hugetlb_cma_validates``:
    7.2 refuses sizes off the gigantic page, a node's too, where others refuse smaller ones
    (mm/hugetlb_cma.c:hugetlb_cma_reserve()@v7.2; T); ``hugetlb_order_per_bit``: the huge page's order instead
    of 0 (T 6.1); ``hugetlb_align_huge``: aligned to the huge page only (T 6.1); ``hugetlb_bootmem_alloc``:
    says so when a gigantic page size is asked for besides (T 7.2). ``hugetlb_rounds_share``: what a node may
    get is rounded up before it is printed (V 6.1.192, 6.12.117; a fix of 2026, not yet in the other releases,
    D).

    drivers/of:
    ``of_prefix`` of of_reserved_mem.c, ``fdt_prefix`` of fdt.c's reserved-memory lines (T; before 4.8 M).
    ``failed_pool_freed``: a pool that its driver refuses is given back, and a line says so (5.2, P
    d0b8ed47e83a; T 5.4.286, not 4.19.72).
    ``overlaps_at_zero``: regions at address 0 are compared, equal bases sorted by size (5.10,
    ca05f3331655, in the stable releases of 10 November 2020, P; V 5.4.286, not 4.19.72).
    ``any_pool_is_aligned``: a pool that no one may reuse is aligned to CMA's unit, too (V 4.4, not 4.15).
    ``no_space_text``: what is said of one region too many (V 5.4, 5.10).
    ``reserved_mem_sort``, ``max_reserved_regions`` (32 from 4.15, V 4.15.0).
    ``scans_nested_nodes``: nodes below a child count too (M, ``__fdt_scan_reserved_mem()@v5.10``).
    ``nomap_removes``: no-map memory is removed from memblock (before 5.10; M; T 5.10 not).
    ``memreserve_first``: /memreserve/ before /reserved-memory (V 5.10; 6.4 turned it round, M).
    ``two_passes``: reg nodes are read again once the tree is unflattened (T 6.12).
    ``prints_regions``: a line for each region (6.4 P; T 6.12).
    ``failed_allocation_size``: ``: size %lu MiB`` (V 6.1, T 6.12). ``keeps_ranges_contiguous``:
    alloc-ranges bottom-up next to an existing region (6.6 M; V 6.12). ``first_reg_only``: other pairs of reg
    are not reserved (T 7.2).
    ``validates_properties``: of_flat_dt_get_addr_size_prop(): a wrong length counts as absent (T 7.2).

    Early boot:
    ``arm64_steps``, ``x86_steps``, ``arm_steps``: what happens in which order until the page allocator
    runs (T; M before 5.10).
    ``dma_reserve``: pages below 16 MiB that x86 counts as reserved in the first zone
    (``arch/x86/mm/init.c:memblock_find_dma_reserve()``; T, of a guest without ZONE_DMA).
    ``zone_details``: the ``pages used for memmap`` lines (T 5.10, not 6.1). ``unknown_parameters``: format
    of that line, "" without (5.14 M; T 6.1). ``arm64_knows_nokaslr``: elsewhere it is an unknown one
    (V 6.12 ``arch/arm64/kernel/kaslr.c:parse_nokaslr()``, not 6.1).
    ``init_arguments``: the lines of run_init_process() (T 5.10).
    ``zone_limit_exact``: zones of arm64 end where dma-ranges do (6.12; V), before at a power of two.
    ``zone_limit_by_offset``: the zone below 4 GiB is 4 GiB from the start of memory (to 5.4, M
    ``arch/arm64/mm/init.c:max_zone_dma_phys()@v4.19``), later an address.
    ``dma_ranges_limit_zone``: dma-ranges of the tree lower ZONE_DMA (5.5 P; V 5.10).
    ``rodata_words``: what ``rodata=`` calls a linear map that is not in pages, and one that is (V 6.12, 7.2).
    ``mirror_line``: what a machine without mirrored memory says of ``kernelcore=mirror`` (6.6, P
    0db31d63f27c; T 6.12, D 6.1).
    ``pool_needs_zone_dma``: the atomic pool of ZONE_DMA is made where that zone has memory (5.17 P; V 6.1),
    before where it is configured.
    ``numa_emulation_is_generic``: ``numa=fake=`` is not only x86's, and starts with memory (6.12; V 6.1 not).
    ``numa_says_none``: arm64 says that nothing describes NUMA nodes (to 6.11; V 6.1, not 6.12).
    ``zonelists_after_cmdline``: built and said after ``Kernel command line`` (6.5 P; T 6.12, not 6.1);
    ``zonelists_count_all``: with every page present, not less the memmap (6.10 P; T).
    ``swiotlb_has_areas``: the bounce buffer has an area a CPU, and says so (6.0 P; V 6.1).
    ``crash_known``: any of these symbols registers ``crashkernel=`` as a parameter
    (arch/arm64/mm/mmu.c:enable_crash_mem_map(), 5.11 and stable 5.10, to 6.3 P; kernel/crash_core.c: 5.17 and
    stable 5.15.11, P; V 6.1; kernel/crash_reserve.c, V 6.12). ``crash_symbols``: what builds its reservation,
    by architecture (V 5.10, 6.1, 6.12; 6.9 P).
    ``crash_total_rounded``: ranges compare memory rounded up to 128 MiB (V 6.1, not 5.10).
    ``crash_texts``: what is said of a missing size, and of a missing base (V 5.10, 6.1, 6.12, 7.2).
    ``crash_suffixes``: ``,cma`` in 7.2 (V; 6.17 P). ``crash_must_fit``: as large as memory is refused unsaid
    (V 6.12). ``crash_zero_taken``: 32-bit ARM reserves nothing and says so (V 5.10, not 6.1).
    ``crash_generic``: architectures with reserve_crashkernel_generic() (6.7 P, V 6.12) or their own that does
    the same (arm64: 6.2 to 6.5, P). ``crash_arm64_high``: ``,high`` and ``,low`` on arm64, whose search says
    nothing of a base (6.0 P; V 6.1). ``crash_x86_falls_back``: from below 4 GiB to above, before below
    896 MiB only (5.2, P 9ca5c8e632ce, b9ac3849af41). ``crash_below_last``: arm64 searches up to the limit's
    last byte (ARCH_LOW_ADDRESS_LIMIT; to 5.9, M). ``crash_maps_pages``: with ``crashkernel=`` arm64 maps all
    memory in pages (V 5.10, 6.1; to 6.3 P).
    ``framework_2010``: the framework of seeds/001 instead of mm/cma.c: no default area, no ``cma=`` of today,
    no /reserved-memory (3.15, M).
    """

    align_to_max_order: bool
    bottom_up_rule: str
    boundary_highmem_only: bool
    reserved_says_node: bool
    mib_after_rounding: bool
    failed_after_every_error: bool
    multi_range_areas: bool
    checks_place: bool
    hidden_extra_slot: bool
    user_limit_replaces: bool
    numa_cma_param: bool
    numa_cma_in_reserve: bool
    numa_cma_after_default: bool
    numa_cma_single_name: bool
    cmdline_beats_default: bool
    default_node_skipped: bool
    unclaimed_stays: bool
    hugetlb_cma: bool
    hugetlb_cma_per_node: bool
    hugetlb_cma_validates: bool
    hugetlb_order_per_bit: bool
    hugetlb_align_huge: bool
    hugetlb_bootmem_alloc: bool
    hugetlb_rounds_share: bool
    of_prefix: str
    fdt_prefix: str
    failed_pool_freed: bool
    overlaps_at_zero: bool
    any_pool_is_aligned: bool
    no_space_text: str
    reserved_mem_sort: str
    max_reserved_regions: int
    scans_nested_nodes: bool
    nomap_removes: bool
    memreserve_first: bool
    two_passes: bool
    prints_regions: bool
    failed_allocation_size: bool
    keeps_ranges_contiguous: bool
    first_reg_only: bool
    validates_properties: bool
    arm64_steps: tuple[str, ...]
    x86_steps: tuple[str, ...]
    arm_steps: tuple[str, ...]
    dma_reserve: int
    zone_details: bool
    unknown_parameters: str
    arm64_knows_nokaslr: bool
    init_arguments: bool
    zone_limit_exact: bool
    zone_limit_by_offset: bool
    dma_ranges_limit_zone: bool
    rodata_words: tuple[tuple[str, ...], tuple[str, ...]]
    mirror_line: str
    pool_needs_zone_dma: bool
    numa_says_none: bool
    numa_emulation_is_generic: bool
    zonelists_after_cmdline: bool
    zonelists_count_all: bool
    swiotlb_has_areas: bool
    crash_known: tuple[str, ...]
    crash_symbols: Mapping[str, str]
    crash_total_rounded: bool
    crash_texts: tuple[str, str]
    crash_suffixes: tuple[str, ...]
    crash_must_fit: bool
    crash_zero_taken: bool
    crash_generic: tuple[str, ...]
    crash_arm64_high: bool
    crash_x86_falls_back: bool
    crash_below_last: bool
    crash_maps_pages: bool
    framework_2010: bool


_UNKNOWN_PARAMETERS = 'Unknown kernel command line parameters "%s", will be passed to user space.'


def _steps(names: str) -> tuple[str, ...]:
    return tuple(names.split())


_STEPS_2010 = ("page_tables", "unflatten", "memmap", "zones")
_X86_STEPS = ("default", "hugetlb", "crashkernel", "memmap", "zones")

ROWS = Rows(
    BootAbi(
        align_to_max_order=True,
        bottom_up_rule=BOTTOM_UP_NEVER,
        boundary_highmem_only=False,
        reserved_says_node=False,
        mib_after_rounding=True,
        failed_after_every_error=False,
        multi_range_areas=False,
        checks_place=False,
        hidden_extra_slot=True,
        user_limit_replaces=False,
        numa_cma_param=False,
        numa_cma_in_reserve=False,
        numa_cma_after_default=False,
        numa_cma_single_name=False,
        cmdline_beats_default=False,
        default_node_skipped=False,
        unclaimed_stays=False,
        hugetlb_cma=False,
        hugetlb_cma_per_node=False,
        hugetlb_cma_validates=False,
        hugetlb_order_per_bit=False,
        hugetlb_align_huge=False,
        hugetlb_bootmem_alloc=False,
        hugetlb_rounds_share=False,
        of_prefix="Reserved memory: ",
        fdt_prefix="",
        failed_pool_freed=False,
        overlaps_at_zero=False,
        any_pool_is_aligned=True,
        no_space_text="not enough space all defined regions.",
        reserved_mem_sort=SORT_HEAP,
        max_reserved_regions=_REGIONS_OLD,
        scans_nested_nodes=True,
        nomap_removes=True,
        memreserve_first=True,
        two_passes=False,
        prints_regions=False,
        failed_allocation_size=False,
        keeps_ranges_contiguous=False,
        first_reg_only=False,
        validates_properties=False,
        arm64_steps=("default", "page_tables", "unflatten", "node_data", "memmap", "zones"),
        x86_steps=_X86_STEPS,
        arm_steps=("default", "lowmem", "page_tables", "memmap", "zones", "unflatten", "crashkernel"),
        dma_reserve=22,
        zone_details=True,
        unknown_parameters="",
        arm64_knows_nokaslr=False,
        init_arguments=False,
        zone_limit_exact=False,
        zone_limit_by_offset=True,
        dma_ranges_limit_zone=False,
        rodata_words=(("on", "off"), ("full",)),
        mirror_line="This configuration results in unmirrored kernel memory.",
        pool_needs_zone_dma=False,
        numa_says_none=True,
        numa_emulation_is_generic=False,
        zonelists_after_cmdline=False,
        zonelists_count_all=False,
        swiotlb_has_areas=False,
        crash_known=(),
        crash_symbols={"arm": "KEXEC", "arm64": "KEXEC_CORE", "x86_64": "KEXEC_CORE"},
        crash_total_rounded=False,
        crash_texts=("Memory value expected", "Memory value expected after '@'"),
        crash_suffixes=(",high", ",low"),
        crash_must_fit=False,
        crash_zero_taken=True,
        crash_generic=(),
        crash_arm64_high=False,
        crash_x86_falls_back=False,
        crash_below_last=True,
        crash_maps_pages=False,
        framework_2010=False,
    ),
    {
        "4.4.188": {"checks_place": True},
        "4.15": {
            "of_prefix": "OF: reserved mem: ",
            "fdt_prefix": "OF: fdt: ",
            "max_reserved_regions": _REGIONS_415,
            "any_pool_is_aligned": False,
            "arm64_steps": _steps("crashkernel default page_tables unflatten node_data memmap zones"),
            "dma_reserve": 21,
        },
        "4.19.65": {"checks_place": True},
        "4.19.156": {"overlaps_at_zero": True},
        "5.4": {
            "checks_place": True,
            "failed_pool_freed": True,
            "crash_x86_falls_back": True,
        },
        "5.4.76": {"overlaps_at_zero": True},
        "5.10": {
            "cmdline_beats_default": True,
            "overlaps_at_zero": True,
            "no_space_text": "not enough space for all defined regions.",
            "hugetlb_cma": True,
            "max_reserved_regions": _REGIONS,
            "nomap_removes": False,
            "arm64_steps": _steps(
                "crashkernel_without_zones page_tables unflatten node_data hugetlb numa memmap zones default"
                " crashkernel_with_zones"
            ),
            "crash_known": ("ARM64",),
            "crash_below_last": False,
            "crash_maps_pages": True,
            "init_arguments": True,
            "zone_limit_by_offset": False,
            "dma_ranges_limit_zone": True,
        },
        "5.15": {
            "bottom_up_rule": BOTTOM_UP_BY_MEMORY,
            "zone_details": False,
            "unknown_parameters": "Unknown command line parameters: %s",
        },
        "5.15.11": {"crash_known": ("ARM64", "CRASH_CORE")},
        "6.1": {
            "crash_known": ("ARM64", "CRASH_CORE"),
            "crash_total_rounded": True,
            "crash_zero_taken": False,
            "crash_arm64_high": True,
            "align_to_max_order": False,
            "pool_needs_zone_dma": True,
            "swiotlb_has_areas": True,
            "hugetlb_cma_per_node": True,
            "hugetlb_order_per_bit": True,
            "hugetlb_align_huge": True,
            "hugetlb_rounds_share": True,
            "scans_nested_nodes": False,
            "failed_allocation_size": True,
            "unknown_parameters": _UNKNOWN_PARAMETERS,
        },
        "6.6": {
            "mirror_line": "The system has no mirror memory, ignore kernelcore=mirror.",
            "reserved_says_node": True,
            "hugetlb_rounds_share": False,
            "memreserve_first": False,
            "zonelists_after_cmdline": True,
            "numa_cma_param": True,
            "numa_cma_in_reserve": True,
            "reserved_mem_sort": SORT_STABLE,
            "prints_regions": True,
            "keeps_ranges_contiguous": True,
            "arm64_steps": _steps("page_tables unflatten node_data hugetlb memmap zones default crashkernel"),
            "crash_known": ("CRASH_CORE",),
            "crash_generic": ("arm64",),
            "crash_maps_pages": False,
        },
        "6.12": {
            "crash_known": ("CRASH_RESERVE",),
            "crash_symbols": dict.fromkeys(("arm", "arm64", "x86_64"), "CRASH_RESERVE"),
            "crash_texts": (
                "crashkernel: Memory value expected",
                "crahskernel: Memory value expected after '@'",
            ),
            "crash_must_fit": True,
            "crash_generic": ("arm64", "x86_64"),
            "numa_says_none": False,
            "arm64_knows_nokaslr": True,
            "numa_emulation_is_generic": True,
            "zonelists_count_all": True,
            "zone_limit_exact": True,
            "hidden_extra_slot": False,
            "hugetlb_align_huge": False,
            "hugetlb_rounds_share": True,
            "fdt_prefix": "OF: reserved mem: ",
            "reserved_mem_sort": SORT_NONE,
            "two_passes": True,
        },
        "6.18": {
            "bottom_up_rule": BOTTOM_UP_BY_LIMIT,
            "boundary_highmem_only": True,
            "reserved_says_node": False,
            "mib_after_rounding": False,
            "failed_after_every_error": True,
            "multi_range_areas": True,
            "user_limit_replaces": True,
            "hugetlb_bootmem_alloc": True,
            "hugetlb_rounds_share": False,
        },
        "7.2": {
            "rodata_words": (("noalias", "off"), ("on",)),
            "numa_cma_after_default": True,
            "numa_cma_single_name": True,
            "default_node_skipped": True,
            "unclaimed_stays": True,
            "hugetlb_cma_validates": True,
            "hugetlb_rounds_share": True,
            "first_reg_only": True,
            "validates_properties": True,
            "arm64_steps": _steps("page_tables unflatten node_data default crashkernel hugetlb memmap zones"),
            "x86_steps": ("default", "crashkernel", "hugetlb", "memmap", "zones"),
            "crash_texts": (
                "crashkernel: Memory value expected",
                "crashkernel: Memory value expected after '@'",
            ),
            "crash_suffixes": (",high", ",low", ",cma"),
        },
        "2010": {
            "framework_2010": True,
            "arm64_steps": _STEPS_2010,
            "x86_steps": ("memmap", "zones"),
            "arm_steps": ("lowmem", *_STEPS_2010),
        },
    },
)
