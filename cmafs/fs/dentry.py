"""The tree that is mounted: directories, files and links as plain objects, with no FUSE in sight.

A table module (fs/cma_debug.py, fs/proc/root.py, ...) builds its part once, at boot; nothing is looked up
by path string afterwards. ``fs/namei.py`` walks the tree in process, ``mount/fuse_ops.py`` shows it through
FUSE.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NoReturn, Protocol


def fail(code: int) -> NoReturn:
    """Answer a request with an errno."""
    raise OSError(code, errno.errorcode[code])


@dataclass(frozen=True)
class FileSystemType:
    """What all inodes of one file system share: ``struct file_system_type`` and its inode operations.

    ``create``, ``mkdir``, ``unlink``, ``rmdir``, ``rename``: the errno each of these answers with.
    ``mounted``: that of rmdir on a mount point in it; what has no rmdir operation does not look whether it is
    one (``fs/namei.c:vfs_rmdir()@v6.12``).
    ``truncate_sets_size``: truncate(2) changes what stat shows (simple_setattr), content aside.
    ``setattr``: the errno of chmod and chown, 0: they work. ``block_size``: st_blksize, 0: a page's.
    """

    name: str
    create: int = errno.EACCES
    mkdir: int = errno.EPERM
    unlink: int = errno.EPERM
    rmdir: int = errno.EPERM
    mounted: int = errno.EBUSY
    rename: int = errno.EPERM
    symlink: int = errno.EPERM
    truncate_sets_size: bool = True
    setattr: int = 0
    block_size: int = 0

    def refusing(self, error: int) -> FileSystemType:
        """The same, except that whatever makes, removes or renames answers with this errno."""
        return replace(
            self, create=error, mkdir=error, unlink=error, rmdir=error, rename=error, symlink=error
        )

    def may_set_attributes(self) -> None:
        """Raises what chmod and chown answer, where they do not work."""
        if self.setattr:
            fail(self.setattr)


class File:
    """An open file: ``struct file`` with the operations of its ``file_operations``.

    ``nonseekable``: pread, pwrite and lseek answer ESPIPE. ``on_release``: who else is told of the end.
    """

    nonseekable = False
    on_release: Callable[[], None] | None = None

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``; b'' at the end. Raises OSError with the kernel's errno."""
        fail(errno.EINVAL)

    def write(self, data: bytes, offset: int) -> int:
        """How many bytes were taken. Raises OSError with the kernel's errno."""
        fail(errno.EINVAL)

    def ioctl(self, cmd: int, argument: bytearray) -> int:
        """ioctl(2); ``argument`` has _IOC_SIZE(cmd) bytes, changed in place. Raises the kernel's errno."""
        fail(errno.ENOTTY)

    def release(self) -> None:
        """The last reference is gone."""
        if self.on_release is not None:
            self.on_release()


class FileOperations(Protocol):
    """What a regular file does: ``open`` makes the File that answers reads and writes."""

    def open(self, inode: Inode, flags: int) -> File:
        """``flags`` are open(2)'s. Raises OSError where the kernel refuses at open."""


@dataclass(frozen=True)
class OpenedBy:
    """The operations of a file whose open(2) is ``make``, which gets the flags."""

    make: Callable[[int], File]

    def open(self, inode: Inode, flags: int) -> File:
        """Raises what ``make`` raises."""
        return self.make(flags)


@dataclass(eq=False)
class Inode:
    """What stat(2) shows. ``mode`` includes the type bits; sizes in bytes."""

    fs: FileSystemType
    mode: int
    size: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    def chmod(self, mode: int) -> None:
        """Replace the permission bits. Raises OSError where the file system does not do that."""
        self.fs.may_set_attributes()
        self.mode = stat.S_IFMT(self.mode) | stat.S_IMODE(mode)

    def truncate(self, length: int) -> None:
        """truncate(2) and O_TRUNC: only the size that stat shows, where the file system does that."""
        if self.fs.truncate_sets_size:
            self.size = length


