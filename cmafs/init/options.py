"""What a user chooses of a machine, once: parser, API and pytest marker are made of this dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from types import UnionType
from typing import Any

from cmafs.lib.cmdline import memparse

ARCHITECTURES = ("arm", "arm64", "x86_64")

#: drivers.cma2010.profile.PROFILES, which is not imported to keep the start short.
PROFILES = ("v1", "v2", "v3", "v4", "vendor", "meizu")


#: The largest number that an option can be: snapshots and messages have its digits.
MAX_BITS = 4096


class BadOption(ValueError):
    """An option of a machine that cannot be used: one line for the user."""


def memory_size(text: str | int | None, option: str = "memory") -> int | None:
    """What an option says in bytes. Raises BadOption, with its name."""
    if isinstance(text, int) and abs(text) >> 64:
        raise BadOption(f"{option}: {text:#x} is no size: more than 64 bits")
    if text is None or isinstance(text, int):
        return text
    value, rest = memparse(text)
    if rest or not value:
        known = value and rest.lower() in ("b", "ib", "byte", "bytes")
        meant = f"; did you mean {text[: len(text) - len(rest)]}?" if known else ""
        raise BadOption(f"{option}: '{text}' is no size: a number of bytes, or one with K, M or G{meant}")
    return value


def seed(text: str) -> int:
    """The value of ``--seed``, also as 0x… . Raises ValueError."""
    number = int(text, 0)
    if number.bit_length() > MAX_BITS:
        raise ValueError
    return number


def _option(default: object, help: str, **argument: object) -> Any:
    """A field and what argparse is told of its option; ``flag``: that option, if called otherwise."""
    return field(default=default, metadata={"argument": {"default": default, "help": help, **argument}})


def _is_unset(value: object) -> bool:
    """Whether it is what an option has that the user left out."""
    return value is None or value is False or value in ([], ())


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


#: What a value of a field may be, by its annotation, and how that is said.
_KINDS: Mapping[str, tuple[type | UnionType, str]] = {
    "str": (str, "a text"),
    "str | None": (str | None, "a text"),
    "str | int | None": (str | int | None, "a text or a number"),
    "tuple[str, ...]": (tuple, "a list of texts"),
    "int": (int, "a number"),
    "bool": (bool, "true or false"),
}


def _expect(option: Field[Any], value: Any) -> None:
    """Raises BadOption for a value that no option of the command line could give."""
    name, (kind, wanted) = option.name, _KINDS[str(option.type)]
    known = option.metadata["argument"].get("choices")
    if known and value is not None and value not in known:
        raise BadOption(f"{name}: {value!r:.60} is none of {', '.join(known)}")
    parts = value if isinstance(value, tuple) else ()
    if not isinstance(value, kind) or not all(isinstance(part, str) for part in parts):
        raise BadOption(f"{name}: wanted is {wanted}, not {value!r:.60}")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise BadOption(f"{name}: a number of more than {MAX_BITS} bits")


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """A machine, as ``cmafs mount --help`` describes it; ``memory`` in bytes if it is a number."""

    dts: str = _option(
        "virt", "a .dts or .dtb file, or the name of a bundled board (default: virt)", metavar="FILE"
    )
    overlays: tuple[str, ...] = _option(
        (),
        "a .dts or .dtbo file to apply to the tree; repeatable",
        metavar="FILE",
        action="append",
        flag="--overlay",
    )
    kernel: str = _option(
        "6.12", "a release from 4.4 to 7.2, or a dialect, article or 2010 (default: 6.12)", metavar="REL"
    )
    arch: str | None = _option(
        None, "the architecture (default: that of the first cpu node, else arm64)", choices=ARCHITECTURES
    )
    cmdline: str | None = _option(None, "kernel command line, instead of /chosen/bootargs", metavar="STR")
    config: tuple[str, ...] = _option(
        (),
        "a line of the kernel configuration, a file of lines, a whole .config, or a named set: see "
        "`cmafs boards --configs`; repeatable",
        metavar="KEY=VALUE",
        action="append",
    )
    memory: str | int | None = _option(
        None, "memory in one range, instead of the /memory nodes (K, M, G)", metavar="SIZE"
    )
    seed: int = _option(
        0,
        "start value of all random choices; the same seed gives the same machine (default: 0)",
        metavar="N",
        type=seed,
    )
    profile: str | None = _option(
        None, "with --kernel 2010: which version of the framework (default: vendor)", choices=PROFILES
    )
    strict_quirks: bool = _option(
        False, "with --kernel 2010: with the bugs that its code had", action="store_true"
    )

    @classmethod
    def arguments(cls) -> Mapping[str, dict[str, Any]]:
        """Option -> what add_argument() takes; what the user does not choose is empty or None."""
        made = {}
        for one in fields(cls):
            words = {"dest": one.name, **one.metadata["argument"]}
            words["default"] = {"append": [], "store_true": False}.get(words.get("action", ""))
            made[words.pop("flag", f"--{one.name.replace('_', '-')}")] = words
        return made

    @classmethod
    def named(cls, **values: Any) -> MachineOptions:
        """The machine that keyword arguments describe. Raises BadOption for what is no name or no value."""
        names = [one.name for one in fields(cls)]
        if unknown := sorted(values.keys() - set(names)):
            raise BadOption(f"no option of a machine: {', '.join(unknown)}; there are {', '.join(names)}")
        values = {name: _tupled(value) for name, value in values.items()}
        for one in fields(cls):
            if one.name in values:
                _expect(one, values[one.name])
        return cls(**values)

    @classmethod
    def given(cls, namespace: object, **changes: object) -> dict[str, Any]:
        """The options that the user chose, by their fields; ``changes`` go before them."""
        values = {one.name: getattr(namespace, one.name, None) for one in fields(cls)} | changes
        return {name: value for name, value in values.items() if not _is_unset(value)}

    @classmethod
    def chosen(cls, namespace: object, **changes: object) -> MachineOptions:
        """The machine that parsed arguments describe."""
        return cls.named(**cls.given(namespace, **changes))
