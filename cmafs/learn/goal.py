"""Goals of a lesson: comparisons of what the machine is in, never of what was typed.

``used - used@start >= 256``: terms joined by ``+``, ``-`` and ``*`` from left to right, and one comparison;
words are separated by spaces. ``TERM@start`` is the term's value when the learner was given the machine.
docs/lessons.md lists the terms; ``learn/state.py`` knows their values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cmafs.lib.kstrtox import kstrtoull, parse_integer

#: A term's value now.
Values = Callable[[str], int]

START = "@start"

_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_JOIN: Mapping[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class BadGoal(ValueError):
    """A goal cannot be read: one line for its author."""


@dataclass(frozen=True)
class Goal:
    """``text`` is the comparison; ``not_yet`` what the learner is told as long as it does not hold."""

    text: str
    not_yet: str

    def __post_init__(self) -> None:
        for _ in self._sides():
            pass

    def _sides(self) -> Iterator[list[str]]:
        """The two sides. Raises BadGoal."""
        words = self.text.split()
        signs = [word for word in words if word in _COMPARE]
        if len(signs) != 1:
            raise BadGoal(f"{self.text!r}: wanted is one comparison, of {' '.join(_COMPARE)}")
        at = words.index(signs[0])
        for side in (words[:at], words[at + 1 :]):
            if not side or len(side) % 2 == 0 or any(word not in _JOIN for word in side[1::2]):
                raise BadGoal(f"{self.text!r}: wanted are terms joined by {' '.join(_JOIN)}")
            for number in filter(_is_number, side[::2]):
                if parse_integer(number, 10).overflow:
                    raise BadGoal(f"{self.text!r}: a number of more than 64 bits")
            yield side

    def start_terms(self) -> Iterator[str]:
        """The terms whose value at the start counts."""
        yield from (word.removesuffix(START) for word in self.text.split() if word.endswith(START))

    def holds(self, now: Values, start: Mapping[str, int]) -> bool:
        """Whether it is reached."""
        left, right = (_total(side, now, start) for side in self._sides())
        sign = next(word for word in self.text.split() if word in _COMPARE)
        return _COMPARE[sign](left, right)


def _total(side: list[str], now: Values, start: Mapping[str, int]) -> int:
    total = _value(side[0], now, start)
    for sign, term in zip(side[1::2], side[2::2], strict=True):
        total = _JOIN[sign](total, _value(term, now, start))
    return total


def _is_number(term: str) -> bool:
    return term.isascii() and term.isdecimal()


def _value(term: str, now: Values, start: Mapping[str, int]) -> int:
    if _is_number(term):
        return kstrtoull(term, 10)
    if term.endswith(START):
        return start[term.removesuffix(START)]
    return now(term)
