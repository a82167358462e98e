"""Loading device trees: what is read, and the one line that a user gets for what cannot be.

Modules: cmafs.of.fdt, cmafs.of.fdt_compile.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import dts_support as dts
import pytest
from hypothesis import given
from hypothesis import strategies as st
from soak_support import examples

from cmafs.of import fdt, fdt_compile
from cmafs.of.base import DeviceNode, DeviceTree, DtError, of_read_number
from cmafs.of.fdt import load

SMALL = dts.tree(dts.pool("linux,cma", "size = <0x0 0x1000000>", "linux,cma-default"))


def refusal(source: str, *overlays: str) -> str:
    with pytest.raises(DtError) as caught:
        load(source, overlays)
    text = str(caught.value)
    assert "\n" not in text
    return re.sub(r"(dtsi?:\d+):\d+: ", r"\1: ", text)  # columns differ between releases of dtc


# -- what is read ----------------------------------------------------------------------------------------


def test_property_values_are_the_blobs_bytes(tmp_path: Path) -> None:
    values = {
        "words": "<0x61626300 0xffffffff>",
        "string": '"abc"',
        "strings": '"a", "bc", ""',
        "bytes": "[00 ff 80 7f 01]",
        "empty-string": '""',
        "latin": '"\\xe9"',
        "mixed": '"x", <1>, [02]',
        "zeros": "<0 0 0>",
    }
    text = "/dts-v1/; / { flag; " + " ".join(f"{k} = {v};" for k, v in values.items()) + " };"
    root = load(dts.write(tmp_path, "a.dts", text)).root
    assert root.props == {
        "flag": b"",
        "words": b"abc\0\xff\xff\xff\xff",
        "string": b"abc\0",
        "strings": b"a\0bc\0\0",
        "bytes": b"\x00\xff\x80\x7f\x01",
        "empty-string": b"\0",
        "latin": b"\xe9\0",
        "mixed": b"x\0\0\0\0\x01\x02",
        "zeros": bytes(12),
    }


def test_source_and_blob_give_the_same_tree(tmp_path: Path) -> None:
    blob = dts.dtc(SMALL)
    from_source = load(dts.write(tmp_path, "a.dts", SMALL))
    from_blob = load(dts.write(tmp_path, "odd-name", blob))
    assert from_source.blob == from_blob.blob == blob
    assert [(n.path, n.props) for n in from_source.walk()] == [(n.path, n.props) for n in from_blob.walk()]
    assert from_blob.find_node_by_path("/reserved-memory/linux,cma") is not None


def test_what_follows_a_blob_in_its_file_is_not_its(tmp_path: Path) -> None:
    blob = dts.dtc(SMALL)
    assert load(dts.write(tmp_path, "a.dtb", blob + b"signature")).blob == blob


def test_memreserve(tmp_path: Path) -> None:
    text = "/dts-v1/; /memreserve/ 0x0 0x1000; /memreserve/ 0x123456789a000 0x2000; / { };"
    assert load(dts.write(tmp_path, "a.dts", text)).memreserve == [(0, 0x1000), (0x123456789A000, 0x2000)]


def test_a_tree_200_deep(tmp_path: Path) -> None:
    text = "/dts-v1/; / { " + "".join(f"n{i} {{ " for i in range(200)) + "deep;" + "};" * 201
    tree = load(dts.write(tmp_path, "a.dts", text))
    deepest = list(tree.walk())[-1]
    assert deepest.props == {"deep": b""}
    assert deepest.path == "/" + "/".join(f"n{i}" for i in range(200))
    assert tree.find_node_by_path(deepest.path) is deepest


def test_second_node_of_a_name_is_numbered() -> None:
    root = DeviceNode("")
    for _ in range(3):
        root.append(DeviceNode("a"))
    assert list(root.children) == ["a", "a#1", "a#2"]


def test_readers() -> None:
    node = DeviceNode(
        "n",
        {
            "u": bytes([0, 0, 0, 5, 0, 0, 1, 0]),
            "s": b"one\0two",
            "e": b"",
            "short": b"\1\2",
            "three": bytes([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]),
        },
    )
    assert (node.property_read_u32("u"), node.property_read_u32("u", 1), node.property_read_u32("u", 2)) == (
        5,
        256,
        None,
    )
    assert node.property_read_u32("short") is None
    assert node.property_read_u32("missing") is None
    assert node.property_read_strings("s") == ["one", "two"]
    assert node.property_read_string("e") is None
    assert (node.property_read_bool("e"), node.property_read_bool("missing")) == (True, False)
    assert (node.read_number("u", 2), node.read_number("u", 1), node.read_number("u", 0)) == (
        0x500000100,
        5,
        0,
    )
    with pytest.raises(ValueError):
        node.read_number("u", 3)
    assert node.entries("u", 1) == [(5,), (256,)]
    assert node.entries("u", 1, 0, 1) == [(5, 0, 256)]
    assert (node.entries("u", 2, 1), node.entries("u", 0, 0), node.entries("missing", 1)) == ([], [], [])
    assert node.entries("three", 1, 1) == [(1, 2)]
    assert node.entries("three", 1, 1, whole=True) == []
    assert (node.address_cells(), node.size_cells()) == (1, 1)
    assert of_read_number(b"\1\0\0\0" + b"\0\0\0\2" + b"\0\0\0\3", 3) == 0x200000003


@pytest.mark.parametrize(
    ("status", "available"),
    [
        (None, True),
        (b"okay\0", True),
        (b"ok\0", True),
        (b"disabled\0", False),
        (b"Okay\0", False),
        (b"reserved\0", False),
    ],
)
def test_status(status: bytes | None, available: bool) -> None:
    assert DeviceNode("n", {} if status is None else {"status": status}).is_available() is available


def test_compatible_is_compared_without_case() -> None:
    node = DeviceNode("n", {"compatible": b"acme,pool\0Shared-DMA-Pool\0"})
    assert node.is_compatible("shared-dma-pool")
    assert not node.is_compatible("shared-dma")


def test_phandles(tmp_path: Path) -> None:
    text = "/dts-v1/; / { l: a { }; b { r = <&l>; }; c { linux,phandle = <77>; }; };"
    tree = load(dts.write(tmp_path, "a.dts", text))
    b = tree.root.children["b"]
    assert [tree.find_node_by_phandle(p) for p in b.parse_phandles("r")] == [tree.root.children["a"]]
    assert tree.find_node_by_phandle(77) is tree.root.children["c"]
    assert tree.find_node_by_phandle(0) is None
    assert tree.find_node_by_phandle(4711) is None


# -- cpp, /include/ --------------------------------------------------------------------------------------


def test_includes_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dts.write(tmp_path, "t/include/dt-bindings/x.h", "#define ANSWER 42\n")
    dts.write(tmp_path, "t/boards/soc/soc.dtsi", '/include/ "below.dtsi"\n/ { soc { a = <ANSWER>; }; };\n')
    dts.write(tmp_path, "t/boards/below.dtsi", "/ { below; };\n")
    dts.write(
        tmp_path,
        "t/boards/b.dts",
        '/dts-v1/;\n#include <dt-bindings/x.h>\n#include "soc/soc.dtsi"\n/ { b; };\n',
    )
    monkeypatch.chdir(tmp_path)
    root = load("t/boards/b.dts").root
    assert set(root.props) == {"b", "below"}
    assert root.children["soc"].props == {"a": struct.pack(">I", 42)}


def test_cells_are_not_cpp_directives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fdt_compile, "_preprocess", None)
    text = "/dts-v1/;\n/ {\n\t#address-cells = <1>;\n\t#define-cells = <2>;\n\t#include-cells = <1>;\n};\n"
    assert len(load(dts.write(tmp_path, "a.dts", text)).root.props) == 3


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"/dts-v1/;\n#define N 7\n/ { n = <N>; };\n")
        os.close(writer)
        assert load(f"/dev/fd/{reader}").root.props == {"n": struct.pack(">I", 7)}
    finally:
        os.close(reader)


def test_a_path_that_looks_like_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dts.write(tmp_path, "-v.dts", SMALL)
    monkeypatch.chdir(tmp_path)
    assert load("-v.dts").model == "test board"


# -- overlays --------------------------------------------------------------------------------------------

OVERLAY = "/dts-v1/;\n/plugin/;\n&pool { size = <0x0 0x2000000>; };\n"
LABELLED = dts.tree("pool: " + dts.pool("linux,cma", "size = <0x0 0x1000000>"))


def test_overlays_in_order(tmp_path: Path) -> None:
    base = dts.write(tmp_path, "base.dts", LABELLED)
    first = dts.write(tmp_path, "first.dts", OVERLAY)
    second = dts.write(
        tmp_path, "second.dtbo", dts.dtc('/dts-v1/;/plugin/;&{/chosen} { bootargs = "cma=0"; };', "-@")
    )
    tree = load(base, (first, second))
    pool = tree.find_node_by_path("/reserved-memory/linux,cma")
    assert pool is not None
    assert pool.read_number("size", 2) == 0x2000000
    assert tree.root.children["chosen"].property_read_string("bootargs") == "cma=0"
    assert tree.source == base


def test_without_overlays_no_symbols(tmp_path: Path) -> None:
    assert "__symbols__" not in load(dts.write(tmp_path, "a.dts", LABELLED)).root.children


@pytest.mark.parametrize(
    ("base", "overlay", "why"),
    [
        (LABELLED, "/dts-v1/;/plugin/;&nope { };", "{o}: label 'nope' is not in {b}"),
        (
            dts.dtc(LABELLED),
            OVERLAY,
            "{o}: label 'pool' is not in {b} (it has no __symbols__: compile it with dtc -@)",
        ),
        (LABELLED, "/dts-v1/;/plugin/;&{/no/where} { };", "{o}: target-path '/no/where' is not in {b}"),
        (LABELLED, LABELLED, "{o}: not an overlay: it has no fragment (is /plugin/; missing?)"),
        (
            LABELLED,
            "/dts-v1/;\n&pool { };",
            "{o}:2: Label or path pool not found (if this is an overlay, it lacks /plugin/;)",
        ),
    ],
)
def test_overlay_refused(tmp_path: Path, base: str | bytes, overlay: str, why: str) -> None:
    b, o = dts.write(tmp_path, "base.dts", base), dts.write(tmp_path, "over.dts", overlay)
    assert refusal(b, o) == why.format(b=b, o=o)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 3", "{a}, {b}: cannot be applied to {base}: overlay: fdtoverlay: exit status 3"),
        (
            "echo; echo ' it broke ' >&2; exit 1",
            "{a}, {b}: cannot be applied to {base}: overlay: fdtoverlay: it broke",
        ),
        ("kill -9 $$", "{a}, {b}: cannot be applied to {base}: overlay: fdtoverlay was ended by SIGKILL"),
        (
            "echo \"Failed to apply '/tmp/x/1.dtbo': FDT_ERR_NOSPACE\" >&2; exit 1",
            "{b}: cannot be applied to {base}: fdtoverlay: FDT_ERR_NOSPACE",
        ),
        (
            "echo \"Failed to apply '/tmp/x/0.dtbo': FDT_ERR_BADOVERLAY\" >&2; exit 1",
            "{a}: cannot be applied to {base}: fdtoverlay: FDT_ERR_BADOVERLAY",
        ),
        ("exit 0", "{a}, {b}: cannot be applied to {base}: overlay: fdtoverlay: exit status 0"),
    ],
)
def test_what_fdtoverlay_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str) -> None:
    files = {name: dts.write(tmp_path, f"{name}.dts", OVERLAY) for name in "ab"}
    base = dts.write(tmp_path, "base.dts", LABELLED)
    dts.write(tmp_path, "bin/fdtoverlay", f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin/fdtoverlay").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert refusal(base, *files.values()) == why.format(base=base, **files)


def test_which_overlay_fdtoverlay_refuses(tmp_path: Path) -> None:
    base = dts.write(tmp_path, "base.dts", LABELLED + '/ { __symbols__ { gone = "/gone"; }; };')
    good = dts.write(tmp_path, "good.dts", OVERLAY)
    bad = dts.write(tmp_path, "bad.dts", OVERLAY.replace("&pool", "&gone"))
    for overlays in ([bad], [good, bad], [bad, good]):
        assert refusal(base, *overlays) == f"{bad}: cannot be applied to {base}: fdtoverlay: FDT_ERR_NOTFOUND"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 3", "{tool}: exit status 3"),
        ("exit 0", None),
        ("echo; echo ' it broke ' >&2; echo >&2; exit 1", "{tool}: it broke"),
        ("kill -15 $$", "{tool} was ended by SIGTERM"),
        (
            "echo '<stdout>: ERROR (a_b): /n: it is wrong' >&2; exit 2",
            "{tool}: <stdout>: ERROR (a_b): /n: it is wrong",
        ),
    ],
)
@pytest.mark.parametrize("tool", ["dtc", "cpp"])
def test_what_a_compiler_ends_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, script: str, why: str | None
) -> None:
    dts.write(tmp_path, f"bin/{tool}", f"#!/bin/sh\n{script}\n")
    (tmp_path / f"bin/{tool}").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    path = dts.write(tmp_path, "a.dts", '/dts-v1/;\n#include "x.h"\n/ { };\n' if tool == "cpp" else SMALL)
    said = refusal(path)
    if tool == "dtc" and "ERROR" in script:
        assert said == f"{path}: /n: it is wrong"
    elif why is not None:
        assert said == f"{path}: {why.format(tool=tool)}"
    else:  # of dtc, that it made nothing; without a word from cpp dtc has nothing to read
        assert said in (f"{path}: dtc: exit status 0", f"{path}:1: syntax error") or "syntax error" in said


def test_where_includes_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's tree, and devicetree-rebasing: next to the first include/dt-bindings above the file."""
    board = tmp_path / "tree/arch/arm64/boot"
    board.mkdir(parents=True)
    assert fdt_compile._include_directories(board) == [board]
    (tmp_path / "tree/include/dt-bindings").mkdir(parents=True)
    (tmp_path / "include/dt-bindings").mkdir(parents=True)
    assert fdt_compile._include_directories(board) == [board, tmp_path / "tree/include"]
    for more in ("scripts/dtc/include-prefixes", "src"):
        (tmp_path / "tree" / more).mkdir(parents=True)
    found = [tmp_path / "tree" / name for name in ("include", "scripts/dtc/include-prefixes", "src")]
    assert fdt_compile._include_directories(board) == [board, *found]
    assert fdt_compile._include_directories(tmp_path / "tree") == [tmp_path / "tree", *found]
    monkeypatch.chdir(board)
    assert fdt_compile._include_directories(Path()) == [Path(), *found]
    assert fdt_compile._include_directories(tmp_path) == [tmp_path, tmp_path / "include"]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    base = dts.write(tmp_path, "base.dts", LABELLED)
    load(base, [dts.write(tmp_path, "o.dts", OVERLAY)])
    refusal(base, dts.write(tmp_path, "p.dts", OVERLAY.replace("&pool", "&nope")))
    assert list(temporary.iterdir()) == []


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/dts-v1/;\n/ {\n\tfoo = <1>\n\tbar;\n};\n", "{p}:4: syntax error"),
        (
            "/dts-v1/;\n/ {\n\tfoo = <&nope>;\n};\n",
            '{p}:2: /: Reference to non-existent node or label "nope"',
        ),
        ("/dts-v1/;\n/ { a { }; a { }; };\n", "{p}:2: /a: Duplicate node name"),
        ("/dts-v1/;\n/ { x = <(1/0)>; };\n", "{p}:2: Division by zero"),
        ("/dts-v1/;\n/ {", "{p}:2: syntax error"),
        ("hello\n", "{p}:1: syntax error (a device tree source starts with /dts-v1/;)"),
        (
            '/dts-v1/;\n\n/include/ "gone.dtsi"\n',
            '{p}:3: cannot include "gone.dtsi": No such file or directory',
        ),
        ('/dts-v1/;\n#include "gone.h"\n', "{p}:2: gone.h: No such file or directory"),
        ("/dts-v1/;\n#define A 1\n\n/ {\n\tfoo = <A>\n\tbar;\n};\n", "{p}:6: syntax error"),
        (
            '/dts-v1/;\n/ { x = /incbin/("gone"); };\n',
            '{p}:2: cannot include "gone": No such file or directory',
        ),
        ("", "{p}: the file is empty"),
        ("\0\1\2", "{p}: not a device tree: neither source text nor a blob"),
    ],
)
def test_bad_source(tmp_path: Path, text: str, why: str) -> None:
    path = dts.write(tmp_path, "a.dts", text)
    assert refusal(path) == why.format(p=path)


