"""Boards for the tools that look at them: a directory of copied files made of a real kernel's answers."""

from __future__ import annotations

from pathlib import Path

import replay


def copied_files(transcript: str, place: Path) -> replay.Transcript:
    """The files that a transcript read, as they were at its end, and its log."""
    found = replay.load(replay.TRANSCRIPTS / f"{transcript}.jsonl.xz")
    for one in found.operations:
        if one["op"] == "R" and "out" in one and not one["errno"]:
            path = place / one["path"].lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(one["out"].encode("latin-1"))
    (place / "dmesg").write_text("\n".join(found.dmesg))
    # what the recorder of transcripts did not read, but every board has
    for area in (place / "sys/kernel/debug/cma").glob("*"):
        size = int(found.header["cmdline"].partition("cma=")[2].partition("M")[0]) << 8
        for name, value in (("count", size), ("base_pfn", 0x10000), ("order_per_bit", 0)):
            if not (area / name).exists():
                (area / name).write_text(f"{value}\n")
    return found
