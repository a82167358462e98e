"""Replay transcripts of real kernels (tests/transcripts/FORMAT.md) and say where cmafs answers otherwise.

    python -m tests.replay FILE_OR_DIRECTORY... [--mounted]
    CMAFS_TRANSCRIPTS=DIRECTORY python -m tests.replay

One line a transcript, its first differences below it; exit status 1 if there are any. ``--mounted`` replays
through a mount made by ``cmafs mount``, else the tables answer in process. Kinds: walk, exhaust, parse,
files, hugetlb-walk, and pins: its script's steps, with the recorded pages pinned through sim/control. Of a
file of another kind, named itself, whatever operations and log lines it has. What is compared is told in
``cmafs/replay/compare.py``; `cmafs compare` does the same for one file.
"""

from __future__ import annotations

import argparse
import lzma
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cmafs.cli.compare import boot_tables
from cmafs.replay import compare, transcript
from cmafs.replay.compare import PARKED, _filtered, agrees, compare_log, echo, prepare, read_text
from cmafs.replay.transcript import (
    Kernel,
    Transcript,
    expected,
    header_config,
    header_dts,
    machine_options,
    perform,
)

__all__ = [
    "PARKED",
    "Kernel",
    "Transcript",
    "_filtered",
    "agrees",
    "boot_tables",
    "compare_log",
    "echo",
    "expected",
    "header_config",
    "header_dts",
    "machine_options",
    "perform",
    "prepare",
    "read_text",
]

#: Kinds that are replayed.
KINDS = ("walk", "exhaust", "parse", "files", "hugetlb-walk", "pins")
TRANSCRIPTS = Path(__file__).resolve().parent / "transcripts"


class Mounted:
    """The calls of ``os``, with absolute paths below a mount point."""

    def __init__(self, mountpoint: str) -> None:
        self.mountpoint = mountpoint
        self.close, self.read, self.pread, self.write, self.lseek = (
            os.close, os.read, os.pread, os.write, os.lseek,
        )  # fmt: skip

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(os, name)
        return lambda path, *args: call(self.mountpoint + path, *args)


def load(path: Path) -> Transcript:
    """Read a .jsonl or .jsonl.xz."""
    opener: Callable[..., Any] = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt") as lines:
        return transcript.parse(lines, f"{path.parent.name}/{path.name.split('.jsonl')[0]}")


def find(sources: Iterable[str | Path]) -> Iterator[Path]:
    """The transcripts in files and directories, those of kinds that are replayed."""
    for source in map(Path, sources):
        if source.is_dir():
            found = sorted([*source.rglob("*.jsonl"), *source.rglob("*.jsonl.xz")])
            yield from (path for path in found if path.name.startswith(KINDS))
        else:
            yield source


def config_file(header: dict[str, Any], place: Path) -> str:
    """The option that gives the command a header's configuration, by a file below ``place`` or by name."""
    if "config" not in header:
        return "--config=tiny"
    file = place / "config"
    file.write_text("\n".join(header["config"]))
    return f"--config={file}"


class MountedMachine:
    """``with MountedMachine(header) as kernel:`` the machine of a header, mounted by the command."""

    def __init__(self, header: dict[str, Any]) -> None:
        self._header = header

    def __enter__(self) -> Mounted:
        self._directory = Path(tempfile.mkdtemp(prefix="cmafs-replay-"))
        self._mountpoint = self._directory / "mnt"
        self._mountpoint.mkdir()
        dts = self._directory / "machine.dts"
        dts.write_text(header_dts(self._header))
        config = config_file(self._header, self._directory)
        options = [f"--{name}={value}" for name, value in machine_options(self._header).items()]
        self._run("mount", f"--dts={dts}", config, *options)
        return Mounted(str(self._mountpoint))

    def __exit__(self, *_: object) -> None:
        self._run("umount")
        (self._directory / "machine.dts").unlink()
        (self._directory / "config").unlink(missing_ok=True)
        self._mountpoint.rmdir()
        self._directory.rmdir()

    def _run(self, *words: str) -> None:
        subprocess.run([sys.executable, "-m", "cmafs", *words, str(self._mountpoint)], check=True)


def replay(recorded: Transcript, kernel: Kernel, mounted: bool = False) -> list[str]:
    """Every difference between a transcript and a freshly booted machine."""
    return list(compare.differences(recorded, kernel, mounted))


def replay_file(path: Path, mounted: bool = False) -> list[str]:
    """Boot the machine of a transcript and replay it."""
    recorded = load(path)
    if not mounted:
        return replay(recorded, boot_tables(recorded.header))
    with MountedMachine(recorded.header) as kernel:
        return replay(recorded, kernel, mounted=True)


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
    sys.exit(main())
