"""A machine of 2010: its boot, /sys/kernel/mm/contiguous and /dev/cma without a mount."""

from __future__ import annotations

import os
import struct

import pytest
from cma2010_support import K, M, cma_request
from cma_support import refused
from t2_cma2010_map import MX2

import cmafs
from cmafs.check.examine import report_on
from cmafs.cli import options as cli_options
from cmafs.drivers.cma2010.chardev import CMA_MAGIC, IOCTL_CMA_ALLOC
from cmafs.drivers.cma2010.profile import PROFILES, QUIRKS
from cmafs.drivers.cma2010.regions import CmaRegion
from cmafs.fs.cma2010 import populate
from cmafs.fs.dentry import Directory, RegularFile, Symlink, new_directory
from cmafs.fs.libfs import SYSFS
from cmafs.init import options
from cmafs.init.machine import BootedMachine
from cmafs.init.main import start_kernel
from cmafs.init.options import MachineOptions
from cmafs.lib.clock import ManualClock
from cmafs.of.fdt import load

CMDLINE = "cma=a=1M@0x50000000;b=1M@0x51000000 cma.map=foo=a,b"
MEIZU = (
    "jpeg=1024K;fimc1=32768K;fimc0=25600K;fimc3=4K;"
    "mfc0=49152K/128K;mfc1=24576K/128K;fimd=9600K;ram_console=128K"
)


def boot(
    cmdline: str = CMDLINE, profile: str = "vendor", strict: bool = False, arch: str = "arm64"
) -> BootedMachine:
    options = MachineOptions(kernel="2010", arch=arch, cmdline=cmdline, profile=profile, strict_quirks=strict)
    return start_kernel(load("virt", ()), options, ManualClock())


class Tree:
    """The files of a machine by path, with open, read, write and close."""

    def __init__(self, machine: BootedMachine) -> None:
        self.root = new_directory(SYSFS)
        populate(self.root, machine)

    def at(self, path: str):
        node = self.root
        for name in path.strip("/").split("/"):
            assert isinstance(node, Directory)
            node = node.children[name]
            if isinstance(node, Symlink):
                node = self.at("sys/kernel/mm/contiguous/regions/" + node.target)
        return node

    def read(self, path: str) -> str:
        node = self.at(path)
        return node.fops.open(node, os.O_RDONLY).read(65536, 0).decode("latin-1")

    def write(self, path: str, text: str) -> int:
        node = self.at(path)
        return node.fops.open(node, os.O_WRONLY).write(text.encode("latin-1"), 0)


TOP = "sys/kernel/mm/contiguous"


# Boot


def test_boot_log():
    lines = [line for line in boot().log.lines() if line.startswith("cma: ")]
    assert lines == [
        "cma: param: a=1M@0x50000000;b=1M@0x51000000",
        "cma: param: registering early region a (0000000000100000@0000000050000000/0000000000001000)",
        "cma: param: registering early region b (0000000000100000@0000000051000000/0000000000001000)",
        "cma: param: map: foo=a,b",
        "cma: init: reserving early regions",
        "cma: init: a: reserved 0000000000100000@0000000050000000",
        "cma: init: b: reserved 0000000000100000@0000000051000000",
        "cma: init: initialising",
        "cma: a: region registered",
        "cma: b: region registered",
        "cma: bf: allocator registered",
    ]


def test_bad_parameters_are_malformed_options():
    machine = boot("cma=a=1M;b cma.map=foo cma.map=foo=a")
    lines = machine.log.lines()
    assert 'cma: param: expected "<name>=" near b' in lines
    assert "Malformed early option 'cma'" in lines
    assert 'cma: map: expecting "<patterns>=<regions>" near foo' in lines
    assert "Malformed early option 'cma.map'" in lines
    assert machine.cma2010 is not None
    assert ([r.name for r in machine.cma2010.regions], machine.cma2010.map) == (["a"], "foo=a")


@pytest.mark.parametrize(
    ("profile", "parameter"), [("v1", "cma_map"), ("v3", "cma.map"), ("meizu", "cma.map")]
)
def test_each_profile_has_its_spelling_of_the_map(profile, parameter):
    for given in ("cma_map", "cma.map"):
        machine = boot(f"cma=a=1M {given}=foo=a", profile)
        assert machine.cma2010 is not None
        assert machine.cma2010.map == ("foo=a" if given == parameter else "")


