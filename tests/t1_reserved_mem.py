"""/reserved-memory kernel by kernel: rules of the sources that no recorded boot shows alone, and trees of
any shape.

Modules: cmafs.of.reserved_mem, cmafs.of.rmem_init, cmafs.init.main.
"""

from __future__ import annotations

import pytest
from boot_support import areas, arm_tree, boot, cells, lines_with, tree_of
from hypothesis import given
from hypothesis import strategies as st
from soak_support import examples

from cmafs.abi.rows import RELEASES
from cmafs.lib.boot_event import BootEvent
from cmafs.lib.panic import KernelPanic
from cmafs.of.base import DeviceNode, DtError

M = 1 << 20
POOL = 'compatible = "shared-dma-pool"; reusable;'
RECORDED = ("5.10", "6.1", "6.12", "7.2")


def node(name: str, body: str) -> str:
    return f"{name} {{ {body} }};"


def reg(base: int, size: int) -> str:
    return f"reg = <0 {base:#x} 0 {size:#x}>;"


def reasons(machine) -> set[tuple[str | None, str, str]]:
    return {(event.node, event.reason, event.effect) for event in machine.boot_events}


@pytest.mark.parametrize("kernel", RECORDED)
def test_reg_wins_over_size(kernel: str) -> None:
    tree = tree_of(node("p@60000000", f"{POOL} {reg(0x60000000, 16 * M)} size = <0 0x2000000>;"))
    assert areas(boot(tree, kernel, "cma=0")) == [("p@60000000", 0x60000000, 16 * M)]


TWO_POOLS = node("p@60000000", f"{POOL} linux,cma-default; {reg(0x60000000, 16 * M)}") + node(
    "d", f"{POOL} size = <0 0x1000000>;"
)


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize("kernel", RECORDED)
def test_pools_on_every_architecture(kernel: str, arch: str) -> None:
    machine = boot(tree_of(TWO_POOLS), kernel, arch=arch)
    assert areas(machine) == [("d", 0x7F000000, 16 * M), ("p@60000000", 0x60000000, 16 * M)]
    assert machine.cma.default is machine.cma[1]
    assert machine.boot_events == []


@pytest.mark.parametrize(
    ("kernel", "names"), [("6.6", ["d", "p@60000000"]), ("6.12", ["d", "reserved", "p@60000000"])]
)
def test_32_bit_arm_places_its_default_before_the_second_pass(kernel: str, names: list[str]) -> None:
    """arm_memblock_init() reserves before the tree is unflattened, so the reg node marked default comes
    too late.
    """
    machine = boot(tree_of(TWO_POOLS), kernel, arch="arm")
    assert [name for name, _, _ in areas(machine)] == names
    assert machine.cma.default is machine.cma[len(names) - 1]


@pytest.mark.parametrize(
    ("kernel", "order"),
    [("4.19", [2, 1]), ("5.10", [2, 1]), ("6.1", [2, 1]), ("6.6", [1, 2]), ("6.12", [1, 2]), ("7.2", [1, 2])],
)
def test_size_nodes_are_placed_in_the_order_of_the_kernels_sort(kernel: str, order: list[int]) -> None:
    tree = tree_of("".join(node(f"d{n}", f"{POOL} size = <0 0x1000000>;") for n in (1, 2)))
    found = areas(boot(tree, kernel, "cma=0"))
    assert found == [(f"d{n}", 0x7F000000 - at * 16 * M, 16 * M) for at, n in enumerate(order)]


@pytest.mark.parametrize(("kernel", "names"), [("5.10", ["d", "a", "b"]), ("6.12", ["d", "b", "a"])])
def test_slots_are_by_address_up_to_6_11_and_by_tree_later(kernel: str, names: list[str]) -> None:
    tree = tree_of(
        node("b", f"{POOL} {reg(0x68000000, 16 * M)}")
        + node("a", f"{POOL} {reg(0x60000000, 16 * M)}")
        + node("d", f"{POOL} size = <0 0x1000000>;")
    )
    assert [name for name, _, _ in areas(boot(tree, kernel, "cma=0"))] == names


def test_the_unit_is_4_mib_before_5_19() -> None:
    tree = tree_of(node("p@60200000", f"{POOL} {reg(0x60200000, 6 * M)}"))
    assert areas(boot(tree, "6.1", "cma=0")) == [("p@60200000", 0x60200000, 6 * M)]
    machine = boot(tree, "5.15", "cma=0")
    assert areas(machine) == []
    assert reasons(machine) == {("/reserved-memory/p@60200000", "base-misaligned", "refused")}
    assert lines_with(machine, "incorrect", "matching") == [
        "Reserved memory: incorrect alignment of CMA region",
        "OF: reserved mem: node p@60200000 compatible matching fail",
    ]


