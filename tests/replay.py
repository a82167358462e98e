"""Replay transcripts of real kernels (tests/transcripts/FORMAT.md) and say where cmafs answers otherwise.

    python -m tests.replay FILE_OR_DIRECTORY... [--mounted]
    CMAFS_TRANSCRIPTS=DIRECTORY python -m tests.replay

One line a transcript, its first differences below it; exit status 1 if there are any. ``--mounted`` replays
through a mount made by ``cmafs mount``, else the tables answer in process. Kinds: walk, exhaust, parse,
files, hugetlb-walk, and those of replay_scripts.py: pins, xbusy, mem. Of a file of another kind, named
itself, whatever operations and log lines it has.

What is compared:

* every outcome field of every operation, byte for byte. Only ``nr_free_cma`` and ``CmaFree`` may differ
  by at most ``LAG`` pages (``PARKED`` where a transcript is named there): a real machine parks freed pages
  on per-CPU lists until an allocation drains them, ours does so at boot only (7.2);
* the log from the end of boot on, lines with ``cma`` in them: the recorded ones are the end of ours. Unless
  they fill the recorder's 128 KiB they are all of ours. A hashed pointer equals ``(____ptrval____)``, and two
  recorded hashes are equal exactly where ours are;
* a write of no bytes does not reach a mount (``docs/exceptions.md``): there a newline stands for it, which
  every kernel reads as the same number.
"""

from __future__ import annotations

import argparse
import errno
import json
import lzma
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also as ``python -m tests.replay``

import replay_scripts
from replay_steps import Kernel, Mounted, Operation, expected, perform

from cmafs.api import Machine
from cmafs.fs.namei import Syscalls
from cmafs.init.machine import BootedMachine
from cmafs.lib.kconfig import FileLine
from cmafs.replay.compare import (
    LAG,
    agrees,
    compare_log,
    difference,
    filtered,
    page_kib,
    prepare,
    read_log,
)
from cmafs.replay.transcript import MEMORY_REPORT

#: Kinds that are replayed.
KINDS = ("walk", "exhaust", "parse", "files", "hugetlb-walk", "pins", "xbusy", "mem")
TRANSCRIPTS = Path(__file__).resolve().parent / "transcripts"

#: Where one free of the whole area is the last step, so that nothing drains the lists: from 5.14 on they hold
#: as much as the zone's low watermark (mm/page_alloc.c:zone_highsize()@v5.14). khugepaged has made that 7040
#: pages in these guests: 1.25 times 11 page blocks (mm/khugepaged.c:set_recommended_min_free_kbytes()@v6.1).
PARKED = {
    "5.15/exhaust-1-16M": 4095,
    "6.1/exhaust-1-16M": 4095,
    "6.1/exhaust-2-64M": 6366,
    "6.6/exhaust-1-16M": 4095,
    "6.12-arm/walk-301-16M": 1284,
    "6.12-arm64-64k/parse-404-512M": 3169,
    "6.18/exhaust-1-16M": 4095,
}
_RANGE = re.compile(r"^ (memory|reserved)\[0x[0-9a-f]+\]\t?\s*\[0x([0-9a-f]+)-0x([0-9a-f]+)\]")
_NODE_RANGE = re.compile(r"^  (node) +\d+: \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]")


@dataclass
class Transcript:
    """One recorded boot."""

    path: Path
    header: dict[str, Any]
    operations: list[Operation] = field(default_factory=list)
    dmesg: list[str] = field(default_factory=list)
    script_output: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """``<release>/<kind>-<n>…``"""
        return f"{self.path.parent.name}/{self.path.name.split('.jsonl')[0]}"


def load(path: Path) -> Transcript:
    """Read a .jsonl or .jsonl.xz."""
    opener: Callable[..., Any] = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt") as lines:
        objects = [json.loads(line) for line in lines]
    transcript = Transcript(path, objects[0]["header"])
    for one in objects[1:]:
        if "op" in one:
            transcript.operations.append(one)
        transcript.dmesg += [line for line in one.get("dmesg", []) if not MEMORY_REPORT.match(line)]
        transcript.script_output += one.get("script_output", [])
    return transcript


def find(sources: Iterable[str | Path]) -> Iterator[Path]:
    """The transcripts in files and directories, those of kinds that are replayed."""
    for source in map(Path, sources):
        if source.is_dir():
            found = sorted([*source.rglob("*.jsonl"), *source.rglob("*.jsonl.xz")])
            yield from (path for path in found if path.name.startswith(KINDS))
        else:
            yield source


# the machine


def header_dts(header: dict[str, Any]) -> str:
    """A device tree with the memory and the reservations that memblock=debug showed; without it, the
    memory of the nodes, nothing of which was reserved.
    """
    pairs, reserves = [], []
    dumped = any(_RANGE.match(line) for line in header["boot"])
    for line in header["boot"]:
        match = (_RANGE if dumped else _NODE_RANGE).match(line)
        if not match:
            continue
        start, size = int(match[2], 16), int(match[3], 16) - int(match[2], 16) + 1
        if match[1] != "reserved":
            cells = " ".join(f"{n >> 32:#x} {n & 0xFFFFFFFF:#x}" for n in (start, size))
            pairs.append(cells)  # dumped twice on some kernels, which does no harm
        elif header["arch"] == "x86":  # on arm64 the dump is of the time after CMA was placed
            reserves.append(f"/memreserve/ {start:#x} {size:#x};")
    root = "#address-cells = <2>; #size-cells = <2>;"
    memory = f'memory {{ device_type = "memory"; reg = <{" ".join(pairs)}>; }};'
    return "\n".join(["/dts-v1/;", *reserves, "/ {", root, memory, "chosen { };", "};", ""])


