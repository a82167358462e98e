"""How a machine of 2010 boots with the framework: boot parameters, reservation, initcalls.

``init/main.py`` calls setup_cma2010() once memory is known, then initcalls().
"""

from __future__ import annotations

from collections.abc import Iterable

from cmafs.drivers.cma2010.bestfit import BestFit
from cmafs.drivers.cma2010.framework import Cma2010
from cmafs.drivers.cma2010.profile import Profile, Word
from cmafs.drivers.cma2010.registry import KERN_WARNING, Log
from cmafs.mm import memblock as mm_memblock


class MachineMemblock:
    """The machine's memblock as the framework calls it."""

    def __init__(self, memblock: mm_memblock.Memblock) -> None:
        self._memblock = memblock

    def is_region_reserved(self, base: int, size: int) -> bool:
        """Whether the range of ``size`` bytes touches a reservation."""
        return self._memblock.is_region_reserved(base, size)

    def reserve(self, base: int, size: int) -> None:
        """Reserve a range of ``size`` bytes, be it memory or not."""
        self._memblock.reserve(base, size)

    def free(self, base: int, size: int) -> None:
        """Undo a reservation."""
        self._memblock.phys_free(base, size)

    def find(self, size: int, alignment: int, below: int | None) -> int | None:
        """The highest free aligned range of ``size`` bytes ending at or below ``below``."""
        end = mm_memblock.MEMBLOCK_ALLOC_ANYWHERE if below is None else below
        return self._memblock.find_in_range_node(size, alignment, 0, end) or None


def parse_early_params(cma: Cma2010, words: Iterable[tuple[str, str | None]]) -> None:
    """``parse_early_options()``: give ``cma=`` and the map's parameter to the framework, in order."""
    handlers = {"cma": cma.cma_param}
    if cma.profile.map_parameter:
        handlers[cma.profile.map_parameter] = cma.cma_map_param
    for name, value in words:
        handler = handlers.get(name)
        if handler is None:
            continue
        try:
            handler(value or "")
        except OSError as error:
            cma.refused.append((f"{name}=", str(error.strerror)))
            cma.log.printk(f"Malformed early option '{name}'", KERN_WARNING)


def setup_cma2010(
    profile: Profile,
    strict: bool,
    word: Word,
    log: Log,
    debug: bool,
    words: Iterable[tuple[str, str | None]],
    memblock: mm_memblock.Memblock,
) -> Cma2010:
    """The framework of a machine up to the end of reservation: what its board's code does before paging."""
    cma = Cma2010(profile, word, log, strict, debug)
    parse_early_params(cma, words)
    cma.early.reserve_all(cma.early.default_reserve(None, MachineMemblock(memblock)))
    return cma


def initcalls(cma: Cma2010) -> None:
    """``cma_init()``, and best-fit, a level later."""
    cma.cma_init()
    cma.cma_allocator_register(BestFit(cma.pr_warn, cma.quirks.q6_bestfit_null_advance).allocator())
