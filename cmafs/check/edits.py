"""Changes of a board that may mend a finding, each made on a copy of its tree or of its options.

An edit is a generator: it changes the trial and yields what the user would do, in the words of a device
tree source; asked again it tries the next possibility. It yields nothing where it has nothing to offer.
Pure; sizes and addresses are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from itertools import chain, cycle
from typing import TypeAlias

from cmafs.check.tree import size_text
from cmafs.init.options import MachineOptions
from cmafs.lib.cmdline import memparse
from cmafs.lib.kstrtox import parse_integer
from cmafs.lib.math import round_up, rounddown
from cmafs.lib.sizes import SZ_4G
from cmafs.of.address import of_dma_get_range
from cmafs.of.base import RESERVED_MEMORY, DeviceNode, DeviceTree
from cmafs.of.rmem_init import COMPATIBLE, DEFAULT

_CELL = 4


@dataclass(eq=False)
class Trial:
    """A copy of a board to change: its tree, its options with their command line.

    ``unit``: CMA_MIN_ALIGNMENT_BYTES; ``node`` (None for a parameter), ``prop``, ``detail``: the finding's.
    """

    tree: DeviceTree
    options: MachineOptions
    cmdline: str
    unit: int
    node: DeviceNode | None = None
    prop: str = ""
    detail: str = ""

    @property
    def cells(self) -> tuple[int, int]:
        """The root's, which regions are written in."""
        return self.tree.root.reg_cells()

    def columns(self, name: str) -> tuple[int, ...]:
        """Cells of the numbers in one entry of a region's property."""
        address, size = self.cells
        return {"size": (size,), "alignment": (address,)}.get(name, (address, size))

    def write(self, node: DeviceNode, name: str, *numbers: int) -> str:
        """Give a region's property these numbers; as a source has it."""
        cells = zip(cycle(self.columns(name)), numbers, strict=False)
        return _set(node, name, b"".join(_encode(width, number) for width, number in cells))

    def set_cmdline(self, words: list[str]) -> None:
        """Boot with these words."""
        self.cmdline = " ".join(words)
        self.options = replace(self.options, cmdline=self.cmdline)


Edit: TypeAlias = Callable[[Trial], Iterator[str]]


def _of_node(edit: Callable[[Trial, DeviceNode], Iterator[str]]) -> Edit:
    """An edit of the node that the finding is about; of a parameter there is none, and nothing to offer."""

    @wraps(edit)
    def tried(trial: Trial) -> Iterator[str]:
        return iter(()) if trial.node is None else edit(trial, trial.node)

    return tried


def copy_of(tree: DeviceTree) -> DeviceTree:
    """A copy whose nodes can be changed."""
    return DeviceTree(_copy(tree.root), list(tree.memreserve), tree.blob, tree.source)


def _copy(node: DeviceNode) -> DeviceNode:
    made = DeviceNode(node.name, dict(node.props))
    for key, child in node.children.items():
        made.children[key] = copied = _copy(child)
        copied.parent = made
    return made


# words of a device tree source


def _encode(cells: int, value: int) -> bytes:
    """A number in so many cells."""
    return (value & ((1 << 32 * cells) - 1)).to_bytes(_CELL * cells, "big")


def _written(name: str, data: bytes) -> str:
    """A property of numbers, or without a value, as a source has it."""
    if not data:
        return f"`{name};`"
    numbers = (int.from_bytes(data[at : at + _CELL], "big") for at in range(0, len(data), _CELL))
    return f"`{name} = <{' '.join(f'{number:#x}' for number in numbers)}>;`"


def _set(node: DeviceNode, name: str, data: bytes) -> str:
    node.props[name] = data
    return _written(name, data)


# flags and strings


def drop(name: str) -> Edit:
    """Without the property."""

    @_of_node
    def edit(trial: Trial, node: DeviceNode) -> Iterator[str]:
        if node.props.pop(name, None) is not None:
            yield f"drop `{name}`"

    return edit


def add(name: str) -> Edit:
    """With the flag."""

    @_of_node
    def edit(trial: Trial, node: DeviceNode) -> Iterator[str]:
        yield f"add {_set(node, name, b'')}"

    return edit


