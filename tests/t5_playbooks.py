"""The "Common problems" of seeds/000 as shell scripts that produce, find and resolve each (tests/scripts)."""

from __future__ import annotations

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
pytestmark = pytest.mark.usefixtures("fuse_device")


def playbook(name: str, kernel: str) -> list[str]:
    """What a playbook prints on a machine with 16 MiB of CMA; it must not complain."""
    words = ["--cmdline", "cma=16M", "--kernel", kernel, "--", "sh", str(SCRIPTS / f"playbook_{name}.sh")]
    done = cmafs("run", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def log_line(kernel: str, pages: int, code: int) -> list[str]:
    """The failure line, which kernels before 4.11 have not."""
    line = LOG[kernel]
    return [line.format(n=pages, code=code)] if line else []


@pytest.mark.parametrize("kernel", KERNELS)
def test_exhausted_pool(kernel: str) -> None:
    assert playbook("exhausted", kernel) == [
        "alloc 256: refused",
        "free pages: 0",
        *log_line(kernel, 256, -16 if kernel == "7.2" else -12),
        "released",
        "alloc 256: done",
    ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_fragmented_pool_and_memory(kernel: str) -> None:
    assert playbook("fragmented", kernel) == [
        "-- the area",
        "alloc 1536: refused",
        "enough pages are free",
        "compacted",
        "alloc 1536: refused",
        "the buffer between two holes released",
        "alloc 1536: done",
        "-- ordinary memory",
        "killed: no more large blocks than before",
        "compacted: large blocks again",
        "ok",
    ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_pinned_page(kernel: str) -> None:
    article = kernel == "article"
    assert playbook("pinned", kernel) == [
        "alloc 3000: refused",
        *([] if article else ["although the bitmap has room"]),
        *log_line(kernel, 3000, -16),
        "pinned, with pages in the area: camera",
        *(["the page of the log is its"] if article else []),
        "released",
        "alloc 3000: done",
        "ok",
    ]
