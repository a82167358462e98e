"""sys/kernel/debug/cma: a directory for each area, as ``mm/cma_debug.c``."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from cmafs.fs.dentry import Directory, fail
from cmafs.fs.libfs import debugfs_root, simple_attribute, snapshot_file, u32_array_text
from cmafs.fs.seq_file import SeqOperations
from cmafs.lib.kstrtox import c_integer
from cmafs.lib.printk import LOGLEVEL_ERR, cut
from cmafs.mm.cma import Cma, CmaMemrange, cma_alloc, cma_release

if TYPE_CHECKING:
    from cmafs.abi.cma import CmaAbi
    from cmafs.init.machine import BootedMachine


@dataclass(frozen=True)
class CmaDebugfs:
    """What the files of one area do."""

    cma: Cma

    @property
    def abi(self) -> CmaAbi:
        """The kernel's row."""
        return self.cma.areas.abi

    def locked_down(self, flags: int) -> None:
        """``debugfs_locked_down()``: files that can be written are closed to everybody. Raises EPERM."""
        if self.cma.areas.locked_down:
            fail(errno.EPERM)

    def cma_alloc_write(self, value: int) -> None:
        """``alloc``: what an ``int`` keeps of the number, in pages. Raises ENOMEM whatever the reason."""
        pages = c_integer(value)
        if pages == 0 and self.abi.zero_frees_all:
            self.cma_free_mem(-1)
            return
        count = pages & self.cma.areas.ulong_max
        pfn = cma_alloc(self.cma, count)
        if pfn is None:
            fail(errno.ENOMEM)
        self.cma.mem_head.append((pfn, count))

    def cma_free_write(self, value: int) -> None:
        """``free``: succeeds whatever is held."""
        self.cma_free_mem(c_integer(value))

    def cma_free_mem(self, count: int) -> None:
        """Release the newest buffers until ``count`` pages went back.

        The last one is split from its front, unless the area has more than a page a bit. A negative count
        compares as an unsigned one: everything goes. Source: ``mm/cma_debug.c:cma_free_mem()@v6.12``.
        """
        held, ulong_max = self.cma.mem_head, self.cma.areas.ulong_max
        while count and held:
            pfn, pages = held.pop()
            if pages <= count & ulong_max:
                cma_release(self.cma, pfn, pages)
                count = c_integer(count - pages)
            elif self.cma.order_per_bit == 0:
                cma_release(self.cma, pfn, count)
                held.append((pfn + count, pages - count))
                return
            else:
                self.cma.areas.log.pr_debug(self.abi.sites.partial_block)
                held.append((pfn, pages))
                return

    def used_kib(self) -> int:
        """``used`` in the dialect of seeds/000, which has it in KiB."""
        return self.cma.used() << (self.cma.areas.page_shift - 10)

    def number(self, name: str) -> SeqOperations:
        """The simple attribute of that name."""
        strict = self.abi.strict_numbers
        if name == "alloc":
            return replace(
                simple_attribute(set=self.cma_alloc_write, strict=strict), on_open=self.locked_down
            )
        if name == "free":
            return replace(simple_attribute(set=self.cma_free_write, strict=strict), on_open=self.locked_down)
        getters: dict[str, Callable[[], int]] = {
            "base_pfn": lambda: self.cma.base_pfn,
            "count": lambda: self.cma.count,
            "size": lambda: self.cma.count,
            "order_per_bit": lambda: self.cma.order_per_bit,
            "used": self.used_kib if self.abi.used_kib else self.cma.used,
            "maxchunk": self.cma.maxchunk,
        }
        return simple_attribute(get=getters[name], strict=strict)

    def bitmap(self, cmr: CmaMemrange) -> SeqOperations:
        """``bitmap`` of a range: words of 32 bits; raw bytes in the dialect of seeds/000."""
        if self.abi.raw_bitmap:
            return snapshot_file(lambda: cmr.bitmap.to_bytes())
        return snapshot_file(lambda: u32_array_text(cmr.bitmap.to_u32()))

    def add_files(self, directory: Directory) -> None:
        """``cma_debugfs_add_one()``: the files of an area, those that are not there yet."""
        in_range = ("base_pfn", "bitmap") if self.abi.ranges else ()
        for name in self.abi.files:
            if name in directory.children or name in in_range:
                continue
            if name == "bitmap":
                directory.file(name, 0o444, self.bitmap(self.cma.ranges[0]))
            else:
                directory.file(name, 0o200 if name in ("alloc", "free") else 0o444, self.number(name))
        if self.abi.ranges:
            self._add_ranges(directory)

    def _add_ranges(self, directory: Directory) -> None:
        ranges = directory.subdir("ranges")
        for index, cmr in enumerate(self.cma.ranges):
            one = ranges.subdir(str(index))
            one.file("base_pfn", 0o444, simple_attribute(get=partial(getattr, cmr, "base_pfn")))
            one.file("bitmap", 0o444, self.bitmap(cmr))
        for name in ("base_pfn", "bitmap"):
            directory.link(name, f"ranges/0/{name}")


def directory_name(cma: Cma) -> str:
    """The directory of an area: by its index, by its name in a small buffer, or by its name."""
    abi = cma.areas.abi
    name = abi.debugfs_name % (cma.slot if abi.debugfs_name.endswith("%d") else cma.name)
    return cut(name, abi.debugfs_name_max) if abi.debugfs_name_max else name


def populate(root: Directory, machine: BootedMachine) -> None:
    """``cma_debugfs_init()``: the directory ``cma``, and one in it for each area (CONFIG_CMA_DEBUGFS)."""
    if not machine.config.on("CMA_DEBUGFS"):
        return
    debugfs = debugfs_root(root)
    top = debugfs.subdir("cma")
    for cma in machine.cma:
        if not cma.count and not cma.areas.abi.lists_failed:
            continue
        name = directory_name(cma)
        if name not in top.children:
            CmaDebugfs(cma).add_files(top.subdir(name))
            continue
        if cma.areas.abi.collision_message:
            line = f"debugfs: Directory '{name}' with parent 'cma' already present!"
            machine.log.printk(line, LOGLEVEL_ERR)
        if cma.areas.abi.collision_in_root:
            CmaDebugfs(cma).add_files(debugfs)
