"""The allocator's budgets, measured: python -m tests.bench_cma (a script, not a test)."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cma_support import build_areas

from cmafs.fs.libfs import u32_array_text
from cmafs.mm.cma import Cma, cma_alloc, cma_release


def seconds(work: object) -> float:
    """Processor seconds that a call takes: other work on the machine does not count."""
    assert callable(work)
    start = time.process_time()
    work()
    return time.process_time() - start


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


def main() -> None:
    """Print every figure."""
    rng = random.Random(1)
    cma = build_areas("6.12", [("reserved", 1024, 1024, 0)], mib=4096)[0]
    half_full(cma, rng)
    holes = sum(1 for _ in cma.ranges[0].bitmap.holes)
    for most in (1, 100):
        sizes = [rng.randint(1, most) for _ in range(100_000)]
        took = seconds(lambda sizes=sizes: pairs(cma, sizes))
        print(f"100,000 pairs of 1..{most} pages, 1 GiB half full, {holes} holes: {took:.2f} s")
    big: list[Cma] = []
    took = seconds(lambda: big.append(build_areas("6.12", [("big", 65536, 65536, 0)], mib=1 << 20)[0]))
    print(f"1 TiB machine with a 64 GiB area: {took:.3f} s")
    took = seconds(lambda: cma_alloc(big[0], big[0].count))
    print(f"allocate all of 64 GiB: {took:.4f} s")
    took = seconds(lambda: u32_array_text(big[0].ranges[0].bitmap.to_u32()))
    print(f"render its bitmap: {took:.3f} s")


if __name__ == "__main__":
    main()
