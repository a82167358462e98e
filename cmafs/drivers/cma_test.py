"""The module of seeds/002: ``/dev/cma_test`` takes and gives back buffers of 1, 2, … 10 MiB.

A write takes the lowest free of ten slots, a read gives the lowest held one back. Its lines go through
dev_info(), whose prefix is ``misc cma_test: `` (class and name of a miscdevice without a driver).
"""

from __future__ import annotations

from cmafs.drivers.device import Device, DmaBuffer, DriverMachine, dma_bit_mask
from cmafs.drivers.dma.mapping import dma_alloc_coherent, dma_free_coherent
from cmafs.lib.printk import LOGLEVEL_ERR, LOGLEVEL_INFO
from cmafs.mm.gfp import GFP_KERNEL

CMA_NUM = 10
NAME = "cma_test"
_SZ_1M = 1 << 20


class CmaTest:
    """The module: ``slots[i]`` holds a buffer of i + 1 MiB or None."""

    def __init__(self, machine: DriverMachine) -> None:
        """The misc device, which can address everything."""
        self.machine = machine
        self.device = Device(machine, NAME, driver="misc", coherent_dma_mask=dma_bit_mask(64))
        self.device.dma_coherent = machine.arch == "x86_64"
        self.slots: list[DmaBuffer | None] = [None] * CMA_NUM
        self.loaded = False
        machine.devices[NAME] = self.device

    def init(self) -> None:
        """``cma_test_init()``: loading the module, which opening its device node does, says so once."""
        if not self.loaded:
            self.loaded = True
            self.device.dev_printk("registered.", LOGLEVEL_INFO)

    def read(self) -> None:
        """``cma_test_read()``: gives the lowest held buffer back; the reader gets end of file in any case."""
        for i, buffer in enumerate(self.slots):
            if buffer is not None:
                dma_free_coherent(self.device, (i + 1) * _SZ_1M, buffer.cpu_addr, buffer.dma_handle)
                self._info("free", buffer)
                self.slots[i] = None
                return

    def write(self) -> None:
        """``cma_test_write()``: takes the lowest free slot's buffer; the writer's bytes count in any case.

        With ten held nothing happens. A failure is only logged. Touching each page changes nothing that can
        be seen: the pages are used, and not movable, from the allocation on.
        """
        for i, held in enumerate(self.slots):
            if held is None:
                buffer = dma_alloc_coherent(self.device, (i + 1) * _SZ_1M, GFP_KERNEL)
                if buffer is not None:
                    self._info("alloc", buffer)
                    self.slots[i] = buffer
                else:
                    self.device.dev_printk("no mem in CMA area", LOGLEVEL_ERR)
                return

    def _info(self, verb: str, buffer: DmaBuffer) -> None:
        hash_ptr = self.machine.log.hash_ptr
        virt, phys = hash_ptr(buffer.cpu_addr), hash_ptr(buffer.dma_handle)
        self.device.dev_printk(f"{verb} virt: {virt} phys: {phys}", LOGLEVEL_INFO)
