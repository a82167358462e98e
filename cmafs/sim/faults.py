"""Faults that a person sets to see what a monitor makes of them, each of which can be taken back.

``sim/control`` sets them, ``sim/faults`` lists them. What a kernel then answers, prints and counts is what
that kernel does when such a thing happens by itself.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmafs.lib.clock import NSEC_PER_SEC
from cmafs.lib.math import div_round_up
from cmafs.mm.cma import not_activated
from cmafs.mm.mmzone import MIGRATE_CMA, MIGRATE_MOVABLE
from cmafs.mm.page_isolation import start_isolate_page_range, undo_isolate_page_range
from cmafs.sim import workload

if TYPE_CHECKING:
    from cmafs.lib.clock import Clock
    from cmafs.mm.cma import Cma, CmaAreas
    from cmafs.mm.mmzone import Memory

#: What an allocation can be made to fail with: no memory to move pages to; a signal that kills the caller.
ERRORS = {"ENOMEM": errno.ENOMEM, "EINTR": errno.EINTR}
#: The longest that one migration may be made to take, in milliseconds: nobody else is answered meanwhile.
MAX_SLOW = 10_000
#: The longest timed pin, in seconds.
MAX_SECONDS = 1_000_000
_NSEC_PER_MSEC = NSEC_PER_SEC // 1000


@dataclass(eq=False)
class Armed:
    """The ``left``-th allocation from an area fails with an errno."""

    cma: Cma
    left: int
    error: str


@dataclass(frozen=True)
class TimedPin:
    """Pages of a task, by index, that are pinned until ``end`` (nanoseconds since boot)."""

    end: int
    name: str
    indices: list[int]


@dataclass(eq=False)
class Faults:
    """All faults of one machine; ``slow``: milliseconds a migration; ``inactive``: areas and their sizes."""

    memory: Memory
    areas: CmaAreas
    clock: Clock
    armed: list[Armed] = field(default_factory=list)
    pins: list[TimedPin] = field(default_factory=list)
    inactive: dict[int, list[int]] = field(default_factory=dict)
    slow: int = 0

    def fail(self, cma: Cma, which: int, error: str) -> None:
        """The ``which``-th allocation from now on fails. Raises OSError EINVAL."""
        if error not in ERRORS:
            raise OSError(errno.EINVAL, f"unknown errno {error[:20]!r}, known are {', '.join(ERRORS)}")
        if which < 1:
            raise OSError(errno.EINVAL, "allocations are counted from 1")
        self.armed.append(Armed(cma, which, error))
        self.areas.fault = self.strike

    def unfail(self, cma: Cma) -> None:
        """Takes back what ``fail`` set for an area. Raises OSError EINVAL."""
        kept = [one for one in self.armed if one.cma is not cma]
        if len(kept) == len(self.armed):
            raise OSError(errno.EINVAL, "no allocation of that area is to fail")
        self.armed = kept

    def strike(self, cma: Cma) -> int:
        """An allocation begins: the errno that it fails with, 0 if it may go on."""
        self.expire()
        error = 0
        for one in [one for one in self.armed if one.cma is cma]:
            one.left -= 1
            if not one.left:
                self.armed.remove(one)
                error = ERRORS[one.error]
        return error

    def set_slow(self, milliseconds: int) -> None:
        """Each migration of an allocation takes so long; 0 as long as it takes. Raises OSError EINVAL."""
        if milliseconds > MAX_SLOW:
            raise OSError(errno.EINVAL, f"at most {MAX_SLOW} ms")
        self.slow = milliseconds
        self.memory.on_migrate = self._migrated if milliseconds else None

    def _migrated(self, pages: int) -> None:
        if pages:
            self.clock.advance(self.slow * _NSEC_PER_MSEC)

    def pin_for(self, name: str, pages: int, seconds: int) -> None:
        """Pins pages of a task for a time. Raises OSError as pin()."""
        if not 0 < seconds <= MAX_SECONDS:
            raise OSError(errno.EINVAL, f"1 to {MAX_SECONDS} seconds")
        indices = workload.pin(self.memory, name, pages)
        self.pins.append(TimedPin(self.clock.now() + seconds * NSEC_PER_SEC, name, indices))
        self.areas.fault = self.strike

    def due(self) -> bool:
        """Whether there are pins whose time is over."""
        return bool(self.pins) and min(one.end for one in self.pins) <= self.clock.now()

    def expire(self) -> None:
        """Drops the pins whose time is over."""
        now = self.clock.now()
        for one in [one for one in self.pins if one.end <= now]:
            self.pins.remove(one)
            workload.unpin_pages(self.memory, one.name, one.indices)

    def deactivate(self, cma: Cma) -> None:
        """Makes an area what it is when it could not be activated. Raises OSError EBUSY, EINVAL.

        Its count is 0; kernels that give the pages of such an area back use them for everything. Its files
        stay, though a kernel that boots so may not make them. Source: ``mm/cma.c:cma_activate_area()``.
        """
        if cma.slot in self.inactive or not cma.count:
            raise OSError(errno.EINVAL, "that area is not active")
        if cma.available_count != cma.count:
            raise OSError(errno.EBUSY, f"{cma.count - cma.available_count} of its pages are allocated")
        self.inactive[cma.slot] = [cmr.count for cmr in cma.ranges]
        if self.areas.abi.failed_returns_pages:
            self._relist(cma, MIGRATE_MOVABLE)
            self.areas.totalcma_pages -= cma.count
        self.memory.totalcma_pages -= cma.count
        not_activated(cma)

    def activate(self, cma: Cma) -> None:
        """Takes deactivate() back. Raises OSError EINVAL, EBUSY (pages that cannot move are in it now)."""
        if cma.slot not in self.inactive:
            raise OSError(errno.EINVAL, "that area was not deactivated")
        for cmr, count in zip(cma.ranges, self.inactive.pop(cma.slot), strict=True):
            cmr.count = count
        cma.count = cma.available_count = sum(cmr.count for cmr in cma.ranges)
        self.memory.totalcma_pages += cma.count
        if self.areas.abi.failed_returns_pages:
            self._relist(cma, MIGRATE_CMA)
            self.areas.totalcma_pages += cma.count

    def _relist(self, cma: Cma, migratetype: int) -> None:
        """Makes the page blocks of an area, and their free pages, those of a migrate type."""
        sign = 1 if migratetype == MIGRATE_CMA else -1
        for cmr in cma.ranges:
            zone = self.memory.zone_of(cmr.base_pfn)
            start_isolate_page_range(self.memory, zone, cmr.base_pfn, cmr.end_pfn)
            undo_isolate_page_range(self.memory, zone, cmr.base_pfn, cmr.end_pfn, migratetype)
            zone.cma_pages += sign * cmr.count

    def lines(self) -> Iterator[str]:
        """sim/faults: a line each, in the words that would set it."""
        for one in self.armed:
            yield f"fail {one.cma.label} {one.left} {one.error}"
        for pin in self.pins:
            left = div_round_up(pin.end - self.clock.now(), NSEC_PER_SEC)
            yield f"pin_for {pin.name} {len(pin.indices)} {left}"
        for slot in self.inactive:
            yield f"deactivate {self.areas[slot].label}"
        if self.slow:
            yield f"slow {self.slow}"
        if self.areas.locked_down:
            yield "lockdown on"
        for occupant in self.memory.owners.occupants.values():
            if occupant.dirty:
                yield f"dirty {occupant.name} {len(occupant.dirty)}"
