"""The man page and the shells' completions, made of the one parser."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cmafs import __version__
from cmafs.abi.config_sets import NAMES
from cmafs.abi.rows import DIALECTS, RELEASES
from cmafs.of.fdt import boards
from cmafs.sim import verbs
from cmafs.sim.verbs import FILES


@dataclass(frozen=True)
class Option:
    """An option or positional as its parser has it; ``words``: its spellings, none for a positional.

    ``choices``: all values it takes; ``names``: values that it knows by name beside others.
    """

    words: tuple[str, ...]
    metavar: str
    choices: tuple[str, ...]
    names: tuple[str, ...]
    help: str
    of_machine: bool

    @property
    def takes_file(self) -> bool:
        """Whether its value is a path."""
        return self.metavar in ("FILE", "DIR", "MOUNTPOINT", "KEY=VALUE")

    @property
    def values(self) -> str:
        """What a shell offers, paths aside."""
        return " ".join((*self.choices, *self.names))


@dataclass(frozen=True)
class Command:
    """A subcommand: its parser, and the one line that says what it does."""

    name: str
    help: str
    parser: argparse.ArgumentParser

    @property
    def options(self) -> list[Option]:
        """What may follow its name."""
        groups = self.parser._action_groups
        machine = [action for group in groups if group.title == "machine" for action in group._group_actions]
        actions = [action for action in self.parser._actions if action.help is not argparse.SUPPRESS]
        return [_option(action, action in machine) for action in actions]

    @property
    def usage(self) -> str:
        """Its usage on one line, the machine options as two words."""
        usage = " ".join(self.parser.format_usage().removeprefix("usage: ").split())
        shared = [option for option in self.options if option.of_machine]
        for option in shared:
            usage = re.sub(rf" \[{option.words[0]}(?: [^\]]*)?\]", "", usage, count=1)
        return usage.replace("[-h]", "[-h] [machine options]", 1) if shared else usage


def _option(action: argparse.Action, of_machine: bool) -> Option:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    takes_value = action.nargs != 0
    choices = tuple(map(str, action.choices or ()))
    name = "{" + ",".join(choices) + "}" if choices else metavar
    text = (action.help or "") % {"default": action.default, "prog": "cmafs"}
    words = tuple(action.option_strings)
    return Option(words, name if takes_value else "", choices, _names(words), text, of_machine)


def _names(words: tuple[str, ...]) -> tuple[str, ...]:
    """What an option of a machine knows by name: boards, kernels, named configurations."""
    if "--dts" in words:
        return tuple(board.name for board in boards())
    if "--kernel" in words:
        return (*RELEASES, *DIALECTS)
    return tuple(sorted(NAMES)) if "--config" in words else ()


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


def _items(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        yield ".TP"
        spelled = ", ".join(option.words)
        yield f"\\fB{_escape(spelled)}\\fR \\fI{_escape(option.metavar)}\\fR".replace("\\fB\\fR ", "")
        yield _escape(option.help)


def _section(command: Command) -> Iterator[str]:
    yield f'.SS "cmafs {command.name}"'
    yield _escape(command.usage)
    yield ".PP"
    yield from _verbatim(command.parser.description or command.help)
    yield from _items(option for option in command.options if not option.of_machine)
    if command.parser.epilog:
        yield ".PP"
        yield from _verbatim(command.parser.epilog)


def _table(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in rows:
        yield from (".TP", f"\\fB{_escape(name)}\\fR", _escape(text))


#: Below a mount point, and in `cmafs run` at its place; sim/ is at $CMAFS_MOUNT/sim there.
_FILES = (
    ("sys/kernel/debug/cma/AREA/", "alloc, free, used, maxchunk, count, base_pfn, order_per_bit, bitmap"),
    ("sys/kernel/mm/cma/AREA/", "counters of pages, from 5.13 on"),
    ("sys/kernel/debug/tracing/", "the tracer, with the events of cma, kmem, migrate and compaction"),
    ("sys/kernel/debug/dynamic_debug/control", "switches CMA's debug lines on"),
    ("proc/", "meminfo, buddyinfo, pagetypeinfo, zoneinfo, vmstat, cmdline, iomem and others"),
    ("sys/firmware/devicetree/base/", "the device tree that was booted"),
    ("dev/kmsg, dev/cma_test", "the kernel log; the test module's device"),
    ("boot/config-RELEASE", "the kernel's configuration"),
    *((f"sim/{name}", text) for name, text in FILES.items()),
)
_ENVIRONMENT = (
    ("CMAFS_MOUNT", "set for CMD by run and shell: where the whole tree is, with sim/ in it"),
    ("SHELL", "what `cmafs shell` starts; /bin/sh without it"),
    ("FUSE_LIBRARY_PATH", "libfuse 2, where it is not found by itself"),
)


def manpage(parser: argparse.ArgumentParser) -> str:
    """cmafs(1) in man's macros."""
    found = commands(parser)
    machine = next(command for command in found if command.name == "mount").options
    lines = [
        f'.TH CMAFS 1 "" "cmafs {__version__}" "User commands"',
        ".SH NAME",
        "cmafs \\- a simulated Linux machine whose contiguous memory allocator answers as the kernel's does",
        ".SH SYNOPSIS",
        "\\fBcmafs\\fR \\fICOMMAND\\fR [\\fIoptions\\fR]",
        ".SH DESCRIPTION",
        *_verbatim(parser.description or ""),
        ".SH MACHINE OPTIONS",
        "Every command that boots a machine takes them.",
        *_items(option for option in machine if option.of_machine),
        ".SH COMMANDS",
    ]
    for command in found:
        lines += _section(command)
    lines += _table("VERBS OF SIM/CONTROL", verbs.lines())
    lines += _table("FILES", _FILES)
    lines += _table("ENVIRONMENT", _ENVIRONMENT)
    lines += [".SH EXAMPLES AND EXIT STATUS", *_verbatim(parser.epilog or "")]
    return "\n".join(lines) + "\n"


