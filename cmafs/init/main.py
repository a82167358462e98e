"""start_kernel(): the order in which a machine boots, on one page.

The only place that puts the parts together. Kernel: ``init/main.c``, ``arch/*/kernel/setup.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cmafs.abi import kernel_abi
from cmafs.arch import arm, arm64
from cmafs.arch.boot_alloc import memmap_init, mm_core_init, unflatten_device_tree
from cmafs.arch.iomem import iomem_resources
from cmafs.arch.numa import numa_init
from cmafs.arch.ops import arch_ops
from cmafs.arch.setup import EarlyBoot
from cmafs.arch.zones import build_all_zonelists, free_area_init, node_zones
from cmafs.init.crash_reserve import reserve_crashkernel
from cmafs.init.dma_contiguous import dma_contiguous_reserve, dma_numa_cma_reserve, early_cma
from cmafs.init.hugetlb import hugetlb_cma_reserve
from cmafs.init.initcalls import DEFAULT_PROFILE, do_initcalls, reserve_2010
from cmafs.init.journal import Journal
from cmafs.init.machine import BootedMachine
from cmafs.init.options import MachineOptions, memory_size
from cmafs.init.unknown_params import run_init_process, unknown_parameters
from cmafs.init.version import linux_banner
from cmafs.lib.boot_event import EFFECT_PANIC, EFFECT_REFUSED
from cmafs.lib.clock import Clock
from cmafs.lib.cmdline import EarlyParams, parse_early_params
from cmafs.lib.dynamic_debug import DynamicDebug
from cmafs.lib.intervals import within
from cmafs.lib.kconfig import ConfigError, Kconfig, parse_config
from cmafs.lib.printk import LOGLEVEL_NOTICE, Printk
from cmafs.lib.sizes import SZ_1K
from cmafs.mm.boot_pages import KERNEL, populate_boot_pages
from cmafs.mm.cma import cma_init_reserved_areas
from cmafs.mm.memblock import Memblock
from cmafs.mm.mm_init import mm_init
from cmafs.mm.mmzone import Memory
from cmafs.of.base import DeviceTree
from cmafs.of.cpu import machine_arch
from cmafs.of.memory import early_init_dt_scan_memory

#: Parameters that read their text without asking whether there is one.
_READ_BLINDLY = ("hugetlb_cma", "cma_pernuma", "numa_cma", "coherent_pool")


def start_kernel(tree: DeviceTree, options: MachineOptions, clock: Clock) -> BootedMachine:
    """Boot a machine; ``config`` has lines and names of sets, no files.

    Raises KernelPanic, DtError (no memory), ConfigError (``config``), UnknownKernel, BadOption (``memory``).
    """
    journal = Journal(clock)
    boot = _early_setup(tree, options, journal)
    _setup_arch(boot, options)
    _parse_args(boot)
    mm_core_init(boot)
    memory = mm_init(boot.layout(node_zones(boot)), boot.abi.mm)
    _mem_init_print_info(boot, memory)
    _panic_if_outside_memory(boot)
    if boot.config.on("DYNAMIC_DEBUG"):
        DynamicDebug(boot.log).boot_params(boot.params.words)
    cma_init_reserved_areas(boot.areas, memory)
    _events_of_activation(boot)
    machine = _machine(boot, options, journal, memory)
    do_initcalls(boot, machine)
    populate_boot_pages(memory)
    _touch_boot_pages(boot, memory)
    run_init_process(boot)
    return machine


def _parse_args(boot: EarlyBoot) -> None:
    """The command line, and the zonelists, which were built before it until mm_core_init() took them over."""
    if not boot.abi.boot.zonelists_after_cmdline:
        build_all_zonelists(boot)
    boot.log.printk(f"Kernel command line: {boot.cmdline}", LOGLEVEL_NOTICE)
    if text := unknown_parameters(boot):
        boot.log.printk(text, LOGLEVEL_NOTICE)
    if boot.abi.boot.zonelists_after_cmdline:
        build_all_zonelists(boot)


def _early_setup(tree: DeviceTree, options: MachineOptions, clock: Clock) -> EarlyBoot:
    """Options, command line, memory: what is known before anything is reserved."""
    abi = kernel_abi(options.kernel)
    if not abi.boot.framework_2010 and (options.profile or options.strict_quirks):
        raise ConfigError(f"--profile and --strict-quirks are for --kernel 2010; this is {abi.row}")
    arch = options.arch or machine_arch(tree)[0]
    config = parse_config(options.config, arch, abi, board_config(tree))
    cmdline = options.cmdline if options.cmdline is not None else bootargs(tree)
    params = parse_early_params(cmdline, abi.boot.hugetlb_cma_per_node, config.max_numnodes)
    log = Printk(
        clock,
        options.seed,
        _log_buf_shift(config, params),
        abi.printk,
        bits_per_long=32 if arch == "arm" else 64,
    )
    log.ptr_key_filled = False
    memblock = Memblock(page_size=1 << config.page_shift)
    numa = config.on("NUMA") and "off" not in params.values("numa")
    described = early_init_dt_scan_memory(
        memblock,
        tree,
        memory_size(options.memory),
        max_numnodes=config.max_numnodes if numa else 0,
        named_is_enough=arch == "x86_64",
        page_size=memblock.page_size,
        phys_limit=arm64.PHYS_LIMIT if config.on("PHYS_ADDR_T_64BIT") else (1 << 32) - 1,
    )
    return EarlyBoot(
        tree=tree,
        abi=abi,
        config=config,
        cmdline=cmdline,
        params=params,
        log=log,
        memblock=memblock,
        numa_described=described,
    )


def bootargs(tree: DeviceTree) -> str:
    """/chosen/bootargs, empty if there is none."""
    return tree.chosen.property_read_string("bootargs") or ""


def board_config(tree: DeviceTree) -> list[str]:
    """What a board says of its kernel's configuration: ``cmafs,config`` of /chosen, a line a string."""
    return tree.chosen.property_read_strings("cmafs,config")


