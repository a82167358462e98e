"""Machines built by hand for the allocator's tests: a zone of memory with areas in it, no boot."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cmafs.abi import kernel_abi
from cmafs.fs import cma_debug, dynamic_debug, kmsg
from cmafs.fs import cma_sysfs as cma_sysfs_table
from cmafs.fs.dentry import new_directory
from cmafs.fs.libfs import SYSFS
from cmafs.fs.namei import O_WRONLY, Syscalls
from cmafs.fs.tree import build_tree
from cmafs.init.machine import BootedMachine
from cmafs.init.task import SHELL
from cmafs.lib.clock import ManualClock
from cmafs.lib.printk import DPRINTK_FLAGS_PRINT, Printk
from cmafs.mm.cma import CmaAreas, cma_init_reserved_areas, cma_init_reserved_mem
from cmafs.mm.mm_init import mm_init
from cmafs.mm.mmzone import MemoryLayout, ZoneSpan

PAGE = 4096
MIB = 1 << 20


def debug_all(log: Printk) -> None:
    """Switch every debug line on."""
    log.debug_flags.update(dict.fromkeys(log.debug_flags, DPRINTK_FLAGS_PRINT))


def refused(call: Callable[..., object], *args: object) -> str:
    """The name of the errno with which a call is refused."""
    with pytest.raises(OSError) as error:
        call(*args)
    return errno.errorcode[error.value.errno or 0]


def refused_with(code: int, call: Callable[..., object], *args: object) -> None:
    """A call is refused with this errno."""
    assert refused(call, *args) == errno.errorcode[code]


class Files:
    """The files of a machine below one directory of its tree."""

    def __init__(self, machine: BootedMachine, directory: str) -> None:
        self.machine, self.directory = machine, directory
        self.calls = Syscalls(build_tree(machine))

    def read(self, name: str) -> str:
        return self.calls.read_file(f"{self.directory}/{name}").decode()

    def write(self, name: str, text: str) -> int:
        return self.calls.write_file(f"{self.directory}/{name}", text.encode())

    def append(self, name: str, text: str) -> int:
        fd = self.calls.open(f"{self.directory}/{name}", O_WRONLY)
        try:
            return self.calls.write(fd, text.encode())
        finally:
            self.calls.close(fd)


def build_areas(
    kernel: str = "6.12",
    areas: list[tuple[str | None, int, int, int]] | None = None,
    mib: int = 1024,
    cma_debug: bool = False,
    zones: tuple[tuple[str, int, int], ...] = (),
) -> CmaAreas:
    """A machine of ``mib`` MiB of memory; areas are (name, base MiB, size MiB, order_per_bit)."""
    wanted = [("reserved", 256, 16, 0)] if areas is None else areas
    abi = kernel_abi(kernel)
    log = Printk(ManualClock(), abi=abi.printk)
    cma = CmaAreas(log, abi.cma, cma_debug=cma_debug)
    log.add_debug_sites([abi.cma.sites.partial_block], enabled=False)
    for name, base, size, order in wanted:
        cma_init_reserved_mem(cma, base * MIB, size * MIB, order, name)
    pages = mib * MIB // PAGE
    layout = MemoryLayout(
        page_shift=12,
        pageblock_order=9,
        max_page_order=10,
        zones=tuple(ZoneSpan(*zone) for zone in zones or [("Normal", 0, pages)]),
        memory=((0, pages),),
        reserved=tuple((base * MIB // PAGE, (base + size) * MIB // PAGE) for _, base, size, _ in wanted),
    )
    cma_init_reserved_areas(cma, mm_init(layout, abi.mm))
    return cma


def tables(areas: CmaAreas, row: str, cma_sysfs: bool = True) -> Syscalls:
    """The allocator's files and the log's, over areas built by hand."""
    machine: Any = SimpleNamespace(
        abi=kernel_abi(row),
        cma=areas,
        log=areas.log,
        memory=areas.memory,
        config=SimpleNamespace(on=lambda name: name != "CMA_SYSFS" or cma_sysfs),
        current=lambda: SHELL,
    )
    root = new_directory(SYSFS)
    for table in (cma_debug, cma_sysfs_table, dynamic_debug, kmsg):
        table.populate(root, machine)
    return Syscalls(root)


def machine_tables(
    kernel: str, areas: list[tuple[str | None, int, int, int]] | None = None, **options: Any
) -> Syscalls:
    """Areas of a kernel, and their files."""
    return tables(build_areas(kernel, areas, **options), kernel)
