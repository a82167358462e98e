"""Text to numbers: the only module that reads a number, as ``lib/kstrtox.c`` and ``lib/vsprintf.c`` do.

``kstrto*()`` take a whole text, a newline at its end aside, and refuse what does not fit the type.
``simple_strto*()`` take the digits at the front, however many, and wrap at 64 bits. Base 0 finds the base:
``0x`` and a hexadecimal digit mean 16, another leading ``0`` means 8. The cost is linear in the digits, and
no number of them is too many, as thousands are for Python's ``int()``. A text ends before its first NUL.
"""

from __future__ import annotations

import errno
import re
import struct
from typing import NamedTuple, NoReturn

U64_MAX = (1 << 64) - 1
#: ``isspace()``: Latin-1, as ``lib/ctype.c@v6.12`` has it.
SPACE = " \t\n\v\f\r\xa0"

_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]")
_DIGITS = {8: "01234567", 10: "0123456789", 16: "0123456789abcdefABCDEF"}

#: Decimal in base 0 and in base 10.
_EVERYDAY = re.compile(r"[1-9][0-9]*\n?\Z")

#: Digits that are converted at a time.
_PIECE = 16


class Parsed(NamedTuple):
    """``value`` modulo 2^64 of so many ``digits``, and the ``rest`` behind them; ``overflow``: it wrapped."""

    value: int
    digits: int
    rest: str
    overflow: bool


def parse_integer(text: str, base: int = 0) -> Parsed:
    """The unsigned number at the front of a text: ``_parse_integer()`` behind its fixup of the base.

    >>> tuple(parse_integer("0x10k")), tuple(parse_integer("08")), tuple(parse_integer("x"))
    ((16, 2, 'k', False), (0, 1, '8', False), (0, 0, 'x', False))
    """
    if not base:
        base = 10 if text[:1] != "0" else 16 if _HEXADECIMAL.match(text) else 8
    body = text[2:] if base == 16 and text[:2] in ("0x", "0X") else text
    rest = body.lstrip(_DIGITS[base])
    digits = body[: len(body) - len(rest)]
    value, overflow = 0, False
    for at in range(0, len(digits), _PIECE):
        piece = digits[at : at + _PIECE]
        value = value * base ** len(piece) + int(piece, base)
        overflow |= value > U64_MAX
        value &= U64_MAX
    return Parsed(value, len(digits), rest, overflow)


def _fail(code: int) -> NoReturn:
    raise OSError(code, errno.errorcode[code])


def _kstrtoull(text: str, base: int) -> int:
    parsed = parse_integer(text, base)
    if parsed.overflow:
        _fail(errno.ERANGE)
    if not parsed.digits or parsed.rest not in ("", "\n"):
        _fail(errno.EINVAL)
    return parsed.value


def kstrtoull(text: str, base: int = 0) -> int:
    """A number of 64 bits without sign, or with a plus. Raises EINVAL, or ERANGE from 2^64 on.

    >>> kstrtoull("+0x10"), kstrtoull("010"), kstrtoull("010", 10)
    (16, 8, 10)
    """
    if len(text) <= _PIECE and base in (0, 10) and _EVERYDAY.match(text):  # what nearly every write is
        return int(text)
    return _kstrtoull(text.removeprefix("+"), base)


def kstrtoll(text: str, base: int = 0) -> int:
    """A number of 64 bits with a sign. Raises EINVAL, ERANGE."""
    value = -_kstrtoull(text[1:], base) if text.startswith("-") else kstrtoull(text, base)
    if value != c_integer(value, 64):
        _fail(errno.ERANGE)
    return value


def kstrtoul(text: str, base: int = 0, bits: int = 64) -> int:
    """A number of ``bits`` bits without sign: ``kstrtoul()``, ``kstrtouint()``. Raises EINVAL, ERANGE."""
    value = kstrtoull(text, base)
    if value >> bits:
        _fail(errno.ERANGE)
    return value


def kstrtoul_from_user(data: bytes, base: int = 0, bits: int = 64) -> int:
    """kstrtoul() of what a user wrote, of which no more is looked at than a number in base 2 could take."""
    return kstrtoul(c_string(data[: bits + 2]), base, bits)


def simple_strtoull(text: str, base: int = 0) -> tuple[int, str]:
    """The number at the front of a text modulo 2^64, 0 if there is none, and the text behind it.

    >>> simple_strtoull("12x"), simple_strtoull("junk")
    ((12, 'x'), (0, 'junk'))
    """
    parsed = parse_integer(text, base)
    return parsed.value, parsed.rest


def simple_strtoll(text: str, base: int = 0) -> tuple[int, str]:
    """The same with an optional minus, as 64 bits with sign."""
    value, rest = simple_strtoull(text.removeprefix("-"), base)
    return c_integer(-value if text.startswith("-") else value, 64), rest


def c_integer(value: int, bits: int = 32, signed: bool = True) -> int:
    """What a C integer of so many bits keeps of a number; an ``int`` if nothing else is said."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def c_string(data: bytes) -> str:
    """The text of a C string, a character a byte: it ends before the first NUL."""
    return data.partition(b"\0")[0].decode("latin-1")


def u32_array(data: bytes) -> bytes:
    """The words of a debugfs ``u32_array`` file, lowest bit and byte first. Raises EINVAL for other text.

    >>> u32_array(b"1 4294967295\\n")
    b'\\x01\\x00\\x00\\x00\\xff\\xff\\xff\\xff'
    """
    try:
        words = list(map(int, data.split()))
        return struct.pack(f"<{len(words)}I", *words)
    except (ValueError, struct.error):
        _fail(errno.EINVAL)
