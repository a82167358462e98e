"""cmafs why --dmesg: failures in logs of any kernel, with noise; what they mean by that kernel's rules."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import replay
from seeing_support import copied_files

from cmafs.api import Machine
from cmafs.board.klog import read_log
from cmafs.cli.main import main
from cmafs.view.why import (
    ADVICE,
    ALIGNED,
    BUSY,
    FRAGMENTED,
    MEANING,
    NO_ROOM,
    TOO_SMALL,
    UNCLEAR,
    explain_log,
    reason,
)

NOISE = (
    "[    1.000000] usb 1-1: new high-speed USB device number 2 using xhci_hcd",
    "Nov 21 10:00:02 pi kernel: [  112.000002][ T99] brcmfmac: brcmf_cfg80211_set_power_mgmt: power save",
    "<4>[  112.000003] cma: unrelated words with alloc in them",
    "\x00\xff\x1b[31mbinary\x1b[0m",
    "",
)
#: What kernels print of one failed request for 300 pages, and why it failed.
LOGS = {
    "3.10, debug lines": (
        ["cma: dma_alloc_from_contiguous(cma c0a3, count 300, align 8)",
         "cma: dma_alloc_from_contiguous(): memory range at c0c32000 is busy, retrying",
         "cma: dma_alloc_from_contiguous(): returned   (null)"],
        BUSY,
    ),
    "4.4, nothing but the answer": (
        ["cma: cma_alloc(cma ffffffff83000000, count 300, align 0)",
         "cma: cma_alloc(): returned           (null)"],
        UNCLEAR,
    ),
    "4.14": (["cma: cma_alloc: alloc failed, req-size: 300 pages, ret: -12"], UNCLEAR),
    "5.4, pins": (
        ["alloc_contig_range: [3b000, 3b12c) PFNs busy",
         "cma: cma_alloc: alloc failed, req-size: 300 pages, ret: -16"],
        BUSY,
    ),
    "5.10": (
        ["cma: cma_alloc: alloc failed, req-size: 300 pages, ret: -12",
         "cma: number of available pages: 100@0+200@150+77@900=> 377 free of 1024 total pages"],
        FRAGMENTED,
    ),
    "6.1": (
        ["cma: cma_alloc: linux,cma: alloc failed, req-size: 300 pages, ret: -12",
         "cma: number of available pages: 4@572+7@585=> 11 free of 16384 total pages"],
        TOO_SMALL,
    ),
    "6.6, aligned": (
        ["cma: cma_alloc(cma 00000000deadbeef, name: reserved, count 300, align 8)",
         "cma: cma_alloc: reserved: alloc failed, req-size: 300 pages, ret: -12",
         "cma: number of available pages: 400@572=> 400 free of 16384 total pages"],
        ALIGNED,
    ),
    "6.12, no room": (
        ["cma: __cma_alloc: reserved: alloc failed, req-size: 300 pages, ret: -12",
         "cma: number of available pages: 400@572=> 400 free of 16384 total pages"],
        NO_ROOM,
    ),
    "6.12, busy": (
        ["cma: __cma_alloc: reserved: alloc failed, req-size: 300 pages, ret: -16",
         "cma: number of available pages: 400@572=> 400 free of 16384 total pages"],
        BUSY,
    ),
    "6.18, several ranges": (
        ["cma: __cma_alloc: reserved: alloc failed, req-size: 300 pages, ret: -16",
         "cma: number of available pages: ",
         "cma: range 0: 100@0+20@128",
         "cma: range 1: +250@5",
         "cma: ",
         "=> 370 free of 1024 total pages"],
        FRAGMENTED,
    ),
    "7.2, larger than the area": (
        ["cma: __cma_alloc_frozen: reserved: alloc failed, req-size: 300 pages, ret: -16",
         "cma: range 0: 256@0", "=> 256 free of 256 total pages"],
        TOO_SMALL,
    ),
    "7.2 without a list": (
        ["cma: __cma_alloc_frozen: reserved: alloc failed, req-size: 300 pages, ret: -16"], UNCLEAR
    ),
}  # fmt: skip


@pytest.mark.parametrize("kernel", LOGS)
@pytest.mark.parametrize("noisy", [False, True])
def test_a_failure_is_understood(kernel: str, noisy: bool) -> None:
    lines, why = LOGS[kernel]
    release = kernel.partition(",")[0].partition(" ")[0]
    text = [f"[    0.000000] Linux version {release}.9-v7l+ (x@y)"]
    for number, line in enumerate(lines):
        text += [*(NOISE if noisy else ()), f"<3>[   {number:2}.123456][  T77] {line}"]
    report = read_log("\n".join(text))
    (failure,) = report.failures
    assert failure.pages == 300
    assert failure.asked_by == "task 77"
    assert reason(failure, report.release) == why
    said = list(explain_log(report, 5))
    assert f"  why: {why}: {MEANING[why]}" in said
    assert [line for line in said if "helps" in line] == [
        f"  helps in general (not tried): {advice}" for advice in ADVICE[why]
    ]


def test_a_board_says_how_large_its_pages_are() -> None:
    report = read_log("[    9.1] cma: cma_alloc: alloc failed, req-size: 8 pages, ret: -12")
    asked = [list(explain_log(report, 5, *page))[1] for page in ((), (1 << 14,), (1 << 16,))]
    assert asked == [f"  asked: 8 pages, {8 * kib} KiB with pages of {kib} KiB" for kib in (4, 16, 64)]


def test_who_asked_is_what_the_log_says() -> None:
    failed = "[    9.1] cma: cma_alloc: alloc failed, req-size: 8 pages, ret: -12"
    vb2 = "[    9.2] unicam fe801000.csi: dma alloc of size 16113664 failed"
    dump = "[    9.3] CPU: 2 PID: 4711 Comm: kmscube Tainted: G"
    asked = [
        read_log("\n".join(lines)).failures[0].asked_by
        for lines in ((failed,), (failed, vb2), (failed, dump))
    ]
    assert asked == [
        "",
        "the log goes on: 'unicam fe801000.csi: dma alloc of size 16113664 failed'",
        "kmscube, pid 4711",
    ]


def test_what_is_no_failure() -> None:
    busy = read_log("[ 1.0] alloc_contig_range: [3b000, 3b400) PFNs busy\n" * 3)
    assert (busy.failures, busy.busy) == ([], 3)
    assert "harmless" in " ".join(explain_log(busy, 5))
    passed_by = ["cma: cma_alloc(cma 0, count 8, align 0)", "cma: cma_alloc(): returned 00000000e2d0a5b3"]
    assert read_log("\n".join(passed_by)).failures == []
    assert list(explain_log(read_log("hello\n"), 5)) == ["no failed request to CMA in this log"]


def test_boot_problems_are_passed_to_check() -> None:
    said = list(explain_log(read_log("[    0.000000] cma: Failed to reserve 512 MiB on node -1\n"), 5))
    assert said[0] == "at boot: cma: Failed to reserve 512 MiB on node -1"
    assert "cmafs check" in said[1]


@pytest.mark.parametrize(
    "name", ["4.4/exhaust-1-16M", "5.10/exhaust-1-16M", "6.1/walk-2-16M", "7.2/exhaust-1-16M"]
)
def test_every_failure_of_a_real_kernel_s_log_is_found(name: str, tmp_path: Path) -> None:
    transcript = copied_files(name, tmp_path)
    found = read_log("\n".join(transcript.dmesg)).failures
    failed = [one for one in transcript.operations if one["op"] == "W" and one["errno"] == 12]
    asked = [int(one["data"]) for one in failed if one["path"].endswith("/alloc")]
    asked = [pages for pages in asked if pages <= 4096]  # others are refused without a word
    assert asked and [failure.pages for failure in found] == asked[-len(found) :]
    assert len(found) == len(asked)


@pytest.mark.parametrize("name", ["5.10/walk-1-4M", "6.12/exhaust-1-16M", "7.2/walk-2-16M"])
def test_copied_files_of_a_real_kernel(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transcript = copied_files(name, tmp_path)
    used = [one["out"] for one in transcript.operations if one["path"].endswith("/used")][-1]
    assert main(["map", str(tmp_path), "--width", "80"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"  used {used.strip()} pages") for line in lines)
    assert main(["why", str(tmp_path)]) == 0
    assert "  why: " in capsys.readouterr().out


@pytest.mark.parametrize("kernel", ["4.4", "5.10", "6.6", "6.12", "6.18", "7.2"])
def test_our_own_logs(kernel: str) -> None:
    machine = Machine.boot(cmdline="cma=16M", kernel=kernel, config=["CMA_DEBUG=y"])
    area = machine.listdir("/sys/kernel/debug/cma")[0]
    with pytest.raises(OSError):
        machine.write(f"/sys/kernel/debug/cma/{area}/alloc", "4050")
    report = read_log(machine.dmesg())
    (failure,) = report.failures
    assert (report.release, failure.pages) == (machine.booted.abi.release, 4050)


def test_every_failure_that_a_recorded_log_tells_is_read() -> None:
    for path in sorted(replay.TRANSCRIPTS.rglob("pins-*.jsonl.xz"))[:6]:
        log = replay.load(path).dmesg
        says = (
            "alloc failed, req-size: "
            if "/4.4/" not in str(path)
            else "cma_alloc(): returned           (null)"
        )
        told = sum(says in line for line in log)
        report = read_log("\n".join(log))
        assert len(report.failures) == told, path
        assert len(list(explain_log(report, 5))) >= min(told, 5)


@pytest.mark.parametrize("piece", ["[", "alloc fail ", "cma: cma_alloc(cma x, name: ", "memory range at "])
def test_a_line_without_end_takes_no_time(piece: str) -> None:
    failure = "cma: cma_alloc: reserved: alloc failed, req-size: 300 pages, ret: -12\n"
    began = time.process_time()
    assert len(read_log(failure + piece * (200_000 // len(piece))).failures) == 1
    assert time.process_time() - began < 3
