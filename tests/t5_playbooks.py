"""The "Common problems" of seeds/000 as shell scripts that produce, find and resolve each (tests/scripts)."""

from __future__ import annotations

import re

import pytest
from run_support import SCRIPTS, cmafs

LOG = {
    "4.4": None,
    "5.10": "cma: cma_alloc: alloc failed, req-size: {n} pages, ret: {code}",
    "6.12": "cma: __cma_alloc: reserved: alloc failed, req-size: {n} pages, ret: {code}",
    "7.2": "cma: __cma_alloc_frozen: reserved: alloc failed, req-size: {n} pages, ret: {code}",
    "article": "cma: __cma_alloc: reserved: alloc failed, req-size: {n} pages, ret: {code}",
}
KERNELS = list(LOG)
BOARDS = ["rpi4", "rk3588", "camera", "x86-4g", "article-2"]
pytestmark = pytest.mark.usefixtures("fuse_device")


def playbook(name: str, *machine: str) -> list[str]:
    """What a playbook prints on a machine; it must not complain."""
    done = cmafs("run", *machine, "--", "sh", str(SCRIPTS / f"playbook_{name}.sh"))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def small(kernel: str) -> list[str]:
    """A machine with 16 MiB of CMA."""
    return ["--cmdline", "cma=16M", "--kernel", kernel]


def log_line(kernel: str, pages: int, code: int) -> list[str]:
    """The failure line, which kernels before 4.11 have not."""
    line = LOG[kernel]
    return [line.format(n=pages, code=code)] if line else []


@pytest.mark.parametrize("kernel", KERNELS)
def test_exhausted_pool(kernel: str) -> None:
    assert playbook("exhausted", *small(kernel)) == [
        "alloc 256: refused",
        "free pages: 0",
        *log_line(kernel, 256, -16 if kernel == "7.2" else -12),
        "released",
        "alloc 256: done",
    ]


FRAGMENTED = [
    "-- the area",
    "alloc: refused",
    "enough pages are free",
    "compacted",
    "alloc: refused",
    "the buffer between two holes released",
    "alloc: done",
    "-- ordinary memory",
    "killed: no more large blocks than before",
    "compacted: large blocks again",
    "ok",
]


@pytest.mark.parametrize("kernel", KERNELS)
def test_fragmented_pool_and_memory(kernel: str) -> None:
    assert playbook("fragmented", *small(kernel)) == FRAGMENTED


@pytest.mark.parametrize("kernel", KERNELS)
def test_pinned_page(kernel: str) -> None:
    article = kernel == "article"
    printed = playbook("pinned", *small(kernel))
    pages = next((int(word[1]) for line in printed if (word := re.search(r"req-size: (\d+)", line))), 0)
    assert pages > 3500 or LOG[kernel] is None
    assert printed == [
        "alloc of all free pages: refused",
        *([] if article else ["although the bitmap has room"]),
        *log_line(kernel, pages, -16),
        "pinned, with pages in the area: camera",
        *(["the page of the log is its"] if article else []),
        "released",
        "alloc: done",
        "ok",
    ]


@pytest.mark.parametrize("board", BOARDS)
def test_they_are_true_on_every_board(board: str) -> None:
    assert playbook("exhausted", "--dts", board)[::4] == ["alloc 256: refused", "alloc 256: done"]
    assert playbook("fragmented", "--dts", board) == FRAGMENTED
    first, second, log, *rest = playbook("pinned", "--dts", board)
    assert (first, second) == ("alloc of all free pages: refused", "although the bitmap has room")
    assert log.endswith(", ret: -16")
    assert rest == ["pinned, with pages in the area: camera", "released", "alloc: done", "ok"]
