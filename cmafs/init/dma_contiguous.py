"""Which area drivers share: ``cma=``, Kconfig's size, one area a node. Kernel: ``kernel/dma/contiguous.c``.

Sizes and addresses are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmafs.init.cmdline import CmaParam, EarlyParams
from cmafs.init.kconfig import Kconfig
from cmafs.mm.cma_declare import (
    SZ_1M,
    CmaDeclare,
    CmaRefused,
    CmaRequest,
    cma_declare_contiguous_nid,
)
from cmafs.of.boot_event import EFFECT_IGNORED, EFFECT_REFUSED, BootEvent
from cmafs.printk import LOGLEVEL_DEBUG, LOGLEVEL_ERR, LOGLEVEL_WARNING


@dataclass
class DmaContiguous:
    """What contiguous.c works on: the machine's parameters, its nodes, where facts about refusals go."""

    declare: CmaDeclare
    config: Kconfig
    params: EarlyParams
    nodes: Sequence[int]
    events: list[BootEvent]

    def debug(self, text: str) -> None:
        """pr_debug() of a file that CONFIG_CMA_DEBUG builds with DEBUG."""
        if self.config.cma_debug:
            self.declare.areas.log.printk("cma: " + text, LOGLEVEL_DEBUG)


def early_cma(dma: DmaContiguous) -> None:
    """What parsing ``cma=`` prints: an error without text; on 4.x, with CONFIG_CMA_DEBUG, the text."""
    for value in dma.params.cma_seen:
        if value is None:
            log = dma.declare.areas.log
            log.printk("cma: Config string not provided", LOGLEVEL_ERR)
            log.printk("Malformed early option 'cma'", LOGLEVEL_WARNING)
        elif dma.declare.abi.early_cma_debug:
            dma.debug(f"early_cma({value})")


def cma_early_percent_memory(dma: DmaContiguous) -> int:
    """CONFIG_CMA_SIZE_PERCENTAGE of all memory, counted in pages first."""
    pages = dma.declare.memblock.phys_mem_size() >> dma.config.page_shift
    return (pages * dma.config.cma_size_percentage // 100) << dma.config.page_shift


def config_size(dma: DmaContiguous) -> int:
    """The size Kconfig asks for."""
    size = dma.config.cma_size_mbytes * SZ_1M
    match dma.config.cma_size_sel:
        case "CMA_SIZE_SEL_PERCENTAGE":
            return cma_early_percent_memory(dma)
        case "CMA_SIZE_SEL_MIN":
            return min(size, cma_early_percent_memory(dma))
        case "CMA_SIZE_SEL_MAX":
            return max(size, cma_early_percent_memory(dma))
    return size


def _selected(dma: DmaContiguous, limit: int) -> CmaRequest:
    """Size, base, limit and whether they are one place: ``cma=`` if it was given, else Kconfig."""
    cma: CmaParam = dma.params.cma
    if cma.size is None:
        return CmaRequest(config_size(dma), "reserved", limit=limit)
    user = cma.limit
    if not dma.declare.abi.user_limit_replaces:
        user = min(cma.limit, limit) if cma.limit and limit else cma.limit
    return CmaRequest(cma.size, "reserved", base=cma.base, limit=user or limit, fixed=cma.fixed)


def dma_contiguous_reserve(dma: DmaContiguous, limit: int) -> None:
    """Make the default area unless the device tree made one; ``limit``: the architecture's.

    ``kernel/dma/contiguous.c:dma_contiguous_reserve()@v6.12``.
    """
    abi, areas = dma.declare.abi, dma.declare.areas
    if abi.numa_cma_in_reserve and not abi.numa_cma_after_default:
        dma_numa_cma_reserve(dma)
    dma.debug(f"dma_contiguous_reserve(limit {limit:08x})")
    request = _selected(dma, limit)
    if request.size and areas.default is None:
        dma.debug(f"dma_contiguous_reserve: reserving {request.size // SZ_1M} MiB for global area")
        try:
            areas.default = cma_declare_contiguous_nid(dma.declare, request)
        except CmaRefused as refused:
            _refused(dma, request, refused)
    if abi.numa_cma_after_default:
        dma_numa_cma_reserve(dma)


def _refused(dma: DmaContiguous, request: CmaRequest, refused: CmaRefused) -> None:
    given = "cma=" if dma.params.cma.size is not None else "CONFIG_CMA_SIZE_MBYTES"
    detail = f"{request.size:#x} bytes at {request.base:#x}, limit {request.limit:#x}"
    dma.events.append(BootEvent(None, refused.reason, EFFECT_REFUSED, given, detail))


def _node_requests(dma: DmaContiguous, nid: int) -> list[tuple[str, int]]:
    """The areas a node gets: (name, bytes)."""
    abi, params = dma.declare.abi, dma.params
    pernuma, own = params.cma_pernuma, params.numa_cma.get(nid, 0) if abi.numa_cma_param else 0
    if abi.numa_cma_single_name:
        if dma.config.cma_size_pernuma and len(dma.nodes) > 1 and not pernuma:
            pernuma = params.cma.size if params.cma.size is not None else config_size(dma)
        return [(f"numa{nid}", own or pernuma)]
    return [(f"pernuma{nid}", pernuma), (f"numa{nid}", own)]


def dma_numa_cma_reserve(dma: DmaContiguous) -> None:
    """``cma_pernuma=`` and ``numa_cma=``: dma_numa_cma_reserve(), dma_pernuma_cma_reserve() up to 6.5."""
    abi, log = dma.declare.abi, dma.declare.areas.log
    function = "dma_numa_cma_reserve" if abi.numa_cma_param else "dma_pernuma_cma_reserve"
    if not abi.pernuma_option or not dma.config.numa:
        return
    for nid in dma.nodes:
        for name, size in _node_requests(dma, nid):
            if not size:
                continue
            try:
                cma_declare_contiguous_nid(dma.declare, CmaRequest(size, name, nid=nid))
            except CmaRefused as refused:
                text = f"cma: {function}: reservation failed: err -{refused.errno}, node {nid}"
                log.printk(text, LOGLEVEL_WARNING)
                parameter = "numa_cma=" if name.startswith("numa") else "cma_pernuma="
                dma.events.append(BootEvent(None, refused.reason, EFFECT_REFUSED, parameter, name))
                continue
            if not abi.numa_cma_param:
                dma.debug(f"{function}: reserved {size // SZ_1M} MiB on node {nid}")
    for nid in sorted(set(dma.params.numa_cma) - set(dma.nodes)) if abi.numa_cma_param else ():
        dma.events.append(BootEvent(None, "no-such-node", EFFECT_IGNORED, "numa_cma=", f"node {nid}"))
