"""``hugetlb_cma=``: an area a node for gigantic pages. Kernel: ``mm/hugetlb.c``, later ``mm/hugetlb_cma.c``.

Sizes are bytes.
"""

from __future__ import annotations

from cmafs.init.cmdline import memparse
from cmafs.init.dma_contiguous import DmaContiguous
from cmafs.mm.cma import Cma
from cmafs.mm.cma_declare import (
    SZ_1M,
    CmaRefused,
    CmaRequest,
    cma_declare_contiguous_multi,
    cma_declare_contiguous_nid,
)
from cmafs.of.boot_event import EFFECT_REFUSED, BootEvent
from cmafs.printk import LOGLEVEL_WARNING


def hugetlb_cma_reserve(dma: DmaContiguous) -> None:
    """hugetlb_cma_reserve(): check what was asked for, then share it among the nodes."""
    config, abi, params = dma.config, dma.declare.abi, dma.params
    gigantic = 1 << (config.page_shift + config.gigantic_page_order())
    if not abi.hugetlb_cma or config.arch == "arm":
        return
    total = _validate_nodes(dma, gigantic, params.hugetlb_cma)
    if not total:
        return
    if total < gigantic:
        _warn(dma, f"hugetlb_cma: cma area should be at least {gigantic // SZ_1M} MiB")
        dma.events.append(BootEvent(None, "too-small", EFFECT_REFUSED, "hugetlb_cma="))
        return
    if abi.hugetlb_cma_validates and total % gigantic:
        _warn(dma, f"hugetlb_cma: cma area must be a multiple of {gigantic // SZ_1M} MiB")
        dma.events.append(BootEvent(None, "not-a-multiple", EFFECT_REFUSED, "hugetlb_cma="))
        return
    _reserve_nodes(dma, gigantic, total)
    if abi.hugetlb_bootmem_alloc and _asks_gigantic(dma, gigantic):
        _warn(dma, "HugeTLB: hugetlb_cma is enabled, skip boot time allocation")


def _warn(dma: DmaContiguous, text: str) -> None:
    dma.declare.areas.log.printk(text, LOGLEVEL_WARNING)


def _validate_nodes(dma: DmaContiguous, gigantic: int, total: int) -> int:
    """Drop the nodes of a per-node list that are not there or ask too little; the bytes that remain."""
    sizes = dma.params.hugetlb_cma_node
    for nid in sorted(sizes):
        if not sizes[nid]:
            del sizes[nid]
            continue
        if nid not in dma.nodes:
            _warn(dma, f"hugetlb_cma: invalid node {nid} specified")
        elif sizes[nid] < gigantic:
            need = gigantic // SZ_1M
            _warn(dma, f"hugetlb_cma: cma area of node {nid} should be at least {need} MiB")
        else:
            continue
        dma.events.append(BootEvent(None, "bad-node", EFFECT_REFUSED, "hugetlb_cma=", f"node {nid}"))
        total -= sizes.pop(nid)
    return total


def _reserve_nodes(dma: DmaContiguous, gigantic: int, total: int) -> None:
    log, sizes = dma.declare.areas.log, dma.params.hugetlb_cma_node
    per_node = -(-total // len(dma.nodes))
    if dma.declare.abi.hugetlb_rounds_share:
        per_node = -(-per_node // gigantic) * gigantic
    if not sizes:
        log.printk(f"hugetlb_cma: reserve {total // SZ_1M} MiB, up to {per_node // SZ_1M} MiB per node")
    reserved = 0
    for nid in dma.nodes:
        size = sizes.get(nid, 0) if sizes else min(per_node, total - reserved)
        if not size:
            continue
        size = -(-size // gigantic) * gigantic
        try:
            _declare(dma, size, nid, gigantic)
        except CmaRefused as refused:
            _warn(dma, f"hugetlb_cma: reservation failed: err -{refused.errno}, node {nid}")
            event = BootEvent(None, refused.reason, EFFECT_REFUSED, "hugetlb_cma=", f"node {nid}")
            dma.events.append(event)
            continue
        reserved += size
        log.printk(f"hugetlb_cma: reserved {size // SZ_1M} MiB on node {nid}")
        if reserved >= total:
            break


def _declare(dma: DmaContiguous, size: int, nid: int, gigantic: int) -> Cma:
    config, abi = dma.config, dma.declare.abi
    order = config.huge_page_order()
    request = CmaRequest(
        size,
        f"hugetlb{nid}",
        alignment=1 << (config.page_shift + order) if abi.hugetlb_align_huge else gigantic,
        order_per_bit=order if abi.hugetlb_order_per_bit else 0,
        nid=nid,
    )
    if abi.multi_range_areas:
        return cma_declare_contiguous_multi(dma.declare, request)
    return cma_declare_contiguous_nid(dma.declare, request)


def _asks_gigantic(dma: DmaContiguous, gigantic: int) -> bool:
    """Whether the command line makes a gigantic page size known (``hugepagesz=``,
    ``default_hugepagesz=``).
    """
    names = ("hugepagesz", "default_hugepagesz")
    given = [value for name in names for value in dma.params.values(name) if value]
    return any(memparse(value)[0] == gigantic for value in given)
