"""A boot that does not end well."""

from __future__ import annotations

from dataclasses import dataclass, field

from cmafs.lib.boot_event import BootEvent
from cmafs.lib.printk import Printk


@dataclass(eq=False)
class KernelPanic(Exception):
    """The kernel would not survive this boot: why, the log up to there, and the facts gathered until then."""

    reason: str
    log: Printk
    events: list[BootEvent] = field(default_factory=list)

    def __str__(self) -> str:
        return self.reason
