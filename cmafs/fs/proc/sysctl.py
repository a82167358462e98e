"""/proc/sys/vm: how ``kernel/sysctl.c`` reads a number, and what two sysctls do with it."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmafs.fs.dentry import File, Inode, fail
from cmafs.fs.seq_file import SeqFile, Show, Store, need_mode
from cmafs.lib.kstrtox import SPACE, parse_integer
from cmafs.mm.compaction import compact_memory
from cmafs.mm.vmscan import drop_caches

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: ``TMPBUFLEN`` of proc_get_long(), less the zero at the end: what is looked at, which no number may fill.
NUMBER_BYTES = 21
INT_MAX = (1 << 31) - 1
#: Bits of drop_caches: 1 page cache, 2 slab; with 4 nothing is logged from then on.
DROP_QUIET = 4
_BLANKS = SPACE.encode("latin-1")


def proc_dointvec(data: bytes) -> tuple[int, int]:
    """``proc_dointvec()`` of one ``int``: the number, and how many bytes were consumed.

    Base 0, blanks before and behind it; what follows blanks is left for the next write. Raises EINVAL.
    """
    text = data.lstrip(_BLANKS)
    word = text[:NUMBER_BYTES].decode("latin-1")
    negative, number = word.startswith("-"), parse_integer(word.removeprefix("-"))
    rest = text[len(word) - len(number.rest) :]
    no_number = not number.digits or len(word) - len(number.rest) == NUMBER_BYTES
    if no_number or rest[:1] not in (b"", b" ", b"\t", b"\n"):
        fail(errno.EINVAL)
    if number.overflow or number.value > INT_MAX + negative:
        fail(errno.EINVAL)
    consumed = len(data) - len(rest.lstrip(_BLANKS))
    return -number.value if negative else number.value, consumed


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
        need_mode(inode, flags)
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
        self._machine.faults.expire()
        compact_memory(self._machine.memory)
        return consumed

    def drop_caches(self, data: bytes) -> int:
        """``drop_caches_sysctl_handler()``: 1 to 4, without a byte once more what it was. Raises EINVAL."""
        value, consumed = proc_dointvec(data) if data else (self._drop_caches, 0)
        if data and not 1 <= value <= DROP_QUIET:
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
