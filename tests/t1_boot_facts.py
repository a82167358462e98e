"""Figures, notes and choices of a boot, each by a fact from elsewhere than the code that makes it.

Modules: cmafs.arch.arm, cmafs.arch.boot_alloc, cmafs.arch.iomem, cmafs.arch.swiotlb, cmafs.arch.zones,
cmafs.lib.kconfig.
"""

from __future__ import annotations

import re
from pathlib import Path

import dts_support as dts
import pytest
from boot_support import arm_tree, boot, cells, lines_with, tree_of

from cmafs.abi import kernel_abi
from cmafs.init.machine import BootedMachine
from cmafs.lib.boot_event import BootEvent
from cmafs.lib.clock import ManualClock
from cmafs.lib.cmdline import parse_early_params
from cmafs.lib.kconfig import ConfigError, parse_config
from cmafs.lib.panic import KernelPanic
from cmafs.lib.printk import Printk
from cmafs.mm.early import EarlyMm
from cmafs.mm.memblock import Memblock
from cmafs.of.base import DtError
from cmafs.of.fdt import load

M = 1 << 20


def reserved(kernel: str, cmdline: str, arch: str, config: tuple[str, ...] = ()) -> int:
    """Bytes."""
    regions = boot(tree_of(), kernel, f"cma=0 {cmdline}", arch, config).memblock.reserved
    return sum(region.size for region in regions)


@pytest.mark.parametrize(
    ("kernel", "arch", "more"),
    [
        ("5.4", "arm64", M),
        ("5.10", "arm64", M + (M >> 5) * (24 + 88)),  # prb_desc, printk_info: one for 32 bytes of text
        ("6.12", "arm64", M + (M >> 5) * (24 + 88)),
        ("6.12", "x86_64", 0),  # taken before memory is dumped
    ],
)
def test_what_a_larger_log_takes(kernel: str, arch: str, more: int) -> None:
    """kernel/printk/printk.c:setup_log_buf()@v6.12, PRB_AVGBITS"""
    assert reserved(kernel, "log_buf_len=1M", arch) - reserved(kernel, "", arch) == more
    assert reserved(kernel, "log_buf_len=256K", arch) - reserved(kernel, "", arch) == more // 4
    for no_larger in ("64K", "128K"):
        assert reserved(kernel, f"log_buf_len={no_larger}", arch) == reserved(kernel, "", arch)


def test_hash_tables_of_several_nodes_come_from_vmalloc() -> None:
    """mm/mm_init.c:alloc_large_system_hash()@v6.12, hashdist; every node takes its struct pglist_data."""
    config = ("NUMA=y", "NUMA_EMU=y")
    one, two, three = (reserved("6.12", f"numa=fake={nodes}", "arm64", config) for nodes in (1, 2, 3))
    assert one - two + (three - two) == M + M // 2


def not_info(machine: BootedMachine) -> list[str]:
    """The lines of any other level than INFO, as /dev/kmsg tells it."""
    return [f"<{record.level}>{record.text}" for record in machine.log.records() if record.level != 6]


IN_THE_IMAGE = "fw { no-map; reg = <0 0x40000000 0 0x400000>; };"
NO_ROOM = 'd { compatible = "shared-dma-pool"; reusable; size = <1 0>; };'
FAILED = [
    "Reserved memory: failed to reserve memory for node 'fw': base 0x0000000040000000, size 4 MiB",
    "failed to allocate memory for node 'd'",
]
DEFAULT = (
    'p { compatible = "shared-dma-pool"; reusable; linux,cma-default; reg = <0 0x60000000 0 0x400000>; };'
)


