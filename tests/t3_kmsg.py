"""dev/kmsg and sim/dmesg on the tables.

Modules: cmafs.fs.kmsg.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from cma_support import build_areas, tables

from cmafs.fs.namei import O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, Syscalls
from cmafs.lib.clock import ManualClock
from cmafs.lib.printk import Printk


@pytest.fixture
def log() -> Printk:
    return build_areas("6.12").log


def system_of(log: Printk) -> Syscalls:
    areas = build_areas("6.12")
    areas.log = log
    return tables(areas, "6.12")


def code(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as refused:
        call()
    return refused.value.errno


def test_one_record_a_read(log: Printk) -> None:
    log.printk("cma: Reserved 16 MiB")
    log.printk('two\nlines \\ "ü"', 4)
    log.cont_alone("=> rest")
    system = system_of(log)
    fd = system.open("/dev/kmsg")
    assert system.read(fd, 8192) == b"6,0,0,-;cma: Reserved 16 MiB\n"
    assert system.read(fd, 8192) == b'4,1,0,-;two\\x0alines \\x5c "\\xc3\\xbc"\n'
    assert system.read(fd, 8192) == b"4,2,0,c;=> rest\n"
    assert system.read(fd, 8192) == b""
    system.lseek(fd, 0)
    assert system.read(fd, 8192).startswith(b"6,0,")


def test_the_end_without_blocking_and_a_buffer_too_small(log: Printk) -> None:
    system = system_of(log)
    fd = system.open("/dev/kmsg", O_RDONLY | O_NONBLOCK)
    assert code(lambda: system.read(fd, 8192)) == errno.EAGAIN
    log.printk("now")
    assert code(lambda: system.read(fd, 5)) == errno.EINVAL
    log.printk("then")
    assert system.read(fd, 8192) == b"6,1,0,-;then\n"


def test_a_reader_that_was_overtaken(log: Printk) -> None:
    log.printk("first")
    log.printk("second")
    system = system_of(log)
    fd = system.open("/dev/kmsg")
    system.read(fd, 8192)
    for _ in range(5000):
        log.printk("x" * 100)
    assert code(lambda: system.read(fd, 8192)) == errno.EPIPE
    assert system.read(fd, 8192).startswith(b"6,%d," % log.first_seq)


@pytest.mark.parametrize(
    ("data", "record"),
    [
        (b"hello\n", b"12,0,0,-;hello\n"),
        (b"<3>disk\n", b"11,0,0,-;disk\n"),
        (b"<>x\n", b"8,0,0,-;x\n"),
        (b"<30>daemon", b"30,0,0,-;daemon\n"),
        (b"<x>odd\n\n", b"12,0,0,-;<x>odd\\x0a\n"),
    ],
)
def test_a_write_is_a_record_of_the_users(log: Printk, data: bytes, record: bytes) -> None:
    system = system_of(log)
    fd = system.open("/dev/kmsg", O_RDWR)
    assert system.write(fd, data) == len(data)
    assert system.read(fd, 8192) == record
    assert code(lambda: system.write(fd, b"x" * 1025)) == errno.EINVAL


def test_every_byte_of_a_text(log: Printk) -> None:
    """msg_add_ext_text()@v6.12: what is no printable ASCII, and the backslash, in hexadecimal."""
    text = bytes(range(1, 256))
    system = system_of(log)
    system.write_file("/dev/kmsg", text + b"\0unseen")
    shown = "".join(f"\\x{c:02x}" if c < 0x20 or c >= 0x7F or c == ord("\\") else chr(c) for c in text)
    assert system.read_file("/dev/kmsg") == f"12,0,0,-;{shown}\n".encode()


@pytest.mark.parametrize("number", [0, 7, 8, 9, 2047, 2048, 2055, 2056, 9 << 3 | 5, (1 << 64) + 11])
def test_level_and_facility_of_a_number(log: Printk, number: int) -> None:
    """devkmsg_write(): the lowest three bits and the eight above them; the kernel's facility is its own."""
    system = system_of(log)
    system.write_file("/dev/kmsg", b"<%d>text" % number)
    level, facility = number & 7, number >> 3 & 0xFF
    assert system.read_file("/dev/kmsg") == b"%d,0,0,-;text\n" % ((facility or 1) << 3 | level)


@pytest.mark.parametrize(("kernel", "longest"), [("5.10", 992), ("6.1", 992), ("6.12", 1024)])
def test_the_longest_line(kernel: str, longest: int) -> None:
    """devkmsg_write(): LOG_LINE_MAX@v6.1, 1024 bytes less those of a prefix; PRINTKRB_RECORD_MAX@v6.12."""
    system = tables(build_areas(kernel), kernel)
    fd = system.open("/dev/kmsg", O_WRONLY)
    assert system.write(fd, b"x" * longest) == longest
    assert code(lambda: system.write(fd, b"x" * (longest + 1))) == errno.EINVAL


def test_a_record_needs_just_its_length(log: Printk) -> None:
    log.printk("12345")
    log.printk("6")
    system = system_of(log)
    fd = system.open("/dev/kmsg")
    assert code(lambda: system.read(fd, len("6,0,0,-;12345"))) == errno.EINVAL
    assert system.read(fd, len("6,1,0,-;6\n")) == b"6,1,0,-;6\n"  # the first one is passed over


def test_stamps_in_microseconds(log: Printk) -> None:
    assert isinstance(log.clock, ManualClock)
    log.clock.advance(12_345_678_999)
    log.printk("now")
    assert system_of(log).read_file("/dev/kmsg") == b"6,0,12345678,-;now\n"


def test_one_descriptor_writes_ten_lines_in_five_seconds(log: Printk) -> None:
    system = system_of(log)
    fd = system.open("/dev/kmsg", O_WRONLY)
    for number in range(12):
        assert system.write(fd, b"line %d" % number) > 0
    system.close(fd)
    assert log.lines()[-2:] == ["line 9", "sh: 2 output lines suppressed due to ratelimiting"]


def test_the_clear_point(log: Printk) -> None:
    log.printk("old")
    system = system_of(log)
    assert system.lstat("/sim/dmesg").st_mode == 0o100600
    assert code(lambda: system.write_file("/sim/dmesg", b"clean\n")) == errno.EINVAL
    assert system.read_file("/sim/dmesg") == b"[    0.000000] old\n"
    assert system.write_file("/sim/dmesg", b"clear\n") == 6
    log.printk("new")
    assert system.read_file("/sim/dmesg") == b"[    0.000000] new\n"
    assert system.read(system.open("/dev/kmsg"), 8192) == b"6,1,0,-;new\n"


def test_bytes_that_are_no_text_pass_through(log: Printk) -> None:
    system = system_of(log)
    system.write_file("/dev/kmsg", b"\xff\xfe here")
    assert system.read_file("/dev/kmsg").endswith(b";\\xff\\xfe here\n")
    assert system.read_file("/sim/dmesg").endswith(b"] \xff\xfe here\n")
