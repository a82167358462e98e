"""The machine: everything that a boot produced and that the tables show. No behaviour of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmafs.drivers.device import DriverMachine
from cmafs.sim.faults import Faults
from cmafs.sim.log import SimLog

if TYPE_CHECKING:
    from cmafs.arch.iomem import Resource
    from cmafs.drivers.cma2010.framework import Cma2010
    from cmafs.init.journal import Journal
    from cmafs.init.options import MachineOptions
    from cmafs.init.task import Task
    from cmafs.lib.boot_event import BootEvent
    from cmafs.lib.cmdline import EarlyParams
    from cmafs.mm.memblock import Memblock


@dataclass(eq=False, kw_only=True)
class BootedMachine(DriverMachine):
    """A booted machine: what DriverMachine has of it, and what only those know who show it.

    ``options`` what its maker chose, ``config`` as lines; ``cmdline`` the kernel command line; ``seed`` the
    start value of all random choices; ``clock`` its time, and what has been done to it since;
    ``memblock`` memory and reservations as they were when the page allocator took over; ``params`` the
    command line parsed; ``boot_events`` what became of each region, for ``cmafs check``; ``iomem``
    /proc/iomem's tree; ``simlog`` lines of the simulator's own log (sim/log); ``cma2010`` the framework of
    ``--kernel 2010``; ``on_task`` hears ``spawn`` and ``kill`` of simulated processes, with their names;
    ``faults``: those that sim/control sets.
    """

    options: MachineOptions
    cmdline: str
    seed: int
    clock: Journal
    memblock: Memblock
    params: EarlyParams
    boot_events: list[BootEvent]
    iomem: list[Resource]
    simlog: SimLog = field(default_factory=SimLog)
    cma2010: Cma2010 | None = None
    on_task: Callable[[str, str], None] | None = None
    faults: Faults = field(init=False)

    def __post_init__(self) -> None:
        self.faults = Faults(self.memory, self.cma, self.clock)

    @property
    def current(self) -> Callable[[], Task]:
        """The task that acts; a mount sets what names the process that calls."""
        return self.clock.current

    @current.setter
    def current(self, task: Callable[[], Task]) -> None:
        """Somebody else says who acts."""
        self.clock.task = task