@pytest.mark.parametrize(
    ("kernel", "lines"),
    [
        ("5.10", ["OF: fdt: Reserved memory: unsupported node format, ignoring"]),
        ("6.12", ["OF: reserved mem: Reserved memory: unsupported node format, ignoring"] * 2),
        ("7.2", ["OF: reserved mem: Reserved memory: unsupported node format, ignoring"] * 2),
    ],
)
@pytest.mark.parametrize("wrong", ["ranges", "#address-cells", "#size-cells"])
def test_a_parent_of_another_format_is_ignored(kernel: str, lines: list[str], wrong: str) -> None:
    tree = tree_of(node("p@60000000", f"{POOL} {reg(0x60000000, 16 * M)}"))
    props = tree.root.children["reserved-memory"].props
    if wrong == "ranges":
        del props[wrong]
    else:
        props[wrong] = cells(1)
    machine = boot(tree, kernel, "cma=0")
    assert (areas(machine), lines_with(machine, "unsupported")) == ([], lines)
    assert [(event.reason, event.property) for event in machine.boot_events] == [
        ("unsupported-format", wrong)
    ]


@pytest.mark.parametrize(
    ("kernel", "line", "times"),
    [
        ("5.10", "OF: fdt: Reserved memory: invalid reg property in 'p', skipping node.", 1),
        ("6.12", "OF: reserved mem: Reserved memory: invalid reg property in 'p', skipping node.", 2),
        ("7.2", "", 0),
    ],
)
def test_a_reg_of_wrong_length_loses_its_node(kernel: str, line: str, times: int) -> None:
    tree = tree_of(
        node("p", f"{POOL} reg = <0x60000000 0x1000000 0>;") + node("q", f"{POOL} {reg(0x60000000, 4 * M)}")
    )
    machine = boot(tree, kernel, "cma=0")
    assert areas(machine) == [("q", 0x60000000, 4 * M)]
    assert lines_with(machine, "invalid") == [line] * times
    assert ("/reserved-memory/p", "invalid-reg", "refused") in reasons(machine)


@pytest.mark.parametrize(
    ("prop", "value"),
    [("size", "<0x1000000>"), ("alignment", "<0x400000>"), ("alloc-ranges", "<0 0x40000000 0>")],
)
def test_wrong_lengths_of_size_nodes(prop: str, value: str) -> None:
    body = f"{POOL} size = <0 0x1000000>;" if prop != "size" else POOL
    text = {
        "size": "invalid size property in 'd' node.",
        "alignment": "invalid alignment property in 'd' node.",
        "alloc-ranges": "invalid alloc-ranges property in 'd', skipping node.",
    }[prop]
    tree = tree_of(node("d", f"{body} {prop} = {value};"))
    for kernel in ("5.10", "6.12"):
        machine = boot(tree, kernel, "cma=0")
        assert (areas(machine), lines_with(machine, "invalid")) == ([], [f"OF: reserved mem: {text}"])
        assert [(e.reason, e.property) for e in machine.boot_events] == [(f"invalid-{prop}", prop)]


def test_a_malformed_alloc_ranges_counts_as_absent_in_7_2() -> None:
    tree = tree_of(node("d", f"{POOL} size = <0 0x1000000>; alloc-ranges = <0 0x40000000 0>;"))
    assert areas(boot(tree, "7.2", "cma=0")) == [("d", 0x7F000000, 16 * M)]


def test_alloc_ranges_without_any_range() -> None:
    """drivers/of/of_reserved_mem.c:__reserved_mem_alloc_size()@v6.12: there is nothing to try."""
    tree = tree_of(node("d", f"{POOL} size = <0 0x1000000>; alloc-ranges;"))
    machine = boot(tree, "6.12", "cma=0")
    assert areas(machine) == []
    assert lines_with(machine, "node 'd'") == [
        "OF: reserved mem: failed to allocate memory for node 'd': size 16 MiB"
    ]


@pytest.mark.parametrize(
    ("kernel", "suffix"), [("5.10", ""), ("6.1", ": size 4096 MiB"), ("6.12", ": size 4096 MiB")]
)
def test_no_room(kernel: str, suffix: str) -> None:
    machine = boot(tree_of(node("d", f"{POOL} size = <1 0>;")), kernel, "cma=0")
    assert lines_with(machine, "failed to") == [
        f"OF: reserved mem: failed to allocate memory for node 'd'{suffix}"
    ]
    assert reasons(machine) == {("/reserved-memory/d", "no-room", "refused")}


def test_ranges_are_tried_in_order_and_searched_from_the_top() -> None:
    ranges = (
        "alloc-ranges = <0 0x90000000 0 0x10000000>, <0 0x50000000 0 0x4000000>, <0 0x60000000 0 0x4000000>;"
    )
    tree = tree_of(node("d", f"{POOL} size = <0 0x1000000>; {ranges}"))
    for kernel in RECORDED:
        assert areas(boot(tree, kernel, "cma=0")) == [("d", 0x53000000, 16 * M)]


@pytest.mark.parametrize(("kernel", "base"), [("6.1", 0x5F000000), ("6.6", 0x52000000), ("6.12", 0x5F000000)])
def test_a_range_that_starts_at_a_region_is_filled_from_below(kernel: str, base: int) -> None:
    """6.6 to 6.11 see reg nodes too; from 6.12 on only size nodes are there yet."""
    tree = tree_of(
        node("r@50000000", f"{POOL} {reg(0x50000000, 32 * M)}")
        + node("d", f"{POOL} size = <0 0x1000000>; alloc-ranges = <0 0x52000000 0 0xe000000>;")
    )
    assert ("d", base, 16 * M) in areas(boot(tree, kernel, "cma=0"))


