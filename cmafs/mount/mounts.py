"""Mounts as the host sees them: which are ours, who serves one, who holds it, how it is taken away."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = "/proc/self/mountinfo"
FUSE_DEVICE = "/dev/fuse"

#: ``fsname`` and ``subtype`` of a mount; where one stands for debugfs it is called so (``cmafs run``).
NAME = "cmafs"
_TYPES = (f"fuse.{NAME}", "fuse.debugfs")

#: include/uapi/linux/fs.h, include/linux/fs.h: umount2(2)'s flags
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

_ESCAPE = re.compile(r"\\([0-7]{3})")

#: Seconds: for a descriptor that is being closed; for a server to end by itself; for one that was told to.
_BUSY_PATIENCE, _END_PATIENCE, _TERM_PATIENCE = 0.5, 2.0, 10.0


class MountFailed(Exception):
    """A mount cannot be made or taken away: one line saying why and what to do."""


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo; ``device`` is major:minor of the mounted file system."""

    device: str
    mountpoint: str
    fstype: str

    @property
    def ours(self) -> bool:
        """Whether it is a cmafs tree, alive or not; under a ``subtype`` of the user's, sim/ tells."""
        if self.fstype in _TYPES:
            return True
        control = Path(self.mountpoint, "sim", "control")
        return self.fstype.split(".")[0] == "fuse" and os.access(control, os.F_OK)


def _mounts() -> Iterator[Mount]:
    for line in Path(MOUNTINFO).read_text(errors="surrogateescape").splitlines():
        fields, _, source = line.partition(" - ")
        words = fields.split()
        path = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), words[4])
        yield Mount(words[2], path, source.split()[0])


def topmost(place: str) -> Mount | None:
    """The topmost mount at a resolved path, None if there is none; asks nothing of the mount itself."""
    found = [mount for mount in _mounts() if mount.mountpoint == place]
    return found[-1] if found else None


def mounted_at(path: str) -> Mount | None:
    """What is mounted at a path; None if nothing is."""
    return topmost(os.path.realpath(path))  # Path.resolve stops at the mount of a killed server


# the server of a mount: it listens on a socket without a file, named after the mounted file system


def _address(device: str) -> str:
    return f"\0{NAME}/{device}"


def announce(device: str) -> socket.socket:
    """Make the calling process known as the server of a file system, until it ends."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(_address(device))
        listener.listen()
    except OSError:  # somebody else's name; unmounting then just does not wait
        listener.close()
    return listener


def server_of(device: str) -> int | None:
    """The pid of a file system's server; None if it is gone, or not to be seen from here."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(_address(device))
        except OSError:
            return None
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], "little") or None


# who holds a mount


def holders(mount: Mount) -> list[str]:
    """The processes with a file, a directory or a mount below a mount point, each as ``comm (pid N)``."""
    apart = {str(server_of(mount.device)), str(os.getpid())}
    found = [
        f"another mount on {other.mountpoint}"
        for other in _mounts()
        if other.mountpoint.startswith(mount.mountpoint.rstrip("/") + "/")
    ]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name not in apart and _holds(entry, mount.mountpoint):
            try:
                comm = (entry / "comm").read_text().strip()
            except OSError:  # it ended meanwhile
                continue
            found.append(f"{comm} (pid {entry.name})")
    return found


def _holds(process: Path, place: str) -> bool:
    below = place.rstrip("/") + "/"
    return any(target == place or target.startswith(below) for target in _references(process))


def _references(process: Path) -> Iterator[str]:
    """Where a process's directories and descriptors lead, as far as the caller may see them."""
    links = [process / "cwd", process / "root", process / "exe"]
    with contextlib.suppress(OSError):
        links += (process / "fd").iterdir()
    for link in links:
        with contextlib.suppress(OSError):
            yield str(link.readlink())


# unmounting


