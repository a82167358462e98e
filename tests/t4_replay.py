"""Every recorded session, operation by operation, on a real mount."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import replay


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[None]:
    """Keep caller and server on one CPU: waking another one for each call takes longer than all the rest."""
    before = os.sched_getaffinity(0)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(before)[worker % len(before)]})
    yield
    os.sched_setaffinity(0, before)


def _name(path: Path) -> str:
    return f"{path.parent.name}-{path.name.split('.jsonl')[0]}"


TRANSCRIPTS = sorted(replay.find([replay.TRANSCRIPTS]))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=_name)
def test_a_mount_answers_as_the_kernel_did(path: Path, fuse_device: None) -> None:
    assert replay.replay_file(path, mounted=True) == []


def test_there_are_transcripts_of_every_kind() -> None:
    kinds = {kind for path in TRANSCRIPTS for kind in replay.KINDS if path.name.startswith(kind)}
    assert kinds == set(replay.KINDS)
