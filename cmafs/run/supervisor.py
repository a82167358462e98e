"""What answers the ioctls of heaps in a run: a thread of the server, asked by seccomp's notifications.

A FUSE server cannot give a program a descriptor; who listens to a filter can. CMD's filter
(``syscalls.filter_syscalls()``) asks about the ioctls of dma-heaps and dma-bufs, and about private writable
mappings of files, which buffers refuse: other system calls cost nothing more. The file handed over is a
memfd, sealed to its size; of its last reference inotify tells, before close(2), munmap(2) or exit(2) have
returned, so that whoever then reads a file of the tree sees the pages released.

What the program says is read once and not trusted: only numbers come of it. The listener's notification is
asked for again after reading (SECCOMP_IOCTL_NOTIF_ID_VALID): the memory read was the caller's.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import re
import select
import struct
import threading
from _socket import AF_UNIX, CMSG_LEN, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socket, socketpair
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmafs.drivers.dma_buf.buffer import (
    DMA_BUF_IOCTL_SYNC,
    DMA_BUF_NAME_LEN,
    DMA_BUF_SET_NAME_A,
    DMA_BUF_SET_NAME_B,
    DmaBuf,
    DmaHeap,
)
from cmafs.drivers.dma_buf.heap import O_CLOEXEC, AllocIoctl, Request
from cmafs.fs.dma_buf import DMA_HEAP, Buffers
from cmafs.init.task import Task
from cmafs.mount.libc import CLONE_FS, unshare
from cmafs.mount.mounts import device_of
from cmafs.mount.server import task_of
from cmafs.run import syscalls

if TYPE_CHECKING:
    from cmafs.api import Machine
    from cmafs.mount.fuse_ops import FuseMount

#: include/uapi/linux/seccomp.h@v6.12
_NOTIF_RECV, _NOTIF_SEND, _NOTIF_ID_VALID, _NOTIF_ADDFD = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
_NOTIF_SET_FLAGS, _SYNC_WAKE_UP = 0x40082104, 1  # 6.6 on
_CONTINUE = 1
_NOTIF = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, nr, arch, instruction pointer, arguments
_RESPONSE = struct.Struct("=QqiI")  # id, value, error, flags
_ADDFD = struct.Struct("=QIIII")  # id, flags, our descriptor, the new number, its flags

#: include/uapi/linux/inotify.h, include/uapi/linux/fcntl.h, include/uapi/linux/memfd.h@v6.12
_IN_DELETE_SELF, _IN_Q_OVERFLOW = 0x400, 0x4000
_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, length of a name
_SEALS = 1 | 2 | 4  # no further seals, no shrinking, no growing
_F_ADD_SEALS = 1033
_MFD_NOEXEC_SEAL = 8


def hand_over(supervisor: socket, listener: int) -> None:
    """Give the supervisor the descriptor on which a filter asks, and close it here. Raises OSError."""
    supervisor.sendmsg([b"l"], [(SOL_SOCKET, SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)


@dataclass(frozen=True)
class _Call:
    """An ioctl(2) of a program: who was asked, which notification, thread, descriptor, number, argument."""

    listener: int
    ident: int
    pid: int
    fd: int
    cmd: int
    arg: int

    def expect_caller(self) -> None:
        """Raises OSError ENOENT if the caller is gone, and another thread may have its pid."""
        fcntl.ioctl(self.listener, _NOTIF_ID_VALID, struct.pack("=Q", self.ident))

    def copy_from_user(self, size: int) -> bytes:
        """Memory of the caller, who is then known to have been there still. Raises OSError EFAULT, ENOENT."""
        data = syscalls.read_memory(self.pid, self.arg, size)
        self.expect_caller()
        return data

    def copy_to_user(self, data: bytes) -> None:
        """Memory of the caller, who is still there. Raises OSError EFAULT, ENOENT."""
        self.expect_caller()
        syscalls.write_memory(self.pid, self.arg, data)


class _NotOurs(Exception):
    """The call is of some other file, or nothing special: the host's kernel answers."""


def _file_of(pid: int, fd: int) -> tuple[str, int]:
    """The device and the inode of a thread's descriptor. Raises _NotOurs where there is none."""
    try:
        return syscalls.file_of(f"{pid}/fd/{fd}")
    except OSError:
        raise _NotOurs from None


