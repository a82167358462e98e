"""What an allocation leaves behind: debug lines, failure lines, the list of holes, events, counters.

All of it in the order and the words of the kernel's row (``abi.cma``); the decisions are in ``cmafs.mm.cma``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from cmafs.abi.cma import SHOW_ALWAYS, SHOW_CMA_DEBUG
from cmafs.lib.kstrtox import U64_MAX
from cmafs.lib.printk import LOGLEVEL_ERR, LOGLEVEL_INFO
from cmafs.mm.cma_areas import Cma, CmaMemrange
from cmafs.mm.cma_failure import CmaFailure, longest_aligned
from cmafs.mm.mmzone import TraceFields

#: Where struct page of pfn 0 stands, for ``%p``, and how big one is: as on x86_64 with vmemmap and without
#: KASLR, for all machines; only 4.4 shows it unhashed. To be derived from the memory model
#: (``abi.boot_arch``) and the place of the memmap.
_VMEMMAP_START = 0xFFFFEA0000000000
_STRUCT_PAGE_BYTES = 64


def page_address(pfn: int | None) -> int:
    """The address of a ``struct page``, before it is hashed; 0 for no page."""
    return 0 if pfn is None else _VMEMMAP_START + pfn * _STRUCT_PAGE_BYTES


def debug_entry(cma: Cma, count: int, align: int) -> None:
    """The line at the start of cma_alloc()."""
    log, site = cma.areas.log, cma.areas.abi.sites.entry
    address = log.hash_ptr(cma.address)
    named = (cma.name,) if cma.areas.abi.entry_names_area else ()
    log.pr_debug(site, site.function, address, *named, count, align)


def report_alloc(cma: Cma, count: int, align: int, tried: int, error: int, no_warn: bool) -> None:
    """What follows the search: events, lines, counters, in this kernel's order."""
    areas, abi = cma.areas, cma.areas.abi
    if abi.finish_before_failure and areas.trace is not None:
        _trace_finish(cma, count, align, tried, error)
    if error and not no_warn:
        _print_failure(cma, count, error)
    site = abi.sites.returned
    if areas.log.debug_flags[site]:
        page = areas.log.hash_ptr(page_address(None if error else tried))
        areas.log.pr_debug(site, site.function, page)
    if not abi.finish_before_failure and areas.trace is not None:
        _trace_finish(cma, count, align, tried, error)
    account(cma, count, failed=bool(error))


def _print_failure(cma: Cma, count: int, error: int) -> None:
    areas, abi = cma.areas, cma.areas.abi
    if not abi.prints_failure:
        return
    function = abi.sites.entry.function
    name = f"{cma.name}: " if abi.failure_names_area else ""
    if not abi.failure_ratelimited or areas.failure_limit.allow(function):
        line = f"cma: {function}: {name}alloc failed, req-size: {count} pages, ret: {-error}"
        areas.log.printk(line, LOGLEVEL_ERR)
    if abi.show_areas == SHOW_ALWAYS or (abi.show_areas == SHOW_CMA_DEBUG and areas.cma_debug):
        cma_debug_show_areas(cma)


def cma_debug_show_areas(cma: Cma) -> None:
    """List the holes of an area: pages of each, and the bit where it starts."""
    log = cma.areas.log
    title = "cma: number of available pages: "
    if not cma.areas.abi.show_ranges:
        cmr = cma.ranges[0]
        free = (cmr.bitmap.nbits - cmr.bitmap.weight) << cma.order_per_bit
        holes = (f"{'+' if i else ''}{text}" for i, (_, text) in enumerate(_holes(cma, cmr)))
        log.printk_cont(title, chain(holes, [f"=> {free} free of {cma.count} total pages"]))
        return
    log.printk(title, LOGLEVEL_INFO)
    for index, cmr in enumerate(cma.ranges):
        holes = (f"{'+' if start else ''}{text}" for start, text in _holes(cma, cmr))
        log.printk_cont(f"cma: range {index}: ", holes)
    log.printk("cma: ", LOGLEVEL_INFO)
    log.cont_alone(f"=> {cma.available_count} free of {cma.count} total pages")


