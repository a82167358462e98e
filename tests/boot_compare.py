"""Where a simulated boot differs from a recorded one: areas, CmaTotal, log, zones, page blocks.

Of a header's ``boot`` these lines are not compared:
* the memblock dump (``MEMBLOCK configuration``, `` memory size``, `` memory[``, `` reserved[``,
  ``memblock_reserve:``): output of memblock=debug with addresses inside of kernel functions; on x86_64 the
  machine is built from it;
* bad-page reports of overlapping areas on 5.10 (``flags:`` and the lines of the call trace);
* of ``Memory:`` what follows from the size of the kernel's image and of QEMU's own tree, which the headers do
  not have. Where both are known (the first recordings) the figures agree to 8 KiB (``image_differences``).

* ``software IO TLB: mapped``, which on machines of up to 2 GiB lies below the areas of each CPU: the headers
  do not have the CPUs.

A recorder kept the lines that it was told to keep, and each was told something else: a line of ours counts
only if lines that begin like it were kept anywhere in that set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from boot_support import RecordedBoot, transcripts

from cmafs.fs.namei import Syscalls
from cmafs.fs.tree import build_tree
from cmafs.init.machine import BootedMachine

_NOT_COMPARED = re.compile(
    r"MEMBLOCK configuration| memory size = | (memory|reserved)\[|_?_?memblock_reserve:|flags: 0x4"
    r"| init_cma_reserved_pageblock| cma_init_reserved_areas"
)

#: How the recorders chose lines.
_SELECTED = re.compile(
    r"[Cc]ma|CMA|[Rr]eserved mem|Zone ranges|^  (DMA32|Normal|HighMem) |^  node +0|  \w+ zone: |Memory: "
    r"|OVERLAP|HugeTLB: hugetlb_cma|Skipping dt"
)

_MEMORY = re.compile(r"Memory: (\d+)K/(\d+)K available \((.*)\)")
_AREA = re.compile(r"area (.*) base_pfn=(\d+) count=(\d+) order_per_bit=(\d+) used=(\d+) maxchunk=(\d+)")
_FILES = ("base_pfn", "count", "order_per_bit", "used", "maxchunk")
_SECTION = re.compile(
    r"IOMEM|MEMINFO|ZONEINFO|BUDDYINFO|PAGETYPEINFO|DTMODEL|CPUS|KERNELCMDLINE|SWIOTLB|BITMAP .*"
)


def differences(recorded: RecordedBoot, machine: BootedMachine) -> list[str]:
    """One line for each answer of the machine that is not the recorded one."""
    state = state_differences(recorded.script_output, Syscalls(build_tree(machine)))
    return [*state, *log_differences(recorded, machine)]


def state_differences(script_output: list[str], calls: Syscalls) -> list[str]:
    """Areas, zones, page blocks and bitmaps that are not as the script printed them."""
    sections = by_section(script_output)
    found = [*_areas(sections[""], calls)]
    if sections.get("ZONEINFO"):
        ours = calls.read_file("/proc/zoneinfo").decode().splitlines()
        found += _unequal("zone", zones(sections["ZONEINFO"]), zones(ours))
    if any(sections.get("PAGETYPEINFO", [])):
        ours = calls.read_file("/proc/pagetypeinfo").decode().splitlines()
        found += _unequal("page blocks", page_blocks(sections["PAGETYPEINFO"]), page_blocks(ours))
    for name in sections:
        if name.startswith("BITMAP "):
            path = f"/sys/kernel/debug/cma/{name.removeprefix('BITMAP ')}/bitmap"
            found += _unequal(name, " ".join(sections[name]).split(), calls.read_file(path).decode().split())
    return found


def by_section(lines: list[str]) -> dict[str, list[str]]:
    """What a boot script printed: the areas under "", the files under their titles."""
    sections: dict[str, list[str]] = {"": []}
    title = ""
    for line in lines:
        if _SECTION.fullmatch(line):
            title = line
        sections.setdefault(title, []).extend([line] if line != title else [])
    return sections


def _unequal(what: str, recorded: object, ours: object) -> list[str]:
    return [] if recorded == ours else [f"{what}: recorded {recorded}, ours {ours}"]


def _areas(lines: list[str], calls: Syscalls) -> Iterator[str]:
    recorded = {m[1]: [int(n) for n in m.groups()[1:]] for line in lines if (m := _AREA.fullmatch(line))}
    root = "/sys/kernel/debug/cma"
    ours = {}
    if "cma" in calls.listdir("/sys/kernel/debug"):
        for name in calls.listdir(root):
            ours[name] = [int(calls.read_file(f"{root}/{name}/{file}")) for file in _FILES]
    for name in sorted(recorded.keys() | ours.keys()):
        yield from _unequal(f"area {name}", recorded.get(name), ours.get(name))
    meminfo = calls.read_file("/proc/meminfo").decode()
    for label, figure in re.findall(r"^(CmaTotal|HighTotal): +(\d+) kB$", "\n".join(lines), re.M):
        found = re.search(rf"^{label}: +(\d+) kB$", meminfo, re.M)
        allowed = 8192 if label == "HighTotal" else 0
        if found is None or abs(int(found[1]) - int(figure)) > allowed:
            yield f"{label}: recorded {figure}, ours {found and found[1]}"


def zones(lines: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
    """(node, zone) -> where it is, how large, how much of it is CMA; those that have memory."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    figures: dict[str, str] = {}
    for line in lines:
        if match := re.match(r"Node (\d+), zone +(\S+)", line):
            figures = found.setdefault((match[1], match[2]), {})
        elif match := re.match(r" +(spanned|present|cma|start_pfn:) +(\d+)$", line):
            figures[match[1]] = match[2]
    return {zone: figures for zone, figures in found.items() if figures.get("present", "0") != "0"}


