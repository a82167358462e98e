"""Sixteen processes do anything to a mount while faults befall it, as a seed decides.

The suite plays one schedule for a few seconds; ``make soak HOURS=n`` plays new ones, which print their
seed; ``CMAFS_FAULTS_SEED=n`` plays that one again. After each fault the mount answers, or can be made again.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_support import CMAFS, cmafs, cmafs_after, resident
from soak_support import SOAK, new_seed

from cmafs.mount.mounts import mounted_at
from cmafs.mount.presence import server_of

PROCESSES = 16
SEED = int(os.environ.get("CMAFS_FAULTS_SEED", new_seed(1)))
#: What a server may grow by while everything is done to it (KiB), and the threads that it may have.
GROWTH, THREADS = (24 << 10), 2

#: Any operation on any name; only traffic with a dead, a full or a starved mount may end one early.
WORKER = r"""
import errno, os, random, sys
place, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
names = [os.path.join(d, n) for d, ds, fs in os.walk(place) for n in ds + fs]
instances = os.path.join(place, "sys/kernel/tracing/instances")
names += [f"{instances}/{n}{f}" for n in "abcd" for f in ("", "/trace", "/tracing_on", "/events/cma/enable")]
texts = [b"1\n", b"0\n", b"4", b"nonsense", b"x" * 5000, b"\xff\0",
         b"spawn t%d anon 64K\n" % seed, b"kill t%d\n" % seed,
         b'name ~ "*a*"', b"file mm/cma.c +p", b"cma:*", b"clear", b"64"]
gone = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOMEM)
fds = []
def one():
    path, op = rng.choice(names), rng.randrange(14)
    flags = rng.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR)) | os.O_NONBLOCK
    flags |= rng.choice((0, 0, os.O_TRUNC, os.O_DIRECT))
    if op < 6 and len(fds) < 20: fds.append(os.open(path, flags))
    elif op == 6 and fds: os.close(fds.pop(rng.randrange(len(fds))))
    elif op == 7 and fds: os.read(rng.choice(fds), rng.choice((1, 100, 131072)))
    elif op == 8 and fds: os.write(rng.choice(fds), rng.choice(texts))
    elif op == 9 and fds: os.pread(rng.choice(fds), 100, rng.choice((0, 1, 5000)))
    elif op == 10: os.mkdir(f"{instances}/{rng.choice('abcd')}")
    elif op == 11: os.rmdir(f"{instances}/{rng.choice('abcd')}")
    elif op == 12: os.stat(path); os.listdir(os.path.dirname(path))
    else: os.utime(path); os.truncate(path, 3)
count = 0
while True:
    try: one()
    except OSError as error:
        if error.errno in gone: break
    count += 1
"""


class Mounted:
    """A mount that survives its faults: mounted anew where they end its server."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.workers: list[subprocess.Popen[bytes]] = []

    def mount(self, *options: str) -> int:
        done = cmafs("mount", "--cmdline", "cma=16M", *options, str(self.place))
        assert (done.returncode, done.stderr) == (0, "")
        return self.server()

    def server(self) -> int:
        """The pid of its server."""
        mount = mounted_at(str(self.place))
        assert mount
        with server_of(mount.device, mount.owner) as server:
            assert server
            return server.pid

    def work(self, seed: int) -> None:
        """Let the processes begin."""
        words = [sys.executable, "-c", WORKER, str(self.place)]
        self.workers = [subprocess.Popen([*words, str(seed + n)]) for n in range(PROCESSES)]

    def rest(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.wait()
        self.workers = []

    def sound(self) -> None:
        """The mount answers and its books balance."""
        assert (self.place / "sim/verify").read_text() == "ok\n", (self.place / "sim/log").read_text()[-2000:]
        area = self.place / "sys/kernel/debug/cma/reserved"
        for _ in range(100):  # the others go on
            used = int((area / "used").read_text())
            bits = sum(bin(int(word)).count("1") for word in (area / "bitmap").read_text().split())
            if used == bits or not self.workers:
                break
        assert used == bits

    def umount(self, *options: str) -> None:
        """Unmounted, and no server left."""
        done = cmafs("umount", *options, str(self.place))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert not os.path.ismount(self.place)


# the faults


def stopped(mounted: Mounted, rng: random.Random) -> None:
    """SIGSTOP: everybody waits, then goes on."""
    pid = mounted.server()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(rng.uniform(0.05, 0.4))
    os.kill(pid, signal.SIGCONT)
    mounted.sound()


def killed(mounted: Mounted, rng: random.Random) -> None:
    """SIGKILL: the place says ENOTCONN, is cleared, and is as good as new."""
    os.kill(mounted.server(), signal.SIGKILL)
    mounted.rest()
    mounted.umount()
    mounted.mount()
    mounted.sound()


def busy(mounted: Mounted, rng: random.Random) -> None:
    """umount while files are open is refused in one line, and changes nothing."""
    with open(mounted.place / "sim/log"):
        done = cmafs("umount", str(mounted.place))
        assert done.returncode == 1
        assert "busy: in use by " in done.stderr
        assert done.stderr.count("\n") == 1
    mounted.sound()


def lazy(mounted: Mounted, rng: random.Random) -> None:
    """umount -l: the place is free at once, and the server ends with its last user."""
    pid = mounted.server()
    mounted.umount("-l")
    mounted.rest()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    mounted.mount()


def raced(mounted: Mounted, rng: random.Random) -> None:
    """Four mount the same place at once: one machine, three clear refusals."""
    mounted.rest()
    mounted.umount()
    words = [*CMAFS, "mount", "--cmdline", "cma=16M", str(mounted.place)]
    racing = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = sorted((one.communicate(timeout=60)[1].rstrip("\n"), one.returncode) for one in racing)
    assert said[0] == ("", 0)
    assert all(
        "busy: a machine is mounted there already" in text and status == 1 for text, status in said[1:]
    )
    mounted.sound()


def starved(mounted: Mounted, rng: random.Random) -> None:
    """No more descriptors for the server: what it has is enough."""
    pid = mounted.server()
    open_now = len(os.listdir(f"/proc/{pid}/fd"))
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now, most))
    (mounted.place / "sys/kernel/tracing/trace_pipe").stat()
    time.sleep(0.2)
    mounted.sound()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))


