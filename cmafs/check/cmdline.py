"""What ``cmafs check`` finds on the command line and in the configuration: what is not what it seems.

Pure. Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmafs.check.tree import size_text
from cmafs.lib.boot_event import EFFECT_IGNORED, EFFECT_MOVED, EFFECT_NOTE, BootEvent
from cmafs.lib.cmdline import EarlyParams, memparse, parse_early_params

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine
    from cmafs.mm.cma import Cma

#: How many of the symbols that are not modelled are named: a whole .config has thousands.
NAMED = 8


def cmdline_findings(machine: BootedMachine) -> Iterator[BootEvent]:
    """What became of ``cma=`` and its relatives, as far as the boot itself says nothing.

    Of the command line nothing on a machine of 2010, where ``cma=`` is another language.
    """
    for name in machine.config.dropped:
        yield BootEvent(None, "config-dropped", EFFECT_NOTE, f"CONFIG_{name}")
    if unmodelled := machine.config.unmodelled:
        names = ", ".join(f"CONFIG_{name}" for name in unmodelled[:NAMED])
        rest = f" and {len(unmodelled) - NAMED} more" if len(unmodelled) > NAMED else ""
        yield BootEvent(None, "config-unmodelled", EFFECT_NOTE, ".config", names + rest)
    if machine.cma2010 is not None:
        return
    params = parse_early_params(machine.cmdline, False)
    yield from _spelling(params)
    yield from _unknown(machine, params)
    nodes = {id(region.area) for region in machine.reserved_mem}
    own = next((cma for cma in machine.cma if cma.name == "reserved" and id(cma) not in nodes), None)
    if params.cma.size and own is not None:
        yield from _elsewhere(machine, params, own)
    elif params.cma.size and id(machine.cma.default) in nodes and not machine.abi.boot.cmdline_beats_default:
        detail = f"{machine.cma.default.name} is the default area" if machine.cma.default else ""
        yield BootEvent(None, "default-wins", EFFECT_IGNORED, "cma=", detail)


def _spelling(params: EarlyParams) -> Iterator[BootEvent]:
    """The last ``cma=``, if it is no number or goes on where no one reads."""
    text = next((value for value in reversed(params.cma_seen) if value is not None), "")
    _, rest = memparse(text)
    if text and rest == text:
        yield BootEvent(None, "not-a-number", EFFECT_NOTE, "cma=", f"'{text}'")
    elif rest and not rest.startswith("@"):
        yield BootEvent(None, "text-ignored", EFFECT_NOTE, "cma=", f"'{rest}'")


def _unknown(machine: BootedMachine, params: EarlyParams) -> Iterator[BootEvent]:
    """Parameters for areas that this kernel, or this configuration of it, does not have."""
    for name in ("cma", "hugetlb_cma", "cma_pernuma", "numa_cma"):
        if params.values(name) and not machine.config.knows(name):
            yield BootEvent(None, "unknown-parameter", EFFECT_IGNORED, f"{name}=")


def _elsewhere(machine: BootedMachine, params: EarlyParams, area: Cma) -> Iterator[BootEvent]:
    """An area at another place or of another size than written."""
    cma, shift = params.cma, machine.config.page_shift
    base, size = area.base_pfn << shift, area.count << shift
    if 0 < cma.base < 1 << shift:
        yield BootEvent(None, "base-is-bytes", EFFECT_MOVED, "cma=", f"{cma.base} became {base:#x}")
    elif cma.base and cma.base != base:
        yield BootEvent(None, "cma-moved", EFFECT_MOVED, "cma=", f"{cma.base:#x} became {base:#x}")
    if size != cma.size:
        detail = f"{size_text(cma.size or 0)} became {size_text(size)}"
        yield BootEvent(None, "size-rounded", EFFECT_MOVED, "cma=", detail)
