"""Man page and completions follow from the parser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_support import cmafs

from cmafs.cli.describe import commands
from cmafs.cli.main import make_parser
from cmafs.sim import verbs

COMMANDS = commands(make_parser())


def test_every_command_has_a_line_a_description_and_an_example() -> None:
    for command in COMMANDS:
        assert command.help, command.name
        assert command.parser.description, command.name


def test_the_man_page_names_every_command_and_option() -> None:
    page = cmafs("man").stdout
    assert page.startswith(".TH CMAFS 1")
    plain = page.replace("\\-", "-")
    for command in COMMANDS:
        assert f'.SS "cmafs {command.name}"' in plain
        for option in command.options:
            assert all(word in plain for word in option.words)


def test_the_man_page_says_each_machine_option_once_and_has_its_sections() -> None:
    plain = cmafs("man").stdout.replace("\\-", "-")
    assert plain.count("\\fB--dts\\fR \\fIFILE\\fR") == 1
    for title in ("MACHINE OPTIONS", "COMMANDS", "VERBS OF SIM/CONTROL", "FILES", "ENVIRONMENT"):
        assert f"\n.SH {title}\n" in plain
    for form, does in verbs.lines():
        assert f"\\fB{form}\\fR\n{does}\n" in plain


@pytest.mark.skipif(not shutil.which("man"), reason="no man here")
def test_man_formats_it_without_a_warning(tmp_path: Path) -> None:
    (page := tmp_path / "cmafs.1").write_text(cmafs("man").stdout)
    environment = {**os.environ, "MAN_KEEP_STDERR": "1", "MANWIDTH": "100", "LC_ALL": "C"}
    done = subprocess.run(
        ["man", "--warnings=all", "-l", page], capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    assert "cmafs run" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cmafs", "unmo"], []),
        (["cmafs", "umo"], ["umount"]),
        (["cmafs", "run", "--ar"], ["--arch"]),
        (["cmafs", "mount", "--arch", "arm"], ["arm", "arm64"]),
        (["cmafs", "boards", "--k"], ["--kernels"]),
        (["cmafs", "--v"], ["--version"]),
        (["cmafs", "run", "--dts", "rp"], ["rpi4"]),
        (["cmafs", "mount", "--kernel", "6.1"], ["6.1", "6.12", "6.18"]),
        (["cmafs", "mount", "--config", "def"], ["defconfig"]),
        (["cmafs", "ctl", "/mnt", "dma"], ["dma_alloc", "dma_free"]),
        (["cmafs", "trace-alloc", "--dts", "camera", "v"], ["vpu@70000000"]),
    ],
)
def test_bash_completes(words: list[str], expected: list[str]) -> None:
    script = (
        f"{cmafs('completion', 'bash').stdout}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
        '\n_cmafs\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-u", "-c", script], capture_output=True, text=True, env=environment)
    assert (done.stdout.split(), done.stderr) == (expected, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_accept_theirs(shell: str) -> None:
    text = cmafs("completion", shell).stdout
    for command in COMMANDS:
        assert command.name in text
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here to read it")
    done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
