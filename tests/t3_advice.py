"""sim/advice, to the letter: what would let the last failed request through, tried on copies.

Modules: cmafs.fs.sim.advice.
"""

from __future__ import annotations

import pytest

from cmafs.api import Machine

ALLOC = "/sys/kernel/debug/cma/reserved/alloc"
START = 0x60000


def machine(*words: str) -> Machine:
    """An area of 4 MiB in one zone, the atomic pool in its first 32 pages; then words to sim/control."""
    one_zone = ("ZONE_DMA=n", "ZONE_DMA32=n")
    made = Machine.boot(cmdline=f"cma=4M@{START << 12:#x} coherent_pool=128K", config=one_zone)
    for word in words:
        made.control(word)
    return made


def after_failing(made: Machine, pages: int) -> list[str]:
    """The text after a request that failed; nothing else has changed by it."""
    with pytest.raises(OSError):
        made.write(ALLOC, f"{pages}\n")
    before = made.read("/sim/tasks"), made.read("/sim/verify"), made.read("/sim/dmesg")
    text = made.read("/sim/advice").decode().splitlines()
    assert (made.read("/sim/tasks"), made.read("/sim/verify"), made.read("/sim/dmesg")) == before
    return text


COMPACT = "echo 1 > /proc/sys/vm/compact_memory"
DROP = "echo 3 > /proc/sys/vm/drop_caches"
GIVE_BACK = "have dma_atomic_pool give back its 32 pages"


def trial(pages: int, helps: list[str], *not_: str) -> list[str]:
    """The lines of an area; without any help there is one more line."""
    nothing = "nothing that was tried helps alone: a larger area, or one of its own for this request"
    found = [f"helps (tried): {words}" for words in helps] or [nothing]
    return [f"reserved: {pages} pages"] + [
        f"  {line}" for line in [*found, *(f"does not help (tried): {words}" for words in not_)]
    ]


def test_nothing_has_failed() -> None:
    assert machine().read("/sim/advice") == b"no allocation has failed\n"


def test_what_no_area_of_this_size_can_give() -> None:
    made = machine()
    needs = "  needs an area of at least {} pages; nothing else helps"
    for pages in (1025, 2000):
        assert after_failing(made, pages) == [f"reserved: {pages} pages", needs.format(pages)]
    assert after_failing(made, 1024) == trial(1024, [GIVE_BACK], COMPACT, DROP)


def test_one_page_of_a_full_area() -> None:
    made = machine()
    made.write(ALLOC, "992\n")
    assert after_failing(made, 1) == trial(
        1, ["have debugfs give back its 992 pages", GIVE_BACK], COMPACT, DROP
    )
    assert made.verify() == []


def test_pins_of_tasks_and_of_pages() -> None:
    one = machine(f"pin pfn {START + 500:#x}")
    assert after_failing(one, 600) == trial(600, ["unpin all 1 pages in its holes"], COMPACT, DROP, GIVE_BACK)
    one.control(f"unpin pfn {START + 500:#x}")
    assert one.read("/sim/advice") == b"reserved: 600 pages\n  goes through now, as it is (tried)\n"
    two = machine(f"pin pfn {START + 400:#x}", f"pin pfn {START + 800:#x}", f"pin pfn {START + 800:#x}")
    assert after_failing(two, 600) == trial(600, ["unpin all 2 pages in its holes"], COMPACT, DROP, GIVE_BACK)
    assert after_failing(two, 990) == trial(990, ["unpin all 2 pages in its holes"], COMPACT, DROP, GIVE_BACK)


def test_faults_that_are_to_come_strike_no_trial() -> None:
    made = machine("slow 250")
    assert after_failing(made, 1000) == trial(1000, [GIVE_BACK], COMPACT, DROP)
    made.control("fail reserved 1 ENOMEM")
    before = made.read("/sim/faults")
    assert made.read("/sim/advice").decode().splitlines() == trial(1000, [GIVE_BACK], COMPACT, DROP)
    assert made.read("/sim/faults") == before


