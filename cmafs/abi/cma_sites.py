"""The pr_debug() call sites around CMA, as /sys/kernel/debug/dynamic_debug/control lists them.

Line numbers: T for 4.4.155, 4.15.0, 4.19.72, 5.4.286, 5.15.0, 6.6.87 and 6.18.2, V for 5.10.223, 6.1.192,
6.12.117 and 7.2.13; another stable release of the series may be some lines off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cmafs.abi.printk import DebugSite

_DECLARE = "%s(size %pa, base %pa, limit %pa alignment %pa)"
_ENTRY_OLD = "%s(cma %p, count %zu, align %d)"
_ENTRY = "%s(cma %p, count %lu, align %d)"
_ENTRY_NAMED = "%s(cma %p, name: %s, count %lu, align %d)"
_RETURNED = "%s(): returned %p"
_BUSY = "%s(): memory range at %p is busy, retrying"
_BUSY_PFN = "%s(): memory range at pfn 0x%lx %p is busy, retrying"
_RELEASE_OLD = "%s(page %p)"
_RELEASE = "%s(page %p, count %lu)"
_NO_RANGE = "%s(page %p, count %lu, no cma range matches the page range)"
_LIMIT = "%s(limit %08lx)"
_RESERVING = "%s: reserving %ld MiB for global area"
_PERNUMA = "%s: reserved %llu MiB on node %d"
_MULTI = (
    "consider %016llx - %016llx",
    "deleted %016llx - %016llx from the list",
    "added %016llx - %016llx to the list",
    "total size now %llu",
    "created region %d: %016llx - %016llx",
)


@dataclass(frozen=True)
class CmaSites:
    """The call sites of one kernel; ``None``: it has no such line.

    Of mm/cma.c: ``declare`` and ``multi`` when areas are made; ``entry``, ``busy``, ``returned`` of
    cma_alloc(); ``release``, ``pages_valid``, ``no_range`` of cma_release(). Of mm/cma_debug.c:
    ``partial_block``. Of kernel/dma/contiguous.c (drivers/base/dma-contiguous.c to 4.15): ``early_cma``,
    ``limit``, ``reserving``, ``pernuma``. Those of boot print only where the file is built with DEBUG
    (CONFIG_CMA_DEBUG): they come before dynamic debug can be switched.
    """

    declare: DebugSite
    entry: DebugSite
    busy: DebugSite
    returned: DebugSite
    release: DebugSite
    partial_block: DebugSite
    limit: DebugSite
    reserving: DebugSite
    pages_valid: DebugSite | None = None
    no_range: DebugSite | None = None
    multi: tuple[DebugSite, ...] = ()
    early_cma: DebugSite | None = None
    pernuma: DebugSite | None = None

    def cma(self) -> list[DebugSite]:
        """Those of mm/cma.c, by line."""
        sites = [self.declare, *self.multi, self.entry, self.busy, self.returned, self.release]
        optional = [site for site in (self.pages_valid, self.no_range) if site]
        return sorted(sites + optional, key=lambda site: site.lineno)

    def contiguous(self, pernuma: bool) -> list[DebugSite]:
        """Those of kernel/dma/contiguous.c, by line; ``pernuma``: CONFIG_DMA_PERNUMA_CMA."""
        optional = (self.early_cma, self.pernuma if pernuma else None)
        sites = [self.limit, self.reserving, *filter(None, optional)]
        return sorted(sites, key=lambda site: site.lineno)


def _cma_c(lineno: int, function: str, fmt: str) -> DebugSite:
    return DebugSite("mm/cma.c", lineno, "cma", function, fmt, "cma: ")


def _cma_debug_c(lineno: int) -> DebugSite:
    text = "cma: cannot release partial block when order_per_bit != 0"
    return DebugSite("mm/cma_debug.c", lineno, "cma_debug", "cma_free_mem", text)


def _contiguous_c(lineno: int, fmt: str, function: str = "dma_contiguous_reserve") -> DebugSite:
    return DebugSite("kernel/dma/contiguous.c", lineno, "contiguous", function, fmt, "cma: ")


def _dma_contiguous_c(lineno: int, fmt: str, function: str = "dma_contiguous_reserve") -> DebugSite:
    return DebugSite("drivers/base/dma-contiguous.c", lineno, "dma_contiguous", function, fmt, "cma: ")


SITES_4_4 = CmaSites(
    declare=_cma_c(247, "cma_declare_contiguous", _DECLARE),
    entry=_cma_c(374, "cma_alloc", _ENTRY_OLD),
    busy=_cma_c(415, "cma_alloc", _BUSY),
    returned=_cma_c(423, "cma_alloc", _RETURNED),
    release=_cma_c(444, "cma_release", _RELEASE_OLD),
    partial_block=_cma_debug_c(113),
    early_cma=_dma_contiguous_c(56, "%s(%s)", "early_cma"),
    limit=_dma_contiguous_c(114, _LIMIT),
    reserving=_dma_contiguous_c(135, _RESERVING),
)
SITES_4_15 = replace(
    SITES_4_4,
    declare=_cma_c(256, "cma_declare_contiguous", _DECLARE),
    entry=_cma_c(410, "cma_alloc", _ENTRY_OLD),
    busy=_cma_c(455, "cma_alloc", _BUSY),
    returned=_cma_c(469, "cma_alloc", _RETURNED),
    release=_cma_c(490, "cma_release", _RELEASE_OLD),
    partial_block=_cma_debug_c(114),
)
SITES_4_19 = replace(
    SITES_4_15,
    declare=_cma_c(263, "cma_declare_contiguous", _DECLARE),
    entry=_cma_c(436, "cma_alloc", _ENTRY_OLD),
    busy=_cma_c(481, "cma_alloc", _BUSY),
    returned=_cma_c(495, "cma_alloc", _RETURNED),
    release=_cma_c(516, "cma_release", _RELEASE_OLD),
    early_cma=None,
    limit=_contiguous_c(114, _LIMIT),
    reserving=_contiguous_c(135, _RESERVING),
)
SITES_5_4 = replace(
    SITES_4_19,
    declare=_cma_c(252, "cma_declare_contiguous", _DECLARE),
    entry=_cma_c(424, "cma_alloc", _ENTRY_OLD),
    busy=_cma_c(469, "cma_alloc", _BUSY),
    returned=_cma_c(493, "cma_alloc", _RETURNED),
    release=_cma_c(514, "cma_release", _RELEASE_OLD),
    partial_block=_cma_debug_c(112),
)
SITES_5_10 = replace(
    SITES_5_4,
    declare=_cma_c(253, "cma_declare_contiguous_nid", _DECLARE),
    entry=_cma_c(425, "cma_alloc", _ENTRY_OLD),
    busy=_cma_c(470, "cma_alloc", _BUSY),
    returned=_cma_c(494, "cma_alloc", _RETURNED),
    release=_cma_c(515, "cma_release", _RELEASE_OLD),
    pernuma=_contiguous_c(152, _PERNUMA, "dma_pernuma_cma_reserve"),
    limit=_contiguous_c(174, _LIMIT),
    reserving=_contiguous_c(195, _RESERVING),
)
SITES_5_15 = replace(
    SITES_5_10,
    declare=_cma_c(251, "cma_declare_contiguous_nid", _DECLARE),
    entry=_cma_c(440, "cma_alloc", _ENTRY),
    busy=_cma_c(486, "cma_alloc", _BUSY),
    returned=_cma_c(513, "cma_alloc", _RETURNED),
    release=_cma_c(545, "cma_release", _RELEASE),
)
SITES_6_1 = replace(
    SITES_5_15,
    entry=_cma_c(434, "cma_alloc", _ENTRY),
    busy=_cma_c(481, "cma_alloc", _BUSY),
    returned=_cma_c(508, "cma_alloc", _RETURNED),
    pages_valid=_cma_c(533, "cma_pages_valid", _RELEASE),
    release=_cma_c(559, "cma_release", _RELEASE),
    pernuma=_contiguous_c(151, _PERNUMA, "dma_pernuma_cma_reserve"),
    limit=_contiguous_c(173, _LIMIT),
    reserving=_contiguous_c(194, _RESERVING),
)
SITES_6_6 = replace(
    SITES_6_1,
    declare=_cma_c(252, "cma_declare_contiguous_nid", _DECLARE),
    entry=_cma_c(439, "cma_alloc", _ENTRY_NAMED),
    busy=_cma_c(486, "cma_alloc", _BUSY_PFN),
    returned=_cma_c(513, "cma_alloc", _RETURNED),
    pages_valid=_cma_c(538, "cma_pages_valid", _RELEASE),
    release=_cma_c(564, "cma_release", _RELEASE),
    pernuma=None,
    limit=_contiguous_c(227, _LIMIT),
    reserving=_contiguous_c(248, _RESERVING),
)
SITES_6_12 = replace(
    SITES_6_6,
    declare=_cma_c(247, "cma_declare_contiguous_nid", _DECLARE),
    entry=_cma_c(423, "__cma_alloc", _ENTRY_NAMED),
    busy=_cma_c(467, "__cma_alloc", _BUSY_PFN),
    returned=_cma_c(492, "__cma_alloc", _RETURNED),
    pages_valid=_cma_c(544, "cma_pages_valid", _RELEASE),
    release=_cma_c(570, "cma_release", _RELEASE),
    limit=_contiguous_c(220, _LIMIT),
    reserving=_contiguous_c(241, _RESERVING),
)


def _multi(*lines: int) -> tuple[DebugSite, ...]:
    """The lines of cma_declare_contiguous_multi()."""
    return tuple(
        _cma_c(line, "cma_declare_contiguous_multi", fmt) for line, fmt in zip(lines, _MULTI, strict=True)
    )


SITES_6_18 = replace(
    SITES_6_12,
    declare=_cma_c(439, "__cma_declare_contiguous_nid", _DECLARE),
    multi=_multi(596, 615, 625, 627, 674),
    busy=_cma_c(848, "cma_range_alloc", _BUSY_PFN),
    entry=_cma_c(870, "__cma_alloc", _ENTRY_NAMED),
    returned=_cma_c(903, "__cma_alloc", _RETURNED),
    pages_valid=_cma_c(969, "cma_pages_valid", _RELEASE),
    release=_cma_c(992, "cma_release", _RELEASE),
    partial_block=_cma_debug_c(110),
    reserving=_contiguous_c(244, _RESERVING),
)
SITES_7_2 = replace(
    SITES_6_18,
    declare=_cma_c(444, "__cma_declare_contiguous_nid", _DECLARE),
    multi=_multi(601, 620, 630, 632, 679),
    busy=_cma_c(853, "cma_range_alloc", _BUSY_PFN),
    entry=_cma_c(875, "__cma_alloc_frozen", _ENTRY_NAMED),
    returned=_cma_c(908, "__cma_alloc_frozen", _RETURNED),
    pages_valid=_cma_c(967, "find_cma_memrange", _RELEASE),
    no_range=_cma_c(986, "find_cma_memrange", _NO_RANGE),
    release=_cma_c(999, "__cma_release_frozen", _RELEASE),
    limit=_contiguous_c(257, _LIMIT),
    reserving=_contiguous_c(283, _RESERVING),
)
