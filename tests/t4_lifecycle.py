"""A mount from its beginning to its end: what is left behind, who is told what."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Mount
from run_support import CMAFS, NOBODY, REPOSITORY, cmafs, cmafs_after, eventually, gone, mounts, processes
from soak_support import HOURS

from cmafs.init.task import Task
from cmafs.mount import presence
from cmafs.mount.ending import explain
from cmafs.mount.mounts import mounted_at
from cmafs.mount.server import task_of

#: of test_many_machines_at_once
MACHINES = 100 if HOURS >= 1 else 12

USED = "sys/kernel/debug/cma/reserved/used"


def server_of(place: Path) -> int:
    """The pid of the process that serves a mount."""
    mount = mounted_at(str(place))
    assert mount is not None
    with presence.server_of(mount.device, mount.owner) as server:
        assert server is not None
        return server.pid


def test_a_task_has_the_name_of_its_comm(tmp_path: Path) -> None:
    """Whose newline and backslash status shows as fs/proc/array.c:proc_task_name() escapes them."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/status").write_bytes(b"Name:\ta\\\\n\\nb\nPid:\t7\nNSpid:\t7\t3\n")
    proc = os.open(tmp_path, os.O_PATH)
    try:
        assert task_of(proc, 7) == Task(3, "a\\n\nb")
        assert task_of(proc, 8) == Task(8, "<...>")
    finally:
        os.close(proc)


def test_what_a_missing_package_is_told_as() -> None:
    with pytest.raises(ModuleNotFoundError) as missing:
        importlib.import_module("no_such_package")
    text = "No module named 'no_such_package': install cmafs with pip, which brings it"
    assert explain(missing.value) == text


def test_the_server_holds_nothing_of_its_caller(machine: Path) -> None:
    pid = server_of(machine)
    kept = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert {name.split(":")[0] for name in kept} == {"/dev/null", "/dev/fuse", "/proc", "/memfd", "pipe"}
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid


def test_a_shell_can_take_its_output(tmp_path: Path, fuse_device: None) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    script = f'x=$({" ".join(CMAFS)} mount {place}) && echo "[$x]" && {" ".join(CMAFS)} umount {place}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_unmounting_waits_for_the_server_and_leaves_nothing(mount: Mount) -> None:
    before = mounts()
    place = mount()
    pid = server_of(place)
    done = cmafs("umount", str(place))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert gone(pid)
    assert [line for line in mounts() if str(place) in line] == []
    assert set(mounts()) <= set(before) | {line for line in mounts() if "cmafs" in line}
    assert processes(str(place)) == []
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_server_cleanly(mount: Mount, number: signal.Signals) -> None:
    place = mount()
    pid = server_of(place)
    os.kill(pid, number)
    assert eventually(lambda: gone(pid))
    assert not os.path.ismount(place)


def test_foreground_serves_until_told_to_stop(tmp_path: Path, fuse_device: None) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    server = subprocess.Popen([*CMAFS, "mount", "--foreground", "--cmdline", "cma=16M", str(place)])
    assert eventually(lambda: (place / USED).exists())
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 0
    assert list(place.iterdir()) == []


def test_the_mount_of_a_killed_server_is_named_and_cleared(mount: Mount) -> None:
    place = mount()
    pid = server_of(place)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: gone(pid))
    again = cmafs("mount", str(place))
    why = f"the mount of a killed server is still there; `cmafs umount {place}` clears it"
    assert (again.returncode, again.stderr) == (1, f"cmafs: {place}: {why}\n")
    assert cmafs("umount", str(place)).returncode == 0
    assert list(place.iterdir()) == []


def test_a_busy_mount_names_who_holds_it(machine: Path) -> None:
    holder = subprocess.Popen(["sleep", "600"], cwd=machine / "proc")
    try:
        done = cmafs("umount", str(machine))
        who = f"sleep (pid {holder.pid})"
        assert done.returncode == 1
        assert done.stderr == (
            f"cmafs: {machine}: busy: in use by {who}; end it, or `cmafs umount -l {machine}`\n"
        )
        assert (machine / USED).read_bytes() == b"96\n"
    finally:
        holder.kill()
        holder.wait()


