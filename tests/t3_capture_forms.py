"""Captures as tools, consoles and editors leave them: the same events are read, nothing else is."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import replay
from t3_capture_replay import BODY, HEAD, event, gave, replayed, starts, took

from cmafs.cli.main import main
from cmafs.replay.capture import Reader
from cmafs.replay.machine import bare_areas
from cmafs.replay.session import Replay
from cmafs.replay.survey import survey
from cmafs.sim.validate import validate

EVENTS = 108
_LINE = re.compile(r"^ *(\S+)-(\d+) +\[(\d+)\] (\S+) +([\d.]+): (cma_\w+): (.*)$")


def form(template: str) -> Callable[[str], str]:
    """A line in another form: 1 command, 2 pid, 3 CPU, 4 flags, 5 time, 6 event, 7 its fields."""
    return lambda line: _LINE.sub(template, line)


TRACE_FORMS = {
    "trace-cmd with flags": r"  \1-\2    [\3] \4 \5: \6:     \7",
    "trace-cmd in nanoseconds": r"  \1-\2    [\3]  \g<5>123: \6:     \7",
    "trace-cmd latency": r"  \1-\2    0d..2  \5: \6:     \7",
    "trace-cmd of two files": r"t.dat:  \1-\2  [\3]  \5: \6:     \7",
    "perf": r"\1 \2 [\3]  \5: cma:\6: \7",
    "perf pid/tid": r"\1 \2/\2 [\3]  \5: cma:\6: \7",
    "perf without cpu": r"\1 \2  \5:  cma:\6: \7",
    "perf with period": r"\1 \2 [\3]  \5:          1  cma:\6: \7",
    "perf -F event,trace": r"cma:\6: \7",
    "perf with stacks": r"\1 \2 [\3]  \5: cma:\6: \7\n\tffff812c cma_alloc+0x1 ([kernel.kallsyms])\n",
    "a thread group": r" \1-\2   (-------) [\3] \4 \5: \6: \7",
    "a command with spaces": r" Web Content-\2     [\3] \4 \5: \6: \7",
    "a command like an event": r" cma_release: x-\2     [\3] \4 \5: \6: \7",
    "no command": r" <...>-\2     [\3] \4 \5: \6: \7",
    "the clock counter": r" \1-\2     [\3] \4 991234: \6: \7",
    "latency in us": r" \1-\2     0dN.1 4us!: \6: \7",
    "no-irq-info": r" \1-\2 [\3] \5: \6: \7",
    "function_graph": r" 0)               |  /* \6: \7 */",
    "colours": " \\1-\\2 [\\3] \\4 \\5: \x1b[1m\\6\x1b[0m: \\7\x1b[0m",
    "a serial line": " \\1-\\2 [\\3] \\4 \\5: \\6: \\7\r\r",
    "stamped by a terminal": r"[18:00:01.123] \1-\2 [\3] \4 \5: \6: \7",
}


@pytest.mark.parametrize("name", TRACE_FORMS)
def test_a_trace_in_every_form(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = replayed(capsys, tmp_path, [form(TRACE_FORMS[name])(line) for line in BODY])
    assert report == {"events": EVENTS, "reproduced": EVENTS, "diverged": []}


OTHERS = [
    "sh-47 [000] ..... 2.5: tracing_mark_write: cma_release: name=reserved pfn=0x10000 page=1 count=4",
    "sh-47 [000] ..... 2.5: print: tracing_mark_write: cma_release: pfn=0x10000 page=1 count=4",
    "sh-47 [000] ..... 2.5: cma_alloc <-__dma_alloc_from_contiguous",
    "sh-47 [000] ..... 2.5: kmem_cma_release: pfn=0x3 page=3 count=3",
    "sh-47 [000] ..... 2.5: mm_page_alloc: page=00 pfn=0x12 order=0 cma=1",
    " 0)   ! 123.4 us  |  cma_alloc();",
    " => cma_release: pfn",
    "<stack trace>",
]


@pytest.mark.parametrize("line", OTHERS)
def test_other_lines_are_passed_over(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [text for one in BODY for text in (line, one)]
    assert replayed(capsys, tmp_path, lines)["events"] == EVENTS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_capture_that_an_editor_had(
    encoding: str, end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = len(BODY) // 2
    file = tmp_path / "capture"
    lines = [*HEAD, *BODY[:half], "", "\xff", *HEAD, *BODY[half:]]  # two dumps, one behind the other
    file.write_bytes((end.join(lines) + end).encode(encoding))
    assert main(["replay", str(file)]) == 0
    assert f"reproduced: {EVENTS} of {EVENTS}" in capsys.readouterr().out


LOG_FORMS: dict[str, str] = {
    "dmesg": "[   12.345678] {}",
    "a level": "<7>[   12.345678] {}",
    "a caller": "[   12.345678][   T31] {}",
    "syslog": "Nov 21 18:00:01 host kernel: [   12.345678] {}",
    "journalctl -k": "Nov 21 18:00:01 host kernel: {}",
    "rsyslog": "2026-11-21T18:00:01.123456+01:00 host kernel: [   12.345678] {}",
    "dmesg -T": "[Sat Nov 21 18:21:01 2026] {}",
    "dmesg -H": "\x1b[32m[  +0.000012] \x1b[0m\x1b[33m{}",
    "dmesg -x": "kern  :debug : [   12.345678] {}",
    "dmesg --time-format iso": "2026-11-21T18:21:01,123456+00:00 {}",
    "/dev/kmsg": "7,1234,12345678,-;{}",
    "a console": "root@board:~# [   12.345678] {}\r\r\n\x1b[6n\x08\x07garbage\udcff",
    "dyndbg with module, function, line": "[   12.345678] cma:cma_alloc:456: {}",
}


@pytest.mark.parametrize("row", ["5.10", "6.12"])
@pytest.mark.parametrize("name", LOG_FORMS)
def test_a_log_in_every_form(name: str, row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = replay.load(replay.TRANSCRIPTS / row / "walk-1-4M.jsonl.xz")
    pool = next(line for line in recorded.header["boot"] if "cma: Reserved" in line)
    file = tmp_path / "log"
    lines = [LOG_FORMS[name].format(line) for line in (pool, *recorded.dmesg)]
    file.write_text("\n".join(lines) + "\n", errors="surrogateescape")
    assert main(["replay", str(file)]) == 0
    assert "reproduced: 135 of 135" in capsys.readouterr().out


def at_once(seed: int, tasks: int, old: bool, lost: bool, pages: int = 1024) -> list[str]:
    """What tasks print that allocate at once: bits are taken before an end is printed, given back before."""
    chance, used, base = random.Random(seed), bytearray(pages), 0x10000
    printed: list[str] = []
    live: list[tuple[int, int]] = []
    doing: list[tuple[str, int | None, int, int] | None] = [None] * tasks

    def first_fit(count: int, align: int) -> int | None:
        places = range(0, pages - count + 1, 1 << align)
        return next((place for place in places if not any(used[place : place + count])), None)

    def begin(task: int) -> tuple[str, int | None, int, int]:
        if live and chance.random() < 0.5:
            place, count = live.pop(chance.randrange(len(live)))
            used[place : place + count] = bytes(count)
            return "release", place, count, 0
        count, align = chance.choice((1, 4, 16, 33, 64, 200)), chance.choice((0, 0, 2, 4))
        printed.append(starts(task, count, align))
        return "start", None, count, align

    left = 120
    while left or any(doing):
        index = chance.randrange(tasks)
        now, task = doing[index], 100 + index
        if now is None:
            doing[index] = begin(task) if left else None
            left -= bool(left)
            continue
        what, place, count, align = now
        doing[index] = None
        if what == "start":
            place = first_fit(count, align)
            used[place or 0 : (place or 0) + count * (place is not None)] = (
                b"\1" * count * (place is not None)
            )
            doing[index] = "taken", place, count, align
        elif what == "release":
            printed.append(gave(task, base + (place or 0), count))
        elif place is not None:
            printed.append(took(task, base + place, count, align))
            live.append((place, count))
        else:
            refused = f"pfn=0x0 page=0000000000000000 count={count} align={align} errorno=-12"
            printed.append(event(task, "alloc_finish", refused))
    if old:  # up to 5.12
        printed = [re.sub("_finish|name=reserved | errorno=-?[0-9]+", "", line) for line in printed]
        printed = [line for line in printed if "_start" not in line]
    if lost:
        for at in range(len(printed) - 40, 0, -40):
            printed[at : at + 8] = ["CPU:0 [LOST 8 EVENTS]"]
    return printed


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_several_cpus_at_once(old: bool, lost: bool) -> None:
    events = reproduced = 0
    for seed in range(8):
        read = list(Reader().events(at_once(seed, 1 + seed % 4, old, lost)))
        found = survey(read)
        replayed = Replay(bare_areas("5.10" if old else "6.12", found.geometries()), found.unseen)
        outcome = replayed.run(read)
        assert validate(replayed.areas.memory, [*replayed.areas]) == []
        events, reproduced = events + outcome.events, reproduced + outcome.reproduced
        assert outcome.events == outcome.reproduced + len(outcome.diverged)
    assert reproduced >= events * (0.8 if lost else 0.97)
