"""The root directory that CMD of `cmafs run` sees: the host's, with the machine's paths at their places.

A new tmpfs becomes the root and every entry of the host's root is bound into it, because a mount point made
in the host's own tree would be seen by the host. Where the machine has a name that a directory of the host
lacks, that directory is composed in the same way, one level deeper.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from cmafs.board import SYSFS
from cmafs.mount.libc import umount
from cmafs.mount.mounts import mount_table
from cmafs.run.allowed import DEVICES
from cmafs.run.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    bind,
    mount,
    pivot_root,
    restrict_tree,
)

PRIVATE = "/.cmafs"  # what cmafs keeps for itself in the composed root
HOST = f"{PRIVATE}/host"  # the host's root while composing
TREE = f"{PRIVATE}/mnt"  # the mounted tree: $CMAFS_MOUNT
DEBUGFS = f"{PRIVATE}/debugfs"  # the same tree, mounted under the names that /proc/mounts is to show
TRACEFS = f"{PRIVATE}/tracefs"
PROCFS = f"{PRIVATE}/proc"  # the run's procfs; the root directory of /proc is composed
SEALED = f"{PRIVATE}/sealed"  # what may be seen and nothing else, while composing

_DEV = "/dev"
_PTMX = "/dev/ptmx"
_DEBUG = "/sys/kernel/debug"
_FLAGS = 0xF  # of statvfs(3): read-only, nosuid, nodev, noexec, each the bit that mount(2) takes
_TRACING = "/sys/kernel/tracing"
_ANDROID = "/d"
# directories of the machine that replace the host's as a whole; others are merged with it, name by name
_WHOLE = (
    _DEBUG,
    _TRACING,
    f"/{SYSFS}",
    "/sys/kernel/mm/contiguous",
    "/sys/kernel/dmabuf",
    "/sys/firmware/devicetree",
    "/dev/dma_heap",
)


@dataclass(frozen=True)
class Graft:
    """What stands at one absolute path: a bound file or directory, a link, nothing, or an empty directory.

    ``kind``: ``bind`` (``source`` a path), ``link`` (``source`` its target), ``absent``, ``empty``.
    """

    path: str
    kind: str
    source: str = ""
    is_dir: bool = True


def _descend(tree: str, path: str, host: str) -> Iterator[Graft]:
    with os.scandir(tree + path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            child = f"{path}/{entry.name}"
            if entry.is_symlink():
                yield Graft(child, "link", os.readlink(entry.path), is_dir=False)
            elif not entry.is_dir():
                yield Graft(child, "bind", entry.path, is_dir=False)
            elif child != "/sim":
                yield from _directory(tree, child, host)


def _directory(tree: str, path: str, host: str) -> Iterator[Graft]:
    if path in _WHOLE or not os.path.isdir(host + path):
        yield Graft(path, "bind", tree + path)
    else:
        yield from _descend(tree, path, host)


def plan(host: str = HOST) -> dict[str, Graft]:
    """Every path of the mounted tree, ``sim/`` aside, and what must not be the host's; by absolute path."""
    grafts = {graft.path: graft for graft in _descend(TREE, "", host)}
    if _DEBUG in grafts:
        grafts[_DEBUG] = Graft(_DEBUG, "bind", DEBUGFS + _DEBUG)
        grafts[_ANDROID] = Graft(_ANDROID, "link", _DEBUG, is_dir=False)
    if os.path.isdir(f"{TREE}{_DEBUG}/tracing"):
        grafts[_TRACING] = Graft(_TRACING, "bind", f"{TRACEFS}{_DEBUG}/tracing")
    for path in _WHOLE:
        if path not in grafts and os.path.isdir(host + path):
            grafts[path] = Graft(path, "empty" if path in (_DEBUG, _TRACING) else "absent")
    return grafts


def fits(graft: Graft, root: str) -> bool:
    """Whether the graft can be put over what stands below ``root`` already."""
    try:
        mode = os.lstat(root + graft.path).st_mode
    except OSError:
        return graft.kind == "absent"
    if graft.kind == "link":
        return stat.S_ISLNK(mode) and os.readlink(root + graft.path) == graft.source
    return graft.kind != "absent" and not stat.S_ISLNK(mode) and stat.S_ISDIR(mode) == graft.is_dir


def _to_compose(grafts: dict[str, Graft], host: str) -> list[str]:
    """The host's directories in which a name must be added or taken away; parents first."""
    composed = {_DEV} if os.path.isdir(host + _DEV) else set()  # where not everything is let through
    for graft in grafts.values():
        if not fits(graft, host):
            parents = (str(parent) for parent in PurePosixPath(graft.path).parents)
            composed.add(next(parent for parent in parents if os.path.isdir(host + parent)))
    return sorted(composed - {"/"})


def tmpfs(path: str, mode: int = 0o755) -> None:
    """Mount an empty tmpfs. Raises OSError."""
    mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode:o}")


