"""The occupants of memory: processes and caches that a person makes, grows, pins and kills (``sim/control``).

Sizes in pages, positions as pfns. Every verb happens whole or not at all; a refusal is an OSError whose
``strerror`` is the reason: EEXIST name taken, ENOENT no such task, ENOMEM memory after reclaim does not
suffice, EBUSY cannot be pinned or freed, EINVAL the rest.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cmafs.mm.boot_pages import settle
from cmafs.mm.buddy import carve, free_unref_pages
from cmafs.mm.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_SLAB_RECLAIMABLE
from cmafs.mm.mmzone import MIGRATE_CMA, Memory
from cmafs.mm.page_alloc import alloc_pages_bulk, available, prepare_alloc_pages
from cmafs.mm.page_owner import (
    KIND_ANON,
    KIND_FILE,
    KIND_KERNEL,
    KIND_SLAB,
    KIND_TMPFS,
    TAG_INDEX,
    Occupant,
    contiguous,
)
from cmafs.mm.pcp import drain_all_pages

#: What each kind of occupant allocates with.
GFP_OF_KIND = {
    KIND_ANON: GFP_HIGHUSER_MOVABLE,
    KIND_FILE: GFP_HIGHUSER_MOVABLE,
    KIND_TMPFS: GFP_HIGHUSER_MOVABLE,
    KIND_KERNEL: GFP_KERNEL,
    KIND_SLAB: GFP_SLAB_RECLAIMABLE,
}
#: Holds the frames that ``pin pfn`` found free; no task can have this name.
PIN_OWNER = "[pin]"
#: Pages that may be in use at once: each costs the simulator 16 bytes (docs/memory.md).
MAX_USED_PAGES = 1 << 24
#: Ranges that ``sim/tasks`` shows of one task.
MAX_RANGES = 32

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


@dataclass(frozen=True)
class TaskInfo:
    """One line of ``sim/tasks``: pages, ``ranges`` as (first, last) pfn, how many ``more`` there are."""

    name: str
    kind: str
    pages: int
    cma: int
    pinned: int
    mlocked: int
    ranges: tuple[tuple[int, int], ...]
    more: int


def _find(memory: Memory, name: str) -> Occupant:
    occupant = memory.owners.by_name(name)
    if occupant is None or not occupant.visible:
        raise OSError(errno.ENOENT, f"no task {name!r}")
    return occupant


def _extend(memory: Memory, occupant: Occupant, pages: int) -> None:
    gfp = GFP_OF_KIND[occupant.kind]
    too_many = sum(memory.owners.used.values()) + pages > MAX_USED_PAGES
    if too_many and pages <= available(memory, prepare_alloc_pages(memory, gfp)):
        raise OSError(errno.ENOMEM, f"more than {MAX_USED_PAGES} used pages are not simulated")
    segments = alloc_pages_bulk(memory, gfp, pages)
    memory.owners.extend(occupant, segments)


def spawn(memory: Memory, name: str, kind: str, pages: int) -> None:
    """A new task with pages of one kind. Raises OSError EINVAL, EEXIST, ENOMEM."""
    if not _NAME.match(name):
        raise OSError(errno.EINVAL, f"not a name: {name[:80]!r}")
    if kind not in GFP_OF_KIND:
        raise OSError(errno.EINVAL, f"unknown kind {kind[:80]!r}, known are {', '.join(GFP_OF_KIND)}")
    if memory.owners.by_name(name) is not None:
        raise OSError(errno.EEXIST, f"task {name!r} exists")
    occupant = memory.owners.add(name, kind)
    try:
        _extend(memory, occupant, pages)
    except OSError:
        memory.owners.remove(occupant)
        raise


def grow(memory: Memory, name: str, pages: int) -> None:
    """More pages for a task. Raises OSError ENOENT, ENOMEM."""
    _extend(memory, _find(memory, name), pages)


def _foreign_pins(memory: Memory, occupant: Occupant) -> list[int]:
    """Frames of a task that somebody besides the task itself has pinned."""
    if not memory.pins:
        return []
    frames, own = occupant.frames, occupant.pinned
    held = [(i, pfn) for i, pfn in enumerate(frames) if pfn in memory.pins]
    return [pfn for i, pfn in held if memory.pins[pfn] > (i in own)]


def shrink(memory: Memory, name: str, pages: int) -> None:
    """Frees a task's newest pages. Raises OSError ENOENT, EINVAL (it has fewer), EBUSY (one is pinned)."""
    occupant = _find(memory, name)
    if pages > occupant.resident:
        raise OSError(errno.EINVAL, f"task {name!r} has only {occupant.resident} pages")
    length = len(occupant.frames)
    if occupant.resident == length:
        length -= pages
    else:
        held = [i for i, pfn in enumerate(occupant.frames) if pfn >= 0]
        length = held[-pages] if pages else length
    pinned = next((pfn for pfn in occupant.frames[length:] if pfn in memory.pins), None)
    if pinned is not None:
        raise OSError(errno.EBUSY, f"pfn {pinned:#x} is pinned")
    free_unref_pages(memory, memory.owners.truncate(occupant, length))
    occupant.reclaimed = min(occupant.reclaimed, length)
    settle(memory)


