"""The log: ring, stamps, records of several lines, rate limits, pointers, debug flags."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cmafs.abi.printk import ROWS, DebugSite
from cmafs.lib.clock import NSEC_PER_SEC, ManualClock
from cmafs.lib.printk import Printk
from cmafs.lib.ratelimit import Ratelimit


def make(kernel: str = "6.12", shift: int = 17, seed: int = 0, start: int = 0, bits: int = 64) -> Printk:
    return Printk(ManualClock(start), seed, shift, ROWS[kernel], bits)


def test_dmesg_format() -> None:
    log = make(start=12_345_678_901_234)
    log.printk("one")
    log.printk("two\nmore")
    assert log.dmesg() == "[12345.678901] one\n[12345.678901] two\n               more\n"
    assert make(start=1_500).dmesg() == ""


def test_stamps_are_five_wide() -> None:
    log = make(start=1_000_001_999)
    log.printk("x")
    assert log.dmesg() == "[    1.000001] x\n"


@pytest.mark.parametrize(
    ("kernel", "length", "records"),
    [
        ("4.4", 64, 131072 // 80),
        ("5.10", 64, 131072 // 72),
        ("6.12", 64, 131072 // 80),
        ("6.12", 1, 4096),
        ("5.10", 1, 4096),
        ("4.4", 1, 131072 // 20),
    ],
)
def test_the_ring_keeps_as_much_as_the_kernels(kernel: str, length: int, records: int) -> None:
    log = make(kernel)
    for number in range(10_000):
        log.printk(str(number % 10) * length)
    kept = len(log.lines())
    assert records - 1 <= kept <= records
    assert log.next_seq == 10_000
    assert log.first_seq == 10_000 - kept
    assert log.lines()[-1] == "9" * length


def test_a_bigger_ring_keeps_more() -> None:
    small, big = make(shift=12), make(shift=13)
    for log in (small, big):
        for _ in range(500):
            log.printk("x" * 100)
    assert len(small.lines()) == 4096 // 112
    assert len(big.lines()) == 8192 // 112


def test_skipped_records_have_numbers() -> None:
    log = make(shift=12)
    log.printk("before")
    made = []

    def newest_first() -> Iterator[tuple[str, int]]:
        for number in reversed(range(1_000_000)):
            made.append(number)
            yield f"{number:0100}", 4

    log.printk_many(1_000_000, newest_first())
    assert log.next_seq == 1_000_001
    assert 4096 // 112 <= len(made) <= 4096 // 112 + 2
    assert log.lines() == [f"{number:0100}" for number in range(1_000_000 - len(log.lines()), 1_000_000)]
    assert log.record(5) is next(log.records())


def test_record_by_number() -> None:
    log = make()
    for text in "abc":
        log.printk(text)
    log.printk_many(5, [("d", 4)])
    texts = [found.text if (found := log.record(seq)) else None for seq in range(9)]
    assert texts == ["a", "b", "c", "d", "d", "d", "d", "d", None]


def test_clear_hides_what_was_before() -> None:
    log = make()
    log.printk("old")
    log.clear()
    log.printk("new")
    assert log.dmesg() == "[    0.000000] new\n"
    assert log.lines() == ["old", "new"]


def test_long_lines_are_cut() -> None:
    for kernel, length in (("4.4", 992), ("6.1", 992), ("6.12", 1024)):
        log = make(kernel)
        log.printk("z" * 2000)
        assert log.lines() == ["z" * length]


def test_pieces_that_do_not_fit_start_a_record() -> None:
    log = make("5.10")
    log.printk_cont("cma: ", ["p" * 500, "q" * 500, "r" * 500], level=6)
    first, second = log.records()
    assert (first.level, first.continued) == (6, False)
    assert first.text == "cma: " + "p" * 500 + "q" * 500
    assert (second.text, second.level, second.continued) == ("r" * 500, 4, True)


def test_pointers_follow_from_the_seed() -> None:
    first, same, other = make(seed=1), make(seed=1), make(seed=2)
    assert first.hash_ptr(0x1234) == same.hash_ptr(0x1234) != other.hash_ptr(0x1234)
    assert first.hash_ptr(0x1234).startswith("00000000")
    assert make(seed=(1 << 128) + 1).hash_ptr(0x1234) == first.hash_ptr(0x1234)  # siphash_key_t: 128 bits
    assert len(first.hash_ptr(0x1234)) == 16
    assert first.hash_ptr(0) == "0" * 16
    assert make("4.19").hash_ptr(0) == "          (null)"  # as wide as a pointer
    assert make("4.4").hash_ptr(0xFFFFEA0000000040) == "ffffea0000000040"
    assert len(make(bits=32).hash_ptr(0x1234)) == 8
    assert make(bits=32).hash_ptr(0) == "0" * 8
    assert make("4.4", bits=32).hash_ptr(0x7_C000_0040) == "c0000040"  # a pointer has 32 bits there
    assert make("4.4", bits=32).hash_ptr(0) == make("4.19", bits=32).hash_ptr(0) == "  (null)"


@pytest.mark.parametrize(
    ("kernel", "bits", "shown"),
    [
        ("4.15", 64, "(ptrval)"),
        ("4.19", 64, "(____ptrval____)"),
        ("4.19", 32, "(ptrval)"),
        ("6.12", 64, "(____ptrval____)"),
        ("6.12", 32, "(ptrval)"),
    ],
)
def test_pointers_before_there_is_a_key(kernel: str, bits: int, shown: str) -> None:
    """lib/vsprintf.c:ptr_to_id(): not yet random; NULL is never hashed."""
    log = make(kernel, bits=bits)
    null, hashed = log.hash_ptr(0), log.hash_ptr(0x1234)
    log.ptr_key_filled = False
    assert log.hash_ptr(0x1234) == shown.rjust(bits // 4)
    assert log.hash_ptr(0) == null
    log.ptr_key_filled = True
    assert log.hash_ptr(0x1234) == hashed


@pytest.mark.parametrize(("kernel", "most"), [("4.4", 992), ("5.10", 1024), ("5.15", 1021), ("6.12", 1021)])
def test_a_record_of_pieces_is_as_long_as_its_buffer(kernel: str, most: int) -> None:
    """Since 5.11 a piece is measured with its level and its NUL: printk.c:vprintk_store()."""
    for length, records in ((most, ["a" * 500 + "b" * (most - 500)]), (most + 1, None)):
        log = make(kernel)
        log.printk_cont("a" * 500, ["b" * (length - 500)])
        assert log.lines() == (records or ["a" * 500, "b" * (length - 500)])


def test_rate_limit() -> None:
    log = make()
    clock = log.clock
    assert isinstance(clock, ManualClock)
    limit = Ratelimit(log)
    assert sum(limit.allow("fn") for _ in range(15)) == 10
    assert limit.allow("fn", 1000) == 0
    clock.advance(5 * NSEC_PER_SEC)
    assert not limit.allow("fn")
    assert log.lines() == []
    clock.advance(1)
    assert limit.allow("fn", 12) == 10
    assert log.lines() == ["fn: 1006 callbacks suppressed"]
    assert limit.missed == 2
    clock.advance(6 * NSEC_PER_SEC)
    assert limit.allow_silently()
    assert len(log.lines()) == 1


@pytest.mark.parametrize(
    ("flags", "prefix"),
    [
        ("p", ""),
        ("pm", "cma: "),
        ("pf", "fn: "),
        ("pl", "12: "),
        ("pt", "[1] "),
        ("pmfslt", "[1] cma:fn:mm/cma.c:12: "),
    ],
)
def test_prefixes_of_debug_lines(flags: str, prefix: str) -> None:
    log = make()
    site = DebugSite("mm/cma.c", 12, "cma", "fn", "cma: %s(page %p, count %lu, pfn 0x%lx)")
    log.add_debug_sites([site], enabled=False)
    log.pr_debug(site, "fn", "P", 3, 255)
    assert log.lines() == []
    log.debug_flags[site] = sum(1 << log.abi.dyndbg_flags.index(letter) for letter in flags)
    log.pr_debug(site, "fn", "P", 3, 255)
    assert log.lines() == [f"{prefix}cma: fn(page P, count 3, pfn 0xff)"]
    assert next(log.records()).level == 7
