"""``struct device`` as far as its DMA goes, its buffers, and what drivers need of a machine.

Source: ``include/linux/device.h``, ``include/linux/dma-direct.h@v6.12``. Addresses and sizes in bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from cmafs.drivers.dma.coherent import DmaCoherentMem
from cmafs.drivers.dma.pool import AtomicPool
from cmafs.mm.cma_areas import FAILURES_KEPT
from cmafs.mm.page_owner import Occupant
from cmafs.of.base import DeviceNode

if TYPE_CHECKING:
    from cmafs.abi import KernelAbi
    from cmafs.drivers.dma_buf.buffer import DmaBuf, DmaHeap
    from cmafs.lib.kconfig import Kconfig
    from cmafs.lib.printk import Printk
    from cmafs.mm.cma import Cma, CmaAreas
    from cmafs.mm.mmzone import Memory
    from cmafs.of.base import DeviceTree
    from cmafs.of.reserved_mem import ReservedMem


#: Where a buffer's pages are from: an area, the atomic pool, a pool of the device's own, or the page
#: allocator, of whose pages every user is an occupant.
Origin: TypeAlias = "Cma | AtomicPool | DmaCoherentMem | Occupant"


@dataclass(frozen=True)
class DmaFailure:
    """A dma_alloc_coherent() of ``size`` bytes that got nothing.

    ``steps`` say who was asked, in order, and why each refused.
    """

    device: str
    size: int
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.device}, {self.size} bytes: {'; '.join(self.steps)}"


@dataclass(eq=False, kw_only=True)
class DriverMachine:
    """What drivers need of a machine: the part of ``cmafs.init.machine.BootedMachine`` that they know.

    ``abi`` its kernel's row; ``arch`` ``arm``, ``arm64`` or ``x86_64``; ``config`` its Kconfig; ``log`` its
    kernel log; ``memory`` zones, page blocks, free lists, counters, occupants; ``cma`` the areas, in slot
    order; ``tree`` the device tree, ``reserved_mem`` its reserved-memory records in initialisation order;
    ``devices`` by dev_name(); ``atomic_pools`` for devices that cannot wait; ``zone_dma_limit``: the last
    address that devices of ZONE_DMA reach, in bytes; ``dma_failures``: what devices did not get, the newest
    first; ``dma_heaps`` by name; ``dma_bufs``: what they gave out, the oldest first; ``dma_buf_inodes``: how
    many that were; ``on_dma_buf`` hears of each that is made or released.
    """

    abi: KernelAbi
    arch: str
    config: Kconfig
    log: Printk
    memory: Memory
    cma: CmaAreas
    tree: DeviceTree
    reserved_mem: list[ReservedMem]
    devices: dict[str, Device] = field(default_factory=dict)
    atomic_pools: list[AtomicPool] = field(default_factory=list)
    zone_dma_limit: int = 0
    dma_failures: deque[DmaFailure] = field(default_factory=lambda: deque(maxlen=FAILURES_KEPT))
    dma_heaps: dict[str, DmaHeap] = field(default_factory=dict)
    dma_bufs: list[DmaBuf] = field(default_factory=list)
    dma_buf_inodes: int = 0
    on_dma_buf: Callable[[DmaBuf], None] | None = None


def dma_bit_mask(bits: int) -> int:
    """``DMA_BIT_MASK()``: the highest address of so many bits."""
    return (1 << bits) - 1


@dataclass(frozen=True)
class BusDmaRegion:
    """``struct bus_dma_region``: ``size`` bytes, at ``cpu_start`` for the CPU, ``dma_start`` for the bus."""

    cpu_start: int
    dma_start: int
    size: int


@dataclass(eq=False)
class DmaBuffer:
    """What one dma_alloc_coherent() gave out.

    ``pfn``: first page; ``size`` bytes as asked for; ``dma_handle``: the bus address; ``cpu_addr``: the
    kernel's virtual address; ``origin``: where the pages are from, and go back to.
    """

    device: Device
    pfn: int
    size: int
    dma_handle: int
    cpu_addr: int
    origin: Origin

    @property
    def area(self) -> str:
        """Its origin for people: an area's name, ``pool``, ``coherent``, or ``-`` for ordinary pages."""
        match self.origin:
            case AtomicPool():
                return "pool"
            case DmaCoherentMem():
                return "coherent"
            case Occupant():
                return "-"
        return self.origin.label


@dataclass(eq=False)
class Device:
    """``struct device``: ``name`` as dev_name(), ``driver`` as dev_driver_string() before a driver is bound.

    ``coherent_dma_mask``: highest bus address it can use; ``bus_dma_limit``: likewise for its bus, 0 for
    none; ``dma_range_map``: what ``dma-ranges`` translates, () for none; ``dma_coherent``: it sees the
    CPU's caches; ``numa_node``: its node, -1 for none; ``region_index``: which of its memory-region entries
    it uses; ``cma_area``, ``dma_mem``: what that gave it; ``buffers``: what it holds, oldest first;
    ``refusals``: who has refused the request that is being answered, and why.
    """

    machine: DriverMachine
    name: str
    driver: str = "platform"
    of_node: DeviceNode | None = None
    coherent_dma_mask: int = dma_bit_mask(32)
    bus_dma_limit: int = 0
    dma_range_map: tuple[BusDmaRegion, ...] = ()
    dma_coherent: bool = False
    numa_node: int = -1
    region_index: int = 0
    cma_area: Cma | None = None
    dma_mem: DmaCoherentMem | None = None
    probed: bool = False
    buffers: list[DmaBuffer] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def dma_set_coherent_mask(self, bits: int) -> None:
        """What a driver calls: the device can use addresses of so many bits."""
        self.coherent_dma_mask = dma_bit_mask(bits)

    @property
    def dma_limit(self) -> int:
        """min_not_zero() of mask and bus limit: the highest usable bus address."""
        return min(self.coherent_dma_mask, self.bus_dma_limit or self.coherent_dma_mask)

    def phys_to_dma(self, phys: int) -> int | None:
        """``phys_to_dma()``: the bus address of a physical one; None where ``dma-ranges`` has none."""
        if not self.dma_range_map:
            return phys
        for region in self.dma_range_map:
            if region.cpu_start <= phys < region.cpu_start + region.size:
                return phys - region.cpu_start + region.dma_start
        return None

    def dma_to_phys(self, address: int) -> int | None:
        """``dma_to_phys()``: the physical address of a bus address; None where ``dma-ranges`` has none."""
        if not self.dma_range_map:
            return address
        for region in self.dma_range_map:
            if region.dma_start <= address < region.dma_start + region.size:
                return address - region.dma_start + region.cpu_start
        return None

    @property
    def reach(self) -> str:
        """What it can address, for people."""
        behind = ", and only what dma-ranges lists" if self.dma_range_map else ""
        return f"bus addresses up to {self.dma_limit:#x}{behind}"

    def dev_printk(self, text: str, level: int) -> None:
        """``dev_printk()``: a line with the names of driver and device in front."""
        self.machine.log.printk(f"{self.driver} {self.name}: {text}", level)
