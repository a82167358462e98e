"""Trace rows: the tracepoints and the tracer's text. See cmafs.abi; each field has its citation.

T marks what a transcript shows, H what a running 6.18 answered, V what was read in the source of the release
named, P what is known from change logs (the row may be one off), D what was derived.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.abi.rows import Rows
from cmafs.abi.trace_event import DATA_LOC, TraceEvent

_NAME = (DATA_LOC, "name")
_PFN = ("unsigned long", "pfn")
_PAGE = ("const struct page *", "page")
_COUNT = ("unsigned long", "count")
_ALIGN = ("unsigned int", "align")
_ULONG_5_10 = "unsigned int"


def _cma_until_5_12(first_id: int) -> tuple[TraceEvent, ...]:
    """The two events of 4.1 to 5.12 (T 5.10); the linker numbers them in reverse order of their declaration
    (T).
    """
    count = (_ULONG_5_10, "count")
    return (
        TraceEvent(
            "cma",
            "cma_release",
            first_id,
            (_PFN, _PAGE, count),
            '"pfn=%lx page=%p count=%u", REC->pfn, REC->page, REC->count',
        ),
        TraceEvent(
            "cma",
            "cma_alloc",
            first_id + 1,
            (_PFN, _PAGE, count, _ALIGN),
            '"pfn=%lx page=%p count=%u align=%u", REC->pfn, REC->page, REC->count, REC->align',
        ),
    )


def _cma_from_5_13(
    first_id: int, errorno: bool = False, request_count: bool = False
) -> tuple[TraceEvent, ...]:
    """The four events of 5.13 on (``pfn=0x`` from 5.14; T 6.1).

    ``errorno``: cma_alloc_finish says why (T 6.6.87, not 6.1). ``request_count``: cma_alloc_start says what
    is there (6.18; T).
    """
    recorded = "__get_str(name), REC->pfn, REC->page, REC->count, REC->align"
    retry_fmt = f'"name=%s pfn=0x%lx page=%p count=%lu align=%u", {recorded}'
    finish_fields: tuple[tuple[str, str], ...] = (_NAME, _PFN, _PAGE, _COUNT, _ALIGN)
    finish_fmt = retry_fmt
    if errorno:
        finish_fields = (*finish_fields, ("int", "errorno"))
        finish_fmt = retry_fmt.replace('align=%u"', 'align=%u errorno=%d"') + ", REC->errorno"
    start_fields: tuple[tuple[str, str], ...] = (_NAME, _COUNT, _ALIGN)
    start_fmt = '"name=%s count=%lu align=%u", __get_str(name), REC->count, REC->align'
    if request_count:
        counts = ("request_count", "available_count", "total_count")
        start_fields = (_NAME, *(("unsigned long", name) for name in counts), _ALIGN)
        shown = " ".join(f"{name}=%lu" for name in counts)
        recorded = ", ".join(f"REC->{name}" for name in counts)
        start_fmt = f'"name=%s {shown} align=%u", __get_str(name), {recorded}, REC->align'
    return (
        TraceEvent("cma", "cma_alloc_busy_retry", first_id, (_NAME, _PFN, _PAGE, _COUNT, _ALIGN), retry_fmt),
        TraceEvent("cma", "cma_alloc_finish", first_id + 1, finish_fields, finish_fmt),
        TraceEvent("cma", "cma_alloc_start", first_id + 2, start_fields, start_fmt),
        TraceEvent(
            "cma",
            "cma_release",
            first_id + 3,
            (_NAME, _PFN, _PAGE, _COUNT),
            '"name=%s pfn=0x%lx page=%p count=%lu", __get_str(name), REC->pfn, REC->page, REC->count',
        ),
    )


_TEST_PAGES_ISOLATED = (
    '"start_pfn=0x%lx end_pfn=0x%lx fin_pfn=0x%lx ret=%s", REC->start_pfn, REC->end_pfn, REC->fin_pfn, '
    'REC->end_pfn <= REC->fin_pfn ? "success" : "fail"'
)
_MODES = '{0, "MIGRATE_ASYNC"}, {1, "MIGRATE_SYNC_LIGHT"}, {2, "MIGRATE_SYNC"}'
_REASONS = (
    "compaction",
    "memory_failure",
    "memory_hotplug",
    "syscall_or_cpuset",
    "mempolicy_mbind",
    "numa_misplaced",
)


def _page_isolation(event_id: int) -> TraceEvent:
    """The one event of its group (T 4.15 on, not 4.4.155)."""
    fields = tuple(("unsigned long", name) for name in ("start_pfn", "end_pfn", "fin_pfn"))
    return TraceEvent("page_isolation", "test_pages_isolated", event_id, fields, _TEST_PAGES_ISOLATED)


def _migrate(event_id: int, counts: tuple[tuple[str, str], ...], reasons: tuple[str, ...]) -> TraceEvent:
    """mm_migrate_pages: ``counts`` are (field, label in the text); ``reasons`` are ``enum
    migrate_reason``'s names (H).
    """
    fields = tuple(("unsigned long", name) for name, _ in counts)
    named = ", ".join(f'{{{number}, "{reason}"}}' for number, reason in enumerate(reasons))
    text = " ".join(f"{label}=%lu" for _, label in counts)
    recorded = ", ".join(f"REC->{name}" for name, _ in counts)
    return TraceEvent(
        "migrate",
        "mm_migrate_pages",
        event_id,
        (*fields, ("enum migrate_mode", "mode"), ("int", "reason")),
        f'"{text} mode=%s reason=%s", {recorded}, '
        f"__print_symbolic(REC->mode, {_MODES}), __print_symbolic(REC->reason, {named})",
    )


_SUCCEEDED = (("succeeded", "nr_succeeded"), ("failed", "nr_failed"))
_THP = (("thp_succeeded", "nr_thp_succeeded"), ("thp_failed", "nr_thp_failed"), ("thp_split", "nr_thp_split"))
_SPLIT = (("large_folio_split", "nr_split"),)


#: The column heads of ``trace``, from the first flag on. Source:
#: ``kernel/trace/trace.c:print_func_help_header_irq()``.
_HEADER_4_4 = """\
#                              _-----=> irqs-off
#                             / _----=> need-resched
#                            | / _---=> hardirq/softirq
#                            || / _--=> preempt-depth
#                            ||| /     delay
#           TASK-PID   CPU#  ||||    TIMESTAMP  FUNCTION
#              | |       |   ||||       |         |
"""
_HEADER_5_10 = """\
#                                _-----=> irqs-off
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| /     delay
#           TASK-PID     CPU#  ||||   TIMESTAMP  FUNCTION
#              | |         |   ||||      |         |
"""
_HEADER_5_15 = """\
#                                _-----=> irqs-off
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""


