"""The DMA API: dma_alloc_coherent() and dma_free_coherent(), as drivers and the shell use them.

Source: ``kernel/dma/mapping.c:dma_alloc_attrs()@v6.12``. Sizes and addresses in bytes, pages as pfns. A
device is a node of the tree (``cmafs.drivers.of_device``); its memory-region is looked up when it is first
used, as a driver's probe function does. See docs/drivers.md.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from cmafs.drivers.device import Device, DmaBuffer, DmaFailure, DriverMachine
from cmafs.drivers.dma.coherent import DmaCoherentMem
from cmafs.drivers.dma.direct import dma_direct_alloc, dma_direct_free, new_buffer
from cmafs.drivers.of_reserved_mem import of_reserved_mem_device_init_by_idx
from cmafs.mm.gfp import GFP_KERNEL, get_order


def probe(device: Device) -> None:
    """What a driver's probe does about memory, once: attach the device to its memory-region.

    Where that fails the device goes on with the default area, as most drivers let it.
    """
    if device.probed:
        return
    device.probed = True
    if device.of_node is not None and "memory-region" in device.of_node.props:
        with suppress(OSError):
            of_reserved_mem_device_init_by_idx(device, device.region_index)


def dma_alloc_coherent(device: Device, size: int, gfp: int = GFP_KERNEL) -> DmaBuffer | None:
    """``dma_alloc_coherent()``: a buffer of ``size`` bytes that device and CPU see alike, or None.

    ``gfp``: GFP_KERNEL may sleep and so uses CMA; GFP_ATOMIC does not. A pool of the device's own answers
    alone, also when it is full.
    """
    if size <= 0:
        return None
    device.refusals.clear()
    if device.dma_mem is not None:
        buffer = _from_own_pool(device, device.dma_mem, size)
    else:
        buffer = dma_direct_alloc(device, size, gfp)
    if buffer is not None:
        device.buffers.append(buffer)
    else:
        failure = DmaFailure(device.name, size, tuple(device.refusals))
        device.machine.dma_failures.appendleft(failure)
    return buffer


def _from_own_pool(device: Device, pool: DmaCoherentMem, size: int) -> DmaBuffer | None:
    order = get_order(size, device.machine.config.page_shift)
    pfn = pool.alloc(order)
    if pfn is not None:
        return new_buffer(device, pfn, size, pool)
    free = pool.nr_pages - pool.bitmap.weight
    text = f"its own pool has {free} of {pool.nr_pages} pages free, but no {1 << order} in one aligned piece"
    device.refusals.append(f"{text}; where there is such a pool nobody else is asked")
    return None


def dma_free_coherent(device: Device, size: int, cpu_addr: int, dma_handle: int) -> None:
    """``dma_free_coherent()``: give a buffer back; all three must be those of dma_alloc_coherent().

    Raises OSError EINVAL where no such buffer is held: the kernel would corrupt its lists.
    """
    wanted = (size, cpu_addr, dma_handle)
    for buffer in device.buffers:
        if (buffer.size, buffer.cpu_addr, buffer.dma_handle) == wanted:
            return _free(buffer)
    raise OSError(errno.EINVAL, f"{device.name} holds no such buffer")


def _free(buffer: DmaBuffer) -> None:
    device = buffer.device
    if isinstance(buffer.origin, DmaCoherentMem):
        buffer.origin.release(buffer.pfn, get_order(buffer.size, device.machine.config.page_shift))
    else:
        dma_direct_free(buffer)
    device.buffers.remove(buffer)


# What the shell's sim/control and sim/devices use


def find_device(machine: DriverMachine, name: str) -> Device:
    """A device by its name (``32e00000.isi``), its node's name (``isi@32e00000``) or path.

    Raises OSError ENOENT.
    """
    if name in machine.devices:
        return machine.devices[name]
    for device in machine.devices.values():
        node = device.of_node
        if node is not None and name in (node.name, node.path) and not device.region_index:
            return device
    raise OSError(errno.ENOENT, f"no device {name}")


def dma_alloc(machine: DriverMachine, name: str, nbytes: int) -> DmaBuffer:
    """``dma_alloc DEVICE SIZE``: dma_alloc_coherent(GFP_KERNEL).

    Raises OSError ENOENT, EINVAL (size 0), ENOMEM.
    """
    device = find_device(machine, name)
    if nbytes <= 0:
        raise OSError(errno.EINVAL, "size is 0")
    probe(device)
    buffer = dma_alloc_coherent(device, nbytes)
    if buffer is None:
        raise OSError(errno.ENOMEM, f"no memory for {device.name}: {'; '.join(device.refusals)}")
    return buffer


def dma_free(machine: DriverMachine, name: str, nbytes: int) -> None:
    """``dma_free DEVICE SIZE``: the newest buffer of that size.

    Raises OSError ENOENT (device), EINVAL (not held).
    """
    device = find_device(machine, name)
    for buffer in reversed(device.buffers):
        if buffer.size == nbytes:
            return _free(buffer)
    raise OSError(errno.EINVAL, f"{device.name} holds no buffer of {nbytes} bytes")


def show_device(device: Device) -> str:
    """sim/devices/NAME: ``pfn dma_addr size area owner``, tab separated, a buffer a line, oldest first."""
    rows = ((f"{b.pfn:#x}", f"{b.dma_handle:#x}", str(b.size), b.area, device.name) for b in device.buffers)
    return "".join("\t".join(row) + "\n" for row in rows)
