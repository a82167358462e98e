"""``crashkernel=``: how it is read, where its memory is, what the log and /proc/iomem say, by row.

What real kernels answered is in tests/oracle/cases; here are the rows and words that those do not have.

Modules: cmafs.init.crash_reserve, cmafs.init.crash_parse.
"""

from __future__ import annotations

import pytest
from boot_support import areas, arm_tree, boot, lines_with, tree_of

from cmafs.abi import kernel_abi
from cmafs.arch.iomem import Resource
from cmafs.init.machine import BootedMachine
from cmafs.lib.kconfig import FileLine, parse_config
from cmafs.lib.panic import KernelPanic

K, M, G = 1 << 10, 1 << 20, 1 << 30
KEXEC = ("KEXEC=y", "CRASH_DUMP=y")
ZONES = (*KEXEC, "ZONE_DMA=y", "ZONE_DMA32=y")
PC = "<0 0 0 0x80000000 1 0 0 0x80000000>"
SIX_GIB = "<0 0x40000000 1 0x80000000>"


def crash_lines(machine: BootedMachine) -> list[str]:
    """What the log says, but for the command line itself."""
    lines = lines_with(machine, "shkernel", "Memory value")
    return [line for line in lines if "shkernel=" not in line]


def reserving(size: int, base: int, total: int) -> str:
    """The line of x86 to 6.6 and of 32-bit ARM; MiB."""
    return f"Reserving {size}MB of memory at {base}MB for crashkernel (System RAM: {total}MB)"


def crash_kernels(resources: list[Resource]) -> list[tuple[int, int]]:
    inside = [child for resource in resources for child in resource.children]
    return [(part.start, part.end + 1 - part.start) for part in inside if part.name == "Crash kernel"]


def arm64(kernel: str, words: str, config: tuple[str, ...] = ZONES, memory: str = "") -> BootedMachine:
    tree = tree_of(memory=memory) if memory else tree_of()
    return boot(tree, kernel, words, config=config)


def pc(kernel: str, words: str, config: tuple[str, ...] = KEXEC) -> BootedMachine:
    return boot(tree_of(memory=PC), kernel, words, "x86_64", config)


def arm(kernel: str, words: str) -> BootedMachine:
    return boot(arm_tree(memory="0x40000000 0x40000000"), kernel, words, "arm", KEXEC)


# how it is read


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("crashkernel=", "crashkernel: memory value expected"),
        ("crashkernel=x", "crashkernel: memory value expected"),
        ("crashkernel=-64M", "crashkernel: memory value expected"),
        ("crashkernel=64M;", "crashkernel: unrecognized char: ;"),
        ("crashkernel=64M,lows", "crashkernel: unrecognized char: ,"),
        ("crashkernel=64Mx,high", "crashkernel: unrecognized char: x"),
        ("crashkernel=,high", "crashkernel: memory value expected"),
        ("crashkernel=64M,high crashkernel=9q,low", "crashkernel: unrecognized char: q"),
        ("crashkernel=x-:64M", "crashkernel: Memory value expected"),
        ("crashkernel=1G:64M", "crashkernel: '-' expected"),
        ("crashkernel=1G-x:64M", "crashkernel: Memory value expected"),
        ("crashkernel=1G-1G:64M", "crashkernel: end <= start"),
        ("crashkernel=1G-2G64M:", "crashkernel: ':' expected"),
        ("crashkernel=1G-2G:", "crashkernel: Memory value expected"),
        ("crashkernel=1G-:1G", "crashkernel: invalid size"),
        ("crashkernel=1G-:64M@", "crahskernel: Memory value expected after '@'"),
        ("crashkernel=2G-:64M", "crashkernel size resulted in zero bytes"),
        ("crashkernel=0-1G:64M", "crashkernel size resulted in zero bytes"),
        ("crashkernel=1G-:0", "crashkernel size resulted in zero bytes"),
    ],
)
def test_what_is_said_of_wrong_values(words: str, said: str) -> None:
    machine = arm64("6.12", words)
    assert crash_lines(machine) == [said]
    assert crash_kernels(machine.iomem) == []


