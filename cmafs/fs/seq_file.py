"""Open files that are a slice of a text, as ``fs/seq_file.c`` serves those of procfs, tracefs and sysfs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cmafs.fs.dentry import File, Inode, fail

#: open(2)'s flags.
O_ACCMODE, O_TRUNC = 0o3, 0o1000

#: Makes the whole text of a file.
Show = Callable[[], bytes]
#: Takes one write(2); returns how many bytes it consumed.
Store = Callable[[bytes], int]


class SeqFile(File):
    """An open ``struct seq_file``: the text is made when it is read from the start, or elsewhere than where
    the last read ended (``traverse()``); reading on continues in that text.

    ``missing``: the errno of a read without ``show`` and of a write without ``store``.
    """

    def __init__(
        self, show: Show | None, store: Store | None, missing: int, nonseekable: bool = False
    ) -> None:
        self._show = show
        self._store = store
        self._missing = missing
        self.nonseekable = nonseekable
        self._text = b""
        self._read_pos = 0

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``. Raises ``missing``, and what ``show`` raises."""
        if self._show is None:
            fail(self._missing)
        if not offset or offset != self._read_pos:
            self._text = self._show()
        piece = self._text[offset : offset + size]
        self._read_pos = offset + len(piece)
        return piece

    def write(self, data: bytes, offset: int) -> int:
        """One write(2). Raises ``missing``, and what ``store`` raises."""
        if self._store is None:
            fail(self._missing)
        return self._store(data)


@dataclass(frozen=True)
class SeqOperations:
    """A file of ``show`` and ``store``; either may be missing. ``on_open`` sees open(2)'s flags first.

    ``missing``: what a read or write without an operation answers: EINVAL, on procfs EIO. ``nonseekable``:
    lseek, pread and pwrite answer ESPIPE. ``snapshot``: the text is made at open. ``needs_mode``: as
    need_mode(). ``kind``: what an open file is.
    """

    show: Show | None = None
    store: Store | None = None
    missing: int = errno.EINVAL
    on_open: Callable[[int], None] | None = None
    nonseekable: bool = False
    snapshot: bool = False
    needs_mode: bool = False
    kind: type[SeqFile] = SeqFile

    def open(self, inode: Inode, flags: int) -> File:
        """Raises OSError where ``on_open`` or the mode refuses."""
        if self.needs_mode:
            need_mode(inode, flags)
        if self.on_open is not None:
            self.on_open(flags)
        show = self.show
        if self.snapshot and show is not None:
            show = partial(bytes, show())  # that text, whenever it is read
        return self.kind(show, self.store, self.missing, self.nonseekable)


def need_mode(inode: Inode, flags: int) -> None:
    """What an open of sysfs and of /proc/sys asks: the file's mode counts for root too. Raises EACCES.

    ``fs/kernfs/file.c:kernfs_fop_open()@v6.12``, ``fs/proc/proc_sysctl.c:proc_sys_permission()``.
    """
    if (writes(flags) and not inode.mode & 0o222) or (reads(flags) and not inode.mode & 0o444):
        fail(errno.EACCES)


def truncates(flags: int) -> bool:
    """Whether open(2)'s flags ask for writing from nothing on."""
    return writes(flags) and bool(flags & O_TRUNC)


def writes(flags: int) -> bool:
    """Whether open(2)'s flags ask for writing."""
    return flags & O_ACCMODE != 0


def reads(flags: int) -> bool:
    """Whether open(2)'s flags ask for reading."""
    return flags & O_ACCMODE != 1
