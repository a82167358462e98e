"""`cmafs replay`: recorded traces come out at every pfn, in the forms that tools print; else it says why."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import pytest
import replay

from cmafs.cli.main import main
from cmafs.replay.capture import RELEASE, Reader

TRACES = sorted(replay.TRANSCRIPTS.glob("*/trace-*"))


def trace_of(path: Path) -> list[str]:
    """The text of ``trace`` in a transcript, from its header on."""
    lines = replay.load(path).script_output
    return lines[next(i for i, line in enumerate(lines) if line.startswith("# tracer")) :]


SAMPLE = trace_of(replay.TRANSCRIPTS / "6.12" / "trace-1.jsonl.xz")
HEAD = [line for line in SAMPLE if line.startswith("#")]
BODY = [line for line in SAMPLE if "cma_" in line]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["replay", *words])
    out, err = capsys.readouterr()
    return status, out, err


def replayed(
    capsys: pytest.CaptureFixture[str], place: Path, lines: list[str], *words: str
) -> dict[str, object]:
    """The JSON report on a capture of these lines."""
    file = place / "capture.txt"
    file.write_text("\n".join(lines) + "\n")
    status, out, _ = run(capsys, str(file), "--json", *words)
    report: dict[str, object] = json.loads(out)
    assert status == (0 if report["events"] == report["reproduced"] else 1)
    return report


def event(task: int, name: str, text: str, at: float = 1.0, cpu: int = 0) -> str:
    return f"              sh-{task}      [{cpu:03d}] ..... {at:12.6f}: cma_{name}: name=reserved {text}"


def took(task: int, pfn: int, count: int, align: int = 0) -> str:
    return event(
        task, "alloc_finish", f"pfn=0x{pfn:x} page=00000000bef1b2c1 count={count} align={align} errorno=0"
    )


def starts(task: int, count: int, align: int = 0) -> str:
    return event(task, "alloc_start", f"count={count} align={align}")


def gave(task: int, pfn: int, count: int) -> str:
    return event(task, "release", f"pfn=0x{pfn:x} page=00000000bef1b2c1 count={count}")


def report_cmd(line: str) -> str:
    """A line of ``trace-cmd report``."""
    return re.sub(r" \[(\d+)\] \S+ +([\d.]+): (\w+): ", r" [\1] \2: \3:     ", line).replace(
        "(null)", "(nil)"
    )


def perf_script(line: str) -> str:
    """A line of ``perf script``."""
    return re.sub(r"sh-(\d+) +\[(\d+)\] \S+ +([\d.]+): (\w+): ", r"sh \1 [\2]  \3: cma:\4: ", line)


def latency(line: str) -> str:
    """A line of ``trace`` with the option latency-format."""
    return re.sub(r"-(\d+) +\[(\d+)\] \S+ +([\d.]+): ", r"-\1     0d..1  1191us : ", line)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("form", [str, report_cmd, perf_script, latency], ids=lambda form: form.__name__)
def test_every_recorded_trace_is_reproduced(
    path: Path, form, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [form(line) for line in trace_of(path)]
    ends = sum(bool(re.search(r"cma_(alloc|alloc_finish|release): ", line)) for line in lines)
    report = replayed(capsys, tmp_path, lines)
    assert (report["events"], report["reproduced"], report["diverged"]) == (ends, ends, [])


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.parent.name)
def test_a_transcript_is_read_and_its_machine_booted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = replay.load(path).header
    machine = ["--arch=x86_64", "--memory=2G", "--kernel", header["kernel"], "--cmdline=cma=16M@1280M"]
    status, out, _ = run(capsys, str(path))
    assert status == 0 and "reproduced: 10" in out
    status, out, _ = run(capsys, str(path), *machine)  # its area lies elsewhere
    assert status == 1 and "is in no area of this machine: reserved 0x50000-0x50fff" in out


#: Up to 5.12 a release does not say how much it gives back.
LOGS = [
    replay.TRANSCRIPTS / row / "walk-2-16M.jsonl.xz" for row in ("5.15", "6.1", "6.6", "6.12", "6.18", "7.2")
]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.parent.name)
def test_a_log_says_the_same_where_it_says_how_much_is_released(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = [f"[   12.345678][  T31] {line}" for line in replay.load(path).dmesg]
    pool = "[    0.000000] cma: Reserved 16 MiB at 0x0000000010000000"
    report = replayed(capsys, tmp_path, [pool, "[ 1.0] usb 1-1: new device", *log])
    assert report["events"] == report["reproduced"]
    assert int(str(report["events"])) > 150


UNCOUNTED = ("walk-1-4M", "exhaust-1-16M", "pins-1")


@pytest.mark.parametrize("row", ["4.19", "5.4", "5.10"])
def test_a_log_of_releases_without_a_number(
    row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to 5.12 a line does not say how much is given back; debugfs gives back parts of buffers."""
    for name in UNCOUNTED:
        recorded = replay.load(replay.TRANSCRIPTS / row / f"{name}.jsonl.xz")
        pools = [line for line in recorded.header["boot"] if "cma: Reserved" in line]
        report = replayed(capsys, tmp_path, [*pools, *recorded.dmesg])
        assert report["diverged"] == [] and report["events"] == report["reproduced"]
    file = tmp_path / "forged"
    walk = replay.load(replay.TRANSCRIPTS / row / "walk-1-4M.jsonl.xz").dmesg
    file.write_text("\n".join(["cma: Reserved 2 MiB at 0x0000000010000000", *walk]))
    status, out, _ = run(capsys, str(file))
    assert status == 1 and "a log does not say how much a release gives back" in out


