"""The files of the 2010 framework: ``/sys/kernel/mm/contiguous`` and ``/dev/cma``.

Source: ``mm/cma.c:cma_sysfs_init()`` and ``drivers/misc/cma-dev.c``, 2010, on the sysfs of 2.6.36.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmafs.drivers.cma2010.chardev import CmaDevice, CmaFile
from cmafs.drivers.cma2010.framework import Cma2010
from cmafs.drivers.cma2010.profile import KernelOops
from cmafs.drivers.cma2010.regions import CmaRegion
from cmafs.drivers.cma2010.sysfs import Attribute, region_attributes, root_attributes
from cmafs.fs.dentry import Directory, File, Inode, Symlink, fail
from cmafs.fs.kmsg import DEVTMPFS
from cmafs.fs.libfs import SYSFS, SYSFS_FILE_SIZE
from cmafs.fs.seq_file import SeqOperations

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: One write to a sysfs file of 2.6.36 takes at most so many bytes (fs/sysfs/file.c:fill_write_buffer()).
_WRITE_MAX = SYSFS_FILE_SIZE - 1


class CmaDeviceFile(File):
    """An open ``/dev/cma``; it can neither be read nor written."""

    def __init__(self, file: CmaFile) -> None:
        self._file = file

    def ioctl(self, cmd: int, argument: bytearray) -> int:
        """``cma_file_ioctl()``. Where the kernel would oops, a line in the log and EIO."""
        try:
            argument[:] = self._file.ioctl(cmd, bytes(argument))
        except KernelOops as oops:
            self._file.cma.pr_err(f"oops: {oops}")
            fail(errno.EIO)
        return 0

    def release(self) -> None:
        """The last close gives the chunk back."""
        self._file.release()


@dataclass(frozen=True)
class CmaDeviceOperations:
    """``cma_fops``: each open file stands for at most one chunk."""

    device: CmaDevice

    def open(self, inode: Inode, flags: int) -> File:
        """``cma_file_open()``: nothing is allocated yet."""
        return CmaDeviceFile(self.device.open())


def populate(root: Directory, machine: BootedMachine) -> None:
    """The files that the machine's version of the framework has; nothing on other kernels."""
    cma = machine.cma2010
    if cma is None:
        return
    root.subdir("dev", fs=DEVTMPFS).file("cma", 0o600, CmaDeviceOperations(CmaDevice(cma)))
    if machine.config.on("CMA_SYSFS"):
        _contiguous(root.subdir("sys").subdir("kernel").subdir("mm").subdir("contiguous", fs=SYSFS), cma)


def _contiguous(directory: Directory, cma: Cma2010) -> None:
    _files(directory, root_attributes(cma))
    if "regions" not in cma.profile.sysfs:
        return
    regions = directory.subdir("regions")
    for reg in cma.regions:
        _add_region(regions, cma, reg)
    cma.on_register = lambda reg: _add_region(regions, cma, reg)


def _add_region(regions: Directory, cma: Cma2010, reg: CmaRegion) -> None:
    """``__cma_sysfs_region_add()``: a directory by its address, and by its name, if that is free, a link."""
    address = cma.word.pointer(reg.start)
    if address in regions.children:
        return
    _files(regions.subdir(address), region_attributes(cma, reg))
    if reg.name and reg.name not in regions.children:
        regions.add(reg.name, Symlink(SYSFS, stat.S_IFLNK | 0o777, target=address))


def _files(directory: Directory, attributes: dict[str, Attribute]) -> None:
    for name, attribute in attributes.items():
        mode = 0o444 if attribute.store is None else 0o644
        directory.file(name, mode, _operations(attribute), SYSFS_FILE_SIZE)


def _operations(attribute: Attribute) -> SeqOperations:
    """``sysfs_open_file()``, ``sysfs_read_file()``, ``sysfs_write_file()``: each write is one store."""

    def store(data: bytes) -> int:
        assert attribute.store is not None
        taken = data[:_WRITE_MAX]
        attribute.store(taken.decode("latin-1"))
        return len(taken)

    def show() -> bytes:
        return attribute.show().encode("latin-1")

    return SeqOperations(show, store if attribute.store else None, errno.EIO, needs_mode=True)
