"""What lies in an area, run by run: from its bitmap, and on a simulated board from sim/map with names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cmafs.board.areas import Area
from cmafs.board.root import Root, RootError
from cmafs.lib.intervals import without
from cmafs.lib.kstrtox import kstrtoull

#: What an extent may be; the simulator's names (``fs/sim/map.py``), and what no line names.
STATES = (ALLOCATED, MOVABLE, PINNED, FREE) = "allocated", "movable", "pinned", "free"


@dataclass(frozen=True, order=True)
class Extent:
    """Pages ``[start, end)`` in one state; ``owner`` is empty where nobody knows."""

    start: int
    end: int
    state: str
    owner: str = ""

    @property
    def pages(self) -> int:
        """How many."""
        return self.end - self.start


def read_extents(root: Root, area: Area) -> list[Extent]:
    """The extents that cover the ranges of an area, ascending. Raises RootError for a damaged sim/map."""
    data = root.read("sim/map")
    if data is None:
        known = [Extent(low, high, ALLOCATED) for one in area.ranges for low, high in one.allocated]
    else:
        known = [extent for extent in _parse(root, data) if _inside(area, extent)]
    return sorted([*known, *_free(area, known)])


def _free(area: Area, known: list[Extent]) -> Iterator[Extent]:
    cover = [(extent.start, extent.end) for extent in known]
    spans = [(one.base_pfn, one.end_pfn) for one in area.ranges]
    for low, high in without(spans, sorted(cover)):
        yield Extent(low, high, FREE)


def _inside(area: Area, extent: Extent) -> bool:
    return any(one.base_pfn <= extent.start < extent.end <= one.end_pfn for one in area.ranges)


def _parse(root: Root, data: bytes) -> Iterator[Extent]:
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split(" ", 3)
        try:
            first, pages = kstrtoull(words[0], 16), kstrtoull(words[1], 10)
        except (OSError, IndexError):
            first, pages = 0, 0
        if len(words) != 4 or words[2] not in STATES or not pages:
            raise RootError(f"{root.name}: sim/map: not a line of it: {line[:60]!r}")
        yield Extent(first, first + pages, words[2], words[3])
