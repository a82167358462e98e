"""Replay transcripts of real kernels (tests/transcripts/FORMAT.md) and say where cmafs answers otherwise.

    python -m tests.replay FILE_OR_DIRECTORY... [--mounted]
    CMAFS_TRANSCRIPTS=DIRECTORY python -m tests.replay

One line a transcript, its first differences below it; exit status 1 if there are any. ``--mounted`` replays
through a mount made by ``cmafs mount``, else the tables answer in process. Kinds: walk, exhaust, parse,
files, hugetlb-walk, and pins: its script's steps, with the recorded pages pinned through sim/control. Of a
file of another kind, named itself, whatever operations and log lines it has.

What is compared:

* every outcome field of every operation, byte for byte. Only ``nr_free_cma`` and ``CmaFree`` may differ
  by at most ``LAG`` pages (``PARKED`` where a transcript is named there): a real machine parks freed pages
  on per-CPU lists until an allocation drains them, ours does so at boot only (7.2);
* the log from the end of boot on, lines with ``cma`` in them: the recorded ones are the end of ours. Unless
  they fill the recorder's 128 KiB they are all of ours. A hashed pointer equals ``(____ptrval____)``, and two
  recorded hashes are equal exactly where ours are;
* what cannot be seen through a mount (``docs/exceptions.md``) is left out there: writes of no bytes.
"""

from __future__ import annotations

import argparse
import errno
import json
import lzma
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cmafs.fs.namei import Syscalls
from cmafs.lib.kconfig import FileLine

#: Kinds that are replayed.
KINDS = ("walk", "exhaust", "parse", "files", "hugetlb-walk", "pins")
TRANSCRIPTS = Path(__file__).resolve().parent / "transcripts"

#: Pages that a real machine keeps on per-CPU lists. Until 5.13 a list ends at six batches of 63 pages
#: (mm/page_alloc.c:pageset_set_batch()@v5.10: 340 recorded); later kernels keep more of what was freed
#: since the last allocation drained the lists: 788 in the walk of 6.12 on arm64.
LAG = 800
#: Where one free of the whole area is the last step, so that nothing drains the lists: from 5.14 on they hold
#: as much as the zone's low watermark (mm/page_alloc.c:zone_highsize()@v5.14). khugepaged has made that 7040
#: pages in these guests: 1.25 times 11 page blocks (mm/khugepaged.c:set_recommended_min_free_kbytes()@v6.1).
PARKED = {"6.1/exhaust-1-16M": 4095, "6.1/exhaust-2-64M": 6366}
#: The recorder read the log into so many bytes, ``<N>[time] `` before each line.
RECORDER_BYTES, RECORDER_PREFIX = 1 << 17, 19
MAX_READ = 1 << 17

_O_TRUNC_CREAT = os.O_WRONLY | os.O_TRUNC | os.O_CREAT
_POINTER = re.compile(r"\(____ptrval____\)|\b[0-9a-f]{16}\b")
_STAMP = re.compile(r"\[ *\d+\.\d{6}\] ")
_OFFSET = re.compile(r"pinned offset (\d+)")
_DIRECTORY = re.compile(r"cd (\S+?);")
_LOOP = re.compile(r"for n in ([-0-9 ]+);")
_RANGE = re.compile(r"^ (memory|reserved)\[0x[0-9a-f]+\]\t?\s*\[0x([0-9a-f]+)-0x([0-9a-f]+)\]")
_NODE_RANGE = re.compile(r"^  (node) +\d+: \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]")

Operation = dict[str, Any]


