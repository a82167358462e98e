"""Open files: the one place where the mount and the system calls in process meet a file's operations.

What may change the machine goes through its journal here (``init/journal.py``); everything that only reads
is the file's own affair, and costs nothing more.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

from cmafs.fs.dentry import Directory, File, Inode, RegularFile, fail
from cmafs.fs.seq_file import O_ACCMODE, O_TRUNC
from cmafs.init.journal import Journal
from cmafs.lib.printk import decode

O_DIRECT = 0o40000


class _KeptFile(File):
    """An open file whose operations the journal keeps, under its number; of ``stateful`` ones reads too."""

    def __init__(self, file: File, inode: RegularFile, number: int, journal: Journal) -> None:
        self._file = file
        self._inode = inode
        self.number = number
        self._journal = journal
        self.nonseekable = file.nonseekable

    def read(self, size: int, offset: int) -> bytes:
        """read(2)."""
        if not self._inode.stateful:
            return self._file.read(size, offset)
        data = self._journal.do(lambda: self._file.read(size, offset), "read", self.number, size, offset)
        if not data and stat.S_ISFIFO(self._inode.mode):  # which is asked again and again
            self._journal.drop()
        return data

    def write(self, data: bytes, offset: int) -> int:
        """write(2)."""
        return self._journal.do(
            lambda: self._file.write(data, offset), "write", self.number, data, offset, size=len(data)
        )

    def ioctl(self, cmd: int, argument: bytearray) -> int:
        """ioctl(2)."""
        return self._journal.do(
            lambda: self._file.ioctl(cmd, argument),
            *("ioctl", self.number, cmd, bytes(argument)),
            size=len(argument),
        )

    def release(self) -> None:
        """The last descriptor is closed."""
        self._journal.do(self._file.release, "release", self.number)


class OpenFiles:
    """The operations on the files of one machine that its journal keeps; paths are absolute.

    ``last``: the number of the file that was opened last, of those whose operations are kept.
    Every method raises OSError with the kernel's errno.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.last = 0

    def open(self, path: str | bytes, inode: RegularFile, flags: int) -> File:
        """open(2): truncation happens after the file agreed to be opened; none here can do O_DIRECT."""
        if self._journal.entries is None or not (flags & O_ACCMODE or inode.stateful):
            return _open(inode, flags)
        name = path if isinstance(path, str) else decode(path)
        file = self._journal.do(lambda: _open(inode, flags), "open", name, flags)
        self.last += 1
        return _KeptFile(file, inode, self.last, self._journal)

    def chmod(self, path: str, inode: Inode, mode: int) -> None:
        """chmod(2)."""
        self._journal.do(lambda: inode.chmod(mode), "chmod", path, mode)

    def chown(self, path: str, inode: Inode, uid: int, gid: int) -> None:
        """chown(2)."""
        self._journal.do(lambda: _chown(inode, uid, gid), "chown", path, uid, gid)

    def truncate(self, path: str, inode: Inode, length: int) -> None:
        """truncate(2)."""
        self._journal.do(lambda: inode.truncate(length), "truncate", path, length)

    def ftruncate(self, file: File, inode: Inode, length: int) -> None:
        """ftruncate(2)."""
        if isinstance(file, _KeptFile):
            self._journal.do(lambda: inode.truncate(length), "ftruncate", file.number, length)
        else:
            inode.truncate(length)

    def mkdir(self, path: str, directory: Directory, name: str) -> None:
        """mkdir(2)."""
        self._unless_refused(lambda: directory.mkdir(name), "mkdir", path)

    def rmdir(self, path: str, directory: Directory, name: str) -> None:
        """rmdir(2)."""
        self._unless_refused(lambda: directory.rmdir(name), "rmdir", path)

    def _unless_refused(self, call: Callable[[], None], name: str, path: str) -> None:
        """Keep what was done; it may be refused because of somebody who only reads, and is not kept."""
        try:
            self._journal.do(call, name, path)
        except OSError:
            self._journal.drop()
            raise


def _open(inode: RegularFile, flags: int) -> File:
    file = inode.fops.open(inode, flags)
    if flags & (O_DIRECT | O_TRUNC):
        if flags & O_DIRECT:  # fs/open.c:do_dentry_open()
            file.release()
            fail(errno.EINVAL)
        inode.truncate(0)
    return file


def _chown(inode: Inode, uid: int, gid: int) -> None:
    """An id of all ones is left as it is."""
    inode.fs.may_set_attributes()
    unchanged = 0xFFFFFFFF
    inode.uid = inode.uid if uid == unchanged else uid
    inode.gid = inode.gid if gid == unchanged else gid
