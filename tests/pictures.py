"""The pictures of docs/pictures: `python -m tests.pictures` makes them anew; t3_view.py compares them."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

from cmafs.api import Machine
from cmafs.board.areas import read_areas
from cmafs.board.extents import read_extents
from cmafs.board.memory import page_size, zone_blocks
from cmafs.board.root import open_root
from cmafs.cli.main import main
from cmafs.mount.export import export
from cmafs.view.picture import pictures_of
from cmafs.view.svg import draw_svg

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
CAMERA = (
    "dma_alloc 32e00000.isi 12M",
    "dma_alloc 32e10000.isp 8M",
    "dma_alloc 32e00000.isi 6M",
    "dma_free 32e00000.isi 12M",
    "spawn browser anon 1500M",
    "spawn video file 220M",
    "pin pfn 0x62a00",
)
TRACE = ["--cmdline", "cma=16M@0x60000000", "--do", "spawn browser anon 980M", "--do", "pin pfn 0x60180"]


def board_picture(machine: Machine, title: str) -> str:
    """The map of a machine."""
    with tempfile.TemporaryDirectory() as place:
        export(machine, Path(place, "copy"))
        root = open_root(f"{place}/copy")
        areas = read_areas(root)
        size = page_size(root, areas)
        pictures = pictures_of([(area, read_extents(root, area)) for area in areas], size)
        return draw_svg(pictures, zone_blocks(root), size, title)


def trace_picture() -> str:
    """One allocation, step by step."""
    with contextlib.redirect_stdout(io.StringIO()) as drawn:
        main(["trace-alloc", *TRACE, "--svg", "-", "reserved", "512"])
    return drawn.getvalue()


def make() -> dict[str, str]:
    """The pictures by their names."""
    camera = Machine.boot(dts="camera", kernel="6.12")
    for line in CAMERA:
        camera.control(line)
    large = Machine.boot(dts="x86-4g", kernel="6.12", memory="100G", cmdline="cma=64G")
    area = f"/sys/kernel/debug/cma/{large.listdir('/sys/kernel/debug/cma')[-1]}"
    for pages in (1000000, 5, 3000000):
        large.write(f"{area}/alloc", str(pages))
    large.write(f"{area}/free", "3000005")
    return {
        "map.svg": board_picture(camera, "The CMA areas of a camera board"),
        "map-64g.svg": board_picture(large, "An area of 64 GiB"),
        "trace-alloc.svg": trace_picture(),
    }


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, text in make().items():
        (PICTURES / name).write_text(text, encoding="utf-8")
