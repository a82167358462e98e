"""The file system of constants of constfs.c with handlers in Python: what an interpreter costs at least.

    python constfs.py MOUNTPOINT

Called through the declarations of fusepy, as cmafs/mount/fuse_ops.py has it, and doing nothing of its own.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from typing import Any

os.environ.setdefault("FUSE_LIBRARY_PATH", "libfuse.so.2")

import fuse

from cmafs.mount.fuse_ops import OPTIONS

ANSWER = b"0\n"


def getattr_(path: bytes, buf: Any) -> int:
    """Files of three names, anything else a directory."""
    st = buf.contents
    ctypes.memset(buf, 0, ctypes.sizeof(st))
    is_file = path.rpartition(b"/")[2] in (b"used", b"alloc", b"free")
    st.st_mode = stat.S_IFREG | 0o644 if is_file else stat.S_IFDIR | 0o755
    st.st_nlink = 1 if is_file else 2
    return 0


def open_(path: bytes, fip: Any) -> int:
    """Every file opens."""
    fi = fip.contents
    fi.direct_io = fi.nonseekable = 1
    return 0


def read(path: bytes | None, buf: Any, size: int, offset: int, fip: Any) -> int:
    """The same for every file."""
    ctypes.memmove(buf, ANSWER, len(ANSWER))
    return len(ANSWER)


def write(path: bytes | None, buf: Any, size: int, offset: int, fip: Any) -> int:
    """Every write is taken whole."""
    return size


def release(path: bytes | None, fip: Any) -> int:
    """Nothing is left."""
    return 0


def main(mountpoint: str) -> None:
    """Mount and answer until unmounted."""
    operations = fuse.fuse_operations(flag_nullpath_ok=1, flag_nopath=1)
    handlers = {"getattr": getattr_, "open": open_, "read": read, "write": write, "release": release}
    for name, prototype in [field[:2] for field in operations._fields_]:
        if name in handlers:
            setattr(operations, name, prototype(handlers[name]))
    words = [name if value is True else f"{name}={value}" for name, value in OPTIONS.items()]
    args = [b"constfs", b"-f", b"-s", b"-o", ",".join(words).encode(), os.fsencode(mountpoint)]
    argv = (ctypes.c_char_p * len(args))(*args)
    fuse._libfuse.fuse_main_real(len(args), argv, ctypes.byref(operations), ctypes.sizeof(operations), None)


if __name__ == "__main__":
    main(sys.argv[1])
