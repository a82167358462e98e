"""What ``cmafs check`` reports of a boot: the areas, and every region that did not become one, with why.

Pure: from a booted machine (or its panic) to a Report, and from that to JSON or text. Counts are pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cmafs.check.cmdline import cmdline_findings
from cmafs.check.rules import RULES
from cmafs.check.tree import (
    claims_overlap,
    dangling,
    misplaced,
    notes,
    reserved_memory,
    size_text,
    wants_area,
)
from cmafs.lib.boot_event import (
    EFFECT_IGNORED,
    EFFECT_MOVED,
    EFFECT_NOTE,
    EFFECT_PANIC,
    EFFECT_REFUSED,
    BootEvent,
)

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine
    from cmafs.of.base import DeviceNode, DeviceTree

SCHEMA = 1
ERROR = "error"
NOTE = "note"

#: Findings that harm nobody, whatever their effect is called.
_HARMLESS = frozenset({"disabled", "plain-pool", "extra-reg", "default-twice"})
#: Findings that are errors although every region became an area.
_HARMFUL_NOTES = frozenset({"overlap", "memreserve"})
#: Findings about any region, also one that never asked for an area.
_ABOUT_ANY = frozenset(
    {"invalid-reg", "invalid-size", "invalid-alignment", "invalid-alloc-ranges", "no-room"}
)

#: Lines that name no node: what the driver says before the region is given up.
_COMPLAINT = re.compile(r"\] (?:Reserved memory: (?!created)|cma: (?!Reserved))")

_CONSEQUENCE = {
    EFFECT_REFUSED: "no area",
    EFFECT_IGNORED: "no area, the kernel passes over it",
    EFFECT_MOVED: "done otherwise than written",
    EFFECT_PANIC: "the machine does not survive its boot",
    EFFECT_NOTE: "nothing is lost",
}


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

    ``consequence``: the effect in words.
    """

    node: str | None
    prop: str
    what: str
    rule: str
    remedy: str
    effect: str
    consequence: str
    severity: str
    said: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Everything in one line."""
        return f"{_subject(self)}{self.what}; rule: {self.rule}; remedy: {self.remedy}"


@dataclass(frozen=True)
class Report:
    """The outcome: ``kernel`` its release, ``why`` the architecture is this, ``log`` as dmesg prints it."""

    kernel: str
    arch: str
    why: str
    areas: Sequence[Area]
    problems: Sequence[Problem]
    log: Sequence[str]
    page_shift: int = 12

    @property
    def ok(self) -> bool:
        """Whether every region became an area."""
        return not any(problem.severity == ERROR for problem in self.problems)


@dataclass(eq=False)
class _Findings:
    """Events on their way to problems; the first of a node that names an error decides what is said of it."""

    tree: DeviceTree
    log: Sequence[str]
    problems: list[Problem] = field(default_factory=list)

    def add(self, events: Iterable[BootEvent]) -> None:
        """Turn events into problems, those that concern no area aside."""
        for event in events:
            if severity := self._severity(event):
                said = self._said(event) if severity == ERROR else ()
                self.problems.append(_problem(_refined(event, self._node(event)), severity, said))

    def _node(self, event: BootEvent) -> DeviceNode | None:
        return self.tree.find_node_by_path(event.node) if event.node else None

    def _severity(self, event: BootEvent) -> str | None:
        """``error``, ``note``, or None for what concerns no area."""
        node = self._node(event)
        region = node is not None and node.parent is reserved_memory(self.tree) and node.parent is not None
        if region and node is not None and not wants_area(node) and event.reason not in _ABOUT_ANY:
            return NOTE if node.is_compatible("shared-dma-pool") and event.reason == "not-reusable" else None
        if event.reason in _HARMFUL_NOTES:
            return ERROR
        if event.reason == "no-reg-no-size" and event.node in self.lost():
            return None  # 7.2 drops a malformed property first, and then misses it
        return NOTE if event.effect == EFFECT_NOTE or event.reason in _HARMLESS | _MILD else ERROR

    def _said(self, event: BootEvent) -> tuple[str, ...]:
        """The kernel's lines about a region: those with its name, and the complaint before the first."""
        name = event.node.rsplit("/", 1)[-1] if event.node else ""
        named = re.compile(rf"(?:node |'|bypass |reusable ){re.escape(name)}(?:,? |'|$)")
        found = [index for index, line in enumerate(self.log) if name and named.search(line)]
        if found and found[0] and _COMPLAINT.search(self.log[found[0] - 1]):
            found.insert(0, found[0] - 1)
        return tuple(dict.fromkeys(self.log[index] for index in found))

    def lost(self) -> set[str]:
        """Paths of the nodes that some error names."""
        return {p.node for p in self.problems if p.severity == ERROR and p.node is not None}


