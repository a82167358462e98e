"""The retries of ``cma_alloc()``: many windows that one page keeps busy, passed in one step.

A window is the range of pages that one try asks alloc_contig_range() for; after -EBUSY the next one begins an
alignment step further on. As long as it still holds the page in the way it is busy as well: one pin in a
large area is in the way of millions of windows. Of such a row of windows only the first is tried
(``Retries.pass_by``).

Why the others cannot end differently: nothing runs between the tries that could let go of the page. What they
would move out of their way all the same is moved at once, for the whole row (``migrate_contig_range()``).

What each of them leaves behind follows from where it begins, and how many there are:

- ``pgmigrate_fail``: five for each window that holds a page on which migration fails;
- events: the tracer is given the row as a whole, and makes only what its ring still holds in the end;
- ``PFNs busy`` lines: ``___ratelimit()`` says at once how many of the row it lets through, ten at most;
- debug lines: the row is kept until the search is over; then the log makes only those that its ring still
  holds, and counts the others.

Here a window is its first pfn, a row of windows a range of those.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

from cmafs.lib.printk import LOGLEVEL_DEBUG, LOGLEVEL_ERR, LOGLEVEL_INFO
from cmafs.mm.cma_report import page_address
from cmafs.mm.contig_alloc import (
    MIGRATE_TRIES,
    ContigBusy,
    isolated_range,
    migrate_contig_range,
    scan_range,
    tested_pages,
)
from cmafs.mm.migrate import COMPACT_CLUSTER_MAX, migration_fails
from cmafs.mm.mmzone import RepeatedEvent
from cmafs.mm.page_alloc import OutOfMemory
from cmafs.mm.walk import MR_CONTIG_RANGE, migrate_pages_event, step, test_pages_isolated_event

if TYPE_CHECKING:
    from cmafs.mm.cma_areas import Cma
    from cmafs.mm.mmzone import Memory, TraceFields

_NOBODY_MOVED = RepeatedEvent(*migrate_pages_event(0, 0, MR_CONTIG_RANGE), lambda _window: {})
_MIGRATION_FAILED = RepeatedEvent(*migrate_pages_event(0, 1, MR_CONTIG_RANGE), lambda _window: {})


class Retries:
    """The busy tries of one search, for ``count`` pages aligned to ``align`` (an order)."""

    def __init__(self, cma: Cma, count: int, align: int) -> None:
        self._cma, self._count, self._align = cma, count, align
        self._memory, self._log = cma.areas.memory, cma.areas.log
        self._debug = self._log.debug(cma.areas.abi.sites.busy)
        #: Of each row, oldest first: how many lines, and (text, level) of each, newest first.
        self._lines: list[tuple[int, Iterable[tuple[str, int]]]] = []

    def pass_by(self, busy: ContigBusy, windows: range) -> tuple[int, int]:
        """Goes past the page that kept the first of ``windows`` busy: (the window tried last, an errno).

        EBUSY: the search goes on with the window after that one. ENOMEM: there was no room to move to.
        """
        if busy.locked:
            locked = f"cma: migrate_pages failed, page {busy.pfn:#x} is locked"
            self._lines.append((1, [(locked, LOGLEVEL_ERR)]))
        self._leave_behind(windows[:1], [])
        row = windows[1 : len(range(windows[0], _busy_until(self._memory, busy) + 1, windows.step))]
        if not row:
            return windows[0], errno.EBUSY
        ahead = scan_range(self._memory, row[-1], row[-1] + self._count, len(row))
        if ahead.pages:
            row = self._moving_alike(row)
        step(self._memory, 0, f"cma_alloc(): {len(row)} more windows, up to {row[-1]:#x}, are busy as well")
        failing = busy.pfn if busy.failing else None
        try:
            if ahead.pages:
                ahead = migrate_contig_range(self._memory, row[-1], row[-1] + self._count, tries=len(row))
        except OutOfMemory as error:
            assert error.pfn is not None
            reached = self._ending_before(row, error.pfn)
            self._stay_busy(reached, failing)
            return row[len(reached)], errno.ENOMEM
        if failing is None and ahead.failing is not None:
            failing = ahead.failing[0]
        self._stay_busy(row, failing)
        return row[-1], errno.EBUSY

    def print(self) -> None:
        """The lines of all tries, once the search is over."""
        newest_first = chain.from_iterable(lines for _, lines in reversed(self._lines))
        self._log.printk_many(sum(count for count, _ in self._lines), newest_first)

    def _moving_alike(self, row: range) -> range:
        """The first windows of a row that has pages to move, as far as they together do what each would.

        Where pages move to follows from the page blocks that a window isolates. A window that reaches further
        than the one before by a batch or more may leave pages behind where a page fails to migrate.
        """
        if row.step >= COMPACT_CLUSTER_MAX:
            return row[:1]
        zone = self._memory.zone_of(row[0])

        def blocks(window: int) -> tuple[int, int]:
            return isolated_range(self._memory, zone, window, window + self._count)

        return row[: bisect_right(row, blocks(row[0]), key=blocks)]

    def _ending_before(self, row: range, pfn: int) -> range:
        """The windows of a row that do not reach so far as a page."""
        return row[: len(range(row.start, pfn - self._count + 1, row.step))]

    def _stay_busy(self, row: range, failing: int | None) -> None:
        """What windows leave behind that are not tried.

        ``failing``: the page on which migration fails in every window that reaches it, None: there is none.
        """
        quiet = row if failing is None else self._ending_before(row, failing)
        failed = row[len(quiet) :]
        self._leave_behind(quiet, [_NOBODY_MOVED, self._tested_event()])
        self._leave_behind(failed, [_MIGRATION_FAILED] * MIGRATE_TRIES + [self._tested_event()])
        self._memory.vmstat.count_vm_event("pgmigrate_fail", MIGRATE_TRIES * len(failed))

    def _leave_behind(self, row: range, walk: list[RepeatedEvent]) -> None:
        """The events and the lines of a row of windows; ``walk``: the events of alloc_contig_range()."""
        if not row:
            return
        self._trace(row, walk)
        printed = 0
        if self._memory.abi.reports_pfns_busy:
            printed = self._cma.areas.pfns_busy_limit.allow("alloc_contig_range", len(row))
        for window in row[:printed]:
            self._lines.append((1, [self._pfns_busy_line(window)]))
            self._keep_debug_lines(range(window, window + 1))
        self._keep_debug_lines(row[printed:])

    def _trace(self, row: range, walk: list[RepeatedEvent]) -> None:
        areas, events = self._cma.areas, walk if self._memory.trace is not None else []
        if areas.trace is not None and not areas.abi.alloc_event:
            same: TraceFields = {"name": self._cma.name, "count": self._count, "align": self._align}
            retry = RepeatedEvent("cma_alloc_busy_retry", same, lambda pfn: {"pfn": pfn, "page": pfn})
            events = [*events, retry]
        trace = areas.trace or self._memory.trace
        if trace is not None and events:
            trace.repeat(row, events)

    def _tested_event(self) -> RepeatedEvent:
        return RepeatedEvent(
            "test_pages_isolated", {}, lambda window: test_pages_isolated_event(*self._tested(window))[1]
        )

    def _tested(self, window: int) -> tuple[int, int, int]:
        return tested_pages(self._memory, self._memory.zone_of(window), window, window + self._count)

    def _pfns_busy_line(self, window: int) -> tuple[str, int]:
        start, end, _ = self._tested(window)
        return f"alloc_contig_range: [{start:x}, {end:x}) PFNs busy", LOGLEVEL_INFO

    def _keep_debug_lines(self, row: range) -> None:
        if self._debug:
            self._lines.append((len(row), map(self._debug_line, reversed(row))))

    def _debug_line(self, window: int) -> tuple[str, int]:
        site, shows_pfn = self._cma.areas.abi.sites.busy, self._cma.areas.abi.busy_shows_pfn
        page = self._log.hash_ptr(page_address(window))
        values = (site.function, window, page) if shows_pfn else (site.function, page)
        return self._log.debug_text(site, *values), LOGLEVEL_DEBUG


def _busy_until(memory: Memory, busy: ContigBusy) -> int:
    """The last pfn at which a window can begin that is busy for the same reason.

    As a rule this is the page in the way. But where many pages in a row fail to migrate, the first batch of a
    window that begins among them is full of such pages: it fails as well, and moves nothing.
    """
    end = busy.pfn
    while busy.failing and migration_fails(memory, end):
        end += 1
    return max(busy.pfn, end - COMPACT_CLUSTER_MAX)
