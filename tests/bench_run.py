"""Starting, and machines of 1 TiB, mounted: python tests/bench_run.py (a script, not a test).

`cmafs run -- true` is measured in turn with the least that any such program must do: start a Python and
unshare a namespace. Of its wall time the minimum counts, since other work on the machine adds to it; its
processor time hardly depends on that, and the median counts. The large machine is measured at its mount.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CMAFS = [sys.executable, "-m", "cmafs"]
CMA = "sys/kernel/debug/cma/reserved"
ROUNDS = 9

#: Pages of the 64 GiB area.
AREA_PAGES = 64 << 18


def seconds(work: Callable[[], object]) -> float:
    """Seconds of wall time: servers and children count."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(what: str, figure: float, budget: float, unit: str = "s") -> bool:
    """Print a line; whether the figure is within its budget."""
    within = figure <= budget
    verdict = "" if within else "   MISSED"
    print(f"{what:<58} {figure:8.3f} {unit:<3} at most {budget:g}{verdict}", flush=True)
    return within


def command(*words: str) -> Callable[[], object]:
    """A call that runs a command, which must succeed."""
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def starting() -> list[bool]:
    """`run -- true` on the bundled board, its minimum and median, and as a ratio."""

    def processor() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    least = command("unshare", "-Urm", sys.executable, "-c", "pass")
    run = command(*CMAFS, "run", "--", "true")
    wall: list[float] = []
    ours: list[float] = []
    base: list[float] = []
    for _ in range(ROUNDS):
        for call, times in ((least, base), (run, ours)):
            before = processor()
            took = seconds(call)
            times.append(processor() - before)
            if call is run:
                wall.append(took)
    ratio = statistics.median(ours) / statistics.median(base)
    print(f"{'run -- true: processor time against unshare and python':<58} {ratio:8.1f} times")
    return [
        report("cmafs run -- true, minimum of the wall time", min(wall), 0.25),
        report("cmafs run -- true, median of the processor time", statistics.median(ours), 0.25),
    ]


@contextmanager
def mounted(*options: str) -> Iterator[tuple[Path, float]]:
    """A machine with 1 TiB of memory and a 64 GiB area; and how long its mount took."""
    with tempfile.TemporaryDirectory(prefix="cmafs-bench-") as place:
        machine = ["--memory", "1T", "--cmdline", "cma=64G", *options]
        took = seconds(command(*CMAFS, "mount", *machine, place))
        try:
            yield Path(place), took
        finally:
            subprocess.run([*CMAFS, "umount", place], check=True)


def resident(place: Path) -> float:
    """Megabytes that the server of a mount has resident (VmRSS)."""
    for process in Path("/proc").glob("[0-9]*"):
        words = (process / "cmdline").read_bytes().split(b"\0") if (process / "cmdline").exists() else []
        if bytes(place) in words and b"mount" in words:
            status = (process / "status").read_text().splitlines()
            return int(next(line for line in status if line.startswith("VmRSS:")).split()[1]) / 1024
    raise LookupError(f"no server of {place}")


def large_machine() -> list[bool]:
    """Mount, allocate everything, read the bitmap; memory."""
    with mounted() as (place, mount):
        area = place / CMA
        pages, before = int((area / "maxchunk").read_text()), int((area / "used").read_text())
        assert pages + before == AREA_PAGES, (pages, before)  # the kernel's own pool is at its start
        alloc = seconds(lambda: (area / "alloc").write_text(f"{pages}\n"))
        assert int((area / "used").read_text()) == AREA_PAGES
        bitmap = seconds(lambda: (area / "bitmap").read_bytes())
        return [
            report("1 TiB machine with a 64 GiB area: mount", mount, 1.0),
            report("allocate all of it", alloc, 0.3),
            report("read its bitmap (5.8 MB)", bitmap, 0.3),
            report("resident after that", resident(place), 80.0, "MB"),
        ]


def busy_server() -> list[bool]:
    """One echo whose every window holds a pinned page, six million of them: what another caller waits."""
    with mounted() as (place, _):
        area = place / CMA
        pin = int((area / "base_pfn").read_text()) + AREA_PAGES // 2
        (place / "sim/control").write_text(f"pin pfn {pin:#x}\n")
        waits: list[float] = []
        done = threading.Event()

        def reader() -> None:
            while not done.is_set():
                waits.append(seconds(lambda: (area / "used").read_text()))

        def echo() -> None:
            refused = subprocess.run(
                ["sh", "-c", f"echo {AREA_PAGES // 8 * 5} > alloc 2>/dev/null"], cwd=area
            )
            assert refused.returncode, "the pin is in every window"

        other = threading.Thread(target=reader)
        other.start()
        took = seconds(echo)
        done.set()
        other.join()
        return [
            report("a request that a pin is in the way of 6,000,000 times", took, 0.3),
            report("what another reader waits meanwhile, at most", max(waits), 0.3),
        ]


def main() -> int:
    """Print a line a budget; 1 if one is missed."""
    return 0 if all([*starting(), *large_machine(), *busy_server()]) else 1


if __name__ == "__main__":
    sys.exit(main())
