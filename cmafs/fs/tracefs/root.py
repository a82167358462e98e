"""The tracer's files, below sys/kernel/debug/tracing and sys/kernel/tracing (``kernel/trace/trace.c``).

Modes, answers and formats were compared with a running 6.18 and with the ``trace`` transcripts.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cmafs.fs.dentry import (
    Directory,
    File,
    FileOperations,
    FileSystemType,
    Inode,
    OpenedBy,
    RegularFile,
    fail,
    new_directory,
    walk,
)
from cmafs.fs.libfs import debugfs_root, sysfs_directory
from cmafs.fs.seq_file import SeqOperations, truncates
from cmafs.fs.tracefs.events import add_events, set_clr_event
from cmafs.lib.cmdline import memparse, next_args
from cmafs.lib.kstrtox import SPACE, c_integer, c_string, kstrtoul_from_user
from cmafs.lib.printk import encode
from cmafs.trace.array import TRACE_BUF_SIZE_DEFAULT, TraceArray
from cmafs.trace.tracer import Tracer

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

TRACEFS = FileSystemType("tracefs")

#: Files that know the event alone, not the trace array (``trace_format_open()``, ``event_id_read()``).
UNCOUNTED = ("/format", "/id")

#: ``MAX_TRACER_SIZE``: characters of a tracer's name that are looked at.
MAX_TRACER_SIZE = 100


class TracePipe(File):
    """An open trace_pipe; each line once. In the kernel it blocks; here a read takes what is there."""

    nonseekable = True

    def __init__(self, next_line: Callable[[], str], flags: int) -> None:
        self._next_line = next_line
        self._rest = b""

    def read(self, size: int, offset: int) -> bytes:
        """Consume lines up to ``size`` bytes; a line that is longer is given in pieces."""
        while len(self._rest) < size and (line := self._next_line()):
            self._rest += encode(line)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


@dataclass(eq=False)
class TracingFiles:
    """The files of one trace array."""

    machine: BootedMachine
    tracer: Tracer
    array: TraceArray

    def populate(self, directory: Directory) -> None:
        """``init_tracer_tracefs()``: modes by kernel, ``error_log`` where it has one."""
        abi = self.tracer.abi
        read, both = (0o440, 0o640) if abi.restricts_others else (0o444, 0o644)
        add = directory.file
        add("available_tracers", read, SeqOperations(lambda: b"nop\n"))
        add("current_tracer", both, SeqOperations(lambda: b"nop\n", self._set_tracer))
        add("trace", both, SeqOperations(self._show, len, on_open=self._open_trace))
        pipe = OpenedBy(partial(TracePipe, partial(self.tracer.consume, self.array)))
        directory.add("trace_pipe", RegularFile(directory.fs, stat.S_IFIFO | read, fops=pipe, stateful=True))
        add("buffer_size_kb", both, SeqOperations(self._size, self._set_size))
        add("buffer_total_size_kb", read, SeqOperations(self._total_size))
        add("trace_marker", 0o220, SeqOperations(store=self._mark, nonseekable=True))
        add("tracing_on", both, SeqOperations(self._tracing_on, self._set_tracing_on))
        if abi.error_log:
            add("error_log", both, SeqOperations(self._error_log, len, on_open=self._open_error_log))
        add_events(directory, self.machine, self.tracer, self.array, both, read)

    def _set_tracer(self, data: bytes) -> int:
        """``tracing_set_trace_write()``: there is only nop; also who fails gives the ring its size."""
        self.array.expand()
        name = c_string(data[:MAX_TRACER_SIZE])
        if (name.strip(SPACE) if self.tracer.abi.strips_tracer else name.rstrip(SPACE)) != "nop":
            fail(errno.EINVAL)
        return len(data)

    def _show(self) -> bytes:
        return encode(self.tracer.text(self.array))

    def _open_trace(self, flags: int) -> None:
        """``tracing_open()``: opening for writing with O_TRUNC empties the buffer."""
        if truncates(flags):
            self.array.ring.reset()

    def _size(self) -> bytes:
        return self._size_text(self.array.buf_size).encode()

    def _size_text(self, asked: int) -> str:
        array, shown = self.array, asked
        if not array.expanded:
            return f"{array.ring.size >> 10} (expanded: {asked >> 10})\n"
        if self.tracer.abi.size_in_subbuffers:
            shown = array.ring.size
        return f"{shown >> 10}\n"

    def _total_size(self) -> bytes:
        """``tracing_total_entries_read()``: there is one CPU."""
        return self._size()

    def _set_size(self, data: bytes) -> int:
        """``tracing_entries_write()``: KiB, which wrap as bytes. Raises EINVAL (0), ENOMEM (too much)."""
        bits = self.tracer.word.bits
        kib = kstrtoul_from_user(data, 10, bits)
        if not kib:
            fail(errno.EINVAL)
        size = c_integer(kib << 10, bits, signed=False)
        ring = self.array.ring
        if not self.array.expanded:  # also if there is no memory for it
            self.array.resize(ring.size)
        need_memory(self.machine, self.tracer, ring.pages_of(size) * ring.capacity, self.array)
        self.array.resize(size)
        return len(data)

    def _mark(self, data: bytes) -> int:
        """``tracing_mark_write()``: EBADF while tracing is off; a long text is taken in part."""
        if not self.array.tracing_on:
            fail(errno.EBADF)
        return self.tracer.mark(self.array, data)

    def _tracing_on(self) -> bytes:
        return b"1\n" if self.array.tracing_on else b"0\n"

    def _set_tracing_on(self, data: bytes) -> int:
        """``rb_simple_write()``: any number but 0 means on."""
        self.array.tracing_on = kstrtoul_from_user(data, 10, self.tracer.word.bits) != 0
        return len(data)

    def _error_log(self) -> bytes:
        return "".join(self.array.error_log).encode("latin-1")  # of filters, a character a byte

    def _open_error_log(self, flags: int) -> None:
        if truncates(flags):
            self.array.error_log.clear()


def need_memory(machine: BootedMachine, tracer: Tracer, size: int, array: TraceArray | None = None) -> None:
    """Whether a ring of ``size`` bytes fits into free memory beside those of the other trace arrays.

    They take no pages of the simulated machine. Raises ENOMEM.
    """
    others = sum(other.ring.size for other in tracer.arrays if other is not array)
    memory = machine.memory
    if others + size > sum(zone.nr_free for zone in memory.zones) << memory.layout.page_shift:
        fail(errno.ENOMEM)


@dataclass(frozen=True)
class HoldsArray:
    """The operations of a file that keeps its trace array in use while it is open.

    Source: ``tracing_open_generic_tr()``, ``tracing_release_generic_tr()`` and their likes, ``@v6.12``.
    """

    array: TraceArray
    fops: FileOperations

    def open(self, inode: Inode, flags: int) -> File:
        """Raises what the file's own open raises."""
        file = self.fops.open(inode, flags)
        self.array.ref += 1
        file.on_release = self._release
        return file

    def _release(self) -> None:
        self.array.ref -= 1


