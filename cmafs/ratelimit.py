"""___ratelimit(): at most so many lines in an interval, and a count of those that were dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmafs.clock import NSEC_PER_SEC

if TYPE_CHECKING:
    from cmafs.printk import Printk

DEFAULT_RATELIMIT_INTERVAL = 5 * NSEC_PER_SEC
DEFAULT_RATELIMIT_BURST = 10

#: The log level of the "callbacks suppressed" line.
LOGLEVEL_WARNING = 4


class Ratelimit:
    """One ``struct ratelimit_state``: a kernel has one for each rate limited call site.

    ``interval`` in nanoseconds. Source: ``lib/ratelimit.c:___ratelimit()@6.1``.
    """

    def __init__(
        self,
        log: Printk,
        interval: int = DEFAULT_RATELIMIT_INTERVAL,
        burst: int = DEFAULT_RATELIMIT_BURST,
    ) -> None:
        self._log = log
        self._interval = interval
        self._burst = burst
        self._begin: int | None = None
        self._printed = 0
        self.missed = 0

    def allow(self, function: str) -> bool:
        """Whether a line may be printed now; ``function`` is named when dropped lines are reported first."""
        now = self._log.clock.now()
        if self._begin is None:
            self._begin = now
        if now > self._begin + self._interval:
            if self.missed:
                self._log.printk(f"{function}: {self.missed} callbacks suppressed", LOGLEVEL_WARNING)
            self.missed = 0
            self._begin = now
            self._printed = 0
        if self._printed < self._burst:
            self._printed += 1
            return True
        self.missed += 1
        return False
