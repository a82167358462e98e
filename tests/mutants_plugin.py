"""The pytest side of tests/mutants.py: which test runs which function, mutants put in place, tests that hang.

Loaded with ``-p mutants_plugin``. In a run of its own a mutant is named by ``MUTANT`` (``path:index``), and
``MUTANTS_TESTS`` names a file with the tests to run, in order, with the seconds that each takes.
"""

from __future__ import annotations

import functools
import gc
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType

import pytest
from mutants_changes import TOP, Mutant, compiled

PACKAGE = str(TOP / "cmafs") + os.sep
CO_OPTIMIZED = 1
CACHE = type(functools.cache(len))
#: Seconds of the clock, and of the processor, until a test with a mutant is hung: so many, and times as many
#: as the test takes.
CLOCK, PROCESSOR = (20.0, 20), (3.0, 6)


def key_of(code: CodeType) -> str:
    """``path:first line`` of a function."""
    return f"{code.co_filename.removeprefix(str(TOP) + os.sep)}:{code.co_firstlineno}"


# what tests run


class Recorder:
    """What tests run and how long they take; what runs outside of tests is kept under ""."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._codes: dict[str, dict[int, CodeType]] = defaultdict(dict)
        self._now = self._codes[""]
        self._of_fixture: dict[str, dict[int, CodeType]] = {}
        self._caches = [
            found
            for found in gc.get_objects()
            if isinstance(found, CACHE) and found.__module__.startswith("cmafs")
        ]

    def __enter__(self) -> Recorder:
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        self._now[id(code)] = code

    def functions(self) -> dict[str, set[str]]:
        """By test, functions of the program."""
        return {
            test: {key_of(code) for code in codes.values() if code.co_filename.startswith(PACKAGE)}
            for test, codes in self._codes.items()
        }

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        """What makes a fixture counts for each test that uses it."""
        before, self._now = self._now, self._of_fixture.setdefault(fixturedef.argname, {})
        yield
        self._now = before

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Note what a test itself runs; nothing that an earlier one has left in a cache hides from it."""
        for cached in self._caches:
            cached.cache_clear()
        self._now = self._codes[item.nodeid]
        for name in getattr(item, "fixturenames", ()):
            self._now |= self._of_fixture.get(name, {})
        yield
        self._now = self._codes[""]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note the processor's time that a test takes, with its fixtures."""
        before = time.process_time()
        yield
        self.seconds[item.nodeid] = time.process_time() - before

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note whether a test fails."""
        if report.failed:
            self.failed.append(report.nodeid)


def pytest_sessionstart() -> None:
    """A failure is enough: nobody reads the smallest example of a mutant."""
    from hypothesis import Phase, settings  # pytest wants to be there before its plugin is

    settings.register_profile(
        "mutants", derandomize=True, deadline=None, database=None, phases=(Phase.explicit, Phase.generate)
    )
    settings.load_profile("mutants")


# mutants


def functions_in(code: CodeType) -> Iterator[CodeType]:
    """The outermost functions of a module, those of classes among them."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            if part.co_flags & CO_OPTIMIZED:
                yield part
            else:
                yield from functions_in(part)


def outside_of_functions(code: CodeType) -> list[CodeType]:
    """What importing a module runs: the code of the module and of its classes, without their functions."""
    parts = [part for part in code.co_consts if isinstance(part, CodeType)]
    classes = [part for part in parts if not part.co_flags & CO_OPTIMIZED]
    constants = tuple(part for part in code.co_consts if part not in parts)
    return [
        code.replace(co_consts=constants),
        *(own for part in classes for own in outside_of_functions(part)),
    ]


class Loaded:
    """The functions of the program that have been imported."""

    def __init__(self, run_by_importing: set[str]) -> None:
        self._run_by_importing = run_by_importing
        self._functions: dict[CodeType, list[FunctionType]] = defaultdict(list)
        for function in gc.get_objects():
            if isinstance(function, FunctionType) and function.__code__.co_filename.startswith(PACKAGE):
                self._functions[function.__code__].append(function)

    def put_in_place(self, mutant: Mutant) -> bool:
        """Give imported functions the code of a mutant; False: it has to be there while importing."""
        old, new = compiled(mutant.path), compiled(mutant.path, mutant.index)
        if outside_of_functions(old) != outside_of_functions(new):
            return False
        pairs = zip(functions_in(old), functions_in(new), strict=True)
        changed = [(before, after) for before, after in pairs if before != after]
        if any(key_of(before) in self._run_by_importing for before, _ in changed):
            return False
        found = [(self._functions.get(before, []), after) for before, after in changed]
        for functions, after in found:
            for function in functions:
                function.__code__ = after
        return bool(found) and all(functions for functions, _ in found)


class MutantFinder(importlib.abc.MetaPathFinder):
    """Imports one module with a change."""

    def __init__(self, path: str, index: int) -> None:
        self._path, self._index = path, index

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A loader for this one module."""
        if name != self._path.removesuffix(".py").replace("/", "."):
            return None
        file = str(TOP / self._path)
        loader = SourceFileLoader(name, file)
        loader.get_code = lambda fullname: compiled(self._path, self._index)  # type: ignore[method-assign]
        return importlib.util.spec_from_file_location(name, file, loader=loader)


class Limits:
    """Ends the process at a test that does not end."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Wind the clocks up: nobody handles their signals."""
        wind(self._seconds.get(item.nodeid, 1.0))
        yield


def wind(seconds: float) -> None:
    """Give what follows so many seconds, and some patience."""
    for which, (some, times) in ((signal.ITIMER_REAL, CLOCK), (signal.ITIMER_PROF, PROCESSOR)):
        signal.setitimer(which, some + times * seconds)


class Chosen:
    """Only some tests, in an order."""

    def __init__(self, tests: list[str]) -> None:
        self._places = {test: place for place, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the others out."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._places),
            key=lambda item: self._places[item.nodeid],
        )


def pytest_configure(config: pytest.Config) -> None:
    """In a run of its own: the tests, and how long they may take."""
    if "MUTANTS_TESTS" in os.environ:
        seconds = json.loads(Path(os.environ["MUTANTS_TESTS"]).read_text())
        config.pluginmanager.register(Limits(seconds))
        config.pluginmanager.register(Chosen(list(seconds)))


if "MUTANT" in os.environ:
    _path, _, _index = os.environ["MUTANT"].rpartition(":")
    sys.meta_path.insert(0, MutantFinder(_path, int(_index)))
