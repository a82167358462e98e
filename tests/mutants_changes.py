"""The changes that tests/mutants.py can make to a module: one place at a time.

Not changed, because they have no behaviour: docstrings, annotations and names of types, decorators, asserts,
``__slots__``, protocols, names of codecs, and what ``UNSEEN`` names.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

TOP = Path(__file__).resolve().parent.parent

#: Names whose value nobody can see, with the reason; a statement that assigns one is no mutant.
UNSEEN = {
    "_BUCKET": "how many holes a bucket of the index has: only speed",
    "_SLICE_WORDS": "from which length on one way of setting words is faster than the other: only speed",
    "_DONE": "an answer inside a module, compared with its own name and never printed; so the two beside it",
    "base_file": "names of files in a temporary directory, given to a program that writes no name of them",
    "KIND_PCP": "the kind of an owner that is in no list of tasks, compared with its own name",
}

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
        if isinstance(node, ast.AnnAssign) and getattr(node.annotation, "id", "") == "TypeAlias":
            return True
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            first = target.elts[0] if isinstance(target, ast.Tuple) else target
            return isinstance(first, ast.Name) and first.id in ("__slots__", "__all__", *UNSEEN)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
            return node.test.id == "TYPE_CHECKING"
        if isinstance(node, ast.keyword):
            return node.arg in ("strict", "prefix")  # of zip(): an assertion; of a temporary directory
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            return name == "TypeVar" or (name in ("encode", "decode") and len(node.args) > 0)
        return isinstance(node, ast.Assert | ast.Import | ast.ImportFrom)


@dataclass(frozen=True)
class Mutant:
    """Change ``index`` of a module; ``names``: what its statement assigns."""

    path: str
    index: int
    line: int
    function: int
    names: frozenset[str]
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before}  ->  {self.after}"

    @property
    def module(self) -> str:
        """Its name for ``import``."""
        return self.path.removesuffix(".py").replace("/", ".")


def places(path: str) -> tuple[ast.Module, list[Place]]:
    """A module and its changes."""
    tree = ast.parse((TOP / path).read_text(encoding="utf-8"))
    return tree, Places(tree).found


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
    statement = place.statement
    place.change()
    text = ast.unparse(tree)
    assert text != whole, (path, index)
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    names = frozenset(target.id for target in targets if isinstance(target, ast.Name))
    return Mutant(path, index, statement.lineno, place.function, names, *difference(whole, text))


def compiled(path: str, index: int | None = None) -> CodeType:
    """The code of a module, with a change or without."""
    tree, found = places(path)
    if index is not None:
        found[index].change()
    code = compile(ast.fix_missing_locations(tree), str(TOP / path), "exec", dont_inherit=True)
    assert isinstance(code, CodeType)
    return code


def everywhere(rooms: tuple[str, ...], wanted: list[str]) -> list[tuple[str, int]]:
    """(path, index) of every mutant in some rooms, or of those at ``PATH`` or ``PATH:LINE``."""
    found = []
    paths = [path for room in rooms for path in (TOP / "cmafs" / room).rglob("*.py")]
    for path in sorted(str(path.relative_to(TOP)) for path in paths):
        asked = [want for want in wanted if path.startswith(want.partition(":")[0])]
        if wanted and not asked:
            continue
        lines = {int(want.partition(":")[2]) for want in asked if ":" in want}
        for index, place in enumerate(places(path)[1]):
            if not lines or place.statement.lineno in lines:
                found.append((path, index))
    return found
