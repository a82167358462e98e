"""What boot knows before the page allocator runs, and the steps that all architectures share.

Kernel: ``init/main.c``, ``mm/mm_init.c``, ``drivers/of/fdt.c``. Addresses and sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cmafs.abi.boot_arch import ARCH_ROWS, ArchAbi
from cmafs.lib.boot_event import EFFECT_PANIC
from cmafs.lib.intervals import union
from cmafs.lib.math import div_round_up
from cmafs.lib.panic import KernelPanic
from cmafs.mm.early import EarlyMm
from cmafs.mm.memblock import NUMA_NO_NODE, SMP_CACHE_BYTES
from cmafs.mm.mmzone import MemoryLayout, ZoneSpan
from cmafs.of.base import DeviceTree
from cmafs.of.cpu import cpu_nodes
from cmafs.of.memory import LARGEST_SPAN
from cmafs.of.reserved_mem import ReservedMemScan

if TYPE_CHECKING:
    from cmafs.drivers.cma2010.framework import Cma2010

_LOGLEVEL_EMERG = 0


@dataclass(frozen=True)
class ArchOps:
    """What ``setup_arch()`` of an architecture does.

    ``reserve``: what is taken first; the offset of the linear map. ``dma_phys_limit``: how far the default
    area may go. ``zone_limits``: where zones end, by name; a zone without ends with memory.
    ``zone_dma_limit``: the last address that devices of ZONE_DMA reach. Bytes.
    """

    reserve: Callable[[EarlyBoot], int]
    dma_phys_limit: Callable[[EarlyBoot], int]
    zone_limits: Callable[[EarlyBoot], Mapping[str, int]]
    swiotlb_init: Callable[[EarlyBoot], None]
    zone_dma_limit: Callable[[EarlyBoot], int]


@dataclass(eq=False, kw_only=True)
class EarlyBoot(EarlyMm):
    """The state of one boot.

    ``cmdline``: the whole command line; ``kernel_start``: where the loader put the image; ``cma2010``: the
    framework of 2010, where that is the kernel; ``allocated_kib``: what the kernel itself has taken from the
    page allocator by then; ``numa_described``: the tree gives every memory node its NUMA node;
    ``phys_offset``, ``vmalloc_size``: of 32-bit ARM, where memory begins and what ``vmalloc=`` takes of the
    linear map; ``crash_kernel``: (base, bytes) of what ``crashkernel=`` took. Besides: ``data``, this
    kernel's early figures on this architecture; ``scan``, its treatment of /reserved-memory; ``nr_cpus``.
    """

    tree: DeviceTree
    cmdline: str
    kernel_start: int = 0
    cma2010: Cma2010 | None = None
    allocated_kib: int = 0
    numa_described: bool = False
    phys_offset: int = 0
    vmalloc_size: int = 0
    crash_kernel: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.data: ArchAbi = replace(ARCH_ROWS[self.config.arch][self.abi.row], **self.config.image)
        self.scan = ReservedMemScan(self.tree, self)
        self.nr_cpus = max(1, len(cpu_nodes(self.tree)))

    @property
    def numa_off(self) -> bool:
        """``numa=off``"""
        return "off" in self.params.values("numa")

    @property
    def struct_page_bytes(self) -> int:
        """sizeof(struct page): CONFIG_MEMCG adds a pointer where none is left over."""
        pointer = 8 if self.config.on("64BIT") else 4
        wide = self.data.struct_page_bytes == 64 or not self.config.on("MEMCG")
        return self.data.struct_page_bytes + (0 if wide else pointer)

    def panic(self, reason: str, text: str) -> KernelPanic:
        """The exception to raise, after panic()'s line."""
        self.log.printk(f"Kernel panic - not syncing: {text}", _LOGLEVEL_EMERG)
        return KernelPanic(reason, self.log, self.events)

    def no_room_for_image(self, base: int, size: int) -> KernelPanic:
        """The exception to raise where no memory holds the kernel's image; nothing is logged then."""
        where = f"{size >> 10} KiB from {base:#x}"
        self.event(None, "no-room-for-image", EFFECT_PANIC, None, where)
        return KernelPanic(f"the kernel's image, {where}, does not fit into memory", self.log, self.events)

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
                self.event(path, "unmapped", EFFECT_PANIC, "no-map", span)
                why = f"{path}: {span} is given back but not mapped, and the kernel writes there"
                raise self.panic(why, "Attempted to kill the idle task!")

    def kernel_sizes_kib(self) -> tuple[int, ...]:
        """Code, rwdata, rodata, init, bss in KiB: the kernel's, or ``cmafs,kernel-sizes-kib`` of /chosen."""
        own = [self.tree.chosen.property_read_u32("cmafs,kernel-sizes-kib", index) for index in range(5)]
        given = tuple(value for value in own if value is not None)
        return given if len(given) == 5 else self.data.kernel_sizes_kib

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

    def layout(self, zones: Sequence[ZoneSpan]) -> MemoryLayout:
        """What memblock hands to the page allocator. No-map memory counts as reserved.

        So does an area, also where a refused region that overlaps it gave its memory back: the kernel then
        frees those pages twice and is no longer sound, here they are freed once, by the area.
        """
        shift, size = self.config.page_shift, self.page_size
        memory = [(div_round_up(region.base, size), region.end >> shift) for region in self.memblock.memory]
        taken = [(region.base, region.end) for region in self.memblock.reserved]
        nomap = [(region.base, region.end) for region in self.memblock.memory if region.nomap]
        areas = [memrange for area in self.areas for memrange in area.ranges]
        taken += [(r.base_pfn << shift, (r.base_pfn + r.count) << shift) for r in areas]
        reserved = [(base >> shift, div_round_up(end, size)) for base, end in (*taken, *nomap)]
        return MemoryLayout(
            page_shift=shift,
            pageblock_order=self.config.pageblock_order(),
            max_page_order=self.config.max_page_order(),
            zones=tuple(zones),
            memory=tuple(union(memory)),
            reserved=tuple(union(reserved)),
            high_pfn=self.high_memory >> shift if self.high_memory and self.config.on("HIGHMEM") else None,
            nomap=tuple(union((base >> shift, div_round_up(end, size)) for base, end in nomap)),
        )
