"""An area as a row of cells, each standing for a power of two of pages: the scale of all pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cmafs.board.extents import FREE, PINNED, Extent
from cmafs.lib.math import div_round_up

#: Cells of a whole area, at most: enough to see shapes, few enough to be looked at.
CELLS = 512


@dataclass(frozen=True)
class Cell:
    """What is most in a cell; ``sparse``: less than half of it is used; ``largest``: of the largest hole."""

    state: str
    owner: str = ""
    sparse: bool = False
    largest: bool = False


def pages_per_cell(pages: int, unit: int) -> int:
    """The smallest power of two from ``unit`` on with which ``pages`` are no more than CELLS cells."""
    scale = unit
    while scale * CELLS < pages:
        scale *= 2
    return scale


def cells(
    extents: Iterable[Extent], start: int, end: int, scale: int, largest: tuple[int, int]
) -> list[Cell]:
    """The cells of ``[start, end)``; a pinned page is never lost among others, nor a single used one.

    ``largest``: the hole that is marked.
    """
    count = div_round_up(end - start, scale)
    pages: list[Counter[tuple[str, str]]] = [Counter() for _ in range(count)]
    for extent in extents:
        low, high = max(extent.start, start), min(extent.end, end)
        while low < high:
            index = (low - start) // scale
            stop = min(high, start + (index + 1) * scale)
            pages[index][extent.state, extent.owner] += stop - low
            low = stop
    return [
        _cell(found, min(scale, end - start - index * scale), _marked(start + index * scale, scale, largest))
        for index, found in enumerate(pages)
    ]


def _marked(start: int, scale: int, hole: tuple[int, int]) -> bool:
    """Whether at least half of a cell lies in a hole."""
    return 2 * (min(start + scale, hole[1]) - max(start, hole[0])) >= min(scale, hole[1] - hole[0]) > 0


def _cell(found: Counter[tuple[str, str]], pages: int, largest: bool) -> Cell:
    used = Counter({key: n for key, n in found.items() if key[0] != FREE})
    if not used:
        return Cell(FREE, largest=largest)
    pinned = next((key for key in used if key[0] == PINNED), None)
    state, owner = pinned or used.most_common(1)[0][0]
    return Cell(state, owner, not pinned and 2 * used.total() < pages, largest)


def largest_hole(holes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The longest hole, the lowest if several are; (0, 0) if there is none."""
    return max(holes, key=lambda hole: (hole[1] - hole[0], -hole[0]), default=(0, 0))
