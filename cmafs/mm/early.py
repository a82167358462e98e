"""What the boot knows of memory before the page allocator runs: what every reserving function works on.

Kernel: globals of ``mm/memblock.c``, ``mm/cma.c``, ``kernel/dma/contiguous.c``. Addresses, sizes: bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cmafs.abi import KernelAbi
from cmafs.lib.boot_event import BootEvent
from cmafs.lib.cmdline import EarlyParams
from cmafs.lib.kconfig import Kconfig
from cmafs.lib.kstrtox import U64_MAX
from cmafs.lib.printk import LOGLEVEL_ERR, Printk
from cmafs.mm.cma import CmaAreas
from cmafs.mm.memblock import Memblock


@dataclass(eq=False, kw_only=True)
class EarlyMm:
    """One boot's memory before mm_init().

    ``params``: what the command line says of memory; ``events``: what became of regions, for ``cmafs check``;
    ``high_memory``: the end of the linear map (``__pa(high_memory - 1) + 1``), None for the end of RAM, which
    it is without CONFIG_HIGHMEM; ``fixups``: (node's path, base, size) of what 32-bit ARM maps again for DMA.
    """

    abi: KernelAbi
    config: Kconfig
    params: EarlyParams
    log: Printk
    memblock: Memblock
    events: list[BootEvent] = field(default_factory=list)
    high_memory: int | None = None
    fixups: list[tuple[str | None, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        self.phys_mask = U64_MAX if config.on("PHYS_ADDR_T_64BIT") else (1 << 32) - 1
        self.phys_64 = config.on("PHYS_ADDR_T_64BIT")
        self.areas = CmaAreas(
            self.log,
            self.abi.cma,
            max_areas=config.max_cma_areas(),
            min_alignment=config.cma_min_alignment_bytes(),
            page_shift=config.page_shift,
            cma_debug=config.on("CMA_DEBUG"),
        )
        sites = self.abi.cma.sites
        if config.on("CMA_DEBUGFS"):
            self.log.add_debug_sites([sites.partial_block], enabled=False)
        if config.on("DMA_CMA"):
            self.log.add_debug_sites(sites.contiguous(config.on("DMA_PERNUMA_CMA")), config.on("CMA_DEBUG"))

    @property
    def page_size(self) -> int:
        """``PAGE_SIZE`` in bytes."""
        return 1 << self.config.page_shift

    def nodes(self) -> Sequence[int]:
        """The online nodes, ascending."""
        return sorted({region.nid for region in self.memblock.memory}) or [0]

    def highmem_start(self) -> int:
        """Where memory outside the linear map begins."""
        return self.memblock.end_of_dram() if self.high_memory is None else self.high_memory

    def pa(self, address: int) -> str:
        """``%pa``: 0x and 16 hex digits, 8 where physical addresses have 32 bits."""
        return f"{address:#018x}" if self.phys_64 else f"{address & 0xFFFFFFFF:#010x}"

    def cma_error(self, text: str) -> None:
        """An error line of mm/cma.c, with the prefix that its pr_fmt gives it."""
        self.log.printk("cma: " + text, LOGLEVEL_ERR)

    def event(
        self, node: str | None, reason: str, effect: str, prop: str | None = None, detail: str = ""
    ) -> None:
        """Note what happened to a region; what the kernel says twice is noted once."""
        event = BootEvent(node, reason, effect, prop, detail)
        if event not in self.events:
            self.events.append(event)
