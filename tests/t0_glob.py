"""lib/glob: what patterns match, as the kernel's two functions have it, and that no pattern is slow."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmafs.lib.glob import Glob, match_wildcard


def glob_match(pattern: str, text: str) -> bool:
    return Glob(pattern).match(text)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("", [""], ["a"]),
        ("ab", ["ab"], ["a", "abc", "AB"]),
        ("?", ["a", "*"], ["", "ab"]),
        ("*", ["", "a", "a\nb"], []),
        ("a**b", ["ab", "axb"], ["a", "ba"]),
        ("*a*b?c*", ["abxc", "xxaxbxbyczz"], ["abc", "abx"]),
        ("[ab]", ["a", "b"], ["c", "", "ab", "]"]),
        ("[!ab]", ["c", "]"], ["a", "b", ""]),
        ("[a-c]", ["a", "b", "c"], ["d", "-"]),
        ("[!a-z]x", ["Ax", "0x"], ["ax", "x"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("[]]", ["]"], ["["]),
        ("[!]]", ["a"], ["]"]),
        ("[]-a]", ["]", "^", "_", "a"], ["b", "-x"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[a-]x", ["ax", "-x"], ["bx", "x"]),
        ("[--0]", ["-", ".", "/", "0"], ["1"]),
        ("[z-a]*", [], ["", "a", "m", "z", "[z-a]"]),
        ("[!z-a]", ["a", "m"], [""]),
        ("[]", ["[]"], ["", "]"]),
        ("[!]", ["[!]"], ["", "!", "a"]),
        ("[", ["["], [""]),
        ("[a", ["[a"], ["a"]),
        ("x[a-", ["x[a-"], ["xa"]),
        ("[[][*][?]", ["[*?"], ["[ab"]),
        ("\\*", ["*"], ["a", "\\*"]),
        ("\\[a]", ["[a]"], ["a"]),
        ("a\\", ["a"], ["a\\"]),
        ("[\\]", ["\\"], ["]"]),
        ("\u00fc?", ["\u00fcx"], ["ux"]),
    ],
)
def test_glob_match(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [text for text in [*yes, *no] if glob_match(pattern, text)] == yes


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("cma_*", ["cma_", "cma_alloc"], ["cma", "xcma_"]),
        ("*c", ["c", "abc", "cc"], ["", "cd"]),
        ("?m?", ["cma"], ["ma"]),
        ("[a]", ["[a]"], ["a"]),
        ("\\*", ["\\", "\\x"], ["*"]),
        ("", [""], ["a"]),
        ("*", ["", "a"], []),
        ("a*", ["a", "ab"], []),
        ("a**", ["ab"], ["a"]),
        ("**", ["a"], [""]),
    ],
)
def test_match_wildcard(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [text for text in [*yes, *no] if match_wildcard(pattern, text)] == yes


@pytest.mark.parametrize("match", [glob_match, match_wildcard])
def test_no_pattern_is_slow(match: object) -> None:
    start = time.process_time()
    assert not match("*a" * 120 + "b", "a" * 5000)  # type: ignore[operator]
    assert not match("*" + "a" * 200 + "b", "a" * 5000)  # type: ignore[operator]
    assert not match("[" * 255, "[" * 5000)  # type: ignore[operator]
    assert time.process_time() - start < 10


@given(st.text(alphabet="ab*?[]!-\\", max_size=12), st.text(alphabet="ab[]!-\\", max_size=12))
def test_no_pattern_fails(pattern: str, text: str) -> None:
    glob_match(pattern, text)
    assert glob_match("".join(f"\\{char}" for char in text), text)
    assert glob_match("*" + pattern, text) >= glob_match(pattern, text)


@given(st.text(alphabet="ab*?", max_size=12), st.text(alphabet="ab", max_size=12))
def test_stars_and_question_marks_are_as_everywhere(pattern: str, text: str) -> None:
    assert glob_match(pattern, text) == fnmatchcase(text, pattern)
    if "**" not in pattern:
        assert match_wildcard(pattern, text) == fnmatchcase(text, pattern)
