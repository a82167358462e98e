"""pytest plugin: a mounted machine for each test that asks for the fixture `cma_machine`.

Loaded through the entry point `pytest11`: every pytest run imports it, so that what costs time is imported by
the fixture. docs/ci.md has an example.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cmafs.mounted_machine import MountedMachine

_MARKER = "cmafs(**options): what cma_machine boots for this test, by the fields of cmafs.MachineOptions"
_MACHINE = pytest.StashKey["MountedMachine"]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


def _mistake(text: str) -> BaseException:
    """What fails a test in one line."""
    return pytest.fail.Exception(text, pytrace=False)


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the marker says. Fails the test in one line where it says more than names of options."""
    marker = request.node.get_closest_marker("cmafs")
    if marker is None:
        return {}
    if marker.args:
        raise _mistake(f"@pytest.mark.cmafs takes options by name, not {marker.args[0]!r}")
    from cmafs.init.options import BadOption, MachineOptions

    try:
        MachineOptions.named(**marker.kwargs)
    except BadOption as error:
        raise _mistake(f"@pytest.mark.cmafs: {error}") from None
    return dict(marker.kwargs)


@pytest.fixture
def cma_machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountedMachine]:
    """A machine of this test's own, booted as the marker ``cmafs`` says, unmounted at the end.

    What cannot be booted or mounted fails the test in one line; a test that fails gets the end of the
    machine's log and sim/why into its report.
    """
    from cmafs import api
    from cmafs.mounted_machine import MountFailed, mounted

    options = _options(request)
    place = tmp_path_factory.mktemp("machine", numbered=True)
    context = mounted(place, **options)
    try:
        machine = context.__enter__()
    except api.KernelPanic as panic:
        raise _mistake(f"@pytest.mark.cmafs: kernel panic at boot: {panic.reason}") from None
    except api.CANNOT_BOOT as error:
        raise _mistake(f"@pytest.mark.cmafs: {error}") from None
    except MountFailed as failure:
        raise _mistake(f"cmafs: {failure} (see `cmafs doctor`)") from None
    request.node.stash[_MACHINE] = machine
    yield machine
    context.__exit__(None, None, None)
    place.rmdir()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Say of a failed test what its machine has to say; teardown comes later."""
    report = (yield).get_result()
    machine = item.stash.get(_MACHINE, None)
    if machine is not None and report.when == "call" and report.failed:
        report.sections.append(("cmafs", machine.report()))
