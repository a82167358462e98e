"""The recorded scripts of the kinds cmdline, dt and trace, run as they are by a real shell under `cmafs run`.

The machine is described by the contract's options alone: a .dts, --kernel, --arch, --cmdline. Compared with
the recorded output: lines of areas and of CmaTotal as they stand, all others as words, since busybox's ls
(there) and GNU's (here) lay names out and word an error differently. CmaFree and nr_free_cma lag on a real
machine; t1 and t3 compare them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from replay import config_file, load
from run_support import cmafs
from trace_support import differences

from cmafs.replay.transcript import Transcript, header_dts, machine_options

pytestmark = pytest.mark.usefixtures("fuse_device")

RECORDED = Path(__file__).parent / "transcripts"


def tells_its_machine(recorded: Transcript) -> bool:
    """Not the amd64 guests that logged nothing: what memory they had is not known."""
    return bool(recorded.header.get("dts") or recorded.header["boot"])


#: One boot of each set and kind; all of them are compared in t1_transcripts_boot.py and t4_boots.py.
BOOTS = [
    paths[0]
    for directory in sorted(RECORDED.iterdir())
    for kind in ("cmdline", "dt", "cmd", "numa")
    if (paths := [path for path in sorted(directory.glob(f"{kind}-*")) if tells_its_machine(load(path))])
]
TRACES = sorted(RECORDED.glob("*/trace-*"))


def case(path: Path) -> str:
    return f"{path.parent.name}/{path.name.split('.jsonl')[0]}"


def run_script(recorded: Transcript, place: Path) -> tuple[int, str, str]:
    dts = place / "machine.dts"
    dts.write_text(header_dts(recorded.header))
    options = [f"--{name}={value}" for name, value in machine_options(recorded.header).items()]
    script = recorded.header.get("script", "true")
    config = config_file(recorded.header, place)
    done = cmafs("run", "--dts", str(dts), config, *options, "--", "sh", "-c", script)
    return done.returncode, done.stdout, done.stderr


def split(lines: list[str]) -> tuple[list[str], list[str]]:
    """(lines to be compared as they stand, words of the others in order of the alphabet)."""
    whole = [line for line in lines if line.startswith(("area ", "CmaTotal"))]
    rest = " ".join(line for line in lines if line not in whole)
    rest = re.sub(r"(CmaFree: +|nr_free_cma )\d+", r"\1", rest)
    rest = re.sub(r"ls: cannot access '([^']*)'", r"ls: \1", rest)
    return whole, sorted(rest.split())


@pytest.mark.parametrize("path", BOOTS, ids=case)
def test_a_boot_script(path: Path, tmp_path: Path) -> None:
    recorded = load(path)
    recorded.header["script"] = recorded.header.get("script", "true").split("\necho IOMEM")[0]
    status, out, err = run_script(recorded, tmp_path)
    if recorded.script_output:
        want = recorded.script_output
        want = want[: want.index("IOMEM")] if "IOMEM" in want else want
        assert split((out + err).splitlines()) == split(want)
    else:  # the real kernel did not survive its boot
        assert (status, out) == (125, "")
        assert "cmafs: kernel panic at boot: " in err


@pytest.mark.parametrize("path", TRACES, ids=case)
def test_a_trace_script(path: Path, tmp_path: Path) -> None:
    recorded = load(path)
    _, out, _ = run_script(recorded, tmp_path)
    refused = [line for line in recorded.script_output if "write error" in line]
    want = [line for line in recorded.script_output if line not in refused]
    assert refused
    assert differences(want, out.splitlines()) == []
