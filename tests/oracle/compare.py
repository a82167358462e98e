"""Where cmafs answers otherwise than a recorded boot did: its state after boot, its log, its operations.

The state is compared as ``boot_compare`` does, operations and what they log as ``replay`` does. Of the boot's
log more lines are compared than there, because the recorder keeps all of it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import boot_support
import replay
from boot_compare import state_differences
from oracle import queries, tracing

from cmafs.fs.namei import Syscalls
from cmafs.fs.tree import build_tree
from cmafs.lib.panic import KernelPanic
from cmafs.replay.transcript import Operation, Transcript

#: The first seconds of a run: what is rate limited (ten lines in five seconds) is as on a clock that stands.
RATELIMIT_SECONDS = 5

_SELECTED = re.compile(
    r"[Cc]ma: |CMA|[Rr]eserved mem|OVERLAP|overlaps|Zone ranges"
    r"|  (DMA|DMA32|Normal|HighMem|Movable) +(\[|empty)|Movable zone start|  Node \d+: |Early memory node"
    r"|  node +\d+: |Initmem setup|hugetlb_cma|Skipping dt|Memory: "
    r"|cra(sh|hs)kernel|Memory limited|vmalloc area is too|Truncating RAM|Ignoring RAM|^Memory value expected"
)
#: Besides the memblock dump: a node that ``mem=`` leaves without memory (docs/exceptions.md).
_NOT_SELECTED = re.compile(
    r" (memory|reserved)\[|memblock_|MEMBLOCK|(Kernel c|C)ommand line: | memory size = "
    r"|NUMA: Initmem setup node \d+ \[<memory-less|Initmem setup node \d+ as memoryless"
)
_MEMORY = re.compile(r"Memory: \d+K/(\d+)K available \(.*?((?:, \d+K cma-reserved)?(?:, \d+K highmem)?)\)")
_NUMBER = re.compile(r"(0x)?[0-9a-f]*\d[0-9a-f]*")


def selected(lines: Sequence[str]) -> list[str]:
    """The boot's lines that are compared; of ``Memory:`` what does not count single pages."""
    found = []
    for line in (line for record in lines for line in record.split("\n")):
        if _SELECTED.search(line) and not _NOT_SELECTED.match(line):
            memory = _MEMORY.match(line)
            found.append(f"Memory: of {memory[1]}K{memory[2]}" if memory else line.rstrip())
    return found


def log_differences(theirs: Sequence[str], ours: Sequence[str]) -> Iterator[str]:
    """Selected lines of the boot, in their order."""
    for line in difflib.unified_diff(selected(theirs), selected(ours), n=0, lineterm=""):
        if line[0] in "+-" and line[:3] not in ("+++", "---"):
            yield f"boot {'recorded' if line[0] == '-' else 'here'}: {line[1:]}"


def comparable(op: Operation, outcome: Operation) -> Operation:
    """Of an outcome what does not follow from the rest of that kernel."""
    return queries.comparable(outcome) if op["path"] == queries.CONTROL else tracing.comparable(op, outcome)


def operation_differences(transcript: Transcript, calls: Syscalls) -> list[str]:
    """Operations, and what they logged if they were done before a rate limit let lines through again."""
    operations = [comparable(op, op) for op in transcript.operations]
    dmesg = [line for line in transcript.dmesg if not line.startswith("tracefs: ")]  # a call site of its own
    transcript = replace(transcript, operations=operations, dmesg=dmesg)
    if transcript.header["seconds"] <= RATELIMIT_SECONDS:
        return replay.replay(transcript, calls, comparable=comparable)
    problems = replay.replay(replace(transcript, dmesg=[]), calls, comparable=comparable)
    return [problem for problem in problems if not problem.startswith("log")]


def compare(transcript: Transcript) -> list[str]:
    """Every difference between a recorded boot with its operations and cmafs."""
    header, state = transcript.header, transcript.script_output
    recorded = boot_support.RecordedBoot(transcript)
    if not recorded.survived and not header["boot"] and "dts" not in header:
        return ["recorded: the kernel did not survive its boot, and said nothing of its machine"]
    try:
        machine = recorded.machine()
    except KernelPanic as panic:
        return [f"panic here: {panic.reason}"] if recorded.survived else []
    if not recorded.survived:
        return ["recorded: the kernel did not survive its boot"]
    calls = Syscalls(build_tree(machine))
    problems = [*state_differences(state, calls), *log_differences(header["boot"], machine.log.lines())]
    if header["seconds"] is None:
        return [*problems, "recorded: the kernel did not survive the operations"]
    return problems + operation_differences(transcript, calls)


def signature(problem: str) -> str:
    """A difference without its figures: the same cause has the same one, more often than not."""
    area = re.match(r"area .*: recorded (.*), ours (.*)", problem)
    if area:
        theirs, ours = (side.strip("[]").split(", ") for side in area.groups())
        names = ("base_pfn", "count", "order_per_bit", "used", "maxchunk")
        known = len(theirs) == len(ours) == len(names)
        differing = [name for name, a, b in zip(names, theirs, ours, strict=False) if a != b] if known else []
        return f"area: {' '.join(differing) or ('none here' if ours == ['None'] else 'none recorded')}"
    text = re.sub(r"operation \d+ \{'op': '(\w)', 'path': '[^']*/([^'/]+)'.*?\}", r"operation \1 \2", problem)
    text = re.sub(r"^(BITMAP|zone|page blocks).*?: recorded.*", r"\1", text)
    text = re.sub(r"log line \d+", "log line", re.sub(r"^panic here: area .*?:", "panic here: area:", text))
    return _NUMBER.sub("N", text)[:110]