def test_regions_are_memory_that_the_system_does_not_have():
    without, with_regions = boot(""), boot("cma=a=64M;b=64M@0x50000000")
    pages = [sum(z.managed_pages for z in m.memory.zones) for m in (without, with_regions)]
    assert pages[0] - pages[1] == 128 * M // 4096
    assert with_regions.memblock.is_region_reserved(0x50000000, 64 * M)


def test_no_cma_of_later_years():
    machine = boot()
    assert len(machine.cma) == 0
    assert machine.cma.default is None


def test_meizu_board_from_the_command_line():
    machine = boot(f"cma={MEIZU} cma.map={MX2}", "meizu", arch="arm")
    cma = machine.cma2010
    assert cma is not None
    assert [r.size for r in reversed(cma.regions)] == [
        n * K for n in (1024, 32768, 25600, 4, 49152, 24576, 9600, 128)
    ]
    starts = [r.start for r in reversed(cma.regions)]
    assert starts == sorted(starts, reverse=True)
    fimd = cma.find_region("fimd")
    assert fimd is not None
    assert cma.cma_alloc("s3cfb.0", "fimd", 4 * M) == fimd.start
    assert cma.word.bits == 32


def test_video_camera_and_common_of_the_seed():
    machine = boot("cma=region=20M;common=5M cma.map=video,camera=region;*=common")
    cma = machine.cma2010
    assert cma is not None
    video = cma.cma_alloc("video", None, 20 * M)
    assert refused(cma.cma_alloc, "camera", None, 20 * M) == "ENOMEM"  # never both at once
    cma.cma_free(video)
    assert cma.cma_alloc("camera", None, 20 * M) == video
    assert cma.cma_alloc("gpu", "fw", 5 * M) != video
    everything = boot("cma=region=20M cma.map=*=region").cma2010
    assert everything is not None
    assert everything.cma_alloc("anything", "at all", 20 * M)


# Files


def test_which_files_there_are():
    tree = Tree(boot())
    region = ["name", "start", "size", "free", "users", "alloc"]
    assert list(tree.at(TOP).children) == ["map", "allocators", "regions"]
    assert list(tree.at(f"{TOP}/regions").children) == ["0000000051000000", "b", "0000000050000000", "a"]
    assert list(tree.at(f"{TOP}/regions/a").children) == region
    modes = {name: oct(tree.at(f"{TOP}/regions/a").children[name].mode & 0o777) for name in region}
    assert modes == {**dict.fromkeys(region, "0o444"), "alloc": "0o644"}
    assert [oct(tree.at(f"{TOP}/{name}").mode & 0o777) for name in ("map", "allocators")] == [
        "0o644",
        "0o444",
    ]
    assert all(f.size == 4096 for f in tree.at(f"{TOP}/regions/a").children.values())


@pytest.mark.parametrize(
    ("profile", "files"),
    [
        ("v2", ["map", "asterisk"]),
        ("v3", ["map", "allocators", "regions"]),
        ("v4", ["map", "allocators", "regions"]),
    ],
)
def test_files_of_the_versions(profile, files):
    tree = Tree(boot("cma=a=1M", profile))
    assert list(tree.at(TOP).children) == files


def test_v1_has_no_sysfs_but_a_device():
    tree = Tree(boot("cma=a=1M cma_map=foo=a", "v1"))
    assert list(tree.root.children) == ["dev"]


def test_other_kernels_have_neither():
    machine = start_kernel(load("virt", ()), MachineOptions(), ManualClock())
    assert list(Tree(machine).root.children) == []


def test_contents():
    tree = Tree(boot())
    assert {name: tree.read(f"{TOP}/regions/a/{name}") for name in tree.at(f"{TOP}/regions/a").children} == {
        "name": "a\n",
        "start": "0000000050000000\n",
        "size": "1048576\n",
        "free": "1048576\n",
        "users": "0\n",
        "alloc": "",
    }
    assert (tree.read(f"{TOP}/map"), tree.read(f"{TOP}/allocators")) == ("foo=a,b\n", "bf\n")


def test_32_bit_addresses_have_8_digits():
    tree = Tree(boot(arch="arm"))
    assert tree.read(f"{TOP}/regions/50000000/start") == "50000000\n"


def test_files_follow_allocations():
    machine = boot()
    tree = Tree(machine)
    assert machine.cma2010 is not None
    machine.cma2010.cma_alloc("foo", None, 5000)
    assert [tree.read(f"{TOP}/regions/a/{name}") for name in ("free", "users", "alloc")] == [
        f"{M - 8192}\n",
        "1\n",
        "bf\n",
    ]