def _holes(cma: Cma, cmr: CmaMemrange) -> Iterator[tuple[int, str]]:
    for start, length in cmr.bitmap.holes:
        yield start, f"{length << cma.order_per_bit}@{start}"


def trace_start(cma: Cma, count: int, align: int) -> None:
    """The event cma_alloc_start, with the fields that this kernel gives it."""
    assert cma.areas.trace is not None
    fields: dict[str, int | str] = {"name": cma.name, "count": count, "align": align}
    if cma.areas.abi.start_counts:
        fields["request_count"] = fields.pop("count")
        fields.update(available_count=cma.available_count, total_count=cma.count)
    cma.areas.trace("cma_alloc_start", fields)


def _trace_finish(cma: Cma, count: int, align: int, tried: int, error: int) -> None:
    areas, abi = cma.areas, cma.areas.abi
    assert areas.trace is not None
    pfn = 0 if error and abi.failed_pfn_is_zero else tried & areas.ulong_max
    fields: dict[str, int | str] = {"pfn": pfn, "page": 0 if error else tried}
    if abi.alloc_event:
        areas.trace("cma_alloc", {**fields, "count": count, "align": align})
        return
    fields = {"name": cma.name, **fields, "count": count, "align": align}
    if abi.finish_errno:
        fields["errorno"] = -error
    areas.trace("cma_alloc_finish", fields)


def debug_release(cma: Cma, pfn: int, count: int, found: bool) -> None:
    """The lines of cma_release(); ``found``: the pages are of this area."""
    log, abi = cma.areas.log, cma.areas.abi
    valid, site = abi.sites.pages_valid, abi.sites.release
    page = log.hash_ptr(page_address(pfn))
    if valid is not None and (not found or abi.validates_first):
        log.pr_debug(valid, valid.function, page, count)
    if found or valid is None:
        log.pr_debug(site, site.function, page, *((count,) if abi.release_shows_count else ()))


def report_release(cma: Cma, pfn: int, count: int) -> None:
    """Count pages that went back, and trace it."""
    areas = cma.areas
    cma.nr_pages_released = (cma.nr_pages_released + count) & U64_MAX
    if areas.trace is not None:
        fields: TraceFields = {"pfn": pfn, "page": pfn, "count": count}
        areas.trace("cma_release", fields if areas.abi.alloc_event else {"name": cma.name, **fields})


def account(cma: Cma, count: int, failed: bool) -> None:
    """Count a request: calls in vmstat, pages for sysfs, modulo 2^64."""
    if cma.areas.abi.vmstat_events:
        cma.areas.memory.vmstat.count_vm_event("cma_alloc_fail" if failed else "cma_alloc_success")
    if failed:
        cma.nr_pages_failed = (cma.nr_pages_failed + count) & U64_MAX
    else:
        cma.nr_pages_succeeded = (cma.nr_pages_succeeded + count) & U64_MAX


def keep_failure(
    cma: Cma, count: int, align: int, error: int, pfn: int, in_the_way: int | None, injected: bool = False
) -> None:
    """Remember a search that found nothing; ``in_the_way``: the pfn of the page that did not move."""
    longest = cma.maxchunk()
    fits = pfn < 0 and in_the_way is None and 0 < count <= longest
    failure = CmaFailure(
        count,
        align,
        error,
        pfn,
        cma.count,
        cma.available_count,
        longest,
        longest_aligned(cma.holes() if fits else (), cma.alignment(align)),
        "" if in_the_way is None else _named(cma, in_the_way),
        injected,
    )
    if cma.failures and cma.failures[0] == failure:
        failure = replace(failure, times=cma.failures.popleft().times + 1)
    cma.failures.appendleft(failure)


def _named(cma: Cma, pfn: int) -> str:
    occupant = cma.areas.memory.owners.owner_at(pfn)
    return f"{pfn:#x} ({occupant.name if occupant else 'taken by another area'})"
