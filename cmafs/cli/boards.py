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
        help="list the bundled boards, the kernels, or the named configurations",
        description="List the boards that --dts knows by name, the kernels that --kernel knows, or the sets "
        "that --config knows.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--kernels", dest="table", action="store_const", const=_kernels, default=_boards)
    which.add_argument("--configs", dest="table", action="store_const", const=_configs)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    rows: list[tuple[str, str]] = args.table()
    width = max(len(name) for name, text in rows if text)
    for name, text in rows:
        print(f"{name:<{max(width, 10)}} {text}".rstrip())
    return 0


def _boards() -> list[tuple[str, str]]:
    from cmafs.of.fdt import boards

    return [(board.name, board.model) for board in boards()]


def _configs() -> list[tuple[str, str]]:
    """The named sets, and of which machine each is."""
    from cmafs.abi.config_sets import DISTRIBUTIONS

    rows = [
        ("defconfig", "the release's defconfig of the architecture, with what debugs CMA on (the default)"),
        ("tiny", "the first recordings' guests, built from tinyconfig"),
    ]
    return rows + [(name, f"{one.arch}, kernel {one.row}") for name, one in DISTRIBUTIONS.items()]


def _kernels() -> list[tuple[str, str]]:
    """Every row with the release it shows, then what was recorded."""
    from cmafs.abi.recorded import RECORDINGS
    from cmafs.abi.rows import DIALECTS, RELEASES

    rows = [(row, release) for row, release in RELEASES.items()]
    rows += [(name, f"{shown:<10} {_DIALECT_SOURCES[name]}") for name, (_, shown) in DIALECTS.items()]
    recorded = [(f"{one.kernel:<26} {one.arch:<6} {one.config:<23}", one) for one in RECORDINGS]
    head = f"{'RECORDED':<26} {'ARCH':<6} {'CONFIGURATION':<23} TRANSCRIPTS  EQUAL"
    counts = [(f"{text} {one.transcripts:>11}  {one.equal:>5}", "") for text, one in recorded]
    return [*rows, ("", ""), (head, ""), *counts]
