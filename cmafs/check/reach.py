"""Devices that cannot address their pool: ``dma-ranges``, the mask that every device has at first. Bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmafs.lib.boot_event import EFFECT_MOVED, EFFECT_NOTE, BootEvent
from cmafs.of.base import DeviceNode

if TYPE_CHECKING:
    from cmafs.drivers.device import Device
    from cmafs.init.machine import BootedMachine
    from cmafs.of.reserved_mem import ReservedMem


def out_of_reach(machine: BootedMachine) -> Iterator[BootEvent]:
    """Each device that does not reach all of its region; each bus that does not reach the default area.

    ``kernel/dma/direct.c:dma_coherent_ok()@v6.12`` decides when a buffer is allocated, by mask and bus limit.
    """
    regions = {id(r.node): r for r in machine.reserved_mem if r.kind in ("cma", "dma") and not r.failed}
    phandles = {r.node.phandle(): r for r in regions.values()}
    buses: dict[str, DeviceNode] = {}
    for device in machine.devices.values():
        node = device.of_node
        if node is None or "memory-region" not in node.props:
            if node is not None and device.dma_range_map and _misses_default(machine, device):
                bus = _bus(node)
                buses.setdefault(bus.path, bus)
            continue
        own = node.parse_phandles("memory-region")
        region = phandles.get(own[device.region_index]) if device.region_index < len(own) else None
        if region is not None and not _reaches(device, region.base, region.size):
            yield _event(device, node, region, "out-of-reach")
        elif region is not None and region.base + region.size - 1 > _mask_end(device):
            yield _event(device, node, region, "above-mask")
    default = machine.cma.default
    for path in buses:
        assert default is not None
        base = default.base_pfn << machine.config.page_shift
        yield BootEvent(
            path, "default-out-of-reach", EFFECT_NOTE, "dma-ranges", f"{default.name} at {base:#x}"
        )


def _reaches(device: Device, base: int, size: int) -> bool:
    """Whether the bus leads there, whatever the driver's mask."""
    limit = device.bus_dma_limit
    ends = (device.phys_to_dma(base), device.phys_to_dma(base + size - 1))
    return all(address is not None and (not limit or address <= limit) for address in ends)


def _mask_end(device: Device) -> int:
    """The last CPU address that the mask reaches which every device has at first."""
    mask, windows = device.coherent_dma_mask, device.dma_range_map
    return max((w.cpu_start + mask - w.dma_start for w in windows if w.dma_start <= mask), default=mask)


def _misses_default(machine: BootedMachine, device: Device) -> bool:
    area, shift = machine.cma.default, machine.config.page_shift
    return area is not None and not _reaches(device, area.base_pfn << shift, area.count << shift)


def _bus(node: DeviceNode) -> DeviceNode:
    """The bus whose ``dma-ranges`` limits a device: the nearest above it that has some."""
    above = list((node.parent or node).lineage())
    return next((bus for bus in above if bus.props.get("dma-ranges")), above[-1])


def _event(device: Device, node: DeviceNode, region: ReservedMem, reason: str) -> BootEvent:
    windows = [(r.cpu_start, r.cpu_start + r.size - 1) for r in device.dma_range_map]
    by_mask = reason == "above-mask" or not windows
    inside = ", ".join(
        f"{low:#x}-{high:#x}" for low, high in ([(0, _mask_end(device))] if by_mask else windows)
    )
    detail = f"{region.node.path} is {region.base:#x}-{region.base + region.size - 1:#x}, in reach {inside}"
    return BootEvent(node.path, reason, EFFECT_MOVED, "memory-region", detail)
