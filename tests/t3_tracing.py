"""The tracer's files without a mount: the ``trace`` transcripts, and answers that a running 6.18 gave.

Modules: cmafs.fs.tracefs.events.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from pathlib import Path

import pytest
from boot_support import boot, tree_of
from cma_support import Files, refused_with
from replay import boot_tables, load
from trace_support import Shell, differences, transcripts

from cmafs.abi import RELEASES, kernel_abi
from cmafs.abi.trace_event import DATA_LOC, TraceEvent, Word
from cmafs.api import Machine
from cmafs.fs.namei import O_DIRECT, O_RDONLY, O_WRONLY, Syscalls
from cmafs.fs.tracefs.root import need_memory
from cmafs.fs.tree import build_tree
from cmafs.init.task import Task
from cmafs.mm.mmzone import RepeatedEvent
from cmafs.mm.walk import migrate_pages_event
from cmafs.trace.filter import FilterError, parse_filter
from cmafs.trace.ring_buffer import RingBuffer
from cmafs.trace.tracer import Tracer

TRACING = "/sys/kernel/tracing"
ALLOC = "/sys/kernel/debug/cma/reserved/alloc"


class Traced(Files):
    """A booted machine and its tracing directory."""

    def __init__(self, kernel: str = "6.12", cmdline: str = "cma=16M", *config: str) -> None:
        super().__init__(boot(tree_of(), kernel, cmdline, config=config), TRACING)

    def alloc(self, pages: int) -> None:
        self.calls.write_file(ALLOC, f"{pages}\n".encode())

    def lines(self) -> list[str]:
        return [line for line in self.read("trace").splitlines() if not line.startswith("#")]


@pytest.fixture
def traced() -> Traced:
    return Traced()


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_transcript(path: Path) -> None:
    recorded = load(path)
    got = Shell(boot_tables(recorded.header)).run(recorded.header["script"])
    assert differences(recorded.script_output, got) == []


# filters: expression -> what the file reads then, as a running 6.18 answered

ISOLATED = TraceEvent(
    "page_isolation",
    "test_pages_isolated",
    1,
    tuple(("unsigned long", name) for name in ("start_pfn", "end_pfn", "fin_pfn")),
    '"start_pfn=0x%lx", REC->start_pfn',
)
NAMED = TraceEvent(
    "kmem", "kmem_cache_free", 2, ((DATA_LOC, "name"), ("int", "error")), '"name=%s", __get_str(name)'
)
WORD = Word(8, False)


def parse(event: TraceEvent, text: str) -> str:
    """What ``filter`` reads after a write of ``text``."""
    fields = {field.name: field for field in (*event.common(WORD), *event.own(WORD))}
    try:
        parse_filter(text, fields, kernel_abi("6.12").trace)
    except FilterError as error:
        return error.text(text)
    return text


@pytest.mark.parametrize(
    "text",
    [
        "start_pfn > 100",
        "start_pfn>0x10&&end_pfn==3",
        "start_pfn & 3",
        "!start_pfn == 1",
        "!(start_pfn == 1)",
        "start_pfn == 010",
        "common_pid == 1",
        'COMM == "sh"',
        'comm ~ "s*"',
        "CPU == 0",
        "start_pfn == 1 || (end_pfn == 2 && !(fin_pfn < 3))",
    ],
)
def test_filters_that_are_taken(text: str) -> None:
    assert parse(ISOLATED, text) == text


@pytest.mark.parametrize(
    ("event", "text", "column", "message"),
    [
        (ISOLATED, "bad == 1", 4, "Field not found"),
        (ISOLATED, "(start_pfn == 1", 0, "Too many '('"),
        (ISOLATED, "start_pfn == 1)", 14, "Too few '('"),
        (ISOLATED, 'start_pfn ~ "a"', 13, "Expecting numeric field"),
        (ISOLATED, "start_pfn == abc", 14, "Invalid value (did you forget quotes)?"),
        (ISOLATED, "start_pfn", 9, "Invalid operator"),
        (ISOLATED, "start_pfn ==", 12, "Invalid value (did you forget quotes)?"),
        (ISOLATED, "start_pfn == -1", 14, "Illegal integer value"),
        (ISOLATED, "start_pfn = 1", 11, "Invalid operator"),
        (ISOLATED, "start_pfn <> 1", 12, "Invalid value (did you forget quotes)?"),
        (ISOLATED, "start_pfn == 1 start_pfn == 2", 15, "Too many terms in predicate expression"),
        (ISOLATED, "start_pfn==1 & end_pfn==1", 13, "Too many terms in predicate expression"),
        (ISOLATED, "start_pfn == 18446744073709551616", 14, "Illegal integer value"),
        (ISOLATED, "start_pfn == 1x", 14, "Illegal integer value"),
        (ISOLATED, "start_pfn == 1 &&", 17, "Meaningless filter expression"),
        (ISOLATED, "!", 1, "No filter found"),
        (ISOLATED, "(start_pfn == 1 &&)", 18, "Too many terms in predicate expression"),
        (ISOLATED, 'start_pfn > "a"', 13, "Illegal operation for field type"),
        (ISOLATED, f"start_pfn == {'1' * 24}", 37, "Operand too long"),
        (NAMED, "name == x", 9, "Invalid value (did you forget quotes)?"),
        (NAMED, 'name > "x"', 8, "Illegal operation for field type"),
        (NAMED, 'name == "x', 8, "Missing matching quote"),
        (NAMED, "name == 1", 9, "Expecting string field"),
        (ISOLATED, "start_pfn == 1\x1c", 14, "Too many terms in predicate expression"),
    ],
)
def test_filters_that_are_refused(event: TraceEvent, text: str, column: int, message: str) -> None:
    assert parse(event, text) == f"{text}\n{' ' * column}^\nparse_error: {message}\n"


@pytest.mark.parametrize("text", ["&& start_pfn == 1", "()"])
def test_filters_refused_without_a_message(text: str) -> None:
    assert parse(ISOLATED, text) == f"{text}\nError: (0)\n"


@pytest.mark.parametrize(
    ("text", "values", "passes"),
    [
        ("error == -16 && name == 'a'", {"error": -16, "name": "a"}, True),
        ("error == -16 && name == 'a'", {"error": 0, "name": "a"}, False),
        ('error < 0 || name ~ "*b?"', {"error": 0, "name": "abc"}, True),
        ('error < 0 || name ~ "*b?"', {"error": 0, "name": "abcd"}, False),
        ("name ~ '[!x]*' && !(error > 1 && error < 9)", {"error": 5, "name": "a"}, False),
        ("name ~ '[!x]*' && !(error > 1 && error < 9)", {"error": 9, "name": "a"}, True),
        ("name != 'a' || error & 0x10", {"error": 16, "name": "a"}, True),
        ("name != 'a' || error & 0x10", {"error": 15, "name": "a"}, False),
        ("\xa0error\xa0==\v1\xa0", {"error": 1, "name": "a"}, True),  # isspace() knows Latin-1
    ],
)
def test_what_a_filter_lets_through(text: str, values: dict[str, int | str], passes: bool) -> None:
    fields = {field.name: field for field in NAMED.own(WORD)}
    assert parse_filter(text, fields, kernel_abi("6.12").trace)(values) is passes


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("ab", ["ab"], ["abc", "xab"]),
        ("ab*", ["ab", "abc"], ["xab"]),
        ("*ab", ["ab", "xab"], ["abc"]),
        ("*ab*", ["ab", "xaby"], ["ba"]),
        ("*", ["", "x"], []),
        ("**", ["", "x"], []),
        ("", [""], ["x"]),
        ("!*ab", ["abc"], ["xab"]),
        ("!", ["x"], [""]),
        ("a*b", ["ab", "axxb"], ["abc"]),
        ("a?", ["ab"], ["a", "abc"]),
        ("[z-a]*", [], ["", "a", "z"]),
        ("[]", ["[]"], [""]),
        ("[!]", ["[!]"], ["a"]),
        ("[!a-c]*", ["dog"], ["cat"]),
        ("a\\*", ["a*"], ["ab"]),
        ("1*", ["1*"], ["1", "12"]),  # MATCH_INDEX
        ("*1", ["1", "x1"], ["1x"]),
    ],
)
def test_what_a_tilde_matches(pattern: str, yes: list[str], no: list[str]) -> None:
    fields = {field.name: field for field in NAMED.own(WORD)}
    passes = parse_filter(f'name ~ "{pattern}"', fields, kernel_abi("6.12").trace)
    assert [name for name in [*yes, *no] if passes({"name": name})] == yes


@pytest.mark.parametrize(
    ("kernel", "pattern", "yes", "no"),
    [
        ("4.4", "a*b", ["a", "ab", "ac"], ["ba"]),  # the first star ends it
        ("4.4", "*a*b", ["xay"], ["b"]),
        ("4.4", "a?[b]", ["a?[b]"], ["axb"]),
        ("4.4", "1*", ["1", "12"], ["21"]),
        ("4.15", "a*b", ["ab", "axb"], ["a"]),
        ("4.19", "1*", ["1", "12"], ["1x"[::-1]]),
        ("5.4", "1*", ["1*"], ["12"]),
    ],
)
def test_what_a_tilde_matched_before(kernel: str, pattern: str, yes: list[str], no: list[str]) -> None:
    fields = {field.name: field for field in NAMED.own(WORD)}
    passes = parse_filter(f'name ~ "{pattern}"', fields, kernel_abi(kernel).trace)
    assert [name for name in [*yes, *no] if passes({"name": name})] == yes


def test_the_end_of_a_task_s_name_is_behind_its_zeros() -> None:
    passes = parse_filter('comm ~ "*sh"', {}, kernel_abi("6.12").trace)
    assert [name for name in ("sh", "x" * 13 + "sh") if passes({"comm": name})] == ["x" * 13 + "sh"]
    assert parse_filter('comm ~ "*s?"', {}, kernel_abi("6.12").trace)({"comm": "sh"})


@pytest.mark.parametrize(
    ("text", "error", "passes"),
    [
        ("error == 0x1fffffff0", -16, True),  # an int keeps 32 bits of it
        ("error > 4294967295", 0, True),
        ("error == -9223372036854775808", 0, True),
        ("common_type == 65537", 1, False),
    ],
)
def test_a_number_is_cut_to_its_field(text: str, error: int, passes: bool) -> None:
    fields = {field.name: field for field in (*NAMED.common(WORD), *NAMED.own(WORD))}
    values = {"error": error, "common_type": 2}
    assert parse_filter(text, fields, kernel_abi("6.12").trace)(values) is passes


def test_a_pattern_of_many_stars_costs_nothing() -> None:
    name = "a" * 60
    pool = 'NAME { compatible = "shared-dma-pool"; reusable; size = <0x0 0x1000000>; };'.replace("NAME", name)
    machine = boot(tree_of(pool), "6.12", "")
    calls = Syscalls(build_tree(machine))
    calls.write_file(f"{TRACING}/events/cma/cma_alloc_start/filter", b'name ~ "*a*a*a*a*a*a*a*ab"')
    calls.write_file(f"{TRACING}/events/cma/enable", b"1")
    start = time.process_time()
    calls.write_file(f"/sys/kernel/debug/cma/{name}/alloc", b"1")
    assert time.process_time() - start < 2
    assert b"cma_alloc_start" not in calls.read_file(f"{TRACING}/trace")


@pytest.mark.parametrize("pattern", ["[z-a]*", "[]", "[!]", "[", "\\", "[a-", "!", "!!", "1"])
def test_no_pattern_disturbs_an_allocation(traced: Traced, pattern: str) -> None:
    traced.write("events/cma/filter", f'name ~ "{pattern}"')
    traced.write("events/cma/enable", "1")
    traced.alloc(4)
    traced.calls.write_file(ALLOC.replace("alloc", "free"), b"4")
    assert traced.calls.read_file(ALLOC.replace("alloc", "used")) == b"32\n"  # the atomic pool's
    assert traced.calls.read_file("/sim/verify") == b"ok\n"


def test_a_bug_of_the_tracer_is_not_the_allocator_s(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Tracer, "_record", bug)
    traced.write("events/enable", "1")
    traced.calls.write_file("/sim/control", b"pin pfn %d\n" % (traced.machine.cma[0].base_pfn + 40))
    traced.alloc(100)
    assert traced.calls.read_file(ALLOC.replace("alloc", "used")) == b"132\n"
    assert traced.calls.read_file("/sim/verify") == b"internal error: see sim/log\n"
    assert b"KeyError: 'a bug'" in traced.calls.read_file("/sim/log")
    assert traced.lines() == []


def test_filter_file(traced: Traced) -> None:
    path = "events/cma/cma_alloc_start/filter"
    assert traced.read(path) == "none\n"
    traced.write("events/cma/enable", "1\n")
    traced.write(path, "count > 100\n")
    assert traced.read(path) == "count > 100\n"
    traced.alloc(100)
    traced.alloc(101)
    assert [line for line in traced.lines() if "alloc_start" in line] == [
        "              sh-38      [000] .....     0.000000: cma_alloc_start: name=reserved count=101 align=0"
    ]
    refused_with(errno.EINVAL, traced.write, path, "nope == 1\n")
    assert traced.read(path) == "nope == 1\n     ^\nparse_error: Field not found\n\n"
    assert traced.read("error_log").endswith(
        "event filter parse error: error: Field not found\n  Command: nope == 1\n                ^\n"
    )
    traced.alloc(1)  # a refused filter is no filter
    assert len([line for line in traced.lines() if "alloc_start" in line]) == 2
    traced.write(path, "0\n")
    assert traced.read(path) == "none\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("(count > 3", errno.ENOENT),
        ("count > 3)", errno.EPERM),
        ('name == "a', errno.ESRCH),
        ("count == 1 2", errno.EPERM),
        ("&& count == 1", errno.EPERM),
        ("count == 1 &&", errno.EINVAL),
        ("()", errno.EINVAL),
        ("", errno.EINVAL),
    ],
)
def test_what_a_bad_filter_is_refused_with(traced: Traced, text: str, code: int) -> None:
    refused_with(code, traced.write, "events/cma/cma_alloc_start/filter", f"{text}\n")


@pytest.mark.parametrize(
    ("config", "page"), [((), 4096), (("ARM64_16K_PAGES=y",), 16384), (("ARM64_64K_PAGES=y",), 65536)]
)
def test_the_longest_filter(config: tuple[str, ...], page: int) -> None:
    """event_filter_write(): a page holds it with its NUL."""
    traced = Traced("6.12", "cma=16M", *config)
    text = "count == 1".ljust(page - 1)
    assert traced.write("events/cma/cma_release/filter", text) == page - 1
    assert traced.read("events/cma/cma_release/filter") == "count == 1\n"
    refused_with(errno.EINVAL, traced.append, "events/cma/cma_release/filter", f"{text} ")


def test_a_ring_takes_what_is_free_beside_the_others(traced: Traced) -> None:
    tracer = Tracer(
        kernel_abi("6.12").trace, "arm64", 4096, traced.machine.log, traced.machine.current, print
    )
    memory = traced.machine.memory
    free = sum(zone.nr_free for zone in memory.zones) * 4096
    top = tracer.arrays[0].ring.size
    need_memory(traced.machine, tracer, free - top)
    refused_with(errno.ENOMEM, need_memory, traced.machine, tracer, free - top + 1)
    need_memory(traced.machine, tracer, free, tracer.arrays[0])
    refused_with(errno.ENOMEM, need_memory, traced.machine, tracer, free + 1, tracer.arrays[0])


def test_filters_keep_the_blanks_before_them(traced: Traced) -> None:
    traced.write("events/cma/cma_alloc_start/filter", "  count  ==  7  \n")
    assert traced.read("events/cma/cma_alloc_start/filter") == "  count  ==  7\n"


def test_enable_takes_decimal_numbers(traced: Traced) -> None:
    traced.write("events/cma/enable", "01\n")
    assert traced.read("events/cma/enable") == "1\n"
    refused_with(errno.EINVAL, traced.write, "events/cma/enable", "0x0\n")
    refused_with(errno.ERANGE, traced.write, "events/cma/enable", f"{1 << 64}\n")


def test_filter_of_the_group(traced: Traced) -> None:
    message = (
        "### global filter ###\n"
        "# Use this to set filters for multiple events.\n"
        "# Only events with the given fields will be affected.\n"
        "# If no events are modified, an error message will be displayed here\n"
    )
    assert traced.read("events/cma/filter") == message
    traced.write("events/cma/filter", "errorno == -12\n")
    assert traced.read("events/cma/cma_alloc_finish/filter") == "errorno == -12\n"
    assert "parse_error: Couldn't find or set field" in traced.read("events/cma/cma_release/filter")
    traced.write("events/cma/filter", "nope == 1\n")  # not refused, whoever has the field
    assert "parse_error: Couldn't find or set field" in traced.read("events/cma/cma_alloc_finish/filter")
    assert traced.read("events/cma/filter") == message
    traced.write("events/cma/filter", "0\n")
    assert traced.read("events/cma/cma_release/filter") == "none\n"


# switching events


def test_enable_files(traced: Traced) -> None:
    assert traced.read("events/enable") == "0\n"
    traced.write("events/cma/cma_release/enable", "1")
    assert traced.read("events/cma/cma_release/enable") == "1\n"
    assert traced.read("events/cma/enable") == traced.read("events/enable") == "X\n"
    traced.write("events/enable", "1\n")
    assert traced.read("events/cma/enable") == "1\n"
    for text in ("2", "x", " 1", "1\n\n"):
        refused_with(errno.EINVAL, traced.write, "events/cma/enable", text)
    assert traced.read("events/cma/enable") == "1\n"


def test_set_event(traced: Traced) -> None:
    assert traced.read("available_events").split() == [
        "migrate:mm_migrate_pages",
        "page_isolation:test_pages_isolated",
        *(f"cma:cma_{name}" for name in ("alloc_busy_retry", "alloc_finish", "alloc_start", "release")),
    ]
    traced.write("set_event", "cma:cma_release\n")
    assert traced.read("set_event") == "cma:cma_release\n"
    traced.append("set_event", "migrate\n")
    assert traced.read("set_event").split() == ["migrate:mm_migrate_pages", "cma:cma_release"]
    traced.append("set_event", "!migrate:*\n")
    assert traced.read("set_event") == "cma:cma_release\n"
    refused_with(errno.EINVAL, traced.append, "set_event", "nosuch\n")
    assert traced.append("set_event", "  cma_alloc_start cma_alloc_finish\n") == len("  cma_alloc_start ")
    for text, events in (
        ("*:cma_release", 1),
        ("cma:*", 4),
        ("cma:", 4),
        (":cma_release", 1),
        ("*:*", 6),
        ("*:", 6),
        ("cma_release", 1),
    ):
        assert traced.write("set_event", text + "\n") == len(text) + 1
        assert len(traced.read("set_event").split()) == events, text
    for text in ("migrate:cma_release", "*", "cma*", "!", "!cma:nosuch", "cma_release:", "cma:cma", "~"):
        refused_with(errno.EINVAL, traced.append, "set_event", text + "\n")
    for text, taken in (("", 0), ("\n", 1), (" \t ", 3), ("\0cma_release", 1), ("cma\0x", 4), ("cma", 3)):
        assert traced.append("set_event", text) == taken, text
    traced.write("set_event", "page_isolation:\n")
    assert traced.read("set_event") == "page_isolation:test_pages_isolated\n"
    traced.calls.close(traced.calls.open(f"{TRACING}/set_event", O_WRONLY | 0o1000))
    assert traced.read("set_event") == ""


def test_no_hook_while_nobody_listens(traced: Traced) -> None:
    assert traced.machine.cma.trace is None
    traced.write("events/cma/enable", "1")
    assert traced.machine.cma.trace is not None
    traced.write("events/cma/enable", "0")
    assert traced.machine.cma.trace is None


@pytest.mark.parametrize(
    ("event", "hooks"),
    [("cma/cma_release", "area"), ("migrate", "walks"), ("page_isolation", "walks"), (".", "area walks")],
)
def test_who_is_asked_to_tell(traced: Traced, event: str, hooks: str) -> None:
    def told() -> str:
        found = {"area": traced.machine.cma.trace, "walks": traced.machine.memory.trace}
        return " ".join(name for name, hook in found.items() if hook is not None)

    assert told() == ""
    for value, expected in (("1", hooks), ("0", "")):
        traced.write(f"events/{event}/enable", value)
        assert told() == expected
    traced.calls.mkdir(f"{TRACING}/instances/other")
    traced.write(f"instances/other/events/{event}/enable", "1")
    assert told() == hooks
    traced.calls.rmdir(f"{TRACING}/instances/other")
    assert told() == ""


@pytest.mark.parametrize(("kernel", "mode"), [("4.4", 0o40750), ("6.12", 0o40750)])
def test_an_instance_has_the_mode_of_its_directory(kernel: str, mode: int) -> None:
    traced = Traced(kernel)
    traced.calls.mkdir(f"{TRACING}/instances/mine")
    assert traced.calls.lstat(f"{TRACING}/instances").st_mode == mode
    assert traced.calls.lstat(f"{TRACING}/instances/mine").st_mode == mode


# the buffer


def test_marker_and_tracing_on(traced: Traced) -> None:
    traced.write("trace_marker", "hello")
    assert traced.write("trace_marker", "two\nlines\n") == 10
    assert traced.lines() == [
        "           <...>-38      [000] .....     0.000000: tracing_mark_write: hello",
        "           <...>-38      [000] .....     0.000000: tracing_mark_write: two",
        "lines",
    ]
    traced.write("tracing_on", "0\n")
    assert traced.read("tracing_on") == "0\n"
    refused_with(errno.EBADF, traced.write, "trace_marker", "off")
    traced.write("events/cma/enable", "1")
    traced.alloc(1)
    assert len(traced.lines()) == 3
    traced.write("tracing_on", "5")
    assert traced.read("tracing_on") == "1\n"
    refused_with(errno.EINVAL, traced.write, "tracing_on", "x")
    refused_with(errno.EINVAL, traced.calls.read_file, f"{TRACING}/trace_marker")
    assert traced.write("trace_marker", "x" * 3000) == 3000
    assert traced.write("trace_marker", "x" * 5000) == 4054  # T 6.12
    marker = traced.calls.open(f"{TRACING}/trace_marker", os.O_WRONLY)
    refused_with(errno.ESPIPE, traced.calls.lseek, marker, 0)


def test_opening_trace_for_writing_empties_it(traced: Traced) -> None:
    traced.write("trace_marker", "a")
    traced.append("trace", "")
    assert len(traced.lines()) == 1
    traced.write("trace", "\n")
    assert traced.lines() == []
    assert "entries-in-buffer/entries-written: 0/0   #P:1" in traced.read("trace")


def test_trace_pipe_consumes(traced: Traced) -> None:
    for text in "abc":
        traced.write("trace_marker", text)
    fd = traced.calls.open(f"{TRACING}/trace_pipe", O_RDONLY)
    first = traced.calls.read(fd, 20)
    rest = traced.calls.read(fd, 4096)
    assert (first + rest).decode().count("tracing_mark_write") == 3
    assert traced.calls.read(fd, 4096) == b""
    assert traced.lines() == []
    assert "entries-written: 0/0" in traced.read("trace")
    refused_with(errno.ESPIPE, traced.calls.pread, fd, 1, 0)


def test_trace_can_be_read_in_pieces(traced: Traced) -> None:
    whole = traced.read("trace").encode()
    fd = traced.calls.open(f"{TRACING}/trace", O_RDONLY)
    pieces = []
    while piece := traced.calls.read(fd, 7):
        pieces.append(piece)
    assert b"".join(pieces) == whole
    assert traced.calls.pread(fd, 6, 2) == b"tracer"


def test_who_it_was(traced: Traced) -> None:
    traced.machine.current = lambda: Task(4711, "camera-hal")
    traced.write("events/cma/enable", "1")
    traced.alloc(1)
    assert traced.lines()[0].startswith("      camera-hal-4711    [000] .....     0.000000: cma_alloc_start:")
    assert traced.read("saved_cmdlines") == "4711 camera-hal\n"
    traced.write("events/cma/filter", 'common_pid == 1 || comm == "sh"')
    traced.alloc(1)
    assert len(traced.lines()) == 2


def test_time_stamps(traced: Traced) -> None:
    clock = traced.machine.clock
    clock.advance(1_234_567_890_600)
    traced.write("trace_marker", "a")
    assert "] .....  1234.567891: tracing" in traced.lines()[0]


@pytest.mark.parametrize(
    ("kernel", "sizes"),
    [("6.12", ("103", "4099")), ("6.1.192", ("103", "4099")), ("6.1.20", ("100", "4096"))],
)
def test_buffer_size(kernel: str, sizes: tuple[str, str]) -> None:
    traced = Traced(kernel, "cma=16M trace_buf_size=4M")
    assert traced.read("buffer_size_kb") == "7 (expanded: 4096)\n"
    traced.write("events/cma/enable", "1")
    assert traced.read("buffer_size_kb") == f"{sizes[1]}\n"
    traced.write("buffer_size_kb", "100\n")
    assert traced.read("buffer_size_kb") == traced.read("buffer_total_size_kb") == f"{sizes[0]}\n"
    for text, code in (("0", errno.EINVAL), ("x", errno.EINVAL), (str(1 << 40), errno.ENOMEM)):
        refused_with(code, traced.write, "buffer_size_kb", text)
    assert traced.read("buffer_size_kb") == f"{sizes[0]}\n"


def test_the_oldest_page_is_overwritten(traced: Traced) -> None:
    traced.write("buffer_size_kb", "1")  # two pages
    record = 16 + 3 + 2  # struct print_entry, the text, newline and zero
    per_page = 4080 // (-(-record // 4) * 4 + 4)
    for index in range(3 * per_page + 1):
        traced.write("trace_marker", f"{index:03}")
    left = per_page + 1
    assert f"entries-in-buffer/entries-written: {left}/{3 * per_page + 1} " in traced.read("trace")
    assert traced.lines()[0].endswith(f" {2 * per_page:03}")
    pipe = traced.read("trace_pipe")
    assert pipe.startswith(f"CPU:0 [LOST {2 * per_page} EVENTS]\n")


@pytest.mark.parametrize("lengths", [[36], [36, 36], [60, 60, 60, 24, 51], [3000, 2000]])
@pytest.mark.parametrize("count", [0, 1, 102, 103, 5000, 40_009])
@pytest.mark.parametrize("before", [0, 1, 300])
def test_many_records_at_once_are_as_one_by_one(lengths: list[int], count: int, before: int) -> None:
    one, many = RingBuffer[int](5 * 4080), RingBuffer[int](5 * 4080)
    for ring in (one, many):
        for index in range(before):
            ring.write(0, 50, -index)
    made = []

    def group(index: int) -> list[tuple[int, int]]:
        made.append(index)
        return [(length, 10 * index + place) for place, length in enumerate(lengths)]

    for index in range(count):
        for length, record in group(index):
            one.write(0, length, record)
    made.clear()
    many.write_many(0, count, group)
    assert len(made) < 1000
    assert list(one) == list(many)
    assert (len(one), one.overrun) == (len(many), many.overrun)
    assert one.consume() == many.consume()


def test_busy_retries_near_a_pin(traced: Traced) -> None:
    traced.calls.write_file("/sim/control", b"pin pfn 0x%x\n" % (traced.machine.cma[0].base_pfn + 1000))
    traced.write("events/cma/cma_alloc_busy_retry/enable", "1")
    traced.alloc(2000)
    lines = traced.lines()
    assert len(lines) == 1001 - 32  # the first 32 pages are the atomic pool's
    first = traced.machine.cma[0].base_pfn + 32
    assert f"pfn={first:#x} " in lines[0]
    assert f"pfn={first + 968:#x} " in lines[-1]


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"cma_alloc_busy_retry": "count > 5"},
        {"cma_alloc_busy_retry": "count < 5"},
        {"cma_alloc_busy_retry": "pfn > 5000"},
        {"cma_alloc_busy_retry": "pfn & 1", "mm_migrate_pages": "failed == 0"},
        {"cma_alloc_busy_retry": "pfn & 64", "test_pages_isolated": "fin_pfn > 7000 || start_pfn == 4444"},
    ],
)
def test_events_of_many_pfns_are_as_one_call_after_the_other(filters: dict[str, str]) -> None:
    events = [
        RepeatedEvent(*migrate_pages_event(0, 1, 6), lambda _pfn: {}),
        RepeatedEvent("test_pages_isolated", {"fin_pfn": 9999}, lambda pfn: {"start_pfn": pfn, "end_pfn": 9}),
        RepeatedEvent(
            "cma_alloc_busy_retry",
            {"name": "reserved", "count": 7, "align": 0},
            lambda pfn: {"pfn": pfn, "page": pfn},
        ),
    ]
    seen = []
    for at_once in (True, False):
        traced = Traced()
        traced.write("events/enable", "1")
        traced.calls.mkdir(f"{TRACING}/instances/mine")
        traced.write("instances/mine/events/cma/enable", "1")
        traced.write("buffer_size_kb", "32")
        for name, text in filters.items():
            system = {"m": "migrate", "t": "page_isolation", "c": "cma"}[name[0]]
            traced.write(f"events/{system}/{name}/filter", text)
        trace, pfns = traced.machine.memory.trace, range(1000, 8000, 2)
        assert trace is not None
        if at_once:
            trace.repeat(pfns, events)
        else:
            for pfn in pfns:
                for name, same, others in events:
                    trace(name, {**same, **others(pfn)})
        seen.append((traced.read("trace"), traced.read("instances/mine/trace")))
    assert seen[0] == seen[1]


# instances, modes, rows


def test_instances(traced: Traced) -> None:
    traced.calls.mkdir(f"{TRACING}/instances/mine")
    refused_with(errno.EEXIST, traced.calls.mkdir, f"{TRACING}/instances/mine")
    refused_with(errno.EPERM, traced.calls.mkdir, f"{TRACING}/other")
    names = traced.calls.listdir(f"{TRACING}/instances/mine")
    assert "events" in names
    assert "available_events" not in names
    assert traced.read("instances/mine/buffer_size_kb") == "1410\n"
    traced.write("instances/mine/events/cma/enable", "1")
    assert traced.read("events/cma/enable") == "0\n"
    traced.alloc(1)
    assert traced.lines() == []
    assert traced.read("instances/mine/trace").count("cma_alloc") == 2
    traced.calls.rmdir(f"{TRACING}/instances/mine")
    assert traced.calls.listdir(f"{TRACING}/instances") == []
    assert traced.machine.cma.trace is None
    refused_with(errno.ENOENT, traced.calls.rmdir, f"{TRACING}/instances/mine")


def test_modes_and_the_second_place(traced: Traced) -> None:
    def mode(path: str) -> int:
        return traced.calls.lstat(f"{TRACING}/{path}").st_mode

    assert mode("trace") == 0o100640
    assert mode("trace_pipe") == 0o010440
    assert mode("trace_marker") == 0o100220
    assert mode("events/cma/cma_release") == 0o040755
    assert mode("instances") == 0o040750
    traced.write("trace_marker", "a")
    debug = traced.calls.read_file("/sys/kernel/debug/tracing/trace").decode()
    assert debug == traced.read("trace")
    old = Traced("5.10", "cma=16M")
    assert old.calls.lstat(f"{TRACING}/trace").st_mode == 0o100644


@pytest.mark.parametrize("dash", "_-")
def test_parameters_with_dashes(dash: str) -> None:
    """kernel/params.c:parameq()"""
    traced = Traced("6.12", f"cma=16M trace{dash}buf{dash}size=2M trace_buf_size=junk trace{dash}event=cma")
    assert len(traced.read("set_event").split()) == 4
    assert traced.read("buffer_size_kb") == "2051\n"


def test_events_from_the_command_line() -> None:
    traced = Traced("6.12", "cma=16M trace_event=cma:cma_release,migrate")
    assert traced.read("set_event").split() == ["migrate:mm_migrate_pages", "cma:cma_release"]


@pytest.mark.parametrize("kernel", list(RELEASES))
def test_every_row_writes_what_it_declares(kernel: str) -> None:
    traced = Traced(kernel, "cma=16M")
    area = traced.calls.listdir("/sys/kernel/debug/cma")[0]
    traced.write("events/cma/enable", "1")
    traced.calls.write_file(f"/sys/kernel/debug/cma/{area}/alloc", b"5\n")
    traced.calls.write_file(f"/sys/kernel/debug/cma/{area}/free", b"5\n")
    seen = {line.split(": ")[1] for line in traced.lines()}
    declared = {event.name for event in kernel_abi(kernel).trace.events if event.system == "cma"}
    assert seen == declared - {"cma_alloc_busy_retry"}
    ids = [traced.read(f"events/cma/{name}/id") for name in declared]
    assert len(set(ids)) == len(declared)
    for name in declared:
        assert f"ID: {traced.read(f'events/cma/{name}/id')}" in traced.read(f"events/cma/{name}/format")


def test_the_walk_of_alloc_contig_range(traced: Traced) -> None:
    """Pages in the window leave it in batches; then the window is tested."""
    traced.calls.write_file("/sim/control", b"spawn filler tmpfs 978M\n")
    base, taken = traced.machine.cma[0].base_pfn, 32  # the atomic pool's
    traced.write("set_event", "migrate\n")
    traced.append("set_event", "page_isolation\n")
    traced.alloc(100)
    *moved, tested = traced.lines()
    counts = [int(line.split("nr_succeeded=")[1].split()[0]) for line in moved]
    assert sum(counts) == 100
    assert counts == [32, 32, 32, 4]
    assert moved[0].endswith(
        "mm_migrate_pages: nr_succeeded=32 nr_failed=0 nr_thp_succeeded=0 nr_thp_failed=0 nr_thp_split=0 "
        "nr_split=0 mode=MIGRATE_SYNC reason=contig_range"
    )
    window = f"start_pfn={base + taken:#x} end_pfn={base + taken + 100:#x}"
    assert tested.endswith(f"test_pages_isolated: {window} fin_pfn={base + taken + 100:#x} ret=success")


def test_a_pinned_page_in_the_walk(traced: Traced) -> None:
    pfn = traced.machine.cma[0].base_pfn + 40
    traced.calls.write_file("/sim/control", b"pin pfn %d\n" % pfn)
    traced.write("set_event", "page_isolation\n")
    traced.alloc(10)
    *failed, done = (line.split("test_pages_isolated: ")[1] for line in traced.lines())
    assert failed == [
        f"start_pfn={start:#x} end_pfn={pfn + 2 + i:#x} fin_pfn={pfn:#x} ret=fail"
        for i, start in enumerate([pfn - 8] * 8 + [pfn])
    ]
    assert done.endswith(" ret=success")


def test_compaction_in_the_trace(traced: Traced) -> None:
    traced.calls.write_file("/sim/control", b"spawn a anon 3M\nspawn b anon 3M\nspawn c anon 3M\nkill b\n")
    traced.write("events/migrate/enable", "1")
    traced.calls.write_file("/proc/sys/vm/compact_memory", b"1")
    assert {line.rsplit(" ", 1)[1] for line in traced.lines()} == {"reason=compaction"}


def test_a_page_that_does_not_migrate_is_tried_five_times(traced: Traced) -> None:
    """A pinned tmpfs page in a window of full batches: what moves, then the tries of the page that fails."""
    traced.calls.write_file("/sim/control", b"spawn filler tmpfs 978M\n")
    pfn = traced.machine.cma[0].base_pfn + 40
    traced.calls.write_file("/sim/control", b"pin pfn %d\n" % pfn)
    traced.write("set_event", "migrate\n")
    traced.alloc(100)
    figures = [re.findall(r"nr_(?:succeeded|failed)=(\d+)", line) for line in traced.lines()]
    first = [tuple(map(int, found)) for found in figures][:5]
    assert first == [(31, 1), *[(0, 1)] * 4]
    assert sum(int(found[1]) for found in figures) % 5 == 0


def test_the_only_tracer_is_nop(traced: Traced) -> None:
    assert (traced.read("current_tracer"), traced.read("available_tracers")) == ("nop\n", "nop\n")
    for text in ("nop", "nop\n", "nop  \n"):
        assert traced.write("current_tracer", text) == len(text)
    for text in ("function", "", "no", "nop x", "nop~", "~nop"):
        refused_with(errno.EINVAL, traced.write, "current_tracer", text)
    for blank in " \t\n\v\f\r":  # isspace()
        assert (
            traced.write("current_tracer", f"nop{blank}")
            == traced.write("current_tracer", f"{blank}nop")
            == 4
        )


def test_a_hundred_bytes_of_a_tracer_s_name_are_looked_at(traced: Traced) -> None:
    """tracing_set_trace_write(): MAX_TRACER_SIZE, and what a NUL ends."""
    assert traced.write("current_tracer", "nop".ljust(100) + "function") == 108
    refused_with(errno.EINVAL, traced.write, "current_tracer", "nop".ljust(99) + "function")
    assert traced.write("current_tracer", "nop\0function") == 12


def test_an_instance_whose_file_is_open_stays(traced: Traced) -> None:
    """instance_rmdir(); format and id belong to the event: trace_format_open(), event_id_read()."""
    traced.calls.mkdir(f"{TRACING}/instances/mine")
    instance = f"{TRACING}/instances/mine"
    held, free = [], []
    for name in traced.calls.listdir(instance) + [f"events/cma/cma_release/{n}" for n in EVENT_FILES]:
        if stat.S_ISDIR(traced.calls.lstat(f"{instance}/{name}").st_mode):
            continue
        flags = O_RDONLY if traced.calls.lstat(f"{instance}/{name}").st_mode & 0o400 else O_WRONLY
        fds = [traced.calls.open(f"{instance}/{name}", flags) for _ in range(2)]
        if not name.endswith(("/format", "/id")):
            for fd in fds:
                refused_with(errno.EBUSY, traced.calls.rmdir, instance)
                traced.calls.close(fd)
            held.append(name)
            continue
        free.append(name)
        traced.calls.rmdir(instance)
        traced.calls.mkdir(instance)
    assert len(held) >= 12 and len(free) == 2
    refused_with(
        errno.EINVAL, traced.calls.open, f"{instance}/trace", O_RDONLY | O_DIRECT
    )  # which holds nothing
    traced.calls.rmdir(instance)
    assert traced.calls.listdir(f"{TRACING}/instances") == []


EVENT_FILES = ("enable", "filter", "format", "id")


def test_files_of_an_event(traced: Traced) -> None:
    """Of 6.12's cma_release; the ids of events follow each other as they are registered."""
    ids = {}
    for path in traced.read("available_events").split():
        ids[path] = int(traced.read(f"events/{path.replace(':', '/')}/id"))
        assert traced.read(f"events/{path.replace(':', '/')}/format").splitlines()[:2] == [
            f"name: {path.partition(':')[2]}",
            f"ID: {ids[path]}",
        ]
    assert sorted(ids.values()) == list(ids.values()) == list(dict.fromkeys(ids.values()))
    for name in ("format", "id"):
        refused_with(errno.EINVAL, traced.append, f"events/cma/cma_release/{name}", "1")


