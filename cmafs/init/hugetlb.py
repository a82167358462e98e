"""``hugetlb_cma=``: an area a node for gigantic pages. Kernel: ``mm/hugetlb.c``, later ``mm/hugetlb_cma.c``.

Sizes are bytes.
"""

from __future__ import annotations

from cmafs.lib.boot_event import EFFECT_REFUSED
from cmafs.lib.cmdline import memparse
from cmafs.lib.math import div_round_up, roundup
from cmafs.lib.printk import LOGLEVEL_WARNING
from cmafs.lib.sizes import SZ_1M
from cmafs.mm.cma import Cma
from cmafs.mm.cma_declare import (
    CmaRefused,
    CmaRequest,
    cma_declare_contiguous_multi,
    cma_declare_contiguous_nid,
)
from cmafs.mm.early import EarlyMm

#: Why a size is refused, by ``abi.boot.hugetlb_cma_validates``.
_WRONG = {False: "too-small", True: "not-a-multiple"}


def hugetlb_cma_reserve(early: EarlyMm) -> None:
    """hugetlb_cma_reserve(): check what was asked for, then share it among the nodes."""
    config, abi, params = early.config, early.abi.boot, early.params
    gigantic = 1 << (config.page_shift + config.gigantic_page_order())
    if not config.knows("hugetlb_cma") or config.arch == "arm":
        return
    total = _validate_nodes(early, gigantic, params.hugetlb_cma)
    if not total:
        return
    if wrong := _wrong_size(early, total, gigantic):
        _warn(early, f"hugetlb_cma: cma area {wrong}")
        early.event(None, _WRONG[abi.hugetlb_cma_validates], EFFECT_REFUSED, "hugetlb_cma=")
        return
    _reserve_nodes(early, gigantic, total)
    if abi.hugetlb_bootmem_alloc and _asks_gigantic(early, gigantic):
        _warn(early, "HugeTLB: hugetlb_cma is enabled, skip boot time allocation")


def _warn(early: EarlyMm, text: str) -> None:
    early.log.printk(text, LOGLEVEL_WARNING)


def _wrong_size(early: EarlyMm, size: int, gigantic: int) -> str:
    """What the log says of a size that gigantic pages cannot make up: too small, from 7.2 on not whole."""
    if early.abi.boot.hugetlb_cma_validates:
        return f"must be a multiple of {gigantic // SZ_1M} MiB" if size % gigantic else ""
    return f"should be at least {gigantic // SZ_1M} MiB" if size < gigantic else ""


def _validate_nodes(early: EarlyMm, gigantic: int, total: int) -> int:
    """Drop the nodes of a per-node list that are not there or ask for a wrong size; what remains."""
    sizes = early.params.hugetlb_cma_node
    for nid in sorted(sizes):
        if not sizes[nid]:
            del sizes[nid]
            continue
        if nid not in early.nodes():
            _warn(early, f"hugetlb_cma: invalid node {nid} specified")
        elif wrong := _wrong_size(early, sizes[nid], gigantic):
            _warn(early, f"hugetlb_cma: cma area of node {nid} {wrong}")
        else:
            continue
        early.event(None, "bad-node", EFFECT_REFUSED, "hugetlb_cma=", f"node {nid}")
        total -= sizes.pop(nid)
    return total


def _reserve_nodes(early: EarlyMm, gigantic: int, total: int) -> None:
    log, sizes = early.log, early.params.hugetlb_cma_node
    per_node = div_round_up(total, len(early.nodes()))
    if early.abi.boot.hugetlb_rounds_share:
        per_node = roundup(per_node, gigantic)
    if not sizes:
        log.printk(f"hugetlb_cma: reserve {total // SZ_1M} MiB, up to {per_node // SZ_1M} MiB per node")
    reserved = 0
    for nid in early.nodes():
        size = sizes.get(nid, 0) if sizes else min(per_node, total - reserved)
        if not size:
            continue
        size = roundup(size, gigantic)
        try:
            _declare(early, size, nid, gigantic)
        except CmaRefused as refused:
            _warn(early, f"hugetlb_cma: reservation failed: err -{refused.errno}, node {nid}")
            early.event(None, refused.reason, EFFECT_REFUSED, "hugetlb_cma=", f"node {nid}")
            continue
        reserved += size
        log.printk(f"hugetlb_cma: reserved {size // SZ_1M} MiB on node {nid}")
        if reserved >= total:
            break


def _declare(early: EarlyMm, size: int, nid: int, gigantic: int) -> Cma:
    config, abi = early.config, early.abi.boot
    order = config.huge_page_order()
    request = CmaRequest(
        size,
        f"hugetlb{nid}",
        alignment=1 << (config.page_shift + order) if abi.hugetlb_align_huge else gigantic,
        order_per_bit=order if abi.hugetlb_order_per_bit else 0,
        nid=nid,
    )
    if abi.multi_range_areas:
        return cma_declare_contiguous_multi(early, request)
    return cma_declare_contiguous_nid(early, request)


def _asks_gigantic(early: EarlyMm, gigantic: int) -> bool:
    """Whether ``hugepagesz=`` or ``default_hugepagesz=`` makes a gigantic page size known."""
    names = ("hugepagesz", "default_hugepagesz")
    given = [value for name in names for value in early.params.values(name) if value]
    return any(memparse(value)[0] == gigantic for value in given)
