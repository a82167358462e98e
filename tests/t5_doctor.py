"""`cmafs doctor`: one line for each requirement, and the command where one is missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from run_support import CMAFS, cmafs, mounts, ordinary_user

from cmafs.run import doctor

REQUIREMENTS = [
    "/dev/fuse", "libfuse2", "fusermount", "dtc", "cpp", "AppArmor", "user namespace", "private /proc",
    "names in /proc",
]  # fmt: skip


def test_all_is_well_here() -> None:
    before = mounts()
    done = cmafs("doctor")
    lines = done.stdout.splitlines()
    assert [line[:20].strip() for line in lines] == REQUIREMENTS
    assert all(line[21:].startswith("ok") for line in lines), done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert mounts() == before


def test_all_is_well_for_an_ordinary_user() -> None:
    with ordinary_user() as command:
        done = subprocess.run([*command, "doctor"], capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_a_device_that_the_user_may_not_open(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    with ordinary_user() as command:
        os.chmod("/dev/fuse", 0o600)
        done = subprocess.run([*command, "doctor"], capture_output=True, text=True, timeout=60, cwd="/")
        run = subprocess.run(
            [*command, "run", "--", "true"], capture_output=True, text=True, timeout=60, cwd="/"
        )
    assert done.returncode == 1
    expected = "/dev/fuse            mode 0600, this user may not open it: chmod 0666 /dev/fuse (as root)"
    assert done.stdout.splitlines()[0] == expected
    assert run.returncode == 125
    assert "/dev/fuse" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_missing_device(tmp_path: Path) -> None:
    finding = doctor.fuse_device(tmp_path / "fuse")
    assert finding.problem.startswith("missing: ")


def test_missing_programs_name_the_package() -> None:
    environment = {**os.environ, "PATH": "/nonexistent", "FUSE_LIBRARY_PATH": "libfuse-missing.so"}
    done = cmafs("doctor", env=environment)
    shown = {line[:20].strip(): line[21:] for line in done.stdout.splitlines()}
    assert shown["dtc"] == "missing: install the package that has dtc"
    assert shown["libfuse2"] == "missing: install the package that has libfuse2"
    assert done.returncode == 1


def test_packages_by_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    for program, command in (("apt-get", "apt-get install device-tree-compiler"), ("dnf", "dnf install dtc")):
        monkeypatch.setattr(
            doctor.shutil, "which", lambda name, wanted=program: name if name == wanted else None
        )
        assert doctor.install_command("dtc") == command


def test_namespaces_that_are_not_allowed() -> None:
    script = f"echo 0 > /proc/sys/user/max_user_namespaces; exec {' '.join(CMAFS)} doctor"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("user namespace "))
    problem = "cannot make a user namespace: unshare: No space left on device"
    expected = f"{problem}: sysctl user.max_user_namespaces=10000"
    assert line[21:] == expected
