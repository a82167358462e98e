"""One allocation as a strip of pictures: isolate, migrate, take, undo (``cmafs trace-alloc --svg``).

The steps are the lines of ``mm/walk.py``, each with what lay in the area at that moment. Positions are pfns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from cmafs.board.extents import ALLOCATED, FREE, Extent
from cmafs.lib.intervals import Interval
from cmafs.lib.kstrtox import kstrtoull
from cmafs.view.cells import cells
from cmafs.view.picture import PALETTES, Glyphs, Key, glyphs_of
from cmafs.view.svg import CELL, GAP, LEFT, LINE, PER_ROW, ROW, Drawing, legend, strip_rows

#: What a reader who does not know the kernel should see in the picture of a function.
MEANING = {
    "start_isolate_page_range": "isolate: nobody else is given free pages of these page blocks from now on",
    "try_to_free_pages": "reclaim: page cache is dropped, so that there is room to move to",
    "migrate_pages": "migrate: the pages in the window move out, their owners go on",
    "isolate_freepages_range": "take: all of the window is free now and is taken from the free lists",
    "test_pages_isolated": "busy: a page could not move, so this window fails",
    "undo_isolate_page_range": "undo: the page blocks are what they were before",
}
#: Tries that are drawn; of more, the first and the last ones.
MAX_TRIES = 4
#: The colour of isolated page blocks, of the window, of a page in the way.
ISOLATED, WINDOW, BUSY = "#2255cc", "#111111", "#e0002b"
#: Pixels between the cells of an area and the places that its pages move to.
_DROP = 46
#: Characters of a line.
MAX_TEXT = 92
_RANGE = re.compile(r"(0x[0-9a-f]+)(?:, |-)(0x[0-9a-f]+)")
_PFN = re.compile(r"(0x[0-9a-f]+) is in the way")


@dataclass(frozen=True)
class Step:
    """A line of the walk, and the extents of the area when it was made."""

    text: str
    extents: list[Extent]

    @property
    def function(self) -> str:
        """The kernel's function."""
        return self.text.strip().partition("(")[0]

    def ranges(self, part: str = "") -> list[Interval]:
        """(start, end) of the ranges that the line names, or a part of it; written in full or inclusive."""
        found = _RANGE.finditer(part or self.text)
        return [(_pfn(one[1]), _pfn(one[2]) + ("-" in one[0])) for one in found]


def _pfn(text: str) -> int:
    return kstrtoull(text, 16)


