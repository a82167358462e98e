"""What `cmafs top` shows of a board at one moment, and the difference between two moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cmafs.board.areas import Area, is_directory_of, read_areas
from cmafs.board.extents import FREE, MAP, read_extents
from cmafs.board.klog import read_log
from cmafs.board.memory import failed_pages, meminfo, page_size, vmstat
from cmafs.board.root import Root, kernel_log


@dataclass(frozen=True)
class AreaSample:
    """An area: sizes in pages; ``failed``: requests or pages that failed so far, None where nobody counts."""

    name: str
    count: int
    used: int
    maxchunk: int
    holes: int
    failed: int | None

    @property
    def free(self) -> int:
        """Pages that are not allocated."""
        return self.count - self.used

    @property
    def fragmentation(self) -> float:
        """How much of what is free is outside the largest hole, 0 to 1."""
        return 1 - self.maxchunk / self.free if self.free > 0 else 0.0


@dataclass(frozen=True)
class Sample:
    """A board at ``time`` (seconds); ``holders``: (area, owner, state, pages), None where nobody knows them.

    ``failures``: what vmstat counts, None before 5.13; ``memory``: MemFree, CmaFree, CmaTotal in kB;
    ``log``: lines of the kernel log with cma in them.
    """

    time: float
    page_size: int
    areas: list[AreaSample]
    holders: list[tuple[str, str, str, int]] | None
    failures: int | None
    memory: dict[str, int]
    log: list[str]


def take_sample(root: Root, time: float) -> Sample:
    """Read a board once. Raises RootError."""
    areas = read_areas(root)
    text = kernel_log(root) or ""
    counted = {area.name: failed_pages(root, area.name) for area in areas}
    if not any(pages is not None for pages in counted.values()) and text:
        failures = read_log(text).failures
        counted = {
            area.name: sum(len(areas) == 1 or is_directory_of(area.name, one.area) for one in failures)
            for area in areas
        }
    known = root.read(MAP) is not None
    return Sample(
        time,
        page_size(root, areas),
        [_area(area, counted[area.name]) for area in areas],
        [holder for area in areas for holder in _holders(root, area)] if known else None,
        vmstat(root).get("cma_alloc_fail"),
        meminfo(root),
        [line for line in text.splitlines() if "cma" in line.lower()],
    )


def _area(area: Area, failed: int | None) -> AreaSample:
    return AreaSample(area.name, area.count, area.used, area.maxchunk, len(area.holes()), failed)


def _holders(root: Root, area: Area) -> Sequence[tuple[str, str, str, int]]:
    pages: Counter[tuple[str, str]] = Counter()
    for extent in read_extents(root, area):
        if extent.state != FREE:
            pages[extent.owner, extent.state] += extent.pages
    return [(area.name, owner, state, n) for (owner, state), n in pages.most_common()]
