"""What architectures take at boot before the page allocator runs, and what /proc/iomem has of it.

Modules: cmafs.arch.boot_alloc, cmafs.arch.iomem, cmafs.arch.numa, cmafs.arch.setup, cmafs.arch.zones.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from boot_support import areas, arm_tree, boot, cells, lines_with, parse_dts, tree_of

from cmafs.arch.boot_alloc import allocated_kib, large_system_hash_bytes
from cmafs.init.machine import BootedMachine
from cmafs.lib.intervals import union

K, M, G = 1 << 10, 1 << 20, 1 << 30
X86 = (
    "/dts-v1/; /memreserve/ 0x1000000 0xc00000; / { #address-cells = <2>; #size-cells = <2>; "
    'memory@0 { device_type = "memory"; reg = <0 0 0 0x40000000>; }; };'
)


@pytest.mark.parametrize(
    ("memory", "scale", "shift", "size"),
    [
        (G, 13, 12, M),  # the recorded guests: 131072 buckets of 8 bytes
        (G, 14, 12, 512 * K),
        (G + K * 4, 13, 12, 2 * M),  # rounded up to a MiB, then to a power of two
        (64 * G, 13, 12, 64 * M),
        (64 * G + M, 13, 12, 64 * M),  # above 64 GiB a bucket for twice as much, and again at 256 GiB
        (128 * G, 13, 12, 64 * M),
        (256 * G, 13, 12, 128 * M),
        (257 * G, 13, 12, 128 * M),
        (G, 13, 16, M),  # pages larger than what a bucket is for
        (4 * K, 13, 12, K),
    ],
)
def test_large_hash_tables(memory: int, scale: int, shift: int, size: int) -> None:
    assert large_system_hash_bytes(-(-memory >> shift), scale, shift) == size


@pytest.mark.parametrize(
    ("log2_or_buckets", "kib"),
    [
        (14, 1384),
        (15, 1384),
        (17, 1772),
        (19, 1900),
        (20, 1900),
        ((1 << 15) + (1 << 16), 1644),
        (3 << 16, 1792),
    ],
)
def test_what_is_allocated_is_as_measured_and_in_between_in_proportion(
    log2_or_buckets: int, kib: int
) -> None:
    machine = SimpleNamespace(data=SimpleNamespace(allocated_kib=((15, 1384), (17, 1772), (19, 1900))))
    buckets = 1 << log2_or_buckets if log2_or_buckets < 64 else log2_or_buckets
    found = allocated_kib(machine, buckets)  # type: ignore[arg-type]
    assert (found, found % 4) == (kib, 0)


def test_ranges_that_touch_become_one() -> None:
    ranges = [(1, 3), (3, 5), (4, 4), (6, 6), (7, 9), (8, 8), (8, 12), (20, 21)]
    assert union(ranges) == [(1, 5), (7, 12), (20, 21)]


@pytest.mark.parametrize(
    ("kernel", "parts"),
    [
        (
            "5.4",  # 6148 KiB code, 1020 rwdata, 1060 rodata, 764 init, 2268 bss
            [
                (0x1000000, 0x1600FFF, "Kernel code"),
                (0x1601000, 0x1AFEFFF, "Kernel data"),
                (0x1BBE000, 0x1DF4FFF, "Kernel bss"),
            ],
        ),
        (
            "6.12",  # 6144 KiB code, 1194 rwdata, 1496 rodata, 836 init, 2008 bss
            [
                (0x1000000, 0x15FFFFF, "Kernel code"),
                (0x1600000, 0x1775FFF, "Kernel rodata"),
                (0x1800000, 0x192A7FF, "Kernel data"),
                (0x19FC000, 0x1BF1FFF, "Kernel bss"),
            ],
        ),
    ],
)
def test_the_kernel_in_iomem_of_x86(kernel: str, parts: list[tuple[int, int, str]]) -> None:
    (ram,) = boot(parse_dts(X86), kernel, "cma=0", arch="x86_64").iomem
    assert [(child.start, child.end, child.name) for child in ram.children] == parts


def test_reservations_in_iomem_of_arm64() -> None:
    """Whole pages; what touches is one; the kernel itself is no reservation; an area is one."""
    reserved = (
        "a@50000000 { reg = <0 0x50000000 0 0x1000>; }; b@50001000 { reg = <0 0x50001000 0 0x800>; };"
        "c@5000c800 { reg = <0 0x5000c800 0 0x1800>; }; k@40300000 { reg = <0 0x40300000 0 0x1000>; };"
    )
    machine = boot(tree_of(reserved), "6.12", "cma=16M@0x60000000")
    (ram,) = machine.iomem
    assert (ram.start, ram.end, ram.name) == (0x40000000, 0x7FFFFFFF, "System RAM")
    kernel = [child for child in ram.children if child.name != "reserved"]
    assert [child.name for child in kernel] == ["Kernel code", "Kernel data"]
    assert kernel[0].start == 0x40200000
    taken = [(child.start, child.end) for child in ram.children if child.name == "reserved"]
    inside = [span for span in taken if 0x50000000 <= span[0] < 0x70000000]
    assert inside == [(0x50000000, 0x50001FFF), (0x5000C000, 0x5000DFFF), (0x60000000, 0x60FFFFFF)]
    assert [child.start for child in ram.children] == sorted(child.start for child in ram.children)
    assert not any(start <= 0x40300000 <= end for start, end in taken)


def test_nodes_of_a_hole_have_their_own_memory_in_iomem() -> None:
    tree = tree_of(memory="<0 0x40000000 0 0x20000000>, <0 0x80000000 0 0x20000000>")
    assert [(r.start, r.end) for r in boot(tree, "6.12", "cma=0").iomem] == [
        (0x40000000, 0x5FFFFFFF),
        (0x80000000, 0x9FFFFFFF),
    ]


def fake_nodes(arch: str, value: str, *memory: tuple[int, int]) -> list[tuple[int, int, int]]:
    """(node, start, end) in MiB of all memory with ``numa=fake=<value>``."""
    reg = " ".join(f"{n >> 32:#x} {n & 0xFFFFFFFF:#x}" for span in memory for n in span)
    machine = boot(
        tree_of(memory=f"<{reg}>"), "6.12", f"cma=0 numa=fake={value}", arch, ("NUMA=y", "NUMA_EMU=y")
    )
    lines = [re.search(r"Faking node (\d+) at \[mem (0x\w+)-(0x\w+)\]", text) for text in machine.log.lines()]
    return [(int(m[1]), int(m[2], 16) >> 20, int(m[3], 16) + 1 >> 20) for m in lines if m]


@pytest.mark.parametrize(
    ("value", "nodes"),
    [
        ("2", [(0, 1024, 2560), (1, 2560, 4096)]),
        ("3", [(0, 1024, 2048), (1, 2048, 3072), (2, 3072, 4096)]),
        ("5", [(0, 1024, 1632), (1, 1632, 2240), (2, 2240, 2848), (3, 2848, 3456), (4, 3456, 4096)]),
        ("1000M", [(0, 1024, 2016), (1, 2016, 3008), (2, 3008, 4096)]),
        ("2G", [(0, 1024, 4096)]),
        ("2U", [(0, 1024, 2560), (1, 2560, 4096)]),
        ("0", []),
        ("200", [(0, 1024, 1216)]),
    ],
)
def test_faked_nodes(value: str, nodes: list[tuple[int, int, int]]) -> None:
    found = fake_nodes("arm64", value, (1 << 30, 3 << 30))
    assert found[: len(nodes)] == nodes
    if value != "200":
        assert found == nodes
    else:
        assert len(found) == 16 and found[-1][2] == 4096


def test_faked_nodes_skip_holes_and_leave_nothing_below_4_gib() -> None:
    found = fake_nodes("x86_64", "2", (1 << 20, (3 << 30) - (1 << 20)), (4 << 30, 1 << 30))
    assert found == [(0, 1, 2049), (1, 2049, 5120)]
    assert fake_nodes("x86_64", "3", (1 << 20, (3 << 30) - (1 << 20)), (4 << 30, 1 << 30))[-1][2] == 5120


def test_lines_of_faked_nodes() -> None:
    """mm/numa_emulation.c@v6.12: at most 16 nodes here, none below 32 MiB, else a line says so."""

    def lines(value: str, memory: str = "<0 0x40000000 0 0xc0000000>") -> list[str]:
        config = ("NUMA=y", "NUMA_EMU=y")
        log = boot(tree_of(memory=memory), "6.12", f"cma=0 numa=fake={value}", "arm64", config).log.lines()
        return [line for line in log if "ake node" in line or "aking node" in line or "enough" in line]

    first = "Faking node 0 at [mem 0x0000000040000000-0x000000004bffffff] (192MB)"
    small = lines("1M")
    assert small[:2] == ["Fake node size 1MB too small, increasing to 192MB", first]
    assert len(small) == 17
    assert lines("191M")[0] == "Fake node size 191MB too small, increasing to 192MB"
    assert lines("192M")[0] == first
    assert lines("4", "<0 0x40000000 0 0x3000000>") == [
        "Not enough memory for each node.  NUMA emulation disabled."
    ]


def test_faked_nodes_of_equal_size_are_all_or_none() -> None:
    """mm/numa_emulation.c:split_nodes_size_interleave_uniform(), numa_emulation()@v6.12"""

    def told(value: str, memory: str) -> tuple[list[str], int]:
        machine = boot(
            tree_of(memory=memory), "6.12", f"cma=0 numa=fake={value}", "arm64", ("NUMA=y", "NUMA_EMU=y")
        )
        lines = [line for line in machine.log.lines() if re.search("ak(e|ing) node|only got|memblks", line)]
        return lines, len({region.nid for region in machine.memblock.memory})

    small = "Fake node size {}MB too small, increasing to {}MB"
    node = "Faking node {} at [mem 0x{:016x}-0x{:016x}] (64MB)".format
    lines, nodes = told("3U", "<0 0x40000000 0 0x40000000>")
    assert (lines[0], len(lines), nodes) == (small.format(341, 352), 4, 3)
    m, base = 1 << 20, 1 << 30
    assert told("2U", "<0 0x40000000 0 0x7800000>") == (
        [small.format(60, 64), node(0, base, base + 64 * m - 1), node(1, base + 64 * m, base + 120 * m - 1)
         .replace("64MB", "56MB")],
        2,
    )  # fmt: skip
    lines, nodes = told("5U", "<0 0x40000000 0 0x6000000>")
    assert lines[0] == small.format(19, 32) and nodes == 1
    assert lines[-1] == "numa_emulation: phys: 0 only got 3 of 5 nodes, failing" and len(lines) == 5
    lines, nodes = told("64U", "<0 0x40000000 1 0>")
    assert lines[-1] == "NUMA: Too many emulated memblks, failing emulation" and nodes == 1
    assert (
        lines[:32] == [node(n % 16, base + 64 * m * n, base + 64 * m * (n + 1) - 1) for n in range(32)]
        and len(lines) == 33
    )
    assert told("0U", "<0 0x40000000 0 0x40000000>") == ([], 1)


def zone_lines(machine: BootedMachine) -> list[str]:
    return [
        line for line in machine.log.lines() if " zone: " in line or line.startswith(("On node", "Built"))
    ]


def test_lines_of_zones_up_to_5_12() -> None:
    """mm/page_alloc.c:free_area_init_core()@v5.10: no memmap of high memory counts, 21 pages are x86's."""
    arm = boot(arm_tree(memory="0x40000000 0x50000000"), "5.10", "cma=0", "arm", ("HIGHMEM=y", "ZONE_DMA=n"))
    assert zone_lines(arm) == [
        "On node 0 totalpages: 327680",
        "  Normal zone: 1536 pages used for memmap",  # 32 bytes a page
        "  Normal zone: 0 pages reserved",
        "  Normal zone: 196608 pages, LIFO batch:63",
        "  HighMem zone: 131072 pages, LIFO batch:31",
        "Built 1 zonelists, mobility grouping on.  Total pages: 326144",
    ]
    x86 = boot(tree_of(memory="<0 0x100000 0 0x7ff00000>"), "5.10", "cma=0", "x86_64", ("NUMA=y",))
    assert zone_lines(x86) == [
        "On node 0 totalpages: 524032",
        "  DMA32 zone: 7165 pages used for memmap",
        "  DMA32 zone: 21 pages reserved",
        "  DMA32 zone: 524032 pages, LIFO batch:63",
        "Built 1 zonelists, mobility grouping on.  Total pages: 516846",
        "Policy zone: DMA32",
    ]


