"""`cmafs learn`: each lesson is solved by its solution, and neither by nothing nor by words."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cmafs.cli.classroom import read_lesson
from cmafs.cli.learn import LESSONS
from cmafs.learn.goal import BadGoal, Goal
from cmafs.learn.lesson import BadLesson, Lesson, lesson_from
from cmafs.learn.progress import BadProgress, Progress

ALL = {path.stem.lstrip("0123456789-"): path for path in sorted(LESSONS.glob("*.toml"))}


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def learn(*words: str, script: str | None = None, **environment: str) -> tuple[int, str, str]:
    """The command's status and what it printed; ``script`` for ``--check -``, else nothing is typed."""
    done = subprocess.run(
        [sys.executable, "-m", "cmafs", "learn", *words],
        input=script or "",
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


def lesson(name: str) -> Lesson:
    return read_lesson(name, ALL[name])


@pytest.mark.parametrize("name", ALL)
def test_the_solution_solves_it(name: str, fuse_device: None) -> None:
    status, out, err = learn(name, "--check", "-", script=lesson(name).solution)
    assert status == 0, (out, err)
    assert "Done. To remember on a real board:" in out


@pytest.mark.parametrize("name", ALL)
def test_doing_nothing_and_saying_the_right_words_do_not(name: str, fuse_device: None) -> None:
    said = lesson(name)
    words = f"echo {shlex.quote(said.solution)}\necho {shlex.quote(said.remember)} > answer.txt\n"
    status, out, err = learn(name, "--check", "-", script=words)
    assert (status, "not yet: " in out) == (1, True), (out, err)
    assert learn(name, "--check", "/dev/null")[0] == 1


OTHERS = [
    ("read-an-area", ["--kernel", "4.4"]),
    ("exhaust", ["--kernel", "5.10", "--dts", "rpi4"]),
    ("what-is-cma", ["--kernel", "7.2"]),
    ("exhausted-pool", ["--kernel", "4.15"]),
    ("exhausted-pool", ["--kernel", "7.2"]),
    ("fragmentation", ["--kernel", "4.4"]),
    ("fragmentation", ["--kernel", "7.2"]),
    ("pinned-page", ["--kernel", "5.10"]),
    ("pinned-page", ["--kernel", "7.2"]),
    ("decode-the-bitmap", ["--kernel", "5.15"]),
    ("alignment", ["--kernel", "6.1"]),
    ("broken-dts", ["--kernel", "5.10"]),
    ("size-a-pool", ["--kernel", "5.10"]),
    ("compaction", ["--kernel", "5.10"]),
    ("drivers-buffers", ["--kernel", "6.6"]),
    ("heap-buffers", ["--kernel", "7.2"]),
]


@pytest.mark.parametrize(("name", "machine"), OTHERS, ids=str)
def test_other_boards_and_kernels(name: str, machine: list[str], fuse_device: None) -> None:
    status, out, err = learn(name, *machine, "--check", "-", script=lesson(name).solution)
    assert status == 0, (out, err)


def test_a_machine_that_does_not_suit(fuse_device: None) -> None:
    for machine in (["--cmdline", "cma=0"], ["--kernel", "2010"]):
        status, out, err = learn("exhaust", *machine, "--check", "/dev/null")
        assert (status, out) == (2, "")
        assert "this machine does not suit the lesson" in err
    assert learn("alignment", "--dts", "rk3588", "--check", "/dev/null")[0] == 2


def test_a_beginners_session(fuse_device: None) -> None:
    typed = "hint\nhint\nhint\ncheck\nwhile echo 64 > $AREA/alloc; do :; done 2>/dev/null\ncheck\nsolution\n"
    typed += "while echo 1 > $AREA/alloc; do :; done 2>/dev/null\ncheck\nstory\n"
    status, out, err = learn("exhaust", script=typed, SHELL="/bin/sh")
    assert status == 0, err
    for said in (
        "== Exhaust an area",
        "In a loop, as long as it works:",
        "There is no further hint",
        "not yet: there are free pages left",
        "while echo 64 > $AREA/alloc; do :; done 2>/dev/null\n",
        "Done. To remember on a real board:",
        "next: cmafs learn what-is-cma",
    ):
        assert said in out, said
    assert "4 done  exhaust" in learn("--list")[1]


def test_progress_is_kept_and_taken_up(tmp_path: Path, fuse_device: None) -> None:
    assert learn("allocate-and-verify", script="true\n", SHELL="/bin/sh")[0] == 1
    file = tmp_path / "state" / "cmafs" / "learn.json"
    assert json.loads(file.read_text()) == {"done": [], "last": "allocate-and-verify"}
    typed = "echo 1024 > $AREA/alloc; echo 256 > $AREA/free\n"
    status, out, _ = learn("--resume", script=typed, SHELL="/bin/sh")
    assert status == 0 and "== Allocate, and verify" in out
    assert json.loads(file.read_text())["done"] == ["allocate-and-verify"]
    assert "== What CMA is" in learn(script="", SHELL="/bin/sh")[1]
    learn("exhaust", "--check", "/dev/null")
    assert json.loads(file.read_text())["last"] == "what-is-cma"  # a teacher's check is no progress
    file.write_text("{}")
    status, out, err = learn("--list")
    assert (status, out) == (2, "") and "not the progress of `cmafs learn`; remove it" in err


def test_what_a_lesson_leaves_behind(tmp_path: Path, fuse_device: None) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    learn("broken-dts", "--check", "-", script="pwd; ls; exit 7", TMPDIR=str(place))
    assert list(place.iterdir()) == []


GOOD = """\
title="t"
about="a"
story="s"
solution="x"
remember="r"
[[goal]]
reached="used == 1"
not_yet="n"
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "title: wanted is a text"),
        ("title = [", "(at "),
        (GOOD.replace('about="a"\n', ""), "about: wanted is a text"),
        (GOOD.replace("used == 1", "used"), "wanted is one comparison"),
        (GOOD.replace("used == 1", "used + == 1"), "wanted are terms joined by"),
        (GOOD.replace("reached", "when"), "wanted are the texts reached and not_yet"),
        (GOOD.replace("[[goal]]", "[goal]"), "wanted is [[goal]] at least once"),
        ("hint = 1\n" + GOOD, "unknown key hint"),
        ("hints = 1\n" + GOOD, "hints: wanted is a list of texts"),
        (GOOD + '[files]\n"../x" = "y"\n', "files: ../x: wanted is a plain name"),
        (GOOD + "[machine]\nboard = 1\n", "machine: no option of a machine: board; "),
        (GOOD + "[machine]\nkernel = 6.12\n", "machine: kernel: wanted is a text, not 6.12"),
        (GOOD + "[machine]\nconfig = 'CMA=n'\n", "machine: config: wanted is a list of texts"),
        (GOOD + "[machine]\ninside = 'x'\n", "machine: no option of a machine: inside; "),
        (GOOD.replace("used == 1", f"used == {1 << 64}"), "a number of more than 64 bits"),
        (f"x = {'[' * 100_000}", "nested too deeply"),
        (f"x = {'9' * 5000}", "own.toml: "),
    ],
)
def test_a_damaged_lesson_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    status, out, err = learn(str(file), "--check", "/dev/null")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert str(file) in err and said in err


def test_names_of_lessons() -> None:
    for words, said in (
        (["nonsense"], "no lesson 'nonsense': `cmafs learn --list` names them"),
        (["e"], "no lesson 'e': read-an-area, "),
        (["9" * 5000], f"no lesson '{'9' * 5000}': `cmafs learn --list` names them"),
        (["missing.toml"], "missing.toml: No such file or directory"),
        (["--lessons", "/nowhere"], "--lessons: /nowhere: no such directory"),
        (["exhaust", "--check", "/nowhere"], "/nowhere: No such file or directory"),
    ):
        status, out, err = learn(*words)
        assert (status, out) == (2, "")
        assert said in err


def test_a_teachers_own_lesson(tmp_path: Path, fuse_device: None) -> None:
    (tmp_path / "20-own.toml").write_text(GOOD.replace("used == 1", "free:x + 1 > file:proc/no@start * 2"))
    options = ["--lessons", str(tmp_path)]
    assert "18       own" in learn(*options, "--list")[1]
    assert learn(*options, "own", "--check", "/dev/null")[0] == 0
    (tmp_path / "20-own.toml").write_text(GOOD.replace("used == 1", "nothing == 1"))
    status, _, err = learn(*options, "18", "--check", "/dev/null")
    assert status == 2 and "unknown term 'nothing'; known are used, count" in err
    needing = 'needs = ["ranges/9"]\nprepare = "false"\n' + GOOD
    (tmp_path / "20-own.toml").write_text(needing)
    assert "this lesson needs /sys/kernel/debug/cma" in learn(*options, "own", "--check", "/dev/null")[2]
    (tmp_path / "20-own.toml").write_text(needing.replace("ranges/9", "used"))
    assert "its preparation failed: it says nothing" in learn(*options, "own", "--check", "/dev/null")[2]


@pytest.mark.parametrize(("kernel", "name"), [("5.10", "cma-linux,cma"), ("6.12", "linux,cma")])
def test_the_area_of_a_lesson_is_the_default_one(
    kernel: str, name: str, tmp_path: Path, fuse_device: None
) -> None:
    """Whatever this kernel's debugfs calls it, and wherever boot has put the others."""
    text = GOOD.replace("used == 1", "used == 99999").replace('not_yet="n"', 'not_yet="{name}"')
    (tmp_path / "20-own.toml").write_text(text)
    machine = ["--kernel", kernel, "--dts", "camera"]
    status, out, _ = learn("--lessons", str(tmp_path), "own", *machine, "--check", "/dev/null")
    assert (status, out.splitlines()[0]) == (1, f"not yet: {name}")


def test_goals() -> None:
    values = {"used": 7, "count": 10}
    for text, holds in (
        ("used + 3 == count", True),
        ("count - used@start > 4", True),
        ("used * 2 <= 13", False),
        ("2 + used * 2 != 18", False),
    ):
        assert Goal(text, "").holds(values.__getitem__, {"used": 5}) == holds
    assert list(Goal("a@start == b + a@start", "").start_terms()) == ["a", "a"]
    for bad in ("", "1", "1 == ", "1 == 2 == 3", "1 2 == 3", "1 / 2 == 3"):
        with pytest.raises(BadGoal):
            Goal(bad, "")
    with pytest.raises(BadLesson):
        lesson_from("x", {})
    with pytest.raises(BadProgress):
        Progress.parse('{"done": [1], "last": ""}')


@pytest.mark.parametrize("room", ["none", "a file in its place"])
def test_progress_that_cannot_be_kept_is_one_line(tmp_path: Path, fuse_device: None, room: str) -> None:
    """The lesson itself takes place; nothing half-written stays."""
    (state := tmp_path / "state").mkdir()
    lesson = f"echo true | {sys.executable} -m cmafs learn allocate-and-verify >/dev/null; ls -AF {state}"
    if room == "none":
        full = f"mkdir {state}/cmafs; head -c 4096 /dev/zero >{state}/x"
        lesson = f"mount -t tmpfs -o size=4k none {state}; {full}; {lesson}/cmafs"
    else:
        (state / "cmafs").write_text("")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", lesson],
        capture_output=True,
        text=True,
        env={**os.environ, "SHELL": "/bin/sh"},
    )
    why = "No space left on device" if room == "none" else "File exists"
    file = state / "cmafs" / "learn.json"
    assert done.stderr == f"cmafs: {file}: progress cannot be kept: {why}\n"
    assert done.stdout == ("" if room == "none" else "cmafs\n")
