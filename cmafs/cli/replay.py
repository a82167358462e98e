"""`cmafs replay`: what a capture of a real board says, allocation by allocation, made again."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cmafs.cli.options import CommandFailed, Commands, boot_from, size_given
from cmafs.init.options import MachineOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmafs.cli.capture import Capture
    from cmafs.mm.cma_areas import CmaAreas
    from cmafs.replay.capture import Event
    from cmafs.replay.session import Outcome
    from cmafs.replay.survey import Geometry

#: Differences that the text lists; --json has all.
LISTED = 20

_DESCRIPTION = """\
Replay a capture: every allocation of a real board is made again, and must land where the board had it.
Says where reality and simulation part, and why.

CAPTURE is the text of ftrace with the events of cma (trace, trace_pipe, `trace-cmd report`, `perf script`),
or a kernel log with debugging of mm/cma.c; plain, .gz, .xz, a tar of `cmafs record --trace`, or - for
standard input. Lines of other kinds, lost events and buffers from before the capture are no obstacle.

Without a machine its areas are taken from the capture: the smallest that hold all of it. With --dts,
--cmdline and so on the machine is booted and its areas are used. With --size or --order the question is "what
if": the capture's requests are made of another pool, and what changes is listed.

Exit status: 0 everything was reproduced; 1 something was not; 2 it could not be replayed.
"""

_EXAMPLES = """\
examples:
  trace-cmd record -e cma -o t.dat sleep 60; trace-cmd report -i t.dat > t.txt
  cmafs replay t.txt
  cmafs replay t.txt --dts board.dts --kernel 6.12
  cmafs replay t.txt --size 32M            # what if the pool had 32 MiB?
