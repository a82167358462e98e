"""`make bench`: every budget of the design, measured, as one table; what changed since the one that is kept.

Machines are noisy: measurements alternate in small batches, ratios are taken in one run, and the minimum is
held against the budget; the median beside it says how noisy it was. The table goes to the terminal, its
figures to ``tests/bench/now.json``. ``--keep`` makes them the ones to compare with, ``last.json`` beside it;
``--scale`` draws the plots of docs/performance.md as well. A missed budget is printed, and no failure: nobody
knows what else the machine does.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
from pathlib import Path

from bench_support import RECORDS

HERE = Path(__file__).resolve().parent
NOW, LAST = HERE / "bench/now.json", HERE / "bench/last.json"
SUBJECTS = ("bench_mm.py", "bench_cma.py", "bench_fuse.py", "bench_steps.py", "bench_run.py")
#: Changes below this are noise.
NOTABLE = 0.15


def measured(subjects: tuple[str, ...]) -> list[dict[str, str | float]]:
    """The records of the benches, run one after another, so that they do not disturb each other."""
    lines = HERE / "bench/records.jsonl"
    lines.unlink(missing_ok=True)
    for subject in subjects:
        print(f"== {subject.removesuffix('.py')}", flush=True)
        environment = {**os.environ, RECORDS: str(lines)}
        subprocess.run([sys.executable, str(HERE / subject)], env=environment, check=False)
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    lines.unlink()
    return records


def table(records: list[dict[str, str | float]], last: dict[str, float]) -> list[str]:
    """The table: what, budget, measured, spread (median over least), change since the last kept, against."""
    head = f"{'WHAT':<58} {'BUDGET':>8} {'LEAST':>9} {'UNIT':<5} {'SPREAD':>6} {'CHANGE':>7}  AGAINST"
    lines = [head]
    for record in records:
        least, budget = float(record["least"]), float(record["budget"])
        before = last.get(str(record["what"]))
        change = least / before - 1 if before else 0.0
        lines.append(
            f"{record['what']:<58} {f'{budget:g}' if budget else '':>8} {least:9.3f} {record['unit']:<5} "
            f"{float(record['median']) / least if least else 1:6.2f} "
            f"{f'{change:+.0%}' if abs(change) >= NOTABLE else '':>7}  {record['against']}"
            f"{'   MISSED' if budget and least > budget else ''}"
        )
    return lines


def main() -> int:
    """Measure and print; 0, whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the figures as those to compare with")
    parser.add_argument("--scale", action="store_true", help="also draw the plots of docs/performance.md")
    args = parser.parse_args()
    compileall.compile_dir(HERE.parent / "cmafs", quiet=1)  # what an installation has done
    records = measured(SUBJECTS)
    kept = json.loads(LAST.read_text(encoding="utf-8")) if LAST.exists() else []
    print("", *table(records, {record["what"]: record["least"] for record in kept}), sep="\n")
    for file in (NOW, LAST) if args.keep else (NOW,):
        file.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if args.scale:
        subprocess.run([sys.executable, str(HERE / "bench_scale.py")], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
