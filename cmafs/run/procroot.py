"""The root directory of a run's /proc: a FUSE mount that leads to a procfs elsewhere, PROCFS.

Nobody can make a name in procfs, nor may it be a layer of overlayfs; but the machine has names that a host's
procfs may lack (/proc/device-tree on x86). So the root directory is ours, served by a process of its own. Its
``mounts`` gives debugfs and tracefs their own types: the kernel calls the type of every FUSE mount fuse, and
programs look for debugfs by type.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cmafs.fs.dentry import Directory, File, FileSystemType, Inode, Symlink, fail, new_directory
from cmafs.fs.open import OpenFiles
from cmafs.init.journal import Journal
from cmafs.lib.clock import ManualClock
from cmafs.mount.fuse_ops import FuseMount, caller_pid
from cmafs.mount.libc import set_pdeathsig
from cmafs.run.root import HOST, PROCFS, TREE, Graft

_PROC = FileSystemType("proc", create=errno.ENOENT)
_OPTIONS: Mapping[str, str | bool] = {
    "fsname": "proc",
    "allow_other": True,
    "attr_timeout": "0",  # processes come and go
    "entry_timeout": "0",
}
_NAMED = re.compile(rb"^(debugfs|tracefs) (\S+) fuse ", re.MULTILINE)


class MountsFile(File):
    """An open /proc/mounts: the text of the moment when it was opened."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def read(self, size: int, offset: int) -> bytes:
        """A part of the text."""
        return self._text[offset : offset + size]


class Mounts:
    """/proc/mounts of whoever opens it; ``proc``: a descriptor of the host's /proc."""

    def __init__(self, proc: int) -> None:
        self._proc = proc

    def open(self, inode: Inode, flags: int) -> File:
        """Read the opener's mounts. Raises OSError."""
        descriptor = os.open(f"{caller_pid()}/mounts", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        with os.fdopen(descriptor, "rb") as file:
            return MountsFile(_NAMED.sub(rb"\1 \2 \1 ", file.read()))


def root_of(grafts: list[Graft], absent: Collection[str]) -> Directory:
    """The names of the host's /proc, and those of the machine that it lacks (``grafts``).

    Processes are left out, and what the machine has not (``absent``).
    A directory is a mount point, for init to bind the one below PROCFS at; a file is a link to that.
    """
    root = new_directory(_PROC, 0o555)
    root.file("mounts", 0o444, Mounts(os.open(f"{HOST}/proc", os.O_RDONLY | os.O_DIRECTORY)))
    with os.scandir(f"{HOST}/proc") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.isdigit() or entry.name == "mounts" or entry.name in absent:
                continue
            if entry.is_dir(follow_symlinks=False):
                root.subdir(entry.name, 0o555)
            elif entry.is_symlink() and entry.name not in ("self", "thread-self"):
                root.link(entry.name, os.readlink(entry.path))
            else:
                root.link(entry.name, f"{PROCFS}/{entry.name}")
    for graft in grafts:
        root.link(os.path.basename(graft.path), graft.source if graft.kind == "link" else TREE + graft.path)
    return root


class ProcRoot(FuseMount):
    """The mount of such a root: processes are links to their directories below PROCFS."""

    def __init__(self, root: Directory, on_ready: Callable[[], None]) -> None:
        self._names = dict(root.children)
        super().__init__(root, OpenFiles(Journal(ManualClock())), "/proc", on_ready, _discard)

    def _process(self, name: str) -> Symlink:
        return Symlink(_PROC, stat.S_IFLNK | 0o777, target=f"{PROCFS}/{name}")

    def lookup(self, path: bytes) -> Inode:
        """The inode of a path, of a process as long as it runs. Raises ENOENT, ENOTDIR."""
        name = os.fsdecode(path[1:])
        if not name.isdigit():
            return super().lookup(path)
        if not os.path.isdir(f"{PROCFS}/{name}"):
            fail(errno.ENOENT)
        return self._process(name)

    def readdir(self, path: bytes | None, buf: Any, filler: Any, offset: int, fip: Any) -> None:
        """getdents(2) with the processes of this moment."""
        root = self.directories[fip.contents.fh]
        if path in (None, b"/"):
            running = [name for name in os.listdir(PROCFS) if name.isdigit()]
            root.children = {**{name: self._process(name) for name in running}, **self._names}
        super().readdir(path, buf, filler, offset, fip)


def spawn(grafts: list[Graft], absent: Collection[str]) -> int:
    """Mount such a root on /proc from a process that dies with its parent; its pid, once the mount answers.

    Raises OSError.
    """
    root = root_of(grafts, absent)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            set_pdeathsig()
            os.close(reader)
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            ProcRoot(root, lambda: _answer(writer)).main(_OPTIONS)
        finally:
            os._exit(1)
    os.close(writer)
    answered = os.read(reader, 1)
    os.close(reader)
    if not answered:
        os.waitpid(pid, 0)
        raise OSError(errno.EIO, "the server of /proc died at its start")
    return pid


def _answer(writer: int) -> None:
    os.write(writer, b"1")
    os.close(writer)


def _discard(traceback: str) -> None:
    """Who asked got EIO; a run has no log of its own."""
