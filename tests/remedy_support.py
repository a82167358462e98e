"""Do what the remedies of `cmafs check` say: from their words, and not with the code that tried them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from cmafs.check.edits import copy_of
from cmafs.check.examine import boot_report
from cmafs.check.report import ERROR, Problem, Report
from cmafs.init.options import MachineOptions
from cmafs.of.base import DeviceNode, DeviceTree

_LATER, _APART, _GOES = (
    "when the other remedies are done, ",
    ", without the other remedies",
    "goes with the remedy of ",
)


@dataclass(frozen=True)
class Remedy:
    """A remedy's words taken apart; ``alternatives``: of each its steps, and the codes that it leaves."""

    alternatives: tuple[tuple[tuple[str, ...], frozenset[str]], ...]
    later: bool = False
    apart: bool = False


def understood(text: str) -> Remedy:
    """The words of the field `remedy`."""
    if not text or text.startswith(_GOES):
        return Remedy(())
    later, apart = text.startswith(_LATER), text.endswith(_APART)
    found = []
    for alternative in text.removeprefix(_LATER).removesuffix(_APART).split(", or "):
        steps, _, left = alternative.partition(", which leaves ")
        found.append((tuple(steps.split(", then ")), frozenset(left.split(" and ")) - {""}))
    return Remedy(tuple(found), later, apart)


@dataclass(eq=False)
class User:
    """Somebody with a copy of a board, who does what is said."""

    tree: DeviceTree
    options: MachineOptions
    moved: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree = copy_of(self.tree)

    def boot(self) -> Report:
        return boot_report(self.tree, self.options)

    def do(self, problem: Problem, steps: tuple[str, ...]) -> None:
        """The steps of an alternative of a finding's remedy."""
        path = problem.node
        for step in steps:
            at = re.match(r"at (\S+): ", step)
            path = at[1] if at else path
            self._step(self._node(path), problem, step[at.end() if at else 0 :])

    def _node(self, path: str | None) -> DeviceNode | None:
        while path in self.moved:
            path = self.moved[path]
        return self.tree.find_node_by_path(path) if path else None

    def _step(self, node: DeviceNode | None, problem: Problem, step: str) -> None:
        quoted = re.findall(r"`([^`]*)`", step)
        if "the command line" in step:
            self._command_line(step, quoted[0])
        elif match := re.fullmatch(r"build the kernel with CONFIG_(\w+=\d+)", step):
            self.options = replace(self.options, config=(*self.options.config, match[1]))
        elif match := re.fullmatch(r"drop `(.*)` from (/.*)", step):
            for path in match[2].split(" and "):
                self._there(path).props.pop(match[1], None)
        elif match := re.match(r"give (/\S+) ", step):
            if step.endswith("instead of its place"):
                self._there(match[1]).props.pop("reg", None)
            for text in quoted:
                put(self._there(match[1]), text)
        else:
            assert node is not None, step
            self._to_node(node, problem, step, quoted)

    def _there(self, path: str) -> DeviceNode:
        node = self._node(path)
        assert node is not None, path
        return node

    def _to_node(self, node: DeviceNode, problem: Problem, step: str, quoted: list[str]) -> None:
        was = node.path
        if match := re.match(r"move the node to (/[\w-]+)(, which is to be made with )?", step):
            self._move(node, match[1], quoted[:3] if match[2] else [])
            quoted = quoted[3:] if match[2] else quoted
        elif step.startswith("call the node "):
            rename(node, quoted[0])
        elif step.startswith("drop "):
            node.props.pop(quoted[0], None)
        elif step.startswith('add "'):
            node.props["compatible"] += step.split('"')[1].encode() + b"\0"
        elif re.fullmatch(r"write `[\w,-]+`", step):
            for wrong in get_close_matches(quoted[0], node.props.keys() - {quoted[0]}, 1):
                node.props[quoted[0]] = node.props.pop(wrong)
        elif step.startswith("let the kernel find a place: "):
            node.props.pop("reg")
        elif step.startswith("say how much, "):
            node.props.pop("reg", None)
        elif step.endswith("one node more for each other range"):
            self._split(node)
        else:
            assert step.startswith(("write `", "add `", "ask for less: `")), step
        for text in quoted:
            if text.endswith(";"):
                put(node, text)
        if node.path != was:
            self.moved[was] = node.path

    def _command_line(self, step: str, word: str) -> None:
        words = (self.options.cmdline or self.tree.chosen.property_read_string("bootargs") or "").split()
        if step.startswith("drop"):
            words = [one for one in words if one not in word.split()]
        else:
            name = word.partition("=")[0] + "="
            words = [*(one for one in words if not one.startswith(name)), word]
        self.options = replace(self.options, cmdline=" ".join(words))

    def _move(self, node: DeviceNode, path: str, made_with: list[str]) -> None:
        if made_with:
            self.tree.root.append(DeviceNode(path[1:], {}))
        parent = self._there(path)
        for text in made_with:
            put(parent, text)
        assert node.parent is not None
        node.parent.children = {k: child for k, child in node.parent.children.items() if child is not node}
        parent.append(node)

    def _split(self, node: DeviceNode) -> None:
        data, address = node.props["reg"], 4 * self.tree.root.reg_cells()[0]
        width = 4 * sum(self.tree.root.reg_cells())
        assert node.parent is not None
        for at in range(width, len(data), width):
            props = {k: v for k, v in node.props.items() if k not in ("phandle", "linux,cma-default")}
            base = int.from_bytes(data[at : at + address], "big")
            name = f"{node.name.partition('@')[0]}@{base:x}"
            node.parent.append(DeviceNode(name, {**props, "reg": data[at : at + width]}))


