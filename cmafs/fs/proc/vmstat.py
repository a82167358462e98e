"""/proc/vmstat and /proc/zoneinfo, as ``mm/vmstat.c`` writes them. Figures in pages or calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING

from cmafs.mm.mmzone import (
    MIGRATE_ISOLATE,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_OPTIONS,
    Zone,
    ZoneSpan,
)
from cmafs.mm.page_owner import NODE_STATES
from cmafs.mm.pcp import zone_batchsize

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: ``nr_dirty_threshold`` and the background one: vm_dirty_ratio and dirty_background_ratio, in percent.
DIRTY_RATIO = {"nr_dirty_threshold": 20, "nr_dirty_background_threshold": 10}
#: With one node every allocation is a hit and local.
LOCAL_ALLOCATIONS = ("numa_hit", "numa_local")
#: Counted by zone up to 4.7.
RECLAIM_EVENTS = ("pgsteal_kswapd", "pgsteal_direct", "pgscan_kswapd", "pgscan_direct")
#: Sums by zone that have the node's name with ``zone_`` in it.
ZONE_PREFIX = "nr_zone_"
#: ``SWAP_CLUSTER_MAX``: the watermarks of a zone above Normal that has no memory.
EMPTY_HIGH_ZONE_WMARK = 32
#: ``mm/vmstat.c:calculate_normal_threshold()``
MAX_THRESHOLD = 125
#: ``MIN_PERCPU_PAGELIST_HIGH_FRACTION``
HIGH_FRACTION = 8


@dataclass(frozen=True)
class VmstatFiles:
    """The counters of one machine: ``options`` are its CONFIG_ options that are on."""

    machine: BootedMachine
    options: frozenset[str]

    def names(self, listed: tuple[str, ...]) -> Iterator[str]:
        """Items of this machine: those whose option is on, ``_*`` by zone."""
        zones = [zone.item for zone in self.zones(self.machine.memory.nodes()[0])]
        for item in listed:
            name, _, option = item.partition("?")
            if option and option not in self.options:
                continue
            if name.endswith("*"):
                yield from (name[:-1] + zone for zone in zones)
            else:
                yield name

    def zones(self, nid: int) -> list[Zone]:
        """All zones of a node that this kernel was built with, lowest first; some are empty."""
        known = {zone.name: zone for zone in self.machine.memory.zones if zone.nid == nid}
        order = self.machine.memory.layout.max_page_order
        return [
            known[name] if name in known else empty_zone(name, order)
            for name, option in ZONE_OPTIONS.items()
            if name in known or not option or option in self.options
        ]

    def value(self, name: str) -> int:
        """One counter of the machine: a state of its zones or its node, or an event."""
        memory = self.machine.memory
        if name in DIRTY_RATIO:
            free = sum(zone.nr_free for zone in memory.zones) + memory.owners.node_page_state(
                "nr_inactive_file"
            )
            return free * DIRTY_RATIO[name] // 100
        if name == "nr_free_pages_blocks":
            return sum(free_pages_blocks(zone, memory.pageblock_order) for zone in memory.zones)
        if name in LOCAL_ALLOCATIONS:
            return sum(memory.vmstat.vm_event(f"pgalloc_{item}") for item in {z.item for z in memory.zones})
        if name.startswith(ZONE_PREFIX):
            return memory.owners.node_page_state("nr_" + name.removeprefix(ZONE_PREFIX))
        return (
            memory.global_zone_page_state(name)
            or memory.owners.node_page_state(name)
            or memory.vmstat.vm_event(name)
            or self._reclaim_4_4(name)
        )

    def _reclaim_4_4(self, name: str) -> int:
        """Events of reclaim that 4.4 counts otherwise: stalls in one sum, pages by zone.

        Reclaim is counted without its zone; it is shown as the largest zone's.
        """
        memory = self.machine.memory
        if name == "allocstall":
            return sum(memory.vmstat.vm_event(f"allocstall_{zone.item}") for zone in memory.zones)
        event, _, item = name.rpartition("_")
        largest = max(memory.zones, key=lambda zone: zone.managed_pages)
        return memory.vmstat.vm_event(event) if item == largest.item and event in RECLAIM_EVENTS else 0

    def node_value(self, nid: int, name: str) -> int:
        """One counter of a node; events are the first node's, on which everything runs here."""
        zones = [zone for zone in self.machine.memory.zones if zone.nid == nid]
        if name in NODE_STATES and len(zones) < len(self.machine.memory.zones):
            return sum(self.zone_value(zone, name) for zone in zones)
        return self.value(name) if nid == self.machine.memory.nodes()[0] else 0

    def zone_value(self, zone: Zone, name: str) -> int:
        """One counter of a zone."""
        memory = self.machine.memory
        if name == "nr_free_pages_blocks":
            return free_pages_blocks(zone, memory.pageblock_order)
        if name in LOCAL_ALLOCATIONS:
            return memory.vmstat.vm_event(f"pgalloc_{zone.item}")
        state = "nr_" + name.removeprefix(ZONE_PREFIX) if name.startswith(ZONE_PREFIX) else name
        if state not in NODE_STATES:
            return memory.zone_page_state(zone, name)
        if zone.present_pages and sum(bool(z.present_pages) for z in memory.zones) == 1:
            return memory.owners.node_page_state(state)
        kinds, mlocked = NODE_STATES[state]
        return sum(
            occupant.pages_in(zone.start_pfn, zone.end_pfn)
            for occupant in memory.owners.occupants.values()
            if zone.present_pages and occupant.kind in kinds and mlocked in (None, occupant.mlocked)
        )

    def vmstat(self) -> bytes:
        """``vmstat_show()``: a counter a line."""
        listed = self.machine.abi.proc.vmstat.all()
        return "".join(f"{name} {self.value(name)}\n" for name in self.names(listed)).encode()

    def zoneinfo(self) -> bytes:
        """``zoneinfo_show()``: every zone; before 4.8 those with memory."""
        if not self.machine.abi.proc.zoneinfo_by_node:
            zones = (zone for nid in self.machine.memory.nodes() for zone in self.zones(nid))
            return "".join(self._zone_4_4(zone) for zone in zones if zone.present_pages).encode()
        return "".join(map(self._node, self.machine.memory.nodes())).encode()

    def _node(self, nid: int) -> str:
        """``walk_zones_in_node()``: the node's own figures are shown with its first zone that has memory."""
        zones = self.zones(nid)
        first = next(zone for zone in zones if zone.present_pages)
        return "".join(self._zone(nid, zone, zone is first) for zone in zones)

    def _zone(self, nid: int, zone: Zone, first: bool) -> str:
        """``zoneinfo_show_print()`` of one zone."""
        abi = self.machine.abi.proc
        text = f"Node {nid}, zone {zone.name:>8}"
        if first:
            text += "\n  per-node stats"
            for name in self.names(abi.vmstat.node):
                text += f"\n      {name:<12} {self.node_value(nid, name)}"
        text += self._pages(zone)
        text += self._protection(nid, zone)
        if not zone.present_pages:
            return text + "\n"
        for name in self.names(abi.vmstat.zone + abi.vmstat.numa):
            text += f"\n      {name:<12} {self.zone_value(zone, name)}"
        text += self._pagesets(zone)
        return f"{text}\n  node_unreclaimable:  0\n  start_pfn:           {zone.start_pfn}\n"

    def _protection(self, nid: int, zone: Zone) -> str:
        """What requests leave here that may use a higher zone, by that zone."""
        kept = (zone.lowmem_reserve[other.rank] for other in self.zones(nid))
        return f"\n        protection: ({', '.join(map(str, kept))})"

    def _pages(self, zone: Zone) -> str:
        """The figures from ``pages free`` on."""
        abi = self.machine.abi.proc
        low, high = zone.watermark[WMARK_LOW], zone.watermark[WMARK_HIGH]
        figures = {
            "boost": 0 if abi.zoneinfo_boost else None,
            "min": zone.watermark[WMARK_MIN],
            "low": low,
            "high": high,
            "promo": 2 * high - low if abi.zoneinfo_promo else None,
            "spanned": zone.spanned_pages,
            "present": zone.present_pages,
            "managed": zone.managed_pages,
            "cma": zone.cma_pages if abi.zoneinfo_cma else None,
        }
        lines = "".join(f"\n        {k:<8} {v}" for k, v in figures.items() if v is not None)
        return f"\n  pages free     {zone.nr_free}{lines}"

    def _pagesets(self, zone: Zone) -> str:
        """The per-CPU lists: empty here, pages are handed out without them."""
        abi, memory = self.machine.abi.proc, self.machine.memory
        batch = max(zone_batchsize(memory.abi, zone.managed_pages, memory.layout.page_shift), 1)
        high = max(zone.watermark[WMARK_LOW], batch << 2) if abi.pcp_high_from_watermark else 6 * batch
        figures = {"count:": 0, "high:": high, "batch:": batch}
        if abi.pcp_high_range:
            figures |= {"high_min:": high, "high_max:": max(zone.managed_pages // HIGH_FRACTION, batch << 2)}
        width = 9 if abi.pcp_high_range else 6
        text = "\n  pagesets\n    cpu: 0"
        text += "".join(f"\n              {label:<{width}} {figure}" for label, figure in figures.items())
        if self.machine.arch == "arm64" or "SMP" in self.options:
            threshold = stat_threshold(zone, self.machine.memory.layout.page_shift)
            text += f"\n  vm stats threshold: {threshold}"
        return text

    def _zone_4_4(self, zone: Zone) -> str:
        """``zoneinfo_show_print()@4.4``: all counters are the zones'."""
        pages = {
            "min": zone.watermark[WMARK_MIN],
            "low": zone.watermark[WMARK_LOW],
            "high": zone.watermark[WMARK_HIGH],
            "scanned": 0,
            "spanned": zone.spanned_pages,
            "present": zone.present_pages,
        }
        if self.machine.abi.proc.zoneinfo_managed:
            pages["managed"] = zone.managed_pages
        text = f"Node {zone.nid}, zone {zone.name:>8}\n  pages free     {zone.nr_free}"
        text += "".join(f"\n        {label:<8} {figure}" for label, figure in pages.items())
        for name in self.names(self.machine.abi.proc.vmstat.zone):
            text += f"\n    {name:<12} {self.zone_value(zone, name)}"
        text += self._protection(zone.nid, zone)
        gib = zone.managed_pages >> (30 - self.machine.memory.layout.page_shift)
        ratio = isqrt(10 * gib) or 1  # mm/page_alloc.c:calculate_zone_inactive_ratio()@v4.4
        text += self._pagesets(zone) + "\n  all_unreclaimable: 0"
        return f"{text}\n  start_pfn:         {zone.start_pfn}\n  inactive_ratio:    {ratio}\n"


def free_pages_blocks(zone: Zone, pageblock_order: int) -> int:
    """``NR_FREE_PAGES_BLOCKS``: pages in free blocks of a page block or more."""
    return sum(
        zone.nr_free_blocks(order, migratetype) << order
        for order in range(pageblock_order, zone.max_page_order + 1)
        for migratetype in range(MIGRATE_ISOLATE)
    )


def empty_zone(name: str, max_page_order: int) -> Zone:
    """A zone without memory, which above Normal has watermarks (``__setup_per_zone_wmarks()``; H)."""
    zone = Zone(0, ZoneSpan(name, 0, 0), max_page_order)
    if name in ("HighMem", "Movable"):
        zone.watermark = [EMPTY_HIGH_ZONE_WMARK] * 3
    return zone


def stat_threshold(zone: Zone, page_shift: int) -> int:
    """``calculate_normal_threshold()`` with one CPU."""
    megabytes = zone.managed_pages >> (27 - page_shift)
    return min(MAX_THRESHOLD, 2 * (1 + megabytes.bit_length()))
