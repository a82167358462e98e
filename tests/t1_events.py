"""What a boot notes of each node and parameter that did not become what was written: the whole note.

Modules: cmafs.init.main, cmafs.init.initcalls, cmafs.init.dma_contiguous, cmafs.of.reserved_mem,
cmafs.of.rmem_init.
"""

from __future__ import annotations

import pytest
from boot_support import boot, tree_of

from cmafs.init.machine import BootedMachine
from cmafs.init.main import start_kernel
from cmafs.init.options import BadOption, MachineOptions
from cmafs.lib.boot_event import BootEvent
from cmafs.lib.clock import ManualClock
from cmafs.lib.panic import KernelPanic
from cmafs.of.base import DeviceTree

POOL = 'compatible = "shared-dma-pool"; reusable;'
P = "/reserved-memory/p"


def events(tree: DeviceTree, kernel: str, cmdline: str, *config: str) -> list[BootEvent]:
    """What was noted, whether the machine came up or not."""
    try:
        found: BootedMachine | KernelPanic = boot(tree, kernel, cmdline, config=config)
    except KernelPanic as panic:
        found = panic
    return found.boot_events if isinstance(found, BootedMachine) else found.events


def reg(base: int, size: int) -> str:
    return f"reg = <0 {base:#x} 0 {size:#x}>;"


M16 = 0x1000000
SIZE = "size = <0 0x1000000>;"


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (f'{SIZE} status = "disabled";', ("disabled", "ignored", "status")),
        ("", ("no-reg-no-size", "ignored", "reg")),
        ("reg = <0 0x50000000 0>;", ("invalid-reg", "refused", "reg")),
        (
            f"{POOL} reg = <0 0x50000000 0 0x1000000 0 0x52000000 0 0x1000>;",
            ("extra-reg", "note", "reg", "2 ranges"),
        ),
        (reg(0x50000000, 0), ("size-zero", "refused", "reg", "base 0x0000000050000000, size 0 MiB")),
        ("size = <0>;", ("invalid-size", "refused", "size")),
        (f"{SIZE} alignment = <1>;", ("invalid-alignment", "refused", "alignment")),
        (f"{POOL} {SIZE} alloc-ranges = <0>;", ("invalid-alloc-ranges", "refused", "alloc-ranges")),
        (f"{POOL} size = <1 0>;", ("no-room", "refused", "size", "0x100000000 bytes")),
        (
            f"{POOL} {SIZE} alloc-ranges = <0 0x10000000 0 0x1000000>;",
            ("no-room", "refused", "alloc-ranges", "0x1000000 bytes"),
        ),
        (f"{POOL} no-map; {reg(0x50000000, M16)}", ("reusable-and-no-map", "refused", "no-map")),
        (f'compatible = "acme,x"; {reg(0x50000000, M16)}', ("no-driver", "ignored", "compatible")),
        (
            f"{POOL} {reg(0x50100000, M16)}",
            ("base-misaligned", "refused", "reg", "0x50100000, 0x1000000 bytes, unit 0x200000"),
        ),
        (
            f"{POOL} {reg(0x50000000, M16 + 0x100000)}",
            ("size-misaligned", "refused", "reg", "0x50000000, 0x1100000 bytes, unit 0x200000"),
        ),
        (f"{POOL} {reg(0xA0000000, M16)}", ("outside-memory", "panic", "reg", "0xa0000000-0xa0ffffff")),
    ],
)
def test_of_a_node(body: str, note: tuple[str, ...]) -> None:
    assert events(tree_of(f"p {{ {body} }};"), "6.12", "cma=16M") == [BootEvent(P, *note)]


def test_of_more_than_one() -> None:
    overlap = f"p {{ {POOL} {reg(0x50000000, M16)} }}; q {{ {POOL} {reg(0x50800000, M16)} }};"
    spans = (
        "p (0x0000000050000000--0x0000000051000000) overlaps with q (0x0000000050800000--0x0000000051800000)"
    )
    noted = events(tree_of(overlap), "6.12", "cma=16M")
    assert noted == [BootEvent("/reserved-memory/q", "overlap", "note", "reg", spans)]
    given_back = events(tree_of(f"p {{ {POOL} {reg(0x40000000, 0x8100000)} }};"), "6.12", "cma=16M")
    assert given_back == [
        BootEvent(P, "size-misaligned", "refused", "reg", "0x40000000, 0x8100000 bytes, unit 0x200000"),
        BootEvent(P, "kernel-given-back", "panic", "reg", "0x40200000-0x407dffff"),
    ]
    unmapped = events(tree_of(f"p {{ {POOL} no-map; {reg(0x7D000000, 0x3200000)} }};"), "6.12", "")
    assert unmapped[1] == BootEvent(P, "unmapped", "panic", "no-map", "0x7d000000-0x7fffffff")
    many = (f"p{i} {{ size = <0 0x1000>; }};" for i in range(66))  # 64 at most
    tree = tree_of("".join(many))
    for kernel, prop in (("5.10", None), ("6.12", "size")):
        found = [event for event in events(tree, kernel, "cma=0") if event.reason.startswith("too-many")]
        assert found == [BootEvent(f"{P}{i}", "too-many-regions", "refused", prop) for i in (64, 65)]


