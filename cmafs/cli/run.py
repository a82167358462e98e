"""`cmafs run` and `cmafs shell`: a command where the machine's paths stand at their absolute places."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from cmafs.cli.options import (
    Commands,
    add_matrix_options,
    boot_from,
    kernels_named,
    reported,
    shard_of,
)
from cmafs.init.options import MachineOptions
from cmafs.mount.ending import CANNOT_RUN, FAILED

_DESCRIPTION = """\
Run CMD as uid 0 where every path of the mounted tree stands at its absolute place: /sys/kernel/debug/cma,
/sys/kernel/tracing, /proc/meminfo, /dev/kmsg and the rest. Everything else is the host's: /tmp, the working
directory, the network. The simulator's own files are at $CMAFS_MOUNT/sim. The host's debugfs, kernel log and
/proc/sys/vm are out of reach, and nothing remains on the host.

--kernel also takes a comma list, or `all` (every row of `cmafs boards --kernels` but the dialects): CMD then
runs once for each, its lines prefixed with the kernel, with a table at the end. --jobs of them run at a time;
what is printed is in the order asked, and the same whatever that number is.

Exit status: CMD's; 128+N if signal N killed it; 125 cmafs failed before CMD; 126 CMD is not executable; 127
not found. With several kernels 1 if CMD failed on any.
"""
_SHELL_DESCRIPTION = """\
Start $SHELL as uid 0 where every path of the mounted tree stands at its absolute place:
/sys/kernel/debug/cma, /sys/kernel/tracing, /proc/meminfo, /dev/kmsg and the rest. Everything else is the
host's. The simulator's own files are at $CMAFS_MOUNT/sim. The prompt says which board and kernel this is.

Exit status: the shell's; 125 cmafs failed before it; 1 the machine does not survive its boot.
"""
_RUN_EXAMPLES = """\
examples:
  cmafs run -- cat /sys/kernel/debug/cma/reserved/count
  cmafs run --dts board.dts --cmdline cma=64M -- ./test.sh
  cmafs run --kernel 5.10,6.12,7.2 -- ./test.sh
  cmafs run --explain --cmdline cma=16M -- sh -c 'echo 5000 > /d/cma/reserved/alloc'    # exit status 1
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
    )
    run.add_argument("--explain", action="store_true", help="if CMD fails, print sim/why on standard error")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="command and its arguments")
    add_matrix_options(run, "the kernels")
    run.set_defaults(main=main, failure=CANNOT_RUN)
    shell = commands.add_parser(
        "shell",
        parents=[machine],
        help="a shell on a machine, with absolute paths",
        description=_SHELL_DESCRIPTION,
        epilog=_SHELL_EXAMPLES,
    )
    shell.set_defaults(main=main, command=None, explain=False, failure=CANNOT_RUN, jobs=1, shard=None)


def _command(args: argparse.Namespace) -> list[str]:
    """CMD and its arguments."""

    if args.command is None:
        options = MachineOptions.chosen(args)
        machine = Path(args.load).name if args.load else f"{Path(options.dts).name} {options.kernel}"
        return _shell(f"(cmafs {machine}) ")
    words: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        args.usage_error("no command given: cmafs run [options] -- CMD…")
    return words


def _shell(prompt: str) -> list[str]:
    """$SHELL, which begins its prompt so where it has one: bash by a file of its own, the others by PS1."""
    import os

    shell = os.environ.get("SHELL") or "/bin/sh"
    os.environ["PS1"] = f"{prompt}# "
    if Path(shell).name != "bash" or not os.isatty(0):
        return [shell]
    startup = os.memfd_create("bashrc", 0)  # inherited, and gone with the shell
    os.write(startup, f"[ ! -r ~/.bashrc ] || . ~/.bashrc\nPS1={shlex.quote(prompt)}$PS1\n".encode())
    os.lseek(startup, 0, os.SEEK_SET)
    return [shell, "--rcfile", f"/dev/fd/{startup}"]


def main(args: argparse.Namespace) -> int:
    """Run CMD on a machine, or once on each of several; the exit status."""
    command, chosen = _command(args), MachineOptions.given(args)
    kernels = kernels_named(args.kernel) if "kernel" in chosen else []
    if len(kernels) <= 1:
        return run_on(args, "".join(kernels) or None, command)
    from cmafs.run.matrix import run_each

    mine = shard_of(args.shard, kernels)
    return run_each(
        mine, lambda kernel: reported(lambda: run_on(args, kernel, command), CANNOT_RUN), args.jobs
    )


def run_on(args: argparse.Namespace, kernel: str | None, command: list[str]) -> int:
    """Boot one machine and run CMD on it. Raises Failed."""
    import os
    import signal

    from cmafs.mm.page_owner import MOVABLE_KINDS
    from cmafs.mount.server import spawn
    from cmafs.run.job import Job, ServerProcess, run, shares_superblock
    from cmafs.run.signals import Signals, in_foreground
    from cmafs.run.supervisor import Supervisor
    from cmafs.run.tasks import Announcer
    from cmafs.sim.workload import tasks

    signals, leads = Signals.inherited(), args.command is None and in_foreground()
    log = args.log and str(Path(args.log).absolute())  # the run has a root directory of its own
    panic_status = FAILED if args.command is None else None  # of a shell as of a mount
    machine = boot_from(args, kernel=kernel, panic_status=panic_status)
    news, writer = os.pipe()
    machine.booted.on_task = announce = Announcer(writer)
    for task in tasks(machine.booted.memory):
        if task.kind in MOVABLE_KINDS:
            announce("spawn", task.name)
    # in /proc/mounts only what stands for debugfs may be called so, where the kernel can tell them apart
    options = {"fsname": "cmafs" if shares_superblock() else "debugfs", "subtype": False, "allow_other": True}

    supervisor = Supervisor(machine) if machine.booted.dma_heaps else None
    keep = (writer, supervisor.socket.fileno()) if supervisor else (writer,)

    def serve(place: str) -> ServerProcess:
        beside, death = supervisor.start if supervisor else None, signal.SIGKILL
        pid = spawn(machine, place, options, log=log, parent_death_signal=death, keep=keep, beside=beside)
        return ServerProcess(pid)

    try:
        asked = supervisor.asked if supervisor else None
        return run(Job(command, serve, signals, news, args.explain, leads, asked))
    finally:
        os.close(news)
        os.close(writer)
        if supervisor:
            supervisor.close()
