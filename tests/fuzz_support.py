"""Fuzzing: what is tried (``TARGETS``), how inputs are made of others, and how a case is judged.

A case is some bytes. It is right if it ends in a documented errno or one clear line, soon, with no traceback
in sim/log and nothing wrong in sim/verify; a refusal leaves the machine as it was. ``fuzz.py`` is the
command.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import dts_support as dts

from cmafs import api
from cmafs.check.examine import report_on
from cmafs.drivers.cma2010.profile import UnknownProfile
from cmafs.fs.dentry import RegularFile, walk
from cmafs.fs.namei import O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY
from cmafs.init.options import MachineOptions
from cmafs.lib.kconfig import FileLine
from cmafs.of import fdt
from cmafs.run import dmesg

CORPUS = Path(__file__).parent / "corpus"
#: Seconds of processor time that a case may take, and KiB that a target may add to the process.
CASE_SECONDS, GROWTH = 5.0, 400 << 10
#: Cases after which a machine is replaced by a new one.
CASES_OF_A_MACHINE = 250

#: What a user is told in one line.
ONE_LINE = (api.DtError, api.UnknownKernel, api.ConfigError, api.BadOption, UnknownProfile)
KERNELS = ("4.4", "4.19", "5.10", "6.1", "6.12", "6.18", "7.2", "article", "2010")

#: What the writable files may answer, beside those of their own.
COMMON = {errno.EINVAL}
ERRNOS: dict[str, set[int]] = {
    "alloc": {errno.ERANGE, errno.ENOMEM, errno.EBUSY},
    "free": {errno.ERANGE},
    "control": {errno.E2BIG},
    "sim/control": {errno.ENOENT, errno.EEXIST, errno.ENOMEM, errno.EBUSY},
    "buffer_size_kb": {errno.ERANGE, errno.ENOMEM},
    "tracing_on": {errno.ERANGE},
    "trace_marker": {errno.EBADF},
    "enable": {errno.ERANGE},
    "filter": {errno.EPERM, errno.ENOENT, errno.ESRCH},
    "map": {errno.ENOENT, errno.ENOMEM, errno.EBUSY},
    "cma": {errno.EBADF},
    "config": {errno.EROFS},
}

Case = Callable[[bytes], None]


class TookTooLong(Exception):
    """The watchdog's word."""


@dataclass(frozen=True)
class Target:
    """``make`` gives what runs cases, until it is replaced; ``seeds`` are the first inputs, ``words`` what
    is put into them.
    """

    name: str
    make: Callable[[], Case]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()

    def corpus(self) -> list[bytes]:
        """The seeds, and what was found worth keeping."""
        return [*self.seeds, *(path.read_bytes() for path in sorted((CORPUS / self.name).glob("*")))]


# inputs

NUMBERS = (b"0", b"1", b"-1", b"07", b"0x10", b"4096", b"65536", b"2147483648", b"4294967296",
           b"9223372036854775808", b"18446744073709551615", b"18446744073709551616", b"9" * 30)  # fmt: skip
ANYWHERE = (*NUMBERS, b" ", b"\n", b"\0", b"\t", b",", b":", b"=", b";", b"*", b"\"", b"'", b"\\", b"\xff",
            "é".encode(), b"%s", b"/", b"-", b"@", b"(", b")", b"!", b"K", b"M", b"G", b"E")  # fmt: skip


