"""How cost grows with memory, areas and machines: python tests/bench_scale.py (a script, not a test).

Each point is a process of its own, since what one machine left behind would count for the next. Writes
``docs/performance-*.svg`` and the figures beside the other benches', ``tests/bench/scale.json``.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_support import cpu_seconds

import cmafs

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
MIB = 1 << 20
#: MiB of memory; areas; machines in one process.
MEMORY = (256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304)
AREAS = (1, 2, 5, 10, 20)
MACHINES = (1, 3, 10, 30, 100)
ROUNDS = 40

Point = dict[str, float]


def source(mib: int, areas: int) -> str:
    """A board with so much memory and so many areas of 4 MiB."""
    cells = f"{mib * MIB >> 32:#x} {mib * MIB & 0xFFFFFFFF:#x}"
    nodes = " ".join(
        f'a{number}: area{number} {{ compatible = "shared-dma-pool"; reusable; size = <0 {4 * MIB:#x}>; '
        f"alignment = <0 {4 * MIB:#x}>; }};"
        for number in range(areas)
    )
    return (
        "/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; memory@40000000 { device_type = "
        f'"memory"; reg = <0 0x40000000 {cells}>; }}; reserved-memory {{ #address-cells = <2>; '
        f"#size-cells = <2>; ranges; {nodes} }}; }};"
    )


def resident() -> float:
    """Megabytes that this process has resident."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS:")).split()[1]) / 1024


def least(work: Callable[[], object]) -> float:
    """Milliseconds of processor time of the fastest of some calls."""
    return min(cpu_seconds(work) for _ in range(ROUNDS)) * 1000


def measure(mib: int, areas: int, machines: int) -> Point:
    """One point: milliseconds of processor time, megabytes."""
    with tempfile.TemporaryDirectory() as place:
        board = Path(place, "board.dts")
        board.write_text(source(mib, areas))
        options: dict[str, Any] = {"dts": str(board), "config": ["tiny", "CMA_AREAS=20"], "cmdline": "cma=0"}
        cmafs.Machine.boot(**options)  # imports
        before = resident()
        made = [cmafs.Machine.boot(**options) for _ in range(machines)]
        size = resident() - before
        boot = least(lambda: cmafs.Machine.boot(**options))
    machine = made[-1]
    debugfs = "/sys/kernel/debug/cma"
    area = f"{debugfs}/{sorted(machine.listdir(debugfs))[0]}"
    figures = {
        "boot": boot,
        "one alloc": least(lambda: machine.write(f"{area}/alloc", "1\n")),
        "used": least(lambda: machine.read(f"{area}/used")),
        "bitmap": least(lambda: machine.read(f"{area}/bitmap")),
        "pagetypeinfo": least(lambda: machine.read("/proc/pagetypeinfo")),
        "verify": least(machine.verify),
    }
    return {**figures, "resident MB": size}


def series(points: Sequence[tuple[int, int, int]]) -> list[Point]:
    """The points, each measured in a new process."""
    command = [sys.executable, str(Path(__file__).resolve())]
    found = []
    for point in points:
        done = subprocess.run([*command, *map(str, point)], capture_output=True, text=True, check=True)
        print(*point, done.stdout.strip(), flush=True)
        found.append(json.loads(done.stdout))
    return found


#: The plot in pixels, and a margin for its labels.
WIDTH, HEIGHT, MARGIN = 640, 360, 60
COLOURS = ("#1b6ca8", "#c0392b", "#1e8449", "#b9770e", "#6c3483", "#424949", "#d35400")


def svg(title: str, names: Sequence[str], lines: Mapping[str, Sequence[float]]) -> str:
    """A plot, the values on a logarithmic scale of decades, a label at the end of each line."""
    low = math.floor(math.log10(max(min(map(min, lines.values())), 1e-4)))
    high = math.ceil(math.log10(max(map(max, lines.values()))))

    def x(index: int) -> float:
        return MARGIN + index * (WIDTH - 3 * MARGIN) / (len(names) - 1)

    def y(value: float) -> float:
        part = (math.log10(max(value, 10**low)) - low) / (high - low)
        return HEIGHT - MARGIN - part * (HEIGHT - 2 * MARGIN)

    parts = [f'<text x="{MARGIN}" y="24" font-size="14">{title}</text>']
    for decade in range(low, high + 1):
        at = y(10**decade)
        parts.append(f'<line x1="{MARGIN}" x2="{WIDTH - 2 * MARGIN}" y1="{at}" y2="{at}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{at + 4}" text-anchor="end">{10.0**decade:g}</text>')
    for index, name in enumerate(names):
        parts.append(f'<text x="{x(index)}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{name}</text>')
    ends: list[float] = []
    for (label, values), colour in zip(
        sorted(lines.items(), key=lambda line: -line[1][-1]), COLOURS, strict=False
    ):
        path = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(values))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        ends.append(max(y(values[-1]) + 4, ends[-1] + 13 if ends else 0))
        parts.append(f'<text x="{x(len(names) - 1) + 8}" y="{ends[-1]:.1f}" fill="{colour}">{label}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def in_words(mib: int) -> str:
    """A size as 256M, 4G, 1T."""
    for unit, shift in (("T", 20), ("G", 10)):
        if mib >> shift:
            return f"{mib >> shift}{unit}"
    return f"{mib}M"


def main() -> int:
    """Measure all points and draw them."""
    if len(sys.argv) == 4:
        mib, areas, machines = map(int, sys.argv[1:])
        print(json.dumps(measure(mib, areas, machines)))
        return 0
    plots = {
        "memory": ("memory", [in_words(mib) for mib in MEMORY], [(mib, 1, 1) for mib in MEMORY]),
        "areas": ("areas", [str(n) for n in AREAS], [(4096, n, 1) for n in AREAS]),
        "machines": ("machines in one process", [str(n) for n in MACHINES], [(1024, 1, n) for n in MACHINES]),
    }
    kept = {}
    for name, (what, names, points) in plots.items():
        kept[name] = dict(zip(names, series(points), strict=True))
        found = list(kept[name].values())
        lines = {label: [point[label] for point in found] for label in found[0]}
        title = f"By {what}: ms of processor time, and MB resident"
        (DOCS / f"performance-{name}.svg").write_text(svg(title, names, lines), encoding="utf-8")
    (HERE / "bench/scale.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
