"""Files that the tables share: simple attributes, u32 arrays, sysfs attributes (``fs/libfs.c``)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from cmafs.fs.dentry import Directory, FileSystemType
from cmafs.fs.seq_file import SeqOperations, Show
from cmafs.lib.kstrtox import c_string, kstrtoull, simple_strtoll

#: The file systems of the tree and how they answer what is not reading or writing: creation, removal,
#: truncation, as the ``files`` transcripts recorded it.
DEBUGFS = FileSystemType("debugfs", mounted=errno.EPERM)
SYSFS = FileSystemType("sysfs", truncate_sets_size=False)

#: ``struct simple_attr``: of a write so many bytes less one are parsed, yet all of them count as written.
_ATTR_BUFFER = 24
_U32_TEXT = 11


def simple_attribute(
    get: Callable[[], int] | None = None, set: Callable[[int], None] | None = None, strict: bool = True
) -> SeqOperations:
    """``DEFINE_SIMPLE_ATTRIBUTE``: a number read by ``get``, set by ``set``; ``strict``: which parser.

    EACCES where one of the two is missing. ``fs/libfs.c:simple_attr_write_xsigned()@v5.10.223``.
    """

    def store(data: bytes) -> int:
        assert set is not None
        text = c_string(data[: _ATTR_BUFFER - 1])
        set(kstrtoull(text) if strict else simple_strtoll(text)[0])
        return len(data)

    show = None if get is None else lambda: b"%d\n" % get()
    return SeqOperations(show, store if set else None, errno.EACCES, nonseekable=True)


def u32_array_text(words: Sequence[int]) -> bytes:
    """The text of a u32 array: decimal words, blanks between, a newline at the end.

    Its buffer has 11 bytes a word: with ten digits in every word the newline finds no room.
    Source: ``fs/debugfs/file.c:u32_format_array()@v5.10``.
    """
    return (" ".join(map(str, words)) + "\n").encode()[: max(_U32_TEXT * len(words) - 1, 0)]


def snapshot_file(show: Show) -> SeqOperations:
    """A file whose text is made at open, that cannot be written and does not seek (``u32_array_fops``)."""
    return SeqOperations(show, nonseekable=True, snapshot=True)


def sysfs_attribute(show: Show) -> SeqOperations:
    """A read-only sysfs attribute: once chmod lets root open it for writing, the write answers EIO.

    Source: ``lib/kobject.c:kobj_attr_store()``.
    """
    return SeqOperations(show, missing=errno.EIO, needs_mode=True)


def debugfs_root(root: Directory) -> Directory:
    """/sys/kernel/debug: root's alone."""
    return sysfs_directory(root, "kernel").subdir("debug", 0o700, DEBUGFS)


def sysfs_directory(root: Directory, *names: str) -> Directory:
    """A directory below /sys, made if it is not there yet."""
    directory = root.subdir("sys", fs=SYSFS)
    for name in names:
        directory = directory.subdir(name)
    return directory
