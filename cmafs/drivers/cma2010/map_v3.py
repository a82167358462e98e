"""The map scanner of v3 as it was posted (quirks Q2 and Q3): one cursor that may lose the rule it is in.

Q3: a comma inside the compared text counts as ``?``. Q2: where the device of a pattern without a kind
matches and the request has one, the cursor steps to the next ``,`` or ``=`` although it may stand on one,
and so skips a whole rule or leaves the string.
"""

from __future__ import annotations

from enum import Enum, auto

from cmafs.drivers.cma2010.profile import KernelOops


class _Compared(Enum):
    WHOLE = auto()  # the word is used up, or an asterisk took the rest
    DIFFERENT = auto()
    RULE_ENDED = auto()  # the pattern's "=" came first


def scan(rules: str, device: str, kind: str) -> str | None:
    """The region list that v3 finds for a device, whose name is not empty; None for none.

    Raises KernelOops (Q2) where the cursor leaves the map.
    """
    return _Scanner(rules, device, kind).run()


class _Scanner:
    def __init__(self, rules: str, device: str, kind: str) -> None:
        self.text = rules + "\0"
        self.pos = 0
        self.device = device
        self.kind = kind
        self.device_matched = False

    def run(self) -> str | None:
        """Try pattern after pattern, each from where the cursor was left."""
        while self.text[self.pos] != "\0":
            outcome = self._pattern()
            if outcome is _Compared.WHOLE and self.text[self.pos] in "=,":
                regions = self.text.index("=", self.pos) + 1
                return self.text[regions:].partition(";")[0].rstrip("\0")
            if outcome is not _Compared.RULE_ENDED:
                self._step_over_separator()
            if self.text[self.pos] != "," and not self._next_rule():
                return None
            self.pos += 1
        return None

    def _pattern(self) -> _Compared:
        if self.text[self.pos] == "/":
            return self._compare(self.kind, 1) if self.device_matched else _Compared.DIFFERENT
        self.device_matched = False
        outcome = self._compare(self.device, 0)
        if outcome is not _Compared.WHOLE:
            return outcome
        self.device_matched = True
        if self.text[self.pos] == "/":
            return self._compare(self.kind, 1)
        return _Compared.DIFFERENT if self.kind else _Compared.WHOLE

    def _compare(self, word: str, skip: int) -> _Compared:
        self.pos += skip
        for char in word:
            here = self.text[self.pos]
            if here == "*":
                break
            if here == "=":
                return _Compared.RULE_ENDED
            if here not in (",", "?", char):
                return _Compared.DIFFERENT
            self.pos += 1
        if self.text[self.pos] == "*":
            self.pos += 1
        return _Compared.WHOLE

    def _step_over_separator(self) -> None:
        """To the next separator behind the cursor, whatever the cursor stands on."""
        self.pos += 1
        while self.pos < len(self.text) and self.text[self.pos] not in ",=":
            self.pos += 1
        if self.pos >= len(self.text):
            raise KernelOops("Q2", "the map is read past its end")

    def _next_rule(self) -> bool:
        self.pos = self.text.find(";", self.pos)
        return self.pos >= 0
