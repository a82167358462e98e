"""Addresses of the device tree: from a bus to its parent, up to the CPU (``drivers/of/address.c@v6.12``).

All numbers are bytes.
"""

from __future__ import annotations

from cmafs.lib.kstrtox import U64_MAX
from cmafs.of.base import DeviceNode

#: PHYS_ADDR_MAX: no bus limits anything.
PHYS_ADDR_MAX = U64_MAX


def of_translate_address(node: DeviceNode) -> int | None:
    """``of_translate_address()``: the CPU address of a node's first ``reg``; None where there is none."""
    bus = node.parent
    if bus is None or not (entries := node.entries("reg", *bus.reg_cells())):
        return None
    if not bus.size_cells():
        return None  # a bus such as I2C: not an address of memory
    address = entries[0][0]
    while bus.parent is not None:
        translated = _translate_one(bus, "ranges", address)
        if translated is None:
            return None
        address, bus = translated, bus.parent
    return address


def _translate_one(bus: DeviceNode, prop: str, address: int) -> int | None:
    """An address of a bus in its parent's terms: the same if the property is empty, None without it."""
    if prop not in bus.props:
        return None
    if not bus.props[prop]:
        return address
    for child, parent, size in _ranges(bus, prop):
        if child <= address < child + size:
            return parent + address - child
    return None


def _ranges(bus: DeviceNode, prop: str) -> list[tuple[int, ...]]:
    """The entries of ``ranges`` or ``dma-ranges``: (address on the bus, on its parent, bytes)."""
    assert bus.parent is not None
    return bus.entries(prop, bus.address_cells(), bus.parent.address_cells(), bus.size_cells())


def of_dma_get_range(node: DeviceNode, may_lack: bool = True) -> list[tuple[int, int, int]]:
    """``of_dma_get_range()``: (CPU address, bus address, bytes) of the nearest ``dma-ranges`` above.

    On the way there each bus has at least an empty one; ``may_lack``: the device's own need not.
    """
    bus = node.parent
    while bus is not None and not bus.props.get("dma-ranges"):
        if "dma-ranges" not in bus.props and not may_lack:
            return []
        bus, may_lack = bus.parent, False
    if bus is None or bus.parent is None:
        return []
    found = ((_to_cpu(bus.parent, address), dma, size) for dma, address, size in _ranges(bus, "dma-ranges"))
    return [(cpu, dma, size) for cpu, dma, size in found if cpu is not None and size]


def of_dma_get_max_cpu_address(root: DeviceNode) -> int:
    """``of_dma_get_max_cpu_address()``: the highest address that every bus master below a node reaches."""
    highest, stack = PHYS_ADDR_MAX, [root]
    while stack:
        node = stack.pop()
        if node.parent is not None and node.props.get("dma-ranges"):
            highest = min(highest, _dma_ranges_end(node, node.parent))
        stack += [child for child in node.children.values() if child.is_available()]
    return highest


def _dma_ranges_end(bus: DeviceNode, parent: DeviceNode) -> int:
    """The last CPU address of a bus's ranges; what cannot be translated is OF_BAD_ADDR, which wraps."""
    end = 0
    for _, address, size in _ranges(bus, "dma-ranges"):
        cpu = _to_cpu(parent, address)
        cpu = U64_MAX if cpu is None else cpu
        if (cpu + size) & U64_MAX > end:
            end = (cpu + size - 1) & U64_MAX
    return end


def _to_cpu(bus: DeviceNode, address: int) -> int | None:
    while bus.parent is not None:
        translated = _translate_one(bus, "dma-ranges", address) if "dma-ranges" in bus.props else address
        if translated is None:
            return None
        address, bus = translated, bus.parent
    return address
