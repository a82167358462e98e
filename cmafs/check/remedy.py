"""What to do about a finding: said only after it was done to a copy of the board, and helped.

A user with three findings does all three remedies. So each is tried alone, and again on a copy where those of
the findings before it are done; one that brings another error to light goes on until none is left. Pure. An
edit that does not help, or that harms more than it helps, is not spoken of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from cmafs.check import edits
from cmafs.check.edits import Edit, Trial, copy_of
from cmafs.check.report import ERROR, Problem, Report
from cmafs.init.options import MachineOptions
from cmafs.lib.boot_event import EFFECT_PANIC
from cmafs.of.base import DeviceTree
from cmafs.of.rmem_init import DEFAULT

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
    "plain-pool": ((edits.drop(DEFAULT),), (edits.drop("no-map"),)),
    "reusable-and-no-map": ((edits.drop("no-map"),), (edits.drop("reusable"),)),
    "no-driver": ((edits.add_compatible,),),
    "bypassed": ((edits.drop_cma,), (edits.drop(DEFAULT),)),
    "default-twice": ((edits.drop(DEFAULT),),),
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
    "crashkernel-hangs": ((edits.drop_parameter,),),
    "too-small": ((edits.drop_parameter,),),
    "not-a-multiple": ((edits.drop_parameter,),),
    "bad-node": ((edits.drop_parameter,),),
    "no-such-node": ((edits.drop_parameter,),),
}


#: How many errors that a remedy brings to light are mended with it, and how many levels of such errors.
_LONGEST = 64
_DEEPEST = 2
#: How many edits that bring errors to light are followed up.
_WIDEST = 2

#: Before a remedy that helps only where those of other findings are done, behind one that helps only where
#: they are not, and before the codes of the errors that are left after one.
_LATER = "when the other remedies are done, "
_APART = ", without the other remedies"
_LEAVING = ", which leaves "

#: A finding, wherever it is met again: node, code, property or parameter, severity.
Key: TypeAlias = "tuple[str | None, str, str, str]"


def _key(problem: Problem) -> Key:
    return problem.node, problem.code, problem.prop, problem.severity


@dataclass(frozen=True, eq=False)
class _State:
    """A board with remedies done, what a boot of it says, and where they moved nodes: old path -> new."""

    board: Trial
    report: Report
    moved: Mapping[str, str] = field(default_factory=dict)

    def now(self, key: Key) -> Key:
        """A finding of the board as it was, as it is called now."""
        return self.moved.get(key[0], key[0]) if key[0] else None, *key[1:]

    def find(self, key: Key) -> Problem | None:
        """The finding, if it is still there."""
        wanted = self.now(key)
        return next((problem for problem in self.report.problems if _key(problem) == wanted), None)

    def copy(self, problem: Problem) -> Trial:
        """The board, to be changed for a finding."""
        tree = copy_of(self.board.tree)
        node = tree.find_node_by_path(problem.node) if problem.node is not None else None
        return replace(self.board, tree=tree, node=node, prop=problem.prop, detail=problem.detail)

    def after(self, problem: Problem, trial: Trial, report: Report) -> _State:
        """What an edit for a finding made of it."""
        was, path = problem.node, trial.node.path if trial.node is not None else None
        moved = dict(self.moved)
        if was and path and was != path:
            moved = {old: path if new == was else new for old, new in moved.items()} | {was: path}
        return _State(trial, report, moved)

    def kept(self) -> _State:
        """The same where the board is still to be changed."""
        return replace(self, board=replace(self.board, tree=copy_of(self.board.tree)))

    @property
    def dies(self) -> bool:
        """Whether the machine does not survive its boot."""
        return any(problem.effect == EFFECT_PANIC for problem in self.report.problems)

    def no_worse(self, before: _State) -> bool:
        """Whether there are no more errors than in an earlier state; if that died, whatever came of it."""
        return before.dies or (not self.dies and len(self.report.errors) <= len(before.report.errors))

    def brought(self, before: _State) -> list[Problem]:
        """The errors that an earlier state did not have."""
        known = {self.now(_key(problem)) for problem in before.report.problems}
        return [problem for problem in self.report.errors if _key(problem) not in known]


@dataclass(frozen=True, eq=False)
class _Step:
    """An edit in words; of the node that was at a path, and is then at another."""

    said: str
    was: str | None
    now: str | None


@dataclass(frozen=True, eq=False)
class _Cure:
    """What was done about a finding, step by step, what became of the board, and the errors that are left."""

    steps: tuple[_Step, ...]
    state: _State
    left: tuple[Problem, ...] = ()

    @property
    def text(self) -> str:
        """In words: of another node than the step before, with its path."""
        words, node = [], self.steps[0].was
        for step in self.steps:
            elsewhere = step.was and step.was != node
            words.append(f"at {step.was}: {step.said}" if elsewhere else step.said)
            node = step.now or node
        codes = " and ".join(sorted({problem.code for problem in self.left}))
        return ", then ".join(words) + (f"{_LEAVING}{codes}" if codes else "")


@dataclass(frozen=True)
class Search:
    """What is tried for a board: its report as it is, the board to copy, and how to boot a copy."""

    report: Report
    board: Trial
    boot: Boot

    def with_remedies(self, problems: Sequence[Problem]) -> list[Problem]:
        """These findings of the report, each with what to do about it, as far as something helps.

        Errors go first: what mends a note must leave them mended. What depends on the remedies of others
        waits until these are done, and what then still leaves an error until nothing else can be done.
        """
        states = [(_State(self.board, self.report), "")]
        said: dict[int, str] = {}  # by id(): two findings may be alike, of two ranges of one `reg`
        queue = sorted(problems, key=lambda problem: problem.severity != ERROR)
        unwanted: tuple[str, ...] = (_LATER, _APART, _LEAVING)
        while queue:
            waiting = []
            for problem in queue:
                text, state = self._remedy(problem, states)
                if unwanted and (not text or any(words in text for words in unwanted)):
                    waiting.append(problem)
                    continue
                said[id(problem)] = text
                states.append((state, problem.node or problem.prop))
            goes_on = len(waiting) < len(queue) or len(unwanted) > 1
            queue, unwanted = waiting, (_LEAVING,) if goes_on else ()
        return [replace(problem, remedy=said[id(problem)]) for problem in problems]

    def _remedy(self, problem: Problem, states: Sequence[tuple[_State, str]]) -> tuple[str, _State]:
        """What to do, and the board with that done.

        ``states``: the board as it is, and after each remedy, with whose that was.
        """
        before, state = states[0][0], states[-1][0]
        alone = list(self._cures(problem, before))
        there = state.find(_key(problem))
        if there is None:
            whose = next(label for state, label in states if state.find(_key(problem)) is None)
            return f"goes with the remedy of {whose}" if alone or problem.severity == ERROR else "", state
        together = list(self._cures(there, state)) if state is not before else alone
        texts = {cure.text for cure in alone}
        if both := [cure for cure in together if cure.text in texts]:
            return ", or ".join(cure.text for cure in both), both[0].state
        if together:
            return f"{_LATER}{together[0].text}", together[0].state
        return f"{alone[0].text}{_APART}" if alone else "", state

    def _cures(self, problem: Problem, state: _State, depth: int = _DEEPEST) -> Iterator[_Cure]:
        """One of each alternative that has an edit which helps."""
        for tries in REMEDIES.get(problem.code, ()):
            if cure := self._first(problem, tries, state, depth):
                yield cure

    def _first(self, problem: Problem, tries: tuple[Edit, ...], state: _State, depth: int) -> _Cure | None:
        """The first edit that helps, and what must follow it.

        One that brings no error to light goes before one after which others must be mended, and that before
        one after which they cannot.
        """
        further: list[tuple[_Step, _State]] = []
        for step, after in self._tried(problem, tries, state):
            if not after.brought(state):
                return _Cure((step,), after)
            if len(further) < _WIDEST:
                further.append((step, after.kept()))
        cures = [self._followed(problem, step, after, state, depth) for step, after in further]
        helping = (cure for cure in cures if cure and (not cure.left or cure.state.no_worse(state)))
        return min(helping, key=lambda cure: len(cure.left), default=None)

    def _tried(
        self, problem: Problem, tries: tuple[Edit, ...], state: _State
    ) -> Iterator[tuple[_Step, _State]]:
        """Each edit, and the board with it done; not where the finding remains."""
        for edit in tries:
            trial = state.copy(problem)
            for said in edit(trial):
                try:
                    report = self.boot(trial.tree, trial.options)
                except ValueError:  # the board can no longer be checked
                    continue
                after, key = state.after(problem, trial, report), _key(problem)
                if after.find(key) is None:
                    yield _Step(said, problem.node, after.now(key)[0]), after

    def _followed(
        self, problem: Problem, step: _Step, after: _State, state: _State, depth: int
    ) -> _Cure | None:
        """An edit, and what mends the errors that it brought to light; None if the finding comes back."""
        steps, seen = [step], set()
        for _ in range(_LONGEST if depth else 0):
            brought = after.brought(state)
            found = (next(self._cures(other, after, depth - 1), None) for other in brought)
            cure = next(filter(None, found), None)
            if cure is None or (keys := frozenset(map(_key, brought))) in seen:
                break
            seen.add(keys)
            steps += cure.steps
            after = cure.state
        return None if after.find(_key(problem)) else _Cure(tuple(steps), after, tuple(after.brought(state)))
