"""`cmafs run` for tests: as this user and as an ordinary one, and what must not be left of it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = Path(__file__).resolve().parent / "scripts"
CMAFS = [sys.executable, "-m", "cmafs"]
MACHINE = ["--cmdline", "cma=16M"]
NOBODY = 65534


def cmafs(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """One command line of cmafs, its output as text."""
    return subprocess.run(
        [*CMAFS, *words],
        **{"capture_output": True, "text": True, "timeout": 60, "cwd": REPOSITORY, **options},
    )


def cmafs_after(code: str) -> list[str]:
    """The words of cmafs in a process in which Python code has run before."""
    return [
        sys.executable,
        "-c",
        f"import runpy, sys\n{code}\nsys.argv[0] = 'cmafs'\nrunpy.run_module('cmafs', run_name='__main__')",
    ]


def run(script: str, *options: str, **process: object) -> subprocess.CompletedProcess[str]:
    """A shell snippet on a 16 MiB area of the default board."""
    return cmafs("run", *MACHINE, *options, "--", "sh", "-c", script, **process)


def server_of_run(pid: int) -> int:
    """The pid of a run's server: the bigger one; the other has only the names in /proc."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return max((int(child) for child in children if os.getsid(int(child)) == int(child)), key=resident)


@contextmanager
def ordinary_user() -> Iterator[list[str]]:
    """The words that start cmafs as an ordinary user; /dev/fuse is as distributions set it meanwhile.

    What lies below root's home cannot be read by others: the distribution's interpreter runs a copy.
    """
    if os.geteuid() != 0:
        yield CMAFS
        return
    with open("/dev/fuse") as device, tempfile.TemporaryDirectory() as copy:
        fcntl.flock(device, fcntl.LOCK_EX)  # several pytest workers change the same mode
        mode = os.fstat(device.fileno()).st_mode & 0o777
        os.chmod("/dev/fuse", 0o666)
        try:
            publish(Path(copy))
            user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            yield [
                *user,
                "env",
                f"PYTHONPATH={copy}",
                "PYTHONDONTWRITEBYTECODE=1",
                "/usr/bin/python3",
                "-m",
                "cmafs",
            ]
        finally:
            os.chmod("/dev/fuse", mode)


def publish(place: Path) -> None:
    """Copy cmafs and the libraries it needs to a place that everybody may read."""
    libraries = Path(sysconfig.get_paths()["purelib"])
    names = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")
    pytest = [libraries / name for name in names]
    for package in (REPOSITORY / "cmafs", libraries / "pyfdt", *pytest):  # the plugin imports pytest
        shutil.copytree(package, place / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for module in ("fuse.py", "py.py"):
        shutil.copy(libraries / module, place)
    place.chmod(0o755)


def mounts() -> list[str]:
    """The host's mounts, except for those of tests that run at the same time, below temporary directories."""
    lines = [line.split(" ", 2)[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted(line for line in lines if not line.split()[2].startswith(f"{tempfile.gettempdir()}/"))


def mounts_below(directory: Path) -> list[str]:
    """Mount points below a directory."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{directory}/")]


def processes(word: str) -> list[str]:
    """Command lines of processes that have a word in theirs."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if word in line:
                found.append(line)
    return found


def resident(pid: int) -> int:
    """Kilobytes of memory that a process has."""
    match = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1])


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true within 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
