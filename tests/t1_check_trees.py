"""`cmafs check` on boards with faults: every finding has a place, and its remedy helps when it is done.

The remedy is done here as a user would, from its words, and not by the code that tried it.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import dts_support as dts
import pytest
from soak_support import SOAK

from cmafs.abi import RELEASES
from cmafs.check.edits import copy_of
from cmafs.check.examine import boot_report, report_on
from cmafs.check.report import ERROR, Problem, Report, located
from cmafs.init.options import MachineOptions
from cmafs.of import fdt
from cmafs.of.base import DeviceTree

#: In the suite the first trees, each on two kernels; in a soak 300 others on all of them.
FIRST, TREES = (random.randrange(1 << 32), 300) if SOAK else (0, 60)
GROUPS = 10


def kernels_for(seed: int) -> list[str]:
    rows = list(RELEASES)
    return rows if SOAK else [rows[seed % len(rows)], rows[(seed * 7 + 3) % len(rows)]]


@pytest.mark.parametrize("group", range(GROUPS))
def test_findings_have_places_and_remedies_help(tmp_path: Path, group: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(FIRST + group, FIRST + TREES, GROUPS):
        path = dts.write(tmp_path, f"{seed}.dts", dts.faulty_board(seed))
        tree = fdt.load(path)
        sources = fdt.source_map(tree)
        for kernel in kernels_for(seed):
            options = MachineOptions(dts=path, kernel=kernel)
            report = located(report_on(tree, options), sources, True)
            for problem in report.problems:
                check_place(problem, path)
                seen[problem.code] += 1
                for remedy in filter(None, problem.remedy.split(", or ")):
                    assert helps(tree, options, report, problem, remedy), (seed, kernel, problem)
    assert len(seen) > 3


def check_place(problem: Problem, path: str) -> None:
    """The line of the source is about the finding."""
    assert problem.place is not None
    assert problem.place.file == path
    line = Path(path).read_text().splitlines()[problem.place.line - 1][problem.place.column - 1 :]
    name = (problem.node or "/").rpartition("/")[2]
    if problem.prop.endswith("="):
        assert line.startswith("bootargs")
    else:
        assert line.startswith((problem.prop or name, name or "/")), problem


def helps(tree: DeviceTree, options: MachineOptions, before: Report, problem: Problem, remedy: str) -> bool:
    """Do it as its words say, where they are of a kind that this knows; whether the finding is gone then."""
    mended = copy_of(tree)
    node = mended.find_node_by_path(problem.node) if problem.node else None
    quoted = re.findall(r"`([^`]*)`", remedy)
    remedy, leaves, said = remedy.partition(", which leaves ")
    if "from the command line" in remedy or "on the command line" in remedy:
        return command_line_helps(tree, options, problem, remedy, quoted[0])
    if node is None or remedy.startswith(("move", "call", "give /", "build")):
        return True
    if remedy.startswith("drop"):
        node.props.pop(quoted[0])
    elif remedy.startswith('add "shared'):
        node.props["compatible"] += b"shared-dma-pool\0"
    elif re.match(r"write `[\w,-]+`$", remedy):
        node.props[quoted[0]] = node.props.pop(problem.prop)
    elif remedy.startswith(("write", "add", "ask", "let", "say")) and quoted[0].endswith(";"):
        name, _, value = quoted[0].rstrip(";").partition(" = ")
        numbers = [int(word, 16) for word in value.strip("<>").split()] if value.startswith("<") else []
        node.props[name] = b"".join(number.to_bytes(4, "big") for number in numbers) or string(value)
        if remedy.startswith(("let", "say")):
            node.props.pop("reg", None)
    else:
        return False
    after = boot_report(mended, options)
    same = [p for p in after.problems if p.node == problem.node]
    known = {p.code for p in before.problems if p.node == problem.node}
    left = {p.code for p in same if p.severity == ERROR} - known
    return problem.code not in {p.code for p in same} and left == set(said.split(" and ") if leaves else ())


def string(value: str) -> bytes:
    return value.strip('"').encode() + b"\0" if value else b""


def command_line_helps(
    tree: DeviceTree, options: MachineOptions, problem: Problem, remedy: str, word: str
) -> bool:
    """The same for a word of the command line, which the remedy drops or writes."""
    words = (tree.chosen.property_read_string("bootargs") or "").split()
    if remedy.startswith("drop"):
        assert word in words
        words.remove(word)
    else:
        words = [*(one for one in words if not one.startswith("cma=")), word]
    after = boot_report(tree, replace(options, cmdline=" ".join(words)))
    return all((p.code, p.node, p.prop) != (problem.code, problem.node, problem.prop) for p in after.problems)
