"""cmafs save and --load: a machine saved on one mount, loaded on another and in a run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import Mount
from run_support import cmafs

MACHINE = ("--cmdline", "cma=32M", "--kernel", "6.6")
CMA = "sys/kernel/debug/cma/reserved"
TRACING = "sys/kernel/debug/tracing"
STATE = (
    f"{CMA}/bitmap",
    f"{CMA}/used",
    "proc/buddyinfo",
    "proc/vmstat",
    "proc/meminfo",
    f"{TRACING}/trace",
    f"{TRACING}/instances/mine/trace",
    "sim/dmesg",
    "sim/tasks",
    "sim/map",
    "sim/log",
)


def sh(place: Path, script: str) -> str:
    """What a shell answers in a mounted tree, errors included."""
    done = subprocess.run(["bash", "-c", script], cwd=place, capture_output=True, text=True)
    return done.stdout + done.stderr


def live(place: Path) -> None:
    """A life that has something of everything."""
    sh(place, f"mkdir {TRACING}/instances/mine; echo 1 > {TRACING}/instances/mine/events/enable")
    sh(place, f"echo 1 > {TRACING}/events/cma/enable")
    sh(place, "echo 'file mm/cma.c +pt' > sys/kernel/debug/dynamic_debug/control")
    for line in ("spawn browser anon 200M", "pin browser 3", "pin_for browser 2 1", "slow 1", "kill nobody"):
        cmafs("ctl", str(place), *line.split())
    sh(place, f"for n in 5 300 7000 40; do echo $n > {CMA}/alloc; done; echo 100 > {CMA}/free")
    sh(place, f"echo 1 > dev/cma_test; timeout 0.4 head -n 2 {TRACING}/trace_pipe; chmod 400 {CMA}/used")
    sh(place, "echo 3 > proc/sys/vm/drop_caches; echo 1 > proc/sys/vm/compact_memory")
    sh(place, "for n in $(seq 20); do echo line $n; done > dev/kmsg; sleep 1.1; cat sim/tasks > /dev/null")


def state(place: Path) -> dict[str, str]:
    return {name: (place / name).read_text() for name in STATE}


def test_save_and_load_on_another_mount(mount: Mount, tmp_path: Path) -> None:
    first, file = mount(*MACHINE), tmp_path / "machine.snap"
    live(first)
    done = cmafs("save", str(first), str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["machine.snap"]
    second = mount("--load", str(file))
    assert state(second) == state(first)
    assert oct((second / f"{CMA}/used").stat().st_mode) == "0o100400"
    for script in (f"echo 600 > {CMA}/alloc", f"echo 9000 > {CMA}/alloc", f"echo 700 > {CMA}/free"):
        assert sh(second, script) == sh(first, script)
        assert (second / f"{CMA}/bitmap").read_text() == (first / f"{CMA}/bitmap").read_text()
    assert (second / "sim/verify").read_text() == "ok\n"


def test_a_descriptor_that_was_open_is_closed_in_the_loaded_machine(mount: Mount, tmp_path: Path) -> None:
    first = mount(*MACHINE)
    kmsg = os.open(first / "dev/kmsg", os.O_WRONLY)
    for _ in range(12):
        os.write(kmsg, b"again")
    assert cmafs("save", str(first), str(tmp_path / "snap")).returncode == 0
    second = mount("--load", str(tmp_path / "snap"))
    os.close(kmsg)  # the kernel then says how many lines it suppressed
    said = (second / "sim/dmesg").read_text().splitlines()[-1]
    assert said.endswith("2 output lines suppressed due to ratelimiting")


def test_run_on_a_loaded_machine(mount: Mount, tmp_path: Path) -> None:
    first, file = mount(*MACHINE), tmp_path / "machine.snap"
    live(first)
    assert cmafs("save", str(first), str(file)).returncode == 0
    script = f"""
        cat /{CMA}/used; uname -r
        for t in 1 2 3 4 5 6 7 8 9; do ps -e | grep -q browser && break; sleep .2; done
        ps -e | grep -c browser
    """
    done = cmafs("run", "--load", str(file), "--", "sh", "-c", script)
    used, release = (first / f"{CMA}/used").read_text(), (first / "proc/version").read_text().split()[2]
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{used}{release}\n1\n", "")


@pytest.mark.parametrize("command", [("mount", "PLACE"), ("run", "--", "true"), ("export", "PLACE")])
def test_damaged_foreign_and_missing_files(command: tuple[str, ...], tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    words = [str(place) if word == "PLACE" else word for word in command[1:]]
    for content, why in ((b"\x7fELF", "not a snapshot of cmafs"), (b"cmafs snapshot 1\nabc\n", "damaged: ")):
        (tmp_path / "bad").write_bytes(content)
        done = cmafs(command[0], "--load", str(tmp_path / "bad"), *words)
        assert done.returncode == (125 if command[0] == "run" else 1) and done.stdout == ""
        assert done.stderr.startswith(f"cmafs: {tmp_path / 'bad'}: {why}") and done.stderr.count("\n") == 1
    done = cmafs(command[0], "--load", str(tmp_path / "bad"), "--kernel", "5.10", *words)
    assert "leave out --kernel" in done.stderr and done.stderr.count("\n") == 1
    assert not any(place.iterdir())


def test_nothing_is_saved_of_what_is_no_machine(mount: Mount, tmp_path: Path) -> None:
    done = cmafs("save", str(tmp_path), str(tmp_path / "snap"))
    assert (done.returncode, done.stderr.count("\n")) == (
        1,
        1,
    ) and "no machine is mounted there" in done.stderr
    done = cmafs("save", str(mount()), str(tmp_path / "no/snap"))
    assert (done.returncode, done.stderr) == (
        1,
        f"cmafs: {tmp_path / 'no/snap'}: No such file or directory\n",
    )
    assert list(tmp_path.glob("*snap*")) == []
