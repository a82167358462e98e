"""Programs of a run that speak of the simulated machine: comfort only, nothing depends on CMD using them."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

from cmafs.run.root import PRIVATE, TREE, touch
from cmafs.run.syscalls import bind

_REAL = f"{PRIVATE}/real"  # the host's own programs, which the shims call
_BIN = f"{PRIVATE}/bin"  # shims that no file of the host can carry: on PATH
_SHIMS = f"{PRIVATE}/shims"
_HERE = Path(__file__).parent
_ON_TOP = ("findmnt",)  # shims that are of no use where the host lacks the program
_PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def _scripts() -> dict[str, str]:
    """The text of each shim by the name of the program that it stands for."""
    scripts = {path.name: path.read_text(encoding="utf-8") for path in sorted((_HERE / "shims").iterdir())}
    dmesg = shlex.join([sys.executable, "-IS", str(_HERE / "dmesg.py"), TREE, f"{time.time():.6f}"])
    scripts["dmesg"] = f'#!/bin/sh\nexec {dmesg} "$@"\n'
    return {name: text.replace("@real@", _REAL).replace("@tree@", TREE) for name, text in scripts.items()}


def _programs(name: str) -> list[str]:
    """Every file that a program of this name is found at; the first on PATH first."""
    directories = dict.fromkeys([*os.environ.get("PATH", os.defpath).split(":"), *_PLACES])
    candidates = (os.path.join(directory, name) for directory in directories if os.path.isabs(directory))
    return list(dict.fromkeys(os.path.realpath(path) for path in candidates if os.access(path, os.X_OK)))


def _stand_for(name: str, shim: str) -> None:
    """Let a shim be found wherever the program is; a program of many names (busybox) cannot be covered."""
    programs = _programs(name)
    if not programs and name in _ON_TOP:
        return
    covered = [path for path in programs if os.path.basename(path) == name]
    if covered:
        touch(f"{_REAL}/{name}")
        bind(covered[0], f"{_REAL}/{name}")
    elif programs:
        os.symlink(programs[0], f"{_REAL}/{name}")
    for path in covered:
        bind(shim, path)
    if covered != programs or not programs:
        os.symlink(shim, f"{_BIN}/{name}")


def install() -> None:
    """Put the shims in place and, for those that need it, on PATH. Raises OSError."""
    os.mkdir(_SHIMS)
    for name, text in _scripts().items():
        shim = f"{_SHIMS}/{name}"
        touch(shim, text.encode(), 0o755)
        _stand_for(name, shim)
    if os.listdir(_BIN):
        os.environ["PATH"] = f"{_BIN}:{os.environ.get('PATH', os.defpath)}"
