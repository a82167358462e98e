"""A lesson, made of the data of its file: docs/lessons.md has the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cmafs.learn.goal import BadGoal, Goal

_TEXTS = ("title", "about", "story", "solution", "remember")
_OPTIONAL = ("machine", "prepare", "hints", "goal", "files", "needs")


class BadLesson(ValueError):
    """A lesson file cannot be used: one line for its author."""


@dataclass(frozen=True)
class Lesson:
    """``name`` as learners call it; ``machine`` option -> value of a machine; ``prepare`` and ``solution``
    shell scripts; ``files`` name -> text, in the learner's directory; ``needs`` what the area must have.
    """

    name: str
    title: str
    about: str
    story: str
    solution: str
    remember: str
    goals: tuple[Goal, ...]
    hints: tuple[str, ...]
    prepare: str
    machine: Mapping[str, Any]
    files: Mapping[str, str]
    needs: tuple[str, ...]


def lesson_from(name: str, data: Mapping[str, Any]) -> Lesson:
    """The lesson of a file's data. Raises BadLesson."""
    for key in _TEXTS:
        if not isinstance(data.get(key), str) or not data[key].strip():
            raise BadLesson(f"{key}: wanted is a text")
    if unknown := sorted(data.keys() - {*_TEXTS, *_OPTIONAL}):
        raise BadLesson(f"unknown key {unknown[0]}; known are {', '.join((*_TEXTS, *_OPTIONAL))}")
    return Lesson(
        name=name,
        **{key: data[key].strip("\n") for key in _TEXTS},
        goals=_goals(data.get("goal")),
        hints=_texts(data, "hints"),
        prepare=str(data.get("prepare", "")),
        machine=_table(data, "machine"),
        files=_files(data),
        needs=_texts(data, "needs"),
    )


def _goals(tables: Any) -> tuple[Goal, ...]:
    if not isinstance(tables, list) or not tables:
        raise BadLesson("goal: wanted is [[goal]] at least once")
    try:
        return tuple(Goal(table["reached"], table["not_yet"]) for table in tables)
    except BadGoal as error:
        raise BadLesson(f"goal: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise BadLesson("goal: wanted are the texts reached and not_yet") from None


def _texts(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = data.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadLesson(f"{key}: wanted is a list of texts")
    return tuple(one.strip("\n") for one in found)


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, dict):
        raise BadLesson(f"{key}: wanted is a table")
    return found


def _files(data: Mapping[str, Any]) -> Mapping[str, str]:
    files = _table(data, "files")
    for name, text in files.items():
        if not isinstance(text, str) or "/" in name or name.startswith("."):
            raise BadLesson(f"files: {name}: wanted is a plain name and a text")
    return files
