"""Every recorded boot through a mount: areas and counters are the recorded ones, other files the tables'.

What the boot printed, its zones and page blocks are compared with the recordings in t1_transcripts_boot.py;
here, that a mount shows the same: one boot, read in process and through a server forked from this process.
"""

from __future__ import annotations

import pytest
import replay
from boot_support import RecordedBoot, transcripts
from replay_steps import Kernel, read_text

from cmafs.api import Machine
from cmafs.fs.namei import Syscalls

_KINDS = ("cmdline", "dt", "cmd", "numa")
BOOTS = {
    found.name: found
    for kind in _KINDS
    for found in transcripts(f"*/{kind}-*.xz")
    if found.survived and (found.boot or found.header.get("dts"))
}
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


def recorded_lines(lines: list[str]) -> list[str]:
    """The same lines of the recording, whose later sections are files as they stand."""
    first = lines[: lines.index("IOMEM")] if "IOMEM" in lines else lines
    return [line for line in first if line.startswith(("area ", "CmaTotal", "cma_"))]


@pytest.mark.parametrize("recorded", BOOTS.values(), ids=BOOTS)
def test_a_mount_shows_what_booted(recorded: RecordedBoot, fuse_device: None) -> None:
    machine = Machine(recorded.machine())
    tables = Syscalls(machine.root)
    with replay.MountedMachine(machine) as kernel:
        lines = shown(kernel)
        assert lines == shown(tables) == recorded_lines(recorded.script_output)
        for file in _FILES:
            assert read_text(kernel, f"/proc/{file}") == read_text(tables, f"/proc/{file}"), file
        assert read_text(kernel, "/sim/dmesg") == read_text(tables, "/sim/dmesg")
