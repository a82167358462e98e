"""The Contiguous Memory Allocator framework of 2010: its calls (``mm/cma.c`` of July to September 2010).

Nothing to do with the CMA that Linux merged in 3.5: regions are reserved for good, an allocator such as
best-fit manages each, and a map says which regions serve which device. All addresses, sizes and alignments
are bytes. Calls raise OSError with the errno the kernel returns negated, KernelOops where
``--strict-quirks`` reaches code that would have crashed, and MissingInterface where that version has no
such call. A call that raises changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace

from cmafs.drivers.cma2010.map import region_names, where_from
from cmafs.drivers.cma2010.profile import KernelOops, MissingInterface, Profile, Word, is_power_of_two_or_zero
from cmafs.drivers.cma2010.regions import CmaChunk, CmaInfo, CmaRegion
from cmafs.drivers.cma2010.registry import KERN_WARNING, CmaRegistry, Log

_PAGE_OFFSET = 0xC0000000
_VMALLOC_BYTES = 128 << 20


class Cma2010(CmaRegistry):
    """The framework of one machine; its arguments are CmaRegistry's."""

    def __init__(
        self, profile: Profile, word: Word, log: Log, strict: bool = False, debug: bool = True
    ) -> None:
        super().__init__(profile, word, log, strict, debug)
        self._chunks: dict[int, CmaChunk] = {}
        self._vmapped = 0

    def cma_alloc(self, dev: str | None, kind: str | None, size: int, alignment: int = 0) -> int:
        """Memory for a device: the bus address of ``size`` bytes.

        ``dev``: the device's name; ``kind``: None for none. Raises OSError EINVAL (no device, its name, size,
        alignment), ENOENT (no map, no rule), ENOMEM (no region of the rule can serve).
        """
        if dev is None:
            raise OSError(errno.EINVAL, "no device")
        self.pr_debug(f"allocate {self._request(size, alignment)} for {dev}/{kind or ''}")
        self._check_request(size, alignment)
        size, alignment = self._round_request(size, alignment, self.profile.pads_alignment)
        return self._alloc_from_list(self._where_from(dev, kind), size, alignment)

    def cma_alloc_from(self, regions: str | None, size: int, alignment: int = 0) -> int:
        """Memory from a region list. Raises OSError EINVAL (size, alignment, v4 on: no list), ENOMEM."""
        self._needs(self.profile.free, "cma_alloc_from")
        self._check_request(size, alignment)
        size, alignment = self._round_request(size, alignment)
        return self._alloc_from_list(self._from_list(regions), size, alignment)

    def cma_alloc_from_region(self, reg: CmaRegion | None, size: int, alignment: int = 0) -> int:
        """Memory from one region, private ones included.

        Raises OSError EINVAL (arguments, region not registered), ENOMEM, EADDRINUSE (allocator gone wrong).
        """
        self._needs(self.profile.free, "cma_alloc_from_region")
        self.pr_debug(f"allocate {self._request(size, alignment)} from {reg.label if reg else '(null)'}")
        self._check_request(size, alignment)
        if reg is None or not reg.registered:
            raise OSError(errno.EINVAL, "no such region")
        return self._alloc_from_region(reg, *self._round_request(size, alignment))

    def cma_free(self, addr: int) -> None:
        """Give the chunk that starts at ``addr`` back. Raises OSError ENOENT (no chunk starts there)."""
        self._needs(self.profile.free, "cma_free")
        chunk = self._find_chunk(addr)
        if chunk is None:
            self.pr_err(f"free({self.word.pointer(addr)}): not found")
            raise OSError(errno.ENOENT, "no such chunk")
        self._release(chunk)
        self.pr_debug(f"free({self.word.pointer(addr)}): freed")

    def cma_get(self, addr: int) -> None:
        """v1: one more reference to a chunk. Raises OSError ENOENT."""
        self._needs(self.profile.get_put, "cma_get")
        self._held_chunk(addr).references += 1

    def cma_put(self, addr: int) -> int:
        """v1: one reference less; 1 if that freed the chunk, else 0. Raises OSError ENOENT."""
        self._needs(self.profile.get_put, "cma_put")
        chunk = self._held_chunk(addr)
        chunk.references -= 1
        if chunk.references:
            return 0
        self._release(chunk)
        return 1

    def cma_info(self, infop: CmaInfo | None, dev: str | None, kind: str | None = None) -> None:
        """Fill ``infop`` with what serves a device.

        Raises OSError EINVAL, ENOENT: then it is all zero (v1: as was).
        """
        if infop is None or dev is None:
            raise OSError(errno.EINVAL, "no result or no device")
        self._info(infop, lambda: self._where_from(dev, kind))

    def cma_info_about(self, infop: CmaInfo | None, regions: str | None) -> None:
        """The same for a region list. Raises OSError EINVAL."""
        self._needs(self.profile.free, "cma_info_about")
        if infop is None:
            raise OSError(errno.EINVAL, "no result")
        self._info(infop, lambda: self._from_list(regions))

    def cma_get_virt(self, phys: int, size: int, noncached: bool) -> int:
        """Vendor trees: a kernel address for ``size`` bytes at a bus address, which need not be a chunk's.

        ``noncached`` maps whole pages anew, else it is the linear map's. Raises OSError ENOMEM (nothing to
        map, or the word's last 128 MiB, where such mappings go, are used up).
        """
        self._needs(self.profile.get_virt, "cma_get_virt")
        if not noncached:
            return (phys + _PAGE_OFFSET) & self.word.mask
        pages = size // self.word.page_size
        address = self.word.mask + 1 - _VMALLOC_BYTES + self._vmapped
        length = (pages + 1) * self.word.page_size  # with a guard page
        if not pages or self._vmapped + length > _VMALLOC_BYTES:
            raise OSError(errno.ENOMEM, "cannot be mapped")
        self._vmapped += length
        return address

    # Below the calls

    def _needs(self, there: bool, call: str) -> None:
        if not there:
            raise MissingInterface(f"{self.profile.name} has no {call}()")

    def _request(self, size: int, alignment: int) -> str:
        return f"{self.word.pointer(size)}/{self.word.pointer(alignment)}"

    def _check_request(self, size: int, alignment: int) -> None:
        if size <= 0 or size > self.word.mask or alignment < 0 or not is_power_of_two_or_zero(alignment):
            raise OSError(errno.EINVAL, "size 0 or alignment no power of two")

    def _round_request(self, size: int, alignment: int, pads: bool = False) -> tuple[int, int]:
        """Up to whole pages; meizu adds one alignment too many to a device's; v1 does neither (Q15)."""
        if self.quirks.q15_sizes_not_rounded:
            return size, alignment or 1
        alignment = max(alignment, self.word.page_size)
        if pads:
            return (self.word.align(size + alignment, alignment) if size % alignment else size), alignment
        return self.word.page_align(size), alignment

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

    def _from_list(self, regions: str | None) -> str | None:
        if self.profile.asterisk != "none" and (regions is None or regions.startswith("*")):
            return None
        if regions is None:
            raise OSError(errno.EINVAL, "no region list")
        return regions

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

    def _alloc_from_list(self, regions: str | None, size: int, alignment: int) -> int:
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
            assert reg.alloc and reg.alloc.free
            reg.alloc.free(chunk)
            raise OSError(errno.EADDRINUSE, "the allocator gave a chunk twice")
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

    def _find_chunk(self, addr: int) -> CmaChunk | None:
        chunk = self._chunks.get(addr)
        if chunk is None:
            self.log.printk(f"no chunk starting at {self.word.pointer(addr)}", KERN_WARNING)
        return chunk

    def _held_chunk(self, addr: int) -> CmaChunk:
        chunk = self._find_chunk(addr)
        if chunk is None:
            raise OSError(errno.ENOENT, "no such chunk")
        return chunk

    def _release(self, chunk: CmaChunk) -> None:
        reg = chunk.reg
        assert reg.alloc and reg.alloc.free
        del self._chunks[chunk.start]
        reg.free_space += chunk.size
        reg.users -= 1
        reg.alloc.free(chunk)

    def chunk_at(self, addr: int) -> CmaChunk | None:
        """The live chunk that starts at an address."""
        return self._chunks.get(addr)

    def chunks(self) -> list[CmaChunk]:
        """All live chunks."""
        return list(self._chunks.values())

    def _info(self, infop: CmaInfo, source: Callable[[], str | None]) -> None:
        try:
            regions = source()
        except OSError:
            if not self.profile.table:
                _overwrite(infop, CmaInfo())
            raise
        found = [reg for reg in self._candidates(regions) if reg]
        total = CmaInfo(
            lower_bound=min((reg.start for reg in found), default=self.word.mask),
            upper_bound=max((reg.end for reg in found), default=0),
            total_size=sum(reg.size for reg in found),
            free_size=sum(reg.free_space for reg in found),
            count=len(found),
        )
        _overwrite(infop, replace(total, free_size=0) if self.profile.table else total)


def _overwrite(target: CmaInfo, source: CmaInfo) -> None:
    vars(target).update(vars(source))
