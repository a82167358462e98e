"""prctl(2): what ends with a process's parent, what it is called, what it may call."""

from __future__ import annotations

import ctypes
import os
import signal

#: include/uapi/linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_SECCOMP = 1, 15, 22

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, first: int | bytes, second: object = None, what: str = "prctl") -> None:
    """prctl(2) with a number or a text, and what ctypes takes for a pointer. Raises OSError on ``what``."""
    number = first if isinstance(first, bytes) else ctypes.c_ulong(first)
    nothing = ctypes.c_ulong(0)
    if _libc.prctl(option, number, second or nothing, nothing, nothing):
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def begin_worker() -> None:
    """For a process that works for its parent: who answers an interrupt, and whom it does not outlive."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_pdeathsig()


def set_pdeathsig(signal_number: int = 9) -> None:
    """Ask for a signal when the parent ends. A parent that has ended before is for the caller to notice.

    Raises OSError.
    """
    prctl(PR_SET_PDEATHSIG, signal_number)
