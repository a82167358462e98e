"""`cmafs man` and `cmafs completion`: what is made of the parser."""

from __future__ import annotations

import argparse

from cmafs.cli.options import Commands

_SHELLS = ("bash", "zsh", "fish")
_EXAMPLES = """\
examples:
  source <(cmafs completion bash)
  cmafs completion zsh > ~/.zfunc/_cmafs
  cmafs completion fish > ~/.config/fish/completions/cmafs.fish
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `man` and `completion` to the parser."""
    man = commands.add_parser(
        "man",
        help="print the manual page",
        description="Print cmafs(1), made of this parser.",
        epilog="examples:\n  cmafs man | man -l -\n  cmafs man > /usr/local/share/man/man1/cmafs.1\n",
    )
    man.set_defaults(main=main, maker="man")
    completion = commands.add_parser(
        "completion",
        help="print a shell's completions",
        description="Print the completions of a shell, made of this parser.",
        epilog=_EXAMPLES,
    )
    completion.add_argument("maker", metavar="SHELL", choices=_SHELLS, help="bash, zsh or fish")
    completion.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print what was asked for."""
    from cmafs.cli import describe
    from cmafs.cli.main import make_parser

    makers = {"man": describe.manpage, "bash": describe.bash, "zsh": describe.zsh, "fish": describe.fish}
    print(makers[args.maker](make_parser()), end="")
    return 0
