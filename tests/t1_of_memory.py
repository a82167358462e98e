"""Addresses and memory of the device tree: buses, dma-ranges, /memory nodes; each refusal to the letter."""

from __future__ import annotations

import pytest
from boot_support import parse_dts

from cmafs.mm.memblock import Memblock
from cmafs.of.address import (
    PHYS_ADDR_MAX,
    of_dma_get_max_cpu_address,
    of_dma_get_range,
    of_translate_address,
)
from cmafs.of.base import DeviceNode, DeviceTree, DtError
from cmafs.of.memory import early_init_dt_add_memory_arch, early_init_dt_scan_memory

M, G = 1 << 20, 1 << 30
CELLS = "#address-cells = <1>; #size-cells = <1>;"


def bus(props: str = "", inner: str = "ranges;", cells: str = CELLS) -> DeviceTree:
    """/soc/inner/dev@1000, all of one cell; the properties of both buses."""
    return parse_dts(
        f"""/dts-v1/; / {{ {CELLS} soc {{ {CELLS} {props}
        inner {{ {cells} {inner} dev@1000 {{ reg = <0x1000 0x100>; }}; }}; }}; }};"""
    )


def device(tree: DeviceTree) -> DeviceNode:
    return tree.root.children["soc"].children["inner"].children["dev@1000"]


@pytest.mark.parametrize(
    ("props", "inner", "cells", "address"),
    [
        ("ranges;", "ranges;", CELLS, 0x1000),
        ("ranges = <0x1000 0x50001000 0x10>;", "ranges;", CELLS, 0x50001000),
        ("ranges = <0xff1 0x50000000 0x10>;", "ranges;", CELLS, 0x5000000F),  # its last byte
        ("ranges = <0xff0 0x50000000 0x10>;", "ranges;", CELLS, None),  # one behind it
        ("ranges = <0x1001 0x50000000 0x10>;", "ranges;", CELLS, None),
        ("ranges = <0 0x70000000 0x10 0x800 0x60000000 0x1000>;", "ranges;", CELLS, 0x60000800),
        ("ranges = <0x90000 0x50000000 0x2000>;", "ranges = <0 0x90000 0x2000>;", CELLS, 0x50001000),
        ("", "ranges;", CELLS, None),
        ("ranges;", "", CELLS, None),
        ("ranges;", "ranges;", "#address-cells = <1>; #size-cells = <0>;", None),  # such as I2C
    ],
)
def test_of_translate_address(props: str, inner: str, cells: str, address: int | None) -> None:
    assert of_translate_address(device(bus(props, inner, cells))) == address


def test_what_has_no_address() -> None:
    tree = bus("ranges;")
    assert of_translate_address(tree.root) is None
    assert of_translate_address(tree.root.children["soc"]) is None


@pytest.mark.parametrize(
    ("props", "inner", "ranges", "last"),
    [
        ("", "", [], PHYS_ADDR_MAX),
        ("dma-ranges;", "dma-ranges;", [], PHYS_ADDR_MAX),
        ("dma-ranges = <0 0x40000000 0x20000000>;", "", [(0x40000000, 0, 0x20000000)], 0x5FFFFFFF),
        ("", "dma-ranges = <0 0x40000000 0x20000000>;", [(0x40000000, 0, 0x20000000)], 0x5FFFFFFF),
        (
            "dma-ranges = <0x1000 0x40000000 0x1000>;",
            "dma-ranges = <0 0x1000 0x10 0x10 0x1800 0x20>;",
            [(0x40000000, 0, 0x10), (0x40000800, 0x10, 0x20)],
            0x4000081F,
        ),
        (  # what the bus above does not translate is left out; for the limit it wraps around
            "dma-ranges = <0x1000 0x40000000 0x1000>;",
            "dma-ranges = <0 0x1000 0x10 0x10 0x2000 0x20>;",
            [(0x40000000, 0, 0x10)],
            0x4000000F,
        ),
        ("", "dma-ranges = <0 0x40000000 0x10 0x20 0x50000000 0>;", [(0x40000000, 0, 0x10)], 0x4FFFFFFF),
        ("", "dma-ranges = <0 0x50000000 0x10 0x20 0x40000000 0x10>;", None, 0x5000000F),
    ],
)
def test_dma_ranges(props: str, inner: str, ranges: list[tuple[int, int, int]] | None, last: int) -> None:
    """drivers/of/address.c:of_dma_get_range(), of_dma_get_max_cpu_address()@v6.12"""
    tree = bus(props, inner)
    found = of_dma_get_range(device(tree))
    assert ranges is None or found == ranges
    assert of_dma_get_max_cpu_address(tree.root) == last


