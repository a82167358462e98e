"""Machines for the tests of the memory manager: small ones by hand, and those of a transcript's header."""

from __future__ import annotations

from typing import Any, NamedTuple

import boot_support
import replay
from replay import TRANSCRIPTS

from cmafs.abi import kernel_abi
from cmafs.lib.clock import ManualClock
from cmafs.lib.printk import Printk
from cmafs.mm.boot_pages import populate_boot_pages
from cmafs.mm.cma import Cma, CmaAreas, cma_init_reserved_areas, cma_init_reserved_mem
from cmafs.mm.mm_init import mm_init
from cmafs.mm.mmzone import Memory, MemoryLayout, RepeatedEvent, TraceFields, ZoneSpan
from cmafs.sim.validate import validate

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
        return self.memory.global_zone_page_state("nr_free_pages")

    def cma_free(self) -> int:
        return self.memory.global_zone_page_state("nr_free_cma")


class Listener:
    """Listens at tracepoints: what it heard, in turn."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, fields: TraceFields) -> None:
        self.events.append((name, dict(fields)))

    def repeat(self, pfns: range, events: list[RepeatedEvent]) -> None:
        for pfn in pfns:
            for name, same, others in events:
                self(name, {**same, **others(pfn)})


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
    normal = ZoneSpan("Normal", max(start, low), end)
    zones = (ZoneSpan("DMA32", start, low), normal) if start < low else (normal,)
    taken = tuple((base, base + count) for base, count in cma) + reserved
    return MemoryLayout(page_shift, pageblock_order, max_page_order, zones, ((start, end),), taken)


def boot(
    memory_layout: MemoryLayout,
    cma: tuple[tuple[int, int], ...] = (),
    kernel: str = "6.12",
    *,
    order_per_bit: int = 0,
    boot_pages: bool = False,
) -> Booted:
    """A machine with areas at (first pfn, pages); ``boot_pages``: with what is in memory after a boot."""
    abi = kernel_abi(kernel)
    log = Printk(ManualClock())
    memory = mm_init(memory_layout, abi.mm)
    shift = memory_layout.page_shift
    areas = CmaAreas(log, abi.cma, min_alignment=1 << shift, page_shift=shift)
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


def names(kind: str) -> list[str]:
    """``6.12/pins-1`` and the like."""
    return sorted(
        f"{path.parent.name}/{path.name}".split(".jsonl")[0] for path in TRANSCRIPTS.glob(f"*/{kind}-*")
    )


class Recorded(NamedTuple):
    """A recorded boot: the machine that it describes, what its script printed, its log afterwards."""

    machine: Booted
    output: list[str]
    dmesg: list[str]


def recorded(name: str) -> Recorded:
    """Boots the machine of a transcript on this side."""
    transcript = replay.load(TRANSCRIPTS / f"{name}.jsonl.xz")
    machine = boot_support.RecordedBoot(transcript).machine()
    return Recorded(
        Booted(machine.memory, machine.cma, machine.log), transcript.script_output, transcript.dmesg
    )
