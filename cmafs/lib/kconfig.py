"""The kernel configuration of a machine: what ``--config`` may set, and the lines of /proc/config.gz."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cmafs.abi.boot import BootAbi

_ASSIGNMENT = re.compile(r"(?:CONFIG_)?([A-Za-z0-9_]+)\s*=\s*(.*)\Z")
_NOT_SET = re.compile(r"#\s*CONFIG_([A-Za-z0-9_]+) is not set\Z")

_SIZE_SEL = ("CMA_SIZE_SEL_MBYTES", "CMA_SIZE_SEL_PERCENTAGE", "CMA_SIZE_SEL_MIN", "CMA_SIZE_SEL_MAX")
_PAGES = {"ARM64_4K_PAGES": 12, "ARM64_16K_PAGES": 14, "ARM64_64K_PAGES": 16}

#: Integers: the smallest and the largest that Kconfig takes.
_RANGES = {
    "CMA_SIZE_MBYTES": (0, 1 << 44),
    "CMA_SIZE_PERCENTAGE": (0, 100),
    "CMA_AREAS": (1, 1 << 20),
    "CMA_ALIGNMENT": (2, 12),
    "PAGE_BLOCK_MAX_ORDER": (1, 13),
    "LOG_BUF_SHIFT": (12, 25),
}

#: Options that not every kernel and architecture has.
_ELSEWHERE = {"NUMA", "CMA_DEBUG", "CMA_SYSFS", "CMA_SIZE_PERNUMA", "PAGE_BLOCK_MAX_ORDER", *_PAGES}

#: CONFIG_CMA_SIZE_PERCENTAGE's default (kernel/dma/Kconfig@v6.12).
_DEFAULT_PERCENTAGE = 10


class DotConfigLine(str):
    """A line of a kernel's whole .config: an option that is not here is dropped, as by olddefconfig."""


class ConfigError(ValueError):
    """``--config`` names an unknown option or gives it a value it cannot have: one line for the user."""


@dataclass(frozen=True)
class Kconfig:
    """The options that matter here, typed. Defaults are those of the recorded kernels
    (transcripts/FORMAT.md).

    ``cma_size_mbytes`` MiB; ``cma_size_sel`` one of CMA_SIZE_SEL_*; ``page_shift`` log2 of bytes;
    ``page_block_max_order`` None: the kernel has no such option, or it is at its default;
    ``log_buf_shift`` log2 of bytes; ``dropped``: asked for, but not an option of this kernel or
    architecture.
    """

    arch: str
    boot: BootAbi
    release: str = ""
    cma_size_mbytes: int = 16
    cma_size_sel: str = "CMA_SIZE_SEL_MBYTES"
    cma_size_percentage: int = _DEFAULT_PERCENTAGE
    cma_areas: int = 7
    cma_alignment: int = 8
    cma_debug: bool = False
    cma_sysfs: bool = True
    cma_size_pernuma: bool = False
    page_block_max_order: int | None = None
    page_shift: int = 12
    numa: bool = False
    log_buf_shift: int = 17
    dropped: tuple[str, ...] = ()

    def max_cma_areas(self) -> int:
        """MAX_CMA_AREAS: how many slots ``cma_areas[]`` has."""
        return self.cma_areas + (1 if self.boot.hidden_extra_slot else 0)

    def max_page_order(self) -> int:
        """MAX_PAGE_ORDER, MAX_ORDER - 1 before 6.4: the largest buddy block
        (arch/arm64/Kconfig:ARCH_FORCE_MAX_ORDER).
        """
        return {12: 10, 14: 11, 16: 13}[self.page_shift]

    def huge_page_order(self) -> int:
        """HUGETLB_PAGE_ORDER: a PMD's; 32-bit ARM without LPAE has no huge pages, so the largest buddy
        block.
        """
        return 10 if self.arch == "arm" else self.page_shift - 3

    def gigantic_page_order(self) -> int:
        """The order handed to hugetlb_cma_reserve(): a PUD with 4 KiB pages, else a contiguous run of 32
        PMDs.
        """
        huge = self.huge_page_order()
        return 2 * huge if self.page_shift == 12 else huge + 5

    def pageblock_order(self) -> int:
        """pageblock_order: a huge page, at most the largest buddy block and CONFIG_PAGE_BLOCK_MAX_ORDER."""
        order = min(self.huge_page_order(), self.max_page_order())
        return order if self.page_block_max_order is None else min(order, self.page_block_max_order)

    def cma_min_alignment_bytes(self) -> int:
        """CMA_MIN_ALIGNMENT_BYTES, and what came before it: the unit of areas."""
        order = self.pageblock_order()
        if self.boot.align_to_max_order:
            order = max(order, self.max_page_order())
        return 1 << (self.page_shift + order)

    def lines(self) -> list[str]:
        """The lines of /proc/config.gz and /boot/config-<release> that are true of this machine."""
        return _header(self) + [_line(name, value) for name, value in _options(self)]


