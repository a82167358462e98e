"""What all subcommands share: the options that describe a machine, how it is booted, how a command fails."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cmafs.init.options import MachineOptions
from cmafs.mount.ending import FAILED, INTERRUPTED, Failed, OutputLost, complain

if TYPE_CHECKING:
    from cmafs.api import Machine
    from cmafs.lib.clock import Clock

#: What ``add_parser`` of a subcommand's module is given.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: Lines of the log that a panic prints before its own.
PANIC_LINES = 20


class CommandFailed(Failed):
    """A command cannot do what was asked; ``status`` is its exit status if not that of all its failures."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def reported(command: Callable[[], int], failure: int = FAILED) -> int:
    """The status of a command, however it ends; badly: ``failure``, and one line on standard error."""
    try:
        return command()
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutputLost as lost:
        if not lost.unread:  # else the reader has seen enough
            complain(lost)
        return FAILED
    except Exception as error:
        complain(error)
        status = error.status if isinstance(error, CommandFailed) else None
        return failure if status is None else status


def write_out(name: str, text: str) -> None:
    """Write a file whole or not at all; ``-`` is standard output. Raises CommandFailed."""
    if name == "-":
        sys.stdout.write(text)
        return
    path = Path(name)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CommandFailed(f"{name}: {error.strerror}") from None


def machine_options() -> argparse.ArgumentParser:
    """The parent parser with the options that describe a machine."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("machine")
    for option, argument in MachineOptions.arguments().items():
        group.add_argument(option, **argument)
    group.add_argument("--log", metavar="FILE", help="the server's own log, besides sim/log")
    return parser


def boot_from(
    args: argparse.Namespace,
    *,
    clock: Clock | None = None,
    panic_status: int | None = None,
    **changes: object,
) -> Machine:
    """Boot the machine that the options describe.

    Without ``clock`` it runs in real time from now; ``changes`` go before the options. Raises CommandFailed;
    for a panic with ``panic_status``, and the end of the log is printed first.
    """
    from cmafs import api
    from cmafs.init.main import KernelPanic

    try:
        return api.boot(MachineOptions.chosen(args, **changes), clock=clock or api.RealClock())
    except KernelPanic as panic:
        print(*panic.log.dmesg().splitlines()[-PANIC_LINES:], sep="\n", file=sys.stderr)
        raise CommandFailed(f"kernel panic at boot: {panic.reason}", panic_status) from None
    except (api.DtError, api.UnknownKernel, api.ConfigError, api.BadOption) as error:
        raise CommandFailed(str(error)) from None
