"""Change the program in one place at a time, and see whether a fast test (layers t0 to t3) dies of it.

    python tests/mutants.py [--seed N] [--count N] [--jobs N] [PATH[:LINE]...]

Takes a sample of all changes that ``CHANGES`` can make to the rooms below (or to PATH), prints each mutant
that no test killed, and exits 1 if fewer than nine of ten died. The seed is printed: with it a sample can be
taken again.

Why a script of our own: mutmut wants to own the test run and puts trampolines into modules; cosmic-ray runs
one command for all mutants, and our fast layers take 40 s. What makes a sample affordable here is small: each
test file says once which functions it runs, and a mutant meets only the files that run its function, the
quickest tests first, up to the first failure.

Everything happens in copies of the tree, one a job. A mutant that does not end in time is dead. Not mutated,
because they have no behaviour: docstrings, annotations, decorators, asserts, ``__slots__``, protocols, names
of codecs, and what ``SPEED`` names. ``t0_layering.py`` and ``t0_documents.py`` judge the text, and are not
asked.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import queue
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
ROOMS = ("mm", "init", "arch", "of", "fs", "lib")
LAYERS = ("t0", "t1", "t2", "t3")
JUDGES_OF_TEXT = ("t0_layering.py", "t0_documents.py")
NEEDED = 0.9

#: Names that only speed depends on, with the reason; a statement that assigns one is no mutant.
SPEED = {
    "_BUCKET": "how many holes a bucket of the index has",
    "_SLICE_WORDS": "from which length on one way of setting words is faster than the other",
}

#: Seconds for quick files before the rest is asked; seconds beyond what tests take until a mutant is hung.
QUICK, PATIENCE = 4.0, 20.0
#: A mutant may not eat the machine.
MAX_BYTES = 4 << 30
PLUGINS = ("-pmutants_plugin", "-pno:cacheprovider", "-pno:xdist")


# changes

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "reversed": "list",
    "bisect_left": "bisect_right", "bisect_right": "bisect_left",
}  # fmt: skip

Change = Callable[[], None]


def change_field(node: ast.AST, name: str, value: object) -> Change:
    """``setattr()``, later."""
    return lambda: setattr(node, name, value)


def changes_of_comparison(node: ast.AST) -> Iterator[Change]:
    """``<`` becomes ``<=``, ``in`` becomes ``not in``."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield change_field(node, "ops", [*node.ops[:i], COMPARISONS[type(op)](), *node.ops[i + 1 :]])


def is_text(node: ast.AST) -> bool:
    """Whether an operand is text: other operators on it fail at once, which teaches nothing."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def changes_of_operator(node: ast.AST) -> Iterator[Change]:
    """``+`` becomes ``-``, ``<<`` becomes ``>>``, ``and`` becomes ``or``, ``not x`` becomes ``x``."""
    operands = [getattr(node, name, node) for name in ("left", "right", "value")]
    if isinstance(node, ast.BinOp | ast.AugAssign) and not any(map(is_text, operands)):
        other = OPERATORS.get(type(node.op))
    elif isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
    else:
        return
    if other:
        yield change_field(node, "op", other())


def changes_of_constant(node: ast.AST) -> Iterator[Change]:
    """A number one higher, text with a character more, the other truth."""
    if not isinstance(node, ast.Constant):
        return
    value = node.value
    if isinstance(value, bool):
        yield change_field(node, "value", not value)
    elif isinstance(value, int):
        yield change_field(node, "value", value + 1)
    elif isinstance(value, str):
        yield change_field(node, "value", value + "~")
    elif isinstance(value, bytes):
        yield change_field(node, "value", value + b"~")


def changes_of_condition(node: ast.AST) -> Iterator[Change]:
    """A condition that is no comparison, negated."""
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        test = node.test
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yield change_field(node, "test", test.operand)
        elif not isinstance(test, ast.Compare | ast.BoolOp | ast.Constant):
            yield change_field(node, "test", ast.UnaryOp(ast.Not(), test))
    if isinstance(node, ast.comprehension):
        for i in range(len(node.ifs)):
            yield change_field(node, "ifs", [*node.ifs[:i], *node.ifs[i + 1 :]])


def changes_of_call(node: ast.AST) -> Iterator[Change]:
    """``min`` becomes ``max``; a slice loses an end."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES:
        if node.func.id not in ("sorted", "reversed") or not node.keywords:
            yield change_field(node.func, "id", NAMES[node.func.id])
        else:
            yield change_field(node, "keywords", [])
    if isinstance(node, ast.Slice):
        yield from (change_field(node, end, None) for end in ("lower", "upper") if getattr(node, end))


