"""FIFOs of the mounted tree: one thread that feeds the files whose read blocks in the kernel.

libfuse's single loop cannot leave one read waiting and answer another, so a file that blocks (trace_pipe) is
shown as a FIFO: the kernel then lets its readers wait, and a thread of the server writes into it what the
file has to say. A descriptor kept in the mount would keep it busy, so a FIFO is opened when somebody reads:
below a directory that is known to be of our own file system, since what else may have come to stand at the
mount point is not ours to write into.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cmafs.fs.dentry import File, RegularFile
from cmafs.fs.open import OpenFiles
from cmafs.mount.libc import CLONE_FILES, unshare
from cmafs.mount.mounts import device_of, mount_table

#: Seconds between two looks for readers while the mount is in use, and for something new while there are
#: some. An open(2) that waited for a reader would keep the mount busy for as long as nobody reads.
PERIOD = 0.05
#: Seconds between two looks for readers once the mount has been idle for a while.
LONGEST_PERIOD = 1.0
#: How much longer each wait is than the one before, as long as nobody uses the mount.
_SLOWER = 1.25

#: Bytes asked for at a time; what Linux gives a pipe to hold.
CHUNK = 65536

#: Above all descriptors of a server: it has some twenty, and one for each buffer that it is just making.
_HIGHEST = 1 << 16

_OPEN = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(eq=False)
class _Fifo:
    """A FIFO that was looked up; ``pipe`` and ``file`` while somebody reads; ``rest`` waits for room."""

    path: bytes
    inode: RegularFile
    pipe: int = -1
    file: File | None = None
    rest: bytes = b""


class FifoFeeders:
    """The FIFOs of one mount; each is fed from its first lookup on: nobody can open it before.

    ``vfs`` opens and reads them; ``lock`` is held while it does, and by whoever calls add() and forget();
    ``failed`` takes what is a bug of ours. ``asleep``: nobody has used the mount for a while; kick() says
    otherwise.
    """

    def __init__(
        self, mountpoint: str, vfs: OpenFiles, lock: threading.Lock, failed: Callable[[BaseException], None]
    ) -> None:
        self._vfs = vfs
        self._mountpoint = os.fsencode(mountpoint)
        self._lock = lock
        self._failed = failed
        self._fifos: dict[bytes, _Fifo] = {}
        self._device = ""
        self._kept: tuple[int, ...] = ()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._woken = -1
        self._period, self._next_look = PERIOD, 0.0
        self.asleep = False

    def mounted(self, device: str, kept: tuple[int, ...]) -> None:
        """Which file system is ours: its major:minor, which everything in it has. Until then none is.

        ``kept``: the descriptors that ``failed`` writes to, besides 0 to 2.
        """
        self._device = device
        self._kept = kept

    def add(self, path: bytes, inode: RegularFile) -> None:
        """Feed the FIFO at a path below the mount point from here on."""
        self._fifos[path] = _Fifo(path, inode)
        if self._thread is None:
            self._start()

    def forget(self, path: bytes) -> None:
        """What stood at a path is gone; nobody reads it, or it could not have been removed."""
        self._fifos.pop(path, None)

    def _start(self) -> None:
        """Start the thread, unless the host has none to give: then the next FIFO tries again."""
        if self._woken < 0:
            try:
                self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            except OSError:
                return
        thread = threading.Thread(target=self._run, daemon=True)
        # the signals that end the server have to interrupt the main thread's read of /dev/fuse
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def kick(self) -> None:
        """The mount is in use again."""
        self.asleep = False
        os.eventfd_write(self._woken, 1)

    def stop(self) -> None:
        """End the thread; the mount is gone."""
        self._stopping = True
        if self._thread:
            os.eventfd_write(self._woken, 1)
            self._thread.join(2 * PERIOD)

    # the thread

    def _keep_own_table(self) -> None:
        """Have descriptors of this thread's own, and of the server's only what it needs.

        To open a FIFO is to ask the main thread for it. Were the server killed before that has answered, this
        thread would wait for good, with all who use the mount: the kernel answers in the server's place once
        nobody has /dev/fuse open, and threads end only after what they wait for.
        """
        with contextlib.suppress(OSError):  # a sandbox may refuse it
            unshare(CLONE_FILES)
            low = 3
            for kept in sorted({self._woken, *self._kept}):
                os.closerange(low, kept)
                low = max(low, kept + 1)
            os.closerange(low, _HIGHEST)

    def _run(self) -> None:
        self._keep_own_table()
        try:
            while not self._stopping:
                self._round()
        except Exception as error:
            self._failed(error)

    def _round(self) -> None:
        with self._lock:
            fifos = list(self._fifos.values())
        looks = time.monotonic() >= self._next_look
        for fifo in [fifo for fifo in fifos if looks or fifo.pipe >= 0]:
            try:
                self._look_at(fifo)
            except Exception as error:
                self._failed(error)
                self._close(fifo)
        if looks:
            self._next_look = time.monotonic() + self._period
            self.asleep = self._period > 2 * PERIOD
            self._period = min(self._period * _SLOWER, LONGEST_PERIOD)
        self._wait([fifo for fifo in fifos if fifo.pipe >= 0])

    def _wait(self, read: list[_Fifo]) -> None:
        """Until it is time for the next look, or a FIFO that somebody reads has room again."""
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        for fifo in read:
            poller.register(fifo.pipe, select.POLLOUT if fifo.rest else 0)
        seconds = PERIOD if read else max(0.0, self._next_look - time.monotonic())
        poller.poll(1000 * seconds)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._woken)
            self._period, self._next_look = PERIOD, 0.0

    def _look_at(self, fifo: _Fifo) -> None:
        """Begin where a reader came, end where the last one went, and feed in between."""
        if fifo.pipe < 0:
            self._open(fifo)
        if fifo.pipe >= 0 and not self._feed(fifo):
            self._close(fifo)

    def _open(self, fifo: _Fifo) -> None:
        """Open the FIFO if somebody reads it and it is still ours."""
        above, _, name = fifo.path.rpartition(b"/")
        directory = self._directory(above)
        if directory is None:
            return
        try:
            fifo.pipe = os.open(name, _OPEN, dir_fd=directory)
        except OSError:  # mostly ENXIO: nobody reads
            return
        finally:
            os.close(directory)
        with self._lock:
            if fifo in self._fifos.values():
                fifo.file = self._vfs.open(fifo.path, fifo.inode, os.O_RDONLY)

    def _directory(self, path: bytes) -> int | None:
        """A directory of the mount, open: where it was mounted or, once it was moved, where it is now."""
        directory = self._ours(self._mountpoint + path)
        if directory is None and (place := self._elsewhere()):
            self._mountpoint = place
            directory = self._ours(place + path)
        return directory

    def _ours(self, path: bytes) -> int | None:
        try:
            directory = os.open(path, _OPEN_DIRECTORY)
        except OSError:
            return None
        with contextlib.suppress(OSError):  # its instance is being removed
            if device_of(os.fstat(directory)) == self._device:
                return directory
        os.close(directory)
        return None

    def _elsewhere(self) -> bytes | None:
        """Another place that the whole file system is mounted at; none where that cannot be asked now."""
        with contextlib.suppress(OSError):
            for mount in mount_table():
                if mount.device == self._device and mount.root == "/":
                    return os.fsencode(mount.mountpoint)
        return None

    def _feed(self, fifo: _Fifo) -> bool:
        """Pass on what the file has now, as far as it fits the pipe; False if nobody reads any more."""
        if fifo.file is None:
            return False
        room = select.poll()
        room.register(fifo.pipe, 0)  # POLLERR alone: no reader is left
        if room.poll(0):
            return False
        try:
            while fifo.rest or self._read(fifo):
                fifo.rest = fifo.rest[os.write(fifo.pipe, fifo.rest) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return False
        return True

    def _read(self, fifo: _Fifo) -> bool:
        """Ask the file for more; False if it has nothing now."""
        assert fifo.file is not None
        with self._lock:
            fifo.rest = fifo.file.read(CHUNK, 0)
        return bool(fifo.rest) and not self._stopping

    def _close(self, fifo: _Fifo) -> None:
        if fifo.pipe >= 0:
            os.close(fifo.pipe)
        if fifo.file is not None:
            with self._lock:
                fifo.file.release()
        fifo.pipe, fifo.file, fifo.rest = -1, None, b""
