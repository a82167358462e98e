"""___ratelimit(): at most so many lines in an interval, and a count of those that were dropped."""

from __future__ import annotations

from cmafs.lib.clock import NSEC_PER_SEC
from cmafs.lib.printk import LOGLEVEL_WARNING, Printk

DEFAULT_RATELIMIT_INTERVAL = 5 * NSEC_PER_SEC
DEFAULT_RATELIMIT_BURST = 10


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

    def allow(self, function: str, lines: int = 1) -> int:
        """How many of ``lines`` lines, all of now, may be printed.

        ``function`` is named when lines dropped before are reported first.
        """
        if self._interval_over():
            if self.missed:
                self._log.printk(f"{function}: {self.missed} callbacks suppressed", LOGLEVEL_WARNING)
            self.missed = 0
        return self._take(lines)

    def allow_silently(self) -> int:
        """The same for one line, with RATELIMIT_MSG_ON_RELEASE: ``missed`` only grows."""
        self._interval_over()
        return self._take(1)

    def _interval_over(self) -> bool:
        """Whether a new interval begins now."""
        now = self._log.clock.now()
        if self._begin is None:
            self._begin = now
        if now <= self._begin + self._interval:
            return False
        self._begin, self._printed = now, 0
        return True

    def _take(self, lines: int) -> int:
        allowed = min(lines, self._burst - self._printed)
        self._printed += allowed
        self.missed += lines - allowed
        return allowed
