"""Dma-buf heaps: which there are, what their ioctl(2) checks, where a buffer's pages are from.

Source: ``drivers/dma-buf/dma-heap.c``, ``drivers/dma-buf/heaps/``. Sizes in bytes, pages as pfns.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from cmafs.drivers.device import DriverMachine
from cmafs.drivers.dma_buf.buffer import DmaBuf, DmaHeap
from cmafs.lib.printk import LOGLEVEL_WARNING
from cmafs.mm.buddy import free_unref_pages
from cmafs.mm.cma import Cma, cma_alloc, cma_release
from cmafs.mm.gfp import GFP_HIGHMEM_BIT, GFP_USER, get_order
from cmafs.mm.page_alloc import OutOfMemory, alloc_pages, alloc_pages_bulk, free_pages
from cmafs.mm.page_owner import KIND_KERNEL, Occupant

SYSTEM = "system"

#: ``struct dma_heap_allocation_data``: len, fd, fd_flags, heap_flags (include/uapi/linux/dma-heap.h@v6.12).
ALLOCATION = struct.Struct("=QIIQ")
_FD = slice(8, 12)
O_RDWR, O_ACCMODE, O_CLOEXEC = 0o2, 0o3, 0o2000000

#: (first page, order) of what the page allocator gave in one piece.
Block: TypeAlias = "tuple[int, int]"

_IOC_IN, _IOC_OUT = 1 << 30, 1 << 31
_SIZESHIFT, _SIZEMASK, _NRMASK = 16, 0x3FFF, 0xFF


@dataclass(frozen=True)
class AllocIoctl:
    """The ioctl's number as a caller has it: how many bytes of its struct are read, and written back."""

    in_size: int
    out_size: int

    @staticmethod
    def of(cmd: int) -> AllocIoctl:
        """``dma_heap_ioctl()``: of a number only the direction, the size, and that it is 0 count.

        Raises OSError EINVAL.
        """
        if cmd & _NRMASK:
            raise OSError(errno.EINVAL, "no such ioctl")
        size = cmd >> _SIZESHIFT & _SIZEMASK
        return AllocIoctl(size if cmd & _IOC_IN else 0, size if cmd & _IOC_OUT else 0)

    def request(self, argument: bytes) -> Request:
        """The request in a caller's struct; what a shorter one lacks is 0. Raises OSError EINVAL."""
        length, fd, fd_flags, heap_flags = ALLOCATION.unpack_from(argument.ljust(ALLOCATION.size, b"\0"))
        if fd or fd_flags & ~(O_CLOEXEC | O_ACCMODE) or heap_flags:
            raise OSError(errno.EINVAL, "fd, fd_flags, heap_flags")
        return Request(length, fd_flags)

    def answer(self, argument: bytes, fd: int | None = None) -> bytes:
        """What is copied back: the struct, its ``fd`` filled in once there is one."""
        filled = bytearray(argument.ljust(max(ALLOCATION.size, self.out_size), b"\0"))
        if fd is not None:
            filled[_FD] = struct.pack("=I", fd)
        return bytes(filled[: self.out_size])


@dataclass(frozen=True)
class Request:
    """``length`` bytes; ``fd_flags`` of the descriptor: access mode and O_CLOEXEC."""

    length: int
    fd_flags: int


def allocate(machine: DriverMachine, heap: DmaHeap, request: Request, pid: int, comm: str) -> DmaBuf:
    """``dma_heap_buffer_alloc()``: a buffer of whole pages, zeroed, for the process ``pid``.

    Raises OSError EINVAL (no length), ENOMEM.
    """
    page = 1 << machine.config.page_shift
    size = (request.length + page - 1) & -page & ((1 << (32 if machine.arch == "arm" else 64)) - 1)
    if not size:
        raise OSError(errno.EINVAL, "no length")
    origin: Cma | Occupant
    if heap.cma is None:
        pfn, origin, blocks = _from_system(machine, heap.name, size)
    else:
        pfn, origin, blocks = _from_area(machine, heap.cma, size), heap.cma, []
    exporter = machine.abi.dma_buf.exporter or heap.name
    machine.dma_buf_inodes += 1
    flags, ino = request.fd_flags & O_ACCMODE, machine.dma_buf_inodes
    buffer = DmaBuf(heap.name, exporter, size, flags, pfn, origin, pid, comm, ino, blocks)
    machine.dma_bufs.append(buffer)
    if machine.on_dma_buf is not None:
        machine.on_dma_buf(buffer)
    return buffer