@pytest.mark.parametrize("words", ["crashkernel=0", "crashkernel=1G", "crashkernel=64M,low"])
def test_what_is_refused_without_a_word(words: str) -> None:
    """Nothing; as much as there is memory; a low part alone."""
    assert crash_lines(arm64("6.12", words)) == []


@pytest.mark.parametrize(
    ("words", "size", "base"),
    [
        ("crashkernel=64M", 64 * M, 0),
        ("crashkernel=64m@0x50000000,what=ever", 64 * M, 0x50000000),
        ("crashkernel=16M crashkernel=64M crashkernel=8M,high crashkernel=8M,low", 64 * M, 0),
        ("crashkernel=16M foo.crashkernel=32M", 32 * M, 0),  # a search of the text, not of words
        ("crashkernel=0-1G:8M,1G-2G:24M,2G-:40M@0x50000000", 24 * M, 0x50000000),
        ("crashkernel=1G-2G:24Mxy@0x50000000", 24 * M, 0x50000000),
        ("crashkernel=16777217", 16 * M + 1, 0),
    ],
)
def test_what_is_taken(words: str, size: int, base: int) -> None:
    machine = arm64("6.12", words)
    (found,) = crash_kernels(machine.iomem)
    assert found[1] == size
    assert found[0] == base or not base
    end = sum(found)
    assert crash_lines(machine) == [f"crashkernel reserved: {found[0]:#018x} - {end:#018x} ({size // M} MB)"]
    assert machine.memblock.is_region_reserved(found[0], size)


@pytest.mark.parametrize(
    ("kernel", "missing", "after"),
    [
        ("5.10", "Memory value expected", "Memory value expected after '@'"),
        ("6.1", "Memory value expected", "Memory value expected after '@'"),
        ("6.12", "crashkernel: Memory value expected", "crahskernel: Memory value expected after '@'"),
        ("7.2", "crashkernel: Memory value expected", "crashkernel: Memory value expected after '@'"),
    ],
)
def test_texts_of_the_rows(kernel: str, missing: str, after: str) -> None:
    assert crash_lines(arm64(kernel, "crashkernel=1G-:")) == [missing]
    assert crash_lines(arm64(kernel, "crashkernel=1G-:64M@x")) == [after]


@pytest.mark.parametrize(("kernel", "taken"), [("5.10", 1), ("6.1", 0), ("6.12", 0)])
def test_memory_is_rounded_up_before_ranges_are_compared(kernel: str, taken: int) -> None:
    machine = boot(tree_of(), kernel, "crashkernel=0-1000M:64M mem=990M", config=ZONES)
    assert len(crash_kernels(machine.iomem)) == taken


# arm64


def test_arm64_low_memory_first_then_high_with_a_low_part() -> None:
    machine = arm64("6.12", "crashkernel=64M", memory=SIX_GIB)
    assert crash_kernels(machine.iomem) == [(0xFB000000, 64 * M)]
    machine = arm64("6.12", "crashkernel=3200M", memory=SIX_GIB)
    assert [size for _, size in crash_kernels(machine.iomem)] == []
    assert crash_lines(machine) == ["cannot allocate crashkernel (size:0xc8000000)"]
    machine = arm64("6.12", "crashkernel=1G@0x140000000", memory=SIX_GIB)
    assert crash_kernels(machine.iomem) == [(0x140000000, G)]
    machine = arm64("6.12", "crashkernel=512M,high", memory=SIX_GIB)
    (low, low_size), (high, size) = crash_kernels(machine.iomem)
    assert (low_size, size) == (128 * M, 512 * M)
    assert low + low_size <= 1 << 32 <= high
    assert crash_lines(machine) == [
        f"crashkernel low memory reserved: {low:#010x} - {low + low_size:#010x} (128 MB)",
        f"crashkernel reserved: {high:#018x} - {high + size:#018x} (512 MB)",
    ]