class Kernel(Protocol):
    """The calls that a replay makes: ``os`` below a mount point, or a Syscalls."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int: ...
    def close(self, fd: int) -> None: ...
    def read(self, fd: int, size: int) -> bytes: ...
    def pread(self, fd: int, size: int, offset: int) -> bytes: ...
    def write(self, fd: int, data: bytes) -> int: ...
    def lseek(self, fd: int, offset: int, whence: int = 0) -> int: ...
    def lstat(self, path: str) -> Any: ...
    def readlink(self, path: str) -> str: ...
    def listdir(self, path: str) -> list[str]: ...
    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def truncate(self, path: str, length: int) -> None: ...


class Mounted:
    """The calls of ``os``, with absolute paths below a mount point."""

    def __init__(self, mountpoint: str) -> None:
        self.mountpoint = mountpoint
        self.close, self.read, self.pread, self.write, self.lseek = (
            os.close, os.read, os.pread, os.write, os.lseek,
        )  # fmt: skip

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(os, name)
        return lambda path, *args: call(self.mountpoint + path, *args)


@dataclass
class Transcript:
    """One recorded boot."""

    path: Path
    header: dict[str, Any]
    operations: list[Operation] = field(default_factory=list)
    dmesg: list[str] = field(default_factory=list)
    script_output: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """``<release>/<kind>-<n>…``"""
        return f"{self.path.parent.name}/{self.path.name.split('.jsonl')[0]}"


def load(path: Path) -> Transcript:
    """Read a .jsonl or .jsonl.xz."""
    opener: Callable[..., Any] = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt") as lines:
        objects = [json.loads(line) for line in lines]
    transcript = Transcript(path, objects[0]["header"])
    for one in objects[1:]:
        if "op" in one:
            transcript.operations.append(one)
        transcript.dmesg += one.get("dmesg", [])
        transcript.script_output += one.get("script_output", [])
    return transcript


def find(sources: Iterable[str | Path]) -> Iterator[Path]:
    """The transcripts in files and directories, those of kinds that are replayed."""
    for source in map(Path, sources):
        if source.is_dir():
            found = sorted([*source.rglob("*.jsonl"), *source.rglob("*.jsonl.xz")])
            yield from (path for path in found if path.name.startswith(KINDS))
        else:
            yield source


# the machine


def header_dts(header: dict[str, Any]) -> str:
    """A device tree with the memory and the reservations that memblock=debug showed; without it, the
    memory of the nodes, nothing of which was reserved.
    """
    nodes, reserves = [], []
    dumped = any(_RANGE.match(line) for line in header["boot"])
    for line in header["boot"]:
        match = (_RANGE if dumped else _NODE_RANGE).match(line)
        if not match:
            continue
        start, size = int(match[2], 16), int(match[3], 16) - int(match[2], 16) + 1
        if match[1] != "reserved":
            cells = " ".join(f"{n >> 32:#x} {n & 0xFFFFFFFF:#x}" for n in (start, size))
            nodes.append(f'memory@{start:x} {{ device_type = "memory"; reg = <{cells}>; }};')
        elif header["arch"] == "x86":  # on arm64 the dump is of the time after CMA was placed
            reserves.append(f"/memreserve/ {start:#x} {size:#x};")
    root = "#address-cells = <2>; #size-cells = <2>;"
    return "\n".join(["/dts-v1/;", *reserves, "/ {", root, *nodes, "chosen { };", "};", ""])


def machine_options(header: dict[str, Any]) -> dict[str, str]:
    """Kernel, architecture and command line of a recorded boot."""
    arch = {"x86": "x86_64"}.get(header["arch"], header["arch"])
    release = re.search(r"\d+\.\d+(\.\d+)?", header["kernel"])  # sometimes inside the name of an image
    assert release is not None
    return {"kernel": release[0], "arch": arch, "cmdline": header["cmdline"]}


def config_file(header: dict[str, Any], place: Path) -> str:
    """The option that gives the command a header's configuration, by a file below ``place`` or by name."""
    if "config" not in header:
        return "--config=tiny"
    file = place / "config"
    file.write_text("\n".join(header["config"]))
    return f"--config={file}"


def header_config(header: dict[str, Any]) -> list[str]:
    """The configuration of a recorded boot: its lines, or that of the first recordings."""
    return [FileLine(line) for line in header["config"]] if "config" in header else ["tiny"]


