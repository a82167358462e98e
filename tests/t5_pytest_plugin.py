"""The pytest plugin: the example of docs/ci.md as it stands, also under several workers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_support import REPOSITORY, eventually, mounts_below, ordinary_user

import cmafs


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


def test_the_directory_of_a_program_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change, and may have files named like modules of Python."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "other" / "m").mkdir(parents=True)
    for name in ("signal", "select", "argparse", "runpy", "json"):
        (tmp_path / "other" / f"{name}.py").write_text("raise SystemExit('not this one')")
    with cmafs.mounted("m", kernel="6.1") as machine:
        monkeypatch.chdir(tmp_path / "other")
        done = machine.run("uname -r; pwd")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"6.1.192\n{tmp_path}/other\n", "")
        assert machine.read("/sim/verify") == b"ok\n"
    assert mounts_below(tmp_path) == []


def test_machines_are_separate_and_configured(tmp_path: Path) -> None:
    path = tmp_path / "test_machines.py"
    path.write_text(
        """
import pytest


@pytest.mark.parametrize("_", range(2))
def test_a_machine_for_each_test(cma_machine, _):
    used = cma_machine.read("/sys/kernel/debug/cma/reserved/used")
    cma_machine.write("/sys/kernel/debug/cma/reserved/alloc", "5")
    assert used == b"96\\n"


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


MISTAKES = {
    "dts='/no/such.dts'": "@pytest.mark.cmafs: /no/such.dts: ",
    "kernl='6.12'": "@pytest.mark.cmafs: no option of a machine: kernl; there are dts, ",
    "kernel='9.9'": "@pytest.mark.cmafs: unknown kernel '9.9'",
    "config=['CMA_ARES=3']": "@pytest.mark.cmafs: unknown option 'CMA_ARES'",
    "memory='much'": "@pytest.mark.cmafs: memory: 'much' is no size",
    "place='/tmp'": "@pytest.mark.cmafs: no option of a machine: place; there are dts, ",
    "options=3": "@pytest.mark.cmafs: no option of a machine: options; there are dts, ",
    "'rpi4'": "@pytest.mark.cmafs takes options by name, not 'rpi4'",
}


def test_a_mistake_in_the_marker_is_one_line(tmp_path: Path) -> None:
    tests = [
        f"@pytest.mark.cmafs({marker})\ndef test_{i}(cma_machine):\n    pass\n"
        for i, marker in enumerate(MISTAKES)
    ]
    (path := tmp_path / "test_bad.py").write_text("\n".join(["import pytest", *tests]))
    done = _pytest("-q", path, cwd=tmp_path)
    assert f"{len(MISTAKES)} errors" in done.stdout
    said = done.stdout.partition("= ERRORS =")[2].partition("short test summary")[0].splitlines()[1:-1]
    assert len(said) == 2 * len(MISTAKES)  # a heading and a line
    assert all(map(str.startswith, said[1::2], MISTAKES.values())), done.stdout


def test_a_failure_shows_what_the_script_and_the_machine_said(tmp_path: Path) -> None:
    (path := tmp_path / "test_fails.py").write_text(
        """
import pytest

pytestmark = pytest.mark.cmafs(cmdline="cma=16M")


def test_of_a_script(cma_machine):
    cma_machine.run("echo 4050 > /sys/kernel/debug/cma/reserved/alloc; echo lost >&2; exit 3", check=True)


def test_of_a_count(cma_machine):
    assert cma_machine.read_text("/sys/kernel/debug/cma/reserved/used") == "0\\n"
"""
    )
    done = _pytest(path, cwd=tmp_path)
    assert "2 failed" in done.stdout
    assert "ScriptFailed: exit status 3: echo 4050" in done.stdout
    script, _, count = done.stdout.partition("_ test_of_a_count _")
    for said in (
        "lost",
        "cma: __cma_alloc: reserved: alloc failed, req-size: 4050 pages, ret: -12",
        "failed: 4050 pages, -12 (ENOMEM): no hole was large enough: 4000 pages free, the largest hole 4000",
    ):
        assert said in script
    assert "sim/why:\nreserved: 4096 pages, 96 allocated" in count
    assert mounts_below(tmp_path) == []


def test_a_machine_that_is_gone_fails_its_test_alone(tmp_path: Path) -> None:
    """Its server killed, or the tree taken away by the test itself, which is what comes at the end anyway."""
    (path := tmp_path / "test_gone.py").write_text(
        """
import os
import subprocess
import sys


def test_killed(cma_machine):
    os.kill(cma_machine.server, 9)
    cma_machine.run("true", check=True)


def test_unmounted(cma_machine):
    subprocess.run([sys.executable, "-m", "cmafs", "umount", str(cma_machine.mount)], check=True)


def test_after(cma_machine):
    assert cma_machine.verify() == []
"""
    )
    done = _pytest("-q", path, cwd=tmp_path)
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    assert "the machine does not answer: Transport endpoint is not connected" in done.stdout
    assert "INTERNALERROR" not in done.stdout + done.stderr
    assert mounts_below(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_is_killed_leaves_no_mount(tmp_path: Path, number: signal.Signals) -> None:
    (place := tmp_path / "m").mkdir()
    program = (
        f"import cmafs, time\nwith cmafs.mounted({str(place)!r}):\n print('up', flush=True)\n time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"up\n"
        assert mounts_below(tmp_path) != []
        started.send_signal(number)
    assert eventually(lambda: mounts_below(tmp_path) == [])


def test_the_example_of_the_api(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "api.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_context_manager_leaves_nothing_behind(tmp_path: Path) -> None:
    with cmafs.mounted(tmp_path, cmdline="cma=16M") as machine:
        assert machine.run("cat /sys/kernel/debug/cma/reserved/count", check=True).stdout == "4096\n"
        assert machine.read_text("/proc/version").startswith("Linux version 6.12.117")
        assert machine.verify() == []
        assert tmp_path.is_mount()
    assert not tmp_path.is_mount()
    with pytest.raises(ZeroDivisionError), cmafs.mounted(cmdline="cma=16M") as machine:
        place = machine.mount
        raise ZeroDivisionError
    assert not place.exists()


def test_run_works_for_an_ordinary_user(tmp_path: Path) -> None:
    """The mount is the user's own, outside the user namespace that run() makes."""
    script = """
import cmafs
with cmafs.mounted(cmdline="cma=16M") as machine:
    area = "/sys/kernel/debug/cma/reserved"
    print(machine.run(f"id -u; echo 8 > {area}/alloc; cat {area}/used").stdout)
    print(machine.read_text(f"{area}/used"), machine.run("grep -c ' /sys/kernel/debug ' /proc/mounts").stdout)
"""
    with ordinary_user() as command:
        words = [*command[: command.index("-m")], "-c", script]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.stdout.split(), done.stderr) == (["0", "104", "104", "1"], "")
