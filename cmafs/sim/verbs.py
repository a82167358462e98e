"""What sim/ offers, as data: its files, and the verbs of sim/control. Help and man page are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class VerbHelp(NamedTuple):
    """``usage``: the words after the verb; ``does``: one sentence."""

    usage: str
    does: str


#: In the order in which a refusal of an unknown verb lists them.
VERBS: Mapping[str, VerbHelp] = {
    "spawn": VerbHelp(
        "NAME anon|file|tmpfs|kernel|slab SIZE",
        "a task with so much memory: anonymous, page cache, tmpfs, or kernel memory, which never moves",
    ),
    "grow": VerbHelp("NAME SIZE", "the task takes more memory of its kind"),
    "shrink": VerbHelp("NAME SIZE", "the task gives memory back, the newest pages first"),
    "kill": VerbHelp("NAME", "the task ends and all its memory is free"),
    "pin": VerbHelp(
        "NAME N", "keep N more pages of the task where they are, those of the lowest index first"
    ),
    "unpin": VerbHelp("NAME", "let all pages of the task move again"),
    "mlock": VerbHelp("NAME", "lock the task's pages in memory; locked pages still migrate, as on Linux"),
    "munlock": VerbHelp("NAME", "undo mlock"),
    "dma_alloc": VerbHelp("DEVICE SIZE", "the device's driver calls dma_alloc_coherent() for one buffer"),
    "dma_free": VerbHelp("DEVICE SIZE", "the driver frees the newest buffer of that size"),
    "dirty": VerbHelp("NAME N", "N pages of a page cache must be moved from now on, and cannot be dropped"),
    "clean": VerbHelp("NAME", "write the task's dirty pages back"),
    "fail": VerbHelp(
        "AREA K ENOMEM|EINTR", "the K-th allocation from the area from now on fails, so the log says"
    ),
    "unfail": VerbHelp("AREA", "undo fail"),
    "pin_for": VerbHelp("NAME N SECONDS", "pin N pages of the task for a time"),
    "slow": VerbHelp("MILLISECONDS", "each migration of an allocation takes so long; 0: as long as it takes"),
    "deactivate": VerbHelp("AREA", "the area is as if it could not be activated at boot: its count is 0"),
    "activate": VerbHelp("AREA", "undo deactivate"),
    "lockdown": VerbHelp(
        "on|off", "opening alloc and free answers EPERM, as a locked down kernel does (5.4)"
    ),
}

#: ``pin pfn`` and ``unpin pfn`` name a frame where the verbs without it name a task.
PIN_PFN = VerbHelp("pfn PFN", "keep the page in this frame where it is; a free frame is allocated first")
UNPIN_PFN = VerbHelp("pfn PFN", "undo one `pin pfn` of this frame")


#: The files of sim/, and what each says.
FILES: Mapping[str, str] = {
    "control": "takes one command a line, see the verbs; write only",
    "tasks": "the simulated tasks: kind, pages, how many of them in CMA, pinned, mlocked, and where",
    "devices/NAME": "the buffers that a device holds: pfn, bus address, bytes, area, owner",
    "why": "for each area what an allocation can get, who is in the way, and why the last ones failed",
    "advice": "for each area what would let its last failed request through, each way tried on a copy",
    "map": "who has which pages of the areas: first pfn, pages, state, owner",
    "faults": "what was set to go wrong, in the words that set it",
    "verify": "runs every consistency check: ok, or one violation a line",
    "dmesg": "the kernel log in dmesg's format; writing `clear` clears it",
    "snapshot": (
        "this machine as a file, as `cmafs save` writes it for `--load`; "
        "EFBIG once more was done to it than is kept"
    ),
    "log": "the simulator's own log: reasons of refused verbs, and tracebacks of its own bugs",
}


def lines() -> list[tuple[str, str]]:
    """(the verb with its words, what it does) of every form, in order."""
    rows = []
    for verb, known in VERBS.items():
        rows.append((f"{verb} {known.usage}", known.does))
        if verb in ("pin", "unpin"):
            frame = PIN_PFN if verb == "pin" else UNPIN_PFN
            rows.append((f"{verb} {frame.usage}", frame.does))
    return rows