def changes_of_statement(body: list[ast.stmt], i: int) -> Iterator[Change]:
    """A statement that is left out; ``continue`` and ``break`` changed for each other."""
    node = body[i]
    done = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    kept = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    if done or kept or isinstance(node, ast.AugAssign | ast.Raise | ast.Delete):
        yield lambda: body.__setitem__(i, ast.copy_location(ast.Pass(), node))
    if isinstance(node, ast.Continue | ast.Break):
        other = ast.Break if isinstance(node, ast.Continue) else ast.Continue
        yield lambda: body.__setitem__(i, ast.copy_location(other(), node))


CHANGES = (
    changes_of_comparison, changes_of_operator, changes_of_constant, changes_of_condition, changes_of_call,
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A change at its place: the statement around it, and the first line of its function (0: none)."""

    change: Change
    statement: ast.stmt
    function: int


#: Fields of nodes that are not mutated (``keywords``: those of a class).
SKIPPED_FIELDS = ("annotation", "returns", "decorator_list", "bases", "keywords", "format_spec")
COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.FunctionDef, ast.ClassDef, ast.Try)


class Places(ast.NodeVisitor):
    """All changes of a module, in an order that is always the same."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[Place] = []
        self._statements: list[ast.stmt] = []
        self._functions = [0]
        self.visit(tree)

    def visit(self, node: ast.AST) -> None:
        """Skip what has no behaviour; note the changes of a node and of what it consists of."""
        if self._without_behaviour(node):
            return
        inside = isinstance(node, ast.stmt)
        if inside:
            self._statements.append(node)
        function = self._first_line(node)
        if function:
            self._functions.append(function)
        for changes in CHANGES if self._statements else ():
            self._add(changes(node))
        for name, value in ast.iter_fields(node):
            if name not in SKIPPED_FIELDS or (name == "keywords" and isinstance(node, ast.Call)):
                self._visit_field(value)
        if function:
            self._functions.pop()
        if inside:
            self._statements.pop()

    def _visit_field(self, value: object) -> None:
        if isinstance(value, ast.AST):
            self.visit(value)
        for i, part in enumerate(value if isinstance(value, list) else ()):
            if isinstance(part, ast.stmt):
                self._statements.append(part)
                self._add(changes_of_statement(value, i))
                self._statements.pop()
            if isinstance(part, ast.AST):
                self.visit(part)

    def _add(self, changes: Iterator[Change]) -> None:
        self.found += [Place(change, self._statements[-1], self._functions[-1]) for change in changes]

    @staticmethod
    def _first_line(node: ast.AST) -> int:
        """As code objects have it: that of the first decorator."""
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            return min([node.lineno, *(found.lineno for found in getattr(node, "decorator_list", ()))])
        return 0

    @staticmethod
    def _without_behaviour(node: ast.AST) -> bool:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return True
        if isinstance(node, ast.ClassDef):
            return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            return isinstance(target, ast.Name) and target.id in ("__slots__", "__all__", *SPEED)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
            return node.test.id == "TYPE_CHECKING"
        if isinstance(node, ast.keyword):
            return node.arg == "strict"  # of zip(): an assertion
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            return name == "TypeVar" or (name in ("encode", "decode") and len(node.args) > 0)
        return isinstance(node, ast.Assert | ast.Import | ast.ImportFrom)


@dataclass(frozen=True)
class Mutant:
    """Change ``index`` of a module."""

    path: str
    index: int
    line: int
    function: int
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before}  ->  {self.after}"


def places(path: str) -> tuple[ast.Module, list[Place]]:
    """A module and its changes."""
    tree = ast.parse((TOP / path).read_text(encoding="utf-8"))
    return tree, Places(tree).found


