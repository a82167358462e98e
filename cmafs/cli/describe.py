"""The man page and the shells' completions, made of the one parser."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """An option or positional as its parser has it; ``words``: its spellings, none for a positional."""

    words: tuple[str, ...]
    metavar: str
    choices: tuple[str, ...]
    help: str

    @property
    def takes_file(self) -> bool:
        """Whether its value is a path."""
        return self.metavar in ("FILE", "DIR", "MOUNTPOINT")


@dataclass(frozen=True)
class Command:
    """A subcommand: its parser, and the one line that says what it does."""

    name: str
    help: str
    parser: argparse.ArgumentParser

    @property
    def options(self) -> list[Option]:
        """What may follow its name."""
        return [_option(action) for action in self.parser._actions if action.help is not argparse.SUPPRESS]


def _option(action: argparse.Action) -> Option:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    takes_value = action.nargs != 0
    choices = tuple(map(str, action.choices or ()))
    name = "{" + ",".join(choices) + "}" if choices else metavar
    text = (action.help or "") % {"default": action.default, "prog": "cmafs"}
    return Option(tuple(action.option_strings), name if takes_value else "", choices, text)


def commands(parser: argparse.ArgumentParser) -> list[Command]:
    """The subcommands of the parser, in the order of its help."""
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return [Command(name, texts.get(name, ""), sub) for name, sub in action.choices.items()]


# the man page


def _escape(text: str) -> str:
    """Text for troff: backslashes, hyphens, dots, and lines that would begin with a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def _verbatim(text: str) -> list[str]:
    return [".nf", _escape(text.strip("\n")), ".fi"]


def _section(command: Command) -> Iterator[str]:
    usage = " ".join(command.parser.format_usage().removeprefix("usage: ").split())
    yield f'.SS "cmafs {command.name}"'
    yield _escape(usage)
    yield ".PP"
    yield from _verbatim(command.parser.description or command.help)
    for option in command.options:
        yield ".TP"
        spelled = ", ".join(option.words)
        yield f"\\fB{_escape(spelled)}\\fR \\fI{_escape(option.metavar)}\\fR".replace("\\fB\\fR ", "")
        yield _escape(option.help)
    if command.parser.epilog:
        yield ".PP"
        yield from _verbatim(command.parser.epilog)


def manpage(parser: argparse.ArgumentParser) -> str:
    """cmafs(1) in man's macros."""
    lines = [
        '.TH CMAFS 1 "" cmafs "User commands"',
        ".SH NAME",
        "cmafs \\- a simulated Linux machine whose contiguous memory allocator answers as the kernel's does",
        ".SH SYNOPSIS",
        "\\fBcmafs\\fR \\fICOMMAND\\fR [\\fIoptions\\fR]",
        ".SH DESCRIPTION",
        *_verbatim(parser.description or ""),
        ".SH COMMANDS",
    ]
    for command in commands(parser):
        lines += _section(command)
    lines += [".SH EXAMPLES AND EXIT STATUS", *_verbatim(parser.epilog or "")]
    return "\n".join(lines) + "\n"


# completions


def bash(parser: argparse.ArgumentParser) -> str:
    """A completion function for bash."""
    found = commands(parser)
    words = {c.name: " ".join(word for _, word in _spellings(c)) for c in found}
    spellings = [(c.name, option, word) for c in found for option, word in _spellings(c)]
    values = [(f"{name}:{word}", option.choices) for name, option, word in spellings if option.choices]
    table = "\n".join(f"        {name}) words={shlex.quote(text)} ;;" for name, text in words.items())
    values_table = "\n".join(
        f'        {case}) COMPREPLY=($(compgen -W {shlex.quote(" ".join(choices))} -- "$cur")); return ;;'
        for case, choices in values
    )
    names = " ".join(words)
    return f"""\
# bash completion for cmafs; made by `cmafs completion bash`
_cmafs() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command=${{COMP_WORDS[1]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{names} --help' -- "$cur"))
        return
    fi
    case $command:$prev in
{values_table}
    esac
    case $command in
{table}
    esac
    case $cur in
        -*) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
    esac
}}
complete -o filenames -F _cmafs cmafs
"""


def zsh(parser: argparse.ArgumentParser) -> str:
    """A completion function for zsh."""
    lines = ["#compdef cmafs", "# zsh completion for cmafs; made by `cmafs completion zsh`", "_cmafs() {"]
    described = " ".join(shlex.quote(f"{command.name}:{command.help}") for command in commands(parser))
    lines += [
        "    if (( CURRENT == 2 )); then",
        f"        local -a names=({described})",
        "        _describe command names",
        "        return",
        "    fi",
        "    case $words[2] in",
    ]
    for command in commands(parser):
        specs = " ".join(shlex.quote(_zsh_spec(option, word)) for option, word in _spellings(command))
        specs += " '*:file:_files'"
        lines.append(f"    {command.name}) shift words; (( CURRENT-- )); _arguments {specs} ;;")
    return "\n".join([*lines, "    esac", "}", "compdef _cmafs cmafs", ""])


def _spellings(command: Command) -> Iterator[tuple[Option, str]]:
    for option in command.options:
        for word in option.words:
            yield option, word


def _zsh_spec(option: Option, word: str) -> str:
    text = re.sub(r"[\[\]:]", " ", option.help)
    if not option.metavar:
        return f"{word}[{text}]"
    if option.choices:
        return f"{word}[{text}]:value:({' '.join(option.choices)})"
    return f"{word}[{text}]:{option.metavar}:{'_files' if option.takes_file else ''}"


def fish(parser: argparse.ArgumentParser) -> str:
    """Completions for fish."""
    lines = ["# fish completion for cmafs; made by `cmafs completion fish`"]
    for command in commands(parser):
        name = shlex.quote(command.help)
        lines.append(f"complete -c cmafs -n __fish_use_subcommand -f -a {command.name} -d {name}")
        for option in command.options:
            if option.words:
                lines.append(_fish_line(command.name, option))
    return "\n".join(lines) + "\n"


def _fish_line(command: str, option: Option) -> str:
    spelled = [f"-l {w[2:]}" if w.startswith("--") else f"-s {w[1:]}" for w in option.words]
    value = [] if not option.metavar else ["-r"] if option.takes_file else ["-x"]
    if option.choices:
        value = ["-x", "-a", shlex.quote(" ".join(option.choices))]
    words = ["complete -c cmafs -n", shlex.quote(f"__fish_seen_subcommand_from {command}"), *spelled, *value]
    return " ".join([*words, "-d", shlex.quote(option.help)])
