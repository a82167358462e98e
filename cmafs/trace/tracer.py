"""The tracer of a machine: what its tracepoints call, and how a record becomes a line."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from itertools import groupby
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from cmafs.abi.trace_event import Value, Word
from cmafs.lib.kstrtox import c_integer
from cmafs.lib.printk import decode
from cmafs.mm.cma_report import page_address
from cmafs.trace.array import TraceArray, TraceEntry, TraceEventFile, stamp
from cmafs.trace.cmdlines import SavedCmdlines

if TYPE_CHECKING:
    from cmafs.abi.trace import TraceAbi
    from cmafs.init.task import Task
    from cmafs.lib.printk import Printk
    from cmafs.mm.mmzone import RepeatedEvent, TraceFields
    from cmafs.trace.ring_buffer import RingBuffer

#: Bytes of a marker's record beside its text: ``struct print_entry`` up to ``buf``, and the newline and
#: zero at its end.
PRINT_ENTRY = 16

P = ParamSpec("P")


def _tracepoint(method: Callable[Concatenate[Tracer, P], None]) -> Callable[Concatenate[Tracer, P], None]:
    """What the memory manager calls: a bug there is reported, and is not the memory manager's."""

    @wraps(method)
    def call(tracer: Tracer, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(tracer, *args, **kwargs)
        except MemoryError:
            raise
        except Exception:
            tracer.report(traceback.format_exc())

    return call


@dataclass(frozen=True)
class _Row:
    """What ``Tracer.repeat`` records in one instance.

    ``alike``: of each event that is on its file, the record of the first pfn, what differs for another one.
    """

    ts: int
    pid: int
    alike: list[tuple[TraceEventFile, dict[str, Value], Callable[[int], TraceFields]]]

    def write(self, ring: RingBuffer[TraceEntry], pfns: range) -> None:
        """Into the ring: at once, as far as the same events pass their filters."""
        filtered = [alike for alike in self.alike if alike[0].predicate]

        def passing(pfn: int) -> list[bool]:
            return [file.passes({**record, **others(pfn)}) for file, record, others in filtered]

        runs = (list(run) for _, run in groupby(pfns, passing)) if filtered else iter([pfns])
        for run in runs:
            ring.write_many(self.ts, len(run), partial(self._entries, run))

    def _entries(self, pfns: Sequence[int], index: int) -> list[tuple[int, TraceEntry]]:
        """Those of one pfn, with their lengths."""
        made = ((file, {**record, **others(pfns[index])}) for file, record, others in self.alike)
        return [
            (file.record_size(record), TraceEntry(self.ts, self.pid, 0, file.event, record))
            for file, record in made
            if file.passes(record)
        ]


class Tracer:
    """All trace arrays of one machine. ``current`` is the task that runs; ``arrays[0]`` is the top one.

    ``report`` gets the traceback of a bug of ours in a tracepoint: whoever passes one goes on.
    ``saved_cmdlines``: names of tasks seen while an event was on, as the kernel saves them at a task switch.
    """

    def __init__(
        self,
        abi: TraceAbi,
        arch: str,
        page_size: int,
        log: Printk,
        current: Callable[[], Task],
        report: Callable[[str], None],
    ) -> None:
        self.abi = abi
        self.clock = log.clock
        self.current = current
        self.report = report
        self.word = Word(4 if arch == "arm" else 8, abi.char_signed and arch == "x86_64")
        self._hash_ptr = log.hash_ptr
        self._page_size = page_size
        self.arrays: list[TraceArray] = [TraceArray(self.word, abi, page_size)]
        self.saved_cmdlines = SavedCmdlines()
        self.on_change: Callable[[], None] = lambda: None

    def instance(self) -> TraceArray:
        """``trace_array_create()``: a further array; its ring has its size at once."""
        array = TraceArray(self.word, self.abi, self._page_size, expanded=True)
        self.arrays.append(array)
        return array

    def remove(self, array: TraceArray) -> None:
        """``__remove_instance()``: nobody hears of its events any more. Raises EBUSY while it is in use."""
        if array.ref:
            raise OSError(errno.EBUSY, "a file of the instance is open")
        self.arrays.remove(array)
        self.on_change()

    def update_buffers(self, array: TraceArray) -> None:
        """``tracing_update_buffers()``: whoever is about to switch events gives the ring its size."""
        (array if self.abi.expands_each else self.arrays[0]).expand()

    def enable(self, files: list[TraceEventFile], on: bool) -> None:
        """``__ftrace_set_clr_event()``: switch events."""
        for file in files:
            file.enabled = on
        self.on_change()

    def enabled(self, system: str | None = None) -> bool:
        """Whether an event (of a group) is on anywhere: whether its tracepoints call at all."""
        return any(
            file.enabled and system in (None, file.event.system)
            for array in self.arrays
            for file in array.files.values()
        )

    @_tracepoint
    def __call__(self, name: str, values: TraceFields) -> None:
        """A tracepoint: the event's own fields. ``page`` is a pfn, 0 for no page."""
        task = self.current()
        record: dict[str, Value] | None = None
        for array in self.arrays:
            file = array.listening(name)
            if file is not None:
                record = record or self._record(file, values, task)
                if file.passes(record):
                    entry = TraceEntry(self.clock.now(), task.pid, 0, file.event, record)
                    array.ring.write(entry.ts, file.record_size(record), entry)

    @_tracepoint
    def repeat(self, pfns: range, events: list[RepeatedEvent]) -> None:
        """The tracepoints that are passed for each of ``pfns``, in turn.

        As one call after the other; but there can be millions, of which the ring holds the last.
        """
        task = self.current()
        for array in self.arrays:
            alike = [
                (file, self._record(file, {**same, **others(pfns[0])}, task), others)
                for name, same, others in events
                if (file := array.listening(name)) is not None
            ]
            if alike:
                _Row(self.clock.now(), task.pid, alike).write(array.ring, pfns)

    def _record(self, file: TraceEventFile, values: TraceFields, task: Task) -> dict[str, Value]:
        """The record of an event, with what filters see beside its own fields."""
        self.saved_cmdlines.save(task.pid, task.comm)
        recorded: dict[str, Value] = {
            "common_type": file.event.id,
            "common_flags": 0,
            "common_preempt_count": 0,
            "common_pid": task.pid,
            **dict.fromkeys(("comm", "COMM"), task.comm),
            **dict.fromkeys(("cpu", "CPU", "common_cpu"), 0),
        }
        for field in file.own:
            value = values[field.name]
            if isinstance(value, int):
                value = c_integer(value, 8 * field.size, field.signed)
            recorded[field.name] = value
        return recorded

    def mark(self, array: TraceArray, data: bytes) -> int:
        """``tracing_mark_write()``: as much of a user's own line as a record takes, in bytes.

        It is shown up to its first NUL, behind which its newline may stand.
        """
        data = data[: min(self.abi.marker_bytes, array.ring.max_event_size - PRINT_ENTRY - 2)]
        line = data if data.endswith(b"\n") else data + b"\n"
        text = decode(line.partition(b"\0")[0])
        task = self.current()
        entry = TraceEntry(self.clock.now(), task.pid, self.abi.marker_preempt_count, None, {}, text)
        array.ring.write(entry.ts, PRINT_ENTRY + len(data) + 2, entry)
        if self.enabled():
            self.saved_cmdlines.save(task.pid, task.comm)
        return len(data)

    def header(self, array: TraceArray) -> str:
        """``print_trace_header()`` of the nop tracer."""
        entries = len(array.ring)
        counts = f"# entries-in-buffer/entries-written: {entries}/{entries + array.ring.overrun}   #P:1\n#\n"
        return f"# tracer: nop\n#\n{counts if self.abi.counts_entries else ''}{self.abi.column_heads}"

    def line(self, entry: TraceEntry) -> str:
        """``print_trace_line()``: an entry as ``trace`` shows it."""
        comm = self.saved_cmdlines.find(entry.pid)
        depth = f"{entry.preempt_count:x}" if entry.preempt_count else "."
        flags = f"...{depth}" + ("." if self.abi.migrate_disable_column else "")
        head = f"{comm:>16}-{entry.pid:<{self.abi.pid_width}} [000] {flags} {stamp(entry.ts)}: "
        if entry.event is None:
            return f"{head}tracing_mark_write: {entry.text}"
        values = entry.values
        if "page" in values:
            values = {**values, "page": self.page_pointer(int(values["page"]))}
        return f"{head}{entry.event.name}: {entry.event.text(values)}\n"

    def page_pointer(self, pfn: int) -> str:
        """``%p`` of a page: as in the log, or plain, as wide as a word; 0 is no page."""
        address, bits = page_address(pfn or None), self.word.bits
        if self.abi.hashes_pointers or not address:
            return self._hash_ptr(address)
        return f"{address & ((1 << bits) - 1):0{bits // 4}x}"

    def text(self, array: TraceArray) -> str:
        """What ``trace`` reads."""
        return self.header(array) + "".join(map(self.line, array.ring))

    def consume(self, array: TraceArray) -> str:
        """The next line of ``trace_pipe``, '' when there is none."""
        record = array.ring.consume()
        if record is None:
            return ""
        lost, entry = record
        return (f"CPU:0 [LOST {lost} EVENTS]\n" if lost else "") + self.line(entry)
