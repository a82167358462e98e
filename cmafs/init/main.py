"""start_kernel(): the order in which a machine boots, on one page.

The only place that puts the parts together. Kernel: ``init/main.c``, ``arch/*/kernel/setup.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cmafs.abi import KernelAbi
from cmafs.abi.printk import ROWS as PRINTK_ROWS
from cmafs.arch import arm, arm64, x86
from cmafs.clock import Clock
from cmafs.init.boot_alloc import memmap_init, mm_core_init, unflatten_device_tree
from cmafs.init.cmdline import EarlyParams, parse_early_params
from cmafs.init.dma_contiguous import dma_contiguous_reserve, dma_numa_cma_reserve, early_cma
from cmafs.init.early import EarlyBoot
from cmafs.init.hugetlb import hugetlb_cma_reserve
from cmafs.init.iomem import iomem_resources
from cmafs.init.kconfig import Kconfig, parse_config
from cmafs.init.machine import Machine
from cmafs.init.unknown_params import init_argument_lines, unknown_parameters
from cmafs.init.zones import free_area_init, zone_ranges
from cmafs.mm.cma import cma_alloc, cma_init_reserved_areas
from cmafs.mm.memblock import Memblock
from cmafs.mm.mm_init import mm_init
from cmafs.mm.mmzone import Memory
from cmafs.of.base import DeviceTree
from cmafs.of.boot_event import EFFECT_PANIC, BootEvent
from cmafs.of.cpu import machine_arch
from cmafs.of.memory import early_init_dt_scan_memory
from cmafs.printk import LOGLEVEL_DEBUG, LOGLEVEL_INFO, Printk

_LOGLEVEL_EMERG = 0
_SZ_1K = 1 << 10
_SZ_128K = 1 << 17
_SZ_1G = 1 << 30


@dataclass(frozen=True)
class BootOptions:
    """What a user chooses besides the tree.

    ``arch`` None: from the cpu node; ``cmdline`` None: /chosen/bootargs; ``config``: ``KEY=VALUE`` lines;
    ``memory``: bytes instead of the /memory nodes; ``seed``: what everything random derives from.
    """

    abi: KernelAbi
    arch: str | None = None
    cmdline: str | None = None
    config: Sequence[str] = ()
    memory: int | None = None
    seed: int = 0


@dataclass
class KernelPanic(Exception):
    """The kernel would not survive this boot: why, the log up to there, and the facts gathered until then."""

    reason: str
    log: Printk
    events: list[BootEvent] = field(default_factory=list)

    def __str__(self) -> str:
        return self.reason


def start_kernel(tree: DeviceTree, options: BootOptions, clock: Clock) -> Machine:
    """Boot a machine. Raises KernelPanic, DtError (no memory), ConfigError (``config``)."""
    boot = _early_setup(tree, options, clock)
    _setup_arch(boot)
    boot.log.printk(f"Kernel command line: {boot.cmdline}")
    if text := unknown_parameters(boot):
        boot.log.printk(text, 5)
    mm_core_init(boot)
    memory = mm_init(boot.layout(zone_ranges(boot)), boot.abi.mm)
    _mem_init_print_info(boot, memory)
    _panic_if_outside_memory(boot)
    cma_init_reserved_areas(boot.areas, memory)
    _INITCALLS[boot.config.arch](boot, memory)
    _board_allocations(boot)
    for line in init_argument_lines(boot):
        boot.log.printk(line, LOGLEVEL_INFO if line.startswith("Run") else LOGLEVEL_DEBUG)
    return _machine(boot, options, clock, memory)


def _early_setup(tree: DeviceTree, options: BootOptions, clock: Clock) -> EarlyBoot:
    """Options, command line, memory: what is known before anything is reserved."""
    abi = options.abi
    arch = options.arch or machine_arch(tree)[0]
    config = parse_config(options.config, arch, abi.boot, abi.release)
    cmdline = options.cmdline if options.cmdline is not None else bootargs(tree)
    params = parse_early_params(cmdline, abi.boot.hugetlb_cma_per_node)
    log = Printk(
        clock,
        options.seed,
        _log_buf_shift(config, params),
        PRINTK_ROWS[abi.row],
        bits_per_long=32 if arch == "arm" else 64,
    )
    memblock = Memblock()
    early_init_dt_scan_memory(
        memblock,
        tree,
        options.memory,
        numa=config.numa,
        named_is_enough=arch == "x86_64",
        page_size=1 << config.page_shift,
        phys_limit=1 << 32 if arch == "arm" else arm64.PHYS_LIMIT,
    )
    return EarlyBoot(tree, abi, config, cmdline, params, log, memblock)


def bootargs(tree: DeviceTree) -> str:
    """/chosen/bootargs, empty if there is none."""
    chosen = tree.root.children.get("chosen")
    return (chosen.property_read_string("bootargs") if chosen else None) or ""


def _log_buf_shift(config: Kconfig, params: EarlyParams) -> int:
    """``log_buf_len=``: rounded up to a power of two, never below CONFIG_LOG_BUF_SHIFT's."""
    wanted = max(params.log_buf_len - 1, 1).bit_length()
    return max(config.log_buf_shift, min(wanted, 31))


