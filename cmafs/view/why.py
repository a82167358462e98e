"""Why requests to CMA failed, from a kernel log: what was asked, what there was, what helps."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from cmafs.abi import UnknownKernel, kernel_abi
from cmafs.board.klog import LogFailure, LogReport

#: Why a request failed.
TOO_SMALL, FRAGMENTED, BUSY, ALIGNED, NO_ROOM, UNCLEAR = (
    "too small",
    "fragmented",
    "busy",
    "alignment",
    "no room to move to",
    "unclear",
)
#: What each means, in words.
MEANING = {
    TOO_SMALL: "the request is larger than what the area has left",
    FRAGMENTED: "enough is free, but not in one piece: no hole is large enough",
    BUSY: "a hole was large enough, but pages of others in it could not move: pinned, or just in use",
    ALIGNED: "a hole is large enough, but not at an aligned place",
    NO_ROOM: "a hole was large enough: pages in it had nowhere to go, memory outside CMA was full",
    UNCLEAR: "the log does not say which",
}
#: What helps in general; without a copy of that machine none of it could be tried.
ADVICE = {
    TOO_SMALL: (
        "make the area larger: cma=SIZE on the command line, or `size` of its node; see `cmafs size`",
        "see who holds it: release buffers that are not used, ask for fewer or smaller ones",
    ),
    FRAGMENTED: (
        "allocate large buffers first, at start, and keep them",
        "give the large buffers an area of their own: a reserved-memory node, named by memory-region",
        "make the area larger; `cmafs size` finds how large for your order of requests",
    ),
    BUSY: (
        "try again a little later: pins are often short, and the kernel itself only tries each place once",
        "find who pins pages: O_DIRECT, RDMA, video from user memory; end it, or give it other memory",
        "echo 3 > /proc/sys/vm/drop_caches, if it is file I/O",
    ),
    ALIGNED: (
        "a request is aligned to its size, up to CONFIG_CMA_ALIGNMENT: lower that, or ask for smaller pieces",
        "make the area larger",
    ),
    NO_ROOM: (
        "free memory outside CMA: echo 3 > /proc/sys/vm/drop_caches, end tasks, or a smaller area",
        "make vm.min_free_kbytes larger, so that some is kept free",
    ),
}
ADVICE[UNCLEAR] = ADVICE[FRAGMENTED][:1] + ADVICE[TOO_SMALL][:1]
#: Bytes of a page where nothing else is known.
PAGE = 4096


def no_hole_is_busy(release: str, function: str) -> bool | None:
    """Whether this kernel says -16 also when nothing is large enough (6.15 on); None if that is not known."""
    try:
        return kernel_abi(".".join(release.split(".")[:2])).cma.no_hole_is_busy
    except UnknownKernel:
        if release:
            return False  # before the first that is known
    return None if function.startswith("__") else False


def reason(failure: LogFailure, release: str) -> str:
    """Why a request failed, one of the names above."""
    largest = failure.largest
    if failure.total is not None and failure.pages > failure.total:
        return TOO_SMALL
    if largest is not None and largest < failure.pages:
        return TOO_SMALL if failure.free is not None and failure.free < failure.pages else FRAGMENTED
    if failure.free is not None and failure.free < failure.pages:
        return TOO_SMALL
    if failure.busy and failure.error != -errno.ENOMEM:
        return BUSY
    no_hole = no_hole_is_busy(release, failure.function)
    if failure.error == -errno.EBUSY and (largest is not None or no_hole is False):
        return BUSY
    if failure.error == -errno.ENOMEM and largest is not None:
        return ALIGNED if failure.align else NO_ROOM
    return UNCLEAR


def explain_log(report: LogReport, last: int, page: int = PAGE) -> Iterator[str]:
    """The lines that explain the last failures of a log, and what else is in it; ``page``: bytes of one."""
    if report.release:
        yield f"kernel {report.release}"
    for problem in report.boot_problems:
        yield f"at boot: {problem}"
        yield "  `cmafs check` on the board's .dts and command line says why and what to write instead"
    shown = report.failures[-last:]
    if len(report.failures) > len(shown):
        yield f"{len(report.failures)} failures, the last {len(shown)}:"
    for failure in shown:
        yield from explain_failure(failure, report.release, page)
    if report.suppressed:
        yield f"{report.suppressed} more failure lines were suppressed by the kernel's rate limit"
    if report.busy:
        yield (
            f"{report.busy} windows were busy in requests without a failure line: harmless by themselves, "
            "the kernel goes on to the next place; if there are many, pages in the area are pinned"
        )
    if not (shown or report.boot_problems or report.busy):
        yield "no failed request to CMA in this log"


def explain_failure(failure: LogFailure, release: str, page: int) -> Iterator[str]:
    """One failure: a heading, then indented lines."""
    at = f" at {failure.stamp} s" if failure.stamp else ""
    of = f" of {failure.area}" if failure.area else ""
    code = f", {failure.error} ({errno.errorcode.get(-failure.error, '?')})" if failure.error else ""
    yield f"line {failure.line}{at}: {failure.pages} pages{of}{code}"
    order = f", aligned to {1 << failure.align} pages" if failure.align else ""
    kib = page >> 10
    yield f"  asked: {failure.pages} pages, {failure.pages * kib} KiB with pages of {kib} KiB{order}"
    if failure.asked_by:
        yield f"  by: {failure.asked_by}"
    if failure.free is not None:
        of = f" of {failure.total}" if failure.total is not None else ""
        yield f"  free: {failure.free}{of} pages"
    if failure.holes is not None:
        holes = len(failure.holes)
        yield f"  holes: {holes}, the largest {failure.largest} pages"
    if failure.busy:
        yield f"  tried: {failure.busy} places that stayed busy"
    why = reason(failure, release)
    yield f"  why: {why}: {MEANING[why]}"
    if why == UNCLEAR and failure.error == -errno.EBUSY:
        yield "    (-16 meant busy pages up to 6.14; from 6.15 on also that no hole was large enough)"
    for advice in ADVICE[why]:
        yield f"  helps in general (not tried): {advice}"
