"""What drivers do while the kernel boots: the atomic pool, a board's own allocations, the framework of 2010.

Kernel: ``kernel/dma/pool.c``, ``arch/arm/mm/dma-mapping.c``. Sizes are bytes unless named pages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cmafs.arch.setup import EarlyBoot
from cmafs.drivers.dma.direct import pool_pages_from_cma
from cmafs.drivers.dma.pool import AtomicPool
from cmafs.drivers.dma_buf.heap import add_heaps
from cmafs.drivers.of_device import of_platform_populate
from cmafs.init.options import BadOption
from cmafs.lib.boot_event import EFFECT_REFUSED
from cmafs.lib.sizes import SZ_1G, SZ_1K, SZ_128K, SZ_256K
from cmafs.mm.cma import cma_alloc
from cmafs.mm.gfp import GFP_DMA, GFP_DMA32, get_order

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: ``--profile`` of the framework of 2010 when none is given.
DEFAULT_PROFILE = "vendor"


def do_initcalls(boot: EarlyBoot, machine: BootedMachine) -> None:
    """Everything between the activation of the areas and the first process."""
    if boot.cma2010 is not None:
        from cmafs.drivers.cma2010 import boot as cma2010_boot

        cma2010_boot.initcalls(boot.cma2010)
    else:
        _atomic_pools(boot, machine)
    boot.log.ptr_key_filled = True
    add_heaps(machine)
    machine.devices = of_platform_populate(machine, boot.tree)
    _board_allocations(boot)


def reserve_2010(boot: EarlyBoot, profile: str, strict: bool) -> None:
    """The framework of 2010 takes its regions from memblock, as a board's code does before paging.

    Raises BadOption. What no other kernel has is imported here, which keeps their start short.
    """
    from cmafs.drivers.cma2010 import boot as cma2010_boot
    from cmafs.drivers.cma2010.profile import UnknownProfile, Word, find_profile

    try:
        chosen = find_profile(profile)
    except UnknownProfile as error:
        raise BadOption(str(error)) from None
    boot.cma2010 = cma2010_boot.setup_cma2010(
        chosen,
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


def _pool(machine: BootedMachine, pages: int, gfp: int) -> None:
    """Where the default area cannot give a pool, it is ordinary pages, which the first request takes."""
    pool = AtomicPool(pages, gfp)
    machine.atomic_pools.append(pool)
    pfn = pool_pages_from_cma(machine, gfp, pages)
    if pfn is not None:
        pool.add(pfn, pages)


def dma_atomic_pool_init(boot: EarlyBoot, machine: BootedMachine) -> None:
    """``dma_atomic_pool_init()``: 128 KiB per GiB of managed memory for each zone that devices ask for."""
    shift, size, zones = boot.config.page_shift, boot.params.coherent_pool, machine.memory.zones
    if not size:
        pages = sum(zone.managed_pages for zone in zones) // (SZ_1G // SZ_128K)
        size = max(pages << shift, SZ_128K)
    order = min(get_order(size, shift), boot.config.max_page_order())
    dma = boot.config.on("ZONE_DMA") and (
        not boot.abi.boot.pool_needs_zone_dma
        or any(zone.name == "DMA" and zone.managed_pages for zone in zones)
    )
    wanted = {0: True, GFP_DMA: dma, GFP_DMA32: boot.config.on("ZONE_DMA32")}
    for gfp in (gfp for gfp, there in wanted.items() if there):
        _pool(machine, 1 << order, gfp)
        kib, zone_flag = (1 << (order + shift)) // SZ_1K, _POOL_FLAGS[gfp]
        boot.log.printk(f"DMA: preallocated {kib} KiB GFP_KERNEL{zone_flag} pool for atomic allocations")


#: ``%pGg`` of a pool's flags, behind GFP_KERNEL.
_POOL_FLAGS = {0: "", GFP_DMA: "|GFP_DMA", GFP_DMA32: "|GFP_DMA32"}


def _atomic_pool_init(boot: EarlyBoot, machine: BootedMachine, text: str) -> None:
    """The one pool of ``arch/*/mm/dma-mapping.c:atomic_pool_init()``, 256 KiB from the default area.

    Of ``coherent_pool=`` only whole pages count, which need not be a power of two.
    """
    size = boot.params.coherent_pool or SZ_256K
    _pool(machine, max(size >> boot.config.page_shift, 1), 0)
    boot.log.printk(f"DMA: preallocated {size // SZ_1K} KiB pool for atomic {text}allocations")


def _atomic_pools(boot: EarlyBoot, machine: BootedMachine) -> None:
    if boot.config.on("DMA_COHERENT_POOL"):
        dma_atomic_pool_init(boot, machine)
    elif boot.config.arch != "x86_64":
        _atomic_pool_init(boot, machine, "coherent " if boot.config.arch == "arm" else "")


def _board_allocations(boot: EarlyBoot) -> None:
    """What a board's drivers take of the default area: pages each, ``cmafs,boot-allocations`` of /chosen."""
    if boot.areas.default is not None:
        for (pages,) in boot.tree.chosen.entries("cmafs,boot-allocations", 1):
            cma_alloc(boot.areas.default, pages, 0)
