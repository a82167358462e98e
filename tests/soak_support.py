"""How far property tests look: the same examples each time in the suite, many new ones in `make soak`."""

from __future__ import annotations

import os

from hypothesis import settings

SOAK = bool(os.environ.get("CMAFS_SOAK"))
#: How many times as many examples as in the suite: more in a soak, fewer where a few are enough (mutants.py).
FACTOR = 50 if SOAK else float(os.environ.get("CMAFS_EXAMPLES", "1"))


def load_profile() -> None:
    """Before tests are collected. What fails in a soak is kept in .hypothesis/, and tried first next time."""
    settings.register_profile("suite", derandomize=True, deadline=None)
    settings.register_profile("soak", deadline=None, print_blob=True)
    settings.load_profile("soak" if SOAK else "suite")


def examples(number: int) -> settings:
    """A decorator: so many examples in the suite."""
    return settings(max_examples=round(number * FACTOR))


def soak_seconds(share: float) -> float:
    """Seconds of a soak that a test may take: its share of ``make soak HOURS=n``."""
    return float(os.environ.get("CMAFS_HOURS", "1")) * 3600 * share
