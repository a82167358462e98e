"""Shared by the tests of the 2010 framework: a log that is a list, boot memory that is a list of ranges."""

from __future__ import annotations

from cmafs.drivers.cma2010.bestfit import BestFit
from cmafs.drivers.cma2010.framework import Cma2010
from cmafs.drivers.cma2010.profile import Word, find_profile
from cmafs.drivers.cma2010.regions import CmaRegion

M = 1 << 20
K = 1 << 10
BASE_A, BASE_B = 0x40000000, 0x41000000


class ListLog:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def printk(self, text: str, level: int = 6) -> None:
        self.lines.append(text)


class BootMemory:
    """Memblock (``reserve`` takes any range, ``find`` the highest free one) over one bank of memory."""

    def __init__(self, base: int, size: int) -> None:
        self.base, self.end = base, base + size
        self.reserved: list[tuple[int, int]] = []

    def is_region_reserved(self, base: int, size: int) -> bool:
        return any(b < base + size and base < b + s for b, s in self.reserved)

    def reserve(self, base: int, size: int) -> None:
        self.reserved.append((base, size))

    def free(self, base: int, size: int) -> None:
        self.reserved.remove((base, size))

    def find(self, size: int, alignment: int, below: int | None) -> int | None:
        top = min(below or self.end, self.end)
        candidates = [top, *(b for b, _ in self.reserved if b <= top)]
        fits = [(c - size) & -alignment for c in candidates]
        return max((f for f in fits if f >= self.base and not self.is_region_reserved(f, size)), default=None)


class HintMemory:
    """Bootmem: the lowest free aligned range at or above the goal, else anywhere."""

    def __init__(self, base: int, size: int) -> None:
        self.memory = BootMemory(base, size)

    def alloc(self, size: int, alignment: int, goal: int) -> int | None:
        for low in (max(goal, self.memory.base), self.memory.base):
            starts = [low, *(b + s for b, s in self.memory.reserved)]
            aligned = [(s + alignment - 1) & -alignment for s in starts]
            fits = [a for a in aligned if a >= low and a + size <= self.memory.end]
            free = [a for a in fits if not self.memory.is_region_reserved(a, size)]
            if free:
                self.memory.reserve(min(free), size)
                return min(free)
        return None


def framework(profile: str = "vendor", strict: bool = False, bits: int = 32) -> Cma2010:
    """A framework with nothing configured."""
    return Cma2010(find_profile(profile), Word(bits), ListLog(), strict)


def with_bf(cma: Cma2010) -> Cma2010:
    """The same with best-fit registered."""
    bf = BestFit(cma.pr_warn, cma.quirks.q6_bestfit_null_advance)
    cma.cma_allocator_register(bf.allocator())
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
