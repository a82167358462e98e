"""Who uses a frame, against a model that writes down owner and index of every one."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from soak_support import examples

from cmafs.mm.page_owner import TAG_SHIFT, PageOwners, contiguous, pfns_of

ORDER, FRAMES = 2, 40
#: Queries of a few blocks and of many, at their borders and not.
EDGES = (0, 1, 3, 4, 5, 8, 15, 16, 17, 36, 39, 40)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["extend", "extend", "truncate", "punch", "refill"]),
        st.integers(0, 1),
        st.lists(st.tuples(st.integers(0, FRAMES - 1), st.integers(1, 9)), min_size=1, max_size=3),
    ),
    max_size=8,
)


class Model:
    """Frame -> (occupant, index), and the frames of each occupant by index, -1 for a hole."""

    def __init__(self) -> None:
        self.owners = PageOwners(ORDER)
        self.people = [self.owners.add("a", "anon"), self.owners.add("b", "file", visible=False)]
        self.frames: list[list[int]] = [[], []]

    def free(self, runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """What of some runs nobody uses, each frame once."""
        busy = {pfn for frames in self.frames for pfn in frames}
        found: list[tuple[int, int]] = []
        for start, count in runs:
            for pfn in range(start, min(start + count, FRAMES)):
                if pfn not in busy:
                    busy.add(pfn)
                    found.append((pfn, 1))
        return found

    def step(self, what: str, who: int, runs: list[tuple[int, int]]) -> None:
        """Do something to both."""
        occupant, frames = self.people[who], self.frames[who]
        numbers = sorted({start for start, _ in runs})
        if what == "extend":
            given_ = self.free(runs)
            self.owners.extend(occupant, [(i, 1, pfn, 1) for i, (pfn, _) in enumerate(given_)])
            frames += [pfn for pfn, _ in given_]
        elif what == "truncate":
            gone = sorted(pfn for pfn in frames[numbers[0] :] if pfn >= 0)
            assert self.owners.truncate(occupant, numbers[0]) == gone
            del frames[numbers[0] :]
        elif what == "punch":
            indices = [i for i in numbers if i < len(frames) and frames[i] >= 0]
            occupant.dirty.update(indices)
            assert self.owners.punch(occupant, indices) == sorted(frames[i] for i in indices)
            assert occupant.dirty.isdisjoint(indices)
            for i in indices:
                frames[i] = -1
        elif what == "refill":
            holes = [i for i, pfn in enumerate(frames) if pfn < 0]
            given_ = self.free(runs)[: len(holes)]
            self.owners.refill(occupant, given_)
            for i, (pfn, _) in zip(holes, given_, strict=False):
                frames[i] = pfn

    def check(self) -> None:
        """All that can be asked has the model's answer."""
        owners, tags = self.owners, {}
        for occupant, frames in zip(self.people, self.frames, strict=True):
            held = [(i, pfn) for i, pfn in enumerate(frames) if pfn >= 0]
            tags |= {pfn: occupant.ident << TAG_SHIFT | i for i, pfn in held}
            assert (occupant.frames.tolist(), occupant.pfns()) == (frames, [pfn for _, pfn in held])
            assert (occupant.resident, occupant.checksum) == (len(held), sum(i + 1 for i, _ in held))
            assert occupant.pages_in(5, 17) == sum(5 <= pfn < 17 for _, pfn in held)
        assert [owners.tag_at(pfn) for pfn in range(FRAMES)] == [tags.get(pfn, 0) for pfn in range(FRAMES)]
        names = {occupant.ident: occupant for occupant in self.people}
        for pfn in range(FRAMES):
            assert owners.owner_at(pfn) is (names[tags[pfn] >> TAG_SHIFT] if pfn in tags else None)
        for start, end in product(EDGES, EDGES):
            if start < end:
                inside = [(pfn, tags[pfn]) for pfn in range(start, end) if pfn in tags]
                assert list(owners.used_in(start, end)) == inside
                assert owners.any_in(start, end) is bool(inside)
        blocks: dict[int, int] = {}
        for pfn in tags:
            blocks[pfn >> ORDER] = blocks.get(pfn >> ORDER, 0) + 1
        assert owners.used == blocks and owners.tags.keys() == blocks.keys()


@examples(60)
@given(STEPS)
def test_owners_follow_a_model(steps: list[tuple[str, int, list[tuple[int, int]]]]) -> None:
    model = Model()
    for what, who, runs in steps:
        model.step(what, who, runs)
        model.check()


