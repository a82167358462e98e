"""CMA for drivers: which area serves a device, and how large requests are aligned.

Source: ``kernel/dma/contiguous.c`` (``drivers/base/dma-contiguous.c`` to 4.19). Sizes in bytes, counts in
pages, ``align`` an order.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmafs.drivers.device import Device
from cmafs.mm.cma import Cma, cma_alloc, cma_release
from cmafs.mm.gfp import GFP_DIRECT_RECLAIM_BIT, GFP_DMA, GFP_DMA32, get_order

_UINT_MAX = (1 << 32) - 1


def page_count(device: Device, size: int) -> int:
    """How many pages hold ``size`` bytes: ``PAGE_ALIGN(size) >> PAGE_SHIFT``."""
    shift = device.machine.config.page_shift
    return -(-size >> shift)


def gfpflags_allow_blocking(gfp: int) -> bool:
    """``gfpflags_allow_blocking()``: whether the caller may sleep, as migration needs."""
    return bool(gfp & GFP_DIRECT_RECLAIM_BIT)


def dev_get_cma_area(device: Device | None) -> Cma | None:
    """``dev_get_cma_area()``: the device's own area, else the default one."""
    if device is not None and device.cma_area:
        return device.cma_area
    return device.machine.cma.default if device is not None else None


def dma_alloc_from_contiguous(device: Device, count: int, align: int, no_warn: bool = False) -> int | None:
    """``dma_alloc_from_contiguous()``: the first of ``count`` pages of the device's or default area, or None.

    ``align``: an order, cut to CONFIG_CMA_ALIGNMENT. Asks nobody else when the area fails.
    """
    cma = dev_get_cma_area(device)
    if cma is None:
        return None
    align &= _UINT_MAX  # an unsigned int: a negative order is a large one
    return cma_alloc(cma, count, min(align, device.machine.config.number("CMA_ALIGNMENT")), no_warn)


def dma_release_from_contiguous(device: Device, pfn: int, count: int) -> bool:
    """``dma_release_from_contiguous()``: give ``count`` pages back; False when they are not of that area."""
    cma = dev_get_cma_area(device)
    return cma is not None and cma_release(cma, pfn, count)


def dma_alloc_contiguous(device: Device, size: int, gfp: int) -> tuple[Cma, int] | None:
    """``dma_alloc_contiguous()``: area and first page of ``size`` bytes; None: the caller goes elsewhere.

    Nothing for callers that may not sleep; one page only from a device's own area; before the default area
    those of the device's node. Aligned to the order of ``size``, at most CONFIG_CMA_ALIGNMENT.
    """
    if not gfpflags_allow_blocking(gfp):
        return None
    machine = device.machine
    align = min(get_order(size, machine.config.page_shift), machine.config.number("CMA_ALIGNMENT"))
    for cma in _areas_for(device, size, gfp):
        pfn = cma_alloc(cma, page_count(device, size), align)
        if pfn is not None:
            return cma, pfn
        device.refusals.append(f"area {cma.label}: {cma.failures[0]}")
    if not device.refusals:
        none = "the default area serves no single pages" if machine.cma.default else "there is no area for it"
        device.refusals.append(f"areas: {none}")
    return None


def _areas_for(device: Device, size: int, gfp: int) -> Iterator[Cma]:
    machine = device.machine
    abi = machine.abi.dma
    if device.cma_area:
        yield device.cma_area
        return
    if page_count(device, size) <= 1 and not abi.default_area_serves_single_pages:
        return
    if device.numa_node >= 0 and not gfp & (GFP_DMA | GFP_DMA32):
        yield from _areas_of_node(device)
    if machine.cma.default:
        yield machine.cma.default


def _areas_of_node(device: Device) -> Iterator[Cma]:
    """``dma_contiguous_pernuma_area[]``, ``dma_contiguous_numa_area[]``: those that this kernel has."""
    machine = device.machine
    areas = (machine.cma.node_areas.get((kind, device.numa_node)) for kind in machine.abi.dma.node_areas)
    return (cma for cma in areas if cma is not None)


def dma_free_contiguous(device: Device, pfn: int, size: int) -> Cma | None:
    """``dma_free_contiguous()``: give pages back to the area they are of; None: they are of no area."""
    count = page_count(device, size)
    for cma in [device.cma_area] if device.cma_area else list(_areas_for_release(device)):
        if cma_release(cma, pfn, count):
            return cma
    return None


def _areas_for_release(device: Device) -> Iterator[Cma]:
    yield from _areas_of_node(device)
    if device.machine.cma.default:
        yield device.machine.cma.default
