"""Whatever CMD does, the host's debugfs, kernel log, /proc/sys/vm and files stay out of its reach."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_support import CMAFS, MACHINE, mounts, ordinary_user

#: every action of syslog(2) that reads, clears or measures the log (include/linux/syslog.h)
KLOGCTL = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(1 << 20)
for action in (2, 3, 4, 5, 8, 9, 10):
    result = libc.klogctl(action, buffer, len(buffer))
    print(action, result, errno.errorcode.get(ctypes.get_errno()))
"""
ATTACKS = r"""
real=/.cmafs/real
echo "== the log"
python3 -c '%s'
$real/dmesg > "$OUT/real-dmesg" 2>/dev/null; $real/dmesg -C 2>/dev/null; $real/dmesg -c > /dev/null 2>&1
cat /.cmafs/dev/kmsg; cat /proc/kmsg 2>/dev/null
echo "cmafs-attack-$MARK" > /dev/kmsg
echo "cmafs-attack-$MARK" > /.cmafs/dev/kmsg
echo m > /proc/sysrq-trigger
mknod "$OUT/kmsg" c 1 11 2>&1 | sed 's/.*: //'
echo "== debugfs"
for type in debugfs tracefs proc devtmpfs; do
    mkdir -p "$OUT/m"
    $real/mount -t $type none "$OUT/m" 2>/dev/null && echo "$type mounted"
    unshare -m $real/mount -t $type none "$OUT/m" 2>/dev/null && echo "$type mounted"
    unshare -Urm $real/mount -t $type none "$OUT/m" 2>/dev/null && echo "$type mounted"
done
unshare -p -f $real/mount -t proc none "$OUT/m" 2>/dev/null && echo "fresh /proc mounted"
unshare -Urpfm $real/mount -t proc none "$OUT/m" 2>/dev/null && echo "fresh /proc mounted"
for path in /proc /proc/sys /proc/sys/vm /proc/meminfo /sys /sys/kernel/debug /sys/kernel/tracing /dev \
    /dev/kmsg /.cmafs/dev/kmsg /.cmafs/proc /.cmafs/proc/sys /.cmafs/proc/sys/vm; do
    $real/umount -l $path 2>/dev/null && echo "$path unmounted"
done
ls /sys/kernel/debug
echo "== ways out"
for pid in 1 $PPID; do
    ls /proc/$pid/root 2>/dev/null && echo "root of $pid"
    nsenter -t $pid -m true 2>/dev/null && echo "mounts of $pid"
done
chroot /proc/1/root true 2>/dev/null && echo "chroot"
echo "== /proc/sys"
echo 3 > /proc/sys/vm/drop_caches
echo 3 > /.cmafs/proc/sys/vm/drop_caches
echo 7 > /proc/sys/vm/swappiness 2>/dev/null
echo attacked > /proc/sys/kernel/hostname
$real/mount -o remount,rw,bind /proc/sys 2>/dev/null && echo "remounted"
"""
EXPECTED = """\
== the log
2 -1 EPERM
3 -1 EPERM
4 -1 EPERM
5 -1 EPERM
8 -1 EPERM
9 -1 EPERM
10 -1 EPERM
Operation not permitted
== debugfs
cma
dynamic_debug
tracing
== ways out
== /proc/sys
"""


def _host_log() -> str:
    return subprocess.run(["dmesg"], capture_output=True, text=True).stdout


def _dropped() -> list[str]:
    return [
        line
        for line in Path("/proc/vmstat").read_text().splitlines()
        if line.startswith(("drop_pagecache", "drop_slab"))
    ]


def _sysctls() -> dict[str, str]:
    return {
        path.name: path.read_text()
        for path in Path("/proc/sys/vm").iterdir()
        if path.is_file() and os.access(path, os.R_OK) and path.stat().st_mode & 0o444
    }


