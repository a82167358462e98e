"""`cmafs export`: a machine's tree as plain files, where there is no FUSE."""

from __future__ import annotations

import argparse
from pathlib import Path

from cmafs.cli.options import Commands, boot_from

_DESCRIPTION = """\
Boot a machine and write its tree below DIR as plain files, directories and links, for scripts that only read.
Needs no FUSE, no namespaces and no privileges. What such a copy cannot do is printed on standard error.
"""
_EXAMPLES = """\
examples:
  cmafs export /tmp/rpi --dts rpi4 --kernel 6.12
  cat /tmp/rpi/sys/kernel/debug/cma/*/count
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `export` to the parser."""
    parser = commands.add_parser(
        "export",
        parents=[machine],
        help="write the tree as plain files, for scripts that only read",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="a directory that is new or empty")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Write the tree and say what it is not. Raises ExportFailed."""
    import sys

    from cmafs.mount.export import LIMITS, export

    done = export(boot_from(args), args.directory)
    print(f"{args.directory}: {done.files} files, {done.directories} directories, {done.links} links")
    print(LIMITS, end="", file=sys.stderr)
    return 0