"""


NOT_OF_2010 = "the framework of 2010 has no pool of this kind: name a release from 4.4 on"
#: log2 of the pages that kernels can have.
PAGE_SHIFTS = (12, 14, 16)


@dataclass(frozen=True)
class Areas:
    """What a capture is replayed on: areas of a kernel, whose pages are of ``1 << page_shift`` bytes."""

    kernel: str
    geometries: list[Geometry]
    page_shift: int = 12


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `replay` to the parser."""
    parser = commands.add_parser(
        "replay",
        parents=[machine],
        help="replay a trace or debug log of a real board",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument("capture", metavar="CAPTURE", help="the file; - for standard input")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")
    parser.add_argument("--size", metavar="SIZE", help="what if: the area's size (K, M, G)")
    parser.add_argument("--order", metavar="N", help="what if: log2 of the pages that one bit stands for")
    parser.set_defaults(main=run_replay, failure=2)


def run_replay(args: argparse.Namespace) -> int:
    """Replay and report; the exit status."""
    from cmafs.cli.capture import Capture
    from cmafs.replay.pool import KernelPool
    from cmafs.replay.session import Replay
    from cmafs.replay.whatif import WhatIf

    with Capture(args.capture) as capture:
        areas = areas_of(args, capture)
        if args.size is None and args.order is None:
            outcome = Replay(made(capture, areas), capture.survey.unseen).run(capture.events())
        else:
            areas = _changed(areas, args)
            pools = [KernelPool(cma) for cma in made(capture, areas)]
            outcome = WhatIf(pools, capture.survey.unseen).run(placed(args, capture))
        print(_json(outcome) if args.json else _text(capture, areas, outcome), end="")
        return 0 if outcome.reproduced == outcome.events else 1


def placed(args: argparse.Namespace, capture: Capture) -> Iterator[Event]:
    """The events of a capture with their pfns, which a log leaves out."""
    from cmafs.replay.session import Replay

    if capture.facts.traced:
        return capture.events()
    return Replay(made(capture, areas_of(args, capture))).placed(capture.events())


def made(capture: Capture, areas: Areas) -> CmaAreas:
    """The areas by themselves. Raises CommandFailed."""
    from cmafs.abi import UnknownKernel, kernel_abi
    from cmafs.replay.machine import TooLarge, bare_areas

    try:
        if kernel_abi(areas.kernel).boot.framework_2010:
            raise CommandFailed(NOT_OF_2010)
        return bare_areas(areas.kernel, areas.geometries)
    except UnknownKernel as error:
        raise CommandFailed(str(error)) from None
    except TooLarge as error:
        raise CommandFailed(f"{capture.path}: {error}") from None


def areas_of(args: argparse.Namespace, capture: Capture) -> Areas:
    """The areas of the machine that the options describe, else of the capture itself."""
    kernel = args.kernel or capture.release or capture.survey.kernel(capture.facts)
    if args.load is not None or MachineOptions.given(args, kernel=None, seed=None):
        return _booted(args, kernel)
    if found := capture.survey.geometries():
        return Areas(kernel, found)
    shift = _page_shift(capture)
    if found := _from_log(capture, shift):
        return Areas(kernel, found, shift)
    raise CommandFailed(
        f"{capture.path}: a log without pfns does not say how large the area is; name the machine (--dts, "
        "--cmdline), or add the log's boot lines"
    )


def _booted(args: argparse.Namespace, kernel: str) -> Areas:
    """Those of the machine: of ``kernel``, unless it is loaded with its own."""
    from cmafs.replay.machine import geometry

    machine = boot_from(args, runs=False, kernel=args.kernel if args.load else kernel)
    if found := [geometry(cma) for cma in machine.booted.cma if cma.count]:
        return Areas(machine.booted.options.kernel, found, machine.booted.config.page_shift)
    raise CommandFailed("this machine has no CMA area; `cmafs check` with the same options says why")


def _page_shift(capture: Capture) -> int:
    """log2 of a page: an area that boot told in bytes is listed in pages where its holes are."""
    sizes = [size for _, size in capture.facts.pools]
    totals = {capture.facts.total, *capture.survey.totals.values()}
    return next((shift for shift in PAGE_SHIFTS if any(size >> shift in totals for size in sizes)), 12)


def _from_log(capture: Capture, shift: int) -> list[Geometry]:
    """The areas that the boot told, else one as large as a list of holes says."""
    from cmafs.replay.survey import whole_areas

    pools = [(base >> shift, (base + size) >> shift, None) for base, size in capture.facts.pools]
    if pools := [pool for pool in pools if pool[0] < pool[1]]:
        return [_named(pool, capture, shift) for pool in whole_areas(pools)]
    total = capture.facts.total
    return whole_areas([(1 << 16, (1 << 16) + total, None)] if total else [])


def _named(pool: Geometry, capture: Capture, shift: int) -> Geometry:
    """An area of the boot log with the name that a list of holes has, of as many pages as no other has."""
    sizes = [size >> shift for _, size in capture.facts.pools]
    names = [name for name, total in capture.survey.totals.items() if total == pool.count]
    alone = len(sizes) > 1 and len(names) == 1 and sizes.count(pool.count) == 1
    return replace(pool, name=names[0]) if alone else pool


def _changed(areas: Areas, args: argparse.Namespace) -> Areas:
    """The areas that --size and --order ask for."""
    try:
        order = None if args.order is None else int(args.order)
    except ValueError:
        raise CommandFailed(f"--order: '{args.order}' is no number") from None
    size = size_given(args.size, "--size")
    pages = None if size is None else size >> areas.page_shift
    return replace(areas, geometries=[_resized(area, pages, order) for area in areas.geometries])


def _resized(area: Geometry, pages: int | None, order: int | None) -> Geometry:
    """An area of so many pages, of so large bits; None: as they are. Raises CommandFailed."""
    count = area.count if pages is None else pages
    order = area.order_per_bit if order is None else order
    if not 0 <= order <= 20 or count >> order << order != count or not count:
        raise CommandFailed(f"{count} pages cannot be divided into bits of 2^{order} pages")
    return replace(area, count=count, order_per_bit=order, used=())


def _json(outcome: Outcome) -> str:
    import json
    from dataclasses import asdict

    report = {
        "events": outcome.events,
        "reproduced": outcome.reproduced,
        "diverged": [asdict(one) for one in outcome.diverged],
    }
    if outcome.more:
        report["more"] = outcome.more
    return json.dumps(report, indent=2) + "\n"


def _text(capture: Capture, areas: Areas, outcome: Outcome) -> str:
    facts = capture.facts
    source = f"{facts.traced} lines of ftrace" if facts.traced else f"{facts.logged} lines of the kernel log"
    lines = [f"{capture.path}: {source}; kernel {areas.kernel}"]
    for area in areas.geometries:
        name = area.name or "(no name)"
        lines.append(f"area {name}: 0x{area.base_pfn:x}-0x{area.end_pfn - 1:x}, {area.count} pages")
    if facts.gaps:
        cut = f", one at line {facts.damaged} that is cut off" if facts.damaged else ""
        lines.append(f"events are missing at {facts.gaps} places{cut}")
    lines.append(f"reproduced: {outcome.reproduced} of {outcome.events}")
    if before := outcome.explained.get("before"):
        lines.append(f"  {before} of them with pages that were in use before the capture or over a gap")
    if order := outcome.explained.get("order"):
        lines.append(f"  {order} of them in another order than printed: several tasks at once")
    if unsaid := outcome.explained.get("unsaid"):
        lines.append(
            f"  {unsaid} of them because a release that does not say how much was not of a whole buffer"
        )
    for one in outcome.diverged[:LISTED]:
        lines.append(f"line {one.line}: recorded {one.recorded}, simulated {one.simulated}")
        lines.append(f"  {one.why}")
    if (hidden := len(outcome.diverged) + outcome.more - LISTED) > 0:
        lines.append(f"and {hidden} more; --json lists them")
    return "\n".join(lines) + "\n"
