"""Where cmafs answers otherwise than a recorded boot did: its areas, its log, its memory, its operations.

Free pages are not compared, nor what follows from them (``managed`` may differ by ``MANAGED`` pages: it counts
single pages that shift with the size of the kernel's image and of the whole tree, which headers do not have).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import boot_support
import replay

from cmafs.fs.namei import Syscalls
from cmafs.fs.tree import build_tree
from cmafs.init.main import KernelPanic, start_kernel
from cmafs.init.options import MachineOptions
from cmafs.lib.clock import ManualClock
from oracle.guest import command_line
from oracle.operations import CMA

MANAGED = 2048
#: The first seconds of a run: what is rate limited (ten lines in five seconds) is the same on a clock that stands.
RATELIMIT_SECONDS = 5

_SELECTED = re.compile(
    r"[Cc]ma: |CMA|[Rr]eserved mem|OVERLAP|overlaps|Zone ranges|  (DMA|DMA32|Normal|HighMem|Movable) +(\[|empty)"
    r"|Movable zone start|  Node \d+: |Early memory node|  node +\d+: |Initmem setup|hugetlb_cma|Skipping dt|Memory: "
    r"|Memory limited|vmalloc area is too|Truncating RAM|Ignoring RAM"
)
_NOT_SELECTED = re.compile(r" (memory|reserved)\[|memblock_|MEMBLOCK|(Kernel c|C)ommand line: | memory size = ")
_MEMORY = re.compile(r"Memory: \d+K/(\d+)K available \(.*?((?:, \d+K cma-reserved)?(?:, \d+K highmem)?)\)")
_AREA = re.compile(r"area (.*) base_pfn=(-?\d+) count=(-?\d+) order_per_bit=(-?\d+) used=(-?\d+) maxchunk=(-?\d+)")
_SECTION = re.compile(r"IOMEM|MEMINFO|ZONEINFO|BUDDYINFO|PAGETYPEINFO|BITMAP .*")
_NUMBERS = ("base_pfn", "count", "order_per_bit", "used", "maxchunk")

Figures = dict[str, Any]


def sections(lines: Sequence[str]) -> dict[str, list[str]]:
    """The parts of a boot's script_output by title; ``""``: what stands before the first."""
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line in lines:
        if _SECTION.fullmatch(line):
            title = line
            found[title] = []
        else:
            found[title].append(line)
    return found


def selected(lines: Sequence[str]) -> list[str]:
    """The boot's lines that are compared; of ``Memory:`` what does not count single pages."""
    found = []
    for line in (line for record in lines for line in record.split("\n")):
        if _SELECTED.search(line) and not _NOT_SELECTED.match(line):
            memory = _MEMORY.match(line)
            found.append(f"Memory: of {memory[1]}K{memory[2]}" if memory else line.rstrip())
    return found


def zones(text: Sequence[str]) -> Figures:
    """Of /proc/zoneinfo, the zones that have memory."""
    found: dict[str, dict[str, int]] = {}
    zone: dict[str, int] = {}
    for line in text:
        head = re.match(r"Node (\d+), zone +(\S+)", line)
        figure = re.match(r" +(spanned|present|managed|cma|start_pfn): *(\d+)$|^ +(spanned|present|managed|cma) +(\d+)$", line)
        if head:
            zone = found.setdefault(f"node {head[1]} {head[2]}", {})
        elif figure:
            zone[figure[1] or figure[3]] = int(figure[2] or figure[4])
    return {name: one for name, one in found.items() if one.get("present")}


def blocks(text: Sequence[str]) -> Figures:
    """Of /proc/pagetypeinfo, the page blocks of each zone: CMA's, isolated ones, all of them."""
    found, head = {}, None
    for line in text:
        if line.startswith("Number of blocks type"):
            head = line.split()[4:]
        row = re.match(r"Node (\d+), zone +(\S+) +([\d ]+)$", line)
        if head and row:
            numbers = dict(zip(head, map(int, row[3].split()), strict=True))
            some = {name: numbers[name] for name in ("CMA", "Isolate") if name in numbers}
            found[f"node {row[1]} {row[2]}"] = {**some, "all": sum(numbers.values())}
    return found


def system_ram(text: Sequence[str]) -> list[str]:
    """The banks in /proc/iomem."""
    return [line for line in text if line.endswith(" : System RAM")]


def kib(text: Sequence[str], name: str) -> int | None:
    """A line of /proc/meminfo."""
    for line in text:
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return None


# the machine


def options(header: dict[str, Any]) -> MachineOptions:
    """The machine of a header, as cmafs is told it."""
    cmdline = command_line(replay.machine_options(header)["arch"], header["cmdline"])
    words = {**replay.machine_options(header), "cmdline": cmdline}
    return MachineOptions(**words, config=tuple(replay.header_config(header)))