@pytest.mark.parametrize(("arch", "digits"), [("arm", 8), ("arm64", 16)])
@pytest.mark.parametrize("kernel", ["4.4", "5.10", "6.12"])
def test_a_pointer_is_as_wide_as_a_word(kernel: str, arch: str, digits: int) -> None:
    """%p, whether it is hashed or not."""
    machine = Machine.boot(kernel=kernel, arch=arch, cmdline="cma=16M")
    machine.write("/sys/kernel/debug/tracing/events/cma/enable", "1")
    (area,) = machine.listdir("/sys/kernel/debug/cma")
    machine.write(f"/sys/kernel/debug/cma/{area}/alloc", "4")
    pointer = re.search(r" page=(\w+) ", machine.read_text("/sys/kernel/debug/tracing/trace"))
    assert pointer is not None and len(pointer[1]) == digits


@pytest.mark.parametrize(("kernel", "taken"), [("5.10", False), ("6.1", True), ("6.12", True)])
def test_blanks_before_the_name_of_a_tracer(kernel: str, taken: bool) -> None:
    traced = Traced(kernel)
    assert traced.write("current_tracer", "nop \n") == 5
    if taken:
        assert traced.write("current_tracer", " nop\n") == 5
    else:
        refused_with(errno.EINVAL, traced.write, "current_tracer", " nop\n")


