"""Random operations on the tracer's files, and what of their answers is compared (`CONFIG=tiny+tracing`).

Only what cmafs has is asked: not the groups ``migrate`` and all, which have more events in a kernel, and no
numbers of events, which follow from all those that a kernel was built with.
"""

from __future__ import annotations

import random
import re

from cmafs.replay.transcript import Operation

#: The configuration's fragment that brings it.
FRAGMENT = "tracing"
TRACING = "/sys/kernel/debug/tracing"
_EVENTS = (
    "cma_alloc_start", "cma_alloc_finish", "cma_alloc_busy_retry", "cma_release",
)  # fmt: skip
_EVENT_FILES = (
    *(f"cma/{name}" for name in _EVENTS), "cma", "migrate/mm_migrate_pages",
    "page_isolation/test_pages_isolated",
)  # fmt: skip
_SWITCHES = (
    "1\n", "1\n", "1\n", "0\n", "0\n", "1", "2\n", "-1\n", "+1\n", " 1\n", "1 \n", "01\n", "0x1\n",
    "x\n", "", "\n", "1 1\n", "1\0", "18446744073709551616\n", "18446744073709551617\n",
)  # fmt: skip
_SET_EVENT = (
    "cma:*\n", "cma:\n", "cma\n", "cma:cma_alloc_start\n", "cma_release\n", "!cma_release\n",
    "!cma:*\n", "!cma\n", "nosuch\n", "cma:nosuch\n", "nosuch:*\n", "", "\n", " \n", "!\n", "!nosuch\n",
    "cma:cma_release cma:cma_alloc_start\n", " cma:cma_release\n",
    "cma:cma_release\n!cma:cma_release\n", "page_isolation:*\n", "cma:cma_*\n", "cma:*release\n",
    "cma:*", "cma_alloc_finish", "*:cma_release\n", ":cma_release\n", "cma:cma_release:x\n", "CMA:*\n",
    "c*:cma_release\n", "cma:cma_alloc_start\0", "migrate:mm_migrate_pages\n", "cma,cma_release\n",
    "x" * 130 + "\n",
)  # fmt: skip
_SIZES = (
    "64\n", "1\n", "0\n", "7\n", "1408\n", "4\n", "5\n", "-1\n", "x\n", "", "8 \n", "010\n", "0x10\n",
    "18446744073709551615\n", "99999999999\n", "3", "500\n",
)  # fmt: skip
_MARKS = (
    "hello\n", "hello", "", "\n", "a\nb\n", "a\n\n", "tab\there\n", "\0", "a\0b\n", "x" * 1000 + "\n",
    "y" * 1500 + "\n", "z" * 5000, "ÿ\n", "%d %s\n", " \n",
)  # fmt: skip
_TRACERS = (
    "nop\n", "nop", " nop\n", "nop \n", "nop x\n", "", "\n", "function\n", "foo", "NOP\n",
)  # fmt: skip

_FIELDS = (
    "name", "count", "align", "pfn", "page", "errorno", "common_pid", "common_type", "common_flags",
    "comm", "COMM", "cpu", "CPU", "common_cpu", "nosuch", "start_pfn", "end_pfn", "fin_pfn",
    "succeeded", "failed", "mode", "reason", "",
)  # fmt: skip
_OPS = (
    "==", "!=", "<", "<=", ">", ">=", "&", "~", "=", "<>", "!", "!~", "=~", "===", "",
)  # fmt: skip
_VALUES = (
    "0", "1", "4", "10", "0x10", "010", "-1", "-", "+1", "1x", "99999999999999999999",
    "18446744073709551615", "4294967296", "-9223372036854775808", "123456789012345678901234",
    "'reserved'", '"reserved"', "'res*'", "'*erv*'", "'r?s*'", "'[a-z]*'", "'*'", "''", "reserved",
    "'init'", '"x', "'", "'!res*'", "'a' 'b'", "1 2", "x", "name", "\\", "'" + "n" * 260 + "'",
)  # fmt: skip
#: Instead of an expression; not "none", which clears a filter here (docs/exceptions.md).
_TEXTS = ("0", "", " ", "1", "\n", "0 ", "00", "()", "(", ")", "!", "a", "name", "name ==", "== 1")
#: Around a text: nothing most of the time.
_FRAMES = (
    "{}", "{}", "{}", "{}", "({})", "!({})", "!{}", "(({}))", "({}", "{})", " {} ", "{}\n", "{} x",
    "!!{}", "{}()", "({}))",
)  # fmt: skip
_JOINS = (
    " && ", "||", "&&", " || ", " & ", " | ", " and ", "&&&&", " && && ", ") && (",
)  # fmt: skip


def _term(rng: random.Random) -> str:
    space = rng.choice(("", "", " ", "  "))
    good = rng.random() < 0.7
    field = rng.choice(_FIELDS[:5] if good else _FIELDS)
    op = rng.choice(_OPS[:7] if good else _OPS)
    value = rng.choice(
        ("'reserved'", "'res*'", '"x"') if field == "name" and good else _VALUES[:7] if good else _VALUES
    )
    if field == "name" and good:
        op = rng.choice(("==", "!=", "~"))
    return rng.choice(_FRAMES).format(f"{field}{space}{op}{space}{value}")


def expression(rng: random.Random) -> str:
    """A filter, right or wrong in one of many ways."""
    text = _term(rng)
    while rng.random() < 0.35:
        text = rng.choice(_FRAMES).format(
            text + rng.choice(_JOINS if rng.random() < 0.3 else _JOINS[:4]) + _term(rng)
        )
    special = rng.random()
    if special < 0.08:
        text = rng.choice(_TEXTS)
    elif special < 0.12:
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice("()!&|'\"~ =x0\t\0") + text[place:]
    return text + rng.choice(("\n", "\n", "\n", ""))


