"""Names in a device tree that are nearly names which the kernel knows: ``reuseable``, ``memory-regions``.

Only where the kernel reads names of its own: /reserved-memory, its children, and what points there. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cmafs.check.tree import regions
from cmafs.lib.boot_event import EFFECT_IGNORED, BootEvent
from cmafs.of.base import RESERVED_MEMORY, DeviceNode, DeviceTree
from cmafs.of.rmem_init import COMPATIBLE, DEFAULT, RESTRICTED

#: What a child of /reserved-memory may have (reserved-memory.yaml).
_REGION = (
    *("compatible", "reg", "size", "alignment", "alloc-ranges", "reusable", "no-map", "no-map-fixup"),
    *(DEFAULT, "linux,dma-default", "status", "label", "phandle", "linux,phandle", "name", "ranges"),
    *("#address-cells", "#size-cells", "iommu-addresses", "memory-region", "memory-region-names"),
)
_REFERENCE = ("memory-region", "memory-region-names")
_POOLS = (COMPATIBLE, RESTRICTED)

#: How alike two names are that are taken for one (difflib's ratio).
_REGION_CUTOFF, _OTHER_CUTOFF = 0.85, 0.9

#: What a region lacks when the name was misspelt -> what the boot then says of it.
_FOLLOWS = {
    "reusable": "not-reusable",
    "reg": "no-reg-no-size",
    "size": "no-reg-no-size",
    COMPATIBLE: "no-driver",
}


def misspelt(tree: DeviceTree) -> Iterator[BootEvent]:
    """Names that are nearly one which the kernel knows; ``detail`` has the one that was meant in quotes."""
    parent = tree.reserved_memory()
    if parent is None:
        for node in tree.root.children.values():
            if "eserved" in node.name and (meant := _meant(node.name, (RESERVED_MEMORY,), _OTHER_CUTOFF)):
                yield _event(node, None, meant)
    for region in regions(tree):
        yield from _in_region(region)
    for node in tree.walk():
        yield from _reference(node) if node.parent is not parent else ()


def _in_region(node: DeviceNode) -> Iterator[BootEvent]:
    for name in node.props:
        meant = _meant(name, _REGION, _REGION_CUTOFF)
        if meant and meant not in node.props:
            yield _event(node, name, meant)
    for text in () if node.is_compatible(COMPATIBLE) else node.property_read_strings("compatible"):
        if "pool" in text and (meant := _meant(text, _POOLS, _OTHER_CUTOFF)):
            yield _event(node, "compatible", meant)


def _reference(node: DeviceNode) -> Iterator[BootEvent]:
    for name in node.props:
        if "region" in name and (meant := _meant(name, _REFERENCE, _OTHER_CUTOFF)):
            yield _event(node, name, meant)


def follows_from(spelled: Collection[BootEvent], event: BootEvent) -> bool:
    """Whether a finding is only what a misspelt name leads to."""
    for cause in spelled:
        meant = cause.detail.split("'")[1]
        if event.node == cause.node and _FOLLOWS.get(meant) == event.reason:
            return True
        if meant == RESERVED_MEMORY and (event.node or "").startswith(f"{cause.node}/"):
            return event.reason == "not-under-reserved-memory"
    return False


def _meant(name: str, known: Collection[str], cutoff: float) -> str:
    if name in known:
        return ""
    from difflib import get_close_matches  # only where a tree has a name that is not known

    return next(iter(get_close_matches(name.lower(), known, 1, cutoff)), "")


def _event(node: DeviceNode, prop: str | None, meant: str) -> BootEvent:
    return BootEvent(node.path, "misspelt", EFFECT_IGNORED, prop, f"'{meant}' is meant")
