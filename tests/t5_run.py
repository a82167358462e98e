"""`cmafs run` and `shell`: paths, exit status, what passes through, several kernels."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import CMAFS, MACHINE, REPOSITORY, cmafs, ordinary_user, processes, run, server_of_run

PATHS = """
cat /sys/kernel/debug/cma/reserved/count /d/cma/reserved/count /sys/kernel/mm/cma/reserved/alloc_pages_success
ls -d /sys/kernel/tracing/events/cma /sys/kernel/debug/tracing/events/cma
ls -d /sys/firmware/devicetree/base/memory*
grep CmaTotal /proc/meminfo
cat /proc/cmdline /proc/version | cut -c1-22
head -n 1 /dev/kmsg | cut -d';' -f2 | cut -c1-22
cat /proc/sys/kernel/osrelease
ls /dev/cma_test /boot/config-6.12.117
tr -d '\\0' < /proc/device-tree/model | wc -l
zcat /proc/config.gz | grep CONFIG_CMA=y
ls -d $CMAFS_MOUNT/sim/verify; cat $CMAFS_MOUNT/sim/verify
ls /sim 2>&1 | wc -l
id -u
"""
SHOWN = """\
4096
4096
96
/sys/kernel/debug/tracing/events/cma
/sys/kernel/tracing/events/cma
/sys/firmware/devicetree/base/memory@40000000
CmaTotal:          16384 kB
cma=16M
Linux version 6.12.117
Linux version 6.12.117
6.12.117
/boot/config-6.12.117
/dev/cma_test
0
CONFIG_CMA=y
/.cmafs/mnt/sim/verify
ok
1
0
"""


def test_every_path_stands_at_its_place() -> None:
    done = run(PATHS)
    assert (done.stdout, done.stderr, done.returncode) == (SHOWN, "", 0)


def test_every_path_stands_at_its_place_for_an_ordinary_user() -> None:
    with ordinary_user() as command:
        words = [*command, "run", *MACHINE, "--", "sh", "-c", PATHS]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.stdout, done.stderr, done.returncode) == (SHOWN, "", 0)


def test_the_rest_of_the_host_is_there() -> None:
    devices = "[ -c /dev/null ] && [ -c /dev/tty ] && [ -d /dev/pts ] && echo dev"
    done = run(f"cat /etc/passwd; ls /usr/bin | wc -l; {devices}")
    shown = Path("/etc/passwd").read_text()
    assert done.stdout.startswith(shown)
    # the shims stand over programs or on PATH: nothing is added to the directory
    assert done.stdout[len(shown) :] == f"{len(os.listdir('/usr/bin'))}\ndev\n"


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("exit 125", 125), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_exit_status_is_the_commands(script: str, status: int) -> None:
    assert run(script).returncode == status


def test_exit_status_of_what_cannot_be_run(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    missing = cmafs("run", "--", "/no/such/program")
    assert (missing.returncode, missing.stderr) == (127, "cmafs: /no/such/program: not found\n")
    refused = cmafs("run", "--", str(plain))
    assert (refused.returncode, refused.stderr) == (126, f"cmafs: {plain}: Permission denied\n")
    unbootable = cmafs("run", "--dts", "/no/such.dts", "--", "true")
    assert unbootable.returncode == 125
    assert unbootable.stderr.startswith("cmafs: ")
    assert unbootable.stderr.count("\n") == 1
    assert cmafs("run").returncode == 2


def test_a_kernel_that_dies_at_boot_is_125(tmp_path: Path) -> None:
    dts = tmp_path / "outside.dts"
    dts.write_text(
        """/dts-v1/; / { #address-cells = <1>; #size-cells = <1>;
        memory@40000000 { device_type = "memory"; reg = <0x40000000 0x10000000>; };
        reserved-memory { #address-cells = <1>; #size-cells = <1>; ranges; pool@80000000 {
            compatible = "shared-dma-pool"; reusable; reg = <0x80000000 0x1000000>; }; }; };"""
    )
    done = cmafs("run", "--dts", str(dts), "--", "echo", "alive")
    *log, last = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (125, "")
    assert "] Kernel panic - not syncing: " in log[-1]
    assert last.startswith("cmafs: kernel panic at boot: ")


def test_a_board_that_no_kernel_can_boot_is_125(tmp_path: Path) -> None:
    dts = tmp_path / "empty.dts"
    dts.write_text('/dts-v1/; / { memory@0 { device_type = "memory"; reg = <0 0>; }; };')
    done = cmafs("run", "--dts", str(dts), "--", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"cmafs: {dts}: ")
    assert done.stderr.count("\n") == 1


def test_standard_input_directory_and_environment_pass(tmp_path: Path) -> None:
    done = run(
        "cat; pwd; echo $HOME $GREETING", input="typed\n", cwd=tmp_path, env={**os.environ, "GREETING": "hi"}
    )
    assert done.stdout == f"typed\n{tmp_path}\n{os.environ['HOME']} hi\n"
    assert (tmp_path / "x").exists() is False
    run("echo kept > x", cwd=tmp_path)
    assert (tmp_path / "x").read_text() == "kept\n"


def test_inherited_descriptors_pass(tmp_path: Path) -> None:
    with (tmp_path / "third").open("w+") as third:
        subprocess.run(
            [*CMAFS, "run", "--", "bash", "-c", f"echo written >&{third.fileno()}"],
            pass_fds=[third.fileno()],
            check=True,
        )
        third.seek(0)
        assert third.read() == "written\n"


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && exec {' '.join(CMAFS)} run -- pwd"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("/\n", 0)


def test_signals_reach_the_command() -> None:
    script = 'trap "echo got it; exit 7" USR1; echo ready; while :; do sleep 0.05; done'
    with subprocess.Popen(
        [*CMAFS, "run", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "got it\n"
        assert process.wait(30) == 7


def test_a_signal_that_kills_the_command() -> None:
    with subprocess.Popen(
        [*CMAFS, "run", "--", "sh", "-c", "echo ready; sleep 1000"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(30) == 143


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _starve(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_AS, (4096, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_kill, "killed by signal 9 (Killed)"),
        (_starve, "out of memory: raise `ulimit -v`, or free some memory"),
    ],
)
def test_a_server_that_ends_before_the_command(fault: Callable[[int], None], said: str) -> None:
    script = (
        "exec 2>/dev/null; echo ready; read go; cd $CMAFS_MOUNT/sim;"
        "for n in $(seq 500); do echo spawn m$n anon 1M > control || exit 7; done; exit 7"
    )
    words = [*CMAFS, "run", "--", "sh", "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        fault(server_of_run(process.pid))
        _, err = process.communicate("go\n", timeout=60)
    assert err == f"cmafs: the machine's server ended before the command: {said}\n"
    assert process.returncode == 7


def test_so_many_tasks_have_a_process() -> None:
    """Whoever starts tasks without end does not fill the host's table of processes."""
    code = """if True:
        import os
        from cmafs.run import tasks
        tasks.MAX_PROCESSES = 3
        reader, writer = os.pipe()
        made = tasks.StandIns(reader, os.devnull)
        os.write(writer, b"".join(b"spawn t%d\\n" % n for n in range(9)) + b"kill t0\\nspawn u\\nkill t8\\n")
        made.news()
        print(*made._pids)
        for pid in made._pids.values():
            os.kill(pid, 9)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("t1 t2 u\n", "")


def test_sigpipe_is_as_the_shell_wants_it() -> None:
    done = run("yes | head -n 1; seq 1 100000 | true; echo ${PIPESTATUS}ok")
    assert (done.stdout, done.stderr) == ("y\nok\n", "")


def _read_until(descriptor: int, text: str) -> str:
    seen = ""
    deadline = time.monotonic() + 30
    while text not in seen and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.1)[0]:
            seen += os.read(descriptor, 4096).decode()
    assert text in seen, seen
    return seen


def test_shell_has_the_terminal() -> None:
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the suite runs in a shell's background
        os.environ.update(SHELL="/bin/bash", PS1="prompt> ", TERM="dumb")
        os.execvp(CMAFS[0], [*CMAFS, "shell", *MACHINE])
    os.write(terminal, b"PS1='prom''pt> '\n")
    _read_until(terminal, "prompt> ")
    os.write(terminal, b"tty; cat /sys/kernel/debug/cma/reserved/count\n")
    assert "/dev/pts/" in _read_until(terminal, "4096")
    os.write(terminal, b"sh -c \"echo st''arted; exec sleep 1000\"\n")
    _read_until(terminal, "started")  # printed by whoever has the terminal now
    os.write(terminal, b"\x03")
    os.write(terminal, b"echo st''atus $?; exit 5\n")
    _read_until(terminal, "status 130")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    os.close(terminal)


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/bash"])
def test_an_interactive_shell_ends_with_the_status_that_it_was_told(shell: str) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(SHELL=shell, TERM="dumb")
        os.execvp(CMAFS[0], [*CMAFS, "shell", *MACHINE])
    _read_until(terminal, "# ")
    os.write(terminal, b"echo in''side; exit 5\n")
    seen = _read_until(terminal, "inside\r\n")
    with contextlib.suppress(OSError):  # the end of a terminal
        while data := os.read(terminal, 4096):
            seen += data.decode()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    assert "Cannot set" not in seen
    os.close(terminal)


def test_the_terminal_is_given_back() -> None:
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the suite runs in a shell's background
        os.environ.update(SHELL="/bin/bash", TERM="dumb")
        os.execvp("sh", ["sh", "-c", f"{' '.join(CMAFS)} shell; read word; echo got $word"])
    os.write(terminal, b"echo in''side; exit\n")
    _read_until(terminal, "inside")
    os.write(terminal, b"typed\n")
    _read_until(terminal, "got typed")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)


def test_shell_reads_a_script_from_standard_input() -> None:
    done = cmafs(
        "shell",
        *MACHINE,
        input="cat /sys/kernel/debug/cma/reserved/count\nexit 4\n",
        env={**os.environ, "SHELL": "/bin/sh"},
    )
    assert (done.stdout, done.returncode) == ("4096\n", 4)


def test_several_kernels() -> None:
    script = "uname -r; ls /sys/kernel/debug/cma; echo oops >&2; case $(uname -r) in 6.*) exit 3; esac"
    done = run(script, "--kernel", "5.10,6.12")
    assert done.stdout == (
        "[5.10] 5.10.223\n[5.10] cma-reserved\n[6.12] 6.12.117\n[6.12] reserved\n"
        "KERNEL  RESULT\n5.10    ok\n6.12    failed (3)\n"
    )
    assert done.stderr == "[5.10] oops\n[6.12] oops\n"
    assert done.returncode == 1


def test_a_kernel_named_twice_runs_once() -> None:
    done = run("uname -r", "--kernel", "5.10,6.12,5.10")
    assert done.stdout.splitlines()[:2] == ["[5.10] 5.10.223", "[6.12] 6.12.117"]
    assert len(done.stdout.splitlines()) == 5


def test_what_several_kernels_say_is_passed_on_whole_however_long_its_lines() -> None:
    """One without an end of line is cut by nothing; what has to wait for its turn waits in its own pipe."""
    script = "head -c 3000000 /dev/zero; echo; printf end; case $(uname -r) in 5.10*) ;; *) seq 4000000; esac"
    done = run(script, "--kernel", "5.10,6.12", "--jobs", "2")
    first, second, third, *rest = done.stdout.splitlines()
    assert (first, second) == ("[5.10] " + "\0" * 3000000, "[5.10] end")
    assert third == "[6.12] " + "\0" * 3000000
    assert rest[:-3] == ["[6.12] end1", *(f"[6.12] {number}" for number in range(2, 4000001))]


def test_nothing_is_left_open_that_python_warns_of() -> None:
    done = cmafs("run", "--", "echo", "hi", env={**os.environ, "PYTHONWARNINGS": "error"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")


def test_a_name_with_control_characters_is_shown_and_not_obeyed() -> None:
    done = cmafs("run", "--", "a\nb\x1b[31m")
    assert (done.returncode, done.stderr) == (127, "cmafs: a\\nb\\x1b[31m: not found\n")


def test_all_kernels() -> None:
    done = run("cat /sys/kernel/debug/cma/*/count", "--kernel", "all")
    lines = done.stdout.splitlines()
    kernels = ["4.4", "4.15", "4.19", "5.4", "5.10", "5.15", "6.1", "6.6", "6.12", "6.18", "7.2"]
    assert lines[: len(kernels)] == [f"[{kernel}] 4096" for kernel in kernels]
    assert lines[len(kernels) + 1 :] == [f"{kernel:<6}  ok" for kernel in kernels]
    assert done.returncode == 0


def test_an_unknown_kernel_among_several() -> None:
    done = run("true", "--kernel", "6.12,9.9")
    assert done.stdout.splitlines()[-1] == "9.9     failed (125)"
    assert "[9.9] cmafs: unknown kernel '9.9'" in done.stderr
    assert done.returncode == 1


def test_parallel_runs_do_not_meet() -> None:
    script = (
        "echo $0 > /sys/kernel/debug/cma/reserved/alloc; sleep 0.3; cat /sys/kernel/debug/cma/reserved/used"
    )
    words = [[*CMAFS, "run", *MACHINE, "--", "sh", "-c", script, str(pages)] for pages in (1, 2, 3)]
    runs = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for line in words]
    assert [process.communicate(timeout=60)[0] for process in runs] == ["97\n", "98\n", "99\n"]


def test_comforts() -> None:
    script = """
    mount -t debugfs none /sys/kernel/debug && mount -t tracefs nodev /sys/kernel/tracing && echo mounted
    mount -o remount,rw /sys/kernel/debug && umount /sys/kernel/debug && ls /sys/kernel/debug/cma
    grep debugfs /proc/mounts | cut -d' ' -f2
    awk '$3 == "tracefs" { print $2 }' /proc/mounts
    mount | grep 'type debugfs' | cut -d' ' -f1-5
    mountpoint -q /sys/kernel/debug && echo mountpoint
    uname -r; uname -m; uname -s -r
    dmesg -c > /dev/null; dmesg | wc -l
    echo 4090 > /sys/kernel/debug/cma/reserved/alloc; dmesg -t | head -n 1
    free -k | awk '/^Mem:/ { print $2 }'
    awk '/^MemTotal:/ { print $2 }' /proc/meminfo
    vmstat | tail -n 1 | awk '{ print $4 }'
    awk '/^MemFree:/ { print $2 }' /proc/meminfo
    sudo -n bash -c 'id -u'
    """
    lines = run(script).stdout.splitlines()
    assert lines[:11] == [
        "mounted", "reserved", "/sys/kernel/debug", "/sys/kernel/tracing",
        "debugfs on /sys/kernel/debug type debugfs", "mountpoint",
        "6.12.117", "aarch64", "Linux 6.12.117", "0",
        "cma: __cma_alloc: reserved: alloc failed, req-size: 4090 pages, ret: -12",
    ]  # fmt: skip
    assert lines[11] == lines[12]
    assert lines[13] == lines[14]
    assert lines[15:] == ["0"]


def test_debugfs_can_be_mounted_elsewhere(tmp_path: Path) -> None:
    done = run(f"mount -t debugfs none {tmp_path} && ls {tmp_path}/cma")
    assert done.stdout == "reserved\n"
    assert list(tmp_path.iterdir()) == []


def test_dmesg_follows() -> None:
    script = "dmesg -w & sleep 0.3; echo 4090 > /sys/kernel/debug/cma/reserved/alloc; sleep 0.3"
    assert "alloc failed, req-size: 4090" in run(script).stdout


def test_procfs_works_around_the_machines_files() -> None:
    script = """
    ps -o pid=,comm= -p $$
    readlink /proc/self/cwd; cat /proc/$$/comm; ls /proc | grep -c '^[0-9]'
    ls /proc/sys/kernel/random/uuid /proc/cpuinfo; [ -d /proc/sys/net ] && echo net
    cat /proc/no-such-name /proc/40909/stat 2>&1 | sed 's/.*: //'
    """
    lines = run(script, cwd="/usr").stdout.splitlines()
    assert lines[0].split() == ["2", "sh"]
    assert lines[1:] == [
        "/usr", "sh", "4", "/proc/cpuinfo", "/proc/sys/kernel/random/uuid", "net",
        "No such file or directory", "No such file or directory",
    ]  # fmt: skip


def test_nothing_is_left_of_a_background_child() -> None:
    mark = f"86{os.getpid()}"
    done = run(f"sleep {mark} & (setsid sleep {mark} &) ; exit 0")
    assert done.returncode == 0
    assert processes(f"sleep {mark}") == []


def test_runs_cannot_be_nested() -> None:
    done = cmafs("run", "--", *CMAFS, "run", "--", "true")
    assert done.returncode == 125
    assert done.stderr == "cmafs: this is inside `cmafs run` already, which cannot be nested\n"


def test_the_trace_names_the_task_as_it_knows_itself() -> None:
    done = run("""
    echo 1 > /sys/kernel/tracing/events/cma/enable
    echo 3 > /sys/kernel/debug/cma/reserved/alloc
    echo $$; tail -n 1 /sys/kernel/tracing/trace
    """)
    pid, line = done.stdout.splitlines()
    assert line.split()[0] == f"sh-{pid}"


def test_trace_pipe_waits_and_says(tmp_path: Path) -> None:
    script = """
    echo 1 > /sys/kernel/tracing/events/cma/enable
    timeout 20 sed -u '2q' /sys/kernel/tracing/trace_pipe > seen & reader=$!
    echo 3 > /sys/kernel/debug/cma/reserved/alloc
    wait $reader; grep -c 'count=3' seen
    timeout 0.2 cat /sys/kernel/tracing/trace_pipe; echo $?
    """
    assert run(script, cwd=tmp_path).stdout == "2\n124\n"


def test_a_bug_of_ours_is_not_a_status_of_the_commands() -> None:
    code = (
        "import sys, runpy\n"
        "from cmafs.cli import run\n"
        "run.boot_from = lambda *args, **options: 1 / 0\n"
        "sys.argv[1:] = ['run', '--', 'true']\n"
        "runpy.run_module('cmafs', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 125
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_pseudoterminals_can_be_made() -> None:
    done = cmafs("run", "--", "python3", "-c", "import os, pty; print(os.ttyname(pty.openpty()[1])[:9])")
    assert (done.stdout, done.stderr) == ("/dev/pts/\n", "")


def test_programs_find_debugfs_by_its_type(tmp_path: Path) -> None:
    """As libtracefs and perf do; a mount that CMD makes shows as well."""
    wanted = f'$3 ~ /^(debugfs|tracefs)$/ || $2 == "{tmp_path}"'
    done = run(f"mount -t tmpfs none {tmp_path} && awk '{wanted}' /proc/mounts")
    lines = [line.split()[:3] for line in done.stdout.splitlines()]
    assert sorted(lines) == sorted(
        [
            ["debugfs", "/sys/kernel/debug", "debugfs"],
            ["none", str(tmp_path), "tmpfs"],
            ["tracefs", "/sys/kernel/tracing", "tracefs"],
        ]
    )


def test_dmesg_shows_what_was_written() -> None:
    script = r"""printf 'one\ntwo \\ \303\244\001\n' > /dev/kmsg; dmesg -t | tail -n 2; dmesg | tail -n 1"""
    second = "two \\ ä\\x01\n"
    assert run(script).stdout == f"one\n{second}{' ' * 15}{second}"


def test_files_are_whole_for_programs_that_would_splice() -> None:
    code = """
