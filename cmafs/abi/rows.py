"""Which kernels exist here, and how a table of differences becomes one row per kernel.

A row is made from the rows before it when it is asked for, so that what changed between two
kernels is what is written down, each change with its citation. What a stable release brought to its own
series only is written under that release (``"5.4.286"``): later rows are made without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast

#: Row name -> the release that ``uname -r`` shows when only the row was asked for.
RELEASES: Mapping[str, str] = {
    "4.4": "4.4.302",
    "4.15": "4.15.0",
    "4.19": "4.19.325",
    "5.4": "5.4.302",
    "5.10": "5.10.223",
    "5.15": "5.15.190",
    "6.1": "6.1.192",
    "6.6": "6.6.120",
    "6.12": "6.12.117",
    "6.18": "6.18.2",
    "7.2": "7.2.13",
}

#: Dialect -> (the row it starts from, the release shown).
DIALECTS: Mapping[str, tuple[str, str]] = {
    "article": ("6.12", "6.12.117"),
    "2010": ("4.4", "2.6.36"),
}

#: The last minor release of each major one that has ended.
_LAST_OF_MAJOR: Mapping[int, int] = {4: 20, 5: 19, 6: 19}

_NUMBER = r"(0|[1-9]\d{0,3})"
_RELEASE = re.compile(rf"{_NUMBER}\.{_NUMBER}(?:\.{_NUMBER})?([-+][A-Za-z0-9.+_-]*)?\Z", re.A)

T = TypeVar("T")


class UnknownKernel(ValueError):
    """``--kernel`` names nothing that can be simulated."""


def release_key(release: str) -> tuple[int, ...]:
    """The numbers of a release, to compare by: ``6.12.30-rc1`` is (6, 12, 30). Nine digits tell all apart."""
    match = re.match(r"\d+(?:\.\d+)*", release)
    return tuple(int(number[:9]) for number in match[0].split(".")) if match else ()


def find_row(name: str) -> tuple[str, str]:
    """The row that answers for a kernel, and the release it shows.

    ``name``: a release (``6.12``, ``6.12.30``), or a dialect. The newest row not above it answers; a full
    release is then the one shown. Raises UnknownKernel.

    >>> find_row("6.8"), find_row("6.12.30"), find_row("6.12-rc1"), find_row("article")
    (('6.6', '6.6.120'), ('6.12', '6.12.30'), ('6.12', '6.12.0-rc1'), ('article', '6.12.117'))
    """
    if name in RELEASES:
        return name, RELEASES[name]
    if name in DIALECTS:
        return name, DIALECTS[name][1]
    match = _RELEASE.match(name)
    wanted = (int(match[1]), int(match[2])) if match else (0, 0)
    there_was = wanted[1] <= _LAST_OF_MAJOR.get(wanted[0], wanted[1])
    if not (there_was and release_key(next(iter(RELEASES))) <= wanted <= release_key(list(RELEASES)[-1])):
        known = ", ".join([*RELEASES, *DIALECTS])
        near = _nearest(name)
        raise UnknownKernel(f"unknown kernel '{name}': known are {known}, and any release between them{near}")
    row = [r for r in RELEASES if release_key(r) <= wanted][-1]
    assert match  # (0, 0) is below every row
    if not (match[3] or match[4]):
        return row, RELEASES[row]
    return row, f"{match[1]}.{match[2]}.{match[3] or 0}{match[4] or ''}"


def answered_by(name: str) -> str:
    """The row that answers for a release of another series, which has no row of its own; else empty.

    >>> answered_by("4.14"), answered_by("6.12.30"), answered_by("article")
    ('4.4', '', '')
    """
    row, _ = find_row(name)
    return "" if name in DIALECTS or release_key(name)[:2] == release_key(row)[:2] else row


def _nearest(name: str) -> str:
    """What was meant by a release that is none, as a question: ``v6.12``, a number too high."""
    match = re.search(r"\d+(?:\.\d+)*", name)
    numbers = release_key(match[0]) if match else ()
    below = [row for row in RELEASES if release_key(row) <= numbers]
    return f"; did you mean {below[-1]}?" if below else ""


def rows_before(row: str) -> list[str]:
    """A row and those before it, the oldest first; a dialect comes after the row it starts from."""
    rows, dialect = list(RELEASES), row in DIALECTS
    base = DIALECTS[row][0] if dialect else row
    return [*rows[: rows.index(base) + 1], *([row] if dialect else [])]


class Rows(Generic[T]):
    """One value of ``T`` for each kernel and dialect; ``rows[row]`` is the newest stable release's.

    ``oldest``: of the oldest kernel. ``changes``: row, or stable release -> the fields that it has otherwise.
    """

    def __init__(self, oldest: T, changes: Mapping[str, Mapping[str, Any]]) -> None:
        self._oldest: Any = oldest
        self._changes = changes
        self._stable: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        for name in changes.keys() - RELEASES.keys() - DIALECTS.keys():
            row, _, last = name.rpartition(".")
            if row not in RELEASES:
                raise KeyError(f"no such kernel row: {name}")
            self._stable.setdefault(row, []).append((int(last), changes[name]))

    def __getitem__(self, row: str) -> T:
        return self.at(row)

    def at(self, row: str, release: str = "") -> T:
        """The value for a release of a row; a release of another series has all that the row's got later."""
        changed: dict[str, Any] = {}
        for name in rows_before(row):
            changed |= self._changes.get(name, {})
        numbers = release_key(release)
        own = numbers[:2] == release_key(row)
        for last, changes in sorted(self._stable.get(row, ()), key=lambda backport: backport[0]):
            if not own or numbers[2:] >= (last,):
                changed |= changes
        return cast(T, replace(self._oldest, **changed))
