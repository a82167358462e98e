"""`cmafs check` of boards with faults: findings have places, remedies help, all together leave no error.

Modules: cmafs.of.source_map.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import dts_support as dts
import pytest
from remedy_support import helps_alone, left_by_all
from soak_support import new_seed

from cmafs.abi import RELEASES
from cmafs.check.examine import report_on
from cmafs.check.report import ERROR, Problem, located
from cmafs.init.options import MachineOptions
from cmafs.of import fdt

#: In the suite the first trees, in a soak others each time; each on two kernels.
TREES = 60
GROUPS = 10

#: What soaks have found: a remedy that depends on the others', a name given twice, one that waits.
FOUND = (
    *((2896603410, "6.12"), (7000946, "6.12"), (7000236, "7.2")),
    *((7002416, "5.4"), (7002416, "4.19"), (7002662, "6.6"), (7002662, "6.12"), (428788389, "6.12")),
    *((4177616560, "6.6"), (4177616560, "6.12")),
)


def kernels_for(seed: int) -> list[str]:
    rows = list(RELEASES)
    return [rows[seed % len(rows)], rows[(seed * 7 + 3) % len(rows)]]


@pytest.mark.soak(0.5)
@pytest.mark.parametrize("group", range(GROUPS))
def test_findings_have_places_and_remedies_help(tmp_path: Path, group: int) -> None:
    seen: Counter[str] = Counter()
    first = new_seed(0)
    for seed in range(first + group, first + TREES, GROUPS):
        for kernel in kernels_for(seed):
            seen.update(check_board(tmp_path, seed, kernel))
    assert len(seen) > 3


@pytest.mark.parametrize(("seed", "kernel"), FOUND)
def test_what_was_found_stays_mended(tmp_path: Path, seed: int, kernel: str) -> None:
    check_board(tmp_path, seed, kernel)


def check_board(tmp_path: Path, seed: int, kernel: str) -> list[str]:
    """The codes found on a faulty board, whose findings have places, and whose remedies help."""
    path = dts.write(tmp_path, f"{seed}.dts", dts.faulty_board(seed))
    tree = fdt.load(path)
    options = MachineOptions(dts=path, kernel=kernel)
    report = located(report_on(tree, options), fdt.source_map(tree), True)
    for problem in report.problems:
        check_place(problem, path)
        assert problem.remedy or problem.severity != ERROR, (seed, kernel, problem)
        assert helps_alone(tree, options, report, problem), (seed, kernel, problem)
    assert left_by_all(tree, options, report) == [], (seed, kernel)
    return [problem.code for problem in report.problems]


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
