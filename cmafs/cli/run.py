"""`cmafs run` and `cmafs shell`: a command where the machine's paths stand at their absolute places."""

from __future__ import annotations

import argparse

from cmafs.cli.options import CommandFailed, Commands, boot_from, reported
from cmafs.mount.ending import CANNOT_RUN, FAILED

_DESCRIPTION = """\
Run CMD as uid 0 where every path of the mounted tree stands at its absolute place: /sys/kernel/debug/cma,
/sys/kernel/tracing, /proc/meminfo, /dev/kmsg and the rest. Everything else is the host's: /tmp, the working
directory, the network. The simulator's own files are at $CMAFS_MOUNT/sim. The host's debugfs, kernel log and
/proc/sys/vm are out of reach, and nothing remains on the host.

--kernel also takes a comma list, or `all` (every row of `cmafs boards --kernels` but the dialects): CMD then
runs once for each, its lines prefixed with the kernel, with a table at the end.

Exit status: CMD's; 128+N if signal N killed it; 125 cmafs failed before CMD; 126 CMD is not executable; 127
not found. With several kernels 1 if CMD failed on any.
"""
_RUN_EXAMPLES = """\
examples:
  cmafs run -- cat /sys/kernel/debug/cma/reserved/count
  cmafs run --dts board.dts --cmdline cma=64M -- ./test.sh
  cmafs run --kernel 5.10,6.12,7.2 -- ./test.sh
  cmafs run --kernel all -- sh -c 'ls /sys/kernel/debug/cma'
"""
_SHELL_EXAMPLES = """\
examples:
  cmafs shell --dts rpi4
  echo 'echo 1024 > /sys/kernel/debug/cma/linux,cma/alloc; dmesg | tail -1' | cmafs shell --dts imx8mm
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `run` and `shell` to the parser."""
    run = commands.add_parser(
        "run",
        parents=[machine],
        help="run a command on a machine, with absolute paths",
        description=_DESCRIPTION,
        epilog=_RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="command and its arguments")
    run.set_defaults(main=main, usage_error=run.error, failure=CANNOT_RUN)
    shell = commands.add_parser(
        "shell",
        parents=[machine],
        help="the same with $SHELL",
        description=_DESCRIPTION.replace("Run CMD", "Run $SHELL", 1),
        epilog=_SHELL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shell.set_defaults(main=main, command=None, failure=CANNOT_RUN)


def _command(args: argparse.Namespace) -> list[str]:
    """CMD and its arguments."""
    import os

    if args.command is None:
        return [os.environ.get("SHELL") or "/bin/sh"]
    words: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        args.usage_error("no command given: cmafs run [options] -- CMD…")
    return words


def _kernels(text: str) -> list[str]:
    """The releases that `--kernel` names: one, a comma list, or all."""
    from cmafs.abi.rows import RELEASES

    names = list(RELEASES) if text == "all" else text.split(",")
    return [name for name in names if name]


def main(args: argparse.Namespace) -> int:
    """Run CMD on a machine, or once on each of several; the exit status."""
    command, kernels = _command(args), _kernels(args.kernel)
    if not kernels:
        raise CommandFailed("--kernel names no release: see `cmafs boards --kernels`")
    if len(kernels) > 1:
        from cmafs.run.matrix import run_each

        return run_each(kernels, lambda kernel: reported(lambda: run_on(args, kernel, command), CANNOT_RUN))
    return run_on(args, kernels[0], command)


def run_on(args: argparse.Namespace, kernel: str, command: list[str]) -> int:
    """Boot one machine and run CMD on it. Raises Failed."""
    import os
    import signal
    from functools import partial
    from pathlib import Path

    from cmafs.mount.server import spawn
    from cmafs.run.job import Job, Server, run, shares_superblock
    from cmafs.run.signals import Signals
    from cmafs.run.supervisor import Supervisor
    from cmafs.run.tasks import Announcer

    signals = Signals.inherited()
    log = args.log and str(Path(args.log).absolute())  # the run has a root directory of its own
    panic_status = FAILED if args.command is None else None  # of a shell as of a mount
    machine = boot_from(args, kernel=kernel, panic_status=panic_status)
    tasks, writer = os.pipe()
    machine.booted.on_task = Announcer(writer)
    # in /proc/mounts only what stands for debugfs may be called so, where the kernel can tell them apart
    options = {"fsname": "cmafs" if shares_superblock() else "debugfs", "subtype": False, "allow_other": True}

    supervisor = Supervisor(machine) if machine.booted.dma_heaps else None
    keep = (writer, supervisor.socket.fileno()) if supervisor else (writer,)

    def serve(place: str) -> Server:
        beside = partial(supervisor.start, place) if supervisor else None
        death = signal.SIGKILL
        pid = spawn(machine, place, options, log=log, parent_death_signal=death, keep=keep, beside=beside)
        return Server(pid)

    try:
        return run(Job(command, serve, signals, tasks, supervisor.asked if supervisor else None))
    finally:
        os.close(tasks)
        os.close(writer)
