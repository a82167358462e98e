"""Every consistency rule of what drivers hold, each told as one line when it is broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cmafs.drivers.device import DriverMachine, Origin
from cmafs.drivers.dma.coherent import DmaCoherentMem
from cmafs.drivers.dma.contiguous import page_count
from cmafs.drivers.dma.pool import AtomicPool
from cmafs.lib.bitmap import Bitmap
from cmafs.mm.cma import Cma
from cmafs.mm.page_owner import Occupant

if TYPE_CHECKING:
    from cmafs.drivers.cma2010.framework import Cma2010


def validate_buffers(machine: DriverMachine) -> list[str]:
    """The violations by buffers of devices and heaps: used where they say they are, and nobody else's."""
    held = sorted(_held(machine), key=lambda held: held.pfn)
    wrong = [f"{one}: its pages are not used in {one.area}" for one in held if not _used(machine, one)]
    for one, two in pairwise(held):
        if one.end > two.pfn:
            wrong.append(f"{one} overlaps {two}")
    return wrong


def validate_2010(cma: Cma2010 | None) -> list[str]:
    """The violations of the framework of 2010, if that is the kernel: figures of regions, chunks."""
    return [] if cma is None else list(_regions(cma))


@dataclass(frozen=True)
class _Held:
    """A buffer: ``owner`` holds the pages ``[pfn, end)`` of ``origin``, which people call ``area``."""

    owner: str
    pfn: int
    end: int
    origin: Origin
    area: str

    def __str__(self) -> str:
        return f"{self.owner}: buffer at {self.pfn:#x}"


def _held(machine: DriverMachine) -> Iterator[_Held]:
    for device in machine.devices.values():
        for b in device.buffers:
            yield _Held(device.name, b.pfn, b.pfn + page_count(device, b.size), b.origin, b.area)
    for buffer in machine.dma_bufs:
        if isinstance(buffer.origin, Cma):  # others are scattered, and their occupant is checked
            end = buffer.pfn + (buffer.size >> machine.config.page_shift)
            yield _Held(buffer.heap, buffer.pfn, end, buffer.origin, buffer.origin.label)


def _used(machine: DriverMachine, buffer: _Held) -> bool:
    start, end = buffer.pfn, buffer.end
    match buffer.origin:
        case Occupant():
            return machine.memory.owners.owner_at(start) is buffer.origin
        case DmaCoherentMem() as pool:
            return _all_set(pool.bitmap, pool.pfn_base, 0, start, end)
        case AtomicPool() as pool:
            return any(_all_set(chunk.bits, chunk.pfn, 0, start, end) for chunk in pool.chunks)
        case Cma() as area:
            order = area.order_per_bit
            return any(_all_set(cmr.bitmap, cmr.base_pfn, order, start, end) for cmr in area.ranges)


def _all_set(bitmap: Bitmap, base: int, order_per_bit: int, start: int, end: int) -> bool:
    """Whether ``[start, end)`` lies in a bitmap that begins at pfn ``base``, and all its bits are set."""
    first, last = ((pfn - base) >> order_per_bit for pfn in (start, end - 1))
    return 0 <= first <= last < bitmap.nbits and bitmap.all_set(first, last - first + 1)


def _regions(cma: Cma2010) -> Iterator[str]:
    chunks = sorted(cma.chunks(), key=lambda chunk: chunk.start)
    for reg in cma.regions:
        own = [chunk for chunk in chunks if chunk.reg is reg]
        if reg.users != len(own):
            yield f"region {reg.label}: {reg.users} users, {len(own)} chunks"
        if reg.free_space + sum(chunk.size for chunk in own) != reg.size:
            yield f"region {reg.label}: free and used bytes are not its size"
        if any(chunk.start < reg.start or chunk.start + chunk.size > reg.end for chunk in own):
            yield f"region {reg.label}: a chunk lies outside"
        if not cma.quirks.q17_rounding_wraps and not all(chunk.size for chunk in own):
            yield f"region {reg.label}: a chunk of no bytes"
    for one, two in pairwise(chunk for chunk in chunks if chunk.size):
        if one.start + one.size > two.start:
            yield f"chunks at {one.start:#x} and {two.start:#x} overlap"
