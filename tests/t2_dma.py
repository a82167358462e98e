"""The DMA API: which memory serves which device, on which kernel; what it refuses; who holds what."""

from __future__ import annotations

from pathlib import Path

import pytest
from cma_support import refused
from dma_support import PAGE, M, area_of, boot, device, used, write_tree

import cmafs
from cmafs.drivers import article
from cmafs.drivers.device import Device
from cmafs.drivers.dma.contiguous import (
    dma_alloc_contiguous,
    dma_alloc_from_contiguous,
    dma_release_from_contiguous,
)
from cmafs.drivers.dma.mapping import (
    dma_alloc,
    dma_alloc_coherent,
    dma_free,
    dma_free_coherent,
    find_device,
    show_device,
)
from cmafs.drivers.of_reserved_mem import (
    of_reserved_mem_device_init_by_idx,
    of_reserved_mem_device_release,
)
from cmafs.fs.cma_debug import CmaDebugfs
from cmafs.init.machine import BootedMachine
from cmafs.lib.clock import ManualClock
from cmafs.mm.gfp import GFP_ATOMIC, GFP_KERNEL, get_order
from cmafs.sim.cma_owner import ATOMIC_POOL, BOOT, DEBUGFS, page_holders

ROWS = ["4.4", "4.15", "4.19", "5.4", "5.10", "5.15", "6.1", "6.6", "6.12", "6.18", "7.2"]
SINGLE_PAGES_TO_5_2 = {"4.4", "4.15", "4.19"}


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path)


@pytest.fixture
def machine(tree) -> BootedMachine:
    return boot(tree)


def state(machine: BootedMachine):
    areas = [(cma.name, cma.used(), cma.available_count) for cma in machine.cma]
    return (
        areas,
        [zone.nr_free for zone in machine.memory.zones],
        {name: show_device(dev) for name, dev in machine.devices.items()},
    )


def fill(machine: BootedMachine, name: str, leave: int = 0) -> None:
    """Take an area by debugfs but for ``leave`` pages at its end."""
    area = area_of(machine, name)
    CmaDebugfs(area).cma_alloc_write(area.maxchunk() - leave)


# Devices of the tree


def test_devices_have_the_kernel_s_names(machine):
    assert list(machine.devices) == [
        "soc@0",
        "1000.camera",
        "2000.codec",
        "2000.codec.1",
        "3000.dsp",
        "3100.dsp",
        "4000.bad",
        "5000.lost",
        "6000.idle",
        "7000.plain",
        "8000.cached",
        "soc@0:nameless",
    ]


def test_a_device_is_found_by_its_node_s_name_and_path(machine):
    camera = machine.devices["1000.camera"]
    assert find_device(machine, "camera@1000") is camera
    assert find_device(machine, "/soc@0/camera@1000") is camera
    assert refused(find_device, machine, "nosuch") == "ENOENT"


def test_memory_region_is_attached_once_with_its_line(machine):
    dma_alloc(machine, "1000.camera", M)
    dma_alloc(machine, "1000.camera", M)
    line = "platform 1000.camera: assigned reserved memory node own@50000000"
    assert machine.log.lines().count(line) == 1
    assert used(machine, "own@50000000") == 512


def test_several_regions_are_several_devices(machine):
    dma_alloc(machine, "2000.codec", M)
    dma_alloc(machine, "2000.codec.1", 2 * M)
    assert (used(machine, "own@50000000"), used(machine, "second@60000000")) == (256, 512)


def test_init_by_idx_errors(machine):
    plain, codec = machine.devices["7000.plain"], machine.devices["2000.codec"]
    assert refused(of_reserved_mem_device_init_by_idx, plain, 0) == "ENODEV"
    assert refused(of_reserved_mem_device_init_by_idx, codec, 2) == "ENODEV"
    assert refused(of_reserved_mem_device_init_by_idx, machine.devices["4000.bad"], 0) == "EINVAL"
    assert refused(of_reserved_mem_device_init_by_idx, machine.devices["5000.lost"], 0) == "ENODEV"
    of_reserved_mem_device_init_by_idx(machine.devices["6000.idle"], 0)  # switched off: passed over
    assert machine.devices["6000.idle"].cma_area is None


def test_a_device_without_a_region_uses_the_default_area(machine):
    before = used(machine, "reserved")
    dma_alloc(machine, "7000.plain", M)
    assert used(machine, "reserved") == before + 256
    idle = device(machine, "6000.idle")
    assert dma_alloc_coherent(idle, M).area == "reserved"


