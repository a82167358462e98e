"""Programs that allocate from /dev/dma_heap run unmodified, and what they hold is exact after each step.

``heap_steps.c`` was run by real kernels too: transcripts of the kind ``heaps`` have what it said there.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import replay
from oracle import heaps
from run_support import CMAFS, MACHINE, REPOSITORY, SCRIPTS, cmafs, ordinary_user, run
from soak_support import SOAK, new_seed

KERNELS = ("5.10", "6.12", "7.2")
RECORDED = sorted(replay.TRANSCRIPTS.glob("*/heaps-*"))
HEAP = "/dev/dma_heap/reserved"
TRACE = "/sys/kernel/tracing/trace"
AREA = "/sys/kernel/debug/cma/*reserved"  # cma-reserved up to 5.10
BUFINFO = "/sys/kernel/debug/dma_buf/bufinfo"
SOUND = 'cat "$CMAFS_MOUNT/sim/verify" "$CMAFS_MOUNT/sim/log"'


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory with the C programs, built; everybody may read it."""
    directory = Path(os.path.realpath("/tmp")) / f"cmafs-heaps-{os.getpid()}"
    directory.mkdir()
    try:
        for source in SCRIPTS.glob("heap_*.c"):
            words = ["cc", "-O", "-Wall", "-Werror", "-pthread", "-o", directory / source.stem, source]
            subprocess.run(words, check=True)
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_selftest_passes_on_every_heap(programs: Path, kernel: str) -> None:
    done = run(f"{programs}/heap_selftest && {SOUND}; cat {AREA}/used", "--kernel", kernel)
    lines = done.stdout.splitlines()
    heaps = {line.split()[1].rstrip(":") for line in lines if line.startswith("ok ")}
    assert heaps == {"system", "reserved"} | ({"default_cma_region"} if kernel == "7.2" else set())
    rest = [line for line in lines if not line.startswith("ok ")]
    assert (rest, done.stderr) == (["ok", rest[-1]], "")
    assert rest[-1] == run(f"cat {AREA}/used", "--kernel", kernel).stdout.strip()


def test_the_selftest_passes_for_an_ordinary_user(programs: Path) -> None:
    with ordinary_user() as command:
        script = f"{programs}/heap_selftest && {SOUND}"
        words = [*command, "run", *MACHINE, "--", "sh", "-c", script]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/")
    lines = done.stdout.splitlines()
    assert ([line for line in lines if not line.startswith("ok ")], done.stderr) == (["ok"], "")


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_each_step_is_as_on_a_real_kernel(programs: Path, path: Path) -> None:
    assert heaps.differences(replay.load(path), programs / "heap_steps") == []


