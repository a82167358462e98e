"""`cmafs export`: the tree of a machine as plain files and links, for scripts that only read."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cmafs.fs.dentry import Directory, Inode, Symlink, walk
from cmafs.mount.ending import Failed

if TYPE_CHECKING:
    from cmafs.api import Machine

#: what an export is not
LIMITS = """\
This is a snapshot of plain files, taken right after boot:
- nothing behaves: a write to alloc, free or sim/control changes that file and nothing else;
- values do not follow from each other, and no log, trace or counter goes on;
- files that cannot be read on the machine (alloc, free) are empty, and so is trace_pipe;
- modes are kept, but your own user owns the files, sizes are real and every file seeks;
- paths are below this directory, not at /sys and /proc.
To write, mount the machine (`cmafs mount`, `cmafs run`) or use cmafs.Machine in Python, without FUSE.
"""


class ExportFailed(Failed):
    """The directory cannot be written: one line saying why."""


@dataclass(eq=False)
class Exported:
    """How many of each kind were written."""

    directories: int = 0
    files: int = 0
    links: int = 0


def _content(machine: Machine, path: str, inode: Inode) -> bytes:
    """What root reads there, nothing where the kernel refuses or the reader would wait."""
    if stat.S_ISFIFO(inode.mode):
        return b""
    try:
        return machine.read(path)
    except OSError:
        return b""


def _write(machine: Machine, path: str, inode: Inode, target: Path) -> str:
    if isinstance(inode, Symlink):
        target.symlink_to(inode.target)
        return "links"
    if isinstance(inode, Directory):
        target.mkdir()
        return "directories"
    target.write_bytes(_content(machine, path, inode))
    target.chmod(stat.S_IMODE(inode.mode))
    return "files"


def export(machine: Machine, directory: Path) -> Exported:
    """Write the tree of a machine below a directory, which is made, or empty.

    Raises ExportFailed; nothing is left of a tree that could not be written whole.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ExportFailed(f"{directory}: not empty: name a new directory")
        try:
            return _write_all(machine, directory)
        except OSError:
            for entry in directory.iterdir():
                shutil.rmtree(entry, ignore_errors=True)
            raise
    except OSError as error:
        raise ExportFailed(f"{error.filename or directory}: {error.strerror}") from None


def _write_all(machine: Machine, directory: Path) -> Exported:
    done = Exported()
    inodes = list(walk(machine.root))
    for path, inode in inodes:
        kind = _write(machine, path, inode, directory / path.lstrip("/"))
        setattr(done, kind, getattr(done, kind) + 1)
    for path, inode in reversed(inodes):  # a directory may lose its write permission only when it is full
        if isinstance(inode, Directory):
            os.chmod(directory / path.lstrip("/"), stat.S_IMODE(inode.mode) | stat.S_IWUSR)  # noqa: PTH101
    return done