def touch(path: str, data: bytes = b"", mode: int = 0o644) -> None:
    """Make a small file: a mount point, or a copy of one of the host's."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, mode)
    os.write(descriptor, data)
    os.close(descriptor)


def restrict(path: str, flags: int) -> None:
    """Add MS_RDONLY or MS_NODEV to what is mounted at a path, for this mount namespace. Raises OSError."""
    mount("none", path, None, MS_REMOUNT | MS_BIND | flags | os.statvfs(path).f_flag & _FLAGS)


def seal(source: str, flags: int) -> None:
    """Show a directory of the host at SEALED, with MS_RDONLY or MS_NODEV there: so is what is bound from it.

    Raises OSError.
    """
    bind(source, SEALED, recursive=True)
    restrict_below(SEALED, flags)


def restrict_below(directory: str, flags: int) -> None:
    """Restrict every file system at and below a mounted directory here. Raises OSError."""
    try:
        restrict_tree(directory, flags)
    except OSError:  # before 5.12, or a container without this call
        for place in dict.fromkeys(entry.mountpoint for entry in mount_table()):
            if f"{place}/".startswith(f"{directory}/"):
                restrict(place, flags)


def _opens_ptmx() -> bool:
    """Whether the ptmx in devpts can be opened: its mode is 000 on most hosts, root may all the same."""
    return os.access(f"{HOST}/dev/pts/ptmx", os.R_OK | os.W_OK)


def _ptmx() -> str:
    """Where ptmx leads: the kernel looks for devpts beside the node, and a bound node has no neighbours.

    Whoever may not open the one in devpts gets the node of a whole /dev.
    """
    return "pts/ptmx" if _opens_ptmx() else f"{PRIVATE}{_PTMX}"


def _clone(source: str, target: str) -> None:
    """Show one of the host's entries at its place: a link as a link, everything else bound."""
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(mode):
        os.mkdir(target)
        bind(source, target, recursive=True)
    else:
        touch(target)
        bind(source, target)


def _fill(directory: str, skip: set[str]) -> None:
    """Bind each of the host's entries into an empty composed directory."""
    root = directory.rstrip("/")
    for name in sorted(os.listdir(HOST + directory)):
        if f"{root}/{name}" in skip:
            continue
        with contextlib.suppress(OSError):  # a dead network or FUSE mount: the rest is still worth having
            _clone(f"{HOST}{root}/{name}", f"{root}/{name}")


def _fill_dev(skip: set[str]) -> None:
    """Bind the host's devices into the composed /dev: what is not allowed can be seen, not opened."""
    host = f"{HOST}{_DEV}"
    seal(host, MS_RDONLY | MS_NODEV)
    for name in sorted(os.listdir(host)):
        place = f"{_DEV}/{name}"
        if place in skip:
            continue
        with contextlib.suppress(OSError):  # as above
            if place == _PTMX:
                os.symlink(_ptmx(), place)
            elif name == "mqueue":
                os.mkdir(place)
                mount("mqueue", place, "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)
            else:
                _clone(f"{host}/{name}" if name in DEVICES else _sealed(name), place)
    if not _opens_ptmx():
        _show_ptmx(host, f"{PRIVATE}{_DEV}")
    umount(SEALED)


def _sealed(name: str) -> str:
    """What stands for an entry of /dev that cannot be opened: an empty file for a FIFO or a socket."""
    mode = os.lstat(f"{SEALED}/{name}").st_mode
    return f"{PRIVATE}/none" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else f"{SEALED}/{name}"


def _show_ptmx(host: str, whole: str) -> None:
    """Bind the host's /dev once more for its ptmx, which looks for pts beside itself, and seal the rest."""
    bind(host, whole, recursive=True)
    restrict(whole, MS_RDONLY)
    for name in os.listdir(host):
        if name not in ("ptmx", "pts") and not os.path.islink(f"{host}/{name}"):
            with contextlib.suppress(FileNotFoundError):  # unplugged meanwhile
                bind(_sealed(name), f"{whole}/{name}", recursive=True)


def _place(graft: Graft) -> None:
    if graft.kind == "absent":
        return
    if not os.path.lexists(graft.path):
        os.makedirs(os.path.dirname(graft.path), exist_ok=True)
        if graft.kind == "link":
            os.symlink(graft.source, graft.path)
        elif graft.is_dir:
            os.mkdir(graft.path)
        else:
            touch(graft.path)
    if graft.kind == "bind":
        bind(graft.source, graft.path)
    elif graft.kind == "empty":
        tmpfs(graft.path)


def enter_root() -> None:
    """Make an empty tmpfs the root of this mount namespace, the host's root at HOST. Raises OSError."""
    tmpfs("/proc")  # exists everywhere, and is replaced anyway
    os.mkdir(f"/proc{PRIVATE}")
    os.mkdir(f"/proc{HOST}")
    pivot_root("/proc", f"/proc{HOST}")
    os.chdir("/")
    private = [f"{PRIVATE}/{name}" for name in ("dev", "real", "bin")]
    for path in (TREE, DEBUGFS, TRACEFS, PROCFS, SEALED, "/proc", *private):
        os.mkdir(path)
    touch(f"{PRIVATE}/none", mode=0)
    bind(f"{HOST}/proc", "/proc", recursive=True)  # until the run has its own


def bind_host() -> None:
    """Bind what stands in the host's root, /proc aside.

    /sys is read-only: root of CMD's user namespace would still be the owner of the host's settings there.
    """
    restrict_below(f"{HOST}/sys", MS_RDONLY)
    _fill("/", {"/proc", PRIVATE, _ANDROID})


def graft_machine(grafts: dict[str, Graft]) -> None:
    """Put the machine's paths, those below /proc aside, where they belong. Raises OSError."""
    here = {path: graft for path, graft in grafts.items() if not path.startswith("/proc/")}
    for directory in _to_compose(here, HOST):
        mode = stat.S_IMODE(os.stat(HOST + directory).st_mode)
        tmpfs(directory, mode)
        _fill_dev(set(here)) if directory == _DEV else _fill(directory, set(here))
    for graft in here.values():
        _place(graft)
    if not os.path.lexists("/system"):  # `#!/system/bin/sh` of Android's scripts
        os.makedirs("/system/bin")
        os.symlink("/bin/sh", "/system/bin/sh")


def leave_host() -> None:
    """Take the host's root out of sight, and what only served to compose. Raises OSError."""
    for place in (HOST, DEBUGFS, TRACEFS):
        umount(place)
    for place in (HOST, DEBUGFS, TRACEFS, SEALED):
        os.rmdir(place)
