"""Fuzzing of what reads files of the user's: captures, logs, transcripts, tars, snapshots, lessons, sources.

Most are asked through the command line, in process: whatever is in a file, the command ends with a status of
its own, and what it cannot use is one line on standard error that names the file.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import hashlib
import io
import json
import lzma
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dts_support as dts
import replay
from fuzz_support import Case, Target, boots, refusal, sound, text_of

from cmafs import api
from cmafs.cli.classroom import read_lesson
from cmafs.cli.main import main
from cmafs.cli.options import CommandFailed
from cmafs.drivers.dma_buf.buffer import DmaBuf, DmaHeap
from cmafs.drivers.dma_buf.heap import AllocIoctl, allocate, release
from cmafs.fs.namei import O_RDWR
from cmafs.learn.goal import BadGoal
from cmafs.learn.progress import BadProgress, Progress
from cmafs.learn.state import State

DEEP = b"[" * 100_000
HUGE = b"9" * 5000


@contextlib.contextmanager
def file_of(data: bytes, suffix: str = "") -> Iterator[str]:
    """A file of these bytes."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield file.name


def told(name: str, *words: str) -> None:
    """A command about a file: answered, or refused in one line, which has ``name`` in it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    said = [line for line in err.getvalue().splitlines() if "there is no row for" not in line]
    assert status in (0, 1, 2), (words, status)
    assert not any(word in "".join(said) for word in ("a bug of ours", "Traceback", "out of memory")), said
    assert "has died" not in "".join(said), said
    if out.getvalue() or not status:
        assert said == [], said
    else:
        assert said, words
        assert said[-1].startswith("cmafs: "), said
        assert " " in said[-1].removeprefix("cmafs: "), said
        assert name in said[-1], said
        assert len(said) == 1 or "panic" in said[-1], said


def asked(suffix: str, *commands: tuple[str, ...], named: bool = True) -> Case:
    """A file of a case's bytes, given to each of some commands in place of FILE.

    ``named``: what is wrong is said with the file's name.
    """

    def case(data: bytes) -> None:
        with file_of(data, suffix) as name:
            for words in commands:
                told(name if named else "", *(name if word == "FILE" else word for word in words))

    return case


# captures and logs


def _trace(release_of: str, count: int = 14) -> bytes:
    """The first events of a recorded trace."""
    lines = replay.load(replay.TRANSCRIPTS / release_of / "trace-1.jsonl.xz").script_output
    return "\n".join([line for line in lines if "cma_" in line and ": " in line][:count]).encode()


LOG = b"""\
[    0.000000] cma: Reserved 16 MiB at 0x0000000050000000 on node -1
[    0.100000] Linux version 6.12.1 (me@here)
[    1.000000] cma: cma_alloc(cma 00000000deadbeef, name: reserved, count 300, align 8)
[    1.000001] cma: cma_alloc(): memory range at pfn 0x50000 0000000012345678 is busy, retrying
[    1.000002] cma: __cma_alloc: reserved: alloc failed, req-size: 300 pages, ret: -12
[    1.000003] cma: number of available pages: 4@572+7@585=> 11 free of 4096 total pages
[    1.000004] cma: cma_alloc(): returned 0000000000000000
[    1.100000] cma: cma_alloc(cma 00000000deadbeef, name: reserved, count 4, align 0)
[    1.100001] cma: cma_alloc(): returned 00000000bef1b2c1
[    1.200000] cma: cma_release(page 00000000bef1b2c1, count 4)
[    1.300000] camera: unable to allocate buffer
"""
CAPTURE_WORDS = (
    b"cma_alloc_start: name=reserved count=4 align=0\n",
    b"cma_alloc_finish: name=reserved pfn=0x50000 page=00000000bef1b2c1 count=4 align=2 errorno=0\n",
    b"cma_alloc_finish: name=reserved pfn=0x0 page=(null) count=4 align=2 errorno=-12\n",
    b"cma_alloc_busy_retry: name=reserved pfn=0x50000 page=00000000bef1b2c1 count=4 align=0\n",
    b"cma_release: name=reserved pfn=0x50000 page=00000000bef1b2c1 count=4\n",
    b"cma_release: pfn=50000 page=00000000bef1b2c1 count=4\n", b"[LOST 9 EVENTS]\n", b"sh-7 [000] ",
    b"ffffffffffffffff", b"0xfffffffffffff", b"count=", b"align=63", b"align=64", b"(null)", HUGE,
    b"available_count=1 total_count=4096", b"total pages", b"=> 1 free of 18446744073709551615 total pages\n",
    b"cma: Reserved 17592186044416 MiB at 0xfffffffffff00000\n", b"count 0", b"4294967296@0+",
)  # fmt: skip
PACKED = zlib.compress(_trace("6.12"), wbits=31)


def buffers(data: bytes) -> None:
    """A list of buffers, quoted as one word."""
    told("", "size", "--json", "--", " " + text_of(data.replace(b"\0", b"")))


BUFFERS = (b"1920x1080 nv12 x4 + 3840x2160 rgba x2 - 1920x1080 nv12 x4", b"64M x3 + 1M x100 - 64M", b"4K")
BUFFER_WORDS = (
    b" + ", b" - ", b"x99999", b"x100001", b"0x0", b"18446744073709551615", b"1E", b"nv12", b"x 3", HUGE,
    b"65536x65536 rgba", b"1920x", b" x" + HUGE, b"16E x2",
)  # fmt: skip


# boards


FILES = {
    "proc/meminfo": b"CmaTotal: 16384 kB\nMemTotal: 1 kB\n",
    "proc/version": b"Linux version 6.12.1\n",
    "proc/vmstat": b"cma_alloc_fail 3\n",
    "proc/pagetypeinfo": b"Number of blocks type Unmovable Movable CMA\nNode 0, zone DMA 1 2 3\n",
    "proc/iomem": b"40000000-4fffffff : System RAM\n  41000000-41ffffff : Kernel code\n",
    "proc/cmdline": b"cma=16M\n",
    "proc/config.gz": zlib.compress(b"CONFIG_CMA=y\nCONFIG_CMA_AREAS=7\n", wbits=31),
    "sys/kernel/debug/cma/reserved/count": b"4096\n",
    "sys/kernel/debug/cma/reserved/used": b"3\n",
    "sys/kernel/debug/cma/reserved/maxchunk": b"4000\n",
    "sys/kernel/debug/cma/reserved/base_pfn": b"393216\n",
    "sys/kernel/debug/cma/reserved/order_per_bit": b"0\n",
    "sys/kernel/debug/cma/reserved/bitmap": b"4294967295 3 2147483648 " + b"0 " * 124 + b"0\n",
    "sys/kernel/mm/cma/reserved/alloc_pages_fail": b"12\n",
    "sim/map": b"0x60000 32 allocated debugfs\n0x60020 2 pinned camera[1]\n",
    "dmesg": LOG,
    "trace": _trace("6.12", 4),
    "walk.jsonl": b'{"header": {"kernel": "6.12.1", "arch": "arm64", "cmdline": "cma=16M"}}\n'
    b'{"op": "R", "path": "/sys/kernel/debug/cma/reserved/count", "out": "4096\\n", "errno": 0}\n',
}
NAMES = tuple(FILES)
ON_A_BOARD = (("map", "--width", "80"), ("why",), ("top", "--count", "1"), ("replay",), ("compare",))


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar of these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def board(data: bytes) -> None:
    """A board one of whose files is something else: the first byte says which, and who reads it."""
    first = data[0] if data else 0
    with file_of(tar_of({**FILES, NAMES[first % len(NAMES)]: data[1:]}), ".tar") as name:
        command, *options = ON_A_BOARD[first // len(NAMES) % len(ON_A_BOARD)]
        told(name, command, name, *options)


def tar(data: bytes) -> None:
    """A tar that is damaged itself."""
    with file_of(data, ".tar") as name:
        told(name, "map", name, "--svg", "-")
        told(name, "replay", name)


# transcripts


HEADER = {
    "kernel": "6.12.1", "arch": "arm64", "cmdline": "cma=16M", "config": ["CONFIG_CMA=y",
    "CONFIG_CMA_DEBUGFS=y"],
    "boot": [" memory[0x0]\t[0x0000000040000000-0x000000004fffffff], 0x10000000 bytes flags: 0x0"],
}  # fmt: skip
OPERATIONS: tuple[dict[str, Any], ...] = (
    {"op": "W", "path": "/sys/kernel/debug/cma/reserved/alloc", "data": "16", "ret": 2, "errno": 0,
    "close": 0},
    {"op": "R", "path": "/sys/kernel/debug/cma/reserved/used", "out": "16\n", "errno": 0},
    {"op": "B", "path": "/sys/kernel/debug/cma/reserved/bitmap", "k": 64, "out": "", "errno": 0, "calls": 3},
    {"op": "P", "path": "/sys/kernel/debug/cma/reserved/used", "off": 1, "out": "", "errno": 0},
    {"op": "2", "path": "/sys/kernel/debug/cma/reserved/free", "a": "1", "b": "2", "ret": 1, "errno": 0},
    {"op": "Z", "path": "/proc/meminfo", "other": "/sys/kernel/debug/cma/reserved/alloc", "data": "1"},
    {"op": "S", "path": "/sys/kernel/debug/cma", "errno": 0}, {"op": "K", "path": "/sys/kernel/debug/cma"},
    {"op": "M", "path": "/sys/kernel/debug/cma/x", "errno": 1}, {"op": "C", "path": "/proc", "mode": 511},
    {"op": "T", "path": "/sys/kernel/debug/cma/reserved/alloc", "len": 0, "errno": 0},
    {"dmesg": ["cma: __cma_alloc: reserved: alloc failed, req-size: 300 pages, ret: -12"]},
)  # fmt: skip
TRANSCRIPT = "\n".join(json.dumps(line) for line in ({"header": HEADER}, *OPERATIONS)).encode()
JSON_WORDS = (
    b"null", b"[]", b"{}", b'""', b"true", b"1.5", b"1e999", b"NaN", b"-1", b"[[]]", b'{"a": 1}',
    b'"op": ', b'"x"',
    b'"\\ud800"', b'"\\u0000"', b"4294967296", b"99999999999999999999999", HUGE, DEEP, b'"path": "/"',
    b'"k": 0',
    b'"len": -1', b'"off": 9223372036854775807', b"ffffffffffffffffffff",
)  # fmt: skip


# snapshots


@functools.cache
def _saved() -> bytes:
    machine = api.boot(memory="64M", cmdline="cma=4M", config=["CMA_DEBUGFS=y"])
    for path, text in (("alloc", "4\n"), ("alloc", "400\n"), ("free", "2\n"), ("alloc", "nonsense")):
        refusal(functools.partial(machine.write, f"/sys/kernel/debug/cma/reserved/{path}", text))
    machine.write("/sim/control", "spawn a anon 64K\n")
    refusal(lambda: machine.syscalls.mkdir("/sys/kernel/tracing/instances/a"))
    return machine.read(api.SNAPSHOT)


def _content() -> bytes:
    """What is packed in a snapshot, without the device tree, which stands there as TREE."""
    content = json.loads(zlib.decompress(_saved().split(b"\n", 2)[2]))
    return json.dumps({**content, "tree": "TREE"}).encode()


@functools.cache
def _tree() -> bytes:
    content = json.loads(zlib.decompress(_saved().split(b"\n", 2)[2]))
    return bytes(content["tree"].encode())


def loaded(data: bytes) -> None:
    """A file as `--load FILE`: the saved machine, or one line."""
    with file_of(data, ".snap") as name:
        try:
            machine = api.Machine.load(name)
        except (api.BadSnapshot, *api.CANNOT_BOOT) as error:
            assert str(error)
            assert "\n" not in str(error), str(error)
        except api.KernelPanic:
            pass
        else:
            sound(machine)


def forged(data: bytes) -> None:
    """A snapshot that somebody forged: any content, with the right checksum."""
    body = zlib.compress(data.replace(b"TREE", _tree()), 1)
    loaded(b"cmafs snapshot 1\n%s\n" % hashlib.sha256(body).hexdigest().encode() + body)


# lessons


LESSON = b"""\
title = "One"
about = "it"
story = "do"
solution = "echo 1 > $AREA/alloc"
remember = "that"
hints = ["a", "b"]
prepare = "true"
needs = ["alloc"]
[machine]
cmdline = "cma=16M"
kernel = "6.12"
[files]
"a.dts" = "/dts-v1/;"
[[goal]]
reached = "used - used@start >= 256"
not_yet = "no"
[[goal]]
reached = "holes:3 + owner:debugfs * 2 < longest:a"
not_yet = "no"
"""
GOALS = (
    b"used@start", b"holes:", b"blocks:4 ", b"task:a:pages ", b"meminfo:CmaFree ", b"file:/proc/version ",
    b"vmstat:x ", b"board:a:areas", b" >= ", b" * ", b"== ", HUGE, b"[machine]\n", b"kernel = 6.12\n",
    b"cmdline = [1]\n", b"dts = 7\n", b"config = 'x'\n", b"overlays = [1]\n", b"seed = 'x'\n",
    b"memory = true\n",
    b"x = " + DEEP, b"x = " + HUGE, b"1979-05-27T07:32:00Z", "٣".encode(), b'"""', b"'''", b"main = 1\n",
    b"goal = 3\n", b'"../x" = ""\n', b'"a\\u0000b" = ""\n', b"lesson = 1\n", b"strict_quirks = 3\n",
)  # fmt: skip


