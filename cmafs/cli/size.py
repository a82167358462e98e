"""`cmafs size`: how large a pool must be for what a capture, or a list of buffers, asks of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cmafs.cli.options import CommandFailed, Commands, boot_from, size_given
from cmafs.cli.replay import NOT_OF_2010, placed

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from cmafs.api import Machine
    from cmafs.replay.size import Requests, Size, Trial

_PAGE_CONFIG = {
    "4K": "CONFIG_ARM64_4K_PAGES=y",
    "16K": "CONFIG_ARM64_16K_PAGES=y",
    "64K": "CONFIG_ARM64_64K_PAGES=y",
}

_DESCRIPTION = """\
The smallest CMA pool that serves a capture (as `cmafs replay` reads it) or a list of buffers, for a kernel,
page size and alignment unit; what happens in a pool one unit smaller; and a node for the board's .dts.

A list names buffers in the order in which they start (+) and stop (-):
WIDTHxHEIGHT FORMAT xN, or SIZE xN, for instance 1920x1080 nv12 x4 + 3840x2160 rgba x2 - 1920x1080 nv12 x4.
Frames are counted without padding: a driver that rounds lines or heights up needs its own sizes. Buffers are
aligned as the DMA API does it, to the order of their size up to CONFIG_CMA_ALIGNMENT; --align says otherwise.

Exit status: 0 found; 2 the question could not be answered.
"""

_EXAMPLES = """\
examples:
  cmafs size '1920x1080 nv12 x4 + 3840x2160 rgba x2'
  cmafs size 64M x3 + 1M x100 - 64M --kernel 6.1 --page-size 64K
  cmafs size trace.txt --dts board.dts
"""


class Place(NamedTuple):
    """What the machine decides: its release, log2 of the page, pages of a unit, CONFIG_CMA_ALIGNMENT, and
    the cells of an address and a size in its tree.
    """

    release: str
    page_shift: int
    unit: int
    max_order: int
    cells: tuple[int, int]

    def mib(self, pages: int) -> str:
        """Pages as MiB."""
        return f"{(pages << self.page_shift) / (1 << 20):g} MiB"


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `size` to the parser."""
    parser = commands.add_parser(
        "size",
        parents=[machine],
        help="the smallest pool that serves a capture or a list of buffers",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "wanted", metavar="CAPTURE|BUFFERS", nargs="+", help="a file, -, or a list of buffers"
    )
    parser.add_argument(
        "--align", metavar="ORDER", help="alignment of a list's buffers, as an order; 0: none"
    )
    parser.add_argument("--unit", metavar="SIZE", help="the unit of sizes, instead of the kernel's (K, M, G)")
    parser.add_argument("--page-size", choices=tuple(_PAGE_CONFIG), help="of an arm64 kernel")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")
    parser.set_defaults(main=run_size, failure=2)


def run_size(args: argparse.Namespace) -> int:
    """Search and report."""
    from cmafs.replay.machine import TooLarge
    from cmafs.replay.size import smallest_pool
    from cmafs.run.progress import Bar

    place = _place(args)
    wanted = _wanted(args, place)
    if not wanted.largest:
        raise CommandFailed(f"{' '.join(args.wanted)}: nothing is allocated")
    bar = Bar("trying")
    workers = len(os.sched_getaffinity(0))
    try:
        size = smallest_pool(wanted, place.unit, in_parallel, workers, bar.show)
    except TooLarge as error:
        raise CommandFailed(f"{' '.join(args.wanted)}: {error}") from None
    finally:
        bar.clear()
    print(_json(place, wanted, size) if args.json else _text(place, wanted, size), end="")
    return 0


def _place(args: argparse.Namespace) -> Place:
    if args.page_size and args.load:
        raise CommandFailed(f"--load: {args.load} says how large a page is; leave out --page-size")
    if args.page_size:
        args.config = [*args.config, _PAGE_CONFIG[args.page_size]]
    machine = boot_from(args, runs=False)
    if machine.booted.cma2010 is not None:
        raise CommandFailed(NOT_OF_2010)
    shift = machine.booted.config.page_shift
    unit = size_given(args.unit, "--unit") or machine.booted.config.cma_min_alignment_bytes()
    if unit & (unit - 1) or not unit >> shift:
        raise CommandFailed(f"--unit: {unit} bytes are no power of two of at least a page")
    order = machine.booted.config.number("CMA_ALIGNMENT")
    return Place(machine.booted.abi.release, shift, unit >> shift, order, _cells(machine))