def short(mounted: Mounted, rng: random.Random) -> None:
    """No more memory for the server: it answers rightly, or ends and leaves nothing; nothing is half done."""
    pid = mounted.server()
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    with contextlib.suppress(ProcessLookupError):  # the work may have been enough
        resource.prlimit(pid, resource.RLIMIT_AS, (size + rng.randrange(1 << 21), resource.RLIM_INFINITY))
    control = mounted.place / "sim/control"
    with contextlib.suppress(OSError):  # ENOMEM, and then there is no such file
        for number in range(400):
            control.write_text(f"spawn m{number} anon 1M\nkill m{number}\n")
    mounted.rest()
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    deadline = time.monotonic() + 10
    while not os.path.ismount(mounted.place) and os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline  # on its way out
        time.sleep(0.05)
    if not os.path.ismount(mounted.place):
        assert list(mounted.place.iterdir()) == []
        mounted.mount()
    mounted.sound()


def filled(mounted: Mounted, rng: random.Random) -> None:
    """The log of a machine on a full disk: what is refused is refused for its own reason."""
    mounted.rest()
    mounted.umount()
    mounted.mount("--log", "/dev/full")
    with contextlib.suppress(OSError):
        (mounted.place / "sim/control").write_text("nonsense\n")
    try:
        (mounted.place / "sim/control").write_text("nonsense\n")
    except OSError as error:
        assert error.errno == 22
    assert "nonsense" in (mounted.place / "sim/log").read_text()
    mounted.sound()


def late(mounted: Mounted, rng: random.Random) -> None:
    """A server whose clock of the day lies in the past: files are as old, the machine's time goes on."""
    mounted.rest()
    mounted.umount()
    code = "import time\ntime.time_ns = lambda: 1"
    words = [*cmafs_after(code), "mount", "--cmdline", "cma=16M", str(mounted.place)]
    assert subprocess.run(words, timeout=60, check=False).returncode == 0
    assert (mounted.place / "sim/log").stat().st_mtime < 1
    os.utime(mounted.place / "sim/log")
    mounted.sound()


FAULTS: tuple[Callable[[Mounted, random.Random], None], ...] = (
    stopped,
    busy,
    killed,
    lazy,
    raced,
    starved,
    short,
    filled,
    late,
)


def schedule(seed: int) -> Iterator[tuple[Callable[[Mounted, random.Random], None], int]]:
    """Which fault comes next, and the seed of the work until then: all of them, in an order of their own."""
    rng = random.Random(seed)
    while True:
        order = list(FAULTS)
        rng.shuffle(order)
        for fault in order:
            yield fault, rng.randrange(1 << 30)


@pytest.fixture
def mounted(fuse_device: None) -> Iterator[Mounted]:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory, "mnt")
        place.mkdir()
        one = Mounted(place)
        yield one
        one.rest()
        if os.path.ismount(place):
            subprocess.run([*CMAFS, "umount", "-l", str(place)], check=False)


