"""32-bit ARM: how far bus masters and the linear map reach, what vmalloc= and mem= make of that.

Modules: cmafs.arch.arm.
"""

from __future__ import annotations

import pytest
from boot_support import areas, arm_tree, boot, lines_with, parse_dts

from cmafs.lib.boot_event import BootEvent

M, G = 1 << 20, 1 << 30
HIGHMEM = "HIGHMEM=y"


def regions(cmdline: str, *config: str, memory: str = "0x40000000 0xa0000000") -> list[tuple[int, int]]:
    """(base, end) of memory after boot."""
    machine = boot(arm_tree(memory=memory), "6.12", f"cma=0 {cmdline}", "arm", config)
    return [(region.base, region.end) for region in machine.memblock.memory]


@pytest.mark.parametrize(
    ("compatible", "reach"),
    [
        ("brcm,bcm2711", G),  # arch/arm/mach-bcm/bcm2711.c:BCM2711@v6.12
        ("ti,omap5", 2 * G),  # arch/arm/mach-omap2/board-generic.c:OMAP5_DT@v6.12
        ("ti,dra7", 2 * G),  # arch/arm/mach-omap2/board-generic.c:DRA74X_DT@v6.12
        ("ti,keystone", 2 * G),  # arch/arm/mach-keystone/keystone.c:KEYSTONE@v6.12
        ("calxeda,highbank", 4 * G),  # arch/arm/mach-highbank/highbank.c:HIGHBANK@v6.12
        ("calxeda,ecx-2000", 4 * G),
        ("arm,realview-eb", 256 * M),  # arch/arm/mach-versatile/realview.c:REALVIEW_DT@v6.12
        ("arm,realview-pb1176", 256 * M),
        ("arm,realview-pba8", 256 * M),
        ("arm,realview-pbx", 256 * M),
        ("arm,vexpress", None),  # no dma_zone_size: arm_dma_limit is the last 32-bit address
    ],
)
@pytest.mark.parametrize("base", [0, G])
def test_the_default_area_lies_where_bus_masters_reach(compatible: str, reach: int | None, base: int) -> None:
    """dma_contiguous_reserve() gets the last address, so that an area ends a step of 2 MiB below it
    (arch/arm/mm/init.c:setup_dma_zone()@v6.12); where it may lie above 4 GiB, it begins there.
    """
    tree = parse_dts(
        f"""/dts-v1/; / {{ #address-cells = <2>; #size-cells = <2>; compatible = "{compatible}";
        memory@0 {{ device_type = "memory"; reg = <0 {base:#x} 2 0>; }}; }};"""
    )
    config = ("ARM_LPAE=y", HIGHMEM)
    with_zone = boot(tree, "6.12", "cma=16M", "arm", (*config, "ZONE_DMA=y"))
    last = base + reach - 1 if reach else 4 * G - 1
    start = last // (2 * M) * 2 * M - 16 * M
    assert areas(with_zone) == [("reserved", start if last < 4 * G else 4 * G, 16 * M)]
    assert with_zone.zone_dma_limit == last
    without = boot(tree, "6.12", "cma=16M", "arm", (*config, "ZONE_DMA=n"))
    assert areas(without) == [("reserved", 0xFEE00000, 16 * M)]


@pytest.mark.parametrize(
    ("split", "most", "default_end"),
    [
        ("VMSPLIT_1G", 3024, None),  # PAGE_OFFSET 0x40000000 (arch/arm/Kconfig@v6.12)
        ("VMSPLIT_2G", 2000, 0xB0000000),
        ("VMSPLIT_3G_OPT", 1232, 0x80000000),
        ("VMSPLIT_3G", 976, 0x70000000),
    ],
)
def test_what_vmalloc_leaves_for_low_memory(split: str, most: int, default_end: int | None) -> None:
    """arch/arm/mm/mmu.c:early_vmalloc()@v6.12: 16 MiB at least, 32 MiB of low memory stay; the linear map
    ends 8 MiB below the vmalloc area, which ends at 0xff800000.
    """

    def low(cmdline: str) -> tuple[list[str], int | None]:
        machine = boot(
            arm_tree(memory="0x40000000 0xa0000000"), "6.12", cmdline, "arm", (f"{split}=y", HIGHMEM)
        )
        high = lines_with(machine, "  HighMem ")[0].split("0x")
        lines = [line for line in machine.log.lines() if line.startswith("vmalloc")]
        return lines, int(high[1].split("-")[0], 16) if len(high) > 1 else None

    big = f"vmalloc area is too big, limiting to {most}MiB"
    assert low("vmalloc=3900M") == ([big], 0x42000000)
    assert low(f"vmalloc={most}M") == ([], 0x42000000)
    assert low(f"vmalloc={(most << 20) + 1}") == ([big], 0x42000000)
    assert low(f"vmalloc={most - 2}M") == ([], 0x42200000)
    assert low("") == ([], default_end)
    small = low("vmalloc=16M")
    assert low(f"vmalloc={16 * M - 1}") == (["vmalloc area is too small, limiting to 16MiB"], small[1])
    assert low("vmalloc") == (["vmalloc area is too small, limiting to 16MiB"], small[1])
    assert low("vmalloc=4G") == low("vmalloc=0")  # an unsigned long
    assert small[0] == [] and (small[1] is None or small[1] - (default_end or 0) in (224 * M, small[1]))