def _setup_arch(boot: EarlyBoot) -> None:
    """setup_arch(): the steps of this architecture in this kernel's order."""
    arch, abi = boot.config.arch, boot.abi
    boot.log.printk(f"Linux version {abi.release} (cmafs@cmafs) #1 SMP PREEMPT")
    if arch == "x86_64":
        boot.log.printk(f"Command line: {boot.cmdline}")
    early_cma(boot.dma)
    limit, offset = _RESERVE[arch](boot)
    steps: Mapping[str, Callable[[], None]] = {
        "page_tables": lambda: arm64.paging_init(boot),
        "unflatten": lambda: unflatten_device_tree(boot),
        "default": lambda: dma_contiguous_reserve(boot.dma, limit),
        "hugetlb": lambda: hugetlb_cma_reserve(boot.dma),
        "numa": lambda: dma_numa_cma_reserve(boot.dma),
        "memmap": lambda: memmap_init(boot, offset),
        "zones": lambda: free_area_init(boot),
    }
    order = {"x86_64": abi.boot.x86_steps, "arm64": abi.boot.arm64_steps, "arm": abi.boot.arm_steps}
    for step in order[arch]:
        steps[step]()


#: Architecture -> what is reserved first; answers (limit of the default area, offset of the linear map).
_RESERVE: Mapping[str, Callable[[EarlyBoot], tuple[int, int]]] = {
    "x86_64": x86.reserve,
    "arm64": arm64.reserve,
    "arm": arm.reserve,
}


def _mem_init_print_info(boot: EarlyBoot, memory: Memory) -> None:
    """mem_init_print_info(): the ``Memory:`` line; cma-reserved is no part of reserved."""
    kib = boot.page_size // _SZ_1K
    present = sum(zone.present_pages for zone in memory.zones)
    managed = sum(zone.managed_pages for zone in memory.zones)
    cma = boot.areas.totalcma_pages
    code, rwdata, rodata, init, bss = kernel_sizes_kib(boot)
    highmem = sum(zone.managed_pages for zone in memory.zones if zone.name == "HighMem")
    high = f", {highmem * kib}K highmem" if boot.config.arch == "arm" else ""
    boot.log.printk(
        f"Memory: {managed * kib}K/{present * kib}K available ({code}K kernel code, {rwdata}K rwdata, "
        f"{rodata}K rodata, {init}K init, {bss}K bss, {(present - managed - cma) * kib}K reserved, "
        f"{cma * kib}K cma-reserved{high})"
    )


def kernel_sizes_kib(boot: EarlyBoot) -> tuple[int, ...]:
    """Code, rwdata, rodata, init, bss in KiB; a board may bring its own (``cmafs,kernel-sizes-kib`` of /chosen)."""
    chosen = boot.tree.root.children.get("chosen")
    own = [chosen.property_read_u32("cmafs,kernel-sizes-kib", index) for index in range(5)] if chosen else [None]
    given = tuple(value for value in own if value is not None)
    return given if len(given) == 5 else boot.data.kernel_sizes_kib


