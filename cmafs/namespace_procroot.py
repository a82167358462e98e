"""A root directory for /proc where the host's procfs lacks names of the machine (/proc/device-tree on x86).

Nobody can make a name in procfs, nor may it be a layer of overlayfs. So the root directory is ours, a FUSE
mount of a process of its own: it has the machine's names, and leads to a procfs elsewhere for all others.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable, Mapping
from typing import Any

from cmafs.fs.dentry import Directory, FileSystemType, Inode, Symlink, fail, new_directory
from cmafs.fs.fuse_ops import FuseMount
from cmafs.namespace_root import HOST, TREE, Graft
from cmafs.namespace_syscalls import set_pdeathsig

PROCFS = FileSystemType("proc", create=errno.ENOENT)
_OPTIONS: Mapping[str, str | bool] = {
    "fsname": "proc",
    "allow_other": True,
    "attr_timeout": "0",  # processes come and go
    "entry_timeout": "0",
}


def root_of(procfs: str, grafts: list[Graft]) -> Directory:
    """The names of the host's /proc, processes aside, and those of the machine.

    A directory is a mount point, for init to bind the one below ``procfs`` at; a file is a link to that.
    """
    root = new_directory(PROCFS, 0o555)
    with os.scandir(f"{HOST}/proc") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.isdigit():
                continue
            if entry.is_dir(follow_symlinks=False):
                root.subdir(entry.name, 0o555)
            elif entry.is_symlink() and entry.name not in ("self", "thread-self"):
                root.link(entry.name, os.readlink(entry.path))
            else:
                root.link(entry.name, f"{procfs}/{entry.name}")
    for graft in grafts:
        root.link(os.path.basename(graft.path), graft.source if graft.kind == "link" else TREE + graft.path)
    return root


class ProcRoot(FuseMount):
    """The mount of such a root: processes are links to their directories below ``procfs``."""

    def __init__(self, root: Directory, procfs: str, on_ready: Callable[[], None]) -> None:
        self._procfs = procfs
        self._names = dict(root.children)
        super().__init__(root, "/proc", on_ready, _discard)

    def _process(self, name: str) -> Symlink:
        return Symlink(PROCFS, stat.S_IFLNK | 0o777, target=f"{self._procfs}/{name}")

    def _lookup(self, path: bytes) -> Inode:
        name = os.fsdecode(path[1:])
        if not name.isdigit():
            return super()._lookup(path)
        if not os.path.isdir(f"{self._procfs}/{name}"):
            fail(errno.ENOENT)
        return self._process(name)

    def readdir(self, path: bytes | None, buf: Any, filler: Any, offset: int, fip: Any) -> None:
        """getdents(2) with the processes of this moment."""
        root = self._directories[fip.contents.fh]
        if path in (None, b"/"):
            running = [name for name in os.listdir(self._procfs) if name.isdigit()]
            root.children = {**{name: self._process(name) for name in running}, **self._names}
        super().readdir(path, buf, filler, offset, fip)


def spawn(procfs: str, grafts: list[Graft]) -> int:
    """Mount such a root on /proc from a process that dies with its parent; its pid, once the mount answers.

    Raises OSError.
    """
    root = root_of(procfs, grafts)
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
            ProcRoot(root, procfs, lambda: _answer(writer)).main(_OPTIONS)
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
