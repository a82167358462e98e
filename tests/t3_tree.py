"""The whole tree, name by name: what ``ls -l`` would show of everything but the device tree and its devices.

Modes and names are those of the ``files`` and ``trace`` transcripts, and of the sources that the tables cite.

Modules: cmafs.fs.tree, cmafs.fs.dentry, cmafs.fs.proc.root, cmafs.fs.cma_sysfs, cmafs.fs.cma_debug,
cmafs.fs.cma2010, cmafs.fs.dynamic_debug, cmafs.fs.dma_buf, cmafs.fs.tracefs.root, cmafs.fs.tracefs.events,
cmafs.fs.kmsg, cmafs.fs.dev_cma_test, cmafs.fs.sim.root.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

import pytest

from cmafs.api import Machine

#: A directory, then each mode with the names that have it. A directory's own mode stands with its parent.
TREES = {
    "6.12": """
/               drwxr-xr-x boot dev sim            dr-xr-xr-x proc sys
/boot           -rw-r--r-- config-6.12.117
/dev            -rw------- cma_test                -rw-r--r-- kmsg                drwxr-xr-x dma_heap
/dev/dma_heap   -rw------- reserved system
/proc           -r--r--r-- buddyinfo cmdline config.gz iomem meminfo version vmstat zoneinfo
                -r-------- pagetypeinfo            dr-xr-xr-x sys                 lrwxrwxrwx device-tree
/proc/sys       dr-xr-xr-x vm
/proc/sys/vm    --w------- compact_memory drop_caches
/sim            --w------- control                 drwxr-xr-x devices             -rw------- dmesg
                -r--r--r-- advice faults log map tasks verify why
                -r-------- snapshot
/sys            drwxr-xr-x firmware kernel
/sys/kernel     drwx------ debug tracing           drwxr-xr-x mm
/sys/kernel/mm                     drwxr-xr-x cma
/sys/kernel/mm/cma                 drwxr-xr-x reserved
/sys/kernel/mm/cma/reserved        -r--r--r-- alloc_pages_fail alloc_pages_success release_pages_success
/sys/kernel/debug                  drwxr-xr-x cma dma_buf dynamic_debug drwx------ tracing
/sys/kernel/debug/dma_buf          -r--r--r-- bufinfo
/sys/kernel/debug/cma              drwxr-xr-x reserved
/sys/kernel/debug/cma/reserved     --w------- alloc free
                                   -r--r--r-- base_pfn bitmap count maxchunk order_per_bit used
/sys/kernel/debug/dynamic_debug    -rw-r--r-- control
/sys/kernel/tracing                -r--r----- available_events available_tracers buffer_total_size_kb
                                   -r--r----- saved_cmdlines
                                   -rw-r----- buffer_size_kb current_tracer error_log set_event
                                   -rw-r----- trace tracing_on
                                   --w--w---- trace_marker pr--r----- trace_pipe
                                   drwxr-xr-x events       drwxr-x--- instances
/sys/kernel/tracing/events         drwxr-xr-x cma migrate page_isolation -rw-r----- enable
/sys/kernel/tracing/events/cma     drwxr-xr-x cma_alloc_busy_retry cma_alloc_finish cma_alloc_start
                                   drwxr-xr-x cma_release
                                   -rw-r----- enable filter
/sys/kernel/tracing/events/cma/cma_release -rw-r----- enable filter -r--r----- format id
/sys/kernel/tracing/events/migrate drwxr-xr-x mm_migrate_pages -rw-r----- enable filter
/sys/kernel/tracing/events/page_isolation drwxr-xr-x test_pages_isolated -rw-r----- enable filter
""",
    "4.4": """
/               drwxr-xr-x boot dev sim            dr-xr-xr-x proc sys
/proc           -r--r--r-- buddyinfo cmdline config.gz iomem meminfo pagetypeinfo version vmstat zoneinfo
                dr-xr-xr-x sys                     lrwxrwxrwx device-tree
/proc/sys/vm    --w------- compact_memory          -rw-r--r-- drop_caches
/sys/kernel     drwx------ debug tracing           drwxr-xr-x mm
/sys/kernel/debug                  drwxr-xr-x cma dynamic_debug drwx------ tracing
/sys/kernel/debug/cma              drwxr-xr-x cma-0
/sys/kernel/debug/cma/cma-0        --w------- alloc free
                                   -r--r--r-- base_pfn bitmap count maxchunk order_per_bit used
/sys/kernel/tracing                -r--r--r-- available_events available_tracers buffer_total_size_kb
                                   -r--r--r-- saved_cmdlines
                                   -rw-r--r-- buffer_size_kb current_tracer set_event trace tracing_on
                                   --w--w---- trace_marker pr--r--r-- trace_pipe
                                   drwxr-x--- events instances
/sys/kernel/tracing/events         drwxr-x--- cma migrate -rw-r--r-- enable
/sys/kernel/tracing/events/cma     drwxr-x--- cma_alloc cma_release -rw-r--r-- enable filter
/sys/kernel/tracing/events/cma/cma_alloc -rw-r--r-- enable filter -r--r--r-- format id
""",
    "2010": """