def states(said: str) -> Iterator[tuple[str, list[int], dict[str, int]]]:
    """The area's figures and vmstat's counters after each step that changed them, with the line."""
    for line in said.splitlines():
        if found := re.fullmatch(r"\S+ .* -> [-\w]+((?: \d+)+)((?: \w+ \d+)+)", line):
            vmstat = {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", found[2])}
            yield line, [int(word) for word in found[1].split()], vmstat


def test_figures_are_exact_after_each_step(programs: Path) -> None:
    """For an ordinary user as for root."""
    words = ["run", *MACHINE, "--kernel", ",".join(KERNELS), "--", str(programs / "heap_steps")]
    said = cmafs(*words, encoding="latin-1", timeout=300).stdout
    with ordinary_user() as command:
        done = subprocess.run([*command, *words], capture_output=True, timeout=300, cwd="/")
    assert done.stdout.decode("latin-1") == said
    steps = list(states(said))
    assert len(steps) > 100
    for line, (used, longest, *counters), vmstat in steps:
        assert used + vmstat["nr_free_cma"] == 4096, line
        assert longest <= vmstat["nr_free_cma"], line
        if counters:  # from 5.13 on
            success, fail, released = counters
            assert used == success - released, line
            assert (vmstat["cma_alloc_success"] > 0, vmstat["cma_alloc_fail"] > 0) == (True, fail > 0), line
    counted = {line.split()[0] for line, figures, _ in steps if len(figures) == 5}
    assert counted == {"[6.12]", "[7.2]"}
    ends = [tuple(figures[:2]) for line, figures, _ in steps if " boot -> " in line or " empty -> " in line]
    assert set(ends) == {(96, 4000)} and len(ends) == 7


POOL_SCRIPT = """
show() { cat %(area)s/used %(area)s/maxchunk; }
show
mkfifo "$1/go"; exec 3<> "$1/go"
"$2/heap_pool" %(heap)s 3 300000 < "$1/go" > "$1/out" &
until grep -q streaming "$1/out"; do sleep 0.02; done
show
cut -f 3- "$CMAFS_MOUNT/sim/devices/dma_heap:reserved"
grep -c frame- /sys/kernel/debug/dma_buf/bufinfo
%(end)s
wait
show
%(sound)s
"""


@pytest.mark.parametrize("end", ["echo >&3", "kill -KILL $!"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pool_of_frames(programs: Path, tmp_path: Path, kernel: str, end: str) -> None:
    script = POOL_SCRIPT % {"area": AREA, "heap": HEAP, "end": end, "sound": SOUND}
    words = ["--kernel", kernel, "--", "sh", "-c", script, "sh", str(tmp_path), str(programs)]
    done = cmafs("run", "--cmdline", "cma=16M", *words)
    lines = done.stdout.splitlines()
    used, longest = int(lines[0]), int(lines[1])
    pages = -(-300000 // 4096)
    # each frame is aligned to its order
    first = -(-used // 128) * 128
    assert lines[2:4] == [str(used + 3 * pages), str(4096 - first - 2 * 128 - pages)]
    holders = [line.split("\t") for line in lines[4:7]]
    assert [(size, area) for size, area, _ in holders] == [(str(pages * 4096), "reserved")] * 3
    assert [owner.partition("[")[0] for _, _, owner in holders] == ["heap_pool"] * 3
    assert [owner.split()[1] for _, _, owner in holders] == ["frame-0", "frame-1", "frame-2"]
    assert lines[7:10] == ["3", str(used), str(longest)]
    assert lines[-1] == "ok"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its calls of 32 bits are those of x86")
def test_a_program_of_32_bits(programs: Path, tmp_path: Path) -> None:
    script = f"mkfifo go; {programs}/heap_compat {HEAP} < go & exec 3> go; "
    script += f"until grep -q thirty-two {BUFINFO}; do sleep 0.02; done; cat {AREA}/used; echo >&3; wait $!"
    done = run(script, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("0, 4, 0, -22\n98\n", "", 0)


def test_what_the_host_lacks_is_no_memory(programs: Path) -> None:
    """And sim/log says what it was: here files of the host may not be as large."""
    script = f'{programs}/heap_pool {HEAP} 1 1000000 < /dev/null; cat {AREA}/used "$CMAFS_MOUNT/sim/log"'
    limited = [
        "sh",
        "-c",
        'ulimit -f 100; exec "$@"',
        "sh",
        *CMAFS,
        "run",
        *MACHINE,
        "--",
        "sh",
        "-c",
        script,
    ]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.stderr == "frame: Cannot allocate memory\n"
    assert done.stdout == "96\ndma_heap: no buffer could be had of the host: File too large\n"


def test_a_thousand_buffers_of_sixteen_processes() -> None:
    done = run(f"python3 {SCRIPTS}/heap_many.py {HEAP} 1000; {SOUND}", timeout=300)
    before, held, after, verdict = done.stdout.split()
    assert int(held) == int(before) + 1000 // 16 * 16
    assert (after, verdict, done.stderr) == (before, "ok", "")


@pytest.mark.soak(4)
def test_hostile_programs_do_no_harm(programs: Path) -> None:
    """Some thousands of calls, in a soak some more at a time."""
    used, calls = f"cat {AREA}/used", 600 if SOAK else 150
    done = run(f"{used}; {programs}/heap_hostile {HEAP} {calls}; {used}; {SOUND}; {used}", timeout=3600)
    lines = done.stdout.split()
    assert lines == [lines[0], lines[0], "ok", lines[0]]


#: What calls with any numbers in them may answer: the kernel's errnos, and other files' (EPERM: FIBMAP).
CODES = "EINVAL ENOMEM EFAULT ENOTTY EBADF EACCES ENODEV EOVERFLOW EAGAIN EPERM"


@pytest.mark.soak(2, seconds=4)
def test_any_numbers_in_calls(seconds: float) -> None:
    """Any ioctl, struct, pointer, mapping on the heap, its buffers and other descriptors: an errno each."""
    used, script = (
        f"cat {AREA}/used",
        f"{sys.executable} {SCRIPTS}/heap_random.py {HEAP} {seconds} {new_seed(1)}",
    )
    done = run(f"{used}; {script}; {used}; {SOUND}", timeout=seconds + 60)
    before, said, after, *rest = done.stdout.splitlines()
    assert (after, rest, done.stderr, done.returncode) == (before, ["ok"], "", 0)
    codes = {word.partition(":")[2] for word in said.split()}
    assert codes <= set(CODES.split()), codes
    assert {"EINVAL", "ENOTTY", "EFAULT"} <= codes


def test_an_area_that_is_full(programs: Path) -> None:
    script = f"{programs}/heap_pool {HEAP} 100 1048576 < /dev/null; dmesg | grep failed"
    done = run(script)
    assert done.stderr == "frame: Cannot allocate memory\n"
    assert done.stdout.endswith("cma: __cma_alloc: reserved: alloc failed, req-size: 256 pages, ret: -12\n")


TRACED = """
cd /sys/kernel/tracing
echo 1 > events/cma/enable
%s/heap_pool %s 1 8192 < /dev/null > /dev/null &
until grep -q finish trace; do sleep 0.02; done
kill $!
wait
echo $!
grep name= trace
"""


def test_the_tracer_names_the_caller(programs: Path) -> None:
    pid, *lines = run(TRACED % (programs, HEAP)).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"heap_pool-{pid}"] * len(lines)
    events = [line.split(": ")[1] for line in lines]
    assert events == ["cma_alloc_start", "cma_alloc_finish", "cma_release"]


SENT = """
import array, fcntl, os, socket, struct
def used():
    with open("/sys/kernel/debug/cma/reserved/used") as file:
        print(file.read().strip(), end=" ", flush=True)
heap = os.open("/dev/dma_heap/reserved", os.O_RDWR)
def allocate():
    data = bytearray(struct.pack("=QIIQ", 4096, 0, os.O_RDWR, 0))
    fcntl.ioctl(heap, 0xC0184800, data)
    return struct.unpack("=QIIQ", data)[1]
used()
for taken in (True, False):
    one, other = socket.socketpair()
    fd = allocate()
    socket.send_fds(one, [b"x"], [fd])
    os.close(fd)
    one.close()
    used()  # under way
    if taken:
        fd = socket.recv_fds(other, 1, 1)[1][0]
        print(os.lseek(fd, 0, os.SEEK_END), end=" ")
        os.close(fd)
        used()
    other.close()
    used()
"""


def test_a_buffer_on_its_way_to_another_process_is_held() -> None:
    done = cmafs("run", *MACHINE, "--", "python3", "-c", SENT)
    assert (done.stdout, done.stderr) == ("96 97 4096 96 96 97 96 ", "")


def test_there_is_what_was_built_in() -> None:
    off = run("ls -d /dev/dma_heap /sys/kernel/debug/dma_buf", "--config", "DMABUF_HEAPS=n")
    assert (off.stdout, off.returncode) == ("", 2)
    names = run(
        "ls /dev/dma_heap; stat -c %a /dev/dma_heap /dev/dma_heap/system", "--config", "DMABUF_HEAPS_CMA=n"
    )
    assert names.stdout == "system\n755\n600\n"


FILE_OF_A_BUFFER = """
import fcntl, mmap, os, struct
heap = os.open("/dev/dma_heap/reserved", os.O_RDWR)
data = bytearray(struct.pack("=QIIQ", 4096, 0, os.O_RDWR, 0))
fcntl.ioctl(heap, 0xC0184800, data)
fd = struct.unpack("=QIIQ", data)[1]
print(os.readlink(f"/proc/self/fd/{fd}"), os.read(fd, 3), os.lseek(fd, 7, os.SEEK_SET))
print(hex(fcntl.fcntl(fd, fcntl.F_GETFL)), len(mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ)))
for number, size in ((2, 8), (3, 8)):
    try:
        fcntl.ioctl(fd, 0xC0086200 | number, bytearray(size))
    except OSError as error:
        print(error.errno)
try:
    os.ftruncate(fd, 1 << 40)
except OSError as error:
    print(error.errno)
other = os.dup(fd)
print(open("/sys/kernel/debug/dma_buf/bufinfo").read().split("\\n")[3].split("\\t")[3])
"""


def test_the_file_of_a_buffer_is_as_the_exceptions_say() -> None:
    done = cmafs("run", *MACHINE, "--", "python3", "-c", FILE_OF_A_BUFFER)
    shown = "/memfd:dmabuf (deleted) b'\\x00\\x00\\x00' 7\n0x8002 4096\n25\n25\n1\n00000001\n"
    assert (done.stdout, done.stderr) == (shown, "")


HOLD = """
import fcntl, os, struct
heap = os.open("/dev/dma_heap/reserved", os.O_RDONLY)
request = struct.pack("=QIIQ", 1 << 20, 0, os.O_RDWR | os.O_CLOEXEC, 0)
tracing, mount = "/sys/kernel/tracing", os.environ["CMAFS_MOUNT"]
open(f"{tracing}/events/cma/enable", "w").write("1\\n")
fcntl.ioctl(heap, 0xC0184800, bytearray(request))
open("/sys/kernel/debug/cma/reserved/alloc", "w").write("5\\n")
open(os.environ["SNAP"], "wb").write(open(f"{mount}/sim/snapshot", "rb").read())
print(open(f"{tracing}/trace").read().count("cma_alloc_finish"), open(f"{mount}/sim/log").read())
"""


def test_a_run_whose_heaps_are_used_is_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fuse_device: None
) -> None:
    snap = tmp_path / "snap"
    monkeypatch.setenv("SNAP", str(snap))
    used = f"cat {AREA}/used"
    before = int(run(used).stdout)
    done = cmafs("run", *MACHINE, "--", "/usr/bin/python3", "-c", HOLD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 \n", "")
    loaded = cmafs("run", "--load", str(snap), "--", "sh", "-c", f'{used}; tail -n 1 "{TRACE}"; {SOUND}')
    lines = loaded.stdout.splitlines()
    assert (int(lines[0]), lines[2:], loaded.stderr) == (before + 5, ["ok"], "")
    assert "cma_release: name=reserved" in lines[1]  # the buffer of a process that is no more
