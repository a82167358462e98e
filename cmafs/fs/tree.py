"""The whole tree of a machine: the directories on which file systems are mounted, and every table's part."""

from __future__ import annotations

import errno
from types import ModuleType
from typing import TYPE_CHECKING

from cmafs.fs import cma_debug, cma_sysfs, dev_cma_test, devicetree, dma_buf, dynamic_debug, kmsg
from cmafs.fs.dentry import Directory, FileSystemType, new_directory
from cmafs.fs.kmsg import DEVTMPFS
from cmafs.fs.libfs import DEBUGFS, SYSFS
from cmafs.fs.proc import root as proc
from cmafs.fs.proc.root import BOOT, PROC
from cmafs.fs.sim import root as sim
from cmafs.fs.tracefs import root as tracefs

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: The directory that is mounted: nothing can be made in it.
ROOTFS = FileSystemType(create=errno.EACCES, truncate_sets_size=False)

#: In the order in which names appear.
TABLES = (proc, cma_sysfs, cma_debug, dynamic_debug, dma_buf, tracefs, devicetree, kmsg, dev_cma_test, sim)


def mount_points() -> Directory:
    """The root with the directories of /, empty, as a kernel makes them when it mounts its file systems."""
    root = new_directory(ROOTFS)
    sys = root.subdir("sys", 0o555, SYSFS)
    kernel = sys.subdir("kernel")
    kernel.subdir("debug", 0o700, DEBUGFS)
    kernel.subdir("mm")
    sys.subdir("firmware")
    root.subdir("proc", 0o555, PROC)
    root.subdir("dev", 0o755, DEVTMPFS)
    root.subdir("boot", 0o755, BOOT)
    return root


def build_tree(machine: BootedMachine) -> Directory:
    """Every file of a machine."""
    root = mount_points()
    root.block_size = 1 << machine.cma.page_shift
    for table in TABLES if machine.cma2010 is None else _tables_2010():
        table.populate(root, machine)
    return root


def _tables_2010() -> tuple[ModuleType, ...]:
    """A machine of 2010 has the framework of that year, imported for it only, and nothing in debugfs."""
    from cmafs.fs import cma2010

    return (proc, devicetree, cma2010, kmsg, sim)
