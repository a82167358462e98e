"""From a case that differs to a smaller one that differs alike, in so many boots and so much time at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from oracle.generate import Machine

#: Boots that shrinking one case may take, and seconds: a boot that hangs takes long.
BUDGET, SECONDS = 30, 180


def without(things: tuple, start: int, count: int) -> tuple:  # type: ignore[type-arg]
    """All but ``count`` of them."""
    return things[:start] + things[start + count :]


def _pieces(total: int) -> Iterator[tuple[int, int]]:
    """What to leave out: all, halves, quarters, … single ones; (start, count)."""
    count = total
    while count:
        yield from ((start, count) for start in range(0, total, count))
        count //= 2


def smaller(machine: Machine) -> Iterator[Machine]:
    """Machines with less: first large parts, then single ones."""
    for field in ("operations", "words", "children"):
        things = getattr(machine, field)
        for start, count in _pieces(len(things)):
            if field != "words" or "memblock=debug" not in things[start : start + count]:
                yield replace(machine, **{field: without(things, start, count)})
    for number in range(1, len(machine.banks)):
        yield replace(machine, banks=without(machine.banks, number, 1))


def shrink(machine: Machine, differs: Callable[[Machine], bool], budget: int = BUDGET) -> tuple[Machine, int]:
    """The smallest that still differs, and the boots it took."""
    boots, again, deadline = 0, True, time.monotonic() + SECONDS
    while again:
        again = False
        for candidate in smaller(machine):
            if boots >= budget or time.monotonic() > deadline:
                return machine, boots
            boots += 1
            if differs(candidate):
                machine, again = candidate, True
                break
    return machine, boots
