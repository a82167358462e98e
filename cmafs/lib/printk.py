"""The kernel log of one machine: a bounded ring of records, as ``kernel/printk/printk.c`` keeps it."""

from __future__ import annotations

from _blake2 import blake2b  # hashlib has it from there, and loads OpenSSL besides
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cmafs.abi.printk import ROWS, DebugSite, PrintkAbi
from cmafs.lib.clock import NSEC_PER_SEC, Clock
from cmafs.lib.math import roundup

LOGLEVEL_ERR = 3
LOGLEVEL_WARNING = 4
LOGLEVEL_NOTICE = 5
LOGLEVEL_INFO = 6
LOGLEVEL_DEBUG = 7

#: What a line without a level gets (CONFIG_MESSAGE_LOGLEVEL_DEFAULT).
DEFAULT_MESSAGE_LOGLEVEL = LOGLEVEL_WARNING

#: Bit 0 of a call site's flags: print it (``_DPRINTK_FLAGS_PRINT``).
DPRINTK_FLAGS_PRINT = 1

_NSEC_PER_USEC = 1000


@dataclass(frozen=True)
class Record:
    """One record: ``struct printk_info`` and its text, newlines inside allowed.

    ``begin``: its logical position in the ring, in bytes.
    """

    seq: int
    ts_nsec: int
    level: int
    text: str
    facility: int = 0
    continued: bool = False
    begin: int = 0


def encode(text: str) -> bytes:
    """The bytes of a line: what came from bytes goes back to the same bytes."""
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """Text of bytes from outside, whatever they are; encode() has them back."""
    return data.decode("utf-8", "surrogateescape")


def cut(text: str, most: int) -> str:
    """What fits a buffer of so many bytes, the NUL at its end apart."""
    return decode(encode(text)[:most])


def time_prefix(ts_nsec: int) -> str:
    """The time stamp that dmesg prints before a record: ``[%5lu.%06lu] ``."""
    return f"[{ts_nsec // NSEC_PER_SEC:5d}.{ts_nsec % NSEC_PER_SEC // _NSEC_PER_USEC:06d}] "


