"""32-bit ARM without LPAE: low memory, high memory. Kernel: ``arch/arm/mm/mmu.c``, ``arch/arm/mm/init.c``.

Bytes.
"""

from __future__ import annotations

from cmafs.arch import arm64
from cmafs.arch.setup import EarlyBoot

#: PAGE_OFFSET with VMSPLIT_3G, and what vmalloc leaves below 0xf0000000: adjust_lowmem_bounds().
_PAGE_OFFSET = 0xC0000000
_LOWMEM_BYTES = 0x30000000

#: arm_dma_limit without ZONE_DMA.
_DMA_LIMIT = 0xFFFFFFFF


def reserve(boot: EarlyBoot) -> tuple[int, int]:
    """arm_memblock_init(): image, initramfs, tree, /reserved-memory; memblock allocates from low memory
    only.
    """
    start = boot.memblock.start_of_dram()
    lowmem = min(start + _LOWMEM_BYTES, boot.memblock.end_of_dram())
    boot.memblock.current_limit = lowmem
    boot.high_memory = lowmem
    arm64.load(boot)
    boot.scan_reserved_mem()
    return _DMA_LIMIT, _PAGE_OFFSET - start
