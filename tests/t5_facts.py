"""The ``facts`` transcripts: names, modes and formats of a kernel's files, by a real shell on a mount.

Compared section by section. Names are compared as words, in order of the alphabet, since the recorded busybox
lays them out in columns and words an error differently. Of what cmafs has not, only that it is no more than
the kernel has: files of tracefs and of /sys/kernel/mm, the file ``trigger`` of an event, events of compaction
(docs/exceptions.md). DirectMap1G is there or not with the CPU.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import replay

PATHS = sorted(replay.TRANSCRIPTS.glob("*/facts*"))

#: Sections of names, of which cmafs has some.
_SOME = ("sysfs mm", "tracing dir", "events")
_NOT_COMPARED = re.compile(r"CmaFree|print-parent|sh: write error|ls: |/events/cma/\w+//format:ID")


def sections(lines: Iterable[str]) -> dict[str, list[str]]:
    """Lines by the ``##`` before them, what differs between boots made equal."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("## "):
            current = found.setdefault(re.sub(r" /sys\S*", "", line[3:]), [])
        elif not _NOT_COMPARED.match(line):
            text = re.sub(r"page=P *\(\w*ptrval\w*\)", "page=P", line.replace(" DirectMap1G:", "").rstrip())
            current.append(re.sub(r"(\[000\] \S)\S(\S+) +TS", r"\1.\2 TS", text))
    return {name: [line for line in section if line] for name, section in found.items()}


def words(lines: list[str]) -> list[str]:
    return sorted(word for line in lines for word in line.split())


def split(lines: list[str], mark: str) -> tuple[list[str], list[str]]:
    """Lines before the first that begins with ``mark``, and from it on."""
    at = next((number for number, line in enumerate(lines) if line.startswith(mark)), len(lines))
    return lines[:at], lines[at:]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_names_modes_and_formats(path: Path, fuse_device: None) -> None:
    recorded = replay.load(path)
    with replay.mounted_machine(recorded.header) as kernel:
        shell = ["sh", "-c", f"R={kernel.mountpoint}\n{recorded.header['script']}\nexit 0"]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=True)
    want = sections(recorded.script_output)
    got = sections(done.stdout.replace(kernel.mountpoint, "").splitlines())
    assert got.keys() == want.keys()
    for name, theirs in want.items():
        ours = got[name]
        if name == "debugfs tree":
            files = [[line for line in lines if line.startswith("/")] for lines in (ours, theirs)]
            assert files[0] == files[1]
            assert words(ours) == words(theirs)
        elif name in _SOME:
            (names, ours), (known, theirs) = split(ours, "EVENT"), split(theirs, "EVENT")
            assert set(words(names)) <= set(words(known)), name
            assert ours == [line.replace(" trigger", "").replace(" hist", "") for line in theirs], name
        else:
            assert ours == theirs, name


def test_there_are_facts_of_every_row_that_has_no_sources() -> None:
    assert {path.parent.name for path in PATHS} == {"4.4", "4.15", "4.19", "5.4", "5.15", "6.6", "6.18"}
