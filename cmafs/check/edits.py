"""Changes of a board that may mend a finding, each made on a copy of its tree or of its options.

An edit is a generator: it changes the trial and yields what the user would do, in the words of a device
tree source; asked again it tries the next possibility. It yields nothing where it has nothing to offer.
Pure; sizes and addresses are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from cmafs.check.tree import DEFAULT, POOL, RESERVED_MEMORY, reserved_memory, size_text
from cmafs.init.options import MachineOptions
from cmafs.lib.kstrtox import parse_integer
from cmafs.of.address import of_dma_get_range
from cmafs.of.base import DeviceNode, DeviceTree

_CELL = 4
_FOUR_GIB = 1 << 32


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

    def set_cmdline(self, words: list[str]) -> None:
        """Boot with these words."""
        self.cmdline = " ".join(words)
        self.options = replace(self.options, cmdline=self.cmdline)


Edit: TypeAlias = Callable[[Trial], Iterator[str]]


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


def encode(cells: int, value: int) -> bytes:
    """A number of so many cells."""
    return (value & ((1 << 32 * cells) - 1)).to_bytes(_CELL * cells, "big")


def written(name: str, data: bytes) -> str:
    """A property of numbers, or without a value, as a source has it."""
    if not data:
        return f"`{name};`"
    numbers = (int.from_bytes(data[at : at + _CELL], "big") for at in range(0, len(data), _CELL))
    return f"`{name} = <{' '.join(f'{number:#x}' for number in numbers)}>;`"


def _set(node: DeviceNode, name: str, data: bytes) -> str:
    node.props[name] = data
    return written(name, data)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


# flags and strings


def drop(name: str) -> Edit:
    """Without the property."""

    def edit(trial: Trial) -> Iterator[str]:
        if trial.node is not None and trial.node.props.pop(name, None) is not None:
            yield f"drop `{name}`"

    return edit


def add(name: str) -> Edit:
    """With the flag."""

    def edit(trial: Trial) -> Iterator[str]:
        if trial.node is not None:
            yield f"add {_set(trial.node, name, b'')}"

    return edit


def add_compatible(trial: Trial) -> Iterator[str]:
    """With the compatible that the driver of areas knows."""
    if trial.node is not None:
        others = trial.node.property_read_strings("compatible")
        trial.node.props["compatible"] = "".join(f"{text}\0" for text in (*others, POOL)).encode("latin-1")
        yield f'add "{POOL}" to `compatible`' if others else f'add `compatible = "{POOL}";`'


def respell(trial: Trial) -> Iterator[str]:
    """The name that was meant: ``detail`` is what ``check.spelling`` read it as."""
    node, meant = trial.node, trial.detail.partition("'")[2].partition("'")[0]
    if node is None:
        return
    if trial.prop == "compatible":
        node.props["compatible"] = f"{meant}\0".encode()
        yield f'write `compatible = "{meant}";`'
    elif trial.prop in node.props:
        node.props[meant] = node.props.pop(trial.prop)
        yield f"write `{meant}`"
    elif node.parent is not None:
        rename(node, meant)
        yield f"call the node `{meant}`"


# numbers


def align(trial: Trial) -> Iterator[str]:
    """Base and size as multiples of the unit: moved, or around what was written if the size is wrong."""
    node, unit = trial.node, trial.unit
    pairs = node.entries("reg", *trial.cells, whole=True) if node is not None else []
    if node is None:
        return
    if not pairs:
        for (asked,) in node.entries("size", trial.cells[1])[:1]:
            yield f"write {_set(node, 'size', encode(trial.cells[1], max(_up(asked, unit), unit)))}"
        return
    (base, size), others = (pairs[0][0], max(pairs[0][1], 1)), pairs[1:]
    low, length = base // unit * unit, _up(size, unit)
    around = (low, _up(base + size, unit) - low)
    shifted = [(low, length), (_up(base, unit), length)]
    tries = dict.fromkeys([*shifted, around] if size == length else [around, *reversed(shifted)])
    for place in tries:
        data = b"".join(encode(trial.cells[0], b) + encode(trial.cells[1], s) for b, s in (place, *others))
        yield f"write {_set(node, 'reg', data)}"


def in_root_cells(trial: Trial) -> Iterator[str]:
    """The property's numbers in the root's cells: as if they had been written in fewer or more."""
    node, name = trial.node, trial.prop
    if node is None or name not in node.props:
        return
    data, wide = node.props[name], _columns(trial, name)
    for cells in ((1,) * len(wide), (2, 1), (1, 2), (2, 2), (2,)):
        rows = node.entries(name, *cells, whole=True) if len(cells) == len(wide) and cells != wide else []
        if rows:
            pieces = (encode(width, number) for row in rows for width, number in zip(wide, row, strict=True))
            yield f"write {_set(node, name, b''.join(pieces))}"
            node.props[name] = data
    step = sum(wide) * _CELL
    if step and len(data) > step:
        yield f"write {_set(node, name, data[: len(data) // step * step])}"


def _columns(trial: Trial, name: str) -> tuple[int, ...]:
    address, size = trial.cells
    return {"size": (size,), "alignment": (address,)}.get(name, (address, size))


def give_size(trial: Trial) -> Iterator[str]:
    """A size of one unit, for a region that has none."""
    if trial.node is not None:
        trial.node.props.pop("reg", None)
        data = encode(trial.cells[1], trial.unit)
        yield f"say how much, for instance {_set(trial.node, 'size', data)}"


def let_kernel_place(trial: Trial) -> Iterator[str]:
    """``size`` instead of ``reg``: the kernel finds a free place."""
    node = trial.node
    pairs = node.entries("reg", *trial.cells, whole=True) if node is not None else []
    if node is not None and pairs:
        del node.props["reg"]
        data = encode(trial.cells[1], max(_up(pairs[0][1], trial.unit), trial.unit))
        yield f"let the kernel find a place: {_set(node, 'size', data)} instead of `reg`"


def smaller(trial: Trial) -> Iterator[str]:
    """Half of the size, and half again, down to the unit."""
    node = trial.node
    found = node.entries("size", trial.cells[1]) if node is not None else []
    size = found[0][0] if found else 0
    while node is not None and size > trial.unit:
        size = _up(size // 2, trial.unit)
        yield f"ask for less: {_set(node, 'size', encode(trial.cells[1], size))} finds room"


def drop_mapping_flag(trial: Trial) -> Iterator[str]:
    """What keeps the memory out of the kernel's map, or what asks for an area of it."""
    for name in ("no-map", "reusable"):
        kept = trial.node.props.copy() if trial.node is not None else {}
        yield from drop(name)(trial)
        if trial.node is not None:
            trial.node.props = kept


