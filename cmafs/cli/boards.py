"""`cmafs boards`: what is bundled and what is simulated."""

from __future__ import annotations

import argparse

from cmafs.cli.options import Commands

_DIALECT_SOURCES = {
    "article": "dialect: the workflow of seeds/000, on the algorithms of 6.12",
    "2010": "dialect: the contiguous memory framework proposed in 2010",
}


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `boards` to the parser."""
    parser = commands.add_parser(
        "boards",
        help="list the bundled boards, or the kernels",
        description="List the boards that --dts knows by name, or the kernels that --kernel knows.",
    )
    parser.add_argument("--kernels", action="store_true", help="list kernels instead")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    for name, text in _kernels() if args.kernels else _boards():
        print(f"{name:<10} {text}")
    return 0


def _boards() -> list[tuple[str, str]]:
    from cmafs.of.fdt import boards

    return [(board.name, board.model) for board in boards()]


def _kernels() -> list[tuple[str, str]]:
    """Every row with the release it shows and where its answers come from."""
    from cmafs.abi.rows import DIALECTS, RECORDED, RELEASES

    rows = []
    for row, release in RELEASES.items():
        source = "recorded on a real kernel" if row in RECORDED else "from the kernel's sources"
        rows.append((row, f"{release:<10} {source}"))
    return rows + [(name, f"{shown:<10} {_DIALECT_SOURCES[name]}") for name, (_, shown) in DIALECTS.items()]
