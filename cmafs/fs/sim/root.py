"""sim/: the simulator's own door, the only names in the tree that no kernel has."""

from __future__ import annotations

import errno
import traceback
from functools import partial
from typing import TYPE_CHECKING

from cmafs.drivers.dma.mapping import show_device
from cmafs.drivers.dma_buf.heap import show_heap
from cmafs.fs.dentry import Directory
from cmafs.fs.dma_buf import DMA_HEAP
from cmafs.fs.kmsg import SIMFS
from cmafs.fs.seq_file import SeqOperations
from cmafs.fs.sim.advice import show_advice
from cmafs.fs.sim.control import SimControl
from cmafs.fs.sim.map import show_map
from cmafs.fs.sim.why import why
from cmafs.lib.printk import encode
from cmafs.sim.validate import validate
from cmafs.sim.validate_drivers import validate_2010, validate_buffers
from cmafs.sim.workload import TaskInfo, tasks

if TYPE_CHECKING:
    from cmafs.drivers.device import Device
    from cmafs.drivers.dma_buf.buffer import DmaHeap
    from cmafs.init.machine import BootedMachine

TASK_COLUMNS = ("NAME", "KIND", "PAGES", "CMA", "PINNED", "MLOCKED", "RANGES")
INTERNAL_ERROR = "internal error: see sim/log"


def task_line(task: TaskInfo) -> str:
    """A line of sim/tasks: counts in pages, frames as inclusive ranges in hex."""
    ranges = [f"{first:#x}-{last:#x}" for first, last in task.ranges]
    if task.more:
        ranges.append(f"+{task.more}")
    counts = (task.pages, task.cma, task.pinned, task.mlocked)
    return "\t".join((task.name, task.kind, *map(str, counts), ",".join(ranges) or "-"))


def expire(machine: BootedMachine) -> None:
    """Drop the pins whose time is over, which is more than reading."""
    if machine.faults.due():
        machine.clock.do(machine.faults.expire, "expire")


def show_tasks(machine: BootedMachine) -> bytes:
    """sim/tasks: who holds memory, and where."""
    expire(machine)
    lines = ["\t".join(TASK_COLUMNS), *map(task_line, tasks(machine.memory))]
    return encode("".join(f"{line}\n" for line in lines))


def show_faults(machine: BootedMachine) -> bytes:
    """sim/faults: what was set and not taken back."""
    expire(machine)
    return encode("".join(f"{line}\n" for line in machine.faults.lines()))


class Verify:
    """sim/verify: all consistency rules; no event counter may be lower than at the last read."""

    def __init__(self, machine: BootedMachine) -> None:
        self._machine = machine
        self._before: dict[str, int] = {}

    def show(self) -> bytes:
        """``ok``, or one violation a line."""
        machine = self._machine
        wrong: list[str] = []
        try:
            wrong = validate(machine.memory, list(machine.cma), self._before)
            wrong += validate_buffers(machine) + validate_2010(machine.cma2010)
            self._before = dict(machine.memory.vmstat.events)
        except MemoryError:  # of the host: says nothing about this machine
            raise
        except Exception:
            machine.simlog.report(traceback.format_exc())
        if machine.simlog.internal_errors:
            wrong.append(INTERNAL_ERROR)
        return encode("\n".join(wrong or ["ok"]) + "\n")


def _snapshot(machine: BootedMachine, root: Directory) -> bytes:
    """The machine as a file. Raises EFBIG."""
    from cmafs.fs.sim.snapshot import save  # half an interpreter's start, which few machines need

    return save(machine, root)


def populate(root: Directory, machine: BootedMachine) -> None:
    """Make sim/ with what it shows of this machine; sim/dmesg is in ``fs/kmsg.py``."""
    sim = root.subdir("sim", 0o755, SIMFS)
    control = SimControl(machine)
    sim.file("control", 0o200, SeqOperations(store=control.write, missing=errno.EACCES))
    sim.file("tasks", 0o444, SeqOperations(partial(show_tasks, machine)))
    sim.file("verify", 0o444, SeqOperations(Verify(machine).show))
    sim.file("why", 0o444, SeqOperations(lambda: encode(why(machine))))
    sim.file("faults", 0o444, SeqOperations(partial(show_faults, machine)))
    sim.file("advice", 0o444, SeqOperations(partial(show_advice, machine)))
    sim.file("map", 0o444, SeqOperations(partial(show_map, machine)))
    sim.file("snapshot", 0o400, SeqOperations(partial(_snapshot, machine, root)))
    sim.file("log", 0o444, SeqOperations(lambda: encode("".join(f"{line}\n" for line in machine.simlog))))
    devices = sim.subdir("devices", 0o755)
    for name, device in machine.devices.items():
        devices.file(name, 0o444, SeqOperations(partial(_show_device, device)))
    for name, heap in machine.dma_heaps.items():
        devices.file(f"{DMA_HEAP}:{name}", 0o444, SeqOperations(partial(_show_heap, machine, heap)))


def _show_heap(machine: BootedMachine, heap: DmaHeap) -> bytes:
    return encode(show_heap(machine, heap))


def _show_device(device: Device) -> bytes:
    return encode(show_device(device))
