"""sys/kernel/debug/cma and sys/kernel/mm/cma on the tables, where no transcript speaks.

Modules: cmafs.fs.cma_debug, cmafs.fs.cma_sysfs.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from cma_support import build_areas, machine_tables, tables

from cmafs.fs.namei import O_DIRECT, O_RDWR, Syscalls
from cmafs.mm.cma import cma_alloc

DEBUG = "/sys/kernel/debug/cma"
SYSFS = "/sys/kernel/mm/cma"


def code(call: Callable[[], object]) -> int | None:
    """The errno that a call answers with."""
    with pytest.raises(OSError) as refused:
        call()
    return refused.value.errno


def number(kernel: Syscalls, path: str) -> int:
    return int(kernel.read_file(path))


@pytest.mark.parametrize(
    ("kernel", "directories"),
    [
        ("4.4", ["cma-0", "cma-1"]),
        ("4.15", ["cma-reserved", "cma-image_buf0@"]),
        ("5.15", ["cma-reserved", "cma-image_buf0@"]),
        ("6.1", ["reserved", "image_buf0@40000000"]),
        ("7.2", ["reserved", "image_buf0@40000000"]),
        ("article", ["cma-0", "cma-1"]),
    ],
)
def test_names_of_directories(kernel: str, directories: list[str]) -> None:
    system = machine_tables(kernel, [("reserved", 64, 4, 0), ("image_buf0@40000000", 128, 4, 0)])
    assert system.listdir(DEBUG) == directories


def test_names_of_files() -> None:
    old = ["alloc", "base_pfn", "bitmap", "count", "free", "maxchunk", "order_per_bit", "used"]
    assert sorted(machine_tables("6.12").listdir(f"{DEBUG}/reserved")) == old
    new = machine_tables("7.2")
    assert sorted(new.listdir(f"{DEBUG}/reserved")) == sorted([*old, "ranges"])
    assert new.readlink(f"{DEBUG}/reserved/bitmap") == "ranges/0/bitmap"
    assert new.read_file(f"{DEBUG}/reserved/base_pfn") == new.read_file(f"{DEBUG}/reserved/ranges/0/base_pfn")
    assert new.lstat(f"{DEBUG}/reserved").st_nlink == 3
    assert new.lstat("/sys/kernel/debug").st_mode == 0o40700


def test_no_area_leaves_an_empty_directory() -> None:
    system = machine_tables("6.12", [])
    assert (system.listdir(DEBUG), system.listdir(SYSFS)) == ([], [])


@pytest.mark.parametrize(
    ("kernel", "message", "in_root"), [("4.15", False, True), ("5.4", True, False), ("5.15", True, False)]
)
def test_two_names_alike_in_eleven_characters(kernel: str, message: bool, in_root: bool) -> None:
    areas = build_areas(kernel, [("linux,cma-one", 64, 4, 0), ("linux,cma-other", 128, 8, 0)])
    system = tables(areas, kernel)
    assert system.listdir(DEBUG) == ["cma-linux,cma-o"]
    assert number(system, f"{DEBUG}/cma-linux,cma-o/count") == 1024
    line = "debugfs: Directory 'cma-linux,cma-o' with parent 'cma' already present!"
    assert (line in areas.log.lines()) == message
    assert ("count" in system.listdir("/sys/kernel/debug")) == in_root
    if in_root:
        assert number(system, "/sys/kernel/debug/count") == 2048


@pytest.mark.parametrize(("kernel", "listed"), [("5.10", True), ("6.18", True), ("7.2", False)])
def test_an_area_that_failed(kernel: str, listed: bool) -> None:
    half = 512 * 256
    areas = build_areas(
        kernel, [("across", 508, 8, 0)], zones=(("DMA32", 0, half), ("Normal", half, 2 * half))
    )
    system = tables(areas, kernel)
    name = "cma-across" if kernel == "5.10" else "across"
    assert (name in system.listdir(DEBUG)) == listed
    if listed:
        values = [
            system.read_file(f"{DEBUG}/{name}/{file}") for file in ("count", "used", "maxchunk", "bitmap")
        ]
        assert values == [b"0\n", b"0\n", b"0\n", b""]
        assert code(lambda: system.write_file(f"{DEBUG}/{name}/alloc", b"1")) == errno.ENOMEM
    if areas.abi.sysfs_files:
        assert (name in system.listdir(SYSFS)) == listed


def test_free_takes_the_newest_first_and_splits_from_the_front() -> None:
    areas = build_areas("6.12")
    system, base = tables(areas, "6.12"), areas[0].base_pfn
    directory = f"{DEBUG}/reserved"
    for count in (10, 20, 30):
        system.write_file(f"{directory}/alloc", b"%d" % count)
    system.write_file(f"{directory}/free", b"35")
    assert areas[0].mem_head == [(base, 10), (base + 15, 15)]
    assert system.read_file(f"{directory}/bitmap").split()[0] == b"%d" % (0x3FFFFFFF & ~0x7C00)
    assert system.write_file(f"{directory}/free", b"0") == 1
    assert number(system, f"{directory}/used") == 25
    assert system.write_file(f"{directory}/free", b"0x80000000\n") == 11
    assert number(system, f"{directory}/used") == 0
    assert system.write_file(f"{directory}/free", b"7") == 1


def test_free_never_takes_what_a_driver_holds() -> None:
    areas = build_areas("6.12")
    cma_alloc(areas[0], 32, align=5)
    system = tables(areas, "6.12")
    system.write_file(f"{DEBUG}/reserved/alloc", b"5")
    system.write_file(f"{DEBUG}/reserved/free", b"100000")
    assert number(system, f"{DEBUG}/reserved/used") == 32


def test_a_block_of_more_than_a_page_a_bit_is_not_split() -> None:
    areas = build_areas("6.12", [("hugetlb0", 256, 16, 9)])
    system = tables(areas, "6.12")
    system.write_file("/sys/kernel/debug/dynamic_debug/control", b"file mm/cma_debug.c +p\n")
    directory = f"{DEBUG}/hugetlb0"
    for count in (600, 5):
        system.write_file(f"{directory}/alloc", b"%d" % count)
    system.write_file(f"{directory}/free", b"6")
    assert areas[0].mem_head == [(areas[0].base_pfn, 600)]
    assert areas.log.lines() == ["cma: cannot release partial block when order_per_bit != 0"]


@pytest.mark.parametrize(
    ("data", "used"),
    [(b"junk", None), (b"3 apples", 3), (b"1\n2\n", 1), (b" 4", None), (b"-5", None), (b"", None)],
)
def test_old_kernels_parse_leniently(data: bytes, used: int | None) -> None:
    system = machine_tables("4.15")
    if used is None:
        assert code(lambda: system.write_file(f"{DEBUG}/cma-reserved/alloc", data)) == errno.ENOMEM
    else:
        assert system.write_file(f"{DEBUG}/cma-reserved/alloc", data) == len(data)
    assert number(system, f"{DEBUG}/cma-reserved/used") == (used or 0)


def test_several_ranges() -> None:
    areas = build_areas("7.2", [("multi", 256, 4, 0)])
    other = build_areas("7.2", [("multi", 512, 8, 0)])
    areas[0].ranges.append(other[0].ranges[0])
    areas[0].count += 2048
    system = tables(areas, "7.2")
    directory = f"{DEBUG}/multi"
    assert system.listdir(f"{directory}/ranges") == ["0", "1"]
    assert number(system, f"{directory}/ranges/1/base_pfn") == 512 * 256
    assert len(system.read_file(f"{directory}/ranges/1/bitmap").split()) == 64
    assert (number(system, f"{directory}/count"), number(system, f"{directory}/maxchunk")) == (3072, 2048)


@pytest.mark.parametrize(
    ("kernel", "files"),
    [
        ("5.10", None),
        ("5.15", {"alloc_pages_success", "alloc_pages_fail"}),
        ("6.12", {"alloc_pages_success", "alloc_pages_fail", "release_pages_success"}),
    ],
)
def test_sysfs(kernel: str, files: set[str] | None) -> None:
    system = machine_tables(kernel)
    if files is None:
        assert code(lambda: system.listdir(SYSFS)) == errno.ENOENT
        return
    assert set(system.listdir(f"{SYSFS}/reserved")) == files
    path = f"{SYSFS}/reserved/alloc_pages_success"
    fd = system.open(path)
    assert system.read(fd, 10) == b"0\n"
    debug = system.listdir(DEBUG)[0]
    system.write_file(f"{DEBUG}/{debug}/alloc", b"12")
    assert system.pread(fd, 10, 0) == b"12\n"
    assert system.lstat(path).st_size == 4096
    system.truncate(path, 7)
    assert system.lstat(path).st_size == 4096


def test_sysfs_counts_a_negative_request_as_minus_one() -> None:
    system = machine_tables("6.1")
    assert code(lambda: system.write_file(f"{DEBUG}/reserved/alloc", b"0xffffffff")) == errno.ENOMEM
    assert system.read_file(f"{SYSFS}/reserved/alloc_pages_fail") == b"18446744073709551615\n"


def test_two_areas_of_one_name_leave_no_sysfs() -> None:
    areas = build_areas("6.12", [("reserved", 64, 4, 0), ("reserved", 128, 4, 0)])
    system = tables(areas, "6.12")
    assert code(lambda: system.listdir(SYSFS)) == errno.ENOENT
    assert "sysfs: cannot create duplicate filename '/kernel/mm/cma/reserved'" in areas.log.lines()
    assert "debugfs: Directory 'reserved' with parent 'cma' already present!" in areas.log.lines()


def test_sysfs_can_be_left_out() -> None:
    system = tables(build_areas("6.12"), "6.12", cma_sysfs=False)
    assert code(lambda: system.listdir(SYSFS)) == errno.ENOENT


def test_the_dialect_of_the_article() -> None:
    system = machine_tables("article")
    directory = f"{DEBUG}/cma-0"
    assert sorted(system.listdir(directory)) == ["alloc", "base_pfn", "bitmap", "size", "used"]
    assert number(system, f"{directory}/size") == 4096
    assert system.write_file(f"{directory}/alloc", b"10\n") == 3
    assert system.write_file(f"{directory}/alloc", b"2\n") == 2
    assert number(system, f"{directory}/used") == 48
    assert system.read_file(f"{directory}/bitmap") == b"\xff\x0f" + bytes(510)
    assert code(lambda: system.write_file(f"{directory}/alloc", b"4097\n")) == errno.ENOMEM
    assert code(lambda: system.write_file(f"{directory}/alloc", b"ten\n")) == errno.EINVAL
    assert system.write_file(f"{directory}/alloc", b"0\n") == 2
    assert number(system, f"{directory}/used") == 0
    assert system.read_file(f"{directory}/bitmap") == bytes(512)


def test_walking_names_as_open_does() -> None:
    system = machine_tables("7.2")
    area = f"{DEBUG}/reserved"
    assert code(lambda: system.open(f"{area}/used/x")) == errno.ENOTDIR
    assert code(lambda: system.open(f"{area}/nothing/x")) == errno.ENOENT
    assert code(lambda: system.open(f"{area}/used/")) == errno.ENOTDIR
    assert code(lambda: system.open(area, 1)) == errno.EISDIR
    assert code(lambda: system.open("")) == errno.ENOENT
    assert code(lambda: system.open(f"/{'n' * 256}")) == errno.ENAMETOOLONG
    assert code(lambda: system.open(f"{area}/base_pfn", 0o400000)) == errno.ELOOP
    assert code(lambda: system.open(f"{area}/used", 0o301)) == errno.EEXIST
    assert code(lambda: system.open(f"{area}/used", 0o200000)) == errno.ENOTDIR
    assert code(lambda: system.mkdir(area)) == errno.EEXIST
    assert code(lambda: system.unlink(area)) == errno.EISDIR
    assert code(lambda: system.rmdir(f"{area}/used")) == errno.ENOTDIR
    assert code(lambda: system.rename(f"{area}/used", f"{area}/free")) == errno.EPERM
    assert code(lambda: system.read(99, 1)) == errno.EBADF
    assert number(system, "/sys/../sys/./kernel//debug/cma/reserved/ranges/../count") == 4096


def test_descriptors() -> None:
    system = machine_tables("6.12")
    alloc, used = f"{DEBUG}/reserved/alloc", f"{DEBUG}/reserved/used"
    writer, reader, directory = system.open(alloc, 1), system.open(used), system.open(DEBUG)
    assert code(lambda: system.read(writer, 1)) == errno.EBADF
    assert code(lambda: system.write(reader, b"1")) == errno.EBADF
    assert code(lambda: system.read(directory, 1)) == errno.EISDIR
    assert code(lambda: system.lseek(reader, 0)) == errno.ESPIPE
    assert code(lambda: system.pwrite(writer, b"1", 0)) == errno.ESPIPE
    assert system.fstat(reader).st_mode == 0o100444
    for fd in (writer, reader, directory):
        system.close(fd)
    assert code(lambda: system.close(reader)) == errno.EBADF


def test_a_sysfs_file_that_chmod_opens_for_writing_has_no_store() -> None:
    system = tables(build_areas("6.12"), "6.12")
    path = f"{SYSFS}/reserved/alloc_pages_fail"
    system.chmod(path, 0o644)
    fd = system.open(path, O_RDWR)
    with pytest.raises(OSError) as refused:
        system.write(fd, b"1")
    assert refused.value.errno == errno.EIO
    assert system.read(fd, 10) == b"0\n"


def test_direct_io_is_refused() -> None:
    system = tables(build_areas("6.12"), "6.12")
    with pytest.raises(OSError) as refused:
        system.open(f"{SYSFS}/reserved/alloc_pages_fail", O_DIRECT)
    assert refused.value.errno == errno.EINVAL