@pytest.mark.parametrize(
    ("ranges", "last"),
    [
        ("0 0xffffffff 0xffffe000 0 0x1fff", (1 << 64) - 2),
        ("0 0xffffffff 0xffffe000 0 0x2000", 0),  # an end of 2^64 is 0, and no end at all
        ("0 0xffffffff 0xffffe000 0 0x3000", 0xFFF),
        ("0 0 0x40000000 0 0x10 0x20 0 0x3fffffff 0 0x10", 0x4000000F),  # ends where the first one's last is
        ("0 0 0x40000000 0 0x10 0x20 0 0x3fffffff 0 0x11", 0x4000000F),
        ("0 0 0x40000000 0 0x10 0x20 0 0x3fffffff 0 0x12", 0x40000010),
        ("0 0 0 0 1", 0),
        ("0 0 0 0 2", 1),
    ],
)
def test_the_last_byte_of_dma_ranges(ranges: str, last: int) -> None:
    """drivers/of/address.c:of_dma_get_max_cpu_address()@v6.12 counts in 64 bits."""
    tree = parse_dts(
        f"""/dts-v1/; / {{ #address-cells = <2>; #size-cells = <2>;
        soc {{ #address-cells = <1>; #size-cells = <2>; dma-ranges = <{ranges}>; }}; }};"""
    )
    assert of_dma_get_max_cpu_address(tree.root) == last


def test_the_smallest_reach_of_all_buses_counts() -> None:
    one = "{n} {{ {cells} {more} dma-ranges = <0 0 {size}>; }};"
    small = one.format(n="a", cells=CELLS, more="", size="0x10000000")
    large = one.format(n="b", cells=CELLS, more="", size="0x40000000")
    off = one.format(n="c", cells=CELLS, more='status = "disabled";', size="0x1000")
    for nodes in (small + large + off, off + large + small):
        tree = parse_dts(f"/dts-v1/; / {{ {CELLS} {nodes} }};")
        assert of_dma_get_max_cpu_address(tree.root) == 0x0FFFFFFF


# memory


def scan(
    text: str, memory: int | None = None, numa: int = 0, named: bool = False, limit: int = 1 << 48
) -> tuple[list[tuple[int, ...]], bool]:
    """(base, end, node) of memory, and whether the tree says the nodes."""
    head = "#address-cells = <2>; #size-cells = <2>;"
    memblock, tree = Memblock(), parse_dts(f"/dts-v1/; / {{ {head} {text} }};")
    described = early_init_dt_scan_memory(memblock, tree, memory, numa, named, 4096, limit)
    return [(region.base, region.end, region.nid) for region in memblock.memory], described


def node(name: str, reg: str, more: str = "", kind: str = 'device_type = "memory";') -> str:
    return f"{name} {{ {kind} reg = <{reg}>; {more} }};"


@pytest.mark.parametrize(
    ("base", "size", "found"),
    [
        (0x1000, 0x2000, (0x1000, 0x2000)),
        (0x1001, 0x2FFF, (0x2000, 0x2000)),
        (0x1000, 0x2FFF, (0x1000, 0x2000)),
        (0x1001, 0x1FFE, (0x2000, 0)),
        (0x9000, 0x2000, (0x9000, 0x1000)),
        (0xA000, 0x1000, (0xA000, 0)),
        (0xB000, 0x1000, (0xB000, 0)),
    ],
)
def test_whole_pages_below_a_limit(base: int, size: int, found: tuple[int, int]) -> None:
    """drivers/of/fdt.c:early_init_dt_add_memory_arch()@v6.12"""
    assert early_init_dt_add_memory_arch(base, size, 4096, 0xA000) == found


