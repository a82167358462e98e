"""Why a search of an area found nothing: what was true at that moment, for whoever asks later.

No kernel keeps this: sim/why and the reason of a refused ``dma_alloc`` are made of it. Counts in pages.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field

from cmafs.lib.intervals import Interval
from cmafs.lib.math import roundup


def longest_aligned(pieces: Iterable[Interval], step: int) -> tuple[int, int]:
    """(first pfn, pages) of the longest run that begins at a multiple of ``step``; (-1, 0): there is none."""
    best_start, best_pages = -1, 0
    for start, end in pieces:
        aligned = roundup(start, step)
        if end - aligned > best_pages:
            best_start, best_pages = aligned, end - aligned
    return best_start, best_pages


@dataclass(frozen=True)
class CmaFailure:
    """A search for ``count`` pages aligned to ``align`` (an order) that ended with the errno ``error``.

    ``pfn``: where it tried last, -1 if no hole would do; ``area``, ``free``, ``longest``: pages of the area,
    those free in it, those of its largest hole; ``aligned``: (pfn, pages) of the largest piece of a hole that
    begins aligned; ``in_the_way``: the last page that did not move, and whose it was; ``injected``: somebody
    made it fail, nothing was searched; ``times``: how often the same happened in a row.
    """

    count: int
    align: int
    error: int
    pfn: int
    area: int
    free: int
    longest: int
    aligned: tuple[int, int]
    in_the_way: str
    injected: bool = False
    times: int = field(default=1, compare=False)

    @property
    def request(self) -> str:
        """What was asked for."""
        aligned = f" that begin at a multiple of {1 << self.align}" if self.align else ""
        return f"{self.count} page{'s' if self.count != 1 else ''}{aligned}"

    @property
    def reason(self) -> str:
        """Why it was not to be had."""
        if not self.count:
            return "nothing was asked for"
        if self.injected:
            return "it was told to fail (sim/control)"
        if self.count > self.area:
            return f"larger than the area, which has {self.area} pages"
        if self.in_the_way:
            return f"every place for them held a page that could not move, last {self.in_the_way}"
        if self.pfn >= 0:
            return f"no free memory to which the pages at {self.pfn:#x} could move"
        if self.longest < self.count:
            return f"no hole was large enough: {self.free} pages free, the largest hole {self.longest}"
        start, pages = self.aligned
        where = f"{pages} (at {start:#x})" if pages else "none"
        return f"alignment: the largest hole had {self.longest} pages, from an aligned page on {where}"

    def __str__(self) -> str:
        return f"{self.request}, -{self.error} ({errno.errorcode[self.error]}): {self.reason}"