def test_an_error_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    inner = dts.write(tmp_path, "soc.dtsi", "/ {\n\ta = <1;\n};\n")
    for include in ("#include", "/include/"):
        outer = dts.write(tmp_path, "a.dts", f'/dts-v1/;\n{include} "soc.dtsi"\n')
        assert refusal(outer) == f"{inner}:2: syntax error"


def test_a_named_fifo_is_no_file(tmp_path: Path) -> None:
    """Its writer may never come; the pipe of <(...) has one."""
    fifo = tmp_path / "a.dts"
    os.mkfifo(fifo)
    before = os.listdir("/proc/self/fd")
    assert refusal(str(fifo)) == f"{fifo}: is a FIFO; a file is wanted"
    assert os.listdir("/proc/self/fd") == before
    plain = dts.write(tmp_path, "b.dts", SMALL)
    with fdt.open_named(plain) as file:
        assert os.get_blocking(file.fileno())
    assert (fdt.read_named(plain), fdt.read_named(plain, 5)) == (SMALL.encode(), SMALL.encode()[:5])


def test_sizes_of_files(tmp_path: Path) -> None:
    path = tmp_path / "a.dts"
    path.write_bytes(bytes(8 << 20))
    assert len(fdt._read(str(path))) == 8 << 20
    path.write_bytes(bytes((8 << 20) + 1))
    assert refusal(str(path)) == f"{path}: larger than 8 MiB, not a device tree"