def _line(name: str, value: bool | int | str) -> str:
    if value is False:
        return f"# CONFIG_{name} is not set"
    return f"CONFIG_{name}={'y' if value is True else value}"


def _header(config: Kconfig) -> list[str]:
    name = {"x86_64": "x86_64", "arm64": "arm64", "arm": "arm"}[config.arch]
    text = f"# Linux/{name} {config.release} Kernel Configuration"
    return ["#", "# Automatically generated file; DO NOT EDIT.", text, "#"]


def _options(config: Kconfig) -> Iterable[tuple[str, bool | int | str]]:
    """Every option that says something true here, in an order like the kernel's menus."""
    boot, arm64 = config.boot, config.arch == "arm64"
    yield {"x86_64": "X86_64", "arm64": "ARM64", "arm": "ARM"}[config.arch], True
    if config.arch != "arm":
        yield "64BIT", True
    yield "MMU", True
    yield "IKCONFIG", True
    yield "IKCONFIG_PROC", True
    yield "LOG_BUF_SHIFT", config.log_buf_shift
    if arm64:
        for name, shift in _PAGES.items():
            yield name, config.page_shift == shift
        yield "ZONE_DMA", False
        yield "ZONE_DMA32", False
    if config.arch == "x86_64":
        yield "ZONE_DMA", False
        yield "ZONE_DMA32", True
    if config.arch == "arm":
        yield "HIGHMEM", True
    yield "NUMA", config.numa
    yield "SPARSEMEM", True
    yield "COMPACTION", True
    yield "MIGRATION", True
    if boot.has_contig_alloc:
        yield "CONTIG_ALLOC", True
    if not boot.framework_2010:
        yield "MEMORY_ISOLATION", True
    if config.arch != "arm":
        if not boot.framework_2010:
            yield "TRANSPARENT_HUGEPAGE", True
        yield "HUGETLBFS", True
        yield "HUGETLB_PAGE", True
    if boot.has_page_block_max_order:
        default = min(config.huge_page_order(), config.max_page_order())
        yield "PAGE_BLOCK_MAX_ORDER", config.page_block_max_order or default
    yield from _cma2010_options(config) if boot.framework_2010 else _cma_options(config)
    yield "OF", True
    yield "OF_RESERVED_MEM", True
    yield "DEBUG_FS", True
    yield "DYNAMIC_DEBUG", True


def _cma2010_options(config: Kconfig) -> Iterable[tuple[str, bool | int | str]]:
    """Those of the framework of 2010 (``mm/Kconfig`` of its patches)."""
    yield "CMA", True
    yield "CMA_DEBUG", config.cma_debug
    yield "CMA_SYSFS", config.cma_sysfs
    yield "CMA_BEST_FIT", True


def _cma_options(config: Kconfig) -> Iterable[tuple[str, bool | int | str]]:
    boot = config.boot
    yield "CMA", True
    if boot.has_cma_debug:
        yield "CMA_DEBUG", config.cma_debug
    yield "CMA_DEBUGFS", True
    if boot.has_cma_sysfs:
        yield "CMA_SYSFS", config.cma_sysfs
    yield "CMA_AREAS", config.cma_areas
    yield "DMA_CMA", True
    yield "HAVE_DMA_CONTIGUOUS", True
    if boot.pernuma_option and config.numa:
        yield boot.pernuma_option, True
    if boot.has_pernuma_size and config.numa:
        yield "CMA_SIZE_PERNUMA", config.cma_size_pernuma
    if config.cma_size_sel != "CMA_SIZE_SEL_PERCENTAGE":
        yield "CMA_SIZE_MBYTES", config.cma_size_mbytes
    if config.cma_size_sel != "CMA_SIZE_SEL_MBYTES":
        yield "CMA_SIZE_PERCENTAGE", config.cma_size_percentage
    for name in _SIZE_SEL:
        yield name, config.cma_size_sel == name
    yield "CMA_ALIGNMENT", config.cma_alignment


