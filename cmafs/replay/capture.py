"""What a capture of a real machine says: allocations and releases, from ftrace's text or the kernel log.

Read are the tracepoints of the group ``cma`` as ``trace``, ``trace_pipe``, ``trace-cmd report`` and ``perf
script`` print them, in every layout from 4.4 to 7.2 (``include/trace/events/cma.h``, abi.trace), and the
lines that ``mm/cma.c`` prints with debugging on (abi.cma). All else is noise and passed over. Where a capture
has both, the tracepoints count: the log hides addresses.

Positions are pfns, counts pages. Lines are numbered from 1.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from cmafs.board.klog import AVAILABLE, CALLER, HOLE, TOTAL
from cmafs.lib.kstrtox import kstrtoll, kstrtoull

#: Kinds of an event: an allocation begins, passes a busy range, ends; a release; a list of an area's holes;
#: events are missing here.
START, BUSY, ALLOC, RELEASE, HOLES, LOST = "start", "busy", "alloc", "release", "holes", "lost"
#: Allocations that may be under way at once; older ones were refused.
MAX_OPEN = 64
#: Pages of the largest physical address, 2^52 bytes, and the highest order of an unsigned long.
MAX_PFN, MAX_ORDER = 1 << 40, 63


class Event(NamedTuple):
    """One line that counts.

    ``area``: a name, or in the log of old kernels the address of ``struct cma``; None if not told.
    ``pfn``: None for a failure, and in the log, which has ``page`` instead: an address, mostly hashed.
    ``pages``: how many, None where a kernel's line leaves it out. ``align``: an order. ``error``: 0 or a
    negative errno, None if not told. ``task``: whoever acts, as text to tell apart by. ``available``,
    ``total``: the area's pages, where told. ``holes``: (pages, bit) of each.
    """

    line: int
    kind: str
    area: str | None = None
    pfn: int | None = None
    pages: int | None = None
    align: int = 0
    error: int | None = None
    task: str = ""
    page: str | None = None
    available: int | None = None
    total: int | None = None
    holes: tuple[tuple[int, int], ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is an allocation or a release."""
        return self.kind in (ALLOC, RELEASE)

    @property
    def logged(self) -> bool:
        """Whether it is of the log and not of ftrace."""
        return self.page is not None or self.kind == HOLES

    @property
    def failed(self) -> bool:
        """Whether the kernel had no pages to give."""
        return self.pfn is None and (self.page is None or _is_null(self.page))


#: The colours of a terminal; what a task wrote into the trace, whatever that was.
_COLOUR = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
_MARK = re.compile(r"(?:tracing_mark_write|print|bprint|bputs): ")
_EVENT = re.compile(r"cma_(alloc(?:_start|_finish|_busy_retry)?|release):\s+(?=name=|pfn=)")
_FIELDS = re.compile(
    r"(?:name=(.*?)\s+)?pfn=(?:0x)?([0-9a-f]+)\s+page=\s*(\S+)\s+count=(\d+)"
    r"(?:\s+align=(\d+))?(?:\s+errorno=(-?\d+))?\s*(?:\*/\s*)?\Z",
    re.DOTALL,
)
_STARTS = re.compile(
    r"name=(.*?)\s+(?:request_)?count=(\d+)"
    r"(?:\s+available_count=(\d+)\s+total_count=(\d+))?\s+align=(\d+)\s*(?:\*/\s*)?\Z",
    re.DOTALL,
)
_KINDS = {
    "alloc": ALLOC,
    "alloc_finish": ALLOC,
    "alloc_start": START,
    "alloc_busy_retry": BUSY,
    "release": RELEASE,
}
#: ``sh-47 [000]`` (``trace``, ``trace-cmd``), also with a thread group in between, ``sh 47 [000]`` and
#: ``sh 47/47`` (``perf``), there also without the CPU, or ``sh-47 0d..1`` (the latency format).
_TASK = re.compile(
    r"[-\s/](\d+)\s+(?:\([ \d-]+\)\s+)?\[\d+\]|-(\d+)\s+\d+[.a-zA-Z]|\s(?:\d+/)?(\d+)\s+\d+\.\d+:"
)
_UNFINISHED = re.compile(r"\bcma_\w+: +name=\S*\Z")
_GAP = re.compile(r"\[LOST \d+ EVENTS\]|\[\d+ EVENTS DROPPED\]|\bLOST \d+ events")
_WRITTEN = re.compile(r"# entries-in-buffer/entries-written: (\d+)/(\d+)")

