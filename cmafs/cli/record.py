"""`cmafs record`: prints the script that saves, on a board, what the other commands need to know of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cmafs.cli.options import Commands

_DESCRIPTION = """\
Print a shell script. Run on a board as root, it saves CMA's files, /proc, the device tree, the configuration
and the log into one tar, which map, why, replay and compare take. busybox is enough; cmafs is not needed
there. With --walk AREA it also allocates and frees in that area and writes the answers down.
"""
_EXAMPLES = """\
examples:
  cmafs record > record.sh                    # then, on the board: sh record.sh --output board.tar
  cmafs record | ssh root@board sh -s -- --output /tmp/board.tar --walk linux,cma
  cmafs record | sh -s -- --help
"""
SCRIPT = Path(__file__).resolve().parent.parent / "board" / "record.sh"


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `record` to the parser."""
    parser = commands.add_parser(
        "record",
        help="print a script that saves what is to know of a board",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Copy the script to standard output."""
    sys.stdout.write(SCRIPT.read_text(encoding="utf-8"))
    return 0
