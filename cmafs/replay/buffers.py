"""A list of buffers in words: what a camera, a decoder and a display need, in the order of start and stop.

``1920x1080 nv12 x4 + 3840x2160 rgba x2 - 1920x1080 nv12 x4 + 16M``: items joined by ``+`` (start) and ``-``
(stop: the oldest of that kind go back). An item is WIDTHxHEIGHT and a pixel format, or a size in bytes (K, M,
G), and a number of buffers, one if it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cmafs.lib.cmdline import memparse
from cmafs.lib.kstrtox import kstrtoull
from cmafs.lib.math import div_round_up
from cmafs.of.memory import LARGEST_SPAN
from cmafs.replay.capture import ALLOC, RELEASE, Event

#: Bits of a pixel, all planes together, as V4L2 and DRM name the formats.
BITS = {
    **dict.fromkeys(("nv12", "nv21", "i420", "iyuv", "yu12", "yv12", "yuv420", "nv12m"), 12),
    **dict.fromkeys(("nv16", "nv61", "yuyv", "yuy2", "uyvy", "yvyu", "vyuy", "yuv422"), 16),
    **dict.fromkeys(("rgb565", "bgr565", "rgb555", "y16", "raw16", "gray16"), 16),
    **dict.fromkeys(("rgb", "bgr", "rgb24", "bgr24", "rgb888", "bgr888", "nv24", "yuv444", "p010"), 24),
    **dict.fromkeys(("rgba", "bgra", "argb", "abgr", "rgbx", "bgrx", "xrgb", "xbgr"), 32),
    **dict.fromkeys(("rgba8888", "argb8888", "xrgb8888", "xbgr8888", "abgr8888", "ar24", "xr24"), 32),
    **dict.fromkeys(("grey", "gray", "y8", "raw8", "r8"), 8),
    "raw10": 10,
    "raw12": 12,
    "raw14": 14,
    "p210": 32,
    "rgba16": 64,
}

_ITEM = re.compile(r"(?P<what>\S+)(?:\s+(?!x\s*\d)(?P<format>[a-zA-Z]\w*))?(?:\s+x\s*(?P<times>\d+))?\Z")
_SIZE = re.compile(r"(\d+)x(\d+)\Z")
#: Buffers of one list.
MAX_BUFFERS = 10_000


class BadList(ValueError):
    """A list of buffers that cannot be read: one line for the user."""


@dataclass(frozen=True)
class Item:
    """``times`` buffers of ``size`` bytes that ``start`` or stop; ``text`` as it was written."""

    start: bool
    size: int
    times: int
    text: str


def items(text: str) -> list[Item]:
    """The items of a list. Raises BadList."""
    found = []
    for sign, words in re.findall(r"(?:\A|\s)([+-]?)\s*([^\s+-](?:(?!\s[+-](?:\s|\Z)).)*)", text):
        found.append(_item(sign != "-", words.strip()))
    if not found:
        raise BadList("no buffers: wanted is a list such as '1920x1080 nv12 x4 + 16M x2'")
    if sum(item.times for item in found) > MAX_BUFFERS:
        raise BadList(f"more than {MAX_BUFFERS} buffers")
    total = sum(item.size * item.times for item in found if item.start)
    if total > LARGEST_SPAN:
        most = f"no more than a machine has ({LARGEST_SPAN >> 40} TiB) can be simulated"
        raise BadList(f"buffers of {total / (1 << 40):.1f} TiB: {most}")
    return found


def _item(start: bool, text: str) -> Item:
    match = _ITEM.match(text)
    if not match:
        raise BadList(f"'{text}': wanted is WIDTHxHEIGHT FORMAT xN, or SIZE xN")
    try:
        times = kstrtoull(match["times"], 10) if match["times"] else 1
        size = _bytes(match["what"], match["format"])
    except OSError:
        raise BadList(f"'{text}': a number of more than 64 bits") from None
    if not size or not times:
        raise BadList(f"'{text}': no buffer at all")
    return Item(start, size, times, text)


def _bytes(what: str, pixels: str | None) -> int:
    if not (frame := _SIZE.match(what)):
        size, rest = memparse(what)
        if rest or pixels:
            raise BadList(f"'{what}': neither WIDTHxHEIGHT nor a size in bytes (K, M, G)")
        return size
    bits = BITS.get((pixels or "").lower())
    if bits is None:
        known = ", ".join(sorted(BITS))
        raise BadList(f"'{what} {pixels or ''}': unknown pixel format; known are {known}")
    return div_round_up(kstrtoull(frame[1], 10) * kstrtoull(frame[2], 10) * bits, 8)


def requests(wanted: list[Item], page_shift: int, align: int | None, max_order: int) -> Iterator[Event]:
    """The events of a list: a line is an item's number from 1, a pfn no more than a buffer's own number.

    ``align``: an order for all, None: as drivers get it, the order of the size up to ``max_order``
    (CONFIG_CMA_ALIGNMENT; ``kernel/dma/contiguous.c:dma_alloc_from_contiguous()``). Raises BadList for what
    stops before it starts.
    """
    running: dict[int, list[int]] = {}
    place = 0
    for number, item in enumerate(wanted, 1):
        pages = -(-item.size >> page_shift)
        order = min((pages - 1).bit_length(), max_order) if align is None else align
        for _ in range(item.times):
            if item.start:
                running.setdefault(item.size, []).append(place)
                yield Event(number, ALLOC, None, place, pages, order)
                place += pages
            elif running.get(item.size):
                yield Event(number, RELEASE, None, running[item.size].pop(0), pages)
            else:
                raise BadList(f"'- {item.text}': stops more buffers than were started")
