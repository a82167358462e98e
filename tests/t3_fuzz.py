"""Any bytes, to every parser and every writable file: an errno or one line, at once, and nothing broken."""

from __future__ import annotations

import random

import pytest
from fuzz import targets
from fuzz_support import ANYWHERE, Target, fuzz, mutated
from soak_support import SOAK, new_seed

TARGETS = targets()


@pytest.mark.soak(3, seconds=3)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_fuzz(target: Target, seconds: float, record_property: pytest.RecordProperty) -> None:
    done = fuzz(target, seconds, new_seed(1), keep=SOAK)
    assert done.cases >= len(target.corpus())
    record_property("cases", done.cases)
    print(f"{target.name}: {done.cases} cases in {done.seconds:.1f} s")


def test_the_same_seed_gives_the_same_cases() -> None:
    one, two = (random.Random(7) for _ in range(2))
    known = [b"spawn a anon 1M", b"kill a"]
    assert [mutated(one, known, ANYWHERE) for _ in range(500)] == [
        mutated(two, known, ANYWHERE) for _ in range(500)
    ]
