"""The Python API: boot a machine in process and use its files as root does, without FUSE.

>>> import cmafs
>>> machine = cmafs.Machine.boot(dts="virt", cmdline="cma=16M")
>>> machine.write("/sys/kernel/debug/cma/reserved/alloc", "4\\n")
2
>>> machine.read("/sys/kernel/debug/cma/reserved/used")
b'36\\n'

What only a mount can give is missing: other programs do not see the files, and nothing blocks.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmafs.abi import UnknownKernel
from cmafs.abi.config_sets import NAMES
from cmafs.drivers.dma_buf.heap import O_CLOEXEC, O_RDWR
from cmafs.fs.dma_buf import Buffers
from cmafs.fs.namei import Syscalls
from cmafs.fs.open import OpenFiles
from cmafs.fs.tree import build_tree
from cmafs.init.journal import BadSnapshot
from cmafs.init.main import start_kernel
from cmafs.init.options import BadOption, MachineOptions
from cmafs.lib.clock import Clock, ManualClock
from cmafs.lib.kconfig import ConfigError, FileLine, Placed
from cmafs.lib.panic import KernelPanic
from cmafs.lib.printk import encode
from cmafs.of.base import DtError
from cmafs.of.fdt import MAX_SOURCE_SIZE, load, read_named, unflatten

if TYPE_CHECKING:
    from cmafs.drivers.dma_buf.buffer import DmaBuf
    from cmafs.fs.dentry import Directory
    from cmafs.fs.namei import Stat
    from cmafs.init.machine import BootedMachine
    from cmafs.of.base import DeviceTree
    from cmafs.sim.log import SimLog

__all__ = [
    "BadOption",
    "BadSnapshot",
    "ConfigError",
    "DtError",
    "Files",
    "Heap",
    "HeapBuffer",
    "KernelPanic",
    "Machine",
    "MachineOptions",
    "RealClock",
    "UnknownKernel",
    "boot",
    "config_lines",
]

CONTROL, SIM_LOG, VERIFY, DMESG, WHY = "/sim/control", "/sim/log", "/sim/verify", "/sim/dmesg", "/sim/why"
SNAPSHOT = "/sim/snapshot"

#: What is wrong with what the user asked for, each in one line.
CANNOT_BOOT = (BadOption, BadSnapshot, ConfigError, DtError, UnknownKernel)


class RealClock:
    """Time as it passes once it was started: to the kernel all of its early boot is at 0."""

    def __init__(self) -> None:
        self._start = 0

    def start(self, at: int = 0) -> None:
        """Let time pass from now on; it is ``at`` nanoseconds since boot."""
        self._start = time.monotonic_ns() - at

    def now(self) -> int:
        """Nanoseconds since the machine's boot."""
        return time.monotonic_ns() - self._start if self._start else 0

    def advance(self, nanoseconds: int) -> None:
        """Wait."""
        time.sleep(nanoseconds / 1e9)


def config_lines(config: Iterable[str]) -> Iterator[str]:
    """Lines and names of sets as they are, else the lines of the file of that name.

    Raises BadOption.
    """
    for item in config:
        if "=" in item or item in NAMES or isinstance(item, Placed):
            yield item
            continue
        try:
            lines = read_named(item, MAX_SOURCE_SIZE).decode("utf-8").splitlines()
            if any("\0" in line for line in lines):
                raise ValueError
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a text file"
            raise BadOption(
                f"config: {item}: {why}; wanted is KEY=VALUE, a file of such lines, "
                "or a named set (`cmafs boards --configs`)"
            ) from None
        for number, line in enumerate(lines, 1):
            kind = FileLine if line.lstrip("# ").startswith("CONFIG_") else Placed
            yield kind.at(line, f"{item}:{number}: ")


def boot_tree(tree: DeviceTree, options: MachineOptions, clock: Clock | None = None) -> BootedMachine:
    """Boot a machine whose tree is not the one that its options name. Raises as ``Machine.boot`` does."""
    lines = tuple(config_lines(options.config))
    booted = start_kernel(tree, replace(options, config=lines), clock or ManualClock())
    if isinstance(clock, RealClock):
        clock.start()
    return booted


class HeapBuffer:
    """A buffer of a heap; ``pfn`` its first page, ``size`` in bytes. As a context it is closed at its end."""

    def __init__(self, buffers: Buffers, buffer: DmaBuf) -> None:
        self._buffers, self._buffer = buffers, buffer
        self.pfn, self.size = buffer.pfn, buffer.size

    def set_name(self, name: str) -> None:
        """``DMA_BUF_SET_NAME``: at most 31 bytes. Raises OSError EINVAL."""
        self._buffers.set_name(self._buffer.ino, encode(name) + b"\0")

    def close(self) -> None:
        """Drop the only reference; a second call does nothing."""
        if not self._buffer.released:
            self._buffers.release(self._buffer.ino)

    def __enter__(self) -> HeapBuffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Heap:
    """A heap of a machine in process."""

    def __init__(self, booted: BootedMachine, name: str) -> None:
        self._booted, self._name = booted, name

    def alloc(self, size: int) -> HeapBuffer:
        """``DMA_HEAP_IOCTL_ALLOC``: a buffer of ``size`` bytes, whole pages.

        Raises OSError EINVAL, ENOMEM.
        """
        task = self._booted.current()
        buffers = Buffers(self._booted)
        made = buffers.allocate(self._name, size, O_RDWR | O_CLOEXEC, task.pid, task.comm)
        return HeapBuffer(buffers, made)


