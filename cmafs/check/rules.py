"""What ``cmafs check`` says of each way in which a region can miss becoming an area.

The keys are those of ``BootEvent.reason`` and of ``cmafs.check.tree``. A rule is a binding of
Documentation/devicetree/bindings or a function of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_BINDING = "reserved-memory/reserved-memory.yaml"
_POOL_BINDING = "reserved-memory/shared-dma-pool.yaml"
_SETUP = "kernel/dma/contiguous.c:rmem_cma_setup()@v6.12"
_SCAN = "drivers/of/of_reserved_mem.c:fdt_scan_reserved_mem()@v6.12"
_REG = "drivers/of/of_reserved_mem.c:__reserved_mem_reserve_reg()@v6.12"
_SIZE = "drivers/of/of_reserved_mem.c:__reserved_mem_alloc_size()@v6.12"
_DECLARE = "mm/cma.c:cma_declare_contiguous_nid()@v6.12"
_INIT = "mm/cma.c:cma_init_reserved_mem()@v6.12"


@dataclass(frozen=True)
class Rule:
    """``what`` is wrong, which binding or function says so (``source``), and what to do.

    ``consequence``: what the kernel does then, if that is not what the effect alone says.
    """

    what: str
    source: str
    remedy: str
    consequence: str = ""


RULES: Mapping[str, Rule] = {
    # the parent
    "unsupported-format": Rule(
        "the kernel ignores all of /reserved-memory",
        _SCAN,
        "give it `ranges;` and the #address-cells and #size-cells of the root",
    ),
    "parent-ignored": Rule(
        "lost with its parent", _SCAN, "mend /reserved-memory: its cells must be the root's, `ranges` present"
    ),
    "nested": Rule(
        "only children of /reserved-memory itself are regions", _SCAN, "move the node up to /reserved-memory"
    ),
    "not-under-reserved-memory": Rule(
        "a pool that is no child of /reserved-memory is no region",
        _BINDING,
        "move the node to /reserved-memory",
    ),
    "disabled": Rule("the kernel skips it without a line", _SCAN, 'set status = "okay", or drop `status`'),
    # lengths
    "invalid-reg": Rule(
        "not a whole number of (address, size) pairs in the root's cells",
        _REG,
        "write each pair with #address-cells and #size-cells of /reserved-memory",
    ),
    "invalid-size": Rule(
        "not one number of the root's #size-cells", _SIZE, "write it with #size-cells cells"
    ),
    "invalid-alignment": Rule(
        "not one number of the root's #address-cells", _SIZE, "write it with #address-cells cells"
    ),
    "invalid-alloc-ranges": Rule(
        "not a whole number of (address, size) pairs in the root's cells",
        _SIZE,
        "write each pair with #address-cells and #size-cells of /reserved-memory",
    ),
    "no-reg-no-size": Rule(
        "it has neither `reg` nor `size`", _BINDING, "give it reg = <base size> or size = <size>"
    ),
    # what kind of region
    "not-reusable": Rule(
        "without `reusable` it becomes a plain DMA pool of its device, not CMA",
        _POOL_BINDING,
        "add `reusable;`, or `no-map;` if a plain pool is meant",
        "no area: a DMA pool for one device",
    ),
    "plain-pool": Rule(
        "with `no-map` it is a plain DMA pool of its device, not CMA",
        "kernel/dma/coherent.c:rmem_dma_setup()@v6.12",
        "nothing, if that is meant",
    ),
    "reusable-and-no-map": Rule(
        "`reusable` and `no-map` exclude each other",
        _SETUP,
        "drop one: `no-map` for CMA, `reusable` for a plain pool",
    ),
    "no-driver": Rule(
        "`reusable` alone makes no CMA area", _POOL_BINDING, 'add "shared-dma-pool" to `compatible`'
    ),
    "bypassed": Rule(
        "cma= on the command line takes the default area from the device tree; this node is bypassed",
        _SETUP,
        "drop cma=, or drop linux,cma-default to keep the pool beside it",
    ),
    "default-twice": Rule(
        "it takes the default from another node: of several linux,cma-default the one initialised last wins",
        _SETUP,
        "keep linux,cma-default on one node",
    ),
    # numbers
    "size-zero": Rule("an area of 0 bytes", _INIT, "give it a size"),
    "misaligned": Rule("base and size must be multiples of the CMA unit", _SETUP, "round them to the unit"),
    "base-misaligned": Rule("the base is not a multiple of the CMA unit", _SETUP, "move it to a multiple"),
    "size-misaligned": Rule(
        "the size is not a multiple of the CMA unit", _SETUP, "round it up to a multiple"
    ),
    "alignment-raised": Rule("the alignment is raised to the CMA unit", _SIZE, "nothing, or write the unit"),
    "outside-memory": Rule(
        "not inside memory: the kernel reserves it, then dies when it activates the area",
        "mm/cma.c:cma_activate_area()",
        "move it into a /memory range, or correct /memory (boot loaders may fill it in: see --memory)",
    ),
    "unmapped": Rule(
        "no-map memory is given back when it is refused, but after the rest was mapped: the kernel dies when "
        "it first writes there",
        "drivers/of/of_reserved_mem.c:fdt_init_reserved_mem_node()@v6.12",
        "drop `no-map` or `reusable`",
    ),
    "kernel-given-back": Rule(
        "the memory of a refused node is given back even where the kernel itself stands, which then dies",
        "drivers/of/of_reserved_mem.c:fdt_init_reserved_mem_node()@v6.12",
        "move it away from the kernel, and mend what the node was refused for",
    ),
    "no-value": Rule(
        "without a value the kernel follows a null pointer while it parses the command line",
        "init/main.c:do_early_param()",
        "give it a value, or drop it",
    ),
    "no-room": Rule(
        "no free range of that size where it may lie",
        _SIZE,
        "make it smaller, widen alloc-ranges, or move what lies in the way",
    ),
    "reserve-failed": Rule(
        "the memory cannot be taken out of the map: some of it is reserved already",
        _REG,
        "move it, or drop `no-map`",
    ),
    "remap-hangs": Rule(
        "its base is not aligned to 2 MiB, and remapping low memory in steps of 2 MiB unmaps what the kernel"
        " runs from: the boot hangs",
        "arch/arm/mm/dma-mapping.c:dma_contiguous_remap()@v6.12",
        "align base and size to 4 MiB",
    ),
    "remap-unmaps": Rule(
        "base or size is no multiple of 2 MiB: what is beside it stays unmapped, and using that is an oops",
        "arch/arm/mm/dma-mapping.c:dma_contiguous_remap()@v6.12",
        "align base and size to 4 MiB",
    ),
    "remap-overlaps": Rule(
        "two reusable pools in low memory overlap, and the kernel dies remapping the second",
        "arch/arm/mm/dma-mapping.c:dma_contiguous_remap()@v6.12",
        "give each its own range",
    ),
    "taken": Rule("some of it is reserved already", _DECLARE, "choose a free place, or leave the base out"),
    "not-reserved": Rule(
        "the range is not reserved in memblock", _INIT, "check what removes it: no-map, /memory"
    ),
    "exceeds-limit": Rule("it ends above the limit", _DECLARE, "lower base or size, or raise the limit"),
    "low-high-boundary": Rule(
        "it crosses the end of the linear map", _DECLARE, "keep it below or above that boundary"
    ),
    "alignment-not-a-power-of-two": Rule("the alignment is no power of two", _DECLARE, "make it one"),
    "size-off-bits": Rule("the size is no multiple of order_per_bit", _DECLARE, "round it up"),
    "no-slot": Rule(
        "all slots for areas are taken", _INIT, "use fewer areas, or a kernel with a larger CONFIG_CMA_AREAS"
    ),
    "too-many-regions": Rule(
        "more regions than the kernel has room for", _SCAN, "use fewer children of /reserved-memory"
    ),
    "extra-reg": Rule("only the first pair becomes the area", _REG, "one node for each range"),
    "reg-wins": Rule("`reg` decides, `size` is not read", _REG, "keep one of them"),
    "overlap": Rule(
        "two owners of one range",
        "drivers/of/of_reserved_mem.c:__rmem_check_for_overlap()@v6.12",
        "move one of them",
        "reported only; both exist, their pages are counted twice",
    ),
    "memreserve": Rule(
        "/memreserve/ holds some of it for firmware or boot loader, yet the area hands it out",
        "Devicetree Specification 5.3",
        "move the pool away",
        "not reported; both exist",
    ),
    # names and references
    "name-cut": Rule(
        "the name is longer than 63 characters and cut in debugfs and sysfs",
        "mm/cma.h:CMA_MAX_NAME",
        "shorten it",
    ),
    "unit-address": Rule("the unit address is not the base of `reg`", _BINDING, "name the node for its base"),
    "dangling-memory-region": Rule(
        "memory-region names no node of the tree", _BINDING, "reference a label in /reserved-memory"
    ),
    "region-not-usable": Rule(
        "its memory-region is no usable region, so its driver gets no pool of its own",
        _BINDING,
        "mend that region",
    ),
    "no-area": Rule(
        "the kernel made no area of it",
        _SETUP,
        "see the boot log, and --arch: not every architecture scans it",
    ),
    "panic": Rule("the kernel stopped", "kernel/panic.c:panic()@v6.12", "see the end of the boot log"),
    # the command line
    "no-room-for-parameter": Rule(
        "no free range of that size below the limit",
        _DECLARE,
        "ask for less, or leave base and limit out",
    ),
    "not-a-number": Rule(
        "it begins with no number, so the size is 0 and there is no area",
        "lib/cmdline.c:memparse()",
        "write size[KMG][@base[-limit]]",
    ),
    "text-ignored": Rule(
        "nothing but @ is read behind the size",
        "kernel/dma/contiguous.c:early_cma()",
        "write size[KMG][@base[-limit]]",
    ),
    "default-wins": Rule(
        "the device tree has a linux,cma-default node, which goes before cma= up to 5.8",
        "kernel/dma/contiguous.c:dma_contiguous_reserve()",
        "drop linux,cma-default from that node, or set its size in the tree",
    ),
    "config-dropped": Rule(
        "this kernel or architecture has no such option, so its configuration drops it",
        "scripts/kconfig/confdata.c:conf_read_simple()",
        "leave it out, or use a kernel that has it",
    ),
    "unknown-parameter": Rule(
        "this kernel has no such parameter: hugetlb_cma= came with 5.7, cma_pernuma= with 5.10, "
        "numa_cma= with 6.6; the last two need CONFIG_NUMA, and arm has none of them",
        "mm/hugetlb.c, kernel/dma/contiguous.c",
        "drop it, or use a kernel that has it",
    ),
    "region-2010-refused": Rule(
        "the framework of 2010 refuses the parameter from here on",
        "mm/cma.c:cma_param_parse(), cma_map_param() (2010)",
        "name=size[@start][/alignment][:allocator]; and pattern=region,region; see docs/cma2010.md",
    ),
    "region-2010-no-room": Rule(
        "the region is not reserved, and maps that name it work without it",
        "mm/cma.c:cma_early_region_reserve() (2010)",
        "make it smaller, or drop its start",
    ),
    "region-2010-ignored": Rule(
        "2.6.36 knows no /reserved-memory, which came with 3.15",
        _BINDING,
        "give the region in cma=, see docs/cma2010.md",
    ),
    "cma-moved": Rule(
        "the area lies elsewhere: with a limit above base + size the base is only a lower bound",
        "kernel/dma/contiguous.c:dma_contiguous_reserve()@v6.12",
        "write size@base alone to fix the place",
    ),
    "base-is-bytes": Rule(
        "the base has no suffix, so it counts bytes", "kernel/dma/contiguous.c:early_cma()", "write 1G, not 1"
    ),
    "size-rounded": Rule(
        "the size is rounded up to the CMA unit", _DECLARE, "nothing, or write the multiple"
    ),
    "too-small": Rule(
        "smaller than one gigantic page", "mm/hugetlb.c:hugetlb_cma_reserve()", "ask for at least one"
    ),
    "not-a-multiple": Rule(
        "no multiple of the gigantic page", "mm/hugetlb_cma.c:hugetlb_cma_reserve()", "round it up"
    ),
    "bad-node": Rule(
        "no such node, or less than one gigantic page",
        "mm/hugetlb.c:hugetlb_cma_reserve()",
        "name nodes that exist",
    ),
    "no-such-node": Rule("the machine has no such node", "kernel/dma/contiguous.c", "name nodes that exist"),
}
