"""The device tree as nodes with bytes properties, and readers named as the kernel's.

A property is the raw bytes of the blob; whoever reads it knows how many cells its numbers have. Nothing here
guesses a type, and nothing reads a file: ``cmafs.of.fdt`` makes these objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cmafs.lib.kstrtox import U64_MAX

#: drivers/of/fdt.c:early_init_dt_scan_root()@v6.12: what a root without its own cell counts has
OF_ROOT_NODE_ADDR_CELLS_DEFAULT = 1
OF_ROOT_NODE_SIZE_CELLS_DEFAULT = 1

#: The node that holds the regions, with or without a unit address.
RESERVED_MEMORY = "reserved-memory"

_CELL = 4


class DtError(ValueError):
    """A device tree that cannot be used: one line for the user, saying where and what to do."""


def of_read_number(data: bytes, cells: int, offset: int = 0) -> int:
    """A big-endian number of ``cells`` 32-bit cells at byte ``offset``.

    More than two cells shift the upper ones out, none are 0: ``include/linux/of.h:of_read_number()@v6.12``.
    Raises ValueError if the property is too short.
    """
    end = offset + cells * _CELL
    if end > len(data):
        raise ValueError(f"{len(data)} bytes, {end} wanted")
    return int.from_bytes(data[offset:end], "big") & U64_MAX


@dataclass(eq=False)
class DeviceNode:
    """``struct device_node``: a name with its unit address; raw properties and children, in blob order.

    The root's name is empty. ``children`` has the names of /sys/firmware/devicetree/base, where the second
    node of one name is ``name#1``; ``repeats`` has the last such number of each name.
    """

    name: str
    props: dict[str, bytes] = field(default_factory=dict)
    children: dict[str, DeviceNode] = field(default_factory=dict)
    parent: DeviceNode | None = field(default=None, repr=False)
    repeats: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> str:
        """The full path: ``/reserved-memory/linux,cma``; the root's is ``/``."""
        names: list[str] = []
        node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return "/" + "/".join(reversed(names))

    def lineage(self) -> Iterator[DeviceNode]:
        """The node, its parent and so on, up to the root."""
        node: DeviceNode | None = self
        while node is not None:
            yield node
            node = node.parent

    def append(self, child: DeviceNode) -> None:
        """Make a node the last child; a taken name is changed as ``drivers/of/kobj.c:safe_name()`` does."""
        key, number = child.name, self.repeats.get(child.name, 0)
        while key in self.children:
            number += 1
            key = f"{child.name}#{number}"
            self.repeats[child.name] = number  # so that a thousand of a name are not counted a thousand times
        self.children[key] = child
        child.parent = self

    def walk(self) -> Iterator[DeviceNode]:
        """This node and all nodes below it, depth first, in blob order: ``for_each_of_allnodes()``."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children.values()))

    def property_read_bool(self, name: str) -> bool:
        """Whether the property is there, whatever its value: ``of_property_read_bool()``."""
        return name in self.props

    def property_read_u32(self, name: str, index: int = 0) -> int | None:
        """The cell at ``index``, None if there is none: ``of_property_read_u32_index()``."""
        data = self.props.get(name, b"")
        return of_read_number(data, 1, index * _CELL) if len(data) >= (index + 1) * _CELL else None

    def read_number(self, name: str, cells: int) -> int:
        """``of_read_number()`` at the start of a property. Raises ValueError if it is too short."""
        return of_read_number(self.props.get(name, b""), cells)

    def entries(self, name: str, *cells: int, whole: bool = False) -> list[tuple[int, ...]]:
        """A property as a table, one column for each of ``cells``: ``reg`` has (address, size) in each row.

        What is left over at its end is ignored; with ``whole`` there are no rows then.
        """
        data, step = self.props.get(name, b""), sum(cells) * _CELL
        if not step or (whole and len(data) % step):
            return []
        at = [sum(cells[:column]) * _CELL for column in range(len(cells))]
        return [
            tuple(of_read_number(data, width, row + offset) for width, offset in zip(cells, at, strict=True))
            for row in range(0, len(data) - step + 1, step)
        ]

    def property_read_strings(self, name: str) -> list[str]:
        """The zero-terminated strings of a property, a last one without terminator included."""
        data = self.props.get(name, b"")
        return [part.decode("latin-1") for part in data.removesuffix(b"\0").split(b"\0")] if data else []

    def property_read_string(self, name: str) -> str | None:
        """The first string of a property; None if it is missing or empty: ``of_property_read_string()``."""
        return next(iter(self.property_read_strings(name)), None)

    def is_compatible(self, compatible: str) -> bool:
        """Whether ``compatible`` lists this, case aside (``of_fdt_is_compatible()@v6.12``)."""
        wanted = compatible.lower()
        return any(wanted == entry.lower() for entry in self.property_read_strings("compatible"))

    def is_available(self) -> bool:
        """No ``status``, or ``ok`` or ``okay``: ``drivers/of/fdt.c:of_fdt_device_is_available()@v6.12``."""
        return "status" not in self.props or self.property_read_string("status") in ("ok", "okay")

    def reg_cells(self) -> tuple[int, int]:
        """``#address-cells`` and ``#size-cells``: what an entry of a child's ``reg`` consists of."""
        return self.address_cells(), self.size_cells()

    def address_cells(self) -> int:
        """``#address-cells`` for this node's children."""
        cells = self.property_read_u32("#address-cells")
        return OF_ROOT_NODE_ADDR_CELLS_DEFAULT if cells is None else cells

    def size_cells(self) -> int:
        """``#size-cells`` for this node's children."""
        cells = self.property_read_u32("#size-cells")
        return OF_ROOT_NODE_SIZE_CELLS_DEFAULT if cells is None else cells

    def phandle(self) -> int | None:
        """The node's phandle, by its new or old name (``fdt.c:populate_properties()@v6.12``)."""
        for name in ("phandle", "linux,phandle"):
            if (value := self.property_read_u32(name)) is not None:
                return value
        return None

    def parse_phandles(self, name: str) -> list[int]:
        """Every whole cell of a list of phandles without arguments, as ``memory-region`` is."""
        return [phandle for (phandle,) in self.entries(name, 1)]


