"""cmafs: a simulated Linux machine whose contiguous memory allocator answers as the kernel's does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmafs.api import Machine, boot

__all__ = ["Machine", "boot"]


def __getattr__(name: str) -> Any:
    """The Python API on first use: importing a module of the package costs nothing of it."""
    if name in __all__:
        from cmafs import api

        return getattr(api, name)
    raise AttributeError(f"module 'cmafs' has no attribute '{name}'")
