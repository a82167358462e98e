"""The map of the 2010 framework: which regions serve which device (``mm/cma.c:__cma_where_from()``, 2010).

``MapAttr = [ Rule { ";" Rule } [ ";" ] ]``, ``Rule = Pattern { "," Pattern } "=" RegionList``,
``Pattern = DevPat [ "/" KindPat ] | "/" KindPat``. Nothing is skipped or quoted: a blank is part of a name.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from cmafs.drivers.cma2010.map_v3 import scan
from cmafs.drivers.cma2010.profile import Profile, Quirks

_END = "\n\0"


def map_validate(profile: Profile, text: str) -> str:
    """What is stored for a map: its first line, less one ``;`` at the end. An empty line is the empty map.

    Only the form is checked: names of regions that do not exist, blanks and misplaced asterisks pass. Raises
    OSError EINVAL (a rule without patterns or without ``=``), ENOSPC (v1: more rules than its table holds).
    """
    return _validate_v1(profile, text) if profile.table else _validate(text)


def _validate(text: str) -> str:
    line = text
    for end in _END:
        line = line.partition(end)[0]
    if not line:
        return ""
    stored = line[:-1] if line.endswith(";") else line
    for rule in stored.split(";"):
        if rule.find("=") < 1:
            raise OSError(errno.EINVAL, f'map: expecting "<patterns>=<regions>" near {rule}')
    return stored


def _validate_v1(profile: Profile, text: str) -> str:
    text = text[: profile.text_limit]
    stored = text[:-1] if text.endswith(";") else text
    rules = stored.split(";") if stored else []
    if len(rules) > profile.map_rules:
        raise OSError(errno.ENOSPC, "map: too many rules")
    for rule in rules:
        if "=" not in rule:
            raise OSError(errno.EINVAL, f"map: expecting '=' near {rule}")
    return stored


def where_from(profile: Profile, quirks: Quirks, rules: str, device: str, kind: str | None) -> str | None:
    """The region list of the first rule that matches; None stands for the asterisk regions.

    ``rules``: a stored map; ``device``: a device's name, not empty; ``kind``: None if the caller names none.
    Raises OSError ENOENT where no rule matches and there is no asterisk, KernelOops (Q2) where the code's
    search leaves the map.
    """
    kind = profile.default_type if kind is None else kind
    if quirks.q2_rule_swallowed or quirks.q3_comma_is_wild:
        found = scan(rules, device, kind)
    else:
        found = _first_match(profile, quirks, rules, device, kind)
    if found is None:
        if profile.asterisk == "none" or quirks.q4_no_asterisk_without_rule:
            raise OSError(errno.ENOENT, f"no rule for {device}/{kind}")
        return None
    if profile.asterisk != "none" and found.startswith("*"):
        return None
    return found


def _first_match(profile: Profile, quirks: Quirks, rules: str, device: str, kind: str) -> str | None:
    device_matched = False  # survives "," and ";": a pattern without a device part asks it
    for pattern, regions in _patterns(rules):
        device_part, slash, kind_part = pattern.partition("/")
        matches = device_matched
        if not pattern.startswith("/"):
            matches = _wildcard(device_part, device)
            device_matched = matches or (
                quirks.q1_longer_pattern_remembered and _agrees_and_goes_on(device_part, device)
            )
        if matches and _kind_matches(profile, kind_part if slash else None, kind):
            return regions
    return None


def _patterns(rules: str) -> Iterator[tuple[str, str]]:
    """Every pattern of the map with the region list of its rule, left to right."""
    for rule in rules.split(";"):
        patterns, _, regions = rule.partition("=")
        for pattern in patterns.split(","):
            yield pattern, regions


def _kind_matches(profile: Profile, pattern: str | None, kind: str) -> bool:
    if pattern is None:
        return profile.bare_pattern_any_type or kind == ""
    return _wildcard(pattern, kind) if profile.type_wildcards else pattern == kind


def _wildcard(pattern: str, word: str) -> bool:
    """``?`` is one character, ``*`` at the very end the rest; an asterisk elsewhere never matches."""
    head, asterisk, after = pattern.partition("*")
    if after or (len(word) < len(head) if asterisk else len(word) != len(head)):
        return False
    return all(p in ("?", c) for p, c in zip(head, word, strict=False))


def _agrees_and_goes_on(pattern: str, word: str) -> bool:
    """Q1: the comparison ended without a difference, but the pattern goes on (or has text after ``*``)."""
    head, asterisk, _ = pattern.partition("*")
    if len(head) < len(word) and not asterisk:
        return False
    return all(p in ("?", c) for p, c in zip(head, word, strict=False))


def region_names(regions: str) -> list[str]:
    """The names of a region list, which ends at NUL or ``;``. Nothing between two commas is a name as well.

    >>> region_names("a,,b"), region_names("a,"), region_names("a;b"), region_names("")
    (['a', '', 'b'], ['a'], ['a'], [])
    """
    names = regions.partition("\0")[0].partition(";")[0].split(",")
    if not names[-1]:
        names.pop()
    return names