@dataclass(eq=False)
class RegularFile(Inode):
    """A file whose bytes are made by its operations; ``stateful``: to open or read it changes the machine."""

    fops: FileOperations = field(kw_only=True)
    stateful: bool = False


@dataclass(eq=False)
class Symlink(Inode):
    """A symbolic link; ``target`` as readlink(2) gives it."""

    target: str = field(kw_only=True)


@dataclass(eq=False)
class Directory(Inode):
    """A directory; ``children`` in the order they were made.

    ``on_mkdir`` and ``on_rmdir`` exist where the kernel lets users make directories (tracing/instances).
    ``block_size``: of the root, what stat shows of every file: PAGE_SIZE (``fs/libfs.c:simple_statfs()``).
    """

    children: dict[str, Inode] = field(default_factory=dict)
    on_mkdir: Callable[[str], None] | None = None
    on_rmdir: Callable[[str], None] | None = None
    block_size: int = 4096

    def add(self, name: str, inode: Inode) -> None:
        """Put an inode under a name; a subdirectory counts as a link to its parent."""
        assert name not in self.children, name
        self.children[name] = inode
        if inode.is_dir:
            self.nlink += 1

    def remove(self, name: str) -> None:
        """Take a name away."""
        if self.children.pop(name).is_dir:
            self.nlink -= 1

    def subdir(self, name: str, mode: int = 0o755, fs: FileSystemType | None = None) -> Directory:
        """The subdirectory of that name, made if it is not there yet."""
        if name not in self.children:
            self.add(name, new_directory(fs or self.fs, mode))
        child = self.children[name]
        assert isinstance(child, Directory), name
        return child

    def file(self, name: str, mode: int, fops: FileOperations, size: int = 0) -> RegularFile:
        """Make a regular file."""
        inode = RegularFile(self.fs, stat.S_IFREG | mode, size, fops=fops)
        self.add(name, inode)
        return inode

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link, with the size and mode of a debugfs one unless changed after."""
        self.add(name, Symlink(self.fs, stat.S_IFLNK | 0o777, target=target))

    def mkdir(self, name: str) -> None:
        """mkdir(2) on a name. Raises EEXIST or what the file system answers."""
        if name in self.children:
            fail(errno.EEXIST)
        if self.on_mkdir is None:
            fail(self.fs.mkdir)
        self.on_mkdir(name)

    def rmdir(self, name: str) -> None:
        """rmdir(2) on a name. Raises ENOENT, ENOTDIR or what the file system answers."""
        child = self._child(name)
        if not child.is_dir:
            fail(errno.ENOTDIR)
        if child.fs.name != self.fs.name:
            fail(self.fs.mounted)
        if self.on_rmdir is None:
            fail(self.fs.rmdir)
        self.on_rmdir(name)

    def unlink(self, name: str) -> NoReturn:
        """unlink(2): no file here can be removed. Raises ENOENT, EISDIR, or the file system's answer."""
        if self._child(name).is_dir:
            fail(errno.EISDIR)
        fail(self.fs.unlink)

    def create(self, name: str) -> NoReturn:
        """open(2) with O_CREAT on a name that does not exist."""
        fail(self.fs.create)

    def _child(self, name: str) -> Inode:
        if name not in self.children:
            fail(errno.ENOENT)
        return self.children[name]


def new_directory(fs: FileSystemType, mode: int = 0o755) -> Directory:
    """An empty directory; two links, its name and its own dot."""
    return Directory(fs, stat.S_IFDIR | mode, nlink=2)


def walk(directory: Directory, prefix: str = "") -> Iterator[tuple[str, Inode]]:
    """Every inode below a directory with its path, parents first."""
    for name, inode in directory.children.items():
        yield f"{prefix}/{name}", inode
        if isinstance(inode, Directory):
            yield from walk(inode, f"{prefix}/{name}")
