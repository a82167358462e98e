"""Memory runs out at any moment of a request: it is answered whole, or nothing is answered any more.

The interpreter's own tests can make its allocator fail from the n-th call on; the handlers are called as
libfuse calls them, each time in a process of its own.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import random
import signal
from collections.abc import Callable, Iterator
from functools import partial

import fuse
import pytest
from soak_support import SOAK, new_seed

from cmafs.api import Machine
from cmafs.mount.fuse_ops import FuseMount

_testcapi = pytest.importorskip("_testcapi")

#: Of its allocations that fail in turn, of each request.
TRIES = 2 if SOAK else 15
#: Allocations that fail one after the other: CPython 3.11 itself goes round for ever where all do.
MANY = 50
SIZE = 1 << 16
AREA = b"/sys/kernel/debug/cma/reserved/"
CONTROL, TRACING = b"/sim/control", b"/sys/kernel/tracing/"
#: What the machine is like before: something of every kind is there to be moved, pinned, freed.
BEFORE = b"""\
spawn task anon 1M
spawn cache file 512K
spawn driver kernel 64K
pin task 2
dma_alloc cma_test 64K
"""
WRITES = [
    (CONTROL, b"spawn new anon 512K\n"),
    (CONTROL, b"spawn new slab 64K\n"),
    (CONTROL, b"grow task 512K\n"),
    (CONTROL, b"shrink task 256K\n"),
    (CONTROL, b"kill task\n"),
    (CONTROL, b"pin task 5\n"),
    (CONTROL, b"unpin task\n"),
    (CONTROL, b"mlock task\n"),
    (CONTROL, b"dirty cache 9\n"),
    (CONTROL, b"dma_alloc cma_test 128K\n"),
    (CONTROL, b"dma_free cma_test 64K\n"),
    (CONTROL, b"spawn one anon 4K\nnonsense\n"),
    (AREA + b"alloc", b"300\n"),
    (AREA + b"alloc", b"4097\n"),
    (AREA + b"free", b"8\n"),
    (b"/proc/sys/vm/drop_caches", b"3\n"),
    (b"/proc/sys/vm/compact_memory", b"1\n"),
    (TRACING + b"set_event", b"cma:*\n"),
    (TRACING + b"trace_marker", b"word\n"),
    (TRACING + b"events/cma/cma_release/filter", b"count > 3\n"),
]
READS = [AREA + b"bitmap", b"/proc/meminfo", b"/sim/verify", b"/sim/tasks", TRACING + b"trace", b"/dev/kmsg"]


class Handlers:
    """The handlers of a mount, as libfuse has them; ``ended`` counts its orders to end."""

    def __init__(self) -> None:
        self.machine = Machine.boot(cmdline="cma=16M", memory="64M")
        self.machine.write("/sim/control", BEFORE)
        self.machine.write(os.fsdecode(TRACING) + "set_event", b"cma:*\n")
        self.machine.write(os.fsdecode(AREA) + "alloc", b"24\n")
        self.mount = FuseMount(
            self.machine.root, self.machine.vfs, "/", lambda: None, self.machine.simlog.report
        )
        self.ended = 0
        self.mount._end = self._end  # type: ignore[assignment]
        self.calls = self.mount._operations()
        self.info = ctypes.pointer(fuse.fuse_file_info())

    def _end(self) -> None:
        self.ended += 1

    def request(self, path: bytes, data: bytes, first: int, many: int) -> bool:
        """Open, write ``data`` or else read, close: whether there was memory for all of it.

        ``many`` allocations from number ``first`` on fail.
        """
        self.info.contents.flags = os.O_WRONLY | os.O_TRUNC if data else os.O_RDONLY
        buffer = ctypes.cast(ctypes.create_string_buffer(data, SIZE), ctypes.POINTER(ctypes.c_byte))
        transfer, size = (self.calls.write, len(data)) if data else (self.calls.read, SIZE)
        _testcapi.set_nomemory(first, first + many)
        try:
            if self.calls.open(path, self.info) == 0:
                transfer(None, buffer, size, 0, self.info)
                self.calls.release(None, self.info)
        except (MemoryError, ctypes.ArgumentError):  # of this caller
            return False
        finally:
            _testcapi.remove_mem_hooks()
        return not self.ended

    def wrong(self) -> str:
        """What must not be, after a request."""
        answer = self.calls.getattr(b"/", ctypes.pointer(fuse.c_stat()))
        if answer:
            return "" if answer == -errno.ENOMEM and self.ended else f"{answer}, ended {self.ended} times"
        wrong = self.machine.verify()
        return "\n".join((*wrong, *self.machine.simlog)) if wrong else ""


def in_a_fork(call: Callable[[], object]) -> str:
    """What a call gives in a process of its own, which a bug of the interpreter may end too."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(call()).encode()[:4096])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


@pytest.fixture(scope="module")
def handlers() -> Iterator[Handlers]:
    made = Handlers()
    for path in READS:
        made.request(path, b"", 1 << 30, 1)  # what is made at a first call is made
    gc.freeze()
    yield made
    gc.unfreeze()


@pytest.mark.soak(0.5)
@pytest.mark.parametrize(("path", "data"), [*WRITES, *((path, b"") for path in READS)])
def test_whole_or_not_at_all(handlers: Handlers, path: bytes, data: bytes) -> None:
    """One allocation fails, or that and some after it."""

    def short(first: int, many: int) -> str:
        handlers.request(path, data, first, many)
        return handlers.wrong()

    total = 1
    while in_a_fork(partial(handlers.request, path, data, total, MANY)) != "True":
        total *= 2
    for number in random.Random(new_seed(1)).sample(range(total), min(total, TRIES)):
        for many in (1, MANY):
            wrong = in_a_fork(partial(short, number, many))
            assert not wrong, (number, many, wrong)


@pytest.mark.parametrize("many", [1, 3, 10, 1000])
def test_the_end_needs_no_memory(monkeypatch: pytest.MonkeyPatch, handlers: Handlers, many: int) -> None:
    """A mount that has no memory to say so ends, too."""
    killed: list[int] = [0]

    def kill(_pid: int, number: int) -> None:
        killed[0] = number

    monkeypatch.setattr(os, "kill", kill)
    for first in range(40):
        mount = FuseMount(handlers.machine.root, handlers.machine.vfs, "/", lambda: None, str)
        killed[0], error = 0, MemoryError()
        _testcapi.set_nomemory(first, first + many)
        try:
            mount.failed(error)
        except MemoryError:
            pass
        finally:
            _testcapi.remove_mem_hooks()
        assert killed[0] == signal.SIGTERM, first
