"""start_kernel(): cma= and its relatives, Kconfig, memory, architectures, the lines in between.

Modules: cmafs.init.dma_contiguous, cmafs.init.hugetlb, cmafs.init.initcalls, cmafs.init.unknown_params,
cmafs.init.version, cmafs.arch.x86_mapping, cmafs.arch.zones.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from boot_support import areas, arm_tree, boot, cells, lines_with, parse_dts, tree_of

from cmafs.abi import kernel_abi
from cmafs.abi.boot_arch import ARCH_ROWS
from cmafs.abi.rows import DIALECTS, RELEASES
from cmafs.api import config_lines
from cmafs.init.main import _log_buf_shift, start_kernel
from cmafs.init.options import MachineOptions
from cmafs.lib.clock import ManualClock
from cmafs.lib.cmdline import parse_early_params
from cmafs.lib.kconfig import ConfigError, FileLine, parse_config
from cmafs.lib.panic import KernelPanic
from cmafs.of.base import DeviceNode, DeviceTree, DtError
from cmafs.of.fdt import load

K, M, G = 1 << 10, 1 << 20, 1 << 30
SIX_GIB = "<0 0x40000000 1 0x80000000>"


def pc(*memory: tuple[int, int], reserve: str = ""):
    """A PC with these ranges of memory."""
    numbers = [
        n for base, size in memory for value in (base, size) for n in (value >> 32, value & 0xFFFFFFFF)
    ]
    return tree_of(memory=f"<{' '.join(hex(n) for n in numbers)}>", head=reserve)


def cma_lines(tree, kernel: str, cmdline: str, arch: str = "x86_64", **options) -> list[str]:
    machine = boot(tree, kernel, cmdline, arch, **options)
    return [
        line for line in lines_with(machine, "cma: ") if "(" not in line or "Region" in line or "Size" in line
    ]


PC = pc((0x1000, 0x9E000), (0x100000, 0x3FEE0000))


EXCEEDS = "cma: Size ({size:#018x}) of region at {base:#018x} exceeds limit ({limit:#018x})"


def test_beyond_the_end_of_ram() -> None:
    """Up to 6.12 the limit is cut to the architecture's before it is rounded; 7.2 cuts it to the end of
    RAM after.
    """
    assert cma_lines(PC, "6.12", "cma=16M@1G") == [
        EXCEEDS.format(size=16 * M, base=G, limit=0x3FE00000),
        "cma: Failed to reserve 16 MiB on node -1",
    ]
    assert cma_lines(PC, "7.2", "cma=16M@1G") == [
        EXCEEDS.format(size=16 * M, base=G, limit=0x3FFE0000),
        "cma: Failed to reserve 16 MiB",
    ]


def test_across_the_end_of_ram() -> None:
    assert cma_lines(PC, "6.12", "cma=64M@0x3c000000") == [
        "cma: Region at 0x000000003c000000 defined on low/high memory boundary (0x000000003ffe0000)",
        "cma: Failed to reserve 64 MiB on node -1",
    ]
    assert cma_lines(PC, "7.2", "cma=64M@0x3c000000") == [
        EXCEEDS.format(size=64 * M, base=0x3C000000, limit=0x3FFE0000),
        "cma: Failed to reserve 64 MiB",
    ]


def test_a_fixed_size_off_the_unit_exceeds_its_own_limit() -> None:
    lines = cma_lines(PC, "6.12", "cma=3M@256M")
    assert lines[0].startswith("cma: Size (0x0000000000400000) of region at 0x0000000010000000 exceeds limit")


def test_a_range_is_searched_from_its_top() -> None:
    assert areas(boot(PC, "6.12", "cma=64M@256M-512M", "x86_64")) == [("reserved", 0x1C000000, 64 * M)]


def test_the_second_cma_keeps_the_base_of_the_first() -> None:
    machine = boot(PC, "6.12", "cma=64M@256M cma=32M", "x86_64")
    assert areas(machine) == [("reserved", 0x12000000, 32 * M)]


def test_cma_without_text() -> None:
    machine = boot(PC, "6.12", "cma", "x86_64")
    assert lines_with(machine, "Config string", "Malformed") == [
        "cma: Config string not provided",
        "Malformed early option 'cma'",
    ]
    assert areas(machine)[0][2] == 16 * M


BIG_PC = pc((0x100000, 0xBFEE0000), (4 * G, G))
#: All of its low memory is mapped by pages of 1 GiB and 2 MiB, whose tables the image has room for.
EVEN_PC = pc((0x100000, 0xBFF00000), (4 * G, G))
#: The range of the buffer for tables spans a hole, so that it may not be used for that range's own.
HOLED_PC = pc((0x100000, 0x77700000), (0x7B800000, 0x447E0000))


@pytest.mark.parametrize(
    ("tree", "kernel", "cmdline", "base"),
    [
        (BIG_PC, "5.10", "cma=64M", 5 * G - 68 * M),
        (EVEN_PC, "5.10", "cma=64M", 5 * G - 64 * M),
        (BIG_PC, "6.1", "cma=64M", 4 * G),
        (BIG_PC, "6.12", "cma=64M", 4 * G),
        (BIG_PC, "7.2", "cma=64M", 4 * G),
        (BIG_PC, "6.12", "cma=64M@0-4G", 3 * G - 66 * M),
        (EVEN_PC, "6.12", "cma=64M@0-4G", 3 * G - 64 * M),
        (EVEN_PC, "6.12", "cma=2G", G),
        (EVEN_PC, "7.2", "cma=2G", G),
        (HOLED_PC, "7.2", "cma=16M", 0xBEC00000),
        (pc((0x100000, 0xBFEE0000)), "7.2", "cma=16M", 0xBEE00000),
        # a hole of 4 TiB costs no steps; above it nowhere 2 MiB are free in one piece
        (pc((0x100000, 0x3FF00000), (1 << 42, 0x180000)), "7.2", "cma=16M@0-1G", 0x3F000000),
    ],
)
def test_page_tables_of_the_linear_map(tree: str, kernel: str, cmdline: str, base: int) -> None:
    assert areas(boot(tree, kernel, cmdline, "x86_64"))[0][1] == base


@pytest.mark.parametrize(
    ("kernel", "config", "words", "tables", "in_image"),
    [
        ("5.10", (), "", 65, 6),
        ("5.10", ("X86_5LEVEL=y",), "", 66, 6),
        ("5.10", ("RANDOMIZE_BASE=y",), "", 65, 12 - 1),
        ("6.1", (), "", 65, 6),
        ("6.1", ("X86_5LEVEL=y",), "", 66, 8),
        ("6.1", ("X86_5LEVEL=y",), "no5lvl", 65, 8),
        ("6.12", ("X86_5LEVEL=y", "RANDOMIZE_BASE=y"), "", 66, 16 - 2),
        ("6.12", ("X86_5LEVEL=y", "RANDOMIZE_BASE=y"), "nokaslr", 66, 16),
        ("6.12", ("X86_5LEVEL=y", "RANDOMIZE_BASE=y", "RANDOMIZE_MEMORY=n"), "", 66, 8),
        ("7.2", (), "", 66, 8),
        ("7.2", ("RANDOMIZE_BASE=y",), "no5lvl", 65, 16 - 1),
    ],
)
def test_levels_of_page_tables(
    kernel: str, config: tuple[str, ...], words: str, tables: int, in_image: int
) -> None:
    """63 GiB in pages of 2 MiB: a table for each, one for the first of them, and one or two above."""
    even = pc((0x100000, 0xBFF00000), (4 * G, 60 * G))
    large, small = (boot(even, kernel, text, "x86_64", config) for text in (words, f"{words} nogbpages"))
    taken = sum(r.size for r in small.memblock.reserved) - sum(r.size for r in large.memblock.reserved)
    assert taken >> 12 == tables - in_image


def test_pernuma_and_numa() -> None:
    text = "cma=16M cma_pernuma=8M numa_cma=0:4M"
    names = {
        k: [name for name, _, _ in areas(boot(tree_of(), k, text))] for k in ("5.4", "5.10", "6.12", "7.2")
    }
    assert names == {
        "5.4": ["reserved"],
        "5.10": ["pernuma0", "reserved"],
        "6.12": ["pernuma0", "numa0", "reserved"],
        "7.2": ["reserved", "numa0"],
    }
    assert areas(boot(tree_of(), "7.2", text))[1][2] == 4 * M
    assert areas(boot(tree_of(), "7.2", "cma=0 cma_pernuma=8M"))[0][0] == "numa0"


def test_without_numa_there_are_no_per_node_areas() -> None:
    machine = boot(tree_of(), "6.12", "cma_pernuma=8M", config=["NUMA=n"])
    assert [name for name, _, _ in areas(machine)] == ["reserved"]
    assert lines_with(machine, "Unknown kernel") == [
        'Unknown kernel command line parameters "cma_pernuma=8M", will be passed to user space.'
    ]


NUMA = """/dts-v1/; / { #address-cells = <2>; #size-cells = <2>;
    memory@0 { device_type = "memory"; reg = <0 0x40000000 0 0xc0000000>; numa-node-id = <0>; };
    memory@1 { device_type = "memory"; reg = <1 0 1 0>; numa-node-id = <1>; }; };"""


def test_nodes_come_from_the_tree() -> None:
    machine = boot(parse_dts(NUMA), "6.12", "cma=16M hugetlb_cma=2G numa_cma=1:32M")
    assert {(name, cma.nid) for cma in machine.cma for name in [cma.name]} == {
        ("hugetlb0", 0),
        ("hugetlb1", 1),
        ("numa1", 1),
        ("reserved", -1),
    }
    assert lines_with(machine, "hugetlb_cma", "Initmem") == [
        "hugetlb_cma: reserve 2048 MiB, up to 1024 MiB per node",
        "hugetlb_cma: reserved 1024 MiB on node 0",
        "hugetlb_cma: reserved 1024 MiB on node 1",
        "Initmem setup node 0 [mem 0x0000000040000000-0x00000000ffffffff]",
        "Initmem setup node 1 [mem 0x0000000100000000-0x00000001ffffffff]",
        "Kernel command line: cma=16M hugetlb_cma=2G numa_cma=1:32M",
    ]


@pytest.mark.parametrize(
    ("shift", "refused"), [((), [20]), (("NODES_SHIFT=10",), [20, 70]), (("NODES_SHIFT=4",), [])]
)
def test_nodes_that_a_configuration_could_have(shift: tuple[str, ...], refused: list[int]) -> None:
    """A list by node ends at an id that no node can have: 64 are x86_64's default."""
    machine = boot(pc((0x100000, G)), "7.2", "hugetlb_cma=20:1G,70:1G", "x86_64", ("NUMA=y", *shift))
    assert lines_with(machine, "hugetlb_cma: invalid") == [
        f"hugetlb_cma: invalid node {nid} specified" for nid in refused
    ]


