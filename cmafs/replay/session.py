"""A capture replayed: every allocation made again, and where reality and simulation part.

The simulation chooses by itself (``mm/cma.py``); afterwards the board's choice is adopted, so that one
difference does not make all that follows differ. What the board knew and the capture does not show is tried
before a difference is reported, the nearest explanation first (``Replay._explanations``).

Positions are pfns, counts pages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from cmafs.lib.intervals import union
from cmafs.mm.cma import CmaAreas, cma_alloc, cma_release
from cmafs.mm.cma_areas import Cma
from cmafs.replay.addresses import Addresses
from cmafs.replay.capture import ALLOC, BUSY, HOLES, LOST, RELEASE, START, Event
from cmafs.replay.machine import holds, in_use, occupy, passed_by, pinned, used_in, vacate
from cmafs.replay.meanwhile import Meanwhile, under_way
from cmafs.replay.survey import Unseen
from cmafs.replay.unsaid import Unsaid

#: How many events a task may be overtaken by: what several CPUs do at once is printed in some order.
LOOKAHEAD = 16
#: Differences that are kept; more are only counted.
MAX_DIVERGED = 10_000
#: Tasks whose next step is tried out of order.
MAX_AT_ONCE = 6
#: Holes that are believed closed at most to account for one allocation.
MAX_HOLES = 64

_ALL = 1 << 64
#: Explanations: pages in use before the capture or over a gap of it; another CPU was first; a release that
#: does not say how much gave back less than the whole buffer.
BEFORE, ORDER, UNSAID = "before", "order", "unsaid"


@dataclass(frozen=True)
class Divergence:
    """``recorded``, ``simulated``: a place, or how there was none; ``why``: what parts them."""

    line: int
    recorded: str
    simulated: str
    why: str


@dataclass(eq=False)
class Outcome:
    """``events``: allocations and releases; ``reproduced``: as recorded; ``explained``: explanation -> how
    many of those needed it; ``diverged``: the differences, and ``more`` that were not kept.
    """

    events: int = 0
    reproduced: int = 0
    explained: dict[str, int] = field(default_factory=dict)
    diverged: list[Divergence] = field(default_factory=list)
    more: int = 0


def shown(pfn: int | None, error: int | None = None) -> str:
    """A place, or how there was none."""
    if pfn is not None:
        return f"0x{pfn:x}"
    return "failed" if error is None else f"failed ({error})"


class Replay:
    """``areas`` as machine.bare_areas() makes them; ``unseen``: from the survey of the same capture."""

    def __init__(self, areas: CmaAreas, unseen: Iterable[Unseen] = ()) -> None:
        self.areas = areas
        self.outcome = Outcome()
        self._unseen = sorted(unseen, key=lambda one: one.start)
        self._starts = [one.start for one in self._unseen]
        self._addresses = Addresses()
        self._tentative: dict[str, tuple[Cma, int, int]] = {}
        self._busy: dict[str, list[int | None]] = {}
        self._allocated_at: dict[int, int] = {}
        self._assumed: list[tuple[Cma, int, int]] = []
        self._available: dict[str, int] = {}
        self._ahead: deque[Event] = deque()
        self._early: set[int] = set()
        self._noted: int | None = None
        self._unsaid = Unsaid(self._addresses)
        self._meanwhile = Meanwhile()
        self._told = True

    def run(self, events: Iterable[Event]) -> Outcome:
        """Replay all events."""
        for _ in self.placed(events):
            pass
        return self.outcome

    def placed(self, events: Iterable[Event]) -> Iterator[Event]:
        """Replay all events; the allocations and releases again, with the pfns that a log leaves out."""
        coming = iter(events)
        self._ahead.extend(islice(coming, LOOKAHEAD))
        while self._ahead:
            line = self._ahead.popleft()
            event, self._told = self._addresses.resolve(line), line.pages is not None
            self._ahead.extend(islice(coming, 1))
            self._noted = event.pfn
            self._step(event)
            if event.counts:
                yield event._replace(pfn=self._noted)

    def _step(self, event: Event) -> None:
        if event.kind == START:
            self._started(event)
        elif event.kind == BUSY:
            self._busy.setdefault(event.task, []).append(event.pfn)
        elif event.kind == LOST:
            self._forget_tentative()
            self._unsaid.doubt = True
        elif event.kind == HOLES:
            self._listed(event)
        elif event.counts:
            self.outcome.events += 1
            cma = self.area(event)
            if cma is None:
                self._diverge(event, None, self._outside(event))
            elif event.kind == ALLOC:
                self._allocated(cma, event)
            else:
                self._released(cma, event)

    def area(self, event: Event) -> Cma | None:
        """The area of an event: the one that its pages lie in, else by its name, else the first."""
        if event.pfn is not None:
            return next((cma for cma in self.areas if holds(cma, event.pfn, event.pfn + 1)), None)
        return next((cma for cma in self.areas if cma.name == event.area), self.areas[0])

    def _listed(self, event: Event) -> None:
        """The kernel lists an area's holes: what no line said of its releases."""
        named = [cma for cma in self.areas if cma.name == event.area] or [*self.areas]
        found = [cma for cma in named if cma.count == event.total and len(cma.ranges) == 1]
        if self._unsaid.doubt and len(found) == 1:
            self._unsaid.listed(found[0], event.holes)

    # allocations

    def _started(self, event: Event) -> None:
        """An allocation begins: the board's takes its bits soon after, long before it ends."""
        self._drop(event.task)
        cma = self.area(event)
        if cma is None or not event.task or event.pages is None:
            return
        if event.available is not None:
            self._available[event.task] = event.available - cma.available_count
        pfn = self._simulate(cma, event)
        if pfn is not None:
            self._tentative[event.task] = cma, pfn, event.pages

    def _simulate(self, cma: Cma, event: Event) -> int | None:
        assert event.pages is not None
        busy = self._busy.get(event.task)
        if not busy:
            return cma_alloc(cma, event.pages, event.align, no_warn=True)
        known = [pfn for pfn in busy if pfn is not None]
        with pinned(cma, known), passed_by(cma, event.pages, event.align, len(busy) - len(known)):
            return cma_alloc(cma, event.pages, event.align, no_warn=True)

    def _place_now(self, cma: Cma, event: Event) -> int | None:
        """Where the simulation would put it, and does not."""
        pfn = self._simulate(cma, event)
        if pfn is not None:
            cma_release(cma, pfn, event.pages or 0)
        return pfn

    def _drop(self, task: str) -> None:
        if task in self._tentative:
            cma, pfn, count = self._tentative.pop(task)
            cma_release(cma, pfn, count)

    def _forget_tentative(self, start: int = 0, end: int = _ALL) -> None:
        """Undo what the simulation chose too early; only where it chose pages of ``[start, end)``."""
        for task, (_, pfn, count) in list(self._tentative.items()):
            if pfn < end and start < pfn + count:
                self._drop(task)

    def _allocated(self, cma: Cma, event: Event) -> None:
        """An allocation ended: as the simulation has it, or for a reason that the capture hides, or else."""
        first: int | None = None
        for attempt, how in enumerate(self._explanations(cma, event)):
            if attempt:
                pfn = self._simulate(cma, event)
            else:
                pfn = first = self._first(cma, event)
            if self._agrees(cma, event, pfn):
                self._reproduced(event, pfn, how)
                break
            if pfn is not None:
                cma_release(cma, pfn, event.pages or 0)
        else:
            self._diverge(event, first, self._why(cma, event, first), self._error(cma, first))
            self._adopt(cma, event)
        self._meanwhile.happened()
        self._busy.pop(event.task, None)
        self._available.pop(event.task, None)

    def _first(self, cma: Cma, event: Event) -> int | None:
        """What the simulation chose when the allocation began, or chooses now."""
        area, pfn, count = self._tentative.pop(event.task, (cma, None, event.pages))
        if pfn is not None and (area is not cma or count != event.pages):
            cma_release(area, pfn, count or 0)
            pfn = None
        return self._simulate(cma, event) if pfn is None else pfn

    def _explanations(self, cma: Cma, event: Event) -> Iterator[str]:
        """What may have been so; it is while the explanation is looked at, and undone for the next one."""
        yield ""
        if event.task:
            yield ORDER  # it took its bits later than it began
        if self._tentative:
            self._forget_tentative()
            yield ORDER
        if believed := self._believed(cma, event):
            vacate(cma, believed)
            yield BEFORE
            for low, high in believed:
                occupy(cma, low, high)
        if closed := self._close(cma, event):
            yield BEFORE
            vacate(cma, closed)
        for _ in self._meanwhile.not_yet(cma, event.task) if event.task else ():
            yield ORDER
        yield from self._overtaken(cma, under_way(self._ahead, event.task)[:MAX_AT_ONCE])
        if event.page is not None:
            yield from self._left_over(cma, event)

    def _left_over(self, cma: Cma, event: Event) -> Iterator[str]:
        """Releases before gave back less than is thought, or more."""
        if event.failed:
            for _ in self._unsaid.kept(cma):
                yield UNSAID
            return
        while event.pfn is not None and (pfn := self._place_now(cma, event)) is not None:
            if pfn >= event.pfn or not self._unsaid.before(cma, pfn, event.pages or 0, event.pfn):
                break
            yield UNSAID
        for _ in self._unsaid.gone(cma):
            yield UNSAID
        pfn = self._place_now(cma, event)
        if pfn is not None and self._unsaid.doubts(cma, pfn, pfn + (event.pages or 0)):
            self._addresses.relabelled(event, pfn)
            yield UNSAID

    def _believed(self, cma: Cma, event: Event) -> list[tuple[int, int]]:
        """Pages that an earlier difference made us believe in use, and that this allocation takes."""
        if event.pfn is None or not event.pages:
            return []
        end = event.pfn + event.pages
        hit = [one for one in self._assumed if one[0] is cma and one[1] < end and event.pfn < one[2]]
        self._assumed = [one for one in self._assumed if one not in hit]
        return union(piece for _, low, high in hit for piece in used_in(cma, low, high))

    def _close(self, cma: Cma, event: Event) -> list[tuple[int, int]]:
        """Holes that the board passed over, where a later release tells that they were in use."""
        limit = event.pfn if event.pfn is not None else cma.ranges[-1].end_pfn
        closed: list[tuple[int, int]] = []
        for one in self._unseen[: bisect_right(self._starts, limit)]:
            if one.since < event.line < one.until and holds(cma, one.start, one.end):
                closed += occupy(cma, one.start, one.end)
        return closed

    def _overtaken(self, cma: Cma, coming: list[Event]) -> Iterator[str]:
        """Some of what other tasks do next has happened already."""
        for index, other in enumerate(coming):
            if other.line in self._early or other.pfn is None or not other.pages:
                continue
            if other.kind == RELEASE and in_use(cma, other.pfn, other.pfn + other.pages):
                cma_release(cma, other.pfn, other.pages)
                self._early.add(other.line)
                yield from self._overtaken_too(cma, coming[index + 1 :])
                self._early.remove(other.line)
                occupy(cma, other.pfn, other.pfn + other.pages)
            elif other.kind == ALLOC and self.area(other) is cma:
                pfn = self._simulate(cma, other)
                if pfn == other.pfn:
                    self._tentative[other.task] = cma, pfn, other.pages
                    yield from self._overtaken_too(cma, coming[index + 1 :])
                    del self._tentative[other.task]
                if pfn is not None:
                    cma_release(cma, pfn, other.pages)

    def _overtaken_too(self, cma: Cma, coming: list[Event]) -> Iterator[str]:
        yield ORDER
        yield from self._overtaken(cma, coming)

    def _agrees(self, cma: Cma, event: Event, pfn: int | None) -> bool:
        if event.failed or pfn is None:
            return event.failed and pfn is None and event.error in (None, self._error(cma, pfn))
        return event.pfn == pfn or (event.pfn is None and self._addresses.may_be(event, pfn))

    def _error(self, cma: Cma, pfn: int | None) -> int | None:
        return -cma.failures[0].error if pfn is None and cma.failures else None

    def _reproduced(self, event: Event, pfn: int | None, how: str = "") -> None:
        self.outcome.reproduced += 1
        if how:
            self.outcome.explained[how] = self.outcome.explained.get(how, 0) + 1
        if pfn is not None:
            self._note(event, pfn)

    def _note(self, event: Event, pfn: int) -> None:
        self._noted = pfn
        self._allocated_at[pfn] = event.line
        self._addresses.allocated(event, pfn)

    def _adopt(self, cma: Cma, event: Event) -> None:
        """From here on as on the board: its pages are in use, and what it passed over is believed to be."""
        if event.pfn is None or not event.pages or not holds(cma, event.pfn, event.pfn + event.pages):
            return
        self._forget_tentative(event.pfn, event.pfn + event.pages)
        for _ in range(MAX_HOLES):
            pfn = cma_alloc(cma, event.pages, event.align, no_warn=True)
            if pfn is None or pfn >= event.pfn:
                if pfn is not None:
                    cma_release(cma, pfn, event.pages)
                break
            self._assumed.append((cma, pfn, pfn + event.pages))
        occupy(cma, event.pfn, event.pfn + event.pages)
        self._note(event, event.pfn)

    # releases

    def _released(self, cma: Cma, event: Event) -> None:
        if event.pfn is None or event.pages is None:
            if not self._told and self._unsaid.doubt:  # of what is thought to be given back already
                self._reproduced(event, None, UNSAID)
            else:
                self._diverge(event, None, f"the capture does not say which pages {event.page} are")
            return
        pfn, end = event.pfn, event.pfn + event.pages
        self._forget_tentative(pfn, end)  # these pages were somebody else's when it began
        if event.line in self._early:
            self._early.remove(event.line)
            self._meanwhile.released(cma, pfn, end, event.task)
            self._reproduced(event, None, ORDER)
        elif not holds(cma, pfn, end):
            self._diverge(event, None, self._outside(event))
        elif in_use(cma, pfn, end):
            self._reproduced_release(cma, event)
        elif not self._told and self._unsaid.doubt:
            vacate(cma, used_in(cma, pfn, end))
            self._addresses.dropped(pfn, end)
            self._reproduced(event, None, UNSAID)
        elif self._was_unseen(event.line, pfn, end):
            occupy(cma, pfn, end)
            self._reproduced_release(cma, event, BEFORE)
        else:
            self._diverge(event, None, f"{_span(pfn, end)} is not in use here: nothing shows its allocation")
            vacate(cma, used_in(cma, pfn, end))

    def _reproduced_release(self, cma: Cma, event: Event, how: str = "") -> None:
        assert event.pfn is not None and event.pages is not None
        cma_release(cma, event.pfn, event.pages)
        self._meanwhile.released(cma, event.pfn, event.pfn + event.pages, event.task)
        self._allocated_at.pop(event.pfn, None)
        self._addresses.released(event, event.pfn, event.pages)
        if not self._told:
            self._unsaid.released(cma, event.pfn, event.pfn + event.pages)
        self._reproduced(event, None, how)

    def _was_unseen(self, line: int, start: int, end: int) -> bool:
        """Whether all pages that are not in use here were in use before the capture, or come from a gap."""
        found = self._unseen[: bisect_right(self._starts, end)]
        return any(one.until == line and one.start < end and start < one.end for one in found)

    # differences

    def _diverge(self, event: Event, pfn: int | None, why: str, error: int | None = None) -> None:
        if len(self.outcome.diverged) >= MAX_DIVERGED:
            self.outcome.more += 1
            return
        recorded = shown(event.pfn, event.error) if event.pfn is not None or event.failed else str(event.page)
        simulated = "not in use" if event.kind == RELEASE else shown(pfn, error)
        self.outcome.diverged.append(Divergence(event.line, recorded, simulated, why))

    def _outside(self, event: Event) -> str:
        known = ", ".join(
            f"{cma.name or 'area'} {_span(cma.base_pfn, cma.ranges[-1].end_pfn)}" for cma in self.areas
        )
        return f"pfn 0x{event.pfn or 0:x} is in no area of this machine: {known}"

    def _why(self, cma: Cma, event: Event, pfn: int | None) -> str:
        """One sentence: what stands between the recorded outcome and the simulated one."""
        size = f"{event.pages} pages" + (f" aligned to order {event.align}" if event.align else "")
        if event.failed:
            if pfn is None:
                return "both fail, for another reason: this kernel answers otherwise"
            return (
                f"here {size} find room at 0x{pfn:x}: on the board somebody else used or pinned these pages"
            )
        if event.pfn is None:
            found = (
                f"no hole has {size}"
                if pfn is None
                else f"{event.page} stands for another page than 0x{pfn:x}"
            )
            guess = "; up to 5.12 a log does not say how much a release gives back" * self._unsaid.doubt
            return f"here {found}{guess}"
        if not holds(cma, event.pfn, event.pfn + (event.pages or 1)):
            return f"{_span(event.pfn, event.pfn + (event.pages or 1))} reaches beyond the area"
        if used := used_in(cma, event.pfn, event.pfn + (event.pages or 1)):
            line = self._allocated_at.get(used[0][0])
            since = f" since line {line}" if line else ""
            return f"{_span(*used[0])} is in use here{since}: the capture lacks its release"
        if pfn is None:
            return f"here no hole has {size}: the longest has {cma.maxchunk()}"
        if pfn < event.pfn:
            held, counted = _span(pfn, pfn + (event.pages or 1)), self._counted(event)
            return f"{held} is free here; on the board it was in use or busy, unseen by the capture{counted}"
        return f"0x{event.pfn:x} is free here, but no place where {size} may begin"

    def _counted(self, event: Event) -> str:
        """What the kernel's own count of available pages adds."""
        less = -self._available.get(event.task, 0)
        return f" (the kernel counted {less} pages less available)" if less > 0 else ""


def _span(start: int, end: int) -> str:
    return f"0x{start:x}-0x{end - 1:x}"
