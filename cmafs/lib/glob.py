"""Wildcard patterns, as ``lib/glob.c:glob_match()`` and ``lib/parser.c:match_wildcard()`` match them.

Neither refuses a pattern, and neither ever goes back further than to the last ``*``: a match costs at most
the length of the pattern times that of the text.
"""

from __future__ import annotations

from collections.abc import Iterator

#: What takes one character: the spans (first, last) that it takes, or all but those if it is inverted.
CharClass = tuple[bool, tuple[tuple[str, str], ...]]
#: One part of a pattern; None is ``*``.
Token = CharClass | None

_ANY: CharClass = (True, ())


def _takes(token: CharClass, char: str) -> bool:
    inverted, spans = token
    return any(low <= char <= high for low, high in spans) != inverted


def _unmatched(tokens: tuple[Token, ...], text: str) -> tuple[Token, ...] | None:
    """What is left of a pattern where the text ends; None if the text does not match."""
    at, place = 0, 0
    back: tuple[int, int] | None = None  # the part behind the last star, and where it is tried
    while place < len(text):
        token = tokens[at] if at < len(tokens) else ()
        if token is None:
            at += 1
            if at == len(tokens):
                break
            back = at, place
        elif token and _takes(token, text[place]):
            at, place = at + 1, place + 1
        elif back is None:
            return None
        else:
            at, place = back = back[0], back[1] + 1
    return tokens[at:]


def _char_class(pattern: str, at: int) -> tuple[CharClass, int] | None:
    """The class whose bracket opens before ``at``, and where it ends; None if nothing closes it.

    Its first character may be a closing bracket. A span that runs backwards takes nothing.
    """
    inverted = pattern.startswith("!", at)
    at += inverted
    spans: list[tuple[str, str]] = []
    while not spans or not pattern.startswith("]", at):
        low, dash, high = pattern[at : at + 1], pattern[at + 1 : at + 2], pattern[at + 2 : at + 3]
        if dash != "-" or high == "]":
            dash, high = "", low
        if not high:
            return None
        spans.append((low, high))
        at += 3 if dash else 1
    return (inverted, tuple(spans)), at + 1


def _literal(char: str) -> CharClass:
    return False, ((char, char),)


def _wildcard(char: str) -> Token:
    return None if char == "*" else _ANY if char == "?" else _literal(char)


def _glob_tokens(pattern: str) -> Iterator[Token]:
    at = 0
    while at < len(pattern):
        char, at = pattern[at], at + 1
        found = _char_class(pattern, at) if char == "[" else None
        if found is not None:
            token, at = found
            yield token
        elif char == "\\":
            yield from map(_literal, pattern[at : at + 1])  # nothing at the end of the pattern
            at += 1
        else:
            yield _wildcard(char)


class Glob:
    """A pattern of ``glob_match()@v6.12``: ``*``, ``?``, ``[a-z]``, ``[!a-z]``.

    A backslash takes what follows it literally; a bracket that nothing closes is a bracket.
    """

    def __init__(self, pattern: str) -> None:
        self._tokens = tuple(_glob_tokens(pattern))

    def match(self, text: str) -> bool:
        """Whether the whole text matches."""
        rest = _unmatched(self._tokens, text)
        return rest is not None and not any(rest)


def match_wildcard(pattern: str, text: str) -> bool:
    """``match_wildcard()@v6.12``: only ``*`` and ``?`` are special, and where the text ends one star may be
    left, not two.
    """
    rest = _unmatched(tuple(map(_wildcard, pattern)), text)
    return rest in ((), (None,))
