"""Memory of several nodes: zones of each, the nearer node first, reserves and files by node.

Modules: cmafs.arch.zones, cmafs.mm.mm_init, cmafs.fs.proc.vmstat.
"""

from __future__ import annotations

import re

import pytest
from boot_support import areas, boot, parse_dts, tree_of
from hypothesis import example, given
from hypothesis import strategies as st

from cmafs.fs.namei import Syscalls
from cmafs.fs.tree import build_tree
from cmafs.init.machine import BootedMachine
from cmafs.mm.gfp import GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, zonelist
from cmafs.mm.mmzone import ZONE_RANKS
from cmafs.mm.vmscan import try_to_free_pages
from cmafs.sim.validate import validate
from cmafs.sim.workload import dirty, kill, spawn

M, G = 1 << 20, 1 << 30
CONFIG = ("NUMA=y", "ZONE_DMA=y", "ZONE_DMA32=y", "CMA_AREAS=20")


def two_nodes(
    cmdline: str = "cma=64M", first: int = 4 * G, second: int = 2 * G, pool: str = ""
) -> BootedMachine:
    """Two nodes side by side from 1 GiB on, of so many bytes."""
    banks = ((0, G, first), (1, G + first, second))
    nodes = "".join(
        f'memory@{base:x} {{ device_type = "memory"; numa-node-id = <{nid}>;'
        f" reg = <{base >> 32:#x} {base & 0xFFFFFFFF:#x} {size >> 32:#x} {size & 0xFFFFFFFF:#x}>; }};"
        for nid, base, size in banks
    )
    if pool:
        compatible = 'compatible = "shared-dma-pool"; reusable'
        pool = f"pool {{ {compatible}; reg = <0 {pool} 0 {64 * M}>; }};"
        nodes += f"reserved-memory {{ #address-cells = <2>; #size-cells = <2>; ranges; {pool} }};"
    tree = parse_dts(f"/dts-v1/; / {{ #address-cells = <2>; #size-cells = <2>; {nodes} }};")
    return boot(tree, "6.12", cmdline, config=CONFIG)


def names(machine: BootedMachine) -> list[tuple[int, str]]:
    return [(zone.nid, zone.name) for zone in machine.memory.zones]


def read(machine: BootedMachine, path: str) -> str:
    return Syscalls(build_tree(machine)).read_file(path).decode()


def test_zones_belong_to_nodes() -> None:
    machine = two_nodes()
    assert names(machine) == [(0, "DMA"), (0, "Normal"), (1, "Normal")]
    assert names(two_nodes(first=2 * G)) == [(0, "DMA"), (1, "DMA"), (1, "Normal")]


@pytest.mark.parametrize(
    ("core", "starts"),
    [
        ("kernelcore=512M", {0: G + 256 * M, 1: 2 * G + 256 * M}),
        ("kernelcore=2560M", {1: 2 * G + 1536 * M}),  # all of node 0 and more
        ("kernelcore=4K", {0: G, 1: 2 * G}),
        ("movablecore=1G", {1: 3 * G}),  # all of node 0, to the page
        ("kernelcore=3G", {}),
        ("kernelcore=25%", {0: G + 384 * M, 1: 2 * G + 384 * M}),
        ("movablecore=50%", {0: G + 768 * M, 1: 2 * G + 768 * M}),
        ("kernelcore=100%", {}),
        ("kernelcore=mirror movablecore=1G", {}),  # T 6.12
        ("kernelcore=1G kernelcore=mirror", {}),
        ("movable_node movablecore=1G", {1: 3 * G}),  # MEMORY_HOTPLUG is off
    ],
)
def test_where_the_movable_zone_begins(core: str, starts: dict[int, int]) -> None:
    """Spread evenly over a node of 1 GiB and one of 2, in whole blocks; all memory is ZONE_DMA's."""
    machine = two_nodes(core, first=G, second=2 * G)
    log = machine.log.dmesg()
    found = re.findall(r"\]   Node (\d): (0x\w+)$", log, re.M)
    assert {int(nid): int(start, 16) for nid, start in found} == starts


def test_memory_below_the_highest_zone_is_the_kernel_s() -> None:
    """mm/mm_init.c:find_usable_zone_for_movable()@v6.12: ZONE_MOVABLE is taken from it. The 3 GiB of node 0
    in ZONE_DMA count; what is left of 4 GiB is spread over what there is above, 512 MiB on each node.
    """
    log = two_nodes("kernelcore=4G", first=4 * G, second=2 * G).log.dmesg()
    assert re.findall(r"\]   Node (\d): (0x\w+)$", log, re.M) == [
        ("0", f"{9 * G // 2:#018x}"),
        ("1", f"{11 * G // 2:#018x}"),
    ]