_VERSION = re.compile(r"Linux version (\d+\.\d+(?:\.\d+)?)")
_ENTRY = re.compile(r"\b_*cma_alloc\w*\(cma (\S+?),(?: name: (.*?),)? count (\d+), align (-?\d+)\)")
_RETURNED = re.compile(r"\b_*cma_alloc\w*\(\): returned\s+(\S+)")
_BUSY = re.compile(r"\b_*cma_\w+\(\): memory range at (?:pfn 0x([0-9a-f]+) )?(\S+) is busy")
_RELEASE = re.compile(r"\b_*cma_release\w*\(page\s+(\(\S+?\)|[^\s,)]+)(?:, count (\d+))?\)")
_POOL = re.compile(
    r"cma *: Reserved (?P<size>\d+) (?P<unit>[KM])iB at (?:0x)?(?P<base>[0-9a-f]+)"
    r"|created CMA memory pool at 0x(?P<base2>[0-9a-f]+), size (?P<size2>\d+) (?P<unit2>[KM])iB"
)


def _is_null(page: str) -> bool:
    return page.removeprefix("0x").strip("0") == "" or page in ("(null)", "(nil)")


def hides(page: str) -> bool:
    """Whether an address is no more than a placeholder, alike for all: ``%p`` before the kernel had a key."""
    return page.startswith("(")


@dataclass(eq=False)
class Facts:
    """What a capture says of the machine besides its events.

    ``traced``, ``logged``: events of ftrace, of the log; ``layout``: the newest layout seen (``old``,
    ``named``, ``errno``, ``counts``); ``pools``: (base, size) in bytes of each area that the boot log made;
    ``total``: pages of an area, from a list of holes; ``damaged``: the first line that ends in mid-event;
    ``gaps``: places where events are missing; ``release``: the kernel's, where the log begins with it;
    ``uncounted``: releases of the log that do not say how much.
    """

    traced: int = 0
    logged: int = 0
    layout: str = ""
    pools: list[tuple[int, int]] = field(default_factory=list)
    total: int | None = None
    damaged: int | None = None
    gaps: int = 0
    release: str = ""
    uncounted: int = 0


#: Layouts, oldest first, and a kernel that prints each.
LAYOUTS = {"": "6.12", "old": "5.10", "named": "6.6", "errno": "6.12", "counts": "7.2"}
RANKS = {layout: rank for rank, layout in enumerate(LAYOUTS)}