/               drwxr-xr-x boot dev sim            dr-xr-xr-x proc sys
/boot           -rw-r--r-- config-2.6.36
/dev            -rw------- cma                     -rw-r--r-- kmsg
/sys/kernel     drwx------ debug                   drwxr-xr-x mm
/sys/kernel/mm                     drwxr-xr-x contiguous
/sys/kernel/mm/contiguous          -r--r--r-- allocators        -rw-r--r-- map        drwxr-xr-x regions
/sys/kernel/mm/contiguous/regions  drwxr-xr-x 000000007f800000  lrwxrwxrwx r
/sys/kernel/mm/contiguous/regions/r -r--r--r-- free name size start users -rw-r--r-- alloc
""",
    "7.2": """
/sys/kernel/mm/cma/reserved        -r--r--r-- alloc_pages_fail alloc_pages_success available_pages
                                   -r--r--r-- release_pages_success total_pages
/sys/kernel/debug/cma/reserved     --w------- alloc free         lrwxrwxrwx base_pfn bitmap
                                   -r--r--r-- count maxchunk order_per_bit used       drwxr-xr-x ranges
/sys/kernel/debug/cma/reserved/ranges   drwxr-xr-x 0
/sys/kernel/debug/cma/reserved/ranges/0 -r--r--r-- base_pfn bitmap
/sys/kernel/tracing/instances
""",
}
CMDLINES = {"2010": "cma=r=8M"}


def expected(text: str) -> Iterator[tuple[str, dict[str, set[str]]]]:
    """(directory, mode → names)"""
    modes: dict[str, set[str]] = {}
    directory = mode = ""
    for line in text.strip().splitlines():
        for word in line.split():
            if word.startswith("/"):
                if directory:
                    yield directory, modes
                directory, modes = word, {}
            elif re.fullmatch(r"[-dlp][-rwx]{9}", word):
                mode = word
            else:
                modes.setdefault(mode, set()).add(word)
    yield directory, modes


@pytest.mark.parametrize("kernel", TREES)
def test_names_and_modes(kernel: str) -> None:
    machine = Machine.boot(kernel=kernel, cmdline=CMDLINES.get(kernel, "cma=16M"))
    for directory, modes in expected(TREES[kernel]):
        found: dict[str, set[str]] = {}
        for name in machine.listdir(directory):
            mode = machine.lstat(f"{directory}/{name}").st_mode
            found.setdefault(stat.filemode(mode), set()).add(name)
        assert found == modes, directory
    if kernel != "2010":
        assert machine.listdir("/sys/kernel/debug/tracing") == machine.listdir("/sys/kernel/tracing")


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("/proc/vmstat", 0, 0),
        ("/proc/cmdline", len("cma=16M\n"), len("cma=16M\n")),
        ("/proc/sys/vm/drop_caches", 0, 0),  # proc_sys_setattr() copies no size
        ("/sys/kernel/mm/cma/reserved/alloc_pages_fail", 4096, 4096),
        ("/sys/firmware/devicetree/base/name", 1, 1),
        ("/sys/kernel/debug/cma/reserved/used", 0, 77),  # simple_setattr()
        ("/sys/kernel/tracing/events/enable", 0, 77),
        ("/sys/kernel/debug/dynamic_debug/control", 0, 77),
    ],
)
def test_the_size_that_truncate_leaves(path: str, before: int, after: int) -> None:
    machine = Machine.boot(cmdline="cma=16M")
    assert machine.stat(path).st_size == before
    machine.truncate(path, 77)
    assert machine.stat(path).st_size == after


@pytest.mark.parametrize("path", ["/sys/kernel/debug/cma/reserved/alloc", "/sys/kernel/tracing/trace"])
def test_an_open_that_truncates_sets_the_size_to_0(path: str) -> None:
    machine = Machine.boot(cmdline="cma=16M")
    machine.truncate(path, 77)
    for flags, size in ((os.O_RDONLY, 77), (os.O_WRONLY, 77), (os.O_WRONLY | os.O_TRUNC, 0)):
        machine.syscalls.close(machine.syscalls.open(path, flags))
        assert machine.stat(path).st_size == size


def test_links_of_directories() -> None:
    """A name, its own dot, and the two dots of each directory in it; files count for nothing."""
    machine = Machine.boot(cmdline="cma=16M")

    def links(path: str) -> int:
        subdirectories = [
            n for n in machine.listdir(path) if stat.S_ISDIR(machine.lstat(f"{path}/{n}").st_mode)
        ]
        assert machine.stat(path).st_nlink == 2 + len(subdirectories)
        return machine.stat(path).st_nlink

    for path in (
        "/",
        "/sys",
        "/sys/kernel/mm",
        "/sys/kernel/debug",
        "/sys/kernel/debug/cma",
        "/proc",
        "/dev",
    ):
        links(path)
    instances = "/sys/kernel/tracing/instances"
    for name in "ab":
        machine.mkdir(f"{instances}/{name}")
    assert links(instances) == 4
    machine.rmdir(f"{instances}/a")
    assert links(instances) == 3
    assert machine.stat("/sys/kernel/tracing/trace").st_nlink == 1
