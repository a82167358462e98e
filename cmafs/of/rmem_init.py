"""The drivers of ``shared-dma-pool``: a region becomes an area of CMA, or a pool that one device owns.

Kernel: ``kernel/dma/contiguous.c:rmem_cma_setup()``, ``kernel/dma/coherent.c:rmem_dma_setup()``,
``kernel/dma/swiotlb.c:rmem_swiotlb_setup()``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cmafs.lib.boot_event import EFFECT_IGNORED, EFFECT_MOVED, EFFECT_NOTE, EFFECT_REFUSED
from cmafs.lib.printk import LOGLEVEL_ERR, LOGLEVEL_INFO
from cmafs.lib.sizes import SZ_1M
from cmafs.mm.cma import Cma
from cmafs.mm.cma_declare import CmaRefused, init_reserved_mem
from cmafs.mm.early import EarlyMm
from cmafs.of.base import DeviceNode

#: The compatible of areas and of pools for one device, and that of bounce buffers.
COMPATIBLE, RESTRICTED = "shared-dma-pool", "restricted-dma-pool"
#: What makes a region the default area.
DEFAULT = "linux,cma-default"

# What a driver answers.
_DONE, _FAILED, _NOT_MINE = "done", "failed", "not mine"


@dataclass(eq=False)
class ReservedMem:
    """``struct reserved_mem``: ``base`` and ``size`` in bytes, 0 and 0 for a ``size`` node not placed yet.

    ``kind``: ``cma``, ``dma`` (a pool for one device), ``restricted`` (a bounce buffer for one) or ""
    (reserved, no driver); ``area``: the area it became; ``failed``: the kernel gave its memory back.
    """

    node: DeviceNode
    base: int
    size: int
    kind: str = ""
    area: Cma | None = None
    failed: bool = False

    @property
    def name(self) -> str:
        """The node's whole name."""
        return self.node.name

    @property
    def nomap(self) -> bool:
        """Whether the memory is never mapped."""
        return "no-map" in self.node.props

    @property
    def reusable(self) -> bool:
        """Whether the system may use the memory meanwhile."""
        return "reusable" in self.node.props


def pr_of(early: EarlyMm, text: str, level: int = LOGLEVEL_INFO) -> None:
    """A line of of_reserved_mem.c."""
    early.log.printk(early.abi.boot.of_prefix + text, level)


def _drivers(early: EarlyMm, node: DeviceNode) -> list[tuple[str, Callable[[EarlyMm, ReservedMem], str]]]:
    """``__reservedmem_of_table``: (compatible, driver) of those that are built in and match a node."""
    config = early.config
    table = [(COMPATIBLE, rmem_cma_setup)] if config.on("DMA_CMA") else []
    table.append((COMPATIBLE, rmem_dma_setup))
    if config.on("DMA_RESTRICTED_POOL"):
        table.append((RESTRICTED, rmem_swiotlb_setup))
    return [(compatible, setup) for compatible, setup in table if node.is_compatible(compatible)]


def reserved_mem_init_node(early: EarlyMm, region: ReservedMem) -> bool:
    """``__reserved_mem_init_node()``: True if a driver took the region or none knows it."""
    drivers = _drivers(early, region.node)
    if not drivers:
        early.event(region.node.path, "no-driver", EFFECT_IGNORED, "compatible")
        return True
    answers = []
    for compatible, setup in drivers:
        answers.append(setup(early, region))
        if answers[-1] == _DONE:
            pr_of(early, f"initialized node {region.name}, compatible id {compatible}")
            return True
    if _FAILED not in answers:
        early.event(region.node.path, "reusable-and-no-map", EFFECT_REFUSED, "no-map")
    return early.abi.boot.unclaimed_stays and _FAILED not in answers


def rmem_cma_setup(early: EarlyMm, region: ReservedMem) -> str:
    """An area, if the region is ``reusable`` and mapped; the default one if it says so."""
    default = DEFAULT in region.node.props
    if (
        default
        and early.params.cma.given
        and early.abi.boot.cmdline_beats_default
        and not early.abi.boot.default_node_skipped
    ):
        name = region.name
        early.log.printk(f"Reserved memory: bypass {name} node, using cmdline CMA params instead")
        early.event(region.node.path, "bypassed", EFFECT_REFUSED, DEFAULT)
        return _FAILED
    if not region.reusable or region.nomap:
        return _NOT_MINE
    unit = early.areas.min_alignment
    if region.base % unit or region.size % unit:
        early.log.printk("Reserved memory: incorrect alignment of CMA region", LOGLEVEL_ERR)
        wrong = "base-misaligned" if region.base % unit else "size-misaligned"
        prop = "reg" if "reg" in region.node.props else "size"
        detail = f"{region.base:#x}, {region.size:#x} bytes, unit {unit:#x}"
        early.event(region.node.path, wrong, EFFECT_REFUSED, prop, detail)
        return _FAILED
    return _make_area(early, region, default)


def _make_area(early: EarlyMm, region: ReservedMem, default: bool) -> str:
    areas = early.areas
    try:
        region.area = init_reserved_mem(early, region.base, region.size, 0, region.name)
    except CmaRefused as refused:
        early.log.printk("Reserved memory: unable to setup CMA region", LOGLEVEL_ERR)
        early.event(region.node.path, refused.reason, EFFECT_REFUSED, "size" if not region.size else None)
        return _FAILED
    if default:
        if areas.default is not None:
            early.event(region.node.path, "default-twice", EFFECT_NOTE, DEFAULT, areas.default.name)
        areas.default = region.area
    if not early.abi.boot.two_passes:
        early.fixups.append((region.node.path, region.base, region.size))
    region.kind = "cma"
    where = f"{early.pa(region.base)}, size {region.size // SZ_1M} MiB"
    early.log.printk(f"Reserved memory: created CMA memory pool at {where}")
    return _DONE


def rmem_dma_setup(early: EarlyMm, region: ReservedMem) -> str:
    """A coherent pool that one device owns, if the region is not ``reusable``."""
    if region.reusable:
        return _NOT_MINE
    if early.config.arch == "arm" and not region.nomap:
        text = "Reserved memory: regions without no-map are not yet supported"
        early.log.printk(text, LOGLEVEL_ERR)
        early.event(region.node.path, "not-reusable", EFFECT_REFUSED, "reusable")
        return _FAILED
    region.kind = "dma"
    where = f"{early.pa(region.base)}, size {region.size // SZ_1M} MiB"
    early.log.printk(f"Reserved memory: created DMA memory pool at {where}")
    early.event(region.node.path, "not-reusable", EFFECT_MOVED, "reusable")
    return _DONE


def rmem_swiotlb_setup(early: EarlyMm, region: ReservedMem) -> str:
    """A bounce buffer of its own for one device (CONFIG_DMA_RESTRICTED_POOL)."""
    others = ("reusable", DEFAULT, "linux,dma-default", "no-map")
    if any(name in region.node.props for name in others):
        return _NOT_MINE
    region.kind = "restricted"
    where = f"{early.pa(region.base)}, size {region.size // SZ_1M} MiB"
    text = f"Reserved memory: created restricted DMA pool at {where}"
    early.log.printk(f"software IO TLB: {text}")
    return _DONE
