"""What boot did with one region, as a fact that a program can read (``cmafs check`` turns it into words)."""

from __future__ import annotations

from dataclasses import dataclass

EFFECT_REFUSED = "refused"  # it was meant to become an area and did not
EFFECT_IGNORED = "ignored"  # the kernel passes over it
EFFECT_MOVED = "moved"  # it became something else, or somewhere else, than written
EFFECT_PANIC = "panic"  # the kernel does not survive its boot
EFFECT_NOTE = "note"  # worth knowing, nothing lost


@dataclass(frozen=True)
class BootEvent:
    """One fact about one region.

    ``node``: full path, None if the region is of the command line or Kconfig; ``reason``: a key such as
    ``base-misaligned``; ``property``: the one at fault, or the parameter (``cma=``); ``detail``: in words.
    """

    node: str | None
    reason: str
    effect: str
    property: str | None = None
    detail: str = ""
