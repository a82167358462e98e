"""fs/libfs.c: what a write may be, and when the text of a file is made."""

from __future__ import annotations

import errno

import pytest

from cmafs.fs.dentry import new_directory
from cmafs.fs.libfs import SYSFS, simple_attribute, snapshot_file, sysfs_attribute, u32_array_text
from cmafs.fs.seq_file import SeqOperations

NO_INODE = new_directory(SYSFS)


def test_a_write_is_parsed_to_23_bytes_and_counts_whole() -> None:
    seen: list[int] = []
    file = simple_attribute(set=seen.append).open(NO_INODE, 1)
    assert file.write(b"00000000000000000000012junk and more", 0) == 36
    assert file.write(b"000000000000000000000012", 0) == 24
    assert file.write(b"7\0anything", 0) == 10
    assert file.write(b"0" * 5000, 0) == 5000
    assert seen == [10, 1, 7, 0]
    with pytest.raises(OSError) as refused:
        file.write(b"9" * 5000, 0)
    assert refused.value.errno == errno.ERANGE


def test_lenient_writes() -> None:
    seen: list[int] = []
    file = simple_attribute(set=seen.append, strict=False).open(NO_INODE, 1)
    for text in (b"junk", b"-5", b"12x", b"9" * 5000):
        assert file.write(text, 0) == len(text)
    wrapped = int("9" * 23) % (1 << 64)
    assert seen == [0, -5, 12, wrapped - (1 << 64) * (wrapped >> 63)]


def test_a_value_is_fixed_at_the_first_read_of_an_open_file() -> None:
    state = [1234]
    attr = simple_attribute(get=lambda: state[0])
    file = attr.open(NO_INODE, 0)
    state[0] = 5678
    assert file.read(2, 0) == b"56"
    state[0] = 9
    assert file.read(100, 2) == b"78\n"
    assert file.read(100, 5) == b""
    assert file.nonseekable
    for call in (lambda: simple_attribute().open(NO_INODE, 0).read(1, 0), lambda: file.write(b"1", 0)):
        with pytest.raises(OSError) as refused:
            call()
        assert refused.value.errno == errno.EACCES


def test_a_snapshot_is_made_at_open() -> None:
    state = [b"first"]
    file = snapshot_file(lambda: state[0]).open(NO_INODE, 0)
    state[0] = b"second"
    assert (file.read(100, 0), file.read(2, 0), file.read(100, 2)) == (b"first", b"fi", b"rst")
    assert file.nonseekable


def test_a_text_is_made_anew_at_its_start_and_elsewhere_than_where_the_last_read_ended() -> None:
    made: list[int] = []

    def show() -> bytes:
        made.append(0)
        return b"%d: text" % len(made)

    file = SeqOperations(show).open(NO_INODE, 0)
    assert file.read(4, 3) == b"text"  # before any other read: traverse()
    assert (file.read(3, 0), file.read(2, 3), file.read(9, 5), file.read(9, 7)) == (b"2: ", b"te", b"xt", b"")
    assert (file.read(1, 0), file.read(1, 2)) == (b"3", b" ")
    assert len(made) == 4


def test_a_full_array_loses_its_newline() -> None:
    full = 0xFFFFFFFF
    assert u32_array_text([full, full]) == b"4294967295 4294967295"
    assert u32_array_text([1000000000]) == b"1000000000"
    assert u32_array_text([full, 999999999]) == b"4294967295 999999999\n"
    assert u32_array_text([0, 0, 7]) == b"0 0 7\n"
    assert u32_array_text([]) == b""


@pytest.mark.parametrize("flags", [1, 2, 0o1001])
def test_a_sysfs_attribute_refuses_to_be_opened_for_writing(flags: int) -> None:
    attr = sysfs_attribute(lambda: b"5\n")
    inode = new_directory(SYSFS).file("attr", 0o444, attr)
    with pytest.raises(OSError) as refused:
        attr.open(inode, flags)
    assert refused.value.errno == errno.EACCES
    assert attr.open(inode, 0).read(10, 0) == b"5\n"
    inode.chmod(0o666)
    with pytest.raises(OSError) as refused:
        attr.open(inode, flags).write(b"1", 0)
    assert refused.value.errno == errno.EIO
    for mode in (0, 0o111):
        inode.chmod(mode)
        for wanted in (0, flags):
            with pytest.raises(OSError) as refused:
                attr.open(inode, wanted)
            assert refused.value.errno == errno.EACCES
