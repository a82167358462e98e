"""The linear map of x86_64: how many page tables it needs, and which of them memblock has to give.

The first tables come from a buffer behind the kernel image. Those beyond it come from the top of what is
mapped already, before any area is placed; and so do those for the range that the buffer itself lies in.

Addresses and sizes are bytes. Kernel: ``arch/x86/mm/init.c``, ``init_64.c``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from cmafs.arch.setup import EarlyBoot
from cmafs.lib.math import round_down, round_up

_PAGE_SHIFT, _PMD_SHIFT, _PUD_SHIFT = 12, 21, 30
#: What one table of each level covers, the largest first: P4D, PUD, PMD, PTE.
_TABLE_SHIFTS = (48, 39, _PUD_SHIFT, _PMD_SHIFT)
_PAGE_SIZE, _PMD_SIZE, _PUD_SIZE = 1 << _PAGE_SHIFT, 1 << _PMD_SHIFT, 1 << _PUD_SHIFT
_ISA_END_ADDRESS = 1 << 20
#: get_new_step_size(): a step is 256 times the one before.
_STEP_SHIFT = _PMD_SHIFT - _PAGE_SHIFT - 1


def init_mem_mapping(boot: EarlyBoot, image: int) -> None:
    """``init_mem_mapping()``: takes from memblock the tables that do not fit into the buffer.

    ``image``: an address in the kernel, behind which its buffer lies.
    """
    tables = _Tables(boot, image)
    tables.map(0, _ISA_END_ADDRESS)
    if boot.config.on("RANDOMIZE_MEMORY") and not boot.params.values("nokaslr"):  # init_trampoline_kaslr()
        tables.left -= len(tables.shifts) - 2
    _memory_map_top_down(boot, tables)


def _memory_map_top_down(boot: EarlyBoot, tables: _Tables) -> None:
    """``memory_map_top_down()``: in steps that grow with what is mapped; those in a hole map nothing."""
    memblock = boot.memblock
    end = round_down(memblock.end_of_dram(), _PAGE_SIZE)
    found = memblock.find_in_range_node(_PMD_SIZE, _PMD_SIZE, _ISA_END_ADDRESS, end)
    top = found + _PMD_SIZE if found else max(_ISA_END_ADDRESS, round_down(end, _PMD_SIZE))
    step, mapped, last = _PMD_SIZE, 0, top
    tables.highest = 0
    while last > _ISA_END_ADDRESS:
        start = max(round_down(last - 1, step), _ISA_END_ADDRESS)
        tables.lowest = last
        mapped += tables.map_memory(start, last)
        last = min(start, max(round_up(tables.memory_ends_below(start), step), _ISA_END_ADDRESS))
        if mapped >= step:
            step <<= _STEP_SHIFT
    tables.lowest = last
    tables.map_memory(top, end)


class _Tables:
    """The tables that exist. ``left``: pages left in the buffer; ``lowest``, ``highest``: what is mapped.

    ``shifts``: of the levels. That the CPU has five (LA57) and pages of 1 GiB is true of QEMU's -cpu max,
    with which the guests were recorded (T); a machine without says ``no5lvl``, ``nogbpages``.
    """

    def __init__(self, boot: EarlyBoot, image: int) -> None:
        self._memblock, self._image = boot.memblock, image
        levels = boot.config.number("PGTABLE_LEVELS")
        self.shifts = _TABLE_SHIFTS[5 - (4 if boot.params.values("no5lvl") else levels) :]
        self._largest = _PMD_SHIFT if boot.params.values("nogbpages") else _PUD_SHIFT
        self._memory = [
            (round_up(region.base, _PAGE_SIZE), round_down(region.end, _PAGE_SIZE))
            for region in boot.memblock.memory
        ]
        self._exist: set[tuple[int, int]] = set()
        in_image = min(boot.data.page_tables, 2 * (levels - 1))  # INIT_PGD_PAGE_COUNT
        self.left = in_image * (2 if boot.config.on("RANDOMIZE_MEMORY") else 1)
        self.lowest = self.highest = 0

    def memory_ends_below(self, address: int) -> int:
        """The end of what memory there is below an address, 0 if there is none."""
        index = bisect_left(self._memory, (address, 0))
        return min(self._memory[index - 1][1], address) if index else 0

    def map_memory(self, start: int, end: int) -> int:
        """``init_range_memory_mapping()``: maps the memory of a range; how much of it there is."""
        mapped, index = 0, max(bisect_left(self._memory, (start, start)) - 1, 0)
        while index < len(self._memory) and self._memory[index][0] < end:
            low, high = max(start, self._memory[index][0]), min(end, self._memory[index][1])
            if low < high:
                self.map(low, high)
                mapped += high - low
            index += 1
        return mapped

    def map(self, start: int, end: int) -> None:
        """``init_memory_mapping()``: the tables for a range, each level's where it is not there yet."""
        buffer = not (start <= self._image < end)
        for low, high, page_shift in self._split(start, end):
            for shift in self.shifts:
                if shift > page_shift:
                    for index in range(low >> shift, ((high - 1) >> shift) + 1):
                        self._need(shift, index, buffer)
        self.highest = max(self.highest, end)

    def _need(self, shift: int, index: int, buffer: bool) -> None:
        """``alloc_low_pages()`` of one page, unless there is that table."""
        if (shift, index) in self._exist:
            return
        self._exist.add((shift, index))
        if self.left and buffer:
            self.left -= 1
        elif self.lowest < self.highest:
            self._memblock.phys_alloc_range(_PAGE_SIZE, _PAGE_SIZE, self.lowest, self.highest)

    def _split(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """``split_mem_range()``: (start, end, log2 of the page size); larger pages in the middle."""
        shifts = (_PAGE_SHIFT, _PMD_SHIFT, _PUD_SHIFT, _PMD_SHIFT, _PAGE_SHIFT)
        pmd_end, pud_end = round_down(end, _PMD_SIZE), round_down(end, _PUD_SIZE)
        bounds = (
            min(round_up(start, _PMD_SIZE), end),
            min(round_up(start, _PUD_SIZE), pmd_end),
            pud_end,
            pmd_end,
            end,
        )
        low = start
        for high, shift in zip(bounds, shifts, strict=True):
            if low < high:
                yield low, high, min(self._adjusted(low, high, shift), self._largest)
                low = high

    def _adjusted(self, low: int, high: int, shift: int) -> int:
        """``adjust_range_page_size_mask()``: the largest page, if all that it reaches beyond is memory."""
        for larger in (_PUD_SHIFT, _PMD_SHIFT):
            base, end = round_down(low, 1 << larger), round_up(high, 1 << larger)
            if larger > shift and self._memblock.is_region_memory(base, end - base):
                return larger
        return shift
