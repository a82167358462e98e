"""Files whose text is made when they are read: procfs and tracefs, as ``fs/seq_file.c`` serves them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from cmafs.fs.dentry import File, Inode, fail

#: open(2)'s flags.
O_ACCMODE, O_TRUNC = 0o3, 0o1000

#: Makes the whole text of a file.
Show = Callable[[], bytes]
#: Takes one write(2); returns how many bytes it consumed.
Store = Callable[[bytes], int]


class SeqFile(File):
    """An open ``struct seq_file``: seekable; a read at offset 0 renders anew, later reads continue in that
    text.
    """

    def __init__(self, show: Show | None, store: Store | None, missing: int) -> None:
        self._show = show
        self._store = store
        self._missing = missing
        self._text: bytes | None = None

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``. Raises what the file system answers where nothing can be
        read.
        """
        if self._show is None:
            fail(self._missing)
        if offset == 0 or self._text is None:
            self._text = self._show()
        return self._text[offset : offset + size]

    def write(self, data: bytes, offset: int) -> int:
        """One write(2). Raises what the file system answers where nothing can be written."""
        if self._store is None:
            fail(self._missing)
        return self._store(data)


@dataclass(frozen=True)
class SeqOperations:
    """A file of ``show`` and ``store``; either may be missing. ``on_open`` sees open(2)'s flags first.

    ``missing``: what a read or write without an operation answers: EINVAL, on procfs EIO. ``nonseekable``:
    opened by stream_open(), so that lseek, pread and pwrite answer ESPIPE.
    """

    show: Show | None = None
    store: Store | None = None
    missing: int = errno.EINVAL
    on_open: Callable[[int], None] | None = None
    nonseekable: bool = False

    def open(self, inode: Inode, flags: int) -> File:
        """Raises OSError where ``on_open`` refuses."""
        if self.on_open is not None:
            self.on_open(flags)
        file = SeqFile(self.show, self.store, self.missing)
        file.nonseekable = self.nonseekable
        return file


def truncates(flags: int) -> bool:
    """Whether open(2)'s flags ask for writing from nothing on."""
    return writes(flags) and bool(flags & O_TRUNC)


def writes(flags: int) -> bool:
    """Whether open(2)'s flags ask for writing."""
    return flags & O_ACCMODE != 0


def reads(flags: int) -> bool:
    """Whether open(2)'s flags ask for reading."""
    return flags & O_ACCMODE != 1
