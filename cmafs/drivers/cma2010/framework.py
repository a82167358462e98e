"""The Contiguous Memory Allocator framework of 2010: its calls (``mm/cma.c`` of July to September 2010).

Nothing to do with the CMA that Linux merged in 3.5: regions are reserved for good, an allocator such as
best-fit manages each, and a map says which regions serve which device. All addresses, sizes and alignments
are bytes and fit the machine's word. Calls raise OSError with the errno that the C function returns negated,
KernelOops where ``--strict-quirks`` reaches code that would have crashed, and MissingInterface where that
version has no such call. A call that raises changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import NoReturn

from cmafs.drivers.cma2010.map import region_names, where_from
from cmafs.drivers.cma2010.profile import KernelOops, MissingInterface, Profile, Word, is_power_of_two_or_zero
from cmafs.drivers.cma2010.regions import CmaChunk, CmaInfo, CmaRegion
from cmafs.drivers.cma2010.registry import CmaRegistry, Log
from cmafs.lib.math import round_up
from cmafs.lib.printk import LOGLEVEL_WARNING


class Cma2010(CmaRegistry):
    """The framework of one machine; its arguments are CmaRegistry's."""

    def __init__(
        self, profile: Profile, word: Word, log: Log, strict: bool = False, debug: bool = True
    ) -> None:
        super().__init__(profile, word, log, strict, debug)
        self._chunks: dict[int, CmaChunk] = {}

    def cma_alloc(self, dev: str, kind: str | None, size: int, alignment: int = 0) -> int:
        """Memory for a device: the bus address of ``size`` bytes.

        ``dev``: the device's name; ``kind``: None for none. Raises OSError EINVAL (size, alignment, no name),
        ENOENT (no map, no rule), ENOMEM (no region of the rule can serve).
        """
        self.pr_debug(f"allocate {self._request(size, alignment)} for {dev}/{kind or ''}")
        return self._alloc(lambda: self._where_from(dev, kind), size, alignment)

    def cma_alloc_from(self, regions: str, size: int, alignment: int = 0) -> int:
        """Memory from a region list. Raises OSError EINVAL (size, alignment), ENOMEM."""
        self._needs(not self.profile.table, "cma_alloc_from")
        return self._alloc(lambda: self._from_list(regions), size, alignment)

    def cma_alloc_from_region(self, reg: CmaRegion, size: int, alignment: int = 0) -> int:
        """Memory from one region, private ones included.

        Raises OSError EINVAL (arguments, region not registered), ENOMEM, EADDRINUSE (allocator gone wrong).
        """
        self._needs(not self.profile.table, "cma_alloc_from_region")
        self.pr_debug(f"allocate {self._request(size, alignment)} from {reg.label}")
        self._check_request(size, alignment)
        if not reg.registered:
            raise OSError(errno.EINVAL, "no such region")
        return self._alloc_from_region(reg, *self._round_request(size, alignment))

    def cma_free(self, addr: int) -> None:
        """Give the chunk that starts at ``addr`` back. Raises OSError ENOENT (no chunk starts there)."""
        self._needs(not self.profile.table, "cma_free")
        try:
            self._release(addr)
        except OSError:
            self.pr_err(f"free({self.word.pointer(addr)}): not found")
            raise
        self.pr_debug(f"free({self.word.pointer(addr)}): freed")

    def cma_put(self, addr: int) -> None:
        """v1: drop the one reference that an allocation holds, as cma_free() later. Raises OSError ENOENT."""
        self._needs(self.profile.table, "cma_put")
        self._release(addr)

    def cma_info(self, dev: str, kind: str | None = None) -> CmaInfo:
        """What serves a device; sums wrap at the word. Raises OSError EINVAL (no name), ENOENT (no rule)."""
        found = [reg for reg in self._candidates(self._where_from(dev, kind)) if reg]
        return CmaInfo(
            lower_bound=min((reg.start for reg in found), default=self.word.mask),
            upper_bound=max((reg.end for reg in found), default=0),
            total_size=sum(reg.size for reg in found) & self.word.mask,
            free_size=0 if self.profile.table else sum(reg.free_space for reg in found) & self.word.mask,
            count=len(found),
        )

    def chunks(self) -> list[CmaChunk]:
        """All live chunks."""
        return list(self._chunks.values())

    # Below the calls

    def _needs(self, there: bool, call: str) -> None:
        if not there:
            raise MissingInterface(f"{self.profile.name} has no {call}()")

    def _request(self, size: int, alignment: int) -> str:
        return f"{self.word.pointer(size)}/{self.word.pointer(alignment)}"

    def _check_request(self, size: int, alignment: int) -> None:
        fits = 0 < size <= self.word.mask and 0 <= alignment <= self.word.mask
        if not fits or not is_power_of_two_or_zero(alignment):
            raise OSError(errno.EINVAL, "size 0 or alignment no power of two")

    def _round_request(self, size: int, alignment: int, pads: bool = False) -> tuple[int, int]:
        """Up to whole pages; with ``pads`` (meizu) to the alignment, and then one alignment more (Q14).

        The code of v1 rounds nothing (Q15). A size that becomes too large for the word is more than any
        region has; with Q17 it wraps instead, mostly to 0.
        """
        if self.quirks.q15_sizes_not_rounded:
            return size, alignment or 1
        alignment = max(alignment, self.word.page_size)
        if not pads:
            size = self.word.page_align(size)
        elif size % alignment:
            size = round_up(size + alignment, alignment)
        return size & self.word.mask if self.quirks.q17_rounding_wraps else size, alignment

    def _where_from(self, dev: str, kind: str | None) -> str | None:
        if not self.map and not self.profile.table:
            if self.profile.asterisk != "none":
                return None
            raise OSError(errno.ENOENT, "no map")
        if not dev:
            raise OSError(errno.EINVAL, "device without a name")
        if not self.map:
            raise OSError(errno.ENOENT, "no map")
        return where_from(self.profile, self.quirks, self.map, dev, kind)

    def _from_list(self, regions: str) -> str | None:
        return None if self.profile.asterisk != "none" and regions.startswith("*") else regions

    def _candidates(self, regions: str | None) -> Iterator[CmaRegion | None]:
        """The regions of a list in order, None for an unknown name; without a list the asterisk regions."""
        if regions is None and self.profile.asterisk == "flag":
            yield from [reg for reg in self.regions if reg.asterisk]
            return
        for nth, name in enumerate(region_names(self.asterisk_list() if regions is None else regions)):
            if nth and regions is not None and self.quirks.q5_list_walk_broken:
                raise KernelOops("Q5", f"the region list is lost behind its first name: {regions}")
            yield self.find_region(name)

    def asterisk_list(self) -> str:
        """v2: the region list that serves where no rule does, by default all not written with ``-``."""
        if self.asterisk is not None:
            return self.asterisk
        return ",".join(reg.name for reg in reversed(self.regions) if reg.asterisk and reg.name)

    def _alloc(self, source: Callable[[], str | None], size: int, alignment: int) -> int:
        """Arguments are looked at first, then the map or list that ``source`` stands for, then memory."""
        self._check_request(size, alignment)
        size, alignment = self._round_request(size, alignment, self.profile.pads_alignment)
        regions = source()
        if regions is not None:
            self.pr_debug(f"allocate {self._request(size, alignment)} from one of {regions}")
        for reg in self._candidates(regions):
            try:
                return self._alloc_from_region(reg, size, alignment)
            except OSError:
                continue  # the errors of single regions are not told
        self.pr_debug("not enough memory")
        raise OSError(errno.ENOMEM, "no region can serve")

    def _alloc_from_region(self, reg: CmaRegion | None, size: int, alignment: int) -> int:
        self.pr_debug(f"allocate {self._request(size, alignment)} from {reg.label if reg else '(null)'}")
        if reg is None or reg.free_space < size:
            raise OSError(errno.ENOMEM, "not enough free space")
        chunk = self._call_allocator(reg, size, alignment)
        if chunk.start in self._chunks:
            self._taken_twice(chunk)
        self._chunks[chunk.start] = chunk
        reg.users += 1
        reg.free_space -= chunk.size
        self.pr_debug(f"allocated at {self.word.pointer(chunk.start)}")
        return chunk.start

    def _call_allocator(self, reg: CmaRegion, size: int, alignment: int) -> CmaChunk:
        final = self.profile.table or (reg.used and self.quirks.q8_failed_attach_is_final)
        if reg.alloc is None and not final:
            self.attach(reg)
        chunk = reg.alloc.alloc(reg, size, alignment) if reg.alloc and reg.alloc.alloc else None
        if chunk is None:
            raise OSError(errno.ENOMEM, "the allocator has no room")
        return chunk

    def _taken_twice(self, chunk: CmaChunk) -> NoReturn:
        """A chunk starts where another one does: give it back.

        Raises OSError EADDRINUSE; KernelOops with Q17, where one of the two is empty.
        """
        assert chunk.reg.alloc and chunk.reg.alloc.free
        chunk.reg.alloc.free(chunk)
        if not chunk.size or not self._chunks[chunk.start].size:
            raise KernelOops("Q17", "a chunk where an empty one starts is given back to a region never set")
        raise OSError(errno.EADDRINUSE, "the allocator gave a chunk twice")

    def _release(self, addr: int) -> None:
        chunk = self._chunks.pop(addr, None)
        if chunk is None:
            self.log.printk(f"no chunk starting at {self.word.pointer(addr)}", LOGLEVEL_WARNING)
            raise OSError(errno.ENOENT, "no such chunk")
        reg = chunk.reg
        assert reg.alloc and reg.alloc.free
        reg.free_space += chunk.size
        reg.users -= 1
        reg.alloc.free(chunk)
