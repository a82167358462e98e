"""A full release answers as that release: what stable releases brought to their own series only."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from boot_support import areas, boot, lines_with, tree_of

from cmafs.abi import kernel_abi
from cmafs.abi.rows import Rows
from cmafs.fs.namei import Syscalls
from cmafs.fs.tree import build_tree

#: What was changed, by the release before and the one that has it.
CHANGES = [
    ("4.4.245", "4.4.246", lambda abi: abi.cma.strict_numbers),
    ("4.19.159", "4.19.160", lambda abi: abi.cma.strict_numbers),
    ("5.4.79", "5.4.80", lambda abi: abi.cma.strict_numbers),
    ("5.4.60", "5.4.61", lambda abi: not abi.cma.failed_stops_others),
    ("4.4.187", "4.4.188", lambda abi: abi.boot.checks_place),
    ("4.19.64", "4.19.65", lambda abi: abi.boot.checks_place),
    ("4.19.155", "4.19.156", lambda abi: abi.boot.overlaps_at_zero),
    ("5.4.75", "5.4.76", lambda abi: abi.boot.overlaps_at_zero),
    ("4.4.109", "4.4.110", lambda abi: "nr_overhead" in abi.proc.vmstat.zone),
    ("4.4.292", "4.4.293", lambda abi: abi.trace.restricts_directories),
    ("5.4.159", "5.4.160", lambda abi: abi.trace.restricts_directories),
    ("5.15.2", "5.15.3", lambda abi: abi.trace.restricts_directories),
]


@pytest.mark.parametrize(("before", "since", "has"), CHANGES, ids=[since for _, since, _ in CHANGES])
def test_a_stable_release_brought_it(before: str, since: str, has: object) -> None:
    assert callable(has)
    assert not has(kernel_abi(before))
    assert has(kernel_abi(since))
    series = since.rpartition(".")[0]
    assert has(kernel_abi(series)), "without a third number it is the newest stable release"
    assert kernel_abi(f"{series}.1000").release == f"{series}.1000"


@dataclass(frozen=True)
class Field:
    old: bool = True


def test_a_later_series_does_not_have_what_a_stable_release_of_an_older_one_got() -> None:
    rows = Rows(Field(), {"4.4.246": {"old": False}})
    assert [rows.at("4.4", release).old for release in ("4.4.245", "4.4.246", "4.5.1", "")] == [
        True,
        False,
        False,
        False,
    ]
    assert rows.at("4.15", "4.15.300").old
    with pytest.raises(KeyError, match=r"no such kernel row: 4\.5\.1"):
        Rows(Field(), {"4.5.1": {"old": False}})


def shown(kernel: str, data: bytes) -> tuple[int, int]:
    """(errno of a write to ``alloc``, pages used afterwards)."""
    machine = boot(tree_of(), kernel, "cma=16M coherent_pool=0")
    system = Syscalls(build_tree(machine))
    directory = f"/sys/kernel/debug/cma/{system.listdir('/sys/kernel/debug/cma')[0]}"
    before = machine.cma[0].used()
    try:
        system.write_file(f"{directory}/alloc", data)
    except OSError as error:
        return error.errno or 0, machine.cma[0].used() - before
    return 0, machine.cma[0].used() - before


def test_numbers_of_old_releases_are_read_loosely() -> None:
    assert [shown(kernel, b"3;\n") for kernel in ("4.19.72", "4.19.222", "4.15", "5.4.286")] == [
        (0, 3),
        (22, 0),
        (0, 3),
        (22, 0),
    ]


def test_places_of_old_releases_are_not_checked() -> None:
    """4.4.155 and 4.15.0 round a misaligned base up (T); later ones refuse it."""
    old, new = (boot(tree_of(), kernel, "cma=8M@0x50100000") for kernel in ("4.15", "4.19"))
    assert areas(old) == [("reserved", 0x50400000, 8 << 20)]
    assert areas(new) == []
    assert lines_with(new, "must be aligned") and not lines_with(old, "must be aligned")