def boot_tables(header: dict[str, Any]) -> Syscalls:
    """The machine of a header, in process, on a clock that stands still."""
    from cmafs.fs.tree import build_tree
    from cmafs.init.main import start_kernel
    from cmafs.init.options import MachineOptions
    from cmafs.lib.clock import ManualClock
    from cmafs.of import fdt

    options = machine_options(header)
    with tempfile.NamedTemporaryFile("w", suffix=".dts") as dts:
        dts.write(header_dts(header))
        dts.flush()
        tree = fdt.load(dts.name)
    boot = MachineOptions(**options, config=tuple(header_config(header)))
    return Syscalls(build_tree(start_kernel(tree, boot, ManualClock())))


class MountedMachine:
    """``with MountedMachine(header) as kernel:`` the machine of a header, mounted by the command."""

    def __init__(self, header: dict[str, Any]) -> None:
        self._header = header

    def __enter__(self) -> Mounted:
        self._directory = Path(tempfile.mkdtemp(prefix="cmafs-replay-"))
        self._mountpoint = self._directory / "mnt"
        self._mountpoint.mkdir()
        dts = self._directory / "machine.dts"
        dts.write_text(header_dts(self._header))
        config = config_file(self._header, self._directory)
        options = [f"--{name}={value}" for name, value in machine_options(self._header).items()]
        self._run("mount", f"--dts={dts}", config, *options)
        return Mounted(str(self._mountpoint))

    def __exit__(self, *_: object) -> None:
        self._run("umount")
        (self._directory / "machine.dts").unlink()
        (self._directory / "config").unlink(missing_ok=True)
        self._mountpoint.rmdir()
        self._directory.rmdir()

    def _run(self, *words: str) -> None:
        subprocess.run([sys.executable, "-m", "cmafs", *words, str(self._mountpoint)], check=True)


# operations


def _errno(call: Callable[..., object], *args: object) -> int:
    try:
        call(*args)
    except OSError as error:
        return error.errno or -1
    return 0


def read_all(kernel: Kernel, fd: int, size: int) -> tuple[bytes, int, int]:
    """Read to the end: (bytes, errno, reads that gave something)."""
    out, calls = b"", 0
    try:
        while piece := kernel.read(fd, size):
            out, calls = out + piece, calls + 1
    except OSError as error:
        return out, error.errno or -1, calls
    return out, 0, calls


def _write(kernel: Kernel, fd: int, text: str) -> tuple[int, int]:
    try:
        return kernel.write(fd, text.encode("latin-1")), 0
    except OSError as error:
        return -1, error.errno or -1


def do_write(kernel: Kernel, op: Operation) -> Operation:
    """``W``, ``A``"""
    flags = _O_TRUNC_CREAT if op["op"] == "W" else os.O_WRONLY | os.O_APPEND
    fd = kernel.open(op["path"], flags)
    ret, number = _write(kernel, fd, op["data"])
    return {"ret": ret, "errno": number, "close": _errno(kernel.close, fd)}


def do_read(kernel: Kernel, op: Operation) -> Operation:
    """``R``, ``B``"""
    fd = kernel.open(op["path"], os.O_RDONLY)
    out, number, calls = read_all(kernel, fd, op.get("k", MAX_READ))
    kernel.close(fd)
    result = {"out": out.decode("latin-1"), "errno": number}
    return {**result, "calls": calls} if op["op"] == "B" else result


def do_pread(kernel: Kernel, op: Operation) -> Operation:
    """``P``"""
    fd = kernel.open(op["path"], os.O_RDONLY)
    out, number = b"", 0
    try:
        out = kernel.pread(fd, 4096, int(op["off"]))
    except OSError as error:
        number = error.errno or -1
    kernel.close(fd)
    return {"out": out.decode("latin-1"), "errno": number}


def do_two_writes(kernel: Kernel, op: Operation) -> Operation:
    """``2``"""
    fd = kernel.open(op["path"], os.O_WRONLY)
    first, second = _write(kernel, fd, op["a"]), _write(kernel, fd, op["b"])
    kernel.close(fd)
    return {"ret": first[0], "errno": first[1], "ret2": second[0], "errno2": second[1]}


