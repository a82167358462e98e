"""Change the program in one place at a time, and see whether a fast test (layers t0 to t3) dies of it.

    python tests/mutants.py [--seed N] [--count N] [--jobs N] [PATH[:LINE]...]

Takes a sample of all changes that mutants_changes.py can make to the rooms below (or to PATH), prints each
mutant that no test killed, and exits 1 if fewer than nine of ten died. The seed is printed: with it a sample
can be taken again.

Why a script of our own: mutmut wants to own the test run and puts trampolines into modules; cosmic-ray runs
one command for all mutants, and our fast layers take a minute. What makes a sample affordable here is small.
It is recorded once which test runs which functions (kept in ``.mutants``, by the content of the tree), and a
mutant meets only the tests that run its function, the quickest first, up to the first failure. The tests are
collected once: each mutant gets a fork of that process, in which the changed function takes the place of the
imported one. Only what importing a module runs (tables, defaults) needs a process of its own.

A mutant that does not end in time is dead. Not asked are tests that judge the text of the program, that
run for a time and not a number of cases, or that leave the interpreter no memory, which a recorder needs.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from types import CodeType

import mutants_plugin
import pytest
from mutants_changes import TOP, Mutant, compiled, everywhere, mutate
from mutants_plugin import Limits, Loaded, Recorder, key_of, wind

ROOMS = ("mm", "init", "arch", "of", "fs", "lib")
LAYERS = ("t0", "t1", "t2", "t3")
NOT_ASKED = ("t0_layering.py", "t3_fuzz.py", "t3_no_memory.py")
#: What tells nothing about tests of other files.
OF_ITSELF = r"tests/(t\d_|mutants|bench/)"
NEEDED = 0.9
KEPT = TOP / ".mutants"

#: Seconds and files of the tests that a mutant of a table meets first.
QUICK, FEW = 2.0, 6
#: Seconds of tests that a mutant meets at most: what many quick ones do not notice, slow ones seldom do.
ENOUGH = 40.0
#: Seconds of a test that is worth asking before all quicker ones.
AT_ONCE = 0.1
#: Seconds to collect all tests.
COLLECTING = 20.0
#: A mutant may not eat the machine.
MAX_BYTES = 4 << 30
OPTIONS = (
    "-x",
    "-s",
    "-o",
    "addopts=--strict-markers",
    "-p",
    "no:terminal",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
)


def fast_layers() -> list[str]:
    """The test files that are asked."""
    names = [path.name for layer in LAYERS for path in sorted((TOP / "tests").glob(f"{layer}_*.py"))]
    return [f"tests/{name}" for name in names if name not in NOT_ASKED]


# processes


class Jobs:
    """Forks of this process, some at a time."""

    def __init__(self, count: int) -> None:
        self._count = count

    def run(self, tasks: Sequence[Callable[[], int]]) -> Iterator[int]:
        """The exit statuses of tasks (negative: the signal that ended it), in their order."""
        running: dict[int, int] = {}
        ended: dict[int, int] = {}
        following = 0
        try:
            for wanted in range(len(tasks)):
                while wanted not in ended:
                    while following < len(tasks) and len(running) < self._count:
                        running[self._start(tasks[following])] = following
                        following += 1
                    pid, status = os.wait()
                    self._clean(pid)
                    ended[running.pop(pid)] = os.waitstatus_to_exitcode(status)
                yield ended.pop(wanted)
        finally:
            for pid in running:
                self._clean(pid)

    def _start(self, task: Callable[[], int]) -> int:
        scratch = Path(tempfile.gettempdir())
        pid = os.fork()
        if pid:
            return pid
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        status = 70
        try:
            tempfile.tempdir = os.environ["TMPDIR"] = str(scratch / str(os.getpid()))
            os.mkdir(tempfile.tempdir)
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in range(3):
                os.dup2(nothing, standard)
            status = task()
        finally:
            os._exit(status)

    @staticmethod
    def _clean(pid: int) -> None:
        """End what a process has left behind."""
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(Path(tempfile.gettempdir()) / str(pid), ignore_errors=True)


class Tests:
    """All tests as collected, run in forks of this process or in processes of their own."""

    def __init__(self, items: list[pytest.Item]) -> None:
        self._items = {item.nodeid: item for item in items}

    def run(self, tests: Sequence[str], until: Callable[[], bool]) -> None:
        """Run some tests, in order, until something holds."""
        items = [self._items[test] for test in tests]
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if until():
                return

    def in_file(self, name: str) -> list[str]:
        """The tests of a file."""
        return [test for test in self._items if test.startswith(f"{name}::")]

    def register(self, plugin: object) -> None:
        """Let a plugin take part in what follows."""
        next(iter(self._items.values())).config.pluginmanager.register(plugin)


# what tests run


class Recording:
    """Which test runs which functions, and how long it takes."""

    def __init__(self, tests: Tests, jobs: Jobs) -> None:
        self.seconds: dict[str, float] = {}
        self.tests_of: dict[str, list[str]] = defaultdict(list)
        KEPT.mkdir(exist_ok=True)
        files = {name: KEPT / f"{key}.json" for name, key in self._keys().items()}
        missing = [name for name, path in files.items() if not path.exists()]
        tasks = [lambda name=name: self._record(tests, name, files[name]) for name in missing]
        for name, status in zip(missing, jobs.run(tasks), strict=True):
            if status:
                raise SystemExit(f"mutants: {name} fails without any mutant")
        for stale in set(KEPT.iterdir()) - set(files.values()):
            stale.unlink()
        for path in files.values():
            self._add(json.loads(path.read_text()))

    @staticmethod
    def _keys() -> dict[str, str]:
        """By test file: what it and all that it may use consist of."""
        common = hashlib.sha256()
        names = fast_layers()
        for top in (TOP / "cmafs", TOP / "tests"):
            for path in sorted(top.rglob("*")):
                name = str(path.relative_to(TOP))
                if path.is_file() and "__pycache__" not in name and not re.match(OF_ITSELF, name):
                    common.update(name.encode() + b"\0" + path.read_bytes())
        return {
            name: hashlib.sha256(common.digest() + name.encode() + (TOP / name).read_bytes()).hexdigest()
            for name in names
        }

    @staticmethod
    def _record(tests: Tests, name: str, path: Path) -> int:
        with Recorder() as recorder:
            tests.register(recorder)
            tests.run(tests.in_file(name), lambda: False)
        if not recorder.failed:
            functions = {test: sorted(found) for test, found in recorder.functions().items() if test}
            path.write_text(json.dumps({"functions": functions, "seconds": recorder.seconds}))
        return len(recorder.failed) > 0

    def _add(self, found: dict) -> None:
        self.seconds |= found["seconds"]
        for test, functions in found["functions"].items():
            for function in functions:
                self.tests_of[function].append(test)


class Names:
    """Where names and modules of the program are used."""

    def __init__(self) -> None:
        self.functions: dict[str, set[str]] = defaultdict(set)
        self._users: dict[str, set[str]] = defaultdict(set)
        for path in sorted((TOP / "cmafs").rglob("*.py")):
            self._look(compiled(str(path.relative_to(TOP))), str(path.relative_to(TOP)))

    def _look(self, code: CodeType, path: str) -> None:
        for name in code.co_names:
            self.functions[name].add(key_of(code))
            self._users[name].add(path)
        for part in code.co_consts:
            if isinstance(part, CodeType):
                self._look(part, path)

    def users(self, module: str) -> set[str]:
        """A module and those that import it, as paths."""
        room, _, last = module.rpartition(".")
        return {
            module.replace(".", "/") + ".py",
            *self._users[module],
            *(self._users[room] & self._users[last]),
        }


class Choice:
    """Which tests a mutant meets, in which order."""

    def __init__(self, recording: Recording) -> None:
        self._recording, self._names = recording, Names()
        self._texts = {name: (TOP / name).read_text(encoding="utf-8") for name in fast_layers()}

    def of_function(self, mutant: Mutant) -> list[str]:
        """The tests that run the function which holds the mutant."""
        return self._order(mutant, {f"{mutant.path}:{mutant.function}"})

    def of_module(self, mutant: Mutant) -> Iterator[list[str]]:
        """For what importing runs: a few tests that run functions which use it, then all that might."""
        used = {key for name in mutant.names for key in self._names.functions[name]}
        near = self._order(mutant, {f"{mutant.path}:{mutant.function}"} if mutant.function else used)
        users = self._names.users(mutant.module)
        far = self._order(mutant, {k for k in self._recording.tests_of if k.rpartition(":")[0] in users})
        few: dict[str, float] = {}
        for test in near or far:
            if sum(few.values()) + self._recording.seconds[test] > QUICK:
                break
            if len({other.partition("::")[0] for other in [*few, test]}) <= FEW:
                few[test] = self._recording.seconds[test]
        yield list(few)
        yield [test for test in dict.fromkeys([*near, *far]) if test not in few]

    def _order(self, mutant: Mutant, functions: set[str]) -> list[str]:
        """Tests that run a function: first quick ones of files that name the module, the quickest first."""
        found = {test for function in functions for test in self._recording.tests_of.get(function, ())}
        room, _, last = mutant.module.rpartition(".")
        near = {
            name
            for name, text in self._texts.items()
            if mutant.module in text or f"from {room} import {last}" in text
        }
        seconds = self._recording.seconds
        first = {test for test in found if test.partition("::")[0] in near and seconds[test] < AT_ONCE}
        ordered = sorted(found, key=lambda test: (test not in first, seconds[test], test))
        sums = accumulate(seconds[test] for test in ordered)
        return [test for test, sum_ in zip(ordered, sums, strict=True) if sum_ <= ENOUGH]


# the run


class Run:
    """Mutants against the tests that were collected."""

    def __init__(self, tests: Tests, loaded: Loaded, jobs: Jobs) -> None:
        self._tests, self._loaded, self._jobs = tests, loaded, jobs
        self._recording = Recording(tests, jobs)
        self._choice = Choice(self._recording)
        gc.collect()
        gc.freeze()

    def survivors(self, mutants: list[Mutant]) -> Iterator[tuple[Mutant, bool]]:
        """(mutant, whether it survived) as they become known."""
        tasks = [lambda mutant=mutant: self._survives(mutant) for mutant in mutants]
        for mutant, status in zip(mutants, self._jobs.run(tasks), strict=True):
            yield mutant, status == 0

    def _survives(self, mutant: Mutant) -> int:
        """In a fork: 0 if no test fails."""
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
        if not self._loaded.put_in_place(mutant):
            return any(self._apart(mutant, tests) for tests in self._choice.of_module(mutant) if tests)
        recorder = Recorder()
        self._tests.register(recorder)
        self._tests.register(Limits(self._recording.seconds))
        self._tests.run(self._choice.of_function(mutant), lambda: bool(recorder.failed))
        return bool(recorder.failed)

    def _apart(self, mutant: Mutant, tests: list[str]) -> int:
        """Status of a process of its own, which imports the mutant."""
        chosen = Path(tempfile.gettempdir()) / "tests.json"
        chosen.write_text(json.dumps({test: self._recording.seconds[test] for test in tests}))
        files = sorted({test.partition("::")[0] for test in tests})
        variables = {"MUTANT": f"{mutant.path}:{mutant.index}", "MUTANTS_TESTS": str(chosen)}
        pid = os.fork()
        if not pid:
            wind(COLLECTING)
            environment = {**os.environ, **variables, "PYTHONPATH": str(TOP / "tests")}
            command = ["-m", "pytest", *OPTIONS, "-p", "mutants_plugin", "--timeout", "0", *files]
            os.execve(sys.executable, [sys.executable, *command], environment)
        return os.waitpid(pid, 0)[1]


def report(mutants: list[Mutant], survived: list[Mutant], started: float) -> int:
    """Print how many died in each room; the exit status."""
    all_of, alive = (Counter(m.path.split("/")[1] for m in some) for some in (mutants, survived))
    rooms = ", ".join(
        f"{room}/ {all_of[room] - alive[room]} of {all_of[room]}" for room in ROOMS if all_of[room]
    )
    killed, total = len(mutants) - len(survived), len(mutants)
    print(f"mutants: {killed} of {total} died ({rooms}) in {time.monotonic() - started:.0f} s")
    return 0 if killed >= NEEDED * total else 1


class Sample:
    """The plugin that runs mutants where pytest would run the tests."""

    def __init__(self, options: argparse.Namespace, imported: Recorder) -> None:
        self._options, self._imported = options, imported
        self.status = 2

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Say what cannot be collected: nobody else does."""
        if report.failed:
            print(report.longrepr, file=sys.stderr)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """All of it."""
        sys.settrace(None)
        if session.testsfailed:
            return True
        started = time.monotonic()
        possible = everywhere(ROOMS, self._options.where)
        count = min(self._options.count or len(possible), len(possible))
        mutants = [mutate(*one) for one in random.Random(self._options.seed).sample(possible, count)]
        print(f"mutants: seed {self._options.seed}, {count} of {len(possible)}", flush=True)
        run = Run(Tests(session.items), Loaded(self._imported.functions()[""]), Jobs(self._options.jobs))
        survived: list[Mutant] = []
        for mutant, alive in run.survivors(mutants):
            if alive:
                survived.append(mutant)
                print(f"survived  {mutant}", flush=True)
        self.status = report(mutants, survived, started)
        return True


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Do the fast tests notice a change of the program?")
    parser.add_argument("where", nargs="*", metavar="PATH[:LINE]", help="only these (default: the rooms)")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1 << 16), help="of the sample"
    )
    parser.add_argument("--count", type=int, default=150, help="mutants in the sample (0: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    os.chdir(TOP)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and leave nothing behind
    os.environ |= {"CMAFS_EXAMPLES": "0.25"}
    os.environ.pop("CMAFS_SOAK", None)
    with tempfile.TemporaryDirectory(prefix="cmafs-mutants-") as directory:
        tempfile.tempdir = os.environ["TMPDIR"] = directory
        with Recorder() as imported:
            sample = Sample(options, imported)
            pytest.main([*OPTIONS, "--timeout", "0", *fast_layers()], plugins=[mutants_plugin, sample])
    return sample.status


if __name__ == "__main__":
    sys.exit(main())
