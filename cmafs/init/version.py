"""What a kernel says it is (``init/version.c``)."""

from __future__ import annotations


def linux_banner(release: str) -> str:
    """``linux_banner``: the first line of the log and /proc/version; no compiler has seen this kernel.

    The builder's name must not have "cma" in it: people grep the log for that.
    """
    return f"Linux version {release} (root@localhost) #1 SMP PREEMPT"
