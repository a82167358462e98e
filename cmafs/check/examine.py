"""Boot a board and say what became of every region: from the facts of a boot to findings in words.

Pure. What to do about a finding is ``check.remedy``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cmafs.abi import kernel_abi
from cmafs.abi.sources import source_at
from cmafs.check.cmdline import cmdline_findings
from cmafs.check.reach import out_of_reach
from cmafs.check.report import ERROR, NOTE, Area, Problem, Report
from cmafs.check.rules import RULES
from cmafs.check.spelling import follows_from, misspelt
from cmafs.check.tree import (
    claims_overlap,
    dangling,
    misplaced,
    notes,
    regions,
    wants_area,
)
from cmafs.init.machine import BootedMachine
from cmafs.init.main import board_config, bootargs, start_kernel
from cmafs.init.options import MachineOptions
from cmafs.lib.boot_event import (
    EFFECT_IGNORED,
    EFFECT_MOVED,
    EFFECT_NOTE,
    EFFECT_PANIC,
    EFFECT_REFUSED,
    BootEvent,
)
from cmafs.lib.clock import ManualClock
from cmafs.lib.kconfig import parse_config
from cmafs.lib.panic import KernelPanic
from cmafs.of.base import DeviceNode, DeviceTree
from cmafs.of.cpu import machine_arch
from cmafs.of.rmem_init import COMPATIBLE

#: Findings that harm nobody, whatever their effect is called.
_HARMLESS = frozenset({"disabled", "plain-pool", "extra-reg", "default-twice"})
#: ``moved`` findings that change nothing the user asked for.
_MILD = frozenset(
    {"alignment-raised", "size-rounded", "cma-moved", "base-is-bytes", "default-wins", "above-mask"}
)
#: Findings that are errors although every region became an area.
_HARMFUL_NOTES = frozenset({"overlap", "memreserve", "remap-unmaps"})
#: Findings about any region, also one that never asked for an area.
_ABOUT_ANY = frozenset(
    {"invalid-reg", "invalid-size", "invalid-alignment", "invalid-alloc-ranges", "no-room", "misspelt"}
)

#: Lines that name no node: what the driver says before the region is given up.
_COMPLAINT = re.compile(r"\] (?:Reserved memory: (?!created)|cma: (?!Reserved))")

_OF_CMA = re.compile(r"\] cma: (?!Reserved)")

_CONSEQUENCE = {
    EFFECT_REFUSED: "no area",
    EFFECT_IGNORED: "no area, the kernel passes over it",
    EFFECT_MOVED: "done otherwise than written",
    EFFECT_PANIC: "the machine does not survive its boot",
    EFFECT_NOTE: "nothing is lost",
}


def report_on(tree: DeviceTree, options: MachineOptions) -> Report:
    """Boot a loaded tree and examine the outcome, with a remedy for each finding that has one.

    Raises DtError, UnknownKernel, ConfigError, BadOption.
    """
    report = boot_report(tree, options)
    return cured(report, report, tree, options)


def cured(shown: Report, report: Report, tree: DeviceTree, options: MachineOptions) -> Report:
    """What is shown of a board's report, with a remedy, tried on a copy, for each finding that has one."""
    if not shown.problems:
        return shown
    from cmafs.check.edits import Trial  # most boards need none
    from cmafs.check.remedy import Search

    abi = kernel_abi(options.kernel)
    unit = parse_config(options.config, report.arch, abi, board_config(tree)).cma_min_alignment_bytes()
    cmdline = options.cmdline if options.cmdline is not None else bootargs(tree)
    search = Search(report, Trial(tree, options, cmdline, unit), boot_report)
    return replace(shown, problems=search.with_remedies(shown.problems))


def boot_report(tree: DeviceTree, options: MachineOptions) -> Report:
    """Boot a loaded tree and examine the outcome: the report without remedies. Raises as report_on()."""
    chosen = (options.arch, "--arch") if options.arch else machine_arch(tree)
    try:
        return examine(start_kernel(tree, options, ManualClock()), chosen[1])
    except KernelPanic as panic:
        return examine_panic(tree, options.kernel, chosen, panic)


