"""What answers the ioctls of heaps in a run: a thread of the server, asked by seccomp's notifications.

A FUSE server cannot give a program a descriptor; who listens to a filter can. CMD's filter
(``syscalls.filter_syscalls()``) asks about the ioctls of dma-heaps and dma-bufs only, so that no other system
call costs more. The file handed over is a memfd, sealed to its size; of its last reference inotify tells,
before close(2), munmap(2) or exit(2) have returned, so that whoever then reads a file of the tree sees the
pages released.

What the program says is read once and not trusted: only numbers come of it. The listener's notification is
asked for again after reading (SECCOMP_IOCTL_NOTIF_ID_VALID): the memory read was the caller's.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import struct
import threading
import traceback
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
from cmafs.drivers.dma_buf.heap import O_CLOEXEC, AllocIoctl
from cmafs.fs.dma_buf import DMA_HEAP, Buffers
from cmafs.init.task import Task
from cmafs.mount.server import task_of
from cmafs.run import syscalls

if TYPE_CHECKING:
    from cmafs.api import Machine
    from cmafs.mount.fuse_ops import FuseMount

#: include/uapi/linux/seccomp.h@v6.12
_NOTIF_RECV, _NOTIF_SEND, _NOTIF_ID_VALID, _NOTIF_ADDFD = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
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
_CLONE_FS = 0x200


def hand_over(supervisor: socket, listener: int) -> None:
    """Give the supervisor the descriptor on which a filter asks, and close it here. Raises OSError."""
    supervisor.sendmsg([b"l"], [(SOL_SOCKET, SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)


@dataclass(frozen=True)
class _Call:
    """An ioctl(2) of a program: which notification, which thread, descriptor, number, argument."""

    ident: int
    pid: int
    fd: int
    cmd: int
    arg: int


class _NotOurs(Exception):
    """The ioctl is of some other file: the host's kernel answers."""


