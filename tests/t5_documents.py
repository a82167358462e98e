"""Every command in README.md and docs/ is run, and prints what the document says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from console_support import Shell, check_document, steps_of
from run_support import mounts_below

TOP = Path(__file__).resolve().parent.parent
DOCUMENTS = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if steps_of(d)], ids=lambda d: d.name)
def test_document(document: Path, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = dict(os.environ, PATH=path, LC_ALL="C.UTF-8")
    shell = Shell(tmp_path, env)
    try:
        assert check_document(document, shell) > 0
    finally:
        shell.close()
        for mounted in reversed(mounts_below(tmp_path)):  # a document that failed half way
            subprocess.run(["cmafs", "umount", "-l", mounted], env=env, check=True)
