"""Where each node and property of a tree stands in its sources: dtc's annotations (``dtc -T -T``) as a table.

Pure: from the text that dtc prints to places. Lines and columns count from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cmafs.lib.kstrtox import simple_strtoull

_COMMENT = r"(?: /\* (?P<places>.*) \*/)?$"
_NODE = re.compile(r"\t*(?:\w+: )*(?P<name>/|[^\s{/;=]+) \{" + _COMMENT)
_PROPERTY = re.compile(r"\t*(?:\w+: )*(?P<name>[^\s{/;=]+)(?: = .*)?;" + _COMMENT)
_END = re.compile(r"\t*\};")
_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+):(?P<column>\d+)-(?:\d+:)?\d+(?:, |$)")

#: The comment that silences findings: the codes follow it.
_IGNORE = re.compile(r"cmafs:\s*ignore\s+([\w-]+(?:\s*,\s*[\w-]+)*)")
_ONLY_COMMENT = re.compile(r"\s*(?:/\*.*\*/|//.*)\s*$")


@dataclass(frozen=True)
class Place:
    """A place in a source file, as the user names that file."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(eq=False)
class SourceMap:
    """Places of a tree: ``nodes`` has wherever a node was opened, ``props`` where a value was set last.

    ``file``: the board's, which stands for what has no place of its own; ``texts``: the sources' lines.
    """

    file: str
    nodes: dict[str, list[Place]] = field(default_factory=dict)
    props: dict[tuple[str, str], Place] = field(default_factory=dict)
    texts: Mapping[str, list[str]] = field(default_factory=dict)

    def place(self, node: str | None, prop: str | None) -> Place:
        """Of the property, else of the node where it was opened first, else of the next above."""
        path = node or "/"
        if (path, prop or "") in self.props:
            return self.props[path, prop or ""]
        while path not in self.nodes and path != "/":
            path = path.rpartition("/")[0] or "/"
        return self._named(self.nodes[path][0]) if path in self.nodes else Place(self.file)

    def top(self) -> Place:
        """The root as the board's own file opens it, for what is of the whole board."""
        roots = (place for place in self.nodes.get("/", []) if place.file == self.file)
        return self._named(next(roots, Place(self.file)))

    def _named(self, place: Place) -> Place:
        """Where the node's name begins: dtc gives the brace."""
        before = self._line(place.file, place.line)[: place.column - 1]
        words = list(re.finditer(r"[^\s{};]+(?=[ \t]*$)", before))
        return Place(place.file, place.line, words[-1].start() + 1) if words else place

    def ignored(self, node: str | None, prop: str | None) -> set[str]:
        """Codes that comments silence: on the line of the property or of the node, or alone above it."""
        path = node or "/"
        places = [*self.nodes.get(path, []), self.place(node, prop)]
        return {code for place in places for code in self._codes(place)}

    def _codes(self, place: Place) -> Iterator[str]:
        yield from _codes_in(self._line(place.file, place.line))
        above = place.line - 1
        while _ONLY_COMMENT.match(self._line(place.file, above)):
            yield from _codes_in(self._line(place.file, above))
            above -= 1

    def _line(self, file: str, line: int) -> str:
        lines = self.texts.get(file, [])
        return lines[line - 1] if 0 < line <= len(lines) else ""

    def files(self) -> set[str]:
        """Every file that a place is in."""
        nodes = (place for places in self.nodes.values() for place in places)
        return {place.file for place in (*nodes, *self.props.values())}


def _codes_in(line: str) -> Iterator[str]:
    for match in _IGNORE.finditer(line):
        yield from re.split(r"\s*,\s*", match[1])


def _places(text: str | None) -> list[Place]:
    """The places of one annotation; none for what dtc made itself."""
    return [
        Place(m["file"], simple_strtoull(m["line"], 10)[0], simple_strtoull(m["column"], 10)[0])
        for m in _PLACE.finditer(text or "")
    ]


def read_annotations(text: str) -> Iterator[tuple[str, str | None, list[Place]]]:
    """(path of a node, property or None, places) of what ``dtc -T -T -O dts`` printed."""
    path: list[str] = []
    for line in text.splitlines():
        if match := _NODE.match(line):
            path.append("" if match["name"] == "/" else match["name"])
            yield "/".join(path) or "/", None, _places(match["places"])
        elif _END.match(line):
            path.pop()
        elif path and (match := _PROPERTY.match(line)):
            yield "/".join(path) or "/", match["name"], _places(match["places"])


def add_source(found: SourceMap, text: str) -> None:
    """Add a board's own annotated source."""
    for path, prop, places in read_annotations(text):
        _add(found, path, prop, places)


def add_overlay(found: SourceMap, text: str, targets: Mapping[str, str]) -> None:
    """Add an overlay's annotated source; ``targets``: fragment -> the node that it changes, as paths."""
    for path, prop, places in read_annotations(text):
        fragment, overlay, rest = path.partition("/__overlay__")
        if overlay and fragment in targets and (not rest or rest.startswith("/")):
            _add(found, targets[fragment].rstrip("/") + rest or "/", prop, places)


def _add(found: SourceMap, path: str, prop: str | None, places: list[Place]) -> None:
    if prop is None:
        found.nodes.setdefault(path, []).extend(places)
    elif places:
        found.props[path, prop] = places[-1]
