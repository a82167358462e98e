"""``crashkernel=``: memory for a second kernel, which saves this one's after a crash; here it is only taken.

Kernel: ``kernel/crash_reserve.c@v6.12``, ``kernel/crash_core.c@v6.7``, and ``reserve_crashkernel()`` of the
architectures that ``abi.boot.crash_generic`` does not name. Sizes and addresses are bytes.
"""

from __future__ import annotations

from dataclasses import replace

from cmafs.arch import arm64
from cmafs.arch.setup import EarlyBoot
from cmafs.arch.swiotlb import swiotlb_size_or_default
from cmafs.init.crash_parse import (
    LOW,
    NAME,
    Invalid,
    Missing,
    Wanted,
    parse_crashkernel,
    parse_crashkernel_x86,
    size_of,
)
from cmafs.lib.boot_event import EFFECT_PANIC
from cmafs.lib.math import round_up
from cmafs.lib.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING
from cmafs.lib.sizes import SZ_1M, SZ_2M, SZ_4G, SZ_16M, SZ_64T, SZ_128M, SZ_256M
from cmafs.mm.cma_declare import CmaRefused, CmaRequest, cma_declare_contiguous_nid

#: CRASH_ADDR_LOW_MAX of x86 before 5.2.
_SZ_896M = 896 << 20

#: CRASHKERNEL_CMA_RANGES_MAX (include/linux/crash_reserve.h@v7.2).
_CMA_RANGES_MAX = 4


def reserve_crashkernel(boot: EarlyBoot) -> None:
    """``arch_reserve_crashkernel()``, to 6.6 ``reserve_crashkernel()``: what the command line asks for."""
    arch, abi = boot.config.arch, boot.abi.boot
    if not boot.config.on(abi.crash_symbols[arch]):
        return
    try:
        if arch == "arm":
            _reserve_arm(boot)
        elif arch in abi.crash_generic:
            _reserve_generic(boot)
        elif arch == "x86_64":
            _reserve_x86(boot)
        else:
            _reserve_arm64(boot)
    except (Missing, Invalid):
        return


def _warn(boot: EarlyBoot, text: str) -> None:
    boot.log.printk(text, LOGLEVEL_WARNING)


def _limits(boot: EarlyBoot) -> tuple[int, int, int, int]:
    """CRASH_ALIGN, CRASH_ADDR_LOW_MAX, CRASH_ADDR_HIGH_MAX, the default low part."""
    if boot.config.arch == "x86_64":
        low_part = max(swiotlb_size_or_default(boot) + (8 << 20), SZ_256M)
        return SZ_16M, SZ_4G, SZ_64T, low_part
    return SZ_2M, arm64.dma_phys_limit(boot), arm64.PHYS_LIMIT, SZ_128M


def _reserve_generic(boot: EarlyBoot) -> None:
    """``reserve_crashkernel_generic()``, and what 7.2 does on x86 besides. Raises Missing, Invalid."""
    wanted = parse_crashkernel(boot, boot.memblock.phys_mem_size(), _limits(boot)[-1])
    _search_generic(boot, wanted)
    _reserve_crashkernel_cma(boot, wanted.cma)


def _search_generic(boot: EarlyBoot, wanted: Wanted) -> None:
    """The place asked for; or low memory, then high; with ``,high`` the other way round."""
    _, low_max, high_max, low_part = _limits(boot)
    if wanted.base:
        if not _search(boot, wanted, [(wanted.base, wanted.base + wanted.size, wanted.low)]):
            _warn(boot, "crashkernel reservation failed - memory is in use.")
        return
    searches = [(0, low_max, 0), (low_max, high_max, wanted.low if wanted.high else low_part)]
    if wanted.high:
        searches = searches[:0:-1] if low_max == high_max else searches[::-1]
    if _search(boot, wanted, searches):
        return
    if low_max == high_max and not wanted.high:
        raise _never_ends(boot, wanted.size)
    _warn(boot, f"cannot allocate crashkernel (size:{wanted.size:#x})")


def _search(boot: EarlyBoot, wanted: Wanted, searches: list[tuple[int, int, int]]) -> bool:
    """Take the first place in one of (start, end, low part, for a place above the limit); False for none."""
    align, low_max, _, _ = _limits(boot)
    for start, end, low in searches:
        if base := boot.memblock.phys_alloc_range(wanted.size, align, start, end):
            _take(boot, base, wanted.size, low if base >= low_max else 0)
            return True
    return False


