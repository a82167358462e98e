"""The ``pressure`` transcripts through a mount: tasks of sim/control in place of files on tmpfs."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import replay
from replay_steps import Kernel, echo, read_text

PATHS = sorted(replay.TRANSCRIPTS.glob("*/pressure-*"))
_STATE = re.compile(r"(start|file\d+) MemFree=(\d+) CmaFree=(\d+) ")
_ALLOC = re.compile(r"alloc (\d+) rc=(\d)")


class Pressed:
    """A mounted machine under the script of a transcript."""

    def __init__(self, kernel: Kernel, area: str) -> None:
        self.kernel = kernel
        self.area = area
        self.tasks: list[str] = []

    def meminfo(self) -> dict[str, int]:
        """KiB."""
        lines = read_text(self.kernel, "/proc/meminfo").splitlines()
        return {line.split(":")[0]: int(line.split()[1]) for line in lines}

    def fill(self, mem_free: int) -> dict[str, int]:
        """One more file, until MemFree is as recorded; meminfo afterwards."""
        more = self.meminfo()["MemFree"] - mem_free
        if more > 0:
            self.tasks.append(f"file{len(self.tasks)}")
            assert self.echo("/sim/control", f"spawn {self.tasks[-1]} tmpfs {more}K") == 0
        return self.meminfo()

    def echo(self, path: str, text: str) -> int:
        """The errno."""
        return echo(self.kernel, path, f"{text}\n")

    def verify(self) -> str:
        return read_text(self.kernel, "/sim/verify")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.name.split('.')[0]}")
def test_a_mount_under_pressure(path: Path, fuse_device: None) -> None:
    transcript = replay.load(path)
    directory = re.search(r"cd (\S+)", transcript.header["script"])
    assert directory is not None
    with replay.mounted_machine(transcript.header) as kernel:
        machine = Pressed(kernel, directory[1])
        start = machine.meminfo()
        for line in transcript.script_output:
            state, alloc = _STATE.match(line), _ALLOC.match(line)
            if state:
                now = machine.fill(int(state[2]))
                if state[1] != "start":
                    assert now["MemFree"] == int(state[2]), line
                assert abs(now["CmaFree"] - int(state[3])) <= start["CmaTotal"] * 0.03, line
            elif alloc:
                failed = machine.echo(f"{machine.area}/alloc", alloc[1])
                assert failed == (errno.ENOMEM if alloc[2] == "1" else 0), line
            assert machine.verify() == "ok\n", line
        for name in machine.tasks:
            assert machine.echo("/sim/control", f"kill {name}") == 0
        assert machine.echo(f"{machine.area}/free", "1000000") == 0
        assert machine.meminfo() == start
        assert machine.verify() == "ok\n"
