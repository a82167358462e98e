"""--load FILE on every command: what `cmafs save` wrote, what `cmafs record` found."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from pathlib import Path

import pytest

from cmafs import api
from cmafs.cli.main import main
from cmafs.fs.dentry import RegularFile, walk

CMA = "/sys/kernel/debug/cma"
OPTIONS = {"dts": "camera", "kernel": "6.1", "cmdline": "cma=24M"}
#: What the script of `cmafs record` saves.
RECORDED = ("/proc/", "/sys/firmware/", "/sys/kernel/debug/cma/", "/boot/")


def record(machine: api.Machine, file: Path, without: tuple[str, ...] = ()) -> Path:
    """The tar of a machine as a board's."""
    with tarfile.open(file, "w") as tar:
        for path, inode in walk(machine.root):
            left_out = path.endswith(("/alloc", "/free")) or path.startswith(("/proc/sys", *without))
            if isinstance(inode, RegularFile) and path.startswith(RECORDED) and not left_out:
                data = machine.read(path)
                member = tarfile.TarInfo(f".{path}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return file


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of a machine that was used, and a tar of the same board."""
    place = tmp_path_factory.mktemp("load")
    machine = api.boot(**OPTIONS)
    record(machine, place / "board.tar")
    machine.control("dma_alloc 32e00000.isi 12M", "spawn browser anon 100M")
    with pytest.raises(OSError, match="ENOMEM"):
        machine.write(f"{CMA}/reserved/alloc", "100000\n")
    machine.save(place / "used.snap")
    return place


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


def test_a_snapshot_is_looked_at_without_a_mount(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load = ("--load", str(used / "used.snap"))
    status, out, err = run(capsys, "map", *load, "--area", "camera@60000000", "--width", "80")
    assert (status, err) == (0, "") and "A 32e00000.isi: 3072 allocated" in out
    status, out, err = run(capsys, "map", *load, "--svg", "-")
    assert (status, err) == (0, "") and "used.snap 6.1.192" in out
    status, out, err = run(capsys, "top", *load, "--count", "1")
    assert (status, err) == (0, "") and "failed requests: 1\n" in out
    status, out, err = run(capsys, "why", *load)
    assert (status, err) == (0, "") and "100000 pages, -12 (ENOMEM): larger than the area" in out


def test_a_snapshot_is_a_machine_of_every_other_command(
    used: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = ("--load", str(used / "used.snap"))
    status, out, err = run(capsys, "check", *load, "--format", "json")
    assert (status, err) == (1, "")  # cma= on the command line displaces the node
    (board,) = json.loads(out)["boards"]
    assert board["kernel"] == "6.1.192" and len(board["areas"]) == 3
    status, out, err = run(capsys, "size", *load, "16M x3")
    assert (status, err) == (0, "") and out.startswith("kernel 6.1.192, ")
    base = next(one["base_pfn"] for one in board["areas"] if one["name"] == "camera@60000000")
    (tmp_path / "trace").write_text(
        f"sh-1 [000] ..... 1.0: cma_alloc_finish: name=camera@60000000 pfn={base + 3072:#x} page=1 "
        "count=4 align=0 errorno=0\n"
    )
    status, out, _ = run(capsys, "replay", *load, str(tmp_path / "trace"))
    assert status == 0 and "kernel 6.1\n" in out  # behind the 12 MiB that were in use when it was saved
    assert run(capsys, "replay", "--dts", "camera", str(tmp_path / "trace"))[0] == 1
    header = {"header": {"kernel": "6.1", "arch": "arm64", "cmdline": "", "boot": []}}
    read = {"op": "R", "path": f"{CMA}/camera@60000000/used", "out": "3072\n", "errno": 0}
    (tmp_path / "walk.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(read)}\n")
    status, out, _ = run(capsys, "compare", *load, str(tmp_path / "walk.jsonl"))
    assert status == 0 and out.endswith("all as recorded\n")
    status, out, _ = run(capsys, "trace-alloc", *load, "camera@60000000", "4")
    assert status == 0 and out.startswith("cma_alloc(camera@60000000, 4 pages)\n")
    status, out, _ = run(capsys, "export", *load, str(tmp_path / "exported"))
    assert status == 0 and (tmp_path / f"exported{CMA}/camera@60000000/used").read_text() == "3072\n"


def areas(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[dict[str, object]]]:
    _, out, _ = run(capsys, "check", *words, "--format", "json")
    return {one["kernel"]: one["areas"] for one in json.loads(out)["boards"]}


def test_a_recorded_board_boots_as_it_did(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = str(used / "board.tar")
    here = areas(capsys, "camera", "--kernel", "6.1", "--cmdline", "cma=24M")["6.1.192"]
    (kernel, there), *none = areas(capsys, "--load", board).items()
    assert (kernel, none) == ("6.1.192", [])
    assert [{**one, "node": None} for one in there] == [{**one, "node": None} for one in here]
    status, out, err = run(capsys, "map", "--load", board, "--width", "80")
    assert (status, err) == (0, "") and out.count(" pages\n") >= 4


def test_options_of_the_user_go_before_the_boards(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = str(used / "board.tar")
    changed = areas(capsys, "--load", board, "--kernel", "5.10,7.2", "--cmdline", "cma=32M")
    assert list(changed) == ["5.10.223", "7.2.13"]
    assert [one["count"] for one in changed["7.2.13"] if one["default"]] == [8192]
    status, _, err = run(capsys, "size", "--load", board, "--dts", "rpi4", "1M")
    assert (status, err) == (2, f"cmafs: --load: {board} has the device tree of its board; leave out --dts\n")


def test_areas_that_come_elsewhere_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a board whose firmware tells its kernel more than the tar has."""
    machine = api.boot(**OPTIONS)
    file = record(machine, tmp_path / "board.tar", without=("/sys/firmware/",))
    status, out, err = run(capsys, "map", "--load", str(file))
    assert status == 0 and "reserved" in out  # memory is that of /proc/iomem: only cma= makes an area
    assert err.count("is none here; `cmafs check --load` may say why\n") == 2


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("/proc/version", "proc/version is missing: it does not say which kernel this was"),
        (("/sys/firmware/", "/proc/iomem"), "nothing in it says where this board has memory: record it as"),
    ],
)
def test_a_tar_that_lacks_something(
    without: str | tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = (without,) if isinstance(without, str) else without
    file = record(api.boot(**OPTIONS), tmp_path / "board.tar", parts)
    status, out, err = run(capsys, "check", "--load", str(file))
    assert (status, out, err.count("\n")) == (2, "", 1) and said in err


REFUSED = {
    ("map", "m", "--load", "used.snap"): "either ROOT or --load FILE",
    ("top", "m", "--load", "used.snap"): "either ROOT or --load FILE",
    ("why", "--dmesg", "x", "--load", "used.snap"): "either --load FILE or --dmesg FILE",
    ("map", "used.snap"): "a machine that `cmafs save` wrote: give it as --load used.snap",
    ("check", "rpi4", "--load", "used.snap"): "give either boards or --load used.snap",
    ("check", "--load", "used.snap", "--kernel", "6.6"): "says what machine it is; leave out --kernel",
    ("size", "--load", "used.snap", "--page-size", "64K", "1M"): "leave out --page-size",
    ("size", "--load", "used.snap", "--seed", "0", "1M"): "leave out --seed",
    ("replay", "--load", "used.snap", "--overlay", "x", "board.tar"): "no allocation and no release",
    ("learn", "exhaust", "--load", "none", "--check", "/dev/null"): "none: No such file or directory",
    ("size", "--kernel", "2010", "1M"): "the framework of 2010 has no pool of this kind",
    ("check", "--load", "t3_load.py"): "not a snapshot of cmafs, and no tar of `cmafs record`",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_makes_no_sense_is_refused_in_one_line(
    words: tuple[str, ...], used: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(used)
    (used / "t3_load.py").write_text("no machine\n")
    status, out, err = run(capsys, *words)
    assert status in (1, 2) and out == ""
    assert err.count("\n") == 1 and REFUSED[words] in err


def test_damaged_tars_are_one_line(used: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (used / "board.tar").read_bytes()
    chance = random.Random(1)
    for number in range(24):
        file = tmp_path / "bad.tar"
        at = chance.randrange(len(whole) - 10240)
        flipped = bytes(byte ^ chance.randrange(256) for byte in whole[at : at + 64])
        file.write_bytes(whole[:at] if number % 2 else whole[:at] + flipped + whole[at + 64 :])
        status, out, err = run(capsys, "check", "--load", str(file), "--format", "json")
        if number % 2:
            assert (status, out, err.count("\n")) == (2, "", 1) and "bad.tar: not a" in err
        else:
            assert status in (0, 1) or (out, err.count("\n")) == ("", 1)
            assert "Traceback" not in err


def test_a_tar_with_a_damaged_figure_is_one_line(
    used: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.tar"
    with tarfile.open(used / "board.tar") as whole, tarfile.open(file, "w") as tar:
        for member in whole:
            data = whole.extractfile(member).read()  # type: ignore[union-attr]
            data = b"many\n" if member.name.endswith("reserved/count") else data
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    for command in ("map", "why", "top"):
        status, out, err = run(capsys, command, str(file))
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"cmafs: {file}: ") and "count: not a number: b'many" in err


def test_a_packed_tar_is_read_as_well(used: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "board.tar.gz"
    file.write_bytes(gzip.compress((used / "board.tar").read_bytes()))
    assert areas(capsys, "--load", str(file)) == areas(capsys, "--load", str(used / "board.tar"))
    assert run(capsys, "map", str(file))[1] == run(capsys, "map", str(used / "board.tar"))[1]
