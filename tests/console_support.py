"""Runs the ```console and ```bash blocks of a document and compares what they print.

A ```bash block is there to be pasted: it is one command; what it prints is the ```text block that is the
next block, if that is one. In a ```console block, a line that starts with ``$ `` (or ``# ``: as root) is a
command, ``> `` continues it, the lines after it are what it prints. ``...`` stands for anything, on a line of
its own for any lines. Time stamps and hashed pointers are compared as such, not by value. All blocks of one
document run in one shell, in a directory of their own, so that a later block may use what an earlier one did.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

END = "cmafs-console-end"


@dataclass
class Step:
    """One command of a document: where it stands, what it is, what it should print."""

    where: str
    command: str
    expected: list[str] = field(default_factory=list)


def steps_of(document: Path) -> list[Step]:
    """The commands of a document's blocks, in order."""
    steps: list[Step] = []
    kind = before = ""
    for number, line in enumerate(document.read_text().splitlines(), 1):
        where = f"{document.name}:{number}"
        if line.startswith("```"):
            before, kind = (kind or before, "") if kind else (before, line[3:])
            if kind == "bash":
                steps.append(Step(where, ""))
        elif kind == "bash":
            steps[-1].command += f"\n{line}"
        elif kind == "text" and before == "bash":
            steps[-1].expected.append(line)
        elif kind == "console":
            _console_line(steps, line, where)
    return steps


def _console_line(steps: list[Step], line: str, where: str) -> None:
    if line.startswith(("$ ", "# ")):
        steps.append(Step(where, line[2:]))
    elif line.startswith("> ") and steps and not steps[-1].expected:
        steps[-1].command += "\n" + line[2:]
    else:
        assert steps, f"{where}: output before any command"
        steps[-1].expected.append(line)


def pattern_of(expected: list[str]) -> re.Pattern[str]:
    """What the expected lines accept."""
    parts = []
    for line in expected:
        if line == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        text = re.escape(line)
        text = text.replace(re.escape("..."), ".*")
        text = re.sub(r"\\\[(?:\\ )*\d+\\\.\d{6}\\\]", r"\\[ *\\d+\\.\\d{6}\\]", text)
        text = re.sub(r"(?<![0-9a-fx])[0-9a-f]{16}(?![0-9a-f])", "[0-9a-f]{16}", text)
        parts.append(text + r"\n")
    return re.compile("".join(parts) + r"\Z")


class Shell:
    """One bash in which commands run one after another."""

    def __init__(self, cwd: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def run(self, command: str) -> str:
        """What a command prints, both streams."""
        assert self.process.stdin and self.process.stdout
        # The command reads from /dev/null, not from the script that we are feeding to bash.
        self.process.stdin.write(f"{{ {command}\n}} </dev/null\necho '{END}'\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.endswith(END + "\n"):
                if line != END + "\n":  # the command's last line had no newline
                    lines.append(line[: -len(END) - 1] + "\n")
                return "".join(lines)
            # an interactive bash, which is what a reader types into, has no line numbers
            lines.append(re.sub(r"^bash: line \d+: ", "bash: ", line))
        raise AssertionError(f"the shell ended in: {command}\n{''.join(lines)}")

    def close(self) -> None:
        """End the shell."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)


def check_document(document: Path, shell: Shell) -> int:
    """Run a document's commands and compare; the number of commands run."""
    steps = steps_of(document)
    for step in steps:
        printed, expected = shell.run(step.command), "\n".join(step.expected)
        assert pattern_of(step.expected).match(printed), (
            f"{step.where}: $ {step.command}\nexpected:\n{expected}\nprinted:\n{printed}"
        )
    return len(steps)