@pytest.mark.parametrize(
    ("words", "sizes", "said"),
    [
        ("512M,high crashkernel=0,low", [512 * M], None),
        ("512M,high crashkernel=4M,low", [4 * M, 512 * M], None),
        ("512M,high crashkernel=4G,low", [], "cannot allocate crashkernel low memory (size:0x100000000)."),
        ("64M@0x40000000", [], "crashkernel reservation failed - memory is in use."),
        ("64M@0x50100000", [], "crashkernel reservation failed - memory is in use."),
    ],
)
def test_arm64_parts(words: str, sizes: list[int], said: str | None) -> None:
    machine = arm64("6.12", f"crashkernel={words}", memory=SIX_GIB)
    assert [size for _, size in crash_kernels(machine.iomem)] == sizes
    assert said is None or crash_lines(machine) == [said]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("64M@0x40000000", "region overlaps reserved memory"),
        ("64M@0x90000000", "region is not memory"),
        ("64M@0x50100000", "base address is not 2MB aligned"),
    ],
)
def test_arm64_reasons_against_a_place_to_5_19(words: str, said: str) -> None:
    assert crash_lines(arm64("5.10", f"crashkernel={words}")) == [f"cannot reserve crashkernel: {said}"]
    assert crash_lines(arm64("6.1", f"crashkernel={words}")) == [
        "cannot allocate crashkernel (size:0x4000000)"
    ]


def test_arm64_has_high_memory_from_6_0_on() -> None:
    words = "crashkernel=512M,high"
    assert crash_lines(arm64("5.10", words, memory=SIX_GIB)) == []
    assert [size for _, size in crash_kernels(arm64("6.1", words, memory=SIX_GIB).iomem)] == [512 * M]
    assert [size for _, size in crash_kernels(arm64("6.6", words, memory=SIX_GIB).iomem)] == [
        128 * M,
        512 * M,
    ]


@pytest.mark.parametrize(
    ("kernel", "config", "before_the_default_area"),
    [
        ("4.15", KEXEC, True),
        ("5.4", KEXEC, True),
        ("5.10", KEXEC, True),
        ("5.10", ZONES, False),
        ("6.1", KEXEC, True),
        ("6.1", ZONES, False),
        ("6.6", KEXEC, False),
        ("6.12", ZONES, False),
        ("7.2", ZONES, False),
    ],
)
def test_arm64_order_of_the_two(kernel: str, config: tuple[str, ...], before_the_default_area: bool) -> None:
    """Whoever comes first lies higher."""
    machine = arm64(kernel, "crashkernel=128M cma=64M", config)
    ((crash, _),) = crash_kernels(machine.iomem)
    ((_, default, _),) = areas(machine)
    assert (crash > default) is before_the_default_area


@pytest.mark.parametrize(
    ("kernel", "config", "in_pages"),
    [
        ("5.10", ZONES, True), ("6.1", ZONES, True), ("6.6", ZONES, False), ("6.12", ZONES, False),
        ("6.1", ("ZONE_DMA=y",), False),
    ],
)  # fmt: skip
def test_arm64_maps_all_memory_in_pages(kernel: str, config: tuple[str, ...], in_pages: bool) -> None:
    """Of 1 GiB that is 512 tables, also where the value is of no use."""
    plain, asked = (arm64(kernel, words, config) for words in ("", "crashkernel=x"))
    taken = [sum(r.size for r in machine.memblock.reserved) for machine in (plain, asked)]
    assert (taken[1] - taken[0] > 500 * 4 * K) is in_pages


def test_arm64_without_zones_searches_for_ever() -> None:
    with pytest.raises(KernelPanic, match="no free range of 0x3e800000 bytes") as caught:
        arm64("6.12", "crashkernel=1000M", KEXEC)
    assert [event.reason for event in caught.value.events] == ["crashkernel-hangs"]
    assert crash_lines(arm64("6.12", "crashkernel=1000M,high", KEXEC)) == [
        "cannot allocate crashkernel (size:0x3e800000)"
    ]


# x86_64


