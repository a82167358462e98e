"""--load FILE: the machine that `cmafs save` wrote, or the board that `cmafs record` found.

A snapshot is a machine as it was then, and no option can change it. A recorded board gives the options of a
machine that boots as the board did: its kernel, command line, configuration and device tree; options of the
user go before them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmafs import api
from cmafs.board.areas import read_areas
from cmafs.board.root import Root, RootError, is_tar, open_root
from cmafs.fs.cma_debug import directory_name
from cmafs.fs.sim.snapshot import MAGIC, MAX_FILE, parse
from cmafs.init.options import MachineOptions
from cmafs.of.base import DtError
from cmafs.of.fdt import load, read_named, unflatten
from cmafs.replay.board import board_options, board_tree

if TYPE_CHECKING:
    from cmafs.of.base import DeviceTree


@dataclass(frozen=True)
class Loaded:
    """A machine that a file describes, as it boots; ``board``: the files of a recorded one."""

    options: MachineOptions
    tree: DeviceTree
    board: Root | None = None


def booted(args: argparse.Namespace, clock: api.RealClock | None, **changes: object) -> api.Machine:
    """The machine of ``--load``; without ``clock`` its time stands still. Raises what boot() raises."""
    given = MachineOptions.given(args, **changes)
    if _is_snapshot(args.load):
        _expect_none(args.load, given)
        return api.Machine.load(args.load, clock=clock)
    found = described(args.load, given)
    machine = api.Machine(api.boot_tree(found.tree, found.options, clock))
    if found.board and not given:
        for line in _elsewhere(found.board, machine):
            print(f"cmafs: {args.load}: {line}", file=sys.stderr)
    return machine


def described(file: str, given: dict[str, Any]) -> Loaded:
    """The machine of a file before anything was done to it, with what the user chose.

    Raises BadSnapshot, DtError, BadOption.
    """
    if _is_snapshot(file):
        _expect_none(file, given)
        return _snapshot(file)
    return _recorded(file, given)


def tree_of(file: str, overlays: Sequence[str]) -> DeviceTree:
    """The device tree of a machine that described() describes. Raises what it raises."""
    return _snapshot(file).tree if _is_snapshot(file) else _recorded(file, {"overlays": overlays}).tree


def _snapshot(file: str) -> Loaded:
    try:
        found = parse(read_named(file, MAX_FILE))
    except ValueError as error:
        raise api.BadSnapshot(f"{file}: {error}") from None
    return Loaded(found.options, unflatten(found.source, found.tree))


def _is_snapshot(file: str) -> bool:
    """Whether it is one, or else may be a board. Raises BadSnapshot."""
    if Path(file).is_dir() or is_tar(file):
        return False
    try:
        if read_named(file, len(MAGIC)) == MAGIC:
            return True
    except OSError as error:
        raise api.BadSnapshot(f"{file}: {error.strerror}") from None
    raise api.BadSnapshot(f"{file}: not a snapshot of cmafs, and no tar of `cmafs record`")


def _expect_none(file: str, given: dict[str, Any]) -> None:
    """A snapshot is what it is. Raises BadOption."""
    flags = {words["dest"]: flag for flag, words in MachineOptions.arguments().items()}
    for name in given:
        raise api.BadOption(f"--load: {file} says what machine it is; leave out {flags[name]}")


def _recorded(file: str, given: dict[str, Any]) -> Loaded:
    """What a board says of itself, and what the user says of it instead."""
    if "dts" in given:
        raise api.BadOption(f"--load: {file} has the device tree of its board; leave out --dts")
    try:
        root = open_root(file)
        options, tree = board_options(root), board_tree(root)
    except RootError as error:
        raise api.BadSnapshot(str(error)) from None
    if tree is None:
        raise api.BadSnapshot(
            f"{file}: nothing in it says where this board has memory: record it as root (sys/firmware/fdt, "
            "sys/firmware/devicetree/base or proc/iomem)"
        )
    both = {**options, **given, "config": (*options["config"], *given.get("config", ())), "dts": file}
    return Loaded(MachineOptions.named(**both), compiled(file, tree, given.get("overlays", ())), root)


def compiled(name: str, source: bytes, overlays: Sequence[str] = ()) -> DeviceTree:
    """The tree of a .dts or a .dtb in memory, called ``name``. Raises DtError."""
    with tempfile.NamedTemporaryFile(suffix=".dts") as file:
        file.write(source)
        file.flush()
        try:
            return replace(load(file.name, overlays), source=name)
        except DtError as error:
            raise DtError(str(error).replace(file.name, name)) from None


def _elsewhere(board: Root, machine: api.Machine) -> Iterator[str]:
    """A line for each area that the board has elsewhere, or that is none here."""
    try:
        recorded = read_areas(board)
    except RootError:  # without debugfs
        return
    here = {directory_name(cma): cma for cma in machine.booted.cma}
    for area in recorded:
        cma = here.get(area.name)
        if cma is None:
            yield f"the board's area {area.name} is none here; `cmafs check --load` may say why"
        elif area.ranges and (area.ranges[0].base_pfn, area.count) != (cma.base_pfn, cma.count):
            theirs, ours = _place(area.ranges[0].base_pfn, area.count), _place(cma.base_pfn, cma.count)
            yield f"area {area.name} has {theirs} on the board, {ours} here"


def _place(pfn: int, count: int) -> str:
    return f"{count} pages at pfn {pfn:#x}"
