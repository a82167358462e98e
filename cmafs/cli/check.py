"""`cmafs check`: boot without mounting; say where every region went, and why one did not become an area."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cmafs.cli.options import CommandFailed, Commands
from cmafs.init.options import MachineOptions

if TYPE_CHECKING:
    from cmafs.check.report import Report
    from cmafs.of.base import DeviceTree

_DESCRIPTION = """\
Boot the machine without mounting it. Prints the boot log, a table of its CMA areas, and every region that did
not become an area: node, property at fault, the rule it breaks, what the chosen kernel does, what to do.

Exit status: 0 every region became an area; 1 there are problems; 2 it could not be checked (one line on
standard error says why, nothing is on standard output).
"""

_EPILOG = """\
examples:
  cmafs check --dts board.dts
  cmafs check --dts board.dtb --overlay cma-512.dtbo --kernel 5.10
  cmafs check --dts rpi4 --cmdline cma=320M --json | jq '.problems[].reason'
  cmafs check --dts board.dts --memory 2G      # where the boot loader fills /memory in
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `check` to the parser."""
    parser = commands.add_parser(
        "check",
        parents=[machine],
        help="validate a board's device tree: where its regions go, and why not",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")
    parser.set_defaults(main=run_check, failure=2)


def run_check(args: argparse.Namespace) -> int:
    """Print the report; the exit status. Raises CommandFailed with status 2 if nothing could be checked."""
    from cmafs.api import config_lines
    from cmafs.of.fdt import load

    try:
        options = MachineOptions.chosen(args, config=tuple(config_lines(args.config)))
        report = report_on(load(options.dts, options.overlays), options)
    except ValueError as error:  # DtError, UnknownKernel, ConfigError, BadOption: one line each
        raise CommandFailed(str(error), 2) from None
    print(_json(report) if args.json else _text(report), end="")
    return 0 if report.ok else 1


def report_on(tree: DeviceTree, options: MachineOptions) -> Report:
    """Boot a loaded tree and examine the outcome. Raises DtError, UnknownKernel, ConfigError, BadOption."""
    from cmafs.abi import kernel_abi
    from cmafs.check.report import examine, examine_panic
    from cmafs.init.main import KernelPanic, start_kernel
    from cmafs.lib.clock import ManualClock
    from cmafs.of.cpu import machine_arch

    chosen = (options.arch, "--arch") if options.arch else machine_arch(tree)
    try:
        return examine(start_kernel(tree, options, ManualClock()), chosen[1])
    except KernelPanic as panic:
        log = panic.log.dmesg().splitlines()
        return examine_panic(
            tree, kernel_abi(options.kernel).release, chosen, panic.reason, log, panic.events
        )


def _json(report: Report) -> str:
    import json

    from cmafs.check.report import to_json

    return json.dumps(to_json(report), indent=2) + "\n"


def _text(report: Report) -> str:
    from cmafs.check.report import to_text

    return to_text(report)