def test_the_name_of_a_board_with_dts_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = "No such file or directory; the bundled board is called rpi4, without .dts"
    assert refusal("rpi4.dts") == f"rpi4.dts: {said}"
    assert refusal(f"{tmp_path}/rpi4.dtb") == f"{tmp_path}/rpi4.dtb: {said}"
    assert refusal("rpi5.dts") == "rpi5.dts: No such file or directory"
    assert refusal("./rpi4") == f"rpi4: {said}"
    assert refusal("gone/rpi4") == f"gone/rpi4: {said}"
    assert refusal("gone/rpi5") == "gone/rpi5: No such file or directory"
    (tmp_path / "rpi9").write_text(SMALL)
    assert load("rpi9").model == "test board"  # a bare name that is a file


def test_bad_files(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == f"{tmp_path}: is a directory; a .dts or .dtb file is wanted"
    assert refusal(f"{tmp_path}/gone.dts") == f"{tmp_path}/gone.dts: No such file or directory"
    big = dts.write(tmp_path, "big.dtb", b"")
    os.truncate(big, 50 << 20)
    start = time.monotonic()
    assert refusal(big) == f"{big}: larger than 8 MiB, not a device tree"
    assert time.monotonic() - start < 1
    name = dts.write(tmp_path, "x.dtb", b"/dts-v1/; / { };")
    assert refusal(name) == f"{name}: not a device tree blob: it starts with 2f647473, not d00dfeed"


def test_unknown_board() -> None:
    known = "am62x, article-1, article-2, camera, imx8mm, rk3588, rpi4, virt, x86-4g"
    said = f"unknown board 'rpi5': known are {known}; or the path of a .dts or .dtb; did you mean rpi4?"
    assert refusal("rpi5") == said
    assert refusal("") == f"unknown board '': known are {known}; or the path of a .dts or .dtb"
    for nobodys in ("x" * 300, "vi\0rt"):  # no file can have such a name
        assert refusal(nobodys).startswith(f"unknown board '{nobodys}': known are {known}; or ")


@pytest.mark.parametrize(
    ("tool", "text"), [("dtc", SMALL), ("cpp", "#include <x.h>\n"), ("fdtoverlay", LABELLED)]
)
def test_missing_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, text: str) -> None:
    base, overlay = dts.write(tmp_path, "a.dts", text), dts.write(tmp_path, "o.dts", OVERLAY)
    real = {
        name: os.path.realpath(f"/usr/bin/{name}") for name in ("dtc", "cpp", "fdtoverlay") if name != tool
    }
    for name, path in real.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    package = "cpp" if tool == "cpp" else "device-tree-compiler"
    overlays = [overlay] if tool == "fdtoverlay" else []
    assert refusal(base, *overlays) == f"{tool} is not installed: install the package {package}"