class Copies:
    """FILES as a root."""

    name = "copies"

    def read(self, path: str) -> bytes | None:
        """See Root."""
        return FILES.get(path)

    def names(self, path: str) -> list[str]:
        """See Root."""
        inside = (name.removeprefix(f"{path}/") for name in FILES if name.startswith(f"{path}/"))
        return sorted({name.partition("/")[0] for name in inside})


def lesson(data: bytes) -> None:
    """A lesson's file: refused in one line, or its goals have truth values, and its machine boots."""
    state = State(Copies(), "reserved", lambda file, what: len(file + what))
    with file_of(data, ".toml") as name:
        try:
            read = read_lesson("x", Path(name))
            start = dict.fromkeys((term for goal in read.goals for term in goal.start_terms()), 7)
            for goal in read.goals:
                assert goal.holds(state.value, start) in (True, False)
        except (CommandFailed, BadGoal) as error:
            assert "\n" not in str(error), str(error)
            return
        boots(**dict(read.machine))


def progress(data: bytes) -> None:
    """What `cmafs learn` keeps of a learner."""
    try:
        known = Progress.parse(text_of(data))
    except BadProgress as error:
        assert "\n" not in str(error)
    else:
        assert Progress.parse(known.dump()).done == known.done
        assert known.next_of(["a", "b"]) in (None, "a", "b")


