"""FIFOs of the mounted tree: a thread each that feeds a file whose read blocks in the kernel.

libfuse's single loop cannot leave one read waiting and answer another, so a file that blocks (trace_pipe) is
shown as a FIFO: the kernel then lets its readers wait, and a thread of the server writes into it what the
file has to say.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import traceback
from collections.abc import Callable

from cmafs.fs.dentry import File, RegularFile

#: Seconds between two looks for a reader, or for something new to read. An open(2) that waited for a reader
#: would keep the mount busy for as long as nobody reads.
PERIOD = 0.05

#: Bytes asked for at a time; what Linux gives a pipe to hold.
CHUNK = 65536


class FifoFeeders:
    """The FIFOs of one mount. A feeder begins with the first lookup of its name: nobody can open it before.

    ``lock`` is held while the file is read; ``report`` takes the traceback of a bug of ours.
    """

    def __init__(self, mountpoint: str, lock: threading.Lock, report: Callable[[str], None]) -> None:
        self._mountpoint = mountpoint
        self._lock = lock
        self._report = report
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, path: str, inode: RegularFile) -> None:
        """Feed the FIFO at a path below the mount point from here on."""
        thread = threading.Thread(target=self._run, args=(self._mountpoint + path, inode), daemon=True)
        self._threads.append(thread)
        # the signals that end the server have to interrupt the main thread's read of /dev/fuse
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def stop(self) -> None:
        """End the threads; the mount is gone."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * PERIOD)

    def _run(self, path: str, inode: RegularFile) -> None:
        while not self._stopping.wait(PERIOD):
            try:
                pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno in (errno.ENXIO, errno.EINTR):  # nobody reads
                    continue
                return  # the name or the mount is gone
            try:
                self._serve(pipe, inode)
            except Exception:
                self._report(traceback.format_exc())
            finally:
                os.close(pipe)

    def _serve(self, pipe: int, inode: RegularFile) -> None:
        """Feed until the last reader is gone."""
        with self._lock:
            file = inode.fops.open(inode, os.O_RDONLY)
        poller = select.poll()
        poller.register(pipe, 0)  # POLLERR alone: no reader is left
        try:
            while not poller.poll(0) and not self._stopping.is_set():
                if not self._feed(pipe, file):
                    poller.poll(PERIOD * 1000)
        finally:
            with self._lock:
                file.release()

    def _feed(self, pipe: int, file: File) -> bool:
        """Pass on what the file has now; False if that is nothing."""
        with self._lock:
            data = file.read(CHUNK, 0)
        rest = data
        while rest and not self._stopping.is_set():
            try:
                rest = rest[os.write(pipe, rest) :]
            except BlockingIOError:
                select.select([], [pipe], [], PERIOD)
            except BrokenPipeError:
                return True
        return bool(data)
