"""The tracer's ring buffer: pages of records, the oldest page overwritten first.

What fits is counted as by the kernel, so that ``entries-in-buffer/entries-written`` are its numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cmafs.lib.math import roundup

#: Bytes of a page that hold no records (``struct buffer_data_page``).
_PAGE_HEADER = 16
#: ``RINGBUF_TYPE_DATA_TYPE_LEN_MAX``: a longer record needs a word of its own for the length (bytes).
LEN_MAX = 28 * 4
#: Nanoseconds that fit the time delta of a record (``TS_SHIFT``); beyond it stands a time extend of 8 bytes.
TS_MASK = (1 << 27) - 1
HEADER, TIME_EXTEND = 4, 8

T = TypeVar("T")


@dataclass(eq=False)
class _Page(Generic[T]):
    used: int = 0
    records: deque[T] = field(default_factory=deque)


def record_length(length: int) -> int:
    """``rb_calculate_event_length()``: bytes that a record takes, its header and rounding included."""
    return roundup(length, 4) + (HEADER if length <= LEN_MAX else 2 * HEADER)


class RingBuffer(Generic[T]):
    """``struct trace_buffer`` of one CPU; ``size`` in bytes, rounded up to pages, at least two.

    ``overrun`` counts the records that were overwritten; ``capacity``: bytes of a page that hold records
    (``BUF_PAGE_SIZE``, ``rb_subbuf_capacity()@v6.12``); ``bits`` of an ``unsigned long``.
    """

    def __init__(self, size: int, page_size: int = 4096, bits: int = 64) -> None:
        self.capacity = page_size - _PAGE_HEADER
        self._mask = (1 << bits) - 1
        self.overrun = 0
        self._lost = 0
        self._entries = 0
        self._last_ts = 0
        self._pages: deque[_Page[T]] = deque([_Page()])
        self.nr_pages = self.pages_of(size)

    def pages_of(self, size: int) -> int:
        """Pages for so many bytes; DIV_ROUND_UP() wraps."""
        return max(2, (size + self.capacity - 1 & self._mask) // self.capacity)

    @property
    def max_event_size(self) -> int:
        """``ring_buffer_max_event_size()``: bytes of the longest record."""
        return self.capacity - 2 * HEADER

    @property
    def size(self) -> int:
        """Bytes that records can take: whole pages."""
        return self.nr_pages * self.capacity

    def __len__(self) -> int:
        return self._entries

    def __iter__(self) -> Iterator[T]:
        for page in self._pages:
            yield from page.records

    def write_many(self, ts: int, count: int, group: Callable[[int], list[tuple[int, T]]]) -> None:
        """Writes ``count`` groups of (length, record), all groups of the same lengths and at one time.

        ``group`` makes one when it is written. Those that the last ones overwrite are only counted: how full
        the page is where a group begins comes back after some groups, so that whole periods can be left out.
        """
        one = sum(record_length(length) for length, _ in group(0)) if count else 0
        if not one:
            return
        last = (self.nr_pages + 1) * self.capacity // one + 1
        began: dict[int, int] = {}
        index = 0
        while index < count:
            period = index - began.setdefault(self._pages[-1].used, index)
            if period and count - index > last:
                skipped = (count - index - last) // period * period
                self.overrun += skipped * len(group(0))
                self._lost += skipped * len(group(0))
                index += skipped
                last = count
            for length, record in group(index):
                self.write(ts, length, record)
            index += 1

    def write(self, ts: int, length: int, record: T) -> None:
        """``ring_buffer_write()``: a record of ``length`` bytes at ``ts`` nanoseconds."""
        length = record_length(length)
        page = self._pages[-1]
        if page.used and ts - self._last_ts > TS_MASK:
            length += TIME_EXTEND
        if page.used + length > self.capacity:
            page = self._next_page()
        page.records.append(record)
        page.used += length
        self._entries += 1
        self._last_ts = ts

    def _next_page(self) -> _Page[T]:
        """``rb_move_tail()``: the next page, at the cost of the oldest once all are used."""
        self._pages.append(_Page())
        self._drop_beyond(self.nr_pages)
        return self._pages[-1]

    def _drop_beyond(self, nr_pages: int) -> None:
        while len(self._pages) > nr_pages:
            dropped = len(self._pages.popleft().records)
            self.overrun += dropped
            self._lost += dropped
            self._entries -= dropped

    def resize(self, size: int) -> None:
        """``ring_buffer_resize()``: to ``size`` bytes, keeping the newest records."""
        self.nr_pages = self.pages_of(size)
        self._drop_beyond(self.nr_pages)

    def reset(self) -> None:
        """``ring_buffer_reset()``: empty it."""
        self.overrun = self._lost = self._entries = 0
        self._pages = deque([_Page()])

    def consume(self) -> tuple[int, T] | None:
        """``ring_buffer_consume()``: how many were lost before the oldest record, and that; None if empty."""
        while not self._pages[0].records:
            if len(self._pages) == 1:
                return None
            self._pages.popleft()
        lost, self._lost = self._lost, 0
        self._entries -= 1
        return lost, self._pages[0].records.popleft()
