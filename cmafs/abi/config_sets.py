"""Named configurations (``--config NAME``): the defconfigs, the recorded guests', the distributions'.

A set says what it has otherwise than Kconfig's defaults (``abi.kconfig``), or all that is on if it is
``complete``. Its words are ``SYMBOL`` (y), ``!SYMBOL`` (n) and ``SYMBOL=VALUE``; a symbol that a kernel does
not know is not meant for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ConfigSet:
    """One set. ``arch``, ``row``: the only machine it is of, "" for any; ``words`` as above."""

    words: str
    arch: str = ""
    row: str = ""
    complete: bool = False


#: On in every default: what a person who debugs CMA builds. The one deviation from the defconfigs.
_DEBUGGING = """CMA DMA_CMA CMA_DEBUGFS CMA_SYSFS DYNAMIC_DEBUG DEBUG_FS DMABUF_HEAPS DMABUF_HEAPS_SYSTEM
    DMABUF_HEAPS_CMA"""

#: What each release's defconfig has: arm64 ``defconfig``, arm ``multi_v7_defconfig``, x86_64
#: ``x86_64_defconfig``; generated from 5.10.223, 6.1.192, 6.12.117 and 7.2.13, other releases between them P.
DEFCONFIGS: Mapping[str, str] = {
    "arm64": f"""{_DEBUGGING} MEMCG NUMA RANDOMIZE_BASE KEXEC KEXEC_FILE CRASH_DUMP SWAP KSM MEMORY_FAILURE
        TRANSPARENT_HUGEPAGE HUGETLBFS CMA_SIZE_MBYTES=32""",
    "arm": f"""{_DEBUGGING} !IKCONFIG EXPERT KEXEC NR_CPUS=16 HIGHMEM SWAP ZONE_DMA CMA_SIZE_MBYTES=64
        FORCE_MAX_ZONEORDER=12""",
    "x86_64": f"""{_DEBUGGING} !IKCONFIG LOG_BUF_SHIFT=18 NUMA RANDOMIZE_BASE KEXEC CRASH_DUMP PROC_KCORE
        SWAP HUGETLBFS""",
}

#: What a defconfig has besides from a row on, (architecture or "", row) -> words.
DEFCONFIG_CHANGES: Mapping[tuple[str, str], str] = {
    ("", "2010"): "CMA_DEBUG",  # seeds/001 quotes its lines
    ("arm", "6.1"): "ARCH_FORCE_MAX_ORDER=12",
    ("arm", "6.6"): "ARCH_FORCE_MAX_ORDER=11",
    ("arm", "7.2"): "!EXPERT",
    ("arm64", "6.1"): "MEMORY_HOTPLUG",
    ("arm64", "6.6"): "DMA_RESTRICTED_POOL",
}

#: The first recordings (tests/transcripts/FORMAT.md), built from tinyconfig.
_TINY = """EXPERT NR_CPUS=4 !SPARSEMEM_VMEMMAP TRANSPARENT_HUGEPAGE HUGETLBFS CMA_DEBUG CMA_DEBUGFS CMA_SYSFS
    CMA_AREAS=7 CMA_SIZE_MBYTES=16 !RODATA_FULL_DEFAULT_ENABLED !ZONE_DMA DYNAMIC_DEBUG HIGHMEM"""
TINY: Mapping[str, str] = {
    "arm64": f"{_TINY} NUMA !ZONE_DMA32 DMA_PERNUMA_CMA DMA_NUMA_CMA CPU_LPA2",
    "arm": _TINY,
    "x86_64": f"{_TINY} !X86_5LEVEL",
}
TINY_CHANGES: Mapping[tuple[str, str], str] = {
    ("", "article"): "!CMA_DEBUG",
    ("arm64", "5.15"): "SPARSEMEM_VMEMMAP",
    ("x86_64", "7.2"): "SPARSEMEM_VMEMMAP",
}

_DEBIAN = """LOG_BUF_SHIFT=17 SMP MEMCG EXPERT KEXEC CRASH_DUMP SWAP KSM INIT_ON_ALLOC_DEFAULT_ON
    DYNAMIC_DEBUG DEBUG_FS ZSMALLOC IOMMU_SUPPORT COMPACTION MIGRATION ZONE_DMA"""
_DEBIAN_CMA = "CMA DMA_CMA CMA_SIZE_SEL_MBYTES CMA_ALIGNMENT=8"
_DEBIAN_64 = f"""{_DEBIAN} PROC_KCORE NUMA RANDOMIZE_BASE SPARSEMEM_VMEMMAP DEFERRED_STRUCT_PAGE_INIT
    MEMORY_HOTPLUG TRANSPARENT_HUGEPAGE HUGETLBFS ZONE_DMA32"""
_DEBIAN_ARM64 = f"""{_DEBIAN_64} {_DEBIAN_CMA} NODES_SHIFT=4 RODATA_FULL_DEFAULT_ENABLED MEMORY_FAILURE
    CMA_SIZE_MBYTES=64"""
_DEBIAN_ARM64_612 = f"{_DEBIAN_ARM64} NR_CPUS=512 CMA_AREAS=20 ZONE_DEVICE"
_DEBIAN_AMD64 = f"""{_DEBIAN_64} NODES_SHIFT=10 NR_CPUS=8192 KEXEC_FILE AMD_MEM_ENCRYPT ZONE_DEVICE
    RANDOMIZE_MEMORY X86_5LEVEL"""
_DEBIAN_ARMMP = f"{_DEBIAN} {_DEBIAN_CMA} NR_CPUS=8 VMSPLIT_3G HIGHMEM ZSWAP CMA_SIZE_MBYTES=16"
_LPAE = "ARM_LPAE TRANSPARENT_HUGEPAGE HUGETLBFS"


def _debian(row: str, arch: str, words: str) -> ConfigSet:
    return ConfigSet(words, arch, row, complete=True)


#: The kernels of a distribution that were recorded; from their ``.config``.
DISTRIBUTIONS: Mapping[str, ConfigSet] = {
    "debian-5.10-armmp": _debian("5.10", "arm", f"{_DEBIAN_ARMMP} CMA_AREAS=7 FORCE_MAX_ZONEORDER=12"),
    "debian-6.1-armmp": _debian("6.1", "arm", f"{_DEBIAN_ARMMP} CMA_AREAS=7 ARCH_FORCE_MAX_ORDER=12"),
    "debian-6.1-armmp-lpae": _debian(
        "6.1", "arm", f"{_DEBIAN_ARMMP} {_LPAE} CMA_AREAS=7 ARCH_FORCE_MAX_ORDER=12"
    ),
    "debian-6.12-armmp-lpae": _debian(
        "6.12", "arm", f"{_DEBIAN_ARMMP} {_LPAE} CMA_AREAS=8 ARCH_FORCE_MAX_ORDER=11"
    ),
    "debian-6.1-arm64-cloud": _debian(
        "6.1",
        "arm64",
        f"{_DEBIAN_ARM64} ARM64_4K_PAGES NR_CPUS=256 CMA_AREAS=19 ARCH_FORCE_MAX_ORDER=11 DMA_PERNUMA_CMA",
    ),
    "debian-6.12-arm64": _debian(
        "6.12", "arm64", f"{_DEBIAN_ARM64_612} ARM64_4K_PAGES ARCH_FORCE_MAX_ORDER=10 ZSWAP"
    ),
    "debian-6.12-arm64-cloud": _debian(
        "6.12", "arm64", f"{_DEBIAN_ARM64_612} ARM64_4K_PAGES ARCH_FORCE_MAX_ORDER=10"
    ),
    "debian-6.12-arm64-16k": _debian(
        "6.12", "arm64", f"{_DEBIAN_ARM64_612} ARM64_16K_PAGES ARCH_FORCE_MAX_ORDER=11 ZSWAP"
    ),
    "debian-6.1-amd64-cloud": _debian("6.1", "x86_64", _DEBIAN_AMD64),
    "debian-6.12-amd64-cloud": _debian("6.12", "x86_64", f"{_DEBIAN_AMD64} MEMORY_FAILURE"),
}


def _words_from(
    base: Mapping[str, str], changes: Mapping[tuple[str, str], str], arch: str, rows: list[str]
) -> str:
    later = (changes[key] for row in rows for key in (("", row), (arch, row)) if key in changes)
    return " ".join([base[arch], *later])


def config_set(name: str, arch: str, rows: list[str]) -> ConfigSet:
    """A set by name for a machine; ``rows``: its kernel's and all before it, oldest first. KeyError."""
    if name == "defconfig":
        return ConfigSet(_words_from(DEFCONFIGS, DEFCONFIG_CHANGES, arch, rows))
    if name == "tiny":
        return ConfigSet(_words_from(TINY, TINY_CHANGES, arch, rows))
    return DISTRIBUTIONS[name]


#: What ``--config`` takes by name.
NAMES: tuple[str, ...] = ("defconfig", "tiny", *DISTRIBUTIONS)
