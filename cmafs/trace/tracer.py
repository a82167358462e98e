"""The tracer of a machine: what its tracepoints call, and how a record becomes a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cmafs.abi.trace_event import Value, Word
from cmafs.mm.cma_report import page_address
from cmafs.trace.array import TraceArray, TraceEntry, TraceEventFile, stamp

if TYPE_CHECKING:
    from cmafs.abi.trace import TraceAbi
    from cmafs.init.task import Task
    from cmafs.lib.clock import Clock
    from cmafs.lib.printk import Printk
    from cmafs.mm.mmzone import Event, TraceFields

#: Bytes of a marker's record beside its text: ``struct print_entry`` up to ``buf``, and the newline and
#: zero at its end.
PRINT_ENTRY = 16


class Tracer:
    """All trace arrays of one machine. ``current`` is the task that runs; ``arrays[0]`` is the top one.

    ``saved_cmdlines``: names of tasks seen while an event was on, as the kernel saves them at a task switch.
    """

    def __init__(
        self, abi: TraceAbi, arch: str, clock: Clock, log: Printk, current: Callable[[], Task]
    ) -> None:
        self.abi = abi
        self.clock = clock
        self.current = current
        self.word = Word(4 if arch == "arm" else 8, abi.char_signed and arch == "x86_64")
        self._hash_ptr = log.hash_ptr
        self.arrays: list[TraceArray] = [TraceArray(self.word, abi.events)]
        self.saved_cmdlines: dict[int, str] = {}
        self.on_change: Callable[[], None] = lambda: None

    def instance(self) -> TraceArray:
        """``trace_array_create()``: a further array; its ring has its size at once."""
        array = TraceArray(self.word, self.abi.events, expanded=True)
        self.arrays.append(array)
        return array

    def remove(self, array: TraceArray) -> None:
        """``__remove_instance()``"""
        self.arrays.remove(array)
        self.on_change()

    def enable(self, array: TraceArray, files: list[TraceEventFile], on: bool) -> None:
        """``__ftrace_set_clr_event()``"""
        if on:
            array.expand()
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

    def __call__(self, name: str, values: TraceFields) -> None:
        """A tracepoint: the event's own fields. ``page`` is a pfn, or None or 0 for no page."""
        for array in self.arrays:
            for length, entry in self._entries(array, [(name, values)]):
                array.ring.write(entry.ts, length, entry)

    def repeat(self, pfns: range, events: Callable[[int], list[Event]]) -> None:
        """The tracepoints that are passed for each of ``pfns``, in turn: the same ones with other fields.

        As one call after the other; but there can be millions, of which the ring holds the last.
        """
        for array in self.arrays:
            self._repeat(array, pfns, events)

    def _repeat(self, array: TraceArray, pfns: range, events: Callable[[int], list[Event]]) -> None:
        def group(index: int) -> list[tuple[int, TraceEntry]]:
            return self._entries(array, events(pfns[index]))

        files = [file for name, _ in events(pfns[0]) if (file := array.listening(name)) is not None]
        if any(file.predicate for file in files):  # it has to see them all
            for index in range(len(pfns)):
                for length, entry in group(index):
                    array.ring.write(entry.ts, length, entry)
        elif files:
            array.ring.write_many(self.clock.now(), len(pfns), group)

    def _entries(self, array: TraceArray, events: list[Event]) -> list[tuple[int, TraceEntry]]:
        """What an instance records of some events, with the length of each."""
        ts, task, entries = self.clock.now(), self.current(), []
        for name, values in events:
            file = array.listening(name)
            if file is not None and file.passes(record := self._record(file, values, task)):
                entries.append((file.record_size(record), TraceEntry(ts, task.pid, 0, file.event, record)))
        return entries

    def _record(self, file: TraceEventFile, values: TraceFields, task: Task) -> dict[str, Value]:
        """The record of an event, with what filters see beside its own fields."""
        self.saved_cmdlines[task.pid] = task.comm
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
            if isinstance(value, int) and not field.signed:
                value &= (1 << 8 * field.size) - 1
            recorded[field.name] = value if value is not None else 0
        return recorded

    def mark(self, array: TraceArray, text: str) -> None:
        """``tracing_mark_write()``: a line of a user's own."""
        pid = self.current().pid
        entry = TraceEntry(self.clock.now(), pid, self.abi.marker_preempt_count, None, {}, text)
        array.ring.write(entry.ts, PRINT_ENTRY + len(text) + 2, entry)
        if self.enabled():
            self.saved_cmdlines[pid] = self.current().comm

    def header(self, array: TraceArray) -> str:
        """``print_trace_header()`` of the nop tracer."""
        entries = len(array.ring)
        counts = f"# entries-in-buffer/entries-written: {entries}/{entries + array.ring.overrun}   #P:1\n"
        return f"# tracer: nop\n#\n{counts}#\n{self.abi.column_heads}"

    def line(self, entry: TraceEntry) -> str:
        """``print_trace_line()``: an entry as ``trace`` shows it."""
        comm = self.saved_cmdlines.get(entry.pid, "<...>")
        depth = f"{entry.preempt_count:x}" if entry.preempt_count else "."
        flags = f"...{depth}" + ("." if self.abi.migrate_disable_column else "")
        head = f"{comm:>16}-{entry.pid:<{self.abi.pid_width}} [000] {flags} {stamp(entry.ts)}: "
        if entry.event is None:
            return f"{head}tracing_mark_write: {entry.text}" + ("" if entry.text.endswith("\n") else "\n")
        values = entry.values
        if "page" in values:
            values = {**values, "page": self.page_pointer(int(values["page"]))}
        return f"{head}{entry.event.name}: {entry.event.text(values)}\n"

    def page_pointer(self, pfn: int) -> str:
        """``%p`` of a page: as in the log, or plain; 0 is no page."""
        address = page_address(pfn or None)
        return self._hash_ptr(address) if self.abi.hashes_pointers else f"{address:016x}"

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