@pytest.mark.parametrize("parent", ["reserved-memory", "reserved-memory@0"])
def test_a_loader_steps_over_what_the_tree_reserves(parent: str) -> None:
    """Whether the parent has a unit address or not: the kernel scans both, and the region becomes an area."""
    region = """linux,cma@48000000 { compatible = "shared-dma-pool"; reusable;
        reg = <0x0 0x48000000 0x0 0x1000000>; linux,cma-default; };"""
    tree = tree_of(region)
    tree.root.props["compatible"] = b"vendor,board\0"
    node = tree.root.children.pop("reserved-memory")
    node.name = parent
    tree.root.append(node)
    machine = boot(tree, "6.12")
    assert [area[1:] for area in areas(machine)] == [(0x48000000, 16 * M)]
    (ram,) = machine.iomem
    taken = [(child.start, child.end) for child in ram.children if child.name == "reserved"]
    assert taken[0] == (0x48000000, 0x491A5FFF)  # the area, and right behind it the initramfs


@pytest.mark.parametrize(
    ("mib", "initrd"),
    [
        (14, 0x40800000),
        (64, 0x42000000),
        (128, 0x44000000),
        (254, 0x47F00000),
        (256, 0x48000000),
        (1024, 0x48000000),
    ],
)
def test_where_qemu_puts_the_initramfs(mib: int, initrd: int) -> None:
    """hw/arm/boot.c: half way up memory, at most 128 MiB in; the tree behind it at a multiple of 2 MiB."""
    (ram,) = boot(tree_of(memory=f"<0 0x40000000 0 {mib << 20:#x}>"), "6.12", "cma=0").iomem
    taken = [(child.start, child.end) for child in ram.children if child.name == "reserved"]
    assert taken[:2] == [(initrd, initrd + 0x1A5FFF), (initrd + 2 * M, initrd + 2 * M + 0x8FFF)]


