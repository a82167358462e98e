"""Every example of every --help is run, and ends as it says; mistakes are answered with the right usage."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_support import cmafs, mounts_below

from cmafs.cli.classroom import read_lesson
from cmafs.cli.describe import commands
from cmafs.cli.learn import LESSONS as LESSON_FILES
from cmafs.cli.main import make_parser

PARSER = make_parser()
COMMANDS = commands(PARSER)
LESSONS = {path.stem.lstrip("0123456789-"): path for path in sorted(LESSON_FILES.glob("*.toml"))}

BOARD = """/dts-v1/;
/ {
    #address-cells = <1>; #size-cells = <1>;
    memory@40000000 { device_type = "memory"; reg = <0x40000000 0x20000000>; };
    reserved-memory {
        #address-cells = <1>; #size-cells = <1>; ranges;
        linux,cma { compatible = "shared-dma-pool"; reusable; size = <0x400000>; };
    };
};
"""
#: Commands whose examples speak of a machine that is mounted at /mnt/m.
MOUNTED = ("ctl", "save", "dmesg", "umount", "map", "why", "top")
#: Commands whose examples speak of a real board, or of files from one.
BOARDS = ("map", "why", "record", "top", "replay", "size", "compare")

#: Who is not here: the board behind ssh and adb, the machine that sudo reads, and trace-cmd.
ELSEWHERE = {
    "sudo": 'exec cmafs run --dts board.dts -- "$@"',
    "ssh": 'test "$1" = root@board && shift && exec cmafs run --dts board.dts -- "$@"',
    "adb": 'test "$1" = shell && shift && exec cmafs run --dts board.dts -- "$@"',
    "trace-cmd": 'if test "$1" = record; then echo > t.dat; else cat trace.txt; fi',
}
#: What a user has from a board: a tar of `cmafs record`, a trace, a log.
FETCH = """\
cmafs record | sh -s -- --output "$1/board.tar" --walk linux,cma
cd /sys/kernel/debug/cma/linux,cma || exit
echo 1 > /sys/kernel/tracing/events/cma/enable
echo 300 > alloc; echo 999999 > alloc; echo 100 > free
cat /sys/kernel/tracing/trace > "$1/trace.txt"
dmesg > "$1/log.txt"
"""


def examples(epilog: str | None) -> list[tuple[str, int]]:
    """(command, exit status that a comment behind it announces, else 0) of each line below `examples:`."""
    lines = (epilog or "").partition("examples:\n")[2].split("\n\n")[0].splitlines()
    told = ((line.strip(), re.search(r"# exit status (\d+)$", line)) for line in lines if line.strip())
    return [(re.sub(r"(   +|\s+# ).*", "", line), int(status[1]) if status else 0) for line, status in told]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with what examples name: a board, a script, home directories."""
    (tmp_path / "board.dts").write_text(BOARD)
    (tmp_path / "test.sh").write_text("#!/bin/sh\nls /sys/kernel/debug/cma\n")
    (tmp_path / "test.sh").chmod(0o755)
    (tmp_path / "answer.sh").write_text(read_lesson("exhaust", LESSONS["exhaust"]).solution)
    (tmp_path / "bin").mkdir()
    for name, script in ELSEWHERE.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for directory in ("m", "rpi", "home/.zfunc", "home/.config/fish/completions", "man1"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


def elsewhere(command: str, place: Path) -> str:
    """An example that writes into this test's directories only."""
    for name, directory in {
        "/mnt/m": "m",
        "/mnt/rpi": "rpi",
        "/tmp/rpi": "export",
        "/tmp/board.tar": "board.tar",
    }.items():
        command = re.sub(rf"{name}\b", str(place / directory), command)
    return command.replace("/usr/local/share/man/man1", str(place / "man1"))


def bash(command: str, place: Path, keys: str = "") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{place}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(place / "state"),
        "HOME": str(place / "home"),
        "SHELL": "/bin/sh",
        "MANPAGER": "cat",
    }
    words = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, input=keys)


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what a board gave."""
    place = tmp_path_factory.mktemp("board")
    (place / "board.dts").write_text(BOARD)
    (place / "fetch.sh").write_text(FETCH)
    (place / "copied-files").mkdir()
    done = bash(f"cmafs run --dts board.dts -- sh fetch.sh {place}", place)
    assert done.returncode == 0, done.stderr
    (place / "machine").mkdir()
    for command in (
        "cmafs mount machine && cmafs save machine fragmented.snap; cmafs umount machine",
        "tar xf board.tar -C copied-files",
        "mv copied-files/walk.jsonl .",
        "cp trace.txt t.txt",
    ):
        assert bash(command, place).returncode == 0
    return place


def typed(example: str) -> str:
    """What somebody types who takes a lesson: its solution."""
    name = next((word for word in example.split()[2:] if word in LESSONS), next(iter(LESSONS)))
    return read_lesson(name, LESSONS[name]).solution + "\ncheck\n"


@pytest.mark.usefixtures("fuse_device")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_examples_of(command, place: Path, fetched: Path) -> None:
    assert examples(command.parser.epilog), "no examples"
    try:
        if command.name in MOUNTED:
            assert cmafs("mount", str(place / "m")).returncode == 0
        if command.name in BOARDS:
            shutil.copytree(fetched, place, dirs_exist_ok=True)
        for example, status in examples(command.parser.epilog):
            keys = typed(example) if command.name == "learn" else ""
            done = bash(elsewhere(example, place), place, keys)
            assert done.returncode == status, (example, done.stdout, done.stderr)
            if command.name == "mount":
                cmafs("umount", str(place / "m"))
    finally:
        for mounted in mounts_below(place):
            cmafs("umount", "-l", mounted)


@pytest.mark.usefixtures("fuse_device")
def test_the_examples_of_the_whole(place: Path) -> None:
    for example, status in examples(PARSER.epilog):
        done = bash(elsewhere(example, place), place)
        assert (done.returncode, done.stderr) == (status, ""), example


@pytest.mark.parametrize(
    ("words", "usage", "error"),
    [
        (["boards", "rpi4"], "usage: cmafs boards ", "cmafs boards: error: unrecognized arguments: rpi4"),
        (["mount", "--no-such", "x"], "usage: cmafs mount ", "cmafs mount: error: "),
        (["umount", "a", "b"], "usage: cmafs umount ", "cmafs umount: error: unrecognized arguments: b"),
        (["run"], "usage: cmafs run ", "cmafs run: error: no command given"),
        (["nosuch"], "usage: cmafs ", "cmafs: error: "),
    ],
)
def test_a_mistake_is_answered_with_the_usage_of_its_command(
    words: list[str], usage: str, error: str
) -> None:
    done = cmafs(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(usage)
    assert error in done.stderr


def test_help_of_ctl_behind_a_mount_point() -> None:
    assert "spawn NAME anon|file|tmpfs|kernel|slab SIZE" in cmafs("ctl", "/nowhere", "--help").stdout
    assert cmafs("ctl", "/nowhere", "pin", "-h").returncode == 0


def test_version() -> None:
    assert cmafs("--version").stdout == f"cmafs {__import__('cmafs').__version__}\n"
