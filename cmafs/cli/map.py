"""`cmafs map`: the CMA areas of a board, simulated or real, as a picture."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING

from cmafs.cli.options import CommandFailed, Commands, add_root_options, write_out

if TYPE_CHECKING:
    from cmafs.board.areas import Area

_DESCRIPTION = """\
Draw the CMA areas of a board: who has what, where the holes are, which is the largest; below them the page
blocks of every zone by migrate type. A real kernel does not say who has a page: names and pinned pages are
known of simulated machines only.
"""
_EXAMPLES = """\
examples:
  cmafs map /mnt/m                            # a mounted machine
  sudo cmafs map                              # this machine
  cmafs map copied-files/ --area linux,cma
  cmafs map board.tar --svg board.svg         # what `cmafs record` saved
  cmafs save /mnt/m m.snap && cmafs map --load m.snap
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `map` to the parser."""
    parser = commands.add_parser(
        "map",
        help="draw the areas of a board, simulated or real",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    add_root_options(parser)
    parser.add_argument("--area", metavar="NAME", action="append", help="only this area; repeatable")
    parser.add_argument("--svg", metavar="FILE", help="write an SVG picture instead; - is standard output")
    parser.add_argument("--width", metavar="N", type=int, help="columns (default: those of the terminal)")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: on a terminal"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Draw; 1 if the root cannot be read."""
    from cmafs.board.areas import read_areas
    from cmafs.board.extents import read_extents
    from cmafs.board.memory import page_size, release, zone_blocks
    from cmafs.cli.roots import root_is_read, root_of
    from cmafs.view.picture import pictures_of
    from cmafs.view.svg import draw_svg
    from cmafs.view.text import MAX_WIDTH, MIN_WIDTH, draw

    if args.width is not None and not MIN_WIDTH <= args.width <= MAX_WIDTH:
        raise CommandFailed(f"map: --width {args.width}: wanted are {MIN_WIDTH} to {MAX_WIDTH} columns", 2)
    with root_is_read():
        root = root_of(args)
        every = read_areas(root)
        size, areas = page_size(root, every), _wanted(root.name, every, args.area)
        pictures = pictures_of([(area, read_extents(root, area)) for area in areas], size)
        zones = zone_blocks(root)
    if args.svg:
        title = " ".join(filter(None, ("CMA areas of", root.name, release(root))))
        write_out(args.svg, draw_svg(pictures, zones, size, title))
        return 0
    width = args.width or shutil.get_terminal_size().columns
    print(*draw(pictures, zones, size, width, in_colour(args.color)), sep="\n")
    return 0


def _wanted(root: str, areas: list[Area], names: list[str] | None) -> list[Area]:
    """The areas of these names, or all. Raises CommandFailed."""
    known = [area.name for area in areas]
    for unknown in (name for name in names or () if name not in known):
        raise CommandFailed(f"{root}: no area {unknown}: there are {', '.join(known)}")
    return [area for area in areas if not names or area.name in names]


def in_colour(choice: str) -> bool:
    """Whether to colour standard output: on a terminal, unless NO_COLOR or a dumb one says otherwise."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
