"""What ``crashkernel=`` asks for: a size with a place, a size by memory, ``,high`` and ``,low``.

Kernel: ``kernel/crash_reserve.c@v6.12``, before 6.9 ``kernel/crash_core.c``. Sizes and addresses are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cmafs.abi.boot import BootAbi
from cmafs.arch.setup import EarlyBoot
from cmafs.lib.cmdline import memparse
from cmafs.lib.kstrtox import U64_MAX
from cmafs.lib.math import round_up
from cmafs.lib.printk import LOGLEVEL_WARNING
from cmafs.lib.sizes import SZ_128M

NAME = "crashkernel="
_HIGH, LOW, _CMA = ",high", ",low", ",cma"


class Missing(Exception):
    """-ENOENT: the command line has no such word."""


class Invalid(Exception):
    """-EINVAL: a word has a wrong value; what the log says of it."""


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    ``low``: the part below the limit, where the rest is above; ``cma``: what areas are to have besides.
    """

    size: int
    base: int = 0
    low: int = 0
    high: bool = False
    cma: int = 0


def _last_crashkernel(cmdline: str, suffix: str, known: tuple[str, ...]) -> str:
    """``get_last_crashkernel()``: what the last word with this suffix says; "" for one with no known suffix.

    The text is looked for anywhere, also inside of other words. Raises Missing.
    """
    found, at = None, cmdline.find(NAME)
    while at >= 0:
        word = cmdline[at:].split(" ", 1)[0]
        if word.endswith(suffix) if suffix else not word.endswith(known):
            found = word.removeprefix(NAME)
        at = cmdline.find(NAME, at + 1)
    if found is None:
        raise Missing
    return found


def _value(text: str, missing: str) -> tuple[int, str]:
    """A size and the text behind it. Raises Invalid with ``missing`` where there is none."""
    value, rest = memparse(text)
    if rest == text:
        raise Invalid(missing)
    return value, rest


def _behind(text: str, char: str) -> str:
    """The text behind a character that must be there. Raises Invalid."""
    if not text.startswith(char):
        raise Invalid(f"crashkernel: '{char}' expected")
    return text[1:]


def _parse_range(text: str, total: int, abi: BootAbi) -> tuple[bool, int, str]:
    """``start-[end]:size``: (whether it is meant for that much memory, its size, the text behind it)."""
    expected, end = "crashkernel: Memory value expected", U64_MAX
    start, text = _value(text, expected)
    text = _behind(text, "-")
    if not text.startswith(":"):
        end, text = _value(text, expected)
        if end <= start:
            raise Invalid("crashkernel: end <= start")
    size, text = _value(_behind(text, ":"), abi.crash_texts[0])
    if size >= total:
        raise Invalid("crashkernel: invalid size")
    return start <= total < end, size, text


def _parse_mem(boot: EarlyBoot, text: str, total: int) -> Wanted:
    """``parse_crashkernel_mem()``: ``range:size[,...][@base]``, the first range that has ``total`` in it."""
    abi = boot.abi.boot
    if abi.crash_total_rounded:
        total = round_up(total, SZ_128M)
    fits, size, text = _parse_range(text, total, abi)
    while not fits and text.startswith(","):
        fits, size, text = _parse_range(text[1:], total, abi)
    if not fits or not size:
        boot.log.printk("crashkernel size resulted in zero bytes")
        return Wanted(0)
    _, at, base = text.partition("@")
    return Wanted(size, _value(base, abi.crash_texts[1])[0] if at else 0)


def _parse_simple(text: str) -> Wanted:
    """``parse_crashkernel_simple()``: ``size[@base]``."""
    size, rest = _value(text, "crashkernel: memory value expected")
    if rest.startswith("@"):
        return Wanted(size, memparse(rest[1:])[0])
    if rest:
        raise Invalid(f"crashkernel: unrecognized char: {rest[0]}")
    return Wanted(size)


def _parse_suffix(text: str, suffix: str) -> int:
    """``parse_crashkernel_suffix()``: the size before the suffix."""
    size, rest = _value(text, "crashkernel: memory value expected")
    behind = rest.removeprefix(suffix)
    if behind == rest or behind:
        raise Invalid(f"crashkernel: unrecognized char: {behind[0]}")
    return size


def _parse(boot: EarlyBoot, suffix: str, total: int = 0) -> Wanted:
    """``__parse_crashkernel()``. Raises Missing, Invalid; the log has why by then."""
    text = _last_crashkernel(boot.cmdline, suffix, boot.abi.boot.crash_suffixes)
    try:
        if suffix:
            return Wanted(_parse_suffix(text, suffix))
        return _parse_mem(boot, text, total) if ":" in text else _parse_simple(text)
    except Invalid as invalid:
        boot.log.printk(str(invalid), LOGLEVEL_WARNING)
        raise


def size_of(boot: EarlyBoot, suffix: str, default: int) -> int:
    """The size that the word with this suffix says, or the default. Raises Invalid."""
    try:
        return _parse(boot, suffix).size
    except Missing:
        return default


def _parse_high(boot: EarlyBoot) -> Wanted:
    """``crashkernel=X,high`` alone. Raises Missing, Invalid."""
    size = _parse(boot, _HIGH).size
    if not size:
        raise Invalid
    return Wanted(size, high=True)


def _cma_size(boot: EarlyBoot) -> int:
    """``crashkernel=X,cma``, which x86 asks for: 0 without, and where its value is wrong."""
    if boot.config.arch != "x86_64" or _CMA not in boot.abi.boot.crash_suffixes:
        return 0
    try:
        return size_of(boot, _CMA, 0)
    except Invalid:
        return 0


def parse_crashkernel(boot: EarlyBoot, total: int, default_low: int) -> Wanted:
    """``parse_crashkernel()``: with no plain word the one for high memory. Raises Missing, Invalid."""
    abi, arch = boot.abi.boot, boot.config.arch
    try:
        wanted = _parse(boot, "", total)
    except Missing:
        if arch not in abi.crash_generic and not (arch == "arm64" and abi.crash_arm64_high):
            raise
        wanted = _parse_high(boot)
        wanted = replace(wanted, low=size_of(boot, LOW, default_low))
    except Invalid:
        _cma_size(boot)
        raise
    wanted = replace(wanted, cma=_cma_size(boot))
    if not wanted.size and not (arch == "arm" and abi.crash_zero_taken):
        raise Invalid
    if abi.crash_must_fit and wanted.size >= total:
        raise Invalid
    return wanted


def parse_crashkernel_x86(boot: EarlyBoot, total: int) -> Wanted:
    """Where the plain word says nothing, or nothing sensible, the one for high memory. Missing, Invalid."""
    try:
        return parse_crashkernel(boot, total, 0)
    except (Missing, Invalid):
        return _parse_high(boot)
