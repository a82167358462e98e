"""How far tests look: the same examples each time in the suite, new ones for so long in `make soak HOURS=n`.

A soak is made of Hypothesis's tests and of those marked ``soak(weight)``. All the time there is, on all
workers, is shared out by weight, and a test is run again and again, with new seeds, until its share is over.
So it takes as long as it is told, whatever is chosen and however fast the machine is.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import settings

#: What ``make soak`` was told; 0 in the suite.
HOURS = float(os.environ.get("CMAFS_SOAK") or 0)
SOAK = HOURS > 0
#: How much of the time is shared out: the rest goes by until the last test has come to its end.
SHARED = 0.88
#: How many examples at a time, of the suite's: fewer where a few are enough (mutants.py), or where a test is
#: repeated.
FACTOR = 0.1 if SOAK else float(os.environ.get("CMAFS_EXAMPLES", "1"))


def load_profile() -> None:
    """Before tests are collected. What fails in a soak is kept in .hypothesis/, and tried first next time."""
    settings.register_profile("suite", derandomize=True, deadline=None)
    settings.register_profile("soak", deadline=None, print_blob=True)
    settings.load_profile("soak" if SOAK else "suite")


def examples(number: int) -> settings:
    """A decorator: so many examples at a time."""
    return settings(max_examples=max(round(number * FACTOR), 1))


def new_seed(suite: int) -> int:
    """``suite`` in the suite, and in a soak another one each time."""
    return random.SystemRandom().randrange(1 << 32) if SOAK else suite


def seconds_of(item: pytest.Item) -> float:
    """How long a test may go on: its share of a soak, or what its mark says for the suite."""
    mark = item.get_closest_marker("soak")
    assert mark
    return item.stash[_SECONDS] if SOAK else float(mark.kwargs["seconds"])


_SECONDS = pytest.StashKey[float]()


def share_out(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests of a soak, the longest first, each made to take its share of the time."""
    weights = {item: weight for item in items if (weight := _weight(item))}
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    each = HOURS * 3600 * SHARED * workers / max(sum(weights.values()), 1)
    for item, weight in weights.items():
        item.stash[_SECONDS] = each * weight
        item.own_markers = [mark for mark in item.own_markers if mark.name != "timeout"]
        item.add_marker(pytest.mark.timeout(2 * each * weight + 300))
        item.runtest = _repeated(item.runtest, each * weight)  # type: ignore[method-assign]
    return sorted(weights, key=lambda item: -weights[item])


def _weight(item: pytest.Item) -> float:
    mark = item.get_closest_marker("soak")
    return mark.args[0] if mark else float(item.get_closest_marker("hypothesis") is not None)


def _repeated(once: Callable[[], None], seconds: float) -> Callable[[], None]:
    def runtest() -> None:
        now = time.monotonic()
        end, took = now + seconds, 0.0
        while not took or now + took < end:
            once()
            took, now = time.monotonic() - now, time.monotonic()

    return runtest
