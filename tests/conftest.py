"""Fixtures of all layers: a mounted machine, and what happens to its tests where FUSE cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_support import cmafs
from soak_support import SOAK, load_profile, seconds_of, share_out

Mount = Callable[..., Path]

load_profile()


def pytest_configure(config: pytest.Config) -> None:
    """The mark of what a soak runs: see soak_support.py."""
    config.addinivalue_line("markers", "soak(weight, seconds=0): its share of a soak; seconds in the suite")


@pytest.hookimpl(trylast=True)  # after Hypothesis has marked what is its own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a soak: its tests alone."""
    if SOAK:
        chosen = share_out(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """How long a test that is marked ``soak`` may go on."""
    return seconds_of(request.node)


@pytest.fixture(scope="session")
def fuse_device() -> None:
    """Skip without /dev/fuse, but fail where CI promised it."""
    if os.access("/dev/fuse", os.R_OK | os.W_OK):
        return
    text = "/dev/fuse cannot be opened: see `cmafs doctor`"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture
def mount(tmp_path: Path, fuse_device: None) -> Iterator[Mount]:
    """``mount(*machine options)`` mounts a machine and gives its mount point; all end with the test."""
    places: list[Path] = []

    def mount_one(*options: str) -> Path:
        place = tmp_path / f"mnt{len(places)}"
        place.mkdir()
        done = cmafs("mount", *options, str(place))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        places.append(place)
        return place

    yield mount_one
    for place in places:
        if os.path.ismount(place):
            done = cmafs("umount", str(place))
            assert done.returncode == 0, done.stderr


@pytest.fixture
def machine(mount: Mount) -> Path:
    """The mount point of a board with a 16 MiB area, ``reserved``, kernel 6.12."""
    return mount("--cmdline", "cma=16M")
