"""Who holds the used pages of an area, and who lives in its holes.

Holders are debugfs, drivers, programs by a heap, the atomic pool, or boot. The kernel does not know this:
its bitmap has no names. Here every taker keeps a list of what it took.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmafs.drivers.dma.contiguous import page_count
from cmafs.lib.intervals import Interval, union, without
from cmafs.mm.page_owner import TAG_SHIFT

if TYPE_CHECKING:
    from cmafs.drivers.device import Device, DriverMachine
    from cmafs.mm.cma import Cma
    from cmafs.mm.mmzone import Memory
    from cmafs.mm.page_owner import Occupant


@dataclass(frozen=True)
class Taker:
    """Who takes pages of an area without being a device."""

    name: str


DEBUGFS, ATOMIC_POOL, BOOT = Taker("debugfs"), Taker("dma_atomic_pool"), Taker("boot")


@dataclass(frozen=True)
class PageHolder:
    """``count`` pages from ``pfn`` on, and who holds them."""

    pfn: int
    count: int
    owner: Taker | Device


def page_holders(machine: DriverMachine, cma: Cma) -> list[PageHolder]:
    """Every used page of an area with its holder, by pfn; neighbours of one taker are not merged.

    Pages are those of whole bits: what is taken of the last bit of a buffer belongs to it.
    """
    taken = [PageHolder(pfn, _whole_bits(cma, count), owner) for pfn, count, owner in _takers(machine, cma)]
    known = sorted((holder for holder in taken if cma.find_range(holder.pfn)), key=_pfn)
    holders = list(known)
    spoken_for = union((holder.pfn, holder.pfn + holder.count) for holder in known)
    holders += [PageHolder(low, high - low, BOOT) for low, high in without(allocated(cma), spoken_for)]
    return sorted(holders, key=_pfn)


def holders_of(machine: DriverMachine, cma: Cma) -> list[tuple[str, int]]:
    """(name, pages) of those who hold pages of an area, who holds most first."""
    counts: Counter[str] = Counter()
    for holder in page_holders(machine, cma):
        counts[holder.owner.name] += holder.count
    return counts.most_common()


def guests_of(memory: Memory, cma: Cma) -> list[tuple[Occupant, int]]:
    """(occupant, pages) of those whose pages live in the area's holes, who has most first."""
    counts: Counter[int] = Counter()
    for first, end in cma.holes():
        counts.update(tag >> TAG_SHIFT for _, tag in memory.owners.used_in(first, end))
    return [(memory.owners.occupants[ident], pages) for ident, pages in counts.most_common()]


def pins_in_holes(memory: Memory, cma: Cma) -> list[int]:
    """The frames of the area's holes from which no page can be moved, ascending."""
    pins = sorted(memory.pins)
    spans = ((bisect_left(pins, first), bisect_left(pins, end)) for first, end in cma.holes())
    return [pfn for low, high in spans for pfn in pins[low:high]]


def _pfn(holder: PageHolder) -> int:
    return holder.pfn


def _takers(machine: DriverMachine, cma: Cma) -> Iterator[tuple[int, int, Taker | Device]]:
    for pfn, count in cma.mem_head:
        yield pfn, count, DEBUGFS
    for device in machine.devices.values():
        for buffer in device.buffers:
            if buffer.origin is cma:
                yield buffer.pfn, page_count(device, buffer.size), device
    for heap_buffer in machine.dma_bufs:
        if heap_buffer.origin is cma:
            yield heap_buffer.pfn, heap_buffer.size >> machine.config.page_shift, Taker(heap_buffer.holder)
    for pool in machine.atomic_pools:
        for chunk in pool.chunks:
            yield chunk.pfn, chunk.count, ATOMIC_POOL


def _whole_bits(cma: Cma, count: int) -> int:
    return cma.pages_to_bits(count) << cma.order_per_bit


def allocated(cma: Cma) -> Iterator[Interval]:
    """What an area's bitmaps say is allocated, in whole bits: (start, end) as pfns."""
    for cmr in cma.ranges:
        for start, end in cmr.bitmap.runs():
            yield cmr.base_pfn + (start << cma.order_per_bit), cmr.base_pfn + (end << cma.order_per_bit)