class Printk:
    """The log of one machine.

    ``seed``: what hashed pointers follow from; ``log_buf_shift``: the ring has 2^shift bytes; ``abi``: how
    this kernel keeps records; ``bits_per_long``: the width of a pointer. ``ptr_key_filled``: pointers
    can be hashed; early in boot they cannot. ``current_pid``: who acts, init until boot says otherwise.
    """

    def __init__(
        self,
        clock: Clock,
        seed: int = 0,
        log_buf_shift: int = 17,
        abi: PrintkAbi = ROWS["6.12"],
        bits_per_long: int = 64,
    ) -> None:
        self.clock = clock
        self.abi = abi
        self.bits_per_long = bits_per_long
        self.next_seq = 0
        self.clear_seq = 0
        self.ptr_key_filled = True
        self.debug_flags: dict[DebugSite, int] = {}
        self.current_pid: Callable[[], int] = lambda: 1
        self._key = (seed & (1 << 128) - 1).to_bytes(16, "little")
        self.log_buf_len = 1 << log_buf_shift
        self._records: deque[Record] = deque()
        self._head = 0

    def printk(self, text: str, level: int = LOGLEVEL_INFO, facility: int = 0) -> None:
        """One record; ``text`` without its trailing newline. Source: ``printk.c:vprintk_store()``."""
        if len(text) > self.abi.line_max:
            text = text[: self.abi.line_max]
        self._store(text, level, facility, continued=False)

    def printk_cont(self, text: str, pieces: Iterable[str], level: int = LOGLEVEL_INFO) -> None:
        """A line printed in pieces (``pr_info()``, then ``pr_cont()`` to the newline).

        What no longer fits the record starts a new one, at the default level and without prefix.
        Source: ``printk_ringbuffer.c:prb_reserve_in_last()``, before 5.10 ``printk.c:cont_add()``.
        """
        extra = max(self.abi.record_tail - 1, 0)  # a piece is measured with its level and its NUL
        line, size, continued = [text], len(text), False
        for piece in pieces:
            if size + len(piece) + extra > self.abi.cont_max:
                self._store("".join(line), level, 0, continued)
                line, size, level, continued = [], 0, DEFAULT_MESSAGE_LOGLEVEL, True
            line.append(piece)
            size += len(piece)
        self._store("".join(line), level, 0, continued)

    def cont_alone(self, text: str) -> None:
        """A ``pr_cont()`` after a closed line: a record of its own, without prefix, at the default level."""
        self._store(text, DEFAULT_MESSAGE_LOGLEVEL, 0, continued=True)

    def printk_many(self, count: int, newest_first: Iterable[tuple[str, int]]) -> None:
        """``count`` records, given as (text, level) with the newest first.

        Texts are asked for as far back as the ring can hold them; the records before get numbers only.
        """
        kept, room = [], self.log_buf_len
        for text, level in newest_first:
            kept.append((text, level))
            room -= self._record_size(text)
            if room < 0:
                break
        self.next_seq += count - len(kept)
        for text, level in reversed(kept):
            self.printk(text, level)

    def debug(self, site: DebugSite) -> bool:
        """Whether this pr_debug() prints: dynamic debug's ``p`` flag, which CONFIG_CMA_DEBUG sets at boot."""
        return bool(self.debug_flags.get(site, 0) & DPRINTK_FLAGS_PRINT)

    def add_debug_sites(self, sites: Iterable[DebugSite], enabled: bool) -> None:
        """Make call sites known to dynamic debug; ``enabled``: the file was built with DEBUG defined."""
        for site in sites:
            self.debug_flags[site] = DPRINTK_FLAGS_PRINT if enabled else 0

    def pr_debug(self, site: DebugSite, *args: object) -> None:
        """Print a debug line, if its call site is on.

        Source: ``lib/dynamic_debug.c:__dynamic_pr_debug()``.
        """
        if self.debug(site):
            self.printk(self.debug_text(site, *args), LOGLEVEL_DEBUG)

    def debug_text(self, site: DebugSite, *args: object) -> str:
        """A debug line, with the prefix that the flags of its call site ask for."""
        return self._emit_prefix(site, self.debug_flags[site]) + site.text(*args)

    def hash_ptr(self, address: int) -> str:
        """``%p``: a pointer hashed with the key of this boot, upper half zero; NULL as this kernel has it."""
        width = self.bits_per_long // 4
        if address == 0:
            return self.abi.null_pointer[:width].rjust(width)
        if self.abi.hashes_pointers and not self.ptr_key_filled:
            return (self.abi.early_pointer if self.bits_per_long == 64 else "(ptrval)").rjust(width)
        if not self.abi.hashes_pointers:
            return f"{address & ((1 << self.bits_per_long) - 1):0{width}x}"
        digest = blake2b(address.to_bytes(8, "little"), digest_size=4, key=self._key).hexdigest()
        return digest.rjust(width, "0")

    @property
    def first_seq(self) -> int:
        """Number of the oldest record that is still in the ring."""
        return self._records[0].seq if self._records else self.next_seq

    def records(self, since: int = 0) -> Iterator[Record]:
        """The records in the ring from number ``since`` on, oldest first."""
        return (record for record in self._records if record.seq >= since)

    def record(self, seq: int) -> Record | None:
        """The first record whose number is ``seq`` or higher; None at the end."""
        if not self._records or seq > self._records[-1].seq:
            return None
        index = seq - self._records[0].seq
        return self._records[max(index, 0)] if self._contiguous() else next(self.records(seq))

    def clear(self) -> None:
        """Set the clear point: readers see what comes after it (``SYSLOG_ACTION_CLEAR``)."""
        self.clear_seq = self.next_seq

    def dmesg(self) -> str:
        """The log from the clear point on, as dmesg(1) prints it: the lines of a record aligned."""
        lines = []
        for record in self.records(self.clear_seq):
            prefix = time_prefix(record.ts_nsec)
            lines.append(prefix + record.text.replace("\n", "\n" + " " * len(prefix)) + "\n")
        return "".join(lines)

    def lines(self) -> list[str]:
        """The texts of all records in the ring, oldest first, without time stamps."""
        return [record.text for record in self._records]

    def _contiguous(self) -> bool:
        return self._records[-1].seq - self._records[0].seq == len(self._records) - 1

    def _record_size(self, text: str) -> int:
        length = len(text) if text.isascii() else len(encode(text))
        align = self.abi.record_align
        return roundup(self.abi.record_header + length + self.abi.record_tail, align)

    def _store(self, text: str, level: int, facility: int, continued: bool) -> None:
        size = self._record_size(text)
        begin = self._head
        if begin % self.log_buf_len + size >= self.log_buf_len:  # a record never wraps
            self._head = (begin // self.log_buf_len + 1) * self.log_buf_len + size
        else:
            self._head = begin + size
        self._drop_before(self._head - self.log_buf_len)
        now = self.clock.now()
        self._records.append(Record(self.next_seq, now, level, text, facility, continued, begin))
        self.next_seq += 1

    def _drop_before(self, position: int) -> None:
        per_record = self.abi.bytes_per_descriptor
        most = self.log_buf_len // per_record if per_record else self.log_buf_len
        records = self._records
        while records and (records[0].begin < position or len(records) >= most):
            records.popleft()

    def _emit_prefix(self, site: DebugSite, flags: int) -> str:
        shown = {letter for bit, letter in enumerate(self.abi.dyndbg_flags) if flags >> bit & 1}
        parts = {"m": site.module, "f": site.function, "s": site.filename, "l": site.lineno}
        place = "".join(f"{value}:" for letter, value in parts.items() if letter in shown)
        thread = f"[{self.current_pid()}] " if "t" in shown else ""
        return thread + (f"{place} " if place else "")
