"""A transcript: what one boot of a real kernel answered, call by call (tests/transcripts/FORMAT.md).

Which machine it was, how each operation is done again, and what its outcome is told as. Sizes in bytes unless
a name says pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cmafs.fs.namei import O_APPEND, O_CREAT, O_RDONLY, O_WRONLY, SEEK_SET, Syscalls
from cmafs.fs.seq_file import O_TRUNC
from cmafs.lib.kconfig import FileLine
from cmafs.lib.kstrtox import kstrtoull

#: The most that one read asks for.
MAX_READ = 1 << 17

_SPAN = r"0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]"
_RANGE = re.compile(rf"^ (memory|reserved)\[0x[0-9a-f]+\]\t?\s*\[{_SPAN}")
_NODE_RANGE = re.compile(rf"^  (node) +\d+: \[mem {_SPAN}")
RELEASE = re.compile(r"\d+\.\d+(\.\d+)?")

#: What the out-of-memory killer and failed page allocations print of CMA: no line of cma's own.
MEMORY_REPORT = re.compile(r" free:\d+|\w+ free:\d+kB|\d+ pages cma reserved$| \w+ from |\s*__?cma_alloc")

Operation = dict[str, Any]


class BadTranscript(ValueError):
    """A transcript cannot be read: one line for the user."""


@dataclass(eq=False)
class Transcript:
    """One recorded boot; ``name`` is ``<release>/<kind>-<n>…``, ``header`` line 1 of the format, ``logged``
    whether the log was recorded.
    """

    name: str
    header: dict[str, Any]
    operations: list[Operation] = field(default_factory=list)
    dmesg: list[str] = field(default_factory=list)
    logged: bool = False
    script_output: list[str] = field(default_factory=list)


def parse(lines: Iterable[str], name: str) -> Transcript:
    """A transcript's lines. Raises BadTranscript."""
    transcript: Transcript | None = None
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line)
            if transcript is None:
                transcript = Transcript(name, _header(one["header"]))
                continue
            if "op" in one:
                transcript.operations.append(_operation(one))
            transcript.logged |= "dmesg" in one
            transcript.dmesg += [line for line in one.get("dmesg", []) if not MEMORY_REPORT.match(line)]
            transcript.script_output += one.get("script_output", [])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            damaged = isinstance(error, (json.JSONDecodeError, RecursionError))
            what = "not JSON" if damaged else f"{error!r:.80}"
            raise BadTranscript(
                f"line {number}: {what}; wanted is one object a line, the header first"
            ) from None
    if transcript is None:
        raise BadTranscript("empty; wanted is one JSON object a line, the header first")
    return transcript


def _header(header: dict[str, Any]) -> dict[str, Any]:
    if not RELEASE.search(header["kernel"]):
        raise ValueError("header: kernel names no release")
    for name in ("arch", "cmdline", *({"dts"} & header.keys())):
        _text(header[name])
    for name in {"boot", "config"} & header.keys():
        header[name] = list(map(_text, header[name]))
    return {"boot": [], **header}


def _text(value: Any) -> str:
    """A text whose characters are bytes. Raises TypeError, ValueError."""
    value.encode("latin-1", "strict")
    return str(value)


def _operation(one: Operation) -> Operation:
    if one["op"] not in HANDLERS:
        raise ValueError(f"unknown operation {one['op']!r}")
    for name in ("path", *NEEDS.get(one["op"], ())):
        one[name]
    for name in one.keys() & {"path", "data", "other", "a", "b", "out"}:
        _text(one[name])
    for name in one.keys() & {"k", "off", "len"}:
        one[name] = int(one[name])
    if one.get("k", 1) < 1:
        raise ValueError("reads of no bytes")
    if one["op"] == "C":
        kstrtoull(one["mode"], 8)
    return one


#: ``uname -m``, and the first recordings' word -> an architecture here.
ARCHES = {"x86": "x86_64", "aarch64": "arm64", **dict.fromkeys(("armv6l", "armv7l", "armv8l"), "arm")}


