"""debugfs's dynamic_debug/control: the debug lines of mm/cma.c and mm/cma_debug.c, and their switches."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cmafs.fs.dentry import Directory, fail
from cmafs.fs.libfs import debugfs_root
from cmafs.fs.seq_file import SeqOperations
from cmafs.lib.dynamic_debug import DynamicDebug
from cmafs.lib.printk import LOGLEVEL_WARNING, decode

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

#: ``ddebug_proc_write()``: the longest write, in bytes.
USER_BUF_PAGE = 4096


def populate(root: Directory, machine: BootedMachine) -> None:
    """``dynamic_debug_init_control()``, with CONFIG_DYNAMIC_DEBUG: the file, and whom flag ``t`` means."""
    if not machine.config.on("DYNAMIC_DEBUG"):
        return
    machine.log.current_pid = lambda: machine.current().pid
    debug = DynamicDebug(machine.log)

    def write(data: bytes) -> int:
        """``ddebug_proc_write()``. Raises E2BIG, EINVAL."""
        if len(data) > USER_BUF_PAGE - 1:
            text = f"expected <{USER_BUF_PAGE} bytes into control"
            machine.log.printk(debug.prefix("ddebug_proc_write") + text, LOGLEVEL_WARNING)
            fail(errno.E2BIG)
        debug.exec_queries(decode(data.partition(b"\0")[0]))
        return len(data)

    control = SeqOperations(show=lambda: debug.control().encode("latin-1"), store=write)
    debugfs_root(root).subdir("dynamic_debug").file("control", 0o644, control)