def _never_ends(boot: EarlyBoot, size: int) -> Exception:
    """Where all memory is low memory, the search of high memory is taken for the first one, and repeated."""
    detail = f"{size:#x} bytes"
    boot.event(None, "crashkernel-hangs", EFFECT_PANIC, NAME, detail)
    reason = f"crashkernel: no free range of {detail}, and the kernel searches on for ever"
    return boot.panic(reason, "Attempted to kill the idle task!")


def _take(boot: EarlyBoot, base: int, size: int, low: int) -> None:
    """The lines of arm64 and the generic one: the low part first, without which the other is given back."""
    if low and not _take_low(boot, low):
        boot.memblock.phys_free(base, size)
        return
    boot.log.printk(f"crashkernel reserved: {base:#018x} - {base + size:#018x} ({size >> 20} MB)")
    boot.crash_kernel.append((base, size))


def _take_low(boot: EarlyBoot, size: int) -> bool:
    """``reserve_crashkernel_low()``: whether there was room below the limit."""
    align, low_max, _, _ = _limits(boot)
    base = boot.memblock.phys_alloc_range(size, align, 0, low_max)
    if not base:
        boot.log.printk(f"cannot allocate crashkernel low memory (size:{size:#x}).", LOGLEVEL_ERR)
        return False
    end = base + size
    boot.log.printk(f"crashkernel low memory reserved: {base:#010x} - {end:#010x} ({size >> 20} MB)")
    boot.crash_kernel.append((base, size))
    return True


