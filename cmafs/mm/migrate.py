"""Moving pages with their content (``mm/migrate.c``): tags and reverse map go along. Positions are pfns."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from cmafs.mm.mmzone import Memory
from cmafs.mm.page_owner import KIND_ANON, TAG_INDEX, TAG_SHIFT, Occupant, Page, contiguous

#: Pages that are isolated and migrated together.
COMPACT_CLUSTER_MAX = 32

MOVABLE = 0  # moves
SKIPPED = 1  # not even isolated: the range stays busy, the pages behind it still move
FAILING = 2  # isolated, and then migrate_pages() fails on it: the scan ends there
LOCKED = 3  # as FAILING, by mlock; only the dialect ``article``


def movability(memory: Memory, pfn: int, occupant: Occupant) -> int:
    """What migration makes of a page: MOVABLE, SKIPPED, FAILING or LOCKED.

    Anonymous pages with an extra reference are left alone before isolation, file pages fail in
    migrate_page_move_mapping(). Source: ``mm/compaction.c:isolate_migratepages_block()@v5.10``.
    """
    if not occupant.movable:
        return SKIPPED
    if pfn in memory.pins:
        return SKIPPED if occupant.kind == KIND_ANON else FAILING
    if occupant.mlocked and memory.abi.mlock_stops_migration:
        return LOCKED
    return MOVABLE


def migration_fails(memory: Memory, pfn: int) -> bool:
    """Whether migrate_pages() fails on a page; not so for one that is free, or not even isolated."""
    occupant = memory.owners.owner_at(pfn)
    return occupant is not None and movability(memory, pfn, occupant) in (FAILING, LOCKED)


def all_movable(memory: Memory, pages: list[Page]) -> bool:
    """Whether nothing but a pin can hold any of these pages: all their owners' pages move."""
    locks = memory.abi.mlock_stops_migration
    owners = [memory.owners.occupants[ident] for ident in {tag >> TAG_SHIFT for _, tag in pages}]
    return all(o.movable and not (o.mlocked and locks) for o in owners)


def move_pages(memory: Memory, pages: Sequence[Page], targets: array[int]) -> None:
    """Moves pages, ascending, into frames that the caller took off the free lists.

    Their old frames are the caller's to free.
    """
    owners = memory.owners
    occupants = owners.occupants
    ident, frames = 0, array("q")
    for (_, tag), target in zip(pages, targets, strict=True):
        if tag >> TAG_SHIFT != ident:
            ident = tag >> TAG_SHIFT
            frames = occupants[ident].frames
            occupants[ident].counted.clear()
        frames[tag & TAG_INDEX] = target
    owners.put_tags([tag for _, tag in pages], targets)
    for pfn, count in contiguous([pfn for pfn, _ in pages]):
        owners.clear_pages(pfn, count)
    memory.vmstat.count_vm_event("pgmigrate_success", len(pages))


def batches(isolated: Sequence[Page], moved: Sequence[Page]) -> Iterator[tuple[int, int]]:
    """Of the pages that are isolated together, how many moved; none stayed."""
    went = set(moved)
    for at in range(0, len(isolated) if went else 0, COMPACT_CLUSTER_MAX):
        yield sum(page in went for page in isolated[at : at + COMPACT_CLUSTER_MAX]), 0