def do_stale(kernel: Kernel, op: Operation) -> Operation:
    """``Z``: a descriptor read before and after the state changed, and after a seek."""

    def once(fd: int) -> str:
        try:
            return kernel.read(fd, 4096).decode("latin-1")
        except OSError:
            return ""

    fd = kernel.open(op["path"], os.O_RDONLY)
    first = once(fd)
    other = kernel.open(op["other"], os.O_WRONLY)
    _, number = _write(kernel, other, op["data"])
    kernel.close(other)
    again = once(fd)
    _errno(kernel.lseek, fd, 0, os.SEEK_SET)
    rewound = once(fd)
    kernel.close(fd)
    return {"first": first, "write_errno": number, "again": again, "rewound": rewound}


def do_lstat(kernel: Kernel, op: Operation) -> Operation:
    """``S``"""
    st = kernel.lstat(op["path"])
    names = ("size", "uid", "gid", "nlink", "blocks", "blksize")
    return {"mode": f"{st.st_mode:o}", **{name: getattr(st, f"st_{name}") for name in names}}


def do_names(kernel: Kernel, op: Operation) -> Operation:
    """``K``, ``L``"""
    if op["op"] == "K":
        return {"out": kernel.readlink(op["path"])}
    return {"names": sorted([".", "..", *kernel.listdir(op["path"])])}


def do_change(kernel: Kernel, op: Operation) -> Operation:
    """``M``, ``U``, ``D``, ``C``, ``T``"""
    path = op["path"]
    calls: dict[str, Callable[[], object]] = {
        "M": lambda: kernel.mkdir(path),
        "U": lambda: kernel.unlink(path),
        "D": lambda: kernel.rmdir(path),
        "C": lambda: kernel.chmod(path, int(op["mode"], 8)),
        "T": lambda: kernel.truncate(path, int(op["len"])),
    }
    return {"errno": _errno(calls[op["op"]])}


HANDLERS: dict[str, Callable[[Kernel, Operation], Operation]] = {
    **dict.fromkeys("WA", do_write),
    **dict.fromkeys("RB", do_read),
    "P": do_pread,
    "2": do_two_writes,
    "Z": do_stale,
    "S": do_lstat,
    **dict.fromkeys("KL", do_names),
    **dict.fromkeys("MUDCT", do_change),
}
#: Where an error of the first call is told.
OPENS = frozenset("WARBP2Z")
INPUTS = frozenset(("op", "path", "data", "other", "a", "b", "k", "off", "len"))


def perform(kernel: Kernel, op: Operation) -> Operation:
    """Do one operation; its outcome as a transcript tells it."""
    try:
        return HANDLERS[op["op"]](kernel, op)
    except OSError as error:
        return {"open_errno" if op["op"] in OPENS else "errno": error.errno}


def expected(op: Operation) -> Operation:
    """The outcome that was recorded; success of ``S``, ``K`` and ``L`` has no errno."""
    outcome = {name: value for name, value in op.items() if name not in INPUTS}
    if op["op"] == "C":
        outcome.pop("mode")
    if op["op"] in "SKL" and not outcome.get("errno"):
        outcome.pop("errno", None)
    return outcome


# the script of the kind pins


def read_text(kernel: Kernel, path: str) -> str:
    """A file's text."""
    return str(do_read(kernel, {"op": "R", "path": path})["out"])


def echo(kernel: Kernel, path: str, text: str) -> int:
    """What ``echo`` does; the errno."""
    return int(do_write(kernel, {"op": "W", "path": path, "data": text})["errno"])