def test_filling_from_below_is_for_one_range_only() -> None:
    tree = tree_of(
        node("r@50000000", f"{POOL} {reg(0x50000000, 32 * M)}")
        + node("d", f"{POOL} size = <0 0x1000000>; alloc-ranges = <0 0x52000000 0 0xe000000>;")
        + node("c", f"{POOL} size = <0 0x1000000>;")
    )
    found = {name: base for name, base, _ in areas(boot(tree, "6.6", "cma=8M"))}
    assert found.pop("reserved") > 0x70000000
    assert list(found.items()) == [("d", 0x52000000), ("c", 0x7F000000), ("r@50000000", 0x50000000)]


def test_32_bit_addresses_lose_what_is_above() -> None:
    """phys_addr_t has 32 bits on arm without LPAE: a reg of two cells wraps."""
    tree = tree_of(node("p", f"{POOL} reg = <1 0x60000000 2 0x01000000>;"))
    assert ("p", 0x60000000, 16 * M) in areas(boot(tree, "6.1", "cma=0", "arm", ["ARM_LPAE=n"]))


@pytest.mark.parametrize("kernel", ["5.10", "6.12"])
def test_a_reg_of_no_bytes(kernel: str) -> None:
    machine = boot(tree_of(node("p", f"{POOL} {reg(0x60000000, 0)}")), kernel, "cma=0")
    (line,) = lines_with(machine, "failed to")
    assert line.endswith("failed to reserve memory for node 'p': base 0x0000000060000000, size 0 MiB")
    assert ("/reserved-memory/p", "size-zero", "refused") in reasons(machine)


@pytest.mark.parametrize("kernel", ["5.10", "6.12"])
def test_reusable_and_no_map_is_refused_and_given_back(kernel: str) -> None:
    machine = boot(tree_of(node("p", f"{POOL} no-map; {reg(0x60000000, 16 * M)}")), kernel, "cma=0")
    assert lines_with(machine, "reserved mem") == ["OF: reserved mem: node p compatible matching fail"]
    assert not any(region.nomap for region in machine.memblock.memory)
    assert not machine.memblock.is_region_reserved(0x60000000, 16 * M)


def test_reusable_and_no_map_stays_reserved_in_7_2() -> None:
    machine = boot(tree_of(node("p", f"{POOL} no-map; {reg(0x60000000, 16 * M)}")), "7.2", "cma=0")
    assert lines_with(machine, "reserved mem") == [
        "OF: reserved mem: 0x0000000060000000..0x0000000060ffffff (16384 KiB) nomap reusable p"
    ]
    assert reasons(machine) == {("/reserved-memory/p", "reusable-and-no-map", "refused")}


def test_no_map_over_what_is_taken_fails() -> None:
    tree = tree_of(node("fw@40200000", f"no-map; {reg(0x40200000, 2 * M)}"))
    machine = boot(tree, "6.12", "cma=0")
    assert lines_with(machine, "failed to") == [
        "OF: reserved mem: Reserved memory: failed to reserve memory for node 'fw@40200000': "
        "base 0x0000000040200000, size 2 MiB"
    ]


def test_no_map_is_removed_before_5_10_and_marked_later() -> None:
    tree = tree_of(node("fw@60000000", f"no-map; {reg(0x60000000, 16 * M)}"))
    assert boot(tree, "5.4", "cma=0").memblock.phys_mem_size() == 1008 * M
    assert boot(tree, "5.10", "cma=0").memblock.phys_mem_size() == 1024 * M


@pytest.mark.parametrize("ranges", ["", "alloc-ranges = <0 0x58000000 0 0x10000000>;"])
def test_a_size_node_may_be_no_map(ranges: str) -> None:
    tree = tree_of(node("fw", f"no-map; size = <0 0x1000000>; alignment = <0 0x1000000>; {ranges}"))
    assert boot(tree, "5.4", "cma=0").memblock.phys_mem_size() == 1008 * M
    for kernel in ("5.10", "6.12"):
        machine = boot(tree, kernel, "cma=0")
        (place,) = [(region.base, region.size) for region in machine.memblock.memory if region.nomap]
        assert place == (0x67000000 if ranges else machine.reserved_mem[0].base, 16 * M)


@pytest.mark.parametrize(
    ("kernel", "lines"),
    [
        ("5.4", ["Reserved memory: created CMA memory pool at 0x0000000060000000, size 16 MiB"]),
        (
            "6.12",
            [
                "Reserved memory: bypass p node, using cmdline CMA params instead",
                "OF: reserved mem: node p compatible matching fail",
            ],
        ),
        ("7.2", ['Skipping dt linux,cma-default node in favor for "cma=" kernel param.'] * 2),
    ],
)
def test_who_wins_against_cma(kernel: str, lines: list[str]) -> None:
    tree = tree_of(node("p", f"{POOL} linux,cma-default; {reg(0x60000000, 16 * M)}"))
    machine = boot(tree, kernel, "cma=8M")
    assert lines_with(machine, "created", "bypass", "matching", "Skipping") == lines
    assert machine.cma.default is not None
    assert machine.cma.default.name == ("p" if kernel == "5.4" else "reserved")


