"""Mounts as the host sees them: which are ours, who serves one, who holds it, how it is taken away."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cmafs.mount.ending import Failed, one_line
from cmafs.mount.libc import MNT_DETACH, UMOUNT_NOFOLLOW, umount
from cmafs.mount.presence import DESCRIPTORS, Server, server_of

MOUNTINFO = "/proc/self/mountinfo"
FUSE_DEVICE = "/dev/fuse"

#: ``fsname`` and ``subtype`` of a mount; where one stands for debugfs it is called so (``cmafs run``).
NAME = "cmafs"
_TYPES = (f"fuse.{NAME}", "fuse.debugfs")

_ESCAPE = re.compile(r"\\([0-7]{3})")
_OWNER = re.compile(r" \S*\buser_id=(\d+)\S*$")

#: Seconds: for a descriptor that is being closed.
_BUSY_PATIENCE = 0.5
#: How a server is brought to its end, and the seconds that it is given: by itself, its door, a signal.
_ENDINGS: tuple[tuple[float, Callable[[Server], None]], ...] = (
    (2.0, lambda server: None),
    (2.0, Server.ring),
    (10.0, Server.terminate),
)

#: What fusermount says, for the errno that umount2(2) would give.
_FUSERMOUNT = {"busy": errno.EBUSY, "not found in": errno.EINVAL, "Invalid argument": errno.EINVAL}


class MountFailed(Failed):
    """A mount cannot be made or taken away: one line saying why and what to do."""


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo.

    ``device``: major:minor of the mounted file system; ``root``: what of it is mounted; ``owner``: who
    mounted it, a user id; None if it is no FUSE mount.
    """

    device: str
    root: str
    mountpoint: str
    fstype: str
    owner: int | None

    @property
    def ours(self) -> bool:
        """Whether it is a cmafs tree, alive or not; under a ``subtype`` of the user's, sim/ tells."""
        if self.fstype in _TYPES:
            return True
        control = Path(self.mountpoint, "sim", "control")
        return self.fstype.split(".")[0] == "fuse" and os.access(control, os.F_OK)


def mount_table() -> Iterator[Mount]:
    """Every mount in sight, as it was mounted."""
    for line in Path(MOUNTINFO).read_text("utf-8", "surrogateescape").splitlines():
        fields, _, source = line.partition(" - ")
        words = fields.split()
        root, path = (_ESCAPE.sub(lambda match: chr(int(match[1], 8)), word) for word in words[3:5])
        owner = _OWNER.search(source)
        yield Mount(words[2], root, path, source.split()[0], int(owner[1]) if owner else None)


def topmost(place: str) -> Mount | None:
    """The topmost mount at a resolved path, None if there is none; asks nothing of the mount itself."""
    found = [mount for mount in mount_table() if mount.mountpoint == place]
    return found[-1] if found else None


def mounted_at(path: str) -> Mount | None:
    """What is mounted at a path; None if nothing is."""
    return topmost(_resolved(path))


def _resolved(path: str) -> str:
    """A path without links, of which nothing is asked: the server of what is mounted there may not answer."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return os.path.realpath(path)
    try:
        return str(Path(f"{DESCRIPTORS}/{descriptor}").readlink())
    finally:
        os.close(descriptor)


def device_of(found: os.stat_result) -> str:
    """The file system that a file is on, as ``Mount.device`` has it."""
    return f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"


def is_ours(descriptor: int) -> bool:
    """Whether an open file is on a mount of ours."""
    device = device_of(os.fstat(descriptor))
    return any(mount.device == device and mount.ours for mount in mount_table())


# who holds a mount


def holders(mount: Mount, server: Server | None) -> list[str]:
    """The processes with a file, a directory or a mount below a mount point, each as ``comm (pid N)``.

    Its server is none of them.
    """
    apart = {str(server and server.pid), str(os.getpid())}
    found = [
        f"another mount on {other.mountpoint}"
        for other in mount_table()
        if other.mountpoint.startswith(mount.mountpoint.rstrip("/") + "/")
    ]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name not in apart and _holds(entry, mount.mountpoint):
            try:
                comm = one_line((entry / "comm").read_text(errors="replace").rstrip("\n"))
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

    ``lazy``: at once, even if it is in use; the server then ends with the last user. One of several places
    (mount --bind) is taken away alone. Raises MountFailed.
    """
    mount = mounted_at(path)
    if mount is None:
        raise MountFailed(f"{path}: nothing is mounted there")
    if not mount.ours:
        raise MountFailed(f"{path}: not a cmafs mount but {mount.fstype}; left as it is")
    with server_of(mount.device, mount.owner) as server:
        busy = holders(mount, server) if lazy else []
        _take_away(path, mount, server, lazy)
        elsewhere = any(other.device == mount.device for other in mount_table())
        if server and not busy and not elsewhere:
            _wait_for_end(path, server)


