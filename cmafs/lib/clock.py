"""Time, given to a machine and never asked of the host below the edges.

A mounted machine has a real one (``api.RealClock``); Python API, replays and tests have a manual one.
"""

from __future__ import annotations

from typing import Protocol

NSEC_PER_SEC = 1_000_000_000


class Clock(Protocol):
    """What a machine needs of time."""

    def now(self) -> int:
        """Nanoseconds since the machine's boot."""

    def advance(self, nanoseconds: int) -> None:
        """Let time pass."""


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, start: int = 0) -> None:
        self._now = start

    def now(self) -> int:
        """Nanoseconds since the machine's boot."""
        return self._now

    def advance(self, nanoseconds: int) -> None:
        """Let time pass."""
        self._now += nanoseconds
