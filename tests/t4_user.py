"""As an ordinary user, where /dev/fuse is open to all as distributions have it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_support import NOBODY, cmafs, ordinary_user

pytestmark = pytest.mark.usefixtures("fuse_device")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the ordinary user's; pytest's own are below root's private one."""
    made = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True)
    path = Path(made.stdout.strip())
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    yield path
    path.rmdir()


def _run(command: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, cwd="/")


def _as_user(command: list[str], script: str) -> subprocess.CompletedProcess[str]:
    """A shell snippet as the user that a command line of cmafs belongs to."""
    prefix = command[: command.index("env")] if "env" in command else []
    return _run([*prefix, "sh", "-c", script])


def test_a_user_mounts_uses_and_unmounts(place: Path) -> None:
    with ordinary_user() as command:
        done = _run(command, "mount", "--cmdline", "cma=16M", str(place))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        area = f"{place}/sys/kernel/debug/cma/reserved"
        done = _as_user(command, f"echo 4 > {area}/alloc && cat {area}/used && stat -c %u:%g:%a {area}/alloc")
        user = f"{NOBODY}:{NOBODY}" if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"
        assert (done.stdout, done.stderr) == (f"100\n{user}:200\n", "")
        # default_permissions: what root of a board may, whoever mounted it may not
        done = _as_user(command, f"cat {area}/alloc")
        assert done.stderr == f"cat: {area}/alloc: Permission denied\n"
        done = _run(command, "umount", str(place))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not os.path.ismount(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_user_cannot_end_the_mount_of_another(place: Path) -> None:
    assert cmafs("mount", str(place)).returncode == 0
    try:
        with ordinary_user() as command:
            done = _run(command, "umount", str(place))
            assert done.returncode == 1
            assert done.stderr.startswith(f"cmafs: {place}: cannot be unmounted: ")
        assert os.path.ismount(place)
    finally:
        assert cmafs("umount", str(place)).returncode == 0


def test_a_mount_point_that_is_not_the_users(tmp_path: Path) -> None:
    with ordinary_user() as command:
        done = _run(command, "mount", "/boot")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
    assert not os.path.ismount("/boot")
