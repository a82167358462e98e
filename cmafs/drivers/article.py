"""The driver interface of ``--kernel article``: two calls with the arguments that seeds/000 gives them.

No kernel has them like that. There, dma_alloc_from_contiguous() counts pages and returns a page
(``cmafs.drivers.dma.contiguous``); a driver that wants what the article's example does calls
dma_alloc_coherent() (``cmafs.drivers.dma.mapping``).
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.drivers.device import Device
from cmafs.drivers.dma import contiguous as dma_contiguous
from cmafs.drivers.dma.direct import dma_coherent_ok, new_buffer
from cmafs.drivers.dma.mapping import dma_free_coherent, probe
from cmafs.mm.gfp import get_order


@dataclass(eq=False)
class DmaAddr:
    """``dma_addr_t``, a bus address: the variable whose address a driver passes as ``&dma_handle``."""

    value: int = 0


def _only_in_the_article(device: Device) -> None:
    if not device.machine.abi.dma.four_arguments:
        raise AttributeError(f"kernel {device.machine.abi.row} has no such call: use --kernel article")


def dma_alloc_from_contiguous(device: Device, size: int, dma_handle: DmaAddr, gfp_mask: int) -> int | None:
    """Take ``size`` bytes of CMA: returns their kernel address and sets ``dma_handle``; None without room.

    ``gfp_mask``: GFP_KERNEL in process context. GFP_ATOMIC always gets None, since CMA may have to wait for
    pages to migrate. Raises AttributeError unless the kernel is ``article``.
    """
    _only_in_the_article(device)
    if size <= 0 or not dma_contiguous.gfpflags_allow_blocking(gfp_mask):
        return None
    probe(device)
    machine = device.machine
    order = get_order(size, machine.config.page_shift)
    pfn = dma_contiguous.dma_alloc_from_contiguous(device, dma_contiguous.page_count(device, size), order)
    if pfn is None:
        return None
    if not dma_coherent_ok(device, pfn, size):
        dma_contiguous.dma_release_from_contiguous(device, pfn, dma_contiguous.page_count(device, size))
        return None
    cma = dma_contiguous.dev_get_cma_area(device)
    assert cma is not None, "it gave the pages"
    buffer = new_buffer(device, pfn, size, cma)
    device.buffers.append(buffer)
    dma_handle.value = buffer.dma_handle
    return buffer.cpu_addr


def dma_free_from_contiguous(device: Device, size: int, vaddr: int, dma_handle: int) -> None:
    """Give a buffer back by its size and both addresses.

    Raises OSError EINVAL (the device holds no such buffer), AttributeError unless the kernel is ``article``.
    """
    _only_in_the_article(device)
    dma_free_coherent(device, size, vaddr, dma_handle)