@pytest.mark.parametrize(
    ("kernel", "reserved_memory", "cmdline", "lines"),
    [
        ("5.10", IN_THE_IMAGE + NO_ROOM, "cma=0", []),
        (
            "6.1",
            IN_THE_IMAGE + NO_ROOM,
            "cma=0",
            [f"<3>OF: fdt: {FAILED[0]}", f"<3>OF: reserved mem: {FAILED[1]}: size 4096 MiB"],
        ),
        ("6.12", DEFAULT, "cma=8M", []),
        (
            "7.2",
            DEFAULT,
            "cma=8M",
            ['<3>Skipping dt linux,cma-default node in favor for "cma=" kernel param.'] * 2,
        ),
        ("6.12", "", "cma=0 numa=fake=17", []),
    ],
)
def test_levels_of_lines(kernel: str, reserved_memory: str, cmdline: str, lines: list[str]) -> None:
    """init/main.c, drivers/of/fdt.c, drivers/of/of_reserved_mem.c, kernel/dma/contiguous.c: V 5.10 to 7.2."""
    config = ("NUMA=y", "NUMA_EMU=y")
    machine = boot(tree_of(reserved_memory), kernel, cmdline, config=config)
    found = not_info(machine)
    first = f"<5>Linux version {kernel_abi(kernel).release} (root@localhost) #1 SMP PREEMPT"
    assert found[0] == first
    command = found.index(f"<5>Kernel command line: {cmdline}")
    assert [line for line in found[1:command] if line[1] != "7"] == lines
    assert {line[1] for line in found[command + 1 :]} <= {"7"}
    assert ("numa=fake=17 too large, reducing to 16" in machine.log.lines()) == ("17" in cmdline)


@pytest.mark.parametrize(
    ("pools", "note"),
    [
        (
            [("a", 0x50100000, 4 * M)],
            ("/reserved-memory/a", "remap-hangs", "panic", "reg", "0x50100000-0x504fffff"),
        ),
        (
            [("a", 0x50000000, 16 * M), ("b", 0x50800000, 16 * M)],
            ("/reserved-memory/b", "remap-overlaps", "panic", "reg", "0x50800000-0x517fffff"),
        ),
    ],
)
def test_notes_of_areas_that_32_bit_arm_cannot_map_again(
    pools: list[tuple[str, int, int]], note: tuple[str, str, str, str, str]
) -> None:
    """arch/arm/mm/dma-mapping.c:dma_contiguous_remap()@v6.12"""
    body = "".join(
        f'{name} {{ compatible = "shared-dma-pool"; reusable; reg = <{base:#x} {size:#x}>; }};'
        for name, base, size in pools
    )
    with pytest.raises(KernelPanic) as panic:
        boot(arm_tree(body), "6.12", "cma=0", "arm")
    assert panic.value.events[-1] == BootEvent(*note)


@pytest.mark.parametrize(
    ("base", "note"),
    [
        (0x500FF000, [("remap-unmaps", "0x500ff000-0x500fffff")]),
        (0x50100000, []),  # where memory ends
        (0x50101000, []),
    ],
)
def test_what_lies_above_low_memory_is_not_mapped_again(base: int, note: list[tuple[str, str]]) -> None:
    """arch/arm/mm/dma-mapping.c:dma_contiguous_remap()@v6.12: also regions that are refused later."""
    node = f'a {{ compatible = "shared-dma-pool"; reusable; reg = <{base:#x} 0x400000>; }};'
    events = boot(arm_tree(node, memory="0x40000000 0x10100000"), "6.12", "cma=0", "arm").boot_events
    assert [(event.reason, event.detail) for event in events[:-1]] == note
    assert events[-1].reason == "base-misaligned"


@pytest.mark.parametrize(("kernel", "there"), [("5.4", False), ("5.10", True), ("6.1", True), ("6.6", False)])
def test_a_symbol_is_gone_from_the_release_that_renamed_it(kernel: str, there: bool) -> None:
    """kernel/dma/Kconfig: DMA_PERNUMA_CMA of 5.10 is DMA_NUMA_CMA from 6.6 on."""
    config = parse_config(("NUMA=y", "DMA_PERNUMA_CMA=y"), "arm64", kernel_abi(kernel))
    assert config.on("DMA_PERNUMA_CMA") == there


