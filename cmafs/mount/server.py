"""The server of a mounted machine: in the foreground, or a background process that reports to its parent."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import gc
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cmafs.init.task import Task
from cmafs.lib.printk import encode
from cmafs.mount.ending import explain
from cmafs.mount.libc import set_pdeathsig
from cmafs.mount.mounts import NAME, MountFailed, check_device, check_mountpoint, topmost
from cmafs.mount.presence import DESCRIPTORS, announce

if TYPE_CHECKING:
    from cmafs.api import Machine
    from cmafs.mount.fuse_ops import FuseMount

Options = Mapping[str, str | bool]

_READY = b"ready"

#: The exit status of a background process that had no memory to go on with.
OUT_OF_MEMORY = errno.ENOMEM

#: What begins /proc/PID/status, and the last of a process's pids, its own namespace's; bytes of the file.
_STATUS_NAME = re.compile(rb"Name:\t(.*)\n")
#: ``fs/proc/array.c:proc_task_name()@v6.12`` writes a newline and a backslash so.
_ESCAPED = re.compile(rb"\\(.)")
_STATUS_NSPID = re.compile(rb"\nNSpid:[\t0-9]*\t([0-9]+)\n")
_STATUS_SIZE = 1 << 14

#: What ends a server.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Objects: few cycles are made while serving, and a collection takes as long as a dozen calls.
_GC_THRESHOLD = 100_000


def parse_options(words: list[str]) -> dict[str, str | bool]:
    """The values of ``-o``, comma separated, as fusepy wants them: a name alone is True."""
    options: dict[str, str | bool] = {}
    for word in ",".join(words).split(","):
        name, equals, value = word.partition("=")
        if name:
            options[name] = value if equals else True
    return options


def _nothing() -> None:
    """What a server in the foreground has to do once the tree answers."""


def serve(
    machine: Machine,
    mountpoint: str,
    options: Options,
    *,
    log: str | None = None,
    on_ready: Callable[[], None] = _nothing,
    beside: Callable[[FuseMount], None] | None = None,
) -> None:
    """Mount a machine and answer until it is unmounted or a signal ends it.

    ``log``: a file for the machine's own log; ``on_ready`` is called once the tree answers, ``beside`` just
    before, with the mount, to start what else answers. Raises MountFailed, without the reason that libfuse
    printed.
    """
    kept = (_log_to(machine, log, mountpoint),) if log else ()
    mount_class = _fuse_mount()
    place = os.path.realpath(mountpoint)
    presence: list[int] = []
    failures: list[BaseException] = []

    def ready() -> None:
        try:
            if top := topmost(place):  # to ask for a file of the tree would be to wait for oneself
                with contextlib.suppress(OSError):  # unmounting then just does not wait
                    presence.extend(announce(top.device))
                mount.device = top.device
                mount.feeders.mounted(top.device, kept)
            if beside is not None:
                beside(mount)
            on_ready()
        except BaseException as error:
            # whoever waits for the mount is to be told: by serve(), when it is gone
            failures.append(error)
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

    for number in (signal.SIGTERM, signal.SIGHUP):  # libfuse takes only what nobody else has taken
        signal.signal(number, signal.SIG_DFL)
    # a signal between mount(2) and libfuse's handlers would leave a mount without a server
    signal.pthread_sigmask(signal.SIG_SETMASK, _ENDING)
    gc.freeze()  # what the boot made stays
    gc.set_threshold(_GC_THRESHOLD, 50, 50)
    machine.booted.current = functools.partial(_current, os.open("/proc", os.O_RDONLY | os.O_DIRECTORY))
    names = {"fsname": NAME, "subtype": NAME}
    mount = mount_class(machine.root, machine.vfs, place, ready, machine.simlog.report)
    try:
        mount.main({**names, **options})
    except RuntimeError:
        raise MountFailed(f"{mountpoint}: libfuse cannot mount") from None
    finally:
        for descriptor in presence:
            os.close(descriptor)
    if failures:
        raise failures[0]


def _current(proc: int) -> Task:
    """``current``: the process whose system call is being answered."""
    from cmafs.mount.fuse_ops import caller_pid

    return task_of(proc, caller_pid())


def task_of(proc: int, pid: int) -> Task:
    """A process under the pid that it has for itself.

    ``proc``: a descriptor of /proc, which `cmafs run` replaces by that of CMD's own pid namespace.
    """
    try:
        descriptor = os.open(f"{pid}/status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            status = os.read(descriptor, _STATUS_SIZE)
        finally:
            os.close(descriptor)
    except OSError:  # also while it is read, if the caller was killed
        return Task(pid, "<...>")  # what the tracer prints of a task that it does not know
    name, own = _STATUS_NAME.match(status), _STATUS_NSPID.search(status)
    assert name, status
    comm = _ESCAPED.sub(lambda escape: escape[1].replace(b"n", b"\n"), name[1])
    return Task(int(own[1]) if own else pid, comm.decode("utf-8", "replace"))


def _fuse_mount() -> type[FuseMount]:
    """The adapter's class. Raises MountFailed if libfuse 2, which fusepy loads at import, is missing."""
    # naming the library saves fusepy a search by ldconfig, and gcc where that fails
    named = "FUSE_LIBRARY_PATH" in os.environ
    if not named:
        os.environ["FUSE_LIBRARY_PATH"] = "libfuse.so.2"
    try:
        from cmafs.mount.fuse_ops import FuseMount
    except OSError as error:
        if "No such file" not in str(error):  # a limit of this process
            raise
        raise MountFailed(
            "libfuse 2 is missing: install the package libfuse2 (Debian 13, Ubuntu 24.04: libfuse2t64)"
        ) from None
    finally:
        if not named:
            del os.environ["FUSE_LIBRARY_PATH"]
    return FuseMount


