"""lib/kstrtox: what is a number, where it ends, and what becomes of one that is too long."""

from __future__ import annotations

import doctest
import errno
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cmafs.lib.kstrtox
from cmafs.lib.kstrtox import (
    c_integer,
    c_string,
    kstrtoll,
    kstrtoul,
    kstrtoul_from_user,
    kstrtoull,
    parse_integer,
    simple_strtoll,
    simple_strtoull,
)

UINT64 = 1 << 64
#: Of what an attacker writes: int() refuses 4301 digits and takes the square of their number in time.
MANY = 1_000_000


def code(call: object, *args: object) -> int | None:
    with pytest.raises(OSError) as refused:
        call(*args)  # type: ignore[operator]
    return refused.value.errno


def test_examples() -> None:
    assert doctest.testmod(cmafs.lib.kstrtox).failed == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("5\n", 5),
        ("+5\n", 5),
        ("0x10", 16),
        ("0X1f\n", 31),
        ("+0x5", 5),
        ("010", 8),
        ("0", 0),
        ("00", 0),
        ("18446744073709551615", UINT64 - 1),
        ("0xffffffffffffffff\n", UINT64 - 1),
        ("0" * 5000 + "7", 7),
    ],
)
def test_strict_numbers(text: str, value: int) -> None:
    assert kstrtoull(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        " 5",
        "5 ",
        "\t5",
        "5\r\n",
        "-1",
        "-0",
        "++1",
        "0x",
        "0xg",
        "08",
        "0b11",
        "0o7",
        "1k",
        "1e3",
        "1.0",
        "1_0",
        "'5'",
        "5\n\n",
        "1\n2\n",
        "+",
        "+-5",
        "5;",
        "\u0665",
        "\u00b2",
    ],
)
def test_strict_parser_refuses(text: str) -> None:
    assert code(kstrtoull, text) == errno.EINVAL


@pytest.mark.parametrize("text", ["18446744073709551616", "0x10000000000000000\n", "99999999999999999999 x"])
def test_too_large_is_told_before_what_follows_it(text: str) -> None:
    assert code(kstrtoull, text) == errno.ERANGE


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ("", 0, ""),
        ("junk", 0, "junk"),
        ("12abc", 12, "abc"),
        (" 5", 0, " 5"),
        ("+5", 0, "+5"),
        ("0x10\n", 16, "\n"),
        ("0xg", 0, "xg"),
        ("010", 8, ""),
        ("08", 0, "8"),
        ("-5", -5, ""),
        ("--5", 0, "-5"),
        ("1\n2\n", 1, "\n2\n"),
        ("18446744073709551617", 1, ""),
        ("18446744073709551615", -1, ""),
    ],
)
def test_lenient_numbers(text: str, value: int, rest: str) -> None:
    assert simple_strtoll(text) == (value, rest)


def test_bases_and_types() -> None:
    assert (kstrtoull("0010", 10), kstrtoull("17\n", 8), kstrtoull("17", 16)) == (10, 15, 23)
    assert code(kstrtoull, "19", 8) == errno.EINVAL
    assert code(kstrtoull, "0x10", 10) == errno.EINVAL
    assert simple_strtoull("0x", 16) == (0, "")
    assert (kstrtoul("0x10"), kstrtoul("010"), kstrtoul_from_user(b"010\n")) == (16, 8, 8)
    assert kstrtoul("4294967295", 10, 32) == 0xFFFFFFFF
    assert code(kstrtoul, "4294967296", 10, 32) == errno.ERANGE
    assert code(kstrtoul, "4294967296 ", 10, 32) == errno.EINVAL
    assert (kstrtoll("-9223372036854775808"), kstrtoll("+0x7f")) == (-(1 << 63), 0x7F)
    for text in ("9223372036854775808", "-9223372036854775809", "9" * MANY):
        assert code(kstrtoll, text) == errno.ERANGE
    for text in ("-", "--1", "-+1", "+-1"):
        assert code(kstrtoll, text) == errno.EINVAL


def test_a_user_s_number_is_looked_at_so_far_as_one_in_base_2_could_reach() -> None:
    assert kstrtoul_from_user(b"7\0junk") == 7
    assert kstrtoul_from_user(b"0" * 66 + b"1 junk", 10) == 0
    assert kstrtoul_from_user(b"0" * 65 + b"1 junk", 10) == 1
    assert kstrtoul_from_user(b"0" * 33 + b"1 junk", 10, 32) == 1
    assert code(kstrtoul_from_user, b"9" * MANY, 10) == errno.ERANGE


@pytest.mark.parametrize(
    ("base", "digits"), [(8, "01234567"), (10, "0123456789"), (16, "0123456789abcdefABCDEF")]
)
def test_only_digits_of_the_base_are_part_of_a_number(base: int, digits: str) -> None:
    for other in map(chr, range(256)):
        number, rest = (f"1{other}1", "") if other in digits else ("1", f"{other}1")
        assert simple_strtoull(f"1{other}1", base) == (int(number, base), rest)


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
    assert c_integer(value) == kept
    assert c_integer(value, signed=False) == kept % (1 << 32)


def test_a_c_string_ends_at_its_zero() -> None:
    assert c_string(b"5\xff\n\0 9") == "5\xff\n"


def test_a_million_digits_cost_no_more_than_a_million_characters() -> None:
    start = time.process_time()
    assert code(kstrtoull, "9" * MANY) == errno.ERANGE
    assert simple_strtoull("7" * MANY)[1] == ""
    assert time.process_time() - start < 5


@given(st.integers(0, 1 << 80), st.sampled_from([8, 10, 16]), st.integers(0, 40))
def test_every_number_is_read_back(number: int, base: int, zeros: int) -> None:
    digits = "0" * zeros + {8: f"{number:o}", 10: f"{number}", 16: f"{number:X}"}[base]
    texts = [(digits, base), *{8: [("0" + digits, 0)], 10: [], 16: [("0x" + digits, 0)]}[base]]
    for text, asked in texts:
        assert simple_strtoull(f"{text}!", asked) == (number % UINT64, "!")
        if number < UINT64:
            assert kstrtoull(text, asked) == number
        else:
            assert code(kstrtoull, text, asked) == errno.ERANGE


@given(
    st.text(alphabet="0123456789abcdefxXkM+- \n\0\u00b2\u0665", max_size=60), st.sampled_from([0, 8, 10, 16])
)
def test_any_text_is_a_number_and_a_rest(text: str, base: int) -> None:
    parsed = parse_integer(text, base)
    assert text.endswith(parsed.rest)
    assert 0 <= parsed.value < UINT64
    assert parsed.digits <= len(text) - len(parsed.rest)
    assert parse_integer(text[: len(text) - len(parsed.rest)] + "z", base)[:2] == parsed[:2]
    assert parsed.digits or not parsed.value