def kill(memory: Memory, name: str) -> None:
    """Ends a task, with its own pins. Raises OSError ENOENT, EBUSY (``pin pfn`` holds one of its pages)."""
    occupant = _find(memory, name)
    held = _foreign_pins(memory, occupant)
    if held:
        raise OSError(errno.EBUSY, f"pfn {held[0]:#x} is pinned")
    _drop_own_pins(memory, occupant)
    free_unref_pages(memory, memory.owners.truncate(occupant, 0))
    memory.owners.remove(occupant)
    settle(memory)


def _get(memory: Memory, pfn: int) -> None:
    memory.pins[pfn] = memory.pins.get(pfn, 0) + 1


def _put(memory: Memory, pfn: int) -> None:
    memory.pins[pfn] -= 1
    if not memory.pins[pfn]:
        del memory.pins[pfn]


def pin(memory: Memory, name: str, pages: int) -> list[int]:
    """Long-term pins on the first pages that have none; their indices.

    Raises OSError ENOENT, EINVAL (there are fewer).
    """
    occupant = _find(memory, name)
    frames = occupant.frames
    fresh = [
        i for i, pfn in enumerate(frames) if pfn >= 0 and i not in occupant.pinned and pfn not in memory.pins
    ]
    if pages > len(fresh):
        raise OSError(errno.EINVAL, f"task {name!r} has only {len(fresh)} pages that are not pinned")
    for index in fresh[:pages]:
        occupant.pinned.add(index)
        _get(memory, frames[index])
    return fresh[:pages]


def _drop_own_pins(memory: Memory, occupant: Occupant) -> None:
    unpin_pages(memory, occupant.name, list(occupant.pinned))


def unpin_pages(memory: Memory, name: str, indices: Iterable[int]) -> None:
    """Drops those of a task's own pins that are still there; of a task that has ended none are."""
    occupant = memory.owners.by_name(name)
    if occupant is None:
        return
    for index in occupant.pinned.intersection(indices):
        _put(memory, occupant.frames[index])
        occupant.pinned.discard(index)


def unpin(memory: Memory, name: str) -> None:
    """Drops all pins that ``pin NAME`` made. Raises OSError ENOENT, EINVAL (there are none)."""
    occupant = _find(memory, name)
    if not occupant.pinned:
        raise OSError(errno.EINVAL, f"task {name!r} has no pins")
    _drop_own_pins(memory, occupant)


def pin_pfn(memory: Memory, pfn: int) -> None:
    """An extra reference on a frame, which becomes an allocated movable page first if it is free.

    Raises OSError EINVAL (no memory there), EBUSY (reserved, or part of a CMA allocation).
    """
    if not memory.in_memory(pfn):
        raise OSError(errno.EINVAL, f"pfn {pfn:#x} is outside memory")
    if memory.pcp is not None and memory.owners.owner_at(pfn) is memory.pcp:
        drain_all_pages(memory)
    if memory.owners.owner_at(pfn) is None:
        zone = memory.zone_of(pfn)
        if not carve(zone, pfn, pfn + 1):
            cma = memory.pageblock_migratetype(pfn) == MIGRATE_CMA
            raise OSError(errno.EBUSY, f"pfn {pfn:#x} is {'allocated from CMA' if cma else 'reserved'}")
        memory.vmstat.count_vm_event(f"pgalloc_{zone.item}")
        owner = memory.owners.by_name(PIN_OWNER) or memory.owners.add(PIN_OWNER, KIND_ANON, visible=False)
        memory.owners.extend(owner, [(0, 1, pfn, 1)])
    _get(memory, pfn)


