"""``python -m cmafs``."""

from __future__ import annotations

from cmafs.cli.main import start

start()
