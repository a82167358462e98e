"""What each architecture does its own way, by name."""

from __future__ import annotations

from cmafs.arch import arm, arm64, x86
from cmafs.arch.setup import ArchOps, EarlyBoot

ARCHITECTURES = {"x86_64": x86.OPS, "arm64": arm64.OPS, "arm": arm.OPS}


def arch_ops(boot: EarlyBoot) -> ArchOps:
    """The machine's architecture."""
    return ARCHITECTURES[boot.config.arch]
