"""The oracle's command: ``record`` (`make oracle`), ``fuzz`` (`make oracle-fuzz`), ``compare`` (cases)."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

import replay
from oracle import build, compare, fuzz, heaps, record


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="oracle", description="Real kernels against cmafs: docs/oracle.md.")
    commands = parser.add_subparsers(dest="command", required=True)
    kernel = argparse.ArgumentParser(add_help=False)
    kernel.add_argument("--kernel", default="6.12", help="row: 5.10, 6.1, 6.12, 7.2")
    kernel.add_argument("--arch", default="arm64", choices=sorted(build.ARCHS))
    kernel.add_argument(
        "--config", default="tiny", help="tiny, defconfig, a file, debian-…; fuzz: several, by commas"
    )
    kernel.add_argument("--out", type=Path, help="where transcripts go (below the cache directory)")
    one = commands.add_parser("record", parents=[kernel], help="record transcripts and replay them")
    one.add_argument("--inputs", default="", help="sets of tests/transcripts to ask again, by commas")
    one.add_argument("--only", default="", help="cases whose name begins so")
    many = commands.add_parser("fuzz", parents=[kernel], help="random machines and operations")
    many.add_argument("--boots", type=int, default=100)
    many.add_argument("--operations", type=int, default=100, help="of each boot")
    many.add_argument("--seed", type=int, default=0, help="of the first boot")
    again = commands.add_parser("compare", help="compare kept transcripts again, without a kernel")
    again.add_argument("file", nargs="+", type=Path)
    return parser


def _record(options: argparse.Namespace) -> int:
    kernel = build.kernel(options.kernel, options.arch, options.config)
    place = options.out or build.cache() / "transcripts" / kernel.name
    sets = tuple(filter(None, options.inputs.split(",")))
    about_heaps = "heaps" in options.config.split("+")
    cases = heaps.cases(options.arch) if about_heaps else record.cases(options.arch, options.config, sets)
    wanted = [case for case in cases if case.name.startswith(options.only)]
    start = time.monotonic()
    asked = (heaps.record, heaps.compare) if about_heaps else (record.record, compare.compare)
    found = record.record_all(kernel, wanted, place, *asked)
    equal = sum(not problems for problems in found.values())
    seconds = time.monotonic() - start
    print(f"{kernel.name}: {equal} of {len(found)} equal, {seconds:.0f} s; transcripts in {place}")
    return 0 if equal == len(found) else 1


def _fuzz(options: argparse.Namespace) -> int:
    kernels = [build.kernel(options.kernel, options.arch, config) for config in options.config.split(",")]
    place = options.out or build.cache() / "found"
    seeds = range(options.seed, options.seed + options.boots)
    start = time.monotonic()
    campaign = fuzz.run(kernels, seeds, place, options.operations)
    print(f"{options.kernel} {options.arch}: {campaign.line()}; {time.monotonic() - start:.0f} s")
    for text, count in campaign.found.most_common():
        print(f"{count:5} {text}")
    return 1 if campaign.found else 0


def _compare(options: argparse.Namespace) -> int:
    failed = 0
    for path in options.file:
        problems = compare.compare(replay.load(path))
        failed += bool(problems)
        print(f"{path}: {'ok' if not problems else f'{len(problems)} differences'}")
        for problem in problems[:8]:
            print(f"    {problem}")
    return 1 if failed else 0


def main() -> int:
    """Run one command; what cannot go on is one line on standard error."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the guest ends with us
    try:
        return {"record": _record, "fuzz": _fuzz, "compare": _compare}[options.command](options)
    except build.OracleError as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