def unpin_pfn(memory: Memory, pfn: int) -> None:
    """Undoes one ``pin pfn``; after the last, what was a free frame is free again. Raises OSError EINVAL."""
    occupant = memory.owners.owner_at(pfn)
    index = memory.owners.tag_at(pfn) & TAG_INDEX
    if occupant is None or memory.pins.get(pfn, 0) <= (index in occupant.pinned):
        raise OSError(errno.EINVAL, f"pfn {pfn:#x} is not pinned")
    _put(memory, pfn)
    if occupant.name == PIN_OWNER and pfn not in memory.pins:
        free_unref_pages(memory, memory.owners.punch(occupant, [index]))
        if not occupant.resident:
            memory.owners.remove(occupant)


def mlock(memory: Memory, name: str) -> None:
    """Keeps a task's pages in memory, though not in place. Raises OSError ENOENT, EINVAL (kernel, slab)."""
    occupant = _find(memory, name)
    if not occupant.movable:
        raise OSError(errno.EINVAL, f"pages of kind {occupant.kind} cannot be mlocked")
    if not occupant.mlocked:
        occupant.mlocked = True
        memory.vmstat.count_vm_event("unevictable_pgs_mlocked", occupant.resident)


def munlock(memory: Memory, name: str) -> None:
    """Undoes mlock. Raises OSError ENOENT, EINVAL (not locked)."""
    occupant = _find(memory, name)
    if not occupant.mlocked:
        raise OSError(errno.EINVAL, f"task {name!r} is not mlocked")
    occupant.mlocked = False
    memory.vmstat.count_vm_event("unevictable_pgs_munlocked", occupant.resident)


def dirty(memory: Memory, name: str, pages: int) -> None:
    """Writes to the first clean pages of a page cache: they must move then, and cannot be dropped.

    Raises OSError ENOENT, EINVAL (not of kind file, or fewer are clean).
    """
    occupant = _find(memory, name)
    if occupant.kind != KIND_FILE:
        raise OSError(errno.EINVAL, f"pages of kind {occupant.kind} are never dirty: only those of files")
    clean = [i for i, pfn in enumerate(occupant.frames) if pfn >= 0 and i not in occupant.dirty]
    if not 0 < pages <= len(clean):
        raise OSError(errno.EINVAL, f"task {name!r} has {len(clean)} clean pages")
    occupant.dirty.update(clean[:pages])
    memory.vmstat.count_vm_event("nr_dirtied", pages)


def clean(memory: Memory, name: str) -> None:
    """Writes a task's dirty pages back. Raises OSError ENOENT, EINVAL (there are none)."""
    occupant = _find(memory, name)
    if not occupant.dirty:
        raise OSError(errno.EINVAL, f"task {name!r} has no dirty pages")
    memory.vmstat.count_vm_event("nr_written", len(occupant.dirty))
    occupant.dirty.clear()


def tasks(memory: Memory) -> list[TaskInfo]:
    """Who holds what, where: the lines of ``sim/tasks``, in the order of their making."""
    shown = [o for o in memory.owners.occupants.values() if o.visible or o.name == PIN_OWNER]
    return [_task_info(memory, occupant) for occupant in shown]


def _task_info(memory: Memory, occupant: Occupant) -> TaskInfo:
    ranges = [(pfn, pfn + n) for pfn, n in contiguous(sorted(occupant.pfns()))]
    return TaskInfo(
        occupant.name,
        occupant.kind,
        occupant.resident,
        sum(_cma_pages(memory, start, end) for start, end in ranges),
        sum(pfn in memory.pins for pfn in occupant.frames) if memory.pins else 0,
        occupant.resident if occupant.mlocked else 0,
        tuple((start, end - 1) for start, end in ranges[:MAX_RANGES]),
        max(0, len(ranges) - MAX_RANGES),
    )


def _cma_pages(memory: Memory, start: int, end: int) -> int:
    """Pages of ``[start, end)`` that lie in page blocks of type CMA."""
    pages = 0
    while start < end:
        stop = min(end, (start >> memory.pageblock_order) + 1 << memory.pageblock_order)
        if memory.pageblock_migratetype(start) == MIGRATE_CMA:
            pages += stop - start
        start = stop
    return pages
