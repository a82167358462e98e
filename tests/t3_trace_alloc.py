"""cmafs trace-alloc: the walk of seeds/002 (isolate, migrate, reclaim, take, undo) as lines."""

from __future__ import annotations

import pytest
from mm_support import small

import cmafs
from cmafs.cli.main import main
from cmafs.mm.walk import step_migrate
from cmafs.sim.validate import validate

AREA = "/sys/kernel/debug/cma/reserved/alloc"


def walk(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, list[str]]:
    status = main(["trace-alloc", *args])
    return status, capsys.readouterr().out.splitlines()


def functions(lines: list[str]) -> list[str]:
    return [line.partition("(")[0] for line in lines if "(" in line]


def test_an_idle_range_is_isolated_taken_and_undone(capsys):
    status, lines = walk(capsys, "--cmdline", "cma=64M@0x60000000", "reserved", "600")
    assert (status, lines) == (
        0,
        [
            "__cma_alloc(reserved, 600 pages)",
            "  alloc_contig_range(0x60060, 0x602b8)",
            "    start_isolate_page_range(0x60000, 0x60400): 2 page blocks MIGRATE_CMA -> MIGRATE_ISOLATE",
            "    __alloc_contig_migrate_range(0x60060, 0x602b8): 0 pages to move",
            "    isolate_freepages_range(0x60060, 0x602b8): 600 pages taken",
            "    undo_isolate_page_range(0x60000, 0x60400): 2 page blocks MIGRATE_ISOLATE -> MIGRATE_CMA",
            "= done",
        ],
    )


def test_pages_in_use_are_migrated(capsys):
    options = ("--cmdline", "cma=64M@0x60000000", "--do", "spawn browser anon 900M")
    status, lines = walk(capsys, *options, "reserved", "512")
    assert status == 0
    assert functions(lines) == [
        "__cma_alloc",
        "  alloc_contig_range",
        "    start_isolate_page_range",
        "    __alloc_contig_migrate_range",
        "      migrate_pages",
        "    isolate_freepages_range",
        "    undo_isolate_page_range",
    ]


def test_reclaim_makes_room(capsys):
    options = ("--cmdline", "cma=64M", "--do", "spawn f file 900M", "--do", "spawn a anon 500M")
    _, lines = walk(capsys, *options, "reserved", "15000")
    assert "      try_to_free_pages" in functions(lines)


def test_ranges_of_frames_are_ascending_and_only_four_are_named():
    memory = small().memory
    memory.walk = []
    scattered = [(pfn, 0) for first in (0x10, 0x20, 0x30, 0x40) for pfn in range(first, first + 3)]
    segments = [(0, 2, 0x900, 3), (1, 2, 0x300, 3), (6, 1, 0x903, 1), (7, 1, 0x100, 5)]
    step_migrate(memory, (0x10, 0x50), scattered, segments, 0)
    step_migrate(memory, (0x10, 0x60), [*scattered, (0x50, 0)], [*segments, (12, 1, 0x500, 1)], 7)
    step_migrate(memory, (0x10, 0x20), [], [], 0)
    four, target = "0x10-0x12,0x20-0x22,0x30-0x32,0x40-0x42", "0x100-0x104,0x300-0x302"
    assert memory.walk == [
        "    __alloc_contig_migrate_range(0x10, 0x50): 12 pages to move",
        f"      migrate_pages(): 12 pages {four} -> {target},0x900-0x903",
        "    __alloc_contig_migrate_range(0x10, 0x60): 13 pages to move",
        "      try_to_free_pages(): 7 pages of page cache dropped",
        f"      migrate_pages(): 13 pages {four},+1 -> {target},0x500-0x500,0x900-0x903",
        "    __alloc_contig_migrate_range(0x10, 0x20): 0 pages to move",
    ]


def test_cache_and_page_blocks_in_the_words_of_the_walk(capsys):
    options = ("--cmdline", "cma=64M@0x60000000", "--do", "spawn f file 980M")
    _, lines = walk(capsys, *options, "reserved", "100")
    assert lines[2] == (
        "    start_isolate_page_range(0x60000, 0x60200): 1 page block MIGRATE_CMA -> MIGRATE_ISOLATE"
    )
    assert "      reclaim_clean_pages_from_list(): 100 pages of page cache dropped" in lines


def test_a_pinned_page_is_in_the_way(capsys):
    options = ("--cmdline", "cma=4M@0x60000000", "--do", "pin pfn 0x60100")
    status, lines = walk(capsys, *options, "reserved", "900")
    assert status == 1
    assert "    test_pages_isolated(0x60060, 0x603e4): -EBUSY, 0x60100 is in the way" in lines
    assert "  cma_alloc(): 28 more windows, up to 0x6007c, are busy as well" in lines
    assert (
        "= Cannot allocate memory: every place for them held a page that could not move, last 0x60100 ([pin])"
        in lines
    )
    assert lines[-2].endswith("alloc failed, req-size: 900 pages, ret: -16")


def test_function_names_are_the_kernel_s(capsys):
    for kernel, name in (("5.10", "cma_alloc"), ("7.2", "__cma_alloc_frozen")):
        area = "cma-reserved" if kernel == "5.10" else "reserved"
        assert walk(capsys, "--kernel", kernel, area, "1")[1][0].startswith(f"{name}(")
    assert walk(capsys, "--kernel", "4.4", "cma-0", "1")[1][0].startswith("cma_alloc(")


@pytest.mark.parametrize(
    "options", [("nosuch", "1"), ("--kernel", "2010", "reserved", "1"), ("--do", "x", "a", "1")]
)
def test_refusals(capsys, options):
    assert main(["trace-alloc", *options]) == 1
    assert capsys.readouterr().err.startswith("cmafs: ")


def test_a_kernel_without_debugfs_of_cma(capsys):
    assert main(["trace-alloc", "--config", "CONFIG_CMA_DEBUGFS=n", "reserved", "1"]) == 1
    assert capsys.readouterr().err == "cmafs: no area reserved: this kernel has no CONFIG_CMA_DEBUGFS\n"


def test_watching_changes_nothing():
    """The watched way is the definition; the short cut for idle ranges leaves the same lists and counters."""
    states = []
    for watched in (False, True):
        machine = cmafs.Machine.boot(cmdline="cma=64M")
        memory = machine.booted.memory
        memory.walk = [] if watched else None
        machine.control("spawn a anon 900M")
        for pages in ("100", "700", "3"):
            machine.write(AREA, pages)
        assert validate(memory, list(machine.booted.cma)) == []
        states.append(
            (machine.read("/proc/buddyinfo"), machine.read("/proc/vmstat"), machine.read("/sim/tasks"))
        )
    assert states[0] == states[1]
