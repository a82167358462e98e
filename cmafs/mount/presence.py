"""Who serves a mounted file system, told by what nobody but the mount's owner can make.

A server holds a pipe, its door: whatever is written into it the kernel turns into the signal that ends the
server. And it holds a file in memory, locked by itself, that is called after the device number of its file
system and the descriptor of its door. Neither has a name that somebody else could take first. A process is
the server only if all its user ids and the file's are the owner's of the mount, and the lock is its own:
descriptors can be inherited or sent, locks cannot.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

#: The descriptors of the process that asks.
DESCRIPTORS = "/proc/self/fd"

_NAME = "cmafs:"
_LINK = re.compile(rf"/memfd:{_NAME}(\d+:\d+):(\d+) \(deleted\)")

#: struct flock of fcntl(2): type, whence, start, len, pid
_FLOCK = "hhqqi"


def announce(device: str) -> list[int]:
    """Make the calling process known as the server of a file system: the descriptors to be kept meanwhile.

    ``device``: major:minor. Raises OSError.
    """
    door, ring = os.pipe()
    os.set_blocking(door, False)
    _end_by(door)
    file = os.memfd_create(f"{_NAME}{device}:{ring}")
    os.fchmod(file, 0o600)
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return [door, ring, file]


def _end_by(pipe: int) -> None:
    """Let the calling process end when something is written into a pipe, or its last writer is gone."""
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


def live_with(pipe: int) -> None:
    """Let the calling process end with whoever holds the other end of a pipe, even if that is killed."""
    _end_by(pipe)
    ended = select.poll()
    ended.register(pipe, 0)  # POLLHUP alone
    if ended.poll(0):
        os.kill(os.getpid(), signal.SIGTERM)


class Server:
    """The living server of a file system, held by a descriptor of the process: a pid may be given again."""

    def __init__(self, pid: int, pidfd: int, ring: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._ring = ring

    def close(self) -> None:
        """Give the descriptors up."""
        os.close(self.pidfd)
        os.close(self._ring)

    def ring(self) -> None:
        """Tell it to end, through its own door."""
        with contextlib.suppress(OSError):  # it has ended meanwhile
            os.write(self._ring, b"\n")

    def terminate(self) -> None:
        """Signal it, also if it is stopped. Raises OSError."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
            signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)


@contextlib.contextmanager
def server_of(device: str, owner: int | None) -> Iterator[Server | None]:
    """The server of a file system; None if it is gone, or not to be seen from here.

    ``device``: major:minor; ``owner``: the user id that mounted it, None if that is not known.
    """
    with contextlib.ExitStack() as stack:
        found = _find(device, owner) if owner is not None else None
        if found:
            stack.callback(found.close)
        yield found


def _find(device: str, owner: int) -> Server | None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile, or is none of ours
                if server := _server(int(entry.name), device, owner):
                    return server
    return None


def _server(pid: int, device: str, owner: int) -> Server | None:
    """The process if it serves the file system. Raises OSError."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        match = _LINK.fullmatch(str(entry.readlink()))
        if match and match[1] == device:
            return _admitted(pid, str(entry), str(entry.with_name(match[2])), owner)
    return None


def _admitted(pid: int, file: str, ring: str, owner: int) -> Server | None:
    """The process whose table holds such a file, after every check. Raises OSError."""
    # first: all that is read of /proc below is then of this process, or it is dead
    pidfd = os.pidfd_open(pid)
    try:
        if _users(pid) == {owner} and _is_locked_by(pid, file, owner):
            door = _reopen(ring, stat.S_ISFIFO, os.O_WRONLY, owner)
            if door is not None:
                return Server(pid, pidfd, door)
    except BaseException:
        os.close(pidfd)
        raise
    os.close(pidfd)
    return None


def _users(pid: int) -> set[int]:
    """The real, effective, saved and file system user id of a process. Raises OSError."""
    status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    return {int(word) for word in status.partition("\nUid:")[2].split("\n")[0].split()}


def _is_locked_by(pid: int, path: str, owner: int) -> bool:
    """Whether a process holds the lock on a file in its table, which the owner made. Raises OSError."""
    file = _reopen(path, stat.S_ISREG, os.O_RDONLY, owner)
    if file is None:
        return False
    try:
        question = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, holder = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question))
    finally:
        os.close(file)
    return bool(kind != fcntl.F_UNLCK and holder == pid)


def _reopen(path: str, kind: Callable[[int], bool], mode: int, owner: int) -> int | None:
    """Another process's file, opened once it is known to be of a kind and made by its owner: else None.

    To open anything else could change it, or wait. Raises OSError.
    """
    pinned = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        found = os.fstat(pinned)
        if not kind(found.st_mode) or found.st_uid != owner:
            return None
        return os.open(f"{DESCRIPTORS}/{pinned}", mode | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(pinned)
