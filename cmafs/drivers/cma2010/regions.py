"""Regions, chunks and allocators of the 2010 framework, and the ``cma=`` string.

Source: ``include/linux/cma.h``, ``mm/cma.c`` (2010).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cmafs.drivers.cma2010.profile import Profile, Quirks, Word, is_power_of_two_or_zero
from cmafs.lib.cmdline import memparse
from cmafs.lib.kstrtox import simple_strtoull
from cmafs.lib.math import round_up

#: The suffixes of ``lib/cmdline.c:memparse()@v2.6.36``.
SUFFIX_SHIFTS = {"k": 10, "m": 20, "g": 30}


@dataclass(eq=False)
class CmaRegion:
    """``struct cma_region``: addresses and sizes in bytes.

    ``name``: what maps call it, None for a private region. ``start``: asked for (0: anywhere), then actual.
    ``alignment``: early regions only, 0 means a page. ``alloc_name`` or ``alloc``: the wanted allocator,
    None for the first one registered; ``alloc_params`` its parameters (v1). ``asterisk``: serves where no
    rule does (v2, v3). ``free_space``, ``users``: bytes free and live chunks. ``reserved``: boot found room
    for it; ``registered``: it may be allocated from. ``used``: an allocator was tried or taken away.
    ``private_data`` is the allocator's.
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
        """Its name in log lines, where a private region has one too."""
        return self.name or "(private)"


@dataclass(eq=False)
class CmaChunk:
    """``struct cma_chunk``: ``size`` bytes at bus address ``start``, taken from ``reg``."""

    reg: CmaRegion
    start: int
    size: int


@dataclass(frozen=True)
class CmaInfo:
    """``struct cma_info``: what ``count`` regions offer together, in bytes; ``upper_bound`` is exclusive."""

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


def strict_strtoul(text: str, word: Word) -> int | None:
    """A number in base 0 with nothing but a newline behind it, cut to the word; None for anything else.

    Source: ``lib/vsprintf.c:strict_strtoul()@v2.6.36``.

    >>> strict_strtoul("0x10\\n", Word()), strict_strtoul("-1", Word()), strict_strtoul("1x", Word())
    (16, None, None)
    """
    value, rest = simple_strtoull(text)
    return None if rest == text or rest not in ("", "\n") else value & word.mask


def round_region(profile: Profile, quirks: Quirks, word: Word, reg: CmaRegion) -> None:
    """Round a region's alignment and size up to pages, its start to the alignment.

    Raises OSError EINVAL where the result is no range of the address space. With Q17 the code does not
    look: it goes on with what is left in a word, where a size or start just below the top becomes 0.
    """
    alignment = max(reg.alignment, word.page_size)
    start, size = round_up(reg.start, alignment), word.page_align(reg.size)
    if quirks.q17_rounding_wraps:
        start, size = start & word.mask, size & word.mask
    if max(start, size, start + size if profile.wrap_check else 0) > word.mask:
        raise OSError(errno.EINVAL, "param: invalid start, size combination")
    reg.alignment, reg.start, reg.size = alignment, start, size


def cma_param_parse(
    profile: Profile, quirks: Quirks, word: Word, text: str, add: Callable[[CmaRegion], None]
) -> None:
    """Parse a regions string (``cma=``) and give every region to ``add`` as it is accepted.

    Entries before a bad one stay. Raises OSError EINVAL (syntax, value) or ENOSPC (too many entries), whose
    text is the framework's log line without its prefix.
    """
    rest = text[: profile.text_limit] if profile.text_limit else text
    for _ in range(profile.regions_limit):
        if not rest:
            return
        region, rest = _Entry(profile, quirks, word, rest).parse()
        add(region)
    if rest:
        raise OSError(errno.ENOSPC, "param: too many early regions")


class _Entry:
    """One ``name=size[@start][/alignment][:allocator]``; ``rest`` is what is not consumed yet."""

    def __init__(self, profile: Profile, quirks: Quirks, word: Word, text: str) -> None:
        self.profile = profile
        self.quirks = quirks
        self.word = word
        self.rest = text

    def parse(self) -> tuple[CmaRegion, str]:
        """The region, and the text behind it and its semicolon. Raises OSError."""
        region = CmaRegion(asterisk=self.profile.asterisk != "none")
        self._name(region)
        region.size = self._number(None)
        region.start = self._number("@")
        region.alignment = self._number("/", is_power_of_two_or_zero)
        round_region(self.profile, self.quirks, self.word, region)
        self._allocator(region)
        if self.rest[:1] not in ("", ";"):
            message = f"param: expecting ';' or end of parameter near {self.rest}"
            raise OSError(errno.EINVAL, message)
        return region, self.rest[1:]

    def _name(self, region: CmaRegion) -> None:
        entry = self.rest
        if self.profile.minus and entry.startswith("-"):
            region.asterisk = False
            self.rest = self.rest[1:]
        region.name, equals, self.rest = self.rest.partition("=")
        if not region.name or not equals:
            raise OSError(errno.EINVAL, f'param: expected "<name>=" near {entry}')

    def _number(self, mark: str | None, valid: Callable[[int], bool] = bool) -> int:
        """The number behind a mark; 0 where an optional part is absent."""
        if mark is not None:
            if not self.rest.startswith(mark):
                return 0
            self.rest = self.rest[1:]
        near = self.rest
        value, self.rest = memparse(self.rest, SUFFIX_SHIFTS)
        zero_ok = self.profile.zero_allowed and mark is not None
        if value > self.word.mask or not (value or zero_ok) or (value and not valid(value)):
            raise OSError(errno.EINVAL, f"param: invalid value near {near}")
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
            raise OSError(errno.EINVAL, f"param: expecting ')' near {self.rest[paren:]}")
        region.alloc_name = self.rest[:paren] or None
        region.alloc_params = self.rest[paren + 1 : close]
        return close + 1
