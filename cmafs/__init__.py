"""cmafs: a simulated Linux machine whose contiguous memory allocator answers as the kernel's does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmafs.api import Machine, MachineOptions, boot
    from cmafs.mounted_machine import MountedMachine, mounted

__all__ = ["Machine", "MachineOptions", "MountedMachine", "__version__", "boot", "mounted"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The Python API on first use: importing a module of the package costs nothing of it."""
    if name in ("Machine", "MachineOptions", "boot"):
        from cmafs import api

        return getattr(api, name)
    if name in ("MountedMachine", "mounted"):
        from cmafs import mounted_machine

        return getattr(mounted_machine, name)
    raise AttributeError(f"module 'cmafs' has no attribute '{name}'")