def test_a_tool_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fdt_compile, "_TIMEOUT", 0.05)
    dts.write(tmp_path, "bin/dtc", "#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "bin/dtc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    path = dts.write(tmp_path, "a.dts", SMALL)
    assert refusal(path) == f"dtc did not finish within 0.05 s on {path}"


# -- damaged blobs ---------------------------------------------------------------------------------------

BLOB = dts.dtc(SMALL)


def with_word(offset: int, value: int) -> bytes:
    return BLOB[:offset] + struct.pack(">I", value) + BLOB[offset + 4 :]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (BLOB[:20], "truncated device tree blob: 20 bytes are less than its header"),
        (
            BLOB[:-1],
            f"truncated device tree blob: its header says {len(BLOB)} bytes, the file has {len(BLOB) - 1}",
        ),
        (with_word(4, 3 << 20), "blob of 3145728 bytes; the kernel maps at most 2097152 (MAX_FDT_SIZE)"),
        (
            with_word(8, 0xFFFFFFF0),
            f"damaged device tree blob: its header points outside the {len(BLOB)} bytes",
        ),
        (with_word(12, 8), f"damaged device tree blob: its header points outside the {len(BLOB)} bytes"),
        (
            with_word(24, 18),
            "device tree blob of version 17 for readers of 18, 17 is wanted: convert it with dtc",
        ),
        (with_word(20, 16), "device tree blob of version 16, 17 is wanted: convert it with dtc"),
        (with_word(32, 4), "damaged device tree blob: no property names in its strings block"),
        (with_word(56, 7), "damaged device tree blob: unexpected tag 0x7 in its structure"),
        (with_word(56, 9), "damaged device tree blob: unexpected tag 0x9 in its structure"),
        (with_word(36, 0)[:56] + BLOB[-4:], None),
    ],
)
def test_damaged_blob(tmp_path: Path, data: bytes, why: str | None) -> None:
    path = dts.write(tmp_path, "a.dtb", data)
    text = refusal(path)
    assert text.startswith(f"{path}: ")
    if why is not None:
        assert text == f"{path}: {why}"


