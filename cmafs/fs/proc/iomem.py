"""/proc/iomem: the resource tree as ``kernel/resource.c:r_show()`` writes it; addresses, ends inclusive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmafs.arch.iomem import Resource

#: Hex digits of an address at least, below 4 GiB.
WIDTH = 8


def lines(resource: Resource, level: int) -> list[str]:
    """``r_show()`` of a resource and of what is inside."""
    span = f"{resource.start:0{WIDTH}x}-{resource.end:0{WIDTH}x}"
    own = f"{'  ' * level}{span} : {resource.name}\n"
    return [own, *(line for child in resource.children for line in lines(child, level + 1))]


def iomem(resources: Sequence[Resource]) -> bytes:
    """``iomem_resource`` as text: memory and what was reserved in it; devices are not simulated."""
    return "".join(line for resource in resources for line in lines(resource, 0)).encode()
