"""sim/why: for each area what an allocation can get, who is in the way, why searches failed and would now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cmafs.lib.intervals import Interval, union, without
from cmafs.lib.math import roundup
from cmafs.mm.cma_failure import longest_aligned
from cmafs.sim.cma_owner import guests_of, holders_of, pins_in_holes

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine
    from cmafs.mm.cma import Cma
    from cmafs.mm.cma_failure import CmaFailure

#: How many holes, and how many pinned frames, are named.
SHOWN = 8


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


def _first_fit(pieces: Iterable[Interval], count: int, step: int) -> int | None:
    """The lowest multiple of ``step`` from which on a piece has ``count`` pages."""
    aligned = ((roundup(start, step), end) for start, end in pieces)
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
    pins = pins_in_holes(machine.memory, cma)
    pieces = _free_of(cma, pins)
    used = cma.count - cma.available_count
    yield f"{cma.label}: {cma.count} pages, {used} allocated, largest hole {cma.maxchunk()}"
    longest = longest_aligned(pieces, 1)[1]
    yield f"an allocation can get at most {longest} pages now (writers see ENOMEM beyond that)"
    yield from _for_drivers(machine, cma, pieces, longest)
    spans = [f"{end - first} at {first:#x}" for first, end in cma.holes()]
    yield f"holes: {_named(spans) or 'none'}"
    guests = [f"{occupant.name} {pages}" for occupant, pages in guests_of(machine.memory, cma)]
    yield f"used pages in the holes, which have to move: {_named(guests) or 'nobody'}"
    if pins:
        named = _named([_owner(machine, pfn) for pfn in pins])
        yield f"pinned pages in the holes, which cannot move: {named}"
    yield from _failures(machine, cma, pieces)
    holders = [f"{name} {pages}" for name, pages in holders_of(machine, cma)]
    yield f"held by: {_named(holders) or 'nobody'}"


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