def put(node: DeviceNode, text: str) -> None:
    """A property as a source has it: ``name;``, ``name = <numbers>;``, ``name = "string";``."""
    name, _, value = text.rstrip(";").partition(" = ")
    numbers = [int(word, 16) for word in value.strip("<>").split()] if value.startswith("<") else []
    plain = value.strip('"').encode() + b"\0" if value else b""
    node.props[name] = b"".join(number.to_bytes(4, "big") for number in numbers) or plain


def rename(node: DeviceNode, name: str) -> None:
    """Call a node otherwise, at its place."""
    parent = node.parent
    assert parent is not None
    children, parent.children = list(parent.children.values()), {}
    node.name = name
    for child in children:
        parent.append(child)


def helps_alone(tree: DeviceTree, options: MachineOptions, before: Report, problem: Problem) -> bool:
    """Whether each alternative, done alone, ends the finding and brings no error but those that it names."""
    remedy = understood(problem.remedy)
    return all(
        _ends(tree, options, before, problem, steps, left)
        for steps, left in ([] if remedy.later else remedy.alternatives)
    )


def _ends(
    tree: DeviceTree,
    options: MachineOptions,
    before: Report,
    problem: Problem,
    steps: tuple[str, ...],
    left: frozenset[str],
) -> bool:
    user = User(tree, options)
    user.do(problem, steps)
    known = {key(p, user) for p in before.problems}
    after = {key(p): p for p in user.boot().problems}
    brought = {p.code for one, p in after.items() if p.severity == ERROR and one not in known}
    return key(problem, user) not in after and brought == left


def key(problem: Problem, user: User | None = None) -> tuple[str | None, ...]:
    """What a finding is known by, its node where the user moved it."""
    node = user.moved.get(problem.node or "", problem.node) if user else problem.node
    return node, problem.code, problem.prop, problem.severity


def left_by_all(tree: DeviceTree, options: MachineOptions, report: Report) -> list[Problem]:
    """The errors that are left when the first alternative of every remedy is done.

    Errors' before notes', and those that are for when the others are done behind them.
    """
    user = User(tree, options)
    remedies = [(understood(problem.remedy), problem) for problem in report.problems]
    for remedy, problem in sorted(remedies, key=lambda one: (one[0].later, one[1].severity != ERROR)):
        if remedy.alternatives and not remedy.apart:
            user.do(problem, remedy.alternatives[0][0])
    return [problem for problem in user.boot().problems if problem.severity == ERROR]