# sources with comments, configurations


SOURCE = dts.tree(
    dts.pool("a@50000000", "reg = <0 0x50000000 0 0x400000>")
    + "/* cmafs: ignore reg-misaligned */\n"
    + dts.pool("b@60000000", "reg = <0 0x60001000 0 0x400000>;  // cmafs: ignore size-zero, no-area\n")
).encode()
COMMENTS = (
    b"/* cmafs: ignore reg-misaligned */", b"// cmafs: ignore ", b"/* cmafs:ignore", b"*/", b"/*",
    b"cmafs: ", b"ignore",
    b"\n", b"\\\n", b"\r", "\u2028".encode(), b"no-such-code", b", ,",
    b"a: b: ", b"&a { };", b"/delete-node/ &a;", b"reusable;", b"reg = <1>;", b"no-map;",
)  # fmt: skip
DOT_CONFIG = b"""\
#
# Automatically generated file; DO NOT EDIT.
# Linux/arm64 6.12.1 Kernel Configuration
#
CONFIG_CMA=y
CONFIG_CMA_AREAS=7
# CONFIG_CMA_DEBUG is not set
CONFIG_CMA_SIZE_MBYTES=16
CONFIG_DEFAULT_HOSTNAME="(none)"
"""
SYMBOLS = (
    b"CONFIG_", b"CMA_AREAS", b"NODES_SHIFT=", b"LOG_BUF_SHIFT=", b"HZ=", b"=m\n", b"=y\n", b"=0x",
    b"=-1\n", b"# ",
    b" is not set\n", b'="', b"CMA_ALIGNMENT=", b"PAGE_SHIFT=", b"ARM64_64K_PAGES=y\n",
    b"ARM64_VA_BITS=", HUGE,
    b"CMA_SIZE_PERCENTAGE=101\n", b"tiny\n", b"NUMA=y\n", b"ARCH_FORCE_MAX_ORDER=", b"PHYSICAL_START=",
)  # fmt: skip