@pytest.mark.parametrize("kib", [40000, 65536])
def test_a_board_says_how_much_its_kernel_reserved(kib: int) -> None:
    tree = tree_of()
    tree.chosen.props["cmafs,boot-reserved-kib"] = cells(kib)
    assert (
        f" {kib}K reserved, 16384K cma-reserved" in lines_with(boot(tree, "6.12", "cma=16M"), "Memory: ")[0]
    )
    usual = lines_with(boot(tree_of(), "6.12", "cma=16M"), "Memory: ")[0]
    tree.chosen.props["cmafs,boot-reserved-kib"] = cells(1)  # what is taken stays taken
    assert lines_with(boot(tree, "6.12", "cma=16M"), "Memory: ") == [usual]


@pytest.mark.parametrize(
    ("arch", "cmdline", "end"),
    [
        ("x86_64", "mem=512M", 0x20000000),  # an address (arch/x86/kernel/e820.c:parse_memopt()@v6.12)
        ("x86_64", "mem=768M mem=512M", 0x20000000),
        ("x86_64", "mem=4G", 0x40000000),
        ("x86_64", "mem mem=", 0x40000000),
        ("arm64", "mem=536875007", 0x20000000),  # whole pages
        ("arm64", "mem=512M", 0x20000000),  # an amount (arch/arm64/mm/init.c:early_mem()@v6.12)
    ],
)
def test_less_memory_than_there_is(arch: str, cmdline: str, end: int) -> None:
    base = 0x40000000 if arch == "arm64" else 0
    tree = tree_of(memory=f"<0 {base:#x} 0 0x40000000>") if base else parse_dts(X86)
    machine = boot(tree, "6.12", f"cma=0 {cmdline}", arch)
    assert [(region.base, region.end) for region in machine.memblock.memory] == [(base, base + end)]
    assert ("Memory limited to 512MB" in machine.log.lines()) == (arch == "arm64")


