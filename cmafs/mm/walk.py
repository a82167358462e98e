"""The steps of an allocation from CMA in the names of the kernel's functions: ``cmafs trace-alloc``.

Positions are pfns. ``Memory.walk`` collects the lines; while it is None nothing is made of them.
``Memory.trace`` gets the kernel's own events of the same steps, those of ``include/trace/events/migrate.h``
and ``page_isolation.h``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cmafs.mm.mmzone import MIGRATETYPE_NAMES
from cmafs.mm.page_owner import Segment, contiguous

if TYPE_CHECKING:
    from cmafs.mm.mmzone import Event, Memory

#: ``enum migrate_reason``: numbers that have been the same since 4.1.
MR_COMPACTION, MR_CONTIG_RANGE = 0, 6
#: ``enum migrate_mode``
MIGRATE_SYNC = 2
#: How many runs of frames a line names.
_RUNS = 4


def step(memory: Memory, depth: int, text: str) -> None:
    """One line, ``depth`` calls below cma_alloc()'s first."""
    if memory.walk is not None:
        memory.walk.append("  " * (depth + 1) + text)


def step_isolate(memory: Memory, verb: str, low: int, high: int, migratetype: int) -> None:
    """Page blocks that change their type; ``verb`` start or undo."""
    if memory.walk is None:
        return
    own, isolated = f"MIGRATE_{MIGRATETYPE_NAMES[migratetype].upper()}", "MIGRATE_ISOLATE"
    change = f"{own} -> {isolated}" if verb == "start" else f"{isolated} -> {own}"
    blocks = (high - low) >> memory.pageblock_order
    text = (
        f"{verb}_isolate_page_range({low:#x}, {high:#x}): {blocks} page block{'s' * (blocks != 1)} {change}"
    )
    step(memory, 1, text)


def step_migrate(
    memory: Memory,
    window: tuple[int, int],
    moving: Sequence[tuple[int, int]],
    segments: Iterable[Segment],
    reclaimed: int,
) -> None:
    """What leaves the window, from where to where; ``reclaimed``: pages of cache dropped to make room."""
    start, end = window
    step(memory, 1, f"__alloc_contig_migrate_range({start:#x}, {end:#x}): {len(moving)} pages to move")
    if reclaimed:
        step(memory, 2, f"try_to_free_pages(): {reclaimed} pages of page cache dropped")
    if moving:
        source = _runs([pfn for pfn, _ in moving])
        target = _runs(sorted(pfn for _, _, first, n in segments for pfn in range(first, first + n)))
        step(memory, 2, f"migrate_pages(): {len(moving)} pages {source} -> {target}")


def _runs(pfns: list[int]) -> str:
    runs = [f"{pfn:#x}-{pfn + count - 1:#x}" for pfn, count in contiguous(pfns)]
    more = len(runs) - _RUNS
    return ",".join(runs[:_RUNS]) + (f",+{more}" if more > 0 else "")


def trace_migrate_pages(memory: Memory, calls: Iterable[tuple[int, int]], reason: int) -> None:
    """The event of each migrate_pages() call, as (pages that moved, pages that did not)."""
    if memory.trace is not None:
        for moved, left in calls:
            memory.trace(*migrate_pages_event(moved, left, reason))


def migrate_pages_event(succeeded: int, failed: int, reason: int) -> Event:
    """``mm_migrate_pages``, in pages; ``reason``: an MR_ constant. Huge pages are not modelled."""
    thp = dict.fromkeys(("thp_succeeded", "thp_failed", "thp_split", "large_folio_split"), 0)
    pages = {"succeeded": succeeded, "failed": failed, "mode": MIGRATE_SYNC, "reason": reason}
    return "mm_migrate_pages", {**pages, **thp}


def test_pages_isolated_event(start: int, end: int, fin: int) -> Event:
    """The event at the end of alloc_contig_range(); ``fin``: the first page that is not free, or ``end``."""
    return "test_pages_isolated", {"start_pfn": start, "end_pfn": end, "fin_pfn": fin}