def movable_starts(banks: list[tuple[int, int, int]], core: str, config: tuple[str, ...]) -> dict[int, int]:
    """Node -> where its ZONE_MOVABLE begins in MiB; banks of (node, base, end) in MiB."""
    nodes = "".join(
        f'memory@{base:x} {{ device_type = "memory"; numa-node-id = <{nid}>; '
        f"reg = <{base >> 12} {(base << 20) & 0xFFFFFFFF:#x} {end - base >> 12} "
        f"{((end - base) << 20) & 0xFFFFFFFF:#x}>; }};"
        for nid, base, end in banks
    )
    tree = parse_dts(f"/dts-v1/; / {{ #address-cells = <2>; #size-cells = <2>; {nodes} }};")
    log = boot(tree, "6.12", f"cma=0 kernelcore={core}", config=("NUMA=y", "ZONE_DMA=n", *config)).log.dmesg()
    found = re.findall(r"\]   Node (\d): (0x\w+)$", log, re.M)
    return {int(nid): int(start, 16) >> 20 for nid, start in found}


@pytest.mark.parametrize(
    ("core", "start"),
    [
        ("256M", 1280),
        ("512M", 1536),  # all of the first bank, to the page
        ("516M", 2052),
        ("768M", 2304),
    ],
)
def test_the_kernel_s_share_of_a_node_with_a_hole(core: str, start: int) -> None:
    """mm/mm_init.c:find_zone_movable_pfns_for_nodes()@v6.12: from its first bank on, and on again where
    another node had less than its share.
    """
    banks = [(0, 1024, 1536), (0, 2048, 2560)]
    assert movable_starts(banks, core, ("ZONE_DMA32=n",)) == {0: start}
    if core == "512M":
        assert movable_starts([*banks, (1, 3072, 3328)], "1G", ("ZONE_DMA32=n",)) == {0: 2304}


@pytest.mark.parametrize(
    ("banks", "core", "start"),
    [
        ([(3, 5), (6, 8)], "2560M", 6 * 1024 + 512),
        ([(3, 5), (6, 8)], "1536M", 4 * 1024 + 512),
        ([(3, 5), (6, 8)], "512M", 4 * 1024),
        ([(3, 4), (6, 8)], "512M", 6 * 1024),
        ([(3, 4), (6, 8)], "1G", 6 * 1024),
        ([(2, 3), (6, 8)], "1536M", 6 * 1024 + 512),
    ],
)
def test_banks_on_both_sides_of_the_highest_zone(banks: list[tuple[int, int]], core: str, start: int) -> None:
    """Below 4 GiB, where ZONE_DMA32 ends, all is the kernel's."""
    of_node = [(0, low << 10, high << 10) for low, high in banks]
    assert movable_starts(of_node, core, ("ZONE_DMA32=y",)) == {0: start}


def test_what_is_left_over_goes_to_other_nodes_to_the_page() -> None:
    """Node 0 lacks two pages of its share; node 1 keeps them, so a block more, as its share was whole blocks.
    One page that is left over for a node is nobody's.
    """
    for pages, start in ((262146, 2 * G + 4 * M), (262144, 2 * G)):
        log = two_nodes(f"cma=0 kernelcore={pages * 4}K", 512 * M - 4096, G).log.dmesg()
        assert re.findall(r"\]   Node (\d): (0x\w+)$", log, re.M) == [("1", f"{start:#018x}")]


def test_caches_of_every_zone_that_a_request_may_use_are_dropped() -> None:
    """mm/vmscan.c:shrink_node()@v6.12: up to its highest zone, here with ZONE_MOVABLE between two of them."""
    memory = two_nodes("cma=0 kernelcore=128M", first=128 * M, second=256 * M).memory
    assert [(zone.nid, zone.name) for zone in memory.zones] == [
        (0, "DMA"), (0, "Movable"), (1, "DMA"), (1, "Movable"),
    ]  # fmt: skip
    spawn(memory, "cache", "file", sum(zone.nr_free for zone in memory.zones) - 5000)
    before = [zone.nr_free for zone in memory.zones]
    freed = try_to_free_pages(memory, ZONE_RANKS["DMA"], 1 << 30)
    after = [zone.nr_free - free for zone, free in zip(memory.zones, before, strict=True)]
    assert after[1] == after[3] == 0 < min(after[0], after[2])
    assert freed == sum(after)


def test_memory_without_a_mirror_is_said() -> None:
    for kernel, said in (
        ("6.1", "This configuration results in"),
        ("6.6", "The system has no mirror memory"),
    ):
        words = "kernelcore=mirror movable_node"
        for config, times in (((), 1), (("MEMORY_HOTPLUG=y",), 0)):
            log = boot(tree_of(), kernel, words, "arm64", config).log.dmesg()
            assert log.count(said) == times
            assert log.find(said) < log.index("Zone ranges")


def test_movable_node_is_in_place_of_sizes() -> None:
    log = boot(tree_of(), "6.12", "movable_node movablecore=512M", "arm64", ("MEMORY_HOTPLUG=y",)).log.dmesg()
    assert "]   Node" not in log