#: ``moved`` findings that change nothing the user asked for.
_MILD = frozenset({"alignment-raised", "size-rounded", "cma-moved", "base-is-bytes", "default-wins"})


def _refined(event: BootEvent, node: DeviceNode | None) -> BootEvent:
    """What boot cannot tell apart: a DMA pool that is meant as one, an area that no node asked for."""
    if event.reason == "not-reusable" and node is not None and node.property_read_bool("no-map"):
        return BootEvent(event.node, "plain-pool", EFFECT_NOTE, event.property, event.detail)
    if event.node is None and event.property == "reg":
        return replace(event, property="cma=")
    if event.node is None and event.reason == "no-room":
        return replace(event, reason="no-room-for-parameter")
    return event


def _problem(event: BootEvent, severity: str, said: tuple[str, ...]) -> Problem:
    rule = RULES[event.reason]
    detail = f" ({event.detail})" if event.detail else ""
    return Problem(
        node=event.node,
        prop=event.property or "",
        what=rule.what + detail,
        rule=rule.source,
        remedy=rule.remedy,
        effect=event.effect,
        consequence=rule.consequence or _CONSEQUENCE[event.effect],
        severity=severity,
        said=said,
    )


def _areas(machine: BootedMachine) -> list[Area]:
    nodes = {id(region.area): region.node.path for region in machine.reserved_mem if region.area is not None}
    return [
        Area(
            cma.name,
            cma.base_pfn,
            cma.count,
            cma.order_per_bit,
            cma is machine.cma.default,
            nodes.get(id(cma)),
        )
        for cma in machine.cma
    ] + _regions_2010(machine)


def _regions_2010(machine: BootedMachine) -> list[Area]:
    """What stands in for areas on a machine of 2010, in the order in which they were registered."""
    framework, shift = machine.cma2010, machine.config.page_shift
    regions = reversed(framework.regions) if framework else ()
    return [Area(r.label, r.start >> shift, r.size >> shift, 0, False, None) for r in regions]


def _regions(tree: DeviceTree) -> Iterator[DeviceNode]:
    """The children of /reserved-memory that ask for an area."""
    parent = reserved_memory(tree)
    return (node for node in (parent.children.values() if parent else ()) if wants_area(node))


def _unexplained(
    tree: DeviceTree, areas: Sequence[Area], named: set[str], reason: str
) -> Iterator[BootEvent]:
    """Regions without an area that nothing else names: none goes unsaid; ``reason`` where it is unknown."""
    made = {area.node for area in areas}
    parent = reserved_memory(tree)
    if parent is not None and parent.path in named:
        reason = "parent-ignored"
    for node in _regions(tree):
        if node.path in made or node.path in named:
            continue
        if node.is_available():
            yield BootEvent(node.path, reason, EFFECT_IGNORED, "compatible")
        else:
            yield BootEvent(node.path, "disabled", EFFECT_IGNORED, "status")


