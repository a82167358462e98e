"""The C library: system calls that Python's os module lacks, for `mount/` and `run/`."""

from __future__ import annotations

import ctypes
import os
import signal

#: include/uapi/linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_SECCOMP = 1, 15, 22

#: include/uapi/linux/sched.h: what a thread can cease to share with its process
CLONE_FS, CLONE_FILES = 0x200, 0x400

#: include/uapi/linux/fs.h, include/linux/fs.h: umount2(2)'s flags
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

#: What a lack of memory is, what ctypes makes of it, and what the interpreter says where it lost it.
NO_MEMORY = (MemoryError, ctypes.ArgumentError, SystemError)

libc = ctypes.CDLL(None, use_errno=True)


def lacks_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: also where what was to be put in order afterwards failed otherwise."""
    while error is not None and not isinstance(error, NO_MEMORY):
        error = error.__context__
    return error is not None


def check(result: int, what: str) -> None:
    """Raise the OSError that a system call other than 0 stands for, its text beginning with ``what``."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    check(libc.unshare(flags), "unshare")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2). Raises OSError."""
    check(libc.umount2(os.fsencode(target), flags), f"umount {target}")


def prctl(option: int, first: int | bytes, second: object = None, what: str = "prctl") -> None:
    """prctl(2) with a number or a text, and what ctypes takes for a pointer. Raises OSError on ``what``."""
    number = first if isinstance(first, bytes) else ctypes.c_ulong(first)
    nothing = ctypes.c_ulong(0)
    check(libc.prctl(option, number, second or nothing, nothing, nothing), what)


def begin_worker() -> None:
    """For a process that works for its parent: who answers an interrupt, and whom it does not outlive."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_pdeathsig()


def set_pdeathsig(signal_number: int = 9) -> None:
    """Ask for a signal when the parent ends. A parent that has ended before is for the caller to notice.

    Raises OSError.
    """
    prctl(PR_SET_PDEATHSIG, signal_number)