SPLITS = ("VMSPLIT_3G", "VMSPLIT_3G_OPT", "VMSPLIT_2G", "VMSPLIT_1G")


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        ((), "VMSPLIT_3G"),
        (("VMSPLIT_2G=y", "VMSPLIT_1G=y"), "VMSPLIT_1G"),
        (("VMSPLIT_1G=y", "VMSPLIT_2G=y"), "VMSPLIT_2G"),
        (("VMSPLIT_1G=y", "VMSPLIT_2G=y", "VMSPLIT_2G=n"), "VMSPLIT_1G"),
        (("VMSPLIT_3G=n",), "VMSPLIT_3G_OPT"),
        (("VMSPLIT_3G=n", "VMSPLIT_3G_OPT=n"), "VMSPLIT_2G"),
        (("VMSPLIT_3G=n", "VMSPLIT_1G=y"), "VMSPLIT_1G"),
        (("VMSPLIT_3G=n", "VMSPLIT_3G_OPT=n", "VMSPLIT_2G=n", "VMSPLIT_1G=n"), "VMSPLIT_3G"),
        (("ARM_LPAE=y", "VMSPLIT_3G_OPT=y"), "VMSPLIT_3G"),  # depends on !ARM_LPAE: arch/arm/Kconfig@v6.12
        (("ARM_LPAE=y", "VMSPLIT_3G_OPT=y", "VMSPLIT_2G=y"), "VMSPLIT_2G"),
        (("ARM_LPAE=y", "VMSPLIT_3G=n"), "VMSPLIT_2G"),
    ],
)
def test_of_a_choice_one_member_is_on(lines: tuple[str, ...], chosen: str) -> None:
    config = parse_config(("tiny", *lines), "arm", kernel_abi("6.12"))
    assert [name for name in SPLITS if config.on(name)] == [chosen]


@pytest.mark.parametrize(("text", "value"), [("2", 2), ("12", 12), ("0xc", 12), ("08", 8), ('"9"', 9)])
def test_numbers_within_their_range(text: str, value: int) -> None:
    config = parse_config((f"CMA_ALIGNMENT={text}",), "arm64", kernel_abi("6.12"))
    assert config.number("CMA_ALIGNMENT") == value


@pytest.mark.parametrize("text", ["1", "13", str((1 << 64) + 4), "-4", "4k", "0x", ""])
def test_numbers_out_of_their_range(text: str) -> None:
    with pytest.raises(ConfigError, match="CONFIG_CMA_ALIGNMENT is"):
        parse_config((f"CMA_ALIGNMENT={text}",), "arm64", kernel_abi("6.12"))


@pytest.mark.parametrize(
    ("arch", "config", "last", "shown"),
    [
        ("arm", (), 0xFFFFFFFF, "0x40000000"),
        ("arm", ("ARM_LPAE=y",), (1 << 64) - 1, "0x0000000140000000"),
        ("arm64", (), (1 << 64) - 1, "0x0000000140000000"),
    ],
)
def test_how_far_physical_addresses_go(arch: str, config: tuple[str, ...], last: int, shown: str) -> None:
    """include/linux/types.h:phys_addr_t@v6.12; what %pa prints of one."""
    abi = kernel_abi("6.12")
    early = EarlyMm(
        abi=abi,
        config=parse_config(("tiny", *config), arch, abi),
        params=parse_early_params("", False),
        log=Printk(ManualClock()),
        memblock=Memblock(),
    )
    assert (early.phys_mask, early.pa(0x140000000)) == (last, shown)


def test_what_an_overlay_does_not_find_is_not_blamed_on_plugin(tmp_path: Path) -> None:
    file = dts.write(tmp_path, "o.dts", "/dts-v1/;\n/plugin/;\n/ { };\n/delete-node/ &nope;\n")
    with pytest.raises(DtError) as refused:
        load(file)
    assert str(refused.value) == f"{file}:4:15: Label or path nope not found"