def boot(header: dict[str, Any]) -> tuple[Syscalls, list[str]]:
    """The tables of a header's machine, and its log. Raises KernelPanic."""
    tree = boot_support.Transcript("", header, header["boot"]).tree()
    machine = start_kernel(tree, options(header), ManualClock())
    return Syscalls(build_tree(machine)), machine.log.lines()


def _text(calls: Syscalls, path: str) -> list[str]:
    try:
        return calls.read_file(path).decode("latin-1").splitlines()
    except OSError as error:
        return [f"errno {error.errno}"]


def areas_of(calls: Syscalls) -> Figures:
    """The areas as debugfs shows them."""
    try:
        names = calls.listdir(CMA)
    except OSError:
        return {}
    number = {name: [_text(calls, f"{CMA}/{name}/{file}")[0] for file in _NUMBERS] for name in names}
    return {name: " ".join(found) for name, found in number.items()}


# comparison


def _differing(what: str, theirs: Figures, ours: Figures) -> Iterator[str]:
    for name in sorted({*theirs, *ours}):
        if theirs.get(name) != ours.get(name):
            yield f"{what} {name}: recorded {theirs.get(name)}, here {ours.get(name)}"


def compare_areas(state: dict[str, list[str]], calls: Syscalls) -> Iterator[str]:
    """Names, places, sizes, ``used``, ``maxchunk`` and bitmaps."""
    theirs = {m[1]: " ".join(m.groups()[1:]) for line in state[""] if (m := _AREA.fullmatch(line))}
    ours = areas_of(calls)
    yield from _differing("area", theirs, ours)
    for name in theirs.keys() & ours.keys():
        recorded = state.get(f"BITMAP {name}")
        if recorded and recorded != _text(calls, f"{CMA}/{name}/bitmap"):
            yield f"bitmap {name}: differs"


def compare_log(theirs: Sequence[str], ours: Sequence[str]) -> Iterator[str]:
    """Selected lines of the boot, in their order."""
    for line in difflib.unified_diff(selected(theirs), selected(ours), n=0, lineterm=""):
        if line[0] in "+-" and line[:3] not in ("+++", "---"):
            yield f"boot {'recorded' if line[0] == '-' else 'here'}: {line[1:]}"


def compare_memory(state: dict[str, list[str]], calls: Syscalls) -> Iterator[str]:
    """Zones, page blocks, banks, and the totals of /proc/meminfo."""
    theirs, ours = zones(state.get("ZONEINFO", [])), zones(_text(calls, "/proc/zoneinfo"))
    for name in theirs.keys() & ours.keys():
        managed = [one[name].pop("managed", 0) for one in (theirs, ours)]
        if abs(managed[0] - managed[1]) > MANAGED:
            yield f"managed {name}: recorded {managed[0]}, here {managed[1]}"
    yield from _differing("zone", theirs, ours)
    recorded = blocks(state.get("PAGETYPEINFO", []))
    yield from _differing("page blocks", recorded, blocks(_text(calls, "/proc/pagetypeinfo")) if recorded else {})
    memory = _text(calls, "/proc/meminfo")
    for name in ("CmaTotal", "HugePages_Total"):
        figures = kib(state.get("MEMINFO", []), name), kib(memory, name)
        if figures[0] != figures[1]:
            yield f"{name}: recorded {figures[0]}, here {figures[1]}"
    banks = system_ram(state.get("IOMEM", [])), system_ram(_text(calls, "/proc/iomem"))
    if banks[0] and banks[0] != banks[1]:
        yield f"iomem: recorded {banks[0]}, here {banks[1]}"


def compare(transcript: replay.Transcript) -> list[str]:
    """Every difference between a recorded boot with its operations and cmafs."""
    header, survived = transcript.header, bool(transcript.script_output)
    try:
        calls, log = boot(header)
    except KernelPanic as panic:
        return [f"panic here: {panic.reason}"] if survived else []
    if not survived:
        return ["recorded: the kernel did not survive its boot"]
    state = sections(transcript.script_output)
    problems = [*compare_areas(state, calls), *compare_log(header["boot"], log), *compare_memory(state, calls)]
    if header.get("seconds", 0) > RATELIMIT_SECONDS:
        calm = replace(transcript, dmesg=[])
        return problems + [p for p in replay.replay(calm, calls) if not p.startswith("log")]
    return problems + replay.replay(transcript, calls)


def signature(problem: str) -> str:
    """A difference without its figures: the same cause has the same one, more often than not."""
    text = re.sub(r"operation \d+ \{'op': '(\w)', 'path': '[^']*/([^'/]+)'.*?\}", r"operation \1 \2", problem)
    text = re.sub(r"(area|bitmap|zone|page blocks|managed) .*?:", r"\1:", text)
    text = re.sub(r"log line \d+", "log line", text)
    return re.sub(r"(0x)?[0-9a-f]*\d[0-9a-f]*", "N", text)[:110]


def load(path: Path) -> replay.Transcript:
    """A transcript or case file."""
    return replay.load(path)
