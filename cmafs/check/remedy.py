"""What to do about a finding: said only after it was done to a copy of the board, and helped.

Pure. An edit that does not help, or that harms more than it helps, is not spoken of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from cmafs.check import edits
from cmafs.check.edits import Edit, Trial, copy_of
from cmafs.check.report import ERROR, Problem, Report
from cmafs.init.options import MachineOptions
from cmafs.lib.boot_event import EFFECT_PANIC
from cmafs.of.base import DeviceTree

#: Boots a board and says what there is to say, but for remedies; raises ValueError where it cannot.
Boot: TypeAlias = "Callable[[DeviceTree, MachineOptions], Report]"

_CMA = (edits.size_alone, edits.drop_parameter)
_ALIGN = (edits.align, edits.let_kernel_place, *_CMA)
_PLACE = (edits.let_kernel_place, edits.drop("no-map"))

#: Code -> alternatives; all of those that help are said, of each the first edit that does.
REMEDIES: Mapping[str, tuple[tuple[Edit, ...], ...]] = {
    "unsupported-format": ((edits.mend_parent,),),
    "parent-ignored": ((edits.mend_parent,),),
    "nested": ((edits.move_up,),),
    "not-under-reserved-memory": ((edits.move_up,),),
    "misspelt": ((edits.respell,),),
    "invalid-reg": ((edits.in_root_cells, edits.give_size),),
    "invalid-size": ((edits.in_root_cells, edits.give_size),),
    "invalid-alignment": ((edits.in_root_cells, edits.drop("alignment")),),
    "invalid-alloc-ranges": ((edits.in_root_cells, edits.drop("alloc-ranges")),),
    "no-reg-no-size": ((edits.give_size,),),
    "not-reusable": ((edits.add("reusable"),), (edits.add("no-map"),)),
    "plain-pool": ((edits.drop("linux,cma-default"),),),
    "reusable-and-no-map": ((edits.drop("no-map"),), (edits.drop("reusable"),)),
    "no-driver": ((edits.add_compatible,),),
    "bypassed": ((edits.drop_cma,), (edits.drop("linux,cma-default"),)),
    "default-twice": ((edits.drop("linux,cma-default"),),),
    "size-zero": ((edits.align, edits.give_size),),
    "misaligned": (_ALIGN,),
    "base-misaligned": (_ALIGN,),
    "size-misaligned": (_ALIGN,),
    "alignment-raised": ((edits.raise_alignment,),),
    "outside-memory": ((edits.let_kernel_place, *_CMA),),
    "unmapped": ((edits.drop_mapping_flag, edits.let_kernel_place),),
    "kernel-given-back": ((*_ALIGN, edits.drop_mapping_flag),),
    "not-activated": ((edits.let_kernel_place, *_CMA),),
    "no-value": ((edits.drop_parameter,),),
    "no-room": ((edits.drop("alloc-ranges"),), (edits.smaller,)),
    "reserve-failed": (_PLACE,),
    "remap-hangs": (_ALIGN,),
    "remap-unmaps": (_ALIGN,),
    "remap-overlaps": ((edits.let_kernel_place, *_CMA),),
    "taken": ((edits.let_kernel_place, *_CMA),),
    "not-reserved": (_PLACE,),
    "exceeds-limit": ((edits.let_kernel_place, *_CMA),),
    "low-high-boundary": ((edits.let_kernel_place, *_CMA),),
    "alignment-not-a-power-of-two": ((edits.raise_alignment,),),
    "no-slot": ((edits.more_areas,),),
    "extra-reg": ((edits.split_reg,),),
    "reg-wins": ((edits.drop("size"),),),
    "overlap": ((edits.let_kernel_place,),),
    "memreserve": ((edits.let_kernel_place,),),
    "name-cut": ((edits.shorten_name,),),
    "unit-address": ((edits.name_for_base,),),
    "out-of-reach": ((edits.into_reach,),),
    "above-mask": ((edits.into_reach,),),
    "no-room-for-parameter": ((edits.smaller_default, *_CMA),),
    "not-a-number": ((edits.drop_parameter,),),
    "text-ignored": ((edits.size_alone,),),
    "default-wins": ((edits.drop_tree_default,), (edits.drop_parameter,)),
    "unknown-parameter": ((edits.drop_parameter,),),
    "region-2010-refused": ((edits.drop_parameter,),),
    "cma-moved": ((edits.fixed_base,),),
    "size-rounded": ((edits.rounded_size,),),
    "too-small": ((edits.drop_parameter,),),
    "not-a-multiple": ((edits.drop_parameter,),),
    "bad-node": ((edits.drop_parameter,),),
    "no-such-node": ((edits.drop_parameter,),),
}


@dataclass(frozen=True)
class Search:
    """What is tried for a board: its report as it is, the board to copy, and how to boot a copy."""

    report: Report
    board: Trial
    boot: Boot

    def with_remedies(self) -> Report:
        """The report with what to do about each finding, as far as something helps."""
        problems = [replace(problem, remedy=self._remedy(problem)) for problem in self.report.problems]
        return replace(self.report, problems=problems)

    def _remedy(self, problem: Problem) -> str:
        said = (self._first(problem, tries) for tries in REMEDIES.get(problem.code, ()))
        return ", or ".join(filter(None, said))

    def _first(self, problem: Problem, tries: tuple[Edit, ...]) -> str:
        """What the first edit that helps says; empty if none does.

        One after which nothing is wrong with the node goes before one that leaves another fault of it.
        """
        second_best = ""
        for edit in tries:
            trial = self._copy(problem)
            for said in edit(trial):
                left = self._left(problem, trial)
                if left == []:
                    return said
                if left and not second_best:
                    second_best = f"{said}, which leaves {' and '.join(left)}"
        return second_best

    def _copy(self, problem: Problem) -> Trial:
        tree = copy_of(self.board.tree)
        node = tree.find_node_by_path(problem.node) if problem.node is not None else None
        return replace(self.board, tree=tree, node=node, prop=problem.prop, detail=problem.detail)

    def _left(self, problem: Problem, trial: Trial) -> list[str] | None:
        """What is then wrong with the node, as codes; None if the copy cannot be booted or is no better."""
        try:
            after = self.boot(trial.tree, trial.options)
        except ValueError:  # the board can no longer be checked
            return None
        return left_by(self.report, problem, after, trial.node.path if trial.node is not None else None)


def left_by(before: Report, problem: Problem, after: Report, node: str | None) -> list[str] | None:
    """What is then wrong with the node, as codes not said before; None if the finding or more harm remains.

    ``node``: its path after the edit, which may have moved it; None for a parameter. A machine that died of
    it may then show what it did not live to see.
    """
    same = [p for p in after.problems if p.node == node and (node is not None or p.prop == problem.prop)]
    if any(other.code == problem.code for other in same):
        return None
    said = {other.code for other in before.problems if other.node == problem.node}
    left = sorted({other.code for other in same if other.severity == ERROR} - said)
    if problem.effect == EFFECT_PANIC:
        return left
    if any(other.effect == EFFECT_PANIC for other in after.problems):
        return None
    fault = 1 if problem.severity == ERROR and not left else 0
    return left if after.errors <= before.errors - fault else None
