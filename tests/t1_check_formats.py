"""`cmafs check` of several boards on several kernels: each format by its schema; shards; processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import dts_support as dts
import pytest
from jsonschema import Draft4Validator, FormatChecker
from xmlschema import XMLSchema, XMLSchemaValidationError

from cmafs.abi import RELEASES
from cmafs.check.rules import RULES
from cmafs.cli.main import main

TOP = Path(__file__).resolve().parent.parent
SCHEMAS = TOP / "tests/schemas"
JUNIT = XMLSchema(SCHEMAS / "junit-10.xsd")

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


def test_remedies_that_differ_name_their_kernels(capsys: Capture, tmp_path: Path) -> None:
    path = dts.write(
        tmp_path, "a.dts", dts.tree('a { compatible = "shared-dma-pool"; reusable; reg = <0>; };')
    )
    _, out, _ = check(capsys, path, "--kernel", "5.10,6.1,6.12", "--format", "github")
    assert annotation(out.strip())["message"].endswith(
        "Remedy: on 5.10.223: say how much, for instance `size = <0x0 0x400000>;`; "
        "on 6.1.192, 6.12.117: say how much, for instance `size = <0x0 0x200000>;`. "
        "Kernels: 5.10.223, 6.1.192, 6.12.117."
    )


def test_junit(capsys: Capture, bad: str) -> None:
    status, out, err = check(capsys, "rpi4", bad, "no.dts", "--kernel", "6.1,6.12", "--format", "junit")
    assert (status, err.count("\n")) == (2, 2)
    JUNIT.validate(out)
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


@cache
def sarif_schema() -> Draft4Validator:
    """The validator of SARIF 2.1.0."""
    schema = json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text())
    Draft4Validator.check_schema(schema)
    return Draft4Validator(schema, format_checker=FormatChecker())


def test_the_schema_refuses_what_is_no_sarif(capsys: Capture, bad: str) -> None:
    """So that the tests beside this one prove something."""
    document = json.loads(check(capsys, bad, "--format", "sarif")[1])
    result = document["runs"][0]["results"][0]
    for name, value in (("level", "grave"), ("locations", [{"line": 1}]), ("ruleIndex", "0"), ("file", "x")):
        wrong = {**document, "runs": [{**document["runs"][0], "results": [{**result, name: value}]}]}
        assert list(sarif_schema().iter_errors(wrong)), name
    with pytest.raises(XMLSchemaValidationError):
        JUNIT.validate('<testsuites><testsuite name="x" tests="1"/></testsuites>')


@pytest.mark.parametrize("format_", ["sarif", "junit", "github"])
def test_formats_hold_with_every_kind_of_finding(capsys: Capture, tmp_path: Path, format_: str) -> None:
    """Names that need escapes, boards with many findings and with none, boards that cannot be checked."""
    names = ["a b,c:d%.dts", "ä&<b>\"'.dts", "1.dts", "2.dts", "3.dts"]
    boards = [dts.write(tmp_path, name, dts.faulty_board(seed)) for seed, name in enumerate(names, 40)]
    nowhere = str(tmp_path / "no where\n%0A::error::&.dts")
    status, out, _ = check(capsys, *boards, nowhere, "rpi4", "--kernel", "4.4,6.12", "--format", format_)
    assert status == 2
    match format_:
        case "sarif":
            document = json.loads(out)
            assert list(sarif_schema().iter_errors(document)) == []
            uris = {
                location["physicalLocation"]["artifactLocation"]["uri"]
                for result in document["runs"][0]["results"]
                for location in result["locations"]
            }
            assert {unquote(uri) for uri in uris} == set(boards)
            assert all(re.fullmatch(r"(?:[\w./~-]|%[0-9A-F]{2})+", uri, re.ASCII) for uri in uris)
        case "junit":
            JUNIT.validate(out)
            suites = {suite.get("name") for suite in ElementTree.fromstring(out)}
            assert suites == {*boards, nowhere.replace("\n", " "), "rpi4"}
        case "github":
            assert {annotation(line)["file"] for line in out.splitlines()} == set(boards)


def annotation(line: str) -> dict[str, str]:
    """A line as GitHub's runner reads it: ``::command name=value,…::message``, what is escaped undone."""
    match = re.fullmatch(r"::(\S+) ([^:]*)::(.*)", line)
    assert match, line
    assert match[1] in ("error", "warning", "notice")
    fields = dict(field.split("=", 1) for field in match[2].split(","))
    assert {"file", "title"} <= fields.keys() <= {"file", "line", "endLine", "col", "endColumn", "title"}
    assert all(fields[name].isdigit() for name in fields.keys() - {"file", "title"})
    escapes = {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}
    for text in (match[2], match[3]):
        assert set(re.findall("%..?", text)) <= escapes.keys()
    plain = {**fields, "message": match[3]}
    return {
        name: re.sub("%[0-9A-F]{2}", lambda found: escapes[found[0]], text) for name, text in plain.items()
    }


def test_sarif(capsys: Capture, bad: str) -> None:
    status, out, _ = check(capsys, bad, "no.dts", "x86-4g", "--kernel", "6.1,6.12", "--format", "sarif")
    document = json.loads(out)
    assert status == 2
    assert list(sarif_schema().iter_errors(document)) == []
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


@pytest.mark.parametrize("format_", ["junit", "sarif"])
def test_the_parts_of_a_matrix_merge_to_the_whole(capsys: Capture, bad: str, format_: str) -> None:
    """As docs/ci.md has it: an engine that takes every part's file in sees what one job would have said."""

    def said(*part: str) -> list[object]:
        _, out, _ = check(
            capsys, "x86-4g", bad, "--kernel", "5.10,6.12", "--jobs", "1", "--format", format_, *part
        )
        if format_ == "junit":
            cases = ElementTree.fromstring(out).iter("testcase")
            return [(c.get("classname"), c.get("name"), [f.get("message") for f in c]) for c in cases]
        results = json.loads(out)["runs"][0]["results"]
        return [
            (r["ruleId"], r["locations"], kernel) for r in results for kernel in r["properties"]["kernels"]
        ]

    parts = [one for part in (1, 2, 3) for one in said("--shard", f"{part}/3")]
    whole = said()
    assert len(whole) >= 4
    assert sorted(map(str, parts)) == sorted(map(str, whole))


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
