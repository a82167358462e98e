"""How a process of ours ends: what it says in one line, and the descriptors and streams to say it with."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Exit statuses: it failed; `run`: before CMD; Ctrl-C.
FAILED, CANNOT_RUN, INTERRUPTED = 1, 125, 130

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")

#: What a limit of the process makes fail, and which limit that is.
_LIMITS = {
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENOMEM: "raise `ulimit -v`, or free some memory",
    errno.EAGAIN: "raise `ulimit -u`, or the limit of the container on processes",
}


class Failed(Exception):
    """Something expected went wrong; the text is one line saying what, why and what to do."""


def explain(error: BaseException) -> str:
    """One line for the user: what failed and, where a limit or a bug of ours is the cause, that it is."""
    if isinstance(error, Failed):
        return one_line(str(error))
    if isinstance(error, MemoryError):
        return f"out of memory: {_LIMITS[errno.ENOMEM]}"
    if isinstance(error, OSError) and error.errno:
        return one_line(_system(error))
    if isinstance(error, ModuleNotFoundError):
        return one_line(f"{error}: install cmafs with pip, which brings it")
    if isinstance(error, (OSError, ImportError, SystemError)) or str(error) == "can't start new thread":
        return one_line(f"{error} (a limit of this process: see `ulimit -a`)")
    return one_line(f"a bug of ours, {_where(error)}: {type(error).__name__}: {error}")


def _system(error: OSError) -> str:
    """The kernel's refusal with the file that it is about."""
    name = error.filename
    subject = f"{os.fsdecode(name)}: " if isinstance(name, (str, bytes)) and name else ""
    hint = _LIMITS.get(error.errno or 0, "")
    if error.errno == errno.ENOENT and not subject and _directory_is_gone():
        hint = "the working directory was removed: cd to another"
    return f"{subject}{error.strerror or error}{f' ({hint})' if hint else ''}"


def _directory_is_gone() -> bool:
    try:
        return Path().stat().st_nlink == 0
    except OSError:
        return True


def _where(error: BaseException) -> str:
    """The innermost line of this package that an exception came through."""
    trace, place = error.__traceback__, "unknown"
    while trace:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(_PACKAGE):
            place = f"cmafs{name.removeprefix(_PACKAGE)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def one_line(text: str) -> str:
    """A text whose control characters are shown, not obeyed: names of files and processes may have any."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def complain(error: BaseException) -> None:
    """Say on standard error what failed; a standard error that takes nothing changes no exit status."""
    if sys.flags.dev_mode and not isinstance(error, Failed):
        sys.excepthook(type(error), error, error.__traceback__)
    with contextlib.suppress(OSError):
        sys.stderr.write(f"cmafs: {explain(error)}\n")
        sys.stderr.flush()


def complain_raw(error: BaseException) -> None:
    """The same from a forked child, past the streams that it shares with its parent."""
    with contextlib.suppress(OSError):
        os.write(2, f"cmafs: {explain(error)}\n".encode(errors="surrogateescape"))


class OutputLost(Failed):
    """Standard output does not take what is printed; ``unread``: since nobody reads it any more."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror}")
        self.unread = error.errno == errno.EPIPE


class _Output(io.FileIO):
    """Standard output, whose failures cannot be mistaken for those of what is being printed."""

    def write(self, data: Buffer) -> int:
        """write(2). Raises OutputLost."""
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from None


def open_streams() -> None:
    """Make 0, 1 and 2 descriptors that stay ours, and streams that take every character. Raises OSError.

    Where the caller has closed one, /dev/null stands there, as unusable as before, and not for CMD: else the
    next pipe would be taken for it.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest that is free
    codecs.register_error("cmafs", _as_given)
    if sys.stdout is sys.__stdout__:  # else somebody collects it
        encoding = sys.stdout.encoding if sys.stdout else "utf-8"
        output = io.BufferedWriter(_Output(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(output, encoding, "cmafs", line_buffering=os.isatty(1))
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="cmafs")


def _as_given(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a stream's encoding lacks: a byte of the command line as that byte, anything else escaped."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def close_streams(status: int) -> int:
    """Write out what was printed: ``status``, or FAILED if standard output does not take it."""
    try:
        sys.stdout.flush()
    except OutputLost as lost:
        _discard(1)
        if not status and not lost.unread:
            complain(lost)
        status = status or FAILED
    try:
        sys.stderr.flush()
    except OSError:
        _discard(2)
    return status


def _discard(number: int) -> None:
    """Let the interpreter, which writes out again at its end, succeed."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
