"""sys/kernel/mm/cma: counters of each area, as ``mm/cma_sysfs.c``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cmafs.fs.dentry import Directory
from cmafs.fs.libfs import sysfs_attribute, sysfs_directory
from cmafs.fs.seq_file import SeqOperations
from cmafs.lib.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING
from cmafs.mm.cma import Cma

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine


def attribute(cma: Cma, name: str) -> SeqOperations:
    """One file of an area: a number of pages."""
    getters: dict[str, Callable[[], int]] = {
        "alloc_pages_success": lambda: cma.nr_pages_succeeded,
        "alloc_pages_fail": lambda: cma.nr_pages_failed,
        "release_pages_success": lambda: cma.nr_pages_released,
        "total_pages": lambda: cma.count,
        "available_pages": lambda: cma.available_count,
    }
    get = getters[name]
    return sysfs_attribute(lambda: b"%d\n" % get())


def populate(root: Directory, machine: BootedMachine) -> None:
    """``cma_sysfs_init()``: a directory for each area; two areas of one name, and nothing is left of it."""
    files = machine.abi.cma.sysfs_files
    mm = sysfs_directory(root, "kernel", "mm")
    if not files or not machine.config.on("CMA_SYSFS"):
        return
    top = mm.subdir("cma")
    for cma in machine.cma:
        if not cma.count and not cma.areas.abi.lists_failed:
            continue
        name = cma.name.replace("/", "!")
        if name in top.children:
            _duplicate(machine, name)
            mm.remove("cma")
            return
        directory = top.subdir(name)
        for file in files:
            directory.file(file, 0o444, attribute(cma, file), 1 << machine.cma.page_shift)


def _duplicate(machine: BootedMachine, name: str) -> None:
    """What ``kobject_init_and_add()`` says to a name that is taken (without its stack trace)."""
    line = f"sysfs: cannot create duplicate filename '/kernel/mm/cma/{name}'"
    machine.log.printk(line, LOGLEVEL_WARNING)
    line = (
        f"kobject: kobject_add_internal failed for {name} with -EEXIST, "
        "don't try to register things with the same name in the same directory."
    )
    machine.log.printk(line, LOGLEVEL_ERR)