def mutated(rng: random.Random, known: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A new input: another one with some pieces cut, doubled, exchanged or put in."""
    data = bytearray(rng.choice(known))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 64)))
        how = rng.randrange(7)
        if how == 0:
            del data[at:end]
        elif how == 1:
            data[at:at] = data[at:end] * rng.choice((1, 2, 50))
        elif how == 2 and data:
            data[min(at, len(data) - 1)] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        elif how == 3:
            data[at:end] = rng.choice(words or ANYWHERE)
        elif how == 4:
            data[at:at] = rng.choice(ANYWHERE)
        elif how == 5:
            other = rng.choice(known)
            start = rng.randint(0, len(other))
            data[at:] = other[start:]
        else:
            data[at:at] = rng.choice(words or ANYWHERE)
    return bytes(data[: 1 << 16])


# judging


@contextmanager
def watchdog() -> Iterator[None]:
    """Ends a case that takes too much processor time, however loaded the host is."""

    def bark(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"more than {CASE_SECONDS} s")

    before = signal.signal(signal.SIGVTALRM, bark)
    signal.setitimer(signal.ITIMER_VIRTUAL, CASE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def text_of(data: bytes) -> str:
    """As it comes from a command line."""
    return data.decode("utf-8", "surrogateescape")


def chosen(data: bytes, of: Sequence[str]) -> str:
    """One of some, the same one for the same input."""
    return of[zlib.crc32(data) % len(of)]


def sound(machine: api.Machine) -> None:
    """No violation, no bug of ours."""
    wrong = machine.verify()
    assert wrong == [], (wrong, list(machine.simlog)[-12:])


def boots(**options: object) -> api.Machine | None:
    """A machine that is sound, or None after one line or a panic."""
    try:
        machine = api.boot(**options)  # type: ignore[arg-type]
    except ONE_LINE as error:
        assert str(error)
        assert "\n" not in str(error), str(error)
        return None
    except api.KernelPanic:
        return None
    sound(machine)
    return machine


def refusal(call: Callable[[], object]) -> int:
    """The errno of a call, 0 if it went through."""
    try:
        call()
    except OSError as error:
        assert error.errno
        return error.errno
    return 0


# parsers


def cmdline(data: bytes) -> None:
    boots(memory="64M", cmdline=text_of(data), kernel=chosen(data, KERNELS))


def config(data: bytes) -> None:
    lines = [line for line in text_of(data).split("\n") if "/" not in line]
    kind = FileLine if data[:1] == b"#" else str
    boots(memory="64M", config=list(map(kind, lines)), kernel=chosen(data, KERNELS))


def options(data: bytes) -> None:
    """Four lines: --memory, --kernel, --arch of the known ones, --profile."""
    memory, kernel, profile, *_ = [*text_of(data).split("\n"), "", "", ""]
    boots(memory=memory or None, kernel=kernel or "6.12", profile=profile or None)


def dtb(data: bytes) -> None:
    """A blob: either a damaged one in one line, or a verdict."""
    try:
        tree = fdt._unflatten("board", fdt._checked("board", data))
        report_on(tree, MachineOptions(kernel=chosen(data, KERNELS)))
    except ONE_LINE as error:
        assert "\n" not in str(error), str(error)
    except api.KernelPanic:
        pass


def make_dts() -> Case:
    """A source: one line of the compilers, or a machine."""

    def case(data: bytes) -> None:
        with tempfile.NamedTemporaryFile(suffix=".dts") as source:
            source.write(data)
            source.flush()
            boots(dts=source.name, kernel=chosen(data, KERNELS[:-2]))

    return case


def regions_2010(data: bytes) -> None:
    """``cma=`` and ``cma.map=`` of the framework of 2010, of any version, and some requests."""
    profile = chosen(data, ("v1", "v2", "v3", "v4", "vendor"))
    words = text_of(data).split("\n", 1)
    machine = boots(
        memory="64M", kernel="2010", profile=profile, cmdline=f"cma={words[0]} cma.map={''.join(words[1:])}"
    )
    if machine is not None:
        for device in ("camera", "a/b", ""):
            requested(machine, 0xC0407000, device.encode().ljust(64, b"\0"))
        sound(machine)


def requested(machine: api.Machine, cmd: int, argument: bytes) -> None:
    calls = machine.syscalls
    fd = calls.open("/dev/cma", O_RDWR)
    code = refusal(lambda: calls.ioctl(fd, cmd, bytearray(argument)))
    allowed = {
        0,
        errno.EINVAL,
        errno.ENOMEM,
        errno.ENOENT,
        errno.ENOTTY,
        errno.EBADFD,
        errno.EIO,
        errno.EBADF,
    }
    assert code in allowed, errno.errorcode[code]
    calls.close(fd)


# a machine's files


class Files:
    """A machine of which every writable file is written to; the first byte of a case says which."""

    def __init__(self, machine: api.Machine, only: Callable[[str], bool] = lambda path: True) -> None:
        self.machine = machine
        self.calls = machine.syscalls
        self.paths = [
            path
            for path, inode in walk(machine.root)
            if isinstance(inode, RegularFile) and inode.mode & 0o222 and only(path)
        ]
        assert self.paths

    def state(self) -> list[object]:
        """What a refusal must not change. The size of a trace buffer it may: ``tracing_update_buffers()``."""
        names = [line.split("\t")[:2] for line in self.machine.read("/sim/tasks").decode().splitlines()]
        values: list[object] = [names]
        for cma in self.machine.booted.cma:
            values.append(
                (cma.name, cma.available_count, [list(range_.bitmap.holes) for range_ in cma.ranges])
            )
        for path in self.paths:
            if path.endswith(("/enable", "/tracing_on", "/set_event", "/current_tracer")):
                values.append((path, self.machine.read(path)))
        return values

    def write(self, path: str, data: bytes, flags: int = O_WRONLY) -> int:
        """The errno of one write(2); what the file may not answer is an error."""
        code = refusal(lambda: self._written(path, data, flags))
        name = path.removeprefix("/") if path == "/sim/control" else path.rpartition("/")[2]
        allowed = COMMON | ERRNOS.get(name.partition("-")[0], set()) | {0}
        assert code in allowed, (path, errno.errorcode[code])
        return code

    def _written(self, path: str, data: bytes, flags: int) -> None:
        fd = self.calls.open(path, flags)
        try:
            count = self.calls.write(fd, data)
            assert 0 <= count <= len(data), (path, count, len(data))
        finally:
            self.calls.close(fd)

    def case(self, data: bytes) -> None:
        """One write, whose refusal changes nothing; then an allocation, which the tracer sees."""
        path = self.paths[(data[0] if data else 0) % len(self.paths)]
        body = data[1:]
        whole = path == "/sim/control" and b"\n" in body.strip()  # the lines before the refused one count
        before = None if whole else self.state()
        if self.write(path, body) and before is not None:
            assert self.state() == before, path
        for cma in list(self.machine.booted.cma)[:1]:
            alloc = next((path for path in self.paths if path.endswith("/alloc")), "")
            if alloc and cma.available_count > 8:
                self.write(alloc, b"2\n")
        sound(self.machine)


def make_files(only: Callable[[str], bool] = lambda path: True, **options: object) -> Callable[[], Case]:
    """Machines of one kernel after the other."""
    kernels = iter(KERNELS * 10000)

    def make() -> Case:
        chosen_options = {"memory": "64M", "cmdline": "cma=4M", **options}
        if "kernel" not in options:
            chosen_options["kernel"] = next(kernels)
        try:
            files = Files(api.boot(**chosen_options), only)  # type: ignore[arg-type]
        except AssertionError:  # this kernel has no such file
            return make()
        return files.case

    return make


def make_calls() -> Case:
    """System calls in any order on any name: four bytes each, of which no answer is a traceback."""
    machine = api.boot(memory="64M", cmdline="cma=4M")
    calls = machine.syscalls
    instances = "/sys/kernel/tracing/instances"
    names = [path for path, _ in walk(machine.root)] + [f"{instances}/{name}" for name in "abc"]
    names += [
        f"{instances}/{name}/{file}" for name in "abc" for file in ("trace", "trace_pipe", "tracing_on")
    ]
    names += ["", "/", "..", "/sim/../proc", "/nothing", "/sim/log/", f"{instances}/", f"{instances}/a/"]
    modes = (O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC, O_RDONLY | O_NONBLOCK, os.O_CREAT | 1, os.O_DIRECT)
    sizes = (0, 1, 7, 100, 4096, 131072)

    def one(op: int, first: int, second: int, third: int, fds: list[int]) -> object:
        path, size = names[(first << 8 | second) % len(names)], sizes[third % len(sizes)]
        fd = fds[first % len(fds)] if fds else 99
        offset = (0, 1, 5, 4096, 1 << 40, -1)[second % 6]
        table: list[Callable[[], object]] = [
            lambda: fds.append(calls.open(path, modes[third % len(modes)])),
            lambda: fds.append(calls.open(path, modes[third % len(modes)])),
            lambda: calls.read(fd, size),
            lambda: calls.pread(fd, size, offset),
            lambda: calls.write(fd, (b"1\n", b"0", b"x" * 300, b"")[third % 4]),
            lambda: calls.pwrite(fd, b"1\n", offset),
            lambda: calls.lseek(fd, offset, third % 4),
            lambda: (calls.close(fd), fds.remove(fd)),
            lambda: calls.ioctl(fd, first << 8 | second, bytearray(third)),
            lambda: calls.mkdir(path),
            lambda: calls.rmdir(path),
            lambda: calls.truncate(path, offset),
            lambda: calls.chmod(path, 0o644 | third & 0o22),
            lambda: (calls.lstat(path), calls.stat(path)),
            lambda: calls.listdir(path),
            lambda: calls.unlink(path),
            lambda: calls.fstat(fd),
        ]
        return table[op % len(table)]()

    def case(data: bytes) -> None:
        fds: list[int] = []
        for at in range(0, min(len(data), 400) - 3, 4):
            code = refusal(lambda at=at: one(*data[at : at + 4], fds))  # type: ignore[misc]
            # a file of /proc without a write of its own answers EIO, too (proc_reg_write())
            assert code != errno.EIO or b"Traceback" not in calls.read_file("/sim/log"), data[at : at + 4]
        for fd in fds:
            calls.close(fd)
        sound(machine)
        for array in machine.booted.cma:
            assert array.available_count <= array.count

    return case


def make_ioctl_2010() -> Case:
    machine = api.boot(memory="64M", kernel="2010", cmdline="cma=4M cma.map=a,b=r")
    return lambda data: (
        requested(machine, int.from_bytes(data[:4], "little"), data[4:68].ljust(64, b"\0")),
        sound(machine),
    )[0]


def make_dmesg() -> Case:
    """What is written to /dev/kmsg comes back through `cmafs dmesg`'s parser, in any pieces."""
    machine = api.boot(memory="64M", cmdline="cma=4M", kernel="6.12")

    def case(data: bytes) -> None:
        calls, log = machine.syscalls, machine.booted.log
        log.clear()
        machine.clock.advance(10**10)
        first = log.next_seq
        assert refusal(lambda: machine.write("/dev/kmsg", data)) in (0, errno.EINVAL)
        fd = calls.open("/dev/kmsg", O_RDONLY | O_NONBLOCK)
        seen = []
        while raw := _next(lambda: calls.read(fd, 8192)):
            assert dmesg.parse(raw).text.isprintable() or b"\n" in data or b"\t" in data
            seen.append(int(raw.split(b",")[1]))
        calls.close(fd)
        assert [number for number in seen if number >= first] == list(range(first, log.next_seq))

    return case


def _next(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except BlockingIOError:
        return b""


# the targets

# fmt: off
VERBS = (b"spawn a anon 1M\n", b"spawn f file 64K\n", b"grow a 4K\n", b"shrink a 4K\n", b"kill a\n",
         b"pin a 2\n",
         b"unpin a\n", b"mlock a\n", b"munlock a\n", b"pin pfn 0x40100\n", b"unpin pfn 0x40100\n",
         b"dma_alloc camera 64K\n", b"dma_free camera 64K\n", b"spawn k kernel 8K\n",
         b"spawn s slab 8K\n")  # fmt: skip
FILTERS = (b'name ~ "*a*b"', b"count > 0x10 && align == 0", b'!(comm == "sh") || cpu == 0', b"pfn & 3",
           b'name ~ "[a-z]*"', b"common_pid != -1", b"0", b"none", b"COMM ~ 'x'")  # fmt: skip
QUERIES = (b"file mm/cma.c +p", b"func cma_alloc line 400-500 =pmflt", b'format "cma" -p',
           b"module cma +p; +p",
           b"line 1- +p # c", b"class x +p", b"file mm/cma.c:cma_* +p", b'format "a\\040b" =_')  # fmt: skip
CMDLINES = (b"cma=16M", b"cma=16M@0x41000000-0x50000000",
            b"hugetlb_cma=0:4M,1:1M numa_cma=0:1M cma_pernuma=1M",
            b"mem=32M coherent_pool=1M log_buf_len=64K", b"trace_event=cma:* trace_buf_size=1M dyndbg=+p",
            b"swiotlb=1024,force loglevel=3 quiet debug", b'a="b c" -- init words', b"movablecore=8M",
            b"kernelcore=8M memblock=debug ignore_loglevel printk.time=0 cma_debug.dyndbg")  # fmt: skip
CONFIGS = (b"CMA_SIZE_MBYTES=4\nCMA_AREAS=3", b"CMA_DEBUGFS=n", b"CMA=y\nCMA_SYSFS=y", b"tiny",
           b"# CONFIG_CMA is not set\nCONFIG_LOG_BUF_SHIFT=12\nCONFIG_NUMA=y", b"ARCH_FORCE_MAX_ORDER=12",
           b"#\nCONFIG_LOCALVERSION=\"-x\"\nCONFIG_CMA_ALIGNMENT=9")  # fmt: skip
# fmt: on
BOARD = dts.tree(
    dts.pool("a@50000000", "reg = <0 0x50000000 0 0x400000>")
    + dts.pool("linux,cma", "size = <0 0x1000000>", "alignment = <0 0x400000>")
    + "fw@60000000 { reg = <0 0x60000000 0 0x100000>; no-map; };"
)
CELLS = tuple(value.to_bytes(4, "big") for value in (0, 1, 2, 3, 4, 9, 17, 0x400000, 0x7FFFFFFF, 0xFFFFFFFF))


def _tracing(path: str) -> bool:
    return path.endswith("/filter")


def targets() -> list[Target]:
    """What a machine is made of, and its files."""
    every = bytes(range(70))
    blob = dts.dtc(BOARD)
    # fmt: off
    return [
        Target("cmdline", lambda: cmdline, CMDLINES),
        Target("config", lambda: config, CONFIGS, (b"CONFIG_", b"=y", b"=n", b"CMA", b"NUMA", b"# ", b"\n")),
        Target("options", lambda: options, (b"64M\n6.12\n", b"1G\n2010\nv3", b"0x4000000\n5.10.3\n")),
        Target("dtb", lambda: dtb, (blob, dts.dtc(dts.tree())), CELLS),
        Target(
            "dts",
            make_dts,
            (BOARD.encode(), dts.tree().encode()),
            (
                b"reusable;",
                b"reg = <0 0 0 0>;",
                b"{ };",
                b"size",
                b'/include/ "x"',
                b"&x",
                b"x: ",
                b'/incbin/("/dev/zero")',
                b"#include <x>\n",
                b"<0xffffffff>",
            ),
        ),
        Target(
            "regions2010",
            lambda: regions_2010,
            (b"r=1M;s=2M@32M\na,b=r;*=s", b"r=1M/64K:bf(x=y)\n*/x=r,s", b"r=4K@0x100000/4K;q=64M\n?=r"),
        ),
        Target(
            "ioctl2010",
            make_ioctl_2010,
            (
                (0xC0407000).to_bytes(4, "little") + b"\x42\x61\x4d\x63" + bytes(60),
                (0xC0407000).to_bytes(4, "little") + b"\x42\x61\x4d\x63\0\0\0\0\0\0\1\0" + bytes(12) + b"a",
            ),
            (b"\xff" * 8, b"\0" * 8, b"\0\x10", b"a/b", b"BaMc", b"\1\0\0\0"),
        ),
        Target(
            "map2010",
            make_files(lambda path: path.endswith("/map"), kernel="2010"),
            (b"\0a,b=r", b"\0a/x=r,s;*=q", b"\0"),
        ),
        Target(
            "control", make_files(lambda path: path == "/sim/control"), tuple(b"\0" + v for v in VERBS), VERBS
        ),
        Target(
            "filter", make_files(_tracing), tuple(bytes([n]) + f for n in range(6) for f in FILTERS), FILTERS
        ),
        Target(
            "dyndbg",
            make_files(lambda path: path.endswith("dynamic_debug/control")),
            tuple(b"\0" + query for query in QUERIES),
            QUERIES,
        ),
        Target(
            "set_event",
            make_files(lambda path: path.endswith("set_event")),
            (b"\0cma:*", b"\0cma:cma_release", b"\0!cma:", b"\0*:*", b"\0migrate\n", b"\0 x y"),
        ),
        Target(
            "files", make_files(), tuple(bytes([n]) + text for n in every for text in (b"1", b"0\n", b"nop"))
        ),
        Target("calls", make_calls, (bytes(range(40)), b"\0\0\0\0\2\0\0\5", b"\x09\1\2\3" * 9)),
        Target("dmesg", make_dmesg, (b"<6>hello\n", b"plain", b"<9999>x\\y\x01", "6,1,2,-;é\n".encode())),
    ]
    # fmt: on


@dataclass(frozen=True)
class Fuzzed:
    """How many cases, of how many seconds."""

    cases: int
    seconds: float


class Found(AssertionError):
    """A case that is wrong; its cause is the exception."""


def fuzz(target: Target, seconds: float, seed: int, keep: bool = False) -> Fuzzed:
    """The corpus, then new inputs for so long. Raises Found; ``keep``: into the corpus too."""
    rng = random.Random(seed)
    known = target.corpus()
    queue = list(known)
    start, cases = time.monotonic(), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case = target.make()
    while queue or time.monotonic() - start < seconds:
        data = queue.pop() if queue else mutated(rng, known, target.words)
        if cases % CASES_OF_A_MACHINE == CASES_OF_A_MACHINE - 1:
            case = target.make()
        try:
            with watchdog():
                case(data)
        except Exception as error:
            if keep:
                save(target, data)
            raise Found(f"{target.name}, case {cases} of seed {seed}: {data!r}: {error!r}") from error
        cases += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < GROWTH, f"{target.name}: {grown >> 10} MiB more"
    return Fuzzed(cases, time.monotonic() - start)


def save(target: Target, data: bytes) -> None:
    """Into the corpus, under a name made of the bytes."""
    directory = CORPUS / target.name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
