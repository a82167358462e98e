"""Costs of the memory manager against the budgets of the design: ``python -m tests.bench_mm`` (not a test).

Each figure is the least of a few rounds, taken alternately, in milliseconds unless a unit is given.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_support import figure
from mm_support import Booted, boot, layout

from cmafs.mm.contig_alloc import alloc_contig_range, free_contig_range
from cmafs.sim.validate import validate
from cmafs.sim.workload import kill, pin_pfn, spawn

GIB = 1 << 18
ROUNDS = 5


def machine(gib: int, cma_gib: int, kernel: str = "6.12") -> Booted:
    """A machine with one area in its middle."""
    area = ((gib * GIB // 2, cma_gib * GIB),)
    return boot(layout(gib * GIB, area), area, kernel, boot_pages=True)


def measure(work: Callable[[], Callable[[], object]]) -> list[float]:
    """Milliseconds of each round, ascending; ``work`` prepares one and returns what is measured."""
    times = []
    for _ in range(ROUNDS):
        measured = work()
        start = time.perf_counter()
        measured()
        times.append((time.perf_counter() - start) * 1000)
    return sorted(times)


def fill_4_gib() -> Callable[[], object]:
    there = machine(4, 1)
    room = there.free() - there.memory.zones[0].watermark[0]
    return lambda: spawn(there.memory, "a", "anon", room)


def migrate_100000() -> Callable[[], object]:
    """400 MiB of an area full of movable pages, with room elsewhere."""
    there = machine(4, 1)
    room = there.free() - there.memory.zones[0].watermark[0]
    spawn(there.memory, "filler", "kernel", 3 * GIB - 20000)
    spawn(there.memory, "a", "anon", room - 3 * GIB + 20000 - 1000)
    kill(there.memory, "filler")
    base = there.area.base_pfn
    return lambda: alloc_contig_range(there.memory, base + 77, base + 77 + 102400)


def whole_area(gib: int, cma_gib: int) -> Callable[[], object]:
    there = machine(gib, cma_gib)
    base = there.area.base_pfn
    return lambda: alloc_contig_range(there.memory, base, base + cma_gib * GIB)


def pairs(gib: int) -> Callable[[], object]:
    """1,000 allocations and releases of 64 pages each in an area that was used before."""
    area = ((gib * GIB // 2, 65536),)
    there = boot(layout(gib * GIB, area), area)
    base = there.area.base_pfn
    for pfn in range(base, base + 4000, 8):
        pin_pfn(there.memory, pfn + 8192)

    def work() -> None:
        for i in range(1000):
            alloc_contig_range(there.memory, base + i, base + i + 64)
            free_contig_range(there.memory, base + i, 64)

    return work


def validated() -> Callable[[], object]:
    there = machine(4, 1)
    spawn(there.memory, "a", "anon", 900000)
    return lambda: validate(there.memory, list(there.areas))


def main() -> int:
    """Prints one line a figure; 1 if a budget is missed."""
    figures = {
        "build a 1 TiB machine with a 64 GiB area": (measure(lambda: lambda: machine(1024, 64)), 1000.0),
        "allocate all 64 GiB": (measure(lambda: whole_area(1024, 64)), 300.0),
        "fill 4 GiB with movable pages through spawn": (measure(fill_4_gib), 500.0),
        "migrate 102,400 pages out of an area": (measure(migrate_100000), 300.0),
        "1000 pairs of 64 pages, 1 GiB machine": (small := measure(lambda: pairs(1)), 0.0),
        "1000 pairs of 64 pages, 1 TiB machine": (measure(lambda: pairs(1024)), 2 * small[0]),
        "validate() with 900,000 used pages": (measure(validated), 0.0),
    }
    missed = False
    for what, (times, budget) in figures.items():
        missed |= not figure(what, times, "ms", budget)
    figure("resident at most", [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024], "MB")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
