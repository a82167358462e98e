"""``struct trace_array``: a ring buffer and which events go into it; the top one, and each instance."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cmafs.abi.trace_event import TraceEvent, Value, Word
from cmafs.lib.kstrtox import SPACE, c_integer
from cmafs.lib.printk import encode
from cmafs.trace.filter import BAD_SUBSYS_FILTER, FilterError, Predicate, parse_filter
from cmafs.trace.ring_buffer import RingBuffer

if TYPE_CHECKING:
    from cmafs.abi.trace import TraceAbi

#: Bytes of the ring once it is used (``TRACE_BUF_SIZE_DEFAULT``), and before that (``ring_buf_size`` of 1:
#: two pages).
TRACE_BUF_SIZE_DEFAULT = 1441792
#: ``TRACING_LOG_ERRS_MAX``
LOG_ERRS_MAX = 8

SET, CLEAR = "1\n", "0\n"


class TraceEntry(NamedTuple):
    """One record: ``ts`` in nanoseconds; ``event`` None for a write to trace_marker (``text``)."""

    ts: int
    pid: int
    preempt_count: int
    event: TraceEvent | None
    values: Mapping[str, Value]
    text: str = ""


class TraceEventFile:
    """``struct trace_event_file``: one event in one trace array, with its ``own`` fields.

    ``filter_string``: None where there is no filter.
    """

    def __init__(self, event: TraceEvent, word: Word) -> None:
        self.event = event
        self.enabled = False
        self.filter_string: str | None = None
        self.predicate: Predicate | None = None
        self.own = event.own(word)
        self.fields = {field.name: field for field in (*event.common(word), *self.own)}
        self._fixed_size = self.own[-1].offset + self.own[-1].size
        self._strings = [field.name for field in self.own if field.is_string]

    def record_size(self, values: Mapping[str, Value]) -> int:
        """Bytes of a record, strings included."""
        return self._fixed_size + sum(len(encode(str(values[name]))) + 1 for name in self._strings)

    def passes(self, values: Mapping[str, Value]) -> bool:
        """Whether the filter, if there is one, lets a record through."""
        return self.predicate is None or self.predicate(values)

    def clear_filter(self) -> None:
        """No filter any more."""
        self.filter_string = self.predicate = None


@dataclass(eq=False)
class Subsystem:
    """``struct event_subsystem``: the events of one group in one trace array."""

    name: str
    files: list[TraceEventFile]


@dataclass(eq=False)
class TraceArray:
    """One tracer instance. ``buf_size`` in bytes as asked for, which the ring takes once it is used.

    ``ref``: how many of its files are open, but for those that the kernel does not count.
    """

    word: Word
    abi: TraceAbi
    page_size: int = 4096
    buf_size: int = TRACE_BUF_SIZE_DEFAULT
    expanded: bool = False
    tracing_on: bool = True
    ref: int = 0
    error_log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_ERRS_MAX))

    def __post_init__(self) -> None:
        self.ring: RingBuffer[TraceEntry] = RingBuffer(
            self.buf_size if self.expanded else 1, self.page_size, self.word.bits
        )
        self.files = {event.name: TraceEventFile(event, self.word) for event in self.abi.events}
        systems = dict.fromkeys(event.system for event in self.abi.events)
        self.subsystems = [
            Subsystem(name, [f for f in self.files.values() if f.event.system == name]) for name in systems
        ]

    def listening(self, name: str) -> TraceEventFile | None:
        """An event that is recorded here now, None if it is not."""
        file = self.files.get(name)
        return file if file is not None and file.enabled and self.tracing_on else None

    def expand(self) -> None:
        """``tracing_update_buffers()``: the ring gets its size with its first use."""
        if not self.expanded:
            self.expanded = True
            self.ring.resize(self.buf_size)

    def resize(self, size: int) -> None:
        """``tracing_resize_ring_buffer()`` in bytes."""
        self.expanded = True
        self.buf_size = size
        self.ring.resize(size)

    def set_filter(self, file: TraceEventFile, text: str, ts: int) -> None:
        """``apply_event_filter()``: a bad filter can be read, with what is wrong. Raises FilterError."""
        file.clear_filter()
        if _is_clear(text):
            return
        try:
            file.predicate = parse_filter(text, file.fields, self.abi)
            file.filter_string = text
        except FilterError as error:
            file.filter_string = error.text(text)
            self.log_error(error, text, ts)
            raise

    def set_subsystem_filter(self, system: Subsystem, text: str, ts: int) -> None:
        """``apply_subsystem_event_filter()``: on every event, whether it has the fields or not."""
        for file in system.files:
            file.clear_filter()
            if _is_clear(text):
                continue
            file.filter_string = text
            try:
                file.predicate = parse_filter(text, file.fields, self.abi)
            except FilterError:
                failure = FilterError(BAD_SUBSYS_FILTER, 0)
                file.filter_string = failure.text(text)
                self.log_error(failure, text, ts)

    def log_error(self, error: FilterError, text: str, ts: int) -> None:
        """``tracing_log_err()``: what was wrong, with a caret below the place."""
        pos = error.pos if error.message is not None else 0
        what = f"event filter parse error: error: {error.message or 'Error'}"
        command = f"\n  Command: {text}\n"
        if self.abi.error_log_bytes:
            pos, command = c_integer(pos, 8, signed=False), command[: self.abi.error_log_bytes - 1]
        caret = " " * (len("  Command: ") + pos) + "^"
        self.error_log.append(f"[{stamp(ts)}] {what}{command}{caret}\n")


def _is_clear(text: str) -> bool:
    """``0`` removes a filter; so does ``none``, which the file reads when there is no filter.

    A kernel refuses ``none``; here it is taken, so that what was read can be written back
    (docs/exceptions.md).
    """
    return text.strip(SPACE) in ("0", "none")


def stamp(ts: int) -> str:
    """Nanoseconds as the tracer shows them: ``%5lu.%06lu`` seconds, rounded to microseconds."""
    seconds, micros = divmod((ts + 500) // 1000, 1_000_000)
    return f"{seconds:5d}.{micros:06d}"
