"""`cmafs ctl` and `cmafs dmesg`: a mounted machine's own door, sim/."""

from __future__ import annotations

import argparse
import shutil
import stat
import sys
from pathlib import Path

from cmafs.cli.options import CommandFailed, Commands

_CTL_EXAMPLES = """\
examples:
  cmafs ctl /mnt/m spawn browser anon 200M
  cmafs ctl /mnt/m pin browser 3
  cmafs ctl /mnt/m dma_alloc camera 8M
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `ctl` and `dmesg` to the parser."""
    ctl = commands.add_parser(
        "ctl",
        help="give a mounted machine something to do",
        description="Write one line to sim/control. If it is refused, the reason is printed.",
        epilog=_CTL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ctl.add_argument("mountpoint", metavar="MOUNTPOINT", help="where the machine is mounted")
    ctl.add_argument("words", metavar="VERB", nargs=argparse.REMAINDER, help="spawn, kill, pin, dma_alloc, …")
    ctl.set_defaults(main=ctl_main)
    dmesg = commands.add_parser(
        "dmesg",
        help="print a mounted machine's kernel log",
        description="Print a mounted machine's kernel log as dmesg(1) does.",
    )
    dmesg.add_argument("mountpoint", metavar="MOUNTPOINT", help="where the machine is mounted")
    dmesg.add_argument("-c", "--read-clear", action="store_true", help="clear it after printing")
    dmesg.set_defaults(main=dmesg_main)


def _door(mountpoint: str, name: str) -> Path:
    """A file of a mounted machine's sim/. Raises CommandFailed if there is none."""
    path = Path(mountpoint, "sim", name)
    try:
        found = path.stat()
    except OSError as error:
        raise CommandFailed(f"{mountpoint}: no machine is mounted there ({error.strerror})") from None
    if not stat.S_ISREG(found.st_mode):  # a FIFO, say, would be waited for
        raise CommandFailed(f"{mountpoint}: no machine is mounted there (sim/{name} is not a file)")
    return path


def ctl_main(args: argparse.Namespace) -> int:
    """Write the line, in one write; the reason of a refusal is what it added to sim/log."""
    control = _door(args.mountpoint, "control")
    log = control.with_name("log")
    line = " ".join(args.words)
    verb = line.split(maxsplit=1)[0] if line.strip() else ""
    if not verb:
        raise CommandFailed("ctl: a verb is wanted, for example: spawn NAME anon SIZE", status=2)
    try:
        before = log.read_bytes().count(b"\n")
        with control.open("wb", buffering=0) as file:
            file.write(f"{line}\n".encode(errors="surrogateescape"))
    except OSError as error:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        added = lines[before:] or lines[-1:]  # a full ring has as many lines as before
        reasons = [reason for reason in added if verb in reason.partition(": ")[0]]
        raise CommandFailed(reasons[-1] if reasons else f"{verb}: {error.strerror}") from None
    return 0


def dmesg_main(args: argparse.Namespace) -> int:
    """Copy sim/dmesg to standard output."""
    path = _door(args.mountpoint, "dmesg")
    try:
        with path.open("rb") as log:
            shutil.copyfileobj(log, sys.stdout.buffer)
        sys.stdout.flush()
        if args.read_clear:
            path.write_bytes(b"clear\n")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from None
    return 0