@dataclass(eq=False)
class _Findings:
    """Events on their way to problems; the first of a node that names an error decides what is said of it.

    ``row``: of the kernel whose sources are cited; ``spelled``: misspelt names, whose consequences go unsaid;
    ``made``: paths of the regions that became areas.
    """

    tree: DeviceTree
    log: Sequence[str]
    row: str
    spelled: Sequence[BootEvent] = ()
    made: frozenset[str] = frozenset()
    problems: list[Problem] = field(default_factory=list)

    def add(self, events: Iterable[BootEvent]) -> None:
        """Turn events into problems, those that concern no area aside."""
        for event in events:
            if (severity := self._severity(event)) and not follows_from(self.spelled, event):
                said = self._said(event) if severity == ERROR else ()
                self.problems.append(self._problem(_refined(event, self._node(event)), severity, said))

    def _node(self, event: BootEvent) -> DeviceNode | None:
        return self.tree.find_node_by_path(event.node) if event.node else None

    def _severity(self, event: BootEvent) -> str | None:
        """``error``, ``note``, or None for what concerns no area."""
        node = self._node(event)
        if node in regions(self.tree) and not wants_area(node) and event.reason not in _ABOUT_ANY:
            return NOTE if node.is_compatible(COMPATIBLE) and event.reason == "not-reusable" else None
        if event.reason in _HARMFUL_NOTES:
            return ERROR
        if event.reason == "no-reg-no-size" and event.node in self.lost():
            return None  # 7.2 drops a malformed property first, and then misses it
        return NOTE if event.effect == EFFECT_NOTE or event.reason in _HARMLESS | _MILD else ERROR

    def _said(self, event: BootEvent) -> tuple[str, ...]:
        """The kernel's lines about a region: those with its name, and the complaint before the first.

        Of a parameter the lines of CMA itself.
        """
        if event.node is None:
            return tuple(line for line in self.log if _OF_CMA.search(line))
        name = event.node.rpartition("/")[2]
        if event.reason == "overlap":
            return tuple(line for line in self.log if f" overlaps with {name} " in line)
        named = re.compile(rf"(?:node |'|bypass |reusable ){re.escape(name)}(?:,? |'|$)")
        found = [index for index, line in enumerate(self.log) if name and named.search(line)]
        if found and found[0] and _COMPLAINT.search(self.log[found[0] - 1]):
            found.insert(0, found[0] - 1)
        return tuple(dict.fromkeys(self.log[index] for index in found))

    def lost(self) -> set[str]:
        """Paths of the nodes that some error names."""
        return {problem.node for problem in self.problems if problem.severity == ERROR and problem.node}

    def _problem(self, event: BootEvent, severity: str, said: tuple[str, ...]) -> Problem:
        rule = RULES[event.reason]
        consequence = rule.consequence or _CONSEQUENCE[event.effect]
        return Problem(
            code=event.reason,
            node=event.node,
            prop=event.property or "",
            what=rule.what + (f" ({event.detail})" if event.detail else ""),
            detail=event.detail,
            rule=source_at(rule.source, self.row),
            effect=event.effect,
            consequence=self._shared(event) if event.reason == "overlap" else consequence,
            severity=severity,
            said=said,
        )

    def _shared(self, event: BootEvent) -> str:
        """What became of two regions that overlap: only what exists is said to."""
        names = [text.partition(" ")[0] for text in event.detail.split(" overlaps with ")]
        areas = {path.rpartition("/")[2] for path in self.made}
        made = [name for name in names if name in areas]
        if len(made) == len(names):
            return RULES["overlap"].consequence
        return f"reported only: of the two {made[0] if made else 'none'} became an area"


