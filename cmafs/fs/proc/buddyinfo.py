"""/proc/buddyinfo and /proc/pagetypeinfo, as ``mm/vmstat.c`` writes them: free blocks and page blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmafs.lib.intervals import union, within
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


def pagetypeinfo(memory: Memory, abi: ProcAbi, migratetypes: tuple[str, ...], section: int) -> bytes:
    """``pagetypeinfo_show()``: free blocks by migratetype and order, then page blocks by migratetype.

    ``migratetypes``: those of this configuration; ``section``: pages of a memory section.
    """
    return "".join(
        f"Page block order: {memory.pageblock_order}\nPages per block:  {memory.pageblock_nr_pages}\n\n"
        + _showfree(memory, nid, migratetypes, abi.freecount_limit)
        + _showblockcount(memory, nid, migratetypes, section)
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


def _showblockcount(memory: Memory, nid: int, migratetypes: tuple[str, ...], section: int) -> str:
    """``pagetypeinfo_showblockcount()`` of a node."""
    text = f"{'Number of blocks type ':<23}{''.join(f'{name:>12} ' for name in migratetypes)}\n"
    for zone in populated(memory, nid):
        blocks = pageblock_counts(memory, zone, section)
        counts = (f"{blocks[_MIGRATETYPES[name]]:12d} " for name in migratetypes)
        text += f"Node {nid}, zone {zone.name:>8} " + "".join(counts) + "\n"
    return text


def _freecount(blocks: int, limit: int | None) -> str:
    """``pagetypeinfo_showfree_print()``: the walk of a long list ends at a limit."""
    if limit is not None and blocks >= limit:
        return f">{limit:6d} "
    return f"{blocks:6d} "


def pageblock_counts(memory: Memory, zone: Zone, section: int) -> list[int]:
    """``pagetypeinfo_showblockcount_print()``: page blocks of a zone by migratetype.

    Every block counts whose section has memory, holes inside the section too: they have page structs.
    ``section``: pages of a section.
    """
    order, flags = memory.pageblock_order, memory.pageblock_flags
    first = (zone.start_pfn >> order) - memory.block_base
    last = first + (zone.end_pfn - zone.start_pfn - 1 >> order)
    sections = union((start // section, -(-end // section)) for start, end in memory.layout.memory)
    base = memory.block_base
    blocks = [((low * section >> order) - base, (high * section >> order) - base) for low, high in sections]
    counts = [0] * MIGRATE_TYPES
    for low, high in within(blocks, first, min(last + 1, len(flags))):
        for migratetype in range(MIGRATE_TYPES):
            counts[migratetype] += flags.count(migratetype, low, high)
    return counts
