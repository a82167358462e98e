"""Kconfig symbols that change what a user of CMA sees: where they exist, what they depend on, their defaults.

In the order of the kernel's menus, each after what it depends on. Citations name the Kconfig file (or the C
file where the symbol counts) and a release that has it so; P: the release follows from a change log.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Releases compared by number: a symbol exists from ``since`` on and before ``until``.
OLDEST, NEWEST = "4.4", "99.0"


@dataclass(frozen=True)
class Symbol:
    """One symbol.

    ``default``: values with conditions, the first that holds: ``"13 if ARM64_64K_PAGES; 10"``; empty: off.
    ``depends``: terms that must all hold, ``!X``, ``X|Y``; architectures are symbols too. ``forced``: has no
    prompt, so that its default decides. ``choice``: the one group of which exactly one member is on; its
    first member is the default. ``low``, ``high``: the range of a number; a symbol without them is y or n.
    ``dialects``: which dialects have it besides.
    """

    name: str
    source: str
    default: str = ""
    depends: str = ""
    forced: bool = False
    choice: str = ""
    low: int = 0
    high: int | None = None
    since: str = OLDEST
    until: str = NEWEST
    dialects: tuple[str, ...] = ()


S = Symbol
_ORDERS = "14 if ARM64_64K_PAGES TRANSPARENT_HUGEPAGE; 12 if ARM64_16K_PAGES TRANSPARENT_HUGEPAGE; 11"

SYMBOLS: tuple[Symbol, ...] = (
    S("64BIT", "arch/arm64/Kconfig@v6.12", "y", "ARM64|X86_64", forced=True),
    S("MMU", "arch/arm64/Kconfig@v6.12", "y", forced=True),
    S("IKCONFIG", "init/Kconfig@v6.12", "y"),
    S("IKCONFIG_PROC", "init/Kconfig@v6.12", "y", "IKCONFIG"),
    S("LOG_BUF_SHIFT", "init/Kconfig@v6.12", "17", low=12, high=25),
    S("SMP", "arch/arm/Kconfig@v6.12", "y"),
    S("NR_CPUS", "arch/arm64/Kconfig@v6.12: 512; 256 before 6.10, 64 before 5.0 (P)",
      "64 if X86_64; 4 if ARM; 512", "SMP", low=2, high=8192, since="6.10"),
    S("NR_CPUS", "arch/arm64/Kconfig@v5.10", "64 if X86_64; 4 if ARM; 256", "SMP", low=2, high=8192,
      since="5.0", until="6.10"),
    S("NR_CPUS", "arch/arm64/Kconfig@v4.19", "64 if X86_64; 4 if ARM; 64", "SMP", low=2, high=8192,
      until="5.0"),
    S("MEMCG", "init/Kconfig@v6.12"),
    S("EXPERT", "init/Kconfig@v6.12"),
    S("ARM64_4K_PAGES", "arch/arm64/Kconfig@v6.12", depends="ARM64", choice="page size"),
    S("ARM64_16K_PAGES", "arch/arm64/Kconfig@v6.12", depends="ARM64", choice="page size"),
    S("ARM64_64K_PAGES", "arch/arm64/Kconfig@v6.12", depends="ARM64", choice="page size"),
    S("ARM_LPAE", "arch/arm/mm/Kconfig@v6.12", depends="ARM"),
    S("PHYS_ADDR_T_64BIT", "arch/arm/mm/Kconfig@v6.12", "y", "64BIT|ARM_LPAE", forced=True),
    S("VMSPLIT_3G", "arch/arm/Kconfig@v6.12", depends="ARM", choice="vmsplit"),
    S("VMSPLIT_3G_OPT", "arch/arm/Kconfig@v6.12", depends="ARM !ARM_LPAE", choice="vmsplit"),
    S("VMSPLIT_2G", "arch/arm/Kconfig@v6.12", depends="ARM", choice="vmsplit"),
    S("VMSPLIT_1G", "arch/arm/Kconfig@v6.12", depends="ARM", choice="vmsplit"),
    S("HIGHMEM", "arch/arm/Kconfig@v6.12", depends="ARM"),
    S("ARM64_PA_BITS_52", "arch/arm64/Kconfig@v6.12: counts with pages of 64 KiB, or where the CPU has LPA2",
      depends="ARM64"),
    S("CPU_LPA2", "no option but the CPU: arch/arm64/include/asm/pgtable-prot.h:lpa2_is_enabled()@v6.12; of"
      " those recorded only QEMU's -cpu max (T)", depends="ARM64 !ARM64_64K_PAGES", since="6.9"),
    S("NUMA", "arch/arm64/Kconfig@v6.12", depends="SMP !ARM"),
    S("NUMA_EMU", "arch/x86/Kconfig@v5.10", depends="X86_64 NUMA"),
    S("NUMA_EMU", "mm/Kconfig@v6.12; 6.12 (P)", depends="NUMA", since="6.12"),
    S("NODES_SHIFT", "arch/arm64/Kconfig@v6.12, arch/x86/Kconfig@v6.12", "6 if X86_64; 4", "NUMA", low=1,
      high=10),
    S("RODATA_FULL_DEFAULT_ENABLED", "arch/arm64/Kconfig@v6.12; 5.0 (P); gone in 7.2", "y", "ARM64",
      since="5.0", until="7.0"),
    S("RANDOMIZE_BASE", "arch/arm64/Kconfig@v6.12", depends="!ARM"),
    S("AMD_MEM_ENCRYPT", "arch/x86/Kconfig@v6.12", depends="X86_64", since="4.14"),
    S("RANDOMIZE_MEMORY", "arch/x86/Kconfig@v6.12; 4.8 (P)", "y", "X86_64 RANDOMIZE_BASE", since="4.8"),
    S("X86_5LEVEL", "arch/x86/Kconfig@v6.12: y from 5.5 on (P)", "y", "X86_64", since="5.5", until="6.17"),
    S("X86_5LEVEL", "arch/x86/Kconfig@v5.4; 4.14 (P)", depends="X86_64", since="4.14", until="5.5"),
    S("PGTABLE_LEVELS", "arch/x86/Kconfig@v6.12", "5 if X86_5LEVEL; 4", "X86_64", forced=True, low=2, high=5,
      until="6.17"),
    S("PGTABLE_LEVELS", "arch/x86/Kconfig@v7.2; 6.17 (P)", "5", "X86_64", forced=True, low=2, high=5,
      since="6.17"),
    S("KEXEC", "kernel/Kconfig.kexec@v6.12; before 6.6 of each architecture"),
    S("KEXEC_FILE", "kernel/Kconfig.kexec@v6.12; arm64: 5.0 (P)", depends="!ARM", since="5.0"),
    S("KEXEC_FILE", "arch/x86/Kconfig@v4.15", depends="X86_64", until="5.0"),
    S("KEXEC_CORE", "kernel/Kconfig.kexec@v6.12, arch/Kconfig@v6.1: selected", "y", "KEXEC|KEXEC_FILE",
      forced=True),
    S("PROC_KCORE", "fs/proc/Kconfig@v6.12", depends="!ARM"),
    S("CRASH_CORE", "arch/Kconfig@v6.1, fs/proc/Kconfig@v6.1: selected; 4.12 to 6.8 (P)", "y",
      "KEXEC_CORE|PROC_KCORE", forced=True, since="4.12", until="6.9"),
    S("CRASH_DUMP", "kernel/Kconfig.kexec@v6.12; 6.9 (P)", "y", "KEXEC_CORE", since="6.9"),
    S("CRASH_DUMP", "arch/arm64/Kconfig@v6.1: needs nothing", until="6.9"),
    S("CRASH_RESERVE", "kernel/Kconfig.kexec@v6.12: selected; 6.9 (P)", "y", "CRASH_DUMP", forced=True,
      since="6.9"),
    S("SPARSEMEM", "mm/Kconfig@v6.12: the only model of arm64 and x86_64", "y", "!ARM", forced=True),
    S("FLATMEM", "mm/Kconfig@v6.12", "y", "ARM", forced=True),
    S("SPARSEMEM_VMEMMAP", "mm/Kconfig@v5.10", "y", "SPARSEMEM"),
    S("SWAP", "mm/Kconfig@v6.12"),
    S("ZSWAP", "mm/Kconfig@v6.12", depends="SWAP"),
    S("ZSMALLOC", "mm/Kconfig@v6.12"),
    S("IOMMU_SUPPORT", "drivers/iommu/Kconfig@v6.12: y there; the recorded guests had no devices (T)"),
    S("COMPACTION", "mm/Kconfig@v6.12", "y"),
    S("MIGRATION", "mm/Kconfig@v6.12", "y"),
    S("KSM", "mm/Kconfig@v6.12"),
    S("MEMORY_FAILURE", "mm/Kconfig@v6.12", depends="!ARM"),
    S("DEFERRED_STRUCT_PAGE_INIT", "mm/Kconfig@v6.12", depends="SPARSEMEM 64BIT"),
    S("TRANSPARENT_HUGEPAGE", "mm/Kconfig@v6.12", depends="64BIT|ARM_LPAE"),
    S("HUGETLBFS", "fs/Kconfig@v6.12", depends="64BIT|ARM_LPAE"),
    S("HUGETLB_PAGE", "fs/Kconfig@v6.12", "y", "HUGETLBFS", forced=True),
    S("FORCE_MAX_ZONEORDER", "arch/arm64/Kconfig@v5.10: one more than the largest order", _ORDERS,
      "ARM|ARM64", low=2, high=64, until="6.0"),
    S("ARCH_FORCE_MAX_ORDER", "arch/arm64/Kconfig@v6.1: one more than the largest order", _ORDERS,
      "ARM|ARM64", low=2, high=64, since="6.0", until="6.4"),
    S("ARCH_FORCE_MAX_ORDER", "arch/arm64/Kconfig@v6.12: the largest order (6.4, P)",
      "13 if ARM64_64K_PAGES; 11 if ARM64_16K_PAGES; 10", "ARM|ARM64", low=1, high=63, since="6.4"),
    S("PAGE_BLOCK_MAX_ORDER", "mm/Kconfig@v7.2; 6.17 (P)", "ARCH_FORCE_MAX_ORDER if ARM|ARM64; 10",
      low=1, high=63, since="6.17"),
    S("CMA", "mm/Kconfig@v6.12", "y", "MMU", dialects=("2010",)),
    S("CMA_DEBUG", "mm/Kconfig@v5.10; gone in 6.9 (P)", depends="CMA", until="6.9",
      dialects=("article", "2010")),
    S("CMA_DEBUGFS", "mm/Kconfig@v6.12", depends="CMA"),
    S("CMA_SYSFS", "mm/Kconfig@v6.12; 5.13 (P)", depends="CMA", since="5.13", dialects=("2010",)),
    S("CMA_AREAS", "mm/Kconfig@v6.12; 6.9 (P)", "20 if NUMA; 8", "CMA", low=1, high=1 << 20, since="6.9"),
    S("CMA_AREAS", "mm/Kconfig@v5.10; 5.10 (P)", "19 if NUMA; 7", "CMA", low=1, high=1 << 20, since="5.10",
      until="6.9"),
    S("CMA_AREAS", "mm/Kconfig@v4.19", "7", "CMA", low=1, high=1 << 20, until="5.10"),
    S("ZONE_DMA", "arch/arm64/Kconfig@v5.10, mm/Kconfig@v7.2; arm64: 5.5 (P)", "y if ARM64|X86_64",
      since="5.5"),
    S("ZONE_DMA", "mm/Kconfig@v4.19", "y if X86_64", "!ARM64", since="4.16", until="5.5"),
    S("ZONE_DMA", "arch/arm64/Kconfig@v4.15", "y if X86_64|ARM64", until="4.16"),
    S("ZONE_DMA32", "arch/arm64/Kconfig@v5.10, mm/Kconfig@v7.2", "y", "ARM64|X86_64", since="4.16"),
    S("ZONE_DMA32", "arch/x86/Kconfig@v4.15; arm64: 4.16 (P ad67f5a6545f)", "y", "X86_64", until="4.16"),
    S("ZONE_DEVICE", "mm/Kconfig@v6.12", depends="SPARSEMEM_VMEMMAP", since="4.3"),
    S("MEMORY_HOTPLUG", "mm/Kconfig@v6.12: no default of its own, but ZONE_DEVICE depends on it",
      "y if ZONE_DEVICE", "SPARSEMEM 64BIT"),
    S("MEMORY_ISOLATION", "mm/Kconfig@v6.12", "y", "CMA|MEMORY_FAILURE|ZONE_DEVICE", forced=True),
    S("CONTIG_ALLOC", "mm/Kconfig@v6.12; 5.2 (P)", "y", "CMA|MEMORY_ISOLATION", forced=True,
      since="5.2"),
    S("INIT_ON_ALLOC_DEFAULT_ON", "security/Kconfig.hardening@v6.12; 5.3 (P)", since="5.3"),
    S("HAVE_DMA_CONTIGUOUS", "kernel/dma/Kconfig@v6.12", "y", forced=True),
    S("SWIOTLB", "kernel/dma/Kconfig@v6.12", "y", "64BIT|ARM_LPAE", forced=True),
    S("DMA_RESTRICTED_POOL", "kernel/dma/Kconfig@v6.12; 5.15 (P)", depends="SWIOTLB", since="5.15"),
    S("DMA_COHERENT_POOL", "kernel/dma/Kconfig@v6.12; 5.8 (P)", "y", "ARM64|AMD_MEM_ENCRYPT", forced=True,
      since="5.8"),
    S("DMA_CMA", "kernel/dma/Kconfig@v6.12", "y", "CMA HAVE_DMA_CONTIGUOUS"),
    S("DMA_PERNUMA_CMA", "kernel/dma/Kconfig@v5.10; 5.10 to 6.5 (P)", "y if NUMA ARM64", "DMA_CMA",
      since="5.10", until="6.6"),
    S("DMA_NUMA_CMA", "kernel/dma/Kconfig@v6.12; 6.6 (P)", "", "DMA_CMA NUMA", since="6.6"),
    S("CMA_SIZE_PERNUMA", "kernel/dma/Kconfig@v7.2", "y", "DMA_NUMA_CMA", since="7.0"),
    S("CMA_SIZE_SEL_MBYTES", "kernel/dma/Kconfig@v6.12", depends="DMA_CMA", choice="cma size"),
    S("CMA_SIZE_SEL_PERCENTAGE", "kernel/dma/Kconfig@v6.12", depends="DMA_CMA", choice="cma size"),
    S("CMA_SIZE_SEL_MIN", "kernel/dma/Kconfig@v6.12", depends="DMA_CMA", choice="cma size"),
    S("CMA_SIZE_SEL_MAX", "kernel/dma/Kconfig@v6.12", depends="DMA_CMA", choice="cma size"),
    S("CMA_SIZE_MBYTES", "kernel/dma/Kconfig@v6.12", "0 if X86_64; 16", "DMA_CMA !CMA_SIZE_SEL_PERCENTAGE",
      high=1 << 44),
    S("CMA_SIZE_PERCENTAGE", "kernel/dma/Kconfig@v6.12", "0 if X86_64; 10", "DMA_CMA !CMA_SIZE_SEL_MBYTES",
      high=100),
    S("CMA_ALIGNMENT", "kernel/dma/Kconfig@v6.12; from 2 since 5.6 (P)", "8", "DMA_CMA", low=2, high=12,
      since="5.6"),
    S("CMA_ALIGNMENT", "kernel/dma/Kconfig@v4.19", "8", "DMA_CMA", low=4, high=12, until="5.6"),
    S("DMABUF_HEAPS", "drivers/dma-buf/Kconfig@v6.12; 5.6 (P)", since="5.6"),
    S("DMABUF_HEAPS_SYSTEM", "drivers/dma-buf/heaps/Kconfig@v6.12", depends="DMABUF_HEAPS", since="5.6"),
    S("DMABUF_HEAPS_CMA", "drivers/dma-buf/heaps/Kconfig@v6.12", depends="DMABUF_HEAPS DMA_CMA", since="5.6"),
    S("DMABUF_HEAPS_CMA_LEGACY", "drivers/dma-buf/heaps/Kconfig: 6.17 (P); gone in 7.2", "y",
      "DMABUF_HEAPS_CMA", since="6.17", until="7.0"),
    S("DMABUF_SYSFS_STATS", "drivers/dma-buf/Kconfig@v6.1; 5.14 (P); gone in 7.2", since="5.14", until="7.0"),
    S("OF", "drivers/of/Kconfig@v6.12", "y", forced=True),
    S("OF_RESERVED_MEM", "drivers/of/Kconfig@v6.12", "y", forced=True),
    S("DEBUG_FS", "lib/Kconfig.debug@v6.12", "y"),
    S("DYNAMIC_DEBUG", "lib/Kconfig.debug@v6.12", depends="DEBUG_FS"),
    S("CMA_BEST_FIT", "mm/Kconfig of the framework of 2010", "y", "CMA", until=OLDEST, dialects=("2010",)),
)  # fmt: skip

#: Symbols that newer memory management brought: a kernel of 2010 has none of them.
NOT_IN_2010 = frozenset(
    [
        "TRANSPARENT_HUGEPAGE",
        "MEMORY_ISOLATION",
        "DMA_CMA",
        "CMA_AREAS",
        "CMA_DEBUGFS",
        "ZONE_DEVICE",
        "RANDOMIZE_BASE",
        "AMD_MEM_ENCRYPT",
        "HAVE_DMA_CONTIGUOUS",
        "ZSWAP",
        "ZSMALLOC",
        "IOMMU_SUPPORT",
        "DYNAMIC_DEBUG",
        "OF_RESERVED_MEM",
    ]
)
