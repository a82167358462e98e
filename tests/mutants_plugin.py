"""What tests/mutants.py asks of pytest: which test runs which function, and the tests in the best order.

Loaded with ``-p mutants_plugin``. ``MUTANTS_RECORD`` names a file for what was seen; ``MUTANTS_ORDER`` one
with seconds by test: those tests run first, the quickest before all others.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import Phase, settings

PACKAGE = str(Path(__file__).resolve().parent.parent / "cmafs") + os.sep
RECORD, ORDER = os.environ.get("MUTANTS_RECORD"), os.environ.get("MUTANTS_ORDER")

#: Functions that each test ran, as ``path:first line``; those of collecting and of fixtures under "".
functions: dict[str, set[str]] = defaultdict(set)
seconds: dict[str, float] = defaultdict(float)
_running = [""]


def _called(frame: FrameType, event: str, argument: object) -> None:
    code = frame.f_code
    if code.co_filename.startswith(PACKAGE):
        path = code.co_filename[len(PACKAGE) :]
        functions[_running[0]].add(f"cmafs/{path}:{code.co_firstlineno}")


if RECORD:
    sys.settrace(_called)


def pytest_sessionstart() -> None:
    """A failure is enough: nobody reads the smallest example of a mutant."""
    settings.register_profile(
        "mutants", derandomize=True, deadline=None, database=None, phases=(Phase.explicit, Phase.generate)
    )
    settings.load_profile("mutants")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note what a test itself runs."""
    _running[0] = item.nodeid
    yield
    _running[0] = ""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how long a test takes, with its fixtures."""
    seconds[report.nodeid] += report.duration


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that run the mutant first, the quickest of them before the others."""
    if ORDER:
        order = json.loads(Path(ORDER).read_text())
        items.sort(key=lambda item: order.get(item.nodeid, 1e9))


def pytest_sessionfinish() -> None:
    """Write what was seen."""
    sys.settrace(None)
    if RECORD:
        seen = {name: sorted(found) for name, found in functions.items()}
        Path(RECORD).write_text(json.dumps({"functions": seen, "seconds": seconds}))
