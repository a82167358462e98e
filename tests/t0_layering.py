"""The laws of docs/architecture.md, each a test over the package's syntax trees."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cmafs"
#: The rooms from the ground up: a room imports only rooms before it.
FLOORS = (
    "abi",
    "lib",
    "mm",
    "of",
    "drivers",
    "sim",
    "arch",
    "init",
    "trace",
    "check",
    "fs",
    "board",
    "view",
    "replay",
    "learn",
    "api",
    "mount",
    "run",
    "mounted_machine",
    "cli",
    "pytest_plugin",
    "__main__",
)
#: Rooms and modules that may touch files, processes, time of day or FUSE.
EDGE_ROOMS = frozenset(["api", "mount", "run", "cli", "mounted_machine", "pytest_plugin", "__main__"])
EDGE_MODULES = frozenset(["cmafs.of.fdt", "cmafs.of.fdt_compile", "cmafs.board.root"])
#: What the pure part may import of the standard library.
PURE_STDLIB = frozenset(
    [
        "__future__",
        "_blake2",
        "abc",
        "array",
        "base64",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "difflib",
        "enum",
        "errno",
        "functools",
        "gzip",
        "hashlib",
        "heapq",
        "io",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "stat",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "zlib",
        "traceback",
        "collections.abc",
        "urllib.parse",
    ]
)
MAX_FUNCTION = 60
MAX_MODULE = 450
MEDIAN_FUNCTION = 12


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}


def room(name: str) -> str:
    """The room of a module: the folder below cmafs/, or the module itself; "" for the package."""
    return name.split(".")[1] if "." in name else ""


def is_edge(name: str) -> bool:
    return room(name) in EDGE_ROOMS or name in EDGE_MODULES


def imported(name: str, tree: ast.AST) -> Iterator[str]:
    """Every module that a module names in an import, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in SOURCES else node.module


IMPORTS = {name: set(imported(name, tree)) for name, tree in TREES.items()}


def test_a_room_imports_only_rooms_below_it() -> None:
    floor = {name: number for number, name in enumerate(FLOORS)}
    assert {room(name) for name in SOURCES} - {""} == set(FLOORS)
    facade = {"cmafs"}  # cmafs/__init__.py hands out cmafs.api.Machine on first use
    wrong = [
        f"{name} imports {module}"
        for name, modules in IMPORTS.items()
        for module in modules & SOURCES.keys() - facade
        if name not in facade and floor[room(module)] > floor[room(name)]
    ]
    assert wrong == []