def _names() -> dict[str, list[str]]:
    return {
        place: sorted(os.listdir(place))
        for place in ("/", "/dev", "/boot", "/mnt", "/sys/kernel/mm", "/usr/bin")
    }


@pytest.fixture
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that an ordinary user can write, outside pytest's private one."""
    directory = Path("/tmp") / f"cmafs-safety-{os.getpid()}"
    directory.mkdir()
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


def _attack(command: list[str], out: Path) -> subprocess.CompletedProcess[str]:
    script = ATTACKS % KLOGCTL
    environment = {**os.environ, "OUT": str(out), "MARK": str(os.getpid())}
    words = [*command, "run", *MACHINE, "--", "sh", "-c", script]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, cwd="/", env=environment)


def _host_state() -> tuple[object, ...]:
    return _sysctls(), _names(), mounts(), Path("/proc/sys/kernel/hostname").read_text()


def test_root_cannot_reach_the_host(shared_directory: Path) -> None:
    before, log, dropped = _host_state(), _host_log(), _dropped()
    done = _attack(CMAFS, shared_directory)
    assert done.stdout == EXPECTED, done.stderr
    assert _host_state() == before
    assert _dropped() == dropped
    after = _host_log()
    assert after.startswith(log)  # not cleared
    assert "cmafs-attack" not in after
    assert "sysrq" not in after[len(log) :]
    shown = (shared_directory / "real-dmesg").read_text()  # the machine's, through its /dev/kmsg
    assert "Linux version 6.12.117" in shown
    assert os.uname().release not in shown


def test_an_ordinary_user_cannot_reach_the_host(shared_directory: Path) -> None:
    with ordinary_user() as command:
        before, log, dropped = _host_state(), _host_log(), _dropped()
        done = _attack(command, shared_directory)
        assert done.stdout == EXPECTED, done.stderr
        assert _host_state() == before
    assert _dropped() == dropped
    assert _host_log().startswith(log)


def test_busybox_cannot_reach_the_host(shared_directory: Path) -> None:
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("no busybox here")
    script = "busybox dmesg; busybox dmesg -c; busybox mount -t debugfs none $OUT && echo mounted; true"
    words = [*CMAFS, "run", "--", "sh", "-c", script]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=60, env={**os.environ, "OUT": str(shared_directory)}
    )
    assert done.stdout == ""


def test_without_namespaces_run_stops_and_says_why() -> None:
    """A process that may make no user namespaces: the limit is set in a user namespace of the test's own."""
    script = f"echo 0 > /proc/sys/user/max_user_namespaces; exec {' '.join(CMAFS)} run -- echo reached"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (125, "")
    assert "no more namespaces are allowed: raise /proc/sys/user/max_user_namespaces" in done.stderr
    assert done.stderr.count("\n") == 1


#: settings and devices by which root would change the host beyond the run
LASTING = r"""
cd /sys && find . -type f -writable -print 2>/dev/null |
    grep -vE '^./kernel/(debug|tracing|mm/cma)/|^./firmware/devicetree/' | head -n 3
mkdir /sys/fs/cgroup/attack 2>/dev/null && echo cgroup
/.cmafs/real/mount -o remount,rw /sys 2>/dev/null && echo remounted
/.cmafs/real/mount -t sysfs none /mnt 2>/dev/null && echo sysfs
for path in $(find /dev /.cmafs/dev -type b) /dev/loop-control /.cmafs/dev/loop-control; do
    [ -e $path ] && (: < $path) 2>/dev/null && echo "$path opened"
done
losetup /dev/loop0 /etc/passwd 2>/dev/null && echo loop
true < /dev/null && true > /dev/full && true < /dev/tty0 && echo devices
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="what only root could do")
def test_root_changes_nothing_that_outlives_the_run() -> None:
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
    words = [*CMAFS, "run", *MACHINE, "--", "sh", "-c", LASTING]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == "devices\n", done.stderr
    assert subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout == loops
