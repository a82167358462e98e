"""`cmafs check` of several boards on several kernels: each format; shards; any number of processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import dts_support as dts
import pytest

from cmafs.abi import RELEASES
from cmafs.check.rules import RULES
from cmafs.cli.main import main

TOP = Path(__file__).resolve().parent.parent

Capture = pytest.CaptureFixture[str]

BAD = dts.tree(dts.pool("a@50100000", "reg = <0 0x50100000 0 0x400000>"))


def check(capsys: Capture, *args: str) -> tuple[int, str, str]:
    status = main(["check", *args])
    return status, *capsys.readouterr()


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A board with one fault, named as from the directory that it is in."""
    dts.write(tmp_path, "boards/bad.dts", BAD)
    monkeypatch.chdir(tmp_path)
    return "boards/bad.dts"


def test_without_a_board_it_lists_what_there_is(capsys: Capture) -> None:
    status, out, err = check(capsys)
    assert (status, out) == (2, "")
    assert err == (
        "cmafs: no board to check: give a .dts or .dtb, or a bundled board: am62x, article-1, article-2, "
        "camera, imx8mm, rk3588, rpi4, virt, x86-4g\n"
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rpi4.dts"], "; the bundled board is called rpi4, without .dts\n"),
        (["rpi"], "; did you mean rpi4?\n"),
        (["rpi4", "--kernel", "v6.12"], "; did you mean 6.12?\n"),
        (["rpi4", "--kernel", "6.99"], "; did you mean 6.18?\n"),
        (["rpi4", "--kernel", "5.10,6.21"], "; did you mean 6.18?\n"),
        (["rpi4", "--memory", "1GB"], "; did you mean 1G?\n"),
        (["rpi4", "--memory", "512MiB"], "; did you mean 512M?\n"),
    ],
)
def test_suggestions(capsys: Capture, args: list[str], said: str) -> None:
    status, out, err = check(capsys, *args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.endswith(said)


def test_kernels_between_rows_are_said_to_be(capsys: Capture) -> None:
    line = "cmafs: there is no row for 4.14: it is answered as 4.4, the newest before it"
    status, out, err = check(capsys, "rpi4", "--kernel", "4.14,4.15", "--format", "json")
    assert (status, err) == (0, line + "\n")
    logs = [board["log"] for board in json.loads(out)["boards"]]
    assert (logs[0][0], line in logs[1]) == (line, False)


def test_brief_says_a_finding_once_for_all_kernels(capsys: Capture, bad: str) -> None:
    status, out, _ = check(capsys, bad, "--kernel", "5.10,6.1", "--format", "brief")
    line = BAD[: BAD.index("reg = <0 0x501")].count("\n") + 1
    column = len(BAD[: BAD.index("reg = <0 0x501")].splitlines()[-1]) + 1
    what = "reg: the base is not a multiple of the CMA unit (0x50100000, 0x400000 bytes, unit 0x400000)"
    said = f"boards/bad.dts:{line}:{column}: error: /reserved-memory/a@50100000: {what} [base-misaligned]"
    assert (status, out) == (
        1,
        f"{said} (5.10.223)\n" + f"{said} (6.1.192)\n".replace("0x400000)", "0x200000)"),
    )
    _, out, _ = check(capsys, bad, "--kernel", "6.1,6.12", "--format", "brief")
    assert out.endswith(" [base-misaligned] (all kernels)\n")
    assert out.count("\n") == 1
    assert check(capsys, "rpi4", "--format", "brief") == (0, "", "")


def test_json_of_several(capsys: Capture, bad: str) -> None:
    status, out, _ = check(capsys, "rpi4", bad, "--kernel", "5.10,7.2", "--json")
    document = json.loads(out)
    assert (status, document["schema"]) == (1, 2)
    assert [(b["board"], b["kernel"]) for b in document["boards"]] == [
        (board, kernel) for board in ("rpi4", bad) for kernel in ("5.10.223", "7.2.13")
    ]
    assert list(document["boards"][0]) == ["board", "kernel", "arch", "areas", "problems", "log"]
    problem = document["boards"][2]["problems"][0]
    assert list(problem) == [
        *("code", "node", "file", "line", "column", "reason", "rule", "effect", "severity", "remedy"),
        "remedy_verified",
    ]
    assert (problem["file"], problem["effect"], problem["remedy_verified"]) == (bad, "refused", True)


def test_text_of_several_and_the_log_behind_its_option(capsys: Capture, bad: str) -> None:
    _, out, _ = check(capsys, "virt", bad)
    assert [line.partition(":")[0] for line in out.splitlines() if ": Linux " in line] == ["virt", bad]
    assert "[    0.000000] Linux version" not in out
    _, out, _ = check(capsys, "virt", "--log")
    assert "[    0.000000] Linux version" in out


def test_github_annotations(capsys: Capture, bad: str) -> None:
    _, out, _ = check(capsys, bad, "--kernel", "6.1,6.12", "--format", "github")
    match = re.fullmatch(r"::(\w+) file=([^,]+),line=(\d+),col=(\d+),title=([^:]+)::(.*)\n", out)
    assert match
    assert (match[1], match[2], match[5]) == ("error", bad, "cmafs%3A base-misaligned")
    assert match[6].endswith(
        "Remedy: write `reg = <0x0 0x50000000 0x0 0x400000>;`. Kernels: 6.1.192, 6.12.117."
    )


def test_junit(capsys: Capture, bad: str) -> None:
    status, out, err = check(capsys, "rpi4", bad, "no.dts", "--kernel", "6.1,6.12", "--format", "junit")
    assert (status, err.count("\n")) == (2, 2)
    suites = ElementTree.fromstring(out)
    found = {suite.get("name"): suite for suite in suites}
    assert {name: (s.get("tests"), s.get("failures"), s.get("errors")) for name, s in found.items()} == {
        "rpi4": ("2", "0", "0"),
        bad: ("2", "2", "0"),
        "no.dts": ("2", "0", "2"),
    }
    failure = found[bad][0][0]
    assert (failure.tag, failure.get("type")) == ("failure", "base-misaligned")
    assert failure.text and failure.text.startswith(f"{bad}:")


def test_sarif(capsys: Capture, bad: str) -> None:
    status, out, _ = check(capsys, bad, "no.dts", "x86-4g", "--kernel", "6.1,6.12", "--format", "sarif")
    document = json.loads(out)
    assert status == 2
    validate(document, SARIF)
    (run,) = document["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == 2
    error, *notes = run["results"]
    assert (error["ruleId"], error["level"]) == ("base-misaligned", "error")
    assert error["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == bad
    assert error["properties"]["kernels"] == ["6.1.192", "6.12.117"]
    assert {note["level"] for note in notes} == {"note"}
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == list(
        dict.fromkeys(result["ruleId"] for result in run["results"])
    )
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] in RULES


#: The part of the SARIF 2.1.0 schema that is used here, as the standard has it: what an object may have, what
#: it must have (with a !), and of which kind that is.
MESSAGE = {"text!": str}
SARIF: dict[str, Any] = {
    "$schema": r"https://.*sarif.*2\.1\.0.*",
    "version!": r"2\.1\.0",
    "runs!": [
        {
            "tool!": {
                "driver!": {
                    "name!": str,
                    "semanticVersion": str,
                    "rules": [{"id!": str, "name": str, "shortDescription": MESSAGE}],
                }
            },
            "invocations": [
                {
                    "executionSuccessful!": bool,
                    "toolExecutionNotifications": [{"level": "none|note|warning|error", "message!": MESSAGE}],
                }
            ],
            "columnKind": "utf16CodeUnits|unicodeCodePoints",
            "results": [
                {
                    "ruleId": str,
                    "ruleIndex": range(1 << 31),
                    "level": "none|note|warning|error",
                    "message!": MESSAGE,
                    "locations": [
                        {
                            "physicalLocation": {
                                "artifactLocation": {"uri": r"[\w./~%-]+"},
                                "region": {"startLine": range(1, 1 << 31), "startColumn": range(1, 1 << 31)},
                            },
                            "logicalLocations": [{"fullyQualifiedName": str, "kind": str}],
                        }
                    ],
                    "partialFingerprints": dict,
                    "properties": dict,
                }
            ],
        }
    ],
}


def validate(value: object, shape: object) -> None:
    """Whether a document has a shape: a dict of names, a list of one shape, a pattern, a range, a type."""
    if isinstance(shape, dict):
        assert isinstance(value, dict)
        shapes = {name.rstrip("!"): inner for name, inner in shape.items()}
        assert {name.rstrip("!") for name in shape if name.endswith("!")} <= value.keys() <= shapes.keys()
        for name, inner in value.items():
            validate(inner, shapes[name])
    elif isinstance(shape, list):
        assert isinstance(value, list)
        for inner in value:
            validate(inner, shape[0])
    elif isinstance(shape, str):
        assert isinstance(value, str) and re.fullmatch(shape, value), value
    elif isinstance(shape, range):
        assert isinstance(value, int) and value in shape
    else:
        assert isinstance(shape, type) and isinstance(value, shape)


def test_the_output_is_the_same_whatever_the_number_of_processes(capsys: Capture, bad: str) -> None:
    args = ("rpi4", bad, "camera", "no.dts", "--kernel", "all", "--format", "json")
    alone = check(capsys, *args, "--jobs", "1")
    assert check(capsys, *args, "--jobs", "3") == alone
    assert alone[0] == 2
    assert len(json.loads(alone[1])["boards"]) == 3 * len(RELEASES)
    assert alone[2].count("cmafs: no.dts on ") == len(RELEASES)


def test_shards_are_all_of_it_together(capsys: Capture, bad: str) -> None:
    args = ("rpi4", bad, "virt", "--kernel", "5.10,6.1,6.12,7.2", "--format", "json")
    whole = json.loads(check(capsys, *args)[1])["boards"]
    parts = [json.loads(check(capsys, *args, "--shard", f"{part}/5")[1])["boards"] for part in range(1, 6)]
    assert [len(part) for part in parts] == [3, 3, 2, 2, 2]
    for part, boards in enumerate(parts):
        assert boards == whole[part::5]


def test_a_board_from_a_pipe(bad: str) -> None:
    """It can be read once, whatever the number of kernels and processes."""
    script = (
        f"exec {sys.executable} -m cmafs check <(cat {bad}) --kernel 6.1,6.12,7.2 --jobs 3 --format brief"
    )
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert re.fullmatch(r"/dev/fd/\d+:1:1: error: .* \[base-misaligned\] \(all kernels\)\n", done.stdout)


def test_a_terminal_is_told_how_far_it_is(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = check(capsys, "virt", "--kernel", "6.1,6.12,7.2", "--format", "brief", "--jobs", "1")
    assert (status, out) == (0, "")
    assert err == "1 of 3 checked\r\x1b[K2 of 3 checked\r\x1b[K"
