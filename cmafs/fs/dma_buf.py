"""/dev/dma_heap, debugfs's dma_buf/bufinfo, sys/kernel/dmabuf: heaps, and what tells of their buffers."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

from cmafs.drivers.dma_buf.buffer import DmaBuf, bufinfo
from cmafs.drivers.dma_buf.heap import AllocIoctl, Request, allocate, release
from cmafs.fs.dentry import Directory, File, OpenedBy, fail
from cmafs.fs.kmsg import DEVTMPFS
from cmafs.fs.libfs import debugfs_root, sysfs_attribute, sysfs_directory
from cmafs.fs.seq_file import SeqOperations
from cmafs.lib.printk import encode

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: The directory of /dev in which heaps stand.
DMA_HEAP = "dma_heap"


class Buffers:
    """The buffers of one machine's heaps, each by its inode's number; its journal keeps what is done here.

    Every method raises OSError with the kernel's errno.
    """

    def __init__(self, machine: BootedMachine) -> None:
        self._machine = machine

    def allocate(self, heap: str, length: int, fd_flags: int, pid: int, comm: str) -> DmaBuf:
        """``DMA_HEAP_IOCTL_ALLOC`` of a process; ``length`` in bytes."""
        machine, request = self._machine, Request(length, fd_flags)
        return machine.clock.do(
            lambda: allocate(machine, machine.dma_heaps[heap], request, pid, comm),
            *("dma_heap_alloc", heap, length, fd_flags, pid, comm),
        )

    def set_name(self, ino: int, text: bytes) -> None:
        """``DMA_BUF_SET_NAME``: ``text`` as it stands in memory."""
        self._machine.clock.do(lambda: self._buffer(ino).set_name(text), "dma_buf_set_name", ino, text)

    def release(self, ino: int) -> None:
        """The last reference is gone."""
        self._machine.clock.do(lambda: release(self._machine, self._buffer(ino)), "dma_buf_release", ino)

    def _buffer(self, ino: int) -> DmaBuf:
        return next(buffer for buffer in self._machine.dma_bufs if buffer.ino == ino)


class DmaHeapFile(File):
    """An open heap. A mount cannot hand out descriptors: that is done by the supervisor of a run."""

    nonseekable = True

    def ioctl(self, cmd: int, argument: bytearray) -> int:
        """Raises OSError EINVAL as ``dma_heap_ioctl()`` does, else ENOTTY."""
        AllocIoctl.of(cmd)
        fail(errno.ENOTTY)


def _open(flags: int) -> File:
    return DmaHeapFile()


def _statistics(buffer: DmaBuf, text: str) -> bytes:
    if buffer.released:  # found by a name that the host's kernel remembers
        fail(errno.ENODEV)
    return f"{text}\n".encode()


def _buffer_directory(buffers: Directory, page_size: int, buffer: DmaBuf) -> None:
    """``dma_buf_stats_setup()``, ``dma_buf_stats_teardown()``: a directory for a buffer that is there."""
    name = str(buffer.ino)
    if buffer.released:
        buffers.remove(name)
        return
    directory = buffers.subdir(name)
    for file, text in (("exporter_name", buffer.exp_name), ("size", str(buffer.size))):
        directory.file(file, 0o444, sysfs_attribute(partial(_statistics, buffer, text)), page_size)


def populate(root: Directory, machine: BootedMachine) -> None:
    """What CONFIG_DMABUF_HEAPS brings, and the buffers' statistics where they are built in."""
    if not machine.config.on("DMABUF_HEAPS"):
        return
    heaps = root.subdir("dev", fs=DEVTMPFS).subdir(DMA_HEAP)
    for name in machine.dma_heaps:
        heaps.file(name.replace("/", "!"), 0o600, OpenedBy(_open))
    debugfs_root(root).subdir("dma_buf").file(
        "bufinfo", 0o444, SeqOperations(lambda: encode(bufinfo(machine.abi.dma_buf, machine.dma_bufs)))
    )
    if machine.config.on("DMABUF_SYSFS_STATS"):
        buffers = sysfs_directory(root, "kernel", "dmabuf", "buffers")
        machine.on_dma_buf = partial(_buffer_directory, buffers, 1 << machine.cma.page_shift)
