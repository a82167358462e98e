"""A board from copies of its files: its device tree where no blob was copied, its area as it was found.

The tree comes from sys/firmware/devicetree/base, a directory a node and a file a property; without it the
memory alone, as /proc/iomem shows it. Drivers of the board had used pages of an area before a recording
began: that state is adopted, what follows from it is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cmafs.board.areas import set_runs
from cmafs.board.root import Root, read_text
from cmafs.lib.intervals import union, without
from cmafs.lib.kstrtox import kstrtoull, u32_array
from cmafs.mm.cma_areas import Cma, CmaAreas
from cmafs.replay.machine import occupy, used_in, vacate
from cmafs.replay.transcript import Transcript

_FIRMWARE = "sys/firmware"
_RAM = re.compile(r"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) : System RAM$", re.MULTILINE)


def board_dts(root: Root) -> str | None:
    """A .dts of the board, None if the root says nothing of its memory. Raises RootError."""
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
    return next((cma for cma in areas if directory in (cma.name, f"cma-{cma.name}"[:15])), None)


def _become(cma: Cma, words: bytes) -> None:
    """An area's pages are in use as the bitmap says."""
    base, end = cma.base_pfn, cma.ranges[0].end_pfn
    there = list(set_runs(words, base, end, cma.order_per_bit))
    vacate(cma, list(without(used_in(cma, base, end), there)))
    for low, high in there:
        occupy(cma, low, high)