def _log_buf_shift(config: Kconfig, params: EarlyParams) -> int:
    """``log_buf_len=``: rounded up to a power of two, never below CONFIG_LOG_BUF_SHIFT's."""
    wanted = max(params.log_buf_len - 1, 1).bit_length()
    return max(config.number("LOG_BUF_SHIFT"), min(wanted, 31))


def _setup_arch(boot: EarlyBoot, options: MachineOptions) -> None:
    """setup_arch(): the steps of this architecture in this kernel's order."""
    arch, abi = boot.config.arch, boot.abi
    boot.log.printk(linux_banner(abi.release), LOGLEVEL_NOTICE)
    if arch == "x86_64":
        boot.log.printk(f"Command line: {boot.cmdline}")
    if not abi.boot.framework_2010:
        early_cma(boot)
        _panic_without_value(boot)
    ops = arch_ops(boot)
    offset = ops.reserve(boot)
    if abi.boot.framework_2010:
        reserve_2010(boot, options.profile or DEFAULT_PROFILE, options.strict_quirks)
    steps: Mapping[str, Callable[[], None]] = {
        "crashkernel": lambda: reserve_crashkernel(boot),
        "crashkernel_without_zones": lambda: None if arm64.has_dma_zones(boot) else reserve_crashkernel(boot),
        "crashkernel_with_zones": lambda: reserve_crashkernel(boot) if arm64.has_dma_zones(boot) else None,
        "lowmem": lambda: arm.lowmem_again(boot),
        "page_tables": lambda: arm64.paging_init(boot),
        "unflatten": lambda: unflatten_device_tree(boot),
        "default": lambda: dma_contiguous_reserve(boot, ops.dma_phys_limit(boot)),
        "hugetlb": lambda: hugetlb_cma_reserve(boot),
        "numa": lambda: dma_numa_cma_reserve(boot),
        "node_data": lambda: numa_init(boot),
        "memmap": lambda: memmap_init(boot, offset),
        "zones": lambda: free_area_init(boot),
    }
    order = {"x86_64": abi.boot.x86_steps, "arm64": abi.boot.arm64_steps, "arm": abi.boot.arm_steps}
    for step in order[arch]:
        steps[step]()


def _panic_without_value(boot: EarlyBoot) -> None:
    """Of parameters without a value the first that needs one. Raises KernelPanic."""
    for word, value in boot.params.words:
        name = word.replace("-", "_")
        if value is None and name in _READ_BLINDLY and boot.config.knows(name):
            boot.event(None, "no-value", EFFECT_PANIC, f"{name}=")
            reason = f"{name} without a value: the kernel follows a null pointer"
            raise boot.panic(reason, "Attempted to kill the idle task!")


