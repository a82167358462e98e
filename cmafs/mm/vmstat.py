"""Events that only grow (``mm/vmstat.c:vm_event_states``); page states are read off ``mmzone.Memory``.

Names are those of ``/proc/vmstat``; which of them a kernel shows, and in which order, is data of
``cmafs.abi.proc``.
"""

from __future__ import annotations


class Vmstat:
    """The event counters of one machine, in pages or calls."""

    def __init__(self) -> None:
        self.events: dict[str, int] = {}

    def count_vm_event(self, item: str, delta: int = 1) -> None:
        """``count_vm_events()``: adds to an event."""
        self.events[item] = self.events.get(item, 0) + delta

    def vm_event(self, item: str) -> int:
        """An event counter; 0 when nothing has happened yet."""
        return self.events.get(item, 0)
