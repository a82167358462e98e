"""`cmafs export`: plain files for scripts that only read, without FUSE or namespaces."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from run_support import CMAFS, SCRIPTS, cmafs


def test_the_tree_as_files(tmp_path: Path) -> None:
    place = tmp_path / "board"
    done = cmafs("export", str(place), "--cmdline", "cma=16M", "--kernel", "7.2")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{place}: ")
    assert done.stderr.startswith("This is a snapshot of plain files, taken right after boot:\n")
    area = place / "sys/kernel/debug/cma/reserved"
    assert (area / "count").read_text() == "4096\n"
    assert (area / "used").read_text() == "96\n"
    assert (area / "base_pfn").is_symlink()
    assert (area / "base_pfn").read_text() == (area / "ranges/0/base_pfn").read_text()
    assert (area / "alloc").stat().st_size == 0
    assert stat.S_IMODE((area / "alloc").stat().st_mode) == 0o200
    assert "CmaTotal:          16384 kB" in (place / "proc/meminfo").read_text()
    assert (place / "proc/device-tree/#size-cells").read_bytes() == (2).to_bytes(4, "big")
    assert (place / "sim/verify").read_text() == "ok\n"
    everything = [path for path in place.rglob("*") if not path.is_symlink()]
    assert all(path.is_dir() or stat.S_ISREG(path.stat().st_mode) for path in everything)


def test_a_reading_script_works_below_it(tmp_path: Path) -> None:
    place = tmp_path / "board"
    cmafs("export", str(place), "--cmdline", "cma=16M")
    script = (SCRIPTS / "s3_bitmap.py").read_text().replace("/sys/kernel", f"{place}/sys/kernel")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "reserved used True maxchunk True\n0+96\n"


def test_what_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    done = cmafs("export", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"cmafs: {tmp_path}: not empty: name a new directory\n")
    assert os.listdir(tmp_path) == ["mine"]
    below_a_file = cmafs("export", str(tmp_path / "mine" / "x"))
    assert below_a_file.returncode == 1
    assert below_a_file.stderr.count("\n") == 1


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A file system with room for half of the tree, in a mount namespace of the test's own."""
    tree = tmp_path / "tree"
    script = f"mount -t tmpfs -o size=200k none {tmp_path} && {' '.join(CMAFS)} export {tree}; ls -A {tree}"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    assert done.stderr.startswith(f"cmafs: {tree}")
    assert done.stderr.endswith(": No space left on device\n")
