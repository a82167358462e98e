"""The figures of /proc as numbers, and the equations between its files that hold at every moment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

#: What a task of each kind is called in meminfo; a kernel's own pages have no name there.
KINDS = {"anon": "AnonPages", "tmpfs": "Shmem", "slab": "SReclaimable"}


class ZoneFigures(NamedTuple):
    """A zone in zoneinfo, buddyinfo and pagetypeinfo; counts in pages, ``types`` free blocks by order."""

    zoneinfo: dict[str, int]
    free_blocks: list[int]
    types: dict[str, list[int]]
    blocks: dict[str, int]


class Figures:
    """One look at every file of a machine; ``read`` gives the text of a path such as ``proc/vmstat``."""

    def __init__(self, read: Callable[[str], str]) -> None:
        self.meminfo = {
            line.split(":")[0]: int(line.split()[1]) for line in read("proc/meminfo").splitlines()
        }
        self.vmstat = {name: int(value) for name, value in map(str.split, read("proc/vmstat").splitlines())}
        self.tasks = [line.split("\t") for line in read("sim/tasks").splitlines()[1:]]
        types, blocks = _pagetypeinfo(read("proc/pagetypeinfo"))
        buddies = {name: list(map(int, rest.split())) for name, rest in _zones(read("proc/buddyinfo"))}
        sections = re.split(r"(?m)^Node 0, zone +(\w+)\n", read("proc/zoneinfo"))[1:]
        self.node = _numbers(sections[1].partition("  pages free")[0])
        self.zones: dict[str, ZoneFigures] = {}
        for name, text in zip(sections[::2], sections[1::2], strict=True):
            if name in buddies:
                zoneinfo = _numbers(text[text.index("  pages free") :])
                self.zones[name] = ZoneFigures(zoneinfo, buddies[name], types[name], blocks[name])

    def total(self, field: str) -> int:
        """A field of zoneinfo over all zones."""
        return sum(zone.zoneinfo.get(field, 0) for zone in self.zones.values())

    def by_kind(self, kind: str) -> int:
        """Pages that tasks of a kind hold."""
        return sum(int(task[2]) for task in self.tasks if task[1] == kind)


def _numbers(text: str) -> dict[str, int]:
    """Every ``name number`` line; of those with one name the first."""
    lines = re.findall(r"(?m)^ +(?:pages )?(\w+) +(\d+)$", text)
    return {name: int(value) for name, value in reversed(lines)}


def _zones(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match = re.fullmatch(r"Node 0, zone +(\w+) +(.*?) *", line)
        assert match, line
        yield match[1], match[2]


def _pagetypeinfo(text: str) -> tuple[dict[str, dict[str, list[int]]], dict[str, dict[str, int]]]:
    """Free blocks by zone, type and order; page blocks by zone and type."""
    types: dict[str, dict[str, list[int]]] = {}
    for zone, name, counts in re.findall(r"(?m)^Node +0, zone +(\w+), type +(\w+) +(.*?) *$", text):
        types.setdefault(zone, {})[name] = [int(count) for count in counts.split()]
    header, _, table = text[text.index("Number of blocks type") :].partition("\n")
    names = header.split()[4:]
    blocks = {zone: dict(zip(names, map(int, row.split()), strict=True)) for zone, row in _zones(table)}
    return types, blocks


def pages(blocks: list[int]) -> int:
    """Pages in so many blocks of each order."""
    return sum(count << order for order, count in enumerate(blocks))


def check_free(now: Figures) -> None:
    """Free memory by order, by type, by zone, and in all."""
    free = free_cma = 0
    for zone in now.zones.values():
        assert zone.free_blocks == [sum(column) for column in zip(*zone.types.values(), strict=True)]
        assert pages(zone.free_blocks) == zone.zoneinfo["free"]
        assert zone.zoneinfo.get("nr_free_pages", zone.zoneinfo["free"]) == zone.zoneinfo["free"]
        assert pages(zone.types["CMA"]) == zone.zoneinfo["nr_free_cma"]
        assert not pages(zone.types["Isolate"])
        assert not zone.blocks["Isolate"]
        free, free_cma = free + zone.zoneinfo["free"], free_cma + zone.zoneinfo["nr_free_cma"]
    assert free * 4 == now.meminfo["MemFree"]
    assert free == now.vmstat["nr_free_pages"]
    assert free_cma * 4 == now.meminfo["CmaFree"]
    assert free_cma == now.vmstat["nr_free_cma"]
    assert now.total("managed") * 4 == now.meminfo["MemTotal"]
    assert free_cma * 4 <= now.meminfo["CmaTotal"]


def check_used(now: Figures) -> None:
    """Used memory by what it is used for: meminfo, vmstat, zoneinfo, sim/tasks."""
    info, stat = now.meminfo, now.vmstat
    for kind, name in KINDS.items():
        assert info[name] >= now.by_kind(kind) * 4, name
    pairs = {
        "AnonPages": "nr_anon_pages",
        "Shmem": "nr_shmem",
        "Mlocked": "nr_mlock",
        "Unevictable": "nr_unevictable",
        "SReclaimable": "nr_slab_reclaimable",
        "SUnreclaim": "nr_slab_unreclaimable",
        "Inactive(anon)": "nr_inactive_anon",
        "Inactive(file)": "nr_inactive_file",
        "Active(anon)": "nr_active_anon",
        "Active(file)": "nr_active_file",
    }
    for name, item in pairs.items():
        assert info[name] == stat[item] * 4, name
    assert info["Cached"] + info["Buffers"] + info["SwapCached"] == stat["nr_file_pages"] * 4
    assert info["Slab"] == info["SReclaimable"] + info["SUnreclaim"]
    for side in ("Active", "Inactive"):
        assert info[side] == info[f"{side}(anon)"] + info[f"{side}(file)"]
    lru = info["Active"] + info["Inactive"] + info["Unevictable"]
    assert lru == info["AnonPages"] + info["Cached"] + info["Buffers"]
    assert info["MemFree"] <= info["MemTotal"] - lru - info["Slab"]


def check_items(now: Figures) -> None:
    """An item that vmstat and zoneinfo both show is the same in both; the zones add up to it."""
    for name, value in now.vmstat.items():
        if name in now.node:
            assert now.node[name] == value, name
        if any(name in zone.zoneinfo for zone in now.zones.values()):
            assert now.total(name) == value, name


def check(now: Figures) -> None:
    """Everything that adds up at any moment."""
    check_free(now)
    check_used(now)
    check_items(now)


def check_since(before: Figures, now: Figures) -> None:
    """Event counters do not fall, and what is free changed by what was taken and given back."""
    for name, value in before.vmstat.items():
        if not name.startswith("nr_") or name in ("nr_dirtied", "nr_written"):
            assert now.vmstat[name] >= value, name