def _reserve_crashkernel_cma(boot: EarlyBoot, wanted: int) -> None:
    """``reserve_crashkernel_cma()@v7.2``: areas of that size in all, smaller ones where there is no room."""
    if not wanted:
        return
    if not boot.config.on("CMA"):
        _warn(boot, "crashkernel CMA reservation not supported")
        return
    request, reserved, count = round_up(wanted, boot.page_size), 0, 0
    while wanted > reserved and count < _CMA_RANGES_MAX:
        try:
            cma_declare_contiguous_nid(boot, CmaRequest(request, "crashkernel"))
        except CmaRefused:
            if request <= boot.page_size:
                break
            request = round_up(request // 2, boot.page_size)
            continue
        count += 1
        reserved += request
    if wanted > reserved:
        have = f"{wanted >> 20} MB requested, {reserved >> 20} MB reserved in {count} ranges"
        _warn(boot, f"crashkernel CMA reservation failed: {have}")
    else:
        boot.log.printk(f"crashkernel CMA reserved: {reserved >> 20} MB in {count} ranges")


# arm64: arch/arm64/mm/init.c to 6.1


def _reserve_arm64(boot: EarlyBoot) -> None:
    """``reserve_crashkernel()``. Raises Missing, Invalid."""
    wanted = parse_crashkernel(boot, boot.memblock.phys_mem_size(), 0)
    wanted = replace(wanted, size=round_up(wanted.size, boot.page_size))
    limit = arm64.dma_phys_limit(boot)
    if not boot.abi.boot.crash_arm64_high:
        _place_arm64(boot, wanted.size, wanted.base, limit - boot.abi.boot.crash_below_last)
        return
    free = arm64.PHYS_LIMIT if wanted.high else limit
    end = wanted.base + wanted.size if wanted.base else free
    if not _search(boot, wanted, [(wanted.base, end, wanted.low)]):
        _warn(boot, f"cannot allocate crashkernel (size:{wanted.size:#x})")


def _place_arm64(boot: EarlyBoot, size: int, base: int, limit: int) -> None:
    """To 5.19: low memory only, and three reasons against a place that was asked for."""
    memblock = boot.memblock
    why = ""
    if not base:
        base = memblock.find_in_range_node(size, SZ_2M, 0, limit)
        why = "" if base else f"cannot allocate crashkernel (size:{size:#x})"
    elif not memblock.is_region_memory(base, size):
        why = "cannot reserve crashkernel: region is not memory"
    elif memblock.is_region_reserved(base, size):
        why = "cannot reserve crashkernel: region overlaps reserved memory"
    elif base % SZ_2M:
        why = "cannot reserve crashkernel: base address is not 2MB aligned"
    if why:
        _warn(boot, why)
        return
    memblock.reserve(base, size)
    _take(boot, base, size, 0)


# x86_64: arch/x86/kernel/setup.c to 6.6


def _reserve_x86(boot: EarlyBoot) -> None:
    """``reserve_crashkernel()``. Raises Missing, Invalid."""
    total = boot.memblock.phys_mem_size()
    wanted = parse_crashkernel_x86(boot, total)
    if wanted.base:
        end = wanted.base + wanted.size
        base = boot.memblock.phys_alloc_range(wanted.size, SZ_1M, wanted.base, end)
        if base != wanted.base:
            boot.log.printk("crashkernel reservation failed - memory is in use.")
            return
    elif not (base := _search_x86(boot, wanted)):
        boot.log.printk("crashkernel reservation failed - No suitable area found.")
        return
    if base >= SZ_4G and not _low_x86(boot):
        boot.memblock.phys_free(base, wanted.size)
        return
    _say_reserving(boot, base, wanted.size, total)
    boot.crash_kernel.append((base, wanted.size))


def _search_x86(boot: EarlyBoot, wanted: Wanted) -> int:
    """The highest place below 4 GiB, else any; with ``,high`` any; 0 for none."""
    falls_back = boot.abi.boot.crash_x86_falls_back
    limits = [SZ_4G if falls_back else _SZ_896M] if not wanted.high else []
    limits += [SZ_64T] if wanted.high or falls_back else []
    for limit in limits:
        if base := boot.memblock.phys_alloc_range(wanted.size, SZ_16M, SZ_16M, limit):
            return base
    return 0


def _low_x86(boot: EarlyBoot) -> bool:
    """``reserve_crashkernel_low()``: False where there is no room; ``0,low`` wants none."""
    default = _limits(boot)[-1]
    try:
        size = size_of(boot, LOW, default)
    except Invalid:
        size = default
    if not size:
        return True
    base = boot.memblock.phys_alloc_range(size, SZ_16M, 0, SZ_4G)
    if not base:
        text = f"Cannot reserve {size >> 20}MB crashkernel low memory, please try smaller size."
        boot.log.printk(text, LOGLEVEL_ERR)
        return False
    limit = min(boot.memblock.phys_mem_size(), SZ_4G) >> 20
    where = f"Reserving {size >> 20}MB of low memory at {base >> 20}MB"
    boot.log.printk(f"{where} for crashkernel (low RAM limit: {limit}MB)")
    boot.crash_kernel.append((base, size))
    return True


def _say_reserving(boot: EarlyBoot, base: int, size: int, total: int) -> None:
    text = f"Reserving {size >> 20}MB of memory at {base >> 20}MB for crashkernel"
    boot.log.printk(f"{text} (System RAM: {total >> 20}MB)")


# 32-bit ARM: arch/arm/kernel/setup.c


def _reserve_arm(boot: EarlyBoot) -> None:
    """``reserve_crashkernel()``: low memory, from 128 MiB on. Raises Missing, Invalid."""
    memblock, mask = boot.memblock, boot.phys_mask
    lowmem = boot.high_memory or memblock.end_of_dram()
    total = (lowmem // boot.page_size * boot.page_size - memblock.start_of_dram()) & 0xFFFFFFFF
    wanted = parse_crashkernel(boot, total, 0)
    base, size = wanted.base, wanted.size & mask
    if base:
        section = SZ_2M if boot.config.on("ARM_LPAE") else SZ_1M
        found = memblock.find_in_range_node(size, section, base & mask, (base + size) & mask)
        why = "memory is in use." if not found or (boot.abi.boot.crash_zero_taken and found != base) else ""
    else:
        base = found = memblock.find_in_range_node(size, SZ_128M, SZ_128M, min(lowmem, 0xFFFFFFFF))
        why = "" if found else "No suitable area found."
    if why:
        boot.log.printk(f"crashkernel reservation failed - {why}", LOGLEVEL_ERR)
        return
    memblock.reserve(found, size)
    _say_reserving(boot, base, wanted.size, total)
    boot.crash_kernel.append((base, wanted.size))