def machine_options(header: dict[str, Any]) -> dict[str, str]:
    """Kernel, architecture and command line of a recorded boot."""
    arch = {"x86": "x86_64"}.get(header["arch"], header["arch"])
    release = re.search(r"\d+\.\d+(\.\d+)?", header["kernel"])  # sometimes inside the name of an image
    assert release is not None
    return {"kernel": release[0], "arch": arch, "cmdline": header["cmdline"]}


def config_file(header: dict[str, Any], place: Path) -> str:
    """The option that gives the command a header's configuration, by a file below ``place`` or by name."""
    if "config" not in header:
        return "--config=tiny"
    file = place / "config"
    file.write_text("\n".join(header["config"]))
    return f"--config={file}"


def header_config(header: dict[str, Any]) -> list[str]:
    """The configuration of a recorded boot: its lines, or that of the first recordings."""
    return [FileLine(line) for line in header["config"]] if "config" in header else ["tiny"]


def boot_machine(header: dict[str, Any]) -> BootedMachine:
    """The machine of a header, on a clock that stands still."""
    from cmafs.init.main import start_kernel
    from cmafs.init.options import MachineOptions
    from cmafs.lib.clock import ManualClock
    from cmafs.of import fdt

    options = machine_options(header)
    with tempfile.NamedTemporaryFile("w", suffix=".dts") as dts:
        dts.write(header.get("dts") or header_dts(header))
        dts.flush()
        tree = fdt.load(dts.name)
    boot = MachineOptions(**options, config=tuple(header_config(header)))
    return start_kernel(tree, boot, ManualClock())


def boot_tables(header: dict[str, Any]) -> Syscalls:
    """The machine of a header, in process."""
    return Syscalls(Machine(boot_machine(header)).root)


class MountedMachine:
    """``with MountedMachine(machine) as kernel:`` a booted machine, mounted as the command does it.

    The server is forked from this process, which has booted it: no interpreter starts.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __enter__(self) -> Mounted:
        from cmafs.mount import server

        self._mountpoint = tempfile.mkdtemp(prefix="cmafs-replay-")
        self._server = server.spawn(self._machine, self._mountpoint, {})
        return Mounted(self._mountpoint)

    def __exit__(self, *_: object) -> None:
        os.kill(self._server, signal.SIGTERM)
        os.waitpid(self._server, 0)
        os.rmdir(self._mountpoint)


def mounted_machine(header: dict[str, Any]) -> MountedMachine:
    """The machine of a header, mounted while the context lasts."""
    return MountedMachine(Machine(boot_machine(header)))


# comparison


def perform_mounted(kernel: Kernel, op: Operation) -> Operation:
    """The operation through a mount, where a newline stands for no bytes."""
    if op["op"] not in "WA" or op["data"]:
        return perform(kernel, op)
    got = perform(kernel, {**op, "data": "\n"})
    return {**got, "ret": min(got["ret"], 0)} if "ret" in got else got


def replay(transcript: Transcript, kernel: Kernel, mounted: bool = False) -> list[str]:
    """Every difference between a transcript and a freshly booted machine."""
    prepare(kernel, transcript.header)
    problems = replay_scripts.replay(
        transcript.path.name, transcript.header, transcript.script_output, kernel
    )
    for number, op in enumerate(transcript.operations):
        got = perform_mounted(kernel, op) if mounted else perform(kernel, op)
        if "out" in got and op["op"] == "R":
            got["out"] = filtered(op["path"], got["out"])
        want = expected(op)
        lag = PARKED.get(transcript.name, transcript.header.get("parked", LAG))
        if not agrees(op, want, got, lag, page_kib(transcript.header)):
            problems.append(difference(number, op, got))
    if transcript.script_output[-1:] == ["Killed"]:  # with the script, before the log was read
        return problems
    return problems + compare_log(transcript.dmesg, read_log(kernel))


def replay_file(path: Path, mounted: bool = False) -> list[str]:
    """Boot the machine of a transcript and replay it."""
    transcript = load(path)
    if not mounted:
        return replay(transcript, boot_tables(transcript.header))
    with mounted_machine(transcript.header) as kernel:
        return replay(transcript, kernel, mounted=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Replay transcripts of real kernels.")
    parser.add_argument("source", nargs="*", default=[os.environ.get("CMAFS_TRANSCRIPTS", str(TRANSCRIPTS))])
    parser.add_argument("--mounted", action="store_true", help="through a mount instead of the tables")
    options = parser.parse_args()
    failed = 0
    for path in find(options.source):
        problems = replay_file(path, options.mounted)
        failed += bool(problems)
        print(f"{path}: {'ok' if not problems else f'{len(problems)} differences'}", flush=True)
        for problem in problems[:5]:
            print(f"    {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    assert errno.ENOMEM  # the transcripts' numbers are Linux's
    sys.exit(main())
