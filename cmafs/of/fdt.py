"""Load a device tree: a bundled board, a .dts or a .dtb, with overlays, read with pyfdt into DeviceNodes.

The only module that imports pyfdt. pyfdt's own property classes guess types from bytes and cannot give them
back on Python 3, so this reads the list of tags that its parser makes, where properties still are raw bytes.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyfdt.pyfdt import FDT_BEGIN_NODE, FDT_END, FDT_END_NODE, FDT_MAGIC, FDT_NOP, FDT_PROP, FdtBlobParse

from cmafs.of.base import DeviceNode, DeviceTree, DtError
from cmafs.of.fdt_compile import OverlayError, annotated_source, apply_overlays, compile_source

if TYPE_CHECKING:
    from cmafs.of.source_map import SourceMap

#: arch/arm64/include/asm/boot.h: MAX_FDT_SIZE@v6.12; the kernel maps no larger blob, in bytes.
MAX_FDT_SIZE = 2 << 20
#: Bytes; no board's sources come near, and nothing larger is read.
MAX_SOURCE_SIZE = 8 << 20
#: Bytes; a longer property name is taken for damage (the specification allows 31, the field uses more).
_MAX_NAME = 255

#: Nodes inside each other; a kernel leaves out what is deeper than 64 (``FDT_MAX_DEPTH``).
_MAX_DEPTH = 1000
#: What the names of a blob can need: 48 characters for each property that has no value.
_READS_PER_BYTE = 4

#: The only version since 2006; pyfdt knows no later one, dtc converts earlier ones.
_VERSION = 17
#: last_comp_version, which the kernel lets be anything up to 17, and the one that pyfdt takes.
_AT_LAST_COMP, _LAST_COMP = 24, (16).to_bytes(4, "big")

_HEADER = struct.Struct(">10I")
_MAGIC = struct.pack(">I", FDT_MAGIC)
_MODEL = re.compile(r'^\s*model\s*=\s*"([^"]*)"', re.M)


@dataclass(frozen=True)
class Board:
    """A bundled board. ``model`` is the root's ``model`` property, ``path`` its .dts."""

    name: str
    model: str
    path: Path


def _board_directory() -> Path:
    """``dts/`` of the repository; in a checkout ``cmafs/boards`` is a link to it, in a wheel a copy."""
    return Path(__file__).resolve().parent.parent / "boards"


def boards() -> list[Board]:
    """The bundled boards by name."""
    found = []
    for path in sorted(_board_directory().glob("*.dts")):
        match = _MODEL.search(path.read_text())
        found.append(Board(path.stem, match[1] if match else "", path))
    return found


def load(source: str, overlays: Sequence[str] = ()) -> DeviceTree:
    """The tree of a bundled board's bare name, a .dts or a .dtb, told by content; overlays applied in order.

    Raises DtError: one line, naming file and line where there is one.
    """
    path = _find(source)
    base = _blob_of(str(path), symbols=bool(overlays))
    tree = _unflatten(source, base)
    if overlays:
        merged = _merge(source, tree, overlays)
        tree = _unflatten(source, merged)
    return tree


def unflatten(source: str, blob: bytes) -> DeviceTree:
    """The tree of a blob in memory; ``source``: what errors call it. Raises DtError."""
    return _unflatten(source, _checked(source, blob))


def source_map(tree: DeviceTree, overlays: Sequence[str] = ()) -> SourceMap:
    """Where the nodes and properties of a tree that ``load()`` made of these overlays stand in the sources.

    A blob has no places, nor has a pipe, which was read: its name stands for them.
    """
    from cmafs.of.source_map import SourceMap, add_overlay, add_source  # only to report

    path = _find(tree.source)
    bundled = path.parent == _board_directory()
    found = SourceMap(f"cmafs/boards/{path.name}" if bundled else str(path))
    if text := _annotated(str(path)):
        add_source(found, text.replace(str(path), found.file) if bundled else text)
    for overlay in overlays:
        if text := _annotated(overlay):
            add_overlay(found, text, _targets(_unflatten(overlay, _blob_of(overlay, symbols=True)), tree))
    found.texts = {file: _lines(file, path.parent) for file in found.files()}
    return found


def _annotated(path: str) -> str:
    if not Path(path).is_file():
        return ""
    data = _read(path)
    return "" if data.startswith(_MAGIC) else annotated_source(path, data, regular=True)


def _lines(file: str, directory: Path) -> list[str]:
    """The lines of a source; dtc's own /include/ names files as seen from the board's directory."""
    for path in (Path(file), directory / file, _board_directory() / Path(file).name):
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


