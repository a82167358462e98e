"""The files of the 2010 framework: ``/sys/kernel/mm/contiguous`` and ``/dev/cma``.

Source: ``mm/cma.c:cma_sysfs_init()`` and ``drivers/misc/cma-dev.c``, 2010, on the sysfs of 2.6.36.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmafs.drivers.cma2010.chardev import CmaFile
from cmafs.drivers.cma2010.framework import Cma2010
from cmafs.drivers.cma2010.profile import KernelOops
from cmafs.drivers.cma2010.regions import CmaRegion
from cmafs.drivers.cma2010.sysfs import Attribute, region_attributes, root_attributes
from cmafs.fs.dentry import Directory, File, Inode, Symlink, fail
from cmafs.fs.kmsg import DEVTMPFS
from cmafs.fs.libfs import SYSFS
from cmafs.fs.seq_file import SeqOperations
from cmafs.lib.printk import decode, encode

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: The text of one read or write of a sysfs file of 2.6.36: a page less its NUL
#: (``fs/sysfs/file.c:fill_write_buffer()``).
_PAGE_SIZE = 4096
_TEXT_MAX = _PAGE_SIZE - 1


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
        """``cma_file_release()``: the last close gives the chunk back."""
        self._file.release()


@dataclass(frozen=True)
class CmaDeviceOperations:
    """``cma_fops``"""

    cma: Cma2010

    def open(self, inode: Inode, flags: int) -> File:
        """``cma_file_open()``: an open file holds no chunk yet."""
        return CmaDeviceFile(CmaFile(self.cma))


def populate(root: Directory, machine: BootedMachine) -> None:
    """The files that the machine's version of the framework has; nothing on other kernels."""
    cma = machine.cma2010
    if cma is None:
        return
    root.subdir("dev", fs=DEVTMPFS).file("cma", 0o600, CmaDeviceOperations(cma)).stateful = True
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
    """``__cma_sysfs_region_add()``: a directory called by its address, and a link called by its name.

    There is no second link of a name, and none where no path could reach it: ``.``, ``..``, or with a slash.
    """
    address = cma.word.pointer(reg.start)
    if address in regions.children:
        return
    _files(regions.subdir(address), region_attributes(cma, reg))
    if reg.name and "/" not in reg.name and reg.name not in (".", "..", *regions.children):
        regions.add(reg.name, Symlink(SYSFS, stat.S_IFLNK | 0o777, target=address))


def _files(directory: Directory, attributes: dict[str, Attribute]) -> None:
    for name, attribute in attributes.items():
        mode = 0o444 if attribute.store is None else 0o644
        directory.file(name, mode, _operations(attribute), _PAGE_SIZE)


def _operations(attribute: Attribute) -> SeqOperations:
    """``sysfs_file_operations`` of 2.6.36: each write is one store.

    Where there is none, and chmod allowed the write, the framework's code calls a null pointer: EIO.
    """
    store = attribute.store

    def show() -> bytes:
        text = encode(attribute.show())
        return text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + b"\n"

    def write(data: bytes) -> int:
        assert store is not None
        store(decode(data[:_TEXT_MAX].partition(b"\0")[0]))
        return min(len(data), _TEXT_MAX)

    return SeqOperations(show, write if store else None, errno.EIO, needs_mode=True)
