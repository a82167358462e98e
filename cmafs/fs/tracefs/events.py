"""available_events, set_event and events/ of a trace array (``kernel/trace/trace_events.c``)."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cmafs.fs.dentry import Directory, fail
from cmafs.fs.seq_file import SeqFile, SeqOperations, truncates
from cmafs.lib.kstrtox import SPACE, c_string, kstrtoul_from_user
from cmafs.trace.array import Subsystem, TraceArray, TraceEventFile
from cmafs.trace.filter import FilterError
from cmafs.trace.tracer import Tracer

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: ``trace_get_user()``: blanks, a word, and the blank or NUL that ends it.
_WORD = re.compile(f"[{SPACE}]*([^{SPACE}\0]*)[{SPACE}\0]?".encode("latin-1"))
#: What ``filter`` of a group reads, whatever was written (``DEFAULT_SYS_FILTER_MESSAGE``).
_SYSTEM_FILTER = """\
### global filter ###
# Use this to set filters for multiple events.
# Only events with the given fields will be affected.
# If no events are modified, an error message will be displayed here
"""


def set_clr_event(tracer: Tracer, array: TraceArray, text: str, on: bool) -> bool:
    """``ftrace_set_clr_event()``: ``group:event``, ``group:*``, ``group:``, or one name of either; False if
    none is meant.
    """
    group, colon, event = text.partition(":")
    if not colon:
        group, event, either = "", "", text
    else:
        either = ""
    files = [
        file
        for file in array.files.values()
        if group in ("", "*", file.event.system)
        and event in ("", "*", file.event.name)
        and either in ("", file.event.system, file.event.name)
    ]
    if files:
        tracer.enable(files, on)
    return bool(files)


def state(files: list[TraceEventFile]) -> bytes:
    """``enable``: 0, 1, or X where some are on and some are off."""
    states = {file.enabled for file in files}
    return b"X\n" if len(states) > 1 else b"1\n" if True in states else b"0\n"


class FilterFile(SeqFile):
    """An open ``filter``: a read from elsewhere than the start is at its end (``event_filter_read()``)."""

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes, if from the start."""
        return b"" if offset else super().read(size, 0)


@dataclass(eq=False)
class EventFiles:
    """``available_events``, ``set_event`` and ``events/`` of one trace array."""

    machine: BootedMachine
    tracer: Tracer
    array: TraceArray

    def all(self) -> list[TraceEventFile]:
        """The files of every event of the array, in the order of the events' numbers."""
        return list(self.array.files.values())

    def names(self, enabled: bool) -> bytes:
        """``group:event`` lines, of all or of those that are on."""
        lines = (f"{f.event.system}:{f.event.name}\n" for f in self.all() if f.enabled or not enabled)
        return "".join(lines).encode()

    def open_set_event(self, flags: int) -> None:
        """``ftrace_event_set_open()``: O_TRUNC turns all events off."""
        if truncates(flags):
            self.tracer.enable([file for file in self.all() if file.enabled], False)

    def store_set_event(self, data: bytes) -> int:
        """``ftrace_event_write()``: one name; what follows is left to the next write. Raises EINVAL."""
        if data:
            self.tracer.update_buffers(self.array)
        match = _WORD.match(data)
        assert match
        word = match[1].decode("latin-1")
        if word:
            name = word.removeprefix("!")
            if not name or not set_clr_event(self.tracer, self.array, name, name == word):
                fail(errno.EINVAL)
        return match.end()

    def enable(self, files: Callable[[], list[TraceEventFile]], single: bool = False) -> SeqOperations:
        """The ``enable`` file of some events, or of a ``single`` one."""

        def store(data: bytes) -> int:
            value = kstrtoul_from_user(data, 10, self.tracer.word.bits)
            if value <= 1 or not (single and self.tracer.abi.expands_each):
                self.tracer.update_buffers(self.array)
            if value > 1:
                fail(errno.EINVAL)
            self.tracer.enable(files(), value == 1)
            return len(data)

        return SeqOperations(lambda: state(files()), store)

    def filter(self, file: TraceEventFile) -> SeqOperations:
        """The ``filter`` file of one event."""

        def show() -> bytes:
            text = "none" if file.filter_string is None else file.filter_string
            return f"{text}\n".encode("latin-1")

        def store(data: bytes) -> int:
            return self._set_filter(data, partial(self.array.set_filter, file))

        return SeqOperations(show, store, kind=FilterFile)

    def system_filter(self, system: Subsystem) -> SeqOperations:
        """The ``filter`` file of a group."""

        def store(data: bytes) -> int:
            return self._set_filter(data, partial(self.array.set_subsystem_filter, system))

        return SeqOperations(_SYSTEM_FILTER.encode, store, kind=FilterFile)

    def _set_filter(self, data: bytes, apply: Callable[[str, int], None]) -> int:
        """``event_filter_write()``. Raises EINVAL, EPERM, ENOENT, ESRCH."""
        if len(data) >> self.machine.memory.layout.page_shift:
            fail(errno.EINVAL)
        try:
            apply(c_string(data).rstrip(SPACE), self.machine.clock.now())
        except FilterError as error:
            fail(error.errno)
        return len(data)


def add_events(
    directory: Directory, machine: BootedMachine, tracer: Tracer, array: TraceArray, both: int, read: int
) -> None:
    """``event_trace_add_tracer()``; ``both`` and ``read`` are the modes of files to write and to read."""
    files = EventFiles(machine, tracer, array)
    if array is tracer.arrays[0]:
        directory.file("available_events", read, SeqOperations(partial(files.names, False)))
    set_event = SeqOperations(partial(files.names, True), files.store_set_event, on_open=files.open_set_event)
    directory.file("set_event", both, set_event)
    mode = 0o750 if tracer.abi.restricts_event_directories else 0o755
    events = directory.subdir("events", mode)
    events.file("enable", both, files.enable(files.all))
    for system in array.subsystems:
        group = events.subdir(system.name, mode)
        group.file("enable", both, files.enable(partial(list, system.files)))
        group.file("filter", both, files.system_filter(system))
        for file in sorted(system.files, key=lambda file: file.event.name):
            event = group.subdir(file.event.name, mode)
            event.file("enable", both, files.enable(partial(list, [file]), single=True))
            event.file("filter", both, files.filter(file))
            event.file("format", read, SeqOperations(partial(_format, tracer, file)))
            event.file("id", read, SeqOperations(partial(_id, file)))


def _format(tracer: Tracer, file: TraceEventFile) -> bytes:
    return file.event.format(tracer.word).encode()


def _id(file: TraceEventFile) -> bytes:
    return f"{file.event.id}\n".encode()