@pytest.mark.parametrize(
    ("kernel", "words", "found", "said"),
    [
        ("4.15", "64M", [(0x34000000, 64 * M)], reserving(64, 832, 4096)),
        ("6.1", "64M@0x50100000", [(0x50100000, 64 * M)], reserving(64, 1281, 4096)),
        ("6.1", "64M@0x50080000", [], "crashkernel reservation failed - memory is in use."),
        ("6.1", "4G", [], "crashkernel reservation failed - No suitable area found."),
        ("6.1", "1G@3G", [], "crashkernel reservation failed - memory is in use."),
        ("6.12", "64M@0x50100000", [], "crashkernel reservation failed - memory is in use."),
        ("6.12", "64M@0x51000000", [(0x51000000, 64 * M)],
         "crashkernel reserved: 0x0000000051000000 - 0x0000000055000000 (64 MB)"),
    ],
)  # fmt: skip
def test_x86(kernel: str, words: str, found: list[tuple[int, int]], said: str) -> None:
    machine = pc(kernel, f"crashkernel={words}")
    assert crash_kernels(machine.iomem) == found
    assert crash_lines(machine) == [said]


@pytest.mark.parametrize(
    ("words", "low"),
    [
        ("512M,high", 256 * M),
        ("512M,high crashkernel=0,low", 0),
        ("512M,high crashkernel=72M,low", 72 * M),
        ("512M,high swiotlb=262144", 520 * M),  # 512 MiB and 8
    ],
)
def test_x86_low_part(words: str, low: int) -> None:
    for kernel in ("5.10", "6.12"):
        machine = pc(kernel, f"crashkernel={words}")
        sizes = [size for _, size in crash_kernels(machine.iomem)]
        assert sizes == ([low, 512 * M] if low else [512 * M])
    ((high, _),) = [part for part in crash_kernels(machine.iomem) if part[0] >= 1 << 32]
    assert crash_lines(machine)[-1] == (
        f"crashkernel reserved: {high:#018x} - {high + 512 * M:#018x} (512 MB)"
    )
    if low:
        ((base, _),) = [
            part for part in crash_kernels(pc("5.10", f"crashkernel={words}").iomem) if part[1] == low
        ]
        assert crash_lines(pc("5.10", f"crashkernel={words}"))[0] == (
            f"Reserving {low // M}MB of low memory at {base // M}MB for crashkernel (low RAM limit: 4096MB)"
        )


def test_x86_takes_high_memory_where_the_plain_word_is_wrong_to_6_6() -> None:
    words = "crashkernel=x crashkernel=64M,high"
    assert len(crash_kernels(pc("6.1", words).iomem)) == 2
    assert crash_kernels(pc("6.12", words).iomem) == []


def test_x86_areas_of_7_2() -> None:
    """They are ordinary areas; half as large where there is no room, four at most; only with a plain word."""
    machine = pc("7.2", "cma=16M crashkernel=64M crashkernel=100M,cma")
    assert [(name, size) for name, _, size in areas(machine)] == [
        ("reserved", 16 * M),
        ("crashkernel", 100 * M),
    ]
    assert crash_lines(machine)[-1] == "crashkernel CMA reserved: 100 MB in 1 ranges"
    machine = pc("7.2", "cma=0 crashkernel=64M crashkernel=3G,cma")
    assert [size for _, _, size in areas(machine)] == [1536 * M, 1536 * M]
    assert crash_lines(machine)[-1] == "crashkernel CMA reserved: 3072 MB in 2 ranges"
    for other in ("crashkernel=100M,cma", "crashkernel=64M crashkernel=x,cma"):
        assert areas(pc("7.2", f"cma=0 {other}")) == []
    without = pc("7.2", "crashkernel=64M crashkernel=100M,cma", (*KEXEC, "CMA=n"))
    assert crash_lines(without)[-1] == "crashkernel CMA reservation not supported"
    assert len(areas(arm64("7.2", "cma=0 crashkernel=64M crashkernel=100M,cma"))) == 0


# 32-bit ARM


@pytest.mark.parametrize(
    ("kernel", "words", "found", "said"),
    [
        ("6.1", "64M", [(0x68000000, 64 * M)], reserving(64, 1664, 768)),
        ("6.12", "64M@0x50100000", [(0x50100000, 64 * M)], reserving(64, 1281, 768)),
        ("5.10", "64M@0x50080000", [], "crashkernel reservation failed - memory is in use."),
        ("6.1", "64M@0x50080000", [], "crashkernel reservation failed - memory is in use."),
        ("6.1", "700M", [], "crashkernel reservation failed - No suitable area found."),
    ],
)  # fmt: skip
def test_arm(kernel: str, words: str, found: list[tuple[int, int]], said: str) -> None:
    machine = arm(kernel, f"crashkernel={words}")
    assert crash_kernels(machine.iomem) == found
    assert crash_lines(machine) == [said]


