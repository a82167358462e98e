"""Where the files of a board are: a mount point, ``/`` of a real machine, a directory of copies, or a tar.

All tools that look at a board read it through ``Root``. Paths in it are relative: ``sys/kernel/debug/cma``.
"""

from __future__ import annotations

import errno
import io
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import weakref
import zlib
from pathlib import Path
from typing import IO, Protocol

from cmafs.lib.printk import time_prefix

#: Bytes of one file that are read; what is longer is not what these files are.
MAX_FILE = 1 << 30
#: Bytes of a tar, unpacked; those that are copied at a time.
MAX_TAR, _CHUNK = 8 << 30, 1 << 20
#: Bytes of a path.
_PATH_MAX = 4096

#: What reading a packed file that is damaged raises; a tar, packed or not.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
_DAMAGED_TAR = (*DAMAGED, tarfile.TarError, ValueError)
#: What means that a board does not have a file.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.EINVAL, errno.EISDIR)


class RootError(Exception):
    """A root cannot be read: one line saying what is wrong, where, and what to do."""


def reason(error: Exception) -> str:
    """Why, without the file's name: in the host's words where it is the host that refuses."""
    return getattr(error, "strerror", None) or str(error)


class Root(Protocol):
    """The files of a board; ``name`` is what the user called it."""

    name: str

    def read(self, path: str) -> bytes | None:
        """What a file holds, None if there is none. Raises RootError for what may not be read."""

    def names(self, path: str) -> list[str]:
        """The sorted names in a directory; none if there is no such directory. Raises RootError."""


def read_text(root: Root, path: str) -> str:
    """A file's text, empty where there is none. Raises RootError."""
    return (root.read(path) or b"").decode("utf-8", "replace")


class DirectoryRoot:
    """A root that is a directory: a mount, a real machine's ``/``, or copies of its files."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, path: str) -> bytes | None:
        """See Root."""
        try:
            file = os.open(Path(self.name, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if stat.S_ISFIFO(os.fstat(file).st_mode):
                    raise RootError(f"{posixpath.join(self.name, path)}: is a FIFO; a file is wanted")
                return _read_all(file)
            finally:
                os.close(file)
        except OSError as error:
            self._absent(path, error)
            return None

    def names(self, path: str) -> list[str]:
        """See Root."""
        try:
            return sorted(os.listdir(Path(self.name, path)))  # noqa: PTH208
        except OSError as error:
            self._absent(path, error)
            return []

    def _absent(self, path: str, error: OSError) -> None:
        if error.errno in ABSENT:
            return
        hint = "; debugfs is root's: try sudo" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise RootError(f"{posixpath.join(self.name, path)}: {error.strerror}{hint}") from None


def _read_all(descriptor: int) -> bytes:
    """All of a file whose size is 0, as those of debugfs are."""
    chunks = []
    left = MAX_FILE
    while left and (chunk := os.read(descriptor, min(left, 1 << 20))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


class TarRoot:
    """A root that is the tar of ``cmafs record``, compressed or not; its files are not unpacked.

    Raises RootError for what is no tar, or one that ends early.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self._tar = self._open(name)
            self._members = {
                posixpath.normpath(member.name): member
                for member in self._tar
                if len(member.name) < _PATH_MAX
            }
            _expect_end(self._tar)
        except _DAMAGED_TAR as error:
            raise self._damaged(error) from None
        self._below = self._top()
        self._inside: dict[str, set[str]] = {}
        for path in self._members:
            while path:
                path, _, name = path.rpartition("/")
                self._inside.setdefault(path, set()).add(name)

    def _open(self, name: str) -> tarfile.TarFile:
        """The tar; a packed one is unpacked, so that its files can be read in any order."""
        tar = tarfile.open(fileobj=self._own(Path(name).open("rb")))  # noqa: SIM115
        if tar.fileobj is None or isinstance(tar.fileobj, io.BufferedReader):
            return tar
        spool = self._own(tempfile.TemporaryFile())  # noqa: SIM115
        tar.fileobj.seek(0)
        while chunk := tar.fileobj.read(_CHUNK):
            if spool.tell() > MAX_TAR:
                raise ValueError(f"unpacked it has more than {MAX_TAR} bytes")
            spool.write(chunk)
        spool.seek(0)
        return tarfile.open(fileobj=spool)

    def _own(self, file: IO[bytes]) -> IO[bytes]:
        """A file that is open as long as this root is there."""
        weakref.finalize(self, file.close)
        return file

    def _top(self) -> str:
        """The one directory that all of the tar is in, if its paths do not begin with sys or proc."""
        tops = {name.partition("/")[0] for name in self._members} - {"."}
        return "" if len(tops) != 1 or tops & {"sys", "proc"} else tops.pop()

    def _damaged(self, error: Exception) -> RootError:
        line = reason(error).partition("\n")[0].rstrip(":")
        return RootError(f"{self.name}: not a whole tar file ({line}); wanted is one of `cmafs record`")

    def read(self, path: str) -> bytes | None:
        """See Root."""
        data = io.BytesIO()
        return None if self.copy(path, data) is None else data.getvalue()

    def copy(self, path: str, to: IO[bytes], most: int = MAX_FILE) -> int | None:
        """Write what a file holds to another one: how many bytes, None if there is none. Raises RootError."""
        member = self._members.get(posixpath.join(self._below, path))
        if member is None or not member.isfile():
            return None
        try:
            file = self._tar.extractfile(member)
            if file is None or member.size > most:
                raise ValueError(f"{path} has {member.size} bytes")
            shutil.copyfileobj(file, to, _CHUNK)
        except _DAMAGED_TAR as error:
            raise self._damaged(error) from None
        return member.size

    def names(self, path: str) -> list[str]:
        """See Root."""
        return sorted(self._inside.get(posixpath.join(self._below, path), ()))


