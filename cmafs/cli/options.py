"""What all subcommands share: the options that describe a machine, how it is booted, how a command fails."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from cmafs.init.options import MachineOptions
from cmafs.mount.ending import FAILED, INTERRUPTED, Failed, OutputLost, complain

if TYPE_CHECKING:
    from cmafs.api import Machine

#: What ``add_parser`` of a subcommand's module is given.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

T = TypeVar("T")

#: What ``--load`` takes.
LOAD_HELP = (
    "the machine that `cmafs save` wrote, as it was then; "
    "or one that boots as the board that `cmafs record` found"
)
#: What ``[ROOT]`` is.
ROOT_HELP = "a mount point, / of a machine (default), a directory of copied files, or a tar of `cmafs record`"
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
    else:
        write_whole(name, text.encode())


def write_whole(name: str, data: bytes) -> None:
    """Write a file whole or not at all; what is there and no file, as a device, is never replaced.

    Raises CommandFailed.
    """
    try:
        if Path(name).exists() and not Path(name).is_file():
            _write_at(os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), data)
            return
        path = Path(os.path.realpath(name))
        part = path.with_name(f".cmafs-{os.getpid()}-{time.monotonic_ns()}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with suppress(FileNotFoundError):
                _make_alike(descriptor, path.lstat())
            _write_at(descriptor, data)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        why = "nobody reads this FIFO" if error.errno == errno.ENXIO else error.strerror
        raise CommandFailed(f"{name}: {why}") from None


def _make_alike(descriptor: int, old: os.stat_result) -> None:
    """Give a new file the owner, as far as the caller may, and the permissions of the one it replaces."""
    if stat.S_ISREG(old.st_mode):
        with suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, old.st_mode & 0o777)


def _write_at(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as file:
        os.set_blocking(descriptor, True)
        file.write(data)


def read_given(name: str) -> bytes:
    """What a file that the user named holds; ``-`` is standard input. Raises CommandFailed."""
    from cmafs.of.fdt import read_named

    try:
        return sys.stdin.buffer.read() if name == "-" else read_named(name)
    except OSError as error:
        raise CommandFailed(f"{name}: {error.strerror}") from None


def read_given_text(name: str) -> str:
    """The same as text. Raises CommandFailed."""
    try:
        return read_given(name).decode()
    except UnicodeDecodeError:
        raise CommandFailed(f"{name}: not a text file") from None


def machine_options(server_log: bool = True) -> argparse.ArgumentParser:
    """A parent parser with the options that describe a machine; ``server_log``: also ``--log FILE``."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("machine")
    for option, argument in MachineOptions.arguments().items():
        group.add_argument(option, **argument)
    group.add_argument("--load", metavar="FILE", help=LOAD_HELP)
    if server_log:
        group.add_argument("--log", metavar="FILE", help="the server's own log, besides sim/log")
    return parser


def add_root_options(parser: argparse.ArgumentParser) -> None:
    """``[ROOT]``, and ``--load FILE`` instead."""
    parser.add_argument("root", metavar="ROOT", nargs="?", help=ROOT_HELP)
    parser.add_argument("--load", metavar="FILE", help=f"instead of ROOT {LOAD_HELP}; it is not mounted")


def size_given(text: str | None, option: str) -> int | None:
    """What an option says in bytes (K, M, G), None where it is not given. Raises CommandFailed."""
    from cmafs.init.options import BadOption, memory_size

    try:
        return memory_size(text, option)
    except BadOption as error:
        raise CommandFailed(str(error)) from None


# several boards, several kernels


def add_matrix_options(parser: argparse.ArgumentParser, what: str) -> None:
    """``--jobs`` and ``--shard``; ``what``: the runs that are spread."""
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--jobs", metavar="N", type=_positive, default=cores, help="processes (as many as cores)"
    )
    parser.add_argument(
        "--shard", metavar="I/N", type=_shard, help=f"only the I-th of N equal parts of {what}"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not 1 or more")
    return number


def _shard(text: str) -> tuple[int, int]:
    """``I/N`` as two numbers."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"'{text}' is not I/N with I from 1 to N, such as 2/8")
    return int(part), int(parts)


def shard_of(shard: tuple[int, int] | None, items: Sequence[T]) -> list[T]:
    """Every N-th of the items, the I-th first; together the shards are all of them."""
    return list(items) if shard is None else list(items[shard[0] - 1 :: shard[1]])


def kernels_named(text: str) -> list[str]:
    """What ``--kernel`` names: one release, a comma list, or all, each once; it may not be one that is known.

    Raises CommandFailed.
    """
    from cmafs.abi.rows import RELEASES

    names = list(RELEASES) if text == "all" else list(dict.fromkeys(filter(None, text.split(","))))
    if not names:
        raise CommandFailed("--kernel names no release: see `cmafs boards --kernels`")
    return names


def rounding(kernel: str) -> str:
    """One line if no row is this kernel's own: which one answers; else empty. Raises UnknownKernel."""
    from cmafs.abi.rows import answered_by

    row = answered_by(kernel)
    return (
        f"cmafs: there is no row for {kernel}: it is answered as {row}, the newest before it" if row else ""
    )


def say_rounding(kernel: str) -> None:
    """Print that line on standard error."""
    if line := rounding(kernel):
        print(line, file=sys.stderr)


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` if something known is much like it."""
    from difflib import get_close_matches  # only for a mistake

    near = get_close_matches(word, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def boot_from(
    args: argparse.Namespace, *, runs: bool = True, panic_status: int | None = None, **changes: object
) -> Machine:
    """Boot the machine that the options describe.

    It ``runs`` in real time from now, or its time stands still; ``changes`` go before the options. Raises
    CommandFailed; for a panic with ``panic_status``, and the end of the log is printed first.
    """
    from cmafs import api
    from cmafs.lib.panic import KernelPanic

    clock = api.RealClock() if runs else None
    try:
        if args.load is not None:
            from cmafs.cli.load import booted

            return booted(args, clock, **changes)
        options = MachineOptions.chosen(args, **changes)
        machine = api.boot(options, clock=clock)
        say_rounding(options.kernel)
        return machine
    except KernelPanic as panic:
        print(*panic.log.dmesg().splitlines()[-PANIC_LINES:], sep="\n", file=sys.stderr)
        raise CommandFailed(f"kernel panic at boot: {panic.reason}", panic_status) from None
    except api.CANNOT_BOOT as error:
        raise CommandFailed(str(error)) from None
