"""How a machine of 2010 boots with the framework: boot parameters, reservation, initcalls.

``init/main.py`` calls setup_cma2010() once memory is known, then initcalls().
"""

from __future__ import annotations

from collections.abc import Iterable

from cmafs.drivers.cma2010.bestfit import BestFit
from cmafs.drivers.cma2010.framework import Cma2010
from cmafs.drivers.cma2010.profile import Profile, Word
from cmafs.drivers.cma2010.registry import Log
from cmafs.lib.printk import LOGLEVEL_WARNING
from cmafs.mm.memblock import Memblock


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
            cma.log.printk(f"Malformed early option '{name}'", LOGLEVEL_WARNING)


def setup_cma2010(
    profile: Profile,
    strict: bool,
    word: Word,
    log: Log,
    debug: bool,
    words: Iterable[tuple[str, str | None]],
    memblock: Memblock,
) -> Cma2010:
    """The framework of a machine up to the end of reservation: what its board's code does before paging."""
    cma = Cma2010(profile, word, log, strict, debug)
    parse_early_params(cma, words)
    cma.early.reserve_all(memblock)
    return cma


def initcalls(cma: Cma2010) -> None:
    """``cma_init()``, and best-fit, a level later."""
    cma.cma_init()
    cma.cma_allocator_register(BestFit(cma.quirks, cma.word, cma.pr_warn).allocator())
