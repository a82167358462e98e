"""What differs between kernels, as data: one ``KernelAbi`` row per kernel, made from the row before.

Logic asks a feature of its row (``abi.cma.failure_names_area``), never a version number.
Every field has its citation in the module of its subject:

``boot``   reservation, device tree, command line and their log lines
``cma``    the allocator's decisions, its log lines, its files in debugfs and sysfs
``printk`` the log's ring and its pointers
``dma``    how dma_alloc_coherent() uses CMA
``dma_buf`` heaps, and what tells of their buffers
``mm``     page blocks, zones, fallbacks, free-list order
``proc``   the formats of /proc
``trace``  the tracepoints and the tracer's text
"""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.abi import boot, cma, dma, dma_buf, mm, printk, proc, trace
from cmafs.abi.rows import DIALECTS, RELEASES, UnknownKernel, find_row, rows_before

__all__ = ["DIALECTS", "RELEASES", "KernelAbi", "UnknownKernel", "kernel_abi"]


@dataclass(frozen=True)
class KernelAbi:
    """Everything particular to one kernel: ``row`` answers, ``release`` is what ``uname -r`` shows."""

    row: str
    release: str
    boot: boot.BootAbi
    cma: cma.CmaAbi
    dma: dma.DmaAbi
    dma_buf: dma_buf.DmaBufAbi
    mm: mm.MmAbi
    printk: printk.PrintkAbi
    proc: proc.ProcAbi
    trace: trace.TraceAbi

    @property
    def base(self) -> str:
        """The row by its number: of a dialect, the row that it starts from."""
        return DIALECTS[self.row][0] if self.row in DIALECTS else self.row

    def older_rows(self) -> list[str]:
        """This row and those before it, the oldest first; a dialect comes after the row it starts from."""
        return rows_before(self.row)


def kernel_abi(name: str) -> KernelAbi:
    """The row for a ``--kernel`` value; ``release`` is what ``uname -r`` shows. Raises UnknownKernel."""
    row, release = find_row(name)
    sections = (boot, cma, dma, dma_buf, mm, printk, proc, trace)
    return KernelAbi(row, release, *(section.ROWS.at(row, release) for section in sections))