def test_release_gives_the_device_back_to_the_default_area(machine):
    camera = device(machine, "1000.camera")
    of_reserved_mem_device_release(camera)
    assert dma_alloc_coherent(camera, M).area == "reserved"


def test_coherent_pool_is_shared_by_those_that_name_it_and_answers_alone(machine):
    first, second = device(machine, "3000.dsp"), device(machine, "3100.dsp")
    one, two = dma_alloc_coherent(first, 3 * PAGE), dma_alloc_coherent(second, 5 * PAGE)
    assert [(b.pfn, b.area) for b in (one, two)] == [(0x70000, "coherent"), (0x70008, "coherent")]
    assert dma_alloc_coherent(first, M) is None  # no other memory when it is full
    dma_free_coherent(first, 3 * PAGE, one.cpu_addr, one.dma_handle)
    assert dma_alloc_coherent(second, PAGE).pfn == 0x70000


# Sizes, alignment, who is asked


@pytest.mark.parametrize(
    ("size", "order"), [(1, 0), (PAGE, 0), (PAGE + 1, 1), (5 * PAGE, 3), (8 * PAGE, 3), (M, 8), (M + 1, 9)]
)
def test_get_order(size, order):
    assert get_order(size, 12) == order


@pytest.mark.parametrize("alignment", [4, 8])
def test_alignment_is_the_order_up_to_config_cma_alignment(tree, alignment):
    machine = boot(tree, config=(f"CMA_ALIGNMENT={alignment}",))
    camera = device(machine, "1000.camera")
    dma_alloc_coherent(camera, PAGE)
    assert dma_alloc_coherent(camera, 3 * PAGE).pfn == 0x50004
    assert dma_alloc_coherent(camera, 2 * M).pfn == 0x50000 + (1 << alignment)
    for align in (20, -1):  # an unsigned int in C
        assert dma_alloc_from_contiguous(camera, 1, align) % (1 << alignment) == 0


def test_from_contiguous_takes_what_it_is_asked_and_release_tells_foreign_pages(machine):
    plain = machine.devices["7000.plain"]
    pfn = dma_alloc_from_contiguous(plain, 3, 0)
    assert used(machine, "reserved") == 32 + 3
    assert dma_release_from_contiguous(plain, 0x50000, 3) is False
    assert dma_release_from_contiguous(plain, pfn, 3) is True
    assert dma_alloc_from_contiguous(plain, 5000, 0) is None


@pytest.mark.parametrize("kernel", ROWS)
def test_single_pages_go_to_the_default_area_on_old_kernels_only(tree, kernel):
    machine = boot(tree, kernel)
    plain, camera = device(machine, "7000.plain"), device(machine, "1000.camera")
    expected = "reserved" if kernel in SINGLE_PAGES_TO_5_2 else "-"
    assert dma_alloc_coherent(plain, PAGE).area == expected
    assert dma_alloc_coherent(plain, 2 * PAGE).area == "reserved"
    assert dma_alloc_coherent(camera, PAGE).area == "own@50000000"
    assert (dma_alloc_contiguous(plain, PAGE, GFP_KERNEL) is None) == (expected == "-")


def test_without_any_area_the_page_allocator_serves(tree):
    machine = boot(tree, cmdline="cma=0")
    before = machine.memory.zones[0].nr_free
    buffer = dma_alloc_coherent(device(machine, "7000.plain"), 5 * PAGE)
    assert (buffer.area, before - machine.memory.zones[0].nr_free) == ("-", 8)  # a power of two
    dma_free(machine, "7000.plain", 5 * PAGE)
    assert machine.memory.zones[0].nr_free == before


@pytest.mark.parametrize(
    ("kernel", "arch", "falls_back"),
    [
        ("4.4", "x86_64", True),
        ("4.4", "arm64", False),
        ("4.15", "arm64", False),
        ("4.19", "arm64", True),
        ("4.19", "arm", False),
        ("5.10", "arm", False),
        ("5.10", "arm64", True),
        ("6.12", "arm", True),
        ("6.12", "x86_64", True),
        ("7.2", "arm64", True),
    ],
)
def test_what_happens_when_the_area_fails(tree, kernel, arch, falls_back):
    machine = boot(tree, kernel, arch=arch)
    plain = device(machine, "7000.plain")
    fill(machine, "reserved")
    buffer = dma_alloc_coherent(plain, M)
    assert (buffer is not None) == falls_back
    if buffer is None:
        return
    assert buffer.area == "-"
    dma_free_coherent(plain, M, buffer.cpu_addr, buffer.dma_handle)
    assert not plain.buffers


# Contexts


