"""The operations of a transcript (tests/transcripts/FORMAT.md), done on the tables or through a mount."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

MAX_READ = 1 << 17
_O_TRUNC_CREAT = os.O_WRONLY | os.O_TRUNC | os.O_CREAT

Operation = dict[str, Any]


class Kernel(Protocol):
    """The calls that a replay makes: ``os`` below a mount point, or a Syscalls."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int: ...
    def close(self, fd: int) -> None: ...
    def read(self, fd: int, size: int) -> bytes: ...
    def pread(self, fd: int, size: int, offset: int) -> bytes: ...
    def write(self, fd: int, data: bytes) -> int: ...
    def lseek(self, fd: int, offset: int, whence: int = 0) -> int: ...
    def lstat(self, path: str) -> Any: ...
    def readlink(self, path: str) -> str: ...
    def listdir(self, path: str) -> list[str]: ...
    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def truncate(self, path: str, length: int) -> None: ...


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


def _errno(call: Callable[..., object], *args: object) -> int:
    try:
        call(*args)
    except OSError as error:
        return error.errno or -1
    return 0


def read_all(kernel: Kernel, fd: int, size: int) -> tuple[bytes, int, int]:
    """Read to the end: (bytes, errno, reads that gave something)."""
    out, calls = b"", 0
    try:
        while piece := kernel.read(fd, size):
            out, calls = out + piece, calls + 1
    except OSError as error:
        return out, error.errno or -1, calls
    return out, 0, calls


def _write(kernel: Kernel, fd: int, text: str) -> tuple[int, int]:
    try:
        return kernel.write(fd, text.encode("latin-1")), 0
    except OSError as error:
        return -1, error.errno or -1


def do_write(kernel: Kernel, op: Operation) -> Operation:
    """``W``, ``A``"""
    flags = _O_TRUNC_CREAT if op["op"] == "W" else os.O_WRONLY | os.O_APPEND
    fd = kernel.open(op["path"], flags)
    ret, number = _write(kernel, fd, op["data"])
    return {"ret": ret, "errno": number, "close": _errno(kernel.close, fd)}


def do_read(kernel: Kernel, op: Operation) -> Operation:
    """``R``, ``B``"""
    fd = kernel.open(op["path"], os.O_RDONLY)
    out, number, calls = read_all(kernel, fd, op.get("k", MAX_READ))
    kernel.close(fd)
    result = {"out": out.decode("latin-1"), "errno": number}
    return {**result, "calls": calls} if op["op"] == "B" else result


def do_pread(kernel: Kernel, op: Operation) -> Operation:
    """``P``"""
    fd = kernel.open(op["path"], os.O_RDONLY)
    out, number = b"", 0
    try:
        out = kernel.pread(fd, 4096, int(op["off"]))
    except OSError as error:
        number = error.errno or -1
    kernel.close(fd)
    return {"out": out.decode("latin-1"), "errno": number}


def do_two_writes(kernel: Kernel, op: Operation) -> Operation:
    """``2``"""
    fd = kernel.open(op["path"], os.O_WRONLY)
    first, second = _write(kernel, fd, op["a"]), _write(kernel, fd, op["b"])
    kernel.close(fd)
    return {"ret": first[0], "errno": first[1], "ret2": second[0], "errno2": second[1]}


def do_stale(kernel: Kernel, op: Operation) -> Operation:
    """``Z``: a descriptor read before and after the state changed, and after a seek."""

    def once(fd: int) -> str:
        try:
            return kernel.read(fd, 4096).decode("latin-1")
        except OSError:
            return ""

    fd = kernel.open(op["path"], os.O_RDONLY)
    first = once(fd)
    other = kernel.open(op["other"], os.O_WRONLY)
    _, number = _write(kernel, other, op["data"])
    kernel.close(other)
    again = once(fd)
    _errno(kernel.lseek, fd, 0, os.SEEK_SET)
    rewound = once(fd)
    kernel.close(fd)
    return {"first": first, "write_errno": number, "again": again, "rewound": rewound}


def do_lstat(kernel: Kernel, op: Operation) -> Operation:
    """``S``"""
    st = kernel.lstat(op["path"])
    names = ("size", "uid", "gid", "nlink", "blocks", "blksize")
    return {"mode": f"{st.st_mode:o}", **{name: getattr(st, f"st_{name}") for name in names}}


def do_names(kernel: Kernel, op: Operation) -> Operation:
    """``K``, ``L``"""
    if op["op"] == "K":
        return {"out": kernel.readlink(op["path"])}
    return {"names": sorted([".", "..", *kernel.listdir(op["path"])])}


def do_change(kernel: Kernel, op: Operation) -> Operation:
    """``M``, ``U``, ``D``, ``C``, ``T``"""
    path = op["path"]
    calls: dict[str, Callable[[], object]] = {
        "M": lambda: kernel.mkdir(path),
        "U": lambda: kernel.unlink(path),
        "D": lambda: kernel.rmdir(path),
        "C": lambda: kernel.chmod(path, int(op["mode"], 8)),
        "T": lambda: kernel.truncate(path, int(op["len"])),
    }
    return {"errno": _errno(calls[op["op"]])}


HANDLERS: dict[str, Callable[[Kernel, Operation], Operation]] = {
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
INPUTS = frozenset(("op", "path", "data", "other", "a", "b", "k", "off", "len"))


def perform(kernel: Kernel, op: Operation) -> Operation:
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


def read_text(kernel: Kernel, path: str) -> str:
    """A file's text."""
    return str(do_read(kernel, {"op": "R", "path": path})["out"])


def echo(kernel: Kernel, path: str, text: str) -> int:
    """What ``echo`` does; the errno."""
    return int(do_write(kernel, {"op": "W", "path": path, "data": text})["errno"])
