"""`cmafs trace-alloc`: one allocation from an area, step by step in the kernel's function names."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from cmafs.cli.options import CommandFailed, Commands, boot_from, write_out

if TYPE_CHECKING:
    from cmafs.api import Machine
    from cmafs.mm.cma_areas import Cma

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
    )
    parser.add_argument(
        "--do", metavar="LINE", action="append", default=[], help="sim/control line; repeatable"
    )
    parser.add_argument("--svg", metavar="FILE", help="draw the steps as well; - is standard output")
    parser.add_argument("area", metavar="AREA", help="its directory in debugfs")
    parser.add_argument("pages", metavar="PAGES", help="what is written to its alloc")
    parser.set_defaults(main=run_trace_alloc)


def run_trace_alloc(args: argparse.Namespace) -> int:
    """Print the steps and the log lines; status 1 if the kernel refused."""
    machine = boot_from(args, runs=False)
    for line in args.do:
        try:
            machine.control(line)
        except OSError as error:
            raise CommandFailed(error.strerror or str(error)) from None
    cma = _area(machine, args.area)
    drawn = _Walk(machine) if args.svg else None
    steps = machine.booted.memory.walk = [] if drawn is None else drawn
    seq = machine.booted.log.next_seq
    refused = _alloc(machine, args.area, args.pages)
    title = f"{machine.booted.abi.cma.sites.entry.function}({args.area}, {args.pages} pages)"
    answer = f"= {os.strerror(refused.errno or 0) + _reason(cma) if refused else 'done'}"
    log = [record.text for record in machine.booted.log.records(seq)]
    if args.svg != "-":
        print(*[title, *steps, answer, *log], sep="\n")
    if drawn is not None:
        write_out(args.svg, drawn.picture(title, cma, [answer, *log]))
    return 1 if refused else 0


class _Walk(list[str]):
    """The lines of the walk, each with what sim/map said when it was made."""

    def __init__(self, machine: Machine) -> None:
        from cmafs.fs.sim.map import show_map

        super().__init__()
        self._machine = machine
        self._show = show_map
        self._maps = [show_map(machine.booted)]

    def append(self, line: str) -> None:
        """Add a line."""
        super().append(line)
        self._maps.append(self._show(self._machine.booted))

    def picture(self, title: str, cma: Cma, result: list[str]) -> str:
        """The SVG of the steps."""
        from cmafs.board.extents import extents_of
        from cmafs.view.steps import Step, draw_steps

        spans = [(cmr.base_pfn, cmr.end_pfn) for cmr in cma.ranges]
        before, *then = [extents_of(data, spans) for data in self._maps]
        return draw_steps(title, list(map(Step, self, then)), before, result)


def _reason(cma: Cma) -> str:
    """Why the area's search found nothing; nothing where the number was not even accepted."""
    return f": {cma.failures[0].reason}" if cma.failures else ""


def _area(machine: Machine, name: str) -> Cma:
    """The area of a directory in debugfs. Raises CommandFailed where there is none."""
    from cmafs.board.areas import PLACES
    from cmafs.fs.cma_debug import directory_name

    areas = {directory_name(cma): cma for cma in machine.booted.cma}
    if areas and not machine.booted.config.on("CMA_DEBUGFS"):
        raise CommandFailed(f"no area {name}: this kernel has no CONFIG_CMA_DEBUGFS")
    shown = [directory for directory in (machine.listdir(PLACES[0]) if areas else ()) if directory in areas]
    if name not in shown:
        raise CommandFailed(f"no area {name}: there are {', '.join(shown) or 'none'}")
    return areas[name]


def _alloc(machine: Machine, area: str, pages: str) -> OSError | None:
    """Write to the area's alloc; what the kernel answered."""
    from cmafs.board.areas import PLACES

    try:
        machine.write(f"/{PLACES[0]}/{area}/alloc", pages)
    except OSError as error:
        return error
    return None
