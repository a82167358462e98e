"""Names of tasks that the tracer saw (``kernel/trace/trace_sched_switch.c``: saved_cmdlines)."""

from __future__ import annotations

#: ``SAVED_CMDLINES_DEFAULT``: names that are kept.
NR_CMDLINES = 128
#: ``PID_MAX_DEFAULT`` less one: pids that are alike in these bits share a slot.
_PID_MASK = 0x7FFF


class SavedCmdlines:
    """``struct saved_cmdlines_buffer``: a ring of slots, the oldest name overwritten first."""

    def __init__(self) -> None:
        self._slot_of: dict[int, int] = {}
        self._slots: dict[int, tuple[int, str]] = {}
        self._last = 0

    def save(self, pid: int, comm: str) -> None:
        """``trace_save_cmdline()``; the idle task needs no slot."""
        if not pid:
            return
        slot = self._slot_of.get(pid & _PID_MASK)
        if slot is None:
            slot = self._slot_of[pid & _PID_MASK] = self._last = (self._last + 1) % NR_CMDLINES
        self._slots[slot] = pid, comm

    def find(self, pid: int) -> str:
        """``trace_find_cmdline()``: ``<...>`` for a task whose name is not known any more."""
        if not pid:
            return "<idle>"
        known, comm = self._slots.get(self._slot_of.get(pid & _PID_MASK, -1), (0, ""))
        return comm if known == pid else "<...>"

    def text(self) -> str:
        """What ``saved_cmdlines`` reads."""
        return "".join(f"{pid} {self.find(pid)}\n" for _, (pid, _) in sorted(self._slots.items()))
