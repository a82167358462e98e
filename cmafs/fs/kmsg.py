"""dev/kmsg and sim/dmesg: the log, one record a read and as a whole (``kernel/printk/printk.c``)."""

from __future__ import annotations

import errno
import re
from functools import partial
from typing import TYPE_CHECKING

from cmafs.fs.dentry import Directory, File, FileSystemType, OpenedBy, fail
from cmafs.fs.namei import O_NONBLOCK
from cmafs.fs.seq_file import SeqOperations
from cmafs.lib.kstrtox import simple_strtoull
from cmafs.lib.printk import DEFAULT_MESSAGE_LOGLEVEL, LOGLEVEL_WARNING, Printk, Record, decode, encode
from cmafs.lib.ratelimit import Ratelimit

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: ``dev`` stands for devtmpfs, ``sim`` for no file system of the kernel's.
DEVTMPFS = FileSystemType("devtmpfs")
SIMFS = FileSystemType("sim")

_NSEC_PER_USEC = 1000
_LOG_USER = 1
_PRIORITY = re.compile(rb"<([0-9]*)>")


def ext_format(record: Record) -> bytes:
    """One record as /dev/kmsg gives it: ``prio,seq,usec,flag;text`` and a newline.

    Unprintable bytes and the backslash are ``\\xNN``: ``msg_add_ext_text()@v6.1``.
    """
    priority = record.facility << 3 | record.level
    flag = "c" if record.continued else "-"
    head = f"{priority},{record.seq},{record.ts_nsec // _NSEC_PER_USEC},{flag};"
    text = "".join(chr(c) if 32 <= c < 127 and c != 0x5C else f"\\x{c:02x}" for c in encode(record.text))
    return f"{head}{text}\n".encode()


class KmsgFile(File):
    """An open /dev/kmsg: ``struct devkmsg_user``."""

    def __init__(self, machine: BootedMachine, flags: int) -> None:
        self._machine = machine
        self._log: Printk = machine.log
        self._seq = self._start
        self._given = 0
        self._blocks = not flags & O_NONBLOCK
        self._limit = Ratelimit(machine.log)

    @property
    def _start(self) -> int:
        return max(self._log.first_seq, self._log.clear_seq)

    def read(self, size: int, offset: int) -> bytes:
        """The next record.

        At the end: EAGAIN for O_NONBLOCK, else nothing, where the kernel would wait. EPIPE when the record
        was pushed out of the ring meanwhile, EINVAL when it does not fit. Offset 0 starts over.
        """
        if offset == 0 and self._given:  # lseek() to the start
            self._seq, self._given = self._start, 0
        record = self._log.record(self._seq)
        if record is None:
            if not self._blocks:
                fail(errno.EAGAIN)
            return b""
        if self._seq < self._log.first_seq:
            self._seq = self._log.first_seq
            fail(errno.EPIPE)
        self._seq = record.seq + 1
        text = ext_format(record)
        if len(text) > size:
            fail(errno.EINVAL)
        self._given += len(text)
        return text

    def write(self, data: bytes, offset: int) -> int:
        """One record: ``<N>`` before it gives level and facility, one newline at its end is left out.

        EINVAL when it is too long. More than ten in five seconds through one descriptor are taken and
        dropped. Source: ``devkmsg_write()@v6.1``.
        """
        if len(data) > self._log.abi.line_max:
            fail(errno.EINVAL)
        if not self._limit.allow_silently():
            return len(data)
        level, facility, text = DEFAULT_MESSAGE_LOGLEVEL, _LOG_USER, data.partition(b"\0")[0]
        if match := _PRIORITY.match(text):
            number, _ = simple_strtoull(match[1].decode(), 10)
            level, facility = number & 7, (number >> 3 & 0xFF) or _LOG_USER
            text = text[match.end() :]
        text = text.removesuffix(b"\n")
        self._log.printk(decode(text), level, facility)
        return len(data)

    def release(self) -> None:
        """Say how many writes were dropped: ``ratelimit_state_exit()``."""
        if self._limit.missed:
            who = self._machine.current().comm
            line = f"{who}: {self._limit.missed} output lines suppressed due to ratelimiting"
            self._log.printk(line, LOGLEVEL_WARNING)


def populate(root: Directory, machine: BootedMachine) -> None:
    """dev/kmsg and sim/dmesg."""

    def write(data: bytes) -> int:
        """sim/dmesg understands ``clear``: readers then start here. Raises EINVAL."""
        if data.removesuffix(b"\n") != b"clear":
            fail(errno.EINVAL)
        machine.log.clear()
        return len(data)

    dmesg = SeqOperations(show=lambda: encode(machine.log.dmesg()), store=write)
    root.subdir("dev", fs=DEVTMPFS).file("kmsg", 0o644, OpenedBy(partial(KmsgFile, machine)))
    root.subdir("sim", fs=SIMFS).file("dmesg", 0o600, dmesg)