def _refined(event: BootEvent, node: DeviceNode | None) -> BootEvent:
    """What boot cannot tell apart: a DMA pool that is meant as one, an area that no node asked for."""
    if event.reason == "not-reusable" and node is not None and node.property_read_bool("no-map"):
        return BootEvent(event.node, "plain-pool", EFFECT_NOTE, event.property, event.detail)
    if event.node is None and event.property == "reg":
        return replace(event, property="cma=")
    if event.node is None and event.reason == "no-room":
        return replace(event, reason="no-room-for-parameter")
    return event


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
        if cma.count
    ] + _regions_2010(machine)


def _regions_2010(machine: BootedMachine) -> list[Area]:
    """What stands in for areas on a machine of 2010, in the order in which they were registered."""
    framework, shift = machine.cma2010, machine.config.page_shift
    regions = reversed(framework.regions) if framework else ()
    return [Area(r.label, r.start >> shift, r.size >> shift, 0, False, None) for r in regions]


def _counted(report: Report, tree: DeviceTree) -> Report:
    """With how many children of /reserved-memory ask for an area, and how many do not; those that are on."""
    there = [node for node in regions(tree) if node.is_available()]
    asked = sum(map(wants_area, there))
    return replace(report, asked=asked, others=len(there) - asked)


def _unexplained(
    tree: DeviceTree, areas: Sequence[Area], named: set[str], reason: str
) -> Iterator[BootEvent]:
    """Regions without an area that nothing else names: none goes unsaid; ``reason`` where it is unknown."""
    made = {area.node for area in areas}
    parent = tree.reserved_memory()
    if parent is not None and parent.path in named:
        reason = "parent-ignored"
    for node in filter(wants_area, regions(tree)):
        if node.path in made or node.path in named:
            continue
        if node.is_available():
            yield BootEvent(node.path, reason, EFFECT_IGNORED, "compatible")
        else:
            yield BootEvent(node.path, "disabled", EFFECT_IGNORED, "status")


def examine(machine: BootedMachine, why: str) -> Report:
    """The report on a machine that booted; ``why``: how its architecture was chosen."""
    tree, areas, log = machine.tree, _areas(machine), machine.log.dmesg().splitlines()
    made = frozenset(area.node for area in areas if area.node)
    found = _Findings(tree, log, machine.abi.base, list(misspelt(tree)), made)
    found.add(found.spelled)
    found.add(machine.boot_events)
    seen = {region.node.path for region in machine.reserved_mem}
    found.add(event for event in misplaced(tree) if event.node not in seen)
    unknown = "no-area" if machine.cma2010 is None else "region-2010-ignored"
    found.add(_unexplained(tree, areas, {p.node for p in found.problems if p.node}, unknown))
    found.add(claims_overlap(tree))
    for node in filter(wants_area, regions(tree)):
        found.add(notes(node, tree, machine.cma.min_alignment, machine.abi.cma.name_max))
    found.add(cmdline_findings(machine))
    found.add(dangling(tree, found.lost() - made))
    found.add(out_of_reach(machine))
    shift = machine.config.page_shift
    return _counted(Report(machine.abi.release, machine.arch, why, areas, found.problems, log, shift), tree)


def examine_panic(tree: DeviceTree, kernel: str, arch: tuple[str, str], panic: KernelPanic) -> Report:
    """The report on a machine that did not survive its boot: no areas; what killed it comes first.

    ``kernel``: as asked for; ``arch``: the architecture and why.
    """
    abi, log = kernel_abi(kernel), panic.log.dmesg().splitlines()
    found = _Findings(tree, log, abi.base, list(misspelt(tree)))
    found.add(sorted(panic.events, key=lambda event: event.effect != EFFECT_PANIC))
    if not any(problem.effect == EFFECT_PANIC for problem in found.problems):
        found.add([BootEvent(None, "panic", EFFECT_PANIC, None, panic.reason)])
        found.problems.insert(0, found.problems.pop())
    found.add(found.spelled)
    found.add(misplaced(tree))
    return _counted(Report(abi.release, *arch, [], found.problems, log), tree)
