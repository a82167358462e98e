"""What is modelled of the per-CPU lists: a page block of CMA that rests there while nothing is allocated.

Newer kernels free whole page blocks to the per-CPU list. Until something drains it, such a block is free but
on no buddy list and in no counter: CmaFree is short of it (T: 2 MiB on 7.2, at boot and once all is freed).
"""

from __future__ import annotations

from cmafs.abi.mm import MmAbi
from cmafs.mm.buddy import free_range, rmqueue_smallest
from cmafs.mm.mmzone import MIGRATE_CMA, WMARK_HIGH, Memory, Zone
from cmafs.mm.page_owner import KIND_PCP

#: No task can have this name.
PCP = "[pcp]"


def zone_batchsize(abi: MmAbi, managed: int, page_shift: int) -> int:
    """``zone_batchsize()@v5.10``: pages of a zone of ``managed`` pages that the lists move at once."""
    batch = max(min(managed >> 10, abi.pcp_batch_kib << 10 >> page_shift) // 4, 1)
    return (1 << (batch + batch // 2).bit_length() - 1) - 1


def park_cma_block(memory: Memory) -> None:
    """Puts a page block of CMA on the per-CPU list, where this kernel does so and no CMA is allocated."""
    if not memory.abi.parks_cma_block or memory.cma_allocated or memory.pcp is not None:
        return
    for zone in memory.zones:
        pfn = _pageblock(memory, zone)
        if pfn is not None:
            memory.pcp = memory.owners.add(PCP, KIND_PCP, visible=False)
            memory.owners.extend(memory.pcp, [(0, 1, pfn, memory.pageblock_nr_pages)])
            return


def _pageblock(memory: Memory, zone: Zone) -> int | None:
    """A page block of CMA that a zone can spare: its first pfn."""
    if zone.nr_free <= zone.watermark[WMARK_HIGH] + memory.pageblock_nr_pages:
        return None
    return rmqueue_smallest(zone, memory.pageblock_order, MIGRATE_CMA)


def drain_all_pages(memory: Memory) -> int:
    """``drain_all_pages()``: what rests on per-CPU lists goes to the buddy lists; pages drained."""
    pcp = memory.pcp
    if pcp is None:
        return 0
    pfns = memory.owners.truncate(pcp, 0)
    memory.owners.remove(pcp)
    memory.pcp = None
    free_range(memory, memory.zone_of(pfns[0]), pfns[0], pfns[-1] + 1)
    return len(pfns)
