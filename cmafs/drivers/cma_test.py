"""The test module of seeds/002: ``/dev/cma_test`` holds up to ten DMA buffers, of 1, 2, … 10 MiB.

Each write takes the smallest that is not held, each read gives back the smallest that is. What happened is a
line in the log, by dev_info(), which puts ``misc cma_test: `` before it: class and name of the misc device.
"""

from __future__ import annotations

from cmafs.drivers.device import Device, DmaBuffer, DriverMachine, dma_bit_mask
from cmafs.drivers.dma.mapping import dma_alloc_coherent, dma_free_coherent
from cmafs.lib.printk import LOGLEVEL_ERR, LOGLEVEL_INFO
from cmafs.lib.sizes import SZ_1M
from cmafs.mm.gfp import GFP_KERNEL

CMA_NUM = 10
NAME = "cma_test"


class CmaTest:
    """The module and its misc device: ``slots[i]`` is the buffer of i + 1 MiB, None while it is not held.

    ``loaded``: init() has run. The device can address all memory.
    """

    def __init__(self, machine: DriverMachine) -> None:
        self.machine = machine
        self.device = Device(machine, NAME, driver="misc", coherent_dma_mask=dma_bit_mask(64))
        self.device.dma_coherent = machine.arch == "x86_64"
        self.slots: list[DmaBuffer | None] = [None] * CMA_NUM
        self.loaded = False
        machine.devices[NAME] = self.device

    def init(self) -> None:
        """``cma_test_init()``: load the module, as opening its device node does; it tells that once."""
        if not self.loaded:
            self.loaded = True
            self.device.dev_printk("registered.", LOGLEVEL_INFO)

    def read(self) -> None:
        """``cma_test_read()``: give the smallest held buffer back. The reader always sees end of file."""
        for i, buffer in enumerate(self.slots):
            if buffer is not None:
                dma_free_coherent(self.device, (i + 1) * SZ_1M, buffer.cpu_addr, buffer.dma_handle)
                self._info("free", buffer)
                self.slots[i] = None
                return

    def write(self) -> None:
        """``cma_test_write()``: take the smallest buffer that is not held; nothing happens when all ten are.

        To the writer it always succeeds: that memory ran out is told only by the log. The module also writes
        to every page, which shows nowhere: they are in use, and cannot move, from the allocation on.
        """
        for i, held in enumerate(self.slots):
            if held is None:
                buffer = dma_alloc_coherent(self.device, (i + 1) * SZ_1M, GFP_KERNEL)
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
