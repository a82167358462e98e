"""`cmafs save`: a mounted machine as a file, for --load."""

from __future__ import annotations

import argparse
import errno

from cmafs.cli.ctl import door
from cmafs.cli.options import CommandFailed, Commands, write_whole

_DESCRIPTION = """\
Write a mounted machine to a file, as it is now. Every command with --load boots that machine, does to it what
had been done, and goes on from there. What that cannot bring back is in docs/exceptions.md.
"""
_EXAMPLES = """\
examples:
  cmafs save /mnt/m fragmented.snap
  cmafs run --load fragmented.snap -- ./test.sh
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `save` to the parser."""
    parser = commands.add_parser(
        "save",
        help="write a mounted machine to a file, for --load",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where the machine is mounted")
    parser.add_argument("file", metavar="FILE", help="what to write")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Copy sim/snapshot, whole or not at all. Raises CommandFailed."""
    try:
        with door(args.mountpoint, "snapshot") as file:
            data = file.read()
    except OSError as error:
        why = f"{args.mountpoint}: {error.strerror}"
        if error.errno == errno.EFBIG:
            why = f"{args.mountpoint}: it cannot be saved: the end of its sim/log says why"
        raise CommandFailed(why) from None
    write_whole(args.file, data)
    return 0
