"""Memory for devices without an IOMMU: CMA first, then the page allocator; a pool for those who cannot wait.

Source: ``kernel/dma/direct.c:dma_direct_alloc()@v5.10``; before 5.0 the same in ``lib/dma-direct.c`` and,
for arm and arm64, in ``arch/*/mm/dma-mapping.c``. What differs by kernel is in ``abi.dma``.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmafs.drivers.device import Device, DmaBuffer, DriverMachine, Origin, dma_bit_mask
from cmafs.drivers.dma.contiguous import (
    dma_alloc_contiguous,
    dma_free_contiguous,
    gfpflags_allow_blocking,
    page_count,
)
from cmafs.drivers.dma.pool import AtomicPool
from cmafs.lib.printk import LOGLEVEL_WARNING
from cmafs.mm.cma import cma_alloc
from cmafs.mm.gfp import GFP_DMA, GFP_DMA32, GFP_KERNEL, get_order
from cmafs.mm.page_alloc import OutOfMemory, alloc_pages, free_pages
from cmafs.mm.page_owner import KIND_KERNEL, Occupant

#: Where the linear map begins (4.4, whose %p shows it; later kernels print a hash): on x86_64 without KASLR,
#: on arm64 with CONFIG_ARM64_VA_BITS=39, on arm with VMSPLIT_3G. To be derived from those options.
_PAGE_OFFSET = {"x86_64": 0xFFFF880000000000, "arm64": 0xFFFFFFC000000000, "arm": 0xC0000000}


def dma_direct_alloc(device: Device, size: int, gfp: int) -> DmaBuffer | None:
    """``dma_direct_alloc()``: a buffer of ``size`` bytes, or None.

    A device that does not see the CPU's caches needs its memory remapped, which may sleep: then GFP_ATOMIC is
    answered from the atomic pool.
    """
    if not gfpflags_allow_blocking(gfp) and not device.dma_coherent:
        return _from_pool(device, size, gfp)
    gfp |= dma_direct_optimal_gfp_mask(device)
    found = dma_alloc_contiguous(device, size, gfp)
    if found is not None:
        cma, pfn = found
        if dma_coherent_ok(device, pfn, size):
            return new_buffer(device, pfn, size, cma)
        dma_free_contiguous(device, pfn, size)
        _out_of_reach(device, f"area {cma.label}", pfn)
    if gfpflags_allow_blocking(gfp) and not _falls_back(device):
        device.refusals.append("this kernel asks nobody else")
        return None
    occupant = _alloc_pages(device, size, gfp)
    return None if occupant is None else new_buffer(device, occupant.frames[0], size, occupant)


def dma_direct_free(buffer: DmaBuffer) -> None:
    """``dma_direct_free()``: back to where it came from."""
    machine, device = buffer.device.machine, buffer.device
    if isinstance(buffer.origin, AtomicPool):
        buffer.origin.free(buffer.pfn, page_count(device, buffer.size))
    elif dma_free_contiguous(device, buffer.pfn, buffer.size) is None:
        assert isinstance(buffer.origin, Occupant), "the area that it is from is the device's no more"
        _free_pages(machine, buffer.origin, get_order(buffer.size, machine.config.page_shift))


def dma_direct_optimal_gfp_mask(device: Device) -> int:
    """``dma_direct_optimal_gfp_mask()``: the zone that is sure to be in the device's reach.

    arm has a rule of its own (``arch/arm/mm/dma-mapping.c:__dma_alloc()@v6.12``).
    """
    machine = device.machine
    if machine.arch == "arm":
        return GFP_DMA if device.dma_limit < dma_bit_mask(32) else 0
    limit = device.dma_to_phys(device.dma_limit)
    zone_dma_limit = machine.zone_dma_limit if machine.config.on("ZONE_DMA") else dma_bit_mask(24)
    if limit is None or limit > max(zone_dma_limit, dma_bit_mask(32)):
        return 0
    return GFP_DMA if limit <= zone_dma_limit else GFP_DMA32


def dma_coherent_ok(device: Device, pfn: int, size: int) -> bool:
    """``dma_coherent_ok()``: whether the device can address all of it."""
    start = device.phys_to_dma(pfn << device.machine.config.page_shift)
    return start is not None and start + size - 1 <= device.dma_limit


def _out_of_reach(device: Device, source: str, pfn: int) -> None:
    address = pfn << device.machine.config.page_shift
    device.refusals.append(f"{source}: gave {address:#x}, the device reaches {device.reach}")


def _falls_back(device: Device) -> bool:
    machine = device.machine
    has_area = device.cma_area is not None or machine.cma.default is not None
    return machine.arch in machine.abi.dma.falls_back or not has_area


def _alloc_pages(device: Device, size: int, gfp: int) -> Occupant | None:
    """The page allocator, in lower and lower zones while the device cannot address what it gives.

    The result is the occupant that stands for the device.
    """
    machine = device.machine
    order = get_order(size, machine.config.page_shift)
    for flags in _lower_zones(device, gfp):
        if order > machine.memory.layout.max_page_order:
            largest = 1 << machine.memory.layout.max_page_order
            device.refusals.append(f"page allocator: {1 << order} pages, more than its {largest} in a piece")
            return None
        source = f"page allocator, {_zone_asked(machine, flags)}"
        try:
            pfn = alloc_pages(machine.memory, flags, order)
        except OutOfMemory:
            device.refusals.append(f"{source}: no {1 << order} free pages in a piece")
            return None
        occupant = machine.memory.owners.add(f"dma:{device.name}", KIND_KERNEL, visible=False)
        machine.memory.owners.extend(occupant, [(0, 1, pfn, 1 << order)])
        if dma_coherent_ok(device, pfn, size):
            return occupant
        _free_pages(machine, occupant, order)
        _out_of_reach(device, source, pfn)
    return None


def _lower_zones(device: Device, gfp: int) -> Iterator[int]:
    """What ``dma_direct_alloc_pages()`` asks for, one after the other, while what it gets is out of reach."""
    config = device.machine.config
    yield gfp
    if not device.machine.abi.dma.zones_by_mask:
        return
    if config.on("ZONE_DMA32") and device.dma_limit < dma_bit_mask(64) and not gfp & (GFP_DMA32 | GFP_DMA):
        gfp |= GFP_DMA32
        yield gfp
    if config.on("ZONE_DMA") and not gfp & GFP_DMA:
        yield (gfp & ~GFP_DMA32) | GFP_DMA


def _zone_asked(machine: DriverMachine, gfp: int) -> str:
    """The highest zone that a request may be answered from: flags of zones that are not there do nothing."""
    zones = ((GFP_DMA, "ZONE_DMA"), (GFP_DMA32, "ZONE_DMA32"))
    return next((zone for flag, zone in zones if gfp & flag and machine.config.on(zone)), "any zone")


def _free_pages(machine: DriverMachine, occupant: Occupant, order: int) -> None:
    owners = machine.memory.owners
    pfn, *_ = owners.truncate(occupant, 0)
    owners.remove(occupant)
    free_pages(machine.memory, pfn, order)


def dma_guess_pool(machine: DriverMachine, gfp: int) -> list[AtomicPool]:
    """``dma_guess_pool()``: the pools to try, best first."""
    pools = {pool.gfp: pool for pool in machine.atomic_pools}
    first = next((flag for flag in (GFP_DMA32, GFP_DMA) if gfp & flag and flag in pools), 0)
    order = {0: (0, GFP_DMA32, GFP_DMA), GFP_DMA32: (GFP_DMA32, GFP_DMA), GFP_DMA: (GFP_DMA,)}[first]
    return [pools[flag] for flag in order if flag in pools]


def _from_pool(device: Device, size: int, gfp: int) -> DmaBuffer | None:
    """``dma_direct_alloc_from_pool()``; afterwards a pool is filled up where this kernel does that."""
    machine, count = device.machine, page_count(device, size)
    for pool in dma_guess_pool(machine, gfp | dma_direct_optimal_gfp_mask(device)):
        if not pool.chunks:
            atomic_pool_expand(machine, pool, pool.initial.bit_length() - 1)
        pfn = pool.alloc(count)
        if pfn is None:
            left = f"{pool.avail} of its {pool.size} pages free, but no {count} in one aligned piece"
            device.refusals.append(f"atomic pool: {left}")
            continue
        if dma_coherent_ok(device, pfn, size):
            atomic_pool_work_fn(machine)
            return new_buffer(device, pfn, size, pool)
        pool.free(pfn, count)
        _out_of_reach(device, "atomic pool", pfn)
    if not device.refusals:
        device.refusals.append("no atomic pool, and the caller may not sleep")
    machine.log.printk(f"Failed to get suitable pool for {device.name}", LOGLEVEL_WARNING)
    return None


def atomic_pool_work_fn(machine: DriverMachine) -> None:
    """``atomic_pool_resize()``: once less than its first size is free, a pool doubles."""
    for pool in machine.atomic_pools if machine.abi.dma.pool_grows else ():
        if pool.chunks and pool.avail < pool.initial:
            order = min((pool.size - 1).bit_length(), machine.memory.layout.max_page_order)
            atomic_pool_expand(machine, pool, order)


def cma_in_zone(machine: DriverMachine, gfp: int) -> bool:
    """``cma_in_zone()``: whether the default area lies where a pool's pages must."""
    default = machine.cma.default
    if default is None or not default.count:
        return False
    last = (default.ranges[-1].end_pfn << machine.config.page_shift) - 1
    if gfp & GFP_DMA:
        return last <= machine.zone_dma_limit
    return not gfp & GFP_DMA32 or last <= max(dma_bit_mask(32), machine.zone_dma_limit)


