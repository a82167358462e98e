"""Addresses of the log: which page stands behind a ``struct page`` pointer that the kernel has hashed.

A hash says nothing but "the same page as before". The first allocation that returns it tells which page it
is, as long as the replay follows the board; from then on it must always be that one.

Positions are pfns, counts pages.
"""

from __future__ import annotations

from cmafs.replay.capture import Event, hides


class Addresses:
    """Pointers and pages of one capture, one to one, and how long each buffer is."""

    def __init__(self) -> None:
        self._pfn: dict[str, int] = {}
        self._page: dict[int, str] = {}
        self._count: dict[int, int] = {}

    def resolve(self, event: Event) -> Event:
        """An event with its pfn, and for a release its count, as far as they are known."""
        if event.page is None or event.failed:
            return event
        pfn = self._pfn.get(event.page)
        if event.kind == "release":
            pfn = self._newest(event) if pfn is None else pfn
            count = event.pages or (self._count.get(pfn) if pfn is not None else None)
            return event._replace(pfn=pfn, pages=count)
        return event._replace(pfn=pfn)

    def _newest(self, event: Event) -> int | None:
        """The newest buffer that a release without a known address can mean: debugfs gives back the newest.

        One with an address of its own is meant only where the log hides all of them; else the rest of a
        buffer of which the first pages went back.
        """
        assert event.page is not None
        for pfn, size in reversed(self._count.items()):
            if size >= (event.pages or 1) and (hides(event.page) or pfn not in self._page):
                return pfn
        return None

    def may_be(self, event: Event, pfn: int) -> bool:
        """Whether the page that a log line names can be this one."""
        assert event.page is not None
        return hides(event.page) or (event.page not in self._pfn and pfn not in self._page)

    def allocated(self, event: Event, pfn: int) -> None:
        """A buffer of this event begins at a page."""
        if event.page is None or event.pages is None:
            return
        if not hides(event.page):
            self._pfn[event.page] = pfn
            self._page[pfn] = event.page
        self._count.pop(pfn, None)
        self._count[pfn] = event.pages

    def left(self, pfn: int, count: int) -> None:
        """A buffer without an address begins at a page: what is left of one that had it."""
        self._count.pop(pfn, None)
        self._count[pfn] = count
        if page := self._page.pop(pfn, None):
            del self._pfn[page]

    def relabelled(self, event: Event, pfn: int) -> None:
        """What was known of a page, and of an address, was wrong."""
        if page := self._page.pop(pfn, None):
            del self._pfn[page]
        if event.page is not None and (old := self._pfn.pop(event.page, None)) is not None:
            del self._page[old]

    def dropped(self, start: int, end: int) -> None:
        """Buffers that begin there are gone, although no line says so."""
        for pfn in [pfn for pfn in self._count if start <= pfn < end]:
            del self._count[pfn]

    def released(self, event: Event, pfn: int, count: int) -> None:
        """Pages from the start of a buffer were given back; what is left begins behind them."""
        if event.page is None:
            return
        if not hides(event.page):
            self._pfn[event.page] = pfn
            self._page[pfn] = event.page
        left = self._count.pop(pfn, count) - count
        if left > 0:
            self._count[pfn + count] = left
