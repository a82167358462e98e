"""Transcripts: what one boot answered, in the format of tests/transcripts/FORMAT.md; `make oracle`."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import replay
from oracle import guest
from oracle.build import Kernel
from oracle.operations import Operation, encode, inputs

from cmafs.replay.compare import filtered
from cmafs.replay.transcript import Transcript, machine_options

#: Whose inputs are recorded again: sets of tests/transcripts, by architecture (and configuration).
INPUTS = {
    "arm64": ("6.12-arm64", "6.12-arm"),
    "arm64 defconfig": ("6.12-arm64-defconfig", "6.12-arm"),
    "arm": ("6.12-arm",),
    "x86_64": ("6.12",),
}
#: Kinds that a boot and the recorder's operations make up; those of a set for another architecture: only the
#: operations.
BOOTS, KINDS = ("cmdline", "cmd", "dt"), ("walk", "exhaust", "parse", "files", "hugetlb-walk")
_RAM_1G = (
    '/dts-v1/;\n/ { #address-cells = <2>; #size-cells = <2>; compatible = "linux,dummy-virt";\n'
    'memory@40000000 { device_type = "memory"; reg = <0x0 0x40000000 0x0 0x40000000>; };\nchosen { };\n};\n'
)


@dataclass(frozen=True)
class Case:
    """What is asked of a kernel."""

    name: str
    guest: guest.Guest
    operations: tuple[Operation, ...] = ()


def memory_bytes(text: str) -> int:
    """``header.mem``: 1G, 6144M."""
    return int(text[:-1]) << {"M": 20, "G": 30}[text[-1]]


def parked(state: list[str]) -> int:
    """Pages that per-CPU lists may hold, so that they are not free yet: what /proc/zoneinfo allows them."""
    limits = [re.match(r" +high(?:_max)?: +(\d+)$", line) for line in state]
    return sum(int(limit[1]) for limit in limits if limit)


def header(kernel: Kernel, case: Case, boot: guest.Boot) -> dict[str, Any]:
    """A transcript's header."""
    found = {
        "name": case.name,
        "kernel": boot.release or f"Image-{kernel.row}-{kernel.arch}",
        "arch": {"x86_64": "x86"}.get(kernel.arch, kernel.arch),
        "mem": f"{case.guest.memory >> 20}M",
        "cmdline": case.guest.cmdline,
        "config": list(kernel.config),
        "boot": boot.log or [],
        "qemu": f"-cpu {guest.cpu(kernel)} -smp {case.guest.cpus}",
        "recorder": "tests/oracle",
        "parked": max(replay.LAG, parked(boot.state)),
        "seconds": boot.seconds,
    }
    return {**found, "dts": case.guest.dts} if case.guest.dts else found


def transcript(kernel: Kernel, case: Case, boot: guest.Boot, name: str) -> Transcript:
    """A boot as a transcript; operations whose path was found nowhere are left out."""
    done = [
        {**op, **boot.outcomes[number]}
        for number, op in enumerate(case.operations)
        if number in boot.outcomes
    ]
    for op in done:
        if op["op"] == "R" and "out" in op:
            op["out"] = filtered(op["path"], op["out"])
    dmesg = [line for line in boot.dmesg if "cma" in line.lower()]
    survived = boot.state if boot.log is not None else []
    return Transcript(name, header(kernel, case, boot), done, dmesg, True, survived)


def lines(recorded: Transcript) -> Iterator[str]:
    """The lines of a .jsonl."""
    yield json.dumps({"header": recorded.header})
    yield from (json.dumps(op) for op in recorded.operations)
    if recorded.script_output:
        yield json.dumps({"script_output": recorded.script_output})
    yield json.dumps({"dmesg": recorded.dmesg})


def write(recorded: Transcript, path: Path) -> None:
    """Write a transcript."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(line + "\n" for line in lines(recorded))
    if path.suffix == ".xz":
        path.write_bytes(lzma.compress(text.encode()))
    else:
        path.write_text(text)


def record(kernel: Kernel, case: Case, name: str) -> Transcript:
    """Boot a kernel with a case; what it answered."""
    boot = guest.run(kernel, case.guest, encode(case.operations))
    return transcript(kernel, case, boot, name)


# what is recorded


def case_of(recorded: Transcript, arch: str) -> Case | None:
    """The inputs of a recorded transcript, for a machine of an architecture; None if they are not for it."""
    head, kind = recorded.header, recorded.name.rpartition("/")[2]
    theirs = machine_options(head)["arch"]
    boots = kind.startswith(BOOTS)
    if head.get("numa") or not kind.startswith((*BOOTS, *KINDS)) or (boots and theirs != arch):
        return None
    cmdline = head["cmdline"].strip()
    if arch == "x86_64" and "memblock=debug" not in cmdline:
        cmdline += " memblock=debug"
    dts = "" if arch == "x86_64" else head.get("dts") or _RAM_1G
    operations = tuple(inputs(op) for op in recorded.operations)
    machine = guest.Guest(memory_bytes(head["mem"]), cmdline, dts)
    return Case(kind, machine, operations)


def cases(arch: str, config: str, sets: tuple[str, ...] = ()) -> Iterator[Case]:
    """What is asked of every kernel: the inputs of the transcripts in the repository."""
    seen = set()
    for name in sets or INPUTS.get(f"{arch} {config}") or INPUTS[arch]:
        for path in sorted((replay.TRANSCRIPTS / name).glob("*.jsonl*")):
            case = case_of(replay.load(path), arch)
            if case and case.name not in seen:
                seen.add(case.name)
                yield case


def record_all(
    kernel: Kernel,
    wanted: list[Case],
    place: Path,
    record: Callable[[Kernel, Case, str], Transcript],
    compare: Callable[[Transcript], list[str]],
) -> dict[str, list[str]]:
    """Record every case below a directory, one line each; differences by name."""
    found = {}
    for case in wanted:
        path = place / f"{case.name}.jsonl"
        recorded = record(kernel, case, case.name)
        write(recorded, path)
        found[case.name] = compare(recorded)
        problems = found[case.name]
        print(f"{path}: {'ok' if not problems else f'{len(problems)} differences'}", flush=True)
        for problem in problems[:5]:
            print(f"    {problem}")
    return found
