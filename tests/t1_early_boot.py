"""Steps of an early boot, each alone: page tables, what a loader puts where, NUMA nodes, what each takes.

Modules: cmafs.arch.arm64, cmafs.arch.numa, cmafs.arch.x86, cmafs.arch.x86_mapping, cmafs.arch.zones.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from boot_support import arm_tree, boot, parse_dts, tree_of
from hypothesis import given
from hypothesis import strategies as st
from soak_support import examples

from cmafs.arch import arm, arm64, numa, x86, x86_mapping, zones
from cmafs.arch.setup import EarlyBoot
from cmafs.init.journal import Journal
from cmafs.init.main import _early_setup
from cmafs.init.options import MachineOptions
from cmafs.lib.clock import ManualClock
from cmafs.of.base import DeviceTree

K, M, G, T = 1 << 10, 1 << 20, 1 << 30, 1 << 40
PAGE = 4 * K
Span = tuple[int, int]


def reg(*spans: Span) -> str:
    """(base, size) pairs of two cells each."""
    return f"<{' '.join(f'{n >> 32:#x} {n & 0xFFFFFFFF:#x}' for span in spans for n in span)}>"


def early(
    tree: DeviceTree,
    kernel: str = "6.12",
    cmdline: str = "",
    arch: str = "arm64",
    config: tuple[str, ...] = (),
) -> EarlyBoot:
    """A boot that knows its memory and has reserved nothing."""
    options = MachineOptions(kernel=kernel, arch=arch, cmdline=cmdline, config=("tiny", *config))
    return _early_setup(tree, options, Journal(ManualClock()))


def reserved(boot: EarlyBoot) -> list[Span]:
    return [(region.base, region.end) for region in boot.memblock.reserved]


def pages_taken(boot: EarlyBoot) -> int:
    return sum(end - base for base, end in reserved(boot)) // boot.page_size


# arm64


@pytest.mark.parametrize(
    ("kernel", "rodata", "config", "pages"),
    [
        ("6.12", "", (), False),
        ("6.12", "", ("RODATA_FULL_DEFAULT_ENABLED=y",), True),
        ("6.12", "full", (), True),
        ("6.12", "on", ("RODATA_FULL_DEFAULT_ENABLED=y",), False),
        ("6.12", "off", ("RODATA_FULL_DEFAULT_ENABLED=y",), False),
        ("6.12", "noalias", ("RODATA_FULL_DEFAULT_ENABLED=y",), True),  # no word of this kernel
        ("6.12", "on full", (), True),
        ("6.12", "full on", (), False),
        ("7.2", "", (), True),
        ("7.2", "on", (), True),
        ("7.2", "off", (), False),
        ("7.2", "noalias", (), False),
        ("7.2", "off full", (), False),
        ("7.2", "noalias on", (), True),
    ],
)
def test_whether_the_linear_map_is_in_pages(
    kernel: str, rodata: str, config: tuple[str, ...], pages: bool
) -> None:
    """arch/arm64/include/asm/setup.h:arch_parse_debug_rodata()@v6.12, 7.2"""
    cmdline = " ".join(f"rodata={word}" for word in rodata.split())
    assert arm64.maps_pages(early(tree_of(), kernel, cmdline, config=config)) is pages


@pytest.mark.parametrize(
    ("memory", "blocks", "tables"),
    [
        (((G, G),), 0, 512 + 1),
        (((G, G // 2),), 0, 256 + 1),  # the one table of the image's GiB is counted with the image
        (((G, 3 * G // 2),), 1, 768 + 2),
        (((G + 2 * M, 3 * G),), 1, 1536 + 4),
        (((G, G // 2), (3 * G, G)), 0, 256 + 512 + 2),
        (((G, G), (3 * G, G // 2)), 1, 512 + 256 + 2),
        (((G, G // 2), (3 * G // 2, 2 * G)), 1, 256 + 1024 + 3),
        (((G, 2 * M), (3 * G, M)), 1, 1 + 1 + 2),
        (((G, 2 * M + PAGE),), 0, 2 + 1),
        (((2 * G - 2 * M, 4 * M),), 1, 2 + 2),
        (((G // 2, 3 * G // 2 + M),), 1, 768 + 1 + 3),
    ],
)
def test_page_tables_of_arm64(memory: tuple[Span, ...], blocks: int, tables: int) -> None:
    """arch/arm64/mm/mmu.c:init_pmd(), alloc_init_pud()@v6.12: a GiB that memory fills is one block, of
    another each 2 MiB; in pages each 2 MiB has a table, and each GiB one of those.
    """
    tree = tree_of(memory=reg(*memory))
    for kernel, cmdline in (("6.12", ""), ("7.2", "rodata=off")):
        boot = early(tree, kernel, cmdline)
        arm64.paging_init(boot)
        assert pages_taken(boot) == boot.data.page_tables + blocks
    for kernel, cmdline in (("5.10", "rodata=full"), ("6.12", "rodata=full"), ("7.2", "")):
        boot = early(tree, kernel, cmdline, config=("CPU_LPA2=n",))
        arm64.paging_init(boot)
        # of the image, which stands at 0 here, one piece of 2 MiB is code and read-only data: a block
        assert pages_taken(boot) == boot.data.page_tables_full + tables - boot.data.maps_image_apart
        assert reserved(boot)[-1][1] == boot.memblock.end_of_dram()


@pytest.mark.parametrize(("pages", "tables"), [("16K", 32 + 1), ("64K", 2 + 1)])
def test_page_tables_of_larger_pages(pages: str, tables: int) -> None:
    """A table has as many entries as its page has room for, of 8 bytes; no blocks of a GiB."""
    config = (f"ARM64_{pages}_PAGES=y", "CPU_LPA2=n")
    boot = early(tree_of(), cmdline="rodata=full", config=config)
    arm64.paging_init(boot)
    assert pages_taken(boot) == boot.data.page_tables_full + tables
    boot = early(tree_of(memory=reg((G, 3 * G // 2))), config=config)
    arm64.paging_init(boot)
    assert pages_taken(boot) == boot.data.page_tables


def test_no_map_memory_needs_no_tables() -> None:
    boot = early(tree_of(), "7.2", config=("CPU_LPA2=n",))
    boot.memblock.mark_nomap(0x50000000, 4 * M)
    arm64.paging_init(boot)
    assert pages_taken(boot) == boot.data.page_tables_full + 512 - 2 + 1 - 1
    boot = early(tree_of(), "6.12")
    boot.memblock.mark_nomap(0x50000000, 4 * M)
    arm64.paging_init(boot)
    assert pages_taken(boot) == boot.data.page_tables


@pytest.mark.parametrize("ram", [G, G + 2 * M, 0x48000000, 2 * G])
def test_where_the_linear_map_begins(ram: int) -> None:
    """PAGE_OFFSET of 48 bits at memstart_addr, which is whole GiB (arch/arm64/mm/init.c@v6.12);
    __PAGE_OFFSET_BASE_L4 (arch/x86/include/asm/page_64_types.h@v6.12); VMSPLIT_3G.
    """
    memory = reg((ram, 256 * M))
    assert arm64.linear_offset(early(tree_of(memory=memory))) == 0xFFFF000000000000 - ram // G * G
    assert x86.reserve(early(tree_of(memory=memory), arch="x86_64")) == 0xFFFF888000000000
    machine = early(arm_tree(memory=f"{ram:#x} {256 * M:#x}"), arch="arm", config=("HIGHMEM=y",))
    assert arm.reserve(machine) == 0xC0000000 - ram


IMAGE = 0x5E0000  # of 6.12, to whose end a loader reserves


def loaded(head: str = "", nodes: str = "", ram: Span = (G, G), root: str = "acme,board") -> list[Span]:
    tree = tree_of(nodes, reg(ram), head)
    tree.root.props["compatible"] = root.encode() + b"\0"
    boot = early(tree)
    arm64.load(boot)
    return [(boot.kernel_start, boot.kernel_start + IMAGE), *reserved(boot)]


@pytest.mark.parametrize(
    ("base", "size", "image"),
    [
        (0x40200000, 0, 0x40200000),
        (0x401FF000, PAGE, 0x40200000),
        (0x401FF000, PAGE + 1, 0x40400000),
        (0x40200000 + IMAGE, PAGE, 0x40200000),
        (0x40200000 + IMAGE - 1, 1, 0x40800000),
        (0x40200000, M, 0x40400000),
        (0x40400000, 2 * M, 0x40600000),
    ],
)
def test_a_loader_steps_over_what_the_tree_keeps(base: int, size: int, image: int) -> None:
    """Documentation/arch/arm64/booting.rst: at a multiple of 2 MiB, where nothing else is."""
    for head, nodes in (
        (f"/memreserve/ {base:#x} {size:#x};", ""),
        ("", f"p {{ reg = {reg((base, size))}; }};"),
    ):
        assert loaded(head, nodes)[0] == (image, image + IMAGE)
        assert loaded(head, nodes, root="linux,dummy-virt")[0][0] == 0x40200000  # QEMU's does not look


def test_what_a_loader_puts_behind_the_image() -> None:
    """The initramfs at half of memory or behind the image, at most 128 MiB in; then the tree, at 2 MiB."""
    initrd = 0x1A6000
    assert loaded()[1:] == [
        (0x40200000, 0x40200000 + IMAGE),
        (0x48000000, 0x48000000 + initrd),
        (0x48200000, 0x48209000),
    ]
    small = loaded(ram=(G, 14 * M))
    assert small[1:] == [
        (0x40200000, 0x40200000 + IMAGE),
        (0x40800000, 0x40800000 + initrd),
        (0x40A00000, 0x40A09000),
    ]
    kept = f"/memreserve/ {0x48000000 + 0x209000 - 1:#x} 1;"
    assert loaded(kept)[2:4] == [(0x48400000, 0x48400000 + initrd), (0x48600000, 0x48609000)]
    assert loaded(f"/memreserve/ {0x48000000 + 0x209000:#x} 1;")[2][0] == 0x48000000


@pytest.mark.parametrize("arch", ["arm", "arm64"])
def test_mem_cuts_off_what_the_loader_had(arch: str) -> None:
    """The image is in memory when the kernel reads its command line, and stays where it is."""
    tree = arm_tree() if arch == "arm" else tree_of()
    machine = boot(tree, "6.12", "cma=0 mem=4M", arch)
    assert machine.memblock.phys_mem_size() == 4 * M


def test_a_tree_takes_its_size() -> None:
    tree = tree_of()
    tree.blob = bytes(0x9001)
    boot = early(tree)
    arm64.load(boot)
    assert reserved(boot)[-1] == (0x48200000, 0x48209001)


@pytest.mark.parametrize(
    ("kernel", "ram", "dma", "last", "ends"),
    [
        ("5.4", (G, 4 * G), (0, G), 0xFFFFFFFF, (4 * G, 4 * G)),  # no dma-ranges before 5.5
        ("5.4", (5 * G, 4 * G), None, 0xFFFFFFFF, (8 * G, 8 * G)),  # 4 GiB from where memory's own began
        ("5.10", (G, 4 * G), None, 0xFFFFFFFF, (4 * G, 4 * G)),
        ("5.10", (G, 4 * G), (0, G), 0x3FFFFFFF, (4 * G, 4 * G)),  # memory begins above it
        ("5.10", (G, 4 * G), (G, G), 0x7FFFFFFF, (2 * G, 4 * G)),
        ("5.10", (G, 4 * G), (G, 0x30000000), 0x7FFFFFFF, (2 * G, 4 * G)),  # a power of two
        ("5.10", (0x3FFFF000, 2 * G), (0, G), 0x3FFFFFFF, (G, 0xBFFFF000)),
        ("5.10", (5 * G, G), (G, G), 0x7FFFFFFF, (6 * G, 6 * G)),
        ("6.12", (G, 4 * G), None, 0xFFFFFFFF, (4 * G, 4 * G)),
        ("6.12", (G, 4 * G), (0, G), 0x3FFFFFFF, (G, 4 * G)),
        ("6.12", (G, 4 * G), (G, 0x30000000), 0x6FFFFFFF, (0x70000000, 4 * G)),
        ("6.12", (G, G // 2), None, 0xFFFFFFFF, (0x60000000, 0x60000000)),
        ("6.12", (5 * G, G), None, (1 << 64) - 1, (6 * G, 4 * G)),
        ("6.12", (4 * G - PAGE, G), None, 0xFFFFFFFF, (4 * G, 4 * G)),
        ("6.12", (4 * G, G), None, (1 << 64) - 1, (5 * G, 4 * G)),
    ],
)
def test_where_zones_of_arm64_end(kernel: str, ram: Span, dma: Span | None, last: int, ends: Span) -> None:
    """arch/arm64/mm/init.c:zone_sizes_init(), max_zone_phys()@v5.10, v6.12"""
    bus = "soc {{ #address-cells = <1>; #size-cells = <1>; dma-ranges = <0 0 {:#x} {:#x}>; }};"
    tree = parse_dts(
        "/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; memory@0 {"
        f' device_type = "memory"; reg = {reg(ram)}; }}; {bus.format(*dma) if dma else ""} }};'
    )
    boot = early(tree, kernel, config=("ZONE_DMA=y", "ZONE_DMA32=y"))
    assert (arm64.zone_dma_limit(boot), tuple(arm64.zone_limits(boot).values())) == (last, ends)
    assert arm64.dma_phys_limit(boot) == ends[0]
    boot = early(tree, kernel, config=("ZONE_DMA=n", "ZONE_DMA32=y"))
    assert arm64.dma_phys_limit(boot) == ends[1]
    boot = early(tree, kernel, config=("ZONE_DMA=n", "ZONE_DMA32=n"))
    assert arm64.dma_phys_limit(boot) == 1 << 48


@examples(60)
@given(
    st.lists(st.integers(1, 1200), min_size=2, max_size=8, unique=True).map(sorted),
    st.sampled_from([M, 5 * M + PAGE, 16 * M]),
    st.one_of(st.integers(1, 1 << 21), st.integers(0, 3)),
    st.integers(0, 1),
)
def test_the_kernel_s_share_is_the_lowest_memory(edges: list[int], unit: int, share: int, dma32: int) -> None:
    """mm/mm_init.c:find_zone_movable_pfns_for_nodes()@v6.12: of a node, besides all below its highest zone;
    ZONE_MOVABLE begins at a block of 4 MiB.
    """
    places = [edge * unit // PAGE for edge in edges]
    banks = [(low, high) for low, high in list(pairwise(places))[::2]]
    total = sum(high - low for low, high in banks)
    if share < 4:  # whole banks
        share = sum(high - low for low, high in banks[:share])
    tree = tree_of(memory=reg(*((low * PAGE, (high - low) * PAGE) for low, high in banks)))
    config = ("NUMA=y", "ZONE_DMA=n", f"ZONE_DMA32={'ny'[dma32]}")
    found = zones.movable_starts(early(tree, cmdline=f"kernelcore={share * PAGE}", config=config))
    border = 4 * G // PAGE
    usable = border if dma32 and banks[-1][1] > border else 0
    if sum(min(high, usable) - min(low, usable) for low, high in banks) >= share:
        begins = next(max(low, usable) for low, high in banks if high > usable)
    else:
        left, begins = share, 0
        for low, high in banks:
            if left:
                begins = min(high, low + left)
                left = max(left - (high - low), 0)
    begins = -(-begins // 1024) * 1024
    assert found == ({0: begins} if 0 < share < total and begins < banks[-1][1] else {})


@pytest.mark.parametrize(
    ("arch", "config", "end"),
    [
        ("arm", (), 4 * G - 1),  # PHYS_ADDR_MAX: the last byte cannot be the end of a range
        ("arm", ("ARM_LPAE=y",), 8 * G),
        ("arm64", (), 8 * G),
    ],
)
def test_memory_that_can_be_addressed(arch: str, config: tuple[str, ...], end: int) -> None:
    """drivers/of/fdt.c:early_init_dt_add_memory_arch(), mm/memblock.c:memblock_cap_size()@v6.12"""
    boot = early(tree_of(memory=reg((G, 7 * G))), arch=arch, config=config)
    assert [(region.base, region.end) for region in boot.memblock.memory] == [(G, end)]
    if arch == "arm64":
        boot = early(tree_of(memory=reg(((1 << 48) - G, 2 * G))))
        assert boot.memblock.end_of_dram() == 1 << 48


@pytest.mark.parametrize(
    ("base", "found", "limit"),
    [
        (0x40000000, [(0x40000000, False)], 0x58000000),  # up to the next bank, which begins in a PMD
        (0x40001000, [(0x40001000, True), (0x40200000, False)], 0x50000000),
        (0x401FF000, [(0x401FF000, True), (0x40200000, False)], 0x50000000),
    ],
)
def test_the_first_pmd_of_low_memory_is_whole(base: int, found: list[tuple[int, bool]], limit: int) -> None:
    """arch/arm/mm/mmu.c:adjust_lowmem_bounds()@v6.12: what is before it is marked no-map."""
    tree = arm_tree(memory=f"{base:#x} 0x10000000 0x58100000 0x1000000")
    boot = early(tree, arch="arm", config=("HIGHMEM=y",))
    boot.phys_offset, boot.vmalloc_size = base, 240 * M
    arm.adjust_lowmem_bounds(boot)
    memory = [(region.base, region.nomap) for region in boot.memblock.memory]
    assert memory == [*found, (0x58100000, False)]
    assert (boot.high_memory, boot.memblock.current_limit) == (0x59100000, limit)


# NUMA


def numa_lines(kernel: str, cmdline: str = "", described: bool = False, config: str = "NUMA=y") -> list[str]:
    nid = "numa-node-id = <0>;" if described else ""
    tree = parse_dts(
        "/dts-v1/; / { #address-cells = <1>; #size-cells = <1>; memory@40000000 {"
        f' device_type = "memory"; reg = <0x40000000 0x30001000>; {nid} }}; }};'
    )
    boot = early(tree, kernel, cmdline, config=(config,))
    numa.numa_init(boot)
    taken = sum(region.size for region in boot.memblock.reserved)
    assert taken == (boot.data.pgdat_bytes if config == "NUMA=y" else 0)
    return boot.log.lines()


FAKING = "NUMA: Faking a node at [mem 0x0000000040000000-0x0000000070000fff]"
NONE_FOUND = "NUMA: No NUMA configuration found"


@pytest.mark.parametrize(
    ("kernel", "cmdline", "described", "lines"),
    [
        ("6.1", "", False, [NONE_FOUND, FAKING]),
        ("6.12", "", False, [FAKING]),
        ("6.1", "", True, []),
        ("6.12", "", True, []),
        ("6.1", "numa=off", False, ["NUMA: NUMA disabled", FAKING]),
        ("6.12", "numa=off", True, ["NUMA: NUMA disabled", FAKING]),
        ("6.12", "numa=offline", False, [FAKING]),
    ],
)
def test_which_nodes_there_are(kernel: str, cmdline: str, described: bool, lines: list[str]) -> None:
    """drivers/base/arch_numa.c:arch_numa_init(), dummy_numa_init()@v6.12"""
    assert numa_lines(kernel, cmdline, described) == lines
    assert numa_lines(kernel, cmdline, described, "NUMA=n") == []


def faked(arch: str, value: str, *memory: Span) -> list[tuple[int, int, int]]:
    """(node, start, end) in MiB with ``numa=fake=<value>``; memory in MiB."""
    tree = tree_of(memory=reg(*((base * M, size * M) for base, size in memory)))
    boot = early(tree, "6.12", f"numa=fake={value}", arch, ("NUMA=y", "NUMA_EMU=y"))
    (x86.reserve if arch == "x86_64" else numa.numa_init)(boot)
    found = [line.split() for line in boot.log.lines() if line.startswith("Faking node ")]
    spans = [(int(words[2]), *(int(n, 16) for n in words[5].strip("]").split("-"))) for words in found]
    assert all(
        words[6] == f"({end + 1 - start >> 20}MB)"
        for words, (_, start, end) in zip(found, spans, strict=True)
    )
    of_memory = {region.nid for region in boot.memblock.memory}
    assert of_memory <= {nid for nid, _, _ in spans} or not spans
    return [(nid, start >> 20, end + 1 >> 20) for nid, start, end in spans]


@pytest.mark.parametrize(
    ("arch", "value", "memory", "edges"),
    [
        # 32 MiB below 4 GiB are left for a node that goes on above; 31 MiB are not
        ("x86_64", "1G", ((1, 2080), (4096, 2048)), [1, 1025, 2049, 5089, 6144]),
        ("x86_64", "1G", ((1, 2079), (4096, 2048)), [1, 1025, 4096, 5120, 6144]),
        ("x86_64", "4", ((1, 2080), (4096, 2048)), [1, 1057, 4096, 5120, 6144]),
        ("x86_64", "4", ((1, 2079), (4096, 2048)), [1, 1025, 4096, 5120, 6144]),
        # of arm64 that is 4 GiB above the start of memory
        ("arm64", "1G", ((1024, 1024), (5088, 2048)), [1024, 2048, 6112, 7136]),
        ("arm64", "1G", ((1024, 1024), (5089, 2048)), [1024, 5120, 7137]),
        # what is too little for another node is the last one's
        ("arm64", "1G", ((1024, 3071),), [1024, 2048, 4095]),
        ("arm64", "1G", ((1024, 3072),), [1024, 2048, 3072, 4096]),
        ("arm64", "1000M", ((1024, 2000),), [1024, 2016, 3024]),
        # the first nodes have 32 MiB more
        ("arm64", "3", ((1024, 1024),), [1024, 1376, 1696, 2048]),
        ("arm64", "3", ((1024, 1056),), [1024, 1376, 1728, 2080]),
        ("arm64", "0x4", ((1024, 1088),), [1024, 1312, 1600, 1856, 2112]),
        ("arm64", "2", ((1024, 63),), []),
        ("arm64", "2", ((1024, 64),), [1024, 1056, 1088]),
        ("arm64", "1", ((1024, 64),), [1024, 1088]),
        ("arm64", "32M", ((1024, 512),), list(range(1024, 1537, 32))),
        ("arm64", "32M", ((1024, 513),), [*range(1024, 1473, 64), 1537]),
        ("arm64", "2U", ((1024, 64),), [1024, 1056, 1088]),
        ("arm64", "2U", ((1024, 1024), (4096, 1024)), [1024, 3072, 5120]),
        ("arm64", "", ((1024, 64),), []),
    ],
)
def test_faked_nodes_to_the_mib(arch: str, value: str, memory: tuple[Span, ...], edges: list[int]) -> None:
    """mm/numa_emulation.c:split_nodes_interleave(), split_nodes_size_interleave_uniform()@v6.12"""
    assert faked(arch, value, *memory) == [(nid, *span) for nid, span in enumerate(pairwise(edges))]


def test_a_node_of_several_banks_is_split_bank_by_bank() -> None:
    """emu_find_memblk_by_nid(): the first block of a node that is left."""
    nodes = "".join(
        f'memory@{base:x} {{ device_type = "memory"; numa-node-id = <0>; reg = {reg((base, G))}; }};'
        for base in (G, 6 * G)
    )
    tree = parse_dts(f"/dts-v1/; / {{ #address-cells = <2>; #size-cells = <2>; {nodes} }};")
    boot = early(tree, "6.12", "numa=fake=512M", config=("NUMA=y", "NUMA_EMU=y"))
    numa.numa_init(boot)
    starts = [int(line.split("0x")[1].split("-")[0], 16) for line in boot.log.lines()]
    assert starts == [G, 3 * G // 2, 6 * G, 13 * G // 2]


def test_nodes_are_faked_of_each_node_of_the_tree_in_turn() -> None:
    """for_each_node_mask(): a block of each, as long as one is left."""
    nodes = "".join(
        f'memory@{base:x} {{ device_type = "memory"; numa-node-id = <{nid}>; reg = {reg((base, size))}; }};'
        for nid, base, size in ((0, G, G), (1, 2 * G, G // 2))
    )
    tree = parse_dts(f"/dts-v1/; / {{ #address-cells = <2>; #size-cells = <2>; {nodes} }};")
    boot = early(tree, "6.12", "numa=fake=512M", config=("NUMA=y", "NUMA_EMU=y"))
    numa.numa_init(boot)
    node = "Faking node {} at [mem {:#018x}-{:#018x}] (512MB)"
    assert boot.log.lines() == [
        node.format(0, G, 3 * G // 2 - 1),
        node.format(1, 2 * G, 5 * G // 2 - 1),
        node.format(2, 3 * G // 2, 2 * G - 1),
    ]
    assert [(region.base, region.nid) for region in boot.memblock.memory] == [
        (G, 0),
        (3 * G // 2, 2),
        (2 * G, 1),
    ]
    assert pages_taken(boot) * PAGE + PAGE > 3 * boot.data.pgdat_bytes >= pages_taken(boot) * PAGE


# zones


def test_pieces_of_a_node_that_are_no_page() -> None:
    """include/linux/memblock.h:for_each_mem_pfn_range()@v6.12 passes them over."""
    boot = early(tree_of(memory=reg((G, 16 * PAGE))))
    boot.memblock.mark_nomap(G, 0x400)
    boot.memblock.mark_nomap(G + 15 * PAGE, 0x400)
    assert [(zone.start_pfn, zone.end_pfn) for zone in zones.node_zones(boot)] == [
        (G // PAGE + 1, G // PAGE + 15)
    ]
    zones.free_area_init(boot)
    assert boot.log.lines()[-1] == "Initmem setup node 0 [mem 0x0000000040001000-0x000000004000efff]"
    assert [line for line in boot.log.lines() if line.startswith("  node ")] == [
        "  node   0: [mem 0x0000000040001000-0x000000004000efff]"
    ]


@pytest.mark.parametrize(
    ("arch", "kernel", "plain", "with_memcg"),
    [
        ("arm64", "5.10", 56, 64),
        ("x86_64", "6.1", 56, 64),
        ("arm64", "6.12", 64, 64),
        ("arm", "6.12", 32, 36),
    ],
)
def test_how_large_the_struct_of_a_page_is(arch: str, kernel: str, plain: int, with_memcg: int) -> None:
    """include/linux/mm_types.h@v5.10, v6.12: a pointer more, in whole words of a cmpxchg_double()."""
    found = [early(tree_of(), kernel, "", arch, (f"MEMCG={yn}",)).struct_page_bytes for yn in "ny"]
    assert found == [plain, with_memcg]


@pytest.mark.parametrize(("spanned", "pages"), [(17408, 272), (17409, 256), (16384, 256), (17344, 271)])
def test_the_memmap_of_a_zone_with_holes(spanned: int, pages: int) -> None:
    """mm/mm_init.c:calc_memmap_size()@v6.12: of what is there, if more than a sixteenth of that is holes."""
    assert zones._memmap_pages(early(tree_of()), spanned, 16384) == pages  # 64 bytes for a page


# x86_64


@pytest.mark.parametrize(
    ("kept", "moved"),
    [
        ((0x100000, PAGE), True),
        ((0xFF000, PAGE), False),  # the BIOS
        ((0x100800, PAGE), False),  # not whole pages
        ((0x100000, 0x800), False),
        ((0x200000, PAGE), False),  # memory
        ((0x1FF000, 2 * PAGE), True),  # only in part
        ((0x40000000, M), True),
    ],
)
def test_an_initramfs_whose_memory_was_taken_moves_to_the_top(kept: Span, moved: bool) -> None:
    """arch/x86/kernel/setup.c:reserve_initrd(), relocate_initrd()@v6.12"""
    tree = tree_of(memory=reg((2 * M, G - 2 * M)), head=f"/memreserve/ {kept[0]:#x} {kept[1]:#x};")
    boot = early(tree, arch="x86_64", config=("RANDOMIZE_BASE=n",))
    x86.reserve(boot)
    assert reserved(boot) == [(G - kept[1], G) if moved else (kept[0], kept[0] + kept[1])]


def mapping(memory: tuple[Span, ...], buffer: int, image: int = 16 * M, kaslr: str = "n") -> EarlyBoot:
    """Its linear map is made; ``buffer``: pages that the image has for tables."""
    tree = tree_of(memory=reg(*memory))
    boot = early(tree, "7.2", arch="x86_64", config=(f"RANDOMIZE_BASE={kaslr}",))
    boot.data = replace(boot.data, page_tables=buffer)
    x86_mapping.init_mem_mapping(boot, image)
    return boot


def tables_of(memory: list[Span]) -> int:
    """How many there are by the last rule of all: a table for each piece that one entry cannot map."""

    def whole(base: int, size: int) -> bool:
        return any(start <= base and base + size <= end for start, end in memory)

    used = [(0, M), *memory]
    tables = 0
    for shift, size in ((21, 2 * M), (30, G), (39, 512 * G), (48, 256 * T)):
        pieces = {n for start, end in used for n in range(start >> shift, (end - 1 >> shift) + 1)}
        tables += sum(shift > 30 or not whole(n << shift, size) for n in pieces)
    return tables


@examples(40)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=8, unique=True).map(sorted),
    st.lists(st.sampled_from([0, 0, PAGE, M, 2 * M - PAGE, 512 * M, 3 * G]), min_size=8, max_size=8),
    st.sampled_from([2 * M, 64 * M, G // 2, G]),
)
def test_x86_has_a_table_for_each_piece_that_one_entry_cannot_map(
    edges: list[int], odd: list[int], unit: int
) -> None:
    """arch/x86/mm/init.c:split_mem_range(), adjust_range_page_size_mask()@v6.12"""
    places = sorted({edge * unit + more for edge, more in zip(edges, odd, strict=False)})
    memory = [(low, high) for low, high in list(pairwise(places))[::2]]
    if not memory:
        return
    tree = tree_of(memory=reg(*((low, high - low) for low, high in memory)))
    boot = early(tree, "7.2", arch="x86_64", config=("RANDOMIZE_BASE=n",))
    tables = x86_mapping._Tables(boot, 1 << 50)
    tables.left = 1 << 20
    tables.map(0, M)
    x86_mapping._memory_map_top_down(boot, tables)
    assert (1 << 20) - tables.left == tables_of(memory)
    assert reserved(boot) == []


#: Seven tables: four for the first MiB, two at the odd end of the lower range, one for the upper range.
TWO_ENDS = ((M, 60 * M), (3 * G, M))
#: Four for the first MiB, two at the odd end of the lower range.
HIGH = ((M, 3 * G - M - 128 * K), (4 * G, G))


@pytest.mark.parametrize(
    ("memory", "buffer", "image", "found"),
    [
        (TWO_ENDS, 7, 16 * M, []),
        (TWO_ENDS, 6, 16 * M, [(0x3CFF000, 0x3D00000)]),
        (TWO_ENDS, 5, 16 * M, [(0x3CFE000, 0x3D00000)]),
        (TWO_ENDS, 4, 16 * M, [(0x3BFF000, 0x3C00000), (0x3CFE000, 0x3D00000)]),  # the first whole 2 MiB
        (HIGH, 6, 8 * G, []),
        (HIGH, 5, 8 * G, [(5 * G - PAGE, 5 * G)]),
        (HIGH, 4, 8 * G, [(5 * G - 2 * PAGE, 5 * G)]),
        (HIGH, 9, 16 * M, [(5 * G - 2 * PAGE, 5 * G)]),  # not from the buffer for the range it lies in
        (HIGH, 9, 3 * G - M, [(5 * G - 2 * PAGE, 5 * G)]),
        (HIGH, 9, 3 * G, []),
        (((G + M, 59 * M),), 9, G + 57 * M, [(G + 60 * M - PAGE, G + 60 * M)]),  # in the second step
        (((G + M, 59 * M),), 9, G + 58 * M, []),  # in the first, of 2 MiB
        (((M, G - M),), 0, 16 * M, []),  # nothing is mapped yet that could hold the first four
        (((M, G - M - PAGE),), 4, 16 * M, [(0x3FDFF000, 0x3FE00000)]),
        (((2 * M, M), (3 * G, M + PAGE)), 4, 16 * M, [(0x2FE000, 0x300000)]),  # no 2 MiB: the top comes last
    ],
)
def test_where_tables_of_x86_stand(
    memory: tuple[Span, ...], buffer: int, image: int, found: list[Span]
) -> None:
    """arch/x86/mm/init.c:alloc_low_pages(), memory_map_top_down()@v6.12: from the buffer behind the image,
    then from the top of what is mapped.
    """
    assert reserved(mapping(memory, buffer, image)) == found


def test_a_random_base_takes_two_tables_of_twice_as_many() -> None:
    """INIT_PGD_PAGE_COUNT, init_trampoline_kaslr()@v6.12"""
    assert reserved(mapping(((M, G - M - PAGE),), 3, kaslr="y")) == [(0x3FDFF000, 0x3FE00000)]
    assert reserved(mapping(TWO_ENDS, 4, kaslr="y")) == [(0x3CFF000, 0x3D00000)]
    assert reserved(mapping(TWO_ENDS, 5, kaslr="y")) == []
