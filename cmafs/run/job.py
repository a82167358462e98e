"""`cmafs run`: the server, the namespaces of a command, and the command, each a process of one fork.

cmafs ─┬ server   serves the machine's tree, in the caller's pid namespace, out of CMD's sight
       ├ server   of the root directory of CMD's /proc
       └ init     pid 1 of CMD's pid namespace; its end is the end of all that CMD started
         └ CMD    in a user and mount namespace below: no mount made for it can be undone

As root no user namespace is needed to mount; CMD gets one all the same, with every id mapped to itself, in
which the kernel refuses the host's debugfs, and a fresh procfs, whatever way a program takes.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
from _socket import socket  # without what the module socket imports besides, a tenth of a start
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from cmafs.mount.ending import CANNOT_RUN, Failed, complain_raw, explain, one_line
from cmafs.mount.libc import set_pdeathsig, umount, unshare
from cmafs.mount.mounts import FUSE_DEVICE
from cmafs.mount.server import OUT_OF_MEMORY
from cmafs.run import proc, programs, root, syscalls
from cmafs.run.root import DEBUGFS, HOST, PRIVATE, TRACEFS, TREE, Graft
from cmafs.run.signals import Signals, take_terminal, terminal_given_back, wait_for
from cmafs.run.supervisor import hand_over
from cmafs.run.tasks import StandIns

NOT_EXECUTABLE = 126
NOT_FOUND = 127


class NamespaceError(Failed):
    """The namespaces cannot be set up here; the text says why and what to do."""


@dataclass(frozen=True)
class Job:
    """What to run and where.

    ``command``: CMD and its arguments; ``serve``: shows the machine at a path and returns its server;
    ``signals``: the dispositions that CMD inherits; ``tasks``: a descriptor to read, where the server says
    which simulated tasks there are; ``explain``: where CMD fails, say on standard error what sim/why says;
    ``leads``: CMD is a shell that has the terminal to itself;
    ``supervisor``: the socket of what serves heaps.
    """

    command: Sequence[str]
    serve: Callable[[str], ServerProcess]
    signals: Signals
    tasks: int | None = None
    explain: bool = False
    leads: bool = False
    supervisor: socket | None = None


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Name the step that fails in the words of somebody who can change it."""
    try:
        yield
    except OSError as error:
        hint = "see `cmafs doctor`"
        if error.errno in (errno.EPERM, errno.EACCES):
            hint = "this host or container does not allow it: `cmafs doctor` names the setting"
        elif error.errno == errno.ENOSPC:
            hint = "no more namespaces are allowed: raise /proc/sys/user/max_user_namespaces"
        raise NamespaceError(f"cannot {what}: {error.strerror} ({hint})") from error


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def own_namespaces() -> None:
    """Namespaces of mounts and IPC for the machine: as root, else with a user namespace to be root of."""
    uid, gid = os.geteuid(), os.getegid()
    own = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC
    try:
        unshare(own)
    except PermissionError:
        unshare(own | syscalls.CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1\n")
        _write("/proc/self/gid_map", f"0 {gid} 1\n")
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def _identity(path: str) -> str:
    """Every id of this user namespace, mapped to itself."""
    with open(path, encoding="ascii") as file:
        extents = [line.split() for line in file]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in extents)


