"""The free list of the largest order: whole blocks, kept as runs, in the list order of the kernel.

Memory that nobody touched is a few runs whatever its size; that is what makes a 1 TiB machine cost nothing.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator


class Run:
    """Free pages ``[start, end)``: whole blocks of the largest order that are next to each other on the list.

    ``down``: the highest of them comes first, else the lowest.
    """

    __slots__ = ("down", "end", "next", "prev", "start")

    def __init__(self, start: int, end: int, down: bool) -> None:
        self.start = start
        self.end = end
        self.down = down
        self.prev = self
        self.next = self


class RunList:
    """``free_area[MAX_PAGE_ORDER].free_list[migratetype]``: a list of blocks with a head and a tail.

    All positions are pfns; ``block`` is the size of a block in pages, ``nr_pages`` what the list holds.
    """

    __slots__ = ("_by_start", "_root", "_starts", "block", "nr_pages")

    def __init__(self, block: int) -> None:
        self.block = block
        self.nr_pages = 0
        self._root = Run(-1, -1, False)
        self._starts: list[int] = []
        self._by_start: dict[int, Run] = {}

    def __len__(self) -> int:
        """Blocks on the list (``nr_free``)."""
        return self.nr_pages // self.block

    def __iter__(self) -> Iterator[int]:
        """First pfn of each block, head to tail."""
        for run in self.runs():
            blocks = range(run.start, run.end, self.block)
            yield from reversed(blocks) if run.down else blocks

    def runs(self) -> Iterator[Run]:
        """The runs, head to tail."""
        run = self._root.next
        while run is not self._root:
            yield run
            run = run.next

    def find(self, pfn: int) -> Run | None:
        """The run that holds a page."""
        starts = self._starts
        if not starts:
            return None
        i = bisect_right(starts, pfn) - 1
        if i < 0:
            return None
        run = self._by_start[starts[i]]
        return run if pfn < run.end else None

    def first_from(self, pfn: int) -> Run | None:
        """The run with the lowest pages at or above ``pfn``."""
        i = bisect_right(self._starts, pfn)
        if i and self._by_start[self._starts[i - 1]].end > pfn:
            i -= 1
        return self._by_start[self._starts[i]] if i < len(self._starts) else None

    def add(self, start: int, end: int) -> None:
        """list_add() of the blocks of ``[start, end)``, one by one, ascending: the highest becomes the head.

        The first run of the list grows where its blocks go on in the same direction; a run of a single block
        has no direction yet.
        """
        first = self._root.next
        self.nr_pages += end - start
        single = first.end - first.start == self.block
        if first.end == start and (first.down or single):
            first.down = True
            first.end = end
        elif first.start == end and end - start == self.block and (not first.down or single):
            first.down = False
            self._rekey(first, start)
        else:
            self._link(Run(start, end, down=True), self._root, first)

    def add_tail(self, start: int, end: int) -> None:
        """list_add_tail() of the blocks of ``[start, end)``, one by one, ascending: the highest is last."""
        last = self._root.prev
        self.nr_pages += end - start
        single = last.end - last.start == self.block
        if last.end == start and (not last.down or single):
            last.down = False
            last.end = end
        else:
            self._link(Run(start, end, down=False), last, self._root)

    def first(self) -> int:
        """First pfn of the block at the head; the list must not be empty."""
        run = self._root.next
        return run.end - self.block if run.down else run.start

    def pop(self) -> int:
        """Takes the block at the head off the list; its first pfn."""
        run = self._root.next
        pfn = self.first()
        self.nr_pages -= self.block
        if run.end - run.start == self.block:
            self._unlink(run)
        elif run.down:
            run.end -= self.block
        else:
            self._rekey(run, run.start + self.block)
        return pfn

    def discard(self, start: int, end: int) -> None:
        """Takes the blocks of ``[start, end)``, all of them on the list, off it; the others stay in order."""
        while start < end:
            run = self.find(start)
            assert run is not None, "all of them are on the list"
            stop = min(end, run.end)
            self._cut(run, start, stop)
            self.nr_pages -= stop - start
            start = stop

    def _cut(self, run: Run, start: int, end: int) -> None:
        """Takes a part out of a run; where blocks are left on both sides, they are two runs now."""
        low, high = run.start, run.end
        if low == start and high == end:
            self._unlink(run)
        elif low == start:
            self._rekey(run, end)
        else:
            run.end = start
            if high > end:
                other = Run(end, high, run.down)
                before = run.prev if run.down else run
                self._link(other, before, before.next)

    def _link(self, run: Run, before: Run, after: Run) -> None:
        run.prev, run.next = before, after
        before.next = after.prev = run
        insort(self._starts, run.start)
        self._by_start[run.start] = run

    def _unlink(self, run: Run) -> None:
        run.prev.next, run.next.prev = run.next, run.prev
        del self._by_start[run.start]
        del self._starts[bisect_right(self._starts, run.start) - 1]

    def _rekey(self, run: Run, start: int) -> None:
        """A run begins elsewhere."""
        del self._by_start[run.start]
        self._starts[bisect_right(self._starts, run.start) - 1] = start
        run.start = start
        self._by_start[start] = run
