"""What documents say about the repository itself: modules of the table, tests and code by name, and that
nothing is cited that is not here.
"""

from __future__ import annotations

import importlib
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
DOCUMENTS = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
TESTS = {path.name: path.read_text(encoding="utf-8") for path in (TOP / "tests").glob("*.py")}


def modules_of_the_table() -> list[str]:
    """The paths that the module table of architecture.md names, below cmafs/; some with an asterisk."""
    text = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths, package = [], ""
    for line in text.partition("## Modules")[2].partition("## Laws")[0].splitlines():
        first, _, rest = line.removeprefix("| ").partition(" |")
        if first.startswith("**"):
            package = "".join(re.findall(r"`([\w/]+/)`", first))
            first = rest if package else ""
        paths += [f"{package}{name}.py" for name in re.findall(r"`([a-z0-9_]+)`", first)]
    return paths


def test_every_module_is_in_the_table_once():
    table = modules_of_the_table()
    there = {str(path.relative_to(TOP / "cmafs")) for path in (TOP / "cmafs").rglob("*.py")}
    there -= {path for path in there if path.endswith(("__init__.py", "__main__.py"))}
    assert [name for name in table if not any(fnmatch(path, name) for path in there)] == []
    assert {path for path in there if not any(fnmatch(path, name) for name in table)} == set()
    assert len(table) == len(set(table))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_tests_that_a_document_names_exist(document: Path):
    """`tN_file.py: test_name`; a name without a file may be in any."""
    for quoted in re.findall(r"`([^`\n]*)`", document.read_text(encoding="utf-8")):
        file = re.match(r"(?:tests/)?(t\d_\w+\.py)", quoted)
        name = re.search(r"\b(test_\w+)(?![\w.]*\.py)", quoted)
        texts = [TESTS.get(file[1], "")] if file else list(TESTS.values())
        assert not file or file[1] in TESTS, quoted
        end = "" if "…" in quoted else r"\b"
        assert not name or any(re.search(f"def {name[1]}{end}", text) for text in texts), quoted


def resolves(dotted: str) -> bool:
    """Whether ``cmafs.a.b.name`` is a module, or a name in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_code_that_a_document_names_exists(document: Path):
    """Paths of the repository, dotted names, and what an example in Python imports."""
    text = document.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:cmafs|tests|docs|dts|\.github)/[\w/.*-]+)`", text):
        assert list(TOP.glob(path.rstrip("/"))), path
    names = re.findall(r"`(cmafs(?:\.\w+)+)", text)
    for module, imported in re.findall(r"^from (cmafs[\w.]*) import (.+)$", text, re.MULTILINE):
        names += [f"{module}.{name.strip()}" for name in imported.split(",")]
    assert [name for name in names if not resolves(name)] == []


#: What only those who wrote it could look up.
ELSEWHERE = re.compile(r"\bfacts/|\bfindings/|\bshared/|\bDESIGN \d|\bissue \d")


def test_nothing_is_cited_that_is_not_in_the_repository():
    sections = re.findall(
        r"^## (seeds/\d+)", (TOP / "docs/seeds.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(sections) == 4
    texts = [
        path
        for pattern in (
            "*.md",
            "docs/*.md",
            "cmafs/**/*.py",
            "tests/*.py",
            "tests/*/*.md",
            "dts/*.dts",
            "Makefile",
        )
        for path in TOP.glob(pattern)
        if path != Path(__file__)
    ]
    assert len(texts) > 200
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not ELSEWHERE.findall(text), path
        assert set(re.findall(r"seeds/\d+", text)) <= set(sections), path