def test_a_size_node_is_skipped_once_in_7_2() -> None:
    tree = tree_of(node("d", f"{POOL} linux,cma-default; size = <0 0x1000000>;"))
    assert len(lines_with(boot(tree, "7.2", "cma=8M"), "Skipping")) == 1


def test_a_bypassed_default_without_reusable_becomes_a_plain_pool() -> None:
    """Up to 6.x the second driver of the same compatible is asked after the first refused; 7.2 does not
    reserve it.
    """
    body = f'compatible = "shared-dma-pool"; linux,cma-default; {reg(0x60000000, 16 * M)}'
    machine = boot(tree_of(node("p", body)), "6.12", "cma=0")
    assert lines_with(machine, "Reserved memory: ") == [
        "Reserved memory: bypass p node, using cmdline CMA params instead",
        "Reserved memory: created DMA memory pool at 0x0000000060000000, size 16 MiB",
    ]
    assert not boot(tree_of(node("p", body)), "7.2", "cma=0").memblock.is_region_reserved(0x60000000, M)


def test_size_0_and_a_size_off_the_unit() -> None:
    for size, line in ((0, "unable to setup CMA region"), (3 * M, "incorrect alignment of CMA region")):
        machine = boot(tree_of(node("d", f"{POOL} size = <0 {size:#x}>;")), "6.12", "cma=0")
        assert lines_with(machine, "Reserved memory", "matching") == [
            f"Reserved memory: {line}",
            "OF: reserved mem: node d compatible matching fail",
        ]


def test_long_names_are_whole_in_lines_and_cut_in_areas() -> None:
    name = "a" * 80 + "@60000000"
    machine = boot(tree_of(node(name, f"{POOL} {reg(0x60000000, 16 * M)}")), "6.12", "cma=0")
    assert areas(machine) == [(name[:63], 0x60000000, 16 * M)]
    assert lines_with(machine, "initialized") == [
        f"OF: reserved mem: initialized node {name}, compatible id shared-dma-pool"
    ]


def test_overlap_is_one_record_of_two_lines() -> None:
    text = (
        "OF: reserved mem: OVERLAP DETECTED!\n"
        "a (0x0000000060000000--0x0000000062000000) overlaps with b (0x0000000061000000--0x0000000063000000)"
    )
    tree = tree_of(
        node("b", f"{POOL} {reg(0x61000000, 32 * M)}") + node("a", f"{POOL} {reg(0x60000000, 32 * M)}")
    )
    for kernel in ("5.10", "6.12", "7.2"):
        machine = boot(tree, kernel, "cma=0")
        assert lines_with(machine, "OVERLAP") == [text]
        assert machine.cma.totalcma_pages == 16384


def test_memreserve_keeps_size_nodes_away() -> None:
    tree = tree_of(node("d", f"{POOL} size = <0 0x1000000>;"), head="/memreserve/ 0x7f800000 0x800000;")
    for kernel in RECORDED:
        assert areas(boot(tree, kernel, "cma=0")) == [("d", 0x7E800000, 16 * M)]


def test_too_many_size_nodes() -> None:
    tree = tree_of("".join(node(f"d{n}", "size = <0 0x1000>;") for n in range(66)))
    machine = boot(tree, "6.12", "cma=0")
    assert lines_with(machine, "too many") == [
        f"OF: reserved mem: too many defined dynamic regions, skip 'd{n}'" for n in (64, 65)
    ]
    old = boot(tree, "5.10", "cma=0")
    assert (
        lines_with(old, "not enough") == ["OF: reserved mem: not enough space for all defined regions."] * 2
    )


@pytest.mark.parametrize("kernel", ["5.10", "6.12", "7.2"])
def test_an_area_outside_memory_is_a_panic(kernel: str) -> None:
    tree = tree_of(node("p@a0000000", f"{POOL} {reg(0xA0000000, 16 * M)}"))
    with pytest.raises(KernelPanic) as caught:
        boot(tree, kernel)
    assert caught.value.reason.startswith("area p@a0000000: 0xa0000000-0xa0ffffff is not all memory")
    assert caught.value.events == [
        BootEvent("/reserved-memory/p@a0000000", "outside-memory", "panic", "reg", "0xa0000000-0xa0ffffff")
    ]
    assert caught.value.log.lines()[-1].startswith("Kernel panic - not syncing: ")


VALUES = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([0, 1, 0x1000, 0x100000, 0x200000, 0x60000000, 0xFFFFFFFF]), max_size=9).map(
        lambda numbers: cells(*numbers)
    ),
)
NODES = st.fixed_dictionaries(
    {},
    optional={
        "compatible": st.sampled_from([b"shared-dma-pool\0", b"x,y\0shared-dma-pool\0", b"", b"z"]),
        "reg": VALUES,
        "size": VALUES,
        "alignment": VALUES,
        "alloc-ranges": VALUES,
        "reusable": st.just(b""),
        "no-map": st.just(b""),
        "linux,cma-default": st.just(b""),
        "status": st.sampled_from([b"okay\0", b"ok", b"disabled\0", b""]),
    },
)