def _bool(name: str, value: str) -> bool:
    if value not in ("y", "n"):
        raise ConfigError(f"CONFIG_{name} is y or n, not '{value}'")
    return value == "y"


def _int(name: str, value: str) -> int:
    low, high = _RANGES[name]
    if not re.fullmatch(r"[0-9]+|0x[0-9a-fA-F]+", value):
        raise ConfigError(f"CONFIG_{name} is a number, not '{value}'")
    number = int(value, 0) if value.startswith("0x") else int(value)
    if not low <= number <= high:
        raise ConfigError(f"CONFIG_{name} is from {low} to {high}, not {number}")
    return number


def _choice(name: str, value: str, field: str, chosen: object) -> dict[str, object]:
    """One of a choice: ``y`` chooses it, ``n`` says nothing."""
    return {field: chosen} if _bool(name, value) else {}


def _known(arch: str, boot: BootAbi) -> Mapping[str, Callable[[str, str], dict[str, object]]]:
    """What may be set on this machine: option -> the fields that a value sets."""
    table: dict[str, Callable[[str, str], dict[str, object]]] = {}
    sizes = ("CMA_SIZE_MBYTES", "CMA_SIZE_PERCENTAGE", "CMA_AREAS", "CMA_ALIGNMENT")
    for name in ("LOG_BUF_SHIFT", *(() if boot.framework_2010 else sizes)):
        table[name] = lambda key, value: {key.lower(): _int(key, value)}
    for name in () if boot.framework_2010 else _SIZE_SEL:
        table[name] = lambda key, value: _choice(key, value, "cma_size_sel", key)
    flags = ["NUMA"] if arch != "arm" else []
    flags += ["CMA_DEBUG"] if boot.has_cma_debug else []
    flags += ["CMA_SYSFS"] if boot.has_cma_sysfs or boot.framework_2010 else []
    flags += ["CMA_SIZE_PERNUMA"] if boot.has_pernuma_size else []
    for name in flags:
        table[name] = lambda key, value: {key.lower(): _bool(key, value)}
    if boot.has_page_block_max_order:
        table["PAGE_BLOCK_MAX_ORDER"] = lambda key, value: {key.lower(): _int(key, value)}
    for name in _PAGES if arch == "arm64" else ():
        table[name] = lambda key, value: _choice(key, value, "page_shift", _PAGES[key])
    return table


def _parse(text: str) -> tuple[str, str] | None:
    """One line: (option, value); None for blanks and comments."""
    if match := _NOT_SET.match(text):
        return match[1], "n"
    if not text or text.startswith("#"):
        return None
    match = _ASSIGNMENT.match(text)
    if not match:
        raise ConfigError(f"'{text}' is no KEY=VALUE of a kernel configuration")
    return match[1], match[2].strip().strip('"')


def parse_config(lines: Iterable[str], arch: str, boot: BootAbi, release: str = "") -> Kconfig:
    """The configuration with the given ``KEY=VALUE`` lines applied in order. Raises ConfigError.

    ``CONFIG_`` before a key is optional; ``# CONFIG_X is not set`` is ``X=n``; other comments and blank
    lines are skipped. An option that only other kernels or architectures have is dropped, as olddefconfig
    does.
    """
    known = _known(arch, boot)
    dropped: list[str] = []
    fields: dict[str, object] = {"cma_debug": boot.cma_debug_default, "numa": arch == "arm64"}
    for text in lines:
        parsed = _parse(text.strip())
        if parsed is None:
            continue
        name, value = parsed
        if name not in known and (isinstance(text, DotConfigLine) or name in _ELSEWHERE):
            if name in _ELSEWHERE and value != "n":
                dropped.append(name)
            continue
        if name not in known:
            raise ConfigError(
                f"unknown option '{name}' on this kernel and architecture: known are {', '.join(known)}"
            )
        fields.update(known[name](name, value))
    return Kconfig(arch, boot, release, dropped=tuple(dropped), **fields)  # type: ignore[arg-type]
