"""/proc/meminfo, as ``fs/proc/meminfo.c`` writes it; every figure in KiB, huge pages in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cmafs.lib.math import div_round_up
from cmafs.lib.sizes import SZ_1G, SZ_2M
from cmafs.mm.mmzone import WMARK_HIGH, WMARK_LOW

if TYPE_CHECKING:
    from cmafs.fs.proc.vmstat import VmstatFiles
    from cmafs.mm.mmzone import Memory

#: KiB of VMALLOC_TOTAL: fixed on x86_64, on arm64 what 48 bits leave, on arm what a default board has (M).
VMALLOC_TOTAL = {"x86_64": 34359738367, "arm64": 133141626880, "arm": 245760}

#: Labels whose figure is a count, without unit.
_COUNTS = ("HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp")


def totalreserve_pages(memory: Memory) -> int:
    """``calculate_totalreserve_pages()``: pages that nobody should plan with."""
    return sum(
        min(max(zone.lowmem_reserve) + zone.watermark[WMARK_HIGH], zone.managed_pages)
        for zone in memory.zones
    )


def si_mem_available(files: VmstatFiles) -> int:
    """``si_mem_available()`` in pages: free memory, and the caches as far as they can be given up.

    The watermarks of zones without memory count too: ``for_each_zone()``.
    """
    memory = files.machine.memory
    state = memory.owners.node_page_state
    low = sum(zone.watermark[WMARK_LOW] for nid in memory.nodes() for zone in files.zones(nid))
    pagecache = state("nr_active_file") + state("nr_inactive_file")
    reclaimable = state("nr_slab_reclaimable") + state("nr_kernel_misc_reclaimable")
    available = sum(zone.nr_free for zone in memory.zones) - totalreserve_pages(memory)
    available += pagecache - min(pagecache // 2, low)
    available += reclaimable - min(reclaimable // 2, low)
    return max(0, available)


def _direct_map(memory: Memory) -> dict[str, int]:
    """``arch_report_meminfo()`` of x86: KiB of the direct map by page size."""
    sizes = {"DirectMap4k": 0, "DirectMap2M": 0, "DirectMap1G": 0}
    shift = memory.layout.page_shift
    for start, end in ((s << shift, e << shift) for s, e in memory.layout.memory):
        large = max(0, (end // SZ_2M - div_round_up(start, SZ_2M)) * SZ_2M)
        huge = max(0, (end // SZ_1G - div_round_up(start, SZ_1G)) * SZ_1G)
        sizes["DirectMap1G"] += huge >> 10
        sizes["DirectMap2M"] += (large - huge) >> 10
        sizes["DirectMap4k"] += (end - start - large) >> 10
    return sizes


def _pages(files: VmstatFiles) -> dict[str, int]:
    """What is counted in pages. Lines that are not named here read 0: nothing simulated is behind them."""
    memory = files.machine.memory
    state = memory.owners.node_page_state
    zone_state = memory.global_zone_page_state
    high = memory.high_zones()
    total, free = sum(z.managed_pages for z in memory.zones), sum(z.nr_free for z in memory.zones)
    high_total, high_free = sum(z.managed_pages for z in high), sum(z.nr_free for z in high)
    lru = {
        f"{label}({kind})": state(f"nr_{label.lower()}_{kind}")
        for label in ("Active", "Inactive")
        for kind in ("anon", "file")
    }
    return {
        **lru,
        "MemTotal": total,
        "MemFree": free,
        "MemAvailable": si_mem_available(files),
        "Cached": state("nr_file_pages"),
        "Active": lru["Active(anon)"] + lru["Active(file)"],
        "Inactive": lru["Inactive(anon)"] + lru["Inactive(file)"],
        "Unevictable": state("nr_unevictable"),
        "Mlocked": zone_state("nr_mlock"),
        "HighTotal": high_total,
        "HighFree": high_free,
        "LowTotal": total - high_total,
        "LowFree": free - high_free,
        "Dirty": state("nr_dirty"),
        "AnonPages": state("nr_anon_pages"),
        "Shmem": state("nr_shmem"),
        "KReclaimable": state("nr_slab_reclaimable") + state("nr_kernel_misc_reclaimable"),
        "Slab": state("nr_slab_reclaimable") + state("nr_slab_unreclaimable"),
        "SReclaimable": state("nr_slab_reclaimable"),
        "SUnreclaim": state("nr_slab_unreclaimable"),
        "CommitLimit": total // 2,
        "Committed_AS": state("nr_anon_pages") + state("nr_shmem"),
        "CmaFree": zone_state("nr_free_cma"),
    }


def meminfo(files: VmstatFiles, lines: tuple[str, ...]) -> bytes:
    """``meminfo_proc_show()``: the ``lines`` of this kernel, in their order."""
    machine, memory = files.machine, files.machine.memory
    kib_shift = memory.layout.page_shift - 10
    figures: Mapping[str, int] = {
        **{name: pages << kib_shift for name, pages in _pages(files).items()},
        "CmaTotal": machine.cma.totalcma_pages << kib_shift,
        **_direct_map(memory),
        "VmallocTotal": VMALLOC_TOTAL[machine.arch],
        "Hugepagesize": 1 << machine.config.huge_page_order() + kib_shift,
    }
    return "".join(
        f"{line + ':':<16}{figures.get(line, 0):8d}{'' if line in _COUNTS else ' kB'}\n" for line in lines
    ).encode()
