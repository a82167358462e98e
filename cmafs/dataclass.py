"""``@dataclass`` as the standard library has it, but for when its methods are made: at their first use.

A start makes a hundred of these classes and fills in half of them. The standard library's decorator compiles
the source of six methods for each, 1 ms, and imports ``inspect``: together half of the processor time of
``cmafs run -- true``. Here ``__init__`` alone is compiled, once the first object is made; the others are
closures. What the package does not use is not here. To everybody else (``dataclasses.fields()``,
``replace()``, ``asdict()``) the classes are dataclasses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import fields as fields
    from dataclasses import replace as replace
else:
    from functools import partial
    from operator import attrgetter, ge, gt, le, lt

    _MISSING = object()
    _FIELDS = "_dataclass_fields"

    class field:  # noqa: N801
        """A field; ``kw_only`` is None where the class decides."""

        __slots__ = ("compare", "default", "default_factory", "init", "kw_only", "metadata", "name", "repr")

        def __init__(
            self,
            *,
            default=_MISSING,
            default_factory=_MISSING,
            init=True,
            repr=True,
            compare=True,
            kw_only=None,
            metadata=None,
        ):
            self.default, self.default_factory = default, default_factory
            self.init, self.repr, self.compare, self.kw_only = init, repr, compare, kw_only
            self.metadata = metadata or {}

    def dataclass(cls=None, *, eq=True, order=False, frozen=False, kw_only=False):
        """Give a class the methods that its annotations ask for."""
        if cls is None:
            return partial(dataclass, eq=eq, order=order, frozen=frozen, kw_only=kw_only)
        made = dict(getattr(cls, _FIELDS, {}))
        for name, kind in cls.__annotations__.items():
            if not kind.startswith("ClassVar"):
                made[name] = _own_field(cls, name, kw_only)
        setattr(cls, _FIELDS, made)
        cls.__dataclass_fields__ = _StandardFields()
        cls.__match_args__ = tuple(one.name for one in made.values() if one.init and not one.kw_only)
        methods = {"__init__": _first_init(cls, frozen), "__repr__": _repr}
        if eq:
            methods |= _comparing([one.name for one in made.values() if one.compare], frozen, order)
        if frozen:
            methods |= {"__setattr__": _refuse, "__delattr__": _refuse}
        for name in methods.keys() - cls.__dict__.keys():
            setattr(cls, name, methods[name])
        return cls

    def fields(cls):
        """The fields of a class, or of that of an object, those of its bases first."""
        return tuple(getattr(cls, _FIELDS).values())

    def replace(instance, /, **changes):
        """A copy with other values."""
        for one in fields(instance):
            if one.init and one.name not in changes:
                changes[one.name] = getattr(instance, one.name)
        return type(instance)(**changes)

    class _StandardFields:
        """What the standard library's functions look at, made when they do."""

        def __get__(self, instance, owner):
            from dataclasses import field as standard
            from dataclasses import make_dataclass

            words = [word for word in field.__slots__ if word != "name"]
            made = []
            for one in fields(owner):
                given = {word: getattr(one, word) for word in words}
                given = {word: value for word, value in given.items() if value is not _MISSING}
                made.append((one.name, owner.__annotations__.get(one.name, "object"), standard(**given)))
            return make_dataclass(owner.__name__, made).__dataclass_fields__

    def _own_field(cls, name, kw_only):
        """The field of an annotation; the class keeps its default as an attribute."""
        value = cls.__dict__.get(name, _MISSING)
        one = value if isinstance(value, field) else field(default=value)
        one.name = name
        one.kw_only = kw_only if one.kw_only is None else one.kw_only
        if one is value:
            delattr(cls, name)
            if one.default is not _MISSING:
                setattr(cls, name, one.default)
        return one

    def _first_init(cls, frozen):
        """An ``__init__`` that makes the class's own, for this object and all after it."""

        def __init__(self, /, *args, **words):  # noqa: N807
            made = _compiled_init(cls, frozen)
            if cls.__init__ is __init__:
                cls.__init__ = made
            made(self, *args, **words)

        return __init__

    def _compiled_init(cls, frozen):
        """``def __init__(self, a, b=…, *, c=…)``, which stores each, and calls ``__post_init__``."""
        names = {"_set": object.__setattr__, "_MISSING": _MISSING}
        plain, by_word, body = [], [], []
        for one in fields(cls):
            value = one.name
            if one.default_factory is not _MISSING:
                names[f"_make_{one.name}"] = one.default_factory
                value = f"_make_{one.name}() if {one.name} is _MISSING else {one.name}" if one.init else ""
                value = value or f"_make_{one.name}()"
            if one.init:
                names[f"_or_{one.name}"] = one.default
                must = one.default is _MISSING and one.default_factory is _MISSING
                (by_word if one.kw_only else plain).append(one.name + ("" if must else f"=_or_{one.name}"))
            elif one.default_factory is _MISSING:
                continue  # for __post_init__
            body.append(f"_set(self, '{one.name}', {value})" if frozen else f"self.{one.name} = {value}")
        if hasattr(cls, "__post_init__"):
            body.append("self.__post_init__()")
        taken = ", ".join(["self", *plain, *(["*", *by_word] if by_word else [])])
        exec(f"def __init__({taken}):\n " + "\n ".join(body or ["pass"]), names)  # noqa: S102
        made = names["__init__"]
        made.__qualname__ = f"{cls.__qualname__}.__init__"
        return made

    def _repr(self):
        shown = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
        return f"{type(self).__qualname__}({shown})"

    def _comparing(names, frozen, order):
        """``__eq__``, ``__hash__`` and, with ``order``, the rest, by value; what can change has no hash."""
        key = attrgetter(*names) if names else type

        def __eq__(self, other):  # noqa: N807
            if other.__class__ is not self.__class__:
                return NotImplemented
            return key(self) == key(other)

        def __hash__(self):  # noqa: N807
            return hash(key(self))

        def ordered(compare):
            def method(self, other):
                return compare(key(self), key(other)) if other.__class__ is self.__class__ else NotImplemented

            return method

        methods = {f"__{compare.__name__}__": ordered(compare) for compare in (lt, le, gt, ge) if order}
        return {**methods, "__eq__": __eq__, "__hash__": __hash__ if frozen else None}

    def _refuse(self, name, *_value):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")
