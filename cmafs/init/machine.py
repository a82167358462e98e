"""The machine: everything that a boot produced and that the tables show. No behaviour of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmafs.init.task import Task, shell
from cmafs.sim.log import SimLog

if TYPE_CHECKING:
    from cmafs.abi import KernelAbi
    from cmafs.arch.iomem import Resource
    from cmafs.drivers.cma2010.framework import Cma2010
    from cmafs.drivers.device import Device
    from cmafs.drivers.dma.pool import AtomicPool
    from cmafs.lib.boot_event import BootEvent
    from cmafs.lib.clock import Clock
    from cmafs.lib.cmdline import EarlyParams
    from cmafs.lib.kconfig import Kconfig
    from cmafs.lib.printk import Printk
    from cmafs.mm.cma import CmaAreas
    from cmafs.mm.memblock import Memblock
    from cmafs.mm.mmzone import Memory
    from cmafs.of.base import DeviceTree
    from cmafs.of.reserved_mem import ReservedMem


@dataclass
class BootedMachine:
    """A booted machine.

    ``abi`` its kernel's row; ``arch`` ``arm``, ``arm64`` or ``x86_64``; ``config`` its Kconfig;
    ``cmdline`` the
    kernel command line; ``seed`` what everything random derives from; ``clock`` its time; ``log`` its
    kernel log;
    ``memblock`` memory and reservations as they were when the page allocator took over; ``memory`` zones,
    page blocks, free lists, counters, occupants; ``cma`` the areas, in slot order; ``tree`` the device tree,
    ``reserved_mem`` its reserved-memory records in initialisation order; ``params`` the command line parsed;
    ``boot_events`` what became
    of each region, for ``cmafs check``; ``iomem`` /proc/iomem's tree; ``simlog`` lines of the simulator's
    own log (sim/log);
    ``current`` the task that acts: a mount names the process that calls; ``devices`` by dev_name();
    ``atomic_pools`` for devices that cannot wait; ``zone_dma_limit``: the last address that devices of
    ZONE_DMA reach, in bytes; ``cma2010`` the framework of ``--kernel 2010``; ``on_task`` hears ``spawn`` and
    ``kill`` of simulated processes, with their names.
    """

    abi: KernelAbi
    arch: str
    config: Kconfig
    cmdline: str
    seed: int
    clock: Clock
    log: Printk
    memblock: Memblock
    memory: Memory
    cma: CmaAreas
    tree: DeviceTree
    reserved_mem: list[ReservedMem]
    params: EarlyParams
    boot_events: list[BootEvent]
    iomem: list[Resource]
    simlog: SimLog = field(default_factory=SimLog)
    current: Callable[[], Task] = shell
    devices: dict[str, Device] = field(default_factory=dict)
    atomic_pools: list[AtomicPool] = field(default_factory=list)
    zone_dma_limit: int = 0
    cma2010: Cma2010 | None = None
    on_task: Callable[[str, str], None] | None = None
