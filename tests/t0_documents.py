"""What documents say about the repository itself: modules of the table, tests and code by name, and that
nothing is cited that is not here.
"""

from __future__ import annotations

import importlib
import re
from fnmatch import fnmatch
from pathlib import Path

import api_document
import pytest

import cmafs
from cmafs.abi.rows import RELEASES
from cmafs.sim import verbs

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


def table(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading, without its head; quotes of code dropped."""
    text = (TOP / "docs" / document).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    rows = re.findall(r"^\| (.*) \|$", text.partition("\n## ")[0], re.MULTILINE)
    cells = [[cell.replace("\\|", "|") for cell in re.split(r" (?<!\\)\| ", row)] for row in rows[1:]]
    return [[cell.removeprefix("`").removesuffix("`") for cell in row] for row in cells]


def test_control_md_has_every_verb_and_every_file():
    listed = table("control.md", "Verbs of `sim/control`")
    assert [tuple(row) for row in listed if row[0].partition(" ")[0] in verbs.VERBS] == verbs.lines()
    assert table("control.md", "Files") == [[f"sim/{name}", text] for name, text in verbs.FILES.items()]
    machine = cmafs.boot(dts="camera")
    there = {*machine.listdir("/sim")}
    assert there == {name.partition("/")[0] for name in verbs.FILES}
    with pytest.raises(OSError, match=f"known are {' '.join(verbs.VERBS)}"):
        machine.control("nosuch")


def test_control_md_has_the_names_of_areas_on_every_kernel():
    rows = table("control.md", "Which directory belongs to which node")
    seen = []
    for kernels, *names in rows:
        for kernel in kernels.split(", "):
            assert cmafs.boot(dts="camera", kernel=kernel).listdir("/sys/kernel/debug/cma") == names
            seen.append(kernel)
    assert sorted(seen) == sorted({*RELEASES, "article"})


def test_api_md_is_made_of_the_docstrings():
    made = api_document.render()
    assert made == (TOP / "docs" / "api.md").read_text(encoding="utf-8"), "run tests/api_document.py"


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", (TOP / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first and first[1] == cmafs.__version__