@pytest.mark.parametrize("last_comp", [1, 16, 17])
def test_the_last_compatible_version_may_be_any_up_to_17(tmp_path: Path, last_comp: int) -> None:
    """As libfdt/fdt.c:fdt_check_header() has it."""
    tree = load(dts.write(tmp_path, "a.dtb", with_word(24, last_comp)))
    assert tree.root.children
    assert tree.blob == with_word(24, last_comp)


def test_every_truncation(tmp_path: Path) -> None:
    path = tmp_path / "a.dtb"
    for length in range(4, len(BLOB), 7):
        header = struct.pack(">I", length)  # the header agrees, the contents do not
        path.write_bytes(BLOB[:4] + header + BLOB[8:length])
        assert str(path) in refusal(str(path))


EDITS = st.lists(
    st.tuples(
        st.integers(4, len(BLOB) - 4),
        st.sampled_from((0, 1, 2, 3, 4, 9, 0xFFFFFFFF)) | st.integers(0, 1 << 31),
    ),
    min_size=1,
    max_size=4,
)


@examples(300)
@given(EDITS)
def test_any_damage_gives_a_tree_or_one_line(edits: list[tuple[int, int]]) -> None:
    blob = bytearray(BLOB)
    for at, word in edits:
        blob[at : at + 4] = struct.pack(">I", word)
    try:
        tree = fdt._unflatten("x", fdt._checked("x", bytes(blob)))
    except DtError as error:
        assert str(error).startswith("x: ")
        assert "\n" not in str(error)
    else:
        assert isinstance(tree, DeviceTree)
        assert next(tree.walk()).path == "/"


