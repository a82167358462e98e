"""A Hypothesis state machine over the whole memory manager: after every step every consistency rule holds."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from mm_support import Booted, boot, layout
from soak_support import examples

from cmafs.mm.cma import cma_alloc, cma_release
from cmafs.mm.compaction import compact_memory
from cmafs.mm.vmscan import drop_caches
from cmafs.sim import workload
from cmafs.sim.validate import free_blocks


class Shape(NamedTuple):
    """A kind of machine: kernel, page shift, orders of a page block and of the largest block, bits of an
    area.
    """

    kernel: str
    page_shift: int = 12
    pageblock_order: int = 4
    max_page_order: int = 5
    order_per_bit: int = 0
    start: int = 0
    dma32_end: int = 1 << 20


SHAPES = (
    Shape("6.12"),
    Shape("7.2", start=4096),
    Shape("5.10", dma32_end=1024),
    Shape("4.4", pageblock_order=5),
    Shape("6.1", 14, 6, 6, start=1 << 20),
    Shape("6.12", 16, 7, 7, order_per_bit=3, dma32_end=512),
    Shape("article"),
    Shape("5.4", order_per_bit=2),
)
PAGES = 2048
NAMES = st.sampled_from("abcd")
SIZES = st.integers(0, 700)


class MemoryMachine(RuleBasedStateMachine):
    """People use memory, drivers use CMA; ``expected`` is what the tasks must hold (page caches may
    shrink).
    """

    @initialize(shape=st.sampled_from(SHAPES), boot_pages=st.booleans())
    def boot(self, shape: Shape, boot_pages: bool) -> None:
        unit = 1 << shape.max_page_order
        base = shape.start + 1024
        areas = ((base, 512), (base + 640 // unit * unit, 256))
        self.booted: Booted = boot(
            layout(
                PAGES,
                areas,
                ((shape.start + 3, shape.start + 11),),
                start=shape.start,
                page_shift=shape.page_shift,
                pageblock_order=shape.pageblock_order,
                max_page_order=shape.max_page_order,
                dma32_end=shape.dma32_end,
            ),
            areas,
            shape.kernel,
            order_per_bit=shape.order_per_bit,
            boot_pages=boot_pages,
        )
        self.memory = self.booted.memory
        self.expected: dict[str, int] = {}
        self.taken: list[tuple[int, int, int]] = []
        self.before: dict[str, int] = {}

    def whole_or_not_at_all(self, verb: Callable[[], None]) -> bool:
        """Runs a verb; one that refuses has an errno that a person may see, and has changed nothing."""
        before = self.fingerprint()
        try:
            verb()
        except OSError as refused:
            assert refused.errno in (errno.EEXIST, errno.ENOENT, errno.ENOMEM, errno.EBUSY, errno.EINVAL)
            assert refused.strerror
            assert self.fingerprint() == before
            return False
        return True

    def fingerprint(self) -> object:
        free = [(dict(zone.buddy), zone.nr_free, zone.nr_free_cma) for zone in self.memory.zones]
        held = {o.name: (o.frames.tobytes(), o.mlocked) for o in self.memory.owners.occupants.values()}
        return free, held, dict(self.memory.pins)

    @rule(name=NAMES, kind=st.sampled_from(list(workload.GFP_OF_KIND)), pages=SIZES)
    def spawn(self, name: str, kind: str, pages: int) -> None:
        if self.whole_or_not_at_all(lambda: workload.spawn(self.memory, name, kind, pages)):
            assert name not in self.expected
            self.expected[name] = pages

    @rule(name=NAMES, pages=SIZES)
    def grow(self, name: str, pages: int) -> None:
        if self.whole_or_not_at_all(lambda: workload.grow(self.memory, name, pages)):
            self.expected[name] += pages

    @rule(name=NAMES, pages=st.integers(0, 300))
    def shrink(self, name: str, pages: int) -> None:
        if self.whole_or_not_at_all(lambda: workload.shrink(self.memory, name, pages)):
            self.expected[name] -= pages

    @rule(name=NAMES)
    def kill(self, name: str) -> None:
        if self.whole_or_not_at_all(lambda: workload.kill(self.memory, name)):
            del self.expected[name]

    @rule(name=NAMES, pages=st.integers(0, 40))
    def pin(self, name: str, pages: int) -> None:
        self.whole_or_not_at_all(lambda: workload.pin(self.memory, name, pages))

    @rule(name=NAMES)
    def unpin(self, name: str) -> None:
        self.whole_or_not_at_all(lambda: workload.unpin(self.memory, name))

    @rule(offset=st.integers(-2, PAGES + 2))
    def pin_pfn(self, offset: int) -> None:
        pfn = self.memory.start_pfn + offset
        self.whole_or_not_at_all(lambda: workload.pin_pfn(self.memory, pfn))

    @rule(which=st.integers(0, 50))
    def unpin_pfn(self, which: int) -> None:
        pinned = sorted(self.memory.pins) or [0]
        pfn = pinned[which % len(pinned)]
        self.whole_or_not_at_all(lambda: workload.unpin_pfn(self.memory, pfn))

    @rule(name=NAMES, lock=st.booleans())
    def mlock(self, name: str, lock: bool) -> None:
        verb = workload.mlock if lock else workload.munlock
        self.whole_or_not_at_all(lambda: verb(self.memory, name))

    @rule(slot=st.integers(0, 1), pages=st.integers(1, 300), align=st.integers(0, 5))
    def alloc(self, slot: int, pages: int, align: int) -> None:
        pinned = set(self.memory.pins)
        pfn = cma_alloc(self.booted.areas[slot], pages, align)
        if pfn is not None:
            self.taken.append((slot, pfn, pages))
            assert not pinned & set(range(pfn, pfn + pages))
            assert not any(True for _ in self.memory.owners.used_in(pfn, pfn + pages))

    @rule(which=st.integers(0, 50))
    def free(self, which: int) -> None:
        if self.taken:
            slot, pfn, pages = self.taken.pop(which % len(self.taken))
            assert cma_release(self.booted.areas[slot], pfn, pages)

    @rule()
    def compact(self) -> None:
        pinned = {pfn: self.memory.owners.tag_at(pfn) for pfn in self.memory.pins}
        compact_memory(self.memory)
        assert {pfn: self.memory.owners.tag_at(pfn) for pfn in pinned} == pinned

    @rule(value=st.integers(1, 3))
    def drop(self, value: int) -> None:
        drop_caches(self.memory, value)

    @invariant()
    def consistent(self) -> None:
        if not hasattr(self, "booted"):
            return
        self.booted.check(self.before)
        self.before = dict(self.memory.vmstat.events)

    @invariant()
    def tasks_hold_what_they_asked_for(self) -> None:
        if not hasattr(self, "booted"):
            return
        shown = {t.name: t for t in workload.tasks(self.memory) if t.name != workload.PIN_OWNER}
        assert shown.keys() == self.expected.keys()
        for name, task in shown.items():
            if task.kind in ("file", "slab"):
                assert task.pages <= self.expected[name]
                self.expected[name] = task.pages
            else:
                assert task.pages == self.expected[name]


MemoryMachine.TestCase.settings = settings(
    examples(400),
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_memory_machine = MemoryMachine.TestCase


def test_page_blocks_of_two_types_that_merged_are_consistent() -> None:
    """Found by the machine: up to 5.16 a MOVABLE page block merges with a stolen UNMOVABLE one."""
    machine = MemoryMachine()
    machine.boot(shape=SHAPES[2], boot_pages=False)
    machine.spawn(kind="anon", name="b", pages=775)
    machine.alloc(align=0, pages=1, slot=0)
    machine.spawn(kind="file", name="c", pages=626)
    machine.spawn(kind="kernel", name="a", pages=586)
    machine.kill(name="a")
    assert any(
        not machine.memory.one_migratetype(start, end)
        for zone in machine.memory.zones
        for start, end, _ in free_blocks(zone)
    )
    machine.consistent()
