"""/memory nodes become memblock memory, as ``drivers/of/fdt.c:early_init_dt_scan_memory()`` does. Bytes."""

from __future__ import annotations

from cmafs.lib.math import roundup
from cmafs.lib.sizes import SZ_1G, SZ_1T
from cmafs.mm.memblock import Memblock
from cmafs.of.base import DeviceNode, DeviceTree, DtError

#: A byte a page block is kept from the first to the last address (docs/memory.md): more would not be small.
LARGEST_SPAN = 1 << 44


def memory_nodes(tree: DeviceTree, named_is_enough: bool) -> list[DeviceNode]:
    """The nodes of ``device_type = "memory"``, in blob order.

    ``named_is_enough``: a machine without a device tree of its own (x86_64) may leave the type out.
    """
    return [
        node
        for node in tree.root.children.values()
        if node.is_available()
        and (
            node.property_read_string("device_type") == "memory"
            or (named_is_enough and node.name.split("@")[0] == "memory")
        )
    ]


def early_init_dt_add_memory_arch(base: int, size: int, page_size: int, limit: int) -> tuple[int, int]:
    """(base, size) of the whole pages of a range below ``limit``; size 0 if nothing is left."""
    end = min((base + size) // page_size * page_size, limit)
    base = roundup(base, page_size)
    return base, max(end - base, 0)


def of_numa_init(nodes: list[DeviceNode], max_numnodes: int) -> dict[str, int]:
    """Node path -> NUMA node; empty unless every memory node has a ``numa-node-id`` that there may be."""
    ids = {node.path: node.property_read_u32("numa-node-id") for node in nodes}
    found = {path: nid for path, nid in ids.items() if nid is not None and nid < max_numnodes}
    return found if len(found) == len(ids) else {}


def _default_base(tree: DeviceTree, nodes: list[DeviceNode]) -> int:
    """Where ``--memory`` begins: the tree's memory, else what it reserves rounded down to 1 GiB, else 0."""
    bases = [base for node in nodes for base, _ in node.entries("reg", *tree.root.reg_cells())]
    if bases:
        return min(bases)
    return min((base for base, _ in claimed(tree)), default=0) // SZ_1G * SZ_1G


def claimed(tree: DeviceTree) -> list[tuple[int, ...]]:
    """(base, size) of what the tree keeps from the loader: /memreserve/ and ``reg`` in /reserved-memory."""
    parent = tree.reserved_memory()
    nodes = parent.children.values() if parent else ()
    return [*tree.memreserve, *(row for n in nodes for row in n.entries("reg", *tree.root.reg_cells()))]


def early_init_dt_scan_memory(
    memblock: Memblock,
    tree: DeviceTree,
    memory: int | None,
    max_numnodes: int,
    named_is_enough: bool,
    page_size: int,
    phys_limit: int,
) -> bool:
    """Fill ``memblock`` from the tree, or with one range of ``memory`` bytes.

    Answers whether the tree says which NUMA node each memory node is (below ``max_numnodes``, 0 without
    CONFIG_NUMA). Raises DtError if there is no memory.
    """
    nodes = memory_nodes(tree, named_is_enough)
    nids = of_numa_init(nodes, max_numnodes) if memory is None else {}
    if memory is not None:
        ranges = [(_default_base(tree, _named(tree)), memory, 0)]
    else:
        ranges = [(b, s, nids.get(node.path, 0)) for node in nodes for b, s in _ranges_of(tree, node)]
    for base, size, nid in ranges:
        memblock.add(*early_init_dt_add_memory_arch(base, size, page_size, phys_limit), nid)
    if not memblock.memory:
        raise DtError(_no_memory(tree, nodes, memory))
    span = memblock.end_of_dram() - memblock.start_of_dram()
    if span > LARGEST_SPAN:
        where = tree.source or "the device tree"
        raise DtError(
            f"{where}: memory spans {span / SZ_1T:.1f} TiB; at most {LARGEST_SPAN // SZ_1T} can be simulated"
        )
    return bool(nids)


def _ranges_of(tree: DeviceTree, node: DeviceNode) -> list[tuple[int, ...]]:
    usable = "linux,usable-memory"
    return node.entries(usable if usable in node.props else "reg", *tree.root.reg_cells())


def _named(tree: DeviceTree) -> list[DeviceNode]:
    return [node for node in tree.root.children.values() if node.name.split("@")[0] == "memory"]


def _empty(tree: DeviceTree, node: DeviceNode) -> str:
    """Why a memory node is none."""
    cells = tree.root.reg_cells()
    sizes = [size for _, size in node.entries("reg", *cells)]
    if not sizes:
        return f"reg of {node.path} is no (address, size) pair of the root's {cells[0]} and {cells[1]} cells"
    if any(sizes):
        return f"{node.path} has no whole page that this machine can address"
    return f"{node.path} has size 0, which a boot loader fills in"


def _no_memory(tree: DeviceTree, nodes: list[DeviceNode], memory: int | None) -> str:
    where = tree.source or "the device tree"
    if memory is not None:
        return f"{where}: --memory {memory:#x} leaves no whole page of memory; give a larger size"
    if nodes:
        return f"{where}: no memory: {_empty(tree, nodes[0])}; say how much with --memory SIZE"
    return f'{where}: no memory: no node has device_type = "memory"; add one or give --memory SIZE'
