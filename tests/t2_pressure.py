"""The ``pressure`` transcripts: memory filled with tmpfs pages, allocations that must migrate, everything
given back.
"""

from __future__ import annotations

import re

import pytest
from mm_support import Booted, Transcript, boot_transcript, names, transcript

from cmafs.mm.cma import cma_alloc, cma_release
from cmafs.mm.vmscan import drop_caches
from cmafs.mm.workload import grow, kill, spawn

STEP = re.compile(r"(\w+) MemFree=(\d+) CmaFree=(\d+) used=(\d+)")
PRESSURE = names("pressure")


def steps(recorded: Transcript) -> list[tuple[str, int, int]]:
    """(what, MemFree, CmaFree) of each state, in pages."""
    found = [STEP.match(line) for line in recorded.output]
    return [(m[1], int(m[2]) // 4, int(m[3]) // 4) for m in found if m]


def fill(machine: Booted, recorded: Transcript) -> None:
    """Fills memory until MemFree is what was recorded, step by step, and compares CmaFree at each."""
    tolerance = machine.area.count * 3 // 100
    spawn(machine.memory, "files", "tmpfs", 0)
    for what, mem_free, cma_free in steps(recorded):
        if what != "start" and not what.startswith("file"):
            break
        grow(machine.memory, "files", max(0, machine.free() - mem_free))
        assert machine.free() == mem_free, what
        assert abs(machine.cma_free() - cma_free) <= tolerance, what
    machine.check()


def allocations(recorded: Transcript) -> list[tuple[int, bool]]:
    """(pages, whether it succeeded) of each allocation of the script."""
    found = [re.match(r"alloc (\d+) rc=(\d)", line) for line in recorded.output]
    return [(int(m[1]), m[2] == "0") for m in found if m]


@pytest.mark.parametrize("name", PRESSURE)
def test_cma_free_follows_mem_free(name: str) -> None:
    recorded = transcript(name)
    machine = boot_transcript(recorded)
    assert abs(machine.free() - steps(recorded)[0][1]) <= 400
    fill(machine, recorded)


@pytest.mark.parametrize("name", PRESSURE)
@pytest.mark.parametrize("equal", ["mem_free", "files"])
def test_allocations_that_succeeded_there_succeed_here(name: str, equal: str) -> None:
    recorded = transcript(name)
    machine = boot_transcript(recorded)
    start = machine.free(), machine.cma_free()
    if equal == "mem_free":
        fill(machine, recorded)
    else:
        for i in range(sum(what.startswith("file") for what, _, _ in steps(recorded))):
            spawn(machine.memory, f"f{i}", "tmpfs", 5 * 256)
    taken = []
    for pages, succeeded in allocations(recorded):
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
    machine = boot_transcript(transcript("7.2/pressure-0"))
    before = machine.free()
    drop_caches(machine.memory, 1)
    assert machine.free() - before == 3552 // 4
    machine.check()
