"""What a kernel log says of failed requests to CMA: any release from 3.5 to 7.2, with whatever else is in it.

Lines may carry dmesg's, syslog's or logcat's stamps, and others may stand between those that belong together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cmafs.lib.kstrtox import simple_strtoll, simple_strtoull

#: Lines after a failure among which the one who asked may complain.
NEARBY = 12
#: Characters of a line that are looked at: many times what a kernel prints in one.
MAX_LINE = 1 << 14

_STAMP = re.compile(r"\[\s*(\d+\.\d+)\]")
#: Who printed a line (CONFIG_PRINTKCALLER): a task or a CPU.
CALLER = re.compile(r"\[\s*([TC]\d+)\]")
_VERSION = re.compile(r"Linux version (\d+\.\S+)")
_FUNCTIONS = r"(?:cma: )?(?P<function>\w*cma_alloc\w*|dma_alloc_from_contiguous|cma_range_alloc)"
_FAILED = re.compile(
    rf"{_FUNCTIONS}: (?:(?P<area>.+?): )?alloc failed, req-size: (?P<pages>\d+) pages, ret: (?P<error>-?\d+)"
)
_ENTRY = re.compile(
    rf"{_FUNCTIONS}\(cma \S+, (?:name: (?P<area>.+?), )?count (?P<pages>\d+), align (?P<align>\d+)\)"
)
_RETURNED = re.compile(rf"{_FUNCTIONS}\(\): returned +(?P<page>\(null\)|[0-9a-fx]+|\(____ptrval____\))")
_BUSY = re.compile(rf"{_FUNCTIONS}\(\): memory range at .* is busy, retrying")
_PFNS_BUSY = re.compile(
    r"(?:\[(?P<low>[0-9a-f]+), (?P<high>[0-9a-f]+)\) PFNs busy"
    r"|test_pages_isolated\((?P<old_low>[0-9a-f]+), (?P<old_high>[0-9a-f]+)\) failed)"
)
AVAILABLE = re.compile(r"number of available pages: *(?P<holes>[\d@+]*)")
_RANGE = re.compile(r"cma: range \d+: *(?P<holes>[\d@+]*)")
#: The end of a list of holes.
TOTAL = re.compile(r"=> (?P<free>\d+) free of (?P<total>\d+) total pages")
HOLE = re.compile(r"(\d+)@(\d+)")
_COMM = re.compile(r"\bPID: (?P<pid>\d+) .*?Comm: (?P<comm>\S+)|\bComm: (?P<only>\S+)")
_COMPLAINT = re.compile(
    r"(?=.*(?:fail|unable|cannot|can't|could not|couldn't|out of memory|ENOMEM|-12\b|-16\b|\berror\b))"
    r"(?=.*(?:alloc|buffer|memory|dma|cma|\bbo\b|gem))",
    re.IGNORECASE,
)
_SUPPRESSED = re.compile(rf"{_FUNCTIONS}: (?P<count>\d+) callbacks suppressed")
_RESERVED = re.compile(
    r"cma: (?:CMA: )?[Rr]eserved (?P<mib>\d+) MiB at"
    r"|Reserved memory: created CMA memory pool at 0x[0-9a-f]+, size (?P<pool>\d+) MiB"
)
_BOOT_PROBLEM = re.compile(
    r"cma: (?:Failed to reserve \d+ \w+.*|CMA area .* could not be activated|Not enough slots.*)"
    r"|(?:Reserved memory|OF: reserved mem): (?:.*incorrect alignment of CMA.*|failed to .*|bypass .*node.*)"
)


@dataclass(eq=False)
class LogFailure:
    """A request that failed: ``line`` in the log, pages, and whatever else the log says of it.

    ``error`` is negative, 0 where the log gives none; ``align`` an order; ``holes`` (pages, bit) or None
    where they are not listed; ``busy`` windows that were tried in vain; ``asked_by`` in the log's words.
    """

    line: int
    stamp: str
    function: str
    area: str
    pages: int
    error: int
    align: int | None = None
    free: int | None = None
    total: int | None = None
    holes: list[tuple[int, int]] | None = None
    busy: int = 0
    asked_by: str = ""

    @property
    def largest(self) -> int | None:
        """Pages of the largest hole listed."""
        return None if self.holes is None else max((pages for pages, _ in self.holes), default=0)


@dataclass(eq=False)
class LogReport:
    """A whole log: failures in order, ``busy`` windows of no failure in it, and what went wrong at boot.

    ``areas``: sizes in MiB that boot reserved; ``suppressed``: failure lines that the kernel did not print.
    """

    release: str = ""
    failures: list[LogFailure] = field(default_factory=list)
    busy: int = 0
    suppressed: int = 0
    areas: list[int] = field(default_factory=list)
    boot_problems: list[str] = field(default_factory=list)


def _number(text: str) -> int:
    return simple_strtoull(text, 10)[0]


class _Reader:
    """One pass over the lines.

    ``_entry``: the debug line of a request that has no answer yet; ``_unnamed`` gets the list of holes of
    such a request, whose failure line the rate limit may have taken; ``_listed``: who gets the next list.
    """

    def __init__(self) -> None:
        self.report = LogReport()
        self._entry: re.Match[str] | None = None
        self._answered = False
        self._busy = 0
        self._listed: LogFailure | None = None
        self._unnamed: LogFailure | None = None

    def line(self, number: int, text: str) -> None:
        """Take one line."""
        report = self.report
        if found := _VERSION.search(text):
            report.release = found[1]
        elif found := _FAILED.search(text):
            self._failed(number, text, found, simple_strtoll(found["error"], 10)[0])
        elif found := _ENTRY.search(text):
            self._entry, self._answered, self._busy = found, False, 0
            self._listed = self._unnamed = LogFailure(number, "", "", "", 0, 0)
        elif found := _RETURNED.search(text):
            self._returned(number, text, found)
        elif _BUSY.search(text) or _PFNS_BUSY.search(text):
            self._busy += 1
            report.busy += 1
        elif found := _SUPPRESSED.search(text):
            report.suppressed += _number(found["count"])
        elif found := _RESERVED.search(text):
            report.areas.append(_number(found["mib"] or found["pool"]))
        elif found := _BOOT_PROBLEM.search(text):
            report.boot_problems.append(found[0].strip())
        self._holes(text)

    def _failed(self, number: int, text: str, found: re.Match[str], error: int) -> None:
        pages = _number(found["pages"])
        entry = self._entry if self._entry and _number(self._entry["pages"]) == pages else None
        area = found["area"] or (entry["area"] if entry else None) or ""
        align = _number(entry["align"]) if entry else None
        stamp, caller = _STAMP.search(text), CALLER.search(text)
        failure = LogFailure(number, stamp[1] if stamp else "", found["function"], area, pages, error, align)
        failure.busy = self._busy
        if caller:
            kind = "task" if caller[1][0] == "T" else "interrupt on CPU"
            failure.asked_by = f"{kind} {caller[1][1:]}"
        self.report.failures.append(failure)
        self.report.busy -= self._busy
        self._answered, self._busy, self._listed = True, 0, failure

    def _returned(self, number: int, text: str, found: re.Match[str]) -> None:
        """A page: what was busy was passed by. None: before 4.11 the only sign of a failure."""
        none = not found["page"].strip("0x") or found["page"] == "(null)"
        if none and self._entry and not self._answered:
            self._failed(number, text, self._entry, 0)
            failure, listed = self.report.failures[-1], self._unnamed
            if listed is not None:
                failure.holes, failure.free, failure.total = listed.holes, listed.free, listed.total
        self._entry, self._busy = None, 0

    def _holes(self, text: str) -> None:
        failure = self._listed
        if failure is None:
            return
        for pattern in (AVAILABLE, _RANGE):
            if found := pattern.search(text):
                pieces = [(_number(n), _number(bit)) for n, bit in HOLE.findall(found["holes"])]
                failure.holes = (failure.holes or []) + pieces
        if found := TOTAL.search(text):
            failure.free, failure.total = _number(found["free"]), _number(found["total"])
            self._listed = None


def read_log(text: str) -> LogReport:
    """What a log says; lines are counted from 1."""
    lines = [line[:MAX_LINE] for line in text.splitlines()]
    reader = _Reader()
    for number, line in enumerate(lines, 1):
        reader.line(number, line)
    for failure in reader.report.failures:
        if failure.holes is not None and failure.free is None:
            failure.free = sum(pages for pages, _ in failure.holes)
        failure.asked_by = _who(lines, failure) or failure.asked_by
    return reader.report


def _who(lines: Sequence[str], failure: LogFailure) -> str:
    """The first complaint near a failure that is not the allocator's own, or the task of its stack dump."""
    said = ""
    for line in lines[failure.line : failure.line + NEARBY]:
        if _FAILED.search(line) or _ENTRY.search(line):
            break
        if found := _COMM.search(line):
            pid = f", pid {found['pid']}" if found["pid"] else ""
            return f"{found['comm'] or found['only']}{pid}"
        if not said and _COMPLAINT.match(line) and "cma: " not in line and not _PFNS_BUSY.search(line):
            said = f"the log goes on: {CALLER.sub('', _STAMP.split(line)[-1]).strip()!r}"
    return said
