"""What pyproject.toml cannot say: man page and completions are made of the parser when a wheel is built."""

import sys
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

TOP = Path(__file__).resolve().parent
MADE = {
    "man": ("share/man/man1", "cmafs.1"),
    "bash": ("share/bash-completion/completions", "cmafs"),
    "zsh": ("share/zsh/site-functions", "_cmafs"),
    "fish": ("share/fish/vendor_completions.d", "cmafs.fish"),
}


def made(maker: str) -> str:
    """Where a file is put while building, relative to here; setuptools wants such paths."""
    return f"build/share/{maker}/{MADE[maker][1]}"


class BuildShare(Command):
    """Write the man page and the completions."""

    user_options = ()
    editable_mode = False

    def initialize_options(self) -> None:
        """No options."""

    def finalize_options(self) -> None:
        """No options."""

    def get_source_files(self) -> list[str]:
        """Made, not source."""
        return []

    def get_outputs(self) -> list[str]:
        """What bdist_wheel finds by data_files."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing is copied one to one."""
        return {}

    def run(self) -> None:
        """As `cmafs man` and `cmafs completion` do."""
        sys.path.insert(0, str(TOP))
        from cmafs.cli import describe
        from cmafs.cli.main import make_parser

        makers = {"man": describe.manpage, "bash": describe.bash, "zsh": describe.zsh, "fish": describe.fish}
        for maker, make in makers.items():
            path = TOP / made(maker)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make(make_parser()), encoding="utf-8")


build.sub_commands.append(("build_share", None))
playbooks = sorted(f"tests/scripts/{path.name}" for path in (TOP / "tests/scripts").glob("playbook_*.sh"))
documents = [
    "README.md",
    "CHANGELOG.md",
    *sorted(f"docs/{path.name}" for path in (TOP / "docs").glob("*.md")),
]
setup(
    cmdclass={"build_share": BuildShare},
    data_files=[
        *((MADE[maker][0], [made(maker)]) for maker in MADE),
        ("share/doc/cmafs", documents),
        ("share/doc/cmafs/playbooks", playbooks),
    ],
)
