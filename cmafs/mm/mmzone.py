"""Zones, page blocks, free areas: what ``include/linux/mmzone.h`` declares.

Positions are pfns, sizes pages. The state is sparse: a byte a page block, a dictionary entry a touched free
block, eight bytes a used page in touched page blocks (``cmafs.mm.page_owner``). Nothing but the bytes of page
blocks costs by the size of the machine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from cmafs.abi.mm import MmAbi
from cmafs.mm.page_owner import Occupant, PageOwners
from cmafs.mm.runs import RunList
from cmafs.mm.vmstat import Vmstat

#: ``enum migratetype``, with CONFIG_CMA and CONFIG_MEMORY_ISOLATION.
MIGRATE_UNMOVABLE = 0
MIGRATE_MOVABLE = 1
MIGRATE_RECLAIMABLE = 2
MIGRATE_HIGHATOMIC = 3
MIGRATE_PCPTYPES = 3
MIGRATE_CMA = 4
MIGRATE_ISOLATE = 5
MIGRATE_TYPES = 6

#: ``mm/page_alloc.c:migratetype_names[]``
MIGRATETYPE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate")

#: A free block is ``order << CODE_SHIFT | migratetype`` of the list it is on.
CODE_SHIFT = 3
CODE_MASK = (1 << CODE_SHIFT) - 1

WMARK_MIN, WMARK_LOW, WMARK_HIGH = 0, 1, 2

#: ``enum zone_type``, lowest first: names, and the option that each needs. A zone's rank is its place here.
ZONE_OPTIONS = {
    "DMA": "ZONE_DMA",
    "DMA32": "ZONE_DMA32",
    "Normal": "",
    "HighMem": "HIGHMEM",
    "Movable": "",
    "Device": "ZONE_DEVICE",
}
ZONE_RANKS = {name: rank for rank, name in enumerate(ZONE_OPTIONS)}

#: An event's fields by name: numbers, a name, and ``page``: a pfn, 0 for a NULL page.
TraceFields: TypeAlias = Mapping[str, int | str]
#: An event: its name, its fields.
Event: TypeAlias = tuple[str, TraceFields]


class RepeatedEvent(NamedTuple):
    """An event for each of many pfns: the fields that are the ``same``, and the ``others`` for a pfn."""

    name: str
    same: TraceFields
    others: Callable[[int], TraceFields]


FreeList = OrderedDict[int, None]  # head pfn -> None; the last entry is the head of the list


class ZoneSpan(NamedTuple):
    """Where a zone of a node begins and ends, holes included: half open, in pfns."""

    name: str
    start_pfn: int
    end_pfn: int
    nid: int = 0


@dataclass(frozen=True)
class MemoryLayout:
    """What boot hands to the page allocator: half open pfn ranges.

    ``page_shift`` log2 of the page size; ``pageblock_order`` and ``max_page_order``: orders (9 and 10 with 4
    KiB pages and huge pages); ``zones``: node by node, the lowest first; ``memory`` and ``reserved``:
    memblock's, the reserved ones with the CMA areas in them; ``high_pfn``: where high memory begins, None
    where all is mapped; ``nomap``: of the memory what the kernel must not touch.
    """

    page_shift: int
    pageblock_order: int
    max_page_order: int
    zones: tuple[ZoneSpan, ...]
    memory: tuple[tuple[int, int], ...]
    reserved: tuple[tuple[int, int], ...]
    high_pfn: int | None = None
    nomap: tuple[tuple[int, int], ...] = ()


class TraceHook(Protocol):
    """Who listens at tracepoints."""

    def __call__(self, name: str, fields: TraceFields, /) -> None:
        """An event has happened, with these fields."""

    def repeat(self, pfns: range, events: list[RepeatedEvent], /) -> None:
        """All of ``events`` for each of ``pfns``, in turn."""


def zone_item(name: str) -> str:
    """A zone's name in event counters: ``high``, as in ``pgalloc_high``, for HighMem."""
    return name.lower().removesuffix("mem")


class Zone:
    """``struct zone``: the free lists and counters of one zone of node ``nid``.

    ``index``: its place among all zones of the machine; ``rank``: ``zone_idx()`` as if the machine had every
    zone there can be; ``lowmem_reserve``: by the highest zone that a request may use, as a rank.

    ``free_area[order << 3 | migratetype]`` lists the blocks below the largest order,
    ``top_area[migratetype]`` those of the largest; ``buddy`` maps the head of each block in ``free_area`` to
    its index there (PageBuddy and its order). ``nr_free`` is NR_FREE_PAGES, in which isolated pages do not
    count, ``nr_free_cma`` NR_FREE_CMA_PAGES.
    """

    def __init__(self, index: int, span: ZoneSpan, max_page_order: int, present_pages: int = 0) -> None:
        self.index = index
        self.name, self.start_pfn, self.end_pfn, self.nid = span
        self.rank = ZONE_RANKS.get(self.name, ZONE_RANKS["Normal"])
        self.max_page_order = max_page_order
        self.present_pages = present_pages
        self.managed_pages = 0
        self.cma_pages = 0
        self.nr_free = 0
        self.nr_free_cma = 0
        self.nr_isolate_pageblock = 0
        self.watermark = [0, 0, 0]
        self.lowmem_reserve = [0] * len(ZONE_RANKS)
        self.buddy: dict[int, int] = {}
        self.free_area: list[FreeList] = [OrderedDict() for _ in range(max_page_order << CODE_SHIFT)]
        self.top_area = [RunList(1 << max_page_order) for _ in range(MIGRATE_TYPES)]

    @property
    def item(self) -> str:
        """Its name in event counters."""
        return zone_item(self.name)

    @property
    def spanned_pages(self) -> int:
        """Pages between the first and the last, holes included."""
        return self.end_pfn - self.start_pfn

    def nr_free_blocks(self, order: int, migratetype: int) -> int:
        """Blocks on one free list, without a walk."""
        if order == self.max_page_order:
            return len(self.top_area[migratetype])
        return len(self.free_area[order << CODE_SHIFT | migratetype])

    def nr_free_of(self, migratetype: int) -> int:
        """Pages on the free lists of a migratetype."""
        lists = self.free_area[migratetype :: 1 << CODE_SHIFT]
        return (
            sum(len(blocks) << order for order, blocks in enumerate(lists))
            + self.top_area[migratetype].nr_pages
        )

    def find_free(self, pfn: int) -> tuple[int, int, int] | None:
        """The free block that holds a page: (head pfn, order, migratetype of its list), None if none does."""
        get = self.buddy.get
        for order in range(self.max_page_order):
            head = pfn >> order << order
            code = get(head)
            if code is not None and code >> CODE_SHIFT >= order:
                return head, code >> CODE_SHIFT, code & CODE_MASK
        top = self.max_page_order
        for migratetype, area in enumerate(self.top_area):
            if area.nr_pages and area.find(pfn) is not None:
                return pfn >> top << top, top, migratetype
        return None


