"""`cmafs boards`: what is bundled and what is simulated."""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias

from cmafs.check.text import columns
from cmafs.cli.options import Commands

#: What there is as data, and as lines.
Table: TypeAlias = "tuple[Any, list[str]]"

_DIALECT_SOURCES = {
    "article": "dialect: the workflow of seeds/000, on the algorithms of 6.12",
    "2010": "dialect: the contiguous memory framework proposed in 2010",
}


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `boards` to the parser."""
    parser = commands.add_parser(
        "boards",
        help="list the bundled boards, the kernels, or the named configurations",
        description="List the boards that --dts knows by name, with their memory and the areas that the "
        "default kernel makes of them, the kernels that --kernel knows, or the sets that --config knows.",
        epilog="examples:\n  cmafs boards\n  cmafs boards --kernels\n",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--kernels", dest="table", action="store_const", const=_kernels, default=_boards)
    which.add_argument("--configs", dest="table", action="store_const", const=_configs)
    parser.add_argument("--json", action="store_true", help="one JSON document; sizes in bytes")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the table, or the same as one document."""
    data, lines = args.table()
    if args.json:
        import json

        lines = [json.dumps(data, indent=2)]
    print(*lines, sep="\n")
    return 0


def _boards() -> Table:
    """Name, architecture, memory, areas with their sizes, model."""
    from cmafs.check.tree import size_text
    from cmafs.init.main import start_kernel
    from cmafs.init.options import MachineOptions
    from cmafs.lib.clock import ManualClock
    from cmafs.of.fdt import boards, load

    found: list[dict[str, Any]] = []
    for board in boards():
        machine = start_kernel(load(board.name), MachineOptions(dts=board.name), ManualClock())
        shift = machine.config.page_shift
        areas = [
            {"name": cma.name, "base": cma.base_pfn << shift, "size": cma.count << shift}
            for cma in machine.cma
        ]
        found.append(
            {
                "name": board.name,
                "model": board.model,
                "arch": machine.arch,
                "memory": machine.memblock.phys_mem_size(),
                "areas": areas,
            }
        )
    rows = [("BOARD", "ARCH", "MEMORY", "AREAS", "MODEL")]
    for one in found:
        named = ", ".join(f"{area['name']} {size_text(area['size'])}" for area in one["areas"])
        rows.append((one["name"], one["arch"], size_text(one["memory"]), named, one["model"]))
    return found, columns(rows)


def _configs() -> Table:
    """The named sets, and of which machine each is."""
    from cmafs.abi.config_sets import DISTRIBUTIONS

    rows = [
        ("defconfig", "the release's defconfig of the architecture, with what debugs CMA on (the default)"),
        ("tiny", "the first recordings' guests, built from tinyconfig"),
        *((name, f"{one.arch}, kernel {one.row}") for name, one in DISTRIBUTIONS.items()),
    ]
    return [{"name": name, "machine": text} for name, text in rows], columns(rows)


def _kernels() -> Table:
    """Every row with the release it shows, then what was recorded."""
    from dataclasses import asdict

    from cmafs.abi.recorded import RECORDINGS
    from cmafs.abi.rows import DIALECTS, RELEASES

    rows = [(row, release, "") for row, release in RELEASES.items()]
    rows += [(name, shown, _DIALECT_SOURCES[name]) for name, (_, shown) in DIALECTS.items()]
    recorded = [
        f"{one.kernel:<26} {one.arch:<6} {one.config:<23} {one.transcripts:>11}  {one.equal:>5}"
        for one in RECORDINGS
    ]
    head = f"{'RECORDED':<26} {'ARCH':<6} {'CONFIGURATION':<23} TRANSCRIPTS  EQUAL"
    data = {
        "kernels": [{"name": name, "release": release, "dialect": text} for name, release, text in rows],
        "recorded": [asdict(one) for one in RECORDINGS],
    }
    return data, [*columns(rows), "", head, *recorded]
