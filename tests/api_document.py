"""docs/api.md, made of the docstrings: `python tests/api_document.py > docs/api.md`.

tests/t0_documents.py compares the file with what this makes.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields

from cmafs import api, mounted_machine, pytest_plugin
from cmafs.lib.clock import ManualClock

HEAD = """\
# The Python API

Made of the docstrings by `tests/api_document.py`; a test keeps it so. The package is typed (`py.typed`).

```python
import cmafs

machine = cmafs.Machine.boot(dts="virt", cmdline="cma=16M")  # in this process: no mount, no privileges
machine.write("/sys/kernel/debug/cma/reserved/alloc", "4")
assert machine.read_text("/sys/kernel/debug/cma/reserved/used") == "100\\n"

with cmafs.mounted(dts="rpi4", kernel="5.10") as board:  # mounted: other programs see it, as in `cmafs run`
    assert board.run("uname -r", check=True).stdout == "5.10.223\\n"
```

`cmafs.Machine`, `cmafs.boot`, `cmafs.MachineOptions`, `cmafs.mounted` and `cmafs.MountedMachine` are there
after `import cmafs`. Importing the package costs nothing; the first use of a name does.
"""

PYTEST = """\
## pytest

Installing cmafs gives pytest the fixture `cma_machine` and the marker `cmafs`; docs/ci.md has an example.
`@pytest.mark.cmafs(**options)` takes the options below. A mistake in it fails the test in one line.
"""


def paragraphs(thing: object) -> str:
    """A docstring as Markdown."""
    text = inspect.getdoc(thing) or ""
    return text.replace("``", "`").strip()


def signature(thing: object, name: str) -> str:
    """A function as it is called, without annotations of what is plain."""
    parameters = inspect.signature(thing).parameters.values()  # type: ignore[arg-type]
    shown = [str(p.replace(annotation=p.empty)) for p in parameters if p.name not in ("self", "cls")]
    keyword_only = [p.kind is p.KEYWORD_ONLY for p in parameters if p.name not in ("self", "cls")]
    if True in keyword_only:
        shown.insert(keyword_only.index(True), "*")
    return f"{name}({', '.join(shown)})".replace("=511", "=0o777")


def members(cls: type) -> Iterator[str]:
    """The public methods and properties of a class, in the order of its source."""
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        function = member.__func__ if isinstance(member, classmethod) else member
        if isinstance(member, property):
            yield f"- `{name}`: {paragraphs(member)}"
        elif inspect.isfunction(function):
            yield f"- `{signature(function, name)}`: {paragraphs(function)}"


def section(cls: type, called: str | None = None) -> Iterator[str]:
    yield f"\n## {called or cls.__name__}\n"
    yield paragraphs(cls)
    if listed := [re.sub(r"\n+", "\n  ", text) for text in members(cls)]:
        yield ""
        yield from listed


def options() -> Iterator[str]:
    yield "\n## MachineOptions\n"
    yield "What describes a machine; `boot`, `mounted` and the marker take these by name.\n"
    yield "| option | default | |\n|---|---|---|"
    for one in fields(api.MachineOptions):
        argument = one.metadata["argument"]
        yield f"| `{one.name}` | `{one.default!r}` | {argument['help']} |"


def errors() -> Iterator[str]:
    yield "\n## Errors\n"
    for error in (
        *api.CANNOT_BOOT,
        api.KernelPanic,
        mounted_machine.MountFailed,
        mounted_machine.ScriptFailed,
    ):
        yield f"- `{error.__name__}`: {re.sub(chr(10) + '+', ' ', paragraphs(error))}"


def render() -> str:
    """The whole document."""
    lines = [HEAD.rstrip(), *section(api.Machine), *section(mounted_machine.MountedMachine)]
    mounted = paragraphs(mounted_machine.mounted)
    lines += ["\n## mounted\n", f"`{signature(mounted_machine.mounted, 'mounted')}`\n", mounted]
    lines += section(api.Files, "What both have")
    lines += ["", PYTEST.rstrip(), "", paragraphs(pytest_plugin.cma_machine.__wrapped__)]
    lines += options()
    for clock in (ManualClock, api.RealClock):
        lines += section(clock)
    lines += errors()
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
