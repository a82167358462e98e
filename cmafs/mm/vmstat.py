"""Counters: events that only grow, and states that are read off the zones and the users of pages.

Names are those of ``/proc/vmstat`` (``mm/vmstat.c:vmstat_text[]``); which of them a kernel shows, and in
which order, is data of ``cmafs.abi.proc``. Units: pages or calls, as in the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cmafs.mm.page_owner import PageOwners


class ZoneCounters(Protocol):
    """What is read off a zone (``struct zone``), in pages."""

    start_pfn: int
    end_pfn: int
    nr_free: int
    nr_free_cma: int


class Vmstat:
    """``vm_event_states`` and the page states of one machine."""

    def __init__(self, zones: Sequence[ZoneCounters], owners: PageOwners) -> None:
        self._zones = zones
        self._owners = owners
        self.events: dict[str, int] = {}

    def count_vm_event(self, item: str, delta: int = 1) -> None:
        """``count_vm_events()``: adds to an event."""
        self.events[item] = self.events.get(item, 0) + delta

    def vm_event(self, item: str) -> int:
        """An event counter; 0 when nothing has happened yet."""
        return self.events.get(item, 0)

    def zone_page_state(self, zone: ZoneCounters, item: str) -> int:
        """``zone_page_state()`` in pages; 0 for what is not modelled.

        Modelled are ``nr_free_pages``, ``nr_free_cma`` and ``nr_mlock``.
        """
        if item == "nr_free_pages":
            return zone.nr_free
        if item == "nr_free_cma":
            return zone.nr_free_cma
        if item == "nr_mlock":
            return sum(o.pages_in(zone.start_pfn, zone.end_pfn) for o in self._owners.mlocked())
        return 0

    def global_zone_page_state(self, item: str) -> int:
        """``global_zone_page_state()`` in pages: the sum over all zones."""
        if item == "nr_mlock":
            return sum(o.resident for o in self._owners.mlocked())
        return sum(self.zone_page_state(zone, item) for zone in self._zones)

    def global_node_page_state(self, item: str) -> int:
        """``global_node_page_state()`` in pages; 0 for what is not modelled (``NODE_STATES``)."""
        return self._owners.node_page_state(item)
