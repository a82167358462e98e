"""What boot knows before the page allocator runs, and the steps that all architectures share.

Kernel: ``init/main.c``, ``mm/mm_init.c``, ``drivers/of/fdt.c``. Addresses and sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cmafs.abi import KernelAbi
from cmafs.abi.boot_arch import ARCH_ROWS, ArchAbi
from cmafs.drivers.cma2010 import Cma2010
from cmafs.init.cmdline import EarlyParams
from cmafs.init.dma_contiguous import DmaContiguous
from cmafs.init.kconfig import Kconfig
from cmafs.init.panic import KernelPanic
from cmafs.mm.cma import CmaAreas
from cmafs.mm.cma_declare import CmaDeclare
from cmafs.mm.memblock import NUMA_NO_NODE, SMP_CACHE_BYTES, Memblock
from cmafs.mm.mmzone import MemoryLayout
from cmafs.of.base import DeviceTree
from cmafs.of.boot_event import EFFECT_PANIC, BootEvent
from cmafs.of.memory import LARGEST_SPAN
from cmafs.of.reserved_mem import ReservedMemScan
from cmafs.of.rmem_init import RmemContext
from cmafs.printk import Printk

_LOGLEVEL_EMERG = 0

ZoneRange = tuple[str, int, int]


@dataclass
class EarlyBoot:
    """The state of one boot. ``data``: this kernel's early figures on this architecture; ``events``: what
    became of regions;
    ``kernel_start``: where the loader put the image; ``cma2010``: the framework of 2010, where that is the
    kernel;
    ``allocated_kib``: what the kernel itself has taken from the page allocator by then."""

    tree: DeviceTree
    abi: KernelAbi
    config: Kconfig
    cmdline: str
    params: EarlyParams
    log: Printk
    memblock: Memblock
    events: list[BootEvent] = field(default_factory=list)
    kernel_start: int = 0
    cma2010: Cma2010 | None = None
    allocated_kib: int = 0

    def __post_init__(self) -> None:
        config, boot = self.config, self.abi.boot
        self.data: ArchAbi = ARCH_ROWS[config.arch][self.abi.row]
        self.areas = CmaAreas(
            self.log,
            self.abi.cma,
            max_areas=config.max_cma_areas(),
            min_alignment=config.cma_min_alignment_bytes(),
            page_shift=config.page_shift,
            cma_debug=config.cma_debug,
        )
        phys_64 = config.arch != "arm"
        self.declare = CmaDeclare(self.memblock, self.areas, boot, phys_64=phys_64, numa=config.numa)
        self.dma = DmaContiguous(self.declare, config, self.params, self.nodes(), self.events)
        context = RmemContext(
            self.declare,
            cma_cmdline=self.params.cma.size is not None,
            coherent_needs_no_map=config.arch == "arm",
            events=self.events,
        )
        self.scan = ReservedMemScan(self.tree, context)

    def nodes(self) -> Sequence[int]:
        """The online nodes, ascending."""
        return sorted({region.nid for region in self.memblock.memory}) or [0]

    def panic(self, reason: str, text: str) -> KernelPanic:
        """The exception to raise, after panic()'s line."""
        self.log.printk(f"Kernel panic - not syncing: {text}", _LOGLEVEL_EMERG)
        return KernelPanic(reason, self.log, self.events)

    def memblock_alloc(self, size: int, align: int = SMP_CACHE_BYTES, nid: int = NUMA_NO_NODE) -> int:
        """memblock_alloc_try_nid(): memory that the kernel clears. Raises KernelPanic if it is not mapped."""
        base = self.memblock.alloc(size, align, nid)
        self.touch(base, size)
        return base

    def touch(self, base: int, size: int) -> None:
        """The kernel writes here through the linear map. Raises KernelPanic."""
        for start, end, path in self.scan.unmapped:
            if base < end and base + size > start:
                span = f"{start:#x}-{end - 1:#x}"
                self.events.append(BootEvent(path, "unmapped", EFFECT_PANIC, "no-map", span))
                why = f"{path}: {span} is given back but not mapped, and the kernel writes there"
                raise self.panic(why, "Attempted to kill the idle task!")

    def image(self) -> list[tuple[int, int]]:
        """The kernel image's ranges, (base, end); none where the tree's /memreserve/ says it."""
        return [(self.kernel_start + start, self.kernel_start + end) for start, end in self.data.image]

    def scan_reserved_mem(self) -> None:
        """The scan of /reserved-memory. Raises KernelPanic if it leaves no memory, or more than there can be.

        Up to 5.9 no-map memory is removed, and what a refused node named is added, memory or not.
        """
        self.scan.early_init_fdt_scan_reserved_mem()
        memory = self.memblock.memory
        if not memory or not self.layout(()).memory:
            raise self.panic("no-map regions leave no memory", "Cannot allocate memory")
        if memory[-1].end - memory[0].base > LARGEST_SPAN:
            raise self.panic("a refused no-map region became memory that does not exist", "Out of memory")

    @property
    def page_size(self) -> int:
        """Bytes."""
        return 1 << self.config.page_shift

    def layout(self, zones: Sequence[ZoneRange]) -> MemoryLayout:
        """What memblock hands to the page allocator; ``zones`` in pfns. No-map memory counts as reserved.

        So does an area, also where a refused region that overlaps it gave its memory back: the kernel then
        frees those pages twice and is no longer sound, here they are freed once, by the area.
        """
        shift, size = self.config.page_shift, self.page_size
        memory = [(-(-region.base // size), region.end >> shift) for region in self.memblock.memory]
        taken = [(region.base, region.end) for region in self.memblock.reserved]
        taken += [(region.base, region.end) for region in self.memblock.memory if region.nomap]
        areas = [memrange for area in self.areas for memrange in area.ranges]
        taken += [(r.base_pfn << shift, (r.base_pfn + r.count) << shift) for r in areas]
        reserved = [(base >> shift, -(-end // size)) for base, end in sorted(taken)]
        return MemoryLayout(
            page_shift=shift,
            pageblock_order=self.config.pageblock_order(),
            max_page_order=self.config.max_page_order(),
            zones=tuple(zone for zone in zones if zone[1] < zone[2]),
            memory=tuple(_joined(memory)),
            reserved=tuple(_joined(reserved)),
        )


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping and touching ranges as one; the input is sorted."""
    result: list[tuple[int, int]] = []
    for start, end in ranges:
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        elif start < end:
            result.append((start, end))
    return result
