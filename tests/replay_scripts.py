"""The recorded scripts of the kinds pins, xbusy and mem, step by step: what they would print here.

What other programs of the guest did is taken from the recording, since it follows from what they were:
which pages ``pinner`` held, how much memory a hog or a file took (MemFree afterwards), and that the
out-of-memory killer took a task (``Killed``: cmafs has none, docs/exceptions.md). Before 5.8, CMA serves
other memory only once all else is gone: there the killer took several attempts to pin a page before one had
it, and its reports stand in the log before the first line of CMA's own.
"""

from __future__ import annotations

import re
from typing import Any

from replay_steps import Kernel, echo, read_text

_OFFSET = re.compile(r"pinned offset (\d+)")
_DIRECTORY = re.compile(r"cd (\S+?);")
_LOOP = re.compile(r"for n in ([-0-9 ]+);")
_STAMP = re.compile(r"^\[ *\d+\.\d{6}\] ")
_NO_MEMORY = "sh: write error: Cannot allocate memory"


def replay(kind: str, header: dict[str, Any], recorded: list[str], kernel: Kernel) -> list[str]:
    """Every difference between what a script printed and its steps here; ``kind``: the transcript's file."""
    if kind.startswith(("pins", "xbusy")):
        got = pins(kernel, header["script"], recorded)
    elif kind.startswith("mem"):
        return Memory(kernel, recorded).problems()
    else:
        return []
    want = [_STAMP.sub("", line) for line in recorded]
    problems = []
    if len(got) != len(want):
        problems.append(f"script: {len(want)} lines recorded, {len(got)} here")
    for number, (theirs, mine) in enumerate(zip(want, got, strict=False)):
        if theirs != mine:
            problems.append(f"script line {number}: recorded {theirs[:150]!r}, here {mine[:150]!r}")
    return problems


# pins and xbusy


def pins(kernel: Kernel, script: str, recorded: list[str]) -> list[str]:
    """What the script would print here; the pinned pages are the recorded ones."""
    directory, loop = _DIRECTORY.search(script), _LOOP.search(script)
    assert directory is not None and loop is not None
    area = directory[1]
    out = [line for line in recorded if _OFFSET.match(line) or line == "Killed"]
    base = int(read_text(kernel, f"{area}/base_pfn"))
    for match in filter(None, map(_OFFSET.match, out)):
        assert echo(kernel, "/sim/control", f"pin pfn {base + int(match[1])}\n") == 0
    for word in loop[1].split():
        name, pages = ("free", word[1:]) if word.startswith("-") else ("alloc", word)
        out.append(f"{name} {pages}")
        out += [_NO_MEMORY, "rc=1"] if echo(kernel, f"{area}/{name}", f"{pages}\n") else ["rc=0"]
        used, longest = (read_text(kernel, f"{area}/{file}").strip() for file in ("used", "maxchunk"))
        out += [f"used {used} maxchunk {longest}", f"bitmap {read_text(kernel, f'{area}/bitmap').rstrip()}"]
    out += [line for line in read_text(kernel, "/proc/vmstat").splitlines() if "cma_" in line]
    return out + counters(kernel) + (busy_lines(kernel) if "PFNSBUSY" in script else [])


def counters(kernel: Kernel) -> list[str]:
    """``for f in /sys/kernel/mm/cma/reserved/*``"""
    directory = "/sys/kernel/mm/cma/reserved"
    try:
        names = sorted(kernel.listdir(directory))
    except FileNotFoundError:
        return [f"cat: can't open '{directory}/*': No such file or directory", "* "]
    return [f"{name} {read_text(kernel, f'{directory}/{name}').strip()}" for name in names]


def busy_lines(kernel: Kernel) -> list[str]:
    """What alloc_contig_range() said: how often, the first twelve lines, and that some were dropped."""
    log = [_STAMP.sub("", line) for line in read_text(kernel, "/sim/dmesg").splitlines()]
    busy = [line for line in log if "PFNs busy" in line]
    dropped = [line for line in log if "callbacks suppressed" in line]
    return [f"PFNSBUSY {len(busy)}", *busy[:12], *dropped]


# mem


class Memory:
    """The script of a ``mem`` transcript: hogs and files fill memory, allocations go around or move them.

    Compared are the result of each allocation and free, ``used`` and ``maxchunk`` after each step, and the
    bitmap at the end. Free memory is the same after each hog and file; elsewhere it depends on what tasks of
    the guest the kernel chose to reclaim from.
    """

    AREA = "/sys/kernel/debug/cma/reserved"

    def __init__(self, kernel: Kernel, recorded: list[str]) -> None:
        self.kernel = kernel
        self.recorded = recorded
        self.hogs: list[str] = []
        self.found: list[str] = []

    def problems(self) -> list[str]:
        """Every difference."""
        absent = any("can't cd to " in line for line in self.recorded)
        if absent != ("reserved" not in self.kernel.listdir("/sys/kernel/debug/cma")):
            return [f"the area: recorded {'absent' if absent else 'there'}, here otherwise"]
        if not absent:
            self._steps()
        return self.found

    def _steps(self) -> None:
        result, anonymous = "", 0
        for number, line in enumerate(self.recorded):
            words = line.split()
            if words[:1] == ["do"]:
                result = self._step(words[1:], number)
            elif line.startswith("rc="):
                self._compare(number, line, result)
            elif words[:1] == ["state"]:
                state = dict(word.split("=") for word in words[2:])
                shown = {
                    name: read_text(self.kernel, f"{self.AREA}/{name}").strip()
                    for name in ("used", "maxchunk")
                }
                self._compare(number, {name: state[name] for name in shown}, shown)
                if int(state["AnonPages"]) < anonymous // 2:  # taken by the out-of-memory killer
                    self._kill_hogs()
                anonymous = int(state["AnonPages"])
            elif line == "BITMAP":
                self._compare(
                    number,
                    self.recorded[number + 1].split(),
                    read_text(self.kernel, f"{self.AREA}/bitmap").split(),
                )
            elif line == "Killed":  # the script itself
                return

    def _step(self, words: list[str], number: int) -> str:
        """``do …``; what the shell would say of its result."""
        if words[0] in ("alloc", "free"):
            return f"rc={int(echo(self.kernel, f'{self.AREA}/{words[0]}', f'{words[1]}' + chr(10)) != 0)}"
        if words[0] == "killhogs":
            self._kill_hogs()
            return ""
        after = next(line for line in self.recorded[number:] if line.startswith("state "))
        left = re.search(r"MemFree=(\d+)", after)
        assert left is not None
        kind = {"pipe": "kernel"}.get(words[1], words[1]) if words[0] == "hog" else "tmpfs"
        self._fill(kind, int(left[1]), locked="lock" in words)
        return ""

    def _fill(self, kind: str, left: int, locked: bool) -> None:
        """Take memory until so many KiB are free."""
        free = int(re.search(r"MemFree: +(\d+)", read_text(self.kernel, "/proc/meminfo"))[1])
        name = f"hog{len(self.hogs)}"
        self._control(f"spawn {name} {kind} {max(free - left, 4)}K")
        self.hogs.append(name)
        if locked:
            self._control(f"mlock {name}")

    def _kill_hogs(self) -> None:
        while self.hogs:
            self._control(f"kill {self.hogs.pop()}")

    def _control(self, line: str) -> None:
        assert echo(self.kernel, "/sim/control", line + "\n") == 0, line

    def _compare(self, number: int, want: object, got: object) -> None:
        if want != got:
            self.found.append(f"script line {number}: recorded {str(want)[:150]}, here {str(got)[:150]}")