def zones(root: str, *config: str) -> list[str]:
    machine = boot(
        arm_tree(memory="0x40000000 0x50000000", root=root), "6.12", "cma=0", "arm", (*config, "HIGHMEM=y")
    )
    lines = machine.log.lines()
    first = lines.index("Zone ranges:") + 1
    return lines[first : lines.index("Movable zone start for each node")]


def zone(name: str, start: int, end: int) -> str:
    where = f"[mem {start:#018x}-{end - 1:#018x}]" if start < end else "empty"
    return f"  {name:8} {where}"


@pytest.mark.parametrize(
    ("root", "dma_end"),
    [("arm,realview-eb", 0x50000000), ("brcm,bcm2711", 0x70000000), ("arm,vexpress", 0x70000000)],
)
def test_zones_of_32_bit_arm(root: str, dma_end: int) -> None:
    """arch/arm/mm/init.c:zone_sizes_init(), setup_dma_zone()@v6.12: 256 MiB, 1 GiB, all of low memory."""
    low, end = 0x70000000, 0x90000000
    high = zone("HighMem", low, end)
    assert zones(root, "ZONE_DMA=n") == [zone("Normal", 0x40000000, low), high]
    assert zones(root, "ZONE_DMA=y") == [zone("DMA", 0x40000000, dma_end), zone("Normal", dma_end, low), high]


@pytest.mark.parametrize(
    ("beyond", "config", "there"),
    [
        ("", "ARM_LPAE=y", False),
        ("1 0 0 0x1000", "ARM_LPAE=y", True),
        ("1 0 0 0x40000000", "ARM_LPAE=y", True),
        ("1 0 0 0x40000000", "ARM_LPAE=n", False),
    ],
)
def test_32_bit_arm_bounces_only_what_lies_beyond_4_gib(beyond: str, config: str, there: bool) -> None:
    """arch/arm/mm/init.c:mem_init()@v6.12: swiotlb_init(max_pfn > arm_dma_pfn_limit, ...)"""
    machine = boot(
        tree_of(memory=f"<0 0x40000000 0 0xc0000000 {beyond}>"), "6.12", "cma=0", "arm", (config, "HIGHMEM=y")
    )
    mapped = lines_with(machine, "software IO TLB: mapped")
    assert (len(mapped) == 1) == there
    for line in mapped:  # memblock_alloc_low(): below memblock.current_limit, which is the end of low memory
        assert int(re.findall(r"0x\w+", line)[1], 16) <= 0x70000000


def test_the_kernel_stands_in_one_bank_of_iomem() -> None:
    """arch/x86/kernel/setup.c:setup_arch()@v6.12: its parts are children of the memory that holds them."""
    banks = "<0 0 0 0x9f000 0 0x100000 0 0x7ff00000 1 0 0 0x40000000>"
    tree = tree_of(memory=banks, head="/memreserve/ 0x1000000 0xc00000;")
    resources = boot(tree, "6.12", "cma=0", "x86_64").iomem
    assert [(ram.start, ram.end, ram.name) for ram in resources][-2:] == [
        (0x100000, 0x7FFFFFFF, "System RAM"),
        (0x100000000, 0x13FFFFFFF, "System RAM"),
    ]
    kernel = ["Kernel code", "Kernel rodata", "Kernel data", "Kernel bss"]
    assert [child.name for ram in resources for child in ram.children] == kernel
    assert [child.name for child in resources[-2].children] == kernel


