"""Dma-bufs: what a heap gave out, what their files' ioctl(2) does, and what bufinfo tells of them.

Source: ``drivers/dma-buf/dma-buf.c``. Sizes in bytes, pages as pfns.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmafs.lib.printk import decode
from cmafs.mm.cma import Cma
from cmafs.mm.page_owner import Occupant

if TYPE_CHECKING:
    from cmafs.abi.dma_buf import DmaBufAbi

#: ``include/uapi/linux/dma-buf.h@v6.12``
DMA_BUF_IOCTL_SYNC, DMA_BUF_SET_NAME_A, DMA_BUF_SET_NAME_B = 0x40086200, 0x40046201, 0x40086201
DMA_BUF_NAME_LEN = 32
_SYNC_RW, _SYNC_VALID = 3, 7


@dataclass(frozen=True)
class DmaHeap:
    """``struct dma_heap``: ``name``, and the area whose pages it gives out, None for the page allocator's."""

    name: str
    cma: Cma | None


@dataclass(eq=False)
class DmaBuf:
    """``struct dma_buf``.

    ``heap``, ``exp_name``: names of its heap and its exporter; ``size`` bytes, whole pages; ``flags``: its
    file's f_flags; ``pfn``: the first page; ``origin``: the area that the pages are of, or the occupant that
    stands for a system heap's buffer, whose ``blocks`` are (pfn, order); ``pid``, ``comm``: who allocated it;
    ``ino``: its inode's number; ``name`` by DMA_BUF_SET_NAME; ``released``: its last reference is gone.
    """

    heap: str
    exp_name: str
    size: int
    flags: int
    pfn: int
    origin: Cma | Occupant
    pid: int
    comm: str
    ino: int
    blocks: list[tuple[int, int]] = field(default_factory=list)
    name: str | None = None
    released: bool = False

    @property
    def holder(self) -> str:
        """Who holds it, for people: command, pid, the buffer's name, in one line whatever it has in it."""
        text = f"{self.comm}[{self.pid}]" + (f" {self.name}" if self.name else "")
        return "".join(c if c.isprintable() else "?" for c in text)

    def sync(self, flags: int) -> None:
        """``DMA_BUF_IOCTL_SYNC``: nothing but the check, as caches are coherent. Raises OSError EINVAL."""
        if flags & ~_SYNC_VALID or not flags & _SYNC_RW:
            raise OSError(errno.EINVAL, "sync flags")

    def maps_privately(self, abi: DmaBufAbi, start: int, pages: int) -> bool:
        """``->mmap()``: whether so many pages from a page on can be mapped other than MAP_SHARED."""
        if isinstance(self.origin, Cma) or abi.exporter:  # only there is a helper, which refuses that too
            return False
        for _, order in self.blocks if abi.maps_blocks else ():
            if start < 1 << order:
                return start + pages <= 1 << order
            start -= 1 << order
        return pages == 1

    def set_name(self, text: bytes) -> None:
        """``dma_buf_set_name()``: ``text`` as it stands in memory: DMA_BUF_NAME_LEN bytes, or what there is.

        Raises OSError EINVAL where it does not end in these, EFAULT where there are fewer.
        """
        if b"\0" not in text[:DMA_BUF_NAME_LEN]:
            if len(text) < DMA_BUF_NAME_LEN:
                raise OSError(errno.EFAULT, "the name's end cannot be read")
            raise OSError(errno.EINVAL, "name too long")
        self.name = decode(text.partition(b"\0")[0])


def bufinfo(abi: DmaBufAbi, buffers: Sequence[DmaBuf]) -> str:
    """``dma_buf_debug_show()``: debugfs's dma_buf/bufinfo, the newest buffer first.

    A file's references cannot be counted from outside: 1 stands for them. No device is attached.
    """
    heading = [
        "size".ljust(8),
        "flags".ljust(8),
        "mode".ljust(8),
        "count".ljust(8),
        "exp_name",
        "ino".ljust(8),
    ]
    text = "\nDma-buf Objects:\n" + "\t".join(heading + ["name"] * bool(abi.unnamed)) + "\n"
    for buffer in reversed(buffers):
        mode = abi.file_mode | (buffer.flags + 1) & 3
        name = abi.unnamed if buffer.name is None else buffer.name
        text += f"{buffer.size:08d}\t{buffer.flags:08x}\t{mode:08x}\t{1:08d}\t{buffer.exp_name}\t"
        text += f"{buffer.ino:08d}\t{name}\n\tAttached Devices:\nTotal 0 devices attached\n\n"
    total = sum(buffer.size for buffer in buffers)
    return f"{text}\nTotal {len(buffers)} objects, {total} bytes\n"
