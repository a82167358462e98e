"""The table of what was recorded agrees with the transcripts, and with what the tests compare of them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import replay

from cmafs.abi.config_sets import DISTRIBUTIONS
from cmafs.abi.recorded import RECORDINGS, Recording

#: Kinds that the tests replay, each a test for every file: see docs/contributing.md.
_BOOTS = ("cmdline", "dt", "cmd", "numa")
_COMPARED = (*replay.KINDS, *_BOOTS, "trace", "facts", "pressure", "heaps")
_SETS = {one.directory: one for one in RECORDINGS}


def compared(path: Path) -> bool:
    """Whether there is anything to compare: not of a boot that neither logged nor had a tree."""
    if not path.name.startswith(_COMPARED):
        return False
    header = replay.load(path).header
    return not path.name.startswith(_BOOTS) or bool(header.get("boot") or header.get("dts"))


def test_every_set_is_in_the_table() -> None:
    assert sorted(_SETS) == sorted(path.name for path in replay.TRANSCRIPTS.iterdir() if path.is_dir())


@pytest.mark.parametrize("recording", RECORDINGS, ids=_SETS)
def test_the_table_counts_what_is_there(recording: Recording) -> None:
    paths = sorted((replay.TRANSCRIPTS / recording.directory).glob("*.jsonl.xz"))
    assert (recording.transcripts, recording.equal) == (len(paths), sum(map(compared, paths)))
    headers = [replay.load(path).header for path in paths]
    kernels = Counter(header["kernel"] for header in headers if not header["kernel"].startswith("Image"))
    assert list(kernels) == [recording.kernel]
    assert {header["arch"].replace("x86", "x86_64") for header in headers} == {recording.arch}


def test_configurations_have_a_name() -> None:
    for recording in RECORDINGS:
        known = recording.config.startswith(("tiny", "defconfig")) or recording.config in DISTRIBUTIONS
        assert known, recording
        assert recording.config in DISTRIBUTIONS or not re.search("deb", recording.directory.split("-")[-1])
