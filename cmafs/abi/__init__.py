"""What differs between kernels, as data: one ``KernelAbi`` row per kernel, made from the row before.

Logic asks a feature of its row (``abi.cma.names_area_in_failure``), never a version number.
Every field has its citation in the module of its subject:

``boot``   reservation, device tree, command line and their log lines
``cma``    the allocator's decisions, its log lines, its files in debugfs and sysfs
``printk`` the log's ring and its pointers
``dma``    how dma_alloc_coherent() uses CMA
``mm``     page blocks, zones, fallbacks, free-list order
``proc``   the formats of /proc
``trace``  the tracepoints and the tracer's text
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.abi import boot, cma, dma, mm, printk, proc, trace
from cmafs.abi.rows import DIALECTS, RECORDED, RELEASES, UnknownKernel, find_row

__all__ = ["DIALECTS", "RECORDED", "RELEASES", "KernelAbi", "UnknownKernel", "kernel_abi"]


@dataclass(frozen=True)
class KernelAbi:
    """Everything that is particular to one kernel."""

    row: str
    release: str
    boot: boot.BootAbi
    cma: cma.CmaAbi
    dma: dma.DmaAbi
    mm: mm.MmAbi
    printk: printk.PrintkAbi
    proc: proc.ProcAbi
    trace: trace.TraceAbi


def kernel_abi(name: str) -> KernelAbi:
    """The row for a ``--kernel`` value; ``release`` is what ``uname -r`` shows. Raises UnknownKernel."""
    row, release = find_row(name)
    return KernelAbi(
        row,
        release,
        boot.ROWS[row],
        cma.ROWS[row],
        dma.ROWS[row],
        mm.ROWS[row],
        printk.ROWS[row],
        proc.ROWS[row],
        trace.ROWS[row],
    )
