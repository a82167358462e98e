"""/proc/sys/vm/compact_memory and drop_caches: how ``kernel/sysctl.c`` reads a number, and what is done
with it.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmafs.fs.dentry import File, Inode, fail
from cmafs.fs.seq_file import SeqFile, Show, Store, reads, writes
from cmafs.mm.compaction import compact_memory
from cmafs.mm.vmscan import drop_caches

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: ``TMPBUFLEN`` of proc_get_long(), less the zero at the end: how long a number may be.
MAX_DIGITS = 21
INT_MAX = (1 << 31) - 1
#: Bits of drop_caches: 1 page cache, 2 slab; with 4 nothing is logged from then on.
DROP_QUIET = 4
_NUMBER = re.compile(rb"[ \t\n\v\f\r]*(-?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_BLANKS = re.compile(rb"[ \t\n\v\f\r]*")


def proc_dointvec(data: bytes) -> tuple[int, int]:
    """``proc_dointvec()`` of one ``int``: the number, and how many bytes were consumed.

    Base 0, blanks before and behind it; what follows blanks is left for the next write. Raises EINVAL.
    """
    match = _NUMBER.match(data)
    if not match or len(match[0].lstrip()) > MAX_DIGITS:
        fail(errno.EINVAL)
    end = match.end()
    if data[end : end + 1] not in (b"", b" ", b"\t", b"\n", b"\0"):
        fail(errno.EINVAL)
    digits = match[2].lower()
    base = 16 if digits.startswith(b"0x") else 8 if digits.startswith(b"0") else 10
    value = int(digits, base)
    if value > INT_MAX + bool(match[1]):
        fail(errno.EINVAL)
    blanks = _BLANKS.match(data, end)
    assert blanks
    return -value if match[1] else value, len(data) if data[end : end + 1] == b"\0" else blanks.end()


class SysctlFile(SeqFile):
    """An open file of /proc/sys; ``strict`` as kernel.sysctl_writes_strict."""

    def __init__(self, show: Show | None, store: Store | None, strict: bool) -> None:
        super().__init__(show, store, errno.EIO)
        self._strict = strict

    def write(self, data: bytes, offset: int) -> int:
        """``proc_first_pos_non_zero_ignore()``: only a write at the start is looked at."""
        return len(data) if offset and self._strict else super().write(data, offset)


@dataclass(frozen=True)
class Sysctl:
    """A file of /proc/sys: its mode counts for root too."""

    store: Store
    strict: bool
    show: Show | None = None

    def open(self, inode: Inode, flags: int) -> File:
        """``proc_sys_permission()``. Raises EACCES where the mode does not allow it."""
        readable, writable = inode.mode & 0o400, inode.mode & 0o200
        if (writes(flags) and not writable) or (reads(flags) and not readable):
            fail(errno.EACCES)
        return SysctlFile(self.show, self.store, self.strict)


class VmSysctls:
    """The two sysctls of one machine."""

    def __init__(self, machine: BootedMachine) -> None:
        self._machine = machine
        self._drop_caches = 0
        self._quiet = False

    def compact_memory(self, data: bytes) -> int:
        """``sysctl_compaction_handler()``. Raises EINVAL where the kernel looks at the number."""
        consumed = len(data)
        if self._machine.abi.proc.compact_memory_checks:
            value, consumed = proc_dointvec(data)
            if value != 1:
                fail(errno.EINVAL)
        compact_memory(self._machine.memory)
        return consumed

    def drop_caches(self, data: bytes) -> int:
        """``drop_caches_sysctl_handler()``: 1 to 4. Raises EINVAL."""
        value, consumed = proc_dointvec(data)
        if not 1 <= value <= DROP_QUIET:
            fail(errno.EINVAL)
        self._drop_caches = value
        drop_caches(self._machine.memory, value)
        if not self._quiet:
            task = self._machine.current()
            self._machine.log.printk(f"{task.comm} ({task.pid}): drop_caches: {value}")
        self._quiet |= bool(value & DROP_QUIET)
        return consumed

    def show_drop_caches(self) -> bytes:
        """What was written last; only kernels before 5.5 show it."""
        return b"%d\n" % self._drop_caches
