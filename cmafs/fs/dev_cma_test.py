"""``/dev/cma_test``: the character device of seeds/002 (``cmafs.drivers.cma_test``)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cmafs.drivers.cma_test import NAME, CmaTest
from cmafs.fs.dentry import Directory, File, OpenedBy
from cmafs.fs.kmsg import DEVTMPFS

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine


class CmaTestFile(File):
    """An open file: offsets and sizes mean nothing to the module, which the first open loads."""

    def __init__(self, module: CmaTest, flags: int) -> None:
        self._module = module
        module.init()

    def read(self, size: int, offset: int) -> bytes:
        """``cma_test_read()``: gives a buffer back; there is nothing to read."""
        self._module.read()
        return b""

    def write(self, data: bytes, offset: int) -> int:
        """``cma_test_write()``: takes a buffer; what was written counts as taken."""
        self._module.write()
        return len(data)


def populate(root: Directory, machine: BootedMachine) -> None:
    """The device node, 0600 as devtmpfs makes it; in 2010 dma_alloc_coherent() knew nothing of CMA."""
    if machine.cma2010 is None:
        fops = OpenedBy(partial(CmaTestFile, CmaTest(machine)))
        root.subdir("dev", fs=DEVTMPFS).file(NAME, 0o600, fops).stateful = True