# heaps


ALLOC = 0xC0184800  # DMA_HEAP_IOCTL_ALLOC
HEAPS = ("DMABUF_HEAPS=y", "DMABUF_HEAPS_CMA=y", "DMABUF_HEAPS_SYSTEM=y", "CMA_DEBUGFS=y")


def make_heaps() -> Case:
    """ioctl(2) of a heap: refused with its errno and nothing changed, or a buffer that is released later.

    Four bytes of number, one that chooses the heap, the argument.
    """
    machine = api.boot(memory="64M", cmdline="cma=4M", config=HEAPS)
    booted, held = machine.booted, collections.deque[DmaBuf]()
    heaps = list(booted.dma_heaps.values())

    def request(heap: DmaHeap, cmd: int, argument: bytes) -> None:
        call = AllocIoctl.of(cmd)
        held.append(allocate(booted, heap, call.request(argument[: call.in_size]), 7, "sh"))
        assert len(call.answer(argument, 5)) == call.out_size

    def case(data: bytes) -> None:
        cmd, heap = int.from_bytes(data[:4], "little"), heaps[sum(data[4:5]) % len(heaps)]
        fd = machine.syscalls.open(f"/dev/dma_heap/{heap.name}", O_RDWR)
        code = refusal(lambda: machine.syscalls.ioctl(fd, cmd, bytearray(data[5:])))
        assert code in (errno.EINVAL, errno.ENOTTY), code  # in process there is nobody to have a descriptor
        machine.syscalls.close(fd)
        before = [cma.available_count for cma in booted.cma], machine.read("/proc/buddyinfo"), len(held)
        code = refusal(lambda: request(heap, cmd, data[5:]))
        assert code in (0, errno.EINVAL, errno.ENOMEM), code
        after = [cma.available_count for cma in booted.cma], machine.read("/proc/buddyinfo"), len(held)
        assert (code == 0) == (after[2] > before[2])
        assert code == 0 or heap.name == "system" or after == before
        if held:
            refusal(lambda: held[-1].set_name(data[5:].ljust(32, b"\0")))
            refusal(lambda: held[-1].sync(cmd))
        machine.read("/sys/kernel/debug/dma_buf/bufinfo")
        while len(held) > len(data) % 4:
            release(booted, held.popleft())
        sound(machine)

    return case


