"""Every recorded boot again: where areas land, what is used at boot, CmaTotal, zones, page blocks, the log
(``boot_compare`` says which lines of it).
"""

from __future__ import annotations

import pytest
from boot_compare import differences, image_differences, log_differences
from boot_support import transcripts

from cmafs.init.main import KernelPanic

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