def test_memory_nodes() -> None:
    two = node("memory@40000000", "0 0x40000000 0 0x1000") + node("m", "1 0 0 0x1000 1 0x2000 0 0x1000")
    assert scan(two) == (
        [(G, G + 4096, 0), (4 * G, 4 * G + 4096, 0), (4 * G + 8192, 4 * G + 12288, 0)],
        False,
    )
    off = node("memory@0", "0 0 0 0x1000", 'status = "disabled";')
    plain = node("memory@80000000", "0 0x80000000 0 0x1000", kind="")
    assert scan(two + off + plain) == scan(two)
    assert scan(plain, named=True) == ([(2 * G, 2 * G + 4096, 0)], False)
    usable = node("memory@0", "0 0 0 0x9000", "linux,usable-memory = <0 0x4000 0 0x1000>;")
    assert scan(usable)[0] == [(0x4000, 0x5000, 0)]


@pytest.mark.parametrize(
    ("ids", "most", "nodes"),
    [
        ((0, 1), 4, [0, 1]),
        ((0, 3), 4, [0, 3]),
        ((0, 4), 4, None),  # no such node: none is believed
        ((1, None), 4, None),
        ((0, 1), 0, None),
    ],
)
def test_numa_nodes_of_memory(ids: tuple[int | None, ...], most: int, nodes: list[int] | None) -> None:
    texts = (
        node(f"memory@{i}", f"{i} 0 0 0x1000", f"numa-node-id = <{nid}>;" if nid is not None else "")
        for i, nid in enumerate(ids)
    )
    memory, described = scan("".join(texts), numa=most)
    assert [nid for _, _, nid in memory] == (nodes or [0, 0])
    assert described is bool(nodes)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        (node("memory@60000000", "0 0x60000000 0 0") + node("memory@5", "0 0x50000000 0 0"), 0x50000000),
        (
            "reserved-memory { a { reg = <0 0xbfffffff 0 1>; }; b { reg = <0 0xc0000000 0 1>; }; };",
            0x80000000,
        ),
        ("reserved-memory { a { reg = <0 0xc0000000 0 1>; }; };", 0xC0000000),
        ("reserved-memory { a { reg = <0 0x3fffffff 0 1>; }; };", 0),
        ("", 0),
    ],
)
def test_where_given_memory_begins(text: str, base: int) -> None:
    assert scan(text, memory=64 * M) == ([(base, base + 64 * M, 0)], False)


SAY = "say how much with --memory SIZE"


@pytest.mark.parametrize(
    ("text", "memory", "why"),
    [
        ("", None, 'no memory: no node has device_type = "memory"; add one or give --memory SIZE'),
        ("", 0xFFF, "--memory 0xfff leaves no whole page of memory; give a larger size"),
        (
            node("memory@0", "0 0 0 0"),
            None,
            f"no memory: /memory@0 has size 0, which a boot loader fills in; {SAY}",
        ),
        (
            node("memory@0", "0 0x800 0 0x1000"),
            None,
            f"no memory: /memory@0 has no whole page that this machine can address; {SAY}",
        ),
        (
            node("memory@0", "0 0 0x1000"),
            None,
            f"no memory: reg of /memory@0 is no (address, size) pair of the root's 2 and 2 cells; {SAY}",
        ),
        (
            node("memory@0", "0 0 0 0x1000 0x1000 0 0 0x1000"),
            None,
            "memory spans 16.0 TiB; at most 16 can be simulated",
        ),
        (
            node("memory@0", "0 0 0 0x1000 0x2000 0 0 0x1000"),
            None,
            "memory spans 32.0 TiB; at most 16 can be simulated",
        ),
    ],
)
def test_memory_that_cannot_be(text: str, memory: int | None, why: str) -> None:
    with pytest.raises(DtError) as refused:
        scan(text, memory)
    assert str(refused.value) == f"the device tree: {why}"


def test_the_largest_span() -> None:
    assert scan(node("memory@0", "0 0 0 0x1000 0xfff 0xfffff000 0 0x1000"))[0][-1][1] == 1 << 44
