"""Every recorded session, operation by operation, on a real mount."""

from __future__ import annotations

from pathlib import Path

import pytest
import replay


def _name(path: Path) -> str:
    return f"{path.parent.name}-{path.name.split('.jsonl')[0]}"


TRANSCRIPTS = sorted(replay.find([replay.TRANSCRIPTS]))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=_name)
def test_a_mount_answers_as_the_kernel_did(path: Path, fuse_device: None) -> None:
    assert replay.replay_file(path, mounted=True) == []


def test_there_are_transcripts_of_every_kind() -> None:
    kinds = {kind for path in TRANSCRIPTS for kind in replay.KINDS if path.name.startswith(kind)}
    assert kinds == set(replay.KINDS)
