"""The task on whose behalf the machine does something: what ``current`` is in the kernel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """``pid`` and ``comm`` (at most 15 characters) of a ``struct task_struct``."""

    pid: int
    comm: str


#: Who acts where nobody else is named: the shell of the transcripts' guests, with the pid that it had there.
#: Another one would follow from how many tasks the kernel and init had started before.
SHELL = Task(38, "sh")


def shell() -> Task:
    """``current`` of a machine in process."""
    return SHELL
