"""The pytest plugin: the example of docs/ci.md as it stands, also under several workers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from run_support import REPOSITORY, mounts_below, ordinary_user


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example of the documentation in a directory of its own."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "ci.md").read_text(), re.DOTALL)
    (path := tmp_path / "test_example.py").write_text(blocks[0])
    return path


def _pytest(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    basetemp = f"--basetemp={cwd / 'temporary'}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", basetemp, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two workers"])
def test_the_documented_example(example: Path, workers: list[str]) -> None:
    done = _pytest("--strict-markers", "-W", "error", *workers, example, cwd=example.parent)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert mounts_below(example.parent) == []


def test_machines_are_separate_and_configured(tmp_path: Path) -> None:
    path = tmp_path / "test_machines.py"
    path.write_text(
        """
import pytest


@pytest.mark.parametrize("_", range(2))
def test_a_machine_for_each_test(cma_machine, _):
    used = cma_machine.read("/sys/kernel/debug/cma/reserved/used")
    cma_machine.write("/sys/kernel/debug/cma/reserved/alloc", "5")
    assert used == "96\\n"


pytestmark = pytest.mark.cmafs(cmdline="cma=8M")


@pytest.mark.cmafs(dts="virt", kernel="5.10", cmdline="cma=32M", seed=3)
def test_marker(cma_machine, tmp_path):
    script = "uname -r; cat /d/cma/cma-reserved/count; cat; pwd; exit 3"
    done = cma_machine.run(script, input="in\\n", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, f"5.10.223\\n8192\\nin\\n{tmp_path}\\n")
    assert cma_machine.run("grep debugfs /proc/mounts | cut -d' ' -f2").stdout == "/sys/kernel/debug\\n"
    cma_machine.run("dmesg -C; echo state > /tmp/x; rm /tmp/x", check=True)
    assert cma_machine.dmesg() == ""


def test_control_gives_the_reason(cma_machine):
    with pytest.raises(OSError, match="pin: "):
        cma_machine.control("pin nobody 1")
"""
    )
    done = _pytest(path, cwd=tmp_path)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_a_machine_that_cannot_boot_is_an_error_of_the_test(tmp_path: Path) -> None:
    path = tmp_path / "test_bad.py"
    path.write_text(
        "import pytest\n\n@pytest.mark.cmafs(dts='/no/such.dts')\ndef test(cma_machine):\n    pass\n"
    )
    done = _pytest(path, cwd=tmp_path)
    assert done.returncode == 1
    assert "/no/such.dts" in done.stdout


def test_run_works_for_an_ordinary_user(tmp_path: Path) -> None:
    """The mount is the user's own, outside the user namespace that run() makes."""
    script = """
import os, subprocess, sys, tempfile
from cmafs.api import boot, RealClock
from cmafs.pytest_plugin import CmaMachine
from cmafs.mount.server import spawn, unmount
from pathlib import Path
place = tempfile.mkdtemp()
server = spawn(boot(cmdline="cma=16M", clock=RealClock()), place, {"fsname": "debugfs", "subtype": "debugfs"})
machine = CmaMachine(Path(place), server)
area = "/sys/kernel/debug/cma/reserved"
print(machine.run(f"id -u; echo 8 > {area}/alloc; cat {area}/used").stdout)
print(machine.read(f"{area}/used"), machine.run("grep -c ' /sys/kernel/debug ' /proc/mounts").stdout)
unmount(place)
os.rmdir(place)
"""
    with ordinary_user() as command:
        words = [*command[: command.index("-m")], "-c", script]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.stdout.split(), done.stderr) == (["0", "104", "104", "1"], "")
