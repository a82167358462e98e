"""What ``cmafs check`` reports of a board on one kernel, as records; ``check.examine`` makes them. Pure.

Counts are pages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cmafs.of.source_map import Place, SourceMap

ERROR = "error"
NOTE = "note"


@dataclass(frozen=True)
class Area:
    """An area that the boot made. ``node``: path of the region it comes from, None for the kernel's own."""

    name: str
    base_pfn: int
    count: int
    order_per_bit: int
    default: bool
    node: str | None


@dataclass(frozen=True)
class Problem:
    """One finding in words; ``effect`` as in BootEvent, ``severity`` error or note, ``said`` log lines.

    ``code``: its key in ``check.rules``; ``rule``: who says so; ``consequence``: the effect in words;
    ``remedy``: what was tried and helped, else empty; ``place``: where the sources have it.
    """

    code: str
    node: str | None
    prop: str
    what: str
    detail: str
    rule: str
    effect: str
    consequence: str
    severity: str
    said: tuple[str, ...] = ()
    remedy: str = ""
    place: Place | None = None

    @property
    def text(self) -> str:
        """What is wrong: the property and what about it."""
        return f"{self.prop}: {self.what}" if self.prop else self.what

    @property
    def reason(self) -> str:
        """Everything in one line, as schema 1 has it."""
        remedy = f"; remedy: {self.remedy}" if self.remedy else ""
        return f"{self.text}; rule: {self.rule}{remedy}"


@dataclass(frozen=True)
class Report:
    """The outcome: ``kernel`` its release, ``why`` the architecture is this, ``log`` as dmesg prints it.

    ``board``: as the user named it; ``asked``, ``others``: how many regions ask for an area, how many do not;
    ``silenced``: how many findings the user does not want to see.
    """

    kernel: str
    arch: str
    why: str
    areas: Sequence[Area]
    problems: Sequence[Problem]
    log: Sequence[str]
    page_shift: int = 12
    board: str = ""
    asked: int = 0
    others: int = 0
    silenced: int = 0

    @property
    def errors(self) -> list[Problem]:
        """The findings that make it fail."""
        return [problem for problem in self.problems if problem.severity == ERROR]

    @property
    def ok(self) -> bool:
        """Whether every region that asks for an area became one, and nothing else is an error."""
        return not self.errors


def located(report: Report, sources: SourceMap, cmdline_is_the_trees: bool) -> Report:
    """The report with places: of a parameter /chosen/bootargs if it is there, of the rest the root."""
    return replace(
        report,
        problems=[
            replace(p, place=p.place or _place(p, sources, cmdline_is_the_trees)) for p in report.problems
        ],
    )


def _place(problem: Problem, sources: SourceMap, cmdline_is_the_trees: bool) -> Place:
    if problem.node is not None:
        return sources.place(problem.node, problem.prop)
    of_cmdline = problem.prop.endswith("=") and cmdline_is_the_trees
    return sources.props.get(("/chosen", "bootargs"), sources.top()) if of_cmdline else sources.top()


def without_ignored(report: Report, sources: SourceMap, codes: Collection[str]) -> Report:
    """The report without findings of these codes, and without those that a comment beside them silences."""
    kept = [
        problem
        for problem in report.problems
        if problem.code not in codes and problem.code not in sources.ignored(problem.node, problem.prop)
    ]
    return replace(report, problems=kept, silenced=len(report.problems) - len(kept))