def _cells(machine: Machine) -> tuple[int, int]:
    root = machine.booted.tree.root
    return root.property_read_u32("#address-cells") or 2, root.property_read_u32("#size-cells") or 1


def _is_capture(wanted: str) -> bool:
    try:
        return wanted == "-" or Path(wanted).exists()
    except OSError:  # a list may be longer than any name of a file
        return False


def _wanted(args: argparse.Namespace, place: Place) -> Requests:
    """What the capture, or the list of buffers, asks for. Raises CommandFailed."""
    from cmafs.cli.capture import Capture
    from cmafs.replay.buffers import BadList, items, requests
    from cmafs.replay.size import Requests

    if len(args.wanted) == 1 and _is_capture(args.wanted[0]):
        with Capture(args.wanted[0]) as capture:
            return Requests(list(placed(args, capture)), capture.survey.unseen, place.release)
    align = None if args.align is None else _order(args.align)
    try:
        events = list(requests(items(" ".join(args.wanted)), place.page_shift, align, place.max_order))
    except BadList as error:
        no_file = " (and there is no such file)" if len(args.wanted) == 1 else ""
        raise CommandFailed(f"{error}{no_file}") from None
    return Requests(events, [], place.release)


def _order(text: str) -> int:
    """What --align says. Raises CommandFailed."""
    try:
        order = int(text)
    except ValueError:
        order = -1
    if not 0 <= order <= 20:
        raise CommandFailed(f"--align: '{text}' is no order from 0 to 20")
    return order


def in_parallel(jobs: Sequence[Callable[[], Trial]]) -> list[Trial]:
    """Each job in a process of its own, which has what this one has."""
    import multiprocessing

    if len(jobs) == 1:
        return [jobs[0]()]
    context = multiprocessing.get_context("fork")
    running = []
    for job in jobs:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(job, there), daemon=True)
        process.start()
        there.close()
        running.append((process, here))
    try:
        return [here.recv() for _, here in running]
    except EOFError:
        raise CommandFailed("a process that tried a size has died", 1) from None
    finally:
        for process, here in running:
            here.close()
            process.terminate()
            process.join()


def _work(job: Callable[[], Trial], there: Connection) -> None:
    from cmafs.mount.libc import begin_worker

    begin_worker()
    there.send(job())


def _report(place: Place, wanted: Requests, size: Size) -> dict[str, object]:
    return {
        "kernel": place.release,
        "page_size": 1 << place.page_shift,
        "unit": place.unit << place.page_shift,
        "allocations": wanted.allocations,
        "largest_pages": wanted.largest,
        "peak_pages": size.unlimited.peak,
        "smallest": size.smallest.pages << place.page_shift,
        "below": _below(place, size.below),
        "node": _node(place, size),
    }


def _below(place: Place, tried: Trial | None) -> dict[str, object] | None:
    """What happens one unit below."""
    if tried is None or tried.refused is None:
        return None
    return {
        "size": tried.pages << place.page_shift,
        "line": tried.refused.line,
        "pages": tried.refused.pages,
        "free_pages": tried.free,
        "longest_hole": tried.longest,
    }


def _node(place: Place, size: Size) -> str:
    from cmafs.replay.size import node

    pages, unit = (count << place.page_shift for count in (size.smallest.pages, place.unit))
    return node("linux,cma", pages, unit, place.cells)


def _json(place: Place, wanted: Requests, size: Size) -> str:
    import json

    return json.dumps(_report(place, wanted, size), indent=2) + "\n"


def _text(place: Place, wanted: Requests, size: Size) -> str:
    kib = (1 << place.page_shift) >> 10
    peak = size.unlimited.peak
    lines = [
        f"kernel {place.release}, pages of {kib} KiB; areas come in units of {place.mib(place.unit)}",
        f"{wanted.allocations} allocations, the largest of {wanted.largest} pages; "
        f"at most {peak} pages in use at once ({place.mib(peak)})",
        f"smallest pool: {place.mib(size.smallest.pages)} ({size.smallest.pages} pages)",
    ]
    if size.below is None:
        lines.append("no smaller one exists: it is one unit")
    elif refused := size.below.refused:
        lines.append(
            f"one unit below, {place.mib(size.below.pages)}: line {refused.line} finds no room for "
            f"{refused.pages} pages; {size.below.free} are free, the longest hole has {size.below.longest}"
        )
    lines.append("to paste into the board's .dts, below /:")
    return "\n".join(["", *lines, "", _node(place, size)]).lstrip("\n")