def _from_area(machine: DriverMachine, cma: Cma, size: int) -> int:
    """``cma_heap_allocate()``: the first page. Raises OSError ENOMEM."""
    align = min(get_order(size, machine.config.page_shift), machine.config.number("CMA_ALIGNMENT"))
    pfn = cma_alloc(cma, size >> machine.config.page_shift, align)
    if pfn is None:
        raise OSError(errno.ENOMEM, f"{cma.name}: no {size} bytes")
    return pfn


def _from_system(machine: DriverMachine, name: str, size: int) -> tuple[int, Occupant, list[Block]]:
    """``system_heap_allocate()``: the largest blocks first, single pages for what is left.

    The first page, the occupant that stands for the buffer, and the blocks. Raises OSError ENOMEM.
    """
    memory, owners = machine.memory, machine.memory.owners
    pages = size >> machine.config.page_shift
    occupant = owners.add(f"{name} heap", KIND_KERNEL, visible=False)
    blocks: list[Block] = []
    try:
        for order in machine.abi.dma_buf.system_orders[:-1]:
            while pages >> order and (pfn := _block(machine, order)) is not None:
                owners.extend(occupant, [(0, 1, pfn, 1 << order)])
                blocks.append((pfn, order))
                pages -= 1 << order
        if pages:
            owners.extend(occupant, alloc_pages_bulk(memory, GFP_USER | GFP_HIGHMEM_BIT, pages))
    except OutOfMemory:
        _free_occupant(machine, occupant, blocks)
        raise OSError(errno.ENOMEM, f"{name}: no {size} bytes") from None
    return occupant.frames[0], occupant, blocks


def _block(machine: DriverMachine, order: int) -> int | None:
    """A block without reclaim: ``HIGH_ORDER_GFP``."""
    try:
        return alloc_pages(machine.memory, GFP_HIGHMEM_BIT, order)
    except OutOfMemory:
        return None


def show_heap(machine: DriverMachine, heap: DmaHeap) -> str:
    """sim/devices of a heap: ``pfn dma_addr size area owner``, a line a buffer, oldest first."""
    area = "-" if heap.cma is None else heap.cma.label
    return "".join(
        f"{b.pfn:#x}\t{b.pfn << machine.config.page_shift:#x}\t{b.size}\t{area}\t{b.holder}\n"
        for b in machine.dma_bufs
        if b.heap == heap.name
    )


def release(machine: DriverMachine, buffer: DmaBuf) -> None:
    """``dma_buf_release()``: the last reference is gone, its pages go back."""
    machine.dma_bufs.remove(buffer)
    buffer.released = True
    if machine.on_dma_buf is not None:
        machine.on_dma_buf(buffer)
    if isinstance(buffer.origin, Cma):
        cma_release(buffer.origin, buffer.pfn, buffer.size >> machine.config.page_shift)
    else:
        _free_occupant(machine, buffer.origin, buffer.blocks)


def _free_occupant(machine: DriverMachine, occupant: Occupant, blocks: list[Block]) -> None:
    pfns = machine.memory.owners.truncate(occupant, 0)
    machine.memory.owners.remove(occupant)
    inside = {page for pfn, order in blocks for page in range(pfn, pfn + (1 << order))}
    for pfn, order in blocks:
        free_pages(machine.memory, pfn, order)
    free_unref_pages(machine.memory, [pfn for pfn in pfns if pfn not in inside])


def _cma_heaps(machine: DriverMachine) -> Iterator[tuple[str, Cma]]:
    """``add_default_cma_heap()``, ``add_cma_heaps()``: names with their areas."""
    default, abi = machine.cma.default, machine.abi.dma_buf
    if default is not None:
        yield abi.default_heap or default.name, default
        if abi.default_heap and machine.config.on("DMABUF_HEAPS_CMA_LEGACY"):
            yield default.name, default
    if abi.heap_for_each_region:
        areas = [region.area for region in machine.reserved_mem if region.area]
        if default is not None and default not in areas:
            areas.append(default)
        for area in areas:
            yield area.name, area


def add_heaps(machine: DriverMachine) -> None:
    """The heaps that this kernel and its configuration have, as ``module_init()`` makes them."""
    heaps: list[tuple[str, Cma | None]] = []
    if machine.config.on("DMABUF_HEAPS_SYSTEM"):
        heaps.append((SYSTEM, None))
    if machine.config.on("DMABUF_HEAPS_CMA"):
        heaps += _cma_heaps(machine)
    for name, cma in heaps:
        name = name.rstrip()
        if name in machine.dma_heaps:
            machine.log.printk(f"cma_heap: Failed to add CMA heap {name}", LOGLEVEL_WARNING)
            continue
        machine.dma_heaps[name] = DmaHeap(name, cma)
