"""Mm rows: see cmafs.abi. Each field has its citation."""

from __future__ import annotations

from dataclasses import dataclass

from cmafs.abi.rows import rows_from


@dataclass(frozen=True)
class MmAbi:
    """One row; fields are added with a citation each."""


ROWS = rows_from(MmAbi(), {})