def test_map_writes():
    machine = boot()
    tree = Tree(machine)
    assert tree.write(f"{TOP}/map", "bar=b;\n") == 7
    assert tree.read(f"{TOP}/map") == "bar=b\n"
    assert refused(tree.write, f"{TOP}/map", "bad\n") == "EINVAL"
    assert tree.read(f"{TOP}/map") == "bar=b\n"
    assert tree.write(f"{TOP}/map", "\n") == 1
    assert tree.read(f"{TOP}/map") == ""
    assert machine.cma2010 is not None
    assert refused(machine.cma2010.cma_alloc, "bar", None, 1) == "ENOENT"


def test_a_write_is_cut_one_byte_short_of_a_page():
    """fs/sysfs/file.c:fill_write_buffer()@2.6.36"""
    tree = Tree(boot())
    assert tree.write(f"{TOP}/map", "a=" + "b" * 4093) == 4095
    assert tree.write(f"{TOP}/map", "c=" + "d" * 5000) == 4095
    assert tree.read(f"{TOP}/map") == "c=" + "d" * 4093 + "\n"


def test_map_is_cut_to_a_page_when_read():
    machine = boot()
    assert machine.cma2010 is not None
    machine.cma2010.set_map("a=" + "b" * 5000)
    text = Tree(machine).read(f"{TOP}/map")
    assert (len(text), text[-1]) == (4096, "\n")


def test_alloc_writes_vector_b6():
    machine = boot()
    tree, cma = Tree(machine), machine.cma2010
    assert cma is not None
    assert tree.write(f"{TOP}/regions/a/alloc", "bf\n") == 3
    assert tree.read(f"{TOP}/regions/a/alloc") == "[bf]\n"
    start = cma.cma_alloc("foo", None, 1)
    assert tree.read(f"{TOP}/regions/a/alloc") == "bf\n"
    assert refused(tree.write, f"{TOP}/regions/a/alloc", "bf") == "EBUSY"
    cma.cma_free(start)
    assert tree.write(f"{TOP}/regions/a/alloc", "nosuch") == 6
    assert tree.read(f"{TOP}/regions/a/alloc") == "[nosuch]\n"
    assert cma.cma_alloc("foo", None, 1) == 0x51000000  # the next region of the rule
    assert tree.write(f"{TOP}/regions/a/alloc", "\n") == 1
    assert tree.read(f"{TOP}/regions/a/alloc") == ""
    assert cma.cma_alloc("foo", None, 1) == 0x50000000


def test_v3_asterisk_attribute():
    machine = boot("cma=a=1M;-b=1M", "v3")
    tree = Tree(machine)
    assert [tree.read(f"{TOP}/regions/{name}/asterisk") for name in "ab"] == ["1\n", "0\n"]
    assert tree.write(f"{TOP}/regions/b/asterisk", "0x10\n") == 5
    assert tree.write(f"{TOP}/regions/a/asterisk", "0") == 1
    assert [tree.read(f"{TOP}/regions/{name}/asterisk") for name in "ab"] == ["0\n", "1\n"]
    for text in ("yes\n", "-1", "1\njunk", "", "\n"):
        assert refused(tree.write, f"{TOP}/regions/a/asterisk", text) == "EINVAL"
    assert machine.cma2010 is not None
    b = machine.cma2010.find_region("b")
    assert b is not None
    assert machine.cma2010.cma_alloc("anybody", None, 1) == b.start


def test_v2_asterisk_file():
    tree = Tree(boot("cma=-a=1M;b=1M;c=1M", "v2"))
    assert tree.read(f"{TOP}/asterisk") == "b,c\n"
    assert tree.write(f"{TOP}/asterisk", "a\n") == 2
    assert tree.read(f"{TOP}/asterisk") == "a\n"


def test_a_first_read_behind_the_beginning_continues_the_text():
    node = Tree(boot()).at(f"{TOP}/map")
    assert node.fops.open(node, os.O_RDONLY).read(100, 4) == b"a,b\n"


