"""Which area drivers share: ``cma=``, Kconfig's size, one area a node. Kernel: ``kernel/dma/contiguous.c``.

Sizes and addresses are bytes.
"""

from __future__ import annotations

from cmafs.lib.boot_event import EFFECT_IGNORED, EFFECT_REFUSED
from cmafs.lib.cmdline import CmaParam
from cmafs.lib.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING
from cmafs.lib.sizes import SZ_1M
from cmafs.mm.cma_declare import (
    CmaRefused,
    CmaRequest,
    cma_declare_contiguous_nid,
)
from cmafs.mm.early import EarlyMm


def early_cma(early: EarlyMm) -> None:
    """What parsing ``cma=`` prints: an error without text; to 4.15, with CONFIG_CMA_DEBUG, the text."""
    site = early.abi.cma.sites.early_cma
    for value in early.params.cma_seen:
        if value is None:
            log = early.log
            log.printk("cma: Config string not provided", LOGLEVEL_ERR)
            log.printk("Malformed early option 'cma'", LOGLEVEL_WARNING)
        elif site:
            early.log.pr_debug(site, site.function, value)


def cma_early_percent_memory(early: EarlyMm) -> int:
    """CONFIG_CMA_SIZE_PERCENTAGE of all memory, counted in pages first."""
    pages = early.memblock.phys_mem_size() >> early.config.page_shift
    return (pages * early.config.number("CMA_SIZE_PERCENTAGE") // 100) << early.config.page_shift


def config_size(early: EarlyMm) -> int:
    """The size Kconfig asks for."""
    size = early.config.number("CMA_SIZE_MBYTES") * SZ_1M
    if early.config.on("CMA_SIZE_SEL_PERCENTAGE"):
        return cma_early_percent_memory(early)
    if early.config.on("CMA_SIZE_SEL_MIN"):
        return min(size, cma_early_percent_memory(early))
    if early.config.on("CMA_SIZE_SEL_MAX"):
        return max(size, cma_early_percent_memory(early))
    return size


def _selected(early: EarlyMm, limit: int) -> CmaRequest:
    """Size, base, limit and whether they are one place: ``cma=`` if it was given, else Kconfig."""
    cma: CmaParam = early.params.cma.within(early.phys_mask)
    if cma.size is None:
        return CmaRequest(config_size(early), "reserved", limit=limit)
    user = cma.limit
    if not early.abi.boot.user_limit_replaces:
        user = min(cma.limit, limit) if cma.limit and limit else cma.limit
    return CmaRequest(cma.size, "reserved", base=cma.base, limit=user or limit, fixed=cma.fixed)


def dma_contiguous_reserve(early: EarlyMm, limit: int) -> None:
    """Make the default area unless the device tree made one; ``limit``: the architecture's.

    ``kernel/dma/contiguous.c:dma_contiguous_reserve()@v6.12``.
    """
    if not early.config.knows("cma"):
        return
    abi, areas, sites = early.abi.boot, early.areas, early.abi.cma.sites
    if abi.numa_cma_in_reserve and not abi.numa_cma_after_default:
        dma_numa_cma_reserve(early)
    early.log.pr_debug(sites.limit, sites.limit.function, limit)
    request = _selected(early, limit)
    if request.size and areas.default is None:
        early.log.pr_debug(sites.reserving, sites.reserving.function, request.size // SZ_1M)
        try:
            areas.default = cma = cma_declare_contiguous_nid(early, request)
            shift = early.config.page_shift
            early.fixups.append((None, cma.base_pfn << shift, cma.count << shift))
        except CmaRefused as refused:
            _refused(early, request, refused)
    if abi.numa_cma_after_default:
        dma_numa_cma_reserve(early)


def _refused(early: EarlyMm, request: CmaRequest, refused: CmaRefused) -> None:
    given = "cma=" if early.params.cma.given else "CONFIG_CMA_SIZE_MBYTES"
    detail = f"{request.size:#x} bytes at {request.base:#x}, limit {request.limit:#x}"
    early.event(None, refused.reason, EFFECT_REFUSED, given, detail)


def _node_requests(early: EarlyMm, nid: int) -> list[tuple[str, int]]:
    """The areas a node gets: (kind, bytes)."""
    abi, params = early.abi.boot, early.params
    pernuma, own = params.cma_pernuma, params.numa_cma.get(nid, 0) if abi.numa_cma_param else 0
    if abi.numa_cma_single_name:
        if early.config.on("CMA_SIZE_PERNUMA") and len(early.nodes()) > 1 and not pernuma:
            pernuma = params.cma.size if params.cma.size is not None else config_size(early)
        return [("numa", own or pernuma)]
    return [("pernuma", pernuma), ("numa", own)]


def dma_numa_cma_reserve(early: EarlyMm) -> None:
    """``cma_pernuma=`` and ``numa_cma=``: dma_numa_cma_reserve(), dma_pernuma_cma_reserve() up to 6.5."""
    abi, log, site = early.abi.boot, early.log, early.abi.cma.sites.pernuma
    function = "dma_numa_cma_reserve" if abi.numa_cma_param else "dma_pernuma_cma_reserve"
    if not early.config.knows("cma_pernuma"):
        return
    for nid in early.nodes():
        for kind, size in _node_requests(early, nid):
            if not size:
                continue
            name = f"{kind}{nid}"
            try:
                cma = cma_declare_contiguous_nid(early, CmaRequest(size, name, nid=nid))
                early.areas.node_areas[kind, nid] = cma
            except CmaRefused as refused:
                text = f"cma: {function}: reservation failed: err -{refused.errno}, node {nid}"
                log.printk(text, LOGLEVEL_WARNING)
                parameter = "numa_cma=" if kind == "numa" else "cma_pernuma="
                early.event(None, refused.reason, EFFECT_REFUSED, parameter, name)
                continue
            if site:
                log.pr_debug(site, site.function, size // SZ_1M, nid)
    for nid in sorted(set(early.params.numa_cma) - set(early.nodes())) if abi.numa_cma_param else ():
        early.event(None, "no-such-node", EFFECT_IGNORED, "numa_cma=", f"node {nid}")
