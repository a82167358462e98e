"""Queries that switch pr_debug() call sites, as ``lib/dynamic_debug.c`` parses them."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cmafs.abi.printk import DebugSite
from cmafs.lib.glob import match_wildcard
from cmafs.lib.kstrtox import SPACE, kstrtoul, simple_strtoull
from cmafs.lib.printk import LOGLEVEL_ERR, Printk

#: ``ddebug_exec_query()``: words of one query.
_MAXWORDS = 9

#: Directories in the order in which the kernel's Makefile links them.
_LINK_ORDER = ("kernel", "mm", "drivers")

_UINT_MAX = (1 << 32) - 1
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|([nrtvf])|([\"\\ae]))")
_SPACE_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "v": "\v", "f": "\f"}
_SPECIAL_ESCAPES = {'"': '"', "\\": "\\", "a": "\a", "e": "\033"}


class QueryError(OSError):
    """EINVAL: a query that is not understood; ``lines``: what the kernel logs about it, innermost first."""

    def __init__(self, *lines: tuple[str, str]) -> None:
        super().__init__(errno.EINVAL, lines[0][1])
        self.lines = lines


@dataclass(eq=False)
class Query:
    """``struct ddebug_query``: what a call site must match; None and 0 match everything."""

    filename: str | None = None
    module: str | None = None
    function: str | None = None
    format: str | None = None
    klass: str | None = None
    first_lineno: int = 0
    last_lineno: int = 0

    def set(self, keyword: str, value: str) -> None:
        """``check_set()``: each keyword once. Raises QueryError."""
        if getattr(self, keyword) is not None:
            name = {"filename": "file", "function": "func", "klass": "class"}.get(keyword, keyword)
            text = f"match-spec:{name} val:{getattr(self, keyword)} overridden by {value}"
            raise QueryError(("check_set", text))
        setattr(self, keyword, value)

    def set_lines(self, text: str) -> None:
        """``parse_linerange()``: ``N``, ``N-``, ``-M`` or ``N-M``. Raises QueryError."""
        if self.first_lineno or self.last_lineno:
            raise QueryError(("parse_linerange", "match-spec: line used 2x"))
        first, dash, last = text.partition("-")
        self.first_lineno = _lineno(first)
        if not dash:
            self.last_lineno = self.first_lineno
            return
        self.last_lineno = _lineno(last) or _UINT_MAX
        if self.last_lineno < self.first_lineno:
            text = f"last-line:{self.last_lineno} < 1st-line:{self.first_lineno}"
            raise QueryError(("parse_linerange", text))

    def matches(self, site: DebugSite) -> bool:
        """Whether a call site is meant: the filter of ``ddebug_change()``; none of ours is of a class."""
        name = site.filename
        return (
            self.klass is None
            and _meant(self.module, site.module)
            and (_meant(self.filename, name) or _meant(self.filename, name.split("/")[-1]))
            and _meant(self.function, site.function)
            and (self.format is None or self._matches_format(site.format + "\n"))
            and self.first_lineno <= site.lineno <= (self.last_lineno or _UINT_MAX)
        )

    def _matches_format(self, text: str) -> bool:
        assert self.format is not None
        if self.format.startswith("^"):
            return text.startswith(self.format[1:])
        return self.format in text


def _meant(pattern: str | None, text: str) -> bool:
    return pattern is None or match_wildcard(pattern, text)


def _lineno(text: str) -> int:
    """``parse_lineno()``: 0 for nothing. Raises QueryError."""
    try:
        return kstrtoul(text, 10, bits=32) if text else 0
    except OSError:
        raise QueryError(("parse_lineno", f"bad line-number: {text}")) from None


def unescape(text: str) -> str:
    """``string_unescape_inplace()`` with blanks, octal numbers and special characters."""

    def one(match: re.Match[str]) -> str:
        octal, space, special = match.groups()
        if octal is not None:
            return chr(simple_strtoull(octal, 8)[0] & 0xFF)
        return _SPACE_ESCAPES[space] if space else _SPECIAL_ESCAPES[special]

    return _ESCAPE.sub(one, text)


def tokenize(text: str) -> list[str]:
    """``ddebug_tokenize()``: words at blanks or in quotes, up to a ``#``. Raises QueryError."""
    words: list[str] = []
    while (text := text.lstrip(SPACE)) and not text.startswith("#"):
        if text[0] in "\"'":
            word, quote, text = text[1:].partition(text[0])
            if not quote:
                raise QueryError(("ddebug_tokenize", f"unclosed quote: {word}"))
        else:
            found = re.match(r"[^ \t\n\v\f\r]+", text)
            assert found is not None
            word, text = found[0], text[found.end() + 1 :]
        if len(words) == _MAXWORDS:
            raise QueryError(("ddebug_tokenize", f"too many words, legal max <={_MAXWORDS}"))
        words.append(word)
    return words