def test_arm_reserves_nothing_and_says_so_in_5_10() -> None:
    assert crash_lines(arm("6.1", "crashkernel=0")) == []
    (line,) = crash_lines(arm("5.10", "crashkernel=0"))
    assert line.startswith("Reserving 0MB of memory at ")
    assert crash_kernels(arm("5.10", "crashkernel=0").iomem) == []


# configuration


@pytest.mark.parametrize(
    ("kernel", "arch", "config", "on"),
    [
        ("6.1", "arm64", ("KEXEC_FILE=y",), ["KEXEC_CORE", "CRASH_CORE"]),
        ("6.1", "arm64", ("PROC_KCORE=y",), ["CRASH_CORE"]),
        ("6.1", "arm64", ("CRASH_DUMP=y",), []),
        ("6.12", "arm64", ("KEXEC=y",), ["KEXEC_CORE", "CRASH_RESERVE"]),
        ("6.12", "arm64", ("KEXEC=y", "CRASH_DUMP=n"), ["KEXEC_CORE"]),
        ("6.12", "arm", ("KEXEC=y", "PROC_KCORE=y"), ["KEXEC_CORE"]),
    ],
)
def test_what_kconfig_selects(kernel: str, arch: str, config: tuple[str, ...], on: list[str]) -> None:
    values = parse_config(("tiny", *config), arch, kernel_abi(kernel))
    names = ("KEXEC_CORE", "CRASH_CORE", "CRASH_RESERVE")
    wanted = [*on, "CRASH_RESERVE"] if arch == "arm" else on
    assert [name for name in names if values.on(name)] == wanted


@pytest.mark.parametrize("arch", ["arm64", "arm", "x86_64"])
@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_every_defconfig_has_it(kernel: str, arch: str) -> None:
    values = parse_config(("defconfig",), arch, kernel_abi(kernel))
    assert values.on(kernel_abi(kernel).boot.crash_symbols[arch])


def test_a_whole_config_has_it() -> None:
    lines = ["# Automatically generated file; DO NOT EDIT.", "CONFIG_KEXEC=y", "CONFIG_CRASH_DUMP=y"]
    lines += ["CONFIG_KEXEC_CORE=y", "CONFIG_CRASH_RESERVE=y"]
    values = parse_config(map(FileLine, lines), "arm64", kernel_abi("6.12"))
    assert values.on("CRASH_RESERVE")
    assert values.dropped == values.unmodelled == ()


@pytest.mark.parametrize(
    ("kernel", "arch", "config", "known"),
    [
        ("5.15.5", "arm64", (), True),
        ("5.15.5", "x86_64", KEXEC, False),
        ("5.15", "x86_64", KEXEC, True),
        ("6.1", "arm64", (), True),
        ("6.1", "arm", (), False),
        ("6.1", "arm", ("KEXEC=y",), True),
        ("6.1", "x86_64", ("PROC_KCORE=y",), True),
        ("6.6", "arm64", (), False),
        ("6.12", "arm64", ("KEXEC=y", "CRASH_DUMP=n"), False),
        ("6.12", "arm64", KEXEC, True),
    ],
)
def test_who_knows_the_parameter(kernel: str, arch: str, config: tuple[str, ...], known: bool) -> None:
    tree = arm_tree() if arch == "arm" else tree_of()
    machine = boot(tree, kernel, "crashkernel=x", arch, config)
    assert (lines_with(machine, "nknown ") == []) is known


def test_without_the_symbol_nothing_is_taken() -> None:
    for machine in (arm64("6.1", "crashkernel=64M", ()), pc("6.12", "crashkernel=64M", ("KEXEC=n",))):
        assert crash_kernels(machine.iomem) == []
