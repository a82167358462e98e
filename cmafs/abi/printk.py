"""Printk rows: how the log of a kernel keeps its records. See cmafs.abi; each field has its citation."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cmafs.abi.rows import Rows


@dataclass(frozen=True, eq=False)
class DebugSite:
    """One ``pr_debug()``: a ``struct _ddebug``.

    ``filename`` relative to the kernel's source; ``lineno`` there; ``module`` its KBUILD_MODNAME;
    ``function`` where it stands; ``format`` as the source has it, without the newline; ``prefix``: what
    pr_fmt puts before it in the log, of which the descriptor knows nothing.
    """

    filename: str
    lineno: int
    module: str
    function: str
    format: str
    prefix: str = ""

    def text(self, *args: object) -> str:
        """The line: numbers for ``%lu`` and its like, ready text for ``%s``, ``%p`` and ``%pa``."""
        return (
            self.prefix
            + _CONVERSION.sub(lambda m: f"%{m[1]}x" if m[1] is not None else "%s", self.format) % args
        )


_CONVERSION = re.compile(r"%(?:(0?\d*)l+x|pa|p|s|zu|llu|lu|ld|d)")


@dataclass(frozen=True)
class PrintkAbi:
    """One row of the kernel log.

    ``record_header``, ``record_tail``, ``record_align``: what a record costs in the ring, in bytes: header +
    text + tail, rounded up. Before 5.10 a ``struct printk_log`` of 16 bytes stood before each text, 4-byte
    aligned (``kernel/printk/printk.c:msg_used_size()@4.4``). Since 5.10 a data block is a ``long`` and the
    text, aligned to a ``long`` (``kernel/printk/printk_ringbuffer.c:to_blk_size()@5.10``); since 5.11 what is
    reserved counts the level prefix, the newline and the NUL as well, and is never shrunk
    (``vprintk_store()@6.1``).

    ``bytes_per_descriptor``: the ring also holds no more than its size / this many records
    (``PRB_AVGBITS``, ``printk_ringbuffer.h@5.10``); 0: no such bound.

    ``cont_max``: bytes after which a continued line starts a new record (``struct cont`` of ``LOG_LINE_MAX``
    bytes @4.4, ``prb_reserve_in_last()`` with 1024 @5.10).

    ``line_max``: bytes after which one record is cut, and the longest write to /dev/kmsg
    (``vprintk_store()``, ``devkmsg_write()``: LOG_LINE_MAX, since 6.4 PRINTKRB_RECORD_MAX).

    ``null_pointer``: ``%p`` of NULL, right aligned in a pointer's width (``lib/vsprintf.c:pointer()``:
    "(null)" to 5.1, hashed like any other to 5.7, zeros since 5.8 and the stables of May 2020, P
    7bd57fbc4a4d).

    ``hashes_pointers``: ``%p`` is hashed (4.15, ``ptr_to_id()``); before, the address is shown.

    ``early_pointer``: ``%p`` on 64 bits before there is a key to hash with, right aligned (T 4.15.0, T 4.19;
    11d4afd4ff66, P).

    ``dyndbg_names_function``: complaints of dynamic debug begin with ``dynamic_debug:<function>: `` (to 5.8),
    later with ``dyndbg: `` (``lib/dynamic_debug.c``, its pr_fmt).

    ``dyndbg_flags``: the flag letters, in the order in which the control file shows them (``opt_array``;
    ``s`` came with 6.7; ``d``, V 7.2, not 6.12: a stack after the line, which is not shown here).

    ``dyndbg_file_tail``: ``file F:func`` and ``file F:line`` are understood, and ``format ^…`` anchors
    (``ddebug_parse_query()``, ``ddebug_change()``; 5.9).

    ``dyndbg_octal``: the control file shows a newline in octal (``ddebug_proc_show()``; as ``\\n`` from 6.0,
    P 47ea6f99d06e, V 6.1).

    ``dyndbg_newest_first``: the tables of later files are listed first (5.10 V, T 5.15; not T 5.4, V 6.1);
    ``dyndbg_walks_back``: a file's table is walked from its end (``ddebug_iter_next()``, V 6.1): the
    compiler lays it out from the file's last line up, so lines ascend (T 6.6); before, they descend (T 4.4 to
    5.15).

    ``dyndbg_class``: the keyword ``class`` is understood (6.1, V).
    """

    record_header: int = 16
    record_tail: int = 0
    record_align: int = 4
    bytes_per_descriptor: int = 0
    cont_max: int = 992
    line_max: int = 992
    null_pointer: str = "(null)"
    hashes_pointers: bool = False
    early_pointer: str = "(ptrval)"
    dyndbg_names_function: bool = True
    dyndbg_flags: str = "pmflt"
    dyndbg_file_tail: bool = False
    dyndbg_octal: bool = True
    dyndbg_class: bool = False
    dyndbg_newest_first: bool = False
    dyndbg_walks_back: bool = False


ROWS = Rows(
    PrintkAbi(),
    {
        "4.15": {"hashes_pointers": True},
        "4.19": {"early_pointer": "(____ptrval____)"},
        "5.4": {"null_pointer": "0" * 16},
        "5.10": {
            "record_header": 8,
            "record_align": 8,
            "bytes_per_descriptor": 32,
            "cont_max": 1024,
            "dyndbg_names_function": False,
            "dyndbg_file_tail": True,
            "dyndbg_newest_first": True,
        },
        "5.15": {"record_tail": 4},
        "6.1": {
            "dyndbg_octal": False,
            "dyndbg_class": True,
            "dyndbg_newest_first": False,
            "dyndbg_walks_back": True,
        },
        "6.6": {"line_max": 1024},
        "6.12": {"dyndbg_flags": "pmfslt"},
        "7.2": {"dyndbg_flags": "pmfsltd"},
    },
)
