"""Pictures: what cells show, text at 80 and 200 columns, SVG; small areas and large ones alike."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pictures
import pytest

from cmafs.api import Machine
from cmafs.board.areas import Area, AreaRange, read_areas
from cmafs.board.extents import Extent, extents_of, read_extents
from cmafs.board.memory import ZoneBlocks, page_size, zone_blocks
from cmafs.board.root import RootError, open_root
from cmafs.cli.main import main
from cmafs.mount.export import export
from cmafs.view.cells import CELLS, Cell, cells, largest_hole, pages_per_cell
from cmafs.view.picture import AreaPicture, block_share, pictures_of, size
from cmafs.view.svg import draw_svg
from cmafs.view.text import draw

BASE = 0x40000


def area(pages: int, *allocated: tuple[int, int]) -> Area:
    """An area at BASE; what is allocated as offsets."""
    runs = tuple((BASE + low, BASE + high) for low, high in allocated)
    used = sum(high - low for low, high in allocated)
    one = AreaRange(BASE, pages, runs)
    return Area("big", pages, 0, used, max(high - low for low, high in one.holes()), (one,))


def extent(low: int, high: int, state: str = "allocated", owner: str = "") -> Extent:
    return Extent(BASE + low, BASE + high, state, owner)


def picture_of(area: Area, extents: list[Extent]) -> AreaPicture:
    return pictures_of([(area, extents)], 4096)[0]


@pytest.mark.parametrize("pages, scale", [(1, 1), (512, 1), (513, 2), (1024, 2), (16 << 20, 32768)])
def test_the_scale_is_a_power_of_two(pages: int, scale: int) -> None:
    assert pages_per_cell(pages, 1) == scale
    assert -(-pages // scale) <= CELLS


def test_nothing_is_lost_in_a_cell() -> None:
    found = [
        extent(0, 1, "pinned", "p"),
        extent(1, 8, "allocated", "a"),
        extent(8, 9, "allocated", "b"),
        extent(16, 20, "movable", "m"),
        extent(20, 24, "free"),
    ]
    assert cells(found, BASE, BASE + 24, 8, (BASE + 20, BASE + 24)) == [
        Cell("pinned", "p"),
        Cell("allocated", "b", sparse=True),
        Cell("movable", "m", largest=True),
    ]


def test_the_largest_hole_is_the_lowest_of_the_longest() -> None:
    assert largest_hole([(0, 3), (10, 15), (20, 25)]) == (10, 15)
    assert largest_hole([]) == (0, 0)


@pytest.mark.parametrize("pages", [1024, 16 << 20])
@pytest.mark.parametrize("width", [80, 200])
def test_a_picture_fits_its_columns_and_a_screen(pages: int, width: int) -> None:
    board = area(pages, (0, 10), (pages // 2, pages // 2 + 1))
    picture = picture_of(board, [extent(0, 10), extent(pages // 2, pages // 2 + 1)])
    zones = [ZoneBlocks("0 Normal", {"Unmovable": 1, "Movable": 10000, "CMA": 1})]
    lines = draw([picture], zones, 4096, width, colour=False)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24
    text = "\n".join(lines)
    assert "#" in text or "+" in text
    assert re.search(r"\|UM+C\|", text)


def test_colour_changes_nothing_but_colour() -> None:
    picture = picture_of(area(1024, (0, 10)), [extent(0, 10, "allocated", "camera")])
    plain, coloured = (draw([picture], [], 4096, 80, colour) for colour in (False, True))
    assert "\x1b" not in "".join(plain)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain


def test_the_text_of_a_small_area() -> None:
    found = [extent(0, 64, "allocated", "camera"), extent(96, 128, "movable", "shell")]
    found.append(extent(128, 130, "pinned", "shell"))
    lines = draw([picture_of(area(256, (0, 64)), found)], [], 4096, 80, colour=False)
    assert lines == [
        "big: 1 MiB at 0x40000000, 256 pages",
        f"  0x40000000 |{'A' * 64}|",
        f"  0x40040000 |{'=' * 32}{'a' * 32}|",
        f"{'':13} {'^' * 64}",
        f"  0x40080000 |!!{'=' * 62}|",
        f"{'':13} {'^' * 64}",
        f"  0x400c0000 |{'=' * 64}|",
        "  used 64 pages (25%), 256 KiB",
        "  1 hole, the largest 192 pages (768 KiB, 100% of what is free) at pfn 0x40040",
        "  a cell is 4 KiB, 1 page",
        "  A camera: 64 allocated  a shell: 32 movable  ! shell: 2 pinned",
        "  = the largest hole, underlined",
    ]


def test_an_svg_is_well_formed_whatever_the_names(tmp_path: Path) -> None:
    picture = picture_of(area(1024, (0, 10)), [extent(0, 10, "allocated", '<&"\x01>')])
    zones = [ZoneBlocks("0 DMA", {"Movable": 3, "Isolate": 1, "HighAtomic": 2})]
    root = ET.fromstring(draw_svg([picture], zones, 4096, "a & b"))
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    assert "big: 4 MiB at 0x40000000, 1024 pages" in texts
    assert '<&"?>: 10 allocated' in texts
    assert not [e for e in root.iter() if e.tag.endswith(("script", "image", "a"))]


def test_sizes_are_short() -> None:
    assert [size(n, 4096) for n in (1, 256, 300, 16 << 20)] == ["4 KiB", "1 MiB", "1.17 MiB", "64 GiB"]


def test_every_type_has_a_cell() -> None:
    assert block_share(ZoneBlocks("z", {"A": 1, "B": 1000, "C": 0, "D": 1}), 8) == [
        ("A", 1),
        ("B", 6),
        ("D", 1),
    ]


def test_a_map_that_is_damaged(tmp_path: Path) -> None:
    for text in (b"0x40000 12 allocated", b"zz 1 free x", b"0x40000 0 movable x", b"\xff\xfe\x00"):
        with pytest.raises(ValueError, match="not a line of it"):
            extents_of(text, [(BASE, BASE + 64)])


def test_a_machine_s_map_is_complete(tmp_path: Path) -> None:
    machine = Machine.boot(cmdline="cma=16M", kernel="7.2", memory="256M")
    machine.control("spawn browser anon 198M")
    machine.control("spawn cache file 9M")
    machine.control("pin browser 40000")
    machine.write("/sys/kernel/debug/cma/reserved/alloc", "77")
    export(machine, tmp_path / "copy")
    root = open_root(str(tmp_path / "copy"))
    (one,) = read_areas(root)
    found = read_extents(root, one)
    assert [extent.start for extent in found[1:]] == [extent.end for extent in found[:-1]]
    assert sum(extent.pages for extent in found) == one.count
    assert sum(e.pages for e in found if e.state == "allocated") == one.used
    tasks = machine.booted.memory.owners
    guests = sum(1 for pfn, _ in tasks.used_in(one.ranges[0].base_pfn, one.ranges[0].end_pfn))
    assert sum(e.pages for e in found if e.state in ("movable", "pinned")) == guests > 0
    assert page_size(root, [one]) == 4096
    assert sum(zone_blocks(root)[0].blocks.values()) == 128


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(Machine.boot(cmdline="cma=16M"), tmp_path / "c")
    copy = str(tmp_path / "c")
    for words, status, said in (
        (["map", copy, "--area", "none"], 1, "no area none: there are reserved"),
        (["map", copy, "--width", "3"], 2, "--width 3: wanted are"),
        (["map", copy, "--svg", f"{tmp_path}/no/such/file.svg"], 1, "No such file or directory"),
        (["map", str(tmp_path)], 1, "no CMA area in sys/kernel/debug/cma"),
        (["why", copy, "--dmesg", "x"], 2, "either ROOT or --dmesg"),
        (["why", "--dmesg", f"{tmp_path}/none"], 1, "No such file"),
    ):
        assert main(words) == status
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and said in err
    (tmp_path / "c/sim/map").write_text("rubbish\n")
    assert main(["map", copy]) == 1
    assert "sim/map: not a line of it: 'rubbish'" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "c"]


def test_the_svg_option_writes_the_file_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(Machine.boot(cmdline="cma=16M"), tmp_path / "c")
    assert main(["map", str(tmp_path / "c"), "--svg", str(tmp_path / "x.svg")]) == 0
    assert ET.parse(tmp_path / "x.svg").getroot().tag.endswith("svg")
    assert main(["map", str(tmp_path / "c"), "--svg", "-"]) == 0
    assert capsys.readouterr().out == (tmp_path / "x.svg").read_text()


@pytest.mark.parametrize("pin", [[], ["--do", "pin pfn 0x60100"]])
def test_an_allocation_as_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pin: list[str]
) -> None:
    options = ["--cmdline", "cma=64M@0x60000000", "--do", "spawn browser anon 900M", *pin]
    assert main(["trace-alloc", *options, "--svg", str(tmp_path / "w.svg"), "reserved", "512"]) == 0
    assert "migrate_pages(): " in capsys.readouterr().out
    root = ET.parse(tmp_path / "w.svg").getroot()
    texts = " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
    for word in ("isolate: ", "migrate: ", "take: ", "undo: ", "= done", *["busy: "] * bool(pin)):
        assert word in texts
    assert [e for e in root.iter() if e.tag.endswith("path") and "marker-end" in e.attrib]


def test_root_errors_are_the_only_ones(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\0" * 2000)
    with pytest.raises(RootError):
        read_areas(open_root(str(tmp_path / "file")))


def test_the_pictures_of_the_documents_are_current() -> None:
    for name, text in pictures.make().items():
        assert (pictures.PICTURES / name).read_text(encoding="utf-8") == text, (
            f"python -m tests.pictures: {name}"
        )


def test_an_owner_looks_the_same_in_every_area() -> None:
    small, large = area(256, (0, 64)), area(512, (0, 300))
    found = [extent(0, 64, "allocated", "a"), extent(64, 70, "movable", "m")]
    more = [extent(0, 200, "allocated", "b"), extent(200, 300, "allocated", "a")]
    one, two = pictures_of([(small, found), (large, more)], 4096)
    assert [key.label for key in one.keys[:2]] == ["a: 64 allocated", "m: 6 movable"]
    assert {key.label[0]: (key.glyph, key.colour) for key in two.keys[:2]}["a"] == (
        one.keys[0].glyph,
        one.keys[0].colour,
    )