def test_a_size_node_without_alignment_begins_at_a_cache_line() -> None:
    """mm/memblock.c:memblock_alloc_range_nid()@v6.12: 0 is SMP_CACHE_BYTES."""
    for size in (0x1001, 0x1041):
        (region,) = boot(tree_of(node("p", f"size = <0 {size:#x}>;")), "6.12", "cma=0").reserved_mem
        assert (region.base % 64, region.size) == (0, size)


REFUSED_NO_MAP = f"{POOL} no-map;"


@pytest.mark.parametrize(
    ("base", "size", "cmdline", "body"),
    [
        (0x7D000000, 50 * M, "", REFUSED_NO_MAP),  # the unflattened tree is written there
        (0x7F000000, 32 * M, "cma=32M@0x60000000", f"{REFUSED_NO_MAP} linux,cma-default;"),
        (0x40800000, 12 * M, "", REFUSED_NO_MAP),  # the first pages of the page allocator
    ],
)
def test_memory_given_back_but_not_mapped_kills(base: int, size: int, cmdline: str, body: str) -> None:
    """Seen on 6.12.117 (arm64); up to 6.11 the node is refused before memory is mapped, 7.2 keeps it."""
    tree = tree_of(node("p", f"{body} {reg(base, size)}"))
    span = f"{base:#x}-{min(base + size, 0x80000000) - 1:#x}"
    said = f"/reserved-memory/p: {span} is given back but not mapped, and the kernel writes there$"
    with pytest.raises(KernelPanic, match=said) as caught:
        boot(tree, "6.12", cmdline)
    assert caught.value.events[-1] == BootEvent("/reserved-memory/p", "unmapped", "panic", "no-map", span)
    for kernel in ("5.10", "6.6", "7.2"):
        assert areas(boot(tree, kernel, cmdline or "cma=16M"))[-1][0] == "reserved"


@pytest.mark.parametrize("base", [0x60000000, 0x7DE00000])
def test_memory_given_back_but_not_mapped_that_nobody_touches(base: int) -> None:
    """Seen on 6.12.117 (arm64, QEMU): even the default area and its atomic pool may lie there."""
    tree = tree_of(node("p", f"{REFUSED_NO_MAP} {reg(base, 16 * M)}"))
    assert areas(boot(tree, "6.12")) == [("reserved", 0x7DE00000, 16 * M)]


def test_of_several_regions_that_are_not_mapped_the_one_kills_that_is_touched() -> None:
    nodes = [("a", 0x50000000), ("b", 0x40800000), ("c", 0x70000000)]  # the second has boot's first pages
    tree = tree_of("".join(node(name, f"{REFUSED_NO_MAP} {reg(base, 12 * M)}") for name, base in nodes))
    with pytest.raises(KernelPanic, match=r"^/reserved-memory/b: 0x40800000-0x413fffff is given back"):
        boot(tree, "6.12")
    untouched = tree_of(
        "".join(node(name, f"{REFUSED_NO_MAP} {reg(base, 12 * M)}") for name, base in nodes[::2])
    )
    assert boot(untouched, "6.12")


@pytest.mark.parametrize("kernel", RECORDED)
def test_kernel_memory_given_back_kills(kernel: str) -> None:
    """Seen on 6.12.117 (arm64): a misaligned node over the image dies once boot takes that memory; one whose
    scraps boot has no use for does not, nor does an area.
    """
    with pytest.raises(
        KernelPanic, match=r"/reserved-memory/p: 0x40200000-.* the kernel stands there$"
    ) as caught:
        boot(tree_of(node("p", f"{POOL} {reg(0x40000000, 129 * M)}")), kernel, "cma=16M")
    span = caught.value.reason.split(": ")[1].split()[0]
    assert caught.value.events[-1] == BootEvent(
        "/reserved-memory/p", "kernel-given-back", "panic", "reg", span
    )
    base = 0x40000000 if kernel == "5.10" else 0x40200000
    for body in (reg(0x40200000, M), reg(base, 4 * M)):
        assert boot(tree_of(node("p", f"{POOL} {body}")), kernel, "cma=16M").cma.default


def test_what_was_never_no_map_stays_mapped() -> None:
    """Memory that something else had reserved cannot be marked; its node is refused all the same."""
    nodes = node("a@7f400000", reg(0x7F400000, 12 * M)) + node(
        "p@7f800000", f"{REFUSED_NO_MAP} {reg(0x7F800000, 8 * M)}"
    )
    machine = boot(tree_of(nodes), "6.12", "cma=0")
    assert lines_with(machine, "matching fail") == [
        "OF: reserved mem: node p@7f800000 compatible matching fail"
    ]


