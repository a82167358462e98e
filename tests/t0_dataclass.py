"""``cmafs.dataclass`` does what the standard library's does, as far as the package uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from cmafs import dataclass as ours
from cmafs.init.options import MachineOptions


def classes(module: Any) -> tuple[type[Any], type[Any], type[Any], type[Any]]:
    """A frozen class, one that extends it, a mutable one without equality, an ordered one."""

    @module.dataclass(frozen=True)
    class Base:
        first: int
        second: str = "b"
        names: list[str] = module.field(default_factory=list, compare=False, repr=False)

    @module.dataclass(frozen=True)
    class Derived(Base):
        third: int = module.field(kw_only=True)
        second: str = "other"

    @module.dataclass(eq=False)
    class Mutable:
        size: int
        twice: int = module.field(init=False)
        tags: dict[str, int] = module.field(default_factory=dict)

        def __post_init__(self) -> None:
            self.twice = 2 * self.size

    @module.dataclass(order=True)
    class Ordered:
        major: int
        minor: int = 0

    return Base, Derived, Mutable, Ordered


def frozen(base: Any, *_: Any) -> object:
    one = base(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.first = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.first
    return one.first, hash(one) == hash(base(1, names=["x"])), {one, base(1)} == {one}


def compared(base: Any, derived: Any, mutable: Any, ordered: Any) -> object:
    return (
        base(1) == base(1, "b", ["not compared"]),
        base(1) == base(2),
        base(1) == derived(1, "b", third=3),
        mutable(1) == mutable(1),
        base(1) == 1,
        sorted([ordered(2), ordered(1, 9), ordered(1)]),
        ordered.__hash__ is None,
    )


def made(base: Any, derived: Any, mutable: Any, ordered: Any) -> object:
    one, two = mutable(4), mutable(5)
    one.tags["a"] = 1
    return [
        repr(base(1)),
        repr(derived(1, third=3)),
        derived.second,
        one.twice,
        two.tags,
        base.__match_args__,
    ]


def refused(base: Any, derived: Any, *_: Any) -> object:
    messages = []
    for call in (base, lambda: base(1, 2, 3, 4), lambda: derived(1), lambda: base(1, other=2)):
        with pytest.raises(TypeError) as error:
            call()
        messages.append(str(error.value).rpartition("__init__")[2])
    return messages


def changed(base: Any, derived: Any, *_: Any) -> object:
    copies = [dataclasses.replace(base(1), second="c"), dataclasses.replace(derived(1, third=3), third=4)]
    shown = [(one.name, one.init, one.kw_only) for one in dataclasses.fields(derived)]
    return [repr(copy) for copy in copies], shown, dataclasses.asdict(base(1)), dataclasses.is_dataclass(base)


@pytest.mark.parametrize("ask", [frozen, compared, made, refused, changed], ids=lambda ask: str(ask.__name__))
def test_it_answers_as_the_standard_librarys(ask: Callable[..., object]) -> None:
    assert repr(ask(*classes(ours))) == repr(ask(*classes(dataclasses)))


def test_to_others_it_is_a_dataclass() -> None:
    """Users write ``dataclasses.replace(options, kernel=…)``."""
    options = dataclasses.replace(MachineOptions(), kernel="6.1")
    assert (options.kernel, options.dts) == ("6.1", "virt")
    assert ours.replace(options, dts="rpi4").kernel == "6.1"
    assert [one.name for one in dataclasses.fields(options)] == [one.name for one in ours.fields(options)]