class Reader:
    """Lines to events; ``facts`` grow as it reads. ``source``: read only ``trace`` or ``log``, None both."""

    def __init__(self, source: str | None = None) -> None:
        self.facts = Facts()
        self._source = source
        self._entries: list[Event] = []

    def events(self, lines: Iterable[str]) -> Iterator[Event]:
        """The events of a text, one line at a time. Raises ValueError for what is no text."""
        unfinished, begun = "", 0
        for number, line in enumerate(lines, 1):
            if "cma" not in line and not unfinished:
                if self._gap(line):
                    yield Event(number, LOST)
                elif "Linux version" in line and (found := _VERSION.search(line)):
                    self.facts.release = found[1]
                continue
            if "\x1b" in line:
                line = _COLOUR.sub("", line)
            if "\0" in line.strip("\0\r\n"):  # around a line a serial line leaves some
                raise ValueError(f"line {number}: not text")
            if unfinished:  # areas that boot left without a name have one that ends in a newline
                line, unfinished = f"{unfinished} {line}", ""
            elif _UNFINISHED.search(line.rstrip("\n")):
                unfinished, begun = line.rstrip("\n"), number
                continue
            yield from self._line(begun or number, line)
            begun = 0
        if unfinished:
            yield self._cut(begun)

    def _gap(self, line: str) -> bool:
        if "entries-written" in line and (match := _WRITTEN.search(line)):
            missing = match[1] != match[2]
        else:
            missing = ("LOST" in line or "DROPPED" in line) and _GAP.search(line) is not None
        self.facts.gaps += missing
        return missing

    def _cut(self, number: int) -> Event:
        self.facts.damaged = self.facts.damaged or number
        self.facts.gaps += 1
        return Event(number, LOST)

    def _line(self, number: int, line: str) -> Iterator[Event]:
        try:
            yield from self._event(number, line)
        except OSError:  # a number that none is in the kernel
            yield self._cut(number)

    def _event(self, number: int, line: str) -> Iterator[Event]:
        if self._source != "log" and (found := _tracepoint(line)):
            self.facts.traced += 1
            yield self._traced(number, line, found)
        elif self._source != "trace" and (logged := self._logged(number, line)):
            self.facts.logged += logged.counts
            yield logged

    def _traced(self, number: int, line: str, found: re.Match[str]) -> Event:
        kind = _KINDS[found[1]]
        match = (_STARTS if kind == START else _FIELDS).match(line, found.end())
        if not match:
            return self._cut(number)
        task = _TASK.search(line[: found.start()].lstrip())
        pid = (task[1] or task[2] or task[3]) if task else ""
        if kind == START:
            name, count, available, total, align = match.groups()
            self._see("counts" if total else "named")
            told = _number(available), _number(total)
            return Event(number, START, name, None, _number(count), _order(align), None, pid, None, *told)
        name, pfn, page, count, align, error = match.groups()
        self._see("old" if name is None else "errno" if error else "named")
        failed = kind == ALLOC and (_is_null(page) if error is None else error != "0")
        place = None if failed else _pfn(pfn)
        code = 0 if not failed else None if error is None else kstrtoll(error, 10)
        return Event(number, kind, name, place, _number(count), _order(align), code, pid)

    def _see(self, layout: str) -> None:
        if layout != self.facts.layout and RANKS[layout] > RANKS[self.facts.layout]:
            self.facts.layout = layout

    def _logged(self, number: int, line: str) -> Event | None:
        """The event of a line of the log; an allocation is told by its last line."""
        caller = CALLER.search(line)
        task = caller[1] if caller else ""
        if match := _ENTRY.search(line):
            name, pages, align = match[2] or match[1], _number(match[3]), _order(match[4])
            self._entries.append(Event(number, START, name, None, pages, align, task=task))
            return None
        if match := _RETURNED.search(line):
            return self._returned(number, match[1], task)
        if match := _RELEASE.search(line):
            self.facts.uncounted += match[2] is None
            return Event(number, RELEASE, pages=_number(match[2]), page=match[1], task=task)
        if match := _BUSY.search(line):
            pfn = _pfn(match[1]) if match[1] else None
            return Event(number, BUSY, pfn=pfn, page=match[2], task=task)
        return self._pool(number, line, task)

    def _returned(self, number: int, page: str, task: str) -> Event | None:
        """The end of a task's newest allocation: one that was refused at once has no such line."""
        entry = next((entry for entry in reversed(self._entries) if entry.task == task), None)
        if entry is None:
            return self._cut(number)
        self._entries.remove(entry)
        del self._entries[:-MAX_OPEN]
        return entry._replace(line=number, kind=ALLOC, page=page)

    def _pool(self, number: int, line: str, task: str) -> Event | None:
        """What the boot says of an area; the list of holes that a failure prints before it returns."""
        if match := _POOL.search(line):
            kib = 1024 if (match["unit"] or match["unit2"]) == "M" else 1
            size = _pages(match["size"] or match["size2"]) * kib << 10
            self.facts.pools.append((kstrtoull(match["base"] or match["base2"], 16), size))
        elif match := TOTAL.search(line):
            self.facts.total = total = _pages(match["total"])
            if listed := AVAILABLE.search(line):
                entry = next((entry for entry in reversed(self._entries) if entry.task == task), None)
                holes = tuple((_pages(n), _pages(bit)) for n, bit in HOLE.findall(listed["holes"]))
                area = entry.area if entry else None
                return Event(number, HOLES, area, task=task, total=total, holes=holes)
        return None


def _tracepoint(line: str) -> re.Match[str] | None:
    """The name of a tracepoint of ours, wherever in a line it stands: a task may be called alike."""
    at = line.find("cma_")
    while at >= 0:
        match = _EVENT.match(line, at)
        if match and not (at and (line[at - 1].isalnum() or line[at - 1] == "_")):
            return None if _MARK.search(line, 0, at) else match
        at = line.find("cma_", at + 1)
    return None


@lru_cache(maxsize=1 << 12)
def _pages(text: str) -> int:
    return _checked(kstrtoull(text, 10), MAX_PFN)


def _number(text: str | None) -> int | None:
    return None if text is None else _pages(text)


def _order(text: str | None) -> int:
    return 0 if text is None else _checked(kstrtoull(text, 10), MAX_ORDER)


@lru_cache(maxsize=1 << 16)
def _pfn(text: str) -> int:
    return _checked(kstrtoull(text, 16), MAX_PFN)


def _checked(value: int, most: int) -> int:
    if value > most:
        raise OSError(errno.ERANGE, "more than any kernel has")
    return value