def script_output(kernel: Kernel, script: str, recorded: list[str]) -> list[str]:
    """What the script would print here; the pinned pages are the recorded ones."""
    directory, loop = _DIRECTORY.search(script), _LOOP.search(script)
    assert directory is not None and loop is not None
    area = directory[1]
    out = [line for line in recorded if _OFFSET.match(line)]
    base = int(read_text(kernel, f"{area}/base_pfn"))
    for line in out:
        match = _OFFSET.match(line)
        assert match is not None
        assert echo(kernel, "/sim/control", f"pin pfn {base + int(match[1])}\n") == 0
    for word in loop[1].split():
        name, pages = ("free", word[1:]) if word.startswith("-") else ("alloc", word)
        out.append(f"{name} {pages}")
        failed = echo(kernel, f"{area}/{name}", f"{pages}\n")
        out += ["sh: write error: Cannot allocate memory", "rc=1"] if failed else ["rc=0"]
        used, longest = (
            read_text(kernel, f"{area}/used").strip(),
            read_text(kernel, f"{area}/maxchunk").strip(),
        )
        out += [f"used {used} maxchunk {longest}", f"bitmap {read_text(kernel, f'{area}/bitmap').rstrip()}"]
    out += [line for line in read_text(kernel, "/proc/vmstat").splitlines() if "cma_" in line]
    return out + counters(kernel)


def counters(kernel: Kernel) -> list[str]:
    """``for f in /sys/kernel/mm/cma/reserved/*``"""
    directory = "/sys/kernel/mm/cma/reserved"
    try:
        names = sorted(kernel.listdir(directory))
    except FileNotFoundError:
        return [f"cat: can't open '{directory}/*': No such file or directory", "* "]
    return [f"{name} {read_text(kernel, f'{directory}/{name}').strip()}" for name in names]


# comparison


def _filtered(path: str, out: str) -> str:
    """The lines of a file that the recorder kept."""
    wanted = {"/proc/vmstat": "cma", "/proc/meminfo": "Cma"}.get(path)
    if wanted is None:
        return out
    return "".join(line for line in out.splitlines(keepends=True) if wanted in line)


def _lagging(out: str) -> tuple[str, int]:
    """A text without its free pages, and their number: nr_free_cma in pages, CmaFree in KiB."""
    pages = 0
    lines = []
    for line in out.splitlines(keepends=True):
        words = line.split()
        if words and words[0] in ("nr_free_cma", "CmaFree:"):
            pages = int(words[1]) // (4 if words[0] == "CmaFree:" else 1)
            line = words[0]
        lines.append(line)
    return "".join(lines), pages


def agrees(op: Operation, want: Operation, got: Operation, lag: int = LAG) -> bool:
    """Whether an outcome is the recorded one; ``lag``: pages that free ones of CMA may differ by."""
    if op["path"] not in ("/proc/vmstat", "/proc/meminfo") or "out" not in want or "out" not in got:
        return got == want
    (want_text, want_free), (got_text, got_free) = _lagging(want["out"]), _lagging(got["out"])
    others = {**want, "out": ""} == {**got, "out": ""}
    return others and want_text == got_text and abs(got_free - want_free) <= lag


def read_log(kernel: Kernel) -> list[str]:
    """The lines of sim/dmesg with ``cma`` in them, without time stamps."""
    fd = kernel.open("/sim/dmesg", os.O_RDONLY)
    text = read_all(kernel, fd, MAX_READ)[0].decode("utf-8", "surrogateescape")
    kernel.close(fd)
    lines = (_STAMP.sub("", line, count=1) for line in text.splitlines())
    return [line for line in lines if "cma" in line.lower()]


def compare_log(recorded: list[str], ours: list[str]) -> list[str]:
    """What the end of our log and a recorded one differ in."""
    problems = []
    recorder = sum(len(line) + RECORDER_PREFIX for line in recorded)
    complete = recorder < RECORDER_BYTES - 8192
    if len(recorded) > len(ours) or (complete and len(recorded) != len(ours)):
        problems.append(f"log: {len(recorded)} lines recorded, {len(ours)} here")
    ours = ours[-len(recorded) :] if recorded else []
    there, here = Pointers(), Pointers()
    for number, (want, got) in enumerate(zip(recorded[-len(ours) :], ours, strict=True)):
        if _POINTER.sub("P", want) != _POINTER.sub("P", got):
            problems.append(f"log line {number}: recorded {want!r}, here {got!r}")
        elif not same_pointers(there, want, here, got):
            problems.append(f"log line {number}: pointers of {want!r} and {got!r} do not correspond")
    return problems