def _targets(overlay: DeviceTree, tree: DeviceTree) -> dict[str, str]:
    """Path of each fragment of an overlay -> path of the node of the merged tree that it changes."""
    labels, fixups = (
        root.children.get(name) for root, name in ((tree.root, "__symbols__"), (overlay.root, "__fixups__"))
    )
    found = {}
    for label in fixups.props if fixups else ():
        for fixup in fixups.property_read_strings(label) if fixups else ():
            fragment, _, prop = fixup.partition(":")
            target = labels.property_read_string(label) if labels else None
            if prop.startswith("target:") and target:
                found[fragment] = target
    for fragment_node in overlay.root.children.values():
        if target := fragment_node.property_read_string("target-path"):
            found[fragment_node.path] = target
    return found


def _find(source: str) -> Path:
    """The file that a --dts value names. Raises DtError for a bare name that is neither board nor file."""
    bundled = _board_directory() / f"{source}.dts"
    bare = "/" not in source and "." not in source
    if bare and source and _exists(bundled):
        return bundled
    if bare and not (source and _exists(Path(source))):
        known = [board.name for board in boards()]
        near = _meant(source, known)
        raise DtError(
            f"unknown board '{source}': known are {', '.join(known)}; or the path of a .dts or .dtb{near}"
        )
    return Path(source)


def _exists(path: Path) -> bool:
    """Whether a file is there; nothing is under a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _meant(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # only for a mistake

    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def open_named(path: str) -> io.BufferedReader:
    """A file that the user named, open for reading, without waiting for anybody. Raises OSError.

    A FIFO waits for a writer who may never come; the pipe of a shell's ``<(…)`` has one, and no name. A
    device may have no end; but for the one that is empty.
    """

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NONBLOCK)
        found = os.fstat(descriptor)
        kind = ""
        if stat.S_ISFIFO(found.st_mode) and not os.path.realpath(name).startswith("/proc/"):
            kind = "FIFO"
        elif stat.S_ISCHR(found.st_mode) and found.st_rdev != Path(os.devnull).stat().st_rdev:
            kind = "device"
        if kind:
            os.close(descriptor)
            raise OSError(errno.EINVAL, f"is a {kind}; a file is wanted")
        os.set_blocking(descriptor, True)
        return descriptor

    return open(path, "rb", opener=opener)


def read_named(path: str, most: int = -1) -> bytes:
    """What is in it, up to so many bytes. Raises OSError."""
    with open_named(path) as file:
        return file.read(most)


def _read(path: str) -> bytes:
    """A file's bytes. Raises DtError if it is missing, unreadable, empty or too large for a device tree."""
    try:
        data = read_named(path, MAX_SOURCE_SIZE + 1)
    except IsADirectoryError:
        raise DtError(f"{path}: is a directory; a .dts or .dtb file is wanted") from None
    except OSError as error:
        bundled = _board_directory() / f"{Path(path).stem}.dts"
        helps = isinstance(error, FileNotFoundError) and _exists(bundled)
        near = f"; the bundled board is called {bundled.stem}, without .dts" if helps else ""
        raise DtError(f"{path}: {error.strerror}{near}") from None
    except ValueError as error:  # a NUL in its name
        raise DtError(f"{path!r}: {error}") from None
    if not data:
        raise DtError(f"{path}: the file is empty")
    if len(data) > MAX_SOURCE_SIZE:
        raise DtError(f"{path}: larger than {MAX_SOURCE_SIZE >> 20} MiB, not a device tree")
    return data


def _blob_of(path: str, symbols: bool) -> bytes:
    """The blob that a file is or compiles to. Raises DtError."""
    data = _read(path)
    if data.startswith(_MAGIC):
        return _checked(path, data)
    if path.endswith((".dtb", ".dtbo")):
        raise DtError(f"{path}: not a device tree blob: it starts with {data[:4].hex()}, not {_MAGIC.hex()}")
    if b"\0" in data:
        raise DtError(f"{path}: not a device tree: neither source text nor a blob")
    return _checked(path, compile_source(path, data, Path(path).is_file(), symbols))


def _checked(path: str, data: bytes) -> bytes:
    """The blob without what follows its totalsize, after the checks that pyfdt lacks. Raises DtError."""
    if len(data) < _HEADER.size:
        raise DtError(f"{path}: truncated device tree blob: {len(data)} bytes are less than its header")
    _, total, at_struct, at_strings, at_rsv, version, last_comp, _, n_strings, n_struct = _HEADER.unpack(
        data[: _HEADER.size]
    )
    if version != _VERSION or last_comp > _VERSION:
        found = f"version {version}" + (f" for readers of {last_comp}" if last_comp > _VERSION else "")
        raise DtError(f"{path}: device tree blob of {found}, {_VERSION} is wanted: convert it with dtc")
    if total > MAX_FDT_SIZE:
        raise DtError(f"{path}: blob of {total} bytes; the kernel maps at most {MAX_FDT_SIZE} (MAX_FDT_SIZE)")
    if total > len(data):
        raise DtError(
            f"{path}: truncated device tree blob: its header says {total} bytes, the file has {len(data)}"
        )
    blocks = ((at_struct, n_struct, 4), (at_strings, n_strings, 1), (at_rsv, 16, 8))
    if any(start < _HEADER.size or start + size > total or start % align for start, size, align in blocks):
        raise DtError(f"{path}: damaged device tree blob: its header points outside the {total} bytes")
    strings = data[at_strings : at_strings + n_strings].split(b"\0")
    if strings[-1] or max(map(len, strings)) > _MAX_NAME:
        raise DtError(f"{path}: damaged device tree blob: no property names in its strings block")
    return data[:total]


