"""What ``cmafs check`` says of each way in which a region can miss becoming an area.

The keys are the codes of findings: those of ``BootEvent.reason`` and of the modules beside this one. What
to do is ``check.remedy``'s, which tries it first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_BINDING = "reserved-memory/reserved-memory.yaml"
_POOL_BINDING = "reserved-memory/shared-dma-pool.yaml"


@dataclass(frozen=True)
class Rule:
    """``what`` is wrong, and who says so: ``source`` is a key of ``abi.sources``, a binding, or a document.

    ``consequence``: what the kernel does then, if that is not what the effect alone says.
    """

    what: str
    source: str
    consequence: str = ""


RULES: Mapping[str, Rule] = {
    # the parent
    "unsupported-format": Rule("the kernel ignores all of /reserved-memory", "scan"),
    "parent-ignored": Rule("lost with its parent", "scan"),
    "nested": Rule("only children of /reserved-memory itself are regions", "scan"),
    "not-under-reserved-memory": Rule(
        "the kernel looks for regions only directly below /reserved-memory", _BINDING
    ),
    "disabled": Rule("the kernel skips it without a line", "scan"),
    # lengths
    "invalid-reg": Rule("not a whole number of (address, size) pairs in the root's cells", "reserve_reg"),
    "invalid-size": Rule("not one number of the root's #size-cells", "alloc_size"),
    "invalid-alignment": Rule("not one number of the root's #address-cells", "alloc_size"),
    "invalid-alloc-ranges": Rule(
        "not a whole number of (address, size) pairs in the root's cells", "alloc_size"
    ),
    "no-reg-no-size": Rule("it has neither `reg` nor `size`", _BINDING),
    # what kind of region
    "not-reusable": Rule(
        "without `reusable` it becomes a plain DMA pool of its device, not CMA",
        _POOL_BINDING,
        "no area: it becomes a DMA pool of the devices that name it",
    ),
    "plain-pool": Rule("with `no-map` it is a plain DMA pool of its device, not CMA", "rmem_dma_setup"),
    "reusable-and-no-map": Rule("`reusable` and `no-map` exclude each other", "rmem_cma_setup"),
    "no-driver": Rule("`reusable` alone makes no CMA area", _POOL_BINDING),
    "bypassed": Rule(
        "cma= on the command line takes the default area from the device tree; this node is bypassed",
        "rmem_cma_setup",
    ),
    "default-twice": Rule(
        "it takes the default from another node: of several linux,cma-default the one initialised last wins",
        "rmem_cma_setup",
    ),
    # numbers
    "size-zero": Rule("an area of 0 bytes", "init_reserved"),
    "misaligned": Rule("base and size must be multiples of the CMA unit", "rmem_cma_setup"),
    "base-misaligned": Rule("the base is not a multiple of the CMA unit", "rmem_cma_setup"),
    "size-misaligned": Rule("the size is not a multiple of the CMA unit", "rmem_cma_setup"),
    "not-activated": Rule(
        "the area lies in two zones, and every page of it must be of one",
        "activate",
        "no area: its count is 0",
    ),
    "activation-stopped": Rule(
        "an area before it could not be activated, and this kernel then activates none after it", "activate"
    ),
    "alignment-raised": Rule("the alignment is raised to the CMA unit", "alloc_size"),
    "outside-memory": Rule(
        "not inside memory: the kernel reserves it, then dies when it activates the area", "activate"
    ),
    "unmapped": Rule(
        "no-map memory is given back when it is refused, but after the rest was mapped: the kernel "
        "dies when it first writes there",
        "init_node",
    ),
    "kernel-given-back": Rule(
        "the memory of a refused node is given back even where the kernel itself stands, which then dies",
        "init_node",
    ),
    "no-value": Rule(
        "without a value the kernel follows a null pointer while it parses the command line", "early_param"
    ),
    "crashkernel-hangs": Rule(
        "no free range of that size, and without ZONE_DMA and ZONE_DMA32 the kernel searches on for ever",
        "crashkernel",
    ),
    "no-room": Rule("no free range of that size where it may lie", "alloc_size"),
    "reserve-failed": Rule(
        "the memory cannot be taken out of the map: some of it is reserved already", "reserve_memory"
    ),
    "remap-hangs": Rule(
        "its base is not aligned to 2 MiB, and remapping low memory in steps of 2 MiB unmaps what "
        "the kernel runs from: the boot hangs",
        "remap",
    ),
    "remap-unmaps": Rule(
        "base or size is no multiple of 2 MiB: what is beside it stays unmapped, and using that is an oops",
        "remap",
    ),
    "remap-overlaps": Rule(
        "two reusable pools in low memory overlap, and the kernel dies remapping the second", "remap"
    ),
    "taken": Rule("some of it is reserved already", "declare"),
    "not-reserved": Rule("the range is not reserved in memblock", "init_reserved"),
    "exceeds-limit": Rule("it ends above the limit", "declare"),
    "low-high-boundary": Rule("it crosses the end of the linear map", "declare"),
    "alignment-not-a-power-of-two": Rule("the alignment is no power of two", "declare"),
    "size-off-bits": Rule("the size is no multiple of order_per_bit", "declare"),
    "no-slot": Rule("all slots for areas are taken", "init_reserved"),
    "too-many-regions": Rule("more regions than the kernel has room for", "save_node"),
    "extra-reg": Rule("only the first pair becomes the area", "reserve_reg"),
    "reg-wins": Rule("`reg` decides, `size` is not read", "reserve_reg"),
    "overlap": Rule(
        "two owners of one range", "overlap", "reported only: both exist, and their pages are counted twice"
    ),
    "memreserve": Rule(
        "/memreserve/ holds some of it for firmware or boot loader, yet the area hands it out",
        "Devicetree Specification 5.3",
        "not reported; both exist",
    ),
    # names and references
    "name-cut": Rule("the name is longer than 63 characters and cut in debugfs and sysfs", "name"),
    "unit-address": Rule("the unit address is not the base of `reg`", _BINDING),
    "dangling-memory-region": Rule("memory-region names no node of the tree", "device_init"),
    "region-not-usable": Rule(
        "its memory-region is no usable region, so its driver gets no pool of its own", "device_init"
    ),
    "misspelt": Rule("the kernel knows no such name, and does as if it were not there", _BINDING),
    "out-of-reach": Rule(
        "the device cannot address its memory-region",
        "dma_limit",
        "its buffers come from elsewhere, or it gets none",
    ),
    "above-mask": Rule(
        "its memory-region ends above 4 GiB, which takes a driver that sets a wider mask than 32 bits",
        "dma_limit",
        "with the mask that every device has at first, its buffers come from elsewhere",
    ),
    "default-out-of-reach": Rule(
        "devices on this bus cannot address the default area",
        "dma_limit",
        "their buffers come from elsewhere",
    ),
    "no-area": Rule("the kernel made no area of it", "rmem_cma_setup"),
    "panic": Rule("the kernel stopped", "panic"),
    # the command line
    "no-room-for-parameter": Rule("no free range of that size below the limit", "declare"),
    "not-a-number": Rule("it begins with no number, so the size is 0 and there is no area", "memparse"),
    "text-ignored": Rule("nothing but @ is read behind the size", "early_cma"),
    "default-wins": Rule(
        "the device tree has a linux,cma-default node, which goes before cma= up to 5.8",
        "dma_contiguous_reserve",
    ),
    "config-dropped": Rule(
        "this kernel or architecture has no such option, so its configuration drops it", "kconfig"
    ),
    "config-unmodelled": Rule(
        "options that this kernel may have and cmafs does not model: nothing that it shows depends on them",
        "kconfig",
    ),
    "unknown-parameter": Rule(
        "this kernel has no such parameter: hugetlb_cma= came with 5.7, cma_pernuma= with 5.10, "
        "numa_cma= with 6.6; the last two need CONFIG_NUMA, and arm has none of them",
        "unknown_param",
    ),
    "region-2010-refused": Rule(
        "the framework of 2010 refuses the parameter from here on",
        "mm/cma.c:cma_param_parse(), cma_map_param() (2010)",
    ),
    "region-2010-no-room": Rule(
        "the region is not reserved, and maps that name it work without it",
        "mm/cma.c:cma_early_region_reserve() (2010)",
    ),
    "region-2010-ignored": Rule("2.6.36 knows no /reserved-memory, which came with 3.15", _BINDING),
    "cma-moved": Rule(
        "the area lies elsewhere: with a limit above base + size the base is only a lower bound",
        "dma_contiguous_reserve",
    ),
    "base-is-bytes": Rule("the base has no suffix, so it counts bytes", "early_cma"),
    "size-rounded": Rule("the size is rounded up to the CMA unit", "declare"),
    "no-room-for-image": Rule(
        "the kernel's image does not fit into memory", "booting.rst of its architecture", "it never starts"
    ),
    "too-small": Rule("smaller than one gigantic page", "hugetlb_cma_reserve"),
    "not-a-multiple": Rule("no multiple of the gigantic page", "hugetlb_cma_reserve"),
    "bad-node": Rule("no such node, or less than one gigantic page", "hugetlb_cma_reserve"),
    "no-such-node": Rule("the machine has no such node", "dma_numa_cma_reserve"),
}
