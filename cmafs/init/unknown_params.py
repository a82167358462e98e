"""Which words of the command line the kernel knows, and what it hands to init. Kernel: ``init/main.c``."""

from __future__ import annotations

from cmafs.arch.setup import EarlyBoot
from cmafs.lib.printk import LOGLEVEL_DEBUG

#: Parameters that the kernels of distributions and boards take: ``__setup()``, ``early_param()``,
#: ``core_param()`` in 5.10 to 7.2. A name with a dot belongs to a module.
_WORDS = """
    apparmor audit audit_backlog_limit blkdevparts boot_delay bootconfig cgroup_disable cgroup_no_v1
    clk_ignore_unused clocksource console console_msg_format consoleblank coredump_filter
    crash_kexec_post_notifiers debug debugfs default_hugepagesz
    deferred_probe_timeout dhash_entries driver_async_probe dyndbg early_ioremap_debug earlycon efi
    elevator ftrace fw_devlink gpt hardened_usercopy hashdist highres hlt hugepages hugepagesz
    ignore_loglevel ihash_entries init init_on_alloc init_on_free initcall_blacklist initcall_debug
    initrd initrdmem ip irqaffinity irqfixup irqpoll isolcpus keep_bootcon kernelcore kgdboc log_buf_len
    loglevel lpj lsm max_loop maxcpus mem mem_sleep_default memblock memtest mhash_entries mitigations
    module_blacklist movable_node movablecore mphash_entries mtdparts nfsroot nfsrootdebug nmi_watchdog
    no_console_suspend no_file_caps no_hash_pointers nohibernate nohlt nohz nohz_full noinitrd
    noirqdebug nomodule norandmaps noresume nosmp nosmt nosoftlockup nowatchdog nr_cpus numa_balancing
    oops page_poison panic panic_on_taint panic_on_warn panic_print pause_on_oops pci
    pcie_aspm pcie_ports pd_ignore_unused percpu_alloc print_fatal_signals profile psi quiet
    ramdisk_size ramdisk_start rdinit reboot relax_domain_level reserve reset_devices resume
    resume_offset resumedelay resumewait retain_initrd ro rodata root rootdelay rootflags rootfstype
    rootwait rw schedstats security selinux skew_tick slab_nomerge slub_debug softlockup_panic
    stack_guard_gap stacktrace swapaccount swiotlb sysrq_always_enabled threadirqs tp_printk
    trace_buf_size trace_clock trace_event trace_options traceoff_on_warning tracing_thresh
    transparent_hugepage video watchdog_thresh
"""
_ARCH_WORDS = {
    "arm": "cachepolicy earlyprintk user_debug vmalloc",
    "arm64": "acpi kpti no_steal_acc numa",
    "x86_64": """
        acpi add_efi_memmap amd_iommu apic earlyprintk gbpages hpet idle intel_iommu iommu memmap
        no_steal_acc nogbpages nopat nopti nopv notsc numa possible_cpus pti tsc
    """,
}
_KNOWN = {arch: frozenset(f"{_WORDS} {words}".split()) for arch, words in _ARCH_WORDS.items()}

#: And those that a configuration brings.
_CONFIGURED = ("cma", "hugetlb_cma", "cma_pernuma", "numa_cma", "coherent_pool", "crashkernel")


def unknown_words(boot: EarlyBoot) -> tuple[list[str], list[str]]:
    """unknown_bootoption(): (arguments, environment) for init; a name with a dot is a module's business."""
    known = {*_KNOWN[boot.config.arch], *filter(boot.config.knows, _CONFIGURED)}
    if boot.config.on("ARM64") and boot.abi.boot.arm64_knows_nokaslr:
        known.add("nokaslr")
    arguments, environment = [], []
    for name, value in boot.params.words:
        if "." in name or name.replace("-", "_") in known:
            continue
        if value is None:
            arguments.append(name)
        else:
            environment.append(f"{name}={value}")
    return arguments, environment


def unknown_parameters(boot: EarlyBoot) -> str:
    """The line about them, empty if this kernel has none or knows them all."""
    arguments, environment = unknown_words(boot)
    words = arguments + environment
    return (
        boot.abi.boot.unknown_parameters % " ".join(words)
        if words and boot.abi.boot.unknown_parameters
        else ""
    )


def run_init_process(boot: EarlyBoot) -> None:
    """The lines of run_init_process(): what init is started with."""
    if not boot.abi.boot.init_arguments:
        return
    arguments, environment = unknown_words(boot)
    init = boot.params.init
    boot.log.printk(f"Run {init} as init process")
    for line in (
        "  with arguments:",
        *(f"    {word}" for word in [init, *arguments]),
        "  with environment:",
        *(f"    {word}" for word in ["HOME=/", "TERM=linux", *environment]),
    ):
        boot.log.printk(line, LOGLEVEL_DEBUG)