def test_atomic_requests_of_a_coherent_device_go_to_the_page_allocator(machine):
    before = used(machine, "reserved")
    assert dma_alloc_coherent(device(machine, "8000.cached"), 4 * PAGE, GFP_ATOMIC).area == "-"
    assert used(machine, "reserved") == before


@pytest.mark.parametrize("kernel", ["5.4", "6.12"])
def test_atomic_requests_of_others_go_to_the_pool(tree, kernel):
    machine = boot(tree, kernel)
    size, before = machine.atomic_pools[0].size, used(machine, "reserved")
    plain = device(machine, "7000.plain")
    buffers = [dma_alloc_coherent(plain, 3 * PAGE, GFP_ATOMIC) for _ in range(2)]
    assert [b.area for b in buffers] == ["pool", "pool"]
    grown = kernel != "5.4"  # it doubles once less than its first size is free
    assert machine.atomic_pools[0].size == size * (2 if grown else 1)
    assert used(machine, "reserved") == before + (size if grown else 0)
    for buffer in buffers:
        dma_free_coherent(plain, 3 * PAGE, buffer.cpu_addr, buffer.dma_handle)
    assert machine.atomic_pools[0].avail == machine.atomic_pools[0].size


def test_an_exhausted_pool_says_so(tree):
    machine = boot(tree, "5.4")
    plain = device(machine, "7000.plain")
    assert dma_alloc_coherent(plain, 64 * M, GFP_ATOMIC) is None
    assert machine.log.lines()[-1] == "Failed to get suitable pool for 7000.plain"


def test_without_a_default_area_the_pool_is_ordinary_pages(tree):
    machine = boot(tree, "5.4", cmdline="cma=0")
    before = machine.memory.zones[0].nr_free
    assert dma_alloc_coherent(device(machine, "7000.plain"), PAGE, GFP_ATOMIC).area == "pool"
    assert before - machine.memory.zones[0].nr_free == machine.atomic_pools[0].size == 64


# Limits


LIMITED = """
		low: bus@0 {
			compatible = "simple-bus";
			#address-cells = <1>;
			#size-cells = <1>;
			ranges = <0 0 0x10000>;
			dma-ranges = <0x0 0x40000000 0x10000000>;
			dev@100 { compatible = "x,dev"; reg = <0x100 0x100>; };
			far@200 { compatible = "x,far"; reg = <0x200 0x100>; memory-region = <&own>; };
		};
"""


def with_dma_ranges(tmp_path) -> str:
    """The bus sees the first 256 MiB of memory, from its own address 0 on; its parents pass addresses on."""
    path = write_tree(tmp_path, LIMITED)
    text = (tmp_path / "machine.dts").read_text()
    soc = "ranges = <0x0 0x0 0x0 0x40000000>;"
    (tmp_path / "machine.dts").write_text(text.replace(soc, soc + " dma-ranges = <0 0 0 0x80000000>;"))
    return path


def test_dma_ranges_translate(tmp_path):
    machine = boot(with_dma_ranges(tmp_path), cmdline="cma=16M@0x44000000")
    dev = device(machine, "100.dev")
    assert (dev.bus_dma_limit, dev.coherent_dma_mask) == (0x0FFFFFFF, 0x0FFFFFFF)
    buffer = dma_alloc_coherent(dev, M)
    assert (buffer.area, buffer.dma_handle) == ("reserved", (buffer.pfn << 12) - 0x40000000)


def test_dma_ranges_limit(tmp_path):
    machine = boot(with_dma_ranges(tmp_path), cmdline="cma=16M@0x44000000")
    far = device(machine, "200.far")
    assert far.cma_area is not None
    before = state(machine)
    buffer = dma_alloc_coherent(far, M)  # own@50000000 begins just behind what the bus can see
    assert (buffer.area, buffer.dma_handle < 0x10000000) == ("-", True)
    assert state(machine)[0] == before[0]


def test_a_pool_that_the_bus_cannot_see_is_not_attached(tmp_path):
    path = with_dma_ranges(tmp_path)
    text = (tmp_path / "machine.dts").read_text()
    (tmp_path / "machine.dts").write_text(
        text.replace("memory-region = <&own>", "memory-region = <&coherent>")
    )
    machine = boot(path, cmdline="cma=16M@0x44000000")
    far = device(machine, "200.far")
    assert (far.dma_mem, dma_alloc_coherent(far, M).area) == (None, "reserved")


def test_dma_mask_limits(tmp_path):
    machine = boot(write_tree(tmp_path), cmdline="cma=16M")
    camera = device(machine, "1000.camera")
    camera.dma_set_coherent_mask(30)
    assert dma_alloc_coherent(camera, M) is None
    camera.dma_set_coherent_mask(31)
    assert dma_alloc_coherent(camera, M).dma_handle == 0x50000000