FROM_OF = "OF: reserved mem: "
CREATED = "Reserved memory: created {} memory pool at {}, size {} MiB"
MISALIGNED = [
    "Reserved memory: incorrect alignment of CMA region",
    FROM_OF + "node {} compatible matching fail",
]
TWO_RANGES = node("p", f"{POOL} reg = <0 0x60000000 0 0x400000 0 0x68000000 0 0x400000>;")
MADE = [
    CREATED.format("CMA", "0x0000000060000000", 4),
    FROM_OF + "initialized node p, compatible id shared-dma-pool",
    FROM_OF + "0x0000000060000000..0x00000000603fffff (4096 KiB) map reusable p",
]
EXTRA = ("p", "extra-reg", "note", "reg", "2 ranges")
DISABLED = node("off", f'{POOL} {reg(0x60000000, 4 * M)} status = "disabled";') + node("empty", "")
INNER = node("other", f'compatible = "acme,x"; {reg(0x64000000, M)} {node("inner", reg(0x68000000, M))}')
NOT_LOOKED_AT = [
    ("off", "disabled", "ignored", "status", ""),
    ("empty", "no-reg-no-size", "ignored", "reg", ""),
    ("bad", "invalid-reg", "refused", "reg", ""),
]
NO_DRIVER = ("other", "no-driver", "ignored", "compatible", "")


@pytest.mark.parametrize(
    ("nodes", "kernel", "lines", "events"),
    [
        (TWO_RANGES, "5.10", MADE[:2], [EXTRA]),
        (
            TWO_RANGES,
            "6.12",
            [FROM_OF + "fdt_scan_reserved_mem_reg_nodes() ignores 1 regions in node 'p'", *MADE],
            [EXTRA],
        ),
        (
            TWO_RANGES,
            "7.2",
            [f"{FROM_OF}Reserved memory: node 'p' has 2 <base size> entries, only the first is used", *MADE],
            [EXTRA],
        ),
        (
            node("p", f"{POOL} {reg(0x60200000, 3 * M)}")
            + node("q", f"{POOL} {reg(0x60700000, 4 * M)}")
            + node("r", f"{POOL} size = <0 0x300000>;"),
            "6.12",
            [line.format(name) for name in "rpq" for line in MISALIGNED],
            [
                ("r", "size-misaligned", "refused", "size", "0x7fc00000, 0x300000 bytes, unit 0x200000"),
                ("p", "size-misaligned", "refused", "reg", "0x60200000, 0x300000 bytes, unit 0x200000"),
                ("q", "base-misaligned", "refused", "reg", "0x60700000, 0x400000 bytes, unit 0x200000"),
            ],
        ),
        (
            DISABLED + INNER + node("bad", f"{POOL} reg;"),
            "5.10",
            [],
            [*NOT_LOOKED_AT, NO_DRIVER, ("other/inner", *NO_DRIVER[1:])],
        ),
        (
            DISABLED + INNER + node("bad", f"{POOL} reg;"),
            "6.12",
            [FROM_OF + "0x0000000064000000..0x00000000640fffff (1024 KiB) map non-reusable other"],
            [*NOT_LOOKED_AT, NO_DRIVER],
        ),
        (
            node("p", f'compatible = "shared-dma-pool"; {reg(0x60000000, 4 * M)}'),
            "6.12",
            [
                CREATED.format("DMA", "0x0000000060000000", 4),
                MADE[1],
                MADE[2].replace("reusable", "non-reusable"),
            ],
            [("p", "not-reusable", "moved", "reusable", "")],
        ),
        (
            node("p", f"{POOL} {reg(0x60000000, 0)}"),
            "6.1",
            [
                "OF: fdt: Reserved memory: failed to reserve memory for node 'p': "
                "base 0x0000000060000000, size 0 MiB",
            ],
            [("p", "size-zero", "refused", "reg", "base 0x0000000060000000, size 0 MiB")],
        ),
        (
            node("p", f"no-map; {reg(0x40200000, 4 * M)}"),
            "6.12",
            [
                f"{FROM_OF}Reserved memory: failed to reserve memory for node 'p': "
                "base 0x0000000040200000, size 4 MiB",
                FROM_OF + "0x0000000040200000..0x00000000405fffff (4096 KiB) nomap non-reusable p",
            ],
            [
                ("p", "reserve-failed", "refused", "reg", "base 0x0000000040200000, size 4 MiB"),
                ("p", "no-driver", "ignored", "compatible", ""),
            ],
        ),
        (
            node("a", f"{POOL} {reg(0x60000000, 8 * M)}") + node("b", f"{POOL} {reg(0x60400000, 8 * M)}"),
            "5.10",
            None,
            [
                (
                    "b",
                    "overlap",
                    "note",
                    "reg",
                    "a (0x0000000060000000--0x0000000060800000) overlaps with "
                    "b (0x0000000060400000--0x0000000060c00000)",
                )
            ],
        ),
        (
            node("d", f"{POOL} size = <1 0>;"),
            "6.12",
            None,
            [("d", "no-room", "refused", "size", "0x100000000 bytes")],
        ),
        (
            node("d", f"{POOL} size = <0 0x1000000>; alloc-ranges = <0 0x90000000 0 0x10000000>;"),
            "6.12",
            [FROM_OF + "failed to allocate memory for node 'd': size 16 MiB"],
            [("d", "no-room", "refused", "alloc-ranges", "0x1000000 bytes")],
        ),
    ],
)
def test_all_that_is_said_of_the_nodes(
    nodes: str, kernel: str, lines: list[str] | None, events: list[tuple[str, ...]] | None
) -> None:
    """drivers/of/of_reserved_mem.c, drivers/of/fdt.c, kernel/dma/contiguous.c, coherent.c: V 5.10 to 7.2."""
    machine = boot(tree_of(nodes), kernel, "cma=0")
    assert lines is None or lines_with(machine, "eserved mem") == lines
    wanted = [BootEvent(f"/reserved-memory/{event[0]}", *event[1:]) for event in events or ()]
    assert events is None or machine.boot_events == wanted


