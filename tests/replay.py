"""Replay transcripts of real kernels (tests/transcripts/FORMAT.md) and say where cmafs answers otherwise.

    python -m tests.replay FILE_OR_DIRECTORY... [--mounted]
    CMAFS_TRANSCRIPTS=DIRECTORY python -m tests.replay

One line a transcript, its first differences below it; exit status 1 if there are any. ``--mounted`` replays
through a mount made by ``cmafs mount``, else the tables answer in process. Kinds: walk, exhaust, parse,
files, hugetlb-walk, and those of replay_scripts.py: pins, xbusy, mem. Of a file of another kind, named
itself, whatever operations and log lines it has.

What is compared, and how strictly, says cmafs/replay/compare.py; besides:

* a real machine that parks more freed pages than ``LAG`` is named in ``PARKED``;
* a write of no bytes does not reach a mount (``docs/exceptions.md``): there a newline stands for it, which
  every kernel reads as the same number.
"""

from __future__ import annotations

import argparse
import errno
import lzma
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also as ``python -m tests.replay``

import replay_scripts
from replay_steps import Kernel, Mounted

from cmafs.api import Machine
from cmafs.cli.compare import boot_machine
from cmafs.fs.namei import Syscalls
from cmafs.replay.compare import LAG, compare_log, operation_differences, prepare, read_log
from cmafs.replay.transcript import Operation, Transcript, parse, perform

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


def load(path: Path) -> Transcript:
    """Read a .jsonl or .jsonl.xz."""
    opener: Callable[..., Any] = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt") as lines:
        return parse(lines, f"{path.parent.name}/{path.name.split('.jsonl')[0]}")


def find(sources: Iterable[str | Path]) -> Iterator[Path]:
    """The transcripts in files and directories, those of kinds that are replayed."""
    for source in map(Path, sources):
        if source.is_dir():
            found = sorted([*source.rglob("*.jsonl"), *source.rglob("*.jsonl.xz")])
            yield from (path for path in found if path.name.startswith(KINDS))
        else:
            yield source


# the machine


def config_file(header: dict[str, Any], place: Path) -> str:
    """The option that gives the command a header's configuration, by a file below ``place`` or by name."""
    if "config" not in header:
        return "--config=tiny"
    file = place / "config"
    file.write_text("\n".join(header["config"]))
    return f"--config={file}"


def boot_tables(header: dict[str, Any]) -> Syscalls:
    """The machine of a header, in process."""
    return boot_machine(header).syscalls


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
    return MountedMachine(boot_machine(header))


# comparison


def perform_mounted(kernel: Kernel, op: Operation) -> Operation:
    """The operation through a mount, where a newline stands for no bytes."""
    if op["op"] not in "WA" or op["data"]:
        return perform(kernel, op)
    got = perform(kernel, {**op, "data": "\n"})
    return {**got, "ret": min(got["ret"], 0)} if "ret" in got else got


def replay(
    transcript: Transcript,
    kernel: Kernel,
    mounted: bool = False,
    comparable: Callable[[Operation, Operation], Operation] = lambda op, outcome: outcome,
) -> list[str]:
    """Every difference between a transcript and a freshly booted machine.

    ``comparable`` makes of an operation and our outcome what is compared.
    """
    header = transcript.header
    prepare(kernel, header)
    kind = transcript.name.rpartition("/")[2]
    problems = replay_scripts.replay(kind, header, transcript.script_output, kernel)
    performed = partial(perform_mounted if mounted else perform, kernel)
    lag = PARKED.get(transcript.name, header.get("parked", LAG))
    problems += operation_differences(transcript, lambda op: comparable(op, performed(op)), lag)
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
