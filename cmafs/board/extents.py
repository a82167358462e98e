"""What lies in an area, run by run: from its bitmap, and on a simulated board from sim/map with names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmafs.board.areas import Area
from cmafs.board.root import Root, RootError
from cmafs.lib.intervals import Interval, without
from cmafs.lib.kstrtox import kstrtoull

MAP = "sim/map"
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
    spans = [(one.base_pfn, one.end_pfn) for one in area.ranges]
    data = root.read(MAP)
    if data is None:
        known = [Extent(low, high, ALLOCATED) for one in area.ranges for low, high in one.allocated]
        return _covering(known, spans)
    try:
        return extents_of(data, spans)
    except ValueError as error:
        raise RootError(f"{root.name}: sim/map: {error}") from None


def extents_of(data: bytes, spans: Sequence[Interval]) -> list[Extent]:
    """What a sim/map says of ``spans``, (start, end) as pfns. Raises ValueError for a line of no map."""
    known = list(map(_parse, data.decode("utf-8", "replace").splitlines()))
    return _covering([e for e in known if any(low <= e.start < e.end <= high for low, high in spans)], spans)


def _covering(known: list[Extent], spans: Sequence[Interval]) -> list[Extent]:
    """What is known, and free extents for the rest of ``spans``."""
    cover = sorted((extent.start, extent.end) for extent in known)
    return sorted([*known, *(Extent(low, high, FREE) for low, high in without(spans, cover))])


def _parse(line: str) -> Extent:
    words = line.split(" ", 3)
    try:
        first, pages = kstrtoull(words[0], 16), kstrtoull(words[1], 10)
    except (OSError, IndexError):
        first, pages = 0, 0
    if len(words) != 4 or words[2] not in STATES or not pages:
        raise ValueError(f"not a line of it: {line[:60]!r}")
    return Extent(first, first + pages, words[2], words[3])
