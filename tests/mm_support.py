"""Machines for the tests of the memory manager: small ones by hand, and those of a transcript's header."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path
from typing import Any, NamedTuple

from cmafs.abi import kernel_abi
from cmafs.clock import ManualClock
from cmafs.mm.boot_pages import populate_boot_pages
from cmafs.mm.cma import Cma, CmaAreas, cma_init_reserved_areas, cma_init_reserved_mem
from cmafs.mm.mm_init import free_mem_ranges, mm_init
from cmafs.mm.mmzone import Memory, MemoryLayout
from cmafs.mm.validate import validate
from cmafs.printk import Printk

TRANSCRIPTS = Path(__file__).resolve().parent / "transcripts"
MIB_PAGES = 256


class Booted(NamedTuple):
    """A memory manager with its CMA areas and its log."""

    memory: Memory
    areas: CmaAreas
    log: Printk

    @property
    def area(self) -> Cma:
        return self.areas[0]

    def check(self, before: dict[str, int] | None = None) -> None:
        assert validate(self.memory, list(self.areas), before) == []

    def free(self) -> int:
        return self.memory.vmstat.global_zone_page_state("nr_free_pages")

    def cma_free(self) -> int:
        return self.memory.vmstat.global_zone_page_state("nr_free_cma")


def layout(
    pages: int,
    cma: tuple[tuple[int, int], ...] = (),
    reserved: tuple[tuple[int, int], ...] = (),
    *,
    start: int = 0,
    page_shift: int = 12,
    pageblock_order: int = 9,
    max_page_order: int = 10,
    dma32_end: int = 1 << 20,
) -> MemoryLayout:
    """Memory ``[start, start + pages)`` below and above ``dma32_end``; areas as (first pfn, pages)."""
    end = start + pages
    low = min(end, dma32_end)
    zones = (("DMA32", start, low), ("Normal", low, end)) if start < low else (("Normal", start, end),)
    taken = tuple((base, base + count) for base, count in cma) + reserved
    return MemoryLayout(page_shift, pageblock_order, max_page_order, zones, ((start, end),), taken)


def boot(
    memory_layout: MemoryLayout,
    cma: tuple[tuple[int, int], ...] = (),
    kernel: str = "6.12",
    *,
    order_per_bit: int = 0,
    boot_pages: bool = False,
    cma_debug: bool = False,
) -> Booted:
    """A machine with areas at (first pfn, pages); ``boot_pages``: with what is in memory after a boot."""
    abi = kernel_abi(kernel)
    log = Printk(ManualClock())
    memory = mm_init(memory_layout, abi.mm)
    shift = memory_layout.page_shift
    areas = CmaAreas(log, abi.cma, min_alignment=1 << shift, page_shift=shift, cma_debug=cma_debug)
    names = ["reserved"] if len(cma) == 1 else [f"area{i}" for i in range(len(cma))]
    for i, (base, count) in enumerate(cma):
        cma_init_reserved_mem(areas, base << shift, count << shift, order_per_bit, names[i])
    cma_init_reserved_areas(areas, memory)
    if boot_pages:
        populate_boot_pages(memory)
    return Booted(memory, areas, log)


def small(kernel: str = "6.12", pages: int = 64 * MIB_PAGES, cma: int = 16 * MIB_PAGES) -> Booted:
    """A machine with one area in its middle and nothing in memory."""
    base = pages // 2
    return boot(layout(pages, ((base, cma),)), ((base, cma),), kernel)


class Transcript(NamedTuple):
    """A recorded boot: its header, its script's output, its log."""

    header: dict[str, Any]
    output: list[str]
    dmesg: list[str]

    @property
    def row(self) -> str:
        return ".".join(self.header["kernel"].split(".")[:2])


def transcript(name: str) -> Transcript:
    with lzma.open(TRANSCRIPTS / f"{name}.jsonl.xz", "rt") as text:
        lines = [json.loads(line) for line in text]
    header = lines[0]["header"]
    output = next((line["script_output"] for line in lines if "script_output" in line), [])
    dmesg = next((line["dmesg"] for line in lines if "dmesg" in line), [])
    return Transcript(header, output, dmesg)


def names(kind: str) -> list[str]:
    """``6.12/pins-1`` and the like."""
    paths = TRANSCRIPTS.glob(f"*/{kind}-*.jsonl.xz")
    return sorted(f"{path.parent.name}/{path.name.removesuffix('.jsonl.xz')}" for path in paths)


def _ranges(header: dict[str, Any], what: str) -> list[tuple[int, int]]:
    pattern = re.compile(rf" {what}\[0x[0-9a-f]+\]\t\[0x([0-9a-f]+)-0x([0-9a-f]+)\]")
    found = (pattern.match(line) for line in header["boot"])
    return [(int(m[1], 16), int(m[2], 16) + 1) for m in found if m]


def boot_transcript(recorded: Transcript) -> Booted:
    """The x86_64 machine of a transcript: memblock as printed, the area where that kernel put it, the memmap
    on top.
    """
    header = recorded.header
    memory = tuple(((a + 4095) >> 12, b >> 12) for a, b in _ranges(header, "memory"))
    reserved = [(a >> 12, (b + 4095) >> 12) for a, b in _ranges(header, "reserved")]
    line = next(line for line in header["boot"] if line.startswith("cma: Reserved"))
    match = re.search(r"Reserved (\d+) MiB at 0x([0-9a-f]+)", line)
    assert match is not None
    base, count = int(match[2], 16) >> 12, int(match[1]) * MIB_PAGES
    reserved.append((base, base + count))
    struct_page = 56 if recorded.row == "5.10" else 64
    memmap = -(-sum(b - a for a, b in memory) * struct_page // 4096)
    zones = (("DMA32", 1, min(1 << 20, memory[-1][1])), ("Normal", 1 << 20, max(1 << 20, memory[-1][1])))
    plain = MemoryLayout(12, 9, 10, zones, memory, tuple(reserved))
    _, top = [r for r in free_mem_ranges(plain) if r[1] - r[0] > memmap][-1]
    with_memmap = MemoryLayout(12, 9, 10, zones, memory, (*reserved, (top - memmap, top)))
    cma_debug = recorded.row in ("5.10", "6.1")
    booted = boot(with_memmap, ((base, count),), recorded.row, boot_pages=True, cma_debug=cma_debug)
    assert booted.area.base_pfn == base
    return booted
