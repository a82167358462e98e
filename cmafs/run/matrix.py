"""`cmafs run --kernel 5.10,6.12`: one run after the other, each line of output with its kernel before it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from cmafs.mount.ending import CANNOT_RUN
from cmafs.mount.prctl import set_pdeathsig

_CHUNK = 65536  # bytes read at a time


class Input:
    """Standard input, which every run gets from its beginning: a file is rewound, a pipe repeated."""

    def __init__(self) -> None:
        self._start: int | None = None
        self._is_stream = self._ended = False
        self._kept = bytearray()
        with contextlib.suppress(OSError):  # closed
            mode = os.fstat(0).st_mode
            self._is_stream = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            self._start = os.lseek(0, 0, os.SEEK_CUR) if stat.S_ISREG(mode) else None

    def begin(self) -> Feed | None:
        """Prepare for one run: what feeds it, where that takes more than to rewind."""
        if self._start is not None:
            os.lseek(0, self._start, os.SEEK_SET)
        return Feed(self) if self._is_stream else None

    def after(self, position: int) -> bytes:
        """The next bytes of what was read of the input behind a position."""
        return bytes(self._kept[position : position + _CHUNK])

    def read(self) -> None:
        """Read once more."""
        data = os.read(0, _CHUNK)
        self._kept += data
        self._ended = not data

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""
        return self._ended


class Feed:
    """The pipe that one run has as its standard input, and how much of the input went into it."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._position = 0
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Wait for what is needed next: room in the pipe, or more input. At the end close the pipe."""
        for descriptor in (0, self.writer):
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(descriptor)
        if self.writer < 0:
            return
        if self._source.after(self._position):
            selector.register(self.writer, selectors.EVENT_WRITE)
        elif self._source.ended:
            self.close()
        else:
            selector.register(0, selectors.EVENT_READ)

    def step(self, descriptor: int) -> None:
        """Read or write, whichever the descriptor is ready for."""
        if descriptor == 0:
            self._source.read()
            return
        try:
            self._position += os.write(self.writer, self._source.after(self._position))
        except BrokenPipeError:  # nobody reads any more
            self.close()

    def close(self) -> None:
        """Let the run see the end."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1


def run_each(kernels: Sequence[str], run: Callable[[str], int]) -> int:
    """Run once for each kernel and print a table at the end: 0, or 1 if any run failed."""
    source = Input()
    results = {kernel: _run_prefixed(kernel, run, source.begin()) for kernel in kernels}
    width = max(map(len, ("KERNEL", *results)))
    print(f"{'KERNEL':<{width}}  RESULT")
    for kernel, status in results.items():
        print(f"{kernel:<{width}}  {f'failed ({status})' if status else 'ok'}")
    return 1 if any(results.values()) else 0


def _run_prefixed(kernel: str, run: Callable[[str], int], feed: Feed | None) -> int:
    """One run in a process of its own, which dies with this one; its exit status, 128+N after signal N."""
    outputs = {target: os.pipe() for target in (1, 2)}
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        for target, (_, writer) in outputs.items():
            os.dup2(writer, target)
        if feed:
            os.dup2(feed.reader, 0)
            feed.close()  # or the end of the input would never be seen
        _child(kernel, run)
    for _, writer in outputs.values():
        os.close(writer)
    if feed:
        os.close(feed.reader)
    _copy({reader: target for target, (reader, _) in outputs.items()}, f"[{kernel}] ".encode(), feed)
    if feed:
        feed.close()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def _child(kernel: str, run: Callable[[str], int]) -> NoReturn:
    status = CANNOT_RUN
    try:
        set_pdeathsig(signal.SIGKILL)
        status = run(kernel)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _copy(targets: dict[int, int], prefix: bytes, feed: Feed | None) -> None:
    """Copy what is read, whole lines at a time, until every writer is gone; feed the run meanwhile."""
    pending = dict.fromkeys(targets, b"")
    with selectors.DefaultSelector() as selector:
        for reader in targets:
            selector.register(reader, selectors.EVENT_READ)
        while pending:
            if feed:
                feed.watch(selector)
            for key, _ in selector.select():
                if key.fd not in targets:
                    feed.step(key.fd) if feed else None
                    continue
                data = os.read(key.fd, _CHUNK)
                lines = (pending[key.fd] + data).split(b"\n")
                pending[key.fd] = lines.pop()
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    lines += [pending[key.fd]] if pending[key.fd] else []
                    del pending[key.fd]
                _write(targets[key.fd], b"".join(prefix + line + b"\n" for line in lines))


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
