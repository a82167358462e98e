"""Whether a machine answers as a transcript says: what is compared, and how strictly.

* every outcome field of every operation, byte for byte. Only ``nr_free_cma`` and ``CmaFree`` may differ by at
  most ``LAG`` pages (``PARKED`` where a transcript is named there): a real machine parks freed pages on
  per-CPU lists until an allocation drains them, ours does so at boot only (7.2);
* the log from the end of boot on, lines with ``cma`` in them: the recorded ones are the end of ours. Unless
  they fill the recorder's 128 KiB they are all of ours. A hashed pointer equals ``(____ptrval____)``, and two
  recorded hashes are equal exactly where ours are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cmafs.fs.namei import O_RDONLY, O_WRONLY, Syscalls
from cmafs.lib.kstrtox import kstrtoll, kstrtoull
from cmafs.replay.transcript import (
    MAX_READ,
    Operation,
    Transcript,
    do_read,
    do_write,
    expected,
    perform,
    read_all,
)

#: Pages that a real machine keeps on per-CPU lists. Until 5.13 a list ends at six batches of 63 pages
#: (mm/page_alloc.c:pageset_set_batch()@v5.10: 340 recorded); later kernels keep more of what was freed
#: since the last allocation drained the lists: 788 in the walk of 6.12 on arm64.
LAG = 800
#: Where one free of the whole area is the last step, so that nothing drains the lists: from 5.14 on they hold
#: as much as the zone's low watermark (mm/page_alloc.c:zone_highsize()@v5.14). khugepaged has made that 7040
#: pages in these guests: 1.25 times 11 page blocks (mm/khugepaged.c:set_recommended_min_free_kbytes()@v6.1).
PARKED = {"6.1/exhaust-1-16M": 4095, "6.1/exhaust-2-64M": 6366}
#: The recorder read the log into so many bytes, ``<N>[time] `` before each line.
RECORDER_BYTES, RECORDER_PREFIX = 1 << 17, 19

_POINTER = re.compile(r"\(____ptrval____\)|\b[0-9a-f]{16}\b")
_STAMP = re.compile(r"\[ *\d+\.\d{6}\] ")
_OFFSET = re.compile(r"pinned offset (\d+)")
_DIRECTORY = re.compile(r"cd (\S+?);")
_LOOP = re.compile(r"for n in ([-0-9 ]+);")


# the script of the kind pins


def read_text(kernel: Syscalls, path: str) -> str:
    """A file's text."""
    return str(do_read(kernel, {"op": "R", "path": path})["out"])


def echo(kernel: Syscalls, path: str, text: str) -> int:
    """What ``echo`` does; the errno."""
    return int(do_write(kernel, {"op": "W", "path": path, "data": text})["errno"])


def script_output(kernel: Syscalls, script: str, recorded: list[str]) -> list[str]:
    """What the script would print here; the pinned pages are the recorded ones."""
    directory, loop = _DIRECTORY.search(script), _LOOP.search(script)
    assert directory is not None and loop is not None
    area = directory[1]
    out = [line for line in recorded if _OFFSET.match(line)]
    base = kstrtoull(read_text(kernel, f"{area}/base_pfn"), 10)
    for line in out:
        match = _OFFSET.match(line)
        assert match is not None
        assert echo(kernel, "/sim/control", f"pin pfn {base + kstrtoull(match[1], 10)}\n") == 0
    for word in loop[1].split():
        name, pages = ("free", word[1:]) if word.startswith("-") else ("alloc", word)
        out.append(f"{name} {pages}")
        failed = echo(kernel, f"{area}/{name}", f"{pages}\n")
        out += ["sh: write error: Cannot allocate memory", "rc=1"] if failed else ["rc=0"]
        used, longest = (
            read_text(kernel, f"{area}/used").strip(),
            read_text(kernel, f"{area}/maxchunk").strip(),
        )
        out += [f"used {used} maxchunk {longest}", f"bitmap {read_text(kernel, f'{area}/bitmap').rstrip()}"]
    out += [line for line in read_text(kernel, _VMSTAT).splitlines() if "cma_" in line]
    return out + counters(kernel)


def counters(kernel: Syscalls) -> list[str]:
    """``for f in /sys/kernel/mm/cma/reserved/*``"""
    directory = "/sys/kernel/mm/cma/reserved"
    try:
        names = sorted(kernel.listdir(directory))
    except FileNotFoundError:
        return [f"cat: can't open '{directory}/*': No such file or directory", "* "]
    return [f"{name} {read_text(kernel, f'{directory}/{name}').strip()}" for name in names]


# comparison

_VMSTAT = "/proc/vmstat"
#: Files of which the recorder kept the lines with this word.
_PARTLY = {_VMSTAT: "cma", "/proc/meminfo": "Cma"}


def _filtered(path: str, out: str) -> str:
    """The lines of a file that the recorder kept."""
    wanted = _PARTLY.get(path)
    if wanted is None:
        return out
    return "".join(line for line in out.splitlines(keepends=True) if wanted in line)