@pytest.mark.parametrize(
    ("nodes", "kernel", "cmdline", "event"),
    [
        (
            node("d", f"{POOL} size = <0 0x400000>; alloc-ranges = <0 0 0>;"),
            "7.2",
            "cma=0",
            ("d", "invalid-alloc-ranges", "moved", "alloc-ranges"),
        ),
        (
            node("d", f"{POOL} size = <0 0x400000>; alloc-ranges = <0 0 0>;"),
            "6.12",
            "cma=0",
            ("d", "invalid-alloc-ranges", "refused", "alloc-ranges"),
        ),
        (node("d", f"{POOL} size = <1>;"), "6.12", "cma=0", ("d", "invalid-size", "refused", "size")),
        (
            node("d", f"{POOL} size = <0 0x400000>; alignment = <1>;"),
            "6.12",
            "cma=0",
            ("d", "invalid-alignment", "refused", "alignment"),
        ),
        (
            "".join(node(f"d{n}", "size = <0 0x1000>;") for n in range(65)),
            "6.12",
            "cma=0",
            ("d64", "too-many-regions", "refused", "size"),
        ),
        (
            "".join(node(f"d{n}", reg(0x60000000 + n * M, 4096)) for n in range(65)),
            "5.10",
            "cma=0",
            ("d64", "too-many-regions", "refused", None),
        ),
        (
            node("p", f"{POOL} linux,cma-default; {reg(0x60000000, 4 * M)}"),
            "6.12",
            "cma=8M",
            ("p", "bypassed", "refused", "linux,cma-default"),
        ),
        (
            node("p", f"{POOL} linux,cma-default; {reg(0x60000000, 4 * M)}"),
            "7.2",
            "cma=8M",
            ("p", "bypassed", "refused", "linux,cma-default"),
        ),
        (
            node("p", f"{POOL} no-map; {reg(0x60000000, 4 * M)}"),
            "7.2",
            "cma=0",
            ("p", "reusable-and-no-map", "refused", "no-map"),
        ),
        (node("d", f"{POOL} size = <0 0>;"), "6.12", "cma=0", ("d", "size-zero", "refused", "size")),
    ],
)
def test_what_check_is_told(
    nodes: str, kernel: str, cmdline: str, event: tuple[str, str, str, str | None]
) -> None:
    name, *rest = event
    events = [
        event for event in boot(tree_of(nodes), kernel, cmdline).boot_events if event.reason != "no-driver"
    ]
    assert events == [BootEvent(f"/reserved-memory/{name}", *rest)]  # type: ignore[arg-type]


def test_a_second_default_takes_the_place_of_the_first() -> None:
    nodes = [
        node(n, f"{POOL} linux,cma-default; {reg(base, 4 * M)}")
        for n, base in (("p", 3 << 29), ("q", 7 << 28))
    ]
    machine = boot(tree_of("".join(nodes)), "6.12")
    assert machine.cma.default is machine.cma[1]
    place = "/reserved-memory/q"
    assert machine.boot_events == [BootEvent(place, "default-twice", "note", "linux,cma-default", "p")]


def test_pools_of_32_bit_arm_and_of_one_device() -> None:
    """kernel/dma/coherent.c:rmem_dma_setup(), kernel/dma/swiotlb.c:rmem_swiotlb_setup()@v6.12"""
    pool = 'compatible = "shared-dma-pool";'
    machine = boot(
        arm_tree(
            node("a", f"{pool} reg = <0x50000000 0x400000>;")
            + node("b", f"{pool} no-map; reg = <0x58000000 0x400000>;")
        ),
        "6.12",
        "cma=0",
        "arm",
    )
    assert lines_with(machine, "eserved mem") == [
        "Reserved memory: regions without no-map are not yet supported",
        FROM_OF + "node a compatible matching fail",
        CREATED.format("DMA", "0x58000000", 4),
        FROM_OF + "initialized node b, compatible id shared-dma-pool",
        FROM_OF + "0x58000000..0x583fffff (4096 KiB) nomap non-reusable b",
    ]
    assert [(region.name, region.kind, region.failed) for region in machine.reserved_mem] == [
        ("a", "", True),
        ("b", "dma", False),
    ]
    assert machine.boot_events == [
        BootEvent("/reserved-memory/a", "not-reusable", "refused", "reusable"),
        BootEvent("/reserved-memory/b", "not-reusable", "moved", "reusable"),
    ]
    config = ("DMA_RESTRICTED_POOL=y",)
    for more in ("", "reusable;", "linux,cma-default;", "linux,dma-default;", "no-map;"):
        text = node("r", f'compatible = "restricted-dma-pool"; {more} {reg(0x60000000, 4 * M)}')
        machine = boot(tree_of(text), "6.12", "cma=0", config=config)
        assert [region.kind for region in machine.reserved_mem] == ["" if more else "restricted"]
        assert lines_with(machine, "eserved mem")[0] == (
            FROM_OF + "node r compatible matching fail"
            if more
            else "software IO TLB: Reserved memory: created restricted DMA pool at 0x0000000060000000, "
            "size 4 MiB"
        )


