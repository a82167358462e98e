"""Zones: where they begin and end, and the lines that say so.

Kernel: ``mm/mm_init.c:free_area_init()``; pfns.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmafs.arch.ops import arch_ops
from cmafs.arch.setup import EarlyBoot
from cmafs.lib.cmdline import memparse
from cmafs.lib.intervals import length, within
from cmafs.lib.math import div_round_up, rounddown, roundup
from cmafs.lib.printk import LOGLEVEL_DEBUG, LOGLEVEL_WARNING
from cmafs.mm.mmzone import MIGRATE_TYPES, ZONE_OPTIONS, ZONE_RANKS, ZoneSpan
from cmafs.mm.pcp import zone_batchsize

#: Zones that no address limit makes.
_UNLIMITED = ("Movable", "Device")


def zone_ranges(boot: EarlyBoot) -> list[tuple[str, int, int]]:
    """(name, start, end) of every zone of this configuration below ZONE_MOVABLE, empty ones included."""
    shift = boot.config.page_shift
    start = boot.memblock.start_of_dram() >> shift
    end = boot.memblock.end_of_dram() >> shift
    limits = arch_ops(boot).zone_limits(boot)
    ranges = []
    for name, option in ZONE_OPTIONS.items():
        if name not in _UNLIMITED and (not option or boot.config.on(option)):
            border = min(max(limits.get(name, end << shift) >> shift, start), end)
            ranges.append((name, start, border))
            start = border
    return ranges


def node_zones(boot: EarlyBoot) -> list[ZoneSpan]:
    """Every zone with memory between its ends, node by node, the lowest first."""
    ranges, movable = zone_ranges(boot), movable_starts(boot)
    top = max((end for _, start, end in ranges if start < end), default=0)
    found = []
    for nid, pieces in _node_memory(boot).items():
        first, last = pieces[0][0], pieces[-1][1]
        border = movable.get(nid, top)
        zones = [(name, start, min(end, border)) for name, start, end in ranges]
        for name, start, end in [*zones, ("Movable", border, top)]:
            start, end = max(start, first), min(end, last)
            if any(within(pieces, start, end)):
                found.append(ZoneSpan(name, start, end, nid))
    return found


def _node_memory(boot: EarlyBoot) -> dict[int, list[tuple[int, int]]]:
    """Node -> its memory as whole pages, ascending."""
    size = boot.page_size
    nodes: dict[int, list[tuple[int, int]]] = {nid: [] for nid in boot.nodes()}
    for region in boot.memblock.memory:
        start, end = div_round_up(region.base, size), region.end // size
        if start < end:
            nodes[region.nid].append((start, end))
    return {nid: pieces for nid, pieces in nodes.items() if pieces}


def _core_pages(boot: EarlyBoot, name: str, total: int) -> int:
    """``cmdline_parse_core()``: a size, or a percentage of all memory; in pages."""
    text = next((value for value in reversed(boot.params.values(name)) if value), "")
    size, rest = memparse(text)
    return total * size // 100 if rest.startswith("%") else size >> boot.config.page_shift


def _movable_node(boot: EarlyBoot) -> bool:
    """``movable_node_is_enabled()``: ZONE_MOVABLE is what can be unplugged, and no machine here has that."""
    return boot.config.on("MEMORY_HOTPLUG") and bool(boot.params.values("movable_node"))


def _mirrored_kernelcore(boot: EarlyBoot) -> bool:
    """``mirrored_kernelcore``: the kernel's is memory with a mirror, and no machine here has that."""
    return any("mirror" in (value or "").split(",") for value in boot.params.values("kernelcore"))


def movable_starts(boot: EarlyBoot) -> dict[int, int]:
    """``find_zone_movable_pfns_for_nodes()``: where ZONE_MOVABLE begins on each node that has it.

    ``kernelcore=`` and ``movablecore=`` are spread evenly over the nodes; what does not fit on one goes to
    the others.
    """
    if _movable_node(boot) or _mirrored_kernelcore(boot):
        return {}
    nodes = _node_memory(boot)
    total = sum(map(length, nodes.values()))
    kernelcore, movablecore = (_core_pages(boot, name, total) for name in ("kernelcore", "movablecore"))
    unit = 1 << boot.config.max_page_order()
    if movablecore:
        kernelcore = max(kernelcore, total - min(roundup(movablecore, unit), total))
    if not kernelcore or kernelcore >= total:
        return {}
    usable = next(start for _, start, end in reversed(zone_ranges(boot)) if start < end)
    starts = dict.fromkeys(nodes, 0)
    for left in range(len(nodes), 0, -1):
        share = kernelcore // left
        for nid, pieces in nodes.items():
            share = kernelcore // left if kernelcore < share else share
            kernelcore = max(kernelcore - _fill_node(pieces, starts, nid, share, usable), 0)
        if kernelcore <= left - 1:
            break
    rounded = {nid: roundup(start, unit) for nid, start in starts.items()}
    return {nid: start for nid, start in rounded.items() if start < nodes[nid][-1][1]}