def page_blocks(lines: Iterable[str]) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(node, zone) -> page blocks in all, of CMA, and isolated. The other types depend on who runs."""
    found = {}
    names: list[str] = []
    for line in lines:
        if line.startswith("Number of blocks type"):
            names = line.split()[4:]
        elif names and (match := re.match(r"Node (\d+), zone +(\S+) +([\d ]+)$", line)):
            counts = dict(zip(names, map(int, match[3].split()), strict=True))
            figures = sum(counts.values()), counts.get("CMA", 0), counts.get("Isolate", 0)
            found[match[1], match[2]] = figures
    return found


def _beginning(line: str) -> str:
    """What lines of a kind begin with."""
    if line.startswith("  DMA32") and "zone:" not in line:
        return "DMA32"
    return " ".join(re.split(r"\d", line)[0].split()[:3])


@cache
def _kept(directory: str) -> frozenset[str]:
    found = transcripts(f"{directory}/*.jsonl.xz")
    return frozenset(_beginning(line) for recorded in found for line in recorded.header.get("boot", ()))


def selected(lines: list[str]) -> list[str]:
    """The lines that are compared; of a record only its first line."""
    first = (line.split("\n")[0] for line in lines if not _NOT_COMPARED.match(line))
    return [line for line in first if _SELECTED.search(line) and not line.startswith("Policy zone")]


def log_differences(recorded: RecordedBoot, machine: BootedMachine) -> Iterator[str]:
    """The lines of the log that were kept, and are not alike."""
    theirs, ours = selected(recorded.boot), selected(machine.log.lines())
    known = _kept(recorded.directory)
    ours = [line for line in ours if line in theirs or _beginning(line) in known]
    yield from _memory_lines(theirs, ours)
    theirs, ours = ([line for line in side if not _MEMORY.match(line)] for side in (theirs, ours))
    if theirs != ours:
        missing = [line for line in theirs if line not in ours]
        added = [line for line in ours if line not in theirs]
        yield f"log: missing {missing}, added {added}" if missing or added else "log: another order"


def _memory_lines(theirs: list[str], ours: list[str]) -> Iterator[str]:
    """What all of memory is, and how much of it is reserved for CMA: of every ``Memory:`` line."""
    for wanted, found in zip(_memory_figures(theirs), _memory_figures(ours), strict=False):
        if any(wanted[name] != found[name] for name in ("total", "cma-reserved")):
            yield f"Memory: recorded {wanted}, ours {found}"


def _memory_figures(lines: list[str]) -> list[dict[str, int]]:
    """KiB by what the line says of them."""
    found = []
    for line in lines:
        if match := _MEMORY.match(line):
            figures = {name: int(kib) for kib, name in re.findall(r"(\d+)K ([a-z -]+)", match[3])}
            found.append({"available": int(match[1]), "total": int(match[2]), "cma-reserved": 0, **figures})
    return found


def image_differences(recorded: RecordedBoot, machine: BootedMachine) -> Iterator[str]:
    """What the ``Memory:`` line says of a kernel whose image cmafs knows: those built from tinyconfig."""
    allowed = 0 if recorded.header["arch"] == "x86" else 8
    theirs, ours = _memory_figures(recorded.boot), _memory_figures(machine.log.lines())
    for wanted, found in zip(theirs, ours, strict=True):
        for name in wanted.keys() | found.keys():
            slack = allowed if name in ("available", "reserved") else 0
            if abs(wanted.get(name, 0) - found.get(name, 0)) > slack:
                yield f"Memory: {name}: recorded {wanted.get(name)}, ours {found.get(name)}"