@pytest.mark.parametrize(
    ("start", "end", "base"),
    [
        (0x52000000, 0x60000000, "low"),  # begins where the region ends
        (0x52000001, 0x60000000, "high"),
        (0x51000000, 0x60000000, "low"),
        (0x50000000, 0x60000000, "low"),
        (0x4FFFFFFF, 0x60000000, "high"),
        (0x48000000, 0x50000000, "high"),  # ends where it begins
        (0x4E000000, 0x52000000, "high"),  # ends where it ends
        (0x50000000, 0x52000000, None),
    ],
)
def test_towards_a_region_that_one_end_touches(start: int, end: int, base: str | None) -> None:
    """drivers/of/of_reserved_mem.c:__reserved_mem_alloc_in_range()@v6.6"""
    ranges = f"alloc-ranges = <0 {start:#x} 0 {end - start:#x}>;"
    tree = tree_of(
        node("r@50000000", f"{POOL} {reg(0x50000000, 32 * M)}")
        + node("s@70000000", f"{POOL} {reg(0x70000000, 4 * M)}")  # touched by neither
        + node("d", f"{POOL} size = <0 0x1000000>; {ranges}")
    )
    found = {name: place for name, place, _ in areas(boot(tree, "6.6", "cma=0"))}
    low = max(-(-start // (2 * M)) * 2 * M, 0x52000000)
    high = (end if end <= 0x50000000 or end > 0x52000000 else 0x50000000) // (2 * M) * 2 * M - 16 * M
    assert found.get("d") == {"low": low, "high": high, None: None}[base]


@pytest.mark.parametrize(
    ("end", "base"),
    [
        (0x6FFFFFFF, 0x52000000),
        (0x70000000, 0x6F000000),
        (0x70200000, 0x6F000000),
        (0x70400000, 0x6F000000),
        (0x70400001, 0x52000000),
    ],
)
def test_a_range_whose_ends_both_touch_a_region_is_filled_from_above(end: int, base: int) -> None:
    """drivers/of/of_reserved_mem.c:__reserved_mem_alloc_in_range()@v6.6"""
    tree = tree_of(
        node("r@50000000", f"{POOL} {reg(0x50000000, 32 * M)}")
        + node("s@70000000", f"{POOL} {reg(0x70000000, 4 * M)}")
        + node("d", f"{POOL} size = <0 0x1000000>; alloc-ranges = <0 0x52000000 0 {end - 0x52000000:#x}>;")
    )
    assert ("d", base, 16 * M) in areas(boot(tree, "6.6", "cma=0"))


@pytest.mark.parametrize(
    ("kernel", "found"), [("5.10", False), ("5.15", False), ("6.1", True), ("6.12", True)]
)
def test_a_parent_with_a_unit_address(kernel: str, found: bool) -> None:
    """scripts/dtc/libfdt/fdt_ro.c:fdt_path_offset()@v6.1 passes over it; of_scan_flat_dt() compared names."""
    tree = tree_of(node("p", f"{POOL} {reg(0x60000000, 4 * M)}"))
    tree.root.children["reserved-memory@0"] = parent = tree.root.children.pop("reserved-memory")
    parent.name = "reserved-memory@0"
    assert [name for name, _, _ in areas(boot(tree, kernel, "cma=0"))] == ["p"] * found
    tree.root.children["reserved-memory-0"] = tree.root.children.pop("reserved-memory@0")
    parent.name = "reserved-memory-0"
    assert areas(boot(tree, kernel, "cma=0")) == []


@examples(150)
@given(
    nodes=st.lists(NODES, max_size=6),
    kernel=st.sampled_from(list(RELEASES)),
    arch=st.sampled_from(["arm64", "arm", "x86_64"]),
    cmdline=st.sampled_from(["", "cma=16M", "cma=0", "cma=64M@0x60000000", "hugetlb_cma=1G", "cma"]),
)
def test_any_tree_has_a_verdict(nodes, kernel: str, arch: str, cmdline: str) -> None:
    """Every pool wanted is an area, or an event says why not; nothing else is raised than a verdict."""
    tree = tree_of("x { };")
    parent = tree.root.children["reserved-memory"]
    parent.children.clear()
    for number, props in enumerate(nodes):
        child = DeviceNode(f"n{number}")
        child.props.update(props)
        parent.append(child)
    try:
        machine = boot(tree, kernel, cmdline, arch)
    except (KernelPanic, DtError):
        return
    made = {region.node.path for region in machine.reserved_mem if region.area}
    said = {event.node for event in machine.boot_events}
    assert {child.path for child in parent.children.values()} <= made | said
