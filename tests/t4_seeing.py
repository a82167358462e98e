"""map, why, top, record on mounted machines, as a user runs them; how top ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import Mount
from run_support import CMAFS, REPOSITORY, cmafs

from cmafs.board.areas import read_areas
from cmafs.board.root import RootError, open_root


def allocate(place: Path, *pages: int) -> None:
    for count in pages:
        (place / "sys/kernel/debug/cma/reserved/alloc").write_text(f"{count}\n")


def fill(place: Path) -> None:
    """A task that has nearly all of memory, most of it pinned."""
    meminfo = (place / "proc/meminfo").read_text()
    free = int(meminfo.partition("MemFree:")[2].split()[0])
    assert cmafs("ctl", str(place), "spawn", "browser", "anon", f"{free - 3000}K").returncode == 0
    assert cmafs("ctl", str(place), "pin", "browser", str(free // 4 - 1000)).returncode == 0


def test_a_map_names_who_has_what(mount: Mount, tmp_path: Path) -> None:
    place = mount("--cmdline", "cma=16M", "--memory", "256M")
    allocate(place, 500)
    fill(place)
    done = cmafs("map", str(place), "--width", "80")
    assert (done.returncode, done.stderr) == (0, "")
    assert "debugfs: 500 allocated" in done.stdout
    assert "browser: " in done.stdout and "pinned" in done.stdout and "!" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    coloured = cmafs("map", str(place), "--width", "80", "--color", "always").stdout
    assert "\x1b[" in coloured
    svg = cmafs("map", str(place), "--svg", str(tmp_path / "a.svg"))
    assert (svg.returncode, svg.stdout) == (0, "") and "<svg" in (tmp_path / "a.svg").read_text()


def test_why_tries_each_advice_on_a_copy(mount: Mount) -> None:
    place = mount("--cmdline", "cma=16M@0x60000000")
    for line in ("spawn task anon 50M", "pin pfn 0x60800"):
        assert cmafs("ctl", str(place), *line.split()).returncode == 0
    with pytest.raises(OSError):
        allocate(place, 3900)
    before = (place / "sim/tasks").read_text(), (place / "sim/dmesg").read_text()
    done = cmafs("why", str(place))
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        ": 3900 pages, -16 (EBUSY)" in done.stdout
    )  # the file object may write a second time when it is closed
    tried = [line.strip() for line in done.stdout.splitlines() if "(tried)" in line]
    assert tried == [
        "helps (tried): unpin all 1 pages in its holes",
        "does not help (tried): echo 1 > /proc/sys/vm/compact_memory",
        "does not help (tried): echo 3 > /proc/sys/vm/drop_caches",
        "does not help (tried): have dma_atomic_pool give back its 96 pages",
    ]
    assert ((place / "sim/tasks").read_text(), (place / "sim/dmesg").read_text()) == before
    assert cmafs("ctl", str(place), "unpin", "pfn", "0x60800").returncode == 0
    assert "goes through now, as it is (tried)" in cmafs("why", str(place)).stdout
    allocate(place, 3900)
    assert (place / "sim/verify").read_text() == "ok\n"


def test_why_says_what_task_is_in_the_way(mount: Mount) -> None:
    place = mount("--cmdline", "cma=16M", "--memory", "256M")
    fill(place)
    with pytest.raises(OSError):
        allocate(place, 3900)
    assert "  helps (tried): kill browser\n" in cmafs("why", str(place)).stdout


def test_faults_that_take_time(mount: Mount) -> None:
    place = mount("--cmdline", "cma=16M", "--memory", "256M")
    fill_lightly = ("spawn", "task", "anon", "20M")
    assert cmafs("ctl", str(place), *fill_lightly).returncode == 0
    for line in ("pin_for task 10 1", "slow 300"):
        assert cmafs("ctl", str(place), *line.split()).returncode == 0
    assert (place / "sim/faults").read_text() == "pin_for task 10 1\nslow 300\n"
    limit = time.monotonic() + 20
    while "pin_for" in (place / "sim/faults").read_text():
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert cmafs("ctl", str(place), "kill", "task").returncode == 0
    free = int((place / "proc/meminfo").read_text().partition("MemFree:")[2].split()[0])
    assert cmafs("ctl", str(place), "spawn", "task", "anon", f"{free - 9000}K").returncode == 0
    start = time.monotonic()
    allocate(place, 1000)
    assert time.monotonic() - start > 0.3
    assert cmafs("ctl", str(place), "slow", "0").returncode == 0
    assert (place / "sim/faults").read_text() == ""


def test_lockdown_on_a_mount(machine: Path) -> None:
    assert cmafs("ctl", str(machine), "lockdown", "on").returncode == 0
    with pytest.raises(PermissionError):
        allocate(machine, 1)
    done = cmafs("ctl", str(machine), "lockdown", "perhaps")
    assert (done.returncode, done.stderr) == (1, "cmafs: lockdown: expected on|off\n")
    assert cmafs("ctl", str(machine), "lockdown", "off").returncode == 0
    allocate(machine, 1)


# top


def drive(
    place: Path, keys: list[bytes], end: Callable[[int], None] | None = None, rows: int = 24
) -> tuple[str, int]:
    """Run `cmafs top` in a terminal, press keys one after another, then do something; output, exit status."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ["TERM"] = "xterm"
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background
        os.chdir(REPOSITORY)
        os.execvp(CMAFS[0], [*CMAFS, "top", str(place), "--interval", "0.2"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 100, 0, 0))
    output, limit = b"", time.monotonic() + 30
    pressed = 0
    while time.monotonic() < limit:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            output += data
        if b"q quit" in output and pressed < len(keys):
            os.write(terminal, keys[pressed])
            pressed += 1
        elif b"q quit" in output and end:
            end(pid)
            end = None
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return output.decode("utf-8", "replace"), os.waitstatus_to_exitcode(status)