def test_zones_of_x86() -> None:
    """arch/x86/mm/init.c:zone_sizes_init()@v6.12: 16 MiB and 4 GiB."""
    tree = tree_of(memory="<0 0x100000 0 0xbff00000>, <1 0 0 0x40000000>")
    machine = boot(tree, "6.12", "cma=0", "x86_64", ("ZONE_DMA=y",))
    assert lines_with(machine, "  DMA  ", "  DMA32  ", "  Normal  ") == [
        "  DMA      [mem 0x0000000000100000-0x0000000000ffffff]",
        "  DMA32    [mem 0x0000000001000000-0x00000000ffffffff]",
        "  Normal   [mem 0x0000000100000000-0x000000013fffffff]",
    ]
    assert machine.zone_dma_limit == 0xFFFFFF


@pytest.mark.parametrize(("mib", "word"), [(11, "off"), (12, "on"), (1024, "on")])
def test_mobility_grouping_needs_a_page_block_of_each_kind(mib: int, word: str) -> None:
    """mm/page_alloc.c:build_all_zonelists()@v6.12: six kinds, blocks of 2 MiB."""
    machine = boot(tree_of(memory=f"<0 0x40000000 0 {mib << 20:#x}>"), "6.12", "cma=0")
    assert lines_with(machine, "mobility") == [
        f"Built 1 zonelists, mobility grouping {word}.  Total pages: {mib * 256}"
    ]