@pytest.mark.parametrize(("kernel", "taken"), [("6.1", 1024), ("6.6", 1024), ("6.12", 4054), ("7.2", 4054)])
def test_what_a_marker_takes(kernel: str, taken: int) -> None:
    traced = Traced(kernel)
    assert traced.write("trace_marker", "x" * 5000) == taken
    assert traced.read("trace").endswith(": " + "x" * taken + "\n")


def test_a_marker_is_shown_up_to_its_nul_and_the_newline_with_it(traced: Traced) -> None:
    traced.write("trace_marker", "a\0b\n")
    traced.write("trace_marker", "c")
    (line,) = traced.lines()
    assert re.sub(r" +\S+ +\[000\] \S+ +0\.000000", " TASK", line) == (
        " TASK: tracing_mark_write: a TASK: tracing_mark_write: c"
    )


def test_a_size_of_the_buffer_that_wraps(traced: Traced) -> None:
    """T 6.12: the largest number is no number of pages any more, and two pages are the least."""
    traced.write("buffer_size_kb", f"{(1 << 64) - 1}\n")
    assert traced.read("buffer_size_kb") == "7\n"


def test_an_error_without_words_of_its_own(traced: Traced) -> None:
    with pytest.raises(OSError):
        traced.write("events/cma/cma_release/filter", "count == 1 && == 2\n")
    assert "event filter parse error: error: Error\n" in traced.read("error_log")


