"""System calls on a tree, in process, with the kernel's answers to uid 0 (``fs/namei.c``, ``fs/open.c``).

Method names and arguments are those of ``os``, so that one program can run on a mount and on the tables.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass

from cmafs.fs.dentry import Directory, File, Inode, RegularFile, Symlink, fail
from cmafs.fs.open import OpenFiles
from cmafs.fs.seq_file import O_ACCMODE, O_TRUNC
from cmafs.init.journal import Journal
from cmafs.lib.clock import ManualClock
from cmafs.lib.printk import encode

#: ``include/uapi/asm-generic/fcntl.h``
O_RDONLY, O_WRONLY, O_RDWR = 0, 1, 2
O_CREAT, O_EXCL, O_APPEND, O_NONBLOCK = 0o100, 0o200, 0o2000, 0o4000
O_DIRECT, O_DIRECTORY, O_NOFOLLOW = 0o40000, 0o200000, 0o400000
SEEK_SET, SEEK_CUR, SEEK_END = 0, 1, 2

_NAME_MAX = 255
_PATH_MAX = 4096
_MAXSYMLINKS = 40


@dataclass(frozen=True)
class Stat:
    """What lstat(2) tells: sizes in bytes."""

    st_mode: int
    st_size: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_blocks: int
    st_blksize: int


@dataclass(eq=False)
class OpenFile:
    """``struct file``: ``file`` is None for a directory; ``pos`` in bytes."""

    inode: Inode
    flags: int
    file: File | None
    pos: int = 0


class Syscalls:
    """A tree and the descriptors open in it. Every method raises OSError with the kernel's errno."""

    def __init__(self, root: Directory, vfs: OpenFiles | None = None) -> None:
        self._root = root
        self._vfs = vfs or OpenFiles(Journal(ManualClock()))
        self._files: dict[int, OpenFile] = {}
        self._next_fd = 3

    # descriptors

    def open(self, path: str, flags: int = O_RDONLY, mode: int = 0o666) -> int:
        """open(2). Truncation happens after the file agreed to be opened."""
        directory, name, inode = self._lookup(path, follow=not flags & O_NOFOLLOW or path.endswith("/"))
        if flags & O_CREAT and path.endswith("/"):
            fail(errno.EISDIR)
        if inode is None:
            if not flags & O_CREAT:
                fail(errno.ENOENT)
            directory.create(name)
        if flags & O_CREAT and flags & O_EXCL:
            fail(errno.EEXIST)
        if isinstance(inode, Directory):
            if flags & (O_ACCMODE | O_CREAT):
                fail(errno.EISDIR)
        elif flags & O_DIRECTORY or path.endswith("/"):
            fail(errno.ENOTDIR)
        elif isinstance(inode, Symlink):
            fail(errno.ELOOP)
        file = self._vfs.open(path, inode, flags) if isinstance(inode, RegularFile) else None
        fd = self._next_fd
        self._next_fd += 1
        self._files[fd] = OpenFile(inode, flags, file)
        return fd

    def close(self, fd: int) -> None:
        """close(2): the descriptor is gone, and the file hears so."""
        opened = self._fget(fd)
        del self._files[fd]
        if opened.file is not None:
            opened.file.release()

    def read(self, fd: int, size: int) -> bytes:
        """read(2): at most ``size`` bytes, and the position moves on."""
        opened = self._fget(fd)
        data = self._readable(opened).read(size, opened.pos)
        opened.pos += len(data)
        return data

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """pread(2): at most ``size`` bytes from ``offset``; the position stays."""
        opened = self._fget(fd)
        if offset < 0:
            fail(errno.EINVAL)
        self._seekable(opened)
        return self._readable(opened).read(size, offset)

    def write(self, fd: int, data: bytes) -> int:
        """write(2): how many bytes were taken; the position moves on."""
        opened = self._fget(fd)
        count = self._writable(opened).write(data, opened.pos)
        opened.pos += count
        return count

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        """pwrite(2): how many bytes were taken at ``offset``; the position stays."""
        opened = self._fget(fd)
        if offset < 0:
            fail(errno.EINVAL)
        self._seekable(opened)
        return self._writable(opened).write(data, offset)

    def lseek(self, fd: int, offset: int, whence: int = SEEK_SET) -> int:
        """lseek(2): the new position, counted for SEEK_END from the size that stat(2) shows."""
        opened = self._fget(fd)
        self._seekable(opened)
        start = {SEEK_SET: 0, SEEK_CUR: opened.pos, SEEK_END: opened.inode.size}.get(whence, -1)
        if start < 0 or start + offset < 0:
            fail(errno.EINVAL)
        opened.pos = start + offset
        return opened.pos

    def fstat(self, fd: int) -> Stat:
        """fstat(2): of an open file, also when its name is gone."""
        return self._stat(self._fget(fd).inode)

    def ioctl(self, fd: int, cmd: int, argument: bytearray) -> int:
        """ioctl(2) with the argument that the command's number describes, changed in place."""
        opened = self._fget(fd)
        if opened.file is None:
            fail(errno.ENOTTY)
        return opened.file.ioctl(cmd, argument)

    # names

    def lstat(self, path: str) -> Stat:
        """lstat(2): of a link itself, unless a slash follows its name."""
        return self._stat(self.inode(path, follow=path.endswith("/")))

    def stat(self, path: str) -> Stat:
        """stat(2): of what a link leads to."""
        return self._stat(self.inode(path))

    def readlink(self, path: str) -> str:
        """readlink(2): the target as it was written. Raises EINVAL for no link."""
        inode = self.inode(path, follow=False)
        if not isinstance(inode, Symlink):
            fail(errno.EINVAL)
        return inode.target

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, without ``.`` and ``..``."""
        inode = self.inode(path)
        if not isinstance(inode, Directory):
            fail(errno.ENOTDIR)
        return list(inode.children)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """mkdir(2): only in tracing/instances."""
        directory, name, inode = self._lookup(path.rstrip("/") or path[:1], follow=False)
        if inode is not None:
            fail(errno.EEXIST)
        self._vfs.mkdir(path, directory, name)

    def rmdir(self, path: str) -> None:
        """rmdir(2)."""
        directory, name, _ = self._lookup(path.rstrip("/") or path[:1], follow=False)
        if path.rstrip("/").rpartition("/")[2] == ".":
            self.inode(path)
            fail(errno.EINVAL)
        if name in ("", ".."):
            fail(errno.ENOTEMPTY if name else errno.EBUSY)
        self._vfs.rmdir(path, directory, name)

    def unlink(self, path: str) -> None:
        """unlink(2): no file system here lets anybody."""
        directory, name, inode = self._lookup(path, follow=False)
        if inode is not None and (path.endswith("/") or name in ("", "..")):
            fail(errno.EISDIR if inode.is_dir else errno.ENOTDIR)
        directory.unlink(name)

    def rename(self, old: str, new: str) -> None:
        """rename(2): no file system here renames."""
        directory, _, inode = self._lookup(old, follow=False)
        self._lookup(new, follow=False)
        if inode is None:
            fail(errno.ENOENT)
        fail(directory.fs.rename)

    def symlink(self, target: str, path: str) -> None:
        """symlink(2): no file system here makes links for users, and a slash asks for a directory."""
        directory, _, inode = self._lookup(path, follow=False)
        if inode is not None or path.endswith("/"):
            fail(errno.EEXIST if inode else errno.ENOENT)
        fail(directory.fs.symlink)

    def chmod(self, path: str, mode: int) -> None:
        """chmod(2): the permission bits of ``mode`` replace those of the file."""
        self._vfs.chmod(path, self.inode(path), mode)

    def truncate(self, path: str, length: int) -> None:
        """truncate(2): the size that stat(2) shows, on some file systems. Raises EISDIR, EINVAL."""
        if length < 0:
            fail(errno.EINVAL)
        inode = self.inode(path)
        if isinstance(inode, Directory):
            fail(errno.EISDIR)
        self._vfs.truncate(path, inode, length)

    # whole files, as a shell's < and > do it

    def read_file(self, path: str) -> bytes:
        """Open, read to the end, close."""
        fd = self.open(path, O_RDONLY)
        try:
            pieces = []
            while piece := self.read(fd, 1 << 17):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            self.close(fd)

    def write_file(self, path: str, data: bytes) -> int:
        """Open as the shell's ``>`` does, write once, close; the bytes that were taken."""
        fd = self.open(path, O_WRONLY | O_CREAT | O_TRUNC)
        try:
            return self.write(fd, data)
        finally:
            self.close(fd)

    # inside

    def _fget(self, fd: int) -> OpenFile:
        if fd not in self._files:
            fail(errno.EBADF)
        return self._files[fd]

    def _readable(self, opened: OpenFile) -> File:
        if opened.flags & O_ACCMODE == O_WRONLY:
            fail(errno.EBADF)
        if opened.file is None:
            fail(errno.EISDIR)
        return opened.file

    def _writable(self, opened: OpenFile) -> File:
        if opened.flags & O_ACCMODE == O_RDONLY or opened.file is None:
            fail(errno.EBADF)
        return opened.file

    def _seekable(self, opened: OpenFile) -> None:
        if opened.file is not None and opened.file.nonseekable:
            fail(errno.ESPIPE)

    def inode(self, path: str, follow: bool = True) -> Inode:
        """What stands at a path. Raises ENOENT."""
        inode = self._lookup(path, follow)[2]
        if inode is None:
            fail(errno.ENOENT)
        return inode

    def _lookup(self, path: str, follow: bool) -> tuple[Directory, str, Inode | None]:
        """The directory of a path's last name, that name, and what stands there (``path_lookupat()``)."""
        if not path or len(path) >= _PATH_MAX:
            fail(errno.ENAMETOOLONG if path else errno.ENOENT)
        trail = [self._root]
        names = [name for name in path.split("/") if name not in ("", ".")][::-1]
        last, links = "", 0
        while names:
            last = names.pop()
            if last == "..":
                trail = trail[:-1] or trail
                continue
            inode = self._child(trail[-1], last)
            if isinstance(inode, Symlink) and (names or follow):
                links += 1
                if links > _MAXSYMLINKS:
                    fail(errno.ELOOP)
                trail = [self._root] if inode.target.startswith("/") else trail
                names += [name for name in inode.target.split("/") if name not in ("", ".")][::-1]
            elif not names:
                return trail[-1], last, inode
            elif isinstance(inode, Directory):
                trail.append(inode)
            else:
                fail(errno.ENOENT if inode is None else errno.ENOTDIR)
        return trail[-1], last if last == ".." else "", trail[-1]

    def _stat(self, inode: Inode) -> Stat:
        assert stat.S_IFMT(inode.mode)
        block_size = inode.fs.block_size or self._root.block_size
        return Stat(inode.mode, inode.size, inode.nlink, inode.uid, inode.gid, 0, block_size)

    def _child(self, directory: Directory, name: str) -> Inode | None:
        if len(encode(name)) > _NAME_MAX:
            fail(errno.ENAMETOOLONG)
        return directory.children.get(name)