def test_noise_does_not_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = "     kworker/0:1-17      [000] .....     2.5: mm_migrate_pages: nr_succeeded=12 nr_failed=0"
    lines = [*HEAD, *(text for line in BODY for text in (noise, line, "", "\x1b[0mcma_test-3: hello"))]
    report = replayed(capsys, tmp_path, lines)
    assert report["reproduced"] == report["events"] == 108


def test_a_forged_place_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = next(i for i, line in enumerate(BODY) if "alloc_finish" in line and "pfn=0x102f9" in line)
    lines = [*BODY]
    lines[at] = lines[at].replace("pfn=0x102f9", "pfn=0x10400")
    report = replayed(capsys, tmp_path, lines)
    first = report["diverged"][0]  # type: ignore[index]
    assert (first["line"], first["recorded"], first["simulated"]) == (at + 1, "0x10400", "0x102f9")
    assert "is free here" in first["why"]


def test_a_capture_that_begins_late(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for late in (11, 40, 101):
        file = tmp_path / "late.txt"
        file.write_text("\n".join(BODY[late:]) + "\n")
        status, out, _ = run(capsys, str(file))
        done, events = map(int, re.search(r"reproduced: (\d+) of (\d+)", out).groups())  # type: ignore[union-attr]
        assert events - done <= 6  # buffers that are never given back can only be noticed
        assert status == (done != events)


def test_pages_from_before_are_known_by_their_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [starts(1, 8), took(1, 0x10010, 8), gave(1, 0x10000, 16), starts(1, 4), took(1, 0x10000, 4)]
    assert replayed(capsys, tmp_path, lines)["reproduced"] == 3
    assert replayed(capsys, tmp_path, [took(1, 0x10010, 8)])["reproduced"] == 1  # nothing went below it
    machine = ["--arch=x86_64", "--memory=2G", "--cmdline=cma=16M@1280M"]
    report = replayed(capsys, tmp_path, [took(1, 0x50010, 8)], *machine)
    assert report["reproduced"] == 0
    assert "0x50000-0x50007 is free here; on the board it was in use or busy" in str(report["diverged"])


def test_events_lost_in_between(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = [took(1, 0x10000, 16)]
    lost = "CPU:0 [LOST 12 EVENTS]"
    after = [took(1, 0x10030, 4), gave(1, 0x10010, 32)]
    assert replayed(capsys, tmp_path, [*taken, lost, *after])["diverged"] == []
    assert (
        len(replayed(capsys, tmp_path, [*taken, gave(1, 0x10000, 16), *after[1:], *after[1:]])["diverged"])
        == 1
    )  # type: ignore[arg-type]


def test_what_happens_at_once_on_two_cpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    together = [starts(1, 16), starts(2, 8), took(2, 0x10010, 8), took(1, 0x10000, 16)]
    assert replayed(capsys, tmp_path, together)["diverged"] == []
    old = [
        line.replace("alloc_finish: name=reserved", "alloc:").replace(" errorno=0", "")
        for line in together[2:]
    ]
    assert replayed(capsys, tmp_path, old)["diverged"] == []  # no event when it begins, up to 5.12
    reused = [took(1, 0x10000, 16), took(2, 0x10000, 16), gave(1, 0x10000, 16), took(1, 0x10010, 4)]
    assert replayed(capsys, tmp_path, reused)["diverged"] == []
    alone = [line.replace("sh-2", "sh-1") for line in reused]
    assert len(replayed(capsys, tmp_path, alone)["diverged"]) > 0  # type: ignore[arg-type]


def test_busy_ranges_are_passed_over_as_on_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = [
        event(1, "alloc_busy_retry", f"pfn=0x{pfn:x} page=00000000bef1b2c1 count=16 align=4")
        for pfn in (0x10000, 0x10010)
    ]
    lines = [starts(1, 16, 4), *busy, took(1, 0x10020, 16, 4), starts(1, 4), took(1, 0x10000, 4)]
    assert replayed(capsys, tmp_path, lines)["diverged"] == []
    assert len(replayed(capsys, tmp_path, [lines[0], *lines[3:]])["diverged"]) > 0  # type: ignore[arg-type]


def test_the_name_of_an_unnamed_area_ends_in_a_newline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.replace("name=reserved", "name=cma0\n") for line in BODY]
    assert replayed(capsys, tmp_path, lines)["reproduced"] == 108


def test_what_if_the_pool_were_smaller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = replayed(capsys, tmp_path, BODY, "--size", "8M")
    assert "no room for 1024 pages in this pool: 148 pages are free" in str(report["diverged"])
    assert replayed(capsys, tmp_path, BODY, "--size", "16M")["diverged"] == []
    assert "laid out otherwise" in str(replayed(capsys, tmp_path, BODY, "--order", "4")["diverged"])


def test_the_framework_of_2010_is_another_allocator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "capture").write_text("\n".join(BODY))
    status, out, err = run(capsys, str(file), "--kernel", "2010")
    assert (status, out) == (2, "") and "the framework of 2010 has no pool of this kind" in err


