"""The ``pressure`` transcripts: memory filled with tmpfs pages, allocations that must migrate, everything
given back.
"""

from __future__ import annotations

import re

import pytest
from mm_support import Recorded, names, recorded

from cmafs.mm.cma import cma_alloc, cma_release
from cmafs.mm.vmscan import drop_caches
from cmafs.sim.workload import grow, kill, spawn

STEP = re.compile(r"(\w+) MemFree=(\d+) CmaFree=(\d+) used=(\d+)")
PRESSURE = names("pressure")


def steps(there: Recorded) -> list[tuple[str, int, int]]:
    """(what, MemFree, CmaFree) of each state, in pages."""
    found = [STEP.match(line) for line in there.output]
    return [(m[1], int(m[2]) // 4, int(m[3]) // 4) for m in found if m]


def fill(there: Recorded) -> None:
    """Fills memory until MemFree is what was recorded, step by step, and compares CmaFree at each."""
    machine = there.machine
    tolerance = machine.area.count * 3 // 100
    spawn(machine.memory, "files", "tmpfs", 0)
    for what, mem_free, cma_free in steps(there):
        if what != "start" and not what.startswith("file"):
            break
        grow(machine.memory, "files", max(0, machine.free() - mem_free))
        assert machine.free() == mem_free, what
        assert abs(machine.cma_free() - cma_free) <= tolerance, what
    machine.check()


def allocations(there: Recorded) -> list[tuple[int, bool]]:
    """(pages, whether it succeeded) of each allocation of the script."""
    found = [re.match(r"alloc (\d+) rc=(\d)", line) for line in there.output]
    return [(int(m[1]), m[2] == "0") for m in found if m]


@pytest.mark.parametrize("name", PRESSURE)
def test_cma_free_follows_mem_free(name: str) -> None:
    there = recorded(name)
    machine = there.machine
    assert abs(machine.free() - steps(there)[0][1]) <= 400
    fill(there)


@pytest.mark.parametrize("name", PRESSURE)
@pytest.mark.parametrize("equal", ["mem_free", "files"])
def test_allocations_that_succeeded_there_succeed_here(name: str, equal: str) -> None:
    there = recorded(name)
    machine = there.machine
    start = machine.free(), machine.cma_free()
    if equal == "mem_free":
        fill(there)
    else:
        for i in range(sum(what.startswith("file") for what, _, _ in steps(there))):
            spawn(machine.memory, f"f{i}", "tmpfs", 5 * 256)
    taken = []
    for pages, succeeded in allocations(there):
        pfn = cma_alloc(machine.area, pages)
        machine.check()
        assert pfn is not None or not succeeded
        if pfn is not None:
            taken.append((pfn, pages))
    for task in [o.name for o in machine.memory.owners.occupants.values() if o.visible]:
        kill(machine.memory, task)
    for pfn, pages in taken:
        cma_release(machine.area, pfn, pages)
    machine.check()
    assert (machine.free(), machine.cma_free()) == start


def test_drop_caches_gives_the_cache_back() -> None:
    machine = recorded("7.2/pressure-0").machine
    before = machine.free()
    drop_caches(machine.memory, 1)
    assert machine.free() - before == 3552 // 4
    machine.check()