def check(mountpoint: str, options: Options) -> None:
    """Whether a machine could be mounted at a path, asked before it is booted. Raises MountFailed."""
    check_mountpoint(mountpoint, bool(options.get("nonempty")))
    check_device()
    _fuse_mount()


def spawn(
    machine: Machine,
    mountpoint: str,
    options: Options,
    *,
    log: str | None = None,
    parent_death_signal: int = 0,
    keep: Sequence[int] = (),
    beside: Callable[[FuseMount], None] | None = None,
) -> int:
    """Mount a machine from a background process; its pid, once the tree answers.

    The process holds none of the caller's descriptors but those in ``keep``. ``log``: a file for the
    machine's own log; ``parent_death_signal``: what it gets when the caller dies, 0 for nothing; ``beside``:
    as for serve(). Raises MountFailed; nothing is left behind then.
    """
    check(mountpoint, options)
    log = str(Path(log).absolute()) if log else None
    start = _Start(mountpoint, options, log, os.getpid(), parent_death_signal, keep, beside)
    with _reserved(mountpoint, bool(options.get("nonempty"))):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _background(machine, start, writer)
        os.close(writer)
        try:
            message = _read_all(reader)
        except BaseException:  # Ctrl-C while it starts
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            raise
    if message != _READY:
        os.waitpid(pid, 0)
        raise MountFailed(os.fsdecode(message) or f"{mountpoint}: the server died at its start")
    return pid


def _read_all(reader: int) -> bytes:
    with os.fdopen(reader, "rb") as report:
        return report.read()


@dataclass(frozen=True)
class _Start:
    """What the background process is told: see spawn()."""

    mountpoint: str
    options: Options
    log: str | None
    parent: int
    death_signal: int
    keep: Sequence[int]
    beside: Callable[[FuseMount], None] | None


@contextlib.contextmanager
def _reserved(mountpoint: str, nonempty: bool) -> Iterator[None]:
    """Let two mounts on one place come one after the other, so that the second sees the first."""
    directory = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        check_mountpoint(mountpoint, nonempty)
        yield
    finally:
        os.close(directory)


def _background(machine: Machine, start: _Start, writer: int) -> NoReturn:
    """The background process, from the fork to its end."""
    status = 1
    try:
        writer = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, 3)  # the caller may have closed 0, 1 and 2
        os.setsid()
        place = os.path.realpath(start.mountpoint)
        os.chdir("/")
        errors = _own_descriptors(writer, *start.keep)
        _die_with(start.parent, start.death_signal)

        def ready() -> None:
            os.dup2(1, 2)  # /dev/null from here on
            os.close(errors)
            try:
                os.write(writer, _READY)
            except BrokenPipeError:  # who asked for the mount was killed, and does not know of it
                os.kill(os.getpid(), signal.SIGTERM)
            os.dup2(1, writer, inheritable=False)  # whatever is said from here on: nobody listens

        try:
            serve(machine, place, start.options, log=start.log, on_ready=ready, beside=start.beside)
            status = 0
        except MountFailed as failure:
            os.write(writer, encode(_reason(str(failure), errors)))
    except BaseException as error:  # a forked process must not run on into the caller's code
        status = OUT_OF_MEMORY if isinstance(error, MemoryError) else status
        with contextlib.suppress(OSError):
            os.write(writer, encode(f"{start.mountpoint}: {explain(error)}"))
    finally:
        os._exit(status)


def _own_descriptors(*keep: int) -> int:
    """Give up the caller's descriptors; standard error goes into a file in memory, which is returned."""
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.memfd_create("cmafs-errors")
    for number, target in ((0, null), (1, null), (2, errors)):
        os.dup2(target, number)
    for number in [int(entry.name) for entry in Path(DESCRIPTORS).iterdir()]:
        if number > 2 and number not in (*keep, errors):
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(number)
    return errors


def _die_with(parent: int, number: int) -> None:
    if number:
        set_pdeathsig(number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def _reason(failure: str, errors: int) -> str:
    """A failure with the last line that libfuse or fusermount printed."""
    os.lseek(errors, 0, os.SEEK_SET)
    lines = os.read(errors, 1 << 16).decode(errors="replace").strip().splitlines()
    return f"{failure}: {lines[-1]}" if lines else failure


def _log_to(machine: Machine, path: str, mountpoint: str) -> int:
    """Write the machine's own log to a file too; its descriptor. Raises MountFailed where it cannot be."""
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(mountpoint)):
        raise MountFailed(f"{path}: below the mount point, where nobody would see it")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o666)  # open as long as the server
    except OSError as error:
        why = "nobody reads this FIFO" if error.errno == errno.ENXIO else error.strerror
        raise MountFailed(f"{path}: {why}") from None
    machine.simlog.sink = lambda line: os.write(file, encode(f"{line}\n"))
    return file