def test_what_if_counts_in_pages_of_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """512 MiB are 8192 pages of 64 KiB: as many as a request of the capture asks for, and no more."""
    machine = ("--config", "CONFIG_ARM64_64K_PAGES=y", "--memory", "4G", "--cmdline", "cma=512M")
    whole = [event(1, "alloc_finish", "pfn=0xe000 page=0001 count=8192 align=0 errorno=0")]
    report = replayed(capsys, tmp_path, [*whole, took(1, 0xF000, 1)], *machine, "--size", "512M")
    assert "no room for 1 pages in this pool: 0 pages are free" in str(report["diverged"])


def test_a_log_tells_how_large_its_pages_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By an area that boot told in bytes, and a list of holes in pages: here of 64 KiB."""
    file = tmp_path / "log"
    file.write_text(
        "[    0.000000] cma: Reserved 512 MiB at 0x00000000a0000000\n"
        "[    9.000000] cma: __cma_alloc(cma 00000000d4d8e1b0, name: reserved, count 9000, align 0)\n"
        "[    9.000001] cma: number of available pages: 8192@0=> 8192 free of 8192 total pages\n"
        "[    9.000002] cma: __cma_alloc(): returned 0000000000000000\n"
    )
    status, out, _ = run(capsys, str(file))
    assert "0xa000-0xbfff, 8192 pages" in out
    assert (status, "reproduced: 1 of 1" in out) == (0, True)


def test_a_kernel_answers_with_its_own_errno(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = replayed(capsys, tmp_path, BODY, "--kernel", "7.2")
    assert "failed (-12)" in str(report["diverged"]) and "failed (-16)" in str(report["diverged"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no allocation and no release in it"),
        (b"just text\n" * 100, "no allocation and no release in it"),
        (b"\x7fELF\0cma_\0" * 100, "not text"),
        (b"\x1f\x8b\x08\0broken", "capture: "),
        (b"\xfd7zXZ\0broken", "capture: "),
        (zlib.compress(b"text" * 9, wbits=31)[:12] + b"broken", "capture: "),
        (took(1, 0x10000, 4).encode() + b"\n" + took(1, 1 << 39, 4).encode(), "16 TiB) can be simulated"),
        (took(1, 0x10000, 1 << 40).encode(), "16 TiB) can be simulated"),
        (took(1, 0, 1 << 32).encode(), "areas of 0x100000000 pages; at most 0x40000000 (4 TiB) can be"),
    ],
)
def test_what_is_no_capture_is_refused_in_one_line(
    content: bytes,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("capture").write_bytes(content)
    status, out, err = run(capsys, "capture", "--json")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and said in err
    for words in (["missing"], ["."]):
        status, out, err = run(capsys, *words)
        assert (status, out, err.count("\n")) == (2, "", 1)


def test_a_line_that_is_cut_off_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "capture.txt"
    file.write_text("\n".join(BODY)[:-20])
    status, out, _ = run(capsys, str(file))
    assert status == 0
    assert f"events are missing at 1 places, one at line {len(BODY)} that is cut off" in out


def test_neighbours_within_one_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two areas of 2 MiB beside each other, as a board with such page blocks has them."""
    second = [
        line.replace("name=reserved", "name=camera") for line in (took(2, 0x10200, 8), gave(2, 0x10200, 8))
    ]
    lines = [took(1, 0x10000, 4), *second, gave(1, 0x10000, 4)]
    report = replayed(capsys, tmp_path, lines)
    assert (report["events"], report["reproduced"]) == (4, 4)