def test_top_shows_and_ends_at_q(mount: Mount) -> None:
    place = mount("--cmdline", "cma=16M")
    allocate(place, 100)
    output, status = drive(place, [b"u", b"l", b"h", b"r", b"+", b" ", b"\x1b[B", b"q"])
    assert status == 0
    for words in ("1 area, 16 MiB", "MAXCHUNK", "dma_atomic_pool", "reversed"):
        assert words in output
    assert "\x1b[?1049l" in output  # the terminal is as it was
    assert "Traceback" not in output


@pytest.mark.parametrize("number, status", [(signal.SIGHUP, 0), (signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_top_ends_at_a_signal(mount: Mount, number: int, status: int) -> None:
    output, ended = drive(mount("--cmdline", "cma=16M"), [], lambda pid: os.kill(pid, number))
    assert ended == status
    assert "\x1b[?1049l" in output and "Traceback" not in output


def test_top_ends_at_control_c(mount: Mount) -> None:
    output, status = drive(mount("--cmdline", "cma=16M"), [b"\x03"])
    assert status == 130 and "Traceback" not in output


def test_top_ends_with_the_mount_and_does_not_hold_it(mount: Mount) -> None:
    place = mount("--cmdline", "cma=16M")
    output, status = drive(place, [], lambda _: subprocess.run([*CMAFS, "umount", str(place)], check=True))
    assert status == 0
    assert "no CMA area" in output.replace("\r\n", " ") and "Traceback" not in output


def test_top_in_a_small_terminal(mount: Mount) -> None:
    output, status = drive(mount("--cmdline", "cma=16M"), [b"q"], rows=5)
    assert status == 0 and "Traceback" not in output


def test_top_as_text(mount: Mount) -> None:
    place = mount("--cmdline", "cma=16M", "--kernel", "7.2")
    with pytest.raises(OSError):
        allocate(place, 4000)
        allocate(place, 4000)
    failed = (place / "proc/vmstat").read_text().partition("cma_alloc_fail ")[2].split()[0]
    done = cmafs("top", str(place), "--count", "2", "--interval", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("MAXCHUNK") == 2
    assert f"failed requests: {failed}, 0.0/s" in done.stdout
    assert cmafs("top", str(place), "--interval", "0").returncode == 2
    assert cmafs("top", str(place / "proc")).returncode == 1


# record


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "record.sh"
    path.write_text(cmafs("record").stdout)
    return path


@pytest.mark.parametrize(
    "shell, kernel", [("busybox sh", "4.19"), ("dash", "6.1"), ("busybox sh", "7.2"), ("bash --posix", "7.2")]
)
def test_a_recorded_board_is_a_root(script: Path, tmp_path: Path, shell: str, kernel: str) -> None:
    tar = tmp_path / "board.tar"
    machine = ["--cmdline", "cma=16M", "--kernel", kernel, "--config", "CMA_DEBUGFS=y"]
    walk = ["--walk", "cma-reserved" if kernel == "4.19" else "reserved", "--steps", "12"]
    done = cmafs("run", *machine, "--", *shell.split(), str(script), "--output", str(tar), *walk)
    assert (done.returncode, done.stdout) == (0, f"{tar}\n"), done.stderr
    root = open_root(str(tar))
    (area,) = read_areas(root)
    assert (area.count, area.maxchunk) == (4096, 4096 - area.used)
    for name in ("proc/meminfo", "proc/iomem", "sys/firmware/devicetree/base/compatible", "dmesg"):
        assert root.read(name)
    assert root.read("record.txt").startswith(b"format 1\n")  # type: ignore[union-attr]
    lines = [json.loads(line) for line in (root.read("walk.jsonl") or b"").splitlines()]
    assert lines[0]["header"]["cmdline"] == "cma=16M"
    writes = [one for one in lines[1:] if one["op"] == "W"]
    assert len(writes) >= 12 and all(one["errno"] in (0, 12) for one in writes)
    assert lines[-2]["out"] == f"{area.maxchunk}\n"  # all was given back
    for command in (["map", str(tar), "--width", "80"], ["why", str(tar)], ["top", str(tar), "--count", "1"]):
        done = cmafs(*command)
        assert done.returncode == 0, done.stderr


def test_a_walk_answers_what_the_machine_answers(script: Path, tmp_path: Path) -> None:
    tar = tmp_path / "board.tar"
    words = ["--output", str(tar), "--walk", "reserved", "--trace", "1", "--steps", "30", "--seed", "11"]
    done = cmafs("run", "--cmdline", "cma=4M", "--", "dash", str(script), *words)
    assert done.returncode == 0, done.stderr
    root = open_root(str(tar))
    lines = [json.loads(line) for line in (root.read("walk.jsonl") or b"").splitlines()][1:]
    used = 96
    for one, after in pairwise(lines):
        if one["op"] == "W" and not one["errno"]:
            used += int(one["data"]) * (1 if one["path"].endswith("/alloc") else -1)
            assert one["ret"] == len(one["data"])
            assert after["out"] == f"{used}\n"
    assert any(one.get("errno") == 12 for one in lines)
    assert b"cma_alloc" in (root.read("trace") or b"")


def test_record_refuses_in_one_line_and_leaves_nothing(script: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    for words, status in (
        (["--walk", "none"], 1), (["--steps", "x"], 2), (["--bogus"], 2), (["--output", "/none/x"], 1),
        (["--output", "''"], 2), (["--output", str(tmp_path)], 1), (["--steps", "9" * 20], 2),
    ):  # fmt: skip
        done = cmafs("run", "--", "sh", "-c", f"cd {place} && TMPDIR={place} dash {script} {' '.join(words)}")
        assert done.returncode == status, words
        assert done.stderr and list(place.iterdir()) == []


def test_record_removes_and_writes_only_what_it_made(script: Path, tmp_path: Path) -> None:
    victim, part = tmp_path / "victim", tmp_path / "a.tar.part"
    victim.write_text("precious")
    part.mkdir()
    (part / "file").write_text("kept")
    tar = str(tmp_path / "a.tar")
    for words in (["--walk", "none"], []):
        assert cmafs("run", "--", "dash", str(script), "--output", tar, *words).returncode == 1
        assert (part / "file").read_text() == "kept"
    (tmp_path / "b.tar.part").symlink_to(victim)
    assert cmafs("run", "--", "dash", str(script), "--output", str(tmp_path / "b.tar")).returncode == 1
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("shell", ["busybox sh", "dash", "bash --posix"])
def test_record_takes_odd_names_and_numbers(script: Path, tmp_path: Path, shell: str) -> None:
    """Twice, with a directory of an earlier one left behind: in a namespace the pid is the same."""
    words = f"TMPDIR={tmp_path} {shell} {script} --walk reserved --steps 01 --seed 08 --output -x.tar"
    again = f"cd {tmp_path} && for n in $(seq 40); do mkdir -p record.$n; done && {words}"
    done = cmafs("run", "--cmdline", "cma=4M", "--", "sh", "-c", again)
    assert (done.returncode, done.stdout, done.stderr) == (0, "-x.tar\n", "")
    assert open_root(str(tmp_path / "-x.tar")).read("record.txt")
    assert not list(tmp_path.glob("record.*.*"))


def test_record_that_is_ended_leaves_the_board_as_it_was(script: Path, tmp_path: Path) -> None:
    enable = "/sys/kernel/tracing/events/cma/enable"
    ended = f"""
        sh {script} --output {tmp_path}/a.tar --trace 30 & pid=$!
        until [ "$(cat {enable})" = 1 ]; do sleep 0.1; done
        kill $pid; wait $pid; echo $?; cat {enable}"""
    done = cmafs("run", "--cmdline", "cma=4M", "--", "sh", "-c", ended)
    assert (done.returncode, done.stdout) == (0, "143\n0\n")
    walk = f"""
        TMPDIR={tmp_path} sh {script} --output {tmp_path}/a.tar --walk reserved --steps 99999 & pid=$!
        until [ -s {tmp_path}/record.[0-9]*/walk.jsonl ]; do sleep 0.1; done; sleep 0.5
        kill $pid; wait $pid; echo $?
        cat /sys/kernel/debug/cma/reserved/used; ls -d {tmp_path}/record.[0-9]*"""
    done = cmafs("run", "--cmdline", "cma=4M", "--", "sh", "-c", walk)
    assert done.stdout == "143\n96\n"


def test_a_recorded_tar_cut_short_is_one_line(script: Path, tmp_path: Path) -> None:
    tar = tmp_path / "board.tar"
    assert cmafs("run", "--", "dash", str(script), "--output", str(tar)).returncode == 0
    data = tar.read_bytes()
    for length in (10, 700, len(data) // 2, len(data) // 512 // 2 * 512):
        tar.write_bytes(data[:length])
        with pytest.raises(RootError, match="not a whole tar file"):
            read_areas(open_root(str(tar)))