def test_pages_of_64_kib_make_larger_pieces_of_the_buffer() -> None:
    traced = Traced("6.12", "cma=512M", "CONFIG_ARM64_64K_PAGES=y")
    for size, shown in (("1", 127), ("200", 255)):
        traced.write("buffer_size_kb", size)
        assert traced.read("buffer_size_kb") == f"{shown}\n"


def test_nobody_to_move_is_an_event_too(traced: Traced) -> None:
    """T 6.12: migrate_pages() is called for the end of every range."""
    traced.write("events/migrate/mm_migrate_pages/enable", "1")
    traced.alloc(1)
    (line,) = traced.lines()
    assert "nr_succeeded=0 nr_failed=0" in line


@pytest.mark.parametrize(
    ("kernel", "path", "text", "expanded"),
    [
        ("6.12", "set_event", "", False),
        ("6.12", "set_event", "!nosuch", True),
        ("6.12", "events/cma/enable", "2", True),
        ("6.12", "events/cma/enable", "x", False),
        ("6.12", "events/cma/cma_release/enable", "0", True),
        ("6.12", "events/cma/cma_release/enable", "2", False),
        ("6.1", "events/cma/cma_release/enable", "2", True),
        ("6.12", "current_tracer", "foo", True),
        ("6.12", "buffer_size_kb", "99999999999", True),
        ("6.12", "buffer_size_kb", "0", False),
        ("6.12", "tracing_on", "0", False),
        ("6.12", "trace_marker", "x", False),
        ("6.12", "events/cma/cma_release/filter", "0", False),
    ],
)
def test_what_gives_the_buffer_its_size(kernel: str, path: str, text: str, expanded: bool) -> None:
    traced = Traced(kernel)
    with contextlib.suppress(OSError):
        traced.write(path, text)
    assert ("expanded" not in traced.read("buffer_size_kb")) is expanded


def test_a_filter_is_read_at_once_or_in_part(traced: Traced) -> None:
    """T 7.2: from elsewhere than the start there is nothing to read."""
    for name in ("events/cma/filter", "events/cma/cma_release/filter"):
        fd = traced.calls.open(f"{TRACING}/{name}", O_RDONLY)
        whole = traced.read(name).encode()
        assert traced.calls.pread(fd, 100, 1) == b""
        assert (traced.calls.read(fd, 2), traced.calls.read(fd, 2)) == (whole[:2], b"")
        traced.calls.close(fd)


def test_the_error_log_of_old_kernels_has_fixed_lines() -> None:
    """T 5.10: the command is cut, with its newline, and the caret's place is a byte."""
    command = "count == 'x" + " " * 300
    with pytest.raises(OSError):
        (old := Traced("5.10")).write("events/cma/cma_release/filter", f"{command}'\n")
    (line,) = old.read("error_log").splitlines()[1:]
    assert line.startswith("  Command: count == 'x  ") and line.endswith(" ^") and "'\n" not in line
    assert line.index("^") == 254 + len("  Command: ") + 10
