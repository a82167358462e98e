"""Machines that do not come up: what is said, to the byte, and the last line that the kernel logs.

Modules: cmafs.arch.setup, cmafs.init.main.
"""

from __future__ import annotations

import pytest
from boot_support import arm_tree, boot, tree_of

from cmafs.lib.panic import KernelPanic
from cmafs.of.base import DeviceTree

POOL = 'compatible = "shared-dma-pool"; reusable;'
IDLE = "Kernel panic - not syncing: Attempted to kill the idle task!"
INIT = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"


@pytest.mark.parametrize(
    ("tree", "kernel", "arch", "cmdline", "reason", "last"),
    [
        (
            tree_of(),
            "6.12",
            "arm64",
            "coherent_pool",
            "coherent_pool without a value: the kernel follows a null pointer",
            IDLE,
        ),
        (
            tree_of("p { no-map; reg = <0 0x40000000 0 0x40000000>; };"),
            "5.4",
            "arm64",
            "",
            "no-map regions leave no memory",
            "Kernel panic - not syncing: Cannot allocate memory",
        ),
        (
            tree_of(f"p {{ {POOL} no-map; reg = <0x1000 0x40000000 0 0x1000000>; }};"),
            "5.4",
            "arm64",
            "",
            "a refused no-map region became memory that does not exist",
            "Kernel panic - not syncing: Out of memory",
        ),
        (
            tree_of(memory="<0 0x40000000 0 0x400000>"),
            "6.12",
            "arm64",
            "",
            "the kernel's image, 6016 KiB from 0x40200000, does not fit into memory",
            None,
        ),
        (
            tree_of(f"p {{ {POOL} reg = <0 0x7f000000 0 0x2000000>; }};"),
            "6.12",
            "arm64",
            "",
            "area p: 0x7f000000-0x80ffffff is not all memory, and the kernel touches the page of each frame",
            INIT,
        ),
        (
            tree_of(f"p {{ {POOL} reg = <0 0x40000000 0 0x8100000>; }};"),
            "6.12",
            "arm64",
            "cma=16M",
            "/reserved-memory/p: 0x40200000-0x407dffff is given back, and the kernel stands there",
            INIT,
        ),
        (
            arm_tree(f"a {{ {POOL} reg = <0x50100000 0x400000>; }};"),
            "6.12",
            "arm",
            "",
            "/reserved-memory/a: 0x50100000-0x504fffff of low memory is remapped in steps of 2 MiB "
            "that do not fit it",
            IDLE,
        ),
        (
            arm_tree(
                f"a {{ {POOL} reg = <0x50000000 0x1000000>; }};b {{ {POOL} reg = <0x50800000 0x1000000>; }};"
            ),
            "5.10",
            "arm",
            "",
            "/reserved-memory/b: 0x50800000-0x517fffff of low memory is remapped twice",
            IDLE,
        ),
        (
            arm_tree(f"a {{ {POOL} no-map; reg = <0x50000000 0x1000000>; }};"),
            "6.12",
            "arm",
            "cma=16M@0x50000000",
            "the default area: 0x50000000-0x50ffffff of low memory is remapped twice",
            IDLE,
        ),
    ],
)
def test_panics(
    tree: DeviceTree, kernel: str, arch: str, cmdline: str, reason: str, last: str | None
) -> None:
    with pytest.raises(KernelPanic) as caught:
        boot(tree, kernel, cmdline, arch)
    assert str(caught.value) == reason
    lines = caught.value.log.lines()
    assert (lines[-1] if last else any("panic" in line for line in lines)) == (last or False)


def test_the_largest_machine_that_a_refused_region_can_make() -> None:
    """16 TiB from the first byte of memory to the last."""
    last = f"p {{ {POOL} no-map; reg = <0x1000 0x3f000000 0 0x1000000>; }};"
    assert boot(tree_of(last), "5.4", "cma=0").memblock.phys_mem_size() == 1040 << 20