import os, sys
for path in ("/proc/version", "/sys/kernel/debug/cma/reserved/count"):
    try:
        print(os.sendfile(os.pipe()[1], os.open(path, os.O_RDONLY), None, 100))
    except OSError as error:
        print(error.errno)
"""
    done = cmafs("run", *MACHINE, "--", "python3", "-c", code)
    assert done.stdout == "22\n" * 2


def test_explain_repeats_why_behind_a_command_that_fails() -> None:
    done = run("echo 4050 > /sys/kernel/debug/cma/reserved/alloc 2>/dev/null; exit 3", "--explain")
    first, *why = done.stderr.splitlines()
    assert (done.returncode, first) == (3, "cmafs: the command ended with 3; sim/why says:")
    assert why[0] == "reserved: 4096 pages, 96 allocated, largest hole 4000"
    assert any(
        line.startswith("  failed: 4050 pages, -12 (ENOMEM): no hole was large enough") for line in why
    )
    assert run("true", "--explain").stderr == run("false").stderr == ""


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_prompt_of_a_shell_says_where_one_is(shell: str, tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(SHELL=f"/bin/{shell}", HOME=str(tmp_path), TERM="dumb")
        os.execvp(CMAFS[0], [*CMAFS, "shell", "--dts", "rpi4", "--kernel", "5.10"])
    os.write(terminal, b"exit 7\n")
    said = b""
    with contextlib.suppress(OSError):  # EIO: the shell has ended
        while data := os.read(terminal, 4096):
            said += data
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"(cmafs rpi4 5.10) " in said


def test_dmesg_has_the_options_that_people_type() -> None:
    script = "dmesg -H | head -n 2; echo '<3>lost' > /dev/kmsg; dmesg -T -l err"
    first, second, error = run(script).stdout.splitlines()
    assert re.match(r"\[[A-Z][a-z]{2}[ \d]\d \d\d:\d\d\] Linux version 6\.12", first)
    assert second.startswith("[  +0.000000] ")
    assert re.match(r"\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\] lost$", error)
