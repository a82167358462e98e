"""Pictures for a terminal: one character a cell, with colour or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from cmafs.board.extents import FREE
from cmafs.board.memory import ZoneBlocks
from cmafs.view.cells import Cell
from cmafs.view.picture import AreaPicture, Colour, Key, block_key, block_share

#: Columns in front of a strip, for addresses.
MARGIN = 13
#: Columns between which a picture is drawn; narrower ones run over.
MIN_WIDTH, MAX_WIDTH = 32, 1000
#: Kinds in the key, at most; the rest is counted.
MAX_KEYS = 24


def draw(
    areas: Sequence[AreaPicture], zones: Sequence[ZoneBlocks], page_size: int, width: int, colour: bool
) -> list[str]:
    """The lines of a picture: every area, then the page blocks of every zone."""
    lines: list[str] = []
    for area in areas:
        lines += [*_area(area, page_size, width, colour), ""]
    if zones:
        lines += ["page blocks by migrate type, of each node and zone", *_zones(zones, width, colour)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def columns(width: int) -> int:
    """Cells in a row: a power of two, so that rows begin at round addresses."""
    room = max(width, MIN_WIDTH) - MARGIN - 2
    return 1 << (room.bit_length() - 1)


def _paint(text: str, colour: Colour, on: bool) -> str:
    return f"\x1b[38;5;16;48;5;{colour[1]}m{text}\x1b[0m" if on else text


def _row(cells: Sequence[tuple[str, Colour]], on: bool) -> str:
    """Cells in a row; neighbours of one colour share their escape codes."""
    text, run = "", ""
    for index, (glyph, colour) in enumerate(cells):
        run += glyph
        if index + 1 == len(cells) or cells[index + 1][1] != colour:
            text, run = text + _paint(run, colour, on), ""
    return text


def _area(area: AreaPicture, page_size: int, width: int, colour: bool) -> Iterator[str]:
    yield area.heading
    per_row = columns(width)
    for strip in area.strips:
        drawn = [area.glyph(cell) for cell in strip.cells]
        for first in range(0, len(drawn), per_row):
            address = (strip.start + first * area.scale) * page_size
            yield f"{address:#{MARGIN - 1}x} |{_row(drawn[first : first + per_row], colour)}|"
            yield from _underlined(strip.cells[first : first + per_row])
    for fact in area.facts:
        yield from wrap(fact, max(width, MIN_WIDTH), initial_indent="  ", subsequent_indent="    ")
    if area.strips:
        yield f"  {area.scale_text}"
        yield from _legend(area.keys, width, colour)


def _underlined(cells: Sequence[Cell]) -> Iterator[str]:
    """Marks under what others use of the largest hole."""
    if any(cell.largest and cell.state != FREE for cell in cells):
        marks = "".join("^" if cell.largest else " " for cell in cells)
        yield f"{'':{MARGIN}} {marks}".rstrip()


def _legend(keys: Sequence[Key], width: int, colour: bool) -> Iterator[str]:
    shown, more = keys, 0
    if len(keys) > MAX_KEYS:
        tail = keys[-2:]
        shown, more = [*keys[: MAX_KEYS - 2], *tail], len(keys) - MAX_KEYS
    line, used = " ", 1
    for key in shown:
        item = f"{key.glyph} {key.label}"
        if used + 2 + len(item) > max(width, MIN_WIDTH) and used > 1:
            yield line.rstrip()
            line, used = " ", 1
        line += f" {_paint(key.glyph, key.colour, colour)} {key.label} "
        used += 2 + len(item)
    yield line.rstrip()
    if more:
        yield f"  and {more} more owners"


def _zones(zones: Sequence[ZoneBlocks], width: int, colour: bool) -> Iterator[str]:
    per_row = columns(width)
    for zone in zones:
        share = block_share(zone, per_row)
        keys = [block_key(name) for name, n in share for _ in range(n)]
        yield f"{zone.zone:>{MARGIN - 1}} |{_row([(key.glyph, key.colour) for key in keys], colour)}|"
        counts = ", ".join(f"{name[0]} {name} {zone.blocks[name]}" for name, _ in share)
        indent = " " * (MARGIN + 1)
        yield from wrap(counts, max(width, MIN_WIDTH), initial_indent=indent, subsequent_indent=indent)
