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
from cmafs.fs.seq_file import O_ACCMODE

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: One write to a sysfs file of 2.6.36 takes at most so many bytes (fs/sysfs/file.c:fill_write_buffer()).
_WRITE_MAX = SYSFS_FILE_SIZE - 1


class SysfsFile(File):
    """An open attribute: shown anew at each read at offset 0; each write is one store."""

    def __init__(self, attribute: Attribute) -> None:
        self._attribute = attribute
        self._text = b""

    def read(self, size: int, offset: int) -> bytes:
        """``sysfs_read_file()``"""
        if offset == 0:
            self._text = self._attribute.show().encode("latin-1")
        return self._text[offset : offset + size]

    def write(self, data: bytes, offset: int) -> int:
        """``sysfs_write_file()``. Raises what the attribute's store answers."""
        assert self._attribute.store is not None
        taken = data[:_WRITE_MAX]
        self._attribute.store(taken.decode("latin-1"))
        return len(taken)


@dataclass(frozen=True)
class SysfsOperations:
    """``sysfs_open_file()``: writing needs a store, also for root."""

    attribute: Attribute

    def open(self, inode: Inode, flags: int) -> File:
        """Raises EACCES for writing what cannot be written."""
        if flags & O_ACCMODE and self.attribute.store is None:
            fail(errno.EACCES)
        return SysfsFile(self.attribute)


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
    """``cma_fops``"""

    device: CmaDevice

    def open(self, inode: Inode, flags: int) -> File:
        """``cma_file_open()``"""
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
    """``__cma_sysfs_region_add()``: a directory called by its address, a link called by its name if that is
    free.
    """
    address = cma.word.pointer(reg.start)
    if address in regions.children:
        return
    _files(regions.subdir(address), region_attributes(cma, reg))
    if reg.name and reg.name not in regions.children:
        regions.add(reg.name, Symlink(SYSFS, stat.S_IFLNK | 0o777, target=address))


def _files(directory: Directory, attributes: dict[str, Attribute]) -> None:
    for name, attribute in attributes.items():
        mode = 0o444 if attribute.store is None else 0o644
        directory.file(name, mode, SysfsOperations(attribute), SYSFS_FILE_SIZE)