def _write(path: str, text: str, kind: str = "W") -> Operation:
    return {"op": kind, "path": path, "data": text}


def _read(path: str) -> Operation:
    return {"op": "R", "path": path}


def _switch(rng: random.Random, path: str) -> list[Operation]:
    return [_write(path, rng.choice(_SWITCHES), rng.choice("WWA")), _read(path)]


def _enable(rng: random.Random, _place: str, event: str) -> list[Operation]:
    return _switch(rng, f"{event}/enable")


def _set_event(rng: random.Random, place: str, _event: str) -> list[Operation]:
    path = f"{place}/set_event"
    return [_write(path, rng.choice(_SET_EVENT), rng.choice("AAW")), _read(path)]


def _filter(rng: random.Random, place: str, event: str) -> list[Operation]:
    found = [_write(f"{event}/filter", expression(rng), rng.choice("WWA")), _read(f"{event}/filter")]
    return [*found, _read(f"{place}/error_log")] if rng.random() < 0.3 else found


def _tracing_on(rng: random.Random, place: str, _event: str) -> list[Operation]:
    return _switch(rng, f"{place}/tracing_on")


def _size(rng: random.Random, place: str, _event: str) -> list[Operation]:
    read = [_read(f"{place}/buffer_size_kb"), _read(f"{place}/buffer_total_size_kb")]
    return [_write(f"{place}/buffer_size_kb", rng.choice(_SIZES)), *read] if rng.random() < 0.7 else read


def _mark(rng: random.Random, place: str, _event: str) -> list[Operation]:
    return [_write(f"{place}/trace_marker", rng.choice(_MARKS), rng.choice("WA"))]


def _trace(rng: random.Random, place: str, _event: str) -> list[Operation]:
    path = f"{place}/trace"
    empty = [_write(path, rng.choice(("", "x", "\n")), rng.choice("WA"))] if rng.random() < 0.3 else []
    return [*empty, _read(path)]


def _instance(rng: random.Random, _place: str, _event: str) -> list[Operation]:
    path = f"{TRACING}/instances/{rng.choice(('one', 'one', 'two', 'a b', 'one/x', '.'))}"
    return [{"op": rng.choice("MMD"), "path": path}, {"op": "L", "path": f"{TRACING}/instances"}]


def _tracer(rng: random.Random, place: str, _event: str) -> list[Operation]:
    path = f"{place}/{rng.choice(('current_tracer', 'available_tracers'))}"
    return [_write(path, rng.choice(_TRACERS)), _read(path)]


def _file(rng: random.Random, place: str, event: str) -> list[Operation]:
    path = rng.choice(
        (f"{event}/enable", f"{event}/filter", f"{event}/format", event, place,
         *(f"{place}/{name}" for name in ("set_event", "tracing_on", "trace", "trace_marker", "error_log",
                                          "buffer_size_kb")))
    )  # fmt: skip
    kind = rng.choice("BPSSRKTUMDC2AW")
    inputs: dict[str, Operation] = {
        "B": {"k": rng.choice((1, 2, 7, 64))},
        "P": {"off": rng.choice((0, 1, 5, 100))},
        "T": {"len": rng.choice((0, 10))},
        "C": {"mode": rng.choice(("0644", "0400"))},
        "2": {"a": rng.choice(_SWITCHES), "b": rng.choice(_SWITCHES)},
        "A": {"data": rng.choice(_SWITCHES)},
        "W": {"data": rng.choice(_SWITCHES)},
    }
    if kind in "BP" and path.endswith(("/trace", "/error_log", "/format")):
        kind = "R"  # what is masked there has no fixed length
    return [{"op": kind, "path": path, **inputs.get(kind, {})}]


_KINDS = (
    (20, _enable), (12, _set_event), (30, _filter), (6, _tracing_on), (6, _size), (8, _mark), (14, _trace),
    (6, _instance), (3, _tracer), (8, _file),
)  # fmt: skip


def operations(rng: random.Random) -> list[Operation]:
    """A few operations that belong together."""
    place = TRACING if rng.random() < 0.8 else f"{TRACING}/instances/one"
    weights, makers = zip(*_KINDS, strict=True)
    return rng.choices(makers, weights)[0](rng, place, f"{place}/events/{rng.choice(_EVENT_FILES)}")


# what is compared

_MASKS = (
    (re.compile(r" *\S+-\d+ +\[\d{3}\] \S+ +\d+\.\d{6}: "), " TASK: "),
    (re.compile(r"page=(\(_*ptrval_*\)|(0x)?[0-9a-f]+)"), "page=P"),
    (re.compile(r"^\[ *\d+\.\d{6}\] (?=event filter parse error: )", re.MULTILINE), "[TIME] "),
    (re.compile(r"^ID: \d+$", re.MULTILINE), "ID: N"),
    # a page of the recorder's own may lie in an area
    (re.compile(r"nr_succeeded=\d+"), "nr_succeeded=N"),
    # how far the free block behind the range reaches: its end may rest on a per-CPU list (docs/exceptions.md)
    (re.compile(r"fin_pfn=\S+ ret=success"), "fin_pfn=F ret=success"),
)


def comparable(op: Operation, outcome: Operation) -> Operation:
    """An outcome without task, time and pointers; the size and the links of a directory follow from the rest
    of that kernel.
    """
    if not op["path"].startswith(TRACING):
        return outcome
    if op["op"] == "S":
        return {name: value for name, value in outcome.items() if name not in ("nlink", "size")}
    text = outcome.get("out")
    if not isinstance(text, str):
        return outcome
    for mask, to in _MASKS:
        text = mask.sub(to, text)
    return {**outcome, "out": text}