def _mem_init_print_info(boot: EarlyBoot, memory: Memory) -> None:
    """mem_init_print_info(): the ``Memory:`` line; cma-reserved is no part of reserved."""
    kib = boot.page_size // SZ_1K
    present = sum(zone.present_pages for zone in memory.zones)
    managed = sum(zone.managed_pages for zone in memory.zones)
    cma = boot.areas.totalcma_pages
    code, rwdata, rodata, init, bss = boot.kernel_sizes_kib()
    highmem = sum(zone.managed_pages for zone in memory.high_zones())
    high = f", {highmem * kib}K highmem" if boot.config.on("HIGHMEM") else ""
    reserved_for_cma = "" if boot.cma2010 else f", {cma * kib}K cma-reserved"
    available = managed * kib - boot.allocated_kib
    # Unsigned: areas that overlap are counted twice, and then may be more than what is reserved.
    reserved = (present - managed - cma) * kib % (1 << (32 if boot.config.arch == "arm" else 64))
    boot.log.printk(
        f"Memory: {available}K/{present * kib}K available ({code}K kernel code, {rwdata}K rwdata, "
        f"{rodata}K rodata, {init}K init, {bss}K bss, {reserved}K reserved"
        f"{reserved_for_cma}{high})"
    )


def _panic_if_outside_memory(boot: EarlyBoot) -> None:
    """Activating an area touches the struct of each page, and where there is no memory there is none."""
    shift, nodes = boot.config.page_shift, _nodes_of_areas(boot)
    for cma in boot.areas:
        for cmr in cma.ranges:
            base, size = cmr.base_pfn << shift, cmr.count << shift
            if boot.memblock.covers(base, size):
                continue
            span = f"{base:#x}-{base + size - 1:#x}"
            reason = (
                f"area {cma.name}: {span} is not all memory, and the kernel touches the page of each frame"
            )
            boot.event(nodes.get(id(cma)), "outside-memory", EFFECT_PANIC, "reg", span)
            raise boot.panic(reason, "Attempted to kill init! exitcode=0x0000000b")


def _nodes_of_areas(boot: EarlyBoot) -> dict[int, str]:
    """id() of an area -> path of the node that it was made of."""
    return {id(region.area): region.node.path for region in boot.scan.regions if region.area}


def _events_of_activation(boot: EarlyBoot) -> None:
    """Which areas could not be activated: their count is 0 then; on older kernels no area after them is."""
    nodes, failed = _nodes_of_areas(boot), ""
    for cma in boot.areas:
        node = nodes.get(id(cma))
        if not cma.count:
            failed = failed or cma.name
            boot.event(node, "not-activated", EFFECT_REFUSED, "reg" if node else "cma=", cma.name)
        elif failed and boot.abi.cma.failed_stops_others:
            boot.event(node, "activation-stopped", EFFECT_REFUSED, "reg" if node else "cma=", failed)


def _touch_boot_pages(boot: EarlyBoot, memory: Memory) -> None:
    """Pages handed out during boot are written to, mapped or not, and if they are the kernel's own.

    A refused node gives back what it named, also where the kernel stands. Raises KernelPanic.
    """
    shift, order = boot.config.page_shift, boot.config.max_page_order()
    for low, high, _ in boot.scan.unmapped:
        if memory.owners.any_in(low >> shift, high >> shift):
            boot.touch(low, high - low)
    kernel = next(owner for owner in memory.owners.occupants.values() if owner.name == KERNEL)
    blocks = {pfn >> order for pfn in kernel.pfns()}  # boot used all of each for a while
    for path, low, high in _image_given_back(boot):
        if not blocks.isdisjoint(range(low >> shift + order, (high - 1 >> shift + order) + 1)):
            span = f"{low:#x}-{high - 1:#x}"
            boot.event(path, "kernel-given-back", EFFECT_PANIC, "reg", span)
            why = f"{path}: {span} is given back, and the kernel stands there"
            raise boot.panic(why, "Attempted to kill init! exitcode=0x0000000b")


def _image_given_back(boot: EarlyBoot) -> Iterator[tuple[str, int, int]]:
    """(node's path, base, end) of what refused nodes have in common with the kernel image."""
    for region in boot.scan.regions:
        for low, high in within(
            boot.image() if region.failed else (), region.base, region.base + region.size
        ):
            yield region.node.path, low, high


def _machine(boot: EarlyBoot, options: MachineOptions, journal: Journal, memory: Memory) -> BootedMachine:
    return BootedMachine(
        abi=boot.abi,
        arch=boot.config.arch,
        config=boot.config,
        cmdline=boot.cmdline,
        seed=options.seed,
        options=options,
        clock=journal,
        log=boot.log,
        memblock=boot.memblock,
        memory=memory,
        cma=boot.areas,
        tree=boot.tree,
        reserved_mem=boot.scan.regions,
        params=boot.params,
        boot_events=boot.events,
        cma2010=boot.cma2010,
        iomem=iomem_resources(boot),
        zone_dma_limit=arch_ops(boot).zone_dma_limit(boot),
    )
