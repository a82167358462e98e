"""init/journal.py: what is kept of operations, how much of it, and what a replay answers."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest

from cmafs.init import journal
from cmafs.init.journal import Diverged, Journal
from cmafs.init.task import Task
from cmafs.lib.clock import ManualClock


def kept(calls: list[Callable[[Journal], object]], size: int = 0) -> Journal:
    """A journal of operations."""
    found = Journal(ManualClock(5))
    for call in calls:
        found.do(lambda call=call: call(found), "op", 1, size=size)  # type: ignore[misc]
    return found


def nothing(_: Journal) -> None: ...


def asks(found: Journal) -> None:
    found.now()
    found.current()


def test_an_entry_has_name_arguments_and_answers() -> None:
    found = kept([nothing, asks])
    task = found.current()
    assert found.now() == 5  # outside of an operation: not kept
    assert found.entries == [["op", 1, []], ["op", 1, [5, [task.pid, task.comm]]]]
    assert (found.start, found.why) == (5, "")


def test_an_operation_in_another_is_part_of_it() -> None:
    assert kept([lambda found: found.do(found.now, "inner")]).entries == [["op", 1, [5]]]
    found = Journal(ManualClock())
    with pytest.raises(OSError, match="no"):
        found.do(lambda: (_ for _ in ()).throw(OSError("no")), "fails")
    assert found.entries == [["fails", []]]
    found.drop()
    found.drop()
    assert found.entries == []


@pytest.mark.parametrize(
    ("call", "size", "cost"), [(nothing, 0, 200), (asks, 0, 232), (nothing, 50, 250), (asks, 7, 239)]
)
def test_it_is_given_up_once_it_is_too_long(
    call: Callable[[Journal], object], size: int, cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that serves for weeks does not grow: 200 bytes an operation, 16 an answer, and its data."""
    monkeypatch.setattr(journal, "MAX_BYTES", 3 * cost)
    found = kept([call] * 3, size)
    assert found.entries is not None and len(found.entries) == 3
    found.do(lambda: None, "one more")
    assert found.entries is None
    assert found.why == "more was done to this machine since its boot than is kept"
    assert found.do(lambda: 7, "and on") == 7
    found.drop()


def test_what_turned_out_to_change_nothing_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 200)
    found = Journal(ManualClock())
    for _ in range(3):
        found.do(lambda: None, "op")
        found.drop()
    found.do(lambda: None, "op")
    assert found.entries == [["op", []]]
    assert journal.MAX_BYTES == 200


def test_a_copy_of_a_machine_keeps_nothing() -> None:
    found = kept([nothing])
    copied = deepcopy(found)
    assert copied.entries is None
    copied.advance(3)
    copied.do(lambda: None, "tried")
    assert (found.now(), copied.now(), copied.entries) == (5, 8, None)
    assert found.entries == [["op", 1, []]]


def test_a_replay_answers_as_before_and_is_kept_again() -> None:
    found = Journal(ManualClock(1))
    heard: list[object] = []

    def again() -> None:
        found.advance(100)  # that is in the answers
        heard.extend((found.now(), found.current()))

    found.redo(lambda: found.do(again, "op"), [42, [7, "sh"]])
    assert heard == [42, Task(7, "sh")]
    assert found.entries == [["op", [42, [7, "sh"]]]]
    assert found.now() == 1


@pytest.mark.parametrize("answers", [[], [1, 2], ["1"], [[1, "sh"]]])
def test_a_replay_that_asks_something_else_diverges(answers: list[object]) -> None:
    found = Journal(ManualClock(9))
    with pytest.raises(Diverged):
        found.redo(found.now, answers)
    assert found.now() == 9


def test_a_replayed_operation_may_fail_as_it_did() -> None:
    found = Journal(ManualClock(9))

    def fails() -> None:
        found.now()
        raise OSError

    found.redo(fails, [1])
    with pytest.raises(Diverged):
        found.redo(fails, [1, 2])


def test_a_moment_stands_still_while_it_is_looked_at() -> None:
    found = Journal(ManualClock(9))
    assert found.at(77, lambda: (found.now(), found.now())) == (77, 77)
    with pytest.raises(KeyError):
        found.at(77, lambda: {}["x"])
    assert found.now() == 9
