"""What all subcommands share: the options that describe a machine, how it is booted, how a command fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from cmafs.api import Machine
    from cmafs.lib.clock import Clock

#: What ``add_parser`` of a subcommand's module is given.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: Lines of the log that a panic prints before its own.
PANIC_LINES = 20

ARCHITECTURES = ("arm", "arm64", "x86_64")

#: cmafs.drivers.cma2010.profile.PROFILES, which is not imported to keep the start short.
PROFILES = ("v1", "v2", "v3", "v4", "vendor", "meizu")


class CommandFailed(Exception):
    """A command cannot do what was asked: one line saying what and what to do, and the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def reported(command: Callable[[], int]) -> int:
    """The status of a command, whose failure is said in one line on standard error."""
    try:
        return command()
    except CommandFailed as failure:
        print(f"cmafs: {failure}", file=sys.stderr)
        return failure.status


def seed(text: str) -> int:
    """The value of ``--seed``, also as 0x… . Raises ValueError."""
    return int(text, 0)


def machine_options() -> argparse.ArgumentParser:
    """The parent parser with the options that describe a machine."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("machine")
    add = group.add_argument
    add("--dts", metavar="FILE", default="virt", help=".dts, .dtb or the name of a bundled board (virt)")
    add("--overlay", metavar="FILE", action="append", default=[], help="device tree overlay; repeatable")
    add("--kernel", metavar="REL", default="6.12", help="release, 4.4 to 7.2, or article, 2010 (6.12)")
    add("--arch", choices=ARCHITECTURES, help="default: as the tree's first cpu node, else arm64")
    add("--cmdline", metavar="STR", help="kernel command line, instead of /chosen/bootargs")
    add("--config", metavar="KEY=VALUE", action="append", default=[], help="Kconfig, or a file of such lines")
    add("--memory", metavar="SIZE", help="memory in one range, instead of the /memory nodes (K, M, G)")
    add("--seed", metavar="N", type=seed, default=0, help="what everything random follows from (0)")
    add("--log", metavar="FILE", help="the server's own log, besides sim/log")
    add("--profile", choices=PROFILES, help="with --kernel 2010: whose version (vendor)")
    add("--strict-quirks", action="store_true", help="with --kernel 2010: its bugs too")
    return parser


def boot_from(
    args: argparse.Namespace,
    *,
    kernel: str | None = None,
    clock: Clock | None = None,
    status: int = 1,
    panic_status: int = 1,
) -> Machine:
    """Boot the machine that the options describe.

    ``kernel`` goes before the option of that name; without ``clock`` it runs in real time from now. Raises
    CommandFailed with ``status``; for a panic with ``panic_status``, and the end of the log is printed first.
    """
    from cmafs import api
    from cmafs.init.main import KernelPanic

    try:
        return api.boot(
            dts=args.dts,
            overlays=args.overlay,
            kernel=kernel or args.kernel,
            arch=args.arch,
            cmdline=args.cmdline,
            config=args.config,
            memory=args.memory,
            seed=args.seed,
            profile=args.profile,
            strict_quirks=args.strict_quirks,
            clock=clock or api.RealClock(),
        )
    except KernelPanic as panic:
        print(*panic.log.dmesg().splitlines()[-PANIC_LINES:], sep="\n", file=sys.stderr)
        raise CommandFailed(f"kernel panic at boot: {panic.reason}", panic_status) from None
    except (api.DtError, api.UnknownKernel, api.ConfigError, api.BadOption) as error:
        raise CommandFailed(str(error), status) from None
