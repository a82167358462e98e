"""`cmafs size`: the smallest pool is the smallest, one unit below fails, and its node is a good one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import replay

from cmafs.cli.main import main
from cmafs.replay.buffers import BadList, items, requests
from cmafs.replay.capture import Event
from cmafs.replay.machine import bare_areas
from cmafs.replay.pool import BitmapPool, KernelPool
from cmafs.replay.size import Requests, smallest_pool
from cmafs.replay.survey import Geometry

TRACE = str(replay.TRANSCRIPTS / "6.12" / "trace-1.jsonl.xz")


def size(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["size", "--json", *words]) == 0
    report: dict[str, object] = json.loads(capsys.readouterr().out)
    return report


def test_a_bitmap_answers_as_the_kernels_allocator() -> None:
    rng = random.Random(5)
    for kernel in ("4.4", "6.12", "7.2"):
        bitmap = BitmapPool("", 4096)
        kernels = KernelPool(bare_areas(kernel, [Geometry(None, 1 << 20, 4096)])[0])
        live: list[tuple[int, int]] = []
        for _ in range(1500):
            if live and rng.random() < 0.45:
                pfn, count = live.pop(rng.randrange(len(live)))
                bitmap.release(pfn, count)
                kernels.release(pfn + (1 << 20), count)
            else:
                count, align = rng.choice((1, 7, 64, 300, 1024)), rng.choice((0, 0, 4, 8))
                here, there = bitmap.alloc(count, align), kernels.alloc(count, align)
                assert (here is None) == (there is None)
                if here is not None:
                    assert there == here + (1 << 20)
                    live.append((here, count))
            assert bitmap.maxchunk() == kernels.maxchunk()
            assert bitmap.available_count == kernels.available_count


@pytest.mark.parametrize("seed", range(6))
def test_no_smaller_pool_serves(seed: int) -> None:
    rng = random.Random(seed)
    words = "".join(f"{rng.choice(('+', '+', '-'))} {rng.choice((1, 3, 17))}M " for _ in range(40))
    started: dict[str, int] = {}
    good = []
    for sign, what in zip(words.split()[::2], words.split()[1::2], strict=True):
        if sign == "-" and not started.get(what):
            sign = "+"
        started[what] = started.get(what, 0) + (1 if sign == "+" else -1)
        good.append(f"{sign} {what}")
    events = list(requests(items(" ".join(good)), 12, None, 8))
    wanted = Requests(events, [], "6.12")
    found = smallest_pool(wanted, 512, lambda jobs: [job() for job in jobs], 2, lambda done, of: None)
    assert found.smallest.refused is None
    brute = next(pages for pages in range(512, 1 << 20, 512) if wanted.kernel_trial(pages).refused is None)
    assert found.smallest.pages == brute


def test_a_list_of_frames(capsys: pytest.CaptureFixture[str]) -> None:
    report = size(capsys, "1920x1080 nv12 x4 + 3840x2160 rgba x2")
    assert (report["largest_pages"], report["peak_pages"]) == (8100, 4 * 760 + 2 * 8100)
    assert report["smallest"] == 76 << 20
    assert report["below"] == {
        "size": 74 << 20, "line": 2, "pages": 8100, "free_pages": 7804, "longest_hole": 7772
    }  # fmt: skip


def test_order_of_start_and_stop_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert size(capsys, "8M", "x2", "-", "8M", "x2", "+", "12M")["smallest"] == 16 << 20
    assert size(capsys, "8M x2 + 12M - 8M x2")["smallest"] == 28 << 20
    assert size(capsys, "8M + 2M + 8M - 8M x2 + 10M")["smallest"] == 20 << 20
    assert size(capsys, "1M + 1M x3 - 1M x2 + 2M", "--align", "0")["smallest"] == 4 << 20


def test_kernel_page_size_and_unit(capsys: pytest.CaptureFixture[str]) -> None:
    assert size(capsys, "10M", "--kernel", "5.10")["unit"] == 4 << 20
    report = size(capsys, "10M", "--page-size", "64K")
    assert (report["page_size"], report["unit"], report["smallest"]) == (1 << 16, 512 << 20, 512 << 20)
    assert report["below"] is None
    assert size(capsys, "10M", "--unit", "1M")["smallest"] == 10 << 20


def test_a_capture_fits_into_its_own_pool_and_not_into_less(capsys: pytest.CaptureFixture[str]) -> None:
    report = size(capsys, TRACE)
    assert int(str(report["smallest"])) >= 16 << 20  # what failed on the board is served, too
    assert report["allocations"] == 69 or int(str(report["allocations"])) > 50
    below = report["below"]
    assert isinstance(below, dict) and below["longest_hole"] < below["pages"]


@pytest.mark.parametrize(
    "options", [[], ["--kernel", "5.10"], ["--dts", "rpi4"], ["--dts", "imx8mm"]], ids=str
)
def test_the_node_passes_the_check(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = str(size(capsys, "1920x1080 nv12 x4", *options)["node"])
    cells = "\n".join(line for line in node.splitlines() if "-cells" in line)
    two = "<2>;" in cells.splitlines()[1]
    reg = "<0x0 0x40000000 0x0 0x40000000>" if two else "<0x0 0x40000000 0x40000000>"
    if "address-cells = <1>" in cells:
        reg = "<0x40000000 0x40000000>"
    board = tmp_path / "board.dts"
    board.write_text(
        f'/dts-v1/;\n/ {{\n{cells}\nmemory@40000000 {{ device_type = "memory"; reg = {reg}; }};\n'
        f"chosen {{ }};\n{node}}};\n"
    )
    kernel = options if options[:1] == ["--kernel"] else []
    assert main(["check", "--dts", str(board), *kernel]) == 0
    assert "linux,cma" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "neither WIDTHxHEIGHT nor a size in bytes (K, M, G) (and there is no such file)"),
        (["10x10", "nv99"], "unknown pixel format; known are abgr"),
        (["0"], "no buffer at all"),
        (["1M", "x0"], "no buffer at all"),
        (["1M", "x3", "x4"], "wanted is WIDTHxHEIGHT FORMAT xN, or SIZE xN"),
        (["1M", "-", "2M"], "stops more buffers than were started"),
        (["1M", "x200000"], "more than 10000 buffers"),
        (["1T", "x20"], "buffers of 20.0 TiB: no more than a machine has"),
        (["1M", "x" + "9" * 30], "a number of more than 64 bits"),
        (["9" * 30 + "x1", "rgba"], "a number of more than 64 bits"),
        (["8E x2"], "16 TiB) can be simulated"),
        (["8T"], "an area of 0x80000000 pages; at most 0x40000000 (4 TiB) can be simulated"),
        (["1M", "--align", "99"], "is no order from 0 to 20"),
        (["1M", "--unit", "3M"], "no power of two"),
        (["1M", "--unit", "x"], "--unit: 'x' is no size"),
        (["1M", "--kernel", "9.9"], "unknown kernel '9.9'"),
        (["/dev/null"], "no allocation and no release in it"),
    ],
)
def test_one_line_for_what_cannot_be_answered(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["size", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_a_list_in_events() -> None:
    made = list(requests(items("+ 8K x2 - 8K"), 12, None, 8))
    assert [(one.kind, one.pfn, one.pages, one.align) for one in made] == [
        ("alloc", 0, 2, 1), ("alloc", 2, 2, 1), ("release", 0, 2, 0)
    ]  # fmt: skip
    assert isinstance(made[0], Event)
    with pytest.raises(BadList):
        items("")


def test_a_list_may_be_longer_than_the_name_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", "--json", " + ".join(["1920x1080 nv12 x4"] * 30)]) == 0
    assert json.loads(capsys.readouterr().out)["allocations"] == 120
