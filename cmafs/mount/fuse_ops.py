"""The mounted tree: fusepy's callbacks answered from the objects of fs/dentry.py. The only fusepy import.

What a call may cost decides the shape of this module. A handler that is not needed is None, so that libfuse
answers or the kernel stops asking; a path is resolved once; attributes and names are cached by the kernel,
since they change only through the mount itself. Of fusepy the declarations of libfuse are used, not its class
FUSE, which decodes paths, finds handlers by name and makes dicts of attributes at every call.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from ctypes import memmove, string_at
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import fuse

from cmafs.fs.dentry import Directory, File, Inode, RegularFile, Symlink, fail
from cmafs.fs.open import OpenFiles
from cmafs.mount.ending import explain
from cmafs.mount.fuse_fifo import FifoFeeders
from cmafs.mount.libc import NO_MEMORY, lacks_memory

#: Seconds. Names and attributes change only through the mount, and the kernel sees those changes itself.
FOREVER = 1e6

#: ``-o`` options of every mount; a caller's own are added to these.
OPTIONS: Mapping[str, str | bool] = {
    "default_permissions": True,
    "attr_timeout": str(FOREVER),
    "entry_timeout": str(FOREVER),
    "atomic_o_trunc": True,  # the shell's `>` then needs no truncate of its own
    "big_writes": True,  # else a write arrives in pieces of 4 KiB
    "use_ino": True,
}

#: Handlers that do without the generic guard around them, which takes half a microsecond.
_HOT = frozenset(("open", "read", "write", "release"))

#: include/uapi/asm-generic/ioctl.h:_IOC_SIZE()@v6.12
_IOC_SIZESHIFT, _IOC_SIZEMASK = 16, 0x3FFF


def caller_pid() -> int:
    """Who made the call that is being answered; 0 outside a callback, or from another pid namespace."""
    pid: int = fuse.fuse_get_context()[2]
    return pid


class _Preceded:
    """A lock, and what is done first by everybody who gets it."""

    def __init__(self, lock: contextlib.AbstractContextManager[object], action: Callable[[], None]) -> None:
        self._enter, self._action, self.__exit = lock.__enter__, action, lock.__exit__

    def __enter__(self) -> None:
        self._enter()
        try:
            self._action()
        except BaseException:
            self.__exit(None, None, None)
            raise

    def __exit__(self, *error: Any) -> None:
        self.__exit(*error)


class FuseMount:
    """One mount. Public methods but main() and lookup() are handlers, named as in ``struct fuse_operations``.

    ``root`` is the tree, ``vfs`` opens its files; ``on_ready`` is called once the kernel has sent its first
    request; ``report`` takes the traceback of a bug of ours, which the caller of the system call sees as EIO.

    Handlers that are not here: libfuse answers ENOSYS, after which the kernel asks no more. For getxattr that
    saves one request (security.capability) before every write.
    """

    def __init__(
        self,
        root: Directory,
        vfs: OpenFiles,
        mountpoint: str,
        on_ready: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self._vfs = vfs
        self._mountpoint = mountpoint
        self._on_ready = on_ready
        self._report = report
        self.device = ""  # as ``Mount.device``, once it is mounted
        self._inodes: dict[bytes, Inode] = {b"/": root}
        self._block_size = root.block_size
        # by object, and gone with it: a removed instance's number and times are nobody else's
        self._numbers: WeakKeyDictionary[Inode, int] = WeakKeyDictionary()
        self._times: WeakKeyDictionary[Inode, tuple[int, int]] = WeakKeyDictionary()
        self._last_ino = 0
        self._files: dict[int, tuple[File, RegularFile]] = {}
        self.directories: dict[int, Directory] = {}  # that are open, by their handle
        self._last_fh = 0
        self._boot_time = time.time_ns()
        self._as_root = os.geteuid() == 0
        self._uid, self._gid = os.geteuid(), os.getegid()
        lock = threading.Lock()
        self._lock: contextlib.AbstractContextManager[object] = lock
        self._starved = False
        self._end = partial(os.kill, os.getpid(), signal.SIGTERM)  # made now: later there may be no memory
        self.feeders = FifoFeeders(mountpoint, vfs, lock, self.failed)

    @property
    def machine_lock(self) -> contextlib.AbstractContextManager[object]:
        """What everybody holds who touches the machine."""
        return self._lock

    def call_first(self, action: Callable[[], None]) -> None:
        """From now on call ``action``, which must not raise, before each request is answered."""
        with self._lock:
            self._lock = _Preceded(self._lock, action)

    def main(self, options: Mapping[str, str | bool]) -> None:
        """Mount with ``-o`` options, answer, and return when the mount is gone or a signal came.

        Raises RuntimeError if libfuse cannot mount; what it has printed says why. Raises MemoryError if
        there was no memory to go on with.
        """
        given = {**OPTIONS, **options}.items()
        words = [name if value is True else f"{name}={value}" for name, value in given if value]
        args = [b"cmafs", b"-f", b"-s", b"-o", os.fsencode(",".join(words)), os.fsencode(self._mountpoint)]
        argv = (ctypes.c_char_p * len(args))(*args)
        operations = self._operations()
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # libfuse takes what nobody else has taken
        sys.unraisablehook = self._unraisable
        try:
            size = ctypes.sizeof(operations)
            if fuse._libfuse.fuse_main_real(len(args), argv, ctypes.byref(operations), size, None):
                raise RuntimeError("fuse_main_real")
        finally:
            sys.unraisablehook = sys.__unraisablehook__
            signal.signal(signal.SIGINT, before)
            self.feeders.stop()
        if self._starved:
            self._report(explain(MemoryError()))
            raise MemoryError

    def _operations(self) -> Any:
        """``struct fuse_operations`` of this mount's handlers."""
        operations = fuse.fuse_operations(flag_nullpath_ok=1, flag_nopath=1)  # open files need no path
        for name, prototype in [field[:2] for field in operations._fields_]:
            handler = getattr(self, name, None)
            if handler is not None:
                setattr(operations, name, prototype(handler if name in _HOT else self._guarded(handler)))
        return operations

    def _guarded(self, handler: Callable[..., int | None]) -> Callable[..., int]:
        """A handler that answers 0 or an errno; those of ``_HOT`` do it themselves."""

        def call(*args: Any) -> int:
            if self.feeders.asleep:
                self.feeders.kick()
            with self._lock:
                try:
                    if self._starved:
                        raise MemoryError
                    return handler(*args) or 0
                except BaseException as error:
                    return self._failed(error)

        return call

    def _failed(self, error: BaseException) -> int:
        """An OSError is the kernel's answer, anything else a bug of ours and EIO; nothing may pass into C."""
        if isinstance(error, OSError) and error.errno and not lacks_memory(error):
            return -error.errno
        self.failed(error)
        return -errno.ENOMEM if self._starved else -errno.EIO

    def failed(self, error: BaseException) -> None:
        """What no kernel answers: reported as a bug of ours, or, without memory, the end of this mount.

        What was under way then may be half done: nobody is to see such a machine, whatever else fails here.
        """
        try:
            if not lacks_memory(error):
                self._report("".join(traceback.format_exception(error)))
                return
        except MemoryError:
            pass
        self._starved = True
        self._end()

    def _unraisable(self, failure: Any) -> None:
        """A handler that failed where it could not catch it: in the making of its arguments."""
        if issubclass(failure.exc_type, NO_MEMORY):
            self.failed(MemoryError())
        else:
            sys.__unraisablehook__(failure)

    # names

    def lookup(self, path: bytes) -> Inode:
        """The inode of an absolute path. Raises ENOENT, ENOTDIR."""
        inode = self._inodes.get(path)
        if inode is None:
            parent, name = self._parent(path)
            inode = parent.children.get(name)
            if inode is None:
                fail(errno.ENOENT)
            self._inodes[path] = inode
            if stat.S_ISFIFO(inode.mode) and isinstance(inode, RegularFile):
                self.feeders.add(path, inode)
        return inode

    def _parent(self, path: bytes) -> tuple[Directory, str]:
        """The directory that a path's last name stands in, and that name. Raises ENOENT, ENOTDIR."""
        head, _, name = path.rpartition(b"/")
        parent = self.lookup(head or b"/")
        if not isinstance(parent, Directory):
            fail(errno.ENOTDIR)
        return parent, os.fsdecode(name)

    def _forget(self, removed: Inode) -> None:
        """Drop what is remembered of a removed directory, under every path that led to it."""
        for path in [path for path, inode in self._inodes.items() if inode is removed]:
            below = path + b"/"
            for known in [known for known in self._inodes if known == path or known.startswith(below)]:
                del self._inodes[known]
                self.feeders.forget(known)

    # attributes

    def getattr(self, path: bytes, buf: Any) -> None:
        """stat(2)."""
        self._fill(self.lookup(path), buf.contents)

    def fgetattr(self, path: bytes | None, buf: Any, fip: Any) -> None:
        """fstat(2); the kernel sends it for an open file."""
        self._fill(self._files[fip.contents.fh][1], buf.contents)

    def _fill(self, inode: Inode, st: Any) -> None:
        """A ``struct stat``. An ordinary user's FIFO can be written by its owner: the server must feed it."""
        ctypes.memset(ctypes.byref(st), 0, ctypes.sizeof(st))
        st.st_ino = self._number(inode)
        st.st_mode = inode.mode
        if stat.S_ISFIFO(inode.mode) and not self._as_root:
            st.st_mode |= stat.S_IWUSR
        st.st_nlink = inode.nlink
        st.st_size = inode.size
        st.st_blksize = inode.fs.block_size or self._block_size
        st.st_uid, st.st_gid = (inode.uid, inode.gid) if self._as_root else (self._uid, self._gid)
        atime, mtime = self._times.get(inode, (self._boot_time, self._boot_time))
        st.st_atimespec.tv_sec, st.st_atimespec.tv_nsec = divmod(atime, 10**9)
        st.st_mtimespec.tv_sec, st.st_mtimespec.tv_nsec = divmod(mtime, 10**9)
        st.st_ctimespec = st.st_mtimespec

    def inode_number(self, path: bytes) -> int:
        """``st_ino`` of an absolute path; the lock is held. Raises OSError ENOENT, ENOTDIR."""
        return self._number(self.lookup(path))

    def _number(self, inode: Inode) -> int:
        """The number of an inode, that no other ever has."""
        number = self._numbers.get(inode)
        if number is None:
            self._last_ino += 1
            number = self._numbers[inode] = self._last_ino
        return number

    def chmod(self, path: bytes, mode: int) -> None:
        """chmod(2)."""
        self._vfs.chmod(os.fsdecode(path), self.lookup(path), mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        """chown(2)."""
        self._vfs.chown(os.fsdecode(path), self.lookup(path), uid, gid)

    def utimens(self, path: bytes, times: Any) -> None:
        """utimensat(2); libfuse 2 has made times of UTIME_NOW and UTIME_OMIT."""
        inode, now = self.lookup(path), time.time_ns()
        if not times:
            self._times[inode] = (now, now)
            return
        atime, mtime = times.contents.actime, times.contents.modtime
        self._times[inode] = (
            atime.tv_sec * 10**9 + atime.tv_nsec,
            mtime.tv_sec * 10**9 + mtime.tv_nsec,
        )

    def truncate(self, path: bytes, length: int) -> None:
        """truncate(2)."""
        self._vfs.truncate(os.fsdecode(path), self.lookup(path), length)

    def ftruncate(self, path: bytes | None, length: int, fip: Any) -> None:
        """ftruncate(2)."""
        file, inode = self._files[fip.contents.fh]
        self._vfs.ftruncate(file, inode, length)

    # open files

    def open(self, path: bytes, fip: Any) -> int:
        """open(2) of a regular file that exists; O_TRUNC takes effect after the file agreed to be opened."""
        if self.feeders.asleep:
            self.feeders.kick()
        with self._lock:
            try:
                if self._starved:
                    raise MemoryError
                inode, fi = self._inodes.get(path) or self.lookup(path), fip.contents
                assert isinstance(inode, RegularFile)
                file = self._vfs.open(path, inode, fi.flags)
                fi.direct_io = 1
                if file.nonseekable:
                    fi.nonseekable = 1
                self._last_fh = fi.fh = fh = self._last_fh + 1
                self._files[fh] = file, inode
                return 0
            except BaseException as error:
                return self._failed(error)

    def read(self, path: bytes | None, buf: Any, size: int, offset: int, fip: Any) -> int:
        """read(2), pread(2): at most 128 KiB arrive at a time."""
        with self._lock:
            try:
                if self._starved:
                    raise MemoryError
                data = self._files[fip.contents.fh][0].read(size, offset)
                length = len(data)
                assert length <= size, (length, size)
                memmove(buf, data, length)
                return length
            except BaseException as error:
                return self._failed(error)

    def write(self, path: bytes | None, buf: Any, size: int, offset: int, fip: Any) -> int:
        """write(2), pwrite(2): at most 128 KiB arrive at a time, and never nothing."""
        with self._lock:
            try:
                if self._starved:
                    raise MemoryError
                return self._files[fip.contents.fh][0].write(string_at(buf, size), offset)
            except BaseException as error:
                return self._failed(error)

    def ioctl(self, path: bytes | None, cmd: int, arg: Any, fip: Any, flags: int, data: int | None) -> int:
        """ioctl(2) with the argument that the command's number describes, copied in and back."""
        size = cmd >> _IOC_SIZESHIFT & _IOC_SIZEMASK if data else 0
        argument = bytearray(string_at(data, size)) if data else bytearray()
        result = self._files[fip.contents.fh][0].ioctl(cmd, argument)
        if data:
            memmove(data, bytes(argument), size)
        return result

    def release(self, path: bytes | None, fip: Any) -> int:
        """The last descriptor is closed."""
        with self._lock:
            try:
                if self._starved:
                    raise MemoryError
                self._files.pop(fip.contents.fh)[0].release()
                return 0
            except BaseException as error:
                return self._failed(error)

    # directories

    def opendir(self, path: bytes, fip: Any) -> None:
        """open(2) of a directory."""
        directory = self.lookup(path)
        assert isinstance(directory, Directory)
        self._last_fh = fip.contents.fh = self._last_fh + 1
        self.directories[self._last_fh] = directory

    def releasedir(self, path: bytes | None, fip: Any) -> None:
        """The last descriptor of a directory is closed."""
        del self.directories[fip.contents.fh]

    def readdir(self, path: bytes | None, buf: Any, filler: Any, offset: int, fip: Any) -> None:
        """getdents(2), all at once; types with the names, so that find(1) need not stat."""
        directory = self.directories[fip.contents.fh]
        st = fuse.c_stat()
        for name, inode in [(".", directory), ("..", directory), *directory.children.items()]:
            st.st_mode = inode.mode
            st.st_ino = self._number(inode)
            if filler(buf, os.fsencode(name), st, 0):
                break

    def readlink(self, path: bytes, buf: Any, size: int) -> None:
        """readlink(2), with the terminating zero that libfuse wants."""
        link = self.lookup(path)
        if not isinstance(link, Symlink):
            fail(errno.EINVAL)
        target = os.fsencode(link.target)[: size - 1] + b"\0"
        memmove(buf, target, len(target))

    def create(self, path: bytes, mode: int, fip: Any) -> None:
        """open(2) with O_CREAT of a name that is not there."""
        parent, name = self._parent(path)
        parent.create(name)

    def mkdir(self, path: bytes, mode: int) -> None:
        """mkdir(2)."""
        parent, name = self._parent(path)
        self._vfs.mkdir(os.fsdecode(path), parent, name)

    def rmdir(self, path: bytes) -> None:
        """rmdir(2)."""
        parent, name = self._parent(path)
        removed = self.lookup(path)
        self._vfs.rmdir(os.fsdecode(path), parent, name)
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
