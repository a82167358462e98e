"""What /proc says of a board's memory: sizes, counters, page blocks by migrate type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cmafs.board import SYSFS
from cmafs.board.areas import Area, is_directory_of
from cmafs.board.root import Root, read_text
from cmafs.lib.kstrtox import simple_strtoull

#: Bytes of a page that kernels can have.
PAGE_SIZES = (4096, 16384, 65536)


@dataclass(frozen=True)
class ZoneBlocks:
    """The page blocks of a zone, named with its node, by migrate type as the kernel calls it."""

    zone: str
    blocks: dict[str, int]


def _proc(root: Root, name: str) -> str:
    return read_text(root, f"proc/{name}")


def meminfo(root: Root) -> dict[str, int]:
    """The lines of /proc/meminfo, in kB."""
    return _named_numbers(_proc(root, "meminfo"), ":")


def vmstat(root: Root) -> dict[str, int]:
    """The counters of /proc/vmstat."""
    return _named_numbers(_proc(root, "vmstat"), " ")


def _named_numbers(text: str, separator: str) -> dict[str, int]:
    pairs = (line.partition(separator) for line in text.splitlines())
    return {name: simple_strtoull(rest.strip(), 10)[0] for name, sep, rest in pairs if sep}


def release(root: Root) -> str:
    """The kernel's release, empty if the root does not say."""
    found = re.match(r"Linux version (\S+)", _proc(root, "version"))
    return found[1] if found else ""


def page_size(root: Root, areas: Sequence[Area]) -> int:
    """Bytes of a page: CmaTotal by the pages of all areas; 4096 where that says nothing."""
    pages = sum(area.count for area in areas)
    total = meminfo(root).get("CmaTotal", 0) << 10
    return min(PAGE_SIZES, key=lambda size: abs(size * pages - total)) if total and pages else PAGE_SIZES[0]


def zone_blocks(root: Root) -> list[ZoneBlocks]:
    """The table at the end of /proc/pagetypeinfo; nothing where the kernel has no such file."""
    return list(_zone_blocks(_proc(root, "pagetypeinfo")))


def _zone_blocks(text: str) -> Iterator[ZoneBlocks]:
    types: list[str] = []
    for line in text.splitlines():
        if line.startswith("Number of blocks type"):
            types = line.split()[4:]
            continue
        found = re.match(r"Node\s+(\d+), zone\s+(\S+)\s+([\d ]+)\Z", line)
        if types and found:
            counts = [simple_strtoull(word, 10)[0] for word in found[3].split()]
            if any(counts):
                yield ZoneBlocks(f"{found[1]} {found[2]}", dict(zip(types, counts, strict=False)))


def failed_pages(root: Root, directory: str) -> int | None:
    """Pages that the area of a directory in debugfs could not give, as sysfs counts by its name.

    None before 5.13 or without CONFIG_CMA_SYSFS.
    """
    areas = [area for area in root.names(SYSFS) if is_directory_of(directory, area)]
    if not areas:
        return None
    area = directory if directory in areas else areas[0]
    data = root.read(f"{SYSFS}/{area}/alloc_pages_fail")
    return None if data is None else simple_strtoull(data.decode("latin-1"), 10)[0]
