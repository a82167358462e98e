"""A mounted machine as a Python object: for pytest's fixture, and for programs that start others on it.

>>> import cmafs
>>> with cmafs.mounted(dts="rpi4", kernel="6.1") as machine:
...     machine.run("uname -r").stdout
'6.1.192\\n'
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmafs.api import Files, RealClock, boot
from cmafs.lib.printk import encode
from cmafs.mount.mounts import MountFailed, mounted_at, unmount
from cmafs.mount.presence import live_with
from cmafs.mount.server import spawn
from cmafs.run.interpreter import own_program

__all__ = ["MountFailed", "MountedMachine", "ScriptFailed", "mounted"]

#: Lines of the log that the report of a failed script ends with.
LOG_LINES = 12


class ScriptFailed(subprocess.CalledProcessError):
    """A script that ``run(check=True)`` started has failed.

    Its text has the script's standard error, the end of the machine's log, and sim/why.
    """

    def __init__(self, done: subprocess.CompletedProcess[str], script: str, report: str) -> None:
        super().__init__(done.returncode, script, done.stdout, done.stderr)
        self.report = report

    def __str__(self) -> str:
        said = f"standard error:\n{self.stderr.rstrip()}\n" if self.stderr.strip() else ""
        return f"exit status {self.returncode}: {self.cmd}\n{said}{self.report}"


class MountedMachine(Files):
    """A mounted machine: ``mount`` is where its tree is, ``server`` the pid of the process that serves it."""

    def __init__(self, mount: Path, server: int) -> None:
        self.mount = mount
        self.server = server

    def read(self, path: str) -> bytes:
        """All of a file, by its absolute path on the machine."""
        return self._at(path).read_bytes()

    def write(self, path: str, data: bytes | str) -> int:
        """Open a file as the shell's ``>`` does, write once, close; how many bytes were taken."""
        with self._at(path).open("wb", buffering=0) as file:
            return file.write(encode(data) if isinstance(data, str) else data)

    def _at(self, path: str) -> Path:
        return self.mount / path.lstrip("/")

    def run(
        self,
        script: str,
        *,
        check: bool = False,
        input: str | None = None,
        timeout: float | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script as `cmafs run` does, the machine's files at their absolute places.

        Raises ScriptFailed, which is a CalledProcessError, if ``check`` and the script failed.
        """
        command = own_program("cmafs.run.enter", str(self.mount), str(self.server))
        done = subprocess.run(
            [*command, "/bin/sh", "-c", script],
            check=False,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            timeout=timeout,
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise ScriptFailed(done, script, self.report())
        return done

    def report(self) -> str:
        """The end of the machine's log, and sim/why: what a failed test wants to know."""
        try:
            log = "".join(f"{line}\n" for line in self.dmesg().splitlines()[-LOG_LINES:])
            return f"the end of the machine's log:\n{log}sim/why:\n{self.why()}"
        except OSError as error:
            return f"the machine does not answer: {error.strerror}\n"


@contextmanager
def mounted(place: str | Path | None = None, **options: Any) -> Iterator[MountedMachine]:
    """A machine for as long as the ``with`` lasts; ``options`` are those of ``Machine.boot``.

    ``place``: an empty directory to mount it on; without one a temporary directory is made. Raises what
    ``Machine.boot`` does, and MountFailed.
    """
    machine = boot(**{"clock": RealClock(), **options})
    directory = tempfile.mkdtemp(prefix="cmafs-") if place is None else str(Path(place).absolute())
    names: dict[str, str | bool] = {"fsname": "debugfs", "subtype": "debugfs"} if os.geteuid() else {}
    ours, lives = os.pipe()  # closed with this process, however that ends
    try:
        server = spawn(machine, directory, names, keep=[ours], beside=lambda mount: live_with(ours))
        try:
            yield MountedMachine(Path(directory), server)
        finally:
            if mounted_at(directory):  # whoever it was for may have taken it away
                unmount(directory, lazy=True)
    finally:
        os.close(ours)
        os.close(lives)
        if place is None:
            Path(directory).rmdir()
