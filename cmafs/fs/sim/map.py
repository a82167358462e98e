"""sim/map: who sits in the areas of CMA, run by run, for those who draw it (``cmafs map``).

A line is ``FIRST PAGES STATE OWNER``: a pfn, a count, ``allocated``, ``movable`` or ``pinned``, and a name.
What no line names is free. The kernel has no such file.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from cmafs.lib.printk import encode
from cmafs.mm.page_owner import KIND_PCP, TAG_SHIFT, contiguous
from cmafs.sim.cma_owner import page_holders

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine
    from cmafs.mm.cma import Cma

ALLOCATED, MOVABLE, PINNED = "allocated", "movable", "pinned"
#: First pfn, pages, state, owner.
Extent = tuple[int, int, str, str]


def show_map(machine: BootedMachine) -> bytes:
    """The text of sim/map: area by area, ascending."""
    extents = (extent for cma in machine.cma for extent in sorted(_extents(machine, cma)))
    return encode("".join(f"{pfn:#x} {count} {state} {name}\n" for pfn, count, state, name in extents))


def _extents(machine: BootedMachine, cma: Cma) -> Iterator[Extent]:
    for holder in page_holders(machine, cma):
        yield holder.pfn, holder.count, ALLOCATED, holder.owner.name
    for cmr in cma.ranges:
        yield from _guests(machine, cmr.base_pfn, cmr.end_pfn)


def _guests(machine: BootedMachine, start: int, end: int) -> Iterator[Extent]:
    """The pages of others in a range: what CMA has allocated belongs to none of them."""
    owners, pins = machine.memory.owners, machine.memory.pins
    found = ((tag >> TAG_SHIFT, pfn in pins, pfn) for pfn, tag in owners.used_in(start, end))
    for (ident, pinned), pages in groupby(found, key=lambda page: page[:2]):
        occupant = owners.occupants[ident]
        if occupant.kind != KIND_PCP:
            for pfn, count in contiguous([page[2] for page in pages]):
                yield pfn, count, PINNED if pinned else MOVABLE, occupant.name
