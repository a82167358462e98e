"""Every recorded boot through a mount: its areas and counters are the recorded ones, its other files the tables'.

What the boot printed, its zones and page blocks are compared with the recordings in t1_transcripts_boot.py;
here, that a mount shows the same: one boot, read in process and through a server forked from this process.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import replay
from replay_steps import Kernel, read_text

from cmafs.api import Machine
from cmafs.fs.namei import Syscalls
from cmafs.init.main import KernelPanic

PATHS = sorted(
    path for kind in ("cmdline", "dt", "cmd", "numa") for path in replay.TRANSCRIPTS.glob(f"*/{kind}-*")
)
_CMA = "/sys/kernel/debug/cma"
_AREA_FILES = ("base_pfn", "count", "order_per_bit", "used", "maxchunk")
_FILES = ("iomem", "meminfo", "zoneinfo", "buddyinfo", "pagetypeinfo", "cmdline")


def names(kernel: Kernel, directory: str) -> list[str]:
    """Sorted names; none where there is no such directory."""
    try:
        return sorted(kernel.listdir(directory))
    except FileNotFoundError:
        return []


def shown(kernel: Kernel) -> list[str]:
    """The script's lines on CMA, but for free pages, and the names in its two directories."""
    lines = []
    areas = [name for name in names(kernel, _CMA) if kernel.lstat(f"{_CMA}/{name}").st_mode & 0o40000]
    for name in areas:
        figures = " ".join(
            f"{file}={read_text(kernel, f'{_CMA}/{name}/{file}').strip()}" for file in _AREA_FILES
        )
        lines.append(f"area {name} {figures}")
    counted = (read_text(kernel, "/proc/meminfo") + read_text(kernel, "/proc/vmstat")).splitlines()
    return lines + [line for line in counted if line.startswith(("CmaTotal", "cma_"))]


def recorded_lines(transcript: replay.Transcript) -> list[str]:
    """The same lines of the recording, whose later sections are files as they stand."""
    first = transcript.script_output
    first = first[: first.index("IOMEM")] if "IOMEM" in first else first
    return [line for line in first if line.startswith(("area ", "CmaTotal", "cma_"))]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.name.split('.')[0]}")
def test_a_mount_shows_what_booted(path: Path, fuse_device: None) -> None:
    transcript = replay.load(path)
    try:
        machine = Machine(replay.boot_machine(transcript.header))
    except KernelPanic:
        assert transcript.script_output == []
        return
    tables = Syscalls(machine.root)
    with replay.MountedMachine(machine) as kernel:
        lines = shown(kernel)
        assert lines == shown(tables)
        for file in _FILES:
            assert read_text(kernel, f"/proc/{file}") == read_text(tables, f"/proc/{file}"), file
        assert read_text(kernel, "/sim/dmesg") == read_text(tables, "/sim/dmesg")
    assert lines == recorded_lines(transcript)
