"""Every rule of ``validate()`` is proven by breaking it, and says what is broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mm_support import Booted, boot, layout

from cmafs.mm.cma import cma_alloc
from cmafs.mm.mmzone import MIGRATE_CMA, MIGRATE_ISOLATE, MIGRATE_MOVABLE
from cmafs.mm.page_owner import TAG_SHIFT
from cmafs.sim.validate import validate
from cmafs.sim.workload import pin, spawn

PAGES, CMA = 16384, ((8192, 2048), (12288, 2048))


def busy() -> Booted:
    """A machine with something of everything in it."""
    booted = boot(layout(PAGES, CMA, ((100, 105),)), CMA)
    spawn(booted.memory, "a", "anon", 300)
    spawn(booted.memory, "k", "kernel", 77)
    pin(booted.memory, "a", 3)
    assert cma_alloc(booted.area, 100) is not None
    return booted


def remembered_wrongly(b: Booted) -> None:
    occupant = b.memory.owners.by_name("a")
    assert occupant is not None
    assert occupant.pages_in(0, PAGES) == 300
    occupant.counted[0, PAGES] += 1


def some_block(booted: Booted, order: int) -> int:
    return next(pfn for pfn, code in booted.memory.zones[0].buddy.items() if code >> 3 == order)


def lose_a_block(b: Booted) -> None:
    pfn = some_block(b, 3)
    zone = b.memory.zones[0]
    del zone.free_area[zone.buddy.pop(pfn)][pfn]
    zone.nr_free -= 8


def list_without_head(b: Booted) -> None:
    b.memory.zones[0].free_area[2 << 3 | MIGRATE_MOVABLE][4096] = None


def misaligned(b: Booted) -> None:
    zone = b.memory.zones[0]
    zone.buddy[101] = 2 << 3 | MIGRATE_MOVABLE
    zone.free_area[2 << 3 | MIGRATE_MOVABLE][101] = None
    zone.nr_free += 4


def overlapping_blocks(b: Booted) -> None:
    zone = b.memory.zones[0]
    pfn = some_block(b, 5)
    zone.buddy[pfn + 8] = 3 << 3 | MIGRATE_MOVABLE
    zone.free_area[3 << 3 | MIGRATE_MOVABLE][pfn + 8] = None
    zone.nr_free += 8


def top_miscount(b: Booted) -> None:
    b.memory.zones[0].top_area[MIGRATE_MOVABLE].nr_pages += 1024
    b.memory.zones[0].nr_free += 1024


def free_counter(b: Booted) -> None:
    b.memory.zones[0].nr_free += 1


def cma_counter(b: Booted) -> None:
    b.memory.zones[0].nr_free_cma -= 1


def left_isolated(b: Booted) -> None:
    b.memory.zones[0].nr_isolate_pageblock = 1


def isolated_pages(b: Booted) -> None:
    zone = b.memory.zones[0]
    zone.top_area[MIGRATE_MOVABLE].discard(4096, 5120)
    zone.top_area[MIGRATE_ISOLATE].add(4096, 5120)
    zone.nr_free -= 1024


def unmerged(b: Booted) -> None:
    zone = b.memory.zones[0]
    pfn = some_block(b, 4)
    code = zone.buddy.pop(pfn)
    del zone.free_area[code][pfn]
    for half in (pfn, pfn + 8):
        zone.buddy[half] = code - 8
        zone.free_area[code - 8][half] = None


def cma_on_movable_list(b: Booted) -> None:
    zone = b.memory.zones[0]
    zone.top_area[MIGRATE_CMA].discard(9216, 10240)
    zone.top_area[MIGRATE_MOVABLE].add(9216, 10240)
    zone.nr_free_cma -= 1024


def lost_page(b: Booted) -> None:
    """A migration that forgot to copy: the frame is free of content, the owner still maps it."""
    b.memory.owners.clear_pages(b.memory.owners.occupants[1].frames[7], 1)


def swapped_tags(b: Booted) -> None:
    owners = b.memory.owners
    first, second = owners.occupants[1].frames[5], owners.occupants[1].frames[6]
    tags = owners.tags[first >> 9]
    tags[first & 511], tags[second & 511] = tags[second & 511], tags[first & 511]


def doubled_content(b: Booted) -> None:
    owners = b.memory.owners
    frames = owners.occupants[1].frames
    owners.tags[frames[9] >> 9][frames[9] & 511] = owners.tag_at(frames[8])
    frames[9] = frames[8]


def wrong_copy(b: Booted) -> None:
    """Content of one page twice and of another not at all, with maps that agree: only the witness knows."""
    owners = b.memory.owners
    occupant = owners.occupants[1]
    last = len(occupant.frames)
    pfn = occupant.frames[9]
    occupant.frames[9] = -1
    occupant.frames.append(pfn)
    owners.tags[pfn >> 9][pfn & 511] = occupant.ident << TAG_SHIFT | last


def page_of_nobody(b: Booted) -> None:
    b.memory.owners.set_pages(99 << TAG_SHIFT, 1, b.memory.owners.occupants[1].frames[299] + 1, 1)


def resident_count(b: Booted) -> None:
    b.memory.owners.occupants[1].resident -= 1


def block_count(b: Booted) -> None:
    block = next(iter(b.memory.owners.used))
    b.memory.owners.used[block] -= 1


def pin_of_free_frame(b: Booted) -> None:
    b.memory.pins[5000] = 1


def pinned_index_without_frame(b: Booted) -> None:
    b.memory.owners.occupants[1].pinned.add(200)


def used_and_free(b: Booted) -> None:
    """A free page that somebody also uses."""
    b.memory.owners.extend(b.memory.owners.occupants[1], [(0, 1, 6000, 1)])


def leaked_page(b: Booted) -> None:
    """Taken off the lists and given to nobody."""
    zone = b.memory.zones[0]
    zone.top_area[MIGRATE_MOVABLE].discard(4096, 5120)
    zone.nr_free -= 1024


def bit_without_page(b: Booted) -> None:
    b.area.ranges[0].bitmap.set(500, 1)
    b.area.available_count -= 1


def page_without_bit(b: Booted) -> None:
    b.area.ranges[0].bitmap.clear(50, 1)
    b.area.available_count += 1


def available_counter(b: Booted) -> None:
    b.area.available_count -= 1


def hole_index(b: Booted) -> None:
    b.area.ranges[0].bitmap.holes.take(1000, 5)


def areas_overlap(b: Booted) -> None:
    b.areas[1].ranges[0].base_pfn = b.area.base_pfn
    b.areas[1].ranges[0].bitmap.set(10, 5)
    b.areas[1].available_count -= 5


SABOTAGE: dict[Callable[[Booted], None], str] = {
    lose_a_block: "accounted for",
    list_without_head: "its head says None",
    misaligned: "is not aligned",
    overlapping_blocks: "overlap",
    top_miscount: "miscounts its pages",
    free_counter: "nr_free_pages is",
    cma_counter: "nr_free_cma is",
    left_isolated: "1 page blocks and 0 free pages are isolated",
    isolated_pages: "0 page blocks and 1024 free pages are isolated",
    unmerged: "are not merged",
    cma_on_movable_list: "of type 4 is on a list of type 1",
    lost_page: "a: page 7 is not in frame",
    swapped_tags: "a: page 5 is not in frame",
    doubled_content: "a: not the content",
    wrong_copy: "a: not the content",
    page_of_nobody: "1 pages of nobody (owner 99)",
    resident_count: "a: 299 pages counted",
    remembered_wrongly: "a: 301 pages remembered in",
    block_count: "used pages counted, others found",
    pin_of_free_frame: "pfn 0x1388 has 1 pins and is not in use",
    pinned_index_without_frame: "a: pinned page 200 is in no pinned frame",
    used_and_free: "pages from 0x1770 on are",
    leaked_page: "accounted for",
    bit_without_page: "pages from 0x21f4 on are",
    page_without_bit: "accounted for",
    available_counter: "reserved" if len(CMA) == 1 else "area0: 100 pages in its bitmap, 101 counted",
    hole_index: "area0: ",
    areas_overlap: "areas area0 and area1 have both allocated pfn 0x200a",
}


def test_a_busy_machine_is_consistent() -> None:
    busy().check()


@pytest.mark.parametrize("sabotage", SABOTAGE, ids=lambda f: f.__name__)
def test_each_rule_sees_its_sabotage(sabotage: Callable[[Booted], None]) -> None:
    booted = busy()
    sabotage(booted)
    wrong = validate(booted.memory, list(booted.areas))
    assert any(SABOTAGE[sabotage] in line for line in wrong), wrong


def test_counters_only_grow() -> None:
    booted = busy()
    before = dict(booted.memory.vmstat.events)
    booted.check(before)
    booted.memory.vmstat.events["pgfree"] -= 1
    wrong = validate(booted.memory, list(booted.areas), before)
    assert wrong == [f"event pgfree went from {before['pgfree']} to {before['pgfree'] - 1}"]
