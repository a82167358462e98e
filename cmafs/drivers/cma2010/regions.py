"""Regions, chunks and allocators of the 2010 framework, and the ``cma=`` string.

Source: ``include/linux/cma.h``, ``mm/cma.c`` (2010).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cmafs.drivers.cma2010.profile import Profile, Word, is_power_of_two_or_zero

_DIGITS = "0123456789abcdef"
_SUFFIX_SHIFT = {"k": 10, "m": 20, "g": 30}


@dataclass(eq=False)
class CmaRegion:
    """``struct cma_region``: addresses and sizes in bytes.

    ``name``: what maps call it, None for a private region. ``start``: asked for (0: anywhere), then actual.
    ``alignment``: early regions only, 0 means a page. ``alloc_name`` or ``alloc``: the wanted allocator,
    None for the first one registered; ``alloc_params`` its parameters (v1). ``asterisk``: serves where no
    rule does (v2, v3). ``free_space``, ``users``: bytes free and live chunks. ``used``: an allocator was
    tried or taken away.
    """

    name: str | None = None
    start: int = 0
    size: int = 0
    alignment: int = 0
    alloc_name: str | None = None
    alloc: CmaAllocator | None = None
    alloc_params: str | None = None
    asterisk: bool = False
    free_space: int = 0
    users: int = 0
    reserved: bool = False
    registered: bool = False
    used: bool = False
    private_data: Any = None

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.start + self.size

    @property
    def label(self) -> str:
        """What log lines call it."""
        return self.name or "(private)"


@dataclass(eq=False)
class CmaChunk:
    """``struct cma_chunk``: ``size`` bytes at bus address ``start``; ``references`` count only in v1."""

    reg: CmaRegion
    start: int
    size: int
    references: int = 1


@dataclass
class CmaInfo:
    """``struct cma_info``: bounds (upper one exclusive) and sums in bytes over ``count`` regions."""

    lower_bound: int = 0
    upper_bound: int = 0
    total_size: int = 0
    free_size: int = 0
    count: int = 0


@dataclass(eq=False)
class CmaAllocator:
    """``struct cma_allocator``: a pluggable allocator. ``alloc`` and ``free`` are required to register it.

    ``init(reg)`` may raise OSError; ``alloc(reg, size, alignment)`` returns the chunk or None;
    ``free(chunk)``; ``cleanup(reg)`` when it is taken away from an idle region.
    """

    name: str | None = None
    init: Callable[[CmaRegion], None] | None = None
    cleanup: Callable[[CmaRegion], None] | None = None
    alloc: Callable[[CmaRegion, int, int], CmaChunk | None] | None = None
    free: Callable[[CmaChunk], None] | None = None


def memparse(text: str) -> tuple[int, str]:
    """``lib/cmdline.c:memparse()@2.6.36``: the value in bytes and the unparsed rest; one suffix K, M or G.

    >>> memparse("0x10k/"), memparse("010"), memparse("x")
    ((16384, '/'), (8, ''), (0, 'x'))
    """
    base, body = 10, text
    if text.startswith("0"):
        is_hex = text[1:2].lower() == "x" and text[2:3].lower() in set(_DIGITS)
        base, body = (16, text[2:]) if is_hex else (8, text)
    digits = 0
    while digits < len(body) and body[digits].lower() in _DIGITS[:base]:
        digits += 1
    value, rest = int(body[:digits] or "0", base), body[digits:]
    shift = _SUFFIX_SHIFT.get(rest[:1].lower(), 0)
    return value << shift, rest[1:] if shift else rest


def simple_strtol(text: str) -> int | None:
    """An integer in any base with a sign; None where the text is not all one.

    >>> simple_strtol("0x10"), simple_strtol("-1"), simple_strtol("1x")
    (16, -1, None)
    """
    negative = text.startswith("-")
    body = text[1:] if negative else text
    value, rest = memparse(body)
    if not body or rest or not body[0].isdigit() or body[-1].lower() in _SUFFIX_SHIFT:
        return None
    return -value if negative else value


class ParamError(OSError):
    """A boot parameter is refused; ``message`` is the framework's log line without its prefix."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.message = message


def cma_param_parse(profile: Profile, word: Word, text: str, add: Callable[[CmaRegion], None]) -> None:
    """Parse a regions string (``cma=``) and give every region to ``add`` as it is accepted.

    Entries before a bad one stay. Raises ParamError EINVAL (syntax, value) or ENOSPC (too many entries).
    """
    rest = text[: profile.text_limit] if profile.text_limit else text
    for _ in range(profile.regions_limit):
        if not rest:
            return
        region, rest = _Entry(profile, word, rest).parse()
        add(region)
    if rest:
        raise ParamError(errno.ENOSPC, "param: too many early regions")


class _Entry:
    """One ``name=size[@start][/alignment][:allocator]``, consumed from the left."""

    def __init__(self, profile: Profile, word: Word, text: str) -> None:
        self.profile = profile
        self.word = word
        self.rest = text

    def parse(self) -> tuple[CmaRegion, str]:
        """The region, and the text behind it and its semicolon. Raises ParamError."""
        region = CmaRegion(asterisk=self.profile.asterisk != "none")
        self._name(region)
        size = self._number(None)
        start = self._number("@")
        alignment = self._number("/", is_power_of_two_or_zero)
        region.alignment = max(alignment, self.word.page_size)
        region.start = self.word.align(start, region.alignment)
        region.size = self.word.page_align(size)
        if self.profile.wrap_check and region.start + region.size > self.word.mask:
            raise ParamError(errno.EINVAL, "param: invalid start, size combination")
        self._allocator(region)
        if self.rest[:1] not in ("", ";"):
            message = f"param: expecting ';' or end of parameter near {self.rest}"
            raise ParamError(errno.EINVAL, message)
        return region, self.rest[1:]

    def _name(self, region: CmaRegion) -> None:
        entry = self.rest
        if self.profile.minus and entry.startswith("-"):
            region.asterisk = False
            self.rest = self.rest[1:]
        region.name, equals, self.rest = self.rest.partition("=")
        if not region.name or not equals:
            raise ParamError(errno.EINVAL, f'param: expected "<name>=" near {entry}')

    def _number(self, mark: str | None, valid: Callable[[int], bool] = bool) -> int:
        """The number behind a mark; 0 where an optional part is absent."""
        if mark is not None:
            if not self.rest.startswith(mark):
                return 0
            self.rest = self.rest[1:]
        near = self.rest
        value, self.rest = memparse(self.rest)
        zero_ok = self.profile.zero_allowed and mark is not None
        if value > self.word.mask or not (value or zero_ok) or (value and not valid(value)):
            raise ParamError(errno.EINVAL, f"param: invalid value near {near}")
        return value

    def _allocator(self, region: CmaRegion) -> None:
        if not self.rest.startswith(":"):
            return
        self.rest = self.rest[1:]
        end = len(self.rest.partition(";")[0])
        paren = self.rest.find("(")
        if self.profile.allocator_params and 0 <= paren < end:
            end = self._params(region, paren)
        else:
            region.alloc_name = self.rest[:end] or None
        self.rest = self.rest[end:]

    def _params(self, region: CmaRegion, paren: int) -> int:
        close = self.rest.find(")", paren)
        if close < 0:
            raise ParamError(errno.EINVAL, f"param: expecting ')' near {self.rest[paren:]}")
        region.alloc_name = self.rest[:paren] or None
        region.alloc_params = self.rest[paren + 1 : close]
        return close + 1
