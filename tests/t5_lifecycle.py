"""However a run ends, nothing of it remains: no mounts, processes, temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import CMAFS, MACHINE, REPOSITORY, eventually, gone, mounts, ordinary_user, processes


def _started(
    mark: str, command: list[str] = CMAFS, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """A run that waits for ever, together with a background child; ``mark`` is in all their command lines."""
    script = f"sleep {mark} & setsid sleep {mark} & echo ready; exec sleep {mark}"
    words = [*command, "run", *MACHINE, "--", "sh", "-c", script]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/", env=env)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _kill_server(process: subprocess.Popen[str]) -> None:
    """Of cmafs's children the server is a session leader of its own, CMD's init is not."""
    servers = [pid for pid in _children(process.pid) if os.getsid(pid) == pid]
    assert servers
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    process.terminate()


def _kill_init(process: subprocess.Popen[str]) -> None:
    (init,) = [pid for pid in _children(process.pid) if os.getsid(pid) != pid]
    os.kill(init, signal.SIGKILL)


ENDS: dict[str, tuple[Callable[[subprocess.Popen[str]], None], set[int]]] = {
    "cmafs killed": (lambda process: process.kill(), {-9}),
    "cmafs terminated": (lambda process: process.terminate(), {143}),
    "the servers killed": (_kill_server, {143}),
    "init killed": (_kill_init, {137}),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_remains(end: str, tmp_path: Path) -> None:
    mark = f"86{os.getpid()}{list(ENDS).index(end)}"
    before = mounts()
    process = _started(mark, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert len(processes(mark)) >= 5
    action, statuses = ENDS[end]
    action(process)
    assert process.wait(30) in statuses
    assert process.stdout is not None
    process.stdout.close()
    assert eventually(lambda: processes(mark) == []), processes(mark)
    assert mounts() == before
    assert os.listdir(tmp_path) == []


def test_nothing_remains_of_an_ordinary_users() -> None:
    mark = f"86{os.getpid()}9"
    with ordinary_user() as command:
        process = _started(mark, command)
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
        assert eventually(lambda: processes(mark) == []), processes(mark)


def test_a_killed_server_leaves_errors_not_a_hang() -> None:
    script = "echo ready; read go; cat /sys/kernel/debug/cma/reserved/count 2>&1 | sed 's/.*: //'; exit 6"
    words = [*CMAFS, "run", *MACHINE, "--", "sh", "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        servers = [pid for pid in _children(process.pid) if os.getsid(pid) == pid]
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: all(gone(pid) for pid in servers))
        output, _ = process.communicate("go\n", timeout=30)
    assert output == "Transport endpoint is not connected\n"
    assert process.returncode == 6


def test_runs_need_no_room_in_tmp() -> None:
    """A full /tmp: nothing is written there."""
    full = "mount -t tmpfs -o size=4k tmpfs /tmp; cat /dev/zero > /tmp/full 2>/dev/null"
    if REPOSITORY.is_relative_to("/tmp"):  # keep the clone visible
        full = (
            f"mount --bind {REPOSITORY} /mnt; {full}; mkdir -p {REPOSITORY}; mount --move /mnt {REPOSITORY}"
        )
    script = f"{full}; {' '.join(CMAFS)} run -- echo works"
    words = ["unshare", "-Urm", "sh", "-c", script] if os.geteuid() else ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.stdout, done.returncode) == ("works\n", 0), done.stderr
