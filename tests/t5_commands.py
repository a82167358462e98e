"""What `cmafs run` does with CMD itself, and the programs of the host that CMD finds changed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_support import CMAFS, REPOSITORY, cmafs, run

from cmafs.abi.rows import RELEASES, release_key
from cmafs.run import procroot


def _executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_script_without_a_first_line_goes_to_the_shell(tmp_path: Path) -> None:
    script = _executable(tmp_path / "plain", 'echo "$0 $1"; exit 3\n')
    done = cmafs("run", "--", script, "word")
    assert (done.stdout, done.stderr, done.returncode) == (f"{script} word\n", "", 3)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert cmafs("run", "--", "plain", "word", env=path).stdout == f"{script} word\n"


def test_scripts_of_android_find_their_shell(tmp_path: Path) -> None:
    if Path("/system").exists():
        pytest.skip("this host has a /system of its own")
    done = cmafs("run", "--", _executable(tmp_path / "android", "#!/system/bin/sh\necho here\n"))
    assert (done.stdout, done.stderr) == ("here\n", "")
    assert not Path("/system").exists()


def test_what_is_not_there_is_127(tmp_path: Path) -> None:
    script = _executable(tmp_path / "script", "#!/no/such/interpreter\n")
    done = cmafs("run", "--", script)
    assert (done.stderr, done.returncode) == (f"cmafs: {script}: its interpreter is not there\n", 127)
    done = cmafs("run", "--", "")
    assert (done.stderr, done.returncode) == ("cmafs: : not found\n", 127)


def test_the_environment_is_the_callers() -> None:
    """The interpreter sets LC_CTYPE for itself where no locale is set."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    words = [*CMAFS, "run", "--", "/usr/bin/env"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)
    names = sorted(line.partition("=")[0] for line in done.stdout.splitlines())
    assert names == ["CMAFS_MOUNT", "PATH", "PYTHONPATH"]


@pytest.mark.skipif(not shutil.which("findmnt"), reason="no findmnt here")
def test_findmnt_finds_debugfs_by_its_type() -> None:
    script = "findmnt -nt debugfs -o TARGET; findmnt -no FSTYPE /sys/kernel/tracing; findmnt -no TARGET /"
    assert run(script).stdout == "/sys/kernel/debug\ntracefs\n/\n"


def test_options_of_dmesg_that_only_the_hosts_has() -> None:
    script = """
    echo one > /dev/kmsg; dmesg --json | grep -c '"msg": "one"'
    dmesg --time-format=delta | tail -n 1 | cut -d] -f2
    dmesg --level bogus 2>&1; echo $?; dmesg --no-such 2> /dev/null; echo $?; dmesg --level warn -t
    """
    assert run(script).stdout == "1\n one\ndmesg: unknown level 'bogus'\n1\n1\none\n"


def test_every_kernel_gets_the_whole_standard_input(tmp_path: Path) -> None:
    """Or a script on it would run on the first kernel only, and pass on all."""
    table = "KERNEL  RESULT\n5.10    failed (3)\n7.2     failed (3)\n"
    words = [*CMAFS, "run", "--kernel", "5.10,7.2", "--", "sh", "-s"]
    text = "uname -r\n" + "# a line of no consequence\n" * 5000 + "exit 3\n"
    script = tmp_path / "script"
    script.write_text(f"echo skipped\n{text}")
    with script.open() as opened:
        os.lseek(opened.fileno(), len("echo skipped\n"), os.SEEK_SET)
        for given in ({"stdin": opened}, {"input": text}):
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, **given)
            assert done.stdout == f"[5.10] 5.10.223\n[7.2] 7.2.13\n{table}"
            assert done.returncode == 1


def test_the_output_is_the_same_whatever_the_number_at_a_time(tmp_path: Path) -> None:
    """Slow kernels first, lines on both outputs, one run that fails, an unfinished last line."""
    script = """
    case $(uname -r) in 5.10*) sleep 0.5;; 7.2*) exit 4;; esac
    echo out; echo err >&2; printf 'no end'
    """
    words = [*CMAFS, "run", "--kernel", "5.10,6.12,7.2,6.1", "--jobs"]
    done = [
        subprocess.run([*words, jobs, "--", "sh", "-c", script], capture_output=True, text=True, timeout=60)
        for jobs in ("1", "4")
    ]
    runs = "".join(f"[{kernel}] out\n[{kernel}] no end\n" for kernel in ("5.10", "6.12", "6.1"))
    table = "KERNEL  RESULT\n5.10    ok\n6.12    ok\n7.2     failed (4)\n6.1     ok\n"
    assert {one.stdout for one in done} == {runs + table}
    assert {one.stderr for one in done} == {"[5.10] err\n[6.12] err\n[6.1] err\n"}
    assert {one.returncode for one in done} == {1}


def test_a_machine_without_config_gz_does_not_show_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fuse_device: None
) -> None:
    """arm's defconfig has no IKCONFIG; the host that is asked here has a file of that name."""
    (tmp_path / "proc").mkdir()
    for name in ("config.gz", "cpuinfo"):
        (tmp_path / "proc" / name).write_text("the host's")
    monkeypatch.setattr(procroot, "HOST", str(tmp_path))
    assert sorted(procroot.root_of([], ["config.gz"]).children) == ["cpuinfo", "mounts"]
    done = run("ls /proc/config.gz || cat /proc/config.gz", "--arch", "arm")
    assert (done.stdout, done.returncode) == ("", 1)


_TWO_WORKERS = r"""
import os, sys, time
from cmafs.cli.size import in_parallel
def work():
    os.write(1, b"at work\n")
    time.sleep(10)
    os.write(1, b"still at work\n")
try:
    in_parallel([work, work])
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_workers_of_size_end_with_it_without_a_word(end: signal.Signals) -> None:
    """Ctrl-C goes to all of them, and is the parent's to answer; a parent that is killed leaves none."""
    words = [sys.executable, "-c", _TWO_WORKERS]
    both = subprocess.PIPE
    with subprocess.Popen(words, stdout=both, stderr=both, text=True, start_new_session=True) as process:
        assert process.stdout and process.stderr
        assert [process.stdout.readline() for _ in range(2)] == ["at work\n"] * 2
        (os.killpg if end == signal.SIGINT else os.kill)(process.pid, end)
        assert (process.stdout.read(), process.stderr.read()) == ("", "")  # until nobody has them open
        assert process.wait(timeout=10) == (130 if end == signal.SIGINT else -signal.SIGKILL)


def test_shards_of_kernels_are_all_of_them_together() -> None:
    found = [
        cmafs("run", "--kernel", "all", "--shard", f"{part}/4", "--", "true").stdout for part in (1, 2, 3, 4)
    ]
    rows = [line.split()[0] for text in found for line in text.splitlines()[1:]]
    assert sorted(rows, key=release_key) == list(RELEASES)
    wrong = cmafs("run", "--shard", "5/4", "--", "true")
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (
        2,
        "cmafs run: error: argument --shard: '5/4' is not I/N with I from 1 to N, such as 2/8",
    )


def test_a_kernel_without_a_row_says_who_answers() -> None:
    done = cmafs("run", "--kernel", "4.14", "--", "uname", "-r")
    assert done.stdout == "4.4.302\n"
    assert done.stderr == "cmafs: there is no row for 4.14: it is answered as 4.4, the newest before it\n"