def head(statement: ast.stmt) -> str:
    """A statement in one line, without the body of a compound one."""
    text = ast.unparse(statement)
    if isinstance(statement, COMPOUND):
        text = next(line for line in text.splitlines() if not line.startswith("@"))
    return " ".join(text.split())


def cut(text: str, around: int, width: int = 90) -> str:
    """The part of a long line around a column."""
    start = max(0, min(around - width // 2, len(text) - width))
    return ("…" if start else "") + text[start : start + width] + ("…" if start + width < len(text) else "")


def difference(before: str, after: str) -> tuple[str, str]:
    """The first line that two texts differ in, of both, cut around the place."""
    lines = zip(before.splitlines(), after.splitlines(), strict=False)
    old, new = next(((a.strip(), b.strip()) for a, b in lines if a != b), ("", ""))
    place = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old))
    return cut(old, place), cut(new, place)


def mutate(path: str, index: int) -> Mutant:
    """Make a mutant."""
    tree, found = places(path)
    place, whole = found[index], ast.unparse(tree)
    line = place.statement.lineno
    place.change()
    text = ast.unparse(ast.fix_missing_locations(tree))
    assert text != whole, (path, index)
    return Mutant(path, index, line, place.function, *difference(whole, text), text)


def everywhere(wanted: list[str]) -> list[tuple[str, int]]:
    """(path, index) of every mutant, or of those at ``PATH`` or ``PATH:LINE``."""
    found = []
    for path in sorted(
        str(p.relative_to(TOP)) for room in ROOMS for p in (TOP / "cmafs" / room).rglob("*.py")
    ):
        asked = [want for want in wanted if path.startswith(want.partition(":")[0])]
        if wanted and not asked:
            continue
        lines = {int(want.partition(":")[2]) for want in asked if ":" in want}
        for index, place in enumerate(places(path)[1]):
            if not lines or place.statement.lineno in lines:
                found.append((path, index))
    return found


# tests


@dataclass
class TestFile:
    """A test file: seconds of its tests, by test what it runs, and what it runs at all."""

    name: str
    seconds: dict[str, float]
    functions: dict[str, set[str]]

    def runs(self, mutant: Mutant) -> bool:
        """Whether anything in this file runs the mutated function, or the module if none holds the mutant."""
        if mutant.function:
            key = f"{mutant.path}:{mutant.function}"
            return any(key in found for found in self.functions.values())
        return any(key.startswith(f"{mutant.path}:") for found in self.functions.values() for key in found)

    def order(self, mutant: Mutant) -> dict[str, float]:
        """Seconds of the tests that run the mutated function themselves."""
        key = f"{mutant.path}:{mutant.function}"
        return {test: self.seconds[test] for test, found in self.functions.items() if test and key in found}

    @property
    def cost(self) -> float:
        """Seconds for all its tests."""
        return sum(self.seconds.values())