def test_reservations_reach_from_end_to_end_of_a_bank_of_iomem() -> None:
    """arch/arm64/kernel/setup.c:reserve_memblock_reserved_regions()@v6.12"""
    pools = "".join(
        f"p{i} {{ reg = <0 {base:#x} 0 {size:#x}>; }};"
        for i, (base, size) in enumerate([(0x7FFFF000, 0x1000), (0x90000000, 0x1000), (0x9FFFE000, 0x2000)])
    )
    tree = tree_of(pools, "<0 0x40000000 0 0x40000000 0 0x90000000 0 0x10000000 0 0xb0000000 0 0x4000000>")
    low, middle, _ = boot(tree, "6.12", "cma=16M@0xb1000000").iomem
    taken = [[(child.start, child.end) for child in ram.children] for ram in (low, middle)]
    assert taken[0][-1] == (0x7FFFF000, 0x7FFFFFFF)
    assert taken[1] == [(0x90000000, 0x90000FFF), (0x9FFFE000, 0x9FFFFFFF)]
    assert [child.name for child in low.children][:2] == ["Kernel code", "Kernel data"]


@pytest.mark.parametrize("kernel", ["6.12", "7.2"])
def test_every_reserved_region_takes_its_entry(kernel: str) -> None:
    """drivers/of/of_reserved_mem.c:alloc_reserved_mem_array()@v6.12: of as many as there are, whether
    the tree or the kernel has placed them.
    """

    def taken(*bodies: str) -> int:
        nodes = "".join(f"p{i} {{ {body} }};" for i, body in enumerate(bodies))
        return sum(region.size for region in boot(tree_of(nodes), kernel, "cma=0").memblock.reserved)

    placed = [f"reg = <0 {base:#x} 0 0x1000000>;" for base in (0x50000000, 0x60000000, 0x70000000)]
    anywhere = "size = <0 0x1000000>;"
    assert taken(anywhere) == taken(placed[0])
    assert taken(anywhere, placed[1], anywhere) == taken(*placed)
    assert taken(anywhere, anywhere, anywhere) == taken(*placed)
    other = taken(placed[0], "no-reg;")
    assert taken(placed[0], "reg = <0>;") == other
    assert taken(placed[0], "reg;") == (taken(*placed[:2]) - 16 * M if kernel == "6.12" else other)


@pytest.mark.parametrize(("arch", "start"), [("arm64", 0x40200000), ("arm", 0x40008000)])
def test_the_kernel_in_iomem_has_its_sizes(arch: str, start: int) -> None:
    """arch/arm64/kernel/setup.c:request_standard_resources()@v6.12: code ends where init begins, data
    begins behind it; here by sizes that a board says.
    """
    kib, tree = 1 << 10, tree_of()
    code, rwdata, rodata, init, bss = 1000, 200, 30, 4, 5000
    tree.chosen.props["cmafs,kernel-sizes-kib"] = cells(code, rwdata, rodata, init, bss)
    machine = boot(tree, "6.12", "cma=0", arch)
    ram = machine.iomem[0]
    data = start + (code + rodata + init) * kib
    assert [(part.start, part.end, part.name) for part in ram.children if part.name != "reserved"] == [
        (start, start + (code + rodata) * kib - 1, "Kernel code"),
        (data, data + (rwdata + bss) * kib - 1, "Kernel data"),
    ]
    assert lines_with(machine, "1000K kernel code, 200K rwdata, 30K rodata, 4K init, 5000K bss, ")
    tree.chosen.props["cmafs,kernel-sizes-kib"] = cells(code, rwdata, rodata, init)
    assert not lines_with(boot(tree, "6.12", "cma=0", arch), "1000K kernel code")


@pytest.mark.parametrize(
    ("reserved", "there"), [(0x15FF000, True), (0x1600000, False), (0x1000000, True), (0xFFF000, False)]
)
def test_the_kernel_of_x86_stands_where_the_tree_reserves_it(reserved: int, there: bool) -> None:
    """CONFIG_PHYSICAL_START; any page of its code (6144 KiB) will do."""
    tree = tree_of(memory="<0 0x100000 0 0x7ff00000>", head=f"/memreserve/ {reserved:#x} 0x1000;")
    (ram,) = boot(tree, "6.12", "cma=0", "x86_64").iomem
    assert bool(ram.children) is there
