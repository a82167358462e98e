"""/proc/iomem: the resource tree, as ``kernel/resource.c`` writes it. Addresses are bytes, ends inclusive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmafs.init.machine import Machine
    from cmafs.mm.memblock import Memblock

#: Deepest level that ``r_show()`` indents (``MAX_IORES_LEVEL``).
MAX_IORES_LEVEL = 5
#: x86: the first page is the BIOS's (``trim_bios_range()``).
BIOS_END = 0x1000


@dataclass
class Resource:
    """``struct resource``"""

    start: int
    end: int
    name: str
    children: list[Resource] = field(default_factory=list)

    def lines(self, level: int, width: int) -> list[str]:
        """``r_show()`` of it and what is inside."""
        indent = "  " * min(level, MAX_IORES_LEVEL)
        own = f"{indent}{self.start:0{width}x}-{self.end:0{width}x} : {self.name}\n"
        return [own, *(line for child in self.children for line in child.lines(level + 1, width))]


def _system_ram(memblock: Memblock, shows_reserved: bool) -> list[Resource]:
    """Memory regions, with what boot had reserved inside them where the architecture registers that."""
    found = []
    for region in memblock.memory:
        name = "reserved" if region.nomap else "System RAM"
        resource = Resource(region.base, region.end - 1, name)
        if shows_reserved and not region.nomap:
            inside = (r for r in memblock.reserved if r.base < region.end and r.end > region.base)
            for taken in inside:
                start, end = max(taken.base, region.base), min(taken.end, region.end)
                resource.children.append(Resource(start & ~0xFFF, (end - 1) | 0xFFF, "reserved"))
        found.append(resource)
    return found


def iomem(machine: Machine) -> bytes:
    """``iomem_resource`` as text: memory and what was reserved in it; devices are not simulated.

    arm64 registers memblock's reservations (``reserve_memblock_reserved_regions()``), x86 the firmware's.
    """
    found = _system_ram(machine.memblock, machine.arch == "arm64")
    if machine.arch == "x86_64" and found and found[0].start == BIOS_END:
        found.insert(0, Resource(0, BIOS_END - 1, "Reserved"))
    return "".join(line for resource in found for line in resource.lines(0, 8)).encode()
