"""The mounted tree: fusepy's callbacks answered from the objects of fs/dentry.py. The only fusepy import.

What a call may cost decides the shape of this module. A handler that is not needed is None, so that libfuse
answers or the kernel stops asking; a path is resolved once; attributes and names are cached by the kernel,
since they change only through the mount itself; fusepy's decoding of paths, lookup of handlers by name and
dicts of attributes are left out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import fuse

from cmafs.fs.dentry import Directory, File, Inode, RegularFile, Symlink, fail
from cmafs.fs.fuse_fifo import FifoFeeders

#: Seconds. Names and attributes change only through the mount, and the kernel sees those changes itself.
FOREVER = 1e6

#: Bytes: what stat(2) shows for every file system of the tree.
BLKSIZE = 4096

#: ``-o`` options of every mount; a caller's own are added to these.
OPTIONS: Mapping[str, str | bool] = {
    "default_permissions": True,
    "attr_timeout": str(FOREVER),
    "entry_timeout": str(FOREVER),
    "atomic_o_trunc": True,  # the shell's `>` then needs no truncate of its own
    "big_writes": True,  # else a write arrives in pieces of 4 KiB
    "use_ino": True,
}

#: include/uapi/asm-generic/ioctl.h:_IOC_SIZE()@v6.12
_IOC_SIZESHIFT, _IOC_SIZEMASK = 16, 0x3FFF


def caller_pid() -> int:
    """Who made the call that is being answered; 0 outside a callback, or from another pid namespace."""
    pid: int = fuse.fuse_get_context()[2]
    return pid


class FuseMount(fuse.FUSE):  # type: ignore[misc]  # fusepy has no types
    """One mount: made, served and ended by its constructor, which returns when it is unmounted.

    ``root`` is the tree; ``options`` go to ``-o``; ``on_ready`` is called once the kernel has sent its first
    request; ``report`` takes the traceback of a bug of ours, which the caller of the system call sees as EIO.
    Raises RuntimeError if libfuse cannot mount.

    fusepy looks a handler up in ``operations`` and calls its own method of that name: both are this object.
    """

    use_ns = True  # else fusepy warns at each start
    flag_nullpath_ok = flag_nopath = True  # handlers of open files get no path

    # without a handler libfuse answers ENOSYS, after which the kernel asks no more; for getxattr that saves
    # one request (security.capability) before every write
    flush = fsync = fsyncdir = access = statfs = lock = bmap = None
    getxattr = setxattr = listxattr = removexattr = destroy = None

    def __init__(
        self,
        root: Directory,
        mountpoint: str,
        options: Mapping[str, str | bool],
        on_ready: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self._root = root
        self._on_ready = on_ready
        self._report = report
        self._inodes: dict[bytes, Inode] = {b"/": root}
        self._numbers: dict[int, int] = {}
        self._times: dict[int, tuple[int, int]] = {}
        self._files: dict[int, tuple[File, Inode]] = {}
        self._directories: dict[int, Directory] = {}
        self._last_fh = 0
        self._boot_time = time.time_ns()
        self._as_root = os.geteuid() == 0
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._lock = threading.Lock()
        self._feeders = FifoFeeders(mountpoint, self._lock, report)
        try:
            super().__init__(
                self, mountpoint, raw_fi=True, foreground=True, nothreads=True, **{**OPTIONS, **options}
            )
        finally:
            self._feeders.stop()

    def _wrapper(self, func: Callable[..., int | None], *args: Any) -> int:
        """Every callback: an OSError is the kernel's answer, anything else a bug of ours and EIO."""
        try:
            with self._lock:
                return func(*args) or 0
        except OSError as error:
            if error.errno:
                return -error.errno
            self._report(traceback.format_exc())
        except BaseException:  # fusepy would make EINVAL of it, which is the kernel's own word
            self._report(traceback.format_exc())
        return -errno.EIO

    # names

    def _lookup(self, path: bytes) -> Inode:
        """The inode of an absolute path. Raises ENOENT, ENOTDIR."""
        inode = self._inodes.get(path)
        if inode is None:
            parent, name = self._parent(path)
            inode = parent.children.get(name)
            if inode is None:
                fail(errno.ENOENT)
            self._inodes[path] = inode
            if stat.S_ISFIFO(inode.mode) and isinstance(inode, RegularFile):
                self._feeders.add(os.fsdecode(path), inode)
        return inode

    def _parent(self, path: bytes) -> tuple[Directory, str]:
        """The directory that a path's last name stands in, and that name. Raises ENOENT, ENOTDIR."""
        head, _, name = path.rpartition(b"/")
        parent = self._lookup(head or b"/")
        if not isinstance(parent, Directory):
            fail(errno.ENOTDIR)
        return parent, os.fsdecode(name)

    def _forget(self, removed: Inode) -> None:
        """Drop what is remembered of a removed directory, under every path that led to it."""
        for path in [path for path, inode in self._inodes.items() if inode is removed]:
            below = path + b"/"
            for known in [known for known in self._inodes if known == path or known.startswith(below)]:
                del self._inodes[known]

    # attributes

    def getattr(self, path: bytes, buf: Any) -> None:
        """stat(2)."""
        self._fill(self._lookup(path), buf.contents)

    def fgetattr(self, path: bytes | None, buf: Any, fip: Any) -> None:
        """fstat(2); the kernel sends it for an open file."""
        self._fill(self._files[fip.contents.fh][1], buf.contents)

    def _fill(self, inode: Inode, st: Any) -> None:
        """A ``struct stat``. An ordinary user's FIFO can be written by its owner: the server must feed it."""
        ctypes.memset(ctypes.byref(st), 0, ctypes.sizeof(st))
        st.st_ino = self._numbers.setdefault(id(inode), len(self._numbers) + 1)
        st.st_mode = inode.mode
        if stat.S_ISFIFO(inode.mode) and not self._as_root:
            st.st_mode |= stat.S_IWUSR
        st.st_nlink = inode.nlink
        st.st_size = inode.size
        st.st_blksize = BLKSIZE
        st.st_uid, st.st_gid = (inode.uid, inode.gid) if self._as_root else (self._uid, self._gid)
        atime, mtime = self._times.get(id(inode), (self._boot_time, self._boot_time))
        st.st_atimespec.tv_sec, st.st_atimespec.tv_nsec = divmod(atime, 10**9)
        st.st_mtimespec.tv_sec, st.st_mtimespec.tv_nsec = divmod(mtime, 10**9)
        st.st_ctimespec = st.st_mtimespec

    def chmod(self, path: bytes, mode: int) -> None:
        """chmod(2)."""
        self._lookup(path).chmod(mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        """chown(2); an id of all ones is left as it is."""
        inode, unchanged = self._lookup(path), 0xFFFFFFFF
        inode.uid = inode.uid if uid == unchanged else uid
        inode.gid = inode.gid if gid == unchanged else gid

    def utimens(self, path: bytes, times: Any) -> None:
        """utimensat(2); libfuse 2 has made times of UTIME_NOW and UTIME_OMIT."""
        inode, now = self._lookup(path), time.time_ns()
        if not times:
            self._times[id(inode)] = (now, now)
            return
        atime, mtime = times.contents.actime, times.contents.modtime
        self._times[id(inode)] = (
            atime.tv_sec * 10**9 + atime.tv_nsec,
            mtime.tv_sec * 10**9 + mtime.tv_nsec,
        )

    def truncate(self, path: bytes, length: int) -> None:
        """truncate(2)."""
        self._lookup(path).truncate(length)

    def ftruncate(self, path: bytes | None, length: int, fip: Any) -> None:
        """ftruncate(2)."""
        self._files[fip.contents.fh][1].truncate(length)

    # open files

    def open(self, path: bytes, fip: Any) -> None:
        """open(2) of a regular file that exists; O_TRUNC takes effect after the file agreed to be opened."""
        inode, fi = self._lookup(path), fip.contents
        if not isinstance(inode, RegularFile):
            fail(errno.EINVAL)
        flags = fi.flags
        file = inode.fops.open(inode, flags)
        if flags & os.O_TRUNC:
            inode.truncate(0)
        fi.direct_io = 1
        if file.nonseekable:
            fi.nonseekable = 1
        self._last_fh = fh = self._last_fh + 1
        fi.fh = fh
        self._files[fh] = file, inode

    def read(self, path: bytes | None, buf: Any, size: int, offset: int, fip: Any) -> int:
        """read(2), pread(2): at most 128 KiB arrive at a time."""
        data = self._files[fip.contents.fh][0].read(size, offset)
        length = len(data)
        assert length <= size, (length, size)
        ctypes.memmove(buf, data, length)
        return length

    def write(self, path: bytes | None, buf: Any, size: int, offset: int, fip: Any) -> int:
        """write(2), pwrite(2): at most 128 KiB arrive at a time, and never nothing."""
        return self._files[fip.contents.fh][0].write(ctypes.string_at(buf, size), offset)

    def ioctl(self, path: bytes | None, cmd: int, arg: Any, fip: Any, flags: int, data: int | None) -> int:
        """ioctl(2) with the argument that the command's number describes, copied in and back."""
        size = cmd >> _IOC_SIZESHIFT & _IOC_SIZEMASK if data else 0
        argument = bytearray(ctypes.string_at(data, size)) if data else bytearray()
        result = self._files[fip.contents.fh][0].ioctl(cmd, argument)
        if data:
            ctypes.memmove(data, bytes(argument), size)
        return result

    def release(self, path: bytes | None, fip: Any) -> None:
        """The last descriptor is closed."""
        file, _ = self._files.pop(fip.contents.fh)
        file.release()

    # directories

    def opendir(self, path: bytes, fip: Any) -> None:
        """open(2) of a directory."""
        directory = self._lookup(path)
        assert isinstance(directory, Directory)
        self._last_fh = fip.contents.fh = self._last_fh + 1
        self._directories[self._last_fh] = directory

    def releasedir(self, path: bytes | None, fip: Any) -> None:
        """The last descriptor of a directory is closed."""
        del self._directories[fip.contents.fh]

    def readdir(self, path: bytes | None, buf: Any, filler: Any, offset: int, fip: Any) -> None:
        """getdents(2), all at once; types with the names, so that find(1) need not stat."""
        directory = self._directories[fip.contents.fh]
        st = fuse.c_stat()
        for name, inode in [(".", directory), ("..", directory), *directory.children.items()]:
            st.st_mode = inode.mode
            st.st_ino = self._numbers.setdefault(id(inode), len(self._numbers) + 1)
            if filler(buf, os.fsencode(name), st, 0):
                break

    def readlink(self, path: bytes, buf: Any, size: int) -> None:
        """readlink(2), with the terminating zero that libfuse wants."""
        link = self._lookup(path)
        if not isinstance(link, Symlink):
            fail(errno.EINVAL)
        target = os.fsencode(link.target)[: size - 1] + b"\0"
        ctypes.memmove(buf, target, len(target))

    def create(self, path: bytes, mode: int, fip: Any) -> None:
        """open(2) with O_CREAT of a name that is not there."""
        parent, name = self._parent(path)
        parent.create(name)

    def mkdir(self, path: bytes, mode: int) -> None:
        """mkdir(2)."""
        parent, name = self._parent(path)
        parent.mkdir(name)

    def rmdir(self, path: bytes) -> None:
        """rmdir(2)."""
        parent, name = self._parent(path)
        removed = self._lookup(path)
        parent.rmdir(name)
        self._forget(removed)

    def unlink(self, path: bytes) -> None:
        """unlink(2)."""
        parent, name = self._parent(path)
        parent.unlink(name)

    def symlink(self, target: bytes, path: bytes) -> None:
        """symlink(2)."""
        fail(self._parent(path)[0].fs.symlink)

    def mknod(self, path: bytes, mode: int, dev: int) -> None:
        """mknod(2): no file system of the tree has it."""
        fail(errno.EPERM)

    def link(self, old: bytes, new: bytes) -> None:
        """link(2): no file system of the tree has it."""
        fail(errno.EPERM)

    def rename(self, old: bytes, new: bytes) -> None:
        """rename(2)."""
        fail(self._parent(old)[0].fs.rename)

    # the mount itself

    def init(self, conn: Any) -> None:
        """The kernel's first request: the tree answers from here on."""
        self._on_ready()
