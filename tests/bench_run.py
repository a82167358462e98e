"""Starting, and machines of 1 TiB, mounted: python tests/bench_run.py (a script, not a test).

What a command costs is processor time, its children's included, as a multiple of what a bare interpreter
takes to start; both are measured in turn. The large machine is measured at its mount.
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

sys.path.insert(0, str(Path(__file__).parent))

from bench_support import figure, ratio

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


def command(*words: str) -> Callable[[], object]:
    """A call that runs a command, which must succeed."""
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def processor() -> float:
    """Seconds of processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def starting() -> list[bool]:
    """Processor time of commands, in turn with that of a bare interpreter, which the budgets are times of."""
    calls = {
        "python": command(sys.executable, "-c", "pass"),
        "cmafs run -- true": command(*CMAFS, "run", "--", "true"),
        "cmafs check of a bundled board": command(*CMAFS, "check", "rpi4"),
    }
    times: dict[str, list[float]] = {what: [] for what in calls}
    for _ in range(ROUNDS):
        for what, call in calls.items():
            before = processor()
            call()
            times[what].append(processor() - before)
    bare = times.pop("python")
    against = f"python -c pass: {min(bare) * 1000:.1f} ms"
    return [
        ratio(
            what, min(t) / min(bare), statistics.median(t) / statistics.median(bare), "x py", budget, against
        )
        for (what, t), budget in zip(times.items(), (10, 12), strict=True)
    ]


@contextmanager
def mounted(*options: str) -> Iterator[tuple[Path, float]]:
    """A machine with 1 TiB of memory and a 64 GiB area; and how long its mount took."""
    with tempfile.TemporaryDirectory(prefix="cmafs-bench-") as place:
        machine = ["--memory", "1T", "--config", "tiny", "--cmdline", "cma=64G", *options]
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
            figure("1 TiB machine with a 64 GiB area: mount", [mount], "s", 1.0),
            figure("allocate all of it", [alloc], "s", 0.3),
            figure("read its bitmap (5.8 MB)", [bitmap], "s", 0.3),
            figure("resident after that", [resident(place)], "MB", 80.0),
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
            figure("a request that a pin is in the way of 6,000,000 times", [took], "s", 0.3),
            figure("what another reader waits meanwhile, at most", [max(waits)], "s", 0.3),
        ]


#: Prints milliseconds that a buffer of 64 KiB takes, of each of some rounds.
_BUFFERS = """
import fcntl, os, struct, time
heap = os.open("/dev/dma_heap/reserved", os.O_RDWR)
for _ in range(20):
    held, start = [], time.perf_counter()
    for _ in range(100):
        data = bytearray(struct.pack("=QIIQ", 65536, 0, os.O_RDWR, 0))
        fcntl.ioctl(heap, 0xC0184800, data)
        held.append(struct.unpack("=QIIQ", data)[1])
    print((time.perf_counter() - start) * 10)
    for fd in held:
        os.close(fd)
"""


def heap_buffers() -> list[bool]:
    """What a program waits for a buffer of /dev/dma_heap."""
    words = [*CMAFS, "run", "--cmdline", "cma=16M", "--", sys.executable, "-c", _BUFFERS]
    rounds = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    return [figure("a buffer of a dma-heap, waited for", [float(took) for took in rounds], "ms", 0.3)]


def main() -> int:
    """Print a line a budget; 1 if one is missed."""
    return 0 if all([*starting(), *large_machine(), *busy_server(), *heap_buffers()]) else 1


if __name__ == "__main__":
    sys.exit(main())