_MAY_NOT_UNMOUNT = """
import errno
import cmafs.mount.libc as libc
def check(result, what):
    raise OSError(errno.EPERM, f"{what}: not permitted")
libc.check = check
libc.libc.umount2 = lambda *arguments: -1
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="others ask fusermount")
def test_why_it_cannot_be_unmounted(machine: Path) -> None:
    """By the name that the user gave, not by that of a descriptor of ours."""
    words = [*cmafs_after(_MAY_NOT_UNMOUNT), "umount", str(machine)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == f"cmafs: {machine}: cannot be unmounted: {os.strerror(errno.EPERM)}\n"
    assert done.returncode == 1


def test_lazily_the_server_ends_with_the_last_user(machine: Path) -> None:
    pid = server_of(machine)
    with open(machine / USED, "rb", buffering=0) as file:
        assert cmafs("umount", "-l", str(machine)).returncode == 0
        assert not os.path.ismount(machine)
        assert file.read() == b"96\n"
        assert not gone(pid)
    assert eventually(lambda: gone(pid))


@pytest.mark.parametrize("lazily", [False, True])
def test_a_stopped_server_is_not_waited_for(machine: Path, lazily: bool) -> None:
    """It answers nothing, but it is there, and can be ended."""
    pid = server_of(machine)
    os.kill(pid, signal.SIGSTOP)
    try:
        again = cmafs("mount", str(machine), timeout=20)
        assert (again.returncode, again.stderr.partition(": ")[2]) == (
            1,
            f"{machine}: busy: a machine is mounted there already; `cmafs umount {machine}` ends it\n",
        )
        done = cmafs("umount", *["-l"][: int(lazily)], str(machine), timeout=20)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: gone(pid))


def test_a_second_mount_on_the_same_place_is_refused(machine: Path) -> None:
    (machine / "sys/kernel/debug/cma/reserved/alloc").write_text("4\n")
    done = cmafs("mount", str(machine))
    why = f"busy: a machine is mounted there already; `cmafs umount {machine}` ends it"
    assert (done.returncode, done.stderr) == (1, f"cmafs: {machine}: {why}\n")
    assert (machine / USED).read_bytes() == b"100\n"


def test_of_two_mounts_at_once_one_is_refused(tmp_path: Path, fuse_device: None) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    both = [subprocess.Popen([*CMAFS, "mount", str(place)], stderr=subprocess.PIPE) for _ in range(2)]
    texts = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert b"busy: a machine is mounted there already" in b"".join(texts)
    assert cmafs("umount", str(place)).returncode == 0
    assert not os.path.ismount(place)


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    done = cmafs("umount", "/proc")
    assert (done.returncode, done.stderr) == (1, "cmafs: /proc: not a cmafs mount but proc; left as it is\n")
    done = cmafs("umount", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"cmafs: {tmp_path}: nothing is mounted there\n")


def test_a_mount_point_with_a_blank_and_a_link_to_it(tmp_path: Path, fuse_device: None) -> None:
    place, link = tmp_path / "a b\\c", tmp_path / "link"
    place.mkdir()
    link.symlink_to(place)
    assert cmafs("mount", str(link)).returncode == 0
    assert (place / "sim/verify").read_text() == "ok\n"
    assert cmafs("umount", str(link)).returncode == 0
    assert list(place.iterdir()) == []


def test_names_in_the_mount_table(mount: Mount) -> None:
    plain, named = mount(), mount("-o", "fsname=debugfs,subtype=debugfs")
    table = Path("/proc/mounts").read_text().splitlines()
    rows = {line.split()[1]: line.split()[:3:2] for line in table}
    assert rows[str(plain)] == ["cmafs", "fuse.cmafs"]
    assert rows[str(named)] == ["debugfs", "fuse.debugfs"]


def test_a_mount_under_a_name_of_the_users_is_still_ours(mount: Mount) -> None:
    place = mount("-o", "fsname=x", "-o", "subtype=y,ro")
    assert f" {place} fuse.y ro," in Path("/proc/mounts").read_text()
    assert cmafs("umount", str(place)).returncode == 0


def test_two_mounts_do_not_meet(mount: Mount) -> None:
    first, second = mount("--cmdline", "cma=16M"), mount("--cmdline", "cma=16M")
    (first / "sys/kernel/debug/cma/reserved/alloc").write_text("100\n")
    assert [(place / USED).read_text() for place in (first, second)] == ["196\n", "96\n"]


#: an ordinary user holds every name that a server could be looked for under, then is what the argument says
SQUATTER = f"""
import fcntl, os, socket, sys, time
os.seteuid({NOBODY})
held = []
door, ring = os.pipe()
for minor in range(1, 400):
    for name in (f"\\0cmafs/0:{{minor}}", f"\\0cmafs:0:{{minor}}"):
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].bind(name)
        held[-1].listen()
    held.append(os.memfd_create(f"cmafs:0:{{minor}}:{{ring}}"))
    fcntl.lockf(held[-1], fcntl.LOCK_EX)