def _expect_end(tar: tarfile.TarFile) -> None:
    """A tar ends in empty blocks; one cut between two files does not. Raises EOFError."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)  # of the block that was no header
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("unexpected end of data")


def is_tar(path: str) -> bool:
    """Whether a file is a tar, compressed or not."""
    try:
        return Path(path).is_file() and tarfile.is_tarfile(path)
    except DAMAGED:
        return False


def open_root(name: str) -> Root:
    """The root that a user named. Raises RootError."""
    path = Path(name)
    try:
        if path.is_dir():
            return DirectoryRoot(name)
        why = "" if stat.S_ISREG(path.stat().st_mode) else "is no file"
    except OSError as error:
        why = reason(error)
    if why:
        raise RootError(
            f"{name}: {why}; wanted is a mount point, / of a machine, a directory with copies of "
            "sys/kernel/debug/cma and proc, or a tar of `cmafs record`"
        )
    return TarRoot(name)


#: Where a root has its kernel log: a simulated machine, a tar of `cmafs record`, copies.
LOGS = ("sim/dmesg", "dmesg", "dmesg.txt", "var/log/dmesg")


def kernel_log(root: Root) -> str | None:
    """The kernel log of a board, None where there is none; of a running machine its own. Raises RootError."""
    if isinstance(root, DirectoryRoot) and Path(root.name).resolve() == Path("/"):
        return _own_log(Path(root.name, "dev", "kmsg"))
    for name in LOGS:
        data = root.read(name)
        if data is not None:
            return data.decode("utf-8", "replace")
    return None


def _own_log(kmsg: Path) -> str:
    """What is in /dev/kmsg now, as dmesg prints it."""
    lines = []
    try:
        log = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise RootError(f"{kmsg}: {error.strerror}; try sudo, or --dmesg FILE") from None
    try:
        while True:
            try:
                record = os.read(log, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:  # overwritten while it was read: the next read goes on behind it
                continue
            if not record:
                break
            head, _, text = record.partition(b"\n")[0].decode("utf-8", "replace").partition(";")
            stamp = int(head.split(",")[2])
            lines.append(f"{time_prefix(stamp * 1000)}{text}")
    except (OSError, IndexError, ValueError) as error:
        raise RootError(f"{kmsg}: {error}; try --dmesg FILE") from None
    finally:
        os.close(log)
    return "\n".join(lines)
