"""What a user chooses of a machine: what each option can be, and what is said of what it cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from cmafs.init.options import ARCHITECTURES, MAX_BITS, PROFILES, BadOption, MachineOptions, memory_size, seed

LARGEST = (1 << MAX_BITS) - 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, None),
        (0, 0),
        (-1, -1),
        ((1 << 64) - 1, (1 << 64) - 1),
        ("1", 1),
        ("0x40", 64),
        ("512M", 512 << 20),
        ("1g", 1 << 30),
    ],
)
def test_sizes(text: str | int | None, size: int | None) -> None:
    assert memory_size(text) == size


IS_NO_SIZE = "is no size: a number of bytes, or one with K, M or G"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (1 << 64, f"{1 << 64:#x} is no size: more than 64 bits"),
        (-(1 << 64), f"-{1 << 64:#x} is no size: more than 64 bits"),
        ("", f"'' {IS_NO_SIZE}"),
        ("0", f"'0' {IS_NO_SIZE}"),
        ("much", f"'much' {IS_NO_SIZE}"),
        ("1GiBi", f"'1GiBi' {IS_NO_SIZE}"),
        ("0MiB", f"'0MiB' {IS_NO_SIZE}"),
        ("1GB", f"'1GB' {IS_NO_SIZE}; did you mean 1G?"),
        ("512MiB", f"'512MiB' {IS_NO_SIZE}; did you mean 512M?"),
        ("64byte", f"'64byte' {IS_NO_SIZE}; did you mean 64?"),
        ("64Bytes", f"'64Bytes' {IS_NO_SIZE}; did you mean 64?"),
    ],
)
def test_what_is_no_size(text: str | int, why: str) -> None:
    for option in ("memory", "size"):
        with pytest.raises(BadOption) as refused:
            memory_size(text, option)
        assert str(refused.value) == f"{option}: {why}"
    with pytest.raises(BadOption, match=r"^memory: "):
        memory_size(text)


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("0x1f", 31), ("-3", -3), (hex(LARGEST), LARGEST)])
def test_seeds(text: str, number: int) -> None:
    assert seed(text) == number


@pytest.mark.parametrize("text", ["", "x", "1.5", hex(LARGEST + 1), hex(-LARGEST - 1)])
def test_what_is_no_seed(text: str) -> None:
    with pytest.raises(ValueError):
        seed(text)


def documented() -> dict[str, str]:
    """Option -> what docs/api.md says of it."""
    text = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
    section = text.partition("\n## MachineOptions\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| `[^|]*` \| (.*) \|$", section, re.M))


def test_options_of_the_command_line() -> None:
    one_of = {"default": None}
    found = MachineOptions.arguments()
    assert {words["dest"]: words.pop("help") for words in map(dict, found.values())} == documented()
    for words in found.values():
        del words["dest"], words["help"]
    assert found == {
        "--dts": {**one_of, "metavar": "FILE"},
        "--overlay": {"default": [], "metavar": "FILE", "action": "append"},
        "--kernel": {**one_of, "metavar": "REL"},
        "--arch": {**one_of, "choices": ARCHITECTURES},
        "--cmdline": {**one_of, "metavar": "STR"},
        "--config": {"default": [], "metavar": "KEY=VALUE", "action": "append"},
        "--memory": {**one_of, "metavar": "SIZE"},
        "--seed": {**one_of, "metavar": "N", "type": seed},
        "--profile": {**one_of, "choices": PROFILES},
        "--strict-quirks": {"default": False, "action": "store_true"},
    }  # fmt: skip


NO_OPTION = "; there are dts, overlays, kernel, arch, cmdline, config, memory, seed, profile, strict_quirks"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"kernl": "6.12"}, f"no option of a machine: kernl{NO_OPTION}"),
        ({"b": 1, "a": 2}, f"no option of a machine: a, b{NO_OPTION}"),
        ({"dts": None}, "dts: wanted is a text, not None"),
        ({"cmdline": 1}, "cmdline: wanted is a text, not 1"),
        ({"memory": 1.5}, "memory: wanted is a text or a number, not 1.5"),
        ({"memory": "9" * 70 + "!"}, None),  # a text: read when the machine boots
        ({"config": "CMA=y"}, "config: wanted is a list of texts, not 'CMA=y'"),
        ({"config": ["CMA=y", 7]}, "config: wanted is a list of texts, not ('CMA=y', 7)"),
        ({"overlays": ("a", b"b")}, "overlays: wanted is a list of texts, not ('a', b'b')"),
        ({"seed": "7"}, "seed: wanted is a number, not '7'"),
        ({"seed": LARGEST}, None),
        ({"seed": LARGEST + 1}, "seed: a number of more than 4096 bits"),
        ({"memory": -LARGEST - 1}, "memory: a number of more than 4096 bits"),
        ({"strict_quirks": 1}, "strict_quirks: wanted is true or false, not 1"),
        ({"kernel": ["x" * 80]}, f"kernel: wanted is a text, not ('{'x' * 58}"),
        ({"arch": "mips"}, "arch: 'mips' is none of arm, arm64, x86_64"),
        ({"profile": "v5"}, "profile: 'v5' is none of v1, v2, v3, v4, vendor, meizu"),
        ({"arch": None, "profile": None, "cmdline": None, "memory": None, "config": []}, None),
    ],
)
def test_options_by_name(values: dict[str, object], why: str | None) -> None:
    if why is None:
        wanted = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        assert MachineOptions.named(**values) == MachineOptions(**wanted)  # type: ignore[arg-type]
        return
    with pytest.raises(BadOption) as refused:
        MachineOptions.named(**values)
    assert str(refused.value) == why


def test_options_that_the_user_left_out_are_the_machine_s_own() -> None:
    """Parsers give None, False and [] for them; changes go before what was parsed."""
    parsed = SimpleNamespace(
        dts="rpi4", overlays=[], kernel=None, seed=0, config=["A=1"], strict_quirks=False
    )
    assert MachineOptions.given(parsed) == {"dts": "rpi4", "seed": 0, "config": ["A=1"]}
    assert MachineOptions.given(parsed, dts=None, memory="1G") == {
        "seed": 0,
        "config": ["A=1"],
        "memory": "1G",
    }
    assert MachineOptions.chosen(parsed, overlays=("a", "b")) == MachineOptions(
        dts="rpi4", config=("A=1",), overlays=("a", "b")
    )
    assert MachineOptions() == MachineOptions(dts="virt", kernel="6.12", seed=0)
