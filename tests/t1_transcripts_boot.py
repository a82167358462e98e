"""Every recorded boot again: where the areas land, what is used at boot, CmaTotal, and the lines of the log.

Of a header's ``boot`` these lines are not compared:
* the memblock dump (``MEMBLOCK configuration``, `` memory size``, `` memory[``, `` reserved[``,
  ``memblock_reserve:``):
  output of memblock=debug with addresses inside of kernel functions; on x86_64 the machine is built from it;
* bad-page reports of overlapping areas on 5.10 (``flags:`` and the lines of the call trace).
Of the ``Memory:`` line all is compared on x86_64; on arm64 ``available`` and ``reserved`` to 8 KiB,
because they count single pages that shift with the size of QEMU's own tree, which the headers do not have.
"""

from __future__ import annotations

import re

import pytest
from boot_support import Transcript, boot, transcripts

from cmafs.abi import kernel_abi
from cmafs.init.main import KernelPanic

CASES = {found.name: found for found in transcripts("*/cmdline-*.xz")}
CASES |= {found.name: found for found in transcripts("*-arm64/dt-*.xz")}
BOOTS = {
    found.name: found
    for found in transcripts("*/*.xz")
    if found.boot and found.name not in CASES and "memory[" in str(found.boot)
}

_NOT_COMPARED = re.compile(
    r"MEMBLOCK configuration| memory size = | (memory|reserved)\[|_?_?memblock_reserve:|flags: 0x4"
    r"| init_cma_reserved_pageblock| cma_init_reserved_areas"
)

#: How the recorder chose lines.
_SELECTED = re.compile(
    r"[Cc]ma|CMA|[Rr]eserved mem|Zone ranges|^  (DMA32|Normal|HighMem) |^  node +\d|  \w+ zone: |Memory: "
    r"|OVERLAP|HugeTLB: hugetlb_cma|Skipping dt"
)

_MEMORY = re.compile(r"Memory: (\d+)K/(\d+)K available \((.*), (\d+)K reserved, (\d+)K cma-reserved\)")


def selected(lines: list[str]) -> list[str]:
    """The lines that are compared; of a record only its first line, and of ``Memory:`` what every boot
    must match.
    """
    found = [line.split("\n")[0] for line in lines if not _NOT_COMPARED.match(line)]
    return [memory_line(line) for line in found if _SELECTED.search(line)]


def memory_line(line: str) -> str:
    match = _MEMORY.match(line)
    return f"Memory: of {match[2]}K ({match[3]}), {match[5]}K cma-reserved" if match else line


def memory_figures(lines: list[str]) -> tuple[int, int]:
    matches = [match for line in lines if (match := _MEMORY.match(line))]
    return int(matches[0][1]), int(matches[0][4])


def directory(kernel: str, name: str) -> str:
    """The area's directory in debugfs (abi.cma.debugfs_name, cut as its buffer cuts)."""
    text = kernel_abi(kernel).cma.debugfs_name % name
    return text[:15] if text.startswith("cma-") else text


def compare(recorded: Transcript) -> None:
    machine = boot(recorded.tree(), recorded.kernel, recorded.cmdline, recorded.arch)
    assert selected(machine.log.lines()) == selected(recorded.boot)
    for ours, theirs in zip(memory_figures(machine.log.lines()), memory_figures(recorded.boot), strict=True):
        assert abs(ours - theirs) <= (0 if recorded.arch == "x86_64" else 8)
    found = [
        (directory(recorded.kernel, cma.name), cma.base_pfn, cma.count, cma.order_per_bit, cma.used())
        for cma in machine.cma
    ]
    assert sorted(found) == sorted(recorded.areas)
    assert machine.cma.totalcma_pages * 4 == recorded.cma_total


@pytest.mark.parametrize("name", CASES)
def test_recorded_boot(name: str) -> None:
    recorded = CASES[name]
    if recorded.script_output is None:
        with pytest.raises(KernelPanic, match="is not all memory"):
            boot(recorded.tree(), recorded.kernel, recorded.cmdline, recorded.arch)
    else:
        compare(recorded)


@pytest.mark.parametrize("name", BOOTS)
def test_boot_lines_of_other_kinds(name: str) -> None:
    recorded = BOOTS[name]
    machine = boot(recorded.tree(), recorded.kernel, recorded.cmdline, recorded.arch)
    theirs = [line for line in selected(recorded.boot) if line.strip() != "dyndbg_cma"]
    assert [line for line in selected(machine.log.lines()) if line.strip() != "dyndbg_cma"] == theirs
