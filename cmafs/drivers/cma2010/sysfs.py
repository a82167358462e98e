"""What the files below ``/sys/kernel/mm/contiguous`` show and take (``mm/cma.c:cma_sysfs_*``, 2010).

Where the files stand is ``fs/cma2010.py``'s business.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from cmafs.drivers.cma2010.framework import Cma2010
from cmafs.drivers.cma2010.regions import CmaRegion, strict_strtoul


@dataclass(frozen=True)
class Attribute:
    """A file: ``show`` makes its lines, ``store`` takes what one write brings (None: mode 0444)."""

    show: Callable[[], str]
    store: Callable[[str], None] | None = None


def root_attributes(cma: Cma2010) -> dict[str, Attribute]:
    """The files of ``contiguous/`` itself; storing a map raises what Cma2010.set_map() raises."""

    def show_allocators() -> str:
        return _line(" ".join(alloc.name or "-" for alloc in cma.allocators))

    def store_asterisk(text: str) -> None:
        cma.asterisk = _first_line(text)

    files = {
        "map": Attribute(lambda: _line(cma.map), cma.set_map),
        "allocators": Attribute(show_allocators),
        "asterisk": Attribute(lambda: _line(cma.asterisk_list()), store_asterisk),
    }
    return {name: files[name] for name in cma.profile.sysfs if name in files}


def region_attributes(cma: Cma2010, reg: CmaRegion) -> dict[str, Attribute]:
    """The files of one region; storing ``alloc`` raises EBUSY, storing ``asterisk`` EINVAL."""

    def show_alloc() -> str:
        if reg.alloc:
            return f"{reg.alloc.name or '-'}\n"
        return f"[{reg.alloc_name}]\n" if reg.alloc_name else ""

    def store_alloc(text: str) -> None:
        cma.set_allocator(reg, _first_line(text) or None)

    def store_asterisk(text: str) -> None:
        value = strict_strtoul(text, cma.word)
        if value is None:
            raise OSError(errno.EINVAL, "not a number")
        reg.asterisk = value != 0

    files = {
        "name": Attribute(lambda: _line(reg.name)),
        "start": Attribute(lambda: f"{cma.word.pointer(reg.start)}\n"),
        "size": Attribute(lambda: f"{reg.size}\n"),
        "free": Attribute(lambda: f"{reg.free_space}\n"),
        "users": Attribute(lambda: f"{reg.users}\n"),
        "alloc": Attribute(show_alloc, store_alloc),
        "asterisk": Attribute(lambda: f"{int(reg.asterisk)}\n", store_asterisk),
    }
    return {name: files[name] for name in cma.profile.region_files}


def _line(text: str | None) -> str:
    return f"{text}\n" if text else ""


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