def test_hugetlb_by_node_and_its_refusals() -> None:
    def lines(kernel: str, text: str) -> list[str]:
        return lines_with(boot(parse_dts(NUMA), kernel, text), "hugetlb_cma: ")

    assert lines("6.1", "cma=0 hugetlb_cma=1:1G,3:1G,0:4M") == [
        "hugetlb_cma: cma area of node 0 should be at least 1024 MiB",
        "hugetlb_cma: invalid node 3 specified",
        "hugetlb_cma: reserved 1024 MiB on node 1",
    ]
    assert lines("6.12", "cma=0 hugetlb_cma=512M") == ["hugetlb_cma: cma area should be at least 1024 MiB"]
    assert lines("6.12", "cma=0 hugetlb_cma=1536M")[1:] == [
        "hugetlb_cma: reserved 1024 MiB on node 0",
        "hugetlb_cma: reserved 1024 MiB on node 1",
    ]
    assert lines("5.4", "hugetlb_cma=1G") == []


@pytest.mark.parametrize(("kernel", "share"), [("5.10", 1536), ("6.1", 2048), ("6.12", 2048)])
def test_the_share_of_a_node_is_rounded_before_it_is_printed(kernel: str, share: int) -> None:
    machine = boot(tree_of(memory="<0x0 0x40000000 0x1 0x0>"), kernel, "hugetlb_cma=1536M")
    assert lines_with(machine, "per node") == [f"hugetlb_cma: reserve 1536 MiB, up to {share} MiB per node"]


def test_ranges_of_a_node_are_whole_pages() -> None:
    """Seen on 6.12.117: a no-map region that ends inside of a page takes the page away."""
    reserved = "fw@60000000 { no-map; reg = <0 0x60000000 0 0x200001>; };"
    assert lines_with(boot(tree_of(reserved)), "  node ") == [
        "  node   0: [mem 0x0000000040000000-0x000000005fffffff]",
        "  node   0: [mem 0x0000000060000000-0x00000000601fffff]",
        "  node   0: [mem 0x0000000060201000-0x000000007fffffff]",
    ]


def test_more_cma_than_is_reserved_wraps() -> None:
    """Seen on 6.12.117: overlapping areas are counted twice, and the rest is an unsigned long."""
    pool = 'compatible = "shared-dma-pool"; reusable; reg = <0 0x50000000 0 0x10000000>;'
    lines = lines_with(boot(tree_of(f"a {{ {pool} }}; b {{ {pool} }};"), cmdline="cma=0"), "Memory: ")
    assert ", 18446744073709" in lines[0] and lines[0].endswith("K reserved, 524288K cma-reserved)")


def test_coherent_pool_without_a_value_kills() -> None:
    with pytest.raises(KernelPanic, match="coherent_pool without a value"):
        boot(tree_of(), "6.12", "coherent_pool")


@pytest.mark.parametrize("name", ["hugetlb_cma", "hugetlb-cma", "cma_pernuma", "numa_cma"])
def test_parameter_without_a_value_kills(name: str) -> None:
    """Seen on 6.12.117; where a kernel does not know the name, it is one more unknown word."""
    with pytest.raises(KernelPanic, match="null pointer"):
        boot(tree_of(), "6.12", f"cma=16M {name}")
    assert boot(tree_of(), "5.4", f"cma=16M {name}").cma.default


def test_pool_that_the_default_area_is_too_small_for() -> None:
    """Seen on 6.12.117: the page allocator gives the whole pool, the area no smaller one."""
    node = (
        'a { compatible = "shared-dma-pool"; reusable; linux,cma-default; reg = <0 0x60000000 0 0x200000>; };'
    )
    machine = boot(tree_of(node), "6.12", "coherent_pool=4M")
    assert [(cma.name, cma.used()) for cma in machine.cma] == [("a", 0)]
    assert lines_with(machine, "DMA: ") == [
        "DMA: preallocated 4096 KiB GFP_KERNEL pool for atomic allocations"
    ]


