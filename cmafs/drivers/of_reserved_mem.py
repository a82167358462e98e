"""The device's side of /reserved-memory: what a driver's probe gets from ``memory-region``.

Source: ``drivers/of/of_reserved_mem.c:of_reserved_mem_device_init_by_idx()@v6.12``.
"""

from __future__ import annotations

import errno

from cmafs.drivers.device import Device
from cmafs.drivers.dma.coherent import DmaCoherentMem
from cmafs.lib.printk import LOGLEVEL_INFO
from cmafs.of.base import DeviceNode
from cmafs.of.reserved_mem import ReservedMem


def of_reserved_mem_device_init_by_idx(device: Device, index: int) -> None:
    """Attach a device to entry ``index`` of its node's memory-region: an area of CMA, or a pool for devices.

    A region that is switched off by its status is passed over. Raises OSError ENODEV (no such entry or node),
    EINVAL (no driver of reserved memory took the region, or the bus cannot see it).
    """
    region = _region(device, index)
    if region is None:
        return
    if region.kind == "cma":
        device.cma_area = region.area
    elif region.kind == "dma" and device.phys_to_dma(region.base) is not None:
        device.dma_mem = _coherent_mem(device, region)
    else:
        raise OSError(errno.EINVAL, f"{region.name} is no pool")
    device.dev_printk(f"assigned reserved memory node {region.name}", LOGLEVEL_INFO)


def of_reserved_mem_device_release(device: Device) -> None:
    """``of_reserved_mem_device_release()``: the device has no region of its own any more."""
    device.cma_area = None
    device.dma_mem = None


def _region(device: Device, index: int) -> ReservedMem | None:
    node = _target(device, index)
    if node is None:
        raise OSError(errno.ENODEV, f"{device.name}: no memory-region {index}")
    if not node.is_available():
        return None
    for region in device.machine.reserved_mem:
        if region.node is node and not region.failed:
            return region
    raise OSError(errno.EINVAL, f"{node.name} is not reserved")


def _target(device: Device, index: int) -> DeviceNode | None:
    if device.of_node is None:
        return None
    phandles = device.of_node.parse_phandles("memory-region")
    return device.machine.tree.find_node_by_phandle(phandles[index]) if 0 <= index < len(phandles) else None


def _coherent_mem(device: Device, region: ReservedMem) -> DmaCoherentMem:
    """The pool of a region: devices that name the same region share it."""
    shift = device.machine.config.page_shift
    base = region.base >> shift
    for other in device.machine.devices.values():
        if other.dma_mem is not None and other.dma_mem.pfn_base == base:
            return other.dma_mem
    return DmaCoherentMem(base, region.size >> shift)
