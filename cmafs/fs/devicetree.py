"""sys/firmware/devicetree/base: the device tree as files, as ``drivers/of/kobj.c`` makes them.

A directory a node, a file a property with its raw bytes. ``proc/device-tree`` is a link to it.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmafs.fs.dentry import Directory, File, Inode, Symlink, fail
from cmafs.fs.libfs import sysfs_directory
from cmafs.fs.proc.root import PROC
from cmafs.fs.seq_file import SeqFile, writes

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine
    from cmafs.of.base import DeviceNode

#: Where the link of procfs leads, seen from there.
BASE_FROM_PROC = "../sys/firmware/devicetree/base"
SECURITY_PREFIX = "security-"


@dataclass(frozen=True)
class Property:
    """A ``struct property`` as a binary sysfs attribute: read only, also for root."""

    value: bytes

    def open(self, inode: Inode, flags: int) -> File:
        """``kernfs_fop_open()``. Raises EACCES for writing."""
        if writes(flags):
            fail(errno.EACCES)
        return SeqFile(lambda: self.value, None, errno.EACCES)


def properties(node: DeviceNode) -> dict[str, bytes]:
    """A node's properties with ``name``, which the kernel adds: the node's name up to its unit address."""
    name = node.name.partition("@")[0].encode() + b"\0"
    return {**node.props, **({} if "name" in node.props else {"name": name})}


def safe_name(directory: Directory, name: str) -> str:
    """``safe_name()``: a name that is taken, as by a property called like a child, gets ``#1``, ``#2``, …"""
    free, number = name, 1
    while free in directory.children:
        free, number = f"{name}#{number}", number + 1
    return free


def add_node(directory: Directory, node: DeviceNode) -> None:
    """``__of_attach_node_sysfs()`` of a node and, with an own stack, of all below it."""
    todo = [(directory, node)]
    while todo:
        place, current = todo.pop()
        for name, value in properties(current).items():
            secure = name.startswith(SECURITY_PREFIX)
            mode, size = (0o400, 0) if secure else (0o444, len(value))
            place.file(safe_name(place, name.replace("/", "!")), mode, Property(value), size)
        for child in current.children.values():
            todo.append((place.subdir(safe_name(place, child.name.replace("/", "!"))), child))


def populate(root: Directory, machine: BootedMachine) -> None:
    """Make sys/firmware/devicetree/base, and the link in proc."""
    base = sysfs_directory(root, "firmware", "devicetree", "base")
    add_node(base, machine.tree.root)
    proc = root.subdir("proc", 0o555, PROC)
    link = Symlink(proc.fs, stat.S_IFLNK | 0o777, len(BASE_FROM_PROC), target=BASE_FROM_PROC)
    proc.add("device-tree", link)