def test_x86_sends_a_32_bit_device_to_dma32(tmp_path):
    path = write_tree(tmp_path)
    high = "reg = <0 0 0 0x80000000>, <1 0 0 0x80000000>"
    text = (tmp_path / "machine.dts").read_text().replace("reg = <0 0x40000000 0 0x40000000>", high)
    (tmp_path / "machine.dts").write_text(text.replace("memory@40000000", "memory@0"))
    plain = device(boot(path, cmdline="cma=0", arch="x86_64"), "7000.plain")
    four_gib = 1 << 20
    assert dma_alloc_coherent(plain, 4 * PAGE).pfn < four_gib
    plain.dma_set_coherent_mask(64)
    assert dma_alloc_coherent(plain, 4 * PAGE).pfn >= four_gib


def test_a_region_that_cannot_be_had_is_passed_over(machine):
    assert dma_alloc(machine, "4000.bad", M).area == "reserved"
    assert dma_alloc(machine, "5000.lost", M).area == "reserved"


# From the shell


def test_shell_alloc_and_free_list(machine):
    dma_alloc(machine, "1000.camera", 12 * M)
    dma_alloc(machine, "1000.camera", M)
    dma_alloc(machine, "1000.camera", 12 * M)
    lines = show_device(machine.devices["1000.camera"]).splitlines()
    assert lines[0] == "0x50000\t0x50000000\t12582912\town@50000000\t1000.camera"
    dma_free(machine, "1000.camera", 12 * M)  # the newest of that size
    assert show_device(machine.devices["1000.camera"]).splitlines() == lines[:2]


@pytest.mark.parametrize(
    ("call", "name", "size", "code"),
    [
        (dma_alloc, "nosuch", M, "ENOENT"),
        (dma_alloc, "1000.camera", 0, "EINVAL"),
        (dma_alloc, "1000.camera", 1 << 40, "ENOMEM"),
        (dma_free, "nosuch", M, "ENOENT"),
        (dma_free, "1000.camera", 3 * M, "EINVAL"),
        (dma_free, "1000.camera", 0, "EINVAL"),
    ],
)
def test_shell_errors_leave_everything_as_it_was(machine, call, name, size, code):
    dma_alloc(machine, "1000.camera", M)
    before = state(machine)
    assert refused(call, machine, name, size) == code
    assert state(machine) == before


def test_freeing_what_is_not_held_is_refused(machine):
    camera = device(machine, "1000.camera")
    buffer = dma_alloc_coherent(camera, M)
    for size, virt, handle in [
        (2 * M, buffer.cpu_addr, buffer.dma_handle),
        (M, buffer.cpu_addr + PAGE, buffer.dma_handle),
        (M, buffer.cpu_addr, buffer.dma_handle + PAGE),
    ]:
        assert refused(dma_free_coherent, camera, size, virt, handle) == "EINVAL"
    dma_free_coherent(camera, M, buffer.cpu_addr, buffer.dma_handle)
    assert refused(dma_free_coherent, camera, M, buffer.cpu_addr, buffer.dma_handle) == "EINVAL"
    assert dma_alloc_coherent(camera, 0) is None


# Who holds it


def test_every_used_page_has_a_holder(machine):
    reserved = area_of(machine, "reserved")
    CmaDebugfs(reserved).cma_alloc_write(5)
    dma_alloc(machine, "7000.plain", 3 * PAGE)
    holders = page_holders(machine, reserved)
    assert [(h.pfn - reserved.base_pfn, h.count, h.owner) for h in holders] == [
        (0, 32, ATOMIC_POOL),
        (32, 5, DEBUGFS),
        (40, 3, machine.devices["7000.plain"]),
    ]
    assert sum(h.count for h in holders) == reserved.used()


def test_pages_without_a_record_were_taken_at_boot(machine):
    own = area_of(machine, "own@50000000")
    dma_alloc(machine, "1000.camera", M)
    own.ranges[0].bitmap.set(256, 4)
    own.ranges[0].bitmap.set(300, 1)
    assert [(h.pfn - own.base_pfn, h.count, h.owner) for h in page_holders(machine, own)] == [
        (0, 256, machine.devices["1000.camera"]),
        (256, 4, BOOT),
        (300, 1, BOOT),
    ]


# The dialect of seeds/000


