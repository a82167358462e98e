"""/proc of `cmafs run`: a private procfs for CMD's pids with the machine's files over it.

Root of the identity-mapped user namespace still owns the host's sysctls as far as file permissions go, so
/proc/sys is read-only there, and /proc/sys/vm a directory of the run's own.
"""

from __future__ import annotations

import os
import re

from cmafs.namespace_root import PRIVATE, Graft, fits, tmpfs, touch
from cmafs.namespace_syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    bind,
    mount,
)

_VM = "/proc/sys/vm"
_PRINTK = "/proc/sys/kernel/printk"
_SYSRQ = "/proc/sysrq-trigger"  # `echo m` there makes the host's kernel print into its log
_KEEP = MS_NOSUID | MS_NODEV | MS_NOEXEC


def mount_proc() -> None:
    """Mount a procfs for this pid namespace on /proc. Raises OSError: EPERM where a container masks its own."""
    mount("proc", "/proc", "proc", _KEEP)


def missing(grafts: dict[str, Graft], root: str = "") -> list[Graft]:
    """The machine's names in /proc that the host's procfs lacks: nobody can make one there."""
    below = [graft for graft in grafts.values() if graft.path.startswith("/proc/") and graft.kind != "absent"]
    return [graft for graft in below if not fits(graft, root) and not graft.path.startswith(_VM + "/")]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # write-only, or refused to this user
        return b""


def _private_vm() -> None:
    """Replace /proc/sys/vm by files of the run's own, with the host's values to begin with."""
    values = []
    with os.scandir(_VM) as entries:
        for entry in entries:
            if entry.is_file():
                values.append((entry.path, _read(entry.path), entry.stat().st_mode & 0o777))
    tmpfs(_VM)
    for path, value, mode in values:
        touch(path, value, mode)


def _private_file(path: str) -> None:
    if os.path.exists(path):
        private = f"{PRIVATE}/{os.path.basename(path)}"
        touch(private, _read(path) if path == _PRINTK else b"")
        bind(private, path)


def graft_proc(grafts: dict[str, Graft]) -> None:
    """Put the machine's files over the private procfs, the host's sysctls out of reach. Raises OSError."""
    bind("/proc/sys", "/proc/sys")
    mount("none", "/proc/sys", None, MS_REMOUNT | MS_BIND | MS_RDONLY | _KEEP)
    if os.path.isdir(_VM):
        _private_vm()
    for path in (_PRINTK, _SYSRQ):
        _private_file(path)
    for graft in grafts.values():
        if not graft.path.startswith("/proc/") or graft.kind != "bind":
            continue
        if graft.path.startswith(_VM + "/") and not os.path.exists(graft.path):
            touch(graft.path)
        if fits(graft, ""):
            bind(graft.source, graft.path)


def _mounts() -> list[tuple[str, str]]:
    """Mount point and file system type of every mount in sight."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    unescape = re.compile(r"\\([0-7]{3})")
    return [
        (unescape.sub(lambda match: chr(int(match[1], 8)), fields[4]), fields[fields.index("-") + 1])
        for fields in lines
    ]


def cover_strays() -> None:
    """Cover the host's debugfs, kernel log and sysctls at other places, a chroot's say. Raises OSError."""
    for path, fstype in _mounts():
        if fstype in ("debugfs", "tracefs"):
            _cover(path)
        elif fstype == "proc" and path != "/proc" and not path.startswith("/proc/"):
            _cover(f"{path}/sys")
            _cover(f"{path}/sysrq-trigger")
        elif fstype == "devtmpfs":
            _cover(f"{path}/kmsg")


def _cover(path: str) -> None:
    if os.path.isdir(path):
        tmpfs(path)
    elif os.path.exists(path):
        bind("/dev/null", path)