def _asking(length: int, flags: int = 2, heap: int = 0, number: int = ALLOC) -> bytes:
    return struct.pack("=IBQIIQ", number, heap, length, 0, flags, 0)


# the targets


def targets() -> list[Target]:
    """All of them."""
    traces = tuple(_trace(row) for row in ("4.19", "5.10", "6.12", "7.2"))
    boards = tuple(bytes([n]) + FILES[NAMES[n % len(NAMES)]] for n in range(len(NAMES) * len(ON_A_BOARD)))
    whole = tar_of({f"b/{name}": data for name, data in FILES.items()})
    # fmt: off
    return [
        Target("replay", lambda: asked("", ("replay", "FILE"), ("replay", "FILE", "--size", "8M", "--json")),
               (*traces, LOG, PACKED), CAPTURE_WORDS),
        Target("size", lambda: asked("", ("size", "FILE", "--json")), (*traces, LOG), CAPTURE_WORDS),
        Target("buffers", lambda: buffers, BUFFERS, BUFFER_WORDS),
        Target("why", lambda: asked("", ("why", "--dmesg", "FILE")), (LOG, *LOG.splitlines()), CAPTURE_WORDS),
        Target("compare", lambda: asked(".jsonl", ("compare", "FILE")), (TRANSCRIPT,), JSON_WORDS),
        Target("board", lambda: board, boards, (*CAPTURE_WORDS, *JSON_WORDS, b"4294967295 ",
               b"18446744073709551615\n")),
        Target("tar", lambda: tar, (whole, zlib.compress(whole, wbits=31), lzma.compress(whole)),
               (b"\0" * 512, b"ustar", b"7777777", b"L", b"x", b"2", b"\x80", b"../../x", b"30 path=x\n")),
        Target("snapshot", lambda: loaded, (_saved(), _saved()[:200])),
        Target("forged", lambda: forged, (_content(),), (*JSON_WORDS, b'"TREE"', b'["read", 0, 64, 0, []]')),
        Target("lesson", lambda: lesson, (LESSON,), GOALS),
        Target("progress", lambda: progress, (b'{"done": ["a"], "last": "b"}',), JSON_WORDS),
        Target("dotconfig", lambda: asked(".config", ("check", "virt", "--config", "FILE"), named=False),
               (DOT_CONFIG, DOT_CONFIG.replace(b"16", b"0")), SYMBOLS),
        Target("comments", lambda: asked(".dts", ("check", "FILE"), ("check", "FILE", "--format", "github")),
               (SOURCE,), COMMENTS),
        Target("heaps", make_heaps, (_asking(4096), _asking(1 << 20, heap=1), _asking(3 << 20, 0o2000002, 2)),
               (b"\xff" * 8, bytes(8), b"\0\0\0\x80", ALLOC.to_bytes(4, "little"), b"\1", b"\2\0\0\0")),
    ]
    # fmt: on
