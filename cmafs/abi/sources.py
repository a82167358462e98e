"""Where the functions that decide about areas stand in each kernel's sources, for rules to cite them.

Read in the sources of 5.10, 6.1, 6.12 and 7.2; before those by the moves that the kernel's history tells of.
"""

from __future__ import annotations

from collections.abc import Mapping

from cmafs.abi.rows import release_key

_OF = "drivers/of/of_reserved_mem.c"
_FDT = "drivers/of/fdt.c"

#: Function -> (first row, ``file:function()``), the oldest first; one that is not here was not moved.
_PLACES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "rmem_cma_setup": (
        ("4.4", "drivers/base/dma-contiguous.c:rmem_cma_setup()"),
        ("4.19", "kernel/dma/contiguous.c:rmem_cma_setup()"),
    ),
    "early_cma": (
        ("4.4", "drivers/base/dma-contiguous.c:early_cma()"),
        ("4.19", "kernel/dma/contiguous.c:early_cma()"),
    ),
    "dma_contiguous_reserve": (
        ("4.4", "drivers/base/dma-contiguous.c:dma_contiguous_reserve()"),
        ("4.19", "kernel/dma/contiguous.c:dma_contiguous_reserve()"),
    ),
    "rmem_dma_setup": (
        ("4.4", "drivers/base/dma-coherent.c:rmem_dma_setup()"),
        ("4.19", "kernel/dma/coherent.c:rmem_dma_setup()"),
    ),
    "dma_numa_cma_reserve": (
        ("4.4", "kernel/dma/contiguous.c:dma_pernuma_cma_reserve()"),
        ("6.6", "kernel/dma/contiguous.c:dma_numa_cma_reserve()"),
    ),
    "scan": (
        ("4.4", f"{_FDT}:__fdt_scan_reserved_mem()"),
        ("6.1", f"{_FDT}:fdt_scan_reserved_mem()"),
        ("6.12", f"{_OF}:fdt_scan_reserved_mem()"),
    ),
    "reserve_reg": (
        ("4.4", f"{_FDT}:__reserved_mem_reserve_reg()"),
        ("6.12", f"{_OF}:__reserved_mem_reserve_reg()"),
    ),
    "reserve_memory": (
        ("4.4", f"{_FDT}:early_init_dt_reserve_memory_arch()"),
        ("6.1", f"{_FDT}:early_init_dt_reserve_memory()"),
        ("6.12", f"{_OF}:early_init_dt_reserve_memory()"),
    ),
    "alloc_size": (("4.4", f"{_OF}:__reserved_mem_alloc_size()"),),
    "save_node": (("4.4", f"{_OF}:fdt_reserved_mem_save_node()"),),
    "init_node": (
        ("4.4", f"{_OF}:fdt_init_reserved_mem()"),
        ("6.12", f"{_OF}:fdt_init_reserved_mem_node()"),
    ),
    "overlap": (("4.4", f"{_OF}:__rmem_check_for_overlap()"),),
    "device_init": (("4.4", f"{_OF}:of_reserved_mem_device_init_by_idx()"),),
    "declare": (
        ("4.4", "mm/cma.c:cma_declare_contiguous()"),
        ("5.10", "mm/cma.c:cma_declare_contiguous_nid()"),
    ),
    "init_reserved": (("4.4", "mm/cma.c:cma_init_reserved_mem()"),),
    "activate": (("4.4", "mm/cma.c:cma_activate_area()"),),
    "name": (("4.4", "mm/cma.h:CMA_MAX_NAME"),),
    "remap": (("4.4", "arch/arm/mm/dma-mapping.c:dma_contiguous_remap()"),),
    "hugetlb_cma_reserve": (
        ("4.4", "mm/hugetlb.c:hugetlb_cma_reserve()"),
        ("6.18", "mm/hugetlb_cma.c:hugetlb_cma_reserve()"),
    ),
    "dma_limit": (
        ("4.4", "drivers/of/device.c:of_dma_configure()"),
        ("5.10", "drivers/of/device.c:of_dma_configure_id()"),
    ),
    "crashkernel": (
        ("4.4", "arch/arm64/mm/init.c:reserve_crashkernel()"),
        ("6.12", "kernel/crash_reserve.c:reserve_crashkernel_generic()"),
    ),
    "early_param": (("4.4", "init/main.c:do_early_param()"),),
    "unknown_param": (("4.4", "init/main.c:unknown_bootoption()"),),
    "memparse": (("4.4", "lib/cmdline.c:memparse()"),),
    "kconfig": (("4.4", "scripts/kconfig/confdata.c:conf_read_simple()"),),
    "panic": (("4.4", "kernel/panic.c:panic()"),),
}


def source_at(name: str, row: str) -> str:
    """``file:function()@v6.12``, as that kernel has it; a name without a place is a document's and stays.

    ``row``: by its number (``KernelAbi.base``).
    """
    places = _PLACES.get(name)
    if places is None:
        return name
    place = [text for since, text in places if release_key(since) <= release_key(row)][-1]
    return f"{place}@v{row}"
