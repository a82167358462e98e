"""The files of the board that a command looks at: of [ROOT], or of the machine of --load FILE."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cmafs.board.root import ABSENT, Root, RootError, open_root
from cmafs.cli.options import CommandFailed, boot_from
from cmafs.of.fdt import read_named

if TYPE_CHECKING:
    from cmafs.api import Machine


def root_of(args: argparse.Namespace) -> Root:
    """The root that ROOT or ``--load`` names; without either ``/``. Raises RootError, CommandFailed."""
    if args.load is None:
        try:
            return open_root(args.root or "/")
        except RootError:
            _expect_no_snapshot(args.root)
            raise
    if args.root is not None:
        raise CommandFailed("give either ROOT or --load FILE", 2)
    return MachineRoot(boot_from(args, runs=False), args.load)


def _expect_no_snapshot(file: str) -> None:
    """What is no root may be what --load takes. Raises CommandFailed."""
    from cmafs.fs.sim.snapshot import MAGIC

    try:
        found = read_named(file, len(MAGIC)) == MAGIC
    except OSError:
        return
    if found:
        raise CommandFailed(f"{file}: a machine that `cmafs save` wrote: give it as --load {file}")


@contextmanager
def root_is_read() -> Iterator[None]:
    """What cannot be read of a root ends the command in one line."""
    try:
        yield
    except RootError as error:
        raise CommandFailed(str(error)) from None


class MachineRoot:
    """The files of a machine in process, as the tools that look at a board read them."""

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine, self.name = machine, name

    def read(self, path: str) -> bytes | None:
        """See Root."""
        try:
            return self._machine.read(f"/{path}")
        except OSError as error:
            self._absent(path, error)
            return None

    def names(self, path: str) -> list[str]:
        """See Root."""
        try:
            return sorted(self._machine.listdir(f"/{path}"))
        except OSError as error:
            self._absent(path, error)
            return []

    def _absent(self, path: str, error: OSError) -> None:
        if error.errno not in ABSENT:
            raise RootError(f"{self.name}: {path}: {error.strerror or errno.errorcode[error.errno or 0]}")