def test_the_nearer_node_comes_first() -> None:
    memory = two_nodes().memory

    def order(gfp: int) -> list[tuple[int, str]]:
        return [(zone.nid, zone.name) for zone in zonelist(memory, gfp)]

    assert order(GFP_KERNEL) == [(0, "Normal"), (0, "DMA"), (1, "Normal")]
    assert order(GFP_HIGHUSER_MOVABLE) == order(GFP_KERNEL)
    assert order(GFP_DMA) == [(0, "DMA")]


def test_a_zone_keeps_a_reserve_from_its_own_node_s_higher_zones() -> None:
    dma, normal, far = two_nodes().memory.zones
    assert dma.lowmem_reserve[ZONE_RANKS["Normal"]] == normal.managed_pages // 256
    assert far.lowmem_reserve == [0] * len(ZONE_RANKS)
    assert far.watermark[0] > 0


def test_a_task_goes_on_to_the_next_node() -> None:
    machine = two_nodes()
    memory = machine.memory
    near, far = sum(zone.nr_free for zone in memory.zones[:2]), memory.zones[2]
    before = far.nr_free
    spawn(memory, "task", "anon", near)
    assert 0 < before - far.nr_free < near // 100
    assert validate(memory, list(machine.cma)) == []
    kill(memory, "task")
    assert far.nr_free == before


def test_the_files_speak_of_every_node() -> None:
    machine = two_nodes("cma=64M@0xc0000000", first=2 * G)
    zones = [("0", "DMA"), ("1", "DMA"), ("1", "Normal")]
    assert re.findall(r"^Node (\d), zone +(\w+)", read(machine, "/proc/buddyinfo"), re.M) == zones
    blocks = read(machine, "/proc/pagetypeinfo")
    assert blocks.count("Page block order: 9\n") == 2
    assert re.findall(r"^Node (\d), zone +DMA(?: +\d+){4} +32 ", blocks, re.M) == ["1"]
    info = read(machine, "/proc/zoneinfo")
    with_stats = re.findall(r"^Node (\d), zone +(\w+)\n  per-node stats", info, re.M)
    assert with_stats == [("0", "DMA"), ("1", "DMA")]
    assert re.findall(r"^        cma +(\d+)$", info, re.M).count("16384") == 1


def test_what_counts_for_no_zone_is_shown_with_the_first_node() -> None:
    machine = two_nodes("cma=0", first=96 * M, second=64 * M)
    spawn(machine.memory, "cache", "file", 30_000)
    dirty(machine.memory, "cache", 100)
    vmstat = dict(line.split() for line in read(machine, "/proc/vmstat").splitlines())
    shown = read(machine, "/proc/zoneinfo")
    for name, first in (("nr_dirty", 100), ("nr_inactive_file", None), ("nr_file_pages", None)):
        of_nodes = [int(count) for count in re.findall(rf"^      {name} +(\d+)$", shown, re.M)]
        assert len(of_nodes) == 2 and sum(of_nodes) == int(vmstat[name])
        assert min(of_nodes) > 0 if first is None else of_nodes[0] == first


def test_each_node_s_zones_follow_its_title_and_no_other_s() -> None:
    """mm/vmstat.c:walk_zones_in_node()@v6.12"""
    text = read(two_nodes(), "/proc/pagetypeinfo")
    zones = [("0", "DMA"), ("0", "Normal"), ("1", "Normal")]
    assert re.findall(r"^Node +(\d), zone +(\w+), type +Movable ", text, re.M) == zones
    assert re.findall(r"^Node (\d), zone +(\w+) +\d", text, re.M) == zones


@pytest.mark.parametrize("base", ["0xbe000000", "0xbfc00000"])
def test_an_area_across_nodes_is_not_activated(base: str) -> None:
    machine = two_nodes("cma=0", first=2 * G, pool=base)
    assert areas(machine) == [("pool", int(base, 16), 0)]
    assert "could not be activated" in "".join(machine.log.lines())


@given(st.lists(st.tuples(st.sampled_from(["anon", "file", "kernel"]), st.integers(1, 20_000)), max_size=3))
@example([("kernel", 13_015), ("file", 13_015), ("kernel", 13_015)])  # leaves too few movable page blocks
def test_any_load_leaves_both_nodes_sound(load: list[tuple[str, int]]) -> None:
    machine = two_nodes("cma=16M", first=96 * M, second=64 * M)
    free = [zone.nr_free for zone in machine.memory.zones]
    done = []
    for index, (kind, pages) in enumerate(load):
        try:
            spawn(machine.memory, f"t{index}", kind, pages)
        except OSError:
            continue
        done.append(f"t{index}")
        assert validate(machine.memory, list(machine.cma)) == []
    for name in done:
        kill(machine.memory, name)
    assert [zone.nr_free for zone in machine.memory.zones] == free
    assert validate(machine.memory, list(machine.cma)) == []