# -- reading properties ------------------------------------------------------------------------------------


def test_readers_of_a_node() -> None:
    node = DeviceNode("n")
    node.props |= {
        "cells": bytes(range(1, 11)),
        "strings": b"one\0two\0three",
        "empty": b"",
        "compatible": b"Acme,Board\0acme,any\0",
    }
    assert [node.property_read_u32("cells", i) for i in range(3)] == [0x01020304, 0x05060708, None]
    assert [node.property_read_u32(name) for name in ("empty", "none")] == [None, None]
    assert node.parse_phandles("cells") == [0x01020304, 0x05060708]
    assert (node.parse_phandles("empty"), node.parse_phandles("none")) == ([], [])
    assert node.property_read_strings("strings") == ["one", "two", "three"]
    assert (node.property_read_strings("empty"), node.property_read_string("none")) == ([], None)
    assert node.is_compatible("acme,BOARD") and node.is_compatible("acme,any")
    assert not node.is_compatible("acme")
    assert node.read_number("cells", 2) == 0x0102030405060708
    with pytest.raises(ValueError):
        node.read_number("cells", 3)


def test_cells_without_properties_are_the_kernel_s_defaults() -> None:
    node = DeviceNode("n")
    assert (node.address_cells(), node.size_cells()) == (1, 1)
    node.props |= {"#address-cells": b"\0\0\0\2", "#size-cells": b"\0\0\0\0"}
    assert (node.address_cells(), node.size_cells()) == (2, 0)


def test_phandles_by_both_names() -> None:
    root = DeviceNode("")
    nodes = {name: DeviceNode(name) for name in ("a", "b", "c")}
    for node in nodes.values():
        root.append(node)
    nodes["a"].props["linux,phandle"] = b"\0\0\0\5"
    nodes["b"].props |= {"phandle": b"\0\0\0\6", "linux,phandle": b"\0\0\0\7"}
    nodes["c"].props["phandle"] = b"\xff\xff\xff\xff"
    tree = DeviceTree(root)
    found = [tree.find_node_by_phandle(number) for number in (5, 6, 7, 0, 0xFFFFFFFF)]
    assert found == [nodes["a"], nodes["b"], None, None, None]
    assert [tree.find_node_by_path(path) for path in ("/", "/b", "b/", "/b/x", "/x/y")] == [
        root,
        nodes["b"],
        nodes["b"],
        None,
        None,
    ]
    assert tree.model == ""


