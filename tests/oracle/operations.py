"""Operations as the recorder reads them, and random ones.

A case is one line an operation: kind, path and the other inputs in the order of ``FIELDS``, tabs between
them; ``%XX`` is a byte. ``/@N`` in a path is the N-th name of the directory before it (counted round): a case
does not know what its areas will be called.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from oracle import queries, tracing

from cmafs.replay.transcript import Operation

#: Kind -> its inputs after the path (tests/transcripts/FORMAT.md).
FIELDS = {
    **dict.fromkeys("WA", ("data",)),
    **dict.fromkeys("RSKLMUD", ()),
    "B": ("k",),
    "P": ("off",),
    "C": ("mode",),
    "T": ("len",),
    "2": ("a", "b"),
    "Z": ("data", "other"),
}
CMA, SYSFS = "/sys/kernel/debug/cma", "/sys/kernel/mm/cma"
FILES = ("base_pfn", "count", "order_per_bit", "used", "maxchunk", "bitmap", "alloc", "free")
COUNTERS = (
    "alloc_pages_success",
    "alloc_pages_fail",
    "release_pages_success",
    "total_pages",
    "available_pages",
)
DIRECTORIES = ("/proc", "/proc/sys", "/proc/sys/vm", "/sys", "/sys/kernel", "/sys/kernel/mm", SYSFS)
PLACES = (
    *DIRECTORIES,
    *(
        f"/proc/{name}"
        for name in (
            "buddyinfo",
            "cmdline",
            "iomem",
            "meminfo",
            "pagetypeinfo",
            "version",
            "vmstat",
            "zoneinfo",
        )
    ),
    "/proc/sys/vm/compact_memory",
    "/proc/sys/vm/drop_caches",
)
#: What may be written, odd forms of numbers most of all.
TEXTS = (
    "0\n", "1", "-1\n", "+1\n", " 1\n", "1 \n", "\t1\n", "1\n\n", "0x10\n", "0X10\n", "0x\n", "010\n",
    "08\n", "0b11\n", "1k\n", "1K\n", "1e3\n", "abc\n", "", "\n", "1\0", "\0", "5 6\n", "--1\n", "-0\n",
    "12\n34\n", "1_0\n", "2147483647\n", "2147483648\n", "4294967295\n", "4294967296\n", "4294967297\n",
    "9223372036854775807\n", "9223372036854775808\n", "18446744073709551615\n", "18446744073709551616\n",
    "99999999999999999999999\n", "00000000000000000000001\n", "0000000000000000000000000000001\n",
    "-9223372036854775808\n", "ÿ1\n",
)  # fmt: skip


def escape(text: str) -> str:
    """A field: printable ASCII as it is, other bytes (Latin-1) as %XX."""
    return "".join(c if " " <= c <= "~" and c != "%" else f"%{ord(c):02x}" for c in text)


def encode(operations: Sequence[Operation]) -> bytes:
    """A case."""
    lines = []
    for op in operations:
        fields = [op["op"], op["path"], *(str(op[name]) for name in FIELDS[op["op"]])]
        lines.append("\t".join(map(escape, fields)))
    return "".join(line + "\n" for line in lines).encode()


def decode(case: bytes) -> list[Operation]:
    """The inverse of ``encode``; numbers stay text where they were numbers."""
    operations = []
    for line in case.decode().splitlines():
        kind, path, *rest = (_unescape(field) for field in line.split("\t"))
        operations.append({"op": kind, "path": path, **dict(zip(FIELDS[kind], rest, strict=True))})
    return operations


def _unescape(field: str) -> str:
    first, *rest = field.split("%")
    return first + "".join(chr(int(piece[:2], 16)) + piece[2:] for piece in rest)


def inputs(op: Operation) -> Operation:
    """An operation of a transcript without its outcome; old ones lack what a failed open made moot."""
    return {name: op.get(name, 1) for name in ("op", "path", *FIELDS[op["op"]])}


# random operations


def pages(rng: random.Random) -> int:
    """A number of pages: powers of two and their neighbours, small ones, some larger than most areas."""
    if rng.random() < 0.5:
        return max(0, (1 << rng.randrange(14)) + rng.choice((-1, 0, 0, 0, 1)))
    return rng.randrange(1, rng.choice((8, 64, 600, 4000, 40000)))


def _read(rng: random.Random, area: str) -> Operation:
    name = rng.choice(("used", "used", "used", "maxchunk", "maxchunk", "bitmap"))
    return {"op": "R", "path": f"{CMA}/{area}/{name}"}


def _write(rng: random.Random, area: str) -> list[Operation]:
    name = "alloc" if rng.random() < 0.6 else "free"
    op = {"op": "W", "path": f"{CMA}/{area}/{name}", "data": f"{pages(rng)}\n"}
    return [op, _read(rng, area)]


def _parse(rng: random.Random, area: str) -> list[Operation]:
    path = f"{CMA}/{area}/{rng.choice(('alloc', 'free'))}"
    return [{"op": rng.choice("WWWA"), "path": path, "data": rng.choice(TEXTS)}, _read(rng, area)]


def _counter(rng: random.Random, area: str) -> list[Operation]:
    paths = [f"{SYSFS}/{area}/{name}" for name in COUNTERS] + ["/proc/vmstat", "/proc/meminfo"]
    return [{"op": "R", "path": rng.choice(paths)}]


def _file(rng: random.Random, area: str) -> list[Operation]:
    path = f"{CMA}/{area}/{rng.choice((*FILES, *FILES, 'nosuch', 'ranges', 'ranges/0', 'ranges/0/base_pfn'))}"
    other = f"{CMA}/{area}/{rng.choice(('alloc', 'free'))}"
    text = f"{pages(rng)}\n"
    one: dict[str, Operation] = {
        "B": {"k": rng.choice((1, 2, 3, 7, 4096))},
        "P": {"off": rng.choice((0, 1, 2, 5, 100, 1 << 20))},
        "C": {"mode": rng.choice(("0644", "0400", "0777"))},
        "T": {"len": rng.choice((0, 10))},
        "2": {"a": rng.choice((text, "3", *TEXTS)), "b": text},
        "Z": {"data": text, "other": other},
    }
    kind = rng.choice("BBPPSSRKLCTUMD22ZZ")
    return [{"op": kind, "path": path, **one.get(kind, {})}]


def _proc(rng: random.Random, _area: str) -> list[Operation]:
    """Files beside the areas, which a kernel without CMA_DEBUGFS has too."""
    if rng.random() < 0.4:
        path = f"/proc/sys/vm/{rng.choice(('compact_memory', 'drop_caches'))}"
        return [
            {
                "op": rng.choice("WWA"),
                "path": path,
                "data": rng.choice((*TEXTS, "3\n", "2\n", "4", "5", "7")),
            },
            {"op": "R", "path": path},
        ]
    path = rng.choice(PLACES)
    kind = rng.choice("MMUDDTWLR" if path in DIRECTORIES else "SSCTMUDWL")
    if path in DIRECTORIES:  # what is in one depends on the rest of that kernel
        path += "/new" if kind in "LWT" else rng.choice(("", "/new"))
    one: dict[str, Operation] = {
        "C": {"mode": rng.choice(("0644", "0400", "0777"))},
        "T": {"len": rng.choice((0, 10))},
        "W": {"data": "1\n"},
    }
    return [{"op": kind, "path": path, **one.get(kind, {})}]


def _directory(rng: random.Random, area: str) -> list[Operation]:
    path = rng.choice((CMA, f"{CMA}/{area}", SYSFS, f"{SYSFS}/{area}"))
    return [{"op": rng.choice("LLSMDU"), "path": path + rng.choice(("", "", "/new"))}]


def _trace(rng: random.Random, _area: str) -> list[Operation]:
    return tracing.operations(rng)


def _queries(rng: random.Random, _area: str) -> list[Operation]:
    return queries.operations(rng)


#: How often, and what makes them.
Kinds = tuple[tuple[int, Callable[[random.Random, str], list[Operation]]], ...]
KINDS: Kinds = (
    (60, _write),
    (12, _parse),
    (8, _counter),
    (16, _file),
    (4, _directory),
    (6, _proc),
)
#: Of a kernel that has the tracer.
TRACED: Kinds = ((20, _write), (65, _trace), (15, _queries))


def generate(rng: random.Random, count: int, kinds: Kinds = KINDS) -> list[Operation]:
    """At least ``count`` random operations on the areas of a machine."""
    weights, makers = zip(*kinds, strict=True)
    found: list[Operation] = []
    while len(found) < count:
        found += rng.choices(makers, weights)[0](rng, f"@{rng.choice((0, 0, 0, 1, 2, 3))}")
    return found