def _lagging(out: str) -> tuple[str, int]:
    """A text without its free pages, and their number: nr_free_cma in pages, CmaFree in KiB."""
    pages = 0
    lines = []
    for line in out.splitlines(keepends=True):
        words = line.split()
        if words and words[0] in ("nr_free_cma", "CmaFree:"):
            pages = kstrtoll(words[1], 10) // (4 if words[0] == "CmaFree:" else 1)
            line = words[0]
        lines.append(line)
    return "".join(lines), pages


def agrees(op: Operation, want: Operation, got: Operation, lag: int = LAG) -> bool:
    """Whether an outcome is the recorded one; ``lag``: pages that free ones of CMA may differ by."""
    if op["path"] not in _PARTLY or "out" not in want or "out" not in got:
        return got == want
    (want_text, want_free), (got_text, got_free) = _lagging(want["out"]), _lagging(got["out"])
    others = {**want, "out": ""} == {**got, "out": ""}
    return others and want_text == got_text and abs(got_free - want_free) <= lag


def read_log(kernel: Syscalls) -> list[str]:
    """The lines of sim/dmesg with ``cma`` in them, without time stamps."""
    fd = kernel.open("/sim/dmesg", O_RDONLY)
    text = read_all(kernel, fd, MAX_READ)[0].decode("utf-8", "surrogateescape")
    kernel.close(fd)
    lines = (_STAMP.sub("", line, count=1) for line in text.splitlines())
    return [line for line in lines if "cma" in line.lower()]


def compare_log(recorded: list[str], ours: list[str]) -> list[str]:
    """What the end of our log and a recorded one differ in."""
    problems = []
    recorder = sum(len(line) + RECORDER_PREFIX for line in recorded)
    complete = recorder < RECORDER_BYTES - 8192
    if len(recorded) > len(ours) or (complete and len(recorded) != len(ours)):
        problems.append(f"log: {len(recorded)} lines recorded, {len(ours)} here")
    ours = ours[-len(recorded) :] if recorded else []
    there, here = Pointers(), Pointers()
    for number, (want, got) in enumerate(zip(recorded[len(recorded) - len(ours) :], ours, strict=True)):
        if _POINTER.sub("P", want) != _POINTER.sub("P", got):
            problems.append(f"log line {number}: recorded {want!r}, here {got!r}")
        elif not same_pointers(there, want, here, got):
            problems.append(f"log line {number}: pointers of {want!r} and {got!r} do not correspond")
    return problems


class Pointers(dict[str, int]):
    """Numbers pointers in the order in which they are first seen."""

    def number(self, pointer: str) -> int:
        """The number of a pointer."""
        return self.setdefault(pointer, len(self))


def same_pointers(there: Pointers, want: str, here: Pointers, got: str) -> bool:
    """Whether the pointers of two lines are the same ones; ``(____ptrval____)`` is any."""
    for theirs, mine in zip(_POINTER.findall(want), _POINTER.findall(got), strict=True):
        if (theirs == "0" * 16) != (mine == "0" * 16):
            return False
        if theirs.startswith("(") or mine.startswith("("):
            continue
        if there.number(theirs) != here.number(mine):
            return False
    return True


def prepare(kernel: Syscalls, header: dict[str, Any]) -> None:
    """What the guest's init did after boot, and the point from which the log was kept."""
    if "dyndbg_cma" in header["cmdline"].split():
        fd = kernel.open("/sys/kernel/debug/dynamic_debug/control", O_WRONLY)
        for query in (b"file mm/cma.c +p\n", b"file mm/cma_debug.c +p\n"):
            kernel.write(fd, query)
        kernel.close(fd)
    fd = kernel.open("/sim/dmesg", O_WRONLY)
    kernel.write(fd, b"clear\n")
    kernel.close(fd)


def replay_pins(transcript: Transcript, kernel: Syscalls) -> list[str]:
    """Every difference between a ``pins`` transcript's script and the same steps here."""
    got = script_output(kernel, transcript.header["script"], transcript.script_output)
    problems = []
    if len(got) != len(transcript.script_output):
        problems.append(f"script: {len(transcript.script_output)} lines recorded, {len(got)} here")
    for number, (want, mine) in enumerate(zip(transcript.script_output, got, strict=False)):
        if want != mine:
            problems.append(f"script line {number}: recorded {want[:150]!r}, here {mine[:150]!r}")
    return problems


def differences(transcript: Transcript, kernel: Syscalls) -> Iterator[str]:
    """Every difference between a transcript and a freshly booted machine."""
    prepare(kernel, transcript.header)
    if transcript.name.partition("/")[2].startswith("pins"):
        yield from replay_pins(transcript, kernel)
    for number, op in enumerate(transcript.operations):
        got = perform(kernel, op)
        if "out" in got and op["op"] == "R":
            got["out"] = _filtered(op["path"], got["out"])
        want = expected(op)
        if not agrees(op, want, got, PARKED.get(transcript.name, LAG)):
            what = {name: op[name] for name in ("op", "path", "data") if name in op}
            yield f"operation {number} {what}: recorded {_short(want)}, here {_short(got)}"
    if transcript.logged:
        yield from compare_log(transcript.dmesg, read_log(kernel))


def _short(outcome: Operation) -> str:
    text = str(outcome)
    return text if len(text) <= 300 else f"{text[:140]} … {text[-140:]}"