@_of_node
def add_compatible(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """With the compatible that the driver of areas knows."""
    others = node.property_read_strings("compatible")
    node.props["compatible"] = "".join(f"{text}\0" for text in (*others, COMPATIBLE)).encode("latin-1")
    yield f'add "{COMPATIBLE}" to `compatible`' if others else f'add `compatible = "{COMPATIBLE}";`'


@_of_node
def respell(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """The name that was meant: ``detail`` is what ``check.spelling`` read it as."""
    meant = trial.detail.partition("'")[2].partition("'")[0]
    if trial.prop == "compatible":
        node.props["compatible"] = f"{meant}\0".encode()
        yield f'write `compatible = "{meant}";`'
    elif trial.prop in node.props:
        node.props[meant] = node.props.pop(trial.prop)
        yield f"write `{meant}`"
    else:
        yield from _call(node, meant)


# numbers


@_of_node
def align(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """Base and size as multiples of the unit."""
    if pairs := node.entries("reg", *trial.cells, whole=True):
        (base, size), *others = pairs
        for place in _aligned(base, size, trial.unit):
            yield f"write {trial.write(node, 'reg', *chain(place, *others))}"
        return
    for (asked,) in node.entries("size", trial.columns("size")[0])[:1]:
        yield f"write {trial.write(node, 'size', max(round_up(asked, trial.unit), trial.unit))}"


def _aligned(base: int, size: int, unit: int) -> list[tuple[int, int]]:
    """Aligned ranges instead of a given one: moved down or up; around it first if its size is wrong, too."""
    size = max(size, 1)
    low, length = rounddown(base, unit), round_up(size, unit)
    around = low, round_up(base + size, unit) - low
    down, up = (low, length), (round_up(base, unit), length)
    return list(dict.fromkeys([down, up, around] if size == length else [around, up, down]))


@_of_node
def in_root_cells(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """The property's numbers in the root's cells: as if they had been written in fewer or more."""
    name = trial.prop
    if name not in node.props:
        return
    data, wide = node.props[name], trial.columns(name)
    for cells in ((1,) * len(wide), (2, 1), (1, 2), (2, 2), (2,)):
        rows = node.entries(name, *cells, whole=True) if len(cells) == len(wide) and cells != wide else []
        if rows:
            yield f"write {trial.write(node, name, *chain(*rows))}"
            node.props[name] = data
    step = sum(wide) * _CELL
    if step and len(data) > step:
        yield f"write {_set(node, name, data[: rounddown(len(data), step)])}"


@_of_node
def give_size(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """A size of one unit, for a region that has none."""
    node.props.pop("reg", None)
    yield f"say how much, for instance {trial.write(node, 'size', trial.unit)}"


@_of_node
def let_kernel_place(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """``size`` instead of ``reg``: the kernel finds a free place."""
    if pairs := node.entries("reg", *trial.cells, whole=True):
        del node.props["reg"]
        written = trial.write(node, "size", max(round_up(pairs[0][1], trial.unit), trial.unit))
        yield f"let the kernel find a place: {written} instead of `reg`"


@_of_node
def smaller(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """Half of the size, and half again, down to the unit."""
    for (size,) in node.entries("size", trial.columns("size")[0])[:1]:
        while size > trial.unit:
            size = round_up(size // 2, trial.unit)
            yield f"ask for less: {trial.write(node, 'size', size)} finds room"


@_of_node
def drop_mapping_flag(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """What keeps the memory out of the kernel's map, or what asks for an area of it."""
    for name in ("no-map", "reusable"):
        kept = node.props.copy()
        yield from drop(name)(trial)
        node.props = kept


@_of_node
def raise_alignment(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """The unit, which is what it becomes."""
    yield f"write {trial.write(node, 'alignment', trial.unit)}"


@_of_node
def split_reg(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """A node for each pair of ``reg``."""
    pairs = node.entries("reg", *trial.cells)
    if node.parent is None or not pairs:
        return
    stem = node.name.partition("@")[0]
    kept = {k: v for k, v in node.props.items() if k not in ("phandle", "linux,phandle", DEFAULT)}
    others = [DeviceNode(f"{stem}@{pair[0]:x}", dict(kept)) for pair in pairs[1:]]
    if node.parent.children.keys() & {other.name for other in others}:  # dtc takes no name twice
        return
    for other, pair in zip(others, pairs[1:], strict=True):
        trial.write(other, "reg", *pair)
        node.parent.append(other)
    yield f"write {trial.write(node, 'reg', *pairs[0])} here, and one node more for each other range"


# nodes


def _call(node: DeviceNode, name: str) -> Iterator[str]:
    """Give a node another name, at its place among its siblings, unless one of these has it."""
    parent = node.parent
    if parent is None or name in parent.children:
        return
    node.name = name
    children, parent.children = list(parent.children.values()), {}
    for child in children:
        parent.append(child)
    yield f"call the node `{name}`"


@_of_node
def name_for_base(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """The unit address that the binding wants."""
    if pairs := node.entries("reg", *trial.cells):
        yield from _call(node, f"{node.name.partition('@')[0]}@{pairs[0][0]:x}")


@_of_node
def shorten_name(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """As much of the name as is kept."""
    return _call(node, node.name[:63].rstrip("@,"))


def _parent_props(trial: Trial) -> dict[str, bytes]:
    """What /reserved-memory must have: the root's cells and ``ranges``."""
    address, size = trial.cells
    return {"#address-cells": _encode(1, address), "#size-cells": _encode(1, size), "ranges": b""}


def mend_parent(trial: Trial) -> Iterator[str]:
    """/reserved-memory with the root's cells and ``ranges``."""
    parent = trial.tree.reserved_memory()
    if parent is None:
        return
    wanted = _parent_props(trial).items()
    said = [_set(parent, name, data) for name, data in wanted if parent.props.get(name) != data]
    if said:
        yield f"give {parent.path} {' '.join(said)}"


@_of_node
def move_up(trial: Trial, node: DeviceNode) -> Iterator[str]:
    """The node as a child of /reserved-memory, which is made where there is none."""
    parent, made = trial.tree.reserved_memory(), ""
    if node.parent is None or node is parent:
        return
    if parent is None:
        parent = DeviceNode(RESERVED_MEMORY, {})
        trial.tree.root.append(parent)
        words = (_set(parent, name, data) for name, data in _parent_props(trial).items())
        made = f", which is to be made with {' '.join(words)}"
    old = node.parent
    old.children = {key: child for key, child in old.children.items() if child is not node}
    parent.append(node)
    moved = f"move the node to {parent.path}{made}"
    yield moved
    for name in ("reg", "size", "alignment"):
        trial.prop = name
        for said in in_root_cells(trial):
            yield f"{moved}, and {said}"


@_of_node
def into_reach(trial: Trial, device: DeviceNode) -> Iterator[str]:
    """The device's region, which ``detail`` begins with, where the device can address it."""
    region = trial.tree.find_node_by_path(trial.detail.partition(" is ")[0])
    if region is None:
        return
    length = trial.columns("size")[0]
    fixed = region.entries("reg", *trial.cells) or [(0, *row) for row in region.entries("size", length)]
    for low, _, size in of_dma_get_range(device) or [(0, 0, SZ_4G)]:
        region.props.pop("reg", None)
        reach = min(size, (1 << 32 * length) - 1, max(SZ_4G - low, 0) or size)
        words = [
            trial.write(region, "size", round_up(fixed[0][1], trial.unit)),
            trial.write(region, "alloc-ranges", low, reach),
        ]
        yield f"give {region.path} {' '.join(words)} instead of its place"


# the command line and the configuration


def _words(trial: Trial) -> list[str]:
    """The words of the parameter that the finding is about; dashes and underscores are the same."""
    name = trial.prop.removesuffix("=")
    return [word for word in trial.cmdline.split() if word.partition("=")[0].replace("-", "_") == name]


def _instead(trial: Trial, old: str, new: str) -> str:
    trial.set_cmdline([new if word == old else word for word in trial.cmdline.split() if new or word != old])
    return f"write `{new}` on the command line" if new else f"drop `{old}` from the command line"


def drop_parameter(trial: Trial) -> Iterator[str]:
    """Without any word of that parameter."""
    if words := _words(trial):
        for word in words:
            _instead(trial, word, "")
        yield f"drop `{' '.join(words)}` from the command line"


def drop_cma(trial: Trial) -> Iterator[str]:
    """Without ``cma=``."""
    trial.prop = "cma="
    yield from drop_parameter(trial)


def size_alone(trial: Trial) -> Iterator[str]:
    """``cma=`` without what stands behind its size; then with its base alone."""
    for word in _words(trial)[-1:]:
        name, _, text = word.partition("=")
        size = text.removesuffix(memparse(text)[1])
        base = text.partition("@")[2].partition("-")[0]
        for new in (f"{name}={size}", f"{name}={size}@{base}") if size else ():
            yield _instead(trial, word, new)
            word = new


def fixed_base(trial: Trial) -> Iterator[str]:
    """``cma=SIZE@BASE`` without a limit, which makes the base one."""
    for word in _words(trial)[-1:]:
        if "-" in word.partition("@")[2]:
            yield _instead(trial, word, word.rpartition("-")[0])


def rounded_size(trial: Trial) -> Iterator[str]:
    """``cma=`` with the size that it becomes."""
    became = trial.detail.rpartition(" became ")[2].split()
    for word in _words(trial)[-1:]:
        if len(became) == 2 and became[1] in ("KiB", "MiB"):
            place = word.partition("@")
            yield _instead(trial, word, f"cma={became[0]}{became[1][0]}{place[1]}{place[2]}")


def smaller_default(trial: Trial) -> Iterator[str]:
    """Half of what ``cma=`` or the configuration asks for, and half again."""
    size = parse_integer(trial.detail).value if trial.detail.startswith("0x") else 0
    word = next(iter(_words(trial)[-1:]), "")
    while size > trial.unit:
        size = round_up(size // 2, trial.unit)
        new = f"cma={size_text(size).replace(' MiB', 'M').replace(' KiB', 'K')}"
        if word:
            said = _instead(trial, word, new)
        else:
            trial.set_cmdline([*trial.cmdline.split(), new])
            said = f"write `{new}` on the command line"
        word = new
        yield f"{said}: that much finds room"


def more_areas(trial: Trial) -> Iterator[str]:
    """A kernel with more slots for areas."""
    lines, number = trial.options.config, 8
    while number <= 1024:
        trial.options = replace(trial.options, config=(*lines, f"CMA_AREAS={number}"))
        yield f"build the kernel with CONFIG_CMA_AREAS={number}"
        number *= 2


def drop_tree_default(trial: Trial) -> Iterator[str]:
    """No ``linux,cma-default`` in the tree: at the first node that has it, then at the next, too."""
    dropped = []
    for node in trial.tree.walk():
        if node.props.pop(DEFAULT, None) is not None:
            dropped.append(node.path)
            yield f"drop `{DEFAULT}` from {' and '.join(dropped)}"