def test_memory_beyond_low_memory_without_highmem() -> None:
    """arch/arm/mm/mmu.c:adjust_lowmem_bounds()@v6.12"""
    machine = boot(arm_tree(memory="0x40000000 0xa0000000"), "6.12", "cma=0", "arm", ("HIGHMEM=n",))
    assert lines_with(machine, "RAM", "HIGHMEM")[:2] == [
        "Ignoring RAM at 0x70000000-0xe0000000",
        "Consider using a HIGHMEM enabled kernel.",
    ]
    assert regions("", "HIGHMEM=n") == [(0x40000000, 0x70000000)]
    assert regions("", HIGHMEM) == [(0x40000000, 0xE0000000)]
    whole = boot(arm_tree(memory="0x40000000 0x30000000"), "6.12", "cma=0", "arm", ("HIGHMEM=n",))
    assert lines_with(whole, "RAM at", "HIGHMEM") == []


@pytest.mark.parametrize(
    ("cmdline", "found"),
    [
        ("mem=32M", [(0x40000000, 0x42000000)]),  # from where memory began
        ("mem=64M@0x50000000 mem=32M", [(0x40000000, 0x42000000), (0x50000000, 0x54000000)]),
        ("mem=64M@0xf0000000", [(0xF0000000, 0xF4000000)]),  # memory or not
        ("mem mem=", [(0x40000000, 0xE0000000)]),
        ("mem=32775K", [(0x40000000, 0x42001000)]),
    ],
)
def test_memory_of_the_command_line_takes_the_place_of_the_tree(
    cmdline: str, found: list[tuple[int, int]]
) -> None:
    """arch/arm/kernel/setup.c:early_mem()@v6.12"""
    assert regions(cmdline, HIGHMEM) == found
    if "@" in cmdline and " " not in cmdline:  # nothing of memory at 0 stays either
        assert regions(cmdline, HIGHMEM, memory="0 0x20000000") == found


@pytest.mark.parametrize(
    ("base", "size", "reasons"),
    [
        (0x50000000, 2 * M, ["size-misaligned"]),
        (0x50000000, M, ["remap-unmaps", "size-misaligned"]),
        (0x50000000, 3 * M, ["remap-unmaps", "size-misaligned"]),
        (0x50100000, M, ["remap-unmaps", "base-misaligned"]),
        (0x50100000, 3 * M, ["remap-unmaps", "base-misaligned"]),
        (0x5FE00000, 2 * M, ["base-misaligned"]),
        (0x50000000, 4 * M, []),
    ],
)
def test_what_remapping_in_steps_of_2_mib_leaves_unmapped(base: int, size: int, reasons: list[str]) -> None:
    """arch/arm/mm/dma-mapping.c:dma_contiguous_remap()@v6.12: also areas that CMA then refuses."""
    pool = f'a {{ compatible = "shared-dma-pool"; reusable; reg = <{base:#x} {size:#x}>; }};'
    events = boot(arm_tree(pool), "6.12", "cma=0", "arm").boot_events
    assert [event.reason for event in events] == reasons
    if reasons and reasons[0] == "remap-unmaps":
        span = f"{base:#x}-{base + size - 1:#x}"
        assert events[0] == BootEvent("/reserved-memory/a", "remap-unmaps", "note", "reg", span)


@pytest.mark.parametrize(
    ("banks", "limit"),
    [
        (((0x40000000, 0x10000000), (0x58000000, 0x8000000)), 0x60000000),
        (((0x40000000, 0x10100000), (0x58000000, 0x8100000)), 0x50000000),  # the first odd end counts
        (((0x40000000, 0x10000000), (0x58000000, 0x8100000)), 0x60000000),
        (((0x40000000, 0x10000000), (0x58100000, 0x8100000)), 0x58000000),  # or the first odd begin
        (((0x40000000, 0x10000000), (0x80000000, 0x8100000)), 0x50000000),  # high memory does not
        (((0x40000000, 0x40100000),), 0x70000000),
        (((0x40000000, 0x10000000), (0x70000000, 0x8100000)), 0x50000000),  # nor what begins there
        (((0x40000000, 0x10000000), (0x6FE00000, 0x8100000)), 0x70000000),
    ],
)
def test_memblock_may_allocate_up_to_a_whole_pmd(banks: tuple[tuple[int, int], ...], limit: int) -> None:
    """arch/arm/mm/mmu.c:adjust_lowmem_bounds()@v6.12: memblock_set_current_limit()."""
    memory = " ".join(f"{base:#x} {size:#x}" for base, size in banks)
    machine = boot(arm_tree(memory=memory), "6.12", "cma=0", "arm", (HIGHMEM,))
    assert machine.memblock.current_limit == limit


@pytest.mark.parametrize("bases", [(0x50000000, 0x50400000), (0x50400000, 0x50000000)])
def test_areas_side_by_side_are_mapped_again(bases: tuple[int, int]) -> None:
    """arch/arm/mm/dma-mapping.c:dma_contiguous_remap()@v6.12, in the order of the tree."""
    nodes = "".join(
        f'p{base:x} {{ compatible = "shared-dma-pool"; reusable; reg = <{base:#x} 0x400000>; }};'
        for base in bases
    )
    machine = boot(arm_tree(nodes), "6.12", "cma=0", "arm")
    assert areas(machine) == [(f"p{base:x}", base, 4 * M) for base in bases]
    assert machine.boot_events == []


@pytest.mark.parametrize(
    ("arch", "config", "high"),
    [("arm", HIGHMEM, 0x70000), ("arm", "HIGHMEM=n", None), ("arm64", "NUMA=n", None)],
)
def test_where_high_memory_begins(arch: str, config: str, high: int | None) -> None:
    tree = arm_tree(memory="0x40000000 0x50000000")
    assert boot(tree, "6.12", "cma=0", arch, (config,)).memory.layout.high_pfn == high
