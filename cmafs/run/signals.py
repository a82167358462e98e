"""Signals between a terminal, `cmafs run` and CMD: held in cmafs and in init, passed on, restored for CMD."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmafs.run.tasks import NEWS

if TYPE_CHECKING:
    from cmafs.run.tasks import StandIns

_SI_KERNEL = 0x80  # siginfo.si_code of what the terminal sends: CMD, of the same process group, has it

# passed on to CMD; stops are left to the terminal, faults are our own
_FORWARDED = frozenset({
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGALRM, signal.SIGWINCH, signal.SIGPOLL, signal.SIGVTALRM, signal.SIGPROF, signal.SIGPWR,
})  # fmt: skip
_RESET_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # the interpreter ignores these for itself


@dataclass(frozen=True)
class Signals:
    """The caller's blocked signals; whether it ignored SIGINT (a background job's shell does)."""

    mask: frozenset[signal.Signals | int]
    ignores_int: bool

    @staticmethod
    def inherited() -> Signals:
        """As they are now."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return Signals(frozenset(mask), signal.getsignal(signal.SIGINT) == signal.SIG_IGN)

    def hold(self) -> None:
        """Keep what is passed on pending for wait_for()."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})

    def restore(self) -> None:
        """What CMD is to find."""
        for number in _RESET_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN if self.ignores_int else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


@contextlib.contextmanager
def terminal_given_back() -> Iterator[None]:
    """Leave the terminal to the process group that had it; a shell in another pid namespace cannot."""
    terminal = next((number for number in (0, 1, 2) if os.isatty(number)), None)
    foreground = os.tcgetpgrp(terminal) if terminal is not None else 0
    try:
        yield
    finally:
        if terminal is not None and foreground > 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # which stops a background group
            with contextlib.suppress(OSError):
                os.tcsetpgrp(terminal, foreground)


def in_foreground() -> bool:
    """Whether standard input is a terminal that this process group has."""
    return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()


def take_terminal() -> None:
    """Make this process the leader of a group that has the terminal, as a session's shell is.

    The group that it comes from has no number in its pid namespace: a shell that gives the terminal back to
    that group at its end, as dash does, fails.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpgrp())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_status(wait_status: int) -> int:
    """What a shell makes of the end of a process: its exit status, 128+N after signal N."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def wait_for(pid: int, *, others: bool, tasks: StandIns | None = None) -> int:
    """Wait until a child has ended, passing signals on to it: its exit status, 128+N after signal N.

    ``others``: reap other children as well, as pid 1 must; ``tasks``: processes to start on the side.
    """
    if tasks:  # those of a loaded machine
        tasks.news()
    expected = _FORWARDED | {signal.SIGCHLD} | ({NEWS} if tasks else set())
    while True:
        received = signal.sigwaitinfo(expected)
        if tasks and received.si_signo == NEWS:
            tasks.news()
            continue
        if received.si_signo != signal.SIGCHLD:
            if received.si_code != _SI_KERNEL:
                os.kill(pid, received.si_signo)
            continue
        while (ended := os.waitpid(-1 if others else pid, os.WNOHANG)) != (0, 0):
            if tasks:
                tasks.ended(ended[0])
            if ended[0] == pid:
                return exit_status(ended[1])
