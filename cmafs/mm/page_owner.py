"""Who uses a frame, and what is in it.

A used page is one number, ``owner << TAG_SHIFT | index``: reverse map (whose page, which of its pages) and
content tag in one. It is kept in one array a touched page block and travels when a page is migrated;
``Occupant.frames`` is the forward map. ``cmafs.sim.validate`` checks the two against each other and against
``Occupant.checksum``, which migration never touches.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

TAG_SHIFT = 40
TAG_INDEX = (1 << TAG_SHIFT) - 1

KIND_ANON, KIND_FILE, KIND_TMPFS, KIND_KERNEL, KIND_SLAB = "anon", "file", "tmpfs", "kernel", "slab"
KIND_PCP = "pcp"  # not in use at all: resting on a per-CPU list (cmafs.mm.pcp)
MOVABLE_KINDS = frozenset({KIND_ANON, KIND_FILE, KIND_TMPFS})

#: Global page state -> the kinds of occupants whose pages it counts, by whether their task is mlocked (None:
#: both).
NODE_STATES: dict[str, tuple[tuple[str, ...], bool | None]] = {
    "nr_anon_pages": ((KIND_ANON,), None),
    "nr_file_pages": ((KIND_FILE, KIND_TMPFS), None),
    "nr_shmem": ((KIND_TMPFS,), None),
    "nr_slab_reclaimable": ((KIND_SLAB,), None),
    "nr_inactive_anon": ((KIND_ANON, KIND_TMPFS), False),
    "nr_inactive_file": ((KIND_FILE,), False),
    "nr_unevictable": ((KIND_ANON, KIND_FILE, KIND_TMPFS), True),
}

#: Global page states that count dirty pages.
DIRTY_STATES = frozenset({"nr_dirty", "nr_write_pending"})


#: Pages handed out together: (index of the first, step of the index, first pfn, count).
Segment = tuple[int, int, int, int]
#: A used frame and its tag.
Page = tuple[int, int]


def pfns_of(segments: list[Segment], count: int) -> array[int]:
    """The frames of segments by index, ``count`` in all."""
    if len(segments) == 1:
        return array("q", range(segments[0][2], segments[0][2] + count))
    pfns = array("q", bytes(8 * count))
    for index, step, pfn, n in segments:
        pfns[index : index + step * n : step] = array("q", range(pfn, pfn + n))
    return pfns


def contiguous(pfns: list[int]) -> Iterator[tuple[int, int]]:
    """(first pfn, count) of each run of neighbours in a sorted list without doubles.

    Costs by runs, not by pages: in a run, a pfn and its place in the list differ by the same.
    """
    i, end = 0, len(pfns)
    while i < end:
        offset, step = pfns[i] - i, 1
        low = i
        while low + step < end and pfns[low + step] - (low + step) == offset:
            low += step
            step *= 2
        while step:
            if low + step < end and pfns[low + step] - (low + step) == offset:
                low += step
            step //= 2
        yield pfns[i], low + 1 - i
        i = low + 1


@dataclass(eq=False)
class Occupant:
    """Somebody who holds pages: a process, a cache, a part of the kernel.

    ``frames``: index -> pfn, -1 where the page was reclaimed; ``resident``: pages held; ``checksum``: sum
    over the held indices of ``index + 1``, the independent witness of what must be found in memory;
    ``pinned``: indices that the owner itself pinned; ``dirty``: those that must be written back before they
    can be dropped; ``visible``: whether a person made it (sim/tasks shows it); ``counted``: what pages_in()
    has found, to be cleared when frames change.
    """

    ident: int
    name: str
    kind: str
    visible: bool
    frames: array[int] = field(default_factory=lambda: array("q"))
    resident: int = 0
    checksum: int = 0
    pinned: set[int] = field(default_factory=set)
    dirty: set[int] = field(default_factory=set)
    mlocked: bool = False
    reclaimed: int = 0  # the index at which reclaim goes on
    counted: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def movable(self) -> bool:
        """Whether its pages are allocated with __GFP_MOVABLE."""
        return self.kind in MOVABLE_KINDS

    def pfns(self) -> list[int]:
        """The frames that it holds, by index."""
        if self.resident == len(self.frames):
            return self.frames.tolist()
        return [pfn for pfn in self.frames if pfn >= 0]

    def pages_in(self, start: int, end: int) -> int:
        """How many of its frames lie in ``[start, end)``."""
        found = self.counted.get((start, end))
        if found is None:
            pfns = sorted(self.frames)
            found = self.counted[start, end] = bisect_left(pfns, end) - bisect_left(pfns, start)
        return found


def _in_use(tags: array[int]) -> tuple[int, int]:
    """(first, behind the last) of the entries that are not 0, as bits of one number: a pin is often alone."""
    bits = int.from_bytes(tags.tobytes(), "little")
    return ((bits & -bits).bit_length() - 1) // 64, (bits.bit_length() + 63) // 64


class PageOwners:
    """All used pages of a machine; ``order``: that of a page block."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.block_pages = 1 << order
        self.tags: dict[int, array[int]] = {}
        self.used: dict[int, int] = {}
        self.occupants: dict[int, Occupant] = {}
        self._next_ident = 1

    def add(self, name: str, kind: str, visible: bool = True) -> Occupant:
        """A new occupant without pages."""
        occupant = Occupant(self._next_ident, name, kind, visible)
        self._next_ident += 1
        self.occupants[occupant.ident] = occupant
        return occupant

    def remove(self, occupant: Occupant) -> None:
        """Forgets an occupant that holds nothing any more."""
        del self.occupants[occupant.ident]

    def by_name(self, name: str) -> Occupant | None:
        """The occupant of that name; looks at all of them."""
        return next((o for o in self.occupants.values() if o.name == name), None)

    def set_pages(self, tag: int, step: int, pfn: int, count: int) -> None:
        """Writes tags ``tag``, ``tag + step``, … into ``[pfn, pfn + count)``, frames that nobody uses."""
        mask = self.block_pages - 1
        while count:
            block, offset = pfn >> self.order, pfn & mask
            here = min(count, self.block_pages - offset)
            tags = self.tags.get(block)
            if tags is None:
                tags = self.tags[block] = array("q", bytes(8 * self.block_pages))
                self.used[block] = 0
            tags[offset : offset + here] = array("q", range(tag, tag + step * here, step))
            self.used[block] += here
            tag += step * here
            pfn += here
            count -= here

    def put_tags(self, tags: list[int], pfns: array[int]) -> None:
        """Writes tags into unused frames, one each."""
        order, mask = self.order, self.block_pages - 1
        known, used = self.tags, self.used
        for tag, pfn in zip(tags, pfns, strict=True):
            block = pfn >> order
            if block not in known:
                known[block] = array("q", bytes(8 * self.block_pages))
                used[block] = 0
            known[block][pfn & mask] = tag
            used[block] += 1

    def clear_pages(self, pfn: int, count: int) -> None:
        """Erases the tags of ``[pfn, pfn + count)``, all of them used pages."""
        mask = self.block_pages - 1
        while count:
            block, offset = pfn >> self.order, pfn & mask
            here = min(count, self.block_pages - offset)
            left = self.used[block] - here
            if left:
                self.tags[block][offset : offset + here] = array("q", bytes(8 * here))
                self.used[block] = left
            else:
                del self.tags[block], self.used[block]
            pfn += here
            count -= here

    def tag_at(self, pfn: int) -> int:
        """The tag of a frame, 0 if nobody uses it."""
        tags = self.tags.get(pfn >> self.order)
        return tags[pfn & self.block_pages - 1] if tags is not None else 0

    def owner_at(self, pfn: int) -> Occupant | None:
        """Whose page is in a frame."""
        tag = self.tag_at(pfn)
        return self.occupants[tag >> TAG_SHIFT] if tag else None

    def any_in(self, start: int, end: int) -> bool:
        """Whether a frame of ``[start, end)`` is in use by an occupant."""
        order = self.order
        first, last = start >> order, (end - 1) >> order
        if first == last and first not in self.tags:
            return False
        if len(self.tags) < last - first:
            return any(first <= block <= last and self._any(block, start, end) for block in self.tags)
        return any(block in self.tags and self._any(block, start, end) for block in range(first, last + 1))

    def _any(self, block: int, start: int, end: int) -> bool:
        base = block << self.order
        low, high = max(start - base, 0), min(end - base, self.block_pages)
        return high - low == self.block_pages or any(self.tags[block][low:high])

    def used_in(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(pfn, tag) of every used frame of ``[start, end)``, ascending."""
        first, last = start >> self.order, (end - 1) >> self.order
        if len(self.tags) < last - first:
            blocks: list[int] = sorted(block for block in self.tags if first <= block <= last)
        else:
            blocks = [block for block in range(first, last + 1) if block in self.tags]
        for block in blocks:
            base = block << self.order
            tags = self.tags[block][max(start - base, 0) : end - base]
            low, high = _in_use(tags)
            for pfn, tag in enumerate(tags[low:high], max(start, base) + low):
                if tag:
                    yield pfn, tag

    def extend(self, occupant: Occupant, segments: list[Segment]) -> None:
        """Gives freshly allocated frames to an occupant, as its next pages."""
        frames, first = occupant.frames, len(occupant.frames)
        count = sum(n for _, _, _, n in segments)
        frames.extend(pfns_of(segments, count))
        occupant.counted.clear()
        base = occupant.ident << TAG_SHIFT | first
        for index, step, pfn, n in segments:
            self.set_pages(base + index, step, pfn, n)
        occupant.resident += count
        occupant.checksum += (first + 1 + first + count) * count // 2

    def truncate(self, occupant: Occupant, length: int) -> list[int]:
        """Takes the pages from index ``length`` on from an occupant; their frames, to be freed, ascending."""
        gone = [(i, pfn) for i, pfn in enumerate(occupant.frames[length:], length) if pfn >= 0]
        del occupant.frames[length:]
        return self._forget(occupant, gone)

    def punch(self, occupant: Occupant, indices: list[int]) -> list[int]:
        """Takes single pages from an occupant, leaving holes; their frames, to be freed, ascending."""
        gone = [(i, occupant.frames[i]) for i in indices]
        for i in indices:
            occupant.frames[i] = -1
        return self._forget(occupant, gone)

    def refill(self, occupant: Occupant, runs: list[tuple[int, int]]) -> None:
        """Puts freshly allocated frames, as (pfn, count), into the holes of an occupant, the lowest first."""
        pfns = [pfn for start, count in runs for pfn in range(start, start + count)]
        holes = [i for i, pfn in enumerate(occupant.frames) if pfn < 0][: len(pfns)]
        for index, pfn in zip(holes, pfns, strict=True):
            occupant.frames[index] = pfn
        self.put_tags([occupant.ident << TAG_SHIFT | index for index in holes], array("q", pfns))
        occupant.resident += len(pfns)
        occupant.checksum += sum(holes) + len(holes)
        occupant.reclaimed = 0
        occupant.counted.clear()

    def _forget(self, occupant: Occupant, gone: list[tuple[int, int]]) -> list[int]:
        """Erases (index, pfn) of an occupant, which has given them up; the pfns, ascending."""
        occupant.dirty.difference_update(i for i, _ in gone)
        occupant.resident -= len(gone)
        occupant.checksum -= sum(i for i, _ in gone) + len(gone)
        occupant.counted.clear()
        pfns = sorted(pfn for _, pfn in gone)
        for pfn, count in contiguous(pfns):
            self.clear_pages(pfn, count)
        return pfns

    def mlocked(self) -> list[Occupant]:
        """The occupants whose pages are mlocked."""
        return [o for o in self.occupants.values() if o.mlocked]

    def node_page_state(self, item: str) -> int:
        """Pages that count towards a global page state (``NODE_STATES``); 0 for what is not modelled."""
        if item in DIRTY_STATES:
            return sum(len(o.dirty) for o in self.occupants.values())
        kinds, mlocked = NODE_STATES.get(item, ((), None))
        return sum(
            o.resident for o in self.occupants.values() if o.kind in kinds and mlocked in (None, o.mlocked)
        )
