"""Regions of /reserved-memory and the drivers of ``shared-dma-pool``: an area of CMA, or a pool for one
device.

Kernel: ``kernel/dma/contiguous.c:rmem_cma_setup()``, ``kernel/dma/coherent.c:rmem_dma_setup()``.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.mm.cma import Cma
from cmafs.mm.cma_declare import SZ_1M, CmaDeclare, CmaRefused, init_reserved_mem
from cmafs.of.base import DeviceNode
from cmafs.of.boot_event import EFFECT_IGNORED, EFFECT_MOVED, EFFECT_NOTE, EFFECT_REFUSED, BootEvent
from cmafs.printk import LOGLEVEL_ERR, LOGLEVEL_INFO, Printk

#: ``__reservedmem_of_table``: the one compatible that both drivers know.
COMPATIBLE = "shared-dma-pool"

# What a driver answers.
_DONE, _FAILED, _NOT_MINE = "done", "failed", "not mine"


@dataclass(eq=False)
class ReservedMem:
    """``struct reserved_mem``: ``base`` and ``size`` in bytes, 0 and 0 for a ``size`` node not placed yet.

    ``kind``: ``cma``, ``dma`` (a pool for one device) or "" (reserved, no driver); ``area``: the area it
    became;
    ``failed``: the kernel gave its memory back.
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


@dataclass
class RmemContext:
    """What the drivers and the scan share.

    ``cma_cmdline``: whether ``cma=`` was given; ``coherent_needs_no_map``: 32-bit ARM takes DMA pools only
    with
    ``no-map``; ``events``: what happened to each region, for ``cmafs check``.
    """

    declare: CmaDeclare
    cma_cmdline: bool
    coherent_needs_no_map: bool
    events: list[BootEvent]

    @property
    def log(self) -> Printk:
        """The machine's log."""
        return self.declare.areas.log

    def pr_of(self, text: str, level: int = LOGLEVEL_INFO) -> None:
        """A line of of_reserved_mem.c."""
        self.log.printk(self.declare.abi.of_prefix + text, level)

    def event(
        self, node: DeviceNode, reason: str, effect: str, prop: str | None = None, detail: str = ""
    ) -> None:
        """Note what happened to a node; what the kernel says twice is noted once."""
        event = BootEvent(node.path, reason, effect, prop, detail)
        if event not in self.events:
            self.events.append(event)


def reserved_mem_init_node(scan: RmemContext, region: ReservedMem) -> bool:
    """__reserved_mem_init_node(): True if a driver took the region or none knows it, False if those that
    do refuse.
    """
    if not region.node.is_compatible(COMPATIBLE):
        scan.event(region.node, "no-driver", EFFECT_IGNORED, "compatible")
        return True
    answers = []
    for setup in (rmem_cma_setup, rmem_dma_setup):
        answers.append(setup(scan, region))
        if answers[-1] == _DONE:
            scan.pr_of(f"initialized node {region.name}, compatible id {COMPATIBLE}")
            return True
    if _FAILED not in answers:
        scan.event(region.node, "reusable-and-no-map", EFFECT_REFUSED, "no-map")
    return scan.declare.abi.unclaimed_stays and _FAILED not in answers


def rmem_cma_setup(scan: RmemContext, region: ReservedMem) -> str:
    """An area, if the region is ``reusable`` and mapped; the default one if it says so."""
    default = "linux,cma-default" in region.node.props
    if (
        default
        and scan.cma_cmdline
        and scan.declare.abi.cmdline_beats_default
        and not scan.declare.abi.default_node_skipped
    ):
        name = region.name
        scan.log.printk(f"Reserved memory: bypass {name} node, using cmdline CMA params instead")
        scan.event(region.node, "bypassed", EFFECT_REFUSED, "linux,cma-default")
        return _FAILED
    if not region.reusable or region.nomap:
        return _NOT_MINE
    unit = scan.declare.areas.min_alignment
    if region.base % unit or region.size % unit:
        scan.log.printk("Reserved memory: incorrect alignment of CMA region", LOGLEVEL_ERR)
        wrong = "base-misaligned" if region.base % unit else "size-misaligned"
        prop = "reg" if "reg" in region.node.props else "size"
        detail = f"{region.base:#x}, {region.size:#x} bytes, unit {unit:#x}"
        scan.event(region.node, wrong, EFFECT_REFUSED, prop, detail)
        return _FAILED
    return _make_area(scan, region, default)


def _make_area(scan: RmemContext, region: ReservedMem, default: bool) -> str:
    areas = scan.declare.areas
    try:
        region.area = init_reserved_mem(scan.declare, region.base, region.size, 0, region.name)
    except CmaRefused as refused:
        scan.log.printk("Reserved memory: unable to setup CMA region", LOGLEVEL_ERR)
        scan.event(region.node, refused.reason, EFFECT_REFUSED, "size" if not region.size else None)
        return _FAILED
    if default:
        if areas.default is not None:
            scan.event(region.node, "default-twice", EFFECT_NOTE, "linux,cma-default", areas.default.name)
        areas.default = region.area
    region.kind = "cma"
    where = f"{scan.declare.pa(region.base)}, size {region.size // SZ_1M} MiB"
    scan.log.printk(f"Reserved memory: created CMA memory pool at {where}")
    return _DONE


def rmem_dma_setup(scan: RmemContext, region: ReservedMem) -> str:
    """A coherent pool that one device owns, if the region is not ``reusable``."""
    if region.reusable:
        return _NOT_MINE
    if scan.coherent_needs_no_map and not region.nomap:
        text = "Reserved memory: regions without no-map are not yet supported"
        scan.log.printk(text, LOGLEVEL_ERR)
        scan.event(region.node, "not-reusable", EFFECT_REFUSED, "reusable")
        return _FAILED
    region.kind = "dma"
    where = f"{scan.declare.pa(region.base)}, size {region.size // SZ_1M} MiB"
    scan.log.printk(f"Reserved memory: created DMA memory pool at {where}")
    scan.event(region.node, "not-reusable", EFFECT_MOVED, "reusable")
    return _DONE
