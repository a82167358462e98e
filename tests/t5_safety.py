"""Whatever CMD does, the host's debugfs, kernel log, /proc/sys/vm and files stay out of its reach."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_support import CMAFS, MACHINE, REPOSITORY, cmafs, eventually, mounts, ordinary_user

from cmafs.mount.mounts import Mount, MountFailed, check_mountpoint, mount_table
from cmafs.run.allowed import DEVICES, PROC, table

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
dma_buf
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
    assert log[-4000:] in after  # not cleared; what is oldest may have gone meanwhile, the ring is small
    since = after.rpartition(log[-4000:])[2] if log else after
    assert "cmafs-attack" not in after
    assert "sysrq" not in since
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
    after = _host_log()
    assert log[-4000:] in after
    assert "cmafs-attack" not in after


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
losetup /dev/loop0 /etc/passwd 2>/dev/null && echo loop
true < /dev/null && true > /dev/full && true < /dev/zero && echo devices
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="what only root could do")
def test_root_changes_nothing_that_outlives_the_run() -> None:
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
    words = [*CMAFS, "run", *MACHINE, "--", "sh", "-c", LASTING]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == "devices\n", done.stderr
    assert subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout == loops


#: what can be opened of the devices in sight, and what can be written below /proc, processes aside
PROBE = """
import os, stat
ours = {os.stat(os.environ["CMAFS_MOUNT"]).st_dev, os.stat("/proc").st_dev}
def opens(path, flags):
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return False
    return os.stat(path).st_dev not in ours
for top in ("/dev", "/.cmafs/dev"):
    for directory, _, names in os.walk(top):
        for path in (f"{directory}/{name}" for name in names):
            kind = stat.S_IFMT(os.stat(path).st_mode) if os.path.exists(path) else 0
            if kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK) and opens(path, os.O_RDONLY):
                print(path)
for top in ("/proc", "/.cmafs/proc"):
    for directory, below, names in os.walk(top):
        if directory == top:
            below[:] = [name for name in below if not name.isdigit()]
        for path in (f"{directory}/{name}" for name in names):
            if not os.path.islink(path) or directory == "/proc":
                if opens(path, os.O_WRONLY):
                    print(path)
"""


def _let_through(command: list[str]) -> set[str]:
    """The names on the lists, and any that is on none as a whole path."""
    words = [*command, "run", *MACHINE, "--", "python3", "-c", PROBE]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=60, cwd="/", stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    found = set()
    for path in done.stdout.splitlines():
        place = path.removeprefix("/.cmafs").removeprefix("/")
        top, _, rest = place.partition("/")
        listed = DEVICES if top == "dev" else PROC
        found.add(next((name for name in listed if f"{rest}/".startswith(f"{name}/")), path))
    return found


def test_only_what_is_listed_is_let_through() -> None:
    found = _let_through(CMAFS)
    assert found <= {*DEVICES, *PROC}
    assert {"null", "zero", "full", "random", "urandom", "pts", "sys/vm", "sys/kernel/printk"} <= found


def test_only_what_is_listed_is_let_through_to_an_ordinary_user() -> None:
    with ordinary_user() as command:
        assert _let_through(command) <= {*DEVICES, *PROC}


def test_the_document_has_the_list() -> None:
    assert table() in (REPOSITORY / "docs/run.md").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="what only root could do")
@pytest.mark.parametrize(
    "path", ["/proc/irq/default_smp_affinity", "/proc/sys/kernel/panic", "/proc/mtrr", "/proc/pressure/cpu"]
)
def test_settings_of_the_host_are_read_only(path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"no {path} here")
    done = cmafs("run", "--", "sh", "-c", f"echo 1 > {path}")
    assert done.returncode == 2
    assert "Read-only file system" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a /dev of its own")
def test_a_fifo_or_a_socket_in_dev_is_no_way_out(tmp_path: Path) -> None:
    """/dev/log and /dev/initctl of some hosts; what is mounted below /dev is sealed as well."""
    (tmp_path / "dev").mkdir()
    script = f"""
        mount --rbind /dev {tmp_path}/dev && mount -t tmpfs none /dev && cd {tmp_path}/dev || exit 9
        cp -a null zero full random urandom tty fuse ptmx /dev; mkdir /dev/pts /dev/shm /dev/below
        mount --bind pts /dev/pts; cd /
        mount -t tmpfs none /dev/below; cp -a /dev/null /dev/below/kvm
        mkfifo /dev/initctl; cat /dev/initctl &
        exec {" ".join(CMAFS)} run -- sh -c '
            for path in /dev/initctl /dev/below/kvm /.cmafs/dev/initctl; do
                echo attack 2> /dev/null >> $path && [ -p $path -o -c $path ] && echo $path
            done; ls /dev/below'
    """
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
    options = {"stdout": subprocess.PIPE, "text": True, "cwd": REPOSITORY, "start_new_session": True}
    with subprocess.Popen(words, **options) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "kvm\n"
            assert process.wait(60) == 0
        finally:
            os.killpg(process.pid, 9)  # the cat


IPC = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.shmget(0x8642, 4096, 0o1600) >= 0 and libc.msgget(0x8642, 0o1600) >= 0
assert libc.semget(0x8642, 1, 0o1600) >= 0
try:
    rt = ctypes.CDLL("librt.so.1", use_errno=True)
    assert rt.mq_open(b"/cmafs-test", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
except OSError:
    pass
add_key = {"x86_64": 248, "aarch64": 217}.get(os.uname().machine)
for keyring in (-3, -4, -5):  # of the session, the user, the user's session
    if add_key:
        libc.syscall(add_key, b"user", b"cmafs-test-MARK", b"x", 1, keyring)
"""


def _ipc() -> list[str]:
    """Keys and names of what System V IPC there is."""
    kinds = (Path("/proc/sysvipc", kind).read_text().splitlines()[1:] for kind in ("shm", "sem", "msg"))
    return sorted(" ".join(line.split()[:2]) for lines in kinds for line in lines)


def test_what_processes_share_ends_with_the_run() -> None:
    mark, before = str(os.getpid()), _ipc()
    done = cmafs("run", "--", "python3", "-c", IPC.replace("MARK", mark))
    assert (done.returncode, done.stderr) == (0, "")
    assert _ipc() == before
    assert not os.path.exists("/dev/mqueue/cmafs-test")
    keys = Path("/proc/keys")
    assert not keys.exists() or eventually(lambda: f"cmafs-test-{mark}" not in keys.read_text())
    again = cmafs("run", "--", "python3", "-c", IPC.replace("MARK", mark))
    assert again.returncode == 0


def test_places_of_mounts_have_their_blanks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernel writes them in octal; where mount_setattr(2) is missing each place is restricted by name."""
    table = tmp_path / "mountinfo"
    table.write_text("36 35 98:0 /a\\040b /mnt/my\\040disk\\134x rw - ext4 /dev/my\\040disk rw\n")
    monkeypatch.setattr("cmafs.mount.mounts.MOUNTINFO", str(table))
    assert list(mount_table()) == [Mount("98:0", "/a b", "/mnt/my disk\\x", "ext4", None)]


def test_who_is_quicker_is_told_from_a_directory_with_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between two looks at a place a machine can be mounted there, whose files are not the user's."""
    (tmp_path / "sim").touch()
    looks = iter([None, Mount("0:99", "/", str(tmp_path), "fuse.cmafs", 0)])
    monkeypatch.setattr("cmafs.mount.mounts.mounted_at", lambda _path: next(looks))
    with pytest.raises(MountFailed, match="busy: a machine is mounted there already"):
        check_mountpoint(str(tmp_path))
