"""What a device tree alone tells of its reserved regions: which ask for an area, and what boot does not say.

What became of a region is asked of the booted machine (``check.report``). Addresses and sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmafs.lib.boot_event import EFFECT_IGNORED, EFFECT_MOVED, EFFECT_NOTE, BootEvent
from cmafs.lib.sizes import SZ_1K, SZ_1M
from cmafs.of.base import DeviceNode, DeviceTree
from cmafs.of.rmem_init import COMPATIBLE, DEFAULT


def size_text(size: int) -> str:
    """A size in whole MiB or KiB, else in bytes."""
    for unit, name in ((SZ_1M, "MiB"), (SZ_1K, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def regions(tree: DeviceTree) -> list[DeviceNode]:
    """The children of /reserved-memory."""
    parent = tree.reserved_memory()
    return list(parent.children.values()) if parent else []


def wants_area(node: DeviceNode) -> bool:
    """Whether a region is written as if it should be CMA: a plain no-map pool is not."""
    if node.property_read_bool("reusable") or node.property_read_bool(DEFAULT):
        return True
    return node.is_compatible(COMPATIBLE) and not node.property_read_bool("no-map")


def notes(node: DeviceNode, tree: DeviceTree, unit: int, name_max: int) -> Iterator[BootEvent]:
    """What is worth knowing of a region that asks for an area.

    ``unit``: CMA_MIN_ALIGNMENT_BYTES; ``name_max``: bytes of its name that are kept, 0 for all.
    """
    path, cells = node.path, tree.root.reg_cells()
    fixed = node.entries("reg", *cells, whole=True)
    if fixed and "size" in node.props:
        yield BootEvent(path, "reg-wins", EFFECT_NOTE, "size")
    address = node.name.partition("@")[2].lower().removeprefix("0x").lstrip("0")
    if fixed and "@" in node.name and address != f"{fixed[0][0]:x}".lstrip("0"):
        yield BootEvent(path, "unit-address", EFFECT_NOTE, "reg", f"{fixed[0][0]:#x}")
    if not fixed and len(node.props.get("alignment", b"")) == 4 * cells[0] > 0:
        alignment = node.read_number("alignment", cells[0])
        if 0 < alignment < unit:
            detail = f"{size_text(alignment)} to {size_text(unit)}"
            yield BootEvent(path, "alignment-raised", EFFECT_MOVED, "alignment", detail)
    if 0 < name_max < len(node.name):
        yield BootEvent(path, "name-cut", EFFECT_NOTE, "name", f"{len(node.name)} characters")


def misplaced(tree: DeviceTree) -> Iterator[BootEvent]:
    """Pools where the kernel does not look: below a child of /reserved-memory, or elsewhere in the tree."""
    parent = tree.reserved_memory()
    for node in tree.walk():  # the first test is for speed: trees have thousands of nodes
        if b"hared-dma-pool" not in node.props.get("compatible", b"") or not node.is_compatible(COMPATIBLE):
            continue
        if node.parent is parent:
            continue
        inside = parent is not None and node.path.startswith(parent.path + "/")
        reason = "nested" if inside else "not-under-reserved-memory"
        yield BootEvent(node.path, reason, EFFECT_IGNORED, "compatible")


def claims_overlap(tree: DeviceTree) -> Iterator[BootEvent]:
    """Areas at fixed places that /memreserve/ claims too: the kernel says nothing."""
    for node in filter(wants_area, regions(tree)):
        fixed = node.entries("reg", *tree.root.reg_cells(), whole=True)
        for base, size in fixed[:1]:
            for start, length in tree.memreserve:
                if start < base + size and base < start + length:
                    detail = f"{start:#x}..{start + length - 1:#x}"
                    yield BootEvent(node.path, "memreserve", EFFECT_NOTE, "reg", detail)


def dangling(tree: DeviceTree, lost: set[str]) -> Iterator[BootEvent]:
    """Devices whose memory-region names no node, or a region that is disabled or ``lost`` (paths)."""
    users = [node for node in tree.walk() if "memory-region" in node.props and node.is_available()]
    if not users:
        return
    targets = {phandle: node for node in tree.walk() if (phandle := node.phandle()) is not None}
    for node in users:
        for phandle in node.parse_phandles("memory-region"):
            target = targets.get(phandle)
            if target is None:
                detail = f"phandle {phandle:#x}"
                yield BootEvent(node.path, "dangling-memory-region", EFFECT_NOTE, "memory-region", detail)
            elif target.path in lost or not target.is_available():
                yield BootEvent(node.path, "region-not-usable", EFFECT_NOTE, "memory-region", target.path)