# completions


def bash(parser: argparse.ArgumentParser) -> str:
    """A completion function for bash."""
    found = commands(parser)
    words = {c.name: " ".join(word for _, word in _spellings(c)) for c in found}
    spellings = [(c.name, option, word) for c in found for option, word in _spellings(c)]
    table = "\n".join(f"        {name}) words={shlex.quote(text)} ;;" for name, text in words.items())
    values_table = "\n".join(
        f"        {name}:{word}) {_bash_values(option)}; return ;;"
        for name, option, word in spellings
        if option.values
    )
    names = " ".join(words)
    return f"""\
# bash completion for cmafs; made by `cmafs completion bash`
_cmafs() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command=${{COMP_WORDS[1]}} words= IFS=$' \\t\\n'
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{names} --help --version' -- "$cur"))
        return
    fi
    case $command:$prev in
{values_table}
    esac
    case $command in
{table}
    esac
    case $command:$COMP_CWORD:$cur in
        *:-*) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
        ctl:3:*) COMPREPLY=($(compgen -W '{" ".join(verbs.VERBS)}' -- "$cur")) ;;
        trace-alloc:*) # the areas of the machine that the words so far describe
            words=$("${{COMP_WORDS[0]}}" "${{COMP_WORDS[@]:1:COMP_CWORD-1}}" '' 1 2>&1)
            words=${{words#*: there are }} words=${{words//, /$'\\n'}}
            COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
    esac
}}
complete -o filenames -F _cmafs cmafs
"""


def _bash_values(option: Option) -> str:
    files = ' $(compgen -f -- "$cur")' if option.takes_file else ""
    return f'COMPREPLY=($(compgen -W {shlex.quote(option.values)} -- "$cur"){files})'


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
        specs += _ZSH_WORDS.get(command.name, " '*:file:_files'")
        lines.append(f"    {command.name}) shift words; (( CURRENT-- )); _arguments {specs} ;;")
    return "\n".join([*lines, "    esac", "}", "compdef _cmafs cmafs", ""])


def _spellings(command: Command) -> Iterator[tuple[Option, str]]:
    for option in command.options:
        for word in option.words:
            yield option, word


#: What follows the options of a command that does not take files.
_ZSH_WORDS = {"ctl": f" '1:mount point:_files -/' '2:verb:({' '.join(verbs.VERBS)})' '*:word:'"}


def _zsh_spec(option: Option, word: str) -> str:
    text = re.sub(r"[\[\]:]", " ", option.help)
    if not option.metavar:
        return f"{word}[{text}]"
    if option.values:
        files = f"{{compadd {option.values}; _files}}" if option.takes_file else f"({option.values})"
        return f"{word}[{text}]:value:{files}"
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
    known = shlex.quote(" ".join(verbs.VERBS))
    lines.append(f"complete -c cmafs -n '__fish_seen_subcommand_from ctl' -a {known}")
    return "\n".join(lines) + "\n"


def _fish_line(command: str, option: Option) -> str:
    spelled = [f"-l {w[2:]}" if w.startswith("--") else f"-s {w[1:]}" for w in option.words]
    value = [] if not option.metavar else ["-r"] if option.takes_file else ["-x"]
    if option.values:
        value += ["-a", shlex.quote(option.values)]
    words = ["complete -c cmafs -n", shlex.quote(f"__fish_seen_subcommand_from {command}"), *spelled, *value]
    return " ".join([*words, "-d", shlex.quote(option.help)])
