"""File operations that the tables share: simple attributes, u32 arrays, sysfs attributes (``fs/libfs.c``).

Each says when its text is made, which is what partial reads and descriptors kept open can tell apart.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cmafs.fs.dentry import Directory, File, FileSystemType, Inode, fail
from cmafs.fs.seq_file import SeqFile, writes

#: The file systems of the tree and how they answer what is not reading or writing: creation, removal,
#: truncation, as the ``files`` transcripts recorded it.
DEBUGFS = FileSystemType("debugfs")
SYSFS = FileSystemType("sysfs", truncate_sets_size=False)

#: What stat(2) shows for every sysfs attribute: PAGE_SIZE.
SYSFS_FILE_SIZE = 4096

_U64_MAX = (1 << 64) - 1
_ATTR_BUFFER = 24
_U32_TEXT = 11
_ZERO = ord("0")

_STRICT = re.compile(rb"\+?(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))")
_LENIENT = re.compile(rb"(-?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))")


def kstrtoull(text: bytes) -> int:
    """An unsigned number of 64 bits in base 0, one newline after it allowed.

    Raises EINVAL, or ERANGE from 2^64 on. Source: ``lib/kstrtox.c:_kstrtoull()@v6.12``.

    >>> kstrtoull(b"+0x10"), kstrtoull(b"010"), kstrtoull(b"0")
    (16, 8, 0)
    """
    digits = text.removesuffix(b"\n")
    if digits.isdigit() and digits[0] != _ZERO:  # what nearly every write is
        value = int(digits)
    else:
        match = _STRICT.match(text)
        if match is None:
            fail(errno.EINVAL)
        value = _number(match[1], match[2], match[3])
        digits = match[0]
    if value > _U64_MAX:
        fail(errno.ERANGE)
    if text[len(digits) :] not in (b"", b"\n"):
        fail(errno.EINVAL)
    return value


def simple_strtoll(text: bytes) -> int:
    """A number at the start of a text, as 64 unsigned bits; whatever is no number is 0.

    Source: ``lib/vsprintf.c:simple_strtoll()@v4.4``.

    >>> simple_strtoll(b"12x"), simple_strtoll(b"junk"), hex(simple_strtoll(b"-5"))
    (12, 0, '0xfffffffffffffffb')
    """
    match = _LENIENT.match(text)
    if match is None:
        return 0
    value = _number(match[2], match[3], match[4]) & _U64_MAX
    return -value & _U64_MAX if match[1] else value


def _number(hexadecimal: bytes | None, octal: bytes | None, decimal: bytes | None) -> int:
    if hexadecimal is not None:
        return int(hexadecimal, 16)
    return int(octal or b"0", 8) if decimal is None else int(decimal)


def to_int(value: int) -> int:
    """What remains of a number in a C ``int``."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


class TextFile(File):
    """An open file whose text is made once, by ``make``, and read on from where the last read ended."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._text: bytes | None = None

    def read(self, size: int, offset: int) -> bytes:
        """Read on; the text is made at the first read."""
        if self._text is None:
            self._text = self._make()
        return self._text[offset : offset + size]


class SimpleAttrFile(TextFile):
    """An open ``DEFINE_SIMPLE_ATTRIBUTE`` file."""

    nonseekable = True

    def __init__(self, attr: SimpleAttribute) -> None:
        super().__init__(attr.render)
        self._attr = attr

    def write(self, data: bytes, offset: int) -> int:
        """One number a write. Raises EACCES without a setter, and what parser and setter answer."""
        return self._attr.store(data)


@dataclass(frozen=True)
class SimpleAttribute:
    """``DEFINE_SIMPLE_ATTRIBUTE``: a number read by ``get``, set by ``set``; ``strict``: which parser.

    Only the first 23 bytes of a write are parsed, yet all of them count as written.
    Source: ``fs/libfs.c:simple_attr_read()``, ``simple_attr_write_xsigned()@v5.10.223``.
    """

    get: Callable[[], int] | None = None
    set: Callable[[int], None] | None = None
    strict: bool = True

    def open(self, inode: Inode, flags: int) -> File:
        """``simple_attr_open()``"""
        return SimpleAttrFile(self)

    def render(self) -> bytes:
        """The text, ``%llu\\n``. Raises EACCES where nothing can be read."""
        if self.get is None:
            fail(errno.EACCES)
        return b"%d\n" % self.get()

    def store(self, data: bytes) -> int:
        """``simple_attr_write()``"""
        if self.set is None:
            fail(errno.EACCES)
        text = data[: _ATTR_BUFFER - 1].partition(b"\0")[0]
        self.set(kstrtoull(text) if self.strict else simple_strtoll(text))
        return len(data)


def u32_array_text(words: Sequence[int]) -> bytes:
    """The text of a u32 array: decimal words, blanks between, a newline at the end.

    Its buffer has 11 bytes a word: with ten digits in every word the newline finds no room.
    Source: ``fs/debugfs/file.c:u32_format_array()@v5.10``.
    """
    return (" ".join(map(str, words)) + "\n").encode()[: max(_U32_TEXT * len(words) - 1, 0)]


class ReadOnlyFile(File):
    """An open file with a fixed text; it has no write operation, so that a write answers EINVAL."""

    nonseekable = True

    def __init__(self, text: bytes) -> None:
        self._text = text

    def read(self, size: int, offset: int) -> bytes:
        """Read on."""
        return self._text[offset : offset + size]


@dataclass(frozen=True)
class SnapshotFile:
    """A file whose text is made at open, that cannot be written and does not seek (``u32_array_fops``)."""

    render: Callable[[], bytes]

    def open(self, inode: Inode, flags: int) -> File:
        """``u32_array_open()``"""
        return ReadOnlyFile(self.render())


@dataclass(frozen=True)
class SysfsAttribute:
    """A read-only sysfs attribute: opening it for writing answers EACCES, also for root; once chmod allows
    it, the write answers EIO.

    Source: ``fs/kernfs/file.c:kernfs_fop_open()@v6.12``, ``lib/kobject.c:kobj_attr_store()``.
    """

    show: Callable[[], bytes]

    def open(self, inode: Inode, flags: int) -> File:
        """``kernfs_fop_open()``. Raises EACCES for writing."""
        if writes(flags) and not inode.mode & 0o222:
            fail(errno.EACCES)
        return SeqFile(self.show, None, errno.EIO)


def debugfs_root(root: Directory) -> Directory:
    """/sys/kernel/debug: root's alone."""
    return sysfs_directory(root, "kernel").subdir("debug", 0o700, DEBUGFS)


def sysfs_directory(root: Directory, *names: str) -> Directory:
    """A directory below /sys, made if it is not there yet."""
    directory = root.subdir("sys", fs=SYSFS)
    for name in names:
        directory = directory.subdir(name)
    return directory