def test_the_floors_are_those_of_the_document() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/?` \|", text.partition("## Floors")[2].partition("## Modules")[0], re.M)
    assert rows == [name for name in FLOORS if name != "__main__"]


def test_a_folder_says_what_a_prefix_would() -> None:
    kernels_own = {"cmafs.mm.mm_init"}  # Linux has mm/mm_init.c
    prefixed = {name for name in SOURCES if name.split(".")[-1].startswith(f"{name.split('.')[-2:][0]}_")}
    assert prefixed == kernels_own


def test_only_edges_touch_the_outside() -> None:
    outside = sys.stdlib_module_names - PURE_STDLIB
    wrong = {
        name: bad
        for name, modules in IMPORTS.items()
        if not is_edge(name)
        and (bad := {m for m in modules if m.split(".")[0] in outside and m not in PURE_STDLIB})
    }
    assert wrong == {}
    opens = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if not is_edge(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("open", "print", "input")
    ]
    assert opens == []


@pytest.mark.parametrize(("library", "where"), [("fuse", "cmafs.mount.fuse_ops"), ("pyfdt", "cmafs.of.fdt")])
def test_bindings_are_imported_in_one_place(library: str, where: str) -> None:
    importers = [n for n, modules in IMPORTS.items() if any(m.split(".")[0] == library for m in modules)]
    assert importers == [where]


def test_no_import_cycle() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for module in sorted(IMPORTS[name] & SOURCES.keys() - {name}):
            visit(module, (*trail, name))
        done.add(name)

    for name in SOURCES:
        visit(name, ())


def module_level(tree: ast.Module) -> Iterator[tuple[str, ast.expr, int]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value, node.lineno
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value, node.lineno


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTATORS = {
    "append",
    "extend",
    "add",
    "update",
    "pop",
    "popitem",
    "clear",
    "remove",
    "insert",
    "setdefault",
    "discard",
}


def test_no_module_level_mutable_state() -> None:
    wrong = []
    for name, tree in TREES.items():
        constants = set()
        for target, value, line in module_level(tree):
            if isinstance(value, MUTABLE):
                constants.add(target)
                if target.strip("_") != target.strip("_").upper() and not target.startswith("__"):
                    wrong.append(f"{name}:{line} {target} is a container and not named as a constant")
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                wrong.append(f"{name}:{node.lineno} global")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in MUTATORS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in constants
            ):
                wrong.append(f"{name}:{node.lineno} changes {node.func.value.id}")
    assert wrong == []


def compares_by_value(decorator: ast.expr) -> bool:
    """Whether a class so decorated is a dataclass that can change and still equals its likes."""
    call = decorator if isinstance(decorator, ast.Call) else None
    name = call.func if call else decorator
    given = {word.arg: ast.unparse(word.value) for word in call.keywords} if call else {}
    is_one = isinstance(name, ast.Name) and name.id == "dataclass"
    return is_one and given.get("frozen") != "True" and given.get("eq") != "False"


def test_what_can_change_is_itself_alone() -> None:
    """list.remove() and a key of a dict mean that object, and no other that looks the same now."""
    wrong = [
        f"{name}: {node.name}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(map(compares_by_value, node.decorator_list))
    ]
    assert wrong == []


def reads_a_number(call: ast.Call) -> bool:
    """Whether a call is int() of a text: with a base, or of what a regular expression found."""
    if not isinstance(call.func, ast.Name) or call.func.id != "int":
        return False
    return len(call.args) > 1 or any(
        isinstance(arg, ast.Subscript)
        and isinstance(arg.value, ast.Name)
        and (arg.value.id == "m" or "match" in arg.value.id)
        for arg in call.args
    )


def test_numbers_are_read_in_one_place() -> None:
    kernels = {name: tree for name, tree in TREES.items() if not is_edge(name) and room(name) != "abi"}
    readers = {
        name
        for name, tree in kernels.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and reads_a_number(node)
    }
    # --seed is no number of the kernel's
    assert readers <= {"cmafs.lib.kstrtox", "cmafs.init.options"}


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the constant nodes that are docstrings."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found.add(id(first.value))
    return found


def test_a_path_is_written_once() -> None:
    seen: Counter[str] = Counter()
    for tree in TREES.values():
        skip = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skip:
                text = node.value
                if re.match(r"/?(sys|proc|dev)/[^ ]+\Z", text):
                    seen[text.strip("/")] += 1
    assert {path: n for path, n in seen.items() if n > 1} == {}


def test_versions_are_compared_only_in_abi() -> None:
    names = {"kernel", "release", "row"}
    wrong = []
    for name, tree in TREES.items():
        if name.startswith("cmafs.abi"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                named = {s.attr for s in sides if isinstance(s, ast.Attribute)} | {
                    s.id for s in sides if isinstance(s, ast.Name)
                }
                other = [s for s in sides if isinstance(s, ast.Constant | ast.Tuple | ast.List | ast.Set)]
                if named & names and other:
                    wrong.append(f"{name}:{node.lineno}")
    assert wrong == []


def functions() -> Iterator[tuple[str, int]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                yield f"{name}:{node.name}", node.end_lineno - node.lineno + 1


def test_functions_are_short() -> None:
    lengths = dict(functions())
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION} == {}
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION


def test_modules_are_short() -> None:
    assert {name: n for name, text in SOURCES.items() if (n := text.count("\n")) >= MAX_MODULE} == {}


def test_public_functions_of_the_core_are_documented() -> None:
    missing = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and not is_nested(tree, node)
    ]
    assert missing == []


def is_nested(tree: ast.Module, wanted: ast.AST) -> bool:
    """Whether a definition stands inside a function, where it is nobody's interface."""
    return any(
        wanted in ast.walk(node) and wanted is not node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    )


def test_no_module_is_named_for_leftovers() -> None:
    assert not {name.rsplit(".", 1)[-1] for name in SOURCES} & {"utils", "util", "common", "helpers", "misc"}


#: What a run, which is one shell command after another, must not import: it does not use them.
NOT_IN_A_RUN = (
    *("difflib", "gzip", "tarfile", "unittest", "asyncio"),
    *("cmafs.drivers.cma2010", "cmafs.fs.cma2010", "cmafs.check", "cmafs.of.source_map"),
    *("cmafs.mount.export", "cmafs.cli.check", "cmafs.cli.ctl", "cmafs.cli.describe"),
    *("cmafs.mounted_machine", "cmafs.replay"),
)
#: Modules of cmafs in a run of the bundled board.
MOST_OF_A_RUN = 179


def test_a_run_imports_only_what_it_uses() -> None:
    """All that is imported until the command runs: every module costs each run a part of a ms."""
    command = [sys.executable, "-X", "importtime", "-m", "cmafs", "run", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line]
    assert "cmafs.run.job" in names
    wrong = [name for name in names if f"{name}.".startswith(tuple(f"{bad}." for bad in NOT_IN_A_RUN))]
    assert wrong == []
    assert sum(name.startswith("cmafs") for name in names) <= MOST_OF_A_RUN