def unmount(path: str, lazy: bool = False) -> None:
    """Take a mount of ours away and wait for its server to be gone; clears the mount of a killed server too.

    ``lazy``: at once, even if it is in use; the server then ends with the last user. Raises MountFailed.
    """
    mount = mounted_at(path)
    if mount is None:
        raise MountFailed(f"{path}: nothing is mounted there")
    if not mount.ours:
        raise MountFailed(f"{path}: not a cmafs mount but {mount.fstype}; left as it is")
    server = server_of(mount.device)
    pidfd = _pidfd(server) if server else None
    busy = holders(mount) if lazy else []
    try:
        _take_away(path, mount, lazy)
        if pidfd is not None and not busy:
            _wait_for_end(path, server, pidfd)
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _take_away(path: str, mount: Mount, lazy: bool) -> None:
    deadline = time.monotonic() + _BUSY_PATIENCE
    while error := _umount(mount.mountpoint, lazy):
        if error[0] != errno.EBUSY:
            raise MountFailed(f"{path}: cannot be unmounted: {error[1]}")
        busy = holders(mount)
        if busy or time.monotonic() > deadline:
            names = ", ".join(busy) or "a process that cannot be seen from here"
            raise MountFailed(f"{path}: busy: in use by {names}; end it, or `cmafs umount -l {path}`")
        time.sleep(0.02)  # the server itself has a FIFO's other end open for a moment


def _umount(place: str, lazy: bool) -> tuple[int, str] | None:
    """umount2(2) as root, else by the setuid fusermount; an errno and a text if it fails."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(place), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)) == 0:
            return None
        code = ctypes.get_errno()
        return code, os.strerror(code)
    program = shutil.which("fusermount") or shutil.which("fusermount3")
    if program is None:
        return errno.ENOENT, "fusermount is missing: install the package fuse3"
    command = [program, "-uz" if lazy else "-u", place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    text = done.stderr.strip().splitlines()[-1:] or ["fusermount failed"]
    return (errno.EBUSY if "busy" in text[0] else errno.EPERM), text[0]


def _wait_for_end(path: str, server: int | None, pidfd: int) -> None:
    """A server ends with its file system; one whose file system lives on in another namespace is told to."""
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    if ended.poll(_END_PATIENCE * 1000):
        return
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    if not ended.poll(_TERM_PATIENCE * 1000):
        raise MountFailed(f"{path}: unmounted, but its server (pid {server}) does not end")


def check_mountpoint(path: str, nonempty: bool = False) -> None:
    """Whether a machine can be mounted at a path. Raises MountFailed."""
    mount = mounted_at(path)
    try:
        os.statvfs(path)  # unlike attributes never cached: a killed server shows here
        is_dir = stat.S_ISDIR(Path(path).stat().st_mode)
        empty = not is_dir or bool(mount) or next(Path(path).iterdir(), None) is None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountFailed(
                f"{path}: the mount of a killed server is still there; `cmafs umount {path}` clears it"
            ) from None
        hint = f"; mkdir -p {path} makes it" if error.errno == errno.ENOENT else ""
        raise MountFailed(f"{path}: {error.strerror}{hint}") from None
    if not is_dir:
        raise MountFailed(f"{path}: not a directory")
    if mount and mount.ours:
        raise MountFailed(f"{path}: busy: a machine is mounted there already; `cmafs umount {path}` ends it")
    if not empty and not nonempty:
        raise MountFailed(f"{path}: not empty; choose an empty directory, or -o nonempty hides what is there")


def check_device() -> None:
    """Whether FUSE can be used. Raises MountFailed naming what is missing."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        container = f"in a container: --device {FUSE_DEVICE} --cap-add SYS_ADMIN"
        raise MountFailed(f"{FUSE_DEVICE} is missing: `modprobe fuse`; {container}") from None
    except OSError as error:
        denied = error.errno == errno.EACCES
        hint = f"`chmod 666 {FUSE_DEVICE}`" if denied else "the module fuse, or the container's rights"
        raise MountFailed(f"{FUSE_DEVICE}: {error.strerror}: {hint}") from None
    if os.geteuid() != 0 and not shutil.which("fusermount"):
        raise MountFailed("fusermount is missing: an ordinary user needs the package fuse3")
