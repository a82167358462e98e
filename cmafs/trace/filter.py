"""Filter expressions of trace events: parsed and judged as ``kernel/trace/trace_events_filter.c`` does.

The messages and the places of their carets were compared with a running 6.1, 6.12 and 6.18.
"""

from __future__ import annotations

import errno
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmafs.abi.trace_event import Field, Value
from cmafs.lib.glob import Glob
from cmafs.lib.kstrtox import SPACE, c_integer, kstrtoll, kstrtoull
from cmafs.lib.printk import encode

if TYPE_CHECKING:
    from cmafs.abi.trace import TraceAbi

Predicate = Callable[[Mapping[str, Value]], bool]

TOO_MANY_OPEN = "Too many '('"
TOO_MANY_CLOSE = "Too few '('"
MISSING_QUOTE = "Missing matching quote"
FIELD_NOT_FOUND = "Field not found"
INVALID_OP = "Invalid operator"
INVALID_VALUE = "Invalid value (did you forget quotes)?"
EXPECT_STRING = "Expecting string field"
EXPECT_DIGIT = "Expecting numeric field"
ILLEGAL_FIELD_OP = "Illegal operation for field type"
ILLEGAL_INTVAL = "Illegal integer value"
TOO_MANY_PREDS = "Too many terms in predicate expression"
INVALID_FILTER = "Meaningless filter expression"
NO_FILTER = "No filter found"
OPERAND_TOO_LONG = "Operand too long"
BAD_SUBSYS_FILTER = "Couldn't find or set field in one of a subsystem's events"

#: What a write of a bad filter is refused with, if not EINVAL: ``calc_stack()``, ``predicate_parse()`` answer
#: with numbers of their own, which reach the caller as they are (compared with a running 6.1 and 6.12).
_ERRNO = {
    TOO_MANY_CLOSE: errno.EPERM,
    TOO_MANY_OPEN: errno.ENOENT,
    MISSING_QUOTE: errno.ESRCH,
    TOO_MANY_PREDS: errno.EPERM,
}
#: ``num_buf`` and ``MAX_FILTER_STR_VAL``: an operand must be shorter, in characters.
MAX_NUMBER, MAX_STRING = 24, 256

#: In the order in which they are tried: ``<=`` before ``<``.
_OPS = ("~", "!=", "==", "<=", "<", ">=", ">", "&")
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    "!=": operator.ne,
    "==": operator.eq,
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "&": lambda left, right: bool(left & right),
}
#: Fields of the task and the CPU, besides those of the event (``trace_define_generic_fields()``).
COMM_FIELDS = ("comm", "COMM")
CPU_FIELDS = ("cpu", "CPU", "common_cpu")

#: Negations and parentheses inside each other; the kernel has no such limit.
MAX_DEPTH = 64

_NAME = re.compile(r"\s*(\w*)\s*")
_NUMBER = re.compile(r"-?[0-9A-Za-z]*")
_DIGITS = frozenset("0123456789")

#: ``current->comm`` less its last zero: what is compared of it.
_COMM_LEN = 15


class FilterError(ValueError):
    """What is wrong with a filter: ``message`` (None: the kernel gives none), ``pos`` where in the text,
    ``errno`` for who wrote it.
    """

    def __init__(self, message: str | None, pos: int, code: int = errno.EINVAL) -> None:
        super().__init__(message)
        self.message = message
        self.pos = pos
        self.errno = _ERRNO.get(message or "", code)

    def text(self, expression: str) -> str:
        """What the ``filter`` file then reads. Source: ``append_filter_err()``."""
        if self.message is None:
            return f"{expression}\nError: (0)\n"
        caret = " " * min(self.pos, len(expression)) + "^"
        return f"{expression}\n{caret}\nparse_error: {self.message}\n"


