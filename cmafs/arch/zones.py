"""Zones: where they begin and end, and the lines that say so.

Kernel: ``mm/mm_init.c:free_area_init()``; pfns.
"""

from __future__ import annotations

from cmafs.arch.setup import EarlyBoot, ZoneRange
from cmafs.lib.printk import LOGLEVEL_DEBUG

_MAX_DMA32 = 1 << 32

#: arch/x86/mm/init.c:memblock_find_dma_reserve(): pages of the first zone that are taken below 16 MiB on
#: the recorded 5.10 guest.
_X86_DMA_RESERVE = 21


def zone_ranges(boot: EarlyBoot) -> list[ZoneRange]:
    """(name, start, end) of every zone of the architecture, empty ones included."""
    shift = boot.config.page_shift
    start = boot.memblock.start_of_dram() >> shift
    end = boot.memblock.end_of_dram() >> shift
    if boot.config.arch == "x86_64":
        border = min(max(_MAX_DMA32 >> shift, start), end)
        return [("DMA32", start, border), ("Normal", border, end)]
    if boot.config.arch == "arm":
        border = min((boot.high_memory or 0) >> shift, end)
        return [("Normal", start, border), ("HighMem", border, end)]
    return [("Normal", start, end)]


def free_area_init(boot: EarlyBoot) -> None:
    """The lines about zones and nodes."""
    log, size = boot.log, boot.page_size
    log.printk("Zone ranges:")
    for name, start, end in zone_ranges(boot):
        where = f"[mem {start * size:#018x}-{end * size - 1:#018x}]" if start < end else "empty"
        log.printk(f"  {name:<8s} {where}")
    log.printk("Movable zone start for each node")
    log.printk("Early memory node ranges")
    for region in boot.memblock.memory:
        start, end = -(-region.base // size) * size, region.end // size * size
        if start < end:
            log.printk(f"  node {region.nid:3d}: [mem {start:#018x}-{end - 1:#018x}]")
    for nid in boot.nodes():
        regions = [region for region in boot.memblock.memory if region.nid == nid]
        span = f"[mem {regions[0].base:#018x}-{regions[-1].end - 1:#018x}]"
        log.printk(f"Initmem setup node {nid} {span}")
        if boot.abi.boot.zone_details:
            _zone_details(boot, nid)


def _zone_details(boot: EarlyBoot, nid: int) -> None:
    """free_area_init_core(): what each zone's memmap takes, and its batch."""
    shift = boot.config.page_shift
    regions = [(r.base >> shift, r.end >> shift) for r in boot.memblock.memory if r.nid == nid]
    log = boot.log
    log.printk(f"On node {nid} totalpages: {sum(e - s for s, e in regions)}", LOGLEVEL_DEBUG)
    for index, (name, low, high) in enumerate(zone_ranges(boot)):
        inside = [(max(s, low), min(e, high)) for s, e in regions if s < high and e > low]
        present = sum(e - s for s, e in inside)
        if not present:
            continue
        free = present
        span = min(regions[-1][1], high) - max(regions[0][0], low)
        memmap = _memmap_pages(boot, span, present)
        if name != "HighMem":
            free -= memmap
            log.printk(f"  {name} zone: {memmap} pages used for memmap", LOGLEVEL_DEBUG)
        if index == 0:
            reserve = _X86_DMA_RESERVE if boot.config.arch == "x86_64" else 0
            log.printk(f"  {name} zone: {reserve} pages reserved", LOGLEVEL_DEBUG)
            free -= reserve
        batch = zone_batchsize(free, boot.page_size)
        log.printk(f"  {name} zone: {present} pages, LIFO batch:{batch}", LOGLEVEL_DEBUG)


def _memmap_pages(boot: EarlyBoot, spanned: int, present: int) -> int:
    """calc_memmap_size(): by the span unless more than a sixteenth of it are holes."""
    pages = present if spanned > present + (present >> 4) else spanned
    return -(-pages * boot.data.struct_page_bytes // boot.page_size)


def zone_batchsize(managed: int, page_size: int) -> int:
    """zone_batchsize()@v5.10: pages that per-CPU lists move at once."""
    batch = min(managed // 1024, (1 << 20) // page_size) // 4
    batch = max(batch, 1)
    return (1 << ((batch + batch // 2).bit_length() - 1)) - 1
