"""The root directory that CMD of `cmafs run` sees: the host's, with the machine's paths at their places.

A new tmpfs becomes the root and every entry of the host's root is bound into it, because a mount point made
in the host's own tree would be seen by the host. Where the machine has a name that a directory of the host
lacks, that directory is composed in the same way, one level deeper.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from cmafs.board.memory import SYSFS
from cmafs.mount.mounts import MOUNTINFO
from cmafs.run.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    bind,
    mount,
    pivot_root,
    umount,
)

PRIVATE = "/.cmafs"  # what cmafs keeps for itself in the composed root
HOST = f"{PRIVATE}/host"  # the host's root while composing
TREE = f"{PRIVATE}/mnt"  # the mounted tree: $CMAFS_MOUNT
DEBUGFS = f"{PRIVATE}/debugfs"  # the same tree, mounted under the names that /proc/mounts is to show
TRACEFS = f"{PRIVATE}/tracefs"
PROCFS = f"{PRIVATE}/proc"  # the run's procfs; the root directory of /proc is composed

_PTMX = "/dev/ptmx"
_DEBUG = "/sys/kernel/debug"
_FLAGS = 0xF  # of statvfs(3): read-only, nosuid, nodev, noexec, each the bit that mount(2) takes
#: devices besides disks by which root would change the host for longer than the run, or write to its log
_SEALED = re.compile(r"loop-control|mapper|mem|nvram|port|snapshot|ttyprintk|watchdog\d*")
_TRACING = "/sys/kernel/tracing"
_ANDROID = "/d"
# directories of the machine that replace the host's as a whole; others are merged with it, name by name
_WHOLE = (_DEBUG, _TRACING, f"/{SYSFS}", "/sys/kernel/mm/contiguous", "/sys/firmware/devicetree")


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
    composed = set()
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


def is_sealed(name: str, mode: int) -> bool:
    """Whether CMD may see this entry of /dev, but not open it: a disk, say, or the watchdog."""
    return stat.S_ISBLK(mode) or _SEALED.fullmatch(name) is not None


def _write_protect(directory: str) -> None:
    """Make every file system at and below a directory read-only here. Raises OSError."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        places = [line.split()[4] for line in file]
    for place in dict.fromkeys(places):
        if f"{place}/".startswith(f"{directory}/"):
            restrict(place, MS_RDONLY)


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
    elif target == _PTMX:
        os.symlink(_ptmx(), target)
    else:
        touch(target)
        bind(source, target)


def _seal(path: str) -> None:
    """Let an entry of /dev be seen and not opened, if it is one of those. Raises OSError."""
    mode = os.lstat(path).st_mode
    if is_sealed(os.path.basename(path), mode) and not stat.S_ISLNK(mode):
        restrict(path, MS_NODEV)


def _fill(directory: str, skip: set[str]) -> None:
    """Bind each of the host's entries into an empty composed directory."""
    root = directory.rstrip("/")
    for name in sorted(os.listdir(HOST + directory)):
        if f"{root}/{name}" in skip:
            continue
        try:
            _clone(f"{HOST}{root}/{name}", f"{root}/{name}")
        except OSError:  # a dead network or FUSE mount: the rest of the host is still worth having
            continue
        if directory == "/dev":
            _seal(f"{root}/{name}")


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
    for path in (TREE, DEBUGFS, TRACEFS, PROCFS, "/proc", *private):
        os.mkdir(path)
    bind(f"{HOST}/proc", "/proc", recursive=True)  # until the run has its own


def bind_host() -> None:
    """Bind what stands in the host's root, /proc aside, and its /dev once more if pseudoterminals need it.

    /sys is read-only: root of CMD's user namespace would still be the owner of the host's settings there.
    """
    _write_protect(f"{HOST}/sys")
    _fill("/", {"/proc", PRIVATE, _ANDROID})
    if not _opens_ptmx():
        bind(f"{HOST}/dev", f"{PRIVATE}/dev", recursive=True)


def graft_machine(grafts: dict[str, Graft]) -> None:
    """Put the machine's paths, those below /proc aside, where they belong. Raises OSError."""
    here = {path: graft for path, graft in grafts.items() if not path.startswith("/proc/")}
    for directory in _to_compose(here, HOST):
        mode = stat.S_IMODE(os.stat(HOST + directory).st_mode)
        tmpfs(directory, mode)
        _fill(directory, set(here))
    for graft in here.values():
        _place(graft)
    if not os.path.lexists("/system"):  # `#!/system/bin/sh` of Android's scripts
        os.makedirs("/system/bin")
        os.symlink("/bin/sh", "/system/bin/sh")


def leave_host() -> None:
    """Take the host's root out of sight, and what only served to compose. Raises OSError."""
    for place in (HOST, DEBUGFS, TRACEFS):
        umount(place)
        os.rmdir(place)