def pool_pages_from_cma(machine: DriverMachine, gfp: int, count: int) -> int | None:
    """``count`` pages of the default area for a pool, aligned as the DMA API does; their pfn or None.

    32-bit ARM's own pool asks without looking (``arch/arm/mm/dma-mapping.c:atomic_pool_init()@v6.1``).
    """
    default, looks = machine.cma.default, machine.config.on("DMA_COHERENT_POOL")
    if default is None or (looks and not cma_in_zone(machine, gfp)):
        return None
    return cma_alloc(default, count, min((count - 1).bit_length(), machine.config.number("CMA_ALIGNMENT")))


def atomic_pool_expand(machine: DriverMachine, pool: AtomicPool, order: int) -> None:
    """``atomic_pool_expand()``: 2^order pages more, or as many as there are in one piece."""
    for smaller in range(order, -1, -1):
        pfn = pool_pages_from_cma(machine, pool.gfp, 1 << smaller)
        if pfn is None:
            try:
                pfn = alloc_pages(machine.memory, GFP_KERNEL | pool.gfp, smaller)
            except OutOfMemory:
                continue
            occupant = machine.memory.owners.add("[dma_atomic_pool]", KIND_KERNEL, visible=False)
            machine.memory.owners.extend(occupant, [(0, 1, pfn, 1 << smaller)])
        pool.add(pfn, 1 << smaller)
        return


def new_buffer(device: Device, pfn: int, size: int, origin: Origin) -> DmaBuffer:
    """Describe pages that were taken for a device."""
    machine = device.machine
    phys = pfn << machine.config.page_shift
    dma_handle = device.phys_to_dma(phys)
    assert dma_handle is not None
    virt = _PAGE_OFFSET[machine.arch] + phys - machine.memory.start_pfn * (1 << machine.config.page_shift)
    return DmaBuffer(device, pfn, size, dma_handle, virt, origin)