@pytest.mark.parametrize("kernel", ["4.19", "6.12"])
def test_of_areas_across_two_zones(kernel: str) -> None:
    """Old kernels activate nothing behind the first that fails."""
    memory = "<0 0x80000000 1 0>"
    behind = f"p {{ {POOL} {reg(0xFFC00000, 0x800000)} }};"
    noted = events(tree_of(behind, memory), kernel, "cma=16M@0x90000000", "ZONE_DMA32=y")
    stopped = [BootEvent(None, "activation-stopped", "refused", "cma=", "p")]
    assert noted == [
        BootEvent(P, "not-activated", "refused", "reg", "p"),
        *(stopped if kernel == "4.19" else []),
    ]


def test_of_the_default_area_across_two_zones() -> None:
    """Only x86_64 lets it: there the limit is the end of memory."""
    tree = tree_of(memory="<0 0x80000000 1 0>")
    noted = boot(tree, "6.12", "cma=16M@0xff800000", "x86_64").boot_events
    assert noted == [BootEvent(None, "not-activated", "refused", "cma=", "reserved")]


@pytest.mark.parametrize(
    ("cmdline", "kernel", "note"),
    [
        ("cma=2G", "6.12", ("no-room", "cma=", "0x80000000 bytes at 0x0, limit 0x1000000000000")),
        (
            "cma=16M@0x50100000",
            "6.12",
            ("base-misaligned", "cma=", "0x1000000 bytes at 0x50100000, limit 0x51100000"),
        ),
        (
            "cma=16M@0x90000000",
            "6.12",
            ("exceeds-limit", "cma=", "0x1000000 bytes at 0x90000000, limit 0x91000000"),
        ),
        ("cma=16M@0x40200000", "6.12", ("taken", "cma=", "0x1000000 bytes at 0x40200000, limit 0x41200000")),
        ("cma=0 hugetlb_cma=1M", "5.10", ("too-small", "hugetlb_cma=")),
        ("cma=0 hugetlb_cma=4G", "6.12", ("exceeds-limit", "hugetlb_cma=", "node 0")),
        ("cma=0 hugetlb_cma=3:1G", "6.12", ("bad-node", "hugetlb_cma=", "node 3")),
        ("cma=0 numa_cma=0:4G", "6.12", ("exceeds-limit", "numa_cma=", "numa0")),
    ],
)
def test_of_a_parameter(cmdline: str, kernel: str, note: tuple[str, ...]) -> None:
    reason, *rest = note
    assert events(tree_of(), kernel, cmdline, "NUMA=y") == [BootEvent(None, reason, "refused", *rest)]


def test_of_the_size_that_the_configuration_says() -> None:
    noted = events(tree_of(), "6.12", "", "CMA_SIZE_MBYTES=2048")
    detail = "0x80000000 bytes at 0x0, limit 0x1000000000000"
    assert noted == [BootEvent(None, "no-room", "refused", "CONFIG_CMA_SIZE_MBYTES", detail)]


@pytest.mark.parametrize(
    ("tree", "cmdline", "note"),
    [
        (tree_of(), "cma=0 numa_cma=3:16M", ("no-such-node", "ignored", "numa_cma=", "node 3")),
        (tree_of(), "coherent_pool", ("no-value", "panic", "coherent_pool=")),
        (
            tree_of(memory="<0 0x40000000 0 0x400000>"),
            "",
            ("no-room-for-image", "panic", None, "6016 KiB from 0x40200000"),
        ),
    ],
)
def test_of_the_machine(tree: DeviceTree, cmdline: str, note: tuple[str, ...]) -> None:
    assert events(tree, "6.12", cmdline, "NUMA=y") == [BootEvent(None, *note)]


def test_regions_of_2010_that_are_none() -> None:
    def of_2010(cmdline: str, profile: str | None = None) -> BootedMachine:
        options = MachineOptions(kernel="2010", arch="arm64", cmdline=cmdline, profile=profile)
        return start_kernel(tree_of(), options, ManualClock())

    refused = "region-2010-refused", "refused"
    assert of_2010("cma=a=1M;big=64G;bad cma.map=foo").boot_events == [
        BootEvent(None, *refused, "cma=", 'param: expected "<name>=" near bad'),
        BootEvent(None, *refused, "cma.map=", 'map: expecting "<patterns>=<regions>" near foo'),
        BootEvent(None, "region-2010-no-room", "refused", "cma=", "big"),
    ]
    assert of_2010("cma=a=1M").boot_events == []
    with pytest.raises(BadOption, match=r"^unknown profile 'v9': known are v1, v2, v3, v4, vendor, meizu$"):
        of_2010("", "v9")
    sysfs = {
        profile: of_2010("cma=a=1M", profile).config.on("CMA_SYSFS") for profile in ("v1", "v3", "meizu")
    }
    assert sysfs == {"v1": False, "v3": True, "meizu": True}
