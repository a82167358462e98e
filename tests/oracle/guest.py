"""One boot of a kernel in QEMU, and what the recorder said.

Machine ``virt`` of arm and arm64 is entered as QEMU's own loader would (hw/arm/boot.c), but by a stub of
ours: with ``-kernel``, QEMU puts /memory nodes of its own into the tree, and there is one bank only. The rest
of the tree is QEMU's (its dumpdtb). On x86_64 there is no tree; QEMU's loader does everything.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import selectors
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oracle.build import ARCHS, Kernel, cache, recorder

RAM, SZ_2M, SZ_128M = 0x40000000, 1 << 21, 1 << 27
#: The size of every guest's initramfs: that of the first recordings, because it is a fact of their machine.
INITRD_BYTES = 0x1A6000
CONSOLE = {"arm64": "ttyAMA0", "arm": "ttyAMA0", "x86_64": "ttyS0"}
#: Seconds that a guest may take: of the host's processors (more where it may fill memory: init_on_free=1),
#: and in all where it only waits.
CPU_SECONDS, CPU_SECONDS_GIB, ALL_SECONDS = 15, 3, 240
TRIAL_SECONDS = 5, 20
#: Where the first instruction stands, behind the tree that QEMU leaves in the first MiB.
_STUB_OFFSET = 0x1F0000
#: Where the kernel stands; the zImage of 32-bit ARM unpacks itself from anywhere in the first 128 MiB.
_ENTRY_OFFSET = {"arm64": SZ_2M, "arm": 12 << 20}
#: QEMU's -cpu. The first recordings' on arm64 was ``max``: its LPA2 makes 6.12 reserve a table of a MiB.
CPUS = {"arm64": "cortex-a72", "arm": "cortex-a15", "x86_64": "max,-arch-capabilities"}

#: ldr x0, tree; x1 = x2 = x3 = 0; ldr x4, entry; br x4
_STUB_ARM64 = (0x580000C0, 0xAA1F03E1, 0xAA1F03E2, 0xAA1F03E3, 0x58000084, 0xD61F0080)
#: mov r0, #0; mvn r1, #0; ldr r2, tree; ldr pc, entry
_STUB_ARM = (0xE3A00000, 0xE3E01000, 0xE59F2000, 0xE59FF000)


@dataclass(frozen=True)
class Guest:
    """The machine: bytes of memory, the command line after what every guest has, tree (not x86_64), CPUs."""

    memory: int
    cmdline: str = ""
    dts: str = ""
    cpus: int = 1


@dataclass
class Boot:
    """What came of it. ``log``: the kernel's, None if the recorder never began."""

    log: list[str] | None = None
    release: str = ""
    state: list[str] = field(default_factory=list)
    outcomes: dict[int, dict[str, Any]] = field(default_factory=dict)
    dmesg: list[str] = field(default_factory=list)
    program: list[str] = field(default_factory=list)
    seconds: int | None = None
    console: str = ""

    @property
    def complete(self) -> bool:
        """Whether the recorder came to its end."""
        return self.seconds is not None


def command_line(arch: str, cmdline: str) -> str:
    """What the kernel is given."""
    return f"console={CONSOLE[arch]} quiet panic=-1 {cmdline}"


# what is loaded


