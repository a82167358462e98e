"""Sixteen shells allocate and free at once: every write is answered, the books balance, memory stays flat."""

from __future__ import annotations

import os
import subprocess

import pytest
from run_support import CMAFS, resident, server_of_run

SHELLS = 16
ROUNDS = 100  # of a shell between two looks at the clock
GROWTH = 1024  # kB that the server may grow by in the second half; its log and trace rings are full by then

WORKERS = r"""
area=/sys/kernel/debug/cma/reserved
books=$(mktemp)
cat $area/used > $books
worker() {
    seed=$1 held=0 answered=0
    while [ "$(date +%s)" -lt "$2" ]; do
        for _ in $(seq "$ROUNDS"); do
            seed=$(((seed * 1103515245 + 12345) % 2147483648))
            pages=$((seed / 65536 % 16 + 1))
            echo $pages 2>/dev/null > $area/alloc && held=$((held + pages))
            answered=$((answered + 1))
            if [ $((seed / 4096 % 3)) -ne 0 ]; then
                echo $pages > $area/free && held=$((held - pages))
            fi
        done
    done
    echo $held
    echo $answered >&2
}
for half in first second; do
    end=$(($(date +%s) + SECONDS_EACH))
    for n in $(seq "$SHELLS"); do worker "$n" "$end" >> $books & done
    wait
    echo $half $(awk '{ held += $1 } END { print held }' $books) $(cat $area/used $CMAFS_MOUNT/sim/verify)
    read go
done
rm $books
"""


@pytest.mark.soak(6, seconds=10)  # three minutes of an hour
def test_sixteen_shells(seconds: float) -> None:
    each = str(round(seconds / 2))
    environment = {**os.environ, "SHELLS": str(SHELLS), "ROUNDS": str(ROUNDS), "SECONDS_EACH": each}
    words = [*CMAFS, "run", "--cmdline", "cma=64M", "--", "sh", "-c", WORKERS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, env=environment, **pipes) as process:
        assert process.stdin and process.stdout and process.stderr
        sizes = []
        for half in ("first", "second"):
            name, held, used, verify = process.stdout.readline().split()
            assert (name, held, verify) == (half, used, "ok")
            sizes.append(resident(server_of_run(process.pid)))
            process.stdin.write("go\n")
            process.stdin.flush()
        answered = process.stderr.read().split()
        assert process.wait(60) == 0
    assert len(answered) == SHELLS * 2
    assert all(int(rounds) and int(rounds) % ROUNDS == 0 for rounds in answered)
    assert sizes[1] - sizes[0] < GROWTH, sizes