def test_children_of_one_name() -> None:
    root = DeviceNode("")
    for _ in range(3):
        root.append(DeviceNode("n"))
    assert list(root.children) == ["n", "n#1", "n#2"]
    assert [node.name for node in DeviceTree(root).walk()] == ["", "n", "n", "n"]


# blobs that are made to keep a reader busy


def _blob(nodes: bytes, strings: bytes, strings_first: bool = False) -> bytes:
    """A header, an empty reservation map and two blocks."""
    first, second = (strings, nodes) if strings_first else (nodes, strings)
    first += bytes(-len(first) % 4)
    at = [56, 56 + len(first)][:: -1 if strings_first else 1]
    total = 56 + len(first) + len(second)
    header = (0xD00DFEED, total, at[0], at[1], 40, 17, 16, 0, len(strings), len(nodes))
    return struct.pack(">10I", *header) + bytes(16) + first + second


BEGIN, END, LAST = (tag.to_bytes(4, "big") for tag in (1, 2, 9))
ROOT = BEGIN + bytes(4)


def _flag(name_at: int) -> bytes:
    return struct.pack(">3I", 3, 0, name_at)


def test_many_nodes_of_one_name_load_at_once() -> None:
    start = time.process_time()
    tree = fdt._unflatten(
        "x", fdt._checked("x", _blob(ROOT + (BEGIN + b"a\0\0\0" + END) * 16000 + END + LAST, b"x\0"))
    )
    assert list(tree.root.children)[-1] == "a#15999"
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (
            _blob(ROOT + (BEGIN + b"a\0\0\0") * 30000 + END * 30001 + LAST, b"x\0"),
            "inside each other, 1000 deep",
        ),
        (
            _blob(
                ROOT + BEGIN + b"y" * 60000 + bytes(4) + END + _flag(16) * 8000 + END + LAST,
                b"x\0\0\0",
                strings_first=True,
            ),
            "the names in it run on",
        ),
    ],
    ids=["deep", "long names"],
)
def test_what_keeps_a_reader_busy_is_refused(blob: bytes, why: str) -> None:
    start = time.process_time()
    with pytest.raises(DtError, match=why) as refused:
        fdt._unflatten("x", fdt._checked("x", blob))
    assert "\n" not in str(refused.value)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(("depth", "fits"), [(999, True), (1000, False)])
def test_how_deep_nodes_may_be(depth: int, fits: bool) -> None:
    blob = fdt._checked("x", _blob(ROOT + (BEGIN + b"a\0\0\0") * (depth - 1) + END * depth + LAST, b"x\0"))
    if fits:
        assert len(list(fdt._unflatten("x", blob).walk())) == depth
    else:
        with pytest.raises(
            DtError, match=r"^x: damaged device tree blob: nodes inside each other, 1000 deep$"
        ):
            fdt._unflatten("x", blob)
    side_by_side = ROOT + (BEGIN + b"a\0\0\0" + END) * depth + END + LAST
    assert len(fdt._unflatten("x", fdt._checked("x", _blob(side_by_side, b"x\0"))).root.children) == depth


@pytest.mark.parametrize(("length", "fits"), [(31, True), (255, True), (256, False)])
def test_how_long_names_of_properties_may_be(length: int, fits: bool) -> None:
    blob = _blob(ROOT + _flag(0) + END + LAST, b"n" * length + b"\0")
    if fits:
        assert fdt.unflatten("x", blob).root.props == {"n" * length: b""}
    else:
        with pytest.raises(
            DtError, match=r"^x: damaged device tree blob: no property names in its strings block$"
        ):
            fdt.unflatten("x", blob)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        (ROOT + END + BEGIN + b"a\0\0\0" + END + LAST, "a second root node"),
        (ROOT + END, "its structure has no end"),
        (ROOT + LAST, "unexpected tag 0x9 in its structure"),
        (END + LAST, "unexpected tag 0x2 in its structure"),
        (ROOT + BEGIN + bytes(4) + END + END + LAST, "a node without a name"),
    ],
)
def test_structures_that_are_no_tree(nodes: bytes, why: str) -> None:
    with pytest.raises(DtError) as refused:
        fdt._unflatten("x", fdt._checked("x", _blob(nodes, b"x\0")))
    assert str(refused.value) == f"x: damaged device tree blob: {why}"


def test_a_reader_gets_four_reads_for_each_byte() -> None:
    file = fdt._Input(b"abc")
    assert [file.read(1) for _ in range(12)] == [b"a", b"b", b"c", *[b""] * 9]
    with pytest.raises(fdt._Damaged, match=r"^the names in it run on$"):
        file.read(1)