def cpio(entries: Sequence[tuple[str, int, bytes, int]]) -> bytes:
    """A newc archive of (name, mode, contents, device number)."""
    out = b""
    for number, (name, mode, contents, device) in enumerate([*entries, ("TRAILER!!!", 0, b"", 0)], 1):
        fields = [number, mode, 0, 0, 1, 0, len(contents), 0, 0, device >> 8, device & 255, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08x" % one for one in fields) + name.encode() + b"\0"
        out += head + b"\0" * (-len(head) % 4) + contents + b"\0" * (-len(contents) % 4)
    return out


def initramfs(arch: str, case: bytes, program: bytes = b"") -> bytes:
    """The recorder, its case, and a program that it is to run."""
    files = [("dev", 0o40755, b"", 0), ("dev/console", 0o20600, b"", 5 << 8 | 1)]
    files += [("init", 0o100755, recorder(arch), 0), ("case", 0o100644, case, 0)]
    archive = cpio([*files, *[("program", 0o100755, program, 0)] * bool(program)])
    assert len(archive) <= INITRD_BYTES, len(archive)
    return archive.ljust(INITRD_BYTES, b"\0")


def cpu(kernel: Kernel) -> str:
    """QEMU's -cpu for a kernel: a cortex-a72 has no pages of 16 KiB, and emulated, five levels of page tables
    do not carry Debian's kernels for x86_64.
    """
    if "CONFIG_ARM64_16K_PAGES=y" in kernel.config:
        return "neoverse-n1"
    return CPUS[kernel.arch] + ",-la57" * (kernel.arch == "x86_64" and "debian" in kernel.name)


def _qemu_tree(arch: str, cpus: int) -> str:
    """QEMU's own tree, without its memory and /chosen."""
    dumped = cache() / (f"qemu-{arch}.dts" if cpus == 1 else f"qemu-{arch}-{cpus}.dts")
    if not dumped.exists():
        blob = dumped.with_suffix(".dtb")
        words = [
            ARCHS[arch].qemu,
            "-M",
            f"virt,dumpdtb={blob}",
            "-cpu",
            CPUS[arch],
            "-m",
            "256M",
            "-smp",
            f"{cpus}",
        ]
        subprocess.run([*words, "-display", "none"], check=True, stderr=subprocess.DEVNULL)
        words = ["dtc", "-q", "-I", "dtb", "-O", "dts", "-o", str(dumped), str(blob)]
        subprocess.run(words, check=True)
    return dumped.read_text() + f"/ {{ /delete-node/ memory@{RAM:x}; /delete-node/ chosen; }};\n"


def whole_tree(arch: str, dts: str, cmdline: str, initrd: int, cpus: int = 1) -> bytes:
    """The tree that the kernel gets, compiled."""
    own, cmdline = re.sub(r"/dts-v1/;", "", dts), cmdline.replace('"', '\\"')
    chosen = (
        f'/ {{ chosen {{ bootargs = "{cmdline}"; stdout-path = "/pl011@9000000";'
        f" linux,initrd-start = <{initrd:#x}>; linux,initrd-end = <{initrd + INITRD_BYTES:#x}>; }}; }};"
    )
    words = ["dtc", "-q", "-I", "dts", "-O", "dtb"]
    text = _qemu_tree(arch, cpus) + own + chosen
    return subprocess.run(words, input=text.encode(), check=True, capture_output=True).stdout


def first_bank(dts: str) -> int:
    """Bytes of memory that begin where RAM begins: its banks that touch are one, as memblock has them."""
    ranges = []
    for reg in re.findall(r'device_type = "memory"; reg = <([^>]*)>', dts):
        cells = [int(cell, 0) for cell in reg.split()]
        for at in range(0, len(cells), 4):
            base, size = (cells[at] << 32) + cells[at + 1], (cells[at + 2] << 32) + cells[at + 3]
            ranges.append((base, base + size))
    end = RAM
    for start, stop in sorted(ranges):
        end = max(end, stop) if start <= end else end
    return end - RAM


def _stub(arch: str, entry: int, tree: int) -> bytes:
    if arch == "arm64":
        return struct.pack("<6I2Q", *_STUB_ARM64, tree, entry)
    return struct.pack("<6I", *_STUB_ARM, tree, entry)


def _loaders(kernel: Kernel, guest: Guest, place: Path) -> list[str]:
    """QEMU's options for the virt machine: every part at its address, and where the CPU begins."""
    initrd = RAM + min(first_bank(guest.dts) // 2, SZ_128M)
    tree = -(-(initrd + INITRD_BYTES) // SZ_2M) * SZ_2M
    entry, stub = RAM + _ENTRY_OFFSET[kernel.arch], RAM + _STUB_OFFSET
    cmdline = command_line(kernel.arch, guest.cmdline)
    (place / "tree").write_bytes(whole_tree(kernel.arch, guest.dts, cmdline, initrd, guest.cpus))
    (place / "stub").write_bytes(_stub(kernel.arch, entry, tree))
    parts = (
        (kernel.image, entry),
        (place / "initrd", initrd),
        (place / "tree", tree),
        (place / "stub", stub),
    )
    words = []
    for file, address in parts:
        words += ["-device", f"loader,file={file},addr={address:#x},force-raw=on"]
    return [*words, "-device", f"loader,addr={stub:#x},cpu-num=0"]


def qemu(kernel: Kernel, guest: Guest, place: Path, accelerator: str) -> list[str]:
    """The whole command."""
    words = [ARCHS[kernel.arch].qemu, "-cpu", cpu(kernel), "-m", f"{guest.memory >> 20}M"]
    words += ["-smp", f"{guest.cpus}", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    if kernel.arch == "x86_64":
        words += ["-accel", accelerator, "-kernel", str(kernel.image)]
        cmdline = command_line(kernel.arch, guest.cmdline)
        return [*words, "-initrd", str(place / "initrd"), "-append", cmdline]
    machine = "virt,highmem=off" if kernel.arch == "arm" else "virt"
    return [*words, "-M", machine, *_loaders(kernel, guest, place)]


# what it says


def parse(line: str, boot: Boot) -> None:
    """One line of the recorder's protocol."""
    said = json.loads(line)
    if "n" in said:
        boot.outcomes[said.pop("n")] = said
    for key, value in said.items():
        if key == "boot":
            boot.log = [*(boot.log or []), _unstamped(value)]
        elif key == "script":
            boot.state.append(value)
        elif key == "program":
            boot.program.append(value)
        elif key == "dmesg":
            boot.dmesg.append(_unstamped(value))
        elif key in ("release", "seconds"):
            setattr(boot, key, value)


def _unstamped(line: str) -> str:
    return re.sub(r"^(<\d+>)?(\[ *\d+\.\d+\] )?", "", line)


def _cpu_seconds(pid: int) -> float:
    """What a process has used (proc(5): utime and stime are the 12th and 13th after the name)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read(process: subprocess.Popen[bytes], cpu_seconds: float, all_seconds: float) -> Boot:
    """What a guest says until it is done, has died or takes too long, however busy the host is."""
    deadline = time.monotonic() + all_seconds
    boot, text = Boot(), b""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not boot.complete and time.monotonic() < deadline and _cpu_seconds(process.pid) < cpu_seconds:
            if not selector.select(timeout=1):
                continue
            piece = process.stdout.read1(1 << 16)  # type: ignore[attr-defined]
            if not piece:
                break
            *lines, text = (text + piece).split(b"\n")
            for line in lines:
                at = line.find(b"@@ {")
                if at >= 0:
                    parse(line[at + 3 :].decode("latin-1").rstrip("\r"), boot)
                else:
                    boot.console += line.decode("latin-1") + "\n"
    return boot


@functools.cache
def accelerator(kernel: Kernel) -> str:
    """KVM for a kernel of the host's architecture, if one boots in it: /dev/kvm alone says little."""
    if kernel.arch != platform.machine() or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    trial = _run(kernel, Guest(1 << 28), initramfs(kernel.arch, b""), "kvm", *TRIAL_SECONDS)
    return "kvm" if trial.complete else "tcg"


def run(kernel: Kernel, guest: Guest, case: bytes = b"", program: bytes = b"") -> Boot:
    """Boot a kernel and let the recorder do a case, and run a program."""
    initrd = initramfs(kernel.arch, case, program)
    cpu_seconds = CPU_SECONDS + CPU_SECONDS_GIB * (guest.memory >> 30)
    return _run(kernel, guest, initrd, accelerator(kernel), cpu_seconds, ALL_SECONDS)


def _run(
    kernel: Kernel, guest: Guest, initrd: bytes, accelerator: str, cpu_seconds: float, all_seconds: float
) -> Boot:
    with tempfile.TemporaryDirectory(prefix="cmafs-oracle-") as name:
        place = Path(name)
        (place / "initrd").write_bytes(initrd)
        command = qemu(kernel, guest, place, accelerator)
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            try:
                return read(process, cpu_seconds, all_seconds)
            finally:
                process.kill()
