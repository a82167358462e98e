"""`cmafs doctor`: what this host must have, and which setting or package is missing."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cmafs.mount.libc import unshare
from cmafs.mount.mounts import FUSE_DEVICE
from cmafs.run import syscalls
from cmafs.run.job import NamespaceError, own_namespaces, step
from cmafs.run.proc import HOST_NAMES
from cmafs.run.root import PRIVATE, tmpfs

_FUSE = Path(FUSE_DEVICE)
_APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
_MAX_USERNS = "user.max_user_namespaces"
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")

#: How a package is installed: the program that tells the distribution, the command.
_INSTALLERS = (
    ("apt-get", "apt-get install"),
    ("dnf", "dnf install"),
    ("apk", "apk add"),
    ("pacman", "pacman -S"),
)
#: What a package is called, in the order of _INSTALLERS.
_PACKAGES = {
    "libfuse2": ("libfuse2 (Debian 13, Ubuntu 24.04: libfuse2t64)", "fuse-libs", "fuse", "fuse2"),
    "fusermount": ("fuse3", "fuse", "fuse", "fuse2"),
    "dtc": ("device-tree-compiler", "dtc", "dtc", "dtc"),
    "cpp": ("cpp", "cpp", "gcc", "gcc"),
}


@dataclass(frozen=True)
class Finding:
    """One requirement: ``problem`` is what to do, empty where all is well; ``note`` is worth knowing."""

    requirement: str
    problem: str = ""
    note: str = ""

    def __str__(self) -> str:
        text = self.problem or ("ok" + (f" ({self.note})" if self.note else ""))
        return f"{self.requirement:<20} {text}"


def install_command(package: str) -> str:
    """The command that installs a package here, or just its name on an unknown distribution."""
    for (program, command), name in zip(_INSTALLERS, _PACKAGES[package], strict=True):
        if shutil.which(program):
            return f"{command} {name}"
    return f"install the package that has {package}"


def fuse_device(path: Path = _FUSE) -> Finding:
    """The device: there, and this user may open it."""
    name = str(_FUSE)
    if not path.exists():
        if any(os.path.exists(file) for file in _CONTAINER_FILES):
            return Finding(name, "missing: start the container with --device /dev/fuse")
        return Finding(name, "missing: modprobe fuse")
    mode = f"mode {stat.S_IMODE(path.stat().st_mode):04o}"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return Finding(name, f"{mode}, this user may not open it: chmod 0666 {name} (as root)")
    except OSError as error:
        return Finding(name, f"{error.strerror}: modprobe fuse, or allow the device in the container")
    return Finding(name, note=mode if mode == "mode 0666" else f"{mode}; other users need: chmod 0666 {name}")


def libfuse2() -> Finding:
    """The library that fusepy loads."""
    try:
        ctypes.CDLL(os.environ.get("FUSE_LIBRARY_PATH", "libfuse.so.2"))
    except OSError:
        return Finding("libfuse2", f"missing: {install_command('libfuse2')}")
    return Finding("libfuse2")


def program(name: str) -> Finding:
    """A program on PATH."""
    found = shutil.which(name)
    return Finding(name, note=found) if found else Finding(name, f"missing: {install_command(name)}")


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".", 1)).read_text().strip()
    except OSError:
        return None


def apparmor() -> Finding:
    """Ubuntu's restriction: an ordinary user's namespace has no privileges in it."""
    requirement = "AppArmor"
    if _sysctl(_APPARMOR) != "1":
        return Finding(requirement, note=f"{_APPARMOR} is not set")
    if os.geteuid() == 0:
        return Finding(requirement, note=f"ordinary users need: sysctl {_APPARMOR}=0")
    return Finding(requirement, f"it forbids mounts in user namespaces: sysctl {_APPARMOR}=0 (as root)")


def _try_in_child(trial: Callable[[], None]) -> str:
    """Try something in a forked process, in whose namespaces it stays: what went wrong, or nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            trial()
        except NamespaceError as error:
            os.write(writer, str(error).encode())
        except OSError as error:
            os.write(writer, str(error.strerror).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as report:
        text = report.read().decode()
    os.waitpid(child, 0)
    return text


def _mount_in_user_namespace() -> None:
    with step("make a user namespace"):
        unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    with step("mount in a user namespace"):
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        tmpfs("/tmp")  # noqa: S108  in a mount namespace that ends with this process


def _mount_proc() -> None:
    with step("make a mount namespace"):
        own_namespaces()
    with step("make a pid namespace"):
        unshare(syscalls.CLONE_NEWPID)
    text = _try_in_child(lambda: syscalls.mount("proc", "/proc", "proc", 0))
    if text:
        raise NamespaceError(f"cannot mount a /proc: {text}")


def user_namespace() -> Finding:
    """A mount tried in a user namespace, which CMD of `cmafs run` gets in any case."""
    problem = _try_in_child(_mount_in_user_namespace)
    if not problem:
        return Finding("user namespace", note="a mount in one was tried")
    return Finding("user namespace", f"{_without_hint(problem)}: {_namespace_remedy()}")


def private_proc() -> Finding:
    """A procfs tried in a pid namespace of its own."""
    problem = _try_in_child(_mount_proc)
    if not problem:
        return Finding("private /proc", note="a mount was tried")
    remedy = _namespace_remedy()
    if os.path.isdir(PRIVATE):
        remedy = "this is inside `cmafs run`, which cannot be nested"
    elif "mount a /proc" in problem:
        remedy = "the container masks parts of /proc: start it with --security-opt systempaths=unconfined"
    return Finding("private /proc", f"{_without_hint(problem)}: {remedy}")


def _without_hint(problem: str) -> str:
    return re.sub(r" \(.*\)$", "", problem)


def _namespace_remedy() -> str:
    """The setting that stands in the way of namespaces, as far as it can be told from here."""
    if _sysctl(_MAX_USERNS) == "0":
        return f"sysctl {_MAX_USERNS}=10000"
    if _sysctl("kernel.unprivileged_userns_clone") == "0":
        return "sysctl kernel.unprivileged_userns_clone=1"
    if _sysctl(_APPARMOR) == "1":
        return f"sysctl {_APPARMOR}=0"
    if any(os.path.exists(file) for file in _CONTAINER_FILES):
        return (
            "start the container with --cap-add SYS_ADMIN --security-opt apparmor=unconfined"
            " --security-opt seccomp=unconfined"
        )
    return "the kernel needs CONFIG_USER_NS and no security module that forbids it"


def procfs_names() -> Finding:
    """Names of the machine that this host's procfs lacks."""
    lacking = [name for name in HOST_NAMES if not os.path.lexists(f"/proc/{name}")]
    if not lacking:
        return Finding("names in /proc")
    names = ", ".join(lacking)
    return Finding(
        "names in /proc", note=f"this host's /proc has no {names}; `cmafs run` adds what is missing"
    )


def examine() -> list[Finding]:
    """Every requirement, in the order in which they are printed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    found = [fuse_device(), libfuse2(), *(program(name) for name in ("fusermount", "dtc", "cpp"))]
    return [*found, apparmor(), user_namespace(), private_proc(), procfs_names()]
