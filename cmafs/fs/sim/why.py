"""sim/why: for each area what an allocation can get, who is in the way, why searches failed and would now."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cmafs.lib.intervals import Interval, union, without
from cmafs.mm.cma_failure import longest_aligned
from cmafs.mm.page_owner import TAG_SHIFT
from cmafs.sim.cma_owner import Taker, page_holders

if TYPE_CHECKING:
    from cmafs.drivers.device import Device
    from cmafs.init.machine import BootedMachine
    from cmafs.mm.cma import Cma
    from cmafs.mm.cma_failure import CmaFailure

#: How many holes, and how many pinned frames, are named.
SHOWN = 8


def _pins(machine: BootedMachine, cma: Cma) -> list[int]:
    """The frames of the area's holes from which no page can be moved, ascending."""
    pins = sorted(machine.memory.pins)
    spans = ((bisect_left(pins, first), bisect_left(pins, end)) for first, end in cma.holes())
    return [pfn for low, high in spans for pfn in pins[low:high]]


def _free_of(cma: Cma, pins: list[int]) -> list[Interval]:
    """The pieces of the holes, in whole bits, in which no frame is pinned."""
    unit = 1 << cma.order_per_bit
    bases = [(pfn, cmr.base_pfn) for pfn in pins if (cmr := cma.find_range(pfn))]
    pinned = union((pfn - (pfn - base) % unit, pfn - (pfn - base) % unit + unit) for pfn, base in bases)
    return list(without(cma.holes(), pinned))


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
    for first, end in cma.holes():
        counts.update(tag >> TAG_SHIFT for _, tag in owners.used_in(first, end))
    named = [f"{owners.occupants[ident].name} {pages}" for ident, pages in counts.most_common()]
    return _named(named) or "nobody"


def _holders(machine: BootedMachine, cma: Cma) -> str:
    """Who holds the allocated pages, and how many."""
    counts: Counter[Taker | Device] = Counter()
    for holder in page_holders(machine, cma):
        counts[holder.owner] += holder.count
    return _named([f"{owner.name} {pages}" for owner, pages in counts.most_common()]) or "nobody"


def _first_fit(pieces: Iterable[Interval], count: int, step: int) -> int | None:
    """The lowest multiple of ``step`` from which on a piece has ``count`` pages."""
    aligned = ((-(-start // step) * step, end) for start, end in pieces)
    return next((start for start, end in aligned if end - start >= count), None)


def _now(machine: BootedMachine, cma: Cma, failure: CmaFailure, pieces: list[Interval]) -> str:
    """Whether the same request would go through now, and if not, what is in its way.

    ``pieces``: those of the holes without a pinned page.
    """
    count, step = failure.count, cma.alignment(failure.align)
    if not 0 < count <= cma.count:
        return "it can never fit"
    place = _first_fit(pieces, count, step)
    if place is not None:
        used = sum(1 for _ in machine.memory.owners.used_in(place, place + count))
        return "it would fit now" + (f", if its place can be cleared ({used} pages used)" if used else "")
    if _first_fit(cma.holes(), count, step) is not None:
        return "it would still fail: every place holds a pinned page"
    if cma.maxchunk() >= count:
        return "it would still fail: no hole has so many pages from an aligned one on"
    return f"it would still fail: the largest hole has {cma.maxchunk()} pages"


def _failures(machine: BootedMachine, cma: Cma, pieces: list[Interval]) -> Iterator[str]:
    """The searches that found nothing, newest first: why they did not then, and whether they would now."""
    if not cma.failures:
        yield "no allocation has failed"
    for failure in cma.failures:
        times = f" ({failure.times} times)" if failure.times > 1 else ""
        yield f"failed{times}: {failure}; {_now(machine, cma, failure, pieces)}"


def area_lines(machine: BootedMachine, cma: Cma) -> Iterator[str]:
    """What there is to say about one area; counts in pages."""
    pins = _pins(machine, cma)
    pieces = _free_of(cma, pins)
    used = cma.count - cma.available_count
    yield f"{cma.name.rstrip()}: {cma.count} pages, {used} allocated, largest hole {cma.maxchunk()}"
    longest = longest_aligned(pieces, 1)[1]
    yield f"an allocation can get at most {longest} pages now (writers see ENOMEM beyond that)"
    yield from _for_drivers(machine, cma, pieces, longest)
    spans = [f"{end - first} at {first:#x}" for first, end in cma.holes()]
    yield f"holes: {_named(spans) or 'none'}"
    yield f"used pages in the holes, which have to move: {_occupants(machine, cma)}"
    if pins:
        named = _named([_owner(machine, pfn) for pfn in pins])
        yield f"pinned pages in the holes, which cannot move: {named}"
    yield from _failures(machine, cma, pieces)
    yield f"held by: {_holders(machine, cma)}"


def _for_drivers(machine: BootedMachine, cma: Cma, pieces: list[Interval], longest: int) -> Iterator[str]:
    """What the DMA API can get, where its alignment makes that less."""
    step = cma.alignment(machine.config.number("CMA_ALIGNMENT"))
    pages = longest_aligned(pieces, step)[1]
    if step <= longest and pages < longest:
        yield f"a driver at most {pages}: its larger buffers begin at a multiple of {step} pages"


def why(machine: BootedMachine) -> str:
    """The text of sim/why."""
    text = ""
    for cma in machine.cma:
        first, *rest = area_lines(machine, cma)
        text += f"{first}\n" + "".join(f"  {line}\n" for line in rest)
    free = sum(zone.nr_free - zone.nr_free_cma for zone in machine.memory.zones)
    text += f"free memory outside CMA, to which pages can move: {free} pages\n"
    return text + "".join(f"dma_alloc failed: {failure}\n" for failure in machine.dma_failures)