@dataclass(frozen=True)
class TraceAbi:
    """One row.

    ``events``: the tracepoints, in the order of their numbers.
    ``hashes_pointers``: ``%p`` is hashed as in the log (T 4.15 to 5.4, from 5.15 with option ``hash-ptr``);
    the address itself in 5.10 (T; efbbdaa22bb7, P) and 4.4 (T).
    ``char_signed``: ``char`` is signed on x86: until -funsigned-char (6.2, P; T 6.1 signed, 6.12 not).
    ``pid_width``: columns of the PID (7 from 5.4 on, 795d6379a47b; T 5.4.286, not 4.19).
    ``migrate_disable_column``: a fifth flag (5.15, P 54357f0c9149; T 6.1).
    ``column_heads``: the end of the header (T 5.10, 6.1; BH added in 5.17, P 289e7b0f7eb4; 4.4 from its
    documentation).
    ``marker_preempt_count``: a write to trace_marker is made with preemption off (6.18; H).
    ``restricts_others``: files are 0640 and 0440 (5.16, P 21ccc9cd7211; H), before 0644 and 0444.
    ``counts_entries``: the header says how many entries there are; not in 4.15 (T 4.15.0, T 4.19.72).
    ``restricts_directories``: directories are 0750 (5.17, 49d67e445742, in the stable releases of November
    2021, P; T 5.4.286, not 5.15.0); those of events no more once eventfs has them (6.6, T).
    ``size_in_subbuffers``: buffer_size_kb shows whole sub-buffers of the ring (6.6, P 6d98a0f2ac3c; in stable
    releases of October 2023, P; T 5.10.223, V 6.1.192).
    ``marker_bytes``: TRACE_MARKER_MAX_SIZE, what one write to trace_marker may bring (6.8, P 8ec90be7f15f; V
    6.12), before TRACE_BUF_SIZE (V 6.1).
    ``strips_tracer``: blanks before the name of a tracer are no part of it (V 6.1, not 5.10).
    ``expands_each``: what switches events gives the ring of their own array its size, else the top one's, and
    ``enable`` of one event only after its number was found good (6.7, P a1f157c7a3bb; V 6.12, not 6.1).
    ``error_log``: the file ``error_log`` (5.2, P), and filters are parsed as since 4.17.
    ``error_log_bytes``: MAX_FILTER_STR_VAL, what the command and its newlines are cut to there, and the place
    is an u8 (T 5.10); 0: not cut (V 6.1).
    ``filter_globs``: ``~`` takes whole globs (4.10, P 60f1d5e3bac4; not in 4.9, V 4.18).
    ``filter_index``: after ``~`` what begins with a digit is no pattern (5.1, P f79b3f338564; not in 4.18,
    V 5.10.13).
    """

    events: tuple[TraceEvent, ...]
    hashes_pointers: bool
    char_signed: bool
    pid_width: int
    migrate_disable_column: bool
    column_heads: str
    marker_preempt_count: int
    restricts_others: bool
    restricts_directories: bool
    restricts_event_directories: bool
    counts_entries: bool
    size_in_subbuffers: bool
    marker_bytes: int
    strips_tracer: bool
    expands_each: bool
    error_log: bool
    error_log_bytes: int
    filter_globs: bool
    filter_index: bool


