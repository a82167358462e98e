"""/proc/buddyinfo and /proc/pagetypeinfo, as ``mm/vmstat.c`` writes them: free blocks and page blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmafs.lib.intervals import Interval, within
from cmafs.mm.mmzone import MIGRATE_HIGHATOMIC, MIGRATE_TYPES, MIGRATETYPE_NAMES, Memory, Zone

if TYPE_CHECKING:
    from cmafs.abi.proc import ProcAbi

#: Columns of pagetypeinfo. The blocks kept for atomic allocations were MIGRATE_RESERVE before 4.4.
_MIGRATETYPES = {**{name: i for i, name in enumerate(MIGRATETYPE_NAMES)}, "Reserve": MIGRATE_HIGHATOMIC}


def populated(memory: Memory, nid: int) -> Iterator[Zone]:
    """``populated_zone()``: the zones of a node with memory."""
    return (zone for zone in memory.zones if zone.nid == nid and zone.present_pages)


def buddyinfo(memory: Memory) -> bytes:
    """``frag_show()``: free blocks by order."""
    lines = []
    for zone in (zone for zone in memory.zones if zone.present_pages):
        orders = range(zone.max_page_order + 1)
        counts = (sum(zone.nr_free_blocks(order, t) for t in range(MIGRATE_TYPES)) for order in orders)
        lines.append(
            f"Node {zone.nid}, zone {zone.name:>8} " + "".join(f"{count:6d} " for count in counts) + "\n"
        )
    return "".join(lines).encode()


def pagetypeinfo(
    memory: Memory, abi: ProcAbi, migratetypes: tuple[str, ...], online: list[Interval]
) -> bytes:
    """``pagetypeinfo_show()``: free blocks by migratetype and order, then page blocks by migratetype.

    ``migratetypes``: those of this configuration; ``online``: ranges of pfn, see ``pageblock_counts()``.
    """
    return "".join(
        f"Page block order: {memory.pageblock_order}\nPages per block:  {memory.pageblock_nr_pages}\n\n"
        + _showfree(memory, nid, migratetypes, abi.freecount_limit)
        + _showblockcount(memory, nid, migratetypes, online)
        for nid in memory.nodes()
    ).encode()


def _showfree(memory: Memory, nid: int, migratetypes: tuple[str, ...], limit: int | None) -> str:
    """``pagetypeinfo_showfree()`` of a node."""
    orders = range(memory.layout.max_page_order + 1)
    title = "Free pages count per migrate type at order"
    text = f"{title:<43} " + "".join(f"{order:6d} " for order in orders) + "\n"
    for zone in populated(memory, nid):
        for name in migratetypes:
            migratetype = _MIGRATETYPES[name]
            counts = (_freecount(zone.nr_free_blocks(o, migratetype), limit) for o in orders)
            text += f"Node {nid:4d}, zone {zone.name:>8}, type {name:>12} " + "".join(counts) + "\n"
    return text + "\n"


def _showblockcount(memory: Memory, nid: int, migratetypes: tuple[str, ...], online: list[Interval]) -> str:
    """``pagetypeinfo_showblockcount()`` of a node."""
    text = f"{'Number of blocks type ':<23}{''.join(f'{name:>12} ' for name in migratetypes)}\n"
    for zone in populated(memory, nid):
        blocks = pageblock_counts(memory, zone, online)
        counts = (f"{blocks[_MIGRATETYPES[name]]:12d} " for name in migratetypes)
        text += f"Node {nid}, zone {zone.name:>8} " + "".join(counts) + "\n"
    return text


def _freecount(blocks: int, limit: int | None) -> str:
    """``pagetypeinfo_showfree_print()``: the walk of a long list ends at a limit."""
    if limit is not None and blocks >= limit:
        return f">{limit:6d} "
    return f"{blocks:6d} "


def pageblock_counts(memory: Memory, zone: Zone, online: list[Interval]) -> list[int]:
    """``pagetypeinfo_showblockcount_print()``: page blocks of a zone by migratetype.

    A block counts whose first page in the zone is in ``online``: pages with a page struct, ranges of pfn.
    """
    start, pages = zone.start_pfn, memory.pageblock_nr_pages
    first = (start >> memory.pageblock_order) - memory.block_base
    last = first - (start - zone.end_pfn) // pages
    blocks = [(first - (start - low) // pages, first - (start - high) // pages) for low, high in online]
    counts = [0] * MIGRATE_TYPES
    for low, high in within(blocks, first, min(last, len(memory.pageblock_flags))):
        for migratetype in range(MIGRATE_TYPES):
            counts[migratetype] += memory.pageblock_flags.count(migratetype, low, high)
    return counts
