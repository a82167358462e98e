"""What the repository gives to a CI: pre-commit's hook and GitHub's action, run as they are run there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import dts_support as dts
import pytest
from run_support import CMAFS

TOP = Path(__file__).resolve().parent.parent
BAD = dts.tree(dts.pool("a@50100000", "reg = <0 0x50100000 0 0x400000>"))
GOOD = dts.tree(dts.pool("a@50000000", "reg = <0 0x50000000 0 0x400000>"))


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    dts.write(tmp_path, "boards/bad.dts", BAD)
    dts.write(tmp_path, "boards/good.dts", GOOD)
    return tmp_path


def test_the_hook_of_pre_commit(boards: Path) -> None:
    text = (TOP / ".pre-commit-hooks.yaml").read_text()
    (entry,) = re.findall(r"^  entry: cmafs (.*)$", text, re.M)
    words = [*CMAFS, *entry.split(), "boards/good.dts", "boards/bad.dts"]
    done = subprocess.run(words, cwd=boards, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.match(
        r"boards/bad\.dts:\d+:\d+: error: /reserved-memory/a@50100000: .* \[base-misaligned\]\n", done.stdout
    )
    assert done.stdout.count("\n") == 1


def step_of_action(name: str) -> str:
    """The script of a step of action.yml."""
    text = (TOP / "action.yml").read_text()
    _, _, step = text.partition(f"- name: {name}\n")
    return textwrap.dedent(step.partition("      run: |\n")[2].partition("\n    - name:")[0])


def test_the_action_of_github(boards: Path) -> None:
    command = boards / "cmafs/bin/cmafs"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cmafs "$@"\n')
    command.chmod(0o755)
    inputs = {
        "RUNNER_TEMP": str(boards),
        "BOARDS": "boards/*.dts",
        "KERNELS": "5.10,6.12",
        "SHARD": "1/1",
        "ARGUMENTS": "--memory 1G",
        "SARIF": "found.sarif",
        "JUNIT": "found.xml",
    }
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step_of_action("Check")]
    env = {**os.environ, **inputs, "PYTHONPATH": str(TOP)}
    done = subprocess.run(words, cwd=boards, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "")
    assert [line.partition(",")[0] for line in done.stdout.splitlines()] == [
        "::error file=boards/bad.dts"
    ] * 2
    results = json.loads((boards / "found.sarif").read_text())["runs"][0]["results"]
    assert {result["ruleId"] for result in results} == {"base-misaligned"}
    suites = ElementTree.parse(boards / "found.xml").getroot()
    assert {suite.get("name"): suite.get("failures") for suite in suites} == {
        "boards/bad.dts": "2",
        "boards/good.dts": "0",
    }