@pytest.mark.soak(14, seconds=8)
@pytest.mark.skipif(os.geteuid() != 0, reason="some faults need root")
def test_whatever_happens(mounted: Mounted, seconds: float) -> None:
    print(f"CMAFS_FAULTS_SEED={SEED}")
    mounted.mount()
    end = time.monotonic() + seconds
    for number, (fault, seed) in enumerate(schedule(SEED)):
        if number >= len(FAULTS) and time.monotonic() > end:
            break
        mounted.work(seed)
        time.sleep(1.0 if SOAK else 0.4)
        fault(mounted, random.Random(seed))
        mounted.rest()
    mounted.rest()
    mounted.umount()


@pytest.mark.soak(10, seconds=8)
@pytest.mark.skipif(os.geteuid() != 0, reason="reads what a server has open")
def test_a_server_stays_as_it_is(mounted: Mounted, seconds: float) -> None:
    """Memory, descriptors and threads are flat while sixteen processes do anything at all."""
    pid = mounted.mount()
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    sizes = []
    for half in range(2):
        mounted.work(SEED + half)
        time.sleep(seconds / 2)
        mounted.rest()
        sizes.append(resident(pid))
        mounted.sound()
    assert sizes[1] - sizes[0] < GROWTH, sizes
    assert len(os.listdir(f"/proc/{pid}/task")) <= THREADS
    deadline = time.monotonic() + 5
    tables = [f"/proc/{pid}/task/{task}/fd" for task in os.listdir(f"/proc/{pid}/task")]
    while any(len(os.listdir(table)) > descriptors + 2 for table in tables):  # readers that have just ended
        assert time.monotonic() < deadline
        time.sleep(0.1)
    print(f"RSS {sizes} kB, descriptors {descriptors}, threads {len(os.listdir(f'/proc/{pid}/task'))}")
    mounted.umount()


#: Answers a thread of its own process late, and says that it was asked: each time, as nothing is cached.
_SLOW_FOR_ITSELF = """
import os, sys, time
import cmafs.mount.fuse_ops as fuse_ops
answer = fuse_ops.FuseMount.getattr
def getattr(self, path, buf):
    if os.path.exists(f"/proc/self/task/{fuse_ops.caller_pid()}"):
        open(sys.argv[-1] + ".asked", "w").close()
        time.sleep(60)
    return answer(self, path, buf)
fuse_ops.FuseMount.getattr = getattr
fuse_ops.OPTIONS.update(attr_timeout="0", entry_timeout="0")
"""


def links(table: Path) -> Iterator[str]:
    """What the descriptors of a table lead to; one may be closed meanwhile."""
    for entry in table.iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield str(entry.readlink())


def test_a_thread_that_asks_for_files_holds_nothing_of_the_server(mounted: Mounted) -> None:
    """Neither /dev/fuse nor what is to end with its last descriptor, as the file of a buffer does."""
    log = mounted.place.parent / "log"
    pid = mounted.mount("--log", str(log))
    (mounted.place / "sys/kernel/tracing/trace_pipe").stat()
    (thread,) = set(os.listdir(f"/proc/{pid}/task")) - {str(pid)}
    expected = Counter({"/dev/null": 3, str(log.resolve()): 1, "anon_inode:[eventfd]": 1})
    deadline = time.monotonic() + 10
    while (held := Counter(links(Path(f"/proc/{pid}/task/{thread}/fd")))) != expected:
        assert time.monotonic() < deadline, held
        time.sleep(0.02)
    mounted.umount()


def test_a_server_that_is_killed_while_it_asks_itself_is_gone(mounted: Mounted) -> None:
    """The thread that opens FIFOs of the mount does not wait for the killed one, nor does who uses it."""
    words = [*cmafs_after(_SLOW_FOR_ITSELF), "mount", "--cmdline", "cma=16M", str(mounted.place)]
    assert subprocess.run(words, timeout=60, check=False).returncode == 0
    pid, asked = mounted.server(), Path(f"{mounted.place}.asked")
    fifo = mounted.place / "sys/kernel/tracing/trace_pipe"
    looks = subprocess.Popen(["stat", fifo], stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # it is fed then
    deadline = time.monotonic() + 30
    while not asked.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    looks.communicate(timeout=30)
    mounted.umount()


def test_a_seed_is_a_schedule() -> None:
    first, again, other = (schedule(seed) for seed in (5, 5, 6))
    mine = [next(first) for _ in range(40)]
    assert mine == [next(again) for _ in range(40)] != [next(other) for _ in range(40)]
