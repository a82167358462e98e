"""Which words of the command line the kernel knows, and what it hands to init. Kernel: ``init/main.c``."""

from __future__ import annotations

from cmafs.arch.setup import EarlyBoot
from cmafs.lib.printk import LOGLEVEL_DEBUG

#: Parameters that any kernel here takes without asking a driver; a name with a dot belongs to a module.
_WORDS = """
    acpi apic boot_delay console crashkernel debug default_hugepagesz dyndbg earlycon earlyprintk
    efi elevator ftrace hugepages hugepagesz idle ignore_loglevel init init_on_alloc init_on_free
    initcall_debug initrd iommu ip isolcpus keep_bootcon kernelcore kgdboc log_buf_len loglevel lpj
    maxcpus mem memblock memmap memtest mitigations movablecore mtdparts nfsroot no_hash_pointers
    nohz noinitrd nokaslr nosmp nosmt notsc nr_cpus numa oops page_owner panic pci possible_cpus
    profile quiet rdinit reboot resume ro root rootdelay rootflags rootfstype rootwait rw selinux
    slab_nomerge slub_debug swiotlb threadirqs trace_buf_size trace_event trace_options
    transparent_hugepage tsc user_debug vmalloc
"""
_KNOWN = frozenset(_WORDS.split())

#: And those that a configuration brings.
_CONFIGURED = ("cma", "hugetlb_cma", "cma_pernuma", "numa_cma", "coherent_pool")


def unknown_words(boot: EarlyBoot) -> tuple[list[str], list[str]]:
    """unknown_bootoption(): (arguments, environment) for init; a name with a dot is a module's business."""
    known = {*_KNOWN, *filter(boot.config.knows, _CONFIGURED)}
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