class DynamicDebug:
    """The call sites of one machine and the queries that switch them."""

    def __init__(self, log: Printk) -> None:
        self._log = log
        self._letters = log.abi.dyndbg_flags

    def exec_queries(self, text: str, module: str | None = None) -> None:
        """``ddebug_exec_queries()``: queries between ``;`` and newlines.

        Every query is tried. Raises EINVAL if one was wrong, after its lines went to the log.
        """
        failed = False
        for query in re.split("[;\n]", text):
            query = query.lstrip(SPACE)
            if not query or query.startswith("#"):
                continue
            try:
                self._exec_query(query, module)
            except QueryError as error:
                failed = True
                for function, line in error.lines:
                    self._log.printk(self.prefix(function) + line, LOGLEVEL_ERR)
        if failed:
            raise OSError(errno.EINVAL, "bad dynamic debug query")

    def describe_flags(self, flags: int) -> str:
        """The letters of a call site's flags, ``_`` for none: ``ddebug_describe_flags()``."""
        return "".join(letter for bit, letter in enumerate(self._letters) if flags >> bit & 1) or "_"

    def control(self) -> str:
        """The text of the control file: ``ddebug_proc_show()``."""
        lines = ["# filename:lineno [module]function flags format\n"]
        for site in self._listed():
            flags = self._log.debug_flags[site]
            text = site.format + ("\\012" if self._log.abi.dyndbg_octal else "\\n")
            where = f"{site.filename}:{site.lineno} [{site.module}]{site.function}"
            lines.append(f'{where} ={self.describe_flags(flags)} "{text}"\n')
        return "".join(lines)

    def _listed(self) -> list[DebugSite]:
        """The call sites as the control file lists them: file by file in the order of linking."""
        abi = self._log.abi
        sites = sorted(self._log.debug_flags, key=lambda site: site.lineno, reverse=not abi.dyndbg_walks_back)
        linked = {name: _LINK_ORDER.index(name.split("/")[0]) for name in {s.filename for s in sites}}
        sites.sort(key=lambda s: (linked[s.filename], s.filename), reverse=abi.dyndbg_newest_first)
        return sites

    def boot_params(self, words: Iterable[tuple[str, str | None]]) -> None:
        """``dyndbg=`` and ``<module>.dyndbg=`` of the command line; a query that is wrong is only logged.

        Source: ``lib/dynamic_debug.c:ddebug_dyndbg_boot_param_cb()``.
        """
        for name, value in words:
            module, dot, parameter = name.rpartition(".")
            if parameter != "dyndbg":
                continue
            try:
                self.exec_queries("+p" if value is None else value, module if dot else None)
            except OSError:
                continue

    def prefix(self, function: str) -> str:
        """What stands before a message of a function of lib/dynamic_debug.c."""
        return f"dynamic_debug:{function}: " if self._log.abi.dyndbg_names_function else "dyndbg: "

    def _exec_query(self, text: str, module: str | None) -> None:
        try:
            words = tokenize(text)
        except QueryError as error:
            raise QueryError(*error.lines, ("ddebug_exec_query", "tokenize failed")) from None
        try:
            mask, flags = self._parse_flags(words[-1])
        except QueryError as error:
            raise QueryError(*error.lines, ("ddebug_exec_query", "flags parse failed")) from None
        try:
            query = self._parse_query(words[:-1], module)
        except QueryError as error:
            raise QueryError(*error.lines, ("ddebug_exec_query", "query parse failed")) from None
        self._change(query, mask, flags)

    def _parse_flags(self, text: str) -> tuple[int, int]:
        """``ddebug_parse_flags()``: (mask to keep, flags to add)."""
        operator, letters = text[:1], text[1:]
        if operator not in ("+", "-", "="):
            line = f"bad flag-op {operator}, at start of {text}"
            raise QueryError(("ddebug_parse_flags", line))
        flags = 0
        for letter in letters:
            if letter != "_" and letter not in self._letters:
                line = f"unknown flag '{letter}'"
                raise QueryError(("ddebug_parse_flags", line))
            flags |= 0 if letter == "_" else 1 << self._letters.index(letter)
        return {"=": (0, flags), "+": (~0, flags), "-": (~flags, 0)}[operator]

    def _parse_query(self, words: list[str], module: str | None) -> Query:
        """``ddebug_parse_query()``: pairs of a keyword and what it must match."""
        query = Query(module=module)
        if len(words) % 2:
            raise QueryError(("ddebug_parse_query", "expecting pairs of match-spec <value>"))
        for keyword, value in zip(words[::2], words[1::2], strict=True):
            if keyword == "file":
                self._parse_file(query, value)
            elif keyword == "line":
                query.set_lines(value)
            elif keyword in ("func", "module", "format") or (
                keyword == "class" and self._log.abi.dyndbg_class
            ):
                field = {"func": "function", "class": "klass"}.get(keyword, keyword)
                query.set(field, unescape(value) if keyword == "format" else value)
            else:
                raise QueryError(("ddebug_parse_query", f'unknown keyword "{keyword}"'))
        return query

    def _parse_file(self, query: Query, value: str) -> None:
        name, colon, tail = value.partition(":") if self._log.abi.dyndbg_file_tail else (value, "", "")
        query.set("filename", value)  # as it was written, for the message
        query.filename = name
        if not colon:
            return
        if tail[:1].isalpha() or tail[:1] in ("*", "?"):
            query.set("function", tail)
        else:
            query.set_lines(tail)

    def _change(self, query: Query, mask: int, flags: int) -> None:
        for site in self._log.debug_flags:
            if query.matches(site):
                self._log.debug_flags[site] = self._log.debug_flags[site] & mask | flags
