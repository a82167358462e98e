"""Dma-buf heaps: heap_steps.c on a real kernel and in `cmafs run`, line by line (docs/oracle.md)."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import replay
from oracle import guest
from oracle.build import ARCHS, HERE, Kernel
from oracle.record import Case, transcript

from cmafs.replay.transcript import Transcript, header_dts, machine_options

PROGRAM = HERE.parent / "scripts" / "heap_steps.c"
#: A default area and one more, which has a heap of its own on some kernels.
_TREE = """/dts-v1/;
/ { #address-cells = <2>; #size-cells = <2>; compatible = "linux,dummy-virt";
memory@40000000 { device_type = "memory"; reg = <0x0 0x40000000 0x0 0x10000000>; };
reserved-memory { #address-cells = <2>; #size-cells = <2>; ranges;
linux,cma { compatible = "shared-dma-pool"; reusable; size = <0x0 0x1000000>; linux,cma-default; };
camera@4c000000 { compatible = "shared-dma-pool"; reusable; reg = <0x0 0x4c000000 0x0 0x800000>; };
};
chosen { };
};
"""


def cases(arch: str) -> list[Case]:
    """The machines on which the program runs."""
    cmdline, tree = ("cma=16M memblock=debug", "") if arch == "x86_64" else ("", _TREE)
    return [Case("heaps-1", guest.Guest(1 << 28, cmdline, tree))]


def compiled(compiler: str, place: Path) -> Path:
    """The program, built by a compiler below a directory."""
    program = place / PROGRAM.stem
    words = [compiler, "-static", "-Os", "-s", "-Wall", "-std=gnu11"]
    subprocess.run([*words, "-o", str(program), str(PROGRAM)], check=True)
    return program


def record(kernel: Kernel, case: Case, name: str) -> Transcript:
    """Boot a kernel, and let the program say what it sees."""
    with tempfile.TemporaryDirectory(prefix="cmafs-oracle-") as place:
        program = compiled(ARCHS[kernel.arch].cross + "gcc", Path(place))
        boot = guest.run(kernel, case.guest, program=program.read_bytes())
    recorded = transcript(kernel, case, boot, name)
    recorded.header["script"] = PROGRAM.stem
    recorded.script_output, recorded.dmesg = boot.program, []
    return recorded


def answered(recorded: Transcript, program: Path) -> list[str]:
    """What the program, built for this host, says in `cmafs run` on the machine of a transcript."""
    options = machine_options(recorded.header)
    with tempfile.TemporaryDirectory(prefix="cmafs-oracle-") as place:
        tree = Path(place) / "board.dts"
        tree.write_text(header_dts(recorded.header))
        words = [f"--{name}={value}" for name, value in options.items()]
        words += [f"--dts={tree}", replay.config_file(recorded.header, Path(place))]
        done = subprocess.run(
            [sys.executable, "-m", "cmafs", "run", *words, "--", str(program)],
            capture_output=True, cwd=HERE.parent.parent, env={**os.environ, "PYTHONPATH": ""}, check=False,
        )  # fmt: skip
    return (done.stdout + done.stderr).decode("latin-1").splitlines()


def comparable(lines: Iterable[str], release: str) -> list[str]:
    """Lines without what docs/exceptions.md says of files; without free pages, of which real CPUs keep some;
    without numbers of inodes, where other files of that kernel have numbers of the same row.
    """
    kept = [re.sub(" nr_free_cma [0-9]+", "", line) for line in lines if not line.startswith("file ")]
    if tuple(map(int, release.split(".")[:2])) >= (5, 14):
        return kept
    return [re.sub(r"^(\| \d+(\t\w+){4}\t)\d{8}", r"\g<1>INODE", line) for line in kept]


def differences(recorded: Transcript, program: Path) -> list[str]:
    """Lines that only one of the two says, as a diff; ``program`` is built for this host."""
    release = machine_options(recorded.header)["kernel"]
    theirs = comparable(recorded.script_output, release)
    ours = comparable(answered(recorded, program), release)
    return list(difflib.unified_diff(theirs, ours, "kernel", "cmafs", lineterm="", n=1))


def compare(recorded: Transcript) -> list[str]:
    """The same, the program built first."""
    with tempfile.TemporaryDirectory(prefix="cmafs-oracle-") as place:
        return differences(recorded, compiled("cc", Path(place)))