def _take_away(path: str, mount: Mount, server: Server | None, lazy: bool) -> None:
    deadline = time.monotonic() + _BUSY_PATIENCE
    while error := _umount(mount.mountpoint, lazy):
        if error[0] == errno.EINVAL and mounted_at(path) is None:  # somebody else was faster
            raise MountFailed(f"{path}: nothing is mounted there")
        if error[0] != errno.EBUSY:
            raise MountFailed(f"{path}: cannot be unmounted: {error[1]}")
        busy = holders(mount, server)
        if busy or time.monotonic() > deadline:
            names = ", ".join(busy) or "a process that cannot be seen from here"
            raise MountFailed(f"{path}: busy: in use by {names}; end it, or `cmafs umount -l {path}`")
        time.sleep(0.02)  # the server itself has a FIFO's other end open for a moment


def _umount(place: str, lazy: bool) -> tuple[int, str] | None:
    """umount2(2) as root, else by the setuid fusermount; an errno and a text if it fails."""
    if os.geteuid() == 0:
        try:
            _umount_in(*os.path.split(place), UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0))
        except OSError as error:
            code = error.errno or errno.EIO
            return code, os.strerror(code)
        return None
    import shutil
    import subprocess

    program = shutil.which("fusermount") or shutil.which("fusermount3")
    if program is None:
        return errno.ENOENT, "fusermount is missing: install the package fuse3"
    command = [program, "-uz" if lazy else "-u", place]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return None
    text = done.stderr.strip().splitlines()[-1:] or ["fusermount failed"]
    known = [(word, code) for word, code in _FUSERMOUNT.items() if word in text[0]]
    return (known[0][1] if known else errno.EPERM), text[0]


def _umount_in(directory: str, name: str, flags: int) -> None:
    """Unmount a name of a directory, as root who may be led astray. Raises OSError.

    The directory is held by a descriptor, and its path asked for: whoever owns a directory above it could
    have put a link to another place there meanwhile. A mount point itself cannot be exchanged.
    """
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if str(Path(f"{DESCRIPTORS}/{parent}").readlink()) != directory:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        umount(f"{DESCRIPTORS}/{parent}/{name}", flags)
    finally:
        os.close(parent)


def _wait_for_end(path: str, server: Server) -> None:
    """A server ends with its file system; one whose file system lives on in another namespace is told to."""
    ended = select.poll()
    ended.register(server.pidfd, select.POLLIN)
    for patience, tell in _ENDINGS:
        tell(server)
        if ended.poll(patience * 1000):
            return
    raise MountFailed(f"{path}: unmounted, but its server (pid {server.pid}) does not end")


def check_mountpoint(path: str, nonempty: bool = False) -> None:
    """Whether a machine can be mounted at a path. Raises MountFailed."""
    mount = mounted_at(path)
    busy = f"{path}: busy: a machine is mounted there already; `cmafs umount {path}` ends it"
    if mount and mount.fstype in _TYPES:
        with server_of(mount.device, mount.owner) as server:
            if server:  # which may be stopped, and answer nothing below
                raise MountFailed(busy)
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
    if not empty:
        mount = mounted_at(path)  # since it was asked first another may have been quicker
    if mount and mount.ours:
        raise MountFailed(busy)
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
    from shutil import which  # only for a mount

    if os.geteuid() != 0 and not which("fusermount"):
        raise MountFailed("fusermount is missing: an ordinary user needs the package fuse3")
