"""fs/libfs.c: numbers as they are parsed, text as it is kept."""

from __future__ import annotations

import doctest
import errno

import pytest

import cmafs.fs.libfs
from cmafs.fs.dentry import new_directory
from cmafs.fs.libfs import (
    SYSFS,
    SimpleAttribute,
    SysfsAttribute,
    kstrtoull,
    simple_strtoll,
    to_int,
    u32_array_text,
)

UINT64 = 1 << 64


def test_examples() -> None:
    assert doctest.testmod(cmafs.fs.libfs).failed == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"5", 5),
        (b"5\n", 5),
        (b"+5\n", 5),
        (b"0x10", 16),
        (b"0X1f\n", 31),
        (b"+0x5", 5),
        (b"010", 8),
        (b"0", 0),
        (b"00", 0),
        (b"18446744073709551615", UINT64 - 1),
        (b"0xffffffffffffffff\n", UINT64 - 1),
    ],
)
def test_strict_numbers(text: bytes, value: int) -> None:
    assert kstrtoull(text) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b" 5",
        b"5 ",
        b"\t5",
        b"5\r\n",
        b"-1",
        b"-0",
        b"++1",
        b"0x",
        b"0xg",
        b"08",
        b"0b11",
        b"0o7",
        b"1k",
        b"1e3",
        b"1.0",
        b"1_0",
        b"'5'",
        b"5\n\n",
        b"1\n2\n",
        b"+",
        b"+-5",
        b"5;",
    ],
)
def test_strict_parser_refuses(text: bytes) -> None:
    with pytest.raises(OSError) as refused:
        kstrtoull(text)
    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "text", [b"18446744073709551616", b"0x10000000000000000\n", b"99999999999999999999 x"]
)
def test_too_large_is_told_before_what_follows_it(text: bytes) -> None:
    with pytest.raises(OSError) as refused:
        kstrtoull(text)
    assert refused.value.errno == errno.ERANGE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"", 0),
        (b"junk", 0),
        (b"12abc", 12),
        (b" 5", 0),
        (b"+5", 0),
        (b"0x10\n", 16),
        (b"0xg", 0),
        (b"010", 8),
        (b"08", 0),
        (b"-5", UINT64 - 5),
        (b"--5", 0),
        (b"1\n2\n", 1),
        (b"18446744073709551617", 1),
    ],
)
def test_lenient_numbers(text: bytes, value: int) -> None:
    assert simple_strtoll(text) == value


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0, 0),
        (1 << 32, 0),
        ((1 << 32) + 1, 1),
        (1 << 31, -(1 << 31)),
        (UINT64 - 1, -1),
        ((1 << 31) - 1, (1 << 31) - 1),
    ],
)
def test_an_int_keeps_32_bits(value: int, kept: int) -> None:
    assert to_int(value) == kept


def test_a_write_is_parsed_to_23_bytes_and_counts_whole() -> None:
    seen: list[int] = []
    attr = SimpleAttribute(set=seen.append)
    assert attr.store(b"00000000000000000000012junk and more") == 36
    assert attr.store(b"000000000000000000000012") == 24
    assert attr.store(b"7\0anything") == 10
    assert seen == [10, 1, 7]


def test_a_value_is_fixed_at_the_first_read_of_an_open_file() -> None:
    state = [1234]
    attr = SimpleAttribute(get=lambda: state[0])
    inode: object = None
    file = attr.open(inode, 0)  # type: ignore[arg-type]
    state[0] = 5678
    assert file.read(2, 0) == b"56"
    state[0] = 9
    assert file.read(100, 2) == b"78\n"
    assert file.read(100, 5) == b""
    assert file.nonseekable
    for call in (lambda: SimpleAttribute().render(), lambda: attr.store(b"1")):
        with pytest.raises(OSError) as refused:
            call()
        assert refused.value.errno == errno.EACCES


def test_a_full_array_loses_its_newline() -> None:
    full = 0xFFFFFFFF
    assert u32_array_text([full, full]) == b"4294967295 4294967295"
    assert u32_array_text([1000000000]) == b"1000000000"
    assert u32_array_text([full, 999999999]) == b"4294967295 999999999\n"
    assert u32_array_text([0, 0, 7]) == b"0 0 7\n"
    assert u32_array_text([]) == b""


@pytest.mark.parametrize("flags", [1, 2, 0o1001])
def test_a_sysfs_attribute_refuses_to_be_opened_for_writing(flags: int) -> None:
    attr = SysfsAttribute(lambda: b"5\n")
    inode = new_directory(SYSFS).file("attr", 0o444, attr)
    with pytest.raises(OSError) as refused:
        attr.open(inode, flags)
    assert refused.value.errno == errno.EACCES
    assert attr.open(inode, 0).read(10, 0) == b"5\n"