def header_dts(header: dict[str, Any]) -> str:
    """The device tree of a header; or one with the memory and the reservations that memblock=debug showed;
    without it, the memory of the nodes, nothing of which was reserved.
    """
    if "dts" in header:
        return str(header["dts"])
    memory, reserves = [], []
    dumped = any(_RANGE.match(line) for line in header["boot"])
    for line in header["boot"]:
        match = (_RANGE if dumped else _NODE_RANGE).match(line)
        if not match:
            continue
        start = kstrtoull(match[2], 16)
        size = kstrtoull(match[3], 16) - start + 1
        if match[1] != "reserved":  # dumped twice on some kernels, which does no harm
            memory.append(" ".join(f"{n >> 32:#x} {n & 0xFFFFFFFF:#x}" for n in (start, size)))
        elif header["arch"] == "x86":  # on arm64 the dump is of the time after CMA was placed
            reserves.append(f"/memreserve/ {start:#x} {size:#x};")
    root = "#address-cells = <2>; #size-cells = <2>;"
    node = f'memory {{ device_type = "memory"; reg = <{" ".join(memory)}>; }};' * bool(memory)
    return "\n".join(["/dts-v1/;", *reserves, "/ {", root, node, "chosen { };", "};", ""])


def machine_options(header: dict[str, Any]) -> dict[str, str]:
    """Kernel, architecture and command line of a recorded boot."""
    arch = ARCHES.get(header["arch"], header["arch"])
    kernel = header["kernel"]  # that of --kernel may be a dialect
    if kernel.startswith("Image-") and (found := RELEASE.search(kernel)):
        kernel = found[0]
    return {"kernel": kernel, "arch": arch, "cmdline": header["cmdline"]}


def header_config(header: dict[str, Any]) -> list[str]:
    """The configuration of a recorded boot: its lines, or that of the first recordings."""
    return [FileLine(line) for line in header["config"]] if "config" in header else ["tiny"]


# operations


def _errno(call: Callable[..., object], *args: object) -> int:
    try:
        call(*args)
    except OSError as error:
        return error.errno or -1
    return 0


def read_all(kernel: Syscalls, fd: int, size: int) -> tuple[bytes, int, int]:
    """Read to the end: (bytes, errno, reads that gave something)."""
    out, calls = b"", 0
    try:
        while piece := kernel.read(fd, size):
            out, calls = out + piece, calls + 1
    except OSError as error:
        return out, error.errno or -1, calls
    return out, 0, calls


def _write(kernel: Syscalls, fd: int, text: str) -> tuple[int, int]:
    try:
        return kernel.write(fd, text.encode("latin-1")), 0
    except OSError as error:
        return -1, error.errno or -1


def do_write(kernel: Syscalls, op: Operation) -> Operation:
    """``W``, ``A``"""
    flags = O_WRONLY | O_TRUNC | O_CREAT if op["op"] == "W" else O_WRONLY | O_APPEND
    fd = kernel.open(op["path"], flags)
    ret, number = _write(kernel, fd, op["data"])
    return {"ret": ret, "errno": number, "close": _errno(kernel.close, fd)}


def do_read(kernel: Syscalls, op: Operation) -> Operation:
    """``R``, ``B``"""
    fd = kernel.open(op["path"], O_RDONLY)
    out, number, calls = read_all(kernel, fd, op.get("k", MAX_READ))
    kernel.close(fd)
    result = {"out": out.decode("latin-1"), "errno": number}
    return {**result, "calls": calls} if op["op"] == "B" else result


def do_pread(kernel: Syscalls, op: Operation) -> Operation:
    """``P``"""
    fd = kernel.open(op["path"], O_RDONLY)
    out, number = b"", 0
    try:
        out = kernel.pread(fd, 4096, op["off"])
    except OSError as error:
        number = error.errno or -1
    kernel.close(fd)
    return {"out": out.decode("latin-1"), "errno": number}


