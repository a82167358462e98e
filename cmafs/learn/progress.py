"""What a learner has done, as the text of a small file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field


class BadProgress(ValueError):
    """The file is not one of ours, or damaged: one line for the user."""


@dataclass(eq=False)
class Progress:
    """``done``: names of lessons; ``last``: the one begun last, empty for none."""

    done: list[str] = field(default_factory=list)
    last: str = ""

    @classmethod
    def parse(cls, text: str) -> Progress:
        """What dump() made. Raises BadProgress."""
        try:
            data = json.loads(text)
            done, last = data["done"], data["last"]
            if not isinstance(last, str) or not all(isinstance(name, str) for name in done):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadProgress("not the progress of `cmafs learn`; remove it to begin again") from None
        return cls(list(done), last)

    def dump(self) -> str:
        """The file's text."""
        return json.dumps({"done": self.done, "last": self.last}, indent=2) + "\n"

    def next_of(self, names: Sequence[str]) -> str | None:
        """Where to go on: the lesson begun last if it is not done, else the first that is not; None: none."""
        if self.last in names and self.last not in self.done:
            return self.last
        return next((name for name in names if name not in self.done), None)
