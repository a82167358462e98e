"""arm64: where the loader puts things, what the kernel takes before and while it maps memory.

Kernel: ``arch/arm64/mm/init.c``, ``arch/arm64/mm/mmu.c``. Addresses and sizes are bytes.
"""

from __future__ import annotations

from cmafs.arch.setup import EarlyBoot
from cmafs.of.memory import reg_ranges

SZ_2M = 1 << 21
_SZ_1G = 1 << 30
_SZ_128M = 1 << 27

#: PHYS_MASK + 1: the limit of the default area without ZONE_DMA and ZONE_DMA32.
PHYS_LIMIT = 1 << 48

#: VA_BITS 48: where the linear map begins.
_PAGE_OFFSET = (1 << 64) - (1 << 48)

#: The initramfs of the recorded guests, and room for QEMU's device tree.
_INITRD_BYTES = 0x1A6000
_FDT_BYTES = 0x9000

#: The root's compatible on QEMU's machine, whose loader does not look at /reserved-memory.
_QEMU_VIRT = "linux,dummy-virt"


def linear_offset(boot: EarlyBoot) -> int:
    """Virtual minus physical address of the linear map: memstart_addr is rounded down to 1 GiB."""
    return _PAGE_OFFSET - boot.memblock.start_of_dram() // _SZ_1G * _SZ_1G


def load(boot: EarlyBoot) -> None:
    """What stands in memory when the kernel is entered: image, initramfs, device tree; all reserved.

    QEMU's places (hw/arm/boot.c): the initramfs at half of memory, at most 128 MiB in, the tree 2 MiB
    aligned behind it. Other loaders step over what the tree reserves.
    """
    ram = boot.memblock.memory[0]
    image = -(-(ram.base + 1) // boot.data.image_align) * boot.data.image_align
    image_bytes = boot.data.image[-1][1]
    image = _place(boot, image, image_bytes)
    boot.kernel_start = image
    for start, end in boot.data.image:
        boot.memblock.reserve(image + start, end - start)
    initrd = ram.base + min(ram.size // 2, _SZ_128M)
    fdt_offset = -(-_INITRD_BYTES // SZ_2M) * SZ_2M
    fdt_bytes = max(len(boot.tree.blob), _FDT_BYTES)
    initrd = _place(boot, max(initrd, -(-(image + image_bytes) // SZ_2M) * SZ_2M), fdt_offset + fdt_bytes)
    boot.memblock.reserve(initrd, _INITRD_BYTES)
    boot.memblock.reserve(initrd + fdt_offset, fdt_bytes)


def _place(boot: EarlyBoot, start: int, size: int) -> int:
    """The first multiple of 2 MiB from ``start`` on that the tree does not claim; ``start`` itself on
    QEMU.
    """
    if boot.tree.root.is_compatible(_QEMU_VIRT):
        return start
    taken = [*boot.tree.memreserve, *_reserved_regs(boot)]
    end = boot.memblock.end_of_dram()
    for place in range(start, max(end - size, start), SZ_2M):
        free = all(base + length <= place or base >= place + size for base, length in taken)
        if free and boot.memblock.is_region_memory(place, size):
            return place
    return start


def _reserved_regs(boot: EarlyBoot) -> list[tuple[int, int]]:
    root = boot.tree.root
    parent = root.children.get("reserved-memory")
    cells = root.address_cells(), root.size_cells()
    return [pair for node in parent.children.values() for pair in reg_ranges(node, *cells)] if parent else []


def paging_init(boot: EarlyBoot) -> None:
    """Page tables of the linear map, one page at a time from the top of memory."""
    pages = boot.data.page_tables
    if boot.data.maps_pages:
        pages += sum(_touched(boot, span) for span in (SZ_2M, _SZ_1G))
    boot.memblock.alloc_pages(pages, boot.page_size)


def _touched(boot: EarlyBoot, span: int) -> int:
    """How many aligned pieces of ``span`` bytes have mapped memory in them."""
    count = done = 0
    for region in boot.memblock.memory:
        if not region.nomap:
            first, end = max(region.base // span, done), -(-region.end // span)
            count, done = count + max(end - first, 0), max(end, done)
    return count


def reserve(boot: EarlyBoot) -> tuple[int, int]:
    """arm64_memblock_init(): what the loader left, then /reserved-memory; (limit, offset of the linear
    map).
    """
    load(boot)
    boot.scan_reserved_mem()
    return PHYS_LIMIT, linear_offset(boot)
