"""arm64: where the loader puts things, what the kernel takes before and while it maps memory.

Kernel: ``arch/arm64/mm/init.c``, ``arch/arm64/mm/mmu.c``. Addresses and sizes are bytes.
"""

from __future__ import annotations

from cmafs.arch.setup import ArchOps, EarlyBoot
from cmafs.arch.swiotlb import swiotlb_init
from cmafs.lib.cmdline import memparse
from cmafs.lib.intervals import length, union
from cmafs.lib.math import div_round_up, round_up, rounddown, roundup
from cmafs.lib.printk import LOGLEVEL_NOTICE
from cmafs.lib.sizes import SZ_1G, SZ_2M, SZ_128M
from cmafs.of.address import PHYS_ADDR_MAX, of_dma_get_max_cpu_address
from cmafs.of.memory import claimed

#: arch/arm64/include/asm/memory.h@v6.12
_SEGMENT_ALIGN = 1 << 16
_U32_MAX = (1 << 32) - 1

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
    return _PAGE_OFFSET - rounddown(boot.memblock.start_of_dram(), SZ_1G)


def load(boot: EarlyBoot) -> None:
    """What stands in memory when the kernel is entered: image, initramfs, device tree; all reserved.

    QEMU's places (hw/arm/boot.c): the initramfs at half of memory, at most 128 MiB in, the tree 2 MiB
    aligned behind it. Other loaders step over what the tree reserves. Raises KernelPanic where no memory
    holds the image: such a machine never starts.
    """
    ram, top = union((region.base, region.end) for region in boot.memblock.memory)[0]
    image = (ram // boot.data.image_align + 1) * boot.data.image_align
    image_bytes = boot.data.image[-1][1]
    image = _place(boot, image, image_bytes)
    whole = not boot.params.values("mem")  # which the kernel cuts off itself, when it is there already
    if whole and not boot.memblock.is_region_memory(image, image_bytes):
        raise boot.no_room_for_image(image, image_bytes)
    boot.kernel_start = image
    for start, end in boot.data.image:
        boot.memblock.reserve(image + start, end - start)
    initrd = ram + min((top - ram) // 2, SZ_128M)
    fdt_offset = roundup(_INITRD_BYTES, SZ_2M)
    fdt_bytes = max(len(boot.tree.blob), _FDT_BYTES)
    initrd = _place(boot, max(initrd, roundup(image + image_bytes, SZ_2M)), fdt_offset + fdt_bytes)
    boot.memblock.reserve(initrd, _INITRD_BYTES)
    boot.memblock.reserve(initrd + fdt_offset, fdt_bytes)


def _place(boot: EarlyBoot, start: int, size: int) -> int:
    """The first multiple of 2 MiB from ``start`` on that the tree does not claim; on QEMU ``start``."""
    if boot.tree.root.is_compatible(_QEMU_VIRT):
        return start
    taken = claimed(boot.tree)
    end = boot.memblock.end_of_dram()
    for place in range(start, max(end - size, start), SZ_2M):
        free = all(base + length <= place or base >= place + size for base, length in taken)
        if free and boot.memblock.is_region_memory(place, size):
            return place
    return start


def maps_pages(boot: EarlyBoot) -> bool:
    """``can_set_direct_map()``: whether the linear map is in pages, so that single ones can change."""
    may_crash = boot.abi.boot.crash_maps_pages and boot.config.on("KEXEC_CORE") and has_dma_zones(boot)
    if may_crash and boot.params.values("crashkernel"):
        return True
    blocks, pages = boot.abi.boot.rodata_words
    answer = boot.data.maps_pages or boot.config.on("RODATA_FULL_DEFAULT_ENABLED")
    for value in boot.params.values("rodata"):
        answer = value in pages or (answer and value not in blocks)
    return answer


def paging_init(boot: EarlyBoot) -> None:
    """Page tables of the linear map, one page at a time from the top of memory.

    A table has a page of eight-byte entries: each level maps that many times what the one below does.
    """
    pages = _full_tables(boot) if maps_pages(boot) else _block_tables(boot)
    boot.memblock.alloc_pages(pages)


def _block_tables(boot: EarlyBoot) -> int:
    """Tables of a linear map in the largest blocks that memory fills, and in pages below the crash kernel.

    That is there by now only where it is reserved first. Source: ``arch/arm64/mm/mmu.c:map_mem()@v6.1``.
    """
    pmd = 1 << boot.config.page_shift + boot.config.huge_page_order()
    for base, size in boot.crash_kernel:
        boot.memblock.mark_nomap(base, size)
    tables = boot.data.page_tables + (_partial(boot) if boot.config.page_shift == 12 else 0)
    for base, size in boot.crash_kernel:
        boot.memblock.clear_nomap(base, size)
        tables += div_round_up(base + size, pmd) - base // pmd
    return tables


def _full_tables(boot: EarlyBoot) -> int:
    """Tables of a linear map that is in pages: of each PUD's and PMD's range that has memory in it."""
    bits = boot.config.huge_page_order()
    pmd, pud = boot.config.page_shift + bits, boot.config.page_shift + 2 * bits
    pages = boot.data.page_tables_full + _touched(boot, 1 << pmd) + _touched(boot, 1 << pud)
    if boot.data.maps_image_apart:
        pages += boot.config.on("CPU_LPA2") - _image_blocks(boot, 1 << pmd)
    return pages


def _image_blocks(boot: EarlyBoot, span: int) -> int:
    """Pieces of ``span`` bytes that are wholly the kernel's code and read-only data, from _stext on."""
    code, _, rodata, _, _ = boot.kernel_sizes_kib()
    stext = boot.kernel_start + _SEGMENT_ALIGN
    end = stext + round_up(code << 10, _SEGMENT_ALIGN) + round_up(rodata << 10, _SEGMENT_ALIGN)
    return max(end // span - round_up(stext, span) // span, 0)


def _touched(boot: EarlyBoot, span: int) -> int:
    """How many aligned pieces of ``span`` bytes have mapped memory in them."""
    mapped = (region for region in boot.memblock.memory if not region.nomap)
    return length(union((region.base // span, div_round_up(region.end, span)) for region in mapped))


def _partial(boot: EarlyBoot) -> int:
    """GiB that memory fills only in part, each with a table of 2 MiB blocks, beside the image's own."""
    mapped = list(union((r.base, r.end) for r in boot.memblock.memory if not r.nomap))
    whole = sum(max(end // SZ_1G - div_round_up(start, SZ_1G), 0) for start, end in mapped)
    touched = _touched(boot, SZ_1G)
    first = mapped[0][0] // SZ_1G * SZ_1G
    own = not any(start <= first and end >= first + SZ_1G for start, end in mapped)
    return touched - whole - own


def reserve(boot: EarlyBoot) -> int:
    """arm64_memblock_init(): what the loader left, then /reserved-memory; the offset of the linear map."""
    for value in filter(None, boot.params.values("mem")):
        if limit := memparse(value)[0] // boot.page_size * boot.page_size:
            boot.log.printk(f"Memory limited to {limit >> 20}MB", LOGLEVEL_NOTICE)
            boot.memblock.mem_limit_remove_map(limit)
    load(boot)
    boot.scan_reserved_mem()
    return linear_offset(boot)


# zones: arch/arm64/mm/init.c:zone_sizes_init()


def zone_dma_limit(boot: EarlyBoot) -> int:
    """The last address that ZONE_DMA may have: what all bus masters reach, at most 4 GiB.

    ``zone_dma_limit`` from 6.12 on, before DMA_BIT_MASK(zone_dma_bits).
    """
    limit = of_dma_get_max_cpu_address(boot.tree.root) if boot.abi.boot.dma_ranges_limit_zone else _U32_MAX
    if boot.abi.boot.zone_limit_exact:
        return min(limit, _U32_MAX) if boot.memblock.start_of_dram() < _U32_MAX else limit
    return min((1 << limit.bit_length()) - 1, _U32_MAX)


def max_zone_phys(boot: EarlyBoot, limit: int) -> int:
    """``max_zone_phys()``: one past the last address of a zone whose last one may be ``limit``."""
    start, end, abi = boot.memblock.start_of_dram(), boot.memblock.end_of_dram(), boot.abi.boot
    if abi.zone_limit_by_offset:
        return min((start & ~_U32_MAX) + _U32_MAX + 1, end)
    if not abi.zone_limit_exact:
        if start > _U32_MAX:
            limit = PHYS_ADDR_MAX
        elif start > limit:
            limit = _U32_MAX
    return min(limit, end - 1) + 1


def zone_limits(boot: EarlyBoot) -> dict[str, int]:
    """Where ZONE_DMA and ZONE_DMA32 end."""
    return {"DMA": max_zone_phys(boot, zone_dma_limit(boot)), "DMA32": max_zone_phys(boot, _U32_MAX)}


def has_dma_zones(boot: EarlyBoot) -> bool:
    """``defer_reserve_crashkernel()``: whether ``arm64_dma_phys_limit`` waits for the zones."""
    return boot.config.on("ZONE_DMA") or boot.config.on("ZONE_DMA32")


def dma_phys_limit(boot: EarlyBoot) -> int:
    """``arm64_dma_phys_limit``: how far dma_contiguous_reserve() may go."""
    limits = zone_limits(boot)
    for name in ("DMA", "DMA32"):
        if boot.config.on(f"ZONE_{name}"):
            return limits[name]
    return PHYS_LIMIT


def _swiotlb_init(boot: EarlyBoot) -> None:
    """``mem_init()``: where memory passes the reach of devices, since 6.5 for unaligned buffers anyway."""
    low = dma_phys_limit(boot)
    size = div_round_up(boot.memblock.phys_mem_size(), 1024) if boot.data.swiotlb_scaled else 0
    swiotlb_init(boot, boot.memblock.end_of_dram() > low, low, size)


OPS = ArchOps(reserve, dma_phys_limit, zone_limits, _swiotlb_init, zone_dma_limit)
