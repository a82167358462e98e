"""`cmafs run --kernel 5.10,6.12`: a run for each, several at a time, each line with its kernel before it.

The output is that of one run after the other, whatever the number at a time: a run's is kept until its turn.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from cmafs.mount.ending import CANNOT_RUN
from cmafs.mount.libc import set_pdeathsig
from cmafs.run.progress import Progress
from cmafs.run.signals import exit_status

_CHUNK = 65536  # bytes read at a time
#: Bytes of a line that are kept until it ends; and of a run until its turn has come: then it has to wait.
_LONGEST_LINE, _MOST_WAITING = 1 << 20, 1 << 24


class Input:
    """Standard input, which every run gets from its beginning: a file is opened again, a pipe repeated."""

    def __init__(self) -> None:
        self._start: int | None = None
        self._is_stream = self.ended = False
        self._kept = tempfile.SpooledTemporaryFile(_MOST_WAITING)  # noqa: SIM115 - as long as the runs
        with contextlib.suppress(OSError):  # closed
            mode = os.fstat(0).st_mode
            self._is_stream = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            self._start = os.lseek(0, 0, os.SEEK_CUR) if stat.S_ISREG(mode) else None

    def begin(self) -> Feed | None:
        """Prepare for one run: what feeds it, where that takes more than to open a file again."""
        return Feed(self) if self._is_stream else None

    def open_again(self) -> None:
        """In the process of a run: a file from where it was, at a position that no other run moves."""
        if self._start is None:
            return
        with contextlib.suppress(OSError):  # it cannot be opened again: then all runs share it
            again = os.open("/proc/self/fd/0", os.O_RDONLY)
            os.dup2(again, 0)
            os.close(again)
        os.lseek(0, self._start, os.SEEK_SET)

    def after(self, position: int) -> bytes:
        """The next bytes of what was read of the input behind a position."""
        self._kept.seek(position)
        return self._kept.read(_CHUNK)

    def read(self) -> None:
        """Read once more."""
        data = os.read(0, _CHUNK)
        self._kept.seek(0, os.SEEK_END)
        self._kept.write(data)
        self.ended = not data


class Feed:
    """The pipe that one run has as its standard input, and how much of the input went into it."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._position = 0
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)

    def wants(self) -> tuple[int, int] | None:
        """(descriptor, event) to wait for: room in the pipe, or more input. At the end closes the pipe."""
        if self.writer >= 0 and self._source.after(self._position):
            return self.writer, selectors.EVENT_WRITE
        if self.writer >= 0 and not self._source.ended:
            return 0, selectors.EVENT_READ
        self.close()
        return None

    def write(self) -> None:
        """Write as much as there is room for."""
        try:
            self._position += os.write(self.writer, self._source.after(self._position))
        except BrokenPipeError:  # nobody reads any more
            self.close()

    def close(self) -> None:
        """Let the run see the end."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1


class _Output:
    """What a run writes to one descriptor of ours: whole lines, but for one that is very long."""

    def __init__(self, target: int, prefix: bytes) -> None:
        self.target = target
        self._prefix = prefix
        self._unfinished: list[bytes] = []
        self._in_line = False

    def take(self, data: bytes) -> bytes:
        """What can be said now of what was read, with the prefix before each line; b"" is the end."""
        self._unfinished.append(data)
        if data and b"\n" not in data and sum(map(len, self._unfinished)) < _LONGEST_LINE:
            return b""
        text = b"".join(self._unfinished)
        if not data:
            ready = text + b"\n" if text or self._in_line else b""
        else:
            ready = text[: text.rfind(b"\n") + 1] or text
        self._unfinished = [text[len(ready) :]]
        return self._prefixed(ready)

    def _prefixed(self, ready: bytes) -> bytes:
        if not ready:
            return b""
        start = b"" if self._in_line else self._prefix
        self._in_line = not ready.endswith(b"\n")
        lines = ready.removesuffix(b"\n").replace(b"\n", b"\n" + self._prefix)
        return start + lines + (b"" if self._in_line else b"\n")


@dataclass(eq=False)
class _Run:
    """One run on its way: its process, its pipes, what is to be said.

    ``outputs``: by the descriptor to read; ``lines``: (descriptor of ours, bytes); ``waiting``: their length.
    """

    kernel: str
    child: int
    outputs: dict[int, _Output]
    feed: Feed | None
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    waiting: int = 0

    def read(self, descriptor: int) -> None:
        """Take what a run has written."""
        data, output = os.read(descriptor, _CHUNK), self.outputs[descriptor]
        ready = output.take(data)
        self.lines.append((output.target, ready))
        self.waiting += len(ready)
        if not data:
            del self.outputs[descriptor]
            os.close(descriptor)

    def say(self) -> None:
        """Write what is to be said."""
        for target, data in self.lines:
            _write(target, data)
        self.lines.clear()
        self.waiting = 0

    def end(self) -> int:
        """Its exit status, as of a shell."""
        if self.feed:
            self.feed.close()
        return exit_status(os.waitpid(self.child, 0)[1])


def run_each(kernels: Sequence[str], run: Callable[[str], int], jobs: int) -> int:
    """Run once for each kernel, ``jobs`` at a time, and print a table: 0, or 1 if any run failed."""
    source, progress = Input(), Progress(len(kernels), "kernels")
    waiting, running = iter(kernels), list[_Run]()
    results: dict[str, int] = {}
    while len(results) < len(kernels):
        active = [one for one in running if one.outputs]
        for kernel in _some(waiting, jobs - len(active)):
            running.append(_start(kernel, run, source, running))
        _wait(running, source)
        while running:  # what is to be said is that of the first, and of the next when the first has ended
            if running[0].lines:
                progress.clear()
            running[0].say()
            if running[0].outputs:
                break
            first = running.pop(0)
            results[first.kernel] = first.end()
        progress.show(len(results))
    progress.clear()
    _table(results)
    return 1 if any(results.values()) else 0


def _some(items: Iterator[str], number: int) -> Iterator[str]:
    return (item for _, item in zip(range(number), items, strict=False))


def _table(results: dict[str, int]) -> None:
    width = max(map(len, ("KERNEL", *results)))
    print(f"{'KERNEL':<{width}}  RESULT")
    for kernel, status in results.items():
        print(f"{kernel:<{width}}  {f'failed ({status})' if status else 'ok'}")


def _start(kernel: str, run: Callable[[str], int], source: Input, others: Sequence[_Run]) -> _Run:
    """A run in a process of its own, which dies with this one."""
    feed = source.begin()
    outputs = {target: os.pipe() for target in (1, 2)}
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        for target, (_, writer) in outputs.items():
            os.dup2(writer, target)
        for other in others:  # or the end of their input would never be seen
            if other.feed:
                other.feed.close()
        if feed:
            os.dup2(feed.reader, 0)
            feed.close()
        _child(kernel, run, source)
    for _, writer in outputs.values():
        os.close(writer)
    if feed:
        os.close(feed.reader)
    prefix = f"[{kernel}] ".encode()
    return _Run(kernel, child, {reader: _Output(to, prefix) for to, (reader, _) in outputs.items()}, feed)


def _child(kernel: str, run: Callable[[str], int], source: Input) -> NoReturn:
    status = CANNOT_RUN
    try:
        set_pdeathsig(signal.SIGKILL)
        source.open_again()
        status = run(kernel)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _wait(running: Sequence[_Run], source: Input) -> None:
    """Wait until a run has written, or takes more of the input; do what that asks for."""
    with selectors.DefaultSelector() as selector:
        for one in running:
            for reader in one.outputs if one.waiting < _MOST_WAITING else ():
                selector.register(reader, selectors.EVENT_READ, one)
            wanted = one.feed.wants() if one.feed and one.outputs else None
            if wanted and wanted[0] not in selector.get_map():
                selector.register(*wanted, one)
        for key, _ in selector.select():
            one = key.data
            if key.fd == 0:
                source.read()
            elif one.feed and key.fd == one.feed.writer:
                one.feed.write()
            else:
                one.read(key.fd)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
