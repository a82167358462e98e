"""The table of areas: ``struct cma`` and what all areas of a machine share, as ``mm/cma.h``.

Positions are pfns and counts pages, unless a name says bits.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmafs.lib.bitmap import Bitmap
from cmafs.lib.printk import LOGLEVEL_ERR, cut
from cmafs.lib.ratelimit import Ratelimit

if TYPE_CHECKING:
    from cmafs.abi.cma import CmaAbi
    from cmafs.lib.intervals import Interval
    from cmafs.lib.printk import Printk
    from cmafs.mm.cma_failure import CmaFailure
    from cmafs.mm.mmzone import Memory, TraceHook

#: Where cma_areas[0] stands, for ``%p``, and how big one is. Made up, and alike for all kernels: only 4.4
#: shows it unhashed. To be derived from the System.map and the ``struct cma`` of a configuration.
_CMA_AREAS = 0xFFFFFFFF83000000
_STRUCT_CMA_BYTES = 256

#: How many failed searches an area remembers.
FAILURES_KEPT = 8


@dataclass(eq=False)
class CmaMemrange:
    """``struct cma_memrange``: one contiguous piece of an area; up to 6.14 every area is one."""

    base_pfn: int
    count: int
    bitmap: Bitmap = field(default_factory=lambda: Bitmap(0))

    @property
    def end_pfn(self) -> int:
        """The pfn after the last page."""
        return self.base_pfn + self.count


@dataclass(eq=False)
class Cma:
    """``struct cma``: an area.

    ``slot``: its place in the table; ``count``: its pages; ``available_count``: those not handed out;
    ``nid``: its node, -1 for any; ``nr_pages_succeeded``, ``nr_pages_failed``, ``nr_pages_released``: what
    sysfs shows, modulo 2^64; ``failures``: searches that found nothing, the newest first; ``mem_head``: (pfn,
    pages) that debugfs holds, the newest last.
    """

    areas: CmaAreas
    slot: int
    name: str
    count: int
    order_per_bit: int
    ranges: list[CmaMemrange]
    nid: int = -1
    available_count: int = 0
    nr_pages_succeeded: int = 0
    nr_pages_failed: int = 0
    nr_pages_released: int = 0
    failures: deque[CmaFailure] = field(default_factory=lambda: deque(maxlen=FAILURES_KEPT))
    mem_head: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.available_count = self.count

    @property
    def label(self) -> str:
        """Its name for people: the kernel's own (``cma%d\\n``) ends in a newline."""
        return self.name.rstrip()

    @property
    def base_pfn(self) -> int:
        """First page of the first range."""
        return self.ranges[0].base_pfn

    @property
    def address(self) -> int:
        """The address of the ``struct cma``, before it is hashed."""
        return _CMA_AREAS + self.slot * _STRUCT_CMA_BYTES

    def find_range(self, pfn: int) -> CmaMemrange | None:
        """The range that a page lies in."""
        for cmr in self.ranges:
            if 0 <= pfn - cmr.base_pfn < cmr.count:
                return cmr
        return None

    def holes(self) -> Iterator[Interval]:
        """(first pfn, end pfn) of every hole of the bitmaps."""
        shift = self.order_per_bit
        for cmr in self.ranges:
            for start, bits in cmr.bitmap.holes:
                yield cmr.base_pfn + (start << shift), cmr.base_pfn + (start + bits << shift)

    def alignment(self, align: int) -> int:
        """Of which number of pages a place must be a multiple, if the order ``align`` is asked for."""
        return 1 << align if align > self.order_per_bit else 1

    def bitmap_maxno(self, cmr: CmaMemrange) -> int:
        """``cma_bitmap_maxno()``: bits of a range."""
        return cmr.count >> self.order_per_bit

    def pages_to_bits(self, pages: int) -> int:
        """``cma_bitmap_pages_to_bits()``: bits that so many pages take; wraps like an unsigned long."""
        if not self.order_per_bit:
            return pages
        unit = 1 << self.order_per_bit
        return ((pages + unit - 1) & self.areas.ulong_max) >> self.order_per_bit

    def used(self) -> int:
        """``cma_used_get()``: pages in use; whole bits up to 6.14, exact later."""
        if self.areas.abi.used_is_exact:
            return self.count - self.available_count
        bits = 0
        for cmr in self.ranges:
            bits += cmr.bitmap.weight
        return bits << self.order_per_bit

    def maxchunk(self) -> int:
        """``cma_maxchunk_get()``: pages of the longest hole in any range.

        Up to 5.1 its loop ended on the wrong bound, which only an order_per_bit above 0 would show, and no
        area had one then.
        """
        return max((cmr.bitmap.holes.longest for cmr in self.ranges), default=0) << self.order_per_bit


class CmaAreas:
    """``cma_areas[]`` of one machine, in slot order, and what all areas share.

    ``max_areas``: slots; ``min_alignment``: CMA_MIN_ALIGNMENT_BYTES of this machine; ``cma_debug``: built
    with CONFIG_CMA_DEBUG. ``default``: ``dma_contiguous_default_area``; ``node_areas``: those of
    ``cma_pernuma=`` and ``numa_cma=``, by (``pernuma`` or ``numa``, node). ``trace``: gets the events of the
    group ``cma``; None while nobody listens. ``fault``: asked before each search, the errno that it fails
    with, or 0; ``locked_down``: debugfs is closed to writers. ``failure_limit``, ``pfns_busy_limit``: the
    rate limits of two call sites, which all areas share.
    """

    def __init__(
        self,
        log: Printk,
        abi: CmaAbi,
        max_areas: int = 20,
        min_alignment: int = 1 << 21,
        page_shift: int = 12,
        cma_debug: bool = False,
    ) -> None:
        self.log = log
        self.abi = abi
        self.max_areas = max_areas
        self.min_alignment = min_alignment
        self.page_shift = page_shift
        self.cma_debug = cma_debug
        self.ulong_max = (1 << log.bits_per_long) - 1
        self.default: Cma | None = None
        self.node_areas: dict[tuple[str, int], Cma] = {}
        self.totalcma_pages = 0
        self.trace: TraceHook | None = None
        self.fault: Callable[[Cma], int] | None = None
        self.locked_down = False
        self.memory: Memory
        self._areas: list[Cma] = []
        self.failure_limit = Ratelimit(log)
        self.pfns_busy_limit = Ratelimit(log)
        log.add_debug_sites(abi.sites.cma() if max_areas else [], enabled=cma_debug)

    def __iter__(self) -> Iterator[Cma]:
        return iter(self._areas)

    def __len__(self) -> int:
        return len(self._areas)

    def __getitem__(self, slot: int) -> Cma:
        return self._areas[slot]

    def cma_new_area(self, name: str | None, count: int, order_per_bit: int) -> Cma:
        """``cma_new_area()``: takes the next slot, for an area of ``count`` pages without ranges yet.

        Raises ENOSPC, with its line, when the table is full.
        """
        if len(self._areas) >= self.max_areas:
            self.log.printk("cma: Not enough slots for CMA reserved regions!", LOGLEVEL_ERR)
            raise OSError(errno.ENOSPC, "cma_areas is full")
        if name is None:  # the kernel's own format ends in a newline
            name = f"cma{len(self._areas) + self.abi.unnamed_from}\n"
        if self.abi.name_max:
            name = cut(name, self.abi.name_max)
        cma = Cma(self, len(self._areas), name, count, order_per_bit, [])
        self._areas.append(cma)
        self.totalcma_pages += count
        return cma