@dataclass(eq=False)
class _Parser:
    """Position in the text, and what a field name means; ``nr_preds`` predicates may still come."""

    text: str
    fields: Mapping[str, Field]
    abi: TraceAbi
    nr_preds: int
    pos: int = 0
    depth: int = 0
    parsed: int = 0

    def skip_space(self) -> str:
        """The next character that is not blank, '' at the end."""
        rest = self.text[self.pos :].lstrip(SPACE)
        self.pos = len(self.text) - len(rest)
        return rest[:1]

    def any_of(self) -> Predicate:
        """Terms joined by ``||``."""
        terms = [self.all_of()]
        while self.joined("||"):
            terms.append(self.all_of())
        return terms[0] if len(terms) == 1 else lambda values: any(term(values) for term in terms)

    def all_of(self) -> Predicate:
        """Terms joined by ``&&``."""
        terms = [self.term()]
        while self.joined("&&"):
            terms.append(self.term())
        return terms[0] if len(terms) == 1 else lambda values: all(term(values) for term in terms)

    def joined(self, by: str) -> bool:
        """Whether another term follows."""
        char = self.skip_space()
        if not self.text.startswith(("&&", "||"), self.pos) and char not in ("", ")"):
            raise FilterError(TOO_MANY_PREDS, self.pos)
        if not self.text.startswith(by, self.pos):
            return False
        self.pos += len(by)
        return True

    def term(self) -> Predicate:
        """A predicate, a negation or a parenthesis."""
        char = self.skip_space()
        if not char:
            raise FilterError(INVALID_FILTER if self.parsed else NO_FILTER, self.pos)
        if char not in ("!", "(") or self.text.startswith(("!=", "!~"), self.pos):
            return self.predicate()
        if self.depth == MAX_DEPTH:
            raise FilterError(None, self.pos)
        self.pos += 1
        self.depth += 1
        inner = self.term() if char == "!" else self.any_of()
        self.depth -= 1
        if char == "!":
            return lambda values: not inner(values)
        self.skip_space()
        self.pos += 1  # balanced: checked before
        return inner

    def predicate(self) -> Predicate:
        """``parse_pred()``: a field, an operator, a value."""
        if self.parsed == self.nr_preds:
            raise FilterError(TOO_MANY_PREDS, self.pos)
        self.parsed += 1
        # the kernel reports places in a predicate one to the right
        match = _NAME.match(self.text, self.pos)
        assert match
        name = match[1]
        if not name:
            raise FilterError(None, self.pos, errno.EPERM)
        if name not in self.fields and name not in (*COMM_FIELDS, *CPU_FIELDS):
            raise FilterError(FIELD_NOT_FOUND, match.end(1) + 1)
        self.pos = match.end()
        op = next((op for op in _OPS if self.text.startswith(op, self.pos)), None)
        if op is None:
            raise FilterError(INVALID_OP, self.pos + 1)
        self.pos += len(op)
        char = self.skip_space()
        if char in ("'", '"'):
            return self.string_predicate(name, op, char)
        if char in _DIGITS or char == "-":
            return self.number_predicate(name, op)
        raise FilterError(INVALID_VALUE, self.pos + 1)

    def string_predicate(self, name: str, op: str, quote: str) -> Predicate:
        """A field against a quoted string."""
        start = self.pos + 1
        end = self.text.index(quote, start)
        field = self.fields.get(name)
        if op not in ("~", "==", "!="):
            raise FilterError(ILLEGAL_FIELD_OP, start)
        if name in CPU_FIELDS or (field and not field.is_string):
            raise FilterError(EXPECT_DIGIT, start)
        if end - start >= MAX_STRING:
            raise FilterError(OPERAND_TOO_LONG, end + 1)
        self.pos = end + 1
        wanted = self.text[start:end]
        if op != "~":
            return lambda values: (_chars(values[name]) == wanted) == (op == "==")
        matches, inverted = filter_build_regex(wanted, self.abi, name in COMM_FIELDS)
        return lambda values: matches(_chars(values[name])) != inverted

    def number_predicate(self, name: str, op: str) -> Predicate:
        """A field against an integer."""
        match = _NUMBER.match(self.text, self.pos)
        assert match
        field = self.fields.get(name)
        if name in COMM_FIELDS or (field and field.is_string):
            raise FilterError(EXPECT_STRING, self.pos + 1)
        if op == "~":
            raise FilterError(ILLEGAL_FIELD_OP, self.pos + 1)
        if len(match[0]) >= MAX_NUMBER:
            raise FilterError(OPERAND_TOO_LONG, match.end() + 1)
        bits, signed = (8 * field.size, field.signed) if field else (32, True)
        try:
            number = kstrtoll(match[0]) if signed else kstrtoull(match[0])
        except OSError:
            raise FilterError(ILLEGAL_INTVAL, self.pos + 1) from None
        self.pos = match.end()
        compare, kept = _COMPARE[op], c_integer(number, bits, signed)
        return lambda values: compare(int(values[name]), kept)


