"""What a picture of a board shows, whatever it is drawn with: areas, their strips, the key, page blocks."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cmafs.board.areas import Area
from cmafs.board.extents import ALLOCATED, FREE, MOVABLE, PINNED, Extent
from cmafs.board.memory import ZoneBlocks
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
BLOCK_COLOURS = {
    "Unmovable": ("#777777", 243),
    "Movable": ("#5b9bd5", 74),
    "Reclaimable": ("#8f6bb3", 97),
    "CMA": ("#d9822b", 172),
    "Isolate": ("#e0002b", 160),
}
OTHER_BLOCKS = ("#bbbbbb", 247)

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
    """An area: a heading, facts in words, strips of cells of ``scale`` pages, the legend."""

    name: str
    heading: str
    facts: list[str]
    scale: int
    strips: list[Strip]
    keys: list[Key]
    glyphs: Glyphs = field(repr=False)

    def glyph(self, cell: Cell) -> tuple[str, Colour]:
        """How a cell is drawn."""
        if cell.state == FREE:
            return (LARGEST if cell.largest else HOLE), PALETTES[FREE][cell.largest]
        glyph, colour = self.glyphs[cell.state, cell.owner]
        return (SPARSE.get(cell.state, glyph) if cell.sparse else glyph), colour


def size(pages: int, page_size: int) -> str:
    """So many pages in KiB, MiB or GiB; as many digits as are exact, three at most."""
    amount = float(pages * page_size) / 1024
    for unit in ("KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.4g} GiB"


def picture_of(area: Area, extents: Sequence[Extent], page_size: int) -> AreaPicture:
    """The picture of one area."""
    hole = largest_hole(area.holes())
    scale = pages_per_cell(sum(one.count for one in area.ranges), 1 << area.order_per_bit)
    glyphs, keys = keys_of(extents)
    strips = [
        Strip(one.base_pfn, cells(extents, one.base_pfn, one.end_pfn, scale, hole)) for one in area.ranges
    ]
    shown = {cell.state: cell for strip in strips for cell in strip.cells if cell.sparse}
    keys += [
        Key(SPARSE[state], PALETTES[state][0], f"{state}, under half of the cell") for state in sorted(shown)
    ]
    keys.append(Key(HOLE, PALETTES[FREE][0], "free"))
    if hole[1]:
        guests = any(cell.largest and cell.state != FREE for strip in strips for cell in strip.cells)
        underlined = ", underlined" if guests else ""
        keys.append(Key(LARGEST, PALETTES[FREE][1], f"the largest hole{underlined}"))
    at = f" at {area.ranges[0].base_pfn * page_size:#x}" if area.ranges else ""
    heading = f"{area.name}: {size(area.count, page_size)}{at}, {area.count} pages"
    return AreaPicture(area.name, heading, _facts(area, hole, page_size), scale, strips, keys, glyphs)


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


def keys_of(extents: Sequence[Extent]) -> tuple[Glyphs, list[Key]]:
    """A glyph and a colour for each owner, the one with most pages first; the legend of them."""
    pages: Counter[tuple[str, str]] = Counter()
    for extent in extents:
        if extent.state != FREE:
            pages[extent.state, extent.owner] += extent.pages
    glyphs: Glyphs = {(ALLOCATED, ""): (UNNAMED[ALLOCATED], PALETTES[ALLOCATED][-1])}
    keys = []
    for state in (ALLOCATED, MOVABLE, PINNED):
        owners = [key for key, _ in pages.most_common() if key[0] == state]
        named = zip(LETTERS.get(state, ""), (key for key in owners if key[1]), strict=False)
        letters = {key: letter for letter, key in named}
        palette = PALETTES[state]
        for index, key in enumerate(owners):
            glyphs[key] = letters.get(key, UNNAMED[state]), palette[index % len(palette)]
            text = f"{key[1]}: {pages[key]} {state}" if key[1] else f"{pages[key]} {state}"
            keys.append(Key(*glyphs[key], text))
    return glyphs, keys


def block_share(zone: ZoneBlocks, width: int) -> list[tuple[str, int]]:
    """A zone's types and how many of ``width`` cells each gets: at least one, the rest by their share."""
    present = {name: count for name, count in zone.blocks.items() if count}
    total = sum(present.values())
    shares = {name: max(1, width * count // total) for name, count in present.items()}
    most = max(present, key=lambda name: present[name])
    shares[most] += width - sum(shares.values())
    return list(shares.items())