os.seteuid(0)
os.setresuid(*[int(sys.argv[1])] * 3)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("becomes", [NOBODY, 0])
def test_a_server_is_not_found_by_a_name_that_others_took(
    tmp_path: Path, fuse_device: None, becomes: int
) -> None:
    """As a root process with descriptors that an ordinary user made, too: setuid programs inherit them."""
    place = tmp_path / "mnt"
    place.mkdir()
    words = ["unshare", "--net", "/usr/bin/python3", "-c", SQUATTER, str(becomes)]  # sockets of its own
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as squatter:
        assert squatter.stdout is not None
        try:
            assert squatter.stdout.readline() == "ready\n"
            beside = ["nsenter", f"--net=/proc/{squatter.pid}/ns/net", *CMAFS]
            subprocess.run([*beside, "mount", str(place)], check=True, timeout=60, cwd=REPOSITORY)
            pid = server_of(place)
            assert pid != squatter.pid
            start = time.monotonic()
            words = [*beside, "umount", str(place)]
            done = subprocess.run(words, stderr=subprocess.PIPE, timeout=60, cwd=REPOSITORY)
            assert (done.returncode, done.stderr) == (0, b"")
            assert time.monotonic() - start < 10
            assert gone(pid)
            assert squatter.poll() is None
        finally:
            squatter.kill()


