"""/proc of `cmafs run`: a private procfs for CMD's pids with the machine's files over it.

Root of the identity-mapped user namespace still owns the host's settings as far as file permissions go, so
all but the processes is read-only there, and /proc/sys/vm a directory of the run's own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from cmafs.mount.libc import umount
from cmafs.mount.mounts import device_of, mount_table
from cmafs.run.allowed import DEVICES, OSRELEASE, PRINTK, SYSRQ, VERSION, VM
from cmafs.run.root import (
    PRIVATE,
    PROCFS,
    SEALED,
    TREE,
    Graft,
    fits,
    restrict,
    seal,
    tmpfs,
    touch,
)
from cmafs.run.syscalls import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    bind,
    mount,
)

_PROC = "/proc"
#: names that a machine and a host's procfs may have or lack, by configuration or architecture
HOST_NAMES = ("device-tree", "config.gz", "buddyinfo", "pagetypeinfo", "zoneinfo", "vmstat", "iomem")
_SLOW = "stat_refresh"  # reading it makes every CPU of the host fold its counters
_REVEALING = ("debugfs", "tracefs", "proc", "devtmpfs")
_KEEP = MS_NOSUID | MS_NODEV | MS_NOEXEC


def _relative(graft: Graft) -> str:
    return graft.path.removeprefix(f"{_PROC}/")


def _below_proc(grafts: dict[str, Graft]) -> list[Graft]:
    return [graft for graft in grafts.values() if graft.path.startswith(f"{_PROC}/")]


def missing(grafts: dict[str, Graft], host: str) -> list[Graft]:
    """The machine's names in /proc that the host's procfs lacks, where nobody can make one."""
    lacking = [graft for graft in _below_proc(grafts) if not fits(graft, host)]
    return [graft for graft in lacking if not _relative(graft).startswith(f"{VM}/")]


def absent(grafts: dict[str, Graft]) -> list[str]:
    """Names that the host's procfs may have and this machine has not."""
    return [name for name in HOST_NAMES if f"{_PROC}/{name}" not in grafts]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # write-only, or refused to this user
        return b""


def _private_directory(directory: str) -> None:
    """Replace a directory of sysctls by files of the run's own, with the host's values to begin with."""
    with os.scandir(directory) as entries:
        files = [entry for entry in entries if entry.is_file()]
        values = [
            (entry.path, b"" if entry.name == _SLOW else _read(entry.path), entry.stat().st_mode & 0o777)
            for entry in files
        ]
    tmpfs(directory)
    for path, value, mode in values:
        touch(path, value, mode)


def _private_file(path: str, content: bytes) -> None:
    if os.path.exists(path):
        private = f"{PRIVATE}/{os.path.basename(path)}"
        touch(private, content)
        bind(private, path)


def _release_and_version() -> tuple[bytes, bytes]:
    """What uname(2) would answer, from `Linux version RELEASE (…) (…) #VERSION`."""
    banner = _read(f"{TREE}/proc/version")
    _, _, version = banner.partition(b"#")
    return banner.split()[2] + b"\n", b"#" + version


def mount_proc() -> None:
    """Mount a procfs for this pid namespace. Raises OSError: EPERM where a container masks its own /proc."""
    mount("proc", PROCFS, "proc", _KEEP)


def _write_protect() -> None:
    """Make everything in the private procfs but the processes read-only. Raises OSError."""
    seal(PROCFS, MS_RDONLY)
    with os.scandir(PROCFS) as entries:
        for entry in entries:
            if not entry.name.isdigit() and not entry.is_symlink():
                bind(f"{SEALED}/{entry.name}", entry.path)
    umount(SEALED)


def graft_proc(grafts: dict[str, Graft]) -> None:
    """Put the machine's files over the private procfs, the host's sysctls out of reach. Raises OSError."""
    _write_protect()
    _private_directory(f"{PROCFS}/{VM}")
    release, version = _release_and_version()
    private = {
        PRINTK: _read(f"{PROCFS}/{PRINTK}"),  # what a board's script sets without further ado
        SYSRQ: b"",  # `echo m` there makes the host's kernel print into its log
        OSRELEASE: release,
        VERSION: version,
    }
    for name, content in private.items():
        _private_file(f"{PROCFS}/{name}", content)
    for graft in _below_proc(grafts):
        place = f"{PROCFS}/{_relative(graft)}"
        if _relative(graft).startswith(f"{VM}/") and not os.path.exists(place):
            touch(place)
        if graft.kind == "bind" and os.path.exists(place):
            bind(graft.source, place)
    _bind_directories()


def _bind_directories() -> None:
    """Show the directories of procfs at their places below the root directory that the run has for /proc."""
    with os.scandir(PROCFS) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.isdigit():
                bind(entry.path, f"{_PROC}/{entry.name}", recursive=True)


def _host_mounts() -> Iterator[tuple[str, str]]:
    """Mount point and type of the mounts in sight that show a file system with a log or sysctls in it."""
    for entry in mount_table():
        path, fstype = entry.mountpoint, entry.fstype
        private = entry.root != "/" or path == f"{PRIVATE}/dev"
        if fstype not in _REVEALING or (fstype == "devtmpfs" and private):
            continue
        with contextlib.suppress(OSError):  # a mount below another one cannot be reached by its path
            if device_of(os.stat(path)) == entry.device:
                yield path, fstype


def cover_strays() -> None:
    """Cover the host's debugfs, kernel log and sysctls at other places, a chroot's say. Raises OSError."""
    for path, fstype in _host_mounts():
        if fstype in ("debugfs", "tracefs"):
            _cover(path)
        elif fstype == "proc" and not f"{path}/".startswith((f"{_PROC}/", f"{PROCFS}/")):
            restrict(path, MS_RDONLY)
        elif fstype == "devtmpfs":
            _cover_devices(path)


def _cover_devices(directory: str) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name not in DEVICES and not entry.is_symlink():
                _cover(entry.path)


def _cover(path: str) -> None:
    if os.path.isdir(path):
        tmpfs(path)
    elif os.path.exists(path):
        bind("/dev/null", path)
