"""What drivers do while the kernel boots: the atomic pool, a board's own allocations, the framework of 2010.

Kernel: ``kernel/dma/pool.c``, ``arch/arm/mm/dma-mapping.c``. Sizes are bytes unless named pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cmafs.arch.setup import EarlyBoot
from cmafs.drivers.cma2010 import boot as cma2010_boot
from cmafs.drivers.cma2010.profile import Word, find_profile
from cmafs.drivers.dma.pool import AtomicPool
from cmafs.drivers.of_device import of_platform_populate
from cmafs.lib.boot_event import EFFECT_REFUSED
from cmafs.lib.dynamic_debug import DynamicDebug
from cmafs.mm.cma import cma_alloc

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: ``--profile`` of the framework of 2010 when none is given.
DEFAULT_PROFILE = "vendor"

_SZ_1K = 1 << 10
_SZ_128K = 1 << 17
_SZ_256K = 1 << 18
_SZ_1G = 1 << 30


def do_initcalls(boot: EarlyBoot, machine: BootedMachine) -> None:
    """Everything between the activation of the areas and the first process."""
    DynamicDebug(boot.log).boot_params(boot.params.words)
    if boot.cma2010 is not None:
        cma2010_boot.initcalls(boot.cma2010)
    else:
        _POOLS[boot.config.arch](boot, machine)
    boot.log.ptr_key_filled = True
    machine.devices = of_platform_populate(machine, boot.tree)
    _board_allocations(boot)


def reserve_2010(boot: EarlyBoot, profile: str, strict: bool) -> None:
    """The framework of 2010 takes its regions from memblock, as a board's code does before paging.

    Raises ValueError.
    """
    boot.cma2010 = cma2010_boot.setup_cma2010(
        find_profile(profile),
        strict,
        Word(32 if boot.config.arch == "arm" else 64, boot.page_size),
        boot.log,
        boot.config.on("CMA_DEBUG"),
        boot.params.words,
        boot.memblock,
    )
    built_in = boot.config.on("CMA_SYSFS") and bool(boot.cma2010.profile.sysfs)
    boot.config = replace(boot.config, values={**boot.config.values, "CMA_SYSFS": built_in})
    for parameter, why in boot.cma2010.refused:
        boot.event(None, "region-2010-refused", EFFECT_REFUSED, parameter, why)
    for reg in boot.cma2010.early.unreserved:
        boot.event(None, "region-2010-no-room", EFFECT_REFUSED, "cma=", reg.label)


def get_order(size: int, page_shift: int) -> int:
    """get_order(): log2 of the pages that hold so many bytes, rounded up."""
    return max((size - 1) >> page_shift, 0).bit_length()


def _from_default(boot: EarlyBoot, order: int) -> int | None:
    """2^order pages of the default area, aligned as the DMA API does; their pfn or None."""
    cma = boot.areas.default
    if cma is None or not cma.count:
        return None
    return cma_alloc(cma, 1 << order, min(order, boot.config.number("CMA_ALIGNMENT")))


def _pool(machine: BootedMachine, pfn: int | None, order: int) -> None:
    """Where the default area cannot give the pool, it is ordinary pages, which the first request takes."""
    machine.atomic_pool = AtomicPool(1 << order)
    if pfn is not None:
        machine.atomic_pool.add(pfn, 1 << order)


def _atomic_pool_arm64(boot: EarlyBoot, machine: BootedMachine) -> None:
    """dma_atomic_pool_init(): 128 KiB per GiB of managed memory; up to 5.7 256 KiB."""
    shift, size = boot.config.page_shift, boot.params.coherent_pool
    if not boot.abi.boot.arm64_pool_scaled:
        order = get_order(size or _SZ_256K, shift)
        _pool(machine, _from_default(boot, order), order)
        boot.log.printk(f"DMA: preallocated {(size or _SZ_256K) // _SZ_1K} KiB pool for atomic allocations")
        return
    if not size:
        pages = sum(zone.managed_pages for zone in machine.memory.zones) // (_SZ_1G // _SZ_128K)
        size = max(min(pages, 1 << boot.config.max_page_order()) << shift, _SZ_128K)
    order = min(get_order(size, shift), boot.config.max_page_order())
    _pool(machine, _from_default(boot, order), order)
    kib = (1 << (order + shift)) // _SZ_1K
    boot.log.printk(f"DMA: preallocated {kib} KiB GFP_KERNEL pool for atomic allocations")


def _atomic_pool_arm(boot: EarlyBoot, machine: BootedMachine) -> None:
    """atomic_pool_init(): 256 KiB from the default area."""
    size = boot.params.coherent_pool or _SZ_256K
    order = get_order(size, boot.config.page_shift)
    _pool(machine, _from_default(boot, order), order)
    boot.log.printk(f"DMA: preallocated {size // _SZ_1K} KiB pool for atomic coherent allocations")


def _no_pool(boot: EarlyBoot, machine: BootedMachine) -> None:
    """x86_64 keeps no atomic pool."""


_POOLS: Mapping[str, Callable[[EarlyBoot, BootedMachine], None]] = {
    "x86_64": _no_pool,
    "arm64": _atomic_pool_arm64,
    "arm": _atomic_pool_arm,
}


def _board_allocations(boot: EarlyBoot) -> None:
    """What a board's drivers take from the default area: ``cmafs,boot-allocations`` of /chosen, in pages
    each.
    """
    chosen = boot.tree.root.children.get("chosen")
    if chosen is None or boot.areas.default is None:
        return
    index = 0
    while (pages := chosen.property_read_u32("cmafs,boot-allocations", index)) is not None:
        cma_alloc(boot.areas.default, pages, 0)
        index += 1