def raise_alignment(trial: Trial) -> Iterator[str]:
    """The unit, which is what it becomes."""
    if trial.node is not None:
        yield f"write {_set(trial.node, 'alignment', encode(trial.cells[0], trial.unit))}"


def split_reg(trial: Trial) -> Iterator[str]:
    """A node for each pair of ``reg``."""
    node = trial.node
    step = sum(trial.cells) * _CELL
    if node is None or node.parent is None or not step:
        return
    data = node.props["reg"]
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    stem = node.name.partition("@")[0]
    for piece in pieces[1:]:
        base = int.from_bytes(piece[: trial.cells[0] * _CELL], "big")
        props = {k: v for k, v in node.props.items() if k not in ("phandle", "linux,phandle", DEFAULT)}
        node.parent.append(DeviceNode(f"{stem}@{base:x}", {**props, "reg": piece}))
    node.props["reg"] = pieces[0]
    yield f"write {written('reg', pieces[0])} here, and one node more for each other range"


# nodes


def rename(node: DeviceNode, name: str) -> None:
    """Give a node another name, at its place among its siblings."""
    parent = node.parent
    assert parent is not None
    node.name = name
    children, parent.children = list(parent.children.values()), {}
    for child in children:
        parent.append(child)


def name_for_base(trial: Trial) -> Iterator[str]:
    """The unit address that the binding wants."""
    if trial.node is not None and (pairs := trial.node.entries("reg", *trial.cells)):
        rename(trial.node, f"{trial.node.name.partition('@')[0]}@{pairs[0][0]:x}")
        yield f"call the node `{trial.node.name}`"


def shorten_name(trial: Trial) -> Iterator[str]:
    """As much of the name as is kept."""
    if trial.node is not None:
        rename(trial.node, trial.node.name[:63].rstrip("@,"))
        yield f"call the node `{trial.node.name}`"


def _parent_props(trial: Trial) -> dict[str, bytes]:
    """What /reserved-memory must have: the root's cells and ``ranges``."""
    address, size = trial.cells
    return {"#address-cells": encode(1, address), "#size-cells": encode(1, size), "ranges": b""}


def mend_parent(trial: Trial) -> Iterator[str]:
    """/reserved-memory with the root's cells and ``ranges``."""
    parent = reserved_memory(trial.tree)
    if parent is None:
        return
    wanted = _parent_props(trial).items()
    said = [_set(parent, name, data) for name, data in wanted if parent.props.get(name) != data]
    if said:
        yield f"give {parent.path} {' '.join(said)}"


def move_up(trial: Trial) -> Iterator[str]:
    """The node as a child of /reserved-memory, which is made where there is none."""
    node, root = trial.node, trial.tree.root
    if node is None or node.parent is None:
        return
    parent, made = reserved_memory(trial.tree), ""
    if parent is None:
        parent = DeviceNode(RESERVED_MEMORY, {})
        root.append(parent)
        words = (_set(parent, name, data) for name, data in _parent_props(trial).items())
        made = f", which is to be made with {' '.join(words)}"
    old = node.parent
    old.children = {key: child for key, child in old.children.items() if child is not node}
    parent.append(node)
    moved = f"move the node to {parent.path}{made}"
    yield moved
    for name in ("reg", "size", "alignment"):
        if name in node.props:
            trial.prop = name
            for said in in_root_cells(trial):
                yield f"{moved}, and {said}"


def into_reach(trial: Trial) -> Iterator[str]:
    """The device's region, which ``detail`` begins with, where the device can address it."""
    device, region = trial.node, trial.tree.find_node_by_path(trial.detail.partition(" is ")[0])
    if device is None or region is None:
        return
    address, length = trial.cells
    fixed = region.entries("reg", *trial.cells) or [(0, *row) for row in region.entries("size", length)]
    for low, _, size in of_dma_get_range(device) or [(0, 0, _FOUR_GIB)]:
        region.props.pop("reg", None)
        reach = min(size, (1 << 32 * length) - 1, max(_FOUR_GIB - low, 0) or size)
        words = [
            _set(region, "size", encode(length, _up(fixed[0][1], trial.unit))),
            _set(region, "alloc-ranges", encode(address, low) + encode(length, reach)),
        ]
        yield f"give {region.path} {' '.join(words)} instead of its place"


# the command line and the configuration


def _words(trial: Trial) -> list[str]:
    """The words of the parameter that the finding is about."""
    return [word for word in trial.cmdline.split() if word.startswith(trial.prop.removesuffix("="))]


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
        size, _, place = word.partition("@")
        base = place.partition("-")[0]
        for new in (size.partition(",")[0], f"{size}@{base}"):
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
        size = _up(size // 2, trial.unit)
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