def examine(machine: BootedMachine, why: str) -> Report:
    """The report on a machine that booted; ``why``: how its architecture was chosen."""
    tree, areas, log = machine.tree, _areas(machine), machine.log.dmesg().splitlines()
    found = _Findings(tree, log)
    found.add(machine.boot_events)
    seen = {region.node.path for region in machine.reserved_mem}
    found.add(event for event in misplaced(tree) if event.node not in seen)
    unknown = "no-area" if machine.cma2010 is None else "region-2010-ignored"
    found.add(_unexplained(tree, areas, {p.node for p in found.problems if p.node}, unknown))
    found.add(claims_overlap(tree))
    for node in _regions(tree):
        found.add(notes(node, tree, machine.cma.min_alignment, machine.abi.cma.name_max))
    found.add(cmdline_findings(machine))
    found.add(dangling(tree, found.lost() - {area.node for area in areas if area.node}))
    return Report(
        machine.abi.release, machine.arch, why, areas, found.problems, log, machine.config.page_shift
    )


def examine_panic(
    tree: DeviceTree,
    kernel: str,
    arch: tuple[str, str],
    reason: str,
    log: Sequence[str],
    events: Iterable[BootEvent],
) -> Report:
    """The report on a machine that did not survive its boot: no areas; what killed it comes first.

    ``kernel``: its release; ``arch``: the architecture and why; ``reason``: the kernel's; ``events``: those
    that it lived to see.
    """
    found = _Findings(tree, log)
    found.add(sorted(events, key=lambda event: event.effect != EFFECT_PANIC))
    if not any(problem.effect == EFFECT_PANIC for problem in found.problems):
        found.problems.insert(0, _problem(BootEvent(None, "panic", EFFECT_PANIC, None, reason), ERROR, ()))
    found.add(misplaced(tree))
    return Report(kernel, arch[0], arch[1], [], found.problems, log)


def to_json(report: Report) -> dict[str, Any]:
    """The document of ``cmafs check --json``; integers in pages."""
    return {
        "schema": SCHEMA,
        "kernel": report.kernel,
        "arch": report.arch,
        "areas": [
            {
                "name": area.name,
                "base_pfn": area.base_pfn,
                "count": area.count,
                "order_per_bit": area.order_per_bit,
                "default": area.default,
                "node": area.node,
            }
            for area in report.areas
        ],
        "problems": [
            {"node": p.node, "reason": p.reason, "effect": p.effect, "severity": p.severity}
            for p in report.problems
        ],
        "log": list(report.log),
    }


def to_text(report: Report) -> str:
    """The boot log, the table of areas, the problems, the verdict."""
    lines = [*report.log, "", f"Linux {report.kernel} on {report.arch} ({report.why})", ""]
    lines += _table(report) if report.areas else ["no areas"]
    errors = [problem for problem in report.problems if problem.severity == ERROR]
    for problem in errors:
        lines += ["", *_paragraph(problem, report.kernel)]
    remarks = [_remark(problem) for problem in report.problems if problem.severity == NOTE]
    return "\n".join([*lines, *([""] if remarks else []), *remarks, "", _verdict(report), ""])


def _table(report: Report) -> list[str]:
    rows = [("AREA", "BASE", "SIZE", "BASE_PFN", "COUNT", "ORDER", "DEFAULT", "NODE")]
    for area in report.areas:
        base, size = area.base_pfn << report.page_shift, area.count << report.page_shift
        default = "default" if area.default else "-"
        numbers = (str(area.base_pfn), str(area.count), str(area.order_per_bit))
        rows.append((area.name, f"{base:#x}", size_text(size), *numbers, default, area.node or "-"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _paragraph(problem: Problem, kernel: str) -> list[str]:
    lines = [
        f"{problem.severity}: {problem.node or 'the machine'}",
        f"  {_subject(problem)}{problem.what}",
        f"  effect on {kernel}: {problem.effect}, {problem.consequence}",
        f"  rule: {problem.rule}",
        f"  remedy: {problem.remedy}",
    ]
    return lines + [f"  log: {line}" for line in problem.said]


def _subject(problem: Problem) -> str:
    return f"{problem.prop}: " if problem.prop else ""


def _remark(problem: Problem) -> str:
    where = f"{problem.node}: " if problem.node else ""
    return f"note: {where}{_subject(problem)}{problem.what}"


def _verdict(report: Report) -> str:
    errors = sum(problem.severity == ERROR for problem in report.problems)
    if errors:
        return f"{errors} problem{'s' if errors > 1 else ''}"
    return "every region became an area" if report.areas else "no region asks for an area"