def test_a_pin_beside_the_area_is_in_nobodys_way() -> None:
    made = machine(f"pin pfn {START - 1:#x}", f"pin pfn {START + 1024:#x}")
    assert after_failing(made, 1000) == trial(1000, [GIVE_BACK], COMPACT, DROP)


@pytest.mark.parametrize("pfn", [START + 32, START + 1023])
def test_a_pin_at_either_end_of_a_hole_counts(pfn: int) -> None:
    made = machine(f"pin pfn {pfn:#x}")
    unpin = "unpin all 1 pages in its holes"
    if pfn == START + 32:
        assert after_failing(made, 992) == trial(992, [unpin], COMPACT, DROP, GIVE_BACK)
    else:
        assert after_failing(made, 992) == trial(992, [unpin, GIVE_BACK], COMPACT, DROP)


def test_pins_in_any_of_its_holes() -> None:
    made = machine()
    made.write(ALLOC, "400\n")
    made.write(ALLOC, "100\n")
    made.control(f"pin pfn {START + 800:#x}")
    made.write("/sys/kernel/debug/cma/reserved/free", "50\n")  # of the newest, from its front: two holes
    assert after_failing(made, 450) == trial(
        450,
        ["unpin all 1 pages in its holes", "have debugfs give back its 450 pages"],
        COMPACT,
        DROP,
        GIVE_BACK,
    )


def test_holders_with_most_pages_first() -> None:
    made = machine()
    made.write(ALLOC, "300\n")
    assert after_failing(made, 700) == trial(
        700, ["have debugfs give back its 300 pages"], COMPACT, DROP, GIVE_BACK
    )
    assert after_failing(made, 1000) == trial(
        1000, [], COMPACT, DROP, "have debugfs give back its 300 pages", GIVE_BACK
    )


def filled(*tasks: str, left: int = 2000) -> Machine:
    """Memory outside the area is full of the kernel's pages but for some: tasks have to use the area too."""
    made = machine()
    outside = int(made.read("/sim/why").decode().splitlines()[-1].split()[-2])
    for words in (f"spawn filler kernel {(outside - left) * 4}K", *tasks):
        made.control(words)
    return made


def test_ending_tasks_makes_room_most_pages_first_and_four_are_tried() -> None:
    made = filled("spawn big anon 9000K", *(f"spawn t{i} anon {480 + i * 80}K" for i in range(5)), left=3080)
    pages = _pages_in_cma(made)
    most = sorted(pages, key=pages.__getitem__, reverse=True)[:4]
    assert sorted(most) == ["big", "t1", "t2", "t3"]
    others = (f"kill {name}" for name in most if name != "big")
    assert after_failing(made, 900) == trial(900, ["kill big"], COMPACT, DROP, *others, GIVE_BACK)


def test_pins_of_tasks_with_most_pages_first_then_all() -> None:
    small = ("spawn one anon 800K", "spawn two anon 640K", "pin one 200", "pin two 160", "kill big")
    made = filled("spawn big anon 9000K", *small, left=2800)
    found = _pages_in_cma(made)
    assert found["one"] > found["two"] > 0
    ways = [f"unpin {name} ({found[name]} pages in the way)" for name in ("one", "two")]
    every = f"unpin all {found['one'] + found['two']} pages in its holes"
    assert after_failing(made, 900) == trial(
        900, [every], COMPACT, DROP, *ways, "kill one", "kill two", GIVE_BACK
    )
    made.control("unpin one")
    assert made.read("/sim/advice").decode().splitlines() == trial(
        900, [ways[1], "kill two"], COMPACT, DROP, "kill one", GIVE_BACK
    )


def _pages_in_cma(made: Machine) -> dict[str, int]:
    rows = [line.split("\t") for line in made.read("/sim/tasks").decode().splitlines()[1:]]
    return {row[0]: int(row[3]) for row in rows}