def test_hugetlb_in_several_ranges() -> None:
    """6.15 and later put one area together from pieces above 4 GiB."""
    ranges = [(0x40000000, 0x40000000), (4 * G, 2 * G), (8 * G, 2 * G), (12 * G, 2 * G)]
    machine = boot(pc(*ranges), "7.2", "cma=0 hugetlb_cma=3G", "x86_64")
    cma = next(cma for cma in machine.cma if cma.name == "hugetlb0")
    assert [(cmr.base_pfn << 12, cmr.count << 12) for cmr in cma.ranges] == [(4 * G, 2 * G), (8 * G, G)]
    assert lines_with(machine, "in 2") == ["cma: Reserved 3072 MiB in 2 ranges"]
    assert lines_with(boot(pc(*ranges), "6.12", "hugetlb_cma=3G", "x86_64"), "err")[-1].endswith(
        "err -12, node 0"
    )


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (["CMA_SIZE_MBYTES=64"], 64 * M),
        (["CONFIG_CMA_SIZE_SEL_PERCENTAGE=y"], 104 * M),
        (["CMA_SIZE_SEL_PERCENTAGE=y", "CMA_SIZE_PERCENTAGE=50"], 512 * M),
        (["CMA_SIZE_SEL_MIN=y", "CMA_SIZE_PERCENTAGE=1"], 12 * M),
        (["CMA_SIZE_SEL_MAX=y"], 104 * M),
        (["# CONFIG_NUMA is not set", "", "# a comment", 'CMA_SIZE_MBYTES="8"'], 8 * M),
    ],
)
def test_size_from_kconfig(config: list[str], size: int) -> None:
    [(name, _, found)] = areas(boot(tree_of(), "6.12", config=config))
    assert (name, found) == ("reserved", size)


@pytest.mark.parametrize(
    ("config", "unit", "kernel"),
    [
        ([], 2 * M, "6.12"),
        ([], 4 * M, "5.15"),
        (["ARM64_16K_PAGES=y"], 32 * M, "6.12"),
        (["ARM64_64K_PAGES=y"], 512 * M, "6.12"),
        (["PAGE_BLOCK_MAX_ORDER=3"], 32 * K, "7.2"),
    ],
)
def test_units(config: list[str], unit: int, kernel: str) -> None:
    machine = boot(tree_of(memory=SIX_GIB), kernel, "cma=1", config=config)
    assert (areas(machine)[0][2], machine.memory.layout.page_shift) == (unit, machine.config.page_shift)


@pytest.mark.parametrize(("kernel", "section_bits"), [("6.12", 29), ("5.15", 29), ("5.10", 30)])
def test_sections_of_64k_pages_and_addresses_of_52_bits(kernel: str, section_bits: int) -> None:
    """The roots of all sections that there could be: 16 bytes of each, in whole pages of pointers."""
    config = ["ARM64_64K_PAGES=y", "ARM64_PA_BITS_52="]
    wide, narrow = (boot(tree_of(memory=SIX_GIB), kernel, config=[config[0], config[1] + yn]) for yn in "yn")
    pages = (1 << 52 - section_bits) - (1 << 48 - section_bits)
    reserved = [sum(region.size for region in machine.memblock.reserved) for machine in (wide, narrow)]
    assert reserved[0] - reserved[1] == pages * 16 // 65536 * 8


