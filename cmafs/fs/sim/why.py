"""sim/why: for each area what an allocation can get, who is in the way, what its last failure meant."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmafs.lib.intervals import Interval, union, without
from cmafs.mm.page_owner import TAG_SHIFT
from cmafs.sim.cma_owner import Taker, page_holders

if TYPE_CHECKING:
    from cmafs.drivers.device import Device
    from cmafs.init.machine import BootedMachine
    from cmafs.mm.cma import Cma

#: How many holes, and how many pinned frames, are named.
SHOWN = 8


def holes(cma: Cma) -> list[Interval]:
    """(first pfn, end pfn) of every hole of the bitmaps."""
    units = ((cmr.base_pfn, *hole) for cmr in cma.ranges for hole in cmr.bitmap.holes)
    shift = cma.order_per_bit
    return [(base + (start << shift), base + (start + bits << shift)) for base, start, bits in units]


def longest_free_of_pins(cma: Cma, pins: list[int]) -> int:
    """Pages of the longest piece of a hole in which no frame is pinned, in whole bits."""
    unit = 1 << cma.order_per_bit
    bases = [(pfn, cmr.base_pfn) for pfn in pins if (cmr := cma.find_range(pfn))]
    pinned = union((pfn - (pfn - base) % unit, pfn - (pfn - base) % unit + unit) for pfn, base in bases)
    return max((end - start for start, end in without(holes(cma), pinned)), default=0)


def _named(items: list[str]) -> str:
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _owner(machine: BootedMachine, pfn: int) -> str:
    occupant = machine.memory.owners.owner_at(pfn)
    return f"{pfn:#x} ({occupant.name if occupant else 'nobody'})"


def _occupants(machine: BootedMachine, cma: Cma) -> str:
    """Whose pages live in the area's holes."""
    owners = machine.memory.owners
    counts: Counter[int] = Counter()
    for first, end in holes(cma):
        counts.update(tag >> TAG_SHIFT for _, tag in owners.used_in(first, end))
    named = [f"{owners.occupants[ident].name} {pages}" for ident, pages in counts.most_common()]
    return _named(named) or "nobody"


def _holders(machine: BootedMachine, cma: Cma) -> str:
    """Who holds the allocated pages, and how many."""
    counts: Counter[Taker | Device] = Counter()
    for holder in page_holders(machine, cma):
        counts[holder.owner] += holder.count
    return _named([f"{owner.name} {pages}" for owner, pages in counts.most_common()]) or "nobody"


def _failure(cma: Cma, longest: int) -> str:
    """What the last failure meant, and whether the same request would go through now."""
    failure = cma.last_failure
    if failure is None:
        return "no allocation has failed"
    code = errno.errorcode[failure.error]
    meaning = {
        errno.ENOMEM: "no hole was large enough, or there was no memory to move the pages in it to",
        errno.EBUSY: "every window of that size held a page that cannot move",
    }[failure.error]
    if failure.error == errno.EBUSY and cma.areas.abi.no_hole_is_busy and failure.pfn < 0:
        meaning = "no hole was large enough"
    if failure.count > cma.count or not failure.count:
        meaning = "the area is smaller" if failure.count else "nothing was asked for"
    now = "would fit now" if 0 < failure.count <= longest else "would still fail"
    return f"last failure: {failure.count} pages, -{failure.error} ({code}): {meaning}; {now}"


def area_lines(machine: BootedMachine, cma: Cma) -> Iterator[str]:
    """What there is to say about one area; counts in pages."""
    used = cma.count - cma.available_count
    pins = sorted(pfn for pfn in machine.memory.pins if any(f <= pfn < e for f, e in holes(cma)))
    longest = longest_free_of_pins(cma, pins)
    yield f"{cma.name.rstrip()}: {cma.count} pages, {used} allocated, largest hole {cma.maxchunk()}"
    yield f"an allocation can get at most {longest} pages now (writers see ENOMEM beyond that)"
    spans = [f"{end - first} at {first:#x}" for first, end in holes(cma)]
    yield f"holes: {_named(spans) or 'none'}"
    yield f"pages of others in them, which must move: {_occupants(machine, cma)}"
    if pins:
        yield f"pinned frames in them, which cannot move: {_named([_owner(machine, pfn) for pfn in pins])}"
    yield _failure(cma, longest)
    yield f"held by: {_holders(machine, cma)}"


def why(machine: BootedMachine) -> str:
    """The text of sim/why."""
    text = ""
    for cma in machine.cma:
        first, *rest = area_lines(machine, cma)
        text += f"{first}\n" + "".join(f"  {line}\n" for line in rest)
    free = sum(zone.nr_free - zone.nr_free_cma for zone in machine.memory.zones)
    return f"{text}free memory outside CMA, to which pages can move: {free} pages\n"
