"""Every recorded boot again: where areas land, what is used at boot, CmaTotal, zones, page blocks, the log
(``boot_compare`` says which lines of it).

Modules: cmafs.arch.boot_alloc, cmafs.arch.arm64.
"""

from __future__ import annotations

import pytest
from boot_compare import differences, image_differences, log_differences
from boot_support import transcripts

from cmafs.lib.panic import KernelPanic

#: Kinds whose script prints the areas; the others go on to use them.
_KINDS = ("cmdline-", "dt-", "cmd-", "numa-")
#: A recording without log and tree says nothing: the amd64 guest of 1 GiB whose QEMU did not come up.
_FOUND = [found for found in transcripts("*/*.jsonl.xz") if found.boot or found.header.get("dts")]
CASES = {found.name: found for found in _FOUND if found.name.split("/")[1].startswith(_KINDS)}
BOOTS = {found.name: found for found in _FOUND if found.name not in CASES}


@pytest.mark.parametrize("name", CASES)
def test_recorded_boot(name: str) -> None:
    recorded = CASES[name]
    if recorded.survived:
        machine = recorded.machine()
        assert differences(recorded, machine) == []
        if not recorded.has_config:
            assert list(image_differences(recorded, machine)) == []
    else:
        with pytest.raises(KernelPanic):
            recorded.machine()


@pytest.mark.parametrize("name", BOOTS)
def test_boot_lines_of_other_kinds(name: str) -> None:
    recorded = BOOTS[name]
    assert list(log_differences(recorded, recorded.machine())) == []


@pytest.mark.parametrize(
    "name",
    [
        "5.10/cmdline-00",
        "5.10-arm64/dt-disabled",
        "5.10-arm64/dt-dyn-6g",
        "6.1/cmdline-00",
        "6.12/cmdline-00",
        "6.12-arm64/dt-disabled",
        "6.12-arm64/dt-dyn-align-not-pow2",
        "7.2/cmdline-00",
        "7.2-arm64/dt-disabled",
        "7.2-arm64/dt-dyn-align-not-pow2",
    ],
)
def test_memory_to_the_kib(name: str) -> None:
    """Of the guests whose image and tree are known even what is free and what is reserved is exact."""
    recorded = CASES[name]
    ours = [line for line in recorded.machine().log.lines() if line.startswith("Memory: ")]
    assert ours == [line for line in recorded.boot if line.startswith("Memory: ")]