class Files:
    """What a booted machine and a mounted one have alike: files by absolute path, and what they say.

    ``read`` gives bytes, ``read_text`` text; ``write`` takes either. Every call raises the kernel's OSError.
    """

    def read(self, path: str) -> bytes:
        """All of a file."""
        raise NotImplementedError

    def write(self, path: str, data: bytes | str) -> int:
        """Open a file as the shell's ``>`` does, write once, close; how many bytes were taken."""
        raise NotImplementedError

    def read_text(self, path: str) -> str:
        """All of a file as text; what is no UTF-8 is replaced."""
        return self.read(path).decode("utf-8", "replace")

    def control(self, *lines: str) -> None:
        """Give the machine something to do: lines of sim/control. Raises OSError, the reason as its text."""
        for line in lines:
            try:
                self.write(CONTROL, f"{line}\n")
            except OSError as error:
                said = self.read_text(SIM_LOG).splitlines()
                raise OSError(error.errno, said[-1] if said else str(error)) from None

    def dmesg(self) -> str:
        """The kernel log in dmesg's format."""
        return self.read_text(DMESG)

    def why(self) -> str:
        """sim/why: what an allocation can get from each area, and why those that failed did."""
        return self.read_text(WHY)

    def verify(self) -> list[str]:
        """The violated consistency rules; none on a sound machine."""
        lines = self.read_text(VERIFY).splitlines()
        return [] if lines == ["ok"] else lines


class Machine(Files):
    """A booted machine and its files by path, as root sees them, in this process and without a mount.

    ``booted`` is what the boot made, for those who look inside; ``root`` the tree; ``syscalls`` has the
    system calls with descriptors (open, pread, lseek, ioctl, …).
    """

    def __init__(self, booted: BootedMachine) -> None:
        self.booted = booted
        self.root: Directory = build_tree(booted)
        self.vfs = OpenFiles(booted.clock)
        self.syscalls = Syscalls(self.root, self.vfs)

    @classmethod
    def boot(
        cls, options: MachineOptions | None = None, *, clock: Clock | None = None, **chosen: Any
    ) -> Machine:
        """Boot the machine of ``options``, or of its fields as keywords: ``boot(dts="rpi4", kernel="6.1")``.

        Without ``clock`` its time stands still until told to pass. Raises DtError, UnknownKernel,
        ConfigError, BadOption, each one line for the user, and KernelPanic where a real
        kernel would not survive.
        """
        options = options or MachineOptions.named(**chosen)
        return cls(boot_tree(load(options.dts, options.overlays), options, clock))

    @classmethod
    def load(cls, file: str | Path, *, clock: RealClock | None = None) -> Machine:
        """The machine that ``save`` or `cmafs save` wrote to a file.

        Its time goes on where it was, with ``clock`` by itself. Raises BadSnapshot, one line for the user.
        """
        from cmafs.fs.sim.snapshot import MAX_FILE, parse, replay

        try:
            data = read_named(str(file), MAX_FILE)
            found = parse(data)
            booted = start_kernel(
                unflatten(found.source, found.tree), found.options, ManualClock(found.start)
            )
            machine = cls(booted)
            booted.clock.clock = ManualClock(found.now)  # at which all is closed that nobody has here
            replay(found, booted, machine.root, machine.syscalls, machine.vfs)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise BadSnapshot(f"{file}: {why}") from None
        if clock is not None:
            clock.start(found.now)
            booted.clock.clock = clock
        return machine

    def save(self, file: str | Path) -> None:
        """Write the machine to a file, for ``load`` and `--load`. Raises OSError, EFBIG past its limits."""
        Path(file).write_bytes(self.read(SNAPSHOT))

    def read(self, path: str) -> bytes:
        """All of a file."""
        return self.syscalls.read_file(path)

    def write(self, path: str, data: bytes | str) -> int:
        """Open a file as the shell's ``>`` does, write once, close; how many bytes were taken."""
        return self.syscalls.write_file(path, encode(data) if isinstance(data, str) else data)

    def listdir(self, path: str) -> list[str]:
        """The names in a directory."""
        return self.syscalls.listdir(path)

    def readlink(self, path: str) -> str:
        """Where a symbolic link leads."""
        return self.syscalls.readlink(path)

    def stat(self, path: str) -> Stat:
        """Mode, size, owner and times; of the file that a link leads to."""
        return self.syscalls.stat(path)

    def lstat(self, path: str) -> Stat:
        """As ``stat``, of a link itself."""
        return self.syscalls.lstat(path)

    def chmod(self, path: str, mode: int) -> None:
        """Change a file's permissions."""
        self.syscalls.chmod(path, mode)

    def truncate(self, path: str, length: int) -> None:
        """What truncate(2) does, to a size in bytes."""
        self.syscalls.truncate(path, length)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """Make a directory, where the kernel allows one: below tracing/instances."""
        self.syscalls.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        """Remove such a directory."""
        self.syscalls.rmdir(path)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self.syscalls.unlink(path)

    @property
    def clock(self) -> Clock:
        """The machine's time; ``advance(nanoseconds)`` lets a manual one pass."""
        return self.booted.clock

    @property
    def simlog(self) -> SimLog:
        """The simulator's own log."""
        return self.booted.simlog

    def dma_heap(self, name: str) -> Heap:
        """The heap ``/dev/dma_heap/NAME``. Raises OSError ENOENT."""
        if name not in self.booted.dma_heaps:
            there = ", ".join(self.booted.dma_heaps) or "none"
            raise OSError(errno.ENOENT, f"no heap {name}; there are: {there}")
        return Heap(self.booted, name)


boot = Machine.boot
