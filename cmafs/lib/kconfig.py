"""The kernel configuration of a machine: a named set or a whole ``.config``, and the lines on top of it.

Kernel: ``scripts/kconfig/confdata.c``: dependencies decide over wishes, as ``make olddefconfig`` does. The
symbols are ``abi.kconfig``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from cmafs.abi import KernelAbi
from cmafs.abi.boot_arch import ARCH_ROWS
from cmafs.abi.config_sets import NAMES, ConfigSet, config_set
from cmafs.abi.images import image_figures
from cmafs.abi.kconfig import NOT_IN_2010, SYMBOLS, Symbol
from cmafs.abi.rows import release_key
from cmafs.lib.kstrtox import parse_integer

DEFAULT_SET = "defconfig"

_ASSIGNMENT = re.compile(r"(?:CONFIG_)?([A-Za-z0-9_]+)\s*=\s*(.*)\Z")
_NOT_SET = re.compile(r"#\s*CONFIG_([A-Za-z0-9_]+) is not set\Z")
_AUTOMATIC = "Automatically generated file"
_ARCHS = {"x86_64": "X86_64", "arm64": "ARM64", "arm": "ARM"}
_PAGE_SHIFTS = {"ARM64_16K_PAGES": 14, "ARM64_64K_PAGES": 16}

Value = bool | int


class ConfigError(ValueError):
    """``--config`` names an unknown option or gives it a value it cannot have: one line for the user."""


class Placed(str):
    """A line of a file, or the value in it. ``where``: ``FILE:LINE: ``, put before what is wrong with it."""

    where = ""

    @classmethod
    def at(cls, text: str, where: str) -> Placed:
        """The text, from there."""
        made = cls(text)
        made.where = where
        return made


class FileLine(Placed):
    """A line of a file of KEY=VALUE lines: what is not modelled in it is a note and not a mistake."""


def _where(text: str) -> str:
    return text.where if isinstance(text, Placed) else ""


@dataclass(frozen=True)
class Kconfig:
    """What a configuration came to.

    ``values``: every symbol that is visible on this machine, numbers as they are, the rest True or False;
    ``dropped``: asked for, and not possible here (another kernel's, or its dependencies are not met);
    ``unmodelled``: asked for, and nothing here depends on it; ``image``: what the kernel's image has
    otherwise than those that were recorded first, where it is known (fields of ``abi.boot_arch.ArchAbi``).
    """

    arch: str
    abi: KernelAbi
    values: Mapping[str, Value] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    unmodelled: tuple[str, ...] = ()
    image: Mapping[str, Any] = field(default_factory=dict)

    def on(self, name: str) -> bool:
        """IS_ENABLED(): whether a symbol is y or m; False also where this kernel has none of that name."""
        return bool(self.values.get(name))

    def number(self, name: str) -> int:
        """The value of a symbol that is a number; 0 where it is not visible."""
        return int(self.values.get(name, 0))

    @cached_property
    def page_shift(self) -> int:
        """PAGE_SHIFT: log2 of bytes."""
        return next((shift for name, shift in _PAGE_SHIFTS.items() if self.on(name)), 12)

    @property
    def max_numnodes(self) -> int:
        """MAX_NUMNODES."""
        return 1 << self.number("NODES_SHIFT")

    def knows(self, parameter: str) -> bool:
        """Whether a parameter of the command line that takes memory exists on this kernel."""
        node_areas = self.on("DMA_NUMA_CMA") or self.on("DMA_PERNUMA_CMA")
        return {
            "cma": self.on("DMA_CMA"),
            "hugetlb_cma": self.abi.boot.hugetlb_cma and self.on("CMA") and self.on("HUGETLB_PAGE"),
            "cma_pernuma": node_areas,
            "numa_cma": node_areas and self.abi.boot.numa_cma_param,
            "coherent_pool": self.on("DMA_COHERENT_POOL") or self.arch != "x86_64",
            "crashkernel": any(map(self.on, self.abi.boot.crash_known)),
        }[parameter]

    def max_cma_areas(self) -> int:
        """MAX_CMA_AREAS: how many slots ``cma_areas[]`` has."""
        if not self.on("CMA"):
            return 0
        return self.number("CMA_AREAS") + (1 if self.abi.boot.hidden_extra_slot else 0)

    def max_page_order(self) -> int:
        """MAX_PAGE_ORDER (mmzone.h@v6.12), MAX_ORDER - 1 before 6.4: the order of the largest block."""
        if self.on("FORCE_MAX_ZONEORDER"):
            return self.number("FORCE_MAX_ZONEORDER") - 1
        forced = self.number("ARCH_FORCE_MAX_ORDER")
        return forced - (0 if self.abi.mm.max_order_inclusive else 1) if forced else 10

    def huge_page_order(self) -> int:
        """HPAGE_PMD_ORDER: a PMD's."""
        return self.page_shift - 3

    def gigantic_page_order(self) -> int:
        """What hugetlb_cma_reserve() is given: a PUD with 4 KiB pages, else a contiguous run of PMDs."""
        huge = self.huge_page_order()
        return 2 * huge if self.page_shift == 12 else huge + 5

    def pageblock_order(self) -> int:
        """pageblock_order (include/linux/pageblock-flags.h@v6.12): a huge page, at most the largest block."""
        limit = self.number("PAGE_BLOCK_MAX_ORDER") or self.max_page_order()
        by_thp = self.abi.mm.pageblock_follows_thp and self.on("TRANSPARENT_HUGEPAGE")
        return min(self.huge_page_order(), limit) if self.on("HUGETLB_PAGE") or by_thp else limit

    def cma_min_alignment_bytes(self) -> int:
        """CMA_MIN_ALIGNMENT_BYTES, and what came before it: the unit of areas."""
        order = self.pageblock_order()
        if self.abi.boot.align_to_max_order:
            order = max(order, self.max_page_order())
        return 1 << (self.page_shift + order)

    def lines(self) -> list[str]:
        """The lines of /proc/config.gz and /boot/config-<release> that are true of this machine."""
        text = f"# Linux/{self.arch.removesuffix('_64')} {self.abi.release} Kernel Configuration"
        head = ["#", f"# {_AUTOMATIC}; DO NOT EDIT.", text, "#"]
        return head + [_line(name, value) for name, value in self.values.items()]


def _line(name: str, value: Value) -> str:
    if value is False:
        return f"# CONFIG_{name} is not set"
    return f"CONFIG_{name}={'y' if value is True else value}"


# what is asked for


def _parse(line: str) -> tuple[str, str] | None:
    """One line: (symbol, value); None for blanks and comments. Raises ConfigError."""
    text, where = line.strip(), _where(line)
    if match := _NOT_SET.match(text):
        return match[1], "n"
    if not text or text.startswith("#"):
        return None
    match = _ASSIGNMENT.match(text)
    if not match:
        raise ConfigError(f"{where}'{text}' is no KEY=VALUE of a kernel configuration")
    return match[1], Placed.at(match[2].strip().strip('"'), where)


def _words(words: str) -> Iterator[tuple[str, str]]:
    """The (symbol, value) pairs of a set."""
    for word in words.split():
        name, equals, value = word.partition("=")
        yield (name.removeprefix("!"), "n" if name.startswith("!") else "y") if not equals else (name, value)


def _names_set(lines: Iterable[str]) -> bool:
    return any(line in NAMES or _AUTOMATIC in line for line in lines)


def _find_set(lines: Sequence[str], arch: str, abi: KernelAbi) -> ConfigSet:
    """The set that the lines are applied to: the last one named, nothing for a whole .config, the default."""
    name = DEFAULT_SET
    for line in lines:
        if line in NAMES:
            name = line
        elif _AUTOMATIC in line:
            name = ""
    if not name:
        return ConfigSet("", complete=True)
    found = config_set(name, arch, abi.older_rows())
    if (found.arch or arch, found.row or abi.row) != (arch, abi.row):
        wanted = f"--kernel {found.row} and {found.arch}"
        raise ConfigError(f"--config {name} is of {wanted}; this machine is {abi.row} and {arch}")
    return found


# what it comes to


def _exists(symbol: Symbol, row: str, version: tuple[int, ...], framework_2010: bool) -> bool:
    if row in symbol.dialects:
        return True
    if framework_2010 and symbol.name in NOT_IN_2010:
        return False
    return release_key(symbol.since) <= version < release_key(symbol.until)


@cache
def _symbols(row: str, base: str, framework_2010: bool) -> tuple[Symbol, ...]:
    """The symbols of a kernel, in order."""
    version = release_key(base)
    return tuple(symbol for symbol in SYMBOLS if _exists(symbol, row, version, framework_2010))


def _holds(terms: str, values: Mapping[str, Value]) -> bool:
    """Whether all terms hold; a term holds if one of its alternatives does."""
    return all(
        any(
            not values.get(name[1:]) if name.startswith("!") else bool(values.get(name))
            for name in term.split("|")
        )
        for term in terms.split()
    )


def _default(symbol: Symbol, values: Mapping[str, Value]) -> Value:
    for case in filter(None, symbol.default.split("; ")):
        value, _, condition = case.partition(" if ")
        if _holds(condition, values):
            return _typed(symbol, value) if value not in values else values[value]
    return False


def _typed(symbol: Symbol, text: str) -> Value:
    """A value as its symbol has it. Raises ConfigError."""
    subject = f"{_where(text)}CONFIG_{symbol.name}"
    if symbol.high is None:
        if text not in ("y", "n", "m"):
            raise ConfigError(f"{subject} is y or n, not '{text}'")
        return text != "n"
    number = parse_integer(text, 16 if text.startswith("0x") else 10)
    if number.rest or not number.digits:
        raise ConfigError(f"{subject} is a number, not '{text}'")
    if number.overflow or not symbol.low <= number.value <= symbol.high:
        raise ConfigError(f"{subject} is from {symbol.low} to {symbol.high}, not {text}")
    return number.value


def _chosen(
    symbols: Sequence[Symbol], asked: Mapping[str, str], values: Mapping[str, Value]
) -> dict[str, str]:
    """For each choice, the member that is on: the last that was asked for, else the first not refused."""
    chosen: dict[str, str] = {}
    order = list(asked)
    for symbol in symbols:
        if symbol.choice and _holds(symbol.depends, values):
            best = chosen.get(symbol.choice)
            if asked.get(symbol.name) == "y":
                if best is None or asked.get(best) != "y" or order.index(best) < order.index(symbol.name):
                    chosen[symbol.choice] = symbol.name
            elif best is None or (asked.get(best) == "n" and asked.get(symbol.name) != "n"):
                chosen[symbol.choice] = symbol.name
    return chosen


def _resolve(
    arch: str, symbols: Sequence[Symbol], asked: Mapping[str, str], complete: bool
) -> tuple[dict[str, Value], set[str]]:
    """Every visible symbol's value in the order of the menus, and what was asked for in vain."""
    values: dict[str, Value] = {_ARCHS[arch]: True}
    vain: set[str] = set()
    for symbol in symbols:
        name = symbol.name
        if not _holds(symbol.depends, values):
            if asked.get(name, "n") != "n":
                vain.add(name)
        elif symbol.choice:
            values[name] = name in _chosen(symbols, asked, values).values()
        elif symbol.forced:
            values[name] = _default(symbol, values)
        elif name in asked:
            values[name] = _typed(symbol, asked[name])
        elif complete and symbol.high is None:
            values[name] = False
        else:
            values[name] = _default(symbol, values)
    return values, vain


def parse_config(lines: Iterable[str], arch: str, abi: KernelAbi, board: Sequence[str] = ()) -> Kconfig:
    """The configuration of a machine: a set by name or a whole .config, the other lines applied in order.

    ``CONFIG_`` before a key is optional; ``# CONFIG_X is not set`` is ``X=n``; other comments and blank
    lines are skipped. ``board``: what goes before them unless they name a set. Raises ConfigError.
    """
    lines = list(lines)
    lines = lines if _names_set(lines) else [*board, *lines]
    base = _find_set(lines, arch, abi)
    symbols = _symbols(abi.row, abi.base, abi.boot.framework_2010)
    here = {symbol.name for symbol in symbols}
    asked = {name: value for name, value in _words(base.words) if name in here}
    elsewhere = {symbol.name for symbol in SYMBOLS}
    dropped, unmodelled = [], []
    for line in lines:
        parsed = None if line in NAMES else _parse(line)
        if parsed is None:
            continue
        name, value = parsed
        if name in here:
            asked.pop(name, None)  # the last one counts, also among the members of a choice
            asked[name] = value
        elif name in elsewhere or name in _ARCHS.values():
            dropped += [name] if value != "n" and name not in _ARCHS.values() else []
        elif isinstance(line, FileLine):
            unmodelled += [name] if value != "n" else []
        else:
            raise ConfigError(_where(line) + _unknown(name, here))
    values, vain = _resolve(arch, symbols, asked, base.complete)
    said = {parsed[0] for line in lines if line not in NAMES and (parsed := _parse(line))}
    image = image_figures(lines, arch, abi.row, abi.release)
    config = Kconfig(arch, abi, values, (*dropped, *sorted(vain & said)), tuple(unmodelled), image)
    _expect_orders_fit(config)
    return config


def _expect_orders_fit(config: Kconfig) -> None:
    """Whether a section holds the largest block, which ``include/linux/mmzone.h`` asks at compile time.

    32-bit ARM has no sections: there it has to be an address. Raises ConfigError.
    """
    bits = 32
    if config.on("SPARSEMEM"):
        bits = ARCH_ROWS[config.arch][config.abi.row].section_size_bits(config.page_shift)
    most = config.max_page_order()
    if most > bits - config.page_shift:
        raise ConfigError(
            f"orders go up to {most}: this kernel compiles with {bits - config.page_shift} at most"
        )
    if config.number("PAGE_BLOCK_MAX_ORDER") > most:
        raise ConfigError(f"CONFIG_PAGE_BLOCK_MAX_ORDER is from 1 to {most}")


def _unknown(name: str, here: Iterable[str]) -> str:
    known = ", ".join(sorted(here))
    return f"unknown option '{name}' on this kernel and architecture: known are {known}"


__all__ = ["DEFAULT_SET", "ConfigError", "FileLine", "Kconfig", "Placed", "parse_config"]
