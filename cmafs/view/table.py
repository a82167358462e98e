"""The screen of `cmafs top`: a head, the table of areas, and below it holders or the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cmafs.board.sample import AreaSample, Sample
from cmafs.view.picture import size

#: What the lower half may show, and the key that shows it.
PANES = {"h": "holders", "l": "log"}
#: Columns by which the areas can be sorted: the key, the title, what it is sorted by.
SORTS: dict[str, tuple[str, Callable[[AreaSample], Any]]] = {
    "n": ("name", lambda area: area.name),
    "u": ("used", lambda area: -area.used),
    "f": ("free", lambda area: -area.free),
    "m": ("maxchunk", lambda area: -area.maxchunk),
    "g": ("fragmented", lambda area: -area.fragmentation),
    "x": ("failed", lambda area: -(area.failed or 0)),
}
#: Styles of lines, which whoever draws them turns into attributes.
PLAIN, BOLD, TITLE, WARN = "plain", "bold", "title", "warn"
HELP = "q quit  n u f m g x sort  r reverse  h holders  l log  space now  + - interval"
#: Of a free area so much outside the largest hole is worth a warning.
MUCH = 0.5

#: Characters of the root's name, the last ones.
NAME = 28

Line = tuple[str, str]


@dataclass(frozen=True)
class State:
    """What the user chose: the pane, the sort, its direction, the first line of the pane, the interval."""

    pane: str = "holders"
    sort: str = "n"
    reverse: bool = False
    first: int = 0
    interval: float = 1.0


def press(state: State, key: str) -> State:
    """The state after a key; unknown keys change nothing."""
    if key in SORTS:
        return replace(state, sort=key)
    if key in PANES:
        return replace(state, pane=PANES[key], first=0)
    after = {
        "r": replace(state, reverse=not state.reverse),
        "+": replace(state, interval=min(state.interval * 2, 60.0)),
        "-": replace(state, interval=max(state.interval / 2, 0.25)),
        "down": replace(state, first=state.first + 1),
        "up": replace(state, first=max(state.first - 1, 0)),
    }
    return after.get(key, state)


def screen(
    name: str, now: Sample, before: Sample | None, state: State, width: int, height: int
) -> list[Line]:
    """The lines of a screen of that size: no more, and none longer."""
    by = f"by {SORTS[state.sort][0]}{', reversed' * state.reverse}, every {state.interval:g} s"
    lines = [*_head(name, now, before), (by, PLAIN), *_table(now, before, state)]
    lines.append(("", PLAIN))
    pane = _holders(now) if state.pane == "holders" else [(line, PLAIN) for line in now.log]
    room = max(height - len(lines) - 2, 0)
    title = f"{state.pane} ({len(pane)})"
    lines.append((title, TITLE))
    first = min(state.first, max(len(pane) - room, 0))
    if state.pane == "log":
        first = max(len(pane) - room - state.first, 0)
    lines += pane[first : first + room]
    lines = lines[: max(height - 1, 0)]
    lines.append((HELP, BOLD))
    return [(text[:width], style) for text, style in lines]


def _head(name: str, now: Sample, before: Sample | None) -> list[Line]:
    pages = sum(area.count for area in now.areas)
    used = sum(area.used for area in now.areas)
    free = f", CmaFree {now.memory['CmaFree']} kB" if "CmaFree" in now.memory else ""
    count = len(now.areas)
    name = name if len(name) <= NAME else f"…{name[1 - NAME :]}"
    text = f"{name}: {count} area{'s' * (count != 1)}, {size(pages, now.page_size)}, used {used} pages{free}"
    failed = "not counted by this kernel" if now.failures is None else str(now.failures)
    speed = _rate(now.failures, before.failures if before else None, now, before)
    return [(text, BOLD), (f"failed requests: {failed}{speed}", PLAIN)]


def _rate(new: int | None, old: int | None, now: Sample, before: Sample | None) -> str:
    if new is None or old is None or before is None or now.time <= before.time:
        return ""
    return f", {max(new - old, 0) / (now.time - before.time):.1f}/s"


def _table(now: Sample, before: Sample | None, state: State) -> list[Line]:
    heads = ("AREA", "PAGES", "USED", "%", "FREE", "MAXCHUNK", "HOLES", "FRAG%", "FAILED", "/s")
    old = {area.name: area for area in before.areas} if before else {}
    key = SORTS[state.sort][1]
    areas = sorted(now.areas, key=key, reverse=state.reverse)
    return [(_cells(heads), TITLE), *(_row(area, old.get(area.name), now, before) for area in areas)]


def _cells(cells: Sequence[object]) -> str:
    name, *rest = cells
    return f"{name!s:<15.15}" + "".join(
        f" {cell!s:>{width}}" for cell, width in zip(rest, (8, 8, 3, 8, 8, 5, 5, 6, 4), strict=True)
    )


def _row(area: AreaSample, old: AreaSample | None, now: Sample, before: Sample | None) -> Line:
    share = 100 * area.used // area.count if area.count else 0
    failed = "-" if area.failed is None else area.failed
    rate = _rate(area.failed, old.failed if old else None, now, before).lstrip(", ").removesuffix("/s")
    cells = (area.name.replace("\n", "?"), area.count, area.used, share, area.free, area.maxchunk, area.holes)
    frag = f"{100 * area.fragmentation:.0f}"
    warn = area.fragmentation > MUCH or (rate not in ("", "0.0"))
    return _cells((*cells, frag, failed, rate or "-")), WARN if warn else PLAIN


def _holders(now: Sample) -> list[Line]:
    if now.holders is None:
        return [("the kernel keeps no list of who holds pages of an area", PLAIN)]
    rows = sorted(now.holders, key=lambda one: -one[3])
    return [
        (f"{area:<20.20} {owner:<28.28} {state:<10} {pages:>9}", PLAIN) for area, owner, state, pages in rows
    ]