@dataclass(eq=False)
class DeviceTree:
    """A loaded tree. ``memreserve``: (base, size) in bytes; ``blob``: what the boot loader would hand over.

    ``source`` is what the user asked for: a path or a bundled board's name.
    """

    root: DeviceNode
    memreserve: list[tuple[int, int]] = field(default_factory=list)
    blob: bytes = field(default=b"", repr=False)
    source: str = ""

    def walk(self) -> Iterator[DeviceNode]:
        """All nodes, depth first, the root first."""
        return self.root.walk()

    def find_node_by_path(self, path: str) -> DeviceNode | None:
        """The node at a full path, unit addresses included, or None."""
        node: DeviceNode | None = self.root
        for name in path.strip("/").split("/") if path.strip("/") else ():
            node = node.children.get(name) if node is not None else None
        return node

    def find_node_by_phandle(self, phandle: int) -> DeviceNode | None:
        """The first node with this phandle: ``of_find_node_by_phandle()``; 0 and all ones name none."""
        if phandle in (0, 0xFFFFFFFF):
            return None
        return next((node for node in self.walk() if node.phandle() == phandle), None)

    @property
    def chosen(self) -> DeviceNode:
        """/chosen, where the boot loader speaks to the kernel; without properties if there is none."""
        return self.root.children.get("chosen") or DeviceNode("chosen")

    def reserved_memory(self) -> DeviceNode | None:
        """/reserved-memory as libfdt finds it: the first of that name, its unit address aside."""
        children = self.root.children.values()
        return next((node for node in children if node.name.partition("@")[0] == RESERVED_MEMORY), None)

    @property
    def model(self) -> str:
        """What the root calls the machine; empty if it does not."""
        return self.root.property_read_string("model") or ""
