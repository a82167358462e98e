"""`cmafs compare`: recorded boards are answered alike, and what differs is named."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import replay

from cmafs.cli.main import main

WALK = replay.TRANSCRIPTS / "6.12" / "walk-1-4M.jsonl.xz"


def compare(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["compare", *words])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("name", ["5.10/walk-1-4M", "6.12/walk-1-4M", "7.2/parse-1-16M"])
def test_a_recorded_board_is_answered_alike(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = compare(capsys, str(replay.TRANSCRIPTS / f"{name}.jsonl.xz"))
    assert (status, err) == (0, "")
    assert out.endswith(": all as recorded\n")


def test_another_kernel_answers_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = compare(capsys, str(WALK), "--kernel", "5.10")
    assert status == 1
    assert "recorded" in out and "differences\n" in out


def test_one_forged_answer_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = replay.load(WALK)
    at = next(n for n, op in enumerate(recorded.operations) if op["path"].endswith("/used"))
    recorded.operations[at]["out"] = "12345\n"
    lines = [{"header": recorded.header}, *recorded.operations, {"dmesg": recorded.dmesg}]
    file = tmp_path / "forged.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    status, out, _ = compare(capsys, str(file))
    assert status == 1
    assert f"operation {at} " in out and "'12345" in out and out.count("operation") == 2


def test_a_tar_of_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tar(*members: str) -> str:
        with tarfile.open(tmp_path / "board.tar", "w") as made:
            for name in members:
                made.add(tmp_path / name, f"./{name}")
        return str(tmp_path / "board.tar")

    recorded = replay.load(WALK)
    walk = tmp_path / "walk.jsonl"
    walk.write_text("\n".join(map(json.dumps, [{"header": recorded.header}, *recorded.operations])))
    (tmp_path / "dmesg").write_text("")
    assert compare(capsys, tar("walk.jsonl", "dmesg"))[0] == 0
    status, out, err = compare(capsys, tar("dmesg"))
    assert (status, out) == (2, "")
    assert "no walk.jsonl in it: record with --walk AREA" in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty; wanted is one JSON object a line, the header first"),
        (b"hello\n", "line 1: not JSON"),
        (b'{"op": "R"}\n', "line 1: KeyError('header')"),
        (b'{"header": {"kernel": "6.12"}}\n', "line 1: KeyError('arch')"),
        (b'{"header": {"kernel": "x", "arch": "arm64", "cmdline": ""}}\n', "kernel names no release"),
        (b'{"header": {"kernel": "9.9", "arch": "arm64", "cmdline": ""}}\n', "nothing was recorded"),
        (
            b'{"header": {"kernel": "6.12", "arch": "arm64", "cmdline": ""}}\n{"op": "?", "path": "/"}\n',
            "line 2: ValueError(\"unknown operation '?'\")",
        ),
        (
            b'{"header": {"kernel": "6.12", "arch": "arm64", "cmdline": ""}}\n{"op": "W", "path": "/"}\n',
            "line 2: KeyError('data')",
        ),
        (
            b'{"header": {"kernel": "9.9", "arch": "arm64", "cmdline": ""}}\n{"op": "R", "path": "/"}\n',
            "unknown kernel '9.9'",
        ),
        (b"\xff\xfe", "codec can't decode"),
        (b"\xfd7zXZ\0x", "codec can't decode"),
    ],
)
def test_a_damaged_transcript_is_one_line(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(content)
    status, out, err = compare(capsys, str(file))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert str(file) in err and said in err


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.jsonl.xz").write_bytes(b"\xfd7zXZ\0broken")
    status, _, err = compare(capsys, str(replay.TRANSCRIPTS / "6.1" / "pins-1.jsonl.xz"))
    assert status == 2 and "a shell script was recorded: run it with `cmafs run`" in err
    for name in ("missing", ".", "t.jsonl.xz"):
        status, out, err = compare(capsys, str(tmp_path / name))
        assert (status, out, err.count("\n")) == (2, "", 1)
