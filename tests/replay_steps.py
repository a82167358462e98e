"""The calls that a replay makes, through a mount as on the tables (cmafs/replay/transcript.py)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

from cmafs.fs.namei import Syscalls
from cmafs.replay.transcript import do_read, do_write


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


#: What operations are done on: a mount, or the tables.
Kernel: TypeAlias = Mounted | Syscalls


def read_text(kernel: Kernel, path: str) -> str:
    """A file's text."""
    return str(do_read(kernel, {"op": "R", "path": path})["out"])


def echo(kernel: Kernel, path: str, text: str) -> int:
    """What ``echo`` does; the errno."""
    return int(do_write(kernel, {"op": "W", "path": path, "data": text})["errno"])
