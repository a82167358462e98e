"""NUMA nodes at boot: those of the tree, or made up by ``numa=fake=``.

Kernel: ``drivers/base/arch_numa.c``, ``mm/numa_emulation.c@v6.12``. Bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from cmafs.arch.setup import EarlyBoot
from cmafs.lib.cmdline import memparse
from cmafs.lib.intervals import Interval, length, within
from cmafs.lib.kstrtox import simple_strtoull
from cmafs.lib.math import rounddown, roundup
from cmafs.lib.printk import LOGLEVEL_ERR
from cmafs.lib.sizes import SZ_4G

#: No faked node has less memory, and each has a multiple of it.
_FAKE_NODE_MIN_SIZE = 32 << 20
#: NR_NODE_MEMBLKS, of each node that there can be.
_MEMBLKS_PER_NODE = 2

#: A node, from where, to where.
_Faked = tuple[int, int, int]


def numa_init(boot: EarlyBoot) -> None:
    """``arch_numa_init()``: which nodes there are, and the data of each."""
    if not boot.config.on("NUMA"):
        return
    log = boot.log
    if boot.numa_off:
        log.printk("NUMA: NUMA disabled")
    elif not boot.numa_described and boot.abi.boot.numa_says_none:
        log.printk("NUMA: No NUMA configuration found")
    if boot.numa_off or not boot.numa_described:
        start, end = boot.memblock.start_of_dram(), boot.memblock.end_of_dram()
        log.printk(f"NUMA: Faking a node at [mem {start:#018x}-{end - 1:#018x}]")
    if boot.abi.boot.numa_emulation_is_generic:
        numa_emulation(boot, boot.memblock.start_of_dram() + SZ_4G)
    for nid in boot.nodes():
        boot.memblock_alloc(boot.data.pgdat_bytes, nid=nid)


def numa_emulation(boot: EarlyBoot, dma_end: int) -> None:
    """``numa_emulation()``: ``numa=fake=N``, ``=NU`` or ``=SIZE`` with M or G split the nodes into others.

    ``dma_end``: no node may be left with too little memory below this address.
    """
    texts = [value for value in boot.params.values("numa") if value and value.startswith("fake=")]
    if not texts or boot.numa_off or not boot.config.on("NUMA_EMU"):
        return
    text = texts[-1].removeprefix("fake=")
    split = _Split(boot, dma_end)
    number, _ = simple_strtoull(text)
    nodes: Iterable[_Faked]
    if "U" in text:
        nodes = split.evenly(number)
    elif "M" in text or "G" in text:
        nodes = split.by_size(memparse(text)[0])
    else:
        nodes = split.interleaved(number)
    faked: list[_Faked] = []
    for nid, start, end in nodes:
        if len(faked) >= _MEMBLKS_PER_NODE * boot.config.max_numnodes:
            boot.log.printk("NUMA: Too many emulated memblks, failing emulation", LOGLEVEL_ERR)
            return
        where = f"[mem {start:#018x}-{end - 1:#018x}] ({(end - start) >> 20}MB)"
        boot.log.printk(f"Faking node {nid} at {where}")
        faked.append((nid, start, end))
    for nid, start, end in () if split.failed else faked:
        boot.memblock.set_node(start, end - start, nid)


class _Split:
    """The ways to split: each gives (node, start, end) of faked nodes, none where it cannot.

    ``failed``: what was given is not to be used.
    """

    def __init__(self, boot: EarlyBoot, dma_end: int) -> None:
        self._boot, self._dma_end, self._most = boot, dma_end, boot.config.max_numnodes
        self._memory = [(region.base, region.end) for region in boot.memblock.memory]
        self._top = self._memory[-1][1]
        self.failed = False

    def _blocks(self) -> dict[int, list[Interval]]:
        """Node -> its memory, as ``numa_meminfo`` has it: one block where the firmware names no nodes."""
        if not self._boot.numa_described or self._boot.config.arch == "x86_64":
            low = self._memory[0][0] if self._boot.abi.boot.numa_emulation_is_generic else 0
            return {0: [(low, self._top)]}
        blocks: dict[int, list[Interval]] = {}
        for region in self._boot.memblock.memory:
            blocks.setdefault(region.nid, []).append((region.base, region.end))
        return blocks

    def _present(self, start: int, end: int) -> int:
        """Bytes of memory in a range: all but ``mem_hole_size()``."""
        return length(within(self._memory, start, end))

    def _room(self, start: int, end: int, limit: int, size: int) -> int:
        """The end of a node from ``start`` that has ``size`` bytes of memory, if the block has them."""
        while self._present(start, end) < size:
            end += _FAKE_NODE_MIN_SIZE
            if end > limit:
                return limit
        return end

    def interleaved(self, count: int) -> list[_Faked]:
        """``split_nodes_interleave()``: so many nodes of about the same size."""
        if count > self._most:
            self._boot.log.printk(f"numa=fake={count} too large, reducing to {self._most}")
            count = self._most
        if not count:
            return []
        share = self._present(0, self._top) // self._boot.page_size // count * self._boot.page_size
        large = share % _FAKE_NODE_MIN_SIZE * count // _FAKE_NODE_MIN_SIZE
        size = rounddown(share, _FAKE_NODE_MIN_SIZE)
        if not size:
            text = "Not enough memory for each node.  NUMA emulation disabled."
            self._boot.log.printk(text, LOGLEVEL_ERR)
            return []

        def end_of(index: int, start: int, limit: int) -> int:
            return self._room(
                start, start + size + (_FAKE_NODE_MIN_SIZE if index < large else 0), limit, size
            )

        return [(index % count, *span) for index, span in enumerate(self._spans(end_of, size))]

    def by_size(self, size: int) -> list[_Faked]:
        """``split_nodes_size_interleave()``: nodes of ``size`` bytes of memory."""
        size = self._enough(size, self._present(0, self._top) // self._most)

        def end_of(_index: int, start: int, limit: int) -> int:
            return self._room(start, start + size, limit, size)

        return [(index % self._most, *span) for index, span in enumerate(self._spans(end_of, size))]

    def _enough(self, size: int, least: int) -> int:
        """A size that a faked node may have, of at least ``least`` bytes."""
        least = roundup(max(least, 1), _FAKE_NODE_MIN_SIZE)
        if size < least:
            text = f"Fake node size {size >> 20}MB too small, increasing to {least >> 20}MB"
            self._boot.log.printk(text, LOGLEVEL_ERR)
        return max(size, least) // _FAKE_NODE_MIN_SIZE * _FAKE_NODE_MIN_SIZE

    def evenly(self, count: int) -> Iterator[_Faked]:
        """``split_nodes_size_interleave_uniform()``: every node into ``count``, whatever holes there are."""
        made = 0
        for phys, blocks in self._blocks().items() if count else ():
            low, high = blocks[0]
            share = (high - low) // self._boot.page_size // count * self._boot.page_size
            size, first = self._enough(share, share), made
            for start, limit in blocks:
                while start < limit:
                    end = self._dma(min(start + size, limit), limit)
                    yield made % self._most, start, end
                    start, made = end, made + 1
            if made - first < count:
                text = f"phys: {phys} only got {made - first} of {count} nodes, failing"
                self._boot.log.printk(f"numa_emulation: {text}")
                self.failed = True
                return

    def _dma(self, end: int, limit: int) -> int:
        """A node also takes what is left below ``dma_end`` where that is too little for the next one."""
        if end < self._dma_end and self._present(end, self._dma_end) < _FAKE_NODE_MIN_SIZE:
            return min(self._dma_end, limit)
        return end

    def _spans(self, end_of: Callable[[int, int, int], int], size: int) -> Iterator[Interval]:
        """The nodes' ranges, in turn from each node of the firmware; the last takes what is too little."""
        blocks, index = self._blocks(), 0
        while blocks:
            for nid in list(blocks):
                start, limit = blocks[nid].pop(0)
                end = self._dma(end_of(index, start, limit), limit)
                if self._present(end, limit) < size:
                    end = limit
                yield start, min(end, limit)
                index += 1
                if end < limit:
                    blocks[nid].insert(0, (end, limit))
                elif not blocks[nid]:
                    del blocks[nid]
