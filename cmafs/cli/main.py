"""The command `cmafs`: one parser, of which man page and completions are made, and one module per subcommand.

A subcommand's module has ``add_parser(commands, machine)`` and ``main(args)``. It is imported for --help too,
and so imports what costs time inside its ``main``.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cmafs import __version__
from cmafs.cli.options import machine_options, reported
from cmafs.mount.ending import FAILED, close_streams, open_streams

#: Modules of subcommands, in the order of --help.
COMMANDS = (
    "mount",
    "run",
    "check",
    "ctl",
    "map",
    "why",
    "record",
    "top",
    "trace_alloc",
    "replay",
    "size",
    "compare",
    "learn",
    "boards",
    "doctor",
    "export",
    "save",
    "manpage",
)

#: Objects: what a start makes stays, and a collection finds nothing to free.
_GC_THRESHOLD = 100_000

_DESCRIPTION = """\
A simulated Linux machine whose contiguous memory allocator (CMA) answers as the kernel's does.
"""

_EPILOG = """\
examples:
  cmafs mount --dts rpi4 --kernel 6.12 /mnt/rpi
  echo 16 > /mnt/rpi/sys/kernel/debug/cma/linux,cma/alloc
  cmafs dmesg /mnt/rpi
  cmafs umount /mnt/rpi

exit status: 0 done, 1 it failed (one line on standard error says why), 2 wrong usage
"""


def make_parser(word: str = "") -> argparse.ArgumentParser:
    """The one parser: with every subcommand, or with those of the module that is called as ``word`` is."""
    parser = argparse.ArgumentParser(
        prog="cmafs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cmafs {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    machine = machine_options()
    wanted = word.replace("-", "_")
    for name in (wanted,) if wanted in COMMANDS else COMMANDS:
        importlib.import_module(f"cmafs.cli.{name}").add_parser(commands, machine)
    for command in commands.choices.values():
        command.formatter_class = argparse.RawDescriptionHelpFormatter  # as they are written in the modules
        command.set_defaults(usage_error=command.error)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status. The one place where a command ends, well or badly."""
    gc.set_threshold(_GC_THRESHOLD)
    return close_streams(reported(lambda: _run(argv)))


def start() -> NoReturn:
    """The program: main(), without the interpreter's taking apart of what the kernel takes back anyway."""
    os._exit(main())


def _run(argv: Sequence[str] | None) -> int:
    open_streams()
    try:
        words = sys.argv[1:] if argv is None else argv
        args, unknown = make_parser(words[0] if words else "").parse_known_args(words)
        if unknown:  # of the subcommand, whose usage is to be shown
            args.usage_error(f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit as end:  # of argparse: after --help, or after wrong usage
        return int(end.code or 0)
    return reported(lambda: args.main(args), getattr(args, "failure", FAILED))
