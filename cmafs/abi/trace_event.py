"""What a trace event looks like: its record in the ring buffer, its ``format`` file, its line in ``trace``.

An event is written down as its fields in C and its print format; offsets follow from C's alignment, as in
``include/trace/trace_events.h``, so that both come out as the kernel's own ``format`` files have them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

#: C type -> (bytes, signed) on a 64-bit machine; pointers and ``unsigned long`` are the machine's word.
_TYPES: Mapping[str, tuple[int, bool]] = {
    "unsigned short": (2, False),
    "unsigned char": (1, False),
    "int": (4, True),
    "unsigned int": (4, False),
    "enum migrate_mode": (4, False),
    "bool": (1, False),
}
_WORD_TYPES: Mapping[str, bool] = {"unsigned long": False, "long": True, "const struct page *": False}
DATA_LOC = "__data_loc char[]"

#: The fields that every event begins with (``struct trace_entry``).
COMMON_FIELDS = (
    ("unsigned short", "common_type"),
    ("unsigned char", "common_flags"),
    ("unsigned char", "common_preempt_count"),
    ("int", "common_pid"),
)

_CONVERSION = re.compile(r"%(0x)?(l?[xud]|p|s)")
_ARGUMENT = re.compile(r"(?:REC->|__get_str\()(\w+)")
_TERNARY = re.compile(r'REC->(\w+) <= REC->(\w+) \? "(\w+)" : "(\w+)"')
_PAIR = re.compile(r'\{(-?\d+), "([^"]*)"\}')

Value = int | str


@dataclass(frozen=True)
class Word:
    """What the machine's word and ``char`` are: ``size`` in bytes (4 or 8), ``char_signed``."""

    size: int
    char_signed: bool

    @property
    def bits(self) -> int:
        """BITS_PER_LONG."""
        return 8 * self.size


@dataclass(frozen=True)
class Field:
    """``struct ftrace_event_field``: ``offset`` and ``size`` in bytes."""

    type: str
    name: str
    offset: int
    size: int
    signed: bool

    @property
    def is_string(self) -> bool:
        """Whether filters compare it as a string."""
        return self.type == DATA_LOC

    def line(self) -> str:
        """Its line in ``format``."""
        place = f"offset:{self.offset};\tsize:{self.size};\tsigned:{int(self.signed)}"
        return f"\tfield:{self.type} {self.name};\t{place};\n"


def _layout(fields: tuple[tuple[str, str], ...], word: Word, start: int) -> tuple[Field, ...]:
    """Fields at C's offsets, from byte ``start`` on."""
    laid: list[Field] = []
    offset = start
    for ctype, name in fields:
        if ctype == DATA_LOC:
            size, signed = 4, word.char_signed
        elif ctype in _WORD_TYPES:
            size, signed = word.size, _WORD_TYPES[ctype]
        else:
            size, signed = _TYPES[ctype]
        offset = -(-offset // size) * size
        laid.append(Field(ctype, name, offset, size, signed))
        offset += size
    return tuple(laid)


@dataclass(frozen=True)
class TraceEvent:
    """One tracepoint of one kernel: ``fields`` (C type, name) after the common ones, ``print_fmt`` as
    ``format`` has it.

    ``id`` is its number on the recorded kernels; elsewhere a number of ours, kept apart from the others.
    """

    system: str
    name: str
    id: int
    fields: tuple[tuple[str, str], ...]
    print_fmt: str

    def common(self, word: Word) -> tuple[Field, ...]:
        """The fields that every event has."""
        return _layout(COMMON_FIELDS, word, 0)

    def own(self, word: Word) -> tuple[Field, ...]:
        """The fields of this event."""
        return _layout(self.fields, word, 8)

    def format(self, word: Word) -> str:
        """The ``format`` file. Source: ``kernel/trace/trace_events.c:f_show()``."""
        common = "".join(field.line() for field in self.common(word))
        own = "".join(field.line() for field in self.own(word))
        return f"name: {self.name}\nID: {self.id}\nformat:\n{common}\n{own}\nprint fmt: {self.print_fmt}\n"

    @cached_property
    def text(self) -> Callable[[Mapping[str, Value]], str]:
        """Values -> the text after ``name: ``. Pointers are given as text, ready to be shown."""
        template, arguments = _split(self.print_fmt)
        python = _CONVERSION.sub(_to_python, template)
        shown = [_argument(text) for text in re.split(r", (?=REC->|__)", arguments)]
        return lambda values: python % tuple(argument(values) for argument in shown)


def _split(print_fmt: str) -> tuple[str, str]:
    """A print format's template, and the text of its arguments."""
    end = print_fmt.rindex('"', 0, print_fmt.find('", ') + 1)
    return print_fmt[1:end], print_fmt[end + 3 :]


def _argument(text: str) -> Callable[[Mapping[str, Value]], Value]:
    """One argument of a print format: a field, a symbol for its value, or a choice between two words."""
    if choice := _TERNARY.match(text):
        left, right, yes, no = choice.groups()
        return lambda values: yes if int(values[left]) <= int(values[right]) else no
    named = _ARGUMENT.search(text)
    assert named, text
    name, symbols = named[1], dict(_PAIR.findall(text))
    return lambda values: symbols.get(str(values[name]), values[name])


def _to_python(match: re.Match[str]) -> str:
    prefix, kind = match[1] or "", match[2]
    return prefix + {"x": "%x", "u": "%d", "d": "%d", "p": "%s", "s": "%s"}[kind[-1]]
