"""Run a command on a machine that is mounted already: `python -m cmafs.run.enter MOUNTPOINT PID CMD…`.

What the pytest plugin's run() starts; PID is the server's.
"""

from __future__ import annotations

import os
import sys

from cmafs.mount.ending import CANNOT_RUN, complain, open_streams
from cmafs.run.job import Job, ServerProcess, run
from cmafs.run.root import HOST
from cmafs.run.signals import Signals
from cmafs.run.syscalls import bind


def main(arguments: list[str]) -> int:
    """Run CMD; the exit statuses of `cmafs run`."""
    mountpoint, pid, *command = arguments
    source = HOST + os.path.realpath(mountpoint)

    def serve(place: str) -> ServerProcess:
        bind(source, place)
        return ServerProcess(int(pid), own=False)

    try:
        open_streams()
        return run(Job(command, serve, Signals.inherited()))
    except Exception as error:
        complain(error)
        return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