def _fill_node(
    pieces: list[tuple[int, int]], starts: dict[int, int], nid: int, pages: int, usable: int
) -> int:
    """Keep ``pages`` of a node for the kernel, from where it stood; how many that were.

    What lies below ``usable``, where the zone begins that ZONE_MOVABLE is taken from, is the kernel's anyway.
    """
    taken, left = 0, pages
    for start, end in pieces:
        start = max(start, starts[nid])
        if start >= end:
            continue
        below = max(0, min(end, usable) - start)
        size = min(end - start - below, max(left - below, 0))
        starts[nid] = start + below + size
        taken += below + size
        left = max(left - below - size, 0)
        if not left and end > usable:
            break
    return taken


def free_area_init(boot: EarlyBoot) -> None:
    """The lines about zones and nodes."""
    log, size = boot.log, boot.page_size
    if _mirrored_kernelcore(boot) and not _movable_node(boot):
        log.printk(boot.abi.boot.mirror_line, LOGLEVEL_WARNING)
    log.printk("Zone ranges:")
    for name, start, end in zone_ranges(boot):
        where = f"[mem {start * size:#018x}-{end * size - 1:#018x}]" if start < end else "empty"
        log.printk(f"  {name:<8s} {where}")
    if boot.config.on("ZONE_DEVICE"):
        log.printk("  Device   empty")
    log.printk("Movable zone start for each node")
    for nid, start in movable_starts(boot).items():
        log.printk(f"  Node {nid}: {start * size:#018x}")
    log.printk("Early memory node ranges")
    for region in boot.memblock.memory:
        start, end = roundup(region.base, size), rounddown(region.end, size)
        if start < end:
            log.printk(f"  node {region.nid:3d}: [mem {start:#018x}-{end - 1:#018x}]")
    for nid, pieces in _node_memory(boot).items():
        span = f"[mem {pieces[0][0] * size:#018x}-{pieces[-1][1] * size - 1:#018x}]"
        log.printk(f"Initmem setup node {nid} {span}")
        if boot.abi.boot.zone_details:
            _zone_details(boot, nid)


def _zone_details(boot: EarlyBoot, nid: int) -> None:
    """free_area_init_core(): what each zone's memmap takes, and its batch."""
    log, pieces = boot.log, _node_memory(boot)[nid]
    log.printk(f"On node {nid} totalpages: {length(pieces)}", LOGLEVEL_DEBUG)
    first = next((name for name, start, end in zone_ranges(boot)), "")
    for name, present, memmap, reserve in _early_zones(boot, nid):
        if name != "HighMem":
            log.printk(f"  {name} zone: {memmap} pages used for memmap", LOGLEVEL_DEBUG)
        if name == first:
            log.printk(f"  {name} zone: {reserve} pages reserved", LOGLEVEL_DEBUG)
        free = present - reserve - (0 if name == "HighMem" else memmap)
        batch = zone_batchsize(boot.abi.mm, free, boot.config.page_shift)
        log.printk(f"  {name} zone: {present} pages, LIFO batch:{batch}", LOGLEVEL_DEBUG)


def _early_zones(boot: EarlyBoot, nid: int) -> Iterator[tuple[str, int, int, int]]:
    """(name, pages present, pages of memmap, pages reserved) of a node's zones."""
    pieces = _node_memory(boot)[nid]
    first = next(name for name, _, _ in zone_ranges(boot))
    for name, low, high, _ in (zone for zone in node_zones(boot) if zone.nid == nid):
        present = length(within(pieces, low, high))
        if not present:
            continue
        reserve = boot.abi.boot.dma_reserve if boot.config.arch == "x86_64" and name == first else 0
        yield name, present, _memmap_pages(boot, high - low, present), reserve


def build_all_zonelists(boot: EarlyBoot) -> None:
    """``build_all_zonelists()``: its lines."""
    zones = [zone for nid in boot.nodes() for zone in _early_zones(boot, nid)]
    total = sum(present for _, present, _, _ in zones)
    if not boot.abi.boot.zonelists_count_all:
        total -= sum(reserve + (0 if name == "HighMem" else memmap) for name, _, memmap, reserve in zones)
    grouping = "off" if total < MIGRATE_TYPES << boot.config.pageblock_order() else "on"
    nodes = len(boot.nodes())
    boot.log.printk(f"Built {nodes} zonelists, mobility grouping {grouping}.  Total pages: {total}")
    if boot.config.on("NUMA"):
        lowest, *_ = (name for name, _, _ in zone_ranges(boot))  # policy_zone is 0 where none is found
        names = (name for name, _, _, _ in zones if name != "Movable")
        highest = max(names, key=lambda name: ZONE_RANKS[name], default=lowest)
        boot.log.printk(f"Policy zone: {highest}")


def _memmap_pages(boot: EarlyBoot, spanned: int, present: int) -> int:
    """calc_memmap_size(): by the span unless more than a sixteenth of it are holes."""
    pages = present if spanned > present + (present >> 4) else spanned
    return div_round_up(pages * boot.struct_page_bytes, boot.page_size)
