"""The ``pressure`` transcripts: memory filled with tmpfs pages, allocations that must migrate, everything
given back.

Modules: cmafs.mm.pcp, cmafs.mm.watermark.
"""

from __future__ import annotations

import json
import lzma
import re
from collections import Counter

import pytest
from boot_support import boot, tree_of
from mm_support import Booted, Recorded, names, recorded
from replay import TRANSCRIPTS

from cmafs.mm.boot_pages import settle
from cmafs.mm.cma import cma_alloc, cma_release
from cmafs.mm.mmzone import MIGRATE_CMA, ZONE_RANKS
from cmafs.mm.vmscan import drop_caches, try_to_free_pages
from cmafs.sim.workload import grow, kill, spawn

STEP = re.compile(r"(\w+) MemFree=(\d+) CmaFree=(\d+) used=(\d+)")
PRESSURE = names("pressure")


def steps(there: Recorded) -> list[tuple[str, int, int]]:
    """(what, MemFree, CmaFree) of each state, in pages."""
    found = [STEP.match(line) for line in there.output]
    return [(m[1], int(m[2]) // 4, int(m[3]) // 4) for m in found if m]


def tolerance(machine: Booted) -> int:
    """Pages that CmaFree may be away from the recorded one: what per-CPU lists and other processes hold."""
    return machine.area.count * 3 // 100


def fill(there: Recorded) -> None:
    """Fills memory until MemFree is what was recorded, step by step, and compares CmaFree at each."""
    machine = there.machine
    spawn(machine.memory, "files", "tmpfs", 0)
    for what, mem_free, cma_free in steps(there):
        if what != "start" and not what.startswith("file"):
            break
        grow(machine.memory, "files", max(0, machine.free() - mem_free))
        assert machine.free() == mem_free, what
        assert abs(machine.cma_free() - cma_free) <= tolerance(machine), what
    machine.check()


def allocations(there: Recorded) -> list[tuple[int, bool, int, int]]:
    """(pages, whether it succeeded, MemFree before, CmaFree after) of each allocation of the script."""
    found: list[tuple[int, bool, int, int]] = []
    mem_free = 0
    for line in there.output:
        state, alloc = STEP.match(line), re.match(r"alloc (\d+) rc=(\d)", line)
        if alloc:
            found.append((int(alloc[1]), alloc[2] == "0", mem_free, -1))
        elif state and state[1] == "after":
            found[-1] = (*found[-1][:3], int(state[3]) // 4)
        if state:
            mem_free = int(state[2]) // 4
    return found


@pytest.mark.parametrize("name", PRESSURE)
def test_cma_free_follows_mem_free(name: str) -> None:
    there = recorded(name)
    machine = there.machine
    assert abs(machine.free() - steps(there)[0][1]) <= 400
    fill(there)


@pytest.mark.parametrize("name", PRESSURE)
@pytest.mark.parametrize("equal", ["mem_free", "files"])
def test_allocations_succeed_and_fail_as_they_did(name: str, equal: str) -> None:
    """With the same free memory each has the recorded result. With the same files, free memory differs by up
    to 1000 pages: what failed there may succeed here only if there is more of it.
    """
    there = recorded(name)
    machine = there.machine
    start = machine.free(), machine.cma_free()
    if equal == "mem_free":
        fill(there)
    else:
        for i in range(sum(what.startswith("file") for what, _, _ in steps(there))):
            spawn(machine.memory, f"f{i}", "tmpfs", 5 * 256)
    taken = []
    for pages, succeeded, mem_free, cma_free in allocations(there):
        more = machine.free() - mem_free
        assert abs(more) <= (1000 if equal == "files" else 500)
        pfn = cma_alloc(machine.area, pages)
        machine.check()
        if pfn is not None:
            taken.append((pfn, pages))
        else:
            assert any(line.endswith(f"req-size: {pages} pages, ret: -12") for line in machine.log.lines())
        if (pfn is not None) != succeeded:
            assert equal == "files" and not succeeded and more > 0
            break
        assert cma_free < 0 or abs(machine.cma_free() - cma_free) <= tolerance(machine)
    for task in [o.name for o in machine.memory.owners.occupants.values() if o.visible]:
        kill(machine.memory, task)
    for pfn, pages in taken:
        cma_release(machine.area, pfn, pages)
    machine.check()
    assert (machine.free(), machine.cma_free()) == start


#: What the out-of-memory killer reports, in pages.
REPORT = re.compile(r" free:(\d+) free_pcp:\d+ free_cma:(\d+)$")


@pytest.mark.parametrize("name", ["4.15/pins-1", "5.4/pins-1"])
def test_cma_is_the_last_to_go_before_5_8(name: str) -> None:
    """Reports of the killer in ``pins``, whose program filled all memory to get a page of CMA."""
    machine = recorded(name).machine
    with lzma.open(TRANSCRIPTS / f"{name}.jsonl.xz", "rt") as lines:
        log = [line for entry in map(json.loads, lines) for line in entry.get("dmesg", ())]
    reports = [(int(m[1]), int(m[2])) for m in map(REPORT.match, log) if m]
    spawn(machine.memory, "hog", "anon", 0)
    for free, free_cma in reports:
        grow(machine.memory, "hog", max(0, machine.free() - free))
        assert abs(machine.cma_free() - free_cma) <= tolerance(machine)
    assert len(reports) >= 2


def test_drop_caches_gives_the_cache_back() -> None:
    machine = recorded("7.2/pressure-0").machine
    before = machine.free()
    drop_caches(machine.memory, 1)
    assert machine.free() - before == 3552 // 4
    machine.check()


def test_the_cache_comes_back_to_where_it_was() -> None:
    """Of a machine at the line of the half rule, whose cache lies in CMA and out of it."""
    memory = boot(tree_of(), "6.12", "cma=496M", memory=1040896 << 10).memory
    assert memory.cache is not None

    def places() -> Counter[bool]:
        return Counter(memory.pageblock_migratetype(pfn) == MIGRATE_CMA for pfn in memory.cache.pfns())

    before = places()
    assert 0 < before[True] != before[False] > 0
    try_to_free_pages(memory, ZONE_RANKS["Normal"], 100)
    assert places().total() == before.total() - 100
    settle(memory)
    assert places() == before
