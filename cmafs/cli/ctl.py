"""`cmafs ctl` and `cmafs dmesg`: a mounted machine's own door, sim/."""

from __future__ import annotations

import argparse
import errno
import io
import os
from pathlib import Path

from cmafs.cli.options import CommandFailed, Commands
from cmafs.lib.printk import encode
from cmafs.mount.mounts import is_ours
from cmafs.sim import verbs

_CTL_EXAMPLES = """\
examples:
  cmafs ctl /mnt/m spawn browser anon 200M
  cmafs ctl /mnt/m pin browser 3
  cmafs ctl /mnt/m dma_alloc cma_test 8M
  cmafs ctl /mnt/m dma_free cma_test 8M
"""
_DMESG_EXAMPLES = """\
examples:
  cmafs dmesg /mnt/m
  cmafs dmesg -T -l err,warn /mnt/m
  cmafs dmesg -c /mnt/m
"""

_NOT_OURS = "sim/{} is not a file of one"


def _verbs() -> str:
    """The verbs as a list for --help."""
    rows = "".join(f"  {form}\n      {does}\n" for form, does in verbs.lines())
    return f"""\
Write one line to sim/control. If it is refused, the reason is printed.

verbs:
{rows}
SIZE is in bytes, or with K, M or G, and is rounded up to pages. DEVICE is a name of sim/devices/.
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `ctl` and `dmesg` to the parser."""
    ctl = commands.add_parser(
        "ctl",
        help="give a mounted machine something to do",
        usage="cmafs ctl [-h] MOUNTPOINT VERB [WORD ...]",
        description=_verbs(),
        epilog=_CTL_EXAMPLES,
    )
    ctl.add_argument("mountpoint", metavar="MOUNTPOINT", help="where the machine is mounted")
    ctl.add_argument(
        "words", metavar="VERB", nargs=argparse.REMAINDER, help="a verb and its words, see above"
    )
    ctl.set_defaults(main=ctl_main, show_help=ctl.print_help)
    dmesg = commands.add_parser(
        "dmesg",
        help="print a mounted machine's kernel log",
        description="Print a mounted machine's kernel log, with the options of dmesg(1).",
        epilog=_DMESG_EXAMPLES,
    )
    add = dmesg.add_argument
    add("mountpoint", metavar="MOUNTPOINT", help="where the machine is mounted")
    add("-c", "--read-clear", action="store_true", help="clear it after printing")
    add("-w", "--follow", action="store_true", help="go on and print what is added")
    add("-l", "--level", metavar="LIST", help="only these levels: err,warn,info,…")
    add("-T", "--ctime", action="store_true", help="with the time of day")
    add("-H", "--human", action="store_true", help="with the time since the line before")
    add("-x", "--decode", action="store_true", help="with facility and level in words")
    dmesg.set_defaults(main=dmesg_main)


def door(mountpoint: str, name: str, flags: int = os.O_RDONLY) -> io.FileIO:
    """A file of a mounted machine's sim/, open. Raises CommandFailed if there is none.

    Anybody's directory may have a sim/ with a link in it: what is opened is asked whether it is ours.
    """
    try:
        # Without waiting: for the other end of a FIFO, say.
        found = os.open(Path(mountpoint, "sim", name), flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        odd = error.errno in (errno.ENXIO, errno.ELOOP)  # a FIFO that nobody reads, a link
        why = _NOT_OURS.format(name) if odd else error.strerror
        raise CommandFailed(f"{mountpoint}: no machine is mounted there ({why})") from None
    file = io.FileIO(found, "r" if flags == os.O_RDONLY else "w")
    if not is_ours(found):
        file.close()
        raise CommandFailed(f"{mountpoint}: no machine is mounted there ({_NOT_OURS.format(name)})")
    return file


def ctl_main(args: argparse.Namespace) -> int:
    """Write the line, in one write; the reason of a refusal is what it added to sim/log."""
    if {"-h", "--help"} & set(args.words):
        args.show_help()
        return 0
    log = Path(args.mountpoint, "sim", "log")
    line = " ".join(args.words)
    verb = line.split(maxsplit=1)[0] if line.strip() else ""
    if not verb:
        raise CommandFailed("ctl: a verb is wanted, for example: spawn NAME anon SIZE", status=2)
    with door(args.mountpoint, "control", os.O_WRONLY) as control:
        return _write(control, log, line, verb)


def _write(control: io.FileIO, log: Path, line: str, verb: str) -> int:
    before = _lines(log)
    try:
        control.write(encode(f"{line}\n"))
    except OSError as error:
        after = _lines(log)
        added = after[len(before) :] or after[-1:]  # a full ring has as many lines as before
        reasons = [reason for reason in added if verb in reason.partition(": ")[0]]
        raise CommandFailed(reasons[-1] if reasons else f"{verb}: {error.strerror}") from None
    return 0


def _lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").split("\n")[:-1] if log.exists() else []


def dmesg_main(args: argparse.Namespace) -> int:
    """Print the records of the machine's dev/kmsg."""
    from cmafs.run.dmesg import LEVELS, main

    for level in args.level.split(",") if args.level else ():
        if level not in LEVELS:
            raise CommandFailed(f"dmesg: unknown level '{level}': known are {', '.join(LEVELS)}", 2)
    with door(args.mountpoint, "dmesg") as file:
        booted = os.fstat(file.fileno()).st_mtime
    options = [f"--{name}" for name in ("read-clear", "follow", "ctime", "human", "decode")]
    chosen = [option for option in options if getattr(args, option[2:].replace("-", "_"))]
    try:
        return main([args.mountpoint, str(booted), *chosen, *(["--level", args.level] if args.level else [])])
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandFailed(f"{args.mountpoint}: {error.strerror}") from None