def _header(**changed: int) -> bytes:
    """A good blob with some fields of its header changed."""
    names = (
        "magic",
        "total",
        "struct",
        "strings",
        "rsv",
        "version",
        "last_comp",
        "cpu",
        "n_strings",
        "n_struct",
    )
    good = _blob(ROOT + END + LAST, b"x\0\0\0")
    fields = dict(zip(names, struct.unpack(">10I", good[:40]), strict=True)) | changed
    return struct.pack(">10I", *fields.values()) + good[40:]


OUTSIDE = "damaged device tree blob: its header points outside the 76 bytes"


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (_header()[:39], "truncated device tree blob: 39 bytes are less than its header"),
        (_header(version=16), "device tree blob of version 16, 17 is wanted: convert it with dtc"),
        (
            _header(last_comp=18),
            "device tree blob of version 17 for readers of 18, 17 is wanted: convert it with dtc",
        ),
        (_header(total=77), "truncated device tree blob: its header says 77 bytes, the file has 76"),
        (_header(total=0x200001), "blob of 2097153 bytes; the kernel maps at most 2097152 (MAX_FDT_SIZE)"),
        (
            _header(total=0x200000),
            "truncated device tree blob: its header says 2097152 bytes, the file has 76",
        ),
        (_header(struct=36), OUTSIDE),
        (_header(struct=58), OUTSIDE),
        (_header(n_struct=21), OUTSIDE),
        (_header(strings=39), OUTSIDE),
        (_header(n_strings=5), OUTSIDE),
        (_header(rsv=36), OUTSIDE),
        (_header(rsv=44), OUTSIDE),
        (_header(rsv=64), OUTSIDE),
        (_header(n_strings=1), "damaged device tree blob: no property names in its strings block"),
    ],
)
def test_headers_that_pyfdt_would_believe(blob: bytes, why: str) -> None:
    assert fdt._checked("x", _header()) == _header() == fdt._checked("x", _header() + b"more")
    with pytest.raises(DtError) as refused:
        fdt._checked("x", blob)
    assert str(refused.value) == f"x: {why}"


def test_blocks_of_a_blob_stand_in_any_order() -> None:
    """Devicetree Specification 5.1: offsets say where each is, strings need no alignment."""
    nodes = ROOT + BEGIN + b"n\0\0\0" + END + END + LAST
    entries = struct.pack(">4Q", 0x50000000, 0x1000, 0, 0)
    for kept in (entries, bytes(16)):
        at = 40 + len(nodes) + 4
        header = struct.pack(">10I", 0xD00DFEED, at + len(kept), 40, at - 3, at, 17, 16, 0, 3, len(nodes))
        tree = fdt.unflatten("x", header + nodes + b"\0x\0\0" + kept)
        assert list(tree.root.children) == ["n"]
        assert tree.memreserve == ([(0x50000000, 0x1000)] if kept is entries else [])


def test_whatever_pyfdt_raises_is_one_line() -> None:
    """Attack 10: a last_comp_version of 17, which dtc takes, and a bare Exception of pyfdt's."""
    good = dts.dtc(dts.tree())
    assert fdt._unflatten("x", fdt._checked("x", good[:27] + b"\x11" + good[28:])).root.children
    with pytest.raises(DtError, match="damaged"):
        fdt._unflatten("x", fdt._checked("x", b"\0" + good[1:]))


@pytest.mark.parametrize(
    "text",
    ['/ { a = /incbin/("/dev/zero"); };', '/include/ "/dev/zero"', '#include "/dev/zero"\n/ { };'],
    ids=["incbin", "include", "cpp"],
)
def test_an_endless_file_in_a_source(tmp_path: Path, text: str) -> None:
    """Attack 17: half a gigabyte and 13 s."""
    source = dts.write(tmp_path, "endless.dts", f"/dts-v1/;\n{text}\n")
    done = subprocess.run([sys.executable, "-c", _LOADS, source], capture_output=True, text=True, check=True)
    refusal, most = done.stdout.splitlines()
    assert refusal and int(most) < 300 << 10


#: In a process of its own: the most memory that any child ever had is counted for the whole process.
_LOADS = """
import resource, sys
from cmafs.of.fdt import DtError, load
try:
    load(sys.argv[1])
except DtError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize("name", ["a\0b.dts", "a\0b", "x" * 5000, "x" * 5000 + ".dtb", "/\0/x.dts"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(DtError) as refused:
        load(name)
    assert "\n" not in str(refused.value)
    with pytest.raises(DtError):
        load("virt", [name])
