"""Reports for machines: JSON, GitHub's workflow commands, SARIF 2.1.0, JUnit. Pure; counts are pages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cmafs.check.report import ERROR, Problem, Report
from cmafs.check.rules import RULES
from cmafs.check.text import by_finding, finding

_SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"
#: What XML 1.0 cannot hold.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Unchecked:
    """A board that could not be checked on a kernel, and why in one line."""

    board: str
    kernel: str
    why: str


def _report(report: Report, problems: list[dict[str, Any]]) -> dict[str, Any]:
    """What both schemas say of a board on a kernel."""
    return {
        "kernel": report.kernel,
        "arch": report.arch,
        "areas": [asdict(area) for area in report.areas],
        "problems": problems,
        "log": list(report.log),
    }


def schema_1(report: Report) -> dict[str, Any]:
    """The document of ``--json`` for one board and one kernel, as it was from the first on."""
    names = ("node", "reason", "effect", "severity")
    problems = [{name: getattr(problem, name) for name in names} for problem in report.problems]
    return {"schema": 1, **_report(report, problems)}


def schema_2(reports: Sequence[Report]) -> dict[str, Any]:
    """The document of ``--format json``: an entry for each board on each kernel."""
    boards = [{"board": one.board, **_report(one, list(map(_problem, one.problems)))} for one in reports]
    return {"schema": 2, "boards": boards}


def _problem(problem: Problem) -> dict[str, Any]:
    place = problem.place
    return {
        "code": problem.code,
        "node": problem.node,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "reason": problem.text,
        "rule": problem.rule,
        "effect": problem.effect,
        "severity": problem.severity,
        "remedy": problem.remedy or None,
        "remedy_verified": bool(problem.remedy),
    }


def _message(problem: Problem) -> str:
    node = f"{problem.node}: " if problem.node else ""
    remedy = f" Remedy: {problem.remedy}." if problem.remedy else ""
    return f"{node}{problem.text}. Effect: {problem.effect}, {problem.consequence}.{remedy}"


# GitHub's workflow commands


def to_github(reports: Sequence[Report]) -> str:
    """Annotations: ``::error file=…,line=…,col=…,title=…::message``."""
    lines = []
    for board, problem, kernels in by_finding(reports):
        place = problem.place
        where = {"file": place.file, "line": place.line, "col": place.column} if place else {"file": board}
        fields = {**where, "title": f"cmafs: {problem.code}"}
        words = ",".join(f"{name}={_github(str(value), ':,')}" for name, value in fields.items())
        text = f"{_message(problem)} Kernels: {', '.join(dict.fromkeys(kernels))}."
        level = "error" if problem.severity == ERROR else "notice"
        lines.append(f"::{level} {words}::{_github(text, '')}\n")
    return "".join(lines)


def _github(text: str, also: str) -> str:
    """A value as the runner reads it: % and line ends escaped, in properties : and , too."""
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + also else c for c in text)


# SARIF


def to_sarif(reports: Sequence[Report], unchecked: Sequence[Unchecked], version: str) -> dict[str, Any]:
    """What code scanning reads: one run, a result for each finding with the kernels that have it."""
    found = by_finding(reports)
    codes = list(dict.fromkeys(problem.code for _, problem, _ in found))
    return {
        "$schema": _SCHEMA_URI,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "cmafs check",
                        "semanticVersion": version,
                        "rules": [_sarif_rule(code) for code in codes],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": not unchecked,
                        "toolExecutionNotifications": [
                            {"level": "error", "message": {"text": f"{one.board} on {one.kernel}: {one.why}"}}
                            for one in unchecked
                        ],
                    }
                ],
                "columnKind": "utf16CodeUnits",
                "results": [_sarif_result(board, p, kernels, codes) for board, p, kernels in found],
            }
        ],
    }


def _sarif_rule(code: str) -> dict[str, Any]:
    rule = RULES[code]
    return {"id": code, "name": code, "shortDescription": {"text": rule.what}}


def _sarif_result(
    board: str, problem: Problem, kernels: Sequence[str], codes: Sequence[str]
) -> dict[str, Any]:
    place = problem.place
    location: dict[str, Any] = {"artifactLocation": {"uri": _uri(place.file if place else board)}}
    if place:
        location["region"] = {"startLine": place.line, "startColumn": place.column}
    at: dict[str, Any] = {"physicalLocation": location}
    if problem.node:
        at["logicalLocations"] = [{"fullyQualifiedName": problem.node, "kind": "element"}]
    return {
        "ruleId": problem.code,
        "ruleIndex": codes.index(problem.code),
        "level": "error" if problem.severity == ERROR else "note",
        "message": {"text": _message(problem)},
        "locations": [at],
        "partialFingerprints": {"cmafs/v1": f"{board}:{problem.node or ''}:{problem.prop}:{problem.code}"},
        "properties": {
            "board": board,
            "kernels": list(dict.fromkeys(kernels)),
            "effect": problem.effect,
            "rule": problem.rule,
            "remedy": problem.remedy or None,
            "remedyVerified": bool(problem.remedy),
        },
    }


def _uri(file: str) -> str:
    """A path as a URI reference."""
    from urllib.parse import quote  # only here

    return quote(file.removeprefix("./"))


# JUnit


def to_junit(reports: Sequence[Report], unchecked: Sequence[Unchecked]) -> str:
    """A suite for each board, a case for each kernel."""
    boards = dict.fromkeys([*(r.board for r in reports), *(u.board for u in unchecked)])
    lines = ['<?xml version="1.0" encoding="utf-8"?>', '<testsuites name="cmafs check">']
    for board in boards:
        mine = [report for report in reports if report.board == board]
        broken = [one for one in unchecked if one.board == board]
        failed = sum(not report.ok for report in mine)
        counts = f'tests="{len(mine) + len(broken)}" failures="{failed}" errors="{len(broken)}"'
        lines.append(f"  <testsuite name={_quoted(board)} {counts}>")
        for report in mine:
            lines += _case(board, report)
        for one in broken:
            case = f"<testcase classname={_quoted(board)} name={_quoted(one.kernel)}>"
            lines.append(f"    {case}<error message={_quoted(one.why)}/></testcase>")
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>", ""])


def _case(board: str, report: Report) -> list[str]:
    lines = [f"    <testcase classname={_quoted(board)} name={_quoted(report.kernel)}>"]
    for problem in report.errors:
        text = f"{finding(problem)}\n{_message(problem)}\nRule: {problem.rule}"
        words = f"message={_quoted(problem.text)} type={_quoted(problem.code)}"
        lines.append(f"      <failure {words}>{_escaped(text)}</failure>")
    return [*lines, "    </testcase>"]


def _escaped(text: str) -> str:
    text = _NO_XML.sub("?", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "&quot;").replace("\n", " ") + '"'


def json_text(document: Mapping[str, Any]) -> str:
    """A document with a newline at its end."""
    return json.dumps(document, indent=2) + "\n"
