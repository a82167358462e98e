"""The command `cmafs`: one parser, of which man page and completions are made, and one module per subcommand.

A subcommand's module has ``add_parser(commands, machine)`` and ``main(args)``. It is imported on every start,
and so imports what costs time inside its ``main``.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from cmafs.cli.options import machine_options, reported

#: Modules of subcommands, in the order of --help.
COMMANDS = (
    "mount",
    "run",
    "check",
    "ctl",
    "map",
    "why",
    "record",
    "trace_alloc",
    "replay",
    "size",
    "compare",
    "learn",
    "boards",
    "doctor",
    "export",
    "manpage",
)

#: What a write to a full disk answers.
_FULL = (errno.ENOSPC, errno.EDQUOT)

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


def make_parser() -> argparse.ArgumentParser:
    """The one parser, with every subcommand."""
    parser = argparse.ArgumentParser(
        prog="cmafs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    machine = machine_options()
    for name in COMMANDS:
        importlib.import_module(f"cmafs.cli.{name}").add_parser(commands, machine)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status."""
    args = make_parser().parse_args(argv)
    try:
        status = reported(lambda: args.main(args))
        if sys.stdout:  # a caller may have closed it
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough; Python must not flush into it at exit
        _discard_output()
        return 1
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _discard_output()
        print(f"cmafs: standard output: {error.strerror}", file=sys.stderr)
        return 1
    return status


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
