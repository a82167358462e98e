"""`cmafs export`: plain files for scripts that only read, without FUSE or namespaces."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import CMAFS, SCRIPTS, cmafs

from cmafs.api import Machine, boot
from cmafs.fs.dentry import Directory
from cmafs.mount.export import ExportFailed, export


class Watched(Machine):
    """A machine that does something when a file of it is read for the first time."""

    def __init__(self, path: str, then: Callable[[], object]) -> None:
        self.machine, self.path, self.then = boot(cmdline="cma=16M"), path, then

    @property
    def root(self) -> Directory:  # type: ignore[override]
        return self.machine.root

    def read(self, path: str) -> bytes:
        if path == self.path:
            self.then()
        return self.machine.read(path)


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
    script = (
        f"mount -t tmpfs -o size=200k none {tmp_path} && {' '.join(CMAFS)} export {tree}; ls -A {tmp_path}"
    )
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    assert done.stderr.startswith(f"cmafs: {tree}/")
    assert done.stderr.endswith(": No space left on device\n")


def test_what_others_do_there_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    """Who owns the directory puts another in the place of one that is being filled."""
    place, victim = tmp_path / "board", tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)

    def swap() -> None:
        (place / "proc").rename(place / ".x")
        (place / "proc").mkdir()
        for name in ("cmdline", "meminfo", "config.gz"):
            (place / "proc" / name).symlink_to(victim)

    export(Watched("/proc/cmdline", swap), place)
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("precious", 0o600)
    assert (place / ".x" / "cmdline").read_text() == "cma=16M\n"


def test_what_others_put_there_meanwhile_is_left_alone(tmp_path: Path) -> None:
    place, theirs = tmp_path / "board", tmp_path / "theirs"
    theirs.mkdir(0o700)
    (theirs / "file").write_text("kept")
    with pytest.raises(ExportFailed, match=f"{place}/sim: File exists"):
        export(Watched("/proc/cmdline", lambda: theirs.rename(place / "sim")), place)
    assert [path.name for path in place.iterdir()] == ["sim"]
    assert (place / "sim" / "file").read_text() == "kept"
    assert stat.S_IMODE((place / "sim").stat().st_mode) == 0o700


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_of_one_that_is_interrupted_nothing_is_left(tmp_path: Path, error: type[BaseException]) -> None:
    def end() -> None:
        raise error

    with pytest.raises(error):
        export(Watched("/proc/meminfo", end), tmp_path / "a" / "board")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "board").mkdir()
    with pytest.raises(error):
        export(Watched("/proc/meminfo", end), tmp_path / "board")
    assert list((tmp_path / "board").iterdir()) == []
