"""sim/advice: for each area what would let its last failed request through, each way tried on a copy.

Nothing happens to the machine itself: every trial has a copy of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cmafs.lib.printk import encode
from cmafs.mm.cma import cma_alloc, cma_release
from cmafs.mm.compaction import compact_memory
from cmafs.mm.page_owner import KIND_PCP
from cmafs.mm.vmscan import drop_caches
from cmafs.sim import workload
from cmafs.sim.cma_owner import guests_of, holders_of, page_holders, pins_in_holes
from cmafs.sim.log import SimLog

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine
    from cmafs.mm.cma import Cma

#: Tasks and holders that are tried one by one, those with most pages first.
TRIED = 4
#: ``echo 3``: page cache and slab.
DROP_ALL = 3


@dataclass(frozen=True)
class Advice:
    """Something to do, in words, and what it does to a machine and its area."""

    words: str
    do: Callable[[BootedMachine, Cma], object]


def copy_of(machine: BootedMachine) -> BootedMachine:
    """An equal machine that nobody watches: its own memory, its own log.

    What is large and holds numbers only is copied at once: deepcopy() would look at each of them.
    """
    memory = machine.memory
    known: dict[int, object] = {
        id(machine.on_task): None,
        id(machine.current): machine.current,
        id(machine.simlog): SimLog(),
        id(memory.pins): dict(memory.pins),
        **{id(one.pinned): set(one.pinned) for one in memory.owners.occupants.values()},
    }
    copied = deepcopy(machine, known)
    copied.memory.on_migrate = copied.cma.fault = None
    return copied


def helps(machine: BootedMachine, cma: Cma, do: Callable[[BootedMachine, Cma], object]) -> bool:
    """Whether the area's last failed request goes through after something was done to a copy."""
    failure = cma.failures[0]
    copied = copy_of(machine)
    area = copied.cma[cma.slot]
    with suppress(OSError):
        do(copied, area)
        return cma_alloc(area, failure.count, failure.align) is not None
    return False


def show_advice(machine: BootedMachine) -> bytes:
    """The text of sim/advice."""
    lines: list[str] = []
    for cma in machine.cma:
        for failure in [*cma.failures][:1]:
            lines.append(f"{cma.label}: {failure.count} pages")
            lines += [f"  {line}" for line in _area_lines(machine, cma)]
    return encode("".join(f"{line}\n" for line in lines or ["no allocation has failed"]))


def _area_lines(machine: BootedMachine, cma: Cma) -> Iterator[str]:
    failure = cma.failures[0]
    if not 0 < failure.count <= cma.count:
        yield f"needs an area of at least {failure.count} pages; nothing else helps"
        return
    if helps(machine, cma, lambda machine, cma: None):
        yield "goes through now, as it is (tried)"
        return
    tried = [(helps(machine, cma, advice.do), advice.words) for advice in _advice(machine, cma)]
    yield from (f"helps (tried): {words}" for good, words in tried if good)
    if not any(good for good, _ in tried):
        yield "nothing that was tried helps alone: a larger area, or one of its own for this request"
    yield from (f"does not help (tried): {words}" for good, words in tried if not good)


def _advice(machine: BootedMachine, cma: Cma) -> Iterator[Advice]:
    """What may be done, the mildest first."""
    yield Advice("echo 1 > /proc/sys/vm/compact_memory", lambda m, _: compact_memory(m.memory))
    yield Advice("echo 3 > /proc/sys/vm/drop_caches", lambda m, _: drop_caches(m.memory, DROP_ALL))
    yield from _unpinning(machine, cma)
    yield from _ending(machine, cma)
    yield from _releasing(machine, cma)


def _unpinning(machine: BootedMachine, cma: Cma) -> Iterator[Advice]:
    memory = machine.memory
    pins = pins_in_holes(memory, cma)
    owners = [memory.owners.owner_at(pfn) for pfn in pins]
    names = Counter(owner.name for owner in owners if owner and owner.pinned)
    for name, count in names.most_common(TRIED):
        yield Advice(f"unpin {name} ({count} pages in the way)", partial(_unpin, name))
    if len(names) > 1 or len(pins) > sum(names.values()):
        yield Advice(f"unpin all {len(pins)} pages in its holes", lambda m, _: _unpin_all(m, pins))


def _unpin(name: str, machine: BootedMachine, cma: Cma) -> None:
    workload.unpin(machine.memory, name)


def _kill(name: str, machine: BootedMachine, cma: Cma) -> None:
    workload.kill(machine.memory, name)


def _unpin_all(machine: BootedMachine, pins: list[int]) -> None:
    """Drops every pin of these pages, whoever made it."""
    for occupant in machine.memory.owners.occupants.values():
        if occupant.pinned:
            workload.unpin(machine.memory, occupant.name)
    for pfn in pins:
        while pfn in machine.memory.pins:
            workload.unpin_pfn(machine.memory, pfn)


def _ending(machine: BootedMachine, cma: Cma) -> Iterator[Advice]:
    """Ending tasks that have pages in its holes: they need no room elsewhere then."""
    guests = [occupant for occupant, _ in guests_of(machine.memory, cma)]
    for occupant in [one for one in guests if one.visible and one.kind != KIND_PCP][:TRIED]:
        yield Advice(f"kill {occupant.name}", partial(_kill, occupant.name))


def _releasing(machine: BootedMachine, cma: Cma) -> Iterator[Advice]:
    """Giving back what a holder has of the area."""
    for name, count in holders_of(machine, cma)[:TRIED]:
        yield Advice(f"have {name} give back its {count} pages", partial(_release, name))


def _release(name: str, machine: BootedMachine, cma: Cma) -> None:
    for holder in page_holders(machine, cma):
        if holder.owner.name == name:
            cma_release(cma, holder.pfn, holder.count)
