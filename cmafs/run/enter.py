"""Run a command on a machine that is mounted already: `python -m cmafs.run.enter MOUNTPOINT PID CMD…`.

What the pytest plugin's run() starts; PID is the server's.
"""

from __future__ import annotations

import os
import sys

from cmafs.run.job import CANNOT_RUN, Job, NamespaceError, Server, run
from cmafs.run.root import HOST
from cmafs.run.signals import Signals
from cmafs.run.syscalls import bind


def main(arguments: list[str]) -> int:
    """Run CMD; the exit statuses of `cmafs run`."""
    mountpoint, pid, *command = arguments
    source = HOST + os.path.realpath(mountpoint)

    def serve(place: str) -> Server:
        bind(source, place)
        return Server(int(pid), own=False)

    try:
        return run(Job(command, serve, Signals.inherited()))
    except (NamespaceError, OSError) as error:
        print(f"cmafs: {error}", file=sys.stderr)
        return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