def test_of_a_choice_the_last_one_asked_for_counts() -> None:
    config = ["ARM64_64K_PAGES=y", "ARM64_16K_PAGES=y", "ARM64_64K_PAGES=y"]
    assert boot(tree_of(memory=SIX_GIB), config=config).config.page_shift == 16


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CMA_AREAS=many", "CONFIG_CMA_AREAS is a number, not 'many'"),
        ("CMA_AREAS=3x", "CONFIG_CMA_AREAS is a number, not '3x'"),
        ("CMA_AREAS=3~", "CONFIG_CMA_AREAS is a number, not '3~'"),
        ('CMA_AREAS=""', "CONFIG_CMA_AREAS is a number, not ''"),
        ("CMA_ALIGNMENT=40", "CONFIG_CMA_ALIGNMENT is from 2 to 12, not 40"),
        ("CMA_ALIGNMENT=1", "CONFIG_CMA_ALIGNMENT is from 2 to 12, not 1"),
        (
            "CMA_ALIGNMENT=0x10000000000000004",
            "CONFIG_CMA_ALIGNMENT is from 2 to 12, not 0x10000000000000004",
        ),
        ("NUMA=maybe", "CONFIG_NUMA is y or n, not 'maybe'"),
        (" gibberish ", "'gibberish' is no KEY=VALUE of a kernel configuration"),
        ("=y", "'=y' is no KEY=VALUE of a kernel configuration"),
    ],
)
def test_bad_configuration(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config([line], "arm64", kernel_abi("6.12"))
    assert str(refused.value) == message


def test_what_an_unknown_option_could_have_been() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(["CMA_FOO=1"], "arm64", kernel_abi("6.12"))
    said, _, known = str(refused.value).partition(": known are ")
    assert said == "unknown option 'CMA_FOO' on this kernel and architecture"
    names = known.split(", ")
    assert names == sorted({*names, *parse_config([], "arm64", kernel_abi("6.12")).values} - {"ARM64"})
    assert "CMA_DEBUG" not in names, "which went with 6.11"


@pytest.mark.parametrize(
    ("name", "kernel", "arch", "message"),
    [
        ("debian-6.1-armmp", "6.12", "arm", "--kernel 6.1 and arm; this machine is 6.12 and arm"),
        ("debian-6.1-armmp", "6.1", "arm64", "--kernel 6.1 and arm; this machine is 6.1 and arm64"),
    ],
)
def test_a_set_of_another_machine(name: str, kernel: str, arch: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config([name], arch, kernel_abi(kernel))
    assert str(refused.value) == f"--config {name} is of {message}"


@pytest.mark.parametrize("arch", ["arm64", "arm", "x86_64"])
def test_the_lines_of_a_configuration_file(arch: str) -> None:
    """scripts/kconfig/confdata.c: the head, then each symbol as y, as a number, or as not set."""
    config = parse_config(["CMA_AREAS=3", "CMA_SYSFS=n"], arch, kernel_abi("6.12"))
    head, lines = config.lines()[:4], config.lines()[4:]
    assert head == [
        "#",
        "# Automatically generated file; DO NOT EDIT.",
        f"# Linux/{'x86' if arch == 'x86_64' else arch} 6.12.117 Kernel Configuration",
        "#",
    ]
    assert lines[0] == f"CONFIG_{arch.upper()}=y"
    assert {"CONFIG_CMA=y", "CONFIG_CMA_AREAS=3", "# CONFIG_CMA_SYSFS is not set"} <= set(lines)
    assert all(re.fullmatch(r"CONFIG_\w+=(y|\d+)|# CONFIG_\w+ is not set", line) for line in lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CONFIG_CMA_SIZE_MBYTES=zz", "CONFIG_CMA_SIZE_MBYTES is a number, not 'zz'"),
        ("CONFIG_CMA=yes", "CONFIG_CMA is y or n, not 'yes'"),
        ("gibberish", "'gibberish' is no KEY=VALUE of a kernel configuration"),
        ("GIBBERISH=y", "unknown option 'GIBBERISH'"),
    ],
)
def test_a_mistake_in_a_file_has_its_place(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "board.config"
    file.write_text(f"# mine\nCONFIG_CMA_AREAS=3\n\n{line}\n")
    with pytest.raises(ConfigError, match=re.escape(f"{file}:4: {message}")):
        parse_config(config_lines([str(file)]), "arm64", kernel_abi("6.12"))


def test_options_of_other_kernels() -> None:
    abi = kernel_abi("6.12")
    assert not parse_config(["CMA_DEBUG=n"], "arm64", abi).dropped
    config = parse_config(["CMA_DEBUG=y"], "arm64", abi)
    assert (config.on("CMA_DEBUG"), config.dropped) == (False, ("CMA_DEBUG",))
    unmet = ["DMA_CMA=y", "CMA_SYSFS=y", "CMA_AREAS=5", "CMA_DEBUGFS=y", "CMA=n", "CMA_ALIGNMENT=4"]
    assert parse_config(unmet, "arm64", abi).dropped == (
        "CMA_ALIGNMENT",
        "CMA_AREAS",
        "CMA_DEBUGFS",
        "CMA_SYSFS",
        "DMA_CMA",
    )
    lines = ["CONFIG_CMA_DEBUG=y", 'CONFIG_OLD="-v8"', "# CONFIG_FOO_bar is not set", "CONFIG_CMA_AREAS=3"]
    config = parse_config(map(FileLine, lines), "arm64", abi)
    assert (config.on("CMA_DEBUG"), config.number("CMA_AREAS"), config.unmodelled) == (False, 3, ("OLD",))
    with pytest.raises(ConfigError, match=r"^CONFIG_CMA_AREAS is a number, not 'y'$"):
        parse_config([FileLine("CONFIG_CMA_AREAS=y")], "arm64", abi)


@pytest.mark.parametrize(
    ("kernel", "arch", "config", "page_shift", "max_order", "block", "unit", "gigantic"),
    [
        ("4.4", "arm64", (), 12, 10, 9, 4 * M, 18),
        ("4.4", "arm64", ("ARM64_64K_PAGES=y",), 16, 13, 13, 512 * M, 18),
        ("5.10", "arm64", ("ARM64_16K_PAGES=y",), 14, 11, 11, 32 * M, 16),
        ("5.10", "arm64", ("HUGETLBFS=n",), 12, 10, 10, 4 * M, 18),  # huge pages of hugetlb's alone count
        ("5.10", "arm", ("FORCE_MAX_ZONEORDER=13",), 12, 12, 12, 16 * M, 18),
        ("6.1", "arm64", ("ARCH_FORCE_MAX_ORDER=13",), 12, 12, 9, 2 * M, 18),  # still one more than the order
        ("6.6", "arm64", ("ARCH_FORCE_MAX_ORDER=12",), 12, 12, 9, 2 * M, 18),
        ("6.12", "arm64", (), 12, 10, 9, 2 * M, 18),
        ("6.12", "arm64", ("ARM64_16K_PAGES=y",), 14, 11, 11, 32 * M, 16),
        ("6.12", "arm64", ("ARM64_64K_PAGES=y",), 16, 13, 13, 512 * M, 18),
        ("6.12", "arm64", ("HUGETLBFS=n",), 12, 10, 9, 2 * M, 18),
        ("6.12", "arm64", ("HUGETLBFS=n", "TRANSPARENT_HUGEPAGE=n"), 12, 10, 10, 4 * M, 18),
        ("6.12", "arm", ("ARCH_FORCE_MAX_ORDER=12",), 12, 12, 12, 16 * M, 18),
        ("6.12", "x86_64", (), 12, 10, 9, 2 * M, 18),
        ("7.2", "arm64", ("PAGE_BLOCK_MAX_ORDER=5",), 12, 10, 5, 128 * K, 18),
    ],
)
def test_sizes_that_follow_from_a_configuration(
    kernel: str, arch: str, config: tuple[str, ...],
    page_shift: int, max_order: int, block: int, unit: int, gigantic: int,
) -> None:  # fmt: skip
    """MAX_PAGE_ORDER, pageblock_order, CMA_MIN_ALIGNMENT_BYTES, and the order that hugetlb_cma= is given."""
    found = parse_config(config, arch, kernel_abi(kernel))
    assert (found.page_shift, found.max_page_order(), found.pageblock_order()) == (
        page_shift,
        max_order,
        block,
    )
    assert (found.cma_min_alignment_bytes(), found.gigantic_page_order()) == (unit, gigantic)


@pytest.mark.parametrize(
    ("kernel", "arch", "config", "areas", "nodes"),
    [
        ("4.4", "arm64", (), 8, 16),  # one more than CONFIG_CMA_AREAS until 6.9
        ("6.1", "arm64", ("CMA_AREAS=3",), 4, 16),
        ("6.12", "arm64", ("CMA_AREAS=3",), 3, 16),
        ("6.12", "arm64", (), 20, 16),
        ("6.12", "arm", (), 8, 1),
        ("6.12", "x86_64", ("NODES_SHIFT=10",), 20, 1024),
        ("7.2", "arm64", ("CMA=n",), 0, 16),
    ],
)
def test_how_many_areas_and_nodes_there_can_be(
    kernel: str, arch: str, config: tuple[str, ...], areas: int, nodes: int
) -> None:
    found = parse_config(config, arch, kernel_abi(kernel))
    assert (found.max_cma_areas(), found.max_numnodes) == (areas, nodes)


PARAMETERS = ("cma", "hugetlb_cma", "cma_pernuma", "numa_cma", "coherent_pool")


@pytest.mark.parametrize(
    ("kernel", "arch", "config", "unknown"),
    [
        ("4.4", "arm64", (), "hugetlb_cma cma_pernuma numa_cma"),
        ("5.4", "x86_64", (), "hugetlb_cma cma_pernuma numa_cma coherent_pool"),
        ("5.10", "arm64", (), "numa_cma"),
        ("6.1", "arm64", ("DMA_PERNUMA_CMA=n",), "cma_pernuma numa_cma"),
        ("6.1", "arm", (), "hugetlb_cma cma_pernuma numa_cma"),
        ("6.6", "arm64", ("DMA_NUMA_CMA=y",), ""),
        ("6.12", "arm64", ("DMA_NUMA_CMA=n",), "cma_pernuma numa_cma"),
        ("6.12", "arm64", ("DMA_CMA=n",), "cma cma_pernuma numa_cma"),
        ("6.12", "arm64", ("CMA=n",), "cma hugetlb_cma cma_pernuma numa_cma"),
        ("6.12", "arm64", ("DMA_NUMA_CMA=y", "HUGETLBFS=n"), "hugetlb_cma"),
        ("7.2", "x86_64", (), "cma_pernuma numa_cma coherent_pool"),
        ("2010", "arm", (), "cma hugetlb_cma cma_pernuma numa_cma"),
    ],
)
def test_the_parameters_that_a_kernel_knows(
    kernel: str, arch: str, config: tuple[str, ...], unknown: str
) -> None:
    found = parse_config(config, arch, kernel_abi(kernel))
    assert [name for name in PARAMETERS if not found.knows(name)] == unknown.split()


@pytest.mark.parametrize("kernel", [*RELEASES, *DIALECTS])
@pytest.mark.parametrize("arch", ["arm64", "arm", "x86_64"])
def test_config_lines_are_true_of_the_machine(kernel: str, arch: str) -> None:
    abi = kernel_abi(kernel)
    framework = abi.boot.framework_2010  # which has none of today's options
    config = parse_config([] if framework else ["CMA_AREAS=3"], arch, abi)
    lines = config.lines()
    assert ("CONFIG_CMA_AREAS=3" in lines) != framework
    assert ("CONFIG_CONTIG_ALLOC=y" in lines) == (kernel not in ("4.4", "4.15", "4.19", "2010"))
    assert any("CONFIG_CMA_DEBUG" in line.split("=")[0].split() for line in lines) == (
        kernel not in ("6.12", "6.18", "7.2")
    )
    assert len(lines[4:]) == len(set(lines[4:]))
    assert parse_config(map(FileLine, lines), arch, abi).lines() == lines, "a .config of its own"


@pytest.mark.parametrize(("kernel", "slots"), [("6.6", 8), ("6.12", 7)])
def test_slots(kernel: str, slots: int) -> None:
    body = 'compatible = "shared-dma-pool"; reusable;'
    bases = range(0x50000000, 0x50000000 + 9 * 4 * M, 4 * M)
    pools = "".join(f"p{base:x} {{ {body} reg = <0 {base:#x} 0 0x400000>; }};" for base in bases)
    assert len(areas(boot(tree_of(pools), kernel, "cma=0"))) == slots


@pytest.mark.parametrize(
    ("tree", "memory", "base"),
    [
        (tree_of(), 512 * M, 0x40000000),
        (tree_of(memory="<0 0x80000000 0 0>"), 512 * M, 0x80000000),
        (
            parse_dts(
                "/dts-v1/; /memreserve/ 0x92000000 0x1000; / { #address-cells = <2>; #size-cells = <2>; };"
            ),
            G,
            0x80000000,
        ),
        (parse_dts("/dts-v1/; / { };"), 64 * M, 0),
    ],
)
def test_memory_option(tree, memory: int, base: int) -> None:
    machine = boot(tree, memory=memory, cmdline="cma=0")
    assert [(r.base, r.size) for r in machine.memblock.memory] == [(base, memory)]


def test_no_memory_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(
        DtError, match=r"no memory: /memory@40000000 has size 0, which a boot loader fills in; .*--memory"
    ):
        boot(tree_of(memory="<0 0x40000000 0 0>"))
    with pytest.raises(DtError, match='no memory: no node has device_type = "memory"'):
        boot(parse_dts("/dts-v1/; / { };"))


def test_the_seeds_pc_boots_as_its_log_says() -> None:
    """seeds/003: every line of the boot that it quotes."""
    machine = start_kernel(load("x86-4g", ()), MachineOptions(kernel="4.15"), ManualClock())
    command = machine.cmdline
    lines = [line for line in machine.log.lines() if "cma" in line]
    assert command.endswith("keyboard") is False
    assert lines[:8] == [
        f"Command line: {command}",
        "cma: early_cma(1G@1-2G)",
        "cma: dma_contiguous_reserve(limit 140000000)",
        "cma: dma_contiguous_reserve: reserving 1024 MiB for global area",
        "cma: cma_declare_contiguous(size 0x0000000040000000, base 0x0000000000000001, "
        "limit 0x0000000080000000 alignment 0x0000000000000000)",
        "cma: Reserved 1024 MiB at 0x0000000040000000",
        f"Kernel command line: {command}",
        "Memory: 2404960K/4193716K available (12300K kernel code, 2471K rwdata, 4192K rodata, 2396K init, "
        "2416K bss, 740180K reserved, 1048576K cma-reserved)",
    ]
    assert [line.split("(cma ")[0] for line in lines[8::2]] == ["cma: cma_alloc"] * 3
    assert all(line.endswith(", count 1, align 0)") for line in lines[8::2])
    assert (machine.cma[0].base_pfn, machine.cma[0].count, machine.cma[0].used()) == (0x40000, 262144, 3)


def test_32_bit_arm_prefers_high_memory() -> None:
    tree = tree_of(memory="<0 0x40000000 0 0x40000000>")
    machine = boot(tree, "6.12", "cma=64M", "arm")
    assert areas(machine) == [("reserved", 0x7C000000, 64 * M)]
    assert lines_with(machine, "cma: R", "HighMem", "  Normal") == [
        "cma: Reserved 64 MiB at 0x7c000000 on node -1",
        "  Normal   [mem 0x0000000040000000-0x000000006fffffff]",
        "  HighMem  [mem 0x0000000070000000-0x000000007fffffff]",
    ]
    low = boot(tree_of(memory="<0 0x40000000 0 0x20000000>"), "6.12", "cma=64M", "arm")
    assert areas(low) == [("reserved", 0x5C000000, 64 * M)]
    assert lines_with(low, "HighMem") == ["  HighMem  empty"]
    assert low.cma[0].used() == 64


def test_a_fixed_area_across_the_end_of_low_memory() -> None:
    lines = cma_lines(tree_of(), "6.12", "cma=64M@0x6e000000", "arm")
    assert lines == [
        "cma: Region at 0x6e000000 defined on low/high memory boundary (0x70000000)",
        "cma: Failed to reserve 64 MiB on node -1",
    ]


@pytest.mark.parametrize(("kernel", "pages"), [("4.19", 64), ("5.10", 32), ("6.12", 32)])
def test_the_atomic_pool_takes_from_the_default_area(kernel: str, pages: int) -> None:
    machine = boot(tree_of(), kernel, "cma=16M")
    assert machine.cma[0].used() == pages
    assert machine.atomic_pools[0].size == pages


def test_coherent_pool() -> None:
    assert boot(tree_of(), "6.12", "cma=16M coherent_pool=1M").cma[0].used() == 256


def test_unknown_words_go_to_init() -> None:
    machine = boot(tree_of(), "6.12", "quiet foo bar=1 mod.x=2 --  baz")
    log = machine.log.lines()
    assert 'Unknown kernel command line parameters "foo bar=1", will be passed to user space.' in log
    assert log[-8:] == [
        "Run /init as init process",
        "  with arguments:",
        "    /init",
        "    foo",
        "  with environment:",
        "    HOME=/",
        "    TERM=linux",
        "    bar=1",
    ]


def test_iomem_has_ram_kernel_and_reservations() -> None:
    tree = tree_of("fw { no-map; reg = <0 0x60000000 0 0x1000000>; };")
    top = boot(tree, "6.12", "cma=0").iomem
    assert [(hex(r.start), hex(r.end), r.name) for r in top] == [
        ("0x40000000", "0x5fffffff", "System RAM"),
        ("0x60000000", "0x60ffffff", "reserved"),
        ("0x61000000", "0x7fffffff", "System RAM"),
    ]
    assert [child.name for child in top[0].children][:2] == ["Kernel code", "Kernel data"]


def test_iomem_of_x86_tells_rodata_and_bss() -> None:
    names = {}
    for kernel in ("5.4", "6.12"):
        tree = parse_dts(
            "/dts-v1/; /memreserve/ 0x1000000 0xc00000; / { #address-cells = <2>; #size-cells = <2>; "
            'memory@0 { device_type = "memory"; reg = <0 0 0 0x40000000>; }; };'
        )
        (ram,) = boot(tree, kernel, "cma=0", arch="x86_64").iomem
        names[kernel] = [child.name for child in ram.children]
        ends = [edge for child in ram.children for edge in (child.start, child.end)]
        assert ends == sorted(ends)
    assert names["5.4"] == ["Kernel code", "Kernel data", "Kernel bss"]
    assert names["6.12"] == ["Kernel code", "Kernel rodata", "Kernel data", "Kernel bss"]


def test_rows_cover_every_kernel() -> None:
    """Each section of each is its own row's, or that of the newest one before it."""
    assert set(ARCH_ROWS) == {"x86_64", "arm64", "arm"}
    for name in (*RELEASES, *DIALECTS):
        abi = kernel_abi(name)
        assert abi.row == name
        sections = (abi.boot, abi.cma, abi.dma, abi.dma_buf, abi.mm, abi.printk, abi.proc, abi.trace)
        assert len({type(section) for section in sections}) == 8
        assert all(rows[name].kernel_sizes_kib for rows in ARCH_ROWS.values())


def test_memory_nodes_may_have_cells_of_their_own_size() -> None:
    tree = parse_dts('/dts-v1/; / { memory@80000000 { device_type = "memory"; }; };')
    tree.root.children["memory@80000000"].props["reg"] = cells(0x80000000, 0x10000000, 0xA0000000, 0x10000000)
    machine = boot(tree, "6.12", "cma=16M")
    assert [(r.base, r.size) for r in machine.memblock.memory] == [
        (0x80000000, 256 * M),
        (0xA0000000, 256 * M),
    ]


def test_dyndbg_works_from_the_first_initcalls_on() -> None:
    machine = boot(tree_of(), "6.12", 'cma=16M dyndbg="file mm/cma.c +p"')
    assert lines_with(machine, "cma: __cma_alloc") == [
        "cma: __cma_alloc(cma (____ptrval____), name: reserved, count 32, align 5)",
        "cma: __cma_alloc(): returned (____ptrval____)",
    ]


def test_pernuma_size_follows_the_default_on_machines_of_several_nodes() -> None:
    config = ["CMA_SIZE_PERNUMA=y", "CMA_SIZE_MBYTES=8"]
    found = areas(boot(parse_dts(NUMA), "7.2", config=config))
    assert [(name, size) for name, _, size in found] == [
        ("reserved", 8 * M),
        ("numa0", 8 * M),
        ("numa1", 8 * M),
    ]
    assert len(areas(boot(tree_of(), "7.2", config=config))) == 1


def test_the_article_boots_as_6_12() -> None:
    article, kernel = boot(tree_of(), "article", "cma=16M"), boot(tree_of(), "6.12", "cma=16M")
    assert article.log.lines() == kernel.log.lines()
    assert areas(article) == areas(kernel)


def refusals(machine) -> list[tuple[str, str | None, str]]:
    """(reason, parameter, detail) of what was refused or ignored."""
    return [(e.reason, e.property, e.detail) for e in machine.boot_events if e.effect != "note"]


def test_refusals_of_hugetlb_are_told_to_check() -> None:
    def told(kernel: str, text: str) -> list[tuple[str, str | None, str]]:
        return refusals(boot(parse_dts(NUMA), kernel, f"cma=0 {text}"))

    assert told("6.1", "hugetlb_cma=1:1G,3:1G,0:4M") == [
        ("bad-node", "hugetlb_cma=", "node 0"),
        ("bad-node", "hugetlb_cma=", "node 3"),
    ]
    assert told("6.12", "hugetlb_cma=1023M") == [("too-small", "hugetlb_cma=", "")]
    assert told("6.12", "hugetlb_cma=1G") == []
    assert told("7.2", "hugetlb_cma=1536M") == [("not-a-multiple", "hugetlb_cma=", "")]
    assert told("6.12", "hugetlb_cma=0:8G,1:1G") == [("no-room", "hugetlb_cma=", "node 0")]


def test_what_hugetlb_says() -> None:
    def lines(kernel: str, text: str) -> list[str]:
        return lines_with(
            boot(parse_dts(NUMA), kernel, f"cma=0 {text}"), "ugetlb_cma: ", "HugeTLB: hugetlb_cma"
        )

    assert lines("7.2", "hugetlb_cma=1536M") == ["hugetlb_cma: cma area must be a multiple of 1024 MiB"]
    assert lines("6.12", "hugetlb_cma=0:8G,1:1G") == [
        "hugetlb_cma: reservation failed: err -12, node 0",
        "hugetlb_cma: reserved 1024 MiB on node 1",
    ]
    assert lines("6.12", "hugetlb_cma=1G") == [
        "hugetlb_cma: reserve 1024 MiB, up to 1024 MiB per node",
        "hugetlb_cma: reserved 1024 MiB on node 0",
    ]
    skipped = "HugeTLB: hugetlb_cma is enabled, skip boot time allocation"
    assert skipped not in lines("7.2", "hugetlb_cma=1G hugepagesz=2M")
    with_size = [k for k in RELEASES if skipped in lines(k, "hugetlb_cma=1G hugepagesz=1G")]
    with_default = [k for k in RELEASES if skipped in lines(k, "hugetlb_cma=1G default_hugepagesz=1G")]
    assert with_size == with_default
    assert "7.2" in with_size and "5.4" not in with_size


def test_options_of_2010_are_for_2010_only() -> None:
    for options in (MachineOptions(profile="v5"), MachineOptions(strict_quirks=True)):
        with pytest.raises(
            ConfigError, match=r"^--profile and --strict-quirks are for --kernel 2010; this is 6.12$"
        ):
            start_kernel(tree_of(), options, ManualClock())


def test_a_node_area_says_so_where_cma_debug_is_built_in() -> None:
    machine = boot(parse_dts(NUMA), "5.10", "cma=16M cma_pernuma=8M", config=["CMA_DEBUG=y"])
    assert lines_with(machine, "pernuma_cma_reserve") == [
        f"cma: dma_pernuma_cma_reserve: reserved 8 MiB on node {nid}" for nid in (0, 1)
    ]


def test_a_node_area_that_does_not_fit_leaves_the_others() -> None:
    machine = boot(parse_dts(NUMA), "6.12", "cma=16M numa_cma=0:8G,1:32M,7:4M cma_pernuma=3G")
    assert [(name, size) for name, _, size in areas(machine)] == [
        ("pernuma1", 3 * G),
        ("numa1", 32 * M),
        ("reserved", 16 * M),
    ]
    assert refusals(machine) == [
        ("no-room", "cma_pernuma=", "pernuma0"),
        ("no-room", "numa_cma=", "numa0"),
        ("no-such-node", "numa_cma=", "node 7"),
    ]
    assert (
        lines_with(machine, "err -") == ["cma: dma_numa_cma_reserve: reservation failed: err -12, node 0"] * 2
    )


@pytest.mark.parametrize(
    ("words", "kib"),
    [
        ("", 128),
        ("log_buf_len=64K", 128),
        ("log_buf_len=128K", 128),
        ("log_buf_len=131073", 256),
        ("log_buf_len=256K", 256),
        ("log_buf_len=1M", 1024),
        ("log_buf_len=0", 128),
    ],
)
def test_the_size_of_the_log(words: str, kib: int) -> None:
    """log_buf_len_update(): rounded up to a power of two, never below CONFIG_LOG_BUF_SHIFT's."""
    log = boot(tree_of(), "5.4", words).log
    for _ in range(20_000):
        log.printk("x" * 84)  # 100 bytes with its header: whole records fill the ring
    assert abs(len(log.lines()) - kib * 1024 // 100) <= 1


@pytest.mark.parametrize(
    ("words", "shift"),
    [
        ("1G", 30), ("2G", 31), ("2147483649", 31), ("4G", 31), ("8G", 31), ("", 17), ("0", 17), ("1", 17),
        ("131072", 17), ("131073", 18), ("262144", 18), ("262145", 19), ("1M", 20), ("1048577", 21),
    ],
)  # fmt: skip
def test_no_log_is_larger_than_2_gib(words: str, shift: int) -> None:
    """LOG_BUF_LEN_MAX (kernel/printk/printk.c@v6.12)"""
    config = parse_config(("tiny",), "arm64", kernel_abi("6.12"))
    params = parse_early_params(f"log_buf_len={words}", False, False)
    assert _log_buf_shift(config, params) == shift


def test_usable_memory_is_what_linux_usable_memory_says() -> None:
    tree = tree_of()
    tree.root.children["memory@40000000"].props["linux,usable-memory"] = cells(0, 0x50000000, 0, 0x10000000)
    machine = boot(tree, cmdline="cma=16M")
    assert [(r.base, r.size) for r in machine.memblock.memory] == [(0x50000000, 0x10000000)]


def test_words_that_the_kernel_knows_are_not_handed_to_init() -> None:
    known = (
        "root=/dev/sda1 rootfstype=ext4 rootwait ro quiet console=ttyS0,115200 earlycon loglevel=4 mem=4G "
        "memblock=debug init=/bin/sh isolcpus=1 nr_cpus=2 maxcpus=2 cma=16M coherent_pool=1M "
        "swiotlb=64 hugepages=4 hugepagesz=2M default-hugepagesz=2M log_buf_len=1M trace_event=cma:* "
        "trace_buf_size=1M dyndbg=+p printk.time=1 panic=5 oops=panic debug ignore_loglevel nokaslr "
        "clk_ignore_unused pd_ignore_unused fw_devlink=permissive consoleblank=0 cgroup_disable=memory "
        "lsm=yama no_console_suspend deferred_probe_timeout=30 video=HDMI-A-1:1280x720 print-fatal-signals=1"
    )
    unknown = "BOOT_IMAGE=/vmlinuz splash"  # the boot loader's and the distribution's own, as real logs show
    machine = boot(tree_of(), "6.12", f"{unknown} {known} -- --single")
    assert lines_with(machine, "Unknown kernel") == [
        'Unknown kernel command line parameters "splash BOOT_IMAGE=/vmlinuz", will be passed to user space.'
    ]


@pytest.mark.parametrize(
    ("kernel", "arch", "unknown"),
    [
        ("5.15", "arm64", "nokaslr vmalloc=600M"),
        ("6.1", "arm64", "nokaslr vmalloc=600M"),
        ("6.12", "arm64", "vmalloc=600M"),
        ("6.12", "arm", "nokaslr kpti=0"),
        ("6.12", "x86_64", "nokaslr kpti=0 vmalloc=600M"),  # as real logs show
    ],
)
def test_words_that_an_architecture_knows(kernel: str, arch: str, unknown: str) -> None:
    tree = arm_tree() if arch == "arm" else pc((0x100000, G)) if arch == "x86_64" else tree_of()
    machine = boot(tree, kernel, "nokaslr kpti=0 vmalloc=600M", arch)
    (line,) = lines_with(machine, "Unknown ")
    assert unknown == line.partition("parameters")[2].strip(': "').partition('"')[0]


@pytest.mark.parametrize(
    ("lines", "areas"),
    [
        ((), 5),  # the board's
        (("CMA_DEBUG=y",), 5),
        (("CMA_AREAS=9",), 9),
        (("tiny",), None),  # a set is the whole configuration
        (("CMA_DEBUG=y", "tiny"), None),
        (("# Automatically generated file; DO NOT EDIT.", "CONFIG_CMA=y", "CONFIG_CMA_AREAS=3"), 3),
    ],
)
def test_a_board_s_configuration_stands_where_no_set_is_named(
    lines: tuple[str, ...], areas: int | None
) -> None:
    board = ("CMA_AREAS=5", "CMA_SYSFS=n")
    found = parse_config(lines, "arm64", kernel_abi("6.12"), board)
    alone = parse_config(lines, "arm64", kernel_abi("6.12"))
    assert found.number("CMA_AREAS") == (areas or alone.number("CMA_AREAS")) != (5 if areas is None else 0)


ARM64_LOG = """
Linux version 6.1.192 (root@localhost) #1 SMP PREEMPT
Reserved memory: created CMA memory pool at 0x0000000060000000, size 4 MiB
OF: reserved mem: initialized node p, compatible id shared-dma-pool
NUMA: No NUMA configuration found
NUMA: Faking a node at [mem 0x0000000040000000-0x000000007fffffff]
Zone ranges:
  DMA      [mem 0x0000000040000000-0x000000007fffffff]
  Normal   empty
  Device   empty
Movable zone start for each node
  Node 0: 0x0000000070000000
Early memory node ranges
  node   0: [mem 0x0000000040000000-0x000000007fffffff]
Initmem setup node 0 [mem 0x0000000040000000-0x000000007fffffff]
Built 1 zonelists, mobility grouping on.  Total pages: 258048
Policy zone: DMA
Kernel command line: cma=0 movablecore=256M
DMA: preallocated 128 KiB GFP_KERNEL pool for atomic allocations
DMA: preallocated 128 KiB GFP_KERNEL|GFP_DMA pool for atomic allocations
Run /init as init process
  with arguments:
    /init
  with environment:
    HOME=/
    TERM=linux
"""
X86_LOG = """
Linux version 7.2.13 (root@localhost) #1 SMP PREEMPT
Command line: cma=0 foo x=1 init=/bin/sh
Zone ranges:
  DMA32    [mem 0x0000000000100000-0x000000007fffffff]
  Normal   empty
Movable zone start for each node
Early memory node ranges
  node   0: [mem 0x0000000000100000-0x000000007fffffff]
Initmem setup node 0 [mem 0x0000000000100000-0x000000007fffffff]
Kernel command line: cma=0 foo x=1 init=/bin/sh
Unknown kernel command line parameters "foo x=1", will be passed to user space.
Built 1 zonelists, mobility grouping on.  Total pages: 524032
Policy zone: DMA32
Run /bin/sh as init process
  with arguments:
    /bin/sh
    foo
  with environment:
    HOME=/
    TERM=linux
    x=1
"""
ARM_LOG = """
Linux version 5.10.223 (root@localhost) #1 SMP PREEMPT
cma: dma_contiguous_reserve(limit ffffffff)
cma: dma_contiguous_reserve: reserving 8 MiB for global area
cma: cma_declare_contiguous_nid(size 0x00800000, base 0x00000000, limit 0xffffffff alignment 0x00000000)
cma: Reserved 8 MiB at 0x8f800000
Zone ranges:
  Normal   [mem 0x0000000040000000-0x000000006fffffff]
  HighMem  [mem 0x0000000070000000-0x000000008fffffff]
Movable zone start for each node
Early memory node ranges
  node   0: [mem 0x0000000040000000-0x000000008fffffff]
Initmem setup node 0 [mem 0x0000000040000000-0x000000008fffffff]
On node 0 totalpages: 327680
  Normal zone: 1536 pages used for memmap
  Normal zone: 0 pages reserved
  Normal zone: 196608 pages, LIFO batch:63
  HighMem zone: 131072 pages, LIFO batch:31
Built 1 zonelists, mobility grouping on.  Total pages: 326144
Kernel command line: cma=8M
cma: cma_alloc(cma (ptrval), count 64, align 6)
cma: cma_alloc(): returned (ptrval)
DMA: preallocated 256 KiB pool for atomic coherent allocations
Run /init as init process
  with arguments:
    /init
  with environment:
    HOME=/
    TERM=linux
"""
POOL_OF_4M = 'p { compatible = "shared-dma-pool"; reusable; reg = <0 0x60000000 0 0x400000>; };'


@pytest.mark.parametrize(
    ("tree", "kernel", "arch", "cmdline", "config", "log"),
    [
        (
            tree_of(POOL_OF_4M),
            "6.1",
            "arm64",
            "cma=0 movablecore=256M",
            ("NUMA=y", "ZONE_DMA=y", "ZONE_DEVICE=y", "CMA_DEBUG=n"),
            ARM64_LOG,
        ),
        (pc((M, 2047 * M)), "7.2", "x86_64", "cma=0 foo x=1 init=/bin/sh", ("NUMA=y",), X86_LOG),
        (arm_tree(memory="0x40000000 0x50000000"), "5.10", "arm", "cma=8M", ("HIGHMEM=y",), ARM_LOG),
    ],
    ids=["arm64", "x86_64", "arm"],
)
def test_a_whole_log(
    tree: DeviceTree, kernel: str, arch: str, cmdline: str, config: tuple[str, ...], log: str
) -> None:
    """Every line in its place but the figures of ``Memory:``, which the recorded boots compare."""
    lines = boot(tree, kernel, cmdline, arch, config).log.lines()
    assert [line for line in lines if not line.startswith("Memory: ")] == log.strip("\n").splitlines()


@pytest.mark.parametrize(
    ("kernel", "arch", "config", "cmdline", "lines", "pages"),
    [
        ("4.19", "arm64", (), "", ["256 KiB pool for atomic allocations"], [64]),
        ("4.19", "arm64", (), "coherent_pool=5K", ["5 KiB pool for atomic allocations"], [1]),
        ("4.19", "arm64", (), "coherent_pool=1K", ["1 KiB pool for atomic allocations"], [1]),
        ("4.19", "arm64", (), "coherent_pool=3M", ["3072 KiB pool for atomic allocations"], [768]),
        ("6.12", "arm", (), "", ["256 KiB pool for atomic coherent allocations"], [64]),
        ("6.12", "x86_64", (), "", [], []),
        ("6.12", "arm64", (), "", ["128 KiB GFP_KERNEL pool for atomic allocations"], [32]),
        ("6.12", "arm64", (), "coherent_pool=5K", ["8 KiB GFP_KERNEL pool for atomic allocations"], [2]),
        (
            "6.12",
            "arm64",
            (),
            "coherent_pool=9M",
            ["4096 KiB GFP_KERNEL pool for atomic allocations"],
            [1024],
        ),
        (
            "6.12",
            "arm64",
            ("ZONE_DMA=y", "ZONE_DMA32=y"),
            "coherent_pool=64K",
            [
                "64 KiB GFP_KERNEL pool for atomic allocations",
                "64 KiB GFP_KERNEL|GFP_DMA pool for atomic allocations",
                "64 KiB GFP_KERNEL|GFP_DMA32 pool for atomic allocations",
            ],
            [16, 16, 16],
        ),
    ],
)
def test_pools_for_atomic_allocations(
    kernel: str, arch: str, config: tuple[str, ...], cmdline: str, lines: list[str], pages: list[int]
) -> None:
    """kernel/dma/pool.c:__dma_atomic_pool_init()@v6.12, arch/arm/mm/dma-mapping.c:atomic_pool_init()@v6.12,
    arch/arm64/mm/dma-mapping.c:atomic_pool_init()@v4.19
    """
    machine = boot(tree_of(), kernel, f"cma=32M {cmdline}", arch, config)
    assert lines_with(machine, "preallocated") == [f"DMA: preallocated {line}" for line in lines]
    assert [pool.size for pool in machine.atomic_pools] == pages
    assert machine.cma[0].used() == sum(pages)


@pytest.mark.parametrize(
    ("memory", "kib"), [(G, 128), (2 * G, 256), (3 * G, 512), (3 * G // 2, 256), (40 * G, 4096)]
)
def test_the_atomic_pool_has_128_kib_for_each_gib(memory: int, kib: int) -> None:
    """kernel/dma/pool.c:dma_atomic_pool_init()@v6.12: of pages in the allocator, rounded up to an order."""
    machine = boot(tree_of(memory=f"<0 0x40000000 {memory >> 32:#x} {memory & 0xFFFFFFFF:#x}>"), "6.12")
    assert lines_with(machine, "preallocated") == [
        f"DMA: preallocated {kib} KiB GFP_KERNEL pool for atomic allocations"
    ]


@pytest.mark.parametrize("words", ["hugepagesz", "hugepagesz=", "default_hugepagesz", "hugepagesz=1"])
def test_a_page_size_that_is_none_asks_for_no_gigantic_pages(words: str) -> None:
    machine = boot(tree_of(memory=SIX_GIB), "7.2", f"cma=0 hugetlb_cma=1G {words}")
    assert lines_with(machine, "HugeTLB") == []


def test_what_drivers_find_once_the_machine_is_up() -> None:
    """Areas of a node, heaps, devices."""
    config = ("DMABUF_HEAPS=y", "DMABUF_HEAPS_SYSTEM=y", "DMABUF_HEAPS_CMA=y")
    tree = parse_dts(NUMA)
    soc = 'compatible = "simple-bus"; ranges; #address-cells = <2>; #size-cells = <2>;'
    device = 'u@1000 { compatible = "x"; reg = <0 0x1000 0 4>; };'
    tree.root.append(parse_dts(f"/dts-v1/; / {{ soc {{ {soc} {device} }}; }};").root.children["soc"])
    tree.root.append(DeviceNode("chosen", {"cmafs,boot-allocations": cells(3, 5)}))
    machine = boot(tree, "6.12", "cma=16M numa_cma=1:32M cma_pernuma=8M coherent_pool=4K", config=config)
    found = {key: cma.name for key, cma in machine.cma.node_areas.items()}
    assert found == {("pernuma", 0): "pernuma0", ("pernuma", 1): "pernuma1", ("numa", 1): "numa1"}
    assert list(machine.dma_heaps) == ["system", "reserved"]
    assert list(machine.devices) == ["soc", "1000.u"]
    assert machine.cma.default is not None and machine.cma.default.used() == 1 + 3 + 5


@pytest.mark.parametrize(
    ("kernel", "arch", "line", "said"),
    [
        (
            "6.12",
            "arm64",
            "ARCH_FORCE_MAX_ORDER=16",
            "orders go up to 16: this kernel compiles with 15 at most",
        ),
        (
            "5.10",
            "arm64",
            "FORCE_MAX_ZONEORDER=20",
            "orders go up to 19: this kernel compiles with 18 at most",
        ),
        (
            "6.12",
            "arm",
            "ARCH_FORCE_MAX_ORDER=52",
            "orders go up to 52: this kernel compiles with 20 at most",
        ),
        ("7.2", "arm64", "PAGE_BLOCK_MAX_ORDER=11", "CONFIG_PAGE_BLOCK_MAX_ORDER is from 1 to 10"),
    ],
)
def test_orders_that_no_kernel_compiles_with(kernel: str, arch: str, line: str, said: str) -> None:
    """include/linux/mmzone.h: a section holds the largest block, and that a page block (mm/Kconfig@v7.2)."""
    with pytest.raises(ConfigError) as refused:
        parse_config([line], arch, kernel_abi(kernel))
    assert str(refused.value) == said
