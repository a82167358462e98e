"""Open files: the one place where the mount and the system calls in process meet a file's operations.

What may change the machine goes through its journal here (``init/journal.py``); everything that only reads
is the file's own affair, and costs nothing more.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

from cmafs.fs.dentry import Directory, File, Inode, RegularFile, fail
from cmafs.fs.seq_file import O_TRUNC, writes
from cmafs.init.journal import Journal

O_DIRECT = 0o40000


class OpenFiles:
    """The operations on the files of one machine that its journal keeps; paths are absolute.

    ``last``: the number of the file that was opened last, of those whose operations are kept.
    Every method raises OSError with the kernel's errno.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._numbers: dict[File, int] = {}
        self.last = 0

    def open(self, path: str | bytes, inode: RegularFile, flags: int) -> File:
        """open(2): truncation happens after the file agreed to be opened; none here can do O_DIRECT."""
        if not (inode.stateful or writes(flags)):
            return _open(inode, flags)
        name = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
        file = self._journal.do(lambda: _open(inode, flags), "open", name, flags)
        self.last += 1
        self._numbers[file] = self.last
        return file

    def read(self, file: File, inode: RegularFile, size: int, offset: int) -> bytes:
        """read(2)."""
        if not inode.stateful:
            return file.read(size, offset)
        number = self._numbers[file]
        data = self._journal.do(lambda: file.read(size, offset), "read", number, size, offset)
        if not data and stat.S_ISFIFO(inode.mode):  # which is asked again and again
            self._journal.drop()
        return data

    def write(self, file: File, data: bytes, offset: int) -> int:
        """write(2)."""
        return self._journal.do(lambda: file.write(data, offset), "write", self._numbers[file], data, offset)

    def ioctl(self, file: File, cmd: int, argument: bytearray) -> int:
        """ioctl(2)."""
        number = self._numbers.get(file)
        if number is None:  # of what is open for reading only, and not stateful
            return file.ioctl(cmd, argument)
        return self._journal.do(lambda: file.ioctl(cmd, argument), "ioctl", number, cmd, bytes(argument))

    def release(self, file: File) -> None:
        """The last descriptor is closed."""
        number = self._numbers.pop(file, None)
        if number is None:
            file.release()
        else:
            self._journal.do(file.release, "release", number)

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
        self._journal.do(lambda: inode.truncate(length), "ftruncate", self._numbers[file], length)

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
    if flags & O_DIRECT:  # fs/open.c:do_dentry_open()
        file.release()
        fail(errno.EINVAL)
    if flags & O_TRUNC:
        inode.truncate(0)
    return file


def _chown(inode: Inode, uid: int, gid: int) -> None:
    """An id of all ones is left as it is."""
    unchanged = 0xFFFFFFFF
    inode.uid = inode.uid if uid == unchanged else uid
    inode.gid = inode.gid if gid == unchanged else gid