@pytest.mark.parametrize("used", [[0], [39], [16], [3, 36], [15, 16], [4, 5, 6, 7], list(range(40))])
def test_a_few_frames(used: list[int]) -> None:
    model = Model()
    model.step("extend", 1, [(pfn, 1) for pfn in used])
    model.check()
    for index in (len(used) - 1, 0):
        model.step("punch", 1, [(index, 1)])
        model.check()
    model.step("refill", 1, [(38, 1), (20, 1)])
    model.check()
    model.step("truncate", 1, [(0, 1)])
    model.check()


def test_the_first_frame_of_memory_is_no_hole() -> None:
    model = Model()
    model.step("extend", 1, [(0, 3)])
    model.step("punch", 1, [(1, 1)])
    model.step("refill", 1, [(20, 1)])
    model.check()
    (holder,) = [occupant for occupant in model.owners.occupants.values() if occupant.resident]
    assert (holder.frames.tolist(), holder.pfns()) == ([0, 20, 2], [0, 20, 2])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=8))
def test_runs_of_neighbours(steps: list[tuple[int, int]]) -> None:
    pfns, runs, at = [], [], 0
    for gap, count in steps:
        at += gap
        if gap or not runs:
            runs.append((at, 0))
        runs[-1] = (runs[-1][0], runs[-1][1] + count)
        pfns += range(at, at + count)
        at += count
    assert list(contiguous(pfns)) == runs


def test_pages_in_a_range_follow_every_change() -> None:
    owners = PageOwners(ORDER)
    occupant = owners.add("a", "anon")

    def pages() -> list[int]:
        return [occupant.pages_in(start, end) for start, end in ((0, 40), (0, 10), (10, 20), (11, 12))]

    assert pages() == [0, 0, 0, 0]
    owners.extend(occupant, [(0, 1, 8, 4)])
    assert pages() == [4, 2, 2, 1]
    owners.extend(occupant, [(0, 1, 30, 2)])
    assert pages() == [6, 2, 2, 1]
    assert owners.punch(occupant, [0, 3]) == [8, 11]
    assert pages() == [4, 1, 1, 0]
    owners.refill(occupant, [(12, 2)])
    assert pages() == [6, 1, 3, 0]
    assert owners.truncate(occupant, 2) == [10, 13, 30, 31]
    assert pages() == [2, 1, 1, 0]


def test_frames_of_segments() -> None:
    assert pfns_of([(0, 1, 7, 3)], 3).tolist() == [7, 8, 9]
    assert pfns_of([(0, 2, 7, 3), (1, 2, 20, 2), (5, 1, 30, 1)], 6).tolist() == [7, 20, 8, 21, 9, 30]


def test_what_counts_as_which_page_state() -> None:
    """mm/vmstat.c@v6.12: memory of a mlocked task is unevictable, tmpfs is shmem and file."""
    owners = PageOwners(ORDER)
    kinds = ("anon", "file", "tmpfs", "kernel", "slab")
    for shift, (kind, mlocked) in enumerate(product(kinds, (False, True))):
        occupant = owners.add(f"{kind} {mlocked}", kind)
        occupant.mlocked = mlocked
        occupant.resident = 1 << shift
    by_name = {f"{kind} {mlocked}": 1 << i for i, (kind, mlocked) in enumerate(product(kinds, (False, True)))}

    def pages(*names: str) -> int:
        return sum(count for name, count in by_name.items() if name in names or name.split()[0] in names)

    found = {
        "nr_anon_pages": pages("anon"),
        "nr_file_pages": pages("file", "tmpfs"),
        "nr_shmem": pages("tmpfs"),
        "nr_slab_reclaimable": pages("slab"),
        "nr_inactive_anon": pages("anon False", "tmpfs False"),
        "nr_inactive_file": pages("file False"),
        "nr_unevictable": pages("anon True", "file True", "tmpfs True"),
        "nr_active_anon": 0,
    }
    assert {item: owners.node_page_state(item) for item in found} == found
    assert [occupant.name for occupant in owners.mlocked()] == [f"{kind} True" for kind in kinds]
    owners.occupants[1].dirty |= {1, 2}
    owners.occupants[4].dirty.add(3)
    assert [owners.node_page_state(item) for item in ("nr_dirty", "nr_write_pending")] == [3, 3]
    assert owners.by_name("file True") is owners.occupants[4] and owners.by_name("x") is None
    owners.remove(owners.occupants[4])
    assert owners.by_name("file True") is None
    new = owners.add("new", "anon")
    assert (new.ident, new.visible, new.mlocked, new.reclaimed, new.movable) == (11, True, False, 0, True)
    assert [owners.add("x", kind).movable for kind in kinds] == [True, True, True, False, False]
