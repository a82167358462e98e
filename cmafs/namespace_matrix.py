"""`cmafs run --kernel 5.10,6.12`: one run after the other, each line of output with its kernel before it."""

from __future__ import annotations

import os
import selectors
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from cmafs.cli_options import CommandFailed
from cmafs.namespace import CANNOT_RUN
from cmafs.namespace_syscalls import set_pdeathsig

_CHUNK = 65536  # bytes read at a time


def run_each(kernels: Sequence[str], run: Callable[[str], int]) -> int:
    """Run once for each kernel and print a table at the end: 0, or 1 if any run failed."""
    results = {kernel: _run_prefixed(kernel, run) for kernel in kernels}
    width = max(map(len, ("KERNEL", *results)))
    print(f"{'KERNEL':<{width}}  RESULT")
    for kernel, status in results.items():
        print(f"{kernel:<{width}}  {f'failed ({status})' if status else 'ok'}")
    return 1 if any(results.values()) else 0


def _run_prefixed(kernel: str, run: Callable[[str], int]) -> int:
    """One run in a process of its own, which dies with this one; its exit status, 128+N after signal N."""
    outputs = {target: os.pipe() for target in (1, 2)}
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        for target, (_, writer) in outputs.items():
            os.dup2(writer, target)
        _child(kernel, run)
    for _, writer in outputs.values():
        os.close(writer)
    _copy({reader: target for target, (reader, _) in outputs.items()}, f"[{kernel}] ".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def _child(kernel: str, run: Callable[[str], int]) -> NoReturn:
    status = CANNOT_RUN
    try:
        set_pdeathsig(signal.SIGKILL)
        status = run(kernel)
    except CommandFailed as failure:
        os.write(2, f"cmafs: {failure}\n".encode())
        status = failure.status
    finally:
        sys.stderr.flush()
        os._exit(status)


def _copy(targets: dict[int, int], prefix: bytes) -> None:
    """Copy what is read, whole lines at a time, until every writer is gone."""
    pending = dict.fromkeys(targets, b"")
    with selectors.DefaultSelector() as selector:
        for reader in targets:
            selector.register(reader, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, _CHUNK)
                lines = (pending[key.fd] + data).split(b"\n")
                pending[key.fd] = lines.pop()
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    lines += [pending[key.fd]] if pending[key.fd] else []
                _write(targets[key.fd], b"".join(prefix + line + b"\n" for line in lines))


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