@dataclass(eq=False)
class Memory:
    """All memory of one machine: zones, page blocks, who uses which page, counters.

    ``pageblock_flags``: a byte a page block (its migratetype), from ``start_pfn`` on. ``pins``: pfn -> extra
    references. ``totalcma_pages``: pages handed to CMA; ``cma_allocated``: those that alloc_contig_range()
    has taken. ``pcp``: a page block on the per-CPU list; ``cache``: the system's page cache, ``boot_cache``
    where it was at boot: (zone, in CMA) -> pages. ``walk``: gets a line for each step of an allocation of
    CMA, None while nobody watches; ``trace``: the events of migration and isolation, likewise;
    ``on_migrate``: hears how many pages each migration of such an allocation moved, likewise.
    ``page_group_by_mobility_disabled``: too little memory for page blocks.
    """

    layout: MemoryLayout
    abi: MmAbi
    zones: list[Zone]
    start_pfn: int
    pageblock_flags: bytearray
    owners: PageOwners
    vmstat: Vmstat = field(default_factory=Vmstat)
    pins: dict[int, int] = field(default_factory=dict)
    totalcma_pages: int = 0
    cma_allocated: int = 0
    pcp: Occupant | None = None
    cache: Occupant | None = None
    boot_cache: dict[tuple[int, bool], int] = field(default_factory=dict)
    min_free_kbytes: int = field(init=False)
    page_group_by_mobility_disabled: bool = field(init=False)
    walk: list[str] | None = None
    trace: TraceHook | None = None
    on_migrate: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        self.pageblock_order = self.layout.pageblock_order
        self.pageblock_nr_pages = 1 << self.layout.pageblock_order
        self.block_base = self.start_pfn >> self.pageblock_order

    def zone_of(self, pfn: int) -> Zone:
        """``page_zone()``. Raises LookupError outside every zone."""
        for zone in self.zones:
            if zone.start_pfn <= pfn < zone.end_pfn:
                return zone
        raise LookupError(f"pfn {pfn:#x} is in no zone")

    def high_zones(self) -> list[Zone]:
        """``is_highmem()``: ZONE_HIGHMEM, and ZONE_MOVABLE where that is taken from high memory."""
        high = self.layout.high_pfn
        return [
            zone
            for zone in self.zones
            if zone.name == "HighMem"
            or (zone.name == "Movable" and high is not None and zone.start_pfn >= high)
        ]

    def nodes(self) -> list[int]:
        """The nodes with memory, ascending."""
        return sorted({zone.nid for zone in self.zones})

    def zone_page_state(self, zone: Zone, item: str) -> int:
        """``zone_page_state()`` in pages; 0 for what is not modelled."""
        if item == "nr_mlock":
            return sum(o.pages_in(zone.start_pfn, zone.end_pfn) for o in self.owners.mlocked())
        return {"nr_free_pages": zone.nr_free, "nr_free_cma": zone.nr_free_cma}.get(item, 0)

    def global_zone_page_state(self, item: str) -> int:
        """``global_zone_page_state()`` in pages: the sum over all zones."""
        return sum(self.zone_page_state(zone, item) for zone in self.zones)

    def in_memory(self, pfn: int) -> bool:
        """``pfn_valid()``: whether there is memory at a pfn."""
        return any(start <= pfn < end for start, end in self.layout.memory)

    def pageblock_migratetype(self, pfn: int) -> int:
        """``get_pageblock_migratetype()``: the type of the page block that a page is in."""
        return self.pageblock_flags[(pfn >> self.pageblock_order) - self.block_base]

    def set_pageblock_migratetype(self, start: int, end: int, migratetype: int) -> None:
        """``set_pageblock_migratetype()`` of all page blocks that ``[start, end)`` touches."""
        if self.page_group_by_mobility_disabled and migratetype < MIGRATE_PCPTYPES:
            migratetype = MIGRATE_UNMOVABLE
        first = (start >> self.pageblock_order) - self.block_base
        last = ((end - 1) >> self.pageblock_order) - self.block_base + 1
        self.pageblock_flags[first:last] = bytes((migratetype,)) * (last - first)

    def one_migratetype(self, start: int, end: int) -> bool:
        """Whether all page blocks of ``[start, end)`` have the same type."""
        first = (start >> self.pageblock_order) - self.block_base
        last = ((end - 1) >> self.pageblock_order) - self.block_base + 1
        flags = self.pageblock_flags
        return flags.count(flags[first], first, last) == last - first
