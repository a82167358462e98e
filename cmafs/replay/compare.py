"""Whether a machine answers as a transcript says: what is compared, and how strictly.

* every outcome field of every operation, byte for byte. Only ``nr_free_cma`` and ``CmaFree`` may differ by at
  most ``LAG`` pages: a real machine parks freed pages on per-CPU lists until an allocation drains them, ours
  does so at boot only (7.2);
* the log from the end of boot on, lines with ``cma`` in them: the recorded ones are the end of ours. Unless
  they fill the recorder's 128 KiB they are all of ours. A hashed pointer equals ``(____ptrval____)``, and two
  recorded hashes are equal exactly where ours are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from cmafs.fs.namei import O_RDONLY, O_WRONLY, Syscalls
from cmafs.lib.kstrtox import simple_strtoll
from cmafs.lib.printk import decode
from cmafs.replay.transcript import MAX_READ, Operation, Transcript, do_write, expected, perform, read_all

#: Pages that a real machine keeps on per-CPU lists. Until 5.13 a list ends at six batches of 63 pages
#: (mm/page_alloc.c:pageset_set_batch()@v5.10: 340 recorded); later kernels keep more of what was freed
#: since the last allocation drained the lists: 788 in the walk of 6.12 on arm64.
LAG = 800
#: The recorder read the log into so many bytes, ``<N>[time] `` before each line.
RECORDER_BYTES, RECORDER_PREFIX = 1 << 17, 19
_POINTER = re.compile(
    r"(?:(?<=cma )|(?<=page )|(?<=turned ))(?: *\(\w*ptrval\w*\)|[0-9a-f]{8,16}\b)"
    r"|(?:(?<= ) *\(\w*ptrval\w*\)|\b[0-9a-f]{8,16})(?= is busy)"
)
_STAMP = re.compile(r"\[ *\d+\.\d{6}\] ")

_DYNAMIC_DEBUG = "/sys/kernel/debug/dynamic_debug"
#: Files of which the recorder kept the lines with this word.
_PARTLY = {"/proc/vmstat": "cma", "/proc/meminfo": "Cma"}


def filtered(path: str, out: str) -> str:
    """The lines of a file that the recorder kept."""
    wanted = _PARTLY.get(path)
    if wanted is None:
        return out
    return "".join(line for line in out.splitlines(keepends=True) if wanted in line)


def _lagging(out: str, page_kib: int) -> tuple[str, int]:
    """A text without its free pages, and their number: nr_free_cma in pages, CmaFree in KiB."""
    pages = 0
    lines = []
    for line in out.splitlines(keepends=True):
        words = line.split()
        if len(words) > 1 and words[0] in ("nr_free_cma", "CmaFree:"):
            pages = simple_strtoll(words[1], 10)[0] // (page_kib if words[0] == "CmaFree:" else 1)
            line = words[0]
        lines.append(line)
    return "".join(lines), pages


def agrees(op: Operation, want: Operation, got: Operation, lag: int = LAG, page_kib: int = 4) -> bool:
    """Whether an outcome is the recorded one; ``lag``: pages that free ones of CMA may differ by."""
    if op["path"] not in _PARTLY or "out" not in want or "out" not in got:
        return got == want
    (want_text, want_free), (got_text, got_free) = (_lagging(text["out"], page_kib) for text in (want, got))
    others = {**want, "out": ""} == {**got, "out": ""}
    return others and want_text == got_text and abs(got_free - want_free) <= lag


def read_log(kernel: Syscalls) -> list[str]:
    """The lines of sim/dmesg with ``cma`` in them, without time stamps."""
    fd = kernel.open("/sim/dmesg", O_RDONLY)
    text = decode(read_all(kernel, fd, MAX_READ)[0])
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
        if (set(theirs) == {"0"}) != (set(mine) == {"0"}):
            return False
        if "ptrval" in theirs + mine:
            continue
        if there.number(theirs) != here.number(mine):
            return False
    return True


def prepare(kernel: Syscalls, header: dict[str, Any]) -> None:
    """What the guest's init did after boot, and the point from which the log was kept."""
    if "dyndbg_cma" in header["cmdline"].split():
        for query in ("file mm/cma.c +p\n", "file mm/cma_debug.c +p\n"):
            try:
                do_write(kernel, {"op": "W", "path": f"{_DYNAMIC_DEBUG}/control", "data": query})
            except FileNotFoundError:  # a kernel without CONFIG_DYNAMIC_DEBUG
                break
    fd = kernel.open("/sim/dmesg", O_WRONLY)
    kernel.write(fd, b"clear\n")
    kernel.close(fd)


def page_kib(header: dict[str, Any]) -> int:
    """PAGE_SIZE of a recorded kernel in KiB."""
    sizes = {"CONFIG_ARM64_64K_PAGES=y": 64, "CONFIG_ARM64_16K_PAGES=y": 16}
    return next((sizes[line] for line in header.get("config", ()) if line in sizes), 4)


def differences(transcript: Transcript, kernel: Syscalls) -> Iterator[str]:
    """Every difference between a transcript and a freshly booted machine."""
    prepare(kernel, transcript.header)
    yield from operation_differences(transcript, partial(perform, kernel))
    if transcript.logged:
        yield from compare_log(transcript.dmesg, read_log(kernel))


def operation_differences(
    transcript: Transcript, outcome: Callable[[Operation], Operation], lag: int = LAG
) -> Iterator[str]:
    """The operations with another ``outcome`` than the recorded one; ``lag`` as agrees() has it."""
    for number, op in enumerate(transcript.operations):
        got = outcome(op)
        if "out" in got and op["op"] == "R":
            got["out"] = filtered(op["path"], got["out"])
        if not agrees(op, expected(op), got, lag, page_kib(transcript.header)):
            yield difference(number, op, got)


def difference(number: int, op: Operation, got: Operation) -> str:
    """One line for an operation whose outcome is another one."""
    what = {name: op[name] for name in ("op", "path", "data") if name in op}
    return f"operation {number} {what}: recorded {_short(expected(op))}, here {_short(got)}"


def _short(outcome: Operation) -> str:
    text = str(outcome)
    return text if len(text) <= 300 else f"{text[:140]} … {text[-140:]}"
