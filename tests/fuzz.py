"""Look for inputs that break something, for as long as one likes.

    python tests/fuzz.py [--seconds N] [--seed N] [TARGET...]
    python tests/fuzz.py --atheris TARGET [DIRECTORY] [libFuzzer options]

Every target (or those named) gets so many seconds of new inputs; a line of each says how many cases it were.
What is found is printed and kept in tests/corpus/TARGET/, where the suite tries it first from then on; the
target goes on. Exit status 1 if anything was found. With ``--atheris``, where that is installed, inputs are
looked for that reach new code.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

import fuzz_readers
import fuzz_support
from fuzz_support import CASES_OF_A_MACHINE, Found, Target, fuzz

#: Findings after which a target is given up: they are seldom different.
ENOUGH = 5
#: Seconds after which a target begins anew, with the next seed.
ROUND = 120.0


def targets() -> dict[str, Target]:
    """All of them, by name."""
    return {target.name: target for target in (*fuzz_support.targets(), *fuzz_readers.targets())}


def campaign(target: Target, seconds: float, seed: int) -> int:
    """Let one target run for so long, and say what came of it; how many inputs were found."""
    end, cases, found = time.monotonic() + seconds, 0, 0
    while (left := end - time.monotonic()) > 0 and found < ENOUGH:
        try:
            cases += fuzz(target, min(left, ROUND), seed, keep=True).cases
        except Found as error:
            found += 1
            traceback.print_exception(error)
        seed += 1
    print(f"{time.strftime('%H:%M:%S')} {target.name}: {cases} cases, {found} found", flush=True)
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Look for inputs that break something.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(targets())}")
    parser.add_argument("--seconds", type=float, default=600, help="of each target (600)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    every = targets()
    if unknown := sorted(set(options.targets) - every.keys()):
        parser.error(f"no target {unknown[0]}: there are {', '.join(every)}")
    print(f"seed {options.seed}", flush=True)
    chosen = [every[name] for name in options.targets or every]
    return 1 if sum(campaign(target, options.seconds, options.seed) for target in chosen) else 0


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
