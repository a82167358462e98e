"""The reader of boards: a directory, a tar, a mount; what is damaged is one clear line."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from cmafs.api import Machine
from cmafs.board.areas import PLACES, Area, AreaRange, read_areas
from cmafs.board.memory import failed_pages
from cmafs.board.root import RootError, open_root
from cmafs.board.sample import take_sample
from cmafs.cli.roots import MachineRoot
from cmafs.mount.export import export

AREA = "sys/kernel/debug/cma/reserved"


def board(place: Path, **files: str) -> Path:
    """A directory with an area of 4 MiB at 0x60000, of which ``files`` replaces some files."""
    texts = {"count": "1024\n", "base_pfn": "393216\n", "order_per_bit": "0\n", "bitmap": "0 " * 31 + "0\n"}
    for name, text in {**texts, **files}.items():
        path = place / AREA / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def test_the_files_of_an_area(tmp_path: Path) -> None:
    bits = ["4294967295", "3", "2147483648", *["0"] * 29]
    (area,) = read_areas(open_root(str(board(tmp_path, bitmap=" ".join(bits)))))
    taken = ((0x60000, 0x60022), (0x6005F, 0x60060))
    assert area == Area("reserved", 1024, 0, 35, 928, (AreaRange(0x60000, 1024, taken),))
    assert area.holes() == [(0x60022, 0x6005F), (0x60060, 0x60400)]


def test_a_bit_may_be_many_pages(tmp_path: Path) -> None:
    root = board(tmp_path, order_per_bit="9", count="1536", bitmap="5")
    (area,) = read_areas(open_root(str(root)))
    assert area.ranges[0].allocated == ((0x60000, 0x60200), (0x60400, 0x60600))
    assert area.used == 1024 and area.maxchunk == 512


@pytest.mark.parametrize("kernel", ["4.4", "4.19", "5.10", "6.1", "6.12", "7.2"])
def test_it_agrees_with_the_machine_it_was_copied_from(tmp_path: Path, kernel: str) -> None:
    machine = Machine.boot(kernel=kernel, cmdline="cma=16M", config=["CMA_DEBUGFS=y"])
    cma = machine.booted.cma[0]
    directory = "/sys/kernel/debug/cma/" + machine.listdir("/sys/kernel/debug/cma")[0]
    for pages in (5, 70, 1):
        machine.write(f"{directory}/alloc", f"{pages}\n")
    machine.write(f"{directory}/free", "1\n")
    export(machine, tmp_path / "copy")
    (area,) = read_areas(open_root(str(tmp_path / "copy")))
    runs = tuple((cma.base_pfn + low, cma.base_pfn + high) for low, high in cma.ranges[0].bitmap.runs())
    assert area.ranges == (AreaRange(cma.base_pfn, cma.count, runs),)
    assert (area.count, area.used, area.maxchunk) == (cma.count, cma.used(), cma.maxchunk())


@pytest.mark.parametrize("top", ["", "./", "board-1/"])
def test_a_tar_is_read_where_it_lies(tmp_path: Path, top: str) -> None:
    tree = board(tmp_path / "tree")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(tree, arcname=top or ".")
    root = open_root(str(tmp_path / "b.tar.gz"))
    assert read_areas(root) == read_areas(open_root(str(tree)))
    assert root.read("proc/meminfo") is None and root.names("proc") == []


def refused(root: Path) -> str:
    with pytest.raises(RootError) as error:
        read_areas(open_root(str(root)))
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(str(root))


def test_what_is_damaged_is_said_in_one_line(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").startswith(": No such file or directory; wanted is a mount point")
    assert refused(tmp_path).startswith(": no CMA area in sys/kernel/debug/cma")
    assert "bitmap is not a list of 32-bit numbers" in refused(board(tmp_path / "a", bitmap="1 x"))
    assert "bitmap is not a list of 32-bit numbers" in refused(board(tmp_path / "b", bitmap=str(1 << 32)))
    assert "count: not a number: b'many'" in refused(board(tmp_path / "c", count="many"))
    text = tmp_path / "text"
    text.write_text("hello\n" * 1000)
    assert "not a whole tar file" in refused(text)


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:xz"])
def test_a_tar_that_ends_early(tmp_path: Path, kind: str) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=kind) as tar:
        tar.add(board(tmp_path / "tree", bitmap="0 " * 32 + "\n" * 40000), arcname=".")
    cut = tmp_path / "cut.tar"
    data = whole.getvalue()
    end = len(data.rstrip(b"\0")) if kind == "w" else len(data) // 4
    blocks = range(512, end, 512) if kind == "w" else []
    for length in (1, len(data) // 3, len(data) // 2, end, *blocks):
        cut.write_bytes(data[:length])
        assert "not a whole tar file" in refused(cut), length


@pytest.mark.parametrize("kernel", ["5.10", "5.15", "6.1"])
def test_failures_are_those_of_the_area_whatever_debugfs_calls_it(kernel: str) -> None:
    """5.15 has cma-reserved in debugfs and reserved in sysfs; 5.10 counts nowhere but in the log."""
    machine = Machine.boot(kernel=kernel, cmdline="cma=16M hugetlb_cma=1G", memory="4G")
    root = MachineRoot(machine, "m")
    (mine,) = (area.name for area in read_areas(root) if area.name.endswith("reserved"))
    with suppress(OSError):
        machine.write(f"/{PLACES[0]}/{mine}/alloc", "5000")
    failed = {"5.10": None}.get(kernel, 5000)
    assert failed_pages(root, mine) == failed
    counted = {area.name: area.failed for area in take_sample(root, 0).areas}
    assert counted == dict.fromkeys(counted, 0) | {mine: failed or 0}
