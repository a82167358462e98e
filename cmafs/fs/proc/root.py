"""proc/ and boot/: the table of files; what they say is made in the modules beside this one."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cmafs.abi.boot_arch import ARCH_ROWS
from cmafs.fs.dentry import Directory, FileSystemType
from cmafs.fs.proc.buddyinfo import buddyinfo, pagetypeinfo
from cmafs.fs.proc.iomem import iomem
from cmafs.fs.proc.meminfo import meminfo
from cmafs.fs.proc.sysctl import Sysctl, VmSysctls
from cmafs.fs.proc.vmstat import VmstatFiles
from cmafs.fs.seq_file import SeqOperations
from cmafs.init.version import linux_banner
from cmafs.lib.intervals import Interval, union, without
from cmafs.lib.math import rounddown, roundup
from cmafs.lib.printk import encode

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: A name that is not there is no negative dentry, so that nothing comes to be asked whether it may be made
#: (``fs/proc/generic.c:proc_lookup_de()``, ``proc_sys_lookup()``: V 6.12, 7.2).
PROC = FileSystemType(
    "proc",
    create=errno.ENOENT,
    mkdir=errno.ENOENT,
    symlink=errno.ENOENT,
    mounted=errno.EPERM,
    truncate_sets_size=False,
    block_size=1024,
)
#: Nobody may write to its directories, whoever it is (``proc_sys_permission()``, ``proc_sys_setattr()``).
PROC_SYS = replace(PROC, unlink=errno.EACCES, rmdir=errno.EACCES, rename=errno.EACCES, setattr=errno.EPERM)
#: Where /boot lies on a board: here it cannot be written.
BOOT = FileSystemType("ext4", truncate_sets_size=False, setattr=errno.EROFS).refusing(errno.EROFS)

#: ``wbits`` of zlib for the format of gzip, without a time.
_GZIP = 31
#: log2 of the bytes that memory hotplug counts in: include/linux/mmzone.h@v6.12.
_SUBSECTION_SHIFT = 21


def _add_text(directory: Directory, name: str, mode: int, show: Callable[[], bytes], size: int = 0) -> None:
    directory.file(name, mode, SeqOperations(show, missing=errno.EIO), size)


def populate(root: Directory, machine: BootedMachine) -> None:
    """Make proc/ and boot/config-<release>."""
    abi, memory = machine.abi.proc, machine.memory
    lines = machine.config.lines()
    options = frozenset(name for name, value in machine.config.values.items() if value is not False)
    files = VmstatFiles(machine, options)
    proc = root.subdir("proc", 0o555, PROC)
    cmdline = encode(f"{machine.cmdline}\n")
    banner = f"{linux_banner(machine.abi.release)}\n".encode()
    _add_text(proc, "meminfo", 0o444, partial(meminfo, files, tuple(files.names(abi.meminfo))))
    _add_text(proc, "vmstat", 0o444, files.vmstat)
    _add_text(proc, "zoneinfo", 0o444, files.zoneinfo)
    _add_text(proc, "buddyinfo", 0o444, partial(buddyinfo, memory))
    migratetypes = tuple(files.names(abi.migratetypes))
    show_types = partial(pagetypeinfo, memory, abi, migratetypes, _online_pages(machine))
    _add_text(proc, "pagetypeinfo", abi.pagetypeinfo_mode, show_types)
    _add_text(proc, "iomem", 0o444, partial(iomem, machine.iomem))
    _add_text(proc, "cmdline", 0o444, lambda: cmdline, len(cmdline) if abi.cmdline_size else 0)
    _add_text(proc, "version", 0o444, lambda: banner)
    _add_config(root, proc, machine, encode("".join(f"{line}\n" for line in lines)))
    _add_sysctls(proc, machine)


def _online_pages(machine: BootedMachine) -> list[Interval]:
    """Pages that ``pfn_to_online_page()`` finds, ascending pfn ranges: memory and the holes near it.

    Near is in the same section, or subsection; with FLATMEM (arm) in the same page block
    (``arch/arm/mm/init.c:pfn_valid()``, 5.14, M).
    """
    layout, arch = machine.memory.layout, ARCH_ROWS[machine.arch][machine.abi.row]
    if arch.pfn_valid_mapped:
        return list(without(layout.memory, layout.nomap))
    bits = arch.section_size_bits(layout.page_shift)
    if machine.abi.proc.online_subsections and machine.config.on("MEMORY_HOTPLUG"):
        bits = _SUBSECTION_SHIFT if machine.config.on("SPARSEMEM_VMEMMAP") else bits
    sparse = machine.config.on("SPARSEMEM")
    unit = 1 << bits - layout.page_shift if sparse else machine.memory.pageblock_nr_pages
    return union((rounddown(start, unit), roundup(end, unit)) for start, end in layout.memory)


def _add_config(root: Directory, proc: Directory, machine: BootedMachine, text: bytes) -> None:
    """config.gz, where IKCONFIG_PROC is on, and the file in boot/."""
    if b"CONFIG_IKCONFIG_PROC=y\n" in text:
        packer = zlib.compressobj(9, wbits=_GZIP)
        packed = packer.compress(text) + packer.flush()
        _add_text(proc, "config.gz", 0o444, lambda: packed, len(packed))
    boot = root.subdir("boot", 0o755, BOOT)
    operations = SeqOperations(lambda: text, missing=errno.EROFS)
    boot.file(f"config-{machine.abi.release}", 0o644, operations, len(text))


def _add_sysctls(proc: Directory, machine: BootedMachine) -> None:
    """sys/vm: what can be told to the memory manager."""
    sysctls, strict = VmSysctls(machine), machine.abi.proc.sysctl_writes_strict
    sys = proc.subdir("sys", 0o555, PROC_SYS)
    vm = sys.subdir("vm", 0o555)
    sys.nlink = vm.nlink = 1  # fs/proc/proc_sysctl.c:proc_sys_make_inode() does not count
    vm.file("compact_memory", 0o200, Sysctl(sysctls.compact_memory, strict))
    show = sysctls.show_drop_caches
    vm.file("drop_caches", machine.abi.proc.drop_caches_mode, Sysctl(sysctls.drop_caches, strict, show))
