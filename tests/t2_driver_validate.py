"""The consistency rules of drivers, each proved by breaking it."""

from __future__ import annotations

import pytest
from cma2010_support import two_regions
from dma_support import PAGE, M, boot, device, write_tree

import cmafs
from cmafs.drivers.dma.mapping import dma_alloc_coherent
from cmafs.mm.cma import Cma, cma_release
from cmafs.mm.gfp import GFP_ATOMIC
from cmafs.sim.validate_drivers import validate_2010, validate_buffers


def test_sound_machines_have_no_violations(tmp_path):
    machine = boot(write_tree(tmp_path))
    for name in ("1000.camera", "3000.dsp", "7000.plain", "8000.cached"):
        for size in (PAGE, 5 * PAGE):
            dma_alloc_coherent(device(machine, name), size)
            dma_alloc_coherent(device(machine, name), size, GFP_ATOMIC)
    origins = {b.area for d in machine.devices.values() for b in d.buffers}
    assert origins == {"own@50000000", "coherent", "reserved", "pool", "-"}
    assert validate_buffers(machine) == []


@pytest.mark.parametrize(
    ("name", "size"), [("1000.camera", M), ("7000.plain", M), ("3000.dsp", PAGE), ("7000.plain", PAGE)]
)
def test_a_buffer_that_is_not_where_it_says(tmp_path, name, size):
    machine = boot(write_tree(tmp_path))
    buffer = dma_alloc_coherent(device(machine, name), size)
    assert buffer is not None
    if isinstance(buffer.origin, Cma):
        assert cma_release(buffer.origin, buffer.pfn + 5, 1)
    else:
        buffer.pfn = 0x7FFFF0
    assert validate_buffers(machine) == [
        f"{name}: buffer at {buffer.pfn:#x}: its pages are not used in {buffer.area}"
    ]


def test_two_buffers_in_one_place(tmp_path):
    machine = boot(write_tree(tmp_path))
    first, second = (dma_alloc_coherent(device(machine, "1000.camera"), M) for _ in "ab")
    assert first is not None
    assert second is not None
    second.pfn = first.pfn + 255
    assert validate_buffers(machine) == [
        "1000.camera: buffer at 0x50000 overlaps 1000.camera: buffer at 0x500ff"
    ]


def test_figures_of_the_framework_of_2010():
    cma = two_regions()
    start, other = cma.cma_alloc("foo", None, 8192), cma.cma_alloc("foo", None, 4096)
    assert validate_2010(cma) == []
    a = cma.find_region("a")
    chunk = next(chunk for chunk in cma.chunks() if chunk.start == start)
    assert a is not None
    a.users, a.free_space = 1, a.free_space + 1
    assert validate_2010(cma) == [
        "region a: 1 users, 2 chunks",
        "region a: free and used bytes are not its size",
    ]
    a.users, a.free_space = 2, a.free_space - 1
    chunk.start = other - 4096
    assert validate_2010(cma) == [f"chunks at {chunk.start:#x} and {other:#x} overlap"]
    chunk.start = a.end
    assert validate_2010(cma) == ["region a: a chunk lies outside"]


def test_sim_verify_tells():
    machine = cmafs.Machine.boot(cmdline="cma=16M")
    machine.write("/dev/cma_test", "0")
    assert machine.verify() == []
    buffer = machine.booted.devices["cma_test"].buffers[0]
    buffer.pfn -= 1
    place = f"{buffer.pfn:#x}"
    assert machine.verify() == [f"cma_test: buffer at {place}: its pages are not used in reserved"]