def _serve_in_name(device: str, user: int, lock: bool, pipe_of: int) -> int:
    """A child that claims to serve a file system: what it holds is its user's, but for what is asked."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.seteuid(pipe_of)
            _, ring = os.pipe()
            os.seteuid(0)
            os.setresuid(user, user, user)
            file = os.memfd_create(f"cmafs:{device}:{ring}")
            if lock:
                fcntl.lockf(file, fcntl.LOCK_EX)
            os.write(writer, b"1")
            time.sleep(60)
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    return pid


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize(
    ("user", "lock", "pipe_of", "found"),
    [(0, True, 0, True), (NOBODY, True, NOBODY, False), (0, False, 0, False), (0, True, NOBODY, False)],
    ids=["the owner", "another user", "no lock", "a door of another user's"],
)
def test_what_makes_a_server(user: int, lock: bool, pipe_of: int, found: bool) -> None:
    device = f"0:8642{os.getpid()}"
    pid = _serve_in_name(device, user, lock, pipe_of)
    try:
        with presence.server_of(device, owner=0) as server:
            assert (server is not None) == found
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a mount namespace")
def test_a_server_whose_mount_lives_on_elsewhere_is_told_by_its_door(machine: Path) -> None:
    pid = server_of(machine)
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 600"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        try:
            done = cmafs("umount", str(machine))
            assert (done.returncode, done.stderr) == (0, "")
            assert gone(pid)
        finally:
            holder.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_mount_leaves_nothing_or_a_mount_that_works(
    tmp_path: Path, fuse_device: None, number: signal.Signals
) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    for moment in (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6):
        process = subprocess.Popen([*CMAFS, "mount", str(place)], stderr=subprocess.DEVNULL)
        time.sleep(moment)
        process.send_signal(number)
        process.wait(30)
        assert eventually(lambda: not processes(str(place)) or os.path.ismount(place))
        time.sleep(0.05)
        if os.path.ismount(place):
            with contextlib.suppress(FileNotFoundError):  # it is being taken away
                assert (place / "sim/verify").read_text() == "ok\n"
                done = cmafs("umount", str(place))
                assert done.returncode == 0 or "nothing is mounted there" in done.stderr
        assert eventually(lambda: not processes(str(place)))
        assert not os.path.ismount(place)
        assert list(place.iterdir()) == []


def test_mounts_and_unmounts_that_race(tmp_path: Path, fuse_device: None) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    for _ in range(4):
        words = [["mount"], ["umount"], ["mount"], ["umount"], ["umount", "-l"]]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        racing = [subprocess.Popen([*CMAFS, *line, str(place)], **pipes) for line in words]
        for process in racing:
            text = process.communicate(timeout=60)[1]
            assert process.returncode in (0, 1)
            assert text.count("\n") == process.returncode, text
            assert "cannot be unmounted" not in text
    cmafs("umount", str(place))
    assert not os.path.ismount(place)
    assert eventually(lambda: not processes(str(place)))


@pytest.mark.skipif(os.geteuid() != 0, reason="mount --bind needs root")
def test_one_of_two_places_is_unmounted_alone(machine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pid = server_of(machine)
    for below in ("", "sys/kernel/debug"):
        subprocess.run(["mount", "--bind", str(machine / below), str(other)], check=True)
        done = cmafs("umount", str(other))
        assert (done.returncode, done.stderr) == (0, "")
        assert not os.path.ismount(other)
        assert (machine / "sim/verify").read_text() == "ok\n"
        assert server_of(machine) == pid


@pytest.mark.skipif(os.geteuid() != 0, reason="mount --bind needs root")
@pytest.mark.parametrize("how", ["the directory above renamed", "mounted elsewhere too, and there alone"])
def test_a_mount_that_is_found_elsewhere_has_its_pipes(tmp_path: Path, fuse_device: None, how: str) -> None:
    place, other = tmp_path / "above" / "machine", tmp_path / "other"
    place.mkdir(parents=True)
    assert cmafs("mount", "--cmdline", "cma=16M", str(place)).returncode == 0
    if "renamed" in how:
        other = place.parent.rename(other) / place.name
    else:
        other.mkdir()
        subprocess.run(["mount", "--bind", str(place), str(other)], check=True)
        subprocess.run(["umount", str(place)], check=True)
    tracing = other / "sys/kernel/tracing"
    (tracing / "events/cma/enable").write_text("1\n")
    (other / "sys/kernel/debug/cma/reserved/alloc").write_text("1\n")
    read = ["timeout", "20", "head", "-n", "1", str(tracing / "trace_pipe")]
    try:
        assert "cma_alloc_start" in subprocess.run(read, capture_output=True, text=True).stdout
    finally:
        subprocess.run(["umount", "-l", str(other)], check=True)


@pytest.mark.soak(2)
def test_many_machines_at_once(tmp_path: Path, fuse_device: None) -> None:
    """Each is mounted, answers for itself, verifies and ends; none of them knows of the others."""
    places = [tmp_path / f"m{index}" for index in range(MACHINES)]
    for place in places:
        place.mkdir(exist_ok=True)  # a soak comes again
    try:
        _all([["mount", "--cmdline", "cma=16M", str(place)] for place in places])
        pids = [server_of(place) for place in places]
        assert len(set(pids)) == MACHINES
        for pages, place in enumerate(places, 1):
            (place / "sys/kernel/debug/cma/reserved/alloc").write_text(f"{pages}\n")
        for pages, place in enumerate(places, 1):
            assert (place / USED).read_text() == f"{96 + pages}\n"
            assert (place / "sim/verify").read_text() == "ok\n"
    finally:
        _all([["umount", str(place)] for place in places])
    assert all(gone(pid) for pid in pids)
    assert not [place for place in places if os.path.ismount(place)]


def _all(lines: list[list[str]]) -> None:
    """Command lines of cmafs at once; all succeed."""
    started = [subprocess.Popen([*CMAFS, *line], stderr=subprocess.PIPE, text=True) for line in lines]
    assert [(process.communicate(timeout=300)[1], process.returncode) for process in started] == [
        ("", 0)
    ] * len(lines)
