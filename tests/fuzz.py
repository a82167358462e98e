"""Look for inputs that break something, for as long as one likes.

    python tests/fuzz.py [--seconds N] [--jobs N] [--seed N] [TARGET...]
    python tests/fuzz.py --atheris TARGET [DIRECTORY] [libFuzzer options]

Every target (or those named) gets so many seconds of new inputs in a process of its own, so many at a time;
at the end a table says how many cases of each it were. What is found is printed and kept in
tests/corpus/TARGET/, where the suite tries it first from then on; the target goes on. Exit status 1 if
anything was found. With ``--atheris``, where that is installed, inputs are looked for that reach new code.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import fuzz_readers
import fuzz_support
from fuzz_support import CASES_OF_A_MACHINE, Found, Target, fuzz

#: The table: of a target its cases, its seconds, the most memory it had (MiB), and what was found.
ROW = "{:16} {:>10} {:>8} {:>6} {:>6}"
HEAD = ROW.format("target", "cases", "seconds", "MiB", "found")
#: Findings after which a target is given up: they are seldom different.
ENOUGH = 5
#: Seconds after which a target begins anew, with the next seed.
ROUND = 120.0


def targets() -> dict[str, Target]:
    """All of them, by name."""
    return {target.name: target for target in (*fuzz_support.targets(), *fuzz_readers.targets())}


def campaign(target: Target, seconds: float, seed: int) -> str:
    """Let one target run for so long: its row of the table."""
    start, cases, found = time.monotonic(), 0, 0
    while (left := start + seconds - time.monotonic()) > 0 and found < ENOUGH:
        try:
            cases += fuzz(target, min(left, ROUND), seed, keep=True).cases
        except (Found, AssertionError) as error:  # the latter: memory
            found += 1
            traceback.print_exception(error)
        seed += 1
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return ROW.format(target.name, cases, round(time.monotonic() - start), resident, found)


def in_a_process(name: str, seconds: float, seed: int) -> tuple[str, bool]:
    """The same of a target by name, in a process of its own, and whether nothing was found."""
    words = [sys.executable, __file__, "--seconds", str(seconds), "--seed", str(seed), name]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    *said, row = done.stdout.splitlines() or [f"{name} ended"]
    print(
        f"{time.strftime('%H:%M:%S')} {name}: status {done.returncode}",
        *said[2:],
        done.stderr,
        sep="\n",
        end="",
    )
    sys.stdout.flush()
    return row if done.returncode in (
        0,
        1,
    ) else f"{name} ended with status {done.returncode}", not done.returncode


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Look for inputs that break something.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(targets())}")
    parser.add_argument("--seconds", type=float, default=600, help="of each target (600)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time (as many as CPUs)"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    every = targets()
    if unknown := sorted(set(options.targets) - every.keys()):
        parser.error(f"no target {unknown[0]}: there are {', '.join(every)}")
    print(f"seed {options.seed}", flush=True)
    chosen = options.targets or list(every)
    if len(chosen) == 1:
        row = campaign(every[chosen[0]], options.seconds, options.seed)
        print(HEAD, row, sep="\n")
        return int(row.split()[-1] != "0")
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda name: in_a_process(name, options.seconds, options.seed), chosen))
    print(HEAD, *(row for row, _ in rows), sep="\n")
    return 0 if all(clean for _, clean in rows) else 1


def atheris(words: list[str]) -> None:
    """Let atheris look for inputs."""
    import atheris  # type: ignore[import-not-found]

    target = targets()[words.pop(1)]
    atheris.instrument_all()
    case, number = target.make(), 0

    def one(data: bytes) -> None:
        nonlocal case, number
        number += 1
        if number % CASES_OF_A_MACHINE == 0:
            case = target.make()
        case(data)

    atheris.Setup(words, one)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--atheris"]:
        atheris([sys.argv[0], *sys.argv[2:]])
    else:
        sys.exit(main())
