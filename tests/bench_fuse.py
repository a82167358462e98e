"""The cost of a mounted call: python tests/bench_fuse.py (a script, not a test).

Open-read-close of `used` and open-write-close of `alloc` and `free` (one page), against the same calls on a C
program of constants (bench/constfs.c) with the same mount options, in the same run: small batches in turn,
minimum and median. What counts is processor time, of the caller and of the server, which share one CPU: what
else the machine does is not in it, nor how long a CPU takes to wake up. Beside it what a caller waits for if
the server has another CPU, as on an idle machine: left alone, the scheduler takes either way by chance.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench_support import ratio

from cmafs.mount.fuse_ops import OPTIONS

HERE = Path(__file__).resolve().parent
CMAFS = [sys.executable, "-m", "cmafs"]
AREA = "sys/kernel/debug/cma/reserved"
#: Times what the C program takes: processor time on one CPU; the time that a caller waits.
READS, WRITES, WAITS = 1.2, 1.3, 1.15
Call = Callable[[Path], Callable[[], None]]
#: Microseconds that a call takes, as one server answers it.
Clock = Callable[[Callable[[], None], int], float]
BATCHES, CALLS = 60, 100


@contextmanager
def constant(directory: Path) -> Iterator[Path]:
    """A mount of the C program; the same path in it."""
    program, place = directory / "constfs", directory / "const"
    place.mkdir()
    source = HERE / "bench" / "constfs.c"
    flags = ["-O2", "-D_FILE_OFFSET_BITS=64"]
    subprocess.run(["cc", *flags, "-o", program, source, "-l:libfuse.so.2"], check=True)
    options = ",".join(name if value is True else f"{name}={value}" for name, value in OPTIONS.items())
    subprocess.run([program, "-s", "-o", options, place], check=True)
    try:
        yield place / AREA
    finally:
        subprocess.run(["fusermount", "-u", place], check=True)


@contextmanager
def interpreted(directory: Path) -> Iterator[Path]:
    """A mount of the same constants by handlers in Python; the same path in it."""
    place = directory / "interpreted"
    place.mkdir()
    with subprocess.Popen([sys.executable, HERE / "bench/constfs.py", place]) as server:
        while not place.is_mount():
            assert server.poll() is None
            time.sleep(0.01)
        try:
            yield place / AREA
        finally:
            subprocess.run(["fusermount", "-u", place], check=True)


@contextmanager
def machine(directory: Path) -> Iterator[Path]:
    """A mounted machine; its area."""
    place = directory / "machine"
    place.mkdir()
    subprocess.run([*CMAFS, "mount", "--cmdline", "cma=16M", place], check=True)
    try:
        yield place / AREA
    finally:
        subprocess.run([*CMAFS, "umount", place], check=True)


def read_used(place: Path) -> Callable[[], None]:
    """One open-read-close."""
    path = str(place / "used")

    def call() -> None:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 4096)
        os.close(fd)

    return call


def write_alloc_free(place: Path) -> Callable[[], None]:
    """Two open-write-close, as the shell's > does it: one page, and back."""
    paths = str(place / "alloc"), str(place / "free")

    def call() -> None:
        for path in paths:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(fd, b"1\n")
            os.close(fd)

    return call


def server_of(place: Path) -> int:
    """The process that serves a mount: its place is on its command line."""
    root = bytes(place.parents[len(Path(AREA).parts) - 1])
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile
            continue
        if root in words and int(process.name) != os.getpid():
            return int(process.name)
    raise LookupError(f"no server of {place}")


def on_cpu(pid: int) -> int:
    """Nanoseconds that a process has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def processor_time(call: Callable[[], None], server: int) -> float:
    """Microseconds of processor time a call, the server's included."""
    start, theirs = time.process_time_ns(), on_cpu(server)
    for _ in range(CALLS):
        call()
    return (time.process_time_ns() - start + on_cpu(server) - theirs) / CALLS / 1000


def waiting_time(call: Callable[[], None], _server: int) -> float:
    """Microseconds that the caller of a call waits."""
    start = time.perf_counter_ns()
    for _ in range(CALLS):
        call()
    return (time.perf_counter_ns() - start) / CALLS / 1000


def compare(
    what: str,
    per_call: int,
    makes: Call,
    places: Sequence[Path],
    budget: float,
    clock: Clock = processor_time,
) -> bool:
    """Print the ratio of what both take; whether it is within the budget.

    How long one waits depends on how deep the other CPU sleeps: there the least says nothing.
    """
    (ours, theirs), (server, its) = map(makes, places), map(server_of, places)
    mine: list[float] = []
    constant_: list[float] = []
    for _ in range(BATCHES):
        constant_.append(clock(theirs, its) / per_call)
        mine.append(clock(ours, server) / per_call)
    median = statistics.median(mine) / statistics.median(constant_)
    least = median if clock is waiting_time else min(mine) / min(constant_)
    against = f"C: {min(constant_):.1f} us, ours {min(mine):.1f} us"
    return ratio(what, least, median, "x C", budget, against)


def main() -> int:
    """Measure on one CPU, then on two."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cpus)})
    with tempfile.TemporaryDirectory(prefix="cmafs-bench-") as name:
        directory = Path(name)
        with constant(directory) as theirs, machine(directory) as ours, interpreted(directory) as least:
            places = (ours, theirs)
            within = [
                compare("open-read-close of used", 1, read_used, places, READS),
                compare("open-write-close of alloc, free (1 page)", 2, write_alloc_free, places, WRITES),
            ]
            compare("constants from Python, read", 1, read_used, (least, theirs), 0)
            compare("constants from Python, write", 2, write_alloc_free, (least, theirs), 0)
            for server in map(server_of, places):
                os.sched_setaffinity(server, {min(cpus)})
            within += [
                compare("open-read-close of used, waited for", 1, read_used, places, WAITS, waiting_time),
                compare(
                    "open-write-close of alloc, free, waited for",
                    2,
                    write_alloc_free,
                    places,
                    WAITS,
                    waiting_time,
                ),
            ]
            print(f"sim/verify: {(ours.parents[4] / 'sim/verify').read_text().strip()}")
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