@pytest.mark.parametrize("name", ["\u00e9", "\u4e2d", "\udcff"])
def test_names_are_the_bytes_of_the_command_line(name):
    machine = boot(f"cma={name}=1M cma.map={name}={name}")
    tree, data = Tree(machine), name.encode("utf-8", "surrogateescape")
    node = tree.at(f"{TOP}/map")
    assert node.fops.open(node, os.O_RDONLY).read(100, 0) == data + b"=" + data + b"\n"
    assert node.fops.open(node, os.O_WRONLY).write(b"*=" + data, 0) == 2 + len(data)
    assert (
        tree.at(f"{TOP}/regions/{name}").children.keys()
        == tree.at(f"{TOP}/regions/000000007ff00000").children.keys()
    )
    assert opened(machine).ioctl(IOCTL_CMA_ALLOC, packed(data)) == 0


@pytest.mark.parametrize("name", ["a/b", ".", "..", "/"])
def test_a_name_that_no_path_can_reach_has_no_link(name):
    tree = Tree(boot(f"cma={name}=1M"))
    assert list(tree.at(f"{TOP}/regions").children) == ["000000007ff00000"]
    assert tree.read(f"{TOP}/regions/000000007ff00000/name") == f"{name}\n"


def test_read_only_files_refuse_writing_at_open():
    tree = Tree(boot())
    for name in ("name", "start", "size", "free", "users"):
        assert refused(tree.write, f"{TOP}/regions/a/{name}", "1") == "EACCES"
    assert refused(tree.write, f"{TOP}/allocators", "bf") == "EACCES"


def test_a_file_may_be_read_in_the_middle_first():
    node = Tree(boot()).at(f"{TOP}/regions/a/name")
    assert node.fops.open(node, os.O_RDONLY).read(10, 1) == b"\n"


def test_regions_registered_later_and_private_ones_appear():
    machine = boot()
    tree, cma = Tree(machine), machine.cma2010
    assert cma is not None
    cma.cma_region_register(CmaRegion("late", 0x52000000, M))
    cma.cma_region_register(CmaRegion(None, 0x53000000, M))
    cma.cma_region_register(CmaRegion("a", 0x54000000, M))  # the name is taken: no second link
    assert tree.read(f"{TOP}/regions/late/size") == "1048576\n"
    assert tree.read(f"{TOP}/regions/0000000053000000/name") == ""
    assert tree.read(f"{TOP}/regions/a/start") == "0000000050000000\n"
    assert tree.read(f"{TOP}/regions/0000000054000000/name") == "a\n"


def test_q7_shows_bf_where_another_allocator_was_wanted():
    for strict, shown in ((False, "[nosuch]\n"), (True, "bf\n")):
        assert Tree(boot("cma=a=1M:nosuch", strict=strict)).read(f"{TOP}/regions/a/alloc") == shown


# /dev/cma


def opened(machine: BootedMachine):
    node = Tree(machine).at("dev/cma")
    assert isinstance(node, RegularFile)
    return node.fops.open(node, os.O_RDWR)


def packed(spec: bytes, size: int = 4096, magic: int = CMA_MAGIC) -> bytearray:
    return bytearray(cma_request(spec, size, magic=magic))


def test_device_ioctl():
    machine = boot()
    file, request = opened(machine), packed(b"foo/x")
    assert file.ioctl(IOCTL_CMA_ALLOC, request) == 0
    assert struct.unpack_from("<Q", request, 24)[0] == 0x50000000
    assert refused(file.ioctl, IOCTL_CMA_ALLOC, packed(b"foo")) == "EBADFD"
    file.release()
    assert machine.cma2010 is not None
    assert all(r.users == 0 for r in machine.cma2010.regions)


def test_device_errors():
    file = opened(boot())
    assert refused(file.ioctl, IOCTL_CMA_ALLOC + 1, bytearray()) == "ENOTTY"
    assert refused(file.ioctl, IOCTL_CMA_ALLOC, packed(b"foo", magic=0)) == "ENOTTY"
    assert refused(file.ioctl, IOCTL_CMA_ALLOC, packed(b"nosuch")) == "ENOENT"
    assert refused(file.read, 1, 0) == "EINVAL"
    assert refused(file.write, b"x", 0) == "EINVAL"


def test_an_oops_is_a_line_and_eio():
    machine = boot("cma=a=1M;b=1M cma.map=foo=a,b", "v4", strict=True)
    opened(machine).ioctl(IOCTL_CMA_ALLOC, packed(b"foo", M))
    assert refused(opened(machine).ioctl, IOCTL_CMA_ALLOC, packed(b"foo", M)) == "EIO"
    assert machine.log.lines()[-1].startswith("cma: oops: Q5: ")


