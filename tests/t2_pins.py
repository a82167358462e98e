"""The ``pins`` transcripts: pages in the area held by an extra reference, allocations that must go around
them.
"""

from __future__ import annotations

import re

import pytest
from mm_support import Recorded, names, recorded

from cmafs.lib.printk import DPRINTK_FLAGS_PRINT
from cmafs.mm.cma import Cma, cma_alloc, cma_release
from cmafs.sim.workload import pin_pfn

PINS = names("pins")


def words(area: Cma) -> str:
    """The area's bitmap as debugfs shows it."""
    return " ".join(map(str, area.ranges[0].bitmap.to_u32()))


class Debugfs:
    """What ``alloc`` and ``free`` of debugfs do, on the allocator: the newest chunk is freed first, split
    from its front.
    """

    def __init__(self, area: Cma) -> None:
        self.area = area
        self.chunks: list[tuple[int, int]] = []

    def alloc(self, pages: int) -> bool:
        pfn = cma_alloc(self.area, pages)
        if pfn is not None:
            self.chunks.append((pfn, pages))
        return pfn is not None

    def free(self, pages: int) -> bool:
        while pages and self.chunks:
            pfn, size = self.chunks.pop()
            part = min(size, pages)
            cma_release(self.area, pfn, part)
            if part < size:
                self.chunks.append((pfn + part, size - part))
            pages -= part
        return True


def replay(there: Recorded) -> list[str]:
    """The script of the transcript, run here: its output up to the counters."""
    machine = there.machine
    debugfs = Debugfs(machine.area)
    out = []
    for line in there.output:
        pinned = re.match(r"pinned offset (\d+)", line)
        command = re.match(r"(alloc|free) (\d+)$", line)
        if pinned:
            pin_pfn(machine.memory, machine.area.base_pfn + int(pinned[1]))
        if pinned or line == "Killed":  # an attempt to pin that filled all memory (tests/replay_scripts.py)
            out.append(line)
        elif command:
            ok = getattr(debugfs, command[1])(int(command[2]))
            out += [line, "rc=0"] if ok else [line, "sh: write error: Cannot allocate memory", "rc=1"]
            out.append(f"used {machine.area.used()} maxchunk {machine.area.maxchunk()}")
            out.append(f"bitmap {words(machine.area)}")
            machine.check()
    return out


@pytest.mark.parametrize("name", PINS)
def test_results_bitmaps_and_counters(name: str) -> None:
    there = recorded(name)
    machine = there.machine
    out = replay(there)
    assert out == there.output[: len(out)]
    events, area = machine.memory.vmstat.events, machine.area
    ours = {
        "cma_alloc_success": events.get("cma_alloc_success", 0),
        "cma_alloc_fail": events.get("cma_alloc_fail", 0),
        "alloc_pages_fail": area.nr_pages_failed,
        "alloc_pages_success": area.nr_pages_succeeded,
        "release_pages_success": area.nr_pages_released,
        "available_pages": area.available_count,
        "total_pages": area.count,
    }
    shown = dict(line.split() for line in there.output[len(out) :] if re.match(r"[a-z_]+ \d+$", line))
    assert {key: int(value) for key, value in shown.items()} == {key: ours[key] for key in shown}


def normal(line: str) -> str:
    """A log line without its hashed pointers."""
    return re.sub(r"\(____ptrval____\)|\b[0-9a-f]{16}\b", "PTR", line)


@pytest.mark.parametrize("name", PINS)
def test_log_ends_as_recorded(name: str) -> None:
    there = recorded(name)
    machine = there.machine
    for site in machine.log.debug_flags:
        machine.log.debug_flags[site] = DPRINTK_FLAGS_PRINT
    replay(there)
    ours = [normal(line) for line in machine.log.lines() if "cma" in line.lower()]
    theirs = [normal(line) for line in there.dmesg if line.startswith("cma: ") and "cannot" not in line]
    count = min(len(ours), len(theirs))
    assert count > 50
    assert ours[-count:] == theirs[-count:]