def _panic_if_outside_memory(boot: EarlyBoot) -> None:
    """Activating an area touches the page struct of each of its pages; where there is no memory there is none."""
    shift = boot.config.page_shift
    nodes = {id(region.area): region.node.path for region in boot.scan.regions if region.area}
    for cma in boot.areas:
        for cmr in cma.ranges:
            base, size = cmr.base_pfn << shift, cmr.count << shift
            if boot.memblock.covers(base, size):
                continue
            span = f"{base:#x}-{base + size - 1:#x}"
            reason = f"area {cma.name}: {span} is not all memory, and the kernel touches the page of each frame"
            event = BootEvent(nodes.get(id(cma)), "outside-memory", EFFECT_PANIC, "reg", span)
            boot.events.append(event)
            text = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"
            boot.log.printk(text, _LOGLEVEL_EMERG)
            raise KernelPanic(reason, boot.log, boot.events)


def _preallocate(boot: EarlyBoot, order: int) -> bool:
    """One allocation from the default area, aligned as the DMA API does."""
    cma = boot.areas.default
    if cma is None or not cma.count:
        return False
    return cma_alloc(cma, 1 << order, min(order, boot.config.cma_alignment)) is not None


def _get_order(size: int, page_shift: int) -> int:
    return max((size - 1) >> page_shift, 0).bit_length()


def _atomic_pool_arm64(boot: EarlyBoot, memory: Memory) -> None:
    """dma_atomic_pool_init(): 128 KiB per GiB of managed memory; up to 5.7 256 KiB."""
    shift, log = boot.config.page_shift, boot.log
    size = boot.params.coherent_pool
    if not boot.abi.boot.arm64_pool_scaled:
        size = size or 2 * _SZ_128K
        _preallocate(boot, _get_order(size, shift))
        log.printk(f"DMA: preallocated {size // _SZ_1K} KiB pool for atomic allocations")
        return
    if not size:
        pages = sum(zone.managed_pages for zone in memory.zones) // (_SZ_1G // _SZ_128K)
        pages = min(pages, 1 << boot.config.max_page_order())
        size = max(pages << shift, _SZ_128K)
    order = min(_get_order(size, shift), boot.config.max_page_order())
    while not _preallocate(boot, order) and order and boot.areas.default is not None:
        order -= 1
    log.printk(f"DMA: preallocated {(1 << (order + shift)) // _SZ_1K} KiB GFP_KERNEL pool for atomic allocations")


def _atomic_pool_arm(boot: EarlyBoot, memory: Memory) -> None:
    """atomic_pool_init(): 256 KiB from the default area."""
    size = boot.params.coherent_pool or 2 * _SZ_128K
    if _preallocate(boot, _get_order(size, boot.config.page_shift)):
        boot.log.printk(f"DMA: preallocated {size // _SZ_1K} KiB pool for atomic coherent allocations")


def _no_pool(boot: EarlyBoot, memory: Memory) -> None:
    """x86_64 keeps no atomic pool."""


_INITCALLS: Mapping[str, Callable[[EarlyBoot, Memory], None]] = {
    "x86_64": _no_pool,
    "arm64": _atomic_pool_arm64,
    "arm": _atomic_pool_arm,
}


def _board_allocations(boot: EarlyBoot) -> None:
    """What a board's drivers take from the default area while it boots: ``cmafs,boot-allocations`` of /chosen, in pages."""
    chosen = boot.tree.root.children.get("chosen")
    if chosen is None or boot.areas.default is None:
        return
    index = 0
    while (pages := chosen.property_read_u32("cmafs,boot-allocations", index)) is not None:
        cma_alloc(boot.areas.default, pages, 0)
        index += 1


def _machine(boot: EarlyBoot, options: BootOptions, clock: Clock, memory: Memory) -> Machine:
    return Machine(
        abi=boot.abi,
        arch=boot.config.arch,
        config=boot.config,
        cmdline=boot.cmdline,
        seed=options.seed,
        clock=clock,
        log=boot.log,
        memblock=boot.memblock,
        memory=memory,
        cma=boot.areas,
        tree=boot.tree,
        reserved_mem=boot.scan.regions,
        params=boot.params,
        boot_events=boot.events,
        iomem=iomem_resources(boot, kernel_sizes_kib(boot)),
    )
