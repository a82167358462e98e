"""Every example of every --help is run, and ends as it says; mistakes are answered with the right usage."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from run_support import cmafs, mounts_below

from cmafs.cli.describe import commands
from cmafs.cli.main import make_parser

PARSER = make_parser()
COMMANDS = commands(PARSER)

BOARD = """/dts-v1/;
/ {
    #address-cells = <1>; #size-cells = <1>;
    memory@40000000 { device_type = "memory"; reg = <0x40000000 0x20000000>; };
    reserved-memory {
        #address-cells = <1>; #size-cells = <1>; ranges;
        camera@50000000 { compatible = "shared-dma-pool"; reusable; reg = <0x50000000 0x400000>; };
    };
};
"""
#: Commands whose examples speak of a machine that is mounted at /mnt/m.
MOUNTED = ("ctl", "save", "dmesg", "umount")
#: Commands whose examples speak of a real board, of files copied from one, or of somebody at the keys.
BOARDS = ("map", "why", "record", "top", "replay", "size", "compare", "learn")


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
    for directory in ("m", "rpi", "home/.zfunc", "home/.config/fish/completions", "man1"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


def elsewhere(command: str, place: Path) -> str:
    """An example that writes into this test's directories only."""
    for name, directory in {"/mnt/m": "m", "/mnt/rpi": "rpi", "/tmp/rpi": "export"}.items():
        command = re.sub(rf"{name}\b", str(place / directory), command)
    return command.replace("/usr/local/share/man/man1", str(place / "man1"))


def bash(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(place / "home"),
        "SHELL": "/bin/sh",
        "MANPAGER": "cat",
    }
    words = ["bash", "-c", command]
    return subprocess.run(
        words, cwd=place, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.name in BOARDS], ids=lambda command: command.name
)
def test_the_examples_that_speak_of_a_board(command) -> None:
    """They are understood; t4_seeing, t5_learn, t3_compare and their like run such commands."""
    told = examples(command.parser.epilog)
    assert told
    for example, _ in told:
        for part in re.split(r"[|;>]", example):
            words = shlex.split(part)
            words = words[1:] if words[:1] == ["sudo"] else words
            if words[:1] == ["cmafs"]:
                PARSER.parse_args(words[1:])  # SystemExit where it is not understood


@pytest.mark.usefixtures("fuse_device")
@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.name not in BOARDS], ids=lambda command: command.name
)
def test_the_examples_of(command, place: Path) -> None:
    assert examples(command.parser.epilog), "no examples"
    try:
        if command.name in MOUNTED:
            assert cmafs("mount", str(place / "m")).returncode == 0
        for example, status in examples(command.parser.epilog):
            done = bash(elsewhere(example, place), place)
            assert done.returncode == status, (example, done.stderr)
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
