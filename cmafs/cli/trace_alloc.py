"""`cmafs trace-alloc`: one allocation from an area, step by step in the kernel's function names."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from cmafs.cli.options import CommandFailed, Commands, boot_from

if TYPE_CHECKING:
    from cmafs.api import Machine

_AREAS = "/sys/kernel/debug/cma"

_EXAMPLES = """\
examples:
  cmafs trace-alloc --dts virt --cmdline cma=64M reserved 512
  cmafs trace-alloc --cmdline cma=64M --do 'spawn browser anon 900M' reserved 512
  cmafs trace-alloc --cmdline cma=64M@0x50000000 --do 'pin pfn 0x52000' reserved 9000    # exit status 1
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `trace-alloc` to the parser."""
    parser = commands.add_parser(
        "trace-alloc",
        parents=[machine],
        help="watch one allocation: isolate, migrate, take, undo",
        description="Boot a machine, allocate once by debugfs, and print what the kernel's functions did.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--do", metavar="LINE", action="append", default=[], help="sim/control line; repeatable"
    )
    parser.add_argument("area", metavar="AREA", help="its directory in debugfs")
    parser.add_argument("pages", metavar="PAGES", help="what is written to its alloc")
    parser.set_defaults(main=run_trace_alloc)


def run_trace_alloc(args: argparse.Namespace) -> int:
    """Print the steps and the log lines; status 1 if the kernel refused."""
    from cmafs.lib.clock import ManualClock

    machine = boot_from(args, clock=ManualClock())
    for line in args.do:
        try:
            machine.control(line)
        except OSError as error:
            raise CommandFailed(error.strerror or str(error)) from None
    steps = machine.booted.memory.walk = []
    seq = machine.booted.log.next_seq
    refused = _alloc(machine, args.area, args.pages)
    print(f"{machine.booted.abi.cma.sites.entry.function}({args.area}, {args.pages} pages)")
    print(*steps, sep="\n", end="\n" if steps else "")
    print(f"= {os.strerror(refused.errno or 0) + _reason(machine, args.area) if refused else 'done'}")
    for record in machine.booted.log.records(seq):
        print(record.text)
    return 1 if refused else 0


def _reason(machine: Machine, area: str) -> str:
    """Why the area's search found nothing; nothing where the number was not even accepted."""
    from cmafs.fs.cma_debug import directory_name

    cma = next(cma for cma in machine.booted.cma if directory_name(cma) == area)
    return f": {cma.failures[0].reason}" if cma.failures else ""


def _alloc(machine: Machine, area: str, pages: str) -> OSError | None:
    """Write to the area's alloc; what the kernel answered. Raises CommandFailed without such an area."""
    areas = machine.listdir(_AREAS) if machine.booted.cma2010 is None else []
    if area not in areas:
        known = ", ".join(areas) or "none"
        raise CommandFailed(f"no area {area}: there are {known}")
    try:
        machine.write(f"{_AREAS}/{area}/alloc", pages)
    except OSError as error:
        return error
    return None
