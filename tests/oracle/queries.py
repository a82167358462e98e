"""Random queries of dynamic debug, and what of its control file is compared: the call sites of mm/cma*.c.

Their order is the linker's: a kernel built for size has another one than a kernel built for speed.
"""

from __future__ import annotations

import random

from cmafs.replay.transcript import Operation

CONTROL = "/sys/kernel/debug/dynamic_debug/control"
_VALUES = {
    "file": ("mm/cma.c", "cma.c", "*cma.c", "mm/cma*", "cma_debug.c", "mm/nosuch.c", "",
             "mm/cma.c:cma_alloc", "mm/cma.c:1-2000", "mm/cma.c:440", "m?/cma.c", '"mm/cma.c"', "'mm/cma.c'",
             "mm/CMA.c", "mm/cma.c:", "mm/cma.c:cma_*", "mm/cma.c:0-", "mm/cma.c:-500", "mm/cma.c:500-400"),
    "func": ("cma_alloc", "cma_*", "*", "cma_release", "nosuch", "__cma_alloc", '"cma_alloc"'),
    "line": ("1-2000", "440", "1-", "-500", "0", "x", "500-1", "400-500", "1-2-3", "+5", "0x10", "4294967296",
             "-", '"1-2000"'),
    "format": ("cma", "pfn", '"is busy"', '"%s"', "\\045s", "^pfn", '"^page"', "nosuch", '"pfn %p"',
               "is\\040busy", '""'),
    "module": ("cma", "mm", "nosuch", "*", "cma_debug"),
    "class": ("x", "DRM"),
    "files": ("a",),
    "FILE": ("mm/cma.c",),
    "": ("x",),
}  # fmt: skip
_KEYS = tuple(_VALUES)
_FLAGS = ("+p", "-p", "=p", "+", "=", "-", "=_", "+_", "+pf", "+pflmt", "=pmfl", "-pf", "p", "+x", "+ p",
          "=p ", "+P", "pp", "+pp", "~p", "=fl", "+t", "", "-_", "+s", "+d", "=ps")  # fmt: skip


def _query(rng: random.Random) -> str:
    words = []
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 3))):
        key = rng.choice(_KEYS[:5] if rng.random() < 0.85 else _KEYS)
        words += [key, rng.choice(_VALUES[key])]
    if words and rng.random() < 0.08:
        words.pop(rng.randrange(len(words)))
    words.append(rng.choice(_FLAGS[:7] if rng.random() < 0.7 else _FLAGS))
    text = rng.choice((" ", " ", " ", "  ", "\t")).join(words)
    if rng.random() < 0.1:
        text = rng.choice(("# ", "  ", '"', "'", ";", "\n")) + text
    return text + rng.choice((";", "; ", " # c", "#c", "\\", '"')) if rng.random() < 0.15 else text


def operations(rng: random.Random) -> list[Operation]:
    """One write of some queries, and what the call sites are then."""
    text = _query(rng)
    while rng.random() < 0.15:
        text += rng.choice((";", ";", " ; ", "\n")) + _query(rng)
    write = {"op": "W", "path": CONTROL, "data": text + rng.choice(("\n", "\n", ""))}
    return [write, {"op": "R", "path": CONTROL}]


def comparable(outcome: Operation) -> Operation:
    """The sites that both have, without their order."""
    if "out" not in outcome:
        return outcome
    return {**outcome, "out": sorted(line for line in outcome["out"].splitlines() if line[:6] == "mm/cma")}
