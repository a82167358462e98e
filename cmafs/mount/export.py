"""`cmafs export`: the tree of a machine as plain files and links, for scripts that only read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cmafs.fs.dentry import Directory, Inode, Symlink
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


def export(machine: Machine, directory: Path) -> Exported:
    """Write the tree of a machine below a directory, which is made, or empty.

    Raises ExportFailed. Of a tree that could not be written whole nothing is left, and nothing else is
    removed. Below the directory every name is made, not found, and reached by the descriptor of the one
    above: who may write there, and may not what the caller may, cannot lead it astray.
    """
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _opened(directory) as place:
            if not _is_empty(place):
                raise ExportFailed(f"{directory}: not empty: name a new directory")
            writing = _Writing(machine, directory)
            writing.fill(machine.root, "", place)
            return writing.done
    except BaseException as error:
        for made in missing:
            with suppress(OSError):
                made.rmdir()
        if isinstance(error, OSError):
            raise ExportFailed(f"{directory}: {error.strerror}") from None
        raise


@contextmanager
def _opened(name: str | Path, place: int | None = None) -> Iterator[int]:
    """A directory of the one at a descriptor, for as long as the ``with`` lasts; not through a link."""
    nofollow = os.O_NOFOLLOW if place is not None else 0
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | nofollow, dir_fd=place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_empty(place: int) -> bool:
    with os.scandir(place) as entries:
        return next(entries, None) is None


@dataclass(eq=False)
class _Writing:
    """An export on its way."""

    machine: Machine
    directory: Path
    done: Exported = field(default_factory=Exported)

    def fill(self, directory: Directory, above: str, place: int) -> None:
        """Make what a directory holds in the one at a descriptor: all of it or nothing."""
        made: list[str] = []
        try:
            for name, inode in directory.children.items():
                path = f"{above}/{name}"
                try:
                    kind = self._make(inode, path, name, place)
                except OSError as error:
                    raise ExportFailed(f"{self.directory}{path}: {error.strerror}") from None
                made.append(name)
                setattr(self.done, kind, getattr(self.done, kind) + 1)
        except BaseException:
            _remove(directory, made, place)
            raise

    def _make(self, inode: Inode, path: str, name: str, place: int) -> str:
        """Make a name; of which kind it is."""
        if isinstance(inode, Symlink):
            os.symlink(inode.target, name, dir_fd=place)
            return "links"
        if isinstance(inode, Directory):
            self._make_directory(inode, path, name, place)
            return "directories"
        _make_file(name, self._content(path, inode), stat.S_IMODE(inode.mode), place)
        return "files"

    def _make_directory(self, inode: Directory, path: str, name: str, place: int) -> None:
        os.mkdir(name, dir_fd=place)
        try:
            with _opened(name, place) as inside:
                if not _is_empty(inside):  # another has come to its place
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                self.fill(inode, path, inside)
                os.fchmod(inside, stat.S_IMODE(inode.mode) | stat.S_IWUSR)
        except BaseException:
            with suppress(OSError):
                os.rmdir(name, dir_fd=place)
            raise

    def _content(self, path: str, inode: Inode) -> bytes:
        """What root reads there, nothing where the kernel refuses or the reader would wait."""
        if stat.S_ISFIFO(inode.mode):
            return b""
        try:
            return self.machine.read(path)
        except OSError:
            return b""


def _make_file(name: str, data: bytes, mode: int, place: int) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
    except BaseException:
        os.unlink(name, dir_fd=place)
        raise


def _remove(directory: Directory, names: Iterable[str], place: int) -> None:
    """Unmake names that were made whole."""
    for name in names:
        inode = directory.children[name]
        with suppress(OSError):
            if isinstance(inode, Directory):
                with _opened(name, place) as inside:
                    _remove(inode, inode.children, inside)
                os.rmdir(name, dir_fd=place)
            else:
                os.unlink(name, dir_fd=place)
