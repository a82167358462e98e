"""The smallest pool that serves a list of requests, and what happens in one that is a unit smaller.

Sizes are tried from the pages in use at once upwards: a pool in which first fit has unlimited room is large
enough, one smaller than the peak is not. Positions are pfns, counts pages, sizes of pools in units: the
alignment that the kernel asks of an area.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cmafs.lib.math import div_round_up
from cmafs.replay.capture import ALLOC, Event
from cmafs.replay.machine import MAX_PAGES, TooLarge, bare_areas
from cmafs.replay.pool import BitmapPool, KernelPool, Pool
from cmafs.replay.survey import Geometry, Unseen
from cmafs.replay.whatif import WhatIf

#: Candidates above which a search in between assumes that a larger pool serves what a smaller one does.
#: Below, every one is tried: first fit may do worse with more room.
MANY = 32

#: Where a pool begins on trial: a page that is aligned to every order.
_BASE = 1 << 20

#: Runs jobs, several at once if it can, and gives their results in order.
Parallel = Callable[[Sequence[Callable[[], "Trial"]]], "list[Trial]"]


@dataclass(frozen=True)
class Trial:
    """One size tried: ``refused`` is the event that found no room, None: all were served.

    ``free`` and ``longest``: pages free in all and in one hole when it was refused; ``peak``: most in use;
    ``reach``: pages from the pool's first to the last ever used.
    """

    pages: int
    refused: Event | None
    free: int
    longest: int
    peak: int
    reach: int


@dataclass(frozen=True)
class Requests:
    """What a pool must serve: ``events``, and buffers from before (``unseen``), on a kernel."""

    events: Sequence[Event]
    unseen: Sequence[Unseen]
    kernel: str

    def bitmap_trial(self, pages: int) -> Trial:
        """Try a size on a bitmap alone."""
        return self._trial(BitmapPool("", pages), 0)

    def kernel_trial(self, pages: int) -> Trial:
        """Try a size on the simulated kernel's allocator."""
        areas = bare_areas(self.kernel, [Geometry(None, _BASE, pages)])
        return self._trial(KernelPool(areas[0]), _BASE)

    def _trial(self, pool: Pool, base: int) -> Trial:
        tried = WhatIf([pool], self.unseen)
        if tried.refused is None:
            tried.run(self.events, until_failure=True)
        reach = max(tried.reach - base, 0)
        return Trial(pool.count, tried.refused, pool.available_count, pool.maxchunk(), tried.peak, reach)

    @property
    def allocations(self) -> int:
        """How many requests there are."""
        return sum(event.kind == ALLOC for event in self.events)

    @property
    def largest(self) -> int:
        """Pages of the largest request."""
        return max((event.pages or 0 for event in self.events if event.kind == ALLOC), default=0)


@dataclass(frozen=True)
class Size:
    """``smallest`` serves; ``below``, a unit less, does not, or is None; ``unlimited`` had as much
    room as it liked. ``unit`` in pages.
    """

    unit: int
    smallest: Trial
    below: Trial | None
    unlimited: Trial


def smallest_pool(
    wanted: Requests, unit: int, parallel: Parallel, workers: int, progress: Callable[[int, int], None]
) -> Size:
    """Search; ``unit`` in pages, ``progress(done, of)`` in sizes. The kernel's allocator decides.

    Raises TooLarge.
    """
    unlimited = _unlimited(wanted)
    if unlimited.reach > MAX_PAGES - unit:
        raise TooLarge("an area of", unlimited.reach, MAX_PAGES)
    low = max(div_round_up(max(unlimited.peak, wanted.largest), unit), 1)
    high = max(div_round_up(unlimited.reach, unit), 1)
    total = high - low + 1

    def that_serve(sizes: Sequence[int]) -> list[int]:
        """Those of the sizes in which everything finds room, by the bitmap alone."""
        trials = parallel([partial(wanted.bitmap_trial, size * unit) for size in sizes])
        return [size for size, trial in zip(sizes, trials, strict=True) if trial.refused is None]

    while high - low > MANY:
        step = max((high - low) // (workers + 1), 1)
        probes = [low + step * (number + 1) for number in range(workers)]
        served = that_serve(probes)
        high = min([high, *served])
        low = max([low, *(probe + 1 for probe in probes if probe not in served and probe < high)])
        progress(total - (high - low), total)
    found = high
    for first in range(low, high, workers):
        served = that_serve(range(first, min(first + workers, high)))
        progress(total - (high - first), total)
        if served:
            found = served[0]
            break
    sizes = [found * unit] + ([(found - 1) * unit] if found > 1 else [])
    smallest, *below = parallel([partial(wanted.kernel_trial, pages) for pages in sizes])
    return Size(unit, smallest, below[0] if below else None, unlimited)


def _unlimited(wanted: Requests) -> Trial:
    """Room without end: twice as much again until everything is served."""
    pages = 1 << max(wanted.largest, 1).bit_length()
    while (trial := wanted.bitmap_trial(pages)).refused is not None:
        pages *= 4
    return trial


def node(name: str, size: int, alignment: int, cells: tuple[int, int] = (2, 2)) -> str:
    """A reserved-memory node to paste, in bytes; ``cells``: those of an address, of a size.

    ``alignment`` has the cells of an address (``of_reserved_mem.c:__reserved_mem_alloc_size()@v6.12``).
    """

    def number(value: int, count: int) -> str:
        return " ".join(f"{value >> shift & 0xFFFFFFFF:#x}" for shift in range(32 * (count - 1), -1, -32))

    return f"""\
reserved-memory {{
	#address-cells = <{cells[0]}>;
	#size-cells = <{cells[1]}>;
	ranges;

	{name} {{
		compatible = "shared-dma-pool";
		reusable;
		size = <{number(size, cells[1])}>;
		alignment = <{number(alignment, cells[0])}>;
		linux,cma-default;
	}};
}};
"""
