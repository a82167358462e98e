"""Dma-buf rows: which heaps there are, how their ioctl behaves, what files tell of buffers. See cmafs.abi.

V read in the source of that kernel, P from patch mail or change logs, M from memory of it, D derived.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.abi.rows import Rows


@dataclass(frozen=True)
class DmaBufAbi:
    """One row.

    ``default_heap``: what the default area's heap is called, "" for the area's own name
    (``heaps/cma_heap.c:__add_cma_heap()@v6.12``, V; fixed in 6.17, P; 7.2, V).
    ``heap_for_each_region``: each area of the device tree, and one that the command line or the
    configuration made, has a heap beside that (``heaps/cma_heap.c:add_cma_heaps()@v7.2``, V; 6.19, P).
    ``copies_back_first``: the number is written into the caller's struct after the descriptor is there, and
    the struct also after an error, so that one which cannot be written is EFAULT and the descriptor stays
    (``dma-heap.c:dma_heap_ioctl()@v5.10``, V; 6.1 installs it last, V; 5.15, M).
    ``exporter``: the exporter's name, "" for the heap's: a helper exported for all of them
    (``heaps/heap-helpers.c@v5.10``, V; 5.12, P).
    ``system_orders``: what the system heap asks the page allocator for, the largest first
    (``heaps/system_heap.c:orders[]@v6.1``, V; single pages: 5.10, V; 5.12, P).
    ``maps_blocks``: a private mapping of a system heap's buffer may be as long as one of its blocks, and not
    a page only, since ``remap_pfn_range()`` makes one of these in one call
    (``heaps/system_heap.c:system_heap_mmap()``: pages @v6.12, blocks @v7.2, V).
    ``unnamed``: what bufinfo prints for a buffer without a name; its heading names that column where it
    prints something (``dma-buf.c:dma_buf_debug_show()``: 5.10, 6.1, V; 5.15, M).
    ``file_mode``: bits of f_mode that every buffer's file has: FMODE_LSEEK, FMODE_OPENED
    (``dma-buf.c:dma_buf_export()@v5.10``, ``fs/file_table.c:file_init_path()@v6.12``, V), and from 6.14 on
    FMODE_NONOTIFY (``fs/file_table.c:alloc_file_pseudo()@v7.2``, V; 6.14, P).
    """

    default_heap: str = ""
    heap_for_each_region: bool = False
    copies_back_first: bool = True
    exporter: str = "heap_helpers"
    system_orders: tuple[int, ...] = (0,)
    maps_blocks: bool = False
    unnamed: str = ""
    file_mode: int = 0x80004


ROWS = Rows(
    DmaBufAbi(),
    {
        "5.15": {"exporter": "", "system_orders": (8, 4, 0)},
        "6.1": {"copies_back_first": False, "unnamed": "<none>"},
        "6.18": {"default_heap": "default_cma_region", "file_mode": 0x2080004},
        "7.2": {"heap_for_each_region": True, "maps_blocks": True},
    },
)