def test_article_example_of_1_mib():
    machine = boot("article-2", "article", cmdline=None)
    dev, area = Device(machine, "example"), machine.cma.default
    assert area is not None
    before = area.used()
    dma_handle = article.DmaAddr()
    buf = article.dma_alloc_from_contiguous(dev, 1024 * 1024, dma_handle, GFP_KERNEL)
    assert buf is not None
    assert (area.used() - before, dma_handle.value % M) == (256, 0)
    assert [(b.size, b.area) for b in dev.buffers] == [(M, area.name)]
    article.dma_free_from_contiguous(dev, 1024 * 1024, buf, dma_handle.value)
    assert area.used() == before


def test_article_gfp_atomic_gets_nothing_and_kernels_have_no_such_call(machine):
    dev = Device(boot("article-2", "article", cmdline=None), "example")
    assert article.dma_alloc_from_contiguous(dev, M, article.DmaAddr(), GFP_ATOMIC) is None
    assert article.dma_alloc_from_contiguous(dev, 0, article.DmaAddr(), GFP_KERNEL) is None
    assert refused(article.dma_free_from_contiguous, dev, M, 0, 0) == "EINVAL"
    with pytest.raises(AttributeError):
        article.dma_alloc_from_contiguous(Device(machine, "x"), M, article.DmaAddr(), GFP_KERNEL)


def test_the_shell_is_told_who_holds_an_area(tree):
    machine = cmafs.Machine.boot(dts=tree, cmdline="cma=16M")
    machine.control("dma_alloc 7000.plain 1M")
    machine.write("/sys/kernel/debug/cma/reserved/alloc", "5")
    machine.write("/dev/cma_test", "0")
    why = machine.read("/sim/why").decode()
    assert "  held by: 7000.plain 256, cma_test 256, dma_atomic_pool 96, debugfs 5\n" in why
    assert "  held by: nobody\n" in why
    assert machine.verify() == []


# Names are names: of areas, devices and tasks


@pytest.mark.parametrize("name", ["pool", "coherent", "-", "debugfs", "boot", "dma_atomic_pool", "pernuma0"])
def test_an_area_and_a_device_may_be_called_anything(tmp_path, name):
    """What the simulator calls its own things by is no name of an area, a device or a task."""
    path = tmp_path / "machine.dts"
    text = Path(write_tree(tmp_path)).read_text()
    text = text.replace("own@50000000 {", f"{name} {{")
    path.write_text(text.replace("plain@7000 {", f"{name} {{").replace("reg = <0x7000 0x100>; ", ""))
    machine = cmafs.Machine.boot(dts=str(path), cmdline="cma=16M", clock=ManualClock())
    booted = machine.booted
    area, before, pools = area_of(booted, name), state(booted), used(booted, "reserved")
    camera = find_device(booted, "1000.camera")
    machine.control("dma_alloc 1000.camera 1M")
    machine.control(f"dma_alloc {name} 1M")
    machine.control(f"spawn {'task' if name == '-' else name} anon 4K")
    assert [(h.count, h.owner) for h in page_holders(booted, area)] == [(256, camera)]
    assert used(booted, "reserved") == pools + 256
    assert "  held by: 1000.camera 256\n" in machine.read("/sim/why").decode()
    assert machine.verify() == []
    machine.control(f"kill {'task' if name == '-' else name}")
    machine.control("dma_free 1000.camera 1M")
    machine.control(f"dma_free {name} 1M")
    assert state(booted) == before
    assert machine.verify() == []


def test_a_buffer_of_a_pool_outlives_the_attachment(machine):
    """It goes back to where it is from, whatever has become of the device's memory-region."""
    dsp = device(machine, "3000.dsp")
    pool = dsp.dma_mem
    assert pool is not None
    buffer = dma_alloc_coherent(dsp, 3 * PAGE)
    assert pool.bitmap.weight == 4
    of_reserved_mem_device_release(dsp)
    dma_free_coherent(dsp, 3 * PAGE, buffer.cpu_addr, buffer.dma_handle)
    assert pool.bitmap.weight == 0


@pytest.mark.parametrize("kernel", ["5.10", "6.12"])
def test_the_area_of_a_node_is_for_masks_beyond_its_dma_zones(tmp_path, kernel):
    """_areas_for(): not with GFP_DMA or GFP_DMA32, which a mask of 32 bits brings along."""
    path = write_tree(tmp_path, 'near@1000 { compatible = "x,near"; reg = <0x1000 4>; numa-node-id = <0>; };')
    machine = boot(path, kernel, cmdline="cma=16M cma_pernuma=8M", config=("NUMA=y", "DMA_PERNUMA_CMA=y"))
    near = device(machine, "1000.near")
    areas = []
    for bits in (32, 64):
        near.dma_set_coherent_mask(bits)
        areas.append(dma_alloc_coherent(near, M).area)
    assert areas == ["reserved", "pernuma0"]