class Pointers(dict[str, int]):
    """Numbers pointers in the order in which they are first seen."""

    def number(self, pointer: str) -> int:
        """The number of a pointer."""
        return self.setdefault(pointer, len(self))


def same_pointers(there: Pointers, want: str, here: Pointers, got: str) -> bool:
    """Whether the pointers of two lines are the same ones; ``(____ptrval____)`` is any."""
    for theirs, mine in zip(_POINTER.findall(want), _POINTER.findall(got), strict=True):
        if (theirs == "0" * 16) != (mine == "0" * 16):
            return False
        if theirs.startswith("(") or mine.startswith("("):
            continue
        if there.number(theirs) != here.number(mine):
            return False
    return True


def prepare(kernel: Kernel, header: dict[str, Any]) -> None:
    """What the guest's init did after boot, and the point from which the log was kept."""
    if "dyndbg_cma" in header["cmdline"].split():
        fd = kernel.open("/sys/kernel/debug/dynamic_debug/control", os.O_WRONLY)
        for query in (b"file mm/cma.c +p\n", b"file mm/cma_debug.c +p\n"):
            kernel.write(fd, query)
        kernel.close(fd)
    fd = kernel.open("/sim/dmesg", os.O_WRONLY)
    kernel.write(fd, b"clear\n")
    kernel.close(fd)


def replay_pins(transcript: Transcript, kernel: Kernel) -> list[str]:
    """Every difference between a ``pins`` transcript's script and the same steps here."""
    got = script_output(kernel, transcript.header["script"], transcript.script_output)
    problems = []
    if len(got) != len(transcript.script_output):
        problems.append(f"script: {len(transcript.script_output)} lines recorded, {len(got)} here")
    for number, (want, mine) in enumerate(zip(transcript.script_output, got, strict=False)):
        if want != mine:
            problems.append(f"script line {number}: recorded {want[:150]!r}, here {mine[:150]!r}")
    return problems


def replay(transcript: Transcript, kernel: Kernel, mounted: bool = False) -> list[str]:
    """Every difference between a transcript and a freshly booted machine."""
    prepare(kernel, transcript.header)
    problems = replay_pins(transcript, kernel) if transcript.path.name.startswith("pins") else []
    for number, op in enumerate(transcript.operations):
        if mounted and op["op"] in "WA" and op["data"] == "":
            continue
        got = perform(kernel, op)
        if "out" in got and op["op"] == "R":
            got["out"] = _filtered(op["path"], got["out"])
        want = expected(op)
        if not agrees(op, want, got, PARKED.get(transcript.name, LAG)):
            what = {name: op[name] for name in ("op", "path", "data") if name in op}
            problems.append(f"operation {number} {what}: recorded {_short(want)}, here {_short(got)}")
    return problems + compare_log(transcript.dmesg, read_log(kernel))


def _short(outcome: Operation) -> str:
    text = str(outcome)
    return text if len(text) <= 300 else f"{text[:140]} … {text[-140:]}"


def replay_file(path: Path, mounted: bool = False) -> list[str]:
    """Boot the machine of a transcript and replay it."""
    transcript = load(path)
    if not mounted:
        return replay(transcript, boot_tables(transcript.header))
    with MountedMachine(transcript.header) as kernel:
        return replay(transcript, kernel, mounted=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Replay transcripts of real kernels.")
    parser.add_argument("source", nargs="*", default=[os.environ.get("CMAFS_TRANSCRIPTS", str(TRANSCRIPTS))])
    parser.add_argument("--mounted", action="store_true", help="through a mount instead of the tables")
    options = parser.parse_args()
    failed = 0
    for path in find(options.source):
        problems = replay_file(path, options.mounted)
        failed += bool(problems)
        print(f"{path}: {'ok' if not problems else f'{len(problems)} differences'}", flush=True)
        for problem in problems[:5]:
            print(f"    {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    assert errno.ENOMEM  # the transcripts' numbers are Linux's
    sys.exit(main())