class ServerProcess:
    """The process ``pid`` that serves a tree; ``own``: it belongs to this run and ends with it."""

    def __init__(self, pid: int, own: bool = True) -> None:
        self.pid = pid
        self.own = own
        self._pidfd = os.pidfd_open(pid)

    def end(self) -> None:
        """Kill it; nothing of it outlives its namespace. That it had ended before is said."""
        if not self.own:
            return
        with contextlib.suppress(ChildProcessError):
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                complain_raw(Failed(f"the machine's server ended before the command: {_ending(status)}"))
                return
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _ending(status: int) -> str:
    """Why a server has ended, from what waitpid(2) says of it."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"killed by signal {-code} ({signal.strsignal(-code)})"
    return explain(MemoryError()) if code == OUT_OF_MEMORY else f"it was told to, or failed (status {code})"


def shares_superblock() -> bool:
    """Whether a second mount of one /dev/fuse descriptor gives the same file system.

    fs/fuse/inode.c:fuse_get_tree(), 5.14 on.
    """
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor[:3])))) >= (5, 14)


def _mount_again(server: ServerProcess, name: str, place: str) -> None:
    """Mount the server's file system once more, under a name for /proc/mounts to show. Raises OSError."""
    table = f"/proc/{server.pid}/fd"
    number = next(int(fd) for fd in os.listdir(table) if os.readlink(f"{table}/{fd}") == FUSE_DEVICE)
    descriptor = syscalls.borrow_descriptor(server.pid, number)
    try:
        options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0"
        syscalls.mount(name, place, "fuse", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    finally:
        os.close(descriptor)


def _named_mounts(server: ServerProcess) -> None:
    """The tree once more as debugfs and as tracefs; only the places that stand for them stay mounted."""
    for name, place in (("debugfs", DEBUGFS), ("tracefs", TRACEFS)):
        try:
            _mount_again(server, name, place)
        except OSError:  # an older kernel, or a server of another user namespace
            syscalls.bind(TREE, place)


@dataclass(eq=False)
class Composed:
    """What stands when the root is composed: the servers of the tree and of /proc's root, and the grafts."""

    server: ServerProcess
    proc_root: ServerProcess
    grafts: dict[str, Graft]

    def end(self) -> None:
        """End the servers."""
        self.server.end()
        self.proc_root.end()


def _compose(job: Job) -> Composed:
    """The root that CMD sees, the content of /proc aside."""
    if os.path.isdir(PRIVATE):
        raise NamespaceError("this is inside `cmafs run` already, which cannot be nested")
    with step("make a mount namespace"):
        own_namespaces()
    with step("make a root directory"):
        root.enter_root()
        root.bind_host()
    with step("start the server"):
        server = job.serve(TREE)
    try:
        with step("put the machine's paths in place"):
            _named_mounts(server)
            grafts = root.plan()
            root.graft_machine(grafts)
            programs.install()
        with step("make a root directory for /proc"):
            return Composed(server, _proc_root(grafts), grafts)
    except BaseException:
        server.end()
        raise


def _proc_root(grafts: dict[str, Graft]) -> ServerProcess:
    """The server of /proc's root directory. Raises OSError."""
    from cmafs.run import procroot  # it needs fusepy, which the server has checked for

    umount("/proc")
    return ServerProcess(procroot.spawn(proc.missing(grafts, HOST), proc.absent(grafts)))


def _exec(words: Sequence[str]) -> None:
    """As execvp(3) does, which gives a script without a first line `#!…` to the shell. Raises OSError."""
    if not words[0]:
        raise FileNotFoundError
    try:
        os.execvp(words[0], list(words))  # noqa: S606
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        import shutil

        path = words[0] if "/" in words[0] else shutil.which(words[0]) or words[0]
        os.execv("/bin/sh", ["sh", path, *words[1:]])  # noqa: S606


def _execute(job: Job) -> NoReturn:
    """Become CMD; 126 or 127 where that is impossible."""
    if job.leads:
        take_terminal()
    job.signals.restore()
    name = job.command[0]
    try:
        _exec(job.command)
    except FileNotFoundError:
        code, why = NOT_FOUND, "its interpreter is not there" if os.path.exists(name) else "not found"
    except OSError as error:
        code, why = NOT_EXECUTABLE, os.strerror(error.errno or 0)
    os.write(2, os.fsencode(one_line(f"cmafs: {name}: {why}")) + b"\n")
    os._exit(code)


def _confined(job: Job, ready: int, mapped: int) -> NoReturn:
    """CMD's own user and mount namespace: what is mounted by now is locked for it."""
    with step("make a user namespace"):
        unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        os.write(ready, b"1")
        if not os.read(mapped, 1):
            os._exit(CANNOT_RUN)  # init has said why
        syscalls.join_session_keyring()
        supervisor = job.supervisor
        listener = syscalls.filter_syscalls(supervised=supervisor is not None)
        if supervisor is not None and listener is not None:
            hand_over(supervisor, listener)
    _execute(job)


def _start(job: Job) -> int:
    """Fork CMD and map the ids of its user namespace; its pid."""
    (unshared, ready), (mapped, go) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        _guarded(lambda: _confined(job, ready, mapped))
    os.close(ready)
    with step("map the user namespace's ids"):
        if os.read(unshared, 1):
            for kind in ("uid_map", "gid_map"):
                _write(f"/proc/{child}/{kind}", _identity(f"/proc/self/{kind}"))
            os.write(go, b"1")
    return child


def _init(job: Job, composed: Composed, alive: int, directory: str) -> NoReturn:
    """Pid 1 of the run: finish /proc, start CMD, reap until CMD has ended."""
    set_pdeathsig()
    if not os.read(alive, 1):
        os._exit(CANNOT_RUN)
    with step("mount /proc"):
        proc.mount_proc()
    with step("put the machine's files into /proc"):
        proc.graft_proc(composed.grafts)
    with step("take the host's root out of sight"):
        root.leave_host()
        proc.cover_strays()
    with contextlib.suppress(OSError):  # a directory that is gone: CMD starts in /
        os.chdir(directory)
    tasks = StandIns(job.tasks, f"{TREE}/sim/control") if job.tasks is not None else None
    os._exit(wait_for(_start(job), others=True, tasks=tasks))


def _guarded(body: Callable[[], NoReturn]) -> NoReturn:
    """Run the body of a forked child; it never returns into its parent's code."""
    try:
        body()
    except BaseException as error:
        complain_raw(error)
    finally:
        os._exit(CANNOT_RUN)


def run(job: Job) -> int:
    """Run a command on a machine: CMD's exit status, 128+N after signal N, 126, 127. Raises NamespaceError.

    This process leaves its mount namespace for good.
    """
    directory = _working_directory()
    _undo_coercion()
    os.environ["CMAFS_MOUNT"] = TREE
    gc.freeze()
    job.signals.hold()
    composed = _compose(job)
    try:
        with step("make a pid namespace"):
            unshare(syscalls.CLONE_NEWPID)
        alive, go = os.pipe()
        init = os.fork()
        if init == 0:
            os.close(go)
            _guarded(lambda: _init(job, composed, alive, directory))
        os.write(go, b"1")
        with terminal_given_back():
            status = wait_for(init, others=False)
        if status and job.explain:
            _explain(status)
        return status
    finally:
        composed.end()


def _explain(status: int) -> None:
    """Repeat sim/why, whose server still runs, on standard error."""
    with contextlib.suppress(OSError), open(f"{TREE}/sim/why", "rb") as file:
        text = file.read()
        os.write(2, b"cmafs: the command ended with %d; sim/why says:\n%s" % (status, text))


def _undo_coercion() -> None:
    """Take back the LC_CTYPE that the interpreter sets for itself in the C locale (PEP 538)."""
    with open("/proc/self/environ", "rb") as file:
        inherited = file.read()
    if b"LC_CTYPE=" not in inherited:
        os.environ.pop("LC_CTYPE", None)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"
