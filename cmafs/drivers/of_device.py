"""Devices of the device tree: which nodes are devices, their names, and what limits their DMA.

Source: ``drivers/of/platform.c:of_platform_populate()@v6.12``,
``drivers/of/device.c:of_dma_configure_id()@v6.12``.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmafs.drivers.device import BusDmaRegion, Device, DriverMachine, dma_bit_mask
from cmafs.of.address import of_dma_get_range, of_translate_address
from cmafs.of.base import DeviceNode, DeviceTree

#: Nodes whose children describe something else than devices.
_NO_DEVICES = frozenset({"reserved-memory", "cpus", "chosen", "aliases", "__symbols__", "__local_fixups__"})

#: drivers/of/platform.c:of_default_bus_match_table: buses whose children are platform devices too.
_BUSES = ("simple-bus", "simple-mfd", "isa", "arm,amba-bus")


def of_platform_populate(machine: DriverMachine, tree: DeviceTree) -> dict[str, Device]:
    """All devices of a tree by name; a node with several memory-region entries has one more device for each.

    Those are called ``NAME.1``, ``NAME.2``: drivers make such devices, since one device has one CMA area.
    """
    devices: dict[str, Device] = {}
    for node in _device_nodes(tree.root):
        name = of_device_make_bus_id(node)
        for index in range(max(len(node.parse_phandles("memory-region")), 1)):
            label = f"{name}.{index}" if index else name
            if label not in devices:
                devices[label] = _new_device(machine, node, label, index)
    return devices


def _device_nodes(root: DeviceNode) -> Iterator[DeviceNode]:
    """Platform devices, and whatever else names a memory-region, in tree order."""
    platform = {id(node) for node in _populate(root)}
    for node in root.walk():
        if node.parent is not None and (id(node) in platform or _wants_memory(node)):
            yield node


def _populate(root: DeviceNode) -> Iterator[DeviceNode]:
    stack = [root]
    while stack:
        for node in stack.pop().children.values():
            if node.name in _NO_DEVICES or not node.is_available() or "compatible" not in node.props:
                continue
            yield node
            if any(node.is_compatible(bus_type) for bus_type in _BUSES):
                stack.append(node)


def _wants_memory(node: DeviceNode) -> bool:
    return "memory-region" in node.props and all(
        above.is_available() and above.name not in _NO_DEVICES for above in node.lineage()
    )


def _new_device(machine: DriverMachine, node: DeviceNode, name: str, index: int) -> Device:
    ranges = of_dma_get_range(node, machine.abi.dma.bus_may_lack_dma_ranges)
    regions = tuple(BusDmaRegion(*found) for found in ranges)
    device = Device(machine, name, of_node=node, region_index=index, dma_range_map=regions)
    if regions:
        device.bus_dma_limit = max(region.dma_start + region.size - 1 for region in regions)
        device.coherent_dma_mask &= dma_bit_mask(device.bus_dma_limit.bit_length())
    device.dma_coherent = machine.arch == "x86_64" or of_dma_is_coherent(machine, node)
    device.numa_node = of_node_to_nid(node)
    return device


def of_dma_is_coherent(machine: DriverMachine, node: DeviceNode) -> bool:
    """``of_dma_is_coherent()``: what the device says, or the nearest bus above it."""
    for step in node.lineage():
        if "dma-coherent" in step.props:
            return True
        if "dma-noncoherent" in step.props and machine.abi.dma.knows_noncoherent:
            return False
    return False


def of_node_to_nid(node: DeviceNode) -> int:
    """``of_node_to_nid()``: the node that the device, or the nearest one above it, is on; -1 for none."""
    named = (step for step in node.lineage() if "numa-node-id" in step.props)
    nid = next((step.property_read_u32("numa-node-id") for step in named), None)
    return -1 if nid is None else nid


def of_device_make_bus_id(node: DeviceNode) -> str:
    """``of_device_make_bus_id()``: ``32e00000.isi`` by translated address, else the names on the way up."""
    name = ""
    step = node
    while step.parent is not None:
        address = of_translate_address(step)
        if address is not None:
            own = f"{address:x}.{step.name.partition('@')[0]}"
            return f"{own}:{name}" if name else own
        name = f"{step.name}:{name}" if name else step.name
        step = step.parent
    return name
