"""A report for people: the table of areas and a paragraph for each finding, or one line for each. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cmafs.check.report import NOTE, Problem, Report
from cmafs.check.tree import size_text


def to_text(report: Report, log: bool) -> str:
    """The table of areas, the problems, the verdict; before them the boot log if it is wanted."""
    head = f"{report.board}: " if report.board else ""
    lines = [*report.log, ""] if log else []
    lines += [f"{head}Linux {report.kernel} on {report.arch} ({report.why})", ""]
    lines += _table(report) if report.areas else ["no areas"]
    for problem in report.errors:
        lines += ["", *_paragraph(problem, report.kernel)]
    remarks = [line for p in report.problems if p.severity == NOTE for line in _remark(p)]
    return "\n".join([*lines, *([""] if remarks else []), *remarks, "", verdict(report), ""])


def _table(report: Report) -> list[str]:
    rows = [("AREA", "BASE", "SIZE", "BASE_PFN", "COUNT", "ORDER", "DEFAULT", "NODE")]
    for area in report.areas:
        base, size = area.base_pfn << report.page_shift, area.count << report.page_shift
        default = "default" if area.default else "-"
        numbers = (str(area.base_pfn), str(area.count), str(area.order_per_bit))
        rows.append((area.name, f"{base:#x}", size_text(size), *numbers, default, area.node or "-"))
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _paragraph(problem: Problem, kernel: str) -> list[str]:
    head, *remedy = _remark(problem)
    effect = f"  effect on {kernel}: {problem.effect}, {problem.consequence}"
    return [head, effect, f"  rule: {problem.rule}", *remedy, *(f"  log: {line}" for line in problem.said)]


def _remark(problem: Problem) -> list[str]:
    return [finding(problem), *([f"  remedy: {problem.remedy}"] if problem.remedy else [])]


def finding(problem: Problem, kernels: Sequence[str] = ()) -> str:
    """One line as compilers print it: ``file:line:column: severity: node: what [code] (kernels)``."""
    where = f"{problem.place}: " if problem.place else ""
    node = f"{problem.node}: " if problem.node else ""
    on = f" ({', '.join(kernels)})" if kernels else ""
    return f"{where}{problem.severity}: {node}{problem.text} [{problem.code}]{on}"


def verdict(report: Report) -> str:
    """How many problems there are, and how many of the regions that ask for an area became one."""
    made, errors = sum(area.node is not None for area in report.areas), len(report.errors)
    said = [f"{errors} problem{'s' if errors > 1 else ''}"] if errors else []
    if report.asked:
        said.append(f"{made} of {report.asked} regions that ask for an area became one")
    elif not errors:
        said.append("no region asks for an area")
    if report.asked and report.others:
        said.append(
            f"{report.others} more in /reserved-memory ask{'' if report.others > 1 else 's'} for none"
        )
    if report.silenced:
        said.append(f"{report.silenced} finding{'s' if report.silenced > 1 else ''} silenced")
    return "; ".join(said)


def by_finding(reports: Sequence[Report]) -> list[tuple[str, Problem, list[str]]]:
    """(board, problem, kernels) of each finding, said once for all kernels that it is the same on.

    Where remedies differ from kernel to kernel, each names those that it was tried on.
    """
    found: dict[tuple[object, ...], tuple[str, list[Problem], list[str]]] = {}
    for report in reports:
        for p in report.problems:
            key = (report.board, p.code, p.node, p.prop, p.severity, p.place, p.what)
            _, problems, kernels = found.setdefault(key, (report.board, [], []))
            problems.append(p)
            kernels.append(report.kernel)
    return [
        (board, replace(problems[0], remedy=_remedies(problems, kernels)), kernels)
        for board, problems, kernels in found.values()
    ]


def _remedies(problems: Sequence[Problem], kernels: Sequence[str]) -> str:
    """The remedy of a finding, or those of several kernels."""
    tried: dict[str, list[str]] = {}
    for problem, kernel in zip(problems, kernels, strict=True):
        tried.setdefault(problem.remedy, []).append(kernel)
    if len(tried) == 1:
        return problems[0].remedy
    return "; ".join(f"on {', '.join(dict.fromkeys(on))}: {text}" for text, on in tried.items() if text)


def to_brief(reports: Sequence[Report]) -> str:
    """A line for each finding, with its kernels where several were asked."""
    lines = []
    for board, problem, kernels in by_finding(reports):
        asked = list(dict.fromkeys(report.kernel for report in reports if report.board == board))
        on = list(dict.fromkeys(kernels))
        named = [] if len(asked) == 1 else ["all kernels"] if on == asked else on
        lines.append(finding(problem, named) + "\n")
    return "".join(lines)