class Supervisor:
    """Serves the heaps of a machine to one run. ``asked``: the end of ``socket`` that CMD has."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.socket, self.asked = socketpair(AF_UNIX, SOCK_SEQPACKET)
        self._made = Buffers(machine.booted)
        self._buffers: dict[int, DmaBuf] = {}  # by inode
        self._watches: dict[int, int] = {}  # watch -> inode
        self._heaps: dict[tuple[int, int], DmaHeap] = {}
        self._memfds = -1  # their device
        self._inotify = -1
        self._poll = select.poll()

    def start(self, place: str, mount: FuseMount) -> None:
        """Answer from a thread of this process, which serves ``mount`` at ``place``."""
        self._place, self._mount = place, mount
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            listener = self._receive()
            if listener is not None:
                syscalls.unshare(_CLONE_FS)
                os.fchdir(self._proc)  # of this thread alone: the run has another /proc
                try:
                    self._listen(listener)
                finally:
                    os.close(listener)  # whoever still asks gets ENOSYS
        except Exception:
            self._machine.simlog.report(traceback.format_exc())

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
        ident, pid, _, _, _, _, fd, cmd, arg, *_ = _NOTIF.unpack(notification)
        call = _Call(ident, pid, fd & 0xFFFFFFFF, cmd & 0xFFFFFFFF, arg)
        error = flags = 0
        try:
            self._ioctl(listener, call)
        except _NotOurs:
            flags = _CONTINUE
        except OSError as failure:
            error = -(failure.errno or errno.EIO)
        except Exception:
            self._machine.simlog.report(traceback.format_exc())
            error = -errno.EIO
        with contextlib.suppress(OSError):  # killed
            fcntl.ioctl(listener, _NOTIF_SEND, bytearray(_RESPONSE.pack(ident, 0, error, flags)))

    def _ioctl(self, listener: int, call: _Call) -> None:
        try:
            file = os.stat(f"{call.pid}/fd/{call.fd}")
        except OSError:
            raise _NotOurs from None
        if file.st_dev == self._memfds and file.st_ino in self._buffers:
            self._buffer_ioctl(listener, call, self._buffers[file.st_ino])
        elif heap := self._known_heaps().get((file.st_dev, file.st_ino)):
            self._allocate(listener, call, heap)
        else:
            raise _NotOurs

    def _known_heaps(self) -> dict[tuple[int, int], DmaHeap]:
        """The heaps by device and inode of their files."""
        if not self._heaps:
            for name, heap in self._machine.booted.dma_heaps.items():
                file = os.stat(f"{self._place}/dev/{DMA_HEAP}/{name.replace('/', '!')}")
                self._heaps[file.st_dev, file.st_ino] = heap
        return self._heaps

    def _copy_from_user(self, listener: int, call: _Call, size: int) -> bytes:
        """Memory of the caller, who is then known to have been there still. Raises OSError EFAULT, ENOENT."""
        data = syscalls.read_memory(call.pid, call.arg, size)
        fcntl.ioctl(listener, _NOTIF_ID_VALID, struct.pack("=Q", call.ident))
        return data

    def _buffer_ioctl(self, listener: int, call: _Call, buffer: DmaBuf) -> None:
        """``dma_buf_ioctl()``."""
        if call.cmd == DMA_BUF_IOCTL_SYNC:
            (flags,) = struct.unpack("=Q", self._copy_from_user(listener, call, 8))
            buffer.sync(flags)
        elif call.cmd in (DMA_BUF_SET_NAME_A, DMA_BUF_SET_NAME_B):
            text = syscalls.read_memory_string(call.pid, call.arg, DMA_BUF_NAME_LEN)
            fcntl.ioctl(listener, _NOTIF_ID_VALID, struct.pack("=Q", call.ident))
            with self._mount.machine_lock:
                self._made.set_name(buffer.ino, text)
        else:
            raise OSError(errno.ENOTTY, "no such ioctl")

    # allocation

    def _allocate(self, listener: int, call: _Call, heap: DmaHeap) -> None:
        """``dma_heap_ioctl()``: what can fail does so before the program has the descriptor."""
        ioctl = AllocIoctl.of(call.cmd)
        argument = self._copy_from_user(listener, call, ioctl.in_size)
        copies_first = self._machine.booted.abi.dma_buf.copies_back_first
        try:
            with self._buffer(call, heap, ioctl, argument) as (file, flags):
                if not copies_first:  # whether it could be written, before there is a descriptor to leak
                    syscalls.write_memory(call.pid, call.arg, ioctl.answer(argument))
                addfd = bytearray(_ADDFD.pack(call.ident, 0, file, 0, flags & O_CLOEXEC))
                number = fcntl.ioctl(listener, _NOTIF_ADDFD, addfd)
        except OSError:
            if copies_first:
                syscalls.write_memory(call.pid, call.arg, ioctl.answer(argument))
            raise
        syscalls.write_memory(call.pid, call.arg, ioctl.answer(argument, number))

    @contextlib.contextmanager
    def _buffer(
        self, call: _Call, heap: DmaHeap, ioctl: AllocIoctl, argument: bytes
    ) -> Iterator[tuple[int, int]]:
        """A new buffer's file, ours only here, with the flags that it is to have. Raises OSError.

        Where nobody else has it in the end it is released.
        """
        request = ioctl.request(argument)
        task = task_of(self._proc, call.pid)
        self._watch()
        with self._mount.machine_lock, self._acting(task):
            buffer = self._made.allocate(heap.name, request.length, request.fd_flags, task.pid, task.comm)
            try:
                file = self._file(buffer)
            except OSError:
                self._made.release(buffer.ino)
                raise OSError(errno.ENOMEM, "no memory of the host") from None
        try:
            yield file, request.fd_flags
        finally:
            os.close(file)

    def _file(self, buffer: DmaBuf) -> int:
        """The file of a buffer, open as its flags say, its last reference watched. Raises OSError."""
        memory = _memfd(buffer.size)
        try:
            watch = syscalls.inotify_add_watch(self._inotify, f"self/fd/{memory}", _IN_DELETE_SELF)
            status = os.fstat(memory)
            self._memfds = status.st_dev
            file = os.open(f"self/fd/{memory}", buffer.flags | os.O_CLOEXEC)
            self._buffers[status.st_ino] = buffer
            self._watches[watch] = status.st_ino
            return file
        finally:
            os.close(memory)

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
        except Exception:
            self._machine.simlog.report(traceback.format_exc())

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
