"""Boards of every shape load with every pool at its place; damaged ones give a verdict, never a traceback."""

from __future__ import annotations

import struct

import dts_support as dts
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from soak_support import examples, new_seed

from cmafs.abi import kernel_abi
from cmafs.check.examine import report_on
from cmafs.check.report import Report
from cmafs.check.rules import RULES
from cmafs.init.options import MachineOptions
from cmafs.lib.boot_event import EFFECT_IGNORED, EFFECT_MOVED, EFFECT_NOTE, EFFECT_PANIC, EFFECT_REFUSED
from cmafs.of import fdt
from cmafs.of.base import DeviceTree

KERNELS = ("4.15", "5.10", "6.1", "6.12", "7.2")
EFFECTS = {EFFECT_IGNORED, EFFECT_MOVED, EFFECT_NOTE, EFFECT_PANIC, EFFECT_REFUSED}
#: Boards by number: the first ones in the suite, others each time in a soak.
BOARDS = 300
GROUPS = 10
#: Boards that a soak found wrong once.
BOARD_CASES: tuple[int, ...] = ()


def tree_of(source: str) -> DeviceTree:
    return fdt._unflatten("board", fdt._checked("board", dts.dtc(source)))


@pytest.mark.soak(0.5)
@pytest.mark.parametrize("group", range(GROUPS))
def test_boards_of_every_shape(group: int) -> None:
    first = new_seed(0)
    for seed in [*BOARD_CASES[group::GROUPS], *range(first + group, first + BOARDS, GROUPS)]:
        board = dts.board(seed)
        kernel = KERNELS[seed // GROUPS % len(KERNELS)]
        report = report_on(tree_of(board.source), MachineOptions(kernel=kernel))
        errors = [p.reason for p in report.problems if p.severity == "error"]
        assert errors == [], (seed, kernel)
        unit = 22 if kernel_abi(kernel).boot.align_to_max_order else 21
        made = {area.node: area for area in report.areas if area.node}
        assert {node.rsplit("/", 1)[-1] for node in made} == set(board.pools), (seed, kernel)
        for name, (base, size) in board.pools.items():
            area = made[f"/reserved-memory/{name}"]
            assert area.count << 12 == size, (seed, kernel, name)
            assert (area.base_pfn << 12) % (1 << unit) == 0
            assert base is None or area.base_pfn << 12 == base, (seed, kernel, name)


NAMES = (
    "reg",
    "size",
    "alignment",
    "alloc-ranges",
    "compatible",
    "status",
    "#address-cells",
    "#size-cells",
    "ranges",
)
FLAGS = ("reusable", "no-map", "linux,cma-default")
BASE = dts.dtc(
    dts.tree(
        dts.pool("a@50000000", "reg = <0 0x50000000 0 0x400000>")
        + dts.pool("linux,cma", "size = <0 0x1000000>", "alignment = <0 0x400000>")
        + "fw@60000000 { reg = <0 0x60000000 0 0x100000>; no-map; };"
    )
)
NODES = (
    "/",
    "/memory@40000000",
    "/chosen",
    "/reserved-memory",
    "/reserved-memory/a@50000000",
    "/reserved-memory/linux,cma",
    "/reserved-memory/fw@60000000",
    "/cpus/cpu@0",
)
WORDS = st.sampled_from((0, 1, 2, 0xFFF, 0x1000, 0x400000, 0x40000000, 0x7FC00000, 0x80000000, 0xFFFFFFFF))
VALUES = (
    st.lists(WORDS, max_size=6).map(lambda words: struct.pack(f">{len(words)}I", *words))
    | st.binary(max_size=20)
    | st.sampled_from(
        (b"shared-dma-pool\0", b"okay\0", b"disabled\0", b"\0", b"", b"arm,cortex-a7\0", b"x86\0")
    )
)
EDITS = st.lists(
    st.tuples(st.sampled_from(NODES), st.sampled_from((*NAMES, *FLAGS, "bootargs")), st.none() | VALUES),
    min_size=1,
    max_size=4,
)


def verdict(tree: DeviceTree, kernel: str) -> Report | str:
    """The report, or the one line of a tree that cannot be checked."""
    try:
        return report_on(tree, MachineOptions(kernel=kernel))
    except ValueError as error:
        assert str(error)
        assert "\n" not in str(error)
        return str(error)


@examples(200)
@given(EDITS, st.sampled_from(KERNELS))
@example([("/reserved-memory", "compatible", b"shared-dma-pool\0")], "6.12")  # once moved into itself
def test_any_property_gives_a_verdict(edits: list[tuple[str, str, bytes | None]], kernel: str) -> None:
    tree = fdt._unflatten("board", BASE)
    for path, name, value in edits:
        node = tree.find_node_by_path(path)
        assert node is not None
        if value is None:
            node.props.pop(name, None)
        else:
            node.props[name] = value
    report = verdict(tree, kernel)
    if isinstance(report, Report):
        for problem in report.problems:
            assert problem.effect in EFFECTS
            assert problem.severity in ("error", "note")
            assert problem.code in RULES
            assert problem.node is None or tree.find_node_by_path(problem.node) is not None
        lost = {"/reserved-memory/a@50000000", "/reserved-memory/linux,cma"} - {a.node for a in report.areas}
        panicked = any(problem.effect == EFFECT_PANIC for problem in report.problems)
        named = {problem.node for problem in report.problems}
        asking = {path for path in lost if "reusable" in tree.find_node_by_path(path).props}  # type: ignore[union-attr]
        assert panicked or asking <= named


@examples(100)
@given(st.text('cma=@-0123456789xXkKmMgGt,:" ', max_size=40), st.sampled_from(KERNELS))
def test_any_command_line_gives_a_verdict(cmdline: str, kernel: str) -> None:
    tree = fdt._unflatten("board", BASE)
    tree.root.children["chosen"].props["bootargs"] = b"cma=" + cmdline.encode() + b"\0"
    assert isinstance(verdict(tree, kernel), Report)
