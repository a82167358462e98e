"""`cmafs check`: boot without mounting; say where every region went, and why one did not become an area."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cmafs.cli.options import (
    CommandFailed,
    Commands,
    add_matrix_options,
    kernels_named,
    machine_options,
    rounding,
    say_rounding,
    shard_of,
)
from cmafs.init.options import MachineOptions
from cmafs.mount.ending import one_line

if TYPE_CHECKING:
    from cmafs.check.formats import Unchecked
    from cmafs.check.report import Problem, Report
    from cmafs.of.base import DeviceTree
    from cmafs.of.source_map import Place, SourceMap

_DESCRIPTION = """\
Boot each BOARD without mounting it. Prints a table of its CMA areas, and every region that did not become
an area: file:line:column in your own source, node and property at fault, the code of the finding, what the
chosen kernel does, the rule that says so, and a remedy that was tried on a copy of the board and helped.

BOARD is a .dts (with its #includes), a .dtb, or the name of a bundled board (`cmafs boards`). --kernel takes
a release, a comma list, or `all`; the other options hold for every board.

A finding is silenced by --ignore CODE, or by /* cmafs: ignore CODE */ on its line or alone above it.

Exit status: 0 every region that asks for an area became one; 1 there are problems; 2 something could not be
checked (a line on standard error says why; of a single board nothing is on standard output then).
"""

_EPILOG = """\
examples:
  cmafs check rpi4
  cmafs check rpi4 imx8mm --kernel all --format brief
  cmafs check rpi4 --cmdline cma=320M --format json         # exit status 1
  cmafs check virt --memory 2G --log            # where the boot loader fills /memory in
  cmafs check rpi4 camera --kernel all --shard 1/4 --format sarif
"""

FORMATS = ("text", "brief", "json", "github", "sarif", "junit")

#: Boards and kernels that one process takes at a time: few enough that none is left waiting for another.
_ROUNDS = 8

Outcome: TypeAlias = "Report | Unchecked"


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `check` to the parser."""
    parser = commands.add_parser(
        "check",
        parents=[machine_options(server_log=False)],
        help="validate device trees: where their regions go, and why not",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "boards", nargs="*", metavar="BOARD", help=".dts, .dtb or the name of a bundled board"
    )
    parser.add_argument("--format", choices=FORMATS, help="how to print it (text)")
    parser.add_argument(
        "--json", action="store_true", help="one JSON document; of a single board in schema 1"
    )
    parser.add_argument("--log", action="store_true", help="print the boot log, too (text)")
    parser.add_argument(
        "--ignore",
        metavar="CODE",
        action="append",
        default=[],
        help="silence findings of this code; repeatable",
    )
    add_matrix_options(parser, "boards and kernels")
    parser.set_defaults(main=run_check, dts=None, failure=2)


@dataclass(frozen=True)
class _Job:
    """One board on one kernel, and how it is looked at; ``loaded``: it is the file of ``--load``."""

    board: str
    options: MachineOptions
    ignore: frozenset[str]
    config_files: tuple[str, ...]
    loaded: bool = False


def run_check(args: argparse.Namespace) -> int:
    """Print the reports; the exit status. Raises CommandFailed if nothing could be checked."""
    jobs = shard_of(args.shard, _jobs(args))
    outcomes = list(_examined(jobs, args.jobs))
    from cmafs.check.report import Report

    reports = [one for one in outcomes if isinstance(one, Report)]
    unchecked = [one for one in outcomes if not isinstance(one, Report)]
    if len(jobs) == 1 and unchecked:
        raise CommandFailed(unchecked[0].why)
    for one in unchecked:
        print(one_line(f"cmafs: {one.board} on {one.kernel}: {one.why}"), file=sys.stderr)
    sys.stdout.write(_formatted(args, reports, unchecked))
    return 2 if unchecked else 0 if all(report.ok for report in reports) else 1


def _jobs(args: argparse.Namespace) -> list[_Job]:
    """Every board, or the machine of ``--load``, on every kernel, as ordered. Raises CommandFailed."""
    config = _config(args.config)
    if args.load is not None:
        wanted = [(args.load, _loaded(args, config))]
    else:
        wanted = [(one, MachineOptions.chosen(args, dts=one, config=config)) for one in _boards(args)]
    kernels = _kernels(args.kernel or wanted[0][1].kernel)
    ignore, files = _codes(args), tuple(item for item in args.config if "=" not in item)
    return [
        _Job(board, replace(options, kernel=kernel), ignore, files, args.load is not None)
        for board, options in wanted
        for kernel in kernels
    ]


def _boards(args: argparse.Namespace) -> list[str]:
    """The boards that the user names. Raises CommandFailed if there is none."""
    boards = [*args.boards, *([args.dts] if args.dts is not None else [])]
    if not boards:
        from cmafs.of.fdt import boards as bundled

        known = ", ".join(board.name for board in bundled())
        raise CommandFailed(f"no board to check: give a .dts or .dtb, or a bundled board: {known}")
    return boards


def _loaded(args: argparse.Namespace, config: tuple[str, ...]) -> MachineOptions:
    """The options of the machine of ``--load``. Raises CommandFailed."""
    from cmafs.cli.load import described

    if args.boards:
        raise CommandFailed(f"give either boards or --load {args.load}")
    try:
        return described(args.load, MachineOptions.given(args, config=config)).options
    except ValueError as error:  # BadSnapshot, BadOption, DtError
        raise CommandFailed(str(error)) from None


def _kernels(text: str) -> list[str]:
    """What ``--kernel`` names; says which are answered by another row. Raises CommandFailed."""
    kernels = kernels_named(text)
    try:
        for kernel in kernels:
            say_rounding(kernel)
    except ValueError as error:  # UnknownKernel
        raise CommandFailed(str(error)) from None
    return kernels


def _config(given: Sequence[str]) -> tuple[str, ...]:
    """The lines of ``--config``. Raises CommandFailed."""
    if not given:
        return ()
    from cmafs.api import BadOption, config_lines  # which imports all files of a machine

    try:
        return tuple(config_lines(given))
    except BadOption as error:
        raise CommandFailed(str(error)) from None


def _codes(args: argparse.Namespace) -> frozenset[str]:
    """The codes to silence. Raises CommandFailed for one that no finding has."""
    codes = frozenset(code for text in args.ignore for code in text.split(",") if code)
    if codes:
        from cmafs.check.rules import RULES
        from cmafs.cli.options import suggestion

        for code in sorted(codes - RULES.keys()):
            raise CommandFailed(f"--ignore: no finding has the code '{code}'{suggestion(code, RULES)}")
    return codes


# boards on kernels, in as many processes as are wanted


def _examined(jobs: Sequence[_Job], processes: int) -> Iterator[Outcome]:
    """The outcomes in order, whatever the number of processes."""
    processes = min(processes, len(jobs))
    if processes <= 1 or any(map(_is_stream, {job.board for job in jobs})):
        yield from _counted(_chunk(jobs), len(jobs))
        return
    from multiprocessing import get_context

    from cmafs.mount.libc import begin_worker

    step = max(len(jobs) // (processes * _ROUNDS), 1)
    chunks = [jobs[at : at + step] for at in range(0, len(jobs), step)]
    with get_context("fork").Pool(processes, begin_worker) as pool:
        found = (one for chunk in pool.imap(_chunk_list, chunks) for one in chunk)
        yield from _counted(found, len(jobs))


def _is_stream(board: str) -> bool:
    """Whether a board can be read but once, as ``<(make-board)`` of a shell."""
    path = Path(board)
    return path.exists() and not path.is_file()


def _counted(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    """The same, with a line on a terminal that says how far it is."""
    from cmafs.run.progress import Progress

    progress = Progress(total, "checked")
    for number, one in enumerate(outcomes, 1):
        progress.show(number)
        yield one


def _chunk_list(jobs: Sequence[_Job]) -> list[Outcome]:
    return list(_chunk(jobs))


def _chunk(jobs: Sequence[_Job]) -> Iterator[Outcome]:
    """The outcomes of some jobs; a board that follows itself is loaded once."""
    board: _Board | None = None
    for job in jobs:
        if board is None or board.name != job.board:
            board = _Board(job.board, job.options.overlays, job.loaded)
        try:
            yield _examine(job, board)
        except ValueError as error:  # DtError, UnknownKernel, ConfigError, BadOption: one line each
            from cmafs.check.formats import Unchecked

            yield Unchecked(job.board, job.options.kernel, str(error))


@dataclass(frozen=True)
class _Board:
    """A board as the user named it, read when it is asked for. Raises DtError."""

    name: str
    overlays: tuple[str, ...]
    loaded: bool

    @cached_property
    def tree(self) -> DeviceTree:
        """The tree, with its overlays."""
        if self.loaded:
            from cmafs.cli.load import tree_of

            return tree_of(self.name, self.overlays)
        from cmafs.of.fdt import load

        return load(self.name, self.overlays)

    @cached_property
    def sources(self) -> SourceMap:
        """Where its nodes and properties stand; of one that was loaded nobody knows."""
        if self.loaded:
            from cmafs.of.source_map import SourceMap

            return SourceMap(self.name)
        from cmafs.of.fdt import source_map

        return source_map(self.tree, self.overlays)


def _examine(job: _Job, board: _Board) -> Report:
    """The report with places, without what is silenced. Raises ValueError: one line for the user."""
    from cmafs.check.examine import boot_report, cured
    from cmafs.check.report import located, without_ignored

    report = replace(boot_report(board.tree, job.options), board=job.board)
    if line := rounding(job.options.kernel):
        report = replace(report, log=[line, *report.log])
    if not report.problems:
        return report
    placed = [replace(problem, place=_config_place(job, problem)) for problem in report.problems]
    report = located(replace(report, problems=placed), board.sources, job.options.cmdline is None)
    shown = without_ignored(report, board.sources, job.ignore)
    return cured(shown, report, board.tree, job.options)


def _config_place(job: _Job, problem: Problem) -> Place | None:
    """Where a file of --config says what a finding is about."""
    if problem.code not in ("config-dropped", "config-unmodelled"):
        return None
    from cmafs.of.source_map import Place

    for file in job.config_files:
        if not Path(file).is_file():
            continue
        for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
            if line.partition("=")[0].strip() in (problem.prop, problem.detail.partition(",")[0]):
                return Place(file, number)
    return None


# output


def _formatted(args: argparse.Namespace, reports: Sequence[Report], unchecked: Sequence[Unchecked]) -> str:
    chosen = args.format or ("json" if args.json else "text")
    if chosen == "text":
        from cmafs.check.text import to_text

        return "\n".join(to_text(report, args.log) for report in reports)
    if chosen == "brief":
        from cmafs.check.text import to_brief

        return to_brief(reports)
    from cmafs.check import formats

    match chosen:
        case "github":
            return formats.to_github(reports)
        case "sarif":
            from importlib.metadata import version

            return formats.json_text(formats.to_sarif(reports, unchecked, version("cmafs")))
        case "junit":
            return formats.to_junit(reports, unchecked)
    alone = args.format is None and len(reports) == 1 and not unchecked
    return formats.json_text(formats.schema_1(reports[0]) if alone else formats.schema_2(reports))
