"""A mount from its beginning to its end: what is left behind, who is told what."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import Mount
from run_support import CMAFS, REPOSITORY, cmafs, eventually, gone, mounts, processes

from cmafs.mount import presence
from cmafs.mount.mounts import mounted_at

USED = "sys/kernel/debug/cma/reserved/used"


def server_of(place: Path) -> int:
    """The pid of the process that serves a mount."""
    mount = mounted_at(str(place))
    assert mount is not None
    with presence.server_of(mount.device, mount.owner) as server:
        assert server is not None
        return server.pid


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


def test_lazily_the_server_ends_with_the_last_user(machine: Path) -> None:
    pid = server_of(machine)
    with open(machine / USED, "rb", buffering=0) as file:
        assert cmafs("umount", "-l", str(machine)).returncode == 0
        assert not os.path.ismount(machine)
        assert file.read() == b"96\n"
        assert not gone(pid)
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
