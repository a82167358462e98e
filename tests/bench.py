"""`make bench`: every budget of the design, each measured against something else in the same run.

Each line names what is measured, the figure, the budget. Machines are noisy: measurements alternate in
small batches, and both the minimum and the median are shown. Exit status 1 if a budget is missed.
"""

from __future__ import annotations

import compileall
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUBJECTS = ("bench_mm.py", "bench_cma.py", "bench_fuse.py", "bench_run.py")


def main() -> int:
    """Run the benches one after another, so that they do not disturb each other."""
    compileall.compile_dir(HERE.parent / "cmafs", quiet=1)  # what an installation has done
    status = 0
    for subject in SUBJECTS:
        print(f"== {subject.removesuffix('.py')}", flush=True)
        status |= subprocess.run([sys.executable, str(HERE / subject)], check=False).returncode != 0
    return status


if __name__ == "__main__":
    sys.exit(main())
