"""The shell of the ``trace`` transcripts: as much of it as their scripts use, on the tables."""

from __future__ import annotations

import os
import re
from pathlib import Path

from replay import TRANSCRIPTS

from cmafs.fs.namei import Syscalls

_TIME = re.compile(r"(\[000\] \S)\S(\S+) +\d+\.\d{6}:")
_TASK = re.compile(r"^ +sh-\d+ +")
_PAGE = re.compile(r"page=( *\(\w*ptrval\w*\)|[0-9a-f]{16}| +\(null\))")


def plain(line: str) -> str:
    """A line without what differs from boot to boot: time, need-resched, pid, pointers; NULL stays."""
    line = _TASK.sub("sh-PID ", _TIME.sub(r"\1.\2 TIME:", line))
    return _PAGE.sub(lambda m: m[0] if set(m[1]) <= set(" 0(null)") else "page=POINTER", line)


class Shell:
    """Runs a script line by line; ``out`` is what it prints, errors among it."""

    def __init__(self, tables: Syscalls) -> None:
        self.tables = tables
        self.cwd = "/"
        self.variables: dict[str, str] = {}
        self.out: list[str] = []

    def path(self, name: str) -> str:
        return os.path.join(self.cwd, name)

    def cat(self, name: str) -> None:
        self.out += self.tables.read_file(self.path(name)).decode().splitlines()

    def run(self, script: str) -> list[str]:
        for line in script.splitlines():
            self.line(line)
        return self.out

    def line(self, line: str) -> None:
        for name, value in self.variables.items():
            line = line.replace(f"${name}", value)
        if line.startswith("for e in events/cma/*/;"):
            for event in sorted(self.tables.listdir(self.path("events/cma"))):
                if event not in ("enable", "filter"):
                    self.out.append(f"EVENT events/cma/{event}/")
                    self.cat(f"events/cma/{event}/format")
        elif match := re.fullmatch(r"echo (.*) > (\S+)", line):
            self.echo(match[1], match[2])
        elif match := re.fullmatch(r"(\w+)=\$PWD", line):
            self.variables[match[1]] = self.cwd
        elif match := re.fullmatch(r"\[ -e (\S+) \] \|\| cd (\S+)", line):
            self.cwd = self.cwd if match[1] in self.tables.listdir(self.cwd) else match[2]
        elif line.startswith("echo "):
            self.out.append(line[5:])
        elif line.startswith("cd "):
            self.cwd = line[3:]
        else:
            assert line.startswith("cat "), line
            for name in line.split()[1:]:
                self.cat(name)

    def echo(self, text: str, name: str) -> None:
        try:
            self.tables.write_file(self.path(name), f"{text}\n".encode())
        except OSError as error:
            self.out.append(f"sh: write error: {os.strerror(error.errno or 0)}")


def differences(recorded: list[str], ours: list[str]) -> list[str]:
    """The first lines that are not the same."""
    want, got = [plain(line) for line in recorded], [plain(line) for line in ours]
    if len(want) != len(got):
        return [f"{len(want)} lines recorded, {len(got)} here", *_first(want, got)]
    return _first(want, got)


def _first(want: list[str], got: list[str]) -> list[str]:
    return [f"recorded {w!r}, here {g!r}" for w, g in zip(want, got, strict=False) if w != g][:5]


def transcripts() -> list[Path]:
    """The ``trace`` transcripts; CMAFS_TRANSCRIPTS names a directory of others."""
    directory = Path(os.environ.get("CMAFS_TRANSCRIPTS", TRANSCRIPTS))
    return sorted(path for path in directory.rglob("trace-*.jsonl*"))