_FLAGS = re.compile(rb"^flags:\t(\d+)", re.MULTILINE)


def _check_open(pid: int, fd: int) -> None:
    """Raises OSError EBADF for a descriptor that is a path only (O_PATH), of which no call asks the file."""
    try:
        if os.lstat(f"{pid}/fd/{fd}").st_mode & 0o600:  # open for reading or writing
            return
        with open(f"{pid}/fdinfo/{fd}", "rb") as file:
            flags = _FLAGS.search(file.read())
    except OSError:
        raise _NotOurs from None
    if flags and int(flags[1], 8) & os.O_PATH:
        raise OSError(errno.EBADF, "a path only")


class Supervisor:
    """Serves the heaps of a machine to one run. ``asked``: the end of ``socket`` that CMD has."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.socket, self.asked = socketpair(AF_UNIX, SOCK_SEQPACKET)
        self._made = Buffers(machine.booted)
        self._buffers: dict[int, DmaBuf] = {}  # by inode
        self._watches: dict[int, int] = {}  # watch -> inode
        self._heaps: dict[int, DmaHeap] = {}  # by the inode of their file
        self._memfds = ""  # their device
        self._caller = 0, -1, 0  # the last one's pid, its directory, the pid that it has for itself
        self._inotify = -1
        self._poll = select.poll()

    def close(self) -> None:
        """In the process that started both: it needs neither end."""
        self.socket.close()
        self.asked.close()

    def start(self, mount: FuseMount) -> None:
        """Answer from a thread of this process, which serves ``mount``.

        It never asks for a file of that mount: it would wait for its own process, and that could not be
        killed meanwhile.
        """
        self._mount = mount
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            listener = self._receive()
            if listener is not None:
                unshare(CLONE_FS)
                os.fchdir(self._proc)  # of this thread alone: the run has another /proc
                try:
                    self._listen(listener)
                finally:
                    os.close(listener)  # whoever still asks gets ENOSYS
        except Exception as error:
            self._mount.failed(error)

    def _receive(self) -> int | None:
        """The listener's descriptor; None where the run ends without one."""
        self.asked.detach()  # closed with all that the server does not keep, and its number is another's
        _, messages, _, _ = self.socket.recvmsg(1, CMSG_LEN(4))
        for _, _, data in messages:
            return int(struct.unpack("=i", data)[0])
        return None

    def _listen(self, listener: int) -> None:
        """Answer notifications and release buffers until nobody can ask and nothing is held."""
        self._poll.register(listener, select.POLLIN)
        with contextlib.suppress(OSError):  # whoever asks waits: let the answer come from the same CPU
            fcntl.ioctl(listener, _NOTIF_SET_FLAGS, _SYNC_WAKE_UP)
        asking = True
        while asking or self._buffers:
            for number, events in self._poll.poll():
                if number != listener:
                    with self._mount.machine_lock:
                        self._read_events()
                elif events & select.POLLIN:
                    self._answer(listener)
                else:  # the last process with the filter is gone
                    self._poll.unregister(listener)
                    asking = False

    def _watch(self) -> None:
        """Before the first buffer: a queue that tells of last references, looked at before each request.

        Raises OSError where the host has no more of these.
        """
        if self._inotify < 0:
            self._inotify = syscalls.inotify_init()
            self._poll.register(self._inotify, select.POLLIN)
            self._mount.call_first(self._drain)

    # one notification

    def _answer(self, listener: int) -> None:
        notification = bytearray(_NOTIF.size)
        try:
            fcntl.ioctl(listener, _NOTIF_RECV, notification)
        except OSError:  # it has been killed meanwhile
            return
        ident, pid, _, number, arch, _, *arguments = _NOTIF.unpack(notification)
        error = flags = 0
        try:
            if mapping := syscalls.private_mapping(arch, number, arguments):
                self._map(pid, *mapping)
            else:
                fd, cmd, arg, *_ = arguments
                self._ioctl(_Call(listener, ident, pid, fd & 0xFFFFFFFF, cmd & 0xFFFFFFFF, arg))
        except _NotOurs:
            flags = _CONTINUE
        except OSError as failure:
            error = -(failure.errno or errno.EIO)
        except Exception as bug:
            self._mount.failed(bug)
            error = -errno.EIO
        with contextlib.suppress(OSError):  # killed
            fcntl.ioctl(listener, _NOTIF_SEND, bytearray(_RESPONSE.pack(ident, 0, error, flags)))

    def _ioctl(self, call: _Call) -> None:
        device, inode = file = _file_of(call.pid, call.fd)
        buffer = self._buffer_of(file)
        heap = self._known_heaps().get(inode) if device == self._mount.device else None
        if buffer is None and heap is None:
            raise _NotOurs
        _check_open(call.pid, call.fd)
        if buffer is not None:
            self._buffer_ioctl(call, buffer)
        elif heap is not None:
            self._allocate(call, heap)

    def _map(self, pid: int, fd: int, offset: int, length: int) -> None:
        """Raises OSError EINVAL for a private mapping that a buffer refuses, _NotOurs for any other."""
        buffer = self._buffer_of(_file_of(pid, fd & 0xFFFFFFFF))
        if buffer is None or buffer.flags & os.O_ACCMODE == os.O_WRONLY or not length:
            raise _NotOurs
        _check_open(pid, fd & 0xFFFFFFFF)
        booted = self._machine.booted
        shift = booted.config.page_shift
        if buffer.maps_privately(booted.abi.dma_buf, offset >> shift, -(-length >> shift)):
            raise _NotOurs
        raise OSError(errno.EINVAL, "a private mapping")

    def _buffer_of(self, file: tuple[str, int]) -> DmaBuf | None:
        device, inode = file
        return self._buffers.get(inode) if device == self._memfds else None

    def _known_heaps(self) -> dict[int, DmaHeap]:
        """The heaps by the inodes of their files."""
        if not self._heaps:
            with self._mount.machine_lock:
                for name, heap in self._machine.booted.dma_heaps.items():
                    path = f"/dev/{DMA_HEAP}/{name.replace('/', '!')}"
                    self._heaps[self._mount.inode_number(os.fsencode(path))] = heap
        return self._heaps

    def _buffer_ioctl(self, call: _Call, buffer: DmaBuf) -> None:
        """``dma_buf_ioctl()``."""
        if call.cmd == DMA_BUF_IOCTL_SYNC:
            (flags,) = struct.unpack("=Q", call.copy_from_user(8))
            buffer.sync(flags)
        elif call.cmd in (DMA_BUF_SET_NAME_A, DMA_BUF_SET_NAME_B):
            text = syscalls.read_memory_string(call.pid, call.arg, DMA_BUF_NAME_LEN)
            call.expect_caller()
            with self._mount.machine_lock:
                self._made.set_name(buffer.ino, text)
        else:
            raise OSError(errno.ENOTTY, "no such ioctl")

    # allocation

    def _allocate(self, call: _Call, heap: DmaHeap) -> None:
        """``dma_heap_ioctl()``: what can fail does so before the program has the descriptor."""
        ioctl = AllocIoctl.of(call.cmd)
        argument = call.copy_from_user(ioctl.in_size)
        copies_first = self._machine.booted.abi.dma_buf.copies_back_first
        try:
            request = ioctl.request(argument)
            file = self._buffer(call, heap, request)
            try:
                if not copies_first:  # whether it could be written, before there is a descriptor to leak
                    call.copy_to_user(ioctl.answer(argument))
                addfd = bytearray(_ADDFD.pack(call.ident, 0, file, 0, request.fd_flags & O_CLOEXEC))
                number = fcntl.ioctl(call.listener, _NOTIF_ADDFD, addfd)
            finally:
                os.close(file)  # if nobody else has it, the buffer is released
        except OSError:
            if copies_first:
                call.copy_to_user(ioctl.answer(argument))
            raise
        syscalls.write_memory(call.pid, call.arg, ioctl.answer(argument, number))  # who has got it is there

    def _buffer(self, call: _Call, heap: DmaHeap, request: Request) -> int:
        """A new buffer's file. Raises OSError."""
        task = self._task(call.pid)
        try:
            self._watch()
        except OSError as error:
            raise self._no_memory(error) from None
        with self._mount.machine_lock, self._acting(task):
            buffer = self._made.allocate(heap.name, request.length, request.fd_flags, task.pid, task.comm)
            try:
                return self._file(buffer)
            except OSError as error:
                self._made.release(buffer.ino)
                raise self._no_memory(error) from None

    def _task(self, pid: int) -> Task:
        """``current``, as ``task_of()``; of the last caller only its name is read again.

        Its directory of /proc is kept open, which never becomes that of another task with the same pid.
        """
        last, directory, own = self._caller
        try:
            if last != pid:
                raise ProcessLookupError
            return Task(own, _comm(directory))
        except OSError:
            self._caller = 0, -1, 0
            if directory >= 0:
                os.close(directory)
        with contextlib.suppress(OSError):  # before it is asked: whose this is has not ended since
            directory = os.open(str(pid), os.O_PATH | os.O_CLOEXEC)
            self._caller = pid, directory, task_of(self._proc, pid).pid
            return Task(self._caller[2], _comm(directory))
        return task_of(self._proc, pid)

    def _no_memory(self, error: OSError) -> OSError:
        """What the program is told where it is the host that has no more; sim/log says what of."""
        self._machine.simlog.append(f"dma_heap: no buffer could be had of the host: {error.strerror}")
        return OSError(errno.ENOMEM, "no memory of the host")

    def _file(self, buffer: DmaBuf) -> int:
        """The file of a buffer, open as its flags say, its last reference watched. Raises OSError."""
        file = _memfd(buffer.size)
        try:
            watch = syscalls.inotify_add_watch(self._inotify, f"self/fd/{file}", _IN_DELETE_SELF)
            status = os.fstat(file)
            if buffer.flags != os.O_RDWR:  # as a memfd is open
                other = os.open(f"self/fd/{file}", buffer.flags | os.O_CLOEXEC)
                os.dup2(other, file, inheritable=False)
                os.close(other)
        except OSError:
            os.close(file)
            raise
        self._memfds = device_of(status)
        self._buffers[status.st_ino] = buffer
        self._watches[watch] = status.st_ino
        return file

    # release

    @contextlib.contextmanager
    def _acting(self, task: Task) -> Iterator[None]:
        """Let ``current`` be a task; the lock is held."""
        journal = self._machine.booted.clock
        before, journal.task = journal.task, lambda: task
        try:
            yield
        finally:
            journal.task = before

    def _drain(self) -> None:
        """Release the buffers that nobody has any more, if there were any; the lock is held."""
        if self._buffers:
            self._read_events()

    def _read_events(self) -> None:
        try:
            while True:
                self._events(os.read(self._inotify, 1 << 16))
        except BlockingIOError:
            return
        except Exception as error:
            self._mount.failed(error)

    def _events(self, events: bytes) -> None:
        offset = 0
        while offset < len(events):
            watch, mask, _, length = _EVENT.unpack_from(events, offset)
            offset += _EVENT.size + length
            if mask & _IN_DELETE_SELF:
                self._gone(watch)
            elif mask & _IN_Q_OVERFLOW:
                self._find_gone()

    def _gone(self, watch: int) -> None:
        inode = self._watches.pop(watch, None)
        if inode is not None:
            buffer = self._buffers.pop(inode)
            with self._acting(Task(buffer.pid, buffer.comm)):
                self._made.release(buffer.ino)

    def _find_gone(self) -> None:
        """Events were lost: the watches that are left tell whose file is there."""
        with open(f"self/fdinfo/{self._inotify}", encoding="ascii", opener=self._open_proc) as file:
            fields = [line.split()[1] for line in file if line.startswith("inotify")]
        left = {int(word.partition(":")[2], 16) for word in fields}
        for watch in self._watches.keys() - left:
            self._gone(watch)

    def _open_proc(self, path: str, flags: int) -> int:
        return os.open(path, flags, dir_fd=self._proc)


def _comm(directory: int) -> str:
    """The name of the task whose directory of /proc that is. Raises OSError if it has ended."""
    file = os.open("comm", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(file, 64).rstrip(b"\n").decode("utf-8", "replace")
    finally:
        os.close(file)


def _memfd(size: int) -> int:
    """A file of zeros in memory that keeps its size. Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        file = os.memfd_create("dmabuf", flags | _MFD_NOEXEC_SEAL)
    except OSError:  # before 6.3
        file = os.memfd_create("dmabuf", flags)
    os.ftruncate(file, size)
    fcntl.fcntl(file, _F_ADD_SEALS, _SEALS)
    return file
