"""The allocator's budgets, measured: python tests/bench_cma.py (a script, not a test).

Processor time of small batches. The minimum is held against the budget: what else runs on the machine shows
in the median.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_support import cpu_seconds, figure
from cma_support import build_areas

from cmafs.fs.libfs import u32_array_text
from cmafs.mm.cma import Cma, cma_alloc, cma_release

BATCHES = 100


def half_full(cma: Cma, rng: random.Random) -> list[tuple[int, int]]:
    """Fill an area with buffers of 1 to 100 pages, then give every second one back, at random."""
    held: list[tuple[int, int]] = []
    while True:
        count = rng.randint(1, 100)
        pfn = cma_alloc(cma, count, no_warn=True)
        if pfn is None:
            break
        held.append((pfn, count))
    rng.shuffle(held)
    for pfn, count in held[len(held) // 2 :]:
        cma_release(cma, pfn, count)
    return held[: len(held) // 2]


def pairs(cma: Cma, sizes: list[int]) -> None:
    """Allocate and release, one after the other."""
    for count in sizes:
        pfn = cma_alloc(cma, count, no_warn=True)
        if pfn is not None:
            cma_release(cma, pfn, count)


def many_pairs(cma: Cma, most: int) -> list[float]:
    """Seconds that 100,000 pairs of 1 to ``most`` pages take, estimated from each batch of them."""
    rng = random.Random(most)
    count = 100_000 // BATCHES
    batches = [[rng.randint(1, most) for _ in range(count)] for _ in range(BATCHES)]
    return [BATCHES * cpu_seconds(lambda sizes=sizes: pairs(cma, sizes)) for sizes in batches]


def large() -> Cma:
    """A 64 GiB area of a 1 TiB machine."""
    return build_areas("6.12", [("big", 65536, 65536, 0)], mib=1 << 20)[0]


def bitmap_text(cma: Cma) -> bytes | str:
    """The file ``bitmap`` of an area."""
    return u32_array_text(cma.ranges[0].bitmap.to_u32())


def main() -> int:
    """Print a line a figure; 1 if a budget is missed."""
    cma = build_areas("6.12", [("reserved", 1024, 1024, 0)], mib=4096)[0]
    half_full(cma, random.Random(1))
    holes = sum(1 for _ in cma.ranges[0].bitmap.holes)
    where = f"pages, 1 GiB half full, {holes} holes"
    big: list[Cma] = []
    within = [
        figure(f"100,000 pairs of 1 {where}", many_pairs(cma, 1), "s"),
        figure(f"100,000 pairs of 1..100 {where}", many_pairs(cma, 100), "s", 0.7),
        figure(
            "1 TiB machine with a 64 GiB area",
            [cpu_seconds(lambda: big.append(large()))],
            "s",
            1.0,
        ),
        figure("allocate all of 64 GiB", [cpu_seconds(lambda: cma_alloc(big[0], big[0].count))], "s", 0.3),
        figure("render its bitmap", [cpu_seconds(lambda: bitmap_text(big[0]))], "s", 0.3),
    ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
