"""The interpreter's steps of a mounted call: python tests/bench_steps.py (a script, not a test).

How many bytecode instructions the handlers of one open-read-close and of one pair of open-write-close take,
and in which rooms: the same on every machine and at any load, for one version of Python.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("FUSE_LIBRARY_PATH", "libfuse.so.2")
sys.path.insert(0, str(Path(__file__).parent))

import fuse
from bench_support import figure

from cmafs.api import Machine
from cmafs.mount.fuse_ops import FuseMount

PACKAGE = Path(sys.modules["cmafs"].__file__ or "").parent
AREA = b"/sys/kernel/debug/cma/reserved/"
#: Calls before one is counted: lists are allocated, caches filled, the interpreter has specialized its code.
BEFORE = 300


class Handlers:
    """The handlers of a mount, called as libfuse calls them; ``kept``: its journal is not full yet."""

    def __init__(self, kept: bool) -> None:
        machine = Machine.boot(cmdline="cma=16M")
        if not kept:
            machine.booted.clock.entries = None
        self._mount = FuseMount(machine.root, machine.vfs, "/", lambda: None, print)
        self._info = ctypes.pointer(fuse.fuse_file_info())
        self._buffer = ctypes.create_string_buffer(4096)

    def read(self) -> None:
        """open, read and close of ``used``."""
        self._call(b"used", os.O_RDONLY, self._mount.read, 4096)

    def write(self) -> None:
        """open, write and close of ``alloc``, then of ``free``: one page."""
        self._buffer.value = b"1\n"
        for name in (b"alloc", b"free"):
            self._call(name, os.O_WRONLY | os.O_TRUNC, self._mount.write, 2)

    def _call(self, name: bytes, flags: int, transfer: Callable[..., int], size: int) -> None:
        self._info.contents.flags = flags
        assert self._mount.open(AREA + name, self._info) == 0
        assert transfer(None, ctypes.addressof(self._buffer), size, 0, self._info) > 0
        assert self._mount.release(None, self._info) == 0


def steps(call: Callable[[], None]) -> Counter[str]:
    """Bytecode instructions of one call in cmafs, by room."""
    for _ in range(BEFORE):
        call()
    counted: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        path = Path(frame.f_code.co_filename)
        if event == "opcode":
            counted[path.relative_to(PACKAGE).parts[0]] += 1
        frame.f_trace_opcodes, frame.f_trace_lines = path.is_relative_to(PACKAGE), False
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return counted


def main() -> int:
    """Print a line a figure."""
    kept, full = Handlers(kept=True), Handlers(kept=False)
    for what, call in (
        ("open-read-close of used", full.read),
        ("open-write-close of alloc, free", full.write),
        ("the same until the journal is full", kept.write),
    ):
        counted = steps(call)
        rooms = ", ".join(f"{room} {number}" for room, number in counted.most_common())
        figure(f"steps of the interpreter, {what}", [counted.total()], "steps", against=rooms)
    return 0


if __name__ == "__main__":
    sys.exit(main())