def tries(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps of each alloc_contig_range(), and of many like it that the walk takes as one."""
    found: list[list[Step]] = []
    for step in steps:
        if step.function in ("alloc_contig_range", "cma_alloc"):
            found.append([])
        if found:
            found[-1].append(step)
    return found


def draw_steps(title: str, steps: Sequence[Step], before: Sequence[Extent], result: Sequence[str]) -> str:
    """The SVG: what was there, every step of the tries that are drawn, and the answer in ``result``."""
    all_tries = tries(steps)
    shown = all_tries if len(all_tries) <= MAX_TRIES else [*all_tries[: MAX_TRIES - 1], all_tries[-1]]
    extents = [extent for step in steps for extent in step.extents]
    glyphs = glyphs_of([*before, *extents])
    drawing = Drawing(title)
    drawing.y += LINE
    drawing.text(10, title, bold=True)
    view = _view(shown)
    if view:
        strip = _Strip(drawing, view, glyphs)
        strip.frame("before", "", before)
        for number, one in enumerate(shown):
            if number == MAX_TRIES - 1 and len(all_tries) > MAX_TRIES:
                drawing.y += LINE
                drawing.text(LEFT, f"… {len(all_tries) - MAX_TRIES} more tries, each one step further …")
            strip.attempt(one)
    for line in result:
        drawing.y += LINE
        drawing.text(LEFT, line[:MAX_TEXT], bold=line is result[0])
    _key(drawing, glyphs)
    return drawing.finish()


def _view(shown: Sequence[Sequence[Step]]) -> Interval | None:
    """What the strips show: the page blocks of the tries that are drawn."""
    blocks = [
        step.ranges()[0] for one in shown for step in one if step.function == "start_isolate_page_range"
    ]
    return (min(low for low, _ in blocks), max(high for _, high in blocks)) if blocks else None


@dataclass(eq=False)
class _Strip:
    """Draws frames of one view of an area."""

    drawing: Drawing
    view: Interval
    glyphs: Glyphs

    def __post_init__(self) -> None:
        self.scale = 1
        while self.scale * PER_ROW < self.view[1] - self.view[0]:
            self.scale *= 2

    def x(self, pfn: int) -> float:
        """Where a page is drawn."""
        return LEFT + min(max(pfn - self.view[0], 0), self.view[1] - self.view[0]) / self.scale * CELL

    def frame(self, what: str, meaning: str, extents: Sequence[Extent]) -> None:
        """A line of text, and the strip below it."""
        self.drawing.y += LINE + 8
        self.drawing.text(LEFT, what if len(what) <= MAX_TEXT else what[: MAX_TEXT - 2] + " …")
        if meaning:
            self.drawing.y += LINE - 3
            self.drawing.text(LEFT, meaning)
        self.drawing.y += 10
        row = cells(extents, *self.view, self.scale, (0, 0))
        colours = [PALETTES[FREE][0] if c.state == FREE else self.glyphs[c.state, c.owner][1] for c in row]
        runs = [(len(list(run)), colour, "") for (colour, _), run in groupby(colours)]
        strip_rows(self.drawing, runs, lambda _: hex(self.view[0]))

    def attempt(self, steps: Sequence[Step]) -> None:
        """The frames of one alloc_contig_range()."""
        windows = [step.ranges()[0] for step in steps if step.function == "__alloc_contig_migrate_range"]
        window = windows[0] if windows else (0, 0)
        blocks: Interval | None = None
        if steps[0].function == "cma_alloc":
            self.drawing.y += LINE
            self.drawing.text(LEFT, steps[0].text.strip())
        taken: list[Extent] = []
        for step in steps[1:]:
            if step.function not in MEANING:
                continue
            if step.function == "isolate_freepages_range":
                taken = [Extent(*window, ALLOCATED, "")]
            if step.function == "start_isolate_page_range":
                blocks = step.ranges()[0]
            elif step.function == "undo_isolate_page_range":
                blocks = None
            self.frame(step.text.strip(), MEANING[step.function], [*_clear_of(step.extents, taken), *taken])
            self._marks(window, blocks, step)

    def _marks(self, window: Interval, blocks: Interval | None, step: Step) -> None:
        top = -(ROW + GAP)
        if blocks:
            width = self.x(blocks[1]) - self.x(blocks[0])
            self.drawing.box(self.x(blocks[0]), width, 4, ISOLATED, "MIGRATE_ISOLATE", dy=top + ROW)
        width = max(self.x(window[1]) - self.x(window[0]), 2)
        self.drawing.box(self.x(window[0]), width, 3, WINDOW, "the window", dy=top - 4)
        busy = _PFN.search(step.text)
        if busy:
            self.drawing.box(self.x(_pfn(busy[1])) - 1, 3, ROW + 8, BUSY, busy[0], dy=top - 4)
        if step.function == "migrate_pages":
            self._arrows(step)

    def _arrows(self, step: Step) -> None:
        """From each run of pages that moves to where it goes; the places are drawn side by side."""
        source, _, target = step.text.partition("->")
        sources, targets = step.ranges(source), step.ranges(target)
        y, room = self.drawing.y, (PER_ROW * CELL) / max(len(targets), 1)
        for index, (low, high) in enumerate(targets):
            left = LEFT + index * room
            start, end = sources[min(index * len(sources) // len(targets), len(sources) - 1)]
            share = (index + 0.5) / len(targets) if len(sources) == 1 else 0.5
            from_x, to_x = self.x(start) + (self.x(end) - self.x(start)) * share, left + room / 2
            self.drawing.path(f"M{from_x:g} {y:g}L{to_x:g} {y + _DROP - 4:g}", WINDOW)
            self.drawing.box(left + 2, room - 4, ROW, PALETTES["movable"][0][0], dy=_DROP)
            self.drawing.text(left + 8, f"{low:#x}-{high - 1:#x}", dy=_DROP + ROW - 5)
        self.drawing.y += _DROP + ROW + GAP


def _clear_of(extents: Sequence[Extent], taken: Sequence[Extent]) -> Iterator[Extent]:
    """The extents outside what has been taken, which the area's bitmap does not show yet."""
    for extent in extents:
        if not any(one.start < extent.end and extent.start < one.end for one in taken):
            yield extent
            continue
        for one in taken:
            if extent.start < one.start:
                yield Extent(extent.start, one.start, extent.state, extent.owner)
            if one.end < extent.end:
                yield Extent(one.end, extent.end, extent.state, extent.owner)


def _key(drawing: Drawing, glyphs: Glyphs) -> None:
    keys = [
        Key("", colour, f"{owner or 'taken now'}: {state}") for (state, owner), (_, colour) in glyphs.items()
    ]
    keys += [Key("", PALETTES[FREE][0], "free")]
    marks = ((WINDOW, "the window"), (ISOLATED, "isolated page blocks"), (BUSY, "in the way"))
    legend(drawing, [*keys, *(Key("", (colour, 0), words) for colour, words in marks)])
