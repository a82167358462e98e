"""The contiguous memory allocator: activation of areas, cma_alloc() and cma_release(), as ``mm/cma.c``.

Positions are pfns and counts pages, unless a name says bits. Requests arrive as ``unsigned long`` counts.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cmafs.abi.cma import START_CHECKED, START_FIRST
from cmafs.lib.bitmap import Bitmap
from cmafs.lib.printk import LOGLEVEL_ERR
from cmafs.mm.cma_areas import Cma, CmaAreas, CmaMemrange
from cmafs.mm.cma_report import (
    account,
    debug_entry,
    debug_release,
    keep_failure,
    report_alloc,
    report_release,
    trace_start,
)
from cmafs.mm.cma_retry import Retries
from cmafs.mm.contig_alloc import ContigBusy, alloc_contig_range, free_contig_range
from cmafs.mm.mm_init import free_reserved_range, init_cma_reserved_range
from cmafs.mm.page_alloc import OutOfMemory

if TYPE_CHECKING:
    from cmafs.mm.mmzone import Memory

__all__ = [
    "Cma",
    "CmaAreas",
    "CmaMemrange",
    "cma_activate_area",
    "cma_alloc",
    "cma_init_reserved_areas",
    "cma_init_reserved_mem",
    "cma_range_alloc",
    "cma_release",
]


def cma_init_reserved_mem(areas: CmaAreas, base: int, size: int, order_per_bit: int, name: str | None) -> Cma:
    """Make an area of memory that memblock has reserved; ``base`` and ``size`` in bytes.

    Raises ENOSPC (no slot) or EINVAL (size 0, or not aligned). Source:
    ``mm/cma.c:cma_init_reserved_mem()@v6.12``.
    """
    if len(areas) < areas.max_areas and (not size or (base | size) % areas.min_alignment):
        raise OSError(errno.EINVAL, "CMA region is empty or not aligned")
    cma = areas.cma_new_area(name, size >> areas.page_shift, order_per_bit)
    cma.ranges.append(CmaMemrange(base >> areas.page_shift, cma.count))
    return cma


def cma_init_reserved_areas(areas: CmaAreas, memory: Memory) -> None:
    """Activate every area: ``mm/cma.c:cma_init_reserved_areas()``, once the page allocator runs."""
    areas.memory = memory
    for cma in areas:
        if not cma_activate_area(cma) and areas.abi.failed_stops_others:
            break


def cma_activate_area(cma: Cma) -> bool:
    """Give an area its bitmaps and its pages to the page allocator as MIGRATE_CMA.

    An area that spans zones fails: its count becomes 0. Source: ``mm/cma.c:cma_activate_area()``.
    """
    areas = cma.areas
    if not all(_in_one_zone(areas.memory, cmr) for cmr in cma.ranges):
        _activation_failed(cma)
        return False
    for cmr in cma.ranges:
        cmr.bitmap = Bitmap(cma.bitmap_maxno(cmr))
        init_cma_reserved_range(areas.memory, cmr.base_pfn, cmr.end_pfn)
    return True


def _in_one_zone(memory: Memory, cmr: CmaMemrange) -> bool:
    return cmr.end_pfn <= memory.zone_of(cmr.base_pfn).end_pfn


def _activation_failed(cma: Cma) -> None:
    areas = cma.areas
    if areas.abi.failed_returns_pages:
        for cmr in cma.ranges:
            free_reserved_range(areas.memory, cmr.base_pfn, cmr.end_pfn)
        areas.totalcma_pages -= cma.count
    else:  # page block after page block was handed over until one lay in another zone
        for cmr in cma.ranges:
            border = areas.memory.zone_of(cmr.base_pfn).end_pfn
            done = border >> areas.memory.pageblock_order << areas.memory.pageblock_order
            if cmr.base_pfn < done:
                init_cma_reserved_range(areas.memory, cmr.base_pfn, done)
    not_activated(cma)


def not_activated(cma: Cma) -> None:
    """What an area is that could not be activated: of no pages; most kernels say so."""
    cma.count = cma.available_count = 0
    for cmr in cma.ranges:
        cmr.count = 0
    if cma.areas.abi.failed_says:
        cma.areas.log.printk(f"cma: CMA area {cma.name} could not be activated", LOGLEVEL_ERR)


def cma_alloc(cma: Cma, count: int, align: int = 0, no_warn: bool = False) -> int | None:
    """The first of ``count`` contiguous pages aligned to ``align`` (an order), or None.

    ``count`` as an unsigned long; ``no_warn``: print nothing about a failure. Events, counters and lines as
    this kernel has them. Source: ``mm/cma.c:cma_alloc()@v5.10, v6.1``, ``__cma_alloc()@v6.12``,
    ``__cma_alloc_frozen()@v7.2``.
    """
    if not _accepts(cma, count, align):
        keep_failure(cma, count, align, errno.ENOMEM, -1, None)
        if cma.areas.abi.early_counts:
            account(cma, count, failed=True)
        return None
    tried, in_the_way = -1, None
    error = injected = cma.areas.fault(cma) if cma.areas.fault is not None else 0
    for cmr in cma.ranges if not injected else ():
        tried, error, busy = cma_range_alloc(cma, cmr, count, align)
        in_the_way = in_the_way if busy is None else busy
        if error != errno.EBUSY:
            break
    if error:
        busy = in_the_way if error == errno.EBUSY else None
        keep_failure(cma, count, align, error, tried, busy, bool(injected))
    report_alloc(cma, count, align, tried, error, no_warn)
    return None if error else tried


def _accepts(cma: Cma, count: int, align: int) -> bool:
    """What comes before the search; a request that it refuses leaves no failure line."""
    areas, abi = cma.areas, cma.areas.abi
    if areas.trace is not None and abi.start_event == START_FIRST:
        trace_start(cma, count, align)
    if not cma.count:
        return False
    if areas.log.debug_flags[abi.sites.entry]:
        debug_entry(cma, count, align)
    if not count:
        return False
    if areas.trace is not None and abi.start_event == START_CHECKED:
        trace_start(cma, count, align)
    fits = 0 < cma.pages_to_bits(count) <= cma.ranges[0].bitmap.nbits
    return fits or abi.no_hole_is_busy or not abi.checks_size


def cma_range_alloc(cma: Cma, cmr: CmaMemrange, count: int, align: int) -> tuple[int, int, int | None]:
    """First fit in one range: (the page last tried or -1, 0 or an errno, the last page that did not move).

    After EBUSY the search goes on one alignment step further; any other error ends it.
    """
    abi = cma.areas.abi
    bits = cma.pages_to_bits(count)
    mask, offset = _alignment(cma, cmr, align) if align else (0, 0)
    error = errno.EBUSY if abi.no_hole_is_busy else errno.ENOMEM
    tried, start = -1, 0
    in_the_way: int | None = None
    retries: Retries | None = None
    if not 0 < bits <= cmr.bitmap.nbits:
        return tried, error, None
    while not (abi.checks_available and count > cma.available_count):
        place = cmr.bitmap.bitmap_find_next_zero_area_off(start, bits, mask, offset)
        if place is None:
            break
        tried = cmr.base_pfn + (place << cma.order_per_bit)
        error, busy = _take(cma, cmr, place, bits, count)
        if busy is None:
            break
        in_the_way = busy.pfn
        retries = retries or Retries(cma, count, align)
        tried, error = retries.pass_by(busy, _windows(cma, cmr, place, bits, mask))
        if error != errno.EBUSY:
            break
        start = ((tried - cmr.base_pfn) >> cma.order_per_bit) + mask + 1
    if retries is not None:
        retries.print()
    return tried, error, in_the_way


def _windows(cma: Cma, cmr: CmaMemrange, place: int, bits: int, mask: int) -> range:
    """The first pfns of the places for ``bits`` from ``place`` to the end of its hole."""
    last = cmr.bitmap.hole_end(place) - bits
    first, behind = (cmr.base_pfn + (bit << cma.order_per_bit) for bit in (place, last + 1))
    return range(first, behind, (mask + 1) << cma.order_per_bit)


def _alignment(cma: Cma, cmr: CmaMemrange, align: int) -> tuple[int, int]:
    """``cma_bitmap_aligned_mask()`` and ``cma_bitmap_aligned_offset()``, in bits.

    The offset is how far the range's first bit lies behind an aligned one.
    """
    mask = 0 if align <= cma.order_per_bit else (1 << (align - cma.order_per_bit)) - 1
    return mask, (cmr.base_pfn & ((1 << align) - 1)) >> cma.order_per_bit


def _take(cma: Cma, cmr: CmaMemrange, place: int, bits: int, count: int) -> tuple[int, ContigBusy | None]:
    """Claims bits and their pages: (0 or an errno, for EBUSY with who is in the way)."""
    pfn = cmr.base_pfn + (place << cma.order_per_bit)
    try:
        alloc_contig_range(cma.areas.memory, pfn, pfn + count)
    except ContigBusy as busy:
        return errno.EBUSY, busy
    except OutOfMemory:
        return errno.ENOMEM, None
    cmr.bitmap.set(place, bits)
    cma.available_count -= count
    return 0, None


def cma_release(cma: Cma, pfn: int, count: int) -> bool:
    """Give pages back; False, and nothing done, when they are not this area's.

    Source: ``mm/cma.c:cma_release()@v5.10, v6.12``, ``__cma_release_frozen()@v7.2``.
    """
    areas = cma.areas
    cmr = cma.find_range(pfn)
    if areas.log.debug_flags[areas.abi.sites.release]:
        debug_release(cma, pfn, count, found=cmr is not None)
    if cmr is None:
        return False
    assert pfn + count <= cmr.end_pfn, "VM_BUG_ON"
    free_contig_range(areas.memory, pfn, count)
    cmr.bitmap.clear((pfn - cmr.base_pfn) >> cma.order_per_bit, cma.pages_to_bits(count))
    cma.available_count += count
    report_release(cma, pfn, count)
    return True