def do_two_writes(kernel: Syscalls, op: Operation) -> Operation:
    """``2``"""
    fd = kernel.open(op["path"], O_WRONLY)
    first, second = _write(kernel, fd, op["a"]), _write(kernel, fd, op["b"])
    kernel.close(fd)
    return {"ret": first[0], "errno": first[1], "ret2": second[0], "errno2": second[1]}


def do_stale(kernel: Syscalls, op: Operation) -> Operation:
    """``Z``: a descriptor read before and after the state changed, and after a seek."""

    def once(fd: int) -> str:
        try:
            return kernel.read(fd, 4096).decode("latin-1")
        except OSError:
            return ""

    fd = kernel.open(op["path"], O_RDONLY)
    first = once(fd)
    other = kernel.open(op["other"], O_WRONLY)
    _, number = _write(kernel, other, op["data"])
    kernel.close(other)
    again = once(fd)
    _errno(kernel.lseek, fd, 0, SEEK_SET)
    rewound = once(fd)
    kernel.close(fd)
    return {"first": first, "write_errno": number, "again": again, "rewound": rewound}


def do_lstat(kernel: Syscalls, op: Operation) -> Operation:
    """``S``"""
    st = kernel.lstat(op["path"])
    names = ("size", "uid", "gid", "nlink", "blocks", "blksize")
    return {"mode": f"{st.st_mode:o}", **{name: getattr(st, f"st_{name}") for name in names}}


def do_names(kernel: Syscalls, op: Operation) -> Operation:
    """``K``, ``L``"""
    if op["op"] == "K":
        return {"out": kernel.readlink(op["path"])}
    return {"names": sorted([".", "..", *kernel.listdir(op["path"])])}


def do_change(kernel: Syscalls, op: Operation) -> Operation:
    """``M``, ``U``, ``D``, ``C``, ``T``"""
    path = op["path"]
    calls: dict[str, Callable[[], object]] = {
        "M": lambda: kernel.mkdir(path),
        "U": lambda: kernel.unlink(path),
        "D": lambda: kernel.rmdir(path),
        "C": lambda: kernel.chmod(path, kstrtoull(op["mode"], 8)),
        "T": lambda: kernel.truncate(path, op["len"]),
    }
    return {"errno": _errno(calls[op["op"]])}


HANDLERS: dict[str, Callable[[Syscalls, Operation], Operation]] = {
    **dict.fromkeys("WA", do_write),
    **dict.fromkeys("RB", do_read),
    "P": do_pread,
    "2": do_two_writes,
    "Z": do_stale,
    "S": do_lstat,
    **dict.fromkeys("KL", do_names),
    **dict.fromkeys("MUDCT", do_change),
}
#: Where an error of the first call is told.
OPENS = frozenset("WARBP2Z")
#: What an operation needs besides its path.
NEEDS = {
    **dict.fromkeys("WA", ("data",)),
    "P": ("off",),
    "2": ("a", "b"),
    "Z": ("other", "data"),
    "C": ("mode",),
    "T": ("len",),
}
INPUTS = frozenset(("op", "path", "data", "other", "a", "b", "k", "off", "len"))


def perform(kernel: Syscalls, op: Operation) -> Operation:
    """Do one operation; its outcome as a transcript tells it."""
    try:
        return HANDLERS[op["op"]](kernel, op)
    except OSError as error:
        return {"open_errno" if op["op"] in OPENS else "errno": error.errno}


def expected(op: Operation) -> Operation:
    """The outcome that was recorded; success of ``S``, ``K`` and ``L`` has no errno."""
    outcome = {name: value for name, value in op.items() if name not in INPUTS}
    if op["op"] == "C":
        outcome.pop("mode")
    if op["op"] in "SKL" and not outcome.get("errno"):
        outcome.pop("errno", None)
    return outcome
