"""`cmafs compare`: whether cmafs answers as the board did that a transcript was recorded on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmafs.cli.options import CommandFailed, Commands, boot_from

if TYPE_CHECKING:
    from cmafs.api import Machine
    from cmafs.board.root import Root
    from cmafs.fs.namei import Syscalls
    from cmafs.replay.transcript import Transcript

#: Differences that are shown.
SHOWN = 20
#: Characters that a line may have; the longest recorded one has 112,059.
MAX_LINE = 1 << 24
#: The transcript in a tar of `cmafs record --walk`.
_WALK = "walk.jsonl"

_DESCRIPTION = """\
Do again what was done on a board, and compare every answer byte for byte: returned values, errno, what the
files said, the kernel's log lines. FILE is a transcript (.jsonl, .jsonl.xz), or the tar of `cmafs record
--walk AREA`, which holds the board as well. The machine is the one that FILE describes, unless options say
otherwise.

What differs is a bug of cmafs or of the description; such a FILE is what a bug report needs.

Exit status: 0 all answers are the same; 1 some differ; 2 it could not be compared.
"""

_EXAMPLES = """\
examples:
  cmafs record | ssh root@board sh -s -- --walk linux,cma --output /tmp/board.tar
  cmafs compare board.tar
  cmafs compare walk.jsonl --dts board.dts
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `compare` to the parser."""
    parser = commands.add_parser(
        "compare",
        parents=[machine],
        help="whether cmafs answers as a board did, from a transcript",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE", help="a transcript, or a tar of `cmafs record --walk`")
    parser.set_defaults(main=run_compare, failure=2)


def run_compare(args: argparse.Namespace) -> int:
    """Compare; the exit status."""
    from cmafs.replay.compare import differences

    transcript, root = _transcript(args.file)
    if not transcript.operations and "script" in transcript.header:
        raise CommandFailed(f"{args.file}: a shell script was recorded: run it with `cmafs run`, and diff")
    if not transcript.operations and not transcript.dmesg:
        raise CommandFailed(f"{args.file}: nothing was recorded that could be compared")
    kernel = _boot(args, transcript, root)
    count = shown = 0
    for count, difference in enumerate(differences(transcript, kernel), 1):
        if count <= SHOWN:
            shown = count
            print(difference)
    if count > shown:
        print(f"and {count - shown} more")
    done = f"{len(transcript.operations)} operations, {len(transcript.dmesg)} log lines"
    print(f"{args.file}: {done}: {'all as recorded' if not count else f'{count} differences'}")
    return 1 if count else 0


def _transcript(file: str) -> tuple[Transcript, Root | None]:
    """The transcript of a file, and the board's own files if it is a tar."""
    import io

    from cmafs.board.root import DAMAGED, RootError, is_tar, open_root, reason
    from cmafs.cli.capture import unpacked
    from cmafs.of.fdt import open_named
    from cmafs.replay.transcript import BadTranscript, parse

    path = Path(file)
    name = f"{path.resolve().parent.name}/{path.name.split('.jsonl')[0]}"
    try:
        if is_tar(file):
            root = open_root(file)
            walk = root.read(_WALK)
            if walk is None:
                raise CommandFailed(f"{file}: no {_WALK} in it: record with --walk AREA")
            return parse(walk.decode().splitlines(), name), root
        with open_named(file) as packed, io.TextIOWrapper(unpacked(packed), encoding="utf-8") as lines:
            return parse(iter(lambda: lines.readline(MAX_LINE), ""), name), None
    except (BadTranscript, RootError, UnicodeDecodeError, *DAMAGED) as error:
        raise CommandFailed(f"{file}: {reason(error).removeprefix(f'{file}: ')}") from None


def _boot(args: argparse.Namespace, transcript: Transcript, root: Root | None) -> Syscalls:
    """The machine: what the options say, else what the file describes."""
    from cmafs import api
    from cmafs.board.root import RootError
    from cmafs.replay.board import adopt
    from cmafs.replay.transcript import machine_options

    header = transcript.header
    for name in ("kernel", "arch", "cmdline"):
        if (value := getattr(args, name)) is not None:
            header[name] = value
    try:
        if args.load is not None:
            machine = boot_from(args, runs=False)
        elif args.dts or args.config or args.memory or args.overlays:
            options = {"dts": args.dts or "virt", **machine_options(header)}
            machine = api.boot(api.MachineOptions.chosen(args, **options))
        else:
            machine = boot_machine(header, root)
    except api.KernelPanic as panic:
        raise CommandFailed(f"{args.file}: kernel panic at boot: {panic.reason}") from None
    except (*api.CANNOT_BOOT, RootError) as error:
        raise CommandFailed(f"{args.file}: {error}") from None
    if root is not None:
        try:
            adopt(machine.booted.cma, transcript)
        except OSError:
            raise CommandFailed(f"{args.file}: {_WALK}: its first bitmap is none") from None
    return machine.syscalls


def boot_machine(header: dict[str, Any], root: Root | None = None) -> Machine:
    """The machine of a header, in process, on a clock that stands still; ``root``: the board's own files."""
    from cmafs.api import Machine, boot_tree
    from cmafs.cli.load import compiled
    from cmafs.init.options import MachineOptions
    from cmafs.replay.board import board_config, board_tree
    from cmafs.replay.transcript import header_config, header_dts, machine_options

    tree = (board_tree(root) if root else None) or header_dts(header).encode()
    config = (board_config(root) if root else []) or header_config(header)
    options = MachineOptions.named(**machine_options(header), config=tuple(config))
    return Machine(boot_tree(compiled("its device tree", tree), options))
