"""pytest plugin: a mounted machine for each test that asks for the fixture `cma_machine`.

Loaded through the entry point `pytest11`: every pytest run imports it, so that what costs time is imported by
the fixture. docs/ci.md has an example.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

_MARKER = "cmafs(**options): what cma_machine boots for this test, by the fields of cmafs.MachineOptions"


@dataclass(frozen=True)
class CmaMachine:
    """A mounted machine: ``mount`` is where its tree is; ``server`` the pid of its server."""

    mount: Path
    server: int

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
        """Run a shell snippet as `cmafs run` does, the machine's files at their absolute places.

        Raises CalledProcessError if ``check`` and the snippet failed.
        """
        command = [sys.executable, "-m", "cmafs.run.enter", str(self.mount), str(self.server)]
        return subprocess.run(
            [*command, "/bin/sh", "-c", script],
            check=check,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            timeout=timeout,
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
        )

    def control(self, *lines: str) -> None:
        """Write lines to sim/control. Raises OSError with the verb's reason."""
        for line in lines:
            try:
                (self.mount / "sim" / "control").write_text(f"{line}\n")
            except OSError as error:
                said = (self.mount / "sim" / "log").read_text().splitlines()
                raise OSError(error.errno, said[-1] if said else line) from None

    def dmesg(self) -> str:
        """The machine's log as dmesg prints it."""
        return (self.mount / "sim" / "dmesg").read_text()

    def read(self, path: str) -> str:
        """A file of the machine by its absolute path."""
        return (self.mount / path.lstrip("/")).read_text()

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine by its absolute path. Raises OSError as the kernel does."""
        (self.mount / path.lstrip("/")).write_text(text)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def cma_machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CmaMachine]:
    """A machine of this test's own, booted as the marker ``cmafs`` says, unmounted at the end."""
    import os

    from cmafs.api import RealClock, boot
    from cmafs.mount.server import MountFailed, spawn, unmount

    marker = request.node.get_closest_marker("cmafs")
    machine = boot(**{"clock": RealClock(), **(marker.kwargs if marker else {})})
    place = tmp_path_factory.mktemp("machine", numbered=True)
    names = {"fsname": "debugfs", "subtype": "debugfs"} if os.geteuid() else {}
    try:
        server = spawn(machine, str(place), names)
    except MountFailed as failure:
        pytest.fail(f"cmafs: {failure} (see `cmafs doctor`)", pytrace=False)
    yield CmaMachine(place, server)
    unmount(str(place), lazy=True)
    place.rmdir()
