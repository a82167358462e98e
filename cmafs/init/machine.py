"""The machine: everything that a boot produced and that the tables show. No behaviour of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmafs.drivers.device import DriverMachine
from cmafs.init.task import Task, shell
from cmafs.sim.faults import Faults
from cmafs.sim.log import SimLog

if TYPE_CHECKING:
    from cmafs.arch.iomem import Resource
    from cmafs.drivers.cma2010.framework import Cma2010
    from cmafs.lib.boot_event import BootEvent
    from cmafs.lib.clock import Clock
    from cmafs.lib.cmdline import EarlyParams
    from cmafs.mm.memblock import Memblock


@dataclass(eq=False, kw_only=True)
class BootedMachine(DriverMachine):
    """A booted machine: what DriverMachine has of it, and what only those know who show it.

    ``cmdline`` the kernel command line; ``seed`` the start value of all random choices; ``clock`` its time;
    ``memblock`` memory and reservations as they were when the page allocator took over; ``params`` the
    command line parsed; ``boot_events`` what became of each region, for ``cmafs check``; ``iomem``
    /proc/iomem's tree; ``simlog`` lines of the simulator's own log (sim/log); ``current`` the task that
    acts: a mount names the process that calls; ``cma2010`` the framework of ``--kernel 2010``; ``on_task``
    hears ``spawn`` and ``kill`` of simulated processes, with their names; ``faults``: those that
    sim/control sets.
    """

    cmdline: str
    seed: int
    clock: Clock
    memblock: Memblock
    params: EarlyParams
    boot_events: list[BootEvent]
    iomem: list[Resource]
    simlog: SimLog = field(default_factory=SimLog)
    current: Callable[[], Task] = shell
    cma2010: Cma2010 | None = None
    on_task: Callable[[str, str], None] | None = None
    faults: Faults = field(init=False)

    def __post_init__(self) -> None:
        self.faults = Faults(self.memory, self.cma, self.clock)
