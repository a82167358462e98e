"""What a machine is in, as the terms of goals: numbers read from its files, mounted or copied.

Pages unless a term says otherwise. A file that this kernel does not have counts as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cmafs.board.areas import Area, read_areas
from cmafs.board.extents import MOVABLE, PINNED, Extent, read_extents
from cmafs.board.memory import meminfo, vmstat
from cmafs.board.root import Root, read_text
from cmafs.learn.goal import BadGoal
from cmafs.lib.kstrtox import simple_strtoull

#: Which file of sim/ has the tasks, and its columns after the name that are numbers.
_TASKS, _COLUMNS = "sim/tasks", {"PAGES": 2, "CMA": 3, "PINNED": 4, "MLOCKED": 5}
_BUFINFO = "sys/kernel/debug/dma_buf/bufinfo"
#: What boots a board's file: (file, what) -> a number. Only an edge can.
Boards = Callable[[str, str], int]


class State:
    """The terms of one machine's area; ``boards`` answers ``board:FILE:WHAT``."""

    def __init__(self, root: Root, area: str, boards: Boards) -> None:
        self._root, self._name, self._boards = root, area, boards
        self._terms: Mapping[str, Callable[[str], int]] = {
            "used": lambda _: self.area.used,
            "count": lambda _: self.area.count,
            "free": lambda _: self.area.count - self.area.used,
            "maxchunk": lambda _: self.area.maxchunk,
            "holes": self._holes,
            "owner": lambda name: sum(extent.pages for extent in self._extents() if extent.owner == name),
            "longest": self._longest,
            "movable": lambda _: sum(extent.pages for extent in self._extents() if extent.state == MOVABLE),
            "pinned": lambda _: sum(extent.pages for extent in self._extents() if extent.state == PINNED),
            "task": self._task,
            "meminfo": lambda name: meminfo(self._root).get(name, 0),
            "vmstat": lambda name: vmstat(self._root).get(name, 0),
            "blocks": self._blocks,
            "buffers": self._buffers,
            "file": self._number,
            "board": lambda words: self._boards(*self._two(words)),
        }

    def value(self, term: str) -> int:
        """The value of a term now. Raises BadGoal for an unknown one, RootError."""
        name, _, argument = term.partition(":")
        if name not in self._terms:
            raise BadGoal(f"unknown term {term!r}; known are {', '.join(self._terms)}")
        return self._terms[name](argument)

    @property
    def area(self) -> Area:
        """The area as it is now."""
        return next(area for area in read_areas(self._root) if area.name == self._name)

    def _extents(self) -> list[Extent]:
        return read_extents(self._root, self.area)

    def _holes(self, length: str) -> int:
        """How many holes there are, or have so many pages."""
        sizes = [end - start for start, end in self.area.holes()]
        return sizes.count(simple_strtoull(length)[0]) if length else len(sizes)

    def _longest(self, owner: str) -> int:
        """Pages of the longest run that one owner holds."""
        best, end, begin = 0, -1, 0
        for extent in self._extents():
            if extent.owner != owner:
                continue
            begin = extent.start if extent.start != end else begin
            end = extent.end
            best = max(best, end - begin)
        return best

    def _task(self, words: str) -> int:
        """A figure of a simulated task, or whether there is one of that name."""
        name, column = words.partition(":")[::2]
        for line in read_text(self._root, _TASKS).splitlines()[1:]:
            cells = line.split("\t")
            if cells[0] == name:
                return simple_strtoull(cells[_COLUMNS[column]])[0] if column in _COLUMNS else 1
        return 0

    def _blocks(self, order: str) -> int:
        """Free blocks of an order, larger ones as the many that they hold, of all zones."""
        first = simple_strtoull(order)[0]
        lines = read_text(self._root, "proc/buddyinfo").splitlines()
        counts = (enumerate(line.split()[4 + first :]) for line in lines)
        return sum(simple_strtoull(word)[0] << above for zone in counts for above, word in zone)

    def _buffers(self, _: str) -> int:
        """Dma-bufs that programs have taken from heaps: the last line of bufinfo."""
        total = read_text(self._root, _BUFINFO).rpartition("Total ")[2]
        return simple_strtoull(total)[0]

    def _number(self, path: str) -> int:
        return simple_strtoull(read_text(self._root, path.lstrip("/")).strip())[0]

    @staticmethod
    def _two(words: str) -> tuple[str, str]:
        file, _, what = words.rpartition(":")
        return file, what
