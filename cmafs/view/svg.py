"""Pictures for documents: SVG without scripts, fonts or links to anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby

from cmafs.board.memory import ZoneBlocks
from cmafs.view.cells import Cell
from cmafs.view.picture import AreaPicture, Key, block_key, block_share

#: Pixels: of the drawing, of its margin, of a row and the space behind one, of a line of text.
WIDTH, LEFT, ROW, GAP, LINE = 860, 118, 20, 4, 19
#: Cells in a row.
PER_ROW = 128
CELL = (WIDTH - LEFT - 14) / PER_ROW
LARGEST_LINE = "#2e7d32"
_ESCAPES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;"}
_STYLE = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:13px;fill:#222"


class Drawing:
    """Elements one below the other; ``y`` is where the next goes."""

    def __init__(self, title: str, width: int = WIDTH) -> None:
        self.title, self.width = title, width
        self.y = 10.0
        self._elements: list[str] = []

    def text(self, x: float, words: str, *, bold: bool = False, end: bool = False, dy: float = 0) -> None:
        """A line of text at the current height."""
        extra = ' font-weight="bold"' * bold + ' text-anchor="end"' * end
        self._elements.append(f'<text x="{x:g}" y="{self.y + dy:g}"{extra}>{escape(words)}</text>')

    def box(
        self, x: float, width: float, height: float, fill: str, tip: str = "", dy: float = 0, line: str = ""
    ) -> None:
        """A filled rectangle; ``tip`` is shown by a browser that points at it."""
        inside = f"<title>{escape(tip)}</title>" if tip else ""
        stroke = f' stroke="{line}"' if line else ""
        place = f'x="{x:.5g}" y="{self.y + dy:g}" width="{width:.5g}" height="{height:g}"'
        self._elements.append(f'<rect {place} fill="{fill}"{stroke}>{inside}</rect>')

    def path(self, points: str, colour: str) -> None:
        """An arrow along an SVG path."""
        self._elements.append(
            f'<path d="{points}" fill="none" stroke="{colour}" stroke-width="1.5" marker-end="url(#tip)"/>'
        )

    def finish(self) -> str:
        """The whole document."""
        height = self.y + 8
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {height:g}" '
            f'width="{self.width}" height="{height:g}" role="img" style="{_STYLE}">'
        )
        marker = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 8 4 0 8z" fill="#333"/></marker></defs>'
        )
        back = f'<rect width="{self.width}" height="{height:g}" fill="#fff"/>'
        title = f"<title>{escape(self.title)}</title>"
        return "\n".join([head, title, marker, back, *self._elements, "</svg>", ""])


def escape(text: str) -> str:
    """Text inside an element; what XML cannot hold is replaced."""
    return "".join(c if c.isprintable() else "?" for c in text).translate(_ESCAPES)


def draw_svg(areas: Sequence[AreaPicture], zones: Sequence[ZoneBlocks], page_size: int, title: str) -> str:
    """The document with every area, then the page blocks of every zone."""
    drawing = Drawing(title)
    for area in areas:
        drawing.y += LINE
        drawing.text(10, area.heading, bold=True)
        drawing.y += 8
        for strip in area.strips:
            runs = list(_runs(area, strip.cells))
            underline(drawing, strip.cells)
            strip_rows(drawing, runs, partial(_address, strip.start, area.scale, page_size))
        for fact in [*area.facts, *[area.scale_text] * bool(area.strips)]:
            drawing.y += LINE
            drawing.text(LEFT, fact)
        legend(drawing, area.keys)
        drawing.y += LINE
    if zones:
        _zones(drawing, zones)
    return drawing.finish()


#: (cells, colour, what it is)
Run = tuple[int, str, str]


def _runs(area: AreaPicture, cells: Iterable[Cell]) -> Iterator[Run]:
    for cell, run in groupby(cells):
        glyph, colour = area.glyph(cell)
        labels = [key.label for key in area.keys if key.glyph == glyph]
        yield len(list(run)), colour[0], labels[0] if labels else ""


def underline(drawing: Drawing, cells: Sequence[Cell]) -> None:
    """A line under the largest hole, below each of its rows."""
    for row, first in enumerate(range(0, len(cells), PER_ROW)):
        marked = [column for column, cell in enumerate(cells[first : first + PER_ROW]) if cell.largest]
        if marked:
            x, width = LEFT + marked[0] * CELL, len(marked) * CELL
            drawing.box(x, width, 3, LARGEST_LINE, "the largest hole", dy=row * (ROW + GAP) + ROW)


def strip_rows(drawing: Drawing, runs: Iterable[Run], label: Callable[[int], str]) -> None:
    """Runs of cells in rows of PER_ROW; ``label`` gives the text in front of the row of a cell."""
    at = 0
    for count, fill, tip in runs:
        while count:
            column = at % PER_ROW
            if not column:
                drawing.text(LEFT - 8, label(at), end=True, dy=ROW - 5)
            here = min(count, PER_ROW - column)
            drawing.box(LEFT + column * CELL, here * CELL, ROW, fill, tip)
            at, count = at + here, count - here
            if not at % PER_ROW:
                drawing.y += ROW + GAP
    if at % PER_ROW:
        drawing.y += ROW + GAP


def _address(start: int, scale: int, page_size: int, cell: int) -> str:
    return hex((start + cell * scale) * page_size)


def legend(drawing: Drawing, keys: Sequence[Key]) -> None:
    """Coloured squares with their words, as many in a row as fit."""
    x = float(drawing.width)
    for key in keys[:24]:
        width = 30 + 8.0 * len(key.label)
        if x + width > drawing.width - 10:
            x = LEFT
            drawing.y += LINE
        drawing.box(x, 12, 12, key.colour[0], dy=-11, line="#999")
        drawing.text(x + 17, key.label)
        x += width


def _zones(drawing: Drawing, zones: Sequence[ZoneBlocks]) -> None:
    drawing.y += LINE
    drawing.text(10, "page blocks by migrate type, of each node and zone", bold=True)
    drawing.y += 8
    seen: dict[str, Key] = {}
    for zone in zones:
        share = block_share(zone, PER_ROW)
        for name, _ in share:
            seen[name] = block_key(name)
        runs = [(n, seen[name].colour[0], f"{name} {zone.blocks[name]}") for name, n in share]
        strip_rows(drawing, runs, lambda _, name=zone.zone: name)  # type: ignore[misc]
        drawing.y += LINE - 6
        drawing.text(LEFT, ", ".join(f"{name} {zone.blocks[name]}" for name, _ in share))
        drawing.y += 6
    legend(drawing, list(seen.values()))
