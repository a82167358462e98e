"""What a picture of a board shows, whatever it is drawn with: areas, their strips, the key, page blocks."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cmafs.board.areas import Area
from cmafs.board.extents import ALLOCATED, FREE, MOVABLE, PINNED, STATES, Extent
from cmafs.board.memory import ZoneBlocks
from cmafs.lib.kstrtox import kstrtoull
from cmafs.view.cells import Cell, cells, largest_hole, pages_per_cell

#: What a cell is drawn with when its owner is one of too many, or of nobody knows whom.
UNNAMED = {ALLOCATED: "#", MOVABLE: "~", PINNED: "!"}
SPARSE = {ALLOCATED: "+", MOVABLE: "-"}
HOLE, LARGEST = ".", "="
#: The letters of owners, by what they have there.
LETTERS = {ALLOCATED: string.ascii_uppercase, MOVABLE: string.ascii_lowercase}
#: Colours of owners: #rrggbb, and the nearest of 256 that a terminal has.
PALETTES = {
    ALLOCATED: (("#d9822b", 172), ("#8f6bb3", 97), ("#3f8f4f", 71), ("#b5524a", 131), ("#8a7a2f", 100)),
    MOVABLE: (("#5b9bd5", 74), ("#7fc4c9", 116), ("#4a6fa5", 61), ("#9db7e0", 110)),
    PINNED: (("#e0002b", 160),),
    FREE: (("#eeeeee", 250), ("#cfe8cf", 114)),
}
#: The same for migrate types.
_BLOCK_COLOURS = {
    "Unmovable": ("#777777", 243),
    "Movable": ("#5b9bd5", 74),
    "Reclaimable": ("#8f6bb3", 97),
    "CMA": ("#d9822b", 172),
    "Isolate": ("#e0002b", 160),
}
_OTHER_BLOCKS = ("#bbbbbb", 247)

Colour = tuple[str, int]
#: How the pages of a state and an owner are drawn: a letter and a colour.
Glyphs = dict[tuple[str, str], tuple[str, Colour]]


@dataclass(frozen=True)
class Key:
    """A line of the legend: what a glyph and a colour mean, and how many pages it is."""

    glyph: str
    colour: Colour
    label: str


@dataclass(frozen=True)
class Strip:
    """A range: its first pfn, and its cells."""

    start: int
    cells: list[Cell]


@dataclass(frozen=True)
class AreaPicture:
    """An area: a heading, facts in words, strips of cells of ``scale`` pages, that in words, the legend."""

    name: str
    heading: str
    facts: list[str]
    scale: int
    scale_text: str
    strips: list[Strip]
    keys: list[Key]
    glyphs: Glyphs = field(repr=False)

    def glyph(self, cell: Cell) -> tuple[str, Colour]:
        """How a cell is drawn."""
        if cell.state == FREE:
            return (LARGEST if cell.largest else HOLE), PALETTES[FREE][cell.largest]
        glyph, colour = self.glyphs[cell.state, cell.owner]
        return (SPARSE[cell.state], _light(colour)) if cell.sparse else (glyph, colour)


def size(pages: int, page_size: int) -> str:
    """So many pages in KiB, MiB or GiB; as many digits as are exact, three at most."""
    amount = float(pages * page_size) / 1024
    for unit in ("KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.4g} GiB"


def pictures_of(areas: Sequence[tuple[Area, Sequence[Extent]]], page_size: int) -> list[AreaPicture]:
    """The pictures of areas and what lies in them; an owner has the same letter and colour in all."""
    glyphs = glyphs_of([extent for _, extents in areas for extent in extents])
    return [_picture(area, extents, glyphs, page_size) for area, extents in areas]


def _picture(area: Area, extents: Sequence[Extent], glyphs: Glyphs, page_size: int) -> AreaPicture:
    hole = largest_hole(area.holes())
    scale = pages_per_cell(sum(one.count for one in area.ranges), 1 << area.order_per_bit)
    strips = [
        Strip(one.base_pfn, cells(extents, one.base_pfn, one.end_pfn, scale, hole)) for one in area.ranges
    ]
    at = f" at {area.ranges[0].base_pfn * page_size:#x}" if area.ranges else ""
    heading = f"{area.name}: {size(area.count, page_size)}{at}, {area.count} pages"
    cell = f"a cell is {size(scale, page_size)}, {scale} page{'s' * (scale != 1)}"
    keys = [*_owners(extents, glyphs), *_marks([cell for strip in strips for cell in strip.cells])]
    return AreaPicture(area.name, heading, _facts(area, hole, page_size), scale, cell, strips, keys, glyphs)


def _owners(extents: Sequence[Extent], glyphs: Glyphs) -> Iterator[Key]:
    """The legend of the owners, those with most pages first in each state."""
    pages = _pages(extents)
    for key in sorted(pages, key=lambda key: (STATES.index(key[0]), -pages[key])):
        state, owner = key
        yield Key(*glyphs[key], f"{owner}: {pages[key]} {state}" if owner else f"{pages[key]} {state}")


def _marks(shown: Sequence[Cell]) -> Iterator[Key]:
    """The legend of what is no owner."""
    for state in sorted({cell.state for cell in shown if cell.sparse}):
        yield Key(SPARSE[state], _light(PALETTES[state][0]), f"{state}, under half of the cell")
    if any(cell.state == FREE and not cell.largest for cell in shown):
        yield Key(HOLE, PALETTES[FREE][0], "free")
    if any(cell.largest for cell in shown):
        guests = any(cell.largest and cell.state != FREE for cell in shown)
        yield Key(LARGEST, PALETTES[FREE][1], f"the largest hole{', underlined' * guests}")


def _light(colour: Colour) -> Colour:
    """A colour halfway to white, in documents; terminals have the other character."""
    halves = (((255 + kstrtoull(colour[0][at : at + 2], 16)) // 2) for at in (1, 3, 5))
    return "#" + "".join(f"{half:02x}" for half in halves), colour[1]


def _facts(area: Area, hole: tuple[int, int], page_size: int) -> list[str]:
    share = f"{100 * area.used / area.count:.3g}%" if area.count else "nothing"
    facts = [f"used {area.used} pages ({share}), {size(area.used, page_size)}"]
    if not area.ranges:
        return [*facts, "no bitmap, so no picture"]
    holes = area.holes()
    if not holes:
        return [*facts, "no hole"]
    pages = hole[1] - hole[0]
    free = sum(end - start for start, end in holes)
    share = f"{100 * pages / free:.3g}% of what is free"
    largest = f"the largest {pages} pages ({size(pages, page_size)}, {share}) at pfn {hole[0]:#x}"
    return [*facts, f"{len(holes)} hole{'s' * (len(holes) != 1)}, {largest}"]


def _pages(extents: Sequence[Extent]) -> Counter[tuple[str, str]]:
    """How many pages each owner has in each state."""
    pages: Counter[tuple[str, str]] = Counter()
    for extent in extents:
        if extent.state != FREE:
            pages[extent.state, extent.owner] += extent.pages
    return pages


def glyphs_of(extents: Sequence[Extent]) -> Glyphs:
    """A letter and a colour for each owner, the one with most pages first."""
    pages = _pages(extents)
    glyphs: Glyphs = {(ALLOCATED, ""): (UNNAMED[ALLOCATED], PALETTES[ALLOCATED][-1])}
    for state in (ALLOCATED, MOVABLE, PINNED):
        owners = [key for key, _ in pages.most_common() if key[0] == state]
        named = zip(LETTERS.get(state, ""), (key for key in owners if key[1]), strict=False)
        letters = {key: letter for letter, key in named}
        palette = PALETTES[state]
        for index, key in enumerate(owners):
            glyphs[key] = letters.get(key, UNNAMED[state]), palette[index % len(palette)]
    return glyphs


def block_key(name: str) -> Key:
    """How page blocks of a migrate type are drawn."""
    return Key(name[0], _BLOCK_COLOURS.get(name, _OTHER_BLOCKS), name)


def block_share(zone: ZoneBlocks, width: int) -> list[tuple[str, int]]:
    """A zone's types and how many of ``width`` cells each gets: at least one, the rest by their share."""
    present = {name: count for name, count in zone.blocks.items() if count}
    total = sum(present.values())
    shares = {name: max(1, width * count // total) for name, count in present.items()}
    most = max(present, key=lambda name: present[name])
    shares[most] += width - sum(shares.values())
    return list(shares.items())
