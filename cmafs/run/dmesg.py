"""dmesg(1) of a run, on the simulated machine's log: `python dmesg.py TREE BOOT OPTIONS…`.

A program of its own, started in CMD's namespaces: standard library only, and nothing of cmafs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

#: Levels, by their numbers.
LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news")
_HEX = re.compile(rb"\\x([0-9a-f]{2})")
_POLL = 0.05  # seconds between looks at the log while following it
_RECORD = 8192  # bytes, more than the longest record of /dev/kmsg


class Record(NamedTuple):
    """One record of the log; ``stamp`` in microseconds since boot."""

    priority: int
    stamp: int
    text: str

    @property
    def level(self) -> str:
        """Its level's name."""
        return LEVELS[self.priority & 7]

    @property
    def facility(self) -> str:
        """Its facility's name."""
        return _FACILITIES[(self.priority >> 3) % len(_FACILITIES)]


def parse(raw: bytes) -> Record:
    """A record as /dev/kmsg gives it: `priority,sequence,microseconds,flags;text`, then its dictionary."""
    head, _, rest = raw.partition(b";")
    priority, _, stamp = head.split(b",")[:3]
    return Record(int(priority), int(stamp), _unmangle(rest.partition(b"\n")[0]))


def _unmangle(text: bytes) -> str:
    """What msg_print_ext_body() escaped; what cannot be printed stays escaped, as dmesg(1) has it."""
    plain = _HEX.sub(lambda match: bytes([int(match[1], 16)]), text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in plain)


def read_available(kmsg: int) -> Iterator[Record]:
    """The records that are there now."""
    while True:
        try:
            raw = os.read(kmsg, _RECORD)
        except BlockingIOError:
            return
        except BrokenPipeError:  # records were overwritten before they were read
            continue
        if not raw:
            return
        yield parse(raw)


def _minute(record: Record, boot: float) -> str:
    at = datetime.fromtimestamp(boot + record.stamp / 1e6)
    return f"[{at:%b}{at.day:2d} {at:%H:%M}] "


def _relative(record: Record, boot: float, before: Record | None) -> str:
    """The minute where it is a new one, else the seconds since the record before."""
    if before is None or _minute(before, boot) != _minute(record, boot):
        return _minute(record, boot)
    delta = (record.stamp - before.stamp) / 1e6
    return f"[  {delta:+.6f}] " if delta < 10 else f"[ {delta:+.6f}] "


def _stamp(record: Record, style: str, boot: float, before: Record | None) -> str:
    at = datetime.fromtimestamp(boot + record.stamp / 1e6)
    if style == "notime":
        return ""
    if style == "ctime":
        return f"[{at:%a %b} {at.day:2d} {at:%H:%M:%S %Y}] "
    if style == "reltime":
        return _relative(record, boot, before)
    if style == "iso":
        return at.astimezone().isoformat(timespec="microseconds").replace(".", ",") + " "
    return f"[{record.stamp // 1_000_000:5d}.{record.stamp % 1_000_000:06d}] "


def line(record: Record, args: argparse.Namespace, before: Record | None) -> str:
    """A record as the options want it, further lines below the first; ``before``: the one printed last."""
    prefix = f"<{record.priority}>" if args.raw else ""
    if args.decode and not args.raw:
        prefix = f"{record.facility:<6}:{record.level:<6}: "
    prefix += _stamp(record, "raw" if args.raw else args.time_format, args.boot, before)
    return prefix + record.text.replace("\n", "\n" + " " * len(prefix))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dmesg", description="the kernel log of the simulated machine")
    parser.set_defaults(before=None)  # the record that was printed last
    parser.add_argument("tree", help=argparse.SUPPRESS)
    parser.add_argument("boot", type=float, help=argparse.SUPPRESS)
    add = parser.add_argument
    add("-C", "--clear", action="store_true", help="clear the log")
    add("-c", "--read-clear", action="store_true", help="print and clear the log")
    add("-f", "--facility", metavar="LIST", help="only these facilities")
    add("-l", "--level", metavar="LIST", help="only these levels")
    add("-k", "--kernel", action="store_true", help="kernel messages (all are)")
    add("-u", "--userspace", action="store_true", help="messages of user space")
    add("-r", "--raw", action="store_true", help="with <priority>")
    add("-x", "--decode", action="store_true", help="with facility and level in words")
    add("-T", "--ctime", dest="time_format", action="store_const", const="ctime", help="time of day")
    add("-t", "--notime", dest="time_format", action="store_const", const="notime", help="no time stamps")
    add("--time-format", dest="time_format", help="ctime, reltime, notime, iso, raw")
    add("-w", "--follow", action="store_true", help="wait for new messages")
    add("-W", "--follow-new", action="store_true", help="only new messages, waiting for them")
    for option in ("-e --reltime", "-H --human"):
        what = "time since the line before"
        add(*option.split(), dest="time_format", action="store_const", const="reltime", help=what)
    for option in ("-D --console-off", "-E --console-on", "-P --nopager", "-p --force-prefix",
                   "-S --syslog", "-d --show-delta"):  # fmt: skip
        add(*option.split(), action="store_true", help="accepted")
    add("-L", "--color", nargs="?", help="accepted")
    add("-n", "--console-level", metavar="LEVEL", help="accepted")
    add("-s", "--buffer-size", metavar="SIZE", help="accepted")
    return parser


def _wanted(record: Record, args: argparse.Namespace) -> bool:
    if args.userspace and not args.kernel and record.facility == "kern":
        return False
    if args.level and record.level not in args.level.split(","):
        return False
    return not args.facility or record.facility in args.facility.split(",")


def _print(kmsg: int, args: argparse.Namespace) -> None:
    for record in read_available(kmsg):
        if _wanted(record, args):
            print(line(record, args, args.before))
            args.before = record
    sys.stdout.flush()


def _clear(tree: str) -> None:
    with open(f"{tree}/sim/dmesg", "w", encoding="ascii") as file:
        file.write("clear")


def _is_for_the_real(args: argparse.Namespace, unknown: list[str]) -> bool:
    """Whether the host's dmesg is to answer: it reads the machine's /dev/kmsg, and cannot clear it."""
    if args.show_delta or args.time_format == "delta":
        return True
    return bool(unknown) or any(level not in LEVELS for level in (args.level or "info").split(","))


def main(arguments: list[str]) -> int:
    """Print, clear or follow the log; the exit status."""
    args, unknown = _parser().parse_known_args(arguments)
    if _is_for_the_real(args, unknown):
        real = f"{os.path.dirname(args.tree)}/real/dmesg"
        os.execv(real, ["dmesg", *arguments[2:]])  # noqa: S606
    quiet = args.console_off or args.console_on or args.console_level
    kmsg = os.open(f"{args.tree}/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    if args.follow_new:
        list(read_available(kmsg))
    elif not (args.clear or quiet):
        _print(kmsg, args)
    if args.clear or args.read_clear:
        _clear(args.tree)
    while args.follow or args.follow_new:
        time.sleep(_POLL)
        _print(kmsg, args)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (KeyboardInterrupt, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing left to flush to
        sys.exit(130)
    except OSError as error:
        sys.exit(f"dmesg: {error}")
