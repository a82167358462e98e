"""A board from copies of its files: the options of a machine, its device tree, its area as it was found.

The tree comes from the blob that the boot loader handed over, else from sys/firmware/devicetree/base, a
directory a node and a file a property; without it the memory alone, as /proc/iomem shows it. Drivers of the
board had used pages of an area before a recording began: that state is adopted, what follows from it is
compared.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

from cmafs.board.areas import is_directory_of, set_runs
from cmafs.board.memory import release
from cmafs.board.root import Root, RootError, read_text
from cmafs.init.options import ARCHITECTURES
from cmafs.lib.intervals import union, without
from cmafs.lib.kconfig import FileLine
from cmafs.lib.kstrtox import kstrtoull, u32_array
from cmafs.mm.cma_areas import Cma, CmaAreas
from cmafs.replay.machine import occupy, used_in, vacate
from cmafs.replay.transcript import ARCHES, RELEASE, Transcript

_FIRMWARE = "sys/firmware"
_RAM = re.compile(r"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) : System RAM$", re.MULTILINE)
#: Bytes of a configuration.
MAX_CONFIG = 16 << 20
#: The Kconfig symbol that only an architecture's kernels have on.
_ARCH_LINE = re.compile(r"CONFIG_(ARM64|ARM|X86_64)=y")


def board_options(root: Root) -> dict[str, Any]:
    """The options of a machine that are the board's: kernel, architecture, command line, configuration.

    Raises RootError, also where the root does not say which kernel it is.
    """
    found = RELEASE.search(release(root))
    if found is None:
        raise RootError(f"{root.name}: proc/version is missing: it does not say which kernel this was")
    config = board_config(root)
    options: dict[str, Any] = {"kernel": found[0], "config": tuple(config), "arch": _arch(root, config)}
    line = root.read("proc/cmdline")
    return options if line is None else {**options, "cmdline": line.decode("utf-8", "replace").strip()}


def _arch(root: Root, config: list[str]) -> str | None:
    """What ``uname -a`` or the configuration says; None: the tree is asked."""
    for word in read_text(root, "record.txt").split():
        if ARCHES.get(word, word) in ARCHITECTURES:
            return ARCHES.get(word, word)
    return next((match[1].lower() for line in config if (match := _ARCH_LINE.fullmatch(line))), None)


def board_config(root: Root) -> list[str]:
    """The configuration of the board's kernel, none if it was not saved. Raises RootError."""
    packed = next((data for name in ("proc/config.gz", "config.gz") if (data := root.read(name))), None)
    names = [f"boot/{name}" for name in root.names("boot") if name.startswith("config-")]
    own = f"boot/config-{release(root)}"
    if packed:
        text = _gunzip(root, packed)
    elif own in names or len(names) == 1:
        text = read_text(root, own if own in names else names[0])
    else:
        text = ""
    return [FileLine(line) for line in text.splitlines()]


def _gunzip(root: Root, packed: bytes) -> str:
    """The text of config.gz. Raises RootError."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = inflate.decompress(packed, MAX_CONFIG).decode()
        if inflate.eof:
            return text
        why = "it ends early" if len(text) < MAX_CONFIG else "it is too long"
    except (zlib.error, UnicodeDecodeError) as error:
        why = str(error)
    raise RootError(f"{root.name}: its config.gz is damaged: {why}")


def board_tree(root: Root) -> bytes | None:
    """A blob or a .dts of the board, None if the root says nothing of its memory. Raises RootError."""
    if blob := root.read(f"{_FIRMWARE}/fdt"):
        return blob
    source = _board_dts(root)
    return None if source is None else source.encode()


def _board_dts(root: Root) -> str | None:
    if root.names(f"{_FIRMWARE}/devicetree/base"):
        return "\n".join(["/dts-v1/;", *_node(root, f"{_FIRMWARE}/devicetree/base", "/")])
    text = read_text(root, "proc/iomem")
    ranges = union((kstrtoull(low, 16), kstrtoull(high, 16) + 1) for low, high in _RAM.findall(text))
    if not any(end > 1 for _, end in ranges):  # all zeros: who read it was not root
        return None
    memory = "".join(_memory(start, end - start) for start, end in ranges)
    cells = "#address-cells = <2>; #size-cells = <2>;"
    return f"/dts-v1/;\n/ {{ {cells} chosen {{ }};\n{memory}}};\n"


def _memory(start: int, size: int) -> str:
    cells = " ".join(f"{value >> 32:#x} {value & 0xFFFFFFFF:#x}" for value in (start, size))
    return f'memory@{start:x} {{ device_type = "memory"; reg = <{cells}>; }};\n'


def _node(root: Root, path: str, name: str) -> Iterator[str]:
    """A node: its properties, then its children, as dtc wants them."""
    children = []
    yield f"{name} {{"
    for entry in root.names(path):
        value = root.read(f"{path}/{entry}")
        if value is None:
            children.append(entry)
        elif entry != "name":
            yield f"{entry} = [{value.hex(' ')}];" if value else f"{entry};"
    for child in children:
        yield from _node(root, f"{path}/{child}", child)
    yield "};"


def adopt(areas: CmaAreas, transcript: Transcript) -> None:
    """Bring the area of a walk to the state in which it was found: its first bitmap, before any write.

    Raises OSError for a bitmap that is none.
    """
    for op in transcript.operations:
        if op["op"] != "R":
            return
        if op["path"].endswith("/bitmap") and (cma := _area(areas, op["path"])):
            _become(cma, u32_array(op["out"].encode("latin-1")))
            return


def _area(areas: CmaAreas, path: str) -> Cma | None:
    """The area that a directory of debugfs stands for, by its name with or without ``cma-``."""
    directory = path.partition("/cma/")[2].partition("/")[0]
    return next((cma for cma in areas if is_directory_of(directory, cma.name)), None)


def _become(cma: Cma, words: bytes) -> None:
    """An area's pages are in use as the bitmap says."""
    base, end = cma.base_pfn, cma.ranges[0].end_pfn
    there = list(set_runs(words, base, end, cma.order_per_bit))
    vacate(cma, list(without(used_in(cma, base, end), there)))
    for low, high in there:
        occupy(cma, low, high)