def test_the_command_line_offers_the_profiles_that_there_are():
    assert list(options.PROFILES) == list(PROFILES)
    args = cli_options.machine_options().parse_args(
        ["--profile", "v3", "--strict-quirks", "--kernel", "2010"]
    )
    machine = cli_options.boot_from(args).booted
    assert machine.cma2010 is not None
    assert (machine.cma2010.profile.name, machine.cma2010.quirks) == ("v3", QUIRKS["v3"])


def test_nothing_of_later_years_in_the_tree():
    machine = cmafs.Machine.boot(kernel="2010", cmdline=CMDLINE)
    assert machine.listdir("/sys/kernel/debug") == []
    assert machine.listdir("/sys/kernel/mm") == ["contiguous"]
    assert machine.listdir("/dev") == ["cma", "kmsg"]
    assert b"Cma" not in machine.read("/proc/meminfo")
    assert b"cma" not in machine.read("/proc/vmstat")
    assert "cma-reserved" not in machine.dmesg()
    assert machine.verify() == []


def test_check_names_regions_and_what_became_none():
    report = report_on(
        load("virt", ()), MachineOptions(kernel="2010", cmdline="cma=a=1M;big=64G;bad cma.map=foo")
    )
    assert [(area.name, area.count, area.node) for area in report.areas] == [("a", 256, None)]
    assert [(problem.prop, problem.effect) for problem in report.problems] == [
        ("cma=", "refused"),
        ("cma.map=", "refused"),
        ("cma=", "refused"),
    ]
    assert "(big)" in report.problems[2].reason
    assert report_on(load("virt", ()), MachineOptions(kernel="2010", cmdline="cma=a=1M cma.map=d=a")).ok


def test_proc_files_are_of_2_6_36():
    machine = cmafs.Machine.boot(kernel="2010", cmdline=CMDLINE)
    types = machine.read("/proc/pagetypeinfo").decode().splitlines()
    assert [line.split("type")[1].split()[0] for line in types if ", type" in line] == [
        "Unmovable",
        "Reclaimable",
        "Movable",
        "Reserve",
        "Isolate",
    ]
    titles = next(line for line in types if line.startswith("Number of blocks"))
    counts = dict(zip(titles.split()[4:], map(int, types[-1].split()[4:]), strict=True))
    assert (counts["Movable"] > 400, counts["Reserve"], counts["Isolate"]) == (True, 0, 0)
    assert b"managed" not in machine.read("/proc/zoneinfo")


@pytest.mark.parametrize(
    ("profile", "config", "line"),
    [
        ("vendor", (), "CONFIG_CMA_SYSFS=y"),
        ("vendor", ("CMA_SYSFS=n",), "# CONFIG_CMA_SYSFS is not set"),
        ("v1", (), "# CONFIG_CMA_SYSFS is not set"),
    ],
)
def test_configuration_is_the_framework_s(profile, config, line):
    machine = cmafs.Machine.boot(kernel="2010", profile=profile, config=config, cmdline="cma=a=1M")
    lines = [text for text in machine.read("/boot/config-2.6.36").decode().splitlines() if "CMA" in text]
    assert lines == ["CONFIG_CMA=y", "CONFIG_CMA_DEBUG=y", line, "CONFIG_CMA_BEST_FIT=y"]
    assert ("contiguous" in machine.listdir("/sys/kernel/mm")) == line.endswith("=y")


def test_no_reserved_memory_in_2010():
    """The machine has the tree's memory, and what /memreserve/ takes, but no areas of its pools."""
    machine = cmafs.Machine.boot(dts="camera", kernel="2010", cmdline="cma=a=1M")
    assert [list(machine.booted.cma), machine.booted.reserved_mem] == [[], []]
    lines = [line for line in machine.dmesg().splitlines() if "reserved mem" in line.lower()]
    assert lines == []
    machine.control("dma_alloc 32e00000.isi 1M")  # ordinary pages: dma_alloc_coherent() knew no CMA
    assert machine.read("/sim/devices/32e00000.isi").decode().split("\t")[3] == "-"
    report = report_on(load("camera", ()), MachineOptions(kernel="2010", cmdline="cma=a=1M"))
    assert [area.name for area in report.areas] == ["a"]
    assert {(problem.what, problem.effect) for problem in report.problems if problem.severity == "error"} == {
        ("2.6.36 knows no /reserved-memory, which came with 3.15", "ignored")
    }