def _merge(source: str, base: DeviceTree, overlays: Sequence[str]) -> bytes:
    """The base's blob with the overlays in it. Raises DtError naming the overlay and why."""
    trees = [_unflatten(path, _blob_of(path, symbols=True)) for path in overlays]
    for tree in trees:
        if not any("__overlay__" in node.children for node in tree.root.children.values()):
            raise DtError(f"{tree.source}: not an overlay: it has no fragment (is /plugin/; missing?)")
    try:
        return apply_overlays(base.blob, [tree.blob for tree in trees])
    except OverlayError as error:
        raise DtError(_explain_overlay(source, base, trees, error)) from None


def _names(tree: DeviceTree, node: str) -> set[str]:
    found = tree.root.children.get(node)
    return set(found.props) if found else set()


def _explain_overlay(source: str, base: DeviceTree, trees: Sequence[DeviceTree], error: OverlayError) -> str:
    """What an overlay wants and the base has not: fdtoverlay says only FDT_ERR_NOTFOUND."""
    labels = _names(base, "__symbols__")
    for tree in trees:
        if missing := sorted(_names(tree, "__fixups__") - labels):
            why = "" if labels else " (it has no __symbols__: compile it with dtc -@)"
            return f"{tree.source}: label '{missing[0]}' is not in {source}{why}"
        labels |= _names(tree, "__symbols__")
        for fragment in tree.root.children.values():
            target = fragment.property_read_string("target-path")
            if target and base.find_node_by_path(target) is None:
                return f"{tree.source}: target-path '{target}' is not in {source}"
    at_fault = trees if error.index is None else [trees[error.index]]
    name = ", ".join(tree.source for tree in at_fault)
    return f"{name}: cannot be applied to {source}: {error}"


def _unflatten(source: str, blob: bytes) -> DeviceTree:
    """Nodes and reservations of a checked blob. Raises DtError where its structure is damaged."""
    readable = blob[:_AT_LAST_COMP] + _LAST_COMP + blob[_AT_LAST_COMP + len(_LAST_COMP) :]
    try:
        parsed = FdtBlobParse(_Input(readable))
    except _Damaged as error:
        raise DtError(f"{source}: damaged device tree blob: {error}") from None
    except Exception:  # TypeError, struct.error, UnicodeError and bare ones: pyfdt met what it did not expect
        raise DtError(f"{source}: damaged device tree blob: it ends in the middle") from None
    reserve = [(entry["address"], entry["size"]) for entry in parsed.fdt_reserve_entries]
    try:
        root = _nodes(parsed.fdt_dt_tags)
    except _Damaged as error:
        raise DtError(f"{source}: damaged device tree blob: {error}") from None
    return DeviceTree(root, reserve, blob, source)


class _Damaged(ValueError):
    """The structure block does not describe a tree."""


class _Input(io.BytesIO):
    """A blob for pyfdt, which reads names byte by byte: a small one can make it read for hours."""

    def __init__(self, blob: bytes) -> None:
        super().__init__(blob)
        self._left = _READS_PER_BYTE * len(blob)

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises _Damaged once more was read than a tree can need."""
        self._left -= 1
        if self._left < 0:
            raise _Damaged("the names in it run on")
        return super().read(size)


def _nodes(tags: Iterable[tuple[int, object]]) -> DeviceNode:
    """The root made of pyfdt's tags, in which an unknown tag is a node named by whatever followed it."""
    root = current = None
    depth = 0
    for tag, value in tags:
        if tag == FDT_BEGIN_NODE:
            depth += 1
            if depth >= _MAX_DEPTH:
                raise _Damaged(f"nodes inside each other, {_MAX_DEPTH} deep")
            node = DeviceNode("" if root is None else _node_name(value))
            if root is None:
                root = node
            elif current is None:
                raise _Damaged("a second root node")
            else:
                current.append(node)
            current = node
        elif tag == FDT_PROP and current is not None:
            assert isinstance(value, tuple)
            current.props.setdefault(*value)
        elif tag == FDT_END_NODE and current is not None:
            current, depth = current.parent, depth - 1
        elif tag == FDT_END and root is not None and current is None:
            return root
        elif tag != FDT_NOP:
            raise _Damaged(f"unexpected tag {tag:#x} in its structure")
    raise _Damaged("its structure has no end")


def _node_name(value: object) -> str:
    assert isinstance(value, str)
    if "/" in value:  # pyfdt's name for the empty one
        raise _Damaged("a node without a name")
    return value
