"""The allocator's budgets, measured: python tests/bench_cma.py (a script, not a test).

Processor time of small batches. The minimum is held against the budget: what else runs on the machine shows
in the median.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cma_support import build_areas

from cmafs.fs.libfs import u32_array_text
from cmafs.mm.cma import Cma, cma_alloc, cma_release

BATCHES = 100


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds that a call takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def report(what: str, times: list[float], budget: float) -> bool:
    """Print a line; whether the budget, if there is one (not 0), is kept."""
    least, within = min(times), not budget or min(times) <= budget
    limit = f"at most {budget:g}" if budget else ""
    verdict = "" if within else "   MISSED"
    print(f"{what:<66} minimum {least:6.3f} s, median {statistics.median(times):6.3f} s  {limit}{verdict}")
    return within


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
    return [BATCHES * seconds(lambda sizes=sizes: pairs(cma, sizes)) for sizes in batches]


def main() -> int:
    """Print a line a figure; 1 if a budget is missed."""
    cma = build_areas("6.12", [("reserved", 1024, 1024, 0)], mib=4096)[0]
    half_full(cma, random.Random(1))
    holes = sum(1 for _ in cma.ranges[0].bitmap.holes)
    where = f"pages, 1 GiB half full, {holes} holes"
    big: list[Cma] = []
    within = [
        report(f"100,000 pairs of 1 {where}", many_pairs(cma, 1), 0),
        report(f"100,000 pairs of 1..100 {where}", many_pairs(cma, 100), 1.0),
        report(
            "1 TiB machine with a 64 GiB area",
            [seconds(lambda: big.append(build_areas("6.12", [("big", 65536, 65536, 0)], mib=1 << 20)[0]))],
            1.0,
        ),
        report("allocate all of 64 GiB", [seconds(lambda: cma_alloc(big[0], big[0].count))], 0.3),
        report("render its bitmap", [seconds(lambda: u32_array_text(big[0].ranges[0].bitmap.to_u32()))], 0.3),
    ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
