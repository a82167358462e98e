"""Modules of ours as programs of their own, whatever the directory they are started in holds."""

from __future__ import annotations

import sys
from pathlib import Path

#: `python -m` looks for every module in the working directory first, and there may be a ``signal.py``.
_START = (
    "import sys; sys.path[:] = [*filter(None, sys.path), {home!r}]; "
    "import runpy; runpy.run_module(sys.argv.pop(1), None, '__main__', True)"
)


def own_program(module: str, *words: str) -> list[str]:
    """The command that runs a module of this package with these arguments."""
    home = str(Path(__file__).absolute().parent.parent.parent)
    return [sys.executable, "-c", _START.format(home=home), module, *words]
