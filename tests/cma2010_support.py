"""Shared by the tests of the 2010 framework: a log that is a list, frameworks without a machine."""

from __future__ import annotations

import struct

from cmafs.drivers.cma2010.bestfit import BestFit
from cmafs.drivers.cma2010.chardev import BY_DEVICE, CMA_MAGIC
from cmafs.drivers.cma2010.framework import Cma2010
from cmafs.drivers.cma2010.profile import Word, find_profile
from cmafs.drivers.cma2010.regions import CmaRegion
from cmafs.mm.memblock import Memblock

M = 1 << 20
K = 1 << 10
BASE_A, BASE_B = 0x40000000, 0x41000000


def cma_request(
    spec: bytes,
    size: int = 4096,
    alignment: int = 0,
    *,
    type_: int = BY_DEVICE,
    magic: int = CMA_MAGIC,
    v1: bool = False,
) -> bytes:
    """``struct cma_alloc_request`` as programs fill it in; v1 has a field for device and one for kind."""
    if v1:
        name, _, kind = spec.partition(b"/")
        return struct.pack("<I17s17sHQQQ", magic, name, kind, 0, size, alignment, 0)
    return struct.pack("<IIQQQ32s", magic, type_, size, alignment, 0, spec)


class ListLog:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def printk(self, text: str, level: int = 6) -> None:
        self.lines.append(text)


def boot_memory(base: int, size: int) -> Memblock:
    """Memblock over one bank of memory."""
    memory = Memblock()
    memory.add(base, size)
    return memory


def framework(profile: str = "vendor", strict: bool = False, bits: int = 32) -> Cma2010:
    """A framework with nothing configured."""
    return Cma2010(find_profile(profile), Word(bits), ListLog(), strict)


def with_bf(cma: Cma2010) -> Cma2010:
    """The same with best-fit registered."""
    cma.cma_allocator_register(BestFit(cma.quirks, cma.word, cma.pr_warn).allocator())
    return cma


def two_regions(profile: str = "vendor", strict: bool = False, bits: int = 32) -> Cma2010:
    """The fixture of the behaviour vectors: a and b of 1 MiB, map ``foo=a,b``."""
    cma = framework(profile, strict, bits)
    cma.set_map("foo=a,b")
    cma.cma_region_register(CmaRegion("a", BASE_A, M))
    cma.cma_region_register(CmaRegion("b", BASE_B, M))
    return with_bf(cma)


def region(cma: Cma2010, name: str) -> CmaRegion:
    found = cma.find_region(name)
    assert found is not None, name
    return found


def log_of(cma: Cma2010) -> list[str]:
    """The lines of a test framework's log."""
    assert isinstance(cma.log, ListLog)
    return cma.log.lines
