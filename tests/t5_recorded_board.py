"""What `cmafs record` saved of a board is replayed, sized and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_support import cmafs


@pytest.mark.parametrize(
    "machine",
    [["--cmdline", "cma=16M"], ["--dts", "rpi4", "--kernel", "5.10"], ["--dts", "x86-4g", "--kernel", "7.2"]],
    ids=str,
)
def test_a_recorded_board(machine: list[str], tmp_path: Path, fuse_device: None) -> None:
    script, tar = tmp_path / "record.sh", tmp_path / "board.tar"
    script.write_text(cmafs("record").stdout)
    walk = f"sh {script} --walk $(ls /sys/kernel/debug/cma | head -n 1) --steps 24 --trace 1 --output {tar}"
    done = cmafs("run", *machine, "--", "sh", "-c", walk)
    assert done.returncode == 0, done.stderr
    compared = cmafs("compare", str(tar))
    assert (compared.returncode, compared.stderr) == (0, ""), compared.stdout
    assert compared.stdout.endswith(": all as recorded\n")
    replayed = cmafs("replay", str(tar))
    assert (replayed.returncode, replayed.stderr) == (0, ""), replayed.stdout
    assert "smallest pool: " in cmafs("size", str(tar)).stdout
    again = cmafs("run", "--load", str(tar), "--", "sh", "-c", "uname -r; cat /sys/kernel/debug/cma/*/count")
    first = cmafs("run", *machine, "--", "sh", "-c", "uname -r; cat /sys/kernel/debug/cma/*/count")
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")