#: The linear map in pages, on a CPU that has four levels of page tables.
FULL = ("RODATA_FULL_DEFAULT_ENABLED=y", "CPU_LPA2=n")


@pytest.mark.parametrize(
    ("kernel", "config", "image", "tables"),
    [
        # memblock=debug of each in QEMU with 1 GiB: arm64_memblock_init(), the last early_pgtable_alloc()
        ("6.12.107+deb13-cloud-arm64", FULL, [(0x40200000, 0x42070000)], 0x7FE0A000),
        ("6.12.107+deb13-arm64-16k", (*FULL, "ARM64_16K_PAGES=y"), [(0x40200000, 0x427A0000)], 0x7FF7C000),
        ("6.1.0-50-cloud-arm64", FULL, [(0x40210000, 0x41C8D000), (0x41C92000, 0x41CA0000)], 0x7FDFB000),
        ("6.12", ("debian-6.12-arm64-cloud",), [(0x40200000, 0x42070000)], 0x7FE0A000),
        ("6.12", ("debian-6.12-arm64-cloud", "CPU_LPA2=y"), [(0x40200000, 0x42070000)], 0x7FE09000),
        ("6.12", FULL, [(0x40200000, 0x407E0000)], 0x7FE00000),  # of any other kernel: the recorded guest's
    ],
)
def test_what_a_distribution_s_kernel_takes(
    kernel: str, config: tuple[str, ...], image: list[tuple[int, int]], tables: int
) -> None:
    reserved = [(r.base, r.end) for r in boot(tree_of(), kernel, "", "arm64", config).memblock.reserved]
    assert reserved[: len(image)] == image
    assert reserved[-1] == (tables, 0x80000000)


def test_the_memory_line_of_a_distribution_s_kernel() -> None:
    (line,) = lines_with(boot(tree_of(), "6.12.107+deb13-cloud-arm64"), "Memory: ")
    assert "(14272K kernel code, 2772K rwdata, 10760K rodata, 2176K init, 906K bss, " in line
