"""Devices of a tree: names, addresses, dma-ranges, and trees that make no sense."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from dma_support import boot, write_tree
from hypothesis import given
from hypothesis import strategies as st

from cmafs.drivers.of_device import of_device_make_bus_id
from cmafs.of.address import of_dma_get_max_cpu_address, of_dma_get_range, of_translate_address
from cmafs.of.base import DeviceNode


def cells(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def node(name: str, parent: DeviceNode | None = None, **props: bytes) -> DeviceNode:
    made = DeviceNode(
        name, {key.replace("_", "-").replace("n-", "#", 1): value for key, value in props.items()}
    )
    if parent is not None:
        parent.append(made)
    return made


def tree(**soc: bytes) -> tuple[DeviceNode, DeviceNode]:
    root = node("", n_address_cells=cells(2), n_size_cells=cells(2))
    return root, node("soc@0", root, n_address_cells=cells(1), n_size_cells=cells(1), **soc)


def test_a_device_is_called_by_its_translated_address():
    _, soc = tree(ranges=cells(0x1000, 0, 0xFE000000, 0x1000000))
    assert of_device_make_bus_id(node("uart@2000", soc, reg=cells(0x2000, 0x100))) == "fe001000.uart"
    assert of_translate_address(node("out@0", soc, reg=cells(0x0, 0x100))) is None  # before the range begins
    assert of_device_make_bus_id(node("leds", soc)) == "soc@0:leds"


def test_an_address_of_another_bus_is_none_of_memory():
    _, soc = tree(ranges=b"")
    i2c = node("i2c@100", soc, reg=cells(0x100, 0x10), n_address_cells=cells(1), n_size_cells=cells(0))
    assert of_translate_address(node("codec@1a", i2c, reg=cells(0x1A))) is None
    assert of_device_make_bus_id(node("codec@1a", i2c, reg=cells(0x1A))) == "100.i2c:codec@1a"
    assert of_translate_address(node("x@0", node("no-ranges", soc), reg=cells(0, 0, 0, 1))) is None


def test_dma_ranges_of_the_nearest_bus_that_has_any():
    _, soc = tree(ranges=b"", dma_ranges=cells(0xC0000000, 0, 0, 0x40000000))
    inner = node("bus", soc, n_address_cells=cells(1), n_size_cells=cells(1), ranges=b"", dma_ranges=b"")
    for bus in (soc, inner):
        assert of_dma_get_range(node("dev@1", bus, reg=cells(1, 1))) == [(0, 0xC0000000, 0x40000000)]


def test_no_dma_ranges_is_no_limit():
    root, soc = tree(ranges=b"")
    assert of_dma_get_range(node("dev@1", soc, reg=cells(1, 1))) == []
    assert of_dma_get_range(node("top", root)) == []


@given(*[st.integers(0, 3)] * 4, st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=20))
def test_any_properties_are_survived(na, ns, pna, pns, ranges, dma_ranges, reg):
    root = node("", n_address_cells=cells(pna), n_size_cells=cells(pns))
    bus = node("bus@0", root, n_address_cells=cells(na), n_size_cells=cells(ns), ranges=ranges)
    bus.props["dma-ranges"] = dma_ranges
    dev = node("dev@0", bus, reg=reg)
    name = of_device_make_bus_id(dev)
    assert name.endswith((".dev", "dev@0"))
    assert all(size for _, _, size in of_dma_get_range(dev))
    assert 0 <= of_dma_get_max_cpu_address(root) < 1 << 64


@pytest.mark.parametrize(("kernel", "kept"), [("5.10", True), ("6.1", False)])
def test_a_device_is_coherent_and_on_a_node_as_its_bus_is(tmp_path: Path, kernel: str, kept: bool) -> None:
    """of_dma_is_coherent(), of_node_to_nid(): the nearest node above that says so; later kernels undo it."""
    extra = """
        bus@0 {
            compatible = "simple-bus"; dma-coherent; numa-node-id = <1>;
            #address-cells = <1>; #size-cells = <1>; ranges;
            plain@1000 { compatible = "x"; reg = <0x1000 4>; };
            apart@2000 { compatible = "x"; reg = <0x2000 4>; dma-noncoherent; numa-node-id = <0>; };
        };
        alone@3000 { compatible = "x"; reg = <0x3000 4>; };"""
    devices = boot(write_tree(tmp_path, extra), kernel).devices
    names = ("1000.plain", "2000.apart", "3000.alone")
    assert [devices[name].dma_coherent for name in names] == [True, kept, False]
    assert [devices[name].numa_node for name in names] == [1, 0, -1]


@pytest.mark.parametrize(
    ("buses", "reached"),
    [
        (("", ""), (False, False)),
        (("", "dma-ranges;"), (False, False)),
        (("dma-ranges;", ""), (False, True)),
        (("dma-ranges;", "dma-ranges;"), (True, True)),
    ],
)
def test_buses_on_the_way_to_dma_ranges(
    tmp_path: Path, buses: tuple[str, str], reached: tuple[bool, bool]
) -> None:
    """of_dma_get_range(): above a device the first bus may lack them, before 5.10 none may."""
    extra = 'leaf@1000 { compatible = "x"; reg = <0x1000 4>; };'
    for name, ranges in (("c", buses[1]), ("b", buses[0]), ("a", "dma-ranges = <0 0 0x40000000>;")):
        cells = "#address-cells = <1>; #size-cells = <1>; ranges;"
        extra = f'{name} {{ compatible = "simple-bus"; {cells} {ranges} {extra} }};'
    tree = write_tree(tmp_path, extra)
    found = tuple(bool(boot(tree, kernel).devices["1000.leaf"].dma_range_map) for kernel in ("5.4", "6.12"))
    assert found == reached
