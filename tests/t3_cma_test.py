"""The module of seeds/002: /dev/cma_test by its files, its lines, its errors."""

from __future__ import annotations

import re

import pytest
from dma_support import M, area_of, boot, used, write_tree

from cmafs.fs.dentry import Directory, RegularFile, new_directory
from cmafs.fs.dev_cma_test import populate
from cmafs.fs.kmsg import DEVTMPFS
from cmafs.init.machine import BootedMachine
from cmafs.sim.cma_owner import page_holders

HASHED = "[0-9a-f]{16}"


def module(machine: BootedMachine) -> RegularFile:
    root = new_directory(DEVTMPFS)
    machine.devices.pop("cma_test", None)
    populate(root, machine)
    dev = root.children["dev"]
    assert isinstance(dev, Directory)
    node = dev.children["cma_test"]
    assert isinstance(node, RegularFile)
    return node


def write(node: RegularFile, data: bytes = b"0\n") -> int:
    return node.fops.open(node, 1).write(data, 0)


def read(node: RegularFile) -> bytes:
    return node.fops.open(node, 0).read(4096, 0)


@pytest.fixture
def machine(tmp_path) -> BootedMachine:
    return boot(write_tree(tmp_path), cmdline="cma=64M")


def test_the_first_open_loads_the_module(machine):
    node = module(machine)
    assert not any("cma_test" in line for line in machine.log.lines())
    for flags in (0, 1):
        node.fops.open(node, flags)
    assert [line for line in machine.log.lines() if "cma_test" in line] == ["misc cma_test: registered."]


def test_writes_take_1_to_10_mib_and_an_eleventh_nothing(machine):
    node, before = module(machine), used(machine, "reserved")
    for i in range(10):
        assert write(node) == 2
        assert used(machine, "reserved") - before == 256 * sum(range(1, i + 2))
    lines = machine.log.lines()
    assert write(node) == 2
    assert machine.log.lines() == lines
    assert used(machine, "reserved") - before == 256 * 55


def test_reads_free_the_lowest_and_are_empty(machine):
    node, before = module(machine), used(machine, "reserved")
    for _ in range(3):
        write(node)
    held = []
    while True:
        held.append((used(machine, "reserved") - before) // 256)
        if not held[-1]:
            break
        assert read(node) == b""
    assert held == [6, 5, 3, 0]
    lines = machine.log.lines()
    assert read(node) == b""
    assert machine.log.lines() == lines


def test_the_lowest_free_slot_is_taken_next(machine):
    node, before = module(machine), used(machine, "reserved")
    for _ in range(3):
        write(node)
    read(node)
    write(node)
    assert used(machine, "reserved") - before == 256 * 6


def test_lines(machine):
    node = module(machine)
    write(node)
    read(node)
    alloc, free = machine.log.lines()[-2:]
    match = re.fullmatch(f"misc cma_test: alloc virt: ({HASHED}) phys: ({HASHED})", alloc)
    assert match is not None
    assert free == f"misc cma_test: free virt: {match[1]} phys: {match[2]}"


def test_4_4_prints_addresses(tmp_path):
    machine = boot(write_tree(tmp_path), "4.4", cmdline="cma=64M@0x60800000")
    node = module(machine)
    write(node)
    base = machine.devices["cma_test"].buffers[0].pfn << 12
    virt = 0xFFFFFFC000000000 + base - 0x40000000
    assert machine.log.lines()[-1] == f"misc cma_test: alloc virt: {virt:016x} phys: {base:016x}"


@pytest.mark.parametrize("kernel", ["4.4", "4.15"])
def test_failure_is_one_line_and_the_write_counts(tmp_path, kernel):
    """arm64 of that time gives up when the area fails; later ones go to the page allocator."""
    machine = boot(write_tree(tmp_path), kernel, cmdline="cma=4M")
    node = module(machine)
    assert [write(node) for _ in range(2)] == [2, 2]
    before = used(machine, "reserved")
    assert write(node, b"anything") == 8
    assert machine.log.lines()[-1] == "misc cma_test: no mem in CMA area"
    assert used(machine, "reserved") == before
    assert [b.size // M for b in machine.devices["cma_test"].buffers] == [1, 2]


def test_failure_when_the_page_allocator_has_no_such_block_either(machine):
    node = module(machine)
    for _ in range(6):
        write(node)  # 21 MiB
    small = boot_small(machine)
    assert small.log.lines()[-1] == "misc cma_test: no mem in CMA area"


def boot_small(machine: BootedMachine) -> BootedMachine:
    """16 MiB of CMA: the buffer of 6 MiB needs a block of 8 MiB, which no buddy list has."""
    small = boot(machine.tree.source, cmdline="cma=16M")
    node = module(small)
    for _ in range(6):
        write(node)
    return small


def test_who_holds_it(machine):
    node = module(machine)
    write(node)
    last = page_holders(machine, area_of(machine, "reserved"))[-1]
    assert (last.count, last.owner) == (256, machine.devices["cma_test"])


def test_node(machine):
    node = module(machine)
    assert (oct(node.mode), node.size) == ("0o100600", 0)
