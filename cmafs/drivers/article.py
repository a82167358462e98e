"""The driver interface that seeds/000 describes: two calls with four arguments. No kernel has them so.

Real kernels have ``dma_alloc_from_contiguous(dev, count, align, no_warn)``
(``cmafs.drivers.dma.contiguous``); what the article's example does on a board is dma_alloc_coherent()
(``cmafs.drivers.dma.mapping``). Only ``--kernel article``.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.drivers.device import Device
from cmafs.drivers.dma import contiguous as dma_contiguous
from cmafs.drivers.dma.direct import dma_coherent_ok, new_buffer
from cmafs.drivers.dma.mapping import dma_free_coherent, probe


@dataclass
class DmaAddr:
    """``dma_addr_t``: what ``&dma_handle`` points to; a bus address."""

    value: int = 0


def _only_in_the_article(device: Device) -> None:
    if not device.machine.abi.dma.four_arguments:
        raise AttributeError(f"kernel {device.machine.abi.row} has no such call: use --kernel article")


def dma_alloc_from_contiguous(device: Device, size: int, dma_handle: DmaAddr, gfp_mask: int) -> int | None:
    """``size`` bytes of CMA: the kernel address, the bus address in ``dma_handle``; None where CMA has none.

    ``gfp_mask``: GFP_KERNEL in process context; GFP_ATOMIC always gets None, since CMA may have to wait for
    migration. Raises AttributeError on kernels.
    """
    _only_in_the_article(device)
    if size <= 0 or not dma_contiguous.gfpflags_allow_blocking(gfp_mask):
        return None
    probe(device)
    machine = device.machine
    order = dma_contiguous.get_order(size, machine.config.page_shift)
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
    """Give it back. Raises OSError EINVAL (no such buffer is held), AttributeError on kernels."""
    _only_in_the_article(device)
    dma_free_coherent(device, size, vaddr, dma_handle)