class Copy:
    """A copy of the tree in which tests run."""

    def __init__(self, directory: Path) -> None:
        self.top = directory
        ignored = shutil.ignore_patterns(
            ".git", ".venv", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache"
        )
        shutil.copytree(TOP, directory, symlinks=True, ignore=ignored)

    def pytest(self, files: list[str], limit: float, **variables: str) -> tuple[int, str]:
        """Exit status (124: hung) and output of a run of some test files, up to the first failure."""
        paths = f"{self.top}{os.pathsep}{self.top / 'tests'}"
        scratch = self.top.with_suffix(".tmp")
        scratch.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(scratch), **variables}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "CMAFS_EXAMPLES": "0.25"}
        environment.pop("CMAFS_SOAK", None)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "mutants_plugin",
            "-p",
            "no:cacheprovider",
        ]
        command += ["-p", "no:xdist", "--tb=line", "--timeout", "0", *(f"tests/{name}" for name in files)]
        with subprocess.Popen(
            command, cwd=self.top, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True, preexec_fn=limit_memory,
        ) as process:  # fmt: skip
            try:
                output = process.communicate(timeout=limit)[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                return 124, ""
        return process.returncode, output

    def examine(self, name: str) -> TestFile:
        """What a test file runs, and how long its tests take."""
        record = self.top / f"{name}.json"
        status, output = self.pytest([name], 600, MUTANTS_RECORD=str(record))
        if status:
            raise SystemExit(f"mutants: {name} fails without any mutant:\n{output}")
        found = json.loads(record.read_text())
        functions = {test: set(keys) for test, keys in found["functions"].items()}
        return TestFile(name, found["seconds"], functions)

    def kills(self, mutant: Mutant, files: list[TestFile]) -> bool:
        """Whether a test fails, or does not end, with a mutant in place."""
        path, order = self.top / mutant.path, self.top / "order.json"
        original = path.read_text(encoding="utf-8")
        path.write_text(mutant.text, encoding="utf-8")
        try:
            for stage in stages([found for found in files if found.runs(mutant)]):
                first = {test: s for found in stage for test, s in found.order(mutant).items()}
                order.write_text(json.dumps(first))
                limit = PATIENCE + 4 * sum(found.cost for found in stage)
                status, _ = self.pytest([found.name for found in stage], limit, MUTANTS_ORDER=str(order))
                if status:
                    return True
            return False
        finally:
            path.write_text(original, encoding="utf-8")


def limit_memory() -> None:
    """In the child: a mutant that takes more memory than a machine has fails instead."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))


def stages(files: list[TestFile]) -> Iterator[list[TestFile]]:
    """Quick files first, then the rest."""
    quick: list[TestFile] = []
    rest = sorted(files, key=lambda found: found.cost)
    while rest and sum(found.cost for found in quick) + rest[0].cost <= QUICK and len(quick) < 6:
        quick.append(rest.pop(0))
    yield from (stage for stage in (quick, rest) if stage)


def fast_layers() -> list[str]:
    """The test files that are asked."""
    names = [path.name for layer in LAYERS for path in sorted((TOP / "tests").glob(f"{layer}_*.py"))]
    return [name for name in names if name not in JUDGES_OF_TEXT]


class Run:
    """Copies, one a job, and the test files as they are without a mutant."""

    def __init__(self, directory: Path, jobs: int) -> None:
        self.jobs = jobs
        self._free: queue.Queue[Copy] = queue.Queue()
        for job in range(jobs):
            self._free.put(Copy(directory / f"copy{job}"))
        self.files = list(self.each(fast_layers(), lambda copy, name: copy.examine(name)))

    def each(self, things: list, what: Callable) -> Iterator:
        """``what(copy, thing)`` for each thing, jobs at a time, results in order."""

        def one(thing: object) -> object:
            copy = self._free.get()
            try:
                return what(copy, thing)
            finally:
                self._free.put(copy)

        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                yield from pool.map(one, things)
            finally:
                pool.shutdown(cancel_futures=True)

    def survivors(self, mutants: list[Mutant]) -> Iterator[tuple[Mutant, bool]]:
        """(mutant, whether it survived) as they become known."""
        dead = self.each(mutants, lambda copy, mutant: copy.kills(mutant, self.files))
        for mutant, killed in zip(mutants, dead, strict=True):
            yield mutant, not killed


def report(mutants: list[Mutant], survived: list[Mutant], started: float) -> int:
    """Print how many died in each room; the exit status."""
    all_of, alive = (Counter(m.path.split("/")[1] for m in some) for some in (mutants, survived))
    rooms = ", ".join(
        f"{room}/ {all_of[room] - alive[room]} of {all_of[room]}" for room in ROOMS if all_of[room]
    )
    killed, total = len(mutants) - len(survived), len(mutants)
    print(f"mutants: {killed} of {total} died ({rooms}) in {time.monotonic() - started:.0f} s")
    return 0 if killed >= NEEDED * total else 1


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
    started = time.monotonic()
    possible = everywhere(options.where)
    count = min(options.count or len(possible), len(possible))
    mutants = [mutate(*one) for one in random.Random(options.seed).sample(possible, count)]
    print(f"mutants: seed {options.seed}, {count} of {len(possible)}", flush=True)
    survived: list[Mutant] = []
    with tempfile.TemporaryDirectory(prefix="cmafs-mutants-") as directory:
        for mutant, alive in Run(Path(directory), options.jobs).survivors(mutants):
            if alive:
                survived.append(mutant)
                print(f"survived  {mutant}", flush=True)
    return report(mutants, survived, started)


if __name__ == "__main__":
    sys.exit(main())