def _with_walk(
    cma: tuple[TraceEvent, ...], counts: tuple[tuple[str, str], ...], reasons: tuple[str, ...]
) -> tuple[TraceEvent, ...]:
    """cma's events, and before them those that the walk of alloc_contig_range() shows, as mm/ is linked (T
    6.12); the numbers of these are ours (D).
    """
    first = min(event.id for event in cma)
    return (_migrate(first - 2, counts, reasons), _page_isolation(first - 1), *cma)


_CMA_REASON = (*_REASONS, "cma")
_CONTIG_REASON = (*_REASONS, "contig_range")
_PINNED_REASON = (*_CONTIG_REASON, "longterm_pin")
_RESTRICTED = {"restricts_directories": True, "restricts_event_directories": True}

ROWS = Rows(
    TraceAbi(
        events=(_migrate(159, _SUCCEEDED, _CMA_REASON), *_cma_until_5_12(160)),
        hashes_pointers=False,
        char_signed=True,
        pid_width=5,
        migrate_disable_column=False,
        column_heads=_HEADER_4_4,
        marker_preempt_count=0,
        restricts_others=False,
        restricts_directories=False,
        restricts_event_directories=False,
        counts_entries=True,
        size_in_subbuffers=False,
        marker_bytes=1024,
        strips_tracer=False,
        expands_each=False,
        error_log=False,
        error_log_bytes=256,
        filter_globs=False,
        filter_index=False,
    ),
    {
        "4.4.293": _RESTRICTED,
        "4.15": {
            "events": _with_walk(_cma_until_5_12(227), _SUCCEEDED, _CMA_REASON),
            "filter_globs": True,
            "counts_entries": False,
            "hashes_pointers": True,
        },
        "4.19": {
            "events": _with_walk(_cma_until_5_12(223), _SUCCEEDED, _CONTIG_REASON),
            "counts_entries": True,
        },
        "4.19.218": _RESTRICTED,
        "5.4": {
            "error_log": True,
            "filter_index": True,
            "pid_width": 7,
            "column_heads": _HEADER_5_10,
        },
        "5.4.160": _RESTRICTED,
        "5.10": {
            "events": _with_walk(_cma_until_5_12(232), _SUCCEEDED + _THP, _CONTIG_REASON),
            "hashes_pointers": False,
        },
        "5.10.80": _RESTRICTED,
        "5.10.199": {"size_in_subbuffers": True},
        "5.15": {
            "events": _with_walk(_cma_from_5_13(231), _SUCCEEDED + _THP, (*_PINNED_REASON, "demotion")),
            "hashes_pointers": True,
            "migrate_disable_column": True,
            "column_heads": _HEADER_5_15,
        },
        "5.15.3": _RESTRICTED,
        "5.15.136": {"size_in_subbuffers": True},
        "6.1": {
            "events": _with_walk(_cma_from_5_13(260), _SUCCEEDED + _THP, (*_PINNED_REASON, "demotion")),
            "column_heads": _HEADER_5_15.replace("irqs-off", "irqs-off/BH-disabled"),
            **_RESTRICTED,
            "restricts_others": True,
            "strips_tracer": True,
            "error_log_bytes": 0,
        },
        "6.1.59": {"size_in_subbuffers": True},
        "6.6": {
            "events": _with_walk(
                _cma_from_5_13(265, errorno=True), _SUCCEEDED + _THP, (*_PINNED_REASON, "demotion")
            ),
            "char_signed": False,
            "size_in_subbuffers": True,
            "restricts_event_directories": False,
        },
        "6.12": {
            "events": _with_walk(
                _cma_from_5_13(299, errorno=True),
                _SUCCEEDED + _THP + _SPLIT,
                (*_PINNED_REASON, "demotion", "damon"),
            ),
            "marker_bytes": 4096,
            "expands_each": True,
        },
        "6.18": {
            "events": _with_walk(
                _cma_from_5_13(270, errorno=True, request_count=True),
                _SUCCEEDED + _THP + _SPLIT,
                (*_PINNED_REASON, "demotion", "damon"),
            ),
            "marker_preempt_count": 1,
        },
        "7.2": {
            "events": _with_walk(
                _cma_from_5_13(287, errorno=True, request_count=True),
                _SUCCEEDED + _THP + _SPLIT,
                (*_PINNED_REASON, "demotion", "damon"),
            ),
        },
    },
)
