"""What the benches share: a figure is printed as a line, and kept as a record where `make bench` wants it."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: The file that records are added to, a JSON object a line; unset where a bench is run by hand.
RECORDS = "CMAFS_BENCH_RECORDS"


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor seconds that a call takes in this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def figure(what: str, times: Sequence[float], unit: str, budget: float = 0, against: str = "") -> bool:
    """Print the least of some measurements; whether it is within the budget, 0 for none."""
    return ratio(what, min(times), statistics.median(times), unit, budget, against)


def ratio(what: str, least: float, median: float, unit: str, budget: float, against: str) -> bool:
    """The same where two things were measured in turn: the quotient of their minima, and of their medians.

    ``against``: what the figure is a multiple of, or what else it depends on.
    """
    within = not budget or least <= budget
    limit = f"at most {budget:g}" if budget else ""
    print(f"{what:<58} {least:9.3f} {unit:<5} {limit:<13} {'' if within else 'MISSED'}", flush=True)
    if path := os.environ.get(RECORDS):
        record = {"what": what, "budget": budget, "least": least, "median": median, "unit": unit}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, "against": against}) + "\n")
    return within