@dataclass(eq=False)
class Instances:
    """``instances/``: a directory made there is a trace array of its own."""

    machine: BootedMachine
    tracer: Tracer
    directory: Directory

    def __post_init__(self) -> None:
        self._arrays: dict[str, TraceArray] = {}
        self.directory.on_mkdir = self.mkdir
        self.directory.on_rmdir = self.rmdir

    def mkdir(self, name: str) -> None:
        """``instance_mkdir()``: a trace array and its files. Raises ENOMEM."""
        need_memory(self.machine, self.tracer, TRACE_BUF_SIZE_DEFAULT)
        made = self.directory.subdir(name, stat.S_IMODE(self.directory.mode))
        self._arrays[name] = array = self.tracer.instance()
        TracingFiles(self.machine, self.tracer, array).populate(made)
        for path, inode in walk(made):
            if isinstance(inode, RegularFile) and not path.endswith(UNCOUNTED):
                inode.fops = HoldsArray(array, inode.fops)

    def rmdir(self, name: str) -> None:
        """``instance_rmdir()``: the trace array goes with its files. Raises EBUSY while one is open."""
        self.tracer.remove(self._arrays[name])
        del self._arrays[name]
        self.directory.remove(name)


def _boot_parameters(machine: BootedMachine, tracer: Tracer) -> None:
    """``trace_buf_size=`` and ``trace_event=``: what the command line sets up."""
    top = tracer.arrays[0]
    for name, value in next_args(machine.cmdline):
        if value is None:
            continue
        if name.replace("-", "_") == "trace_buf_size":
            top.buf_size = memparse(value)[0] or top.buf_size
        elif name.replace("-", "_") == "trace_event":
            top.expand()  # setup_trace_event()
            for event in value.split(","):
                set_clr_event(tracer, top, event, True)


def tracing_directory(machine: BootedMachine) -> Directory:
    """The tracer's directory: one object, to be put wherever tracefs is mounted; hooks the tracepoints."""
    abi = machine.abi.trace
    page_size = 1 << machine.memory.layout.page_shift
    report = machine.simlog.report
    tracer = Tracer(abi, machine.arch, page_size, machine.log, lambda: machine.current(), report)

    def rehook() -> None:
        walks = tracer.enabled("migrate") or tracer.enabled("page_isolation")
        machine.memory.trace = tracer if walks else None
        machine.cma.trace = tracer if tracer.enabled("cma") else None

    tracer.on_change = rehook
    root = new_directory(TRACEFS, 0o700)
    TracingFiles(machine, tracer, tracer.arrays[0]).populate(root)
    _boot_parameters(machine, tracer)
    read = 0o440 if abi.restricts_others else 0o444
    root.file("saved_cmdlines", read, SeqOperations(lambda: encode(tracer.saved_cmdlines.text())))
    Instances(machine, tracer, root.subdir("instances", 0o750 if abi.restricts_directories else 0o755))
    return root


def populate(root: Directory, machine: BootedMachine) -> None:
    """Make sys/kernel/debug/tracing and sys/kernel/tracing: the same objects at both places."""
    tracing = tracing_directory(machine)
    debugfs_root(root).add("tracing", tracing)
    sysfs_directory(root, "kernel").add("tracing", tracing)
