"""Simulated tasks as processes of a run, so that ps(1) finds them: children of its pid 1 that only sleep.

The server tells init by a pipe: ``spawn NAME`` or ``kill NAME``, a line each. Whoever kills such a process
kills the simulated task: seeds/000 finds the task that holds a lock with ps, and ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
from typing import NoReturn

from cmafs.mount.libc import PR_SET_NAME, prctl, set_pdeathsig

#: What init gets when the pipe has something to read; no program of a run is sent it.
NEWS = signal.SIGRTMIN + 7

#: How many tasks have a process at a time; the others are in sim/tasks alone.
MAX_PROCESSES = 512

_ARG_START, _ARG_END = 45, 46  # of /proc/PID/stat, counted behind the name in parentheses


class Announcer:
    """The server's end of the pipe."""

    def __init__(self, writer: int) -> None:
        self.writer = writer
        os.set_blocking(writer, False)

    def __call__(self, verb: str, name: str) -> None:
        """Tell init; where it is gone or does not listen, nobody misses anything."""
        with contextlib.suppress(OSError):
            os.write(self.writer, f"{verb} {name}\n".encode())


class StandIns:
    """Init's end. ``control``: sim/control, which hears of a process that somebody killed."""

    def __init__(self, reader: int, control: str) -> None:
        self._reader = reader
        self._control = control
        self._pids: dict[str, int] = {}
        signal.pthread_sigmask(signal.SIG_BLOCK, {NEWS})
        os.set_blocking(reader, False)
        fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(reader, fcntl.F_SETSIG, NEWS)
        fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)

    def news(self) -> None:
        """Read what the server said, a whole pipe at a time: a line is never cut, since writes are atomic."""
        with contextlib.suppress(BlockingIOError):
            while lines := os.read(self._reader, 1 << 16):
                for line in lines.decode().splitlines():
                    verb, name = line.split()
                    self._spawn(name) if verb == "spawn" else self._kill(name)

    def _spawn(self, name: str) -> None:
        if len(self._pids) >= MAX_PROCESSES:
            return
        try:
            pid = os.fork()
        except OSError:  # the host has no more
            return
        if pid == 0:
            _be(name)
        self._pids[name] = pid

    def _kill(self, name: str) -> None:
        pid = self._pids.pop(name, None)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def ended(self, pid: int) -> None:
        """A child has ended: if it stood for a task, and the task did not end first, the task is killed."""
        name = next((n for n, p in self._pids.items() if p == pid), None)
        if name is not None:
            del self._pids[name]
            with contextlib.suppress(OSError), open(self._control, "wb", buffering=0) as control:
                control.write(f"kill {name}\n".encode())


def _be(name: str) -> NoReturn:
    """The stand-in: its name, as the command line that ps shows, over the one it was forked with."""
    try:
        set_pdeathsig()
        os.setsid()  # Ctrl-C is for CMD
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, name.encode()[: end - start - 1], min(len(name), end - start - 1))
        prctl(PR_SET_NAME, name.encode())
        os.closerange(0, 256)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        while True:
            signal.pause()
    finally:
        os._exit(0)