def test_names_that_share_their_pages_are_one_area(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [took(1, 0x10000, 4), took(1, 0x10004, 4).replace("reserved", "camera"), gave(1, 0x10000, 4)]
    assert replayed(capsys, tmp_path, lines)["diverged"] == []


@pytest.mark.parametrize(
    "line",
    [
        took(1, 1 << 41, 4),
        took(1, 0x10000, 1 << 64),
        took(1, 0x10000, 4, align=64),
        took(1, 0x10000, 4).replace("count=4", f"count={'9' * 5000}"),
    ],
)
def test_a_number_that_no_kernel_prints_damages_its_line_alone(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = replayed(capsys, tmp_path, [took(1, 0x10000, 4), line, gave(1, 0x10000, 4)])
    assert (report["events"], report["reproduced"]) == (2, 2)


def test_a_release_of_pages_that_only_the_simulation_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were somebody else's on the board; the simulation chooses again, and gives nothing back twice."""
    lines = [gave(1, 0x10000, 761), starts(1, 1), gave(2, 0x10000, 1), starts(1, 512), took(1, 0x10000, 512)]
    report = replayed(capsys, tmp_path, lines)
    assert report["events"] == 3


def test_memory_does_not_grow_with_the_capture() -> None:
    def forever(n: int):  # type: ignore[no-untyped-def]
        for _ in range(n):
            yield took(1, 0x10000, 4)
            yield gave(1, 0x10000, 4)

    reader = Reader()
    assert sum(one.kind == RELEASE for one in reader.events(forever(2000))) == 2000
    assert reader._entries == []