def _chars(value: Value) -> str:
    """A string field as filters see it: a character a byte."""
    text = str(value)
    return text if text.isascii() else encode(text).decode("latin-1")


def filter_build_regex(pattern: str, abi: TraceAbi, comm: bool) -> tuple[Callable[[str], bool], bool]:
    """What ``~`` compares a string with, and whether ``!`` before the pattern inverts it.

    Stars at its ends alone make a comparison with the start, the middle or the end of the string; anything
    else that is special makes a glob, if this kernel has them: before, a star ended the pattern.
    ``comm``: the string is a task's name, whose end is looked for behind the zeros that fill it.
    Source: ``filter_parse_regex()``, ``filter_build_regex()``, ``regex_match_end()@v4.18, v5.10``.
    """
    inverted = pattern.startswith("!")
    pattern = pattern[inverted:]
    if abi.filter_index and pattern[:1] in _DIGITS:
        return pattern.__eq__, inverted
    if not abi.filter_globs:  # up to the first star behind the first character
        pattern = pattern[: pattern.find("*", 1) + 1 or None]
    elif "*" in pattern[1:-1] or not {"[", "?", "\\"}.isdisjoint(pattern):
        return Glob(pattern).match, inverted
    first, last = pattern.startswith("*"), pattern.endswith("*", 1)
    wanted = pattern[first : len(pattern) - last]
    if first and last:
        return lambda text: wanted in text, inverted
    if last:
        return lambda text: text.startswith(wanted), inverted
    if first:
        return lambda text: (text.ljust(_COMM_LEN, "\0") if comm else text).endswith(wanted), inverted
    return wanted.__eq__, inverted


def calc_stack(text: str) -> int:
    """Quotes and parentheses, before anything else is looked at; how many predicates there may be."""
    open_at: list[int] = []
    quote_at: int | None = None
    for i, char in enumerate(text):
        if quote_at is not None:
            quote_at = None if char == text[quote_at] else quote_at
        elif char in ("'", '"'):
            quote_at = i
        elif char == "(":
            open_at.append(i)
        elif char == ")":
            if not open_at:
                raise FilterError(TOO_MANY_CLOSE, i)
            open_at.pop()
    if quote_at is not None:
        raise FilterError(MISSING_QUOTE, quote_at)
    if open_at:
        raise FilterError(TOO_MANY_OPEN, open_at[-1])
    unquoted = re.sub(r"\"[^\"]*\"|'[^']*'", "x", text)
    return sum(bool(part.strip(SPACE)) for part in re.split(r"&&|\|\||[()]", unquoted))


def parse_filter(text: str, fields: Mapping[str, Field], abi: TraceAbi) -> Predicate:
    """``process_preds()``: the expression as a function of an event's values. Raises FilterError."""
    nr_preds = calc_stack(text)
    if not nr_preds:
        raise FilterError(None, 0)
    return _Parser(text, fields, abi, nr_preds).any_of()
