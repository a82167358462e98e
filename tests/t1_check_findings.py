"""`cmafs check`: where findings stand, what silences them, and each kind of finding by its reason.

Modules: cmafs.of.source_map.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import dts_support as dts
import pytest

from cmafs.check.examine import report_on
from cmafs.check.report import Problem, Report
from cmafs.cli.main import main
from cmafs.init.options import MachineOptions
from cmafs.of.fdt import load
from cmafs.of.source_map import Place, SourceMap, add_overlay, add_source, read_annotations

GOOD = "size = <0x0 0x400000>"


def check(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    """The problems of the only board on the only kernel, in schema 2."""
    main(["check", "--format", "json", *args])
    (board,) = json.loads(capsys.readouterr().out)["boards"]
    problems: list[dict[str, Any]] = board["problems"]
    return problems


def report(tmp_path: Path, text: str, **options: Any) -> Report:
    path = dts.write(tmp_path, "a.dts", text)
    return report_on(load(path), MachineOptions(dts=path, **options))


def codes(found: Report) -> list[tuple[str, str | None, str]]:
    return [(p.code, p.node, p.severity) for p in found.problems]


def only(found: Report) -> Problem:
    (problem,) = found.problems
    return problem


# -- places in the sources --------------------------------------------------------------------------------


ANNOTATED = """/dts-v1/;
/memreserve/\t0x1 0x2;

/ { /* a.dts:3:3-9:3 */
\tmodel = "x; {"; /* a.dts:4:2-4:14 */
\tflag; /* a.dts:5:2-7 */
\tsoc: n@1 { /* a.dts:6:7-8:4, b c.dtsi:1:5-2:3 */
\t\tl: reg = <1>; /* a.dts:7:3-7:9, b c.dtsi:1:9-1:20 */
\t\tphandle = <0x01>;
\t}; /* a.dts:8:2-8:4 */
\t__symbols__ {
\t};
}; /* a.dts:9:1-9:3 */
"""


def test_what_dtc_annotates() -> None:
    a, b = (partial(Place, name) for name in ("a.dts", "b c.dtsi"))
    assert list(read_annotations(ANNOTATED)) == [
        ("/", None, [a(3, 3)]),
        ("/", "model", [a(4, 2)]),
        ("/", "flag", [a(5, 2)]),
        ("/n@1", None, [a(6, 7), b(1, 5)]),
        ("/n@1", "reg", [a(7, 3), b(1, 9)]),
        ("/n@1", "phandle", []),
        ("/__symbols__", None, []),
    ]
    found = SourceMap(
        "a.dts", texts={"a.dts": ["", "", "/  { // x", "", "", " soc: n@1{"], "b c.dtsi": ["&soc {"]}
    )
    add_source(found, ANNOTATED)
    places = {
        ("/", None): "a.dts:3:1",  # where its name begins
        (None, None): "a.dts:3:1",
        ("/", "model"): "a.dts:4:2",
        ("/n@1", None): "a.dts:6:2",
        ("/n@1", "reg"): "b c.dtsi:1:9",  # where it was set last
        ("/n@1", "phandle"): "a.dts:6:2",
        ("/n@1/deep/er", "x"): "a.dts:6:2",
        ("/no", "x"): "a.dts:3:1",
    }
    assert {key: str(found.place(*key)) for key in places} == places
    assert (str(found.top()), found.files()) == ("a.dts:3:1", {"a.dts", "b c.dtsi"})
    nothing = SourceMap("x.dtb")
    assert [str(place) for place in (nothing.place("/n", "p"), nothing.top())] == ["x.dtb:1:1"] * 2


def test_places_of_an_overlay_are_those_of_its_targets() -> None:
    overlay = """/ { /* o.dts:1:3-1:4 */
\tfragment@0 { /* o.dts:3:7-5:3 */
\t\ttarget = <&x>;
\t\t__overlay__ { /* o.dts:3:7-5:3 */
\t\t\tsize = <1>; /* o.dts:4:2-4:9 */
\t\t\tn { /* o.dts:4:12-4:16 */
\t\t\t};
\t\t};
\t};
\tfragment@1 {
\t\t__overlay__ { /* o.dts:7:7-8:3 */
\t\t};
\t};
};
"""
    found = SourceMap("a.dts", {"/": [Place("a.dts", 2)]})
    add_overlay(found, overlay, {"/fragment@0": "/soc"})
    o = partial(Place, "o.dts")
    assert found.nodes == {"/": [Place("a.dts", 2)], "/soc": [o(3, 7)], "/soc/n": [o(4, 12)]}
    assert found.props == {("/soc", "size"): o(4, 2)}
    found = SourceMap("a.dts")
    add_overlay(found, overlay, {"/fragment@0": "/", "/fragment@1": "/"})
    assert (set(found.nodes), set(found.props)) == ({"/", "/n"}, {("/", "size")})


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        (["", "a; // cmafs: ignore one"], {"one"}),
        (["", "a; /* cmafs:ignore one-x , two */"], {"one-x", "two"}),
        (["// cmafs: ignore one", "a;"], {"one"}),
        (["/* cmafs: ignore one */", "// and", "a; // cmafs: ignore two"], {"one", "two"}),
        (["b; // cmafs: ignore one", "a;"], set()),  # of another property
        (["// cmafs: ignore one", "", "a;"], set()),
        (["", "a; // cmafs: ignored one"], set()),
    ],
)
def test_comments_that_silence(lines: list[str], codes: set[str]) -> None:
    place = Place("a.dts", len(lines), 1)
    found = SourceMap("a.dts", {"/": [Place("a.dts", 9)]}, {("/", "a"): place}, {"a.dts": lines})
    assert found.ignored(None, "a") == found.ignored("/", "a") == codes
    assert found.ignored("/", "b") == set()
    found.nodes["/"] = [Place("gone.dts", 1), place]
    assert found.ignored("/", "b") == codes


def test_places_through_includes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    common = dts.write(
        tmp_path,
        "pools/common.dtsi",
        "/ {\n\treserved-memory {\n\t\tcam: camera@50100000 {\n"
        '\t\t\tcompatible = "shared-dma-pool"; reusable;\n'
        "\t\t\treg = <0 0x50100000 0 SIZE>;\n\t\t};\n\t};\n};\n",
    )
    text = dts.tree("fw { size = <0 0x1000>; };").replace(
        "/dts-v1/;", '/dts-v1/;\n#define SIZE 0x400000\n#include "pools/common.dtsi"'
    )
    board = dts.write(tmp_path, "board.dts", f"{text}&cam {{ no-map; }};\n")
    last = text.count("\n") + 1
    (problem,) = check(capsys, board)
    assert (problem["code"], problem["file"], problem["line"]) == ("reusable-and-no-map", board, last)
    assert problem["column"] == len("&cam { ") + 1
    dts.write(tmp_path, "board.dts", text)
    (problem,) = check(capsys, board)
    assert (problem["code"], problem["file"], problem["line"]) == ("base-misaligned", common, 5)
    assert problem["column"] == 4


def test_places_in_an_overlay(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong = dts.write(tmp_path, "o.dts", "/dts-v1/;\n/plugin/;\n&cma {\n\tsize = <0x10100000>;\n};\n")
    added = "/dts-v1/;\n/plugin/;\n&{/reserved-memory} {\n\tmine { reusable; size = <0x400000>; };\n};\n"
    other = dts.write(tmp_path, "p.dts", added)
    found = check(capsys, "rpi4", "--overlay", wrong, "--overlay", other)
    first, second = sorted(found, key=lambda problem: str(problem["file"]))
    assert (first["code"], first["file"], first["line"], first["column"]) == ("size-misaligned", wrong, 4, 2)
    assert (second["code"], second["file"], second["line"], second["column"]) == ("no-driver", other, 4, 2)


def test_a_parameter_of_the_tree_and_one_of_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = dts.tree().replace("chosen { }", 'chosen {\n\t\tbootargs = "cma=8G"; }')
    path = dts.write(tmp_path, "a.dts", text)
    (own,) = check(capsys, path)
    assert (own["file"], own["line"], own["column"]) == (path, 5, 3)
    (given,) = check(capsys, path, "--cmdline", "cma=9G")
    assert (given["file"], given["line"], given["column"]) == (path, 2, 1)


def test_a_line_of_the_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = dts.write(tmp_path, "board.config", "CONFIG_CMA_AREAS=9\nCONFIG_CMA_DEBUG=y\nCONFIG_E1000=y\n")
    dropped, unmodelled = check(capsys, "virt", "--cmdline", "cma=16M", "--config", config)
    assert (dropped["code"], dropped["file"], dropped["line"]) == ("config-dropped", config, 2)
    assert (unmodelled["code"], unmodelled["file"], unmodelled["line"]) == ("config-unmodelled", config, 3)
    assert "CONFIG_E1000" in unmodelled["reason"]
    assert {dropped["severity"], unmodelled["severity"]} == {"note"}


def test_a_blob_has_no_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = dts.write(tmp_path, "a.dtb", dts.dtc(dts.tree(dts.pool("a", GOOD, "no-map"))))
    (problem,) = check(capsys, path)
    assert (problem["file"], problem["line"], problem["column"]) == (path, 1, 1)


def test_a_source_need_not_be_utf_8(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = dts.tree(dts.pool("a", GOOD, "no-map")).replace("/dts-v1/;", "/dts-v1/; // Jos\xe9's board")
    path = dts.write(tmp_path, "a.dts", text.encode("latin-1"))
    (problem,) = check(capsys, path)
    assert (problem["code"], problem["file"]) == ("reusable-and-no-map", path)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("\tno-map; /* cmafs: ignore reusable-and-no-map */", ""),
        ("\tno-map;", "\t/* cmafs: ignore no-driver, reusable-and-no-map */"),
        ("\tno-map;", "\t// cmafs: ignore reusable-and-no-map"),
    ],
)
def test_comments_silence(capsys: pytest.CaptureFixture[str], tmp_path: Path, where: str, line: str) -> None:
    pool = f'a {{\n\tcompatible = "shared-dma-pool"; reusable; {GOOD};\n{line}\n{where}\n}};'
    path = dts.write(tmp_path, "a.dts", dts.tree(pool))
    assert main(["check", path]) == 0
    assert capsys.readouterr().out.endswith("; 1 finding silenced\n")
    loud = dts.write(tmp_path, "b.dts", dts.tree(pool).replace("ignore", "see"))
    assert main(["check", loud]) == 1
    capsys.readouterr()
    assert main(["check", loud, "--ignore", "no-room,reusable-and-no-map"]) == 0
    capsys.readouterr()
    assert main(["check", loud, "--ignore", "reusable-and-nomap"]) == 2
    assert capsys.readouterr().err == (
        "cmafs: --ignore: no finding has the code 'reusable-and-nomap'; did you mean 'reusable-and-no-map'?\n"
    )


def test_a_comment_at_the_node_holds_for_all_of_it(tmp_path: Path) -> None:
    pool = f'a {{ /* cmafs: ignore no-driver */\n\tcompatible = "acme,pool";\n\treusable;\n\t{GOOD};\n}};'
    assert main(["check", dts.write(tmp_path, "a.dts", dts.tree(pool))]) == 0


# -- misspelt names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "prop", "meant"),
    [
        (f'a {{ compatible = "shared-dma-pool"; reuseable; {GOOD}; }};', "reuseable", "reusable"),
        (f'a {{ compatible = "shared-dma-pools"; reusable; {GOOD}; }};', "compatible", "shared-dma-pool"),
        (dts.pool("a", GOOD, "linux,cma_default"), "linux,cma_default", "linux,cma-default"),
        (dts.pool("a", "sizes = <0 0x400000>"), "sizes", "size"),
        (dts.pool("a", GOOD, "alloc-range = <0 0x40000000 0 0x20000000>"), "alloc-range", "alloc-ranges"),
    ],
)
def test_misspelt_in_a_region(tmp_path: Path, pool: str, prop: str, meant: str) -> None:
    problem = only(report(tmp_path, dts.tree(pool)))
    assert (problem.code, problem.node, problem.prop) == ("misspelt", "/reserved-memory/a", prop)
    assert f"'{meant}' is meant" in problem.what
    assert f"`{meant}`" in problem.remedy or f'"{meant}"' in problem.remedy


def test_misspelt_reference_and_parent(tmp_path: Path) -> None:
    nodes = "a: " + dts.pool("a", GOOD)
    found = report(tmp_path, dts.tree(nodes, root="isp { memory-regions = <&a>; };"))
    assert codes(found) == [("misspelt", "/isp", "error")]
    assert only(found).remedy == "write `memory-region`"
    found = report(tmp_path, dts.tree(dts.pool("a", GOOD)).replace("reserved-memory {", "reserved_memory {"))
    assert codes(found) == [("misspelt", "/reserved_memory", "error")]
    assert only(found).remedy == "call the node `reserved-memory`"


def test_names_that_others_use_are_left_alone(tmp_path: Path) -> None:
    pool = dts.pool("a", GOOD, "record-size = <1>", "qcom,client-id = <1>", 'label = "x"', "no-map-fixup")
    device = 'isp { memory-region-names = "a"; qcom,regions = <1>; region-size = <2>; };'
    assert report(tmp_path, dts.tree(pool, root=device)).problems == []


# -- reasons ----------------------------------------------------------------------------------------------


def test_what_overlaps_and_was_refused_is_not_said_to_exist(tmp_path: Path) -> None:
    refused = dts.pool("a@50100000", "reg = <0 0x50100000 0 0x400000>")
    other = dts.pool("b@50200000", "reg = <0 0x50200000 0 0x400000>")
    problem = next(p for p in report(tmp_path, dts.tree(refused + other)).problems if p.code == "overlap")
    assert problem.consequence == "reported only: of the two b@50200000 became an area"
    both = dts.pool("b@50300000", "reg = <0 0x50300000 0 0x400000>")
    found = report(tmp_path, dts.tree(refused + both))
    assert next(p for p in found.problems if p.code == "overlap").consequence == (
        "reported only: of the two none became an area"
    )


def test_the_kernel_asked_for_is_cited(tmp_path: Path) -> None:
    text = dts.tree(dts.pool("a@50100000", "reg = <0 0x50100000 0 0x400000>"))
    cited = {kernel: only(report(tmp_path, text, kernel=kernel)).rule for kernel in ("4.14", "5.10", "7.2")}
    assert cited == {
        "4.14": "drivers/base/dma-contiguous.c:rmem_cma_setup()@v4.4",
        "5.10": "kernel/dma/contiguous.c:rmem_cma_setup()@v5.10",
        "7.2": "kernel/dma/contiguous.c:rmem_cma_setup()@v7.2",
    }


BUS = "#address-cells = <2>; #size-cells = <2>; ranges; dma-ranges = <0 0 0 0x40000000 0 0x10000000>;"


def test_a_device_that_cannot_reach_its_pool(tmp_path: Path) -> None:
    nodes = "a: " + dts.pool("a@60000000", "reg = <0 0x60000000 0 0x400000>")
    device = f'soc {{ compatible = "simple-bus"; {BUS} isp {{ memory-region = <&a>; }}; }};'
    found = report(tmp_path, dts.tree(nodes, root=device), cmdline="cma=0")
    problem = only(found)
    assert (problem.code, problem.node, problem.severity) == ("out-of-reach", "/soc/isp", "error")
    assert "0x60000000-0x603fffff, in reach 0x40000000-0x4fffffff" in problem.what
    assert problem.remedy == (
        "give /reserved-memory/a@60000000 `size = <0x0 0x400000>;` "
        "`alloc-ranges = <0x0 0x40000000 0x0 0x10000000>;` instead of its place"
    )
    near = dts.tree(nodes.replace("60000000", "48000000"), root=device)
    assert report(tmp_path, near, cmdline="cma=0").problems == []


def test_a_pool_above_the_first_mask(tmp_path: Path) -> None:
    nodes = "a: " + dts.pool("a@140000000", "reg = <1 0x40000000 0 0x400000>")
    memory = "0x0 0x40000000 0x2 0x0"
    found = report(tmp_path, dts.tree(nodes, memory=memory, root="isp { memory-region = <&a>; };"))
    assert codes(found) == [("above-mask", "/isp", "note")]
    assert found.ok
    wide = BUS.replace("0x40000000 0 0x10000000", "0 0x100 0")
    bus = f'soc {{ compatible = "simple-bus"; {wide} isp {{ memory-region = <&a>; }}; }};'
    found = report(tmp_path, dts.tree(nodes, memory=memory, root=bus))
    assert codes(found) == [("above-mask", "/soc/isp", "note")]


def test_the_default_area_out_of_a_bus_s_reach(tmp_path: Path) -> None:
    default = dts.pool("a@70000000", "reg = <0 0x70000000 0 0x1000000>", "linux,cma-default")
    devices = 'a { compatible = "x"; }; b { compatible = "x"; };'
    found = report(tmp_path, dts.tree(default, root=f'soc {{ compatible = "simple-bus"; {BUS} {devices} }};'))
    assert codes(found) == [("default-out-of-reach", "/soc", "note")]


def test_an_area_in_two_zones(tmp_path: Path) -> None:
    memory = "0x0 0x40000000 0x1 0x0"
    nodes = dts.pool("a@ffe00000", "reg = <0 0xffe00000 0 0x400000>")
    found = report(tmp_path, dts.tree(nodes, memory=memory))
    problem = only(found)
    assert (problem.code, problem.effect) == ("not-activated", "refused")
    assert problem.rule == "mm/cma.c:cma_activate_area()@v6.12"
    assert problem.remedy == "let the kernel find a place: `size = <0x0 0x400000>;` instead of `reg`"
    assert [area.name for area in found.areas] == ["reserved"]


def test_what_comes_after_an_area_in_two_zones(tmp_path: Path) -> None:
    """Old kernels stop at the first area that cannot be activated; the others have no bitmap then."""
    nodes = dts.pool("a@ffc00000", "reg = <0 0xffc00000 0 0x800000>")
    text = dts.tree(nodes, memory="0x0 0x40000000 0x1 0x0")
    found = {kernel: report(tmp_path, text, kernel=kernel) for kernel in ("4.19", "6.12")}
    after = [(problem.code, problem.node) for problem in found["4.19"].problems]
    assert after == [("not-activated", "/reserved-memory/a@ffc00000"), ("activation-stopped", None)]
    assert [problem.code for problem in found["6.12"].problems] == ["not-activated"]


@pytest.mark.parametrize(
    ("nodes", "kernel", "code", "effect", "severity"),
    [
        (dts.pool("a@50100000", "reg = <0x50100000 0x400000>"), "6.12", "remap-hangs", "panic", "error"),
        (
            dts.pool("a@50000000", "reg = <0x50000000 0x1000000>")
            + dts.pool("b@50800000", "reg = <0x50800000 0x1000000>"),
            "5.10",
            "remap-overlaps",
            "panic",
            "error",
        ),
    ],
)
def test_areas_that_32_bit_arm_does_not_survive(
    tmp_path: Path, nodes: str, kernel: str, code: str, effect: str, severity: str
) -> None:
    text = dts.tree(nodes, memory="0x40000000 0x20000000", cells=1)
    found = report(tmp_path, text, kernel=kernel, arch="arm")
    problem = next(p for p in found.problems if p.code == code)
    assert (problem.effect, problem.severity) == (effect, severity)
    assert problem.remedy
    assert problem.rule.startswith("arch/arm/mm/dma-mapping.c:dma_contiguous_remap()@v")


def test_two_causes_in_one_region_are_said_one_after_the_other(tmp_path: Path) -> None:
    """The remedy of the first goes on where the second shows."""
    nodes = 'a { compatible = "shared-dma-pool"; reuseable; size = <0 0x401000>; };'
    problem = only(report(tmp_path, dts.tree(nodes)))
    assert problem.remedy == "write `reusable`, then write `size = <0x0 0x600000>;`"


def remedies(tmp_path: Path, nodes: str, **options: str) -> dict[tuple[str | None, str], str]:
    found = report(tmp_path, dts.tree(nodes), **options)
    return {(problem.node, problem.code): problem.remedy for problem in found.problems}


def test_remedies_of_neighbours_do_not_take_each_others_place(tmp_path: Path) -> None:
    """Each alone would find room; together the second asks for what the first left."""
    nodes = dts.pool("a", "size = <0 0x80000000>") + dts.pool("b", "size = <0 0x60000000>")
    assert remedies(tmp_path, nodes) == {
        ("/reserved-memory/a", "no-room"): "ask for less: `size = <0x0 0x20000000>;` finds room",
        ("/reserved-memory/b", "no-room"): "when the other remedies are done, ask for less: "
        "`size = <0x0 0xc000000>;` finds room",
    }


def test_a_remedy_that_brings_another_fault_to_light_mends_that_too(tmp_path: Path) -> None:
    """Without its parent a region is not looked at; with it, its size is seen to be none."""
    text = dts.tree(dts.pool("a", "size = <0 0x401000>")).replace("ranges; a", "a")
    found = {problem.code: problem.remedy for problem in report(tmp_path, text).problems}
    assert found == {
        "unsupported-format": "give /reserved-memory `ranges;`, then at /reserved-memory/a: "
        "write `size = <0x0 0x600000>;`",
        "parent-ignored": "goes with the remedy of /reserved-memory",
    }


def test_findings_that_go_with_another(tmp_path: Path) -> None:
    """Lost with the parent: one remedy for all."""
    text = dts.tree(dts.pool("a", "size = <0 0x400000>") + dts.pool("b", "size = <0 0x400000>"))
    found = report(tmp_path, text.replace("ranges; a", "a"))
    assert [problem.remedy for problem in found.problems] == [
        "give /reserved-memory `ranges;`",
        *["goes with the remedy of /reserved-memory"] * 2,
    ]


def test_no_remedy_is_said_that_does_not_help(tmp_path: Path) -> None:
    """As large as all memory: no smaller size of the same node is tried that is not seen to fit."""
    problem = only(report(tmp_path, dts.tree(dts.pool("a", "size = <0 0x80000000>"))))
    assert problem.code == "no-room"
    assert problem.remedy == "ask for less: `size = <0x0 0x20000000>;` finds room"


@pytest.mark.parametrize(
    ("cmdline", "code", "remedy"),
    [
        ("cma=64MB", "text-ignored", "write `cma=64M` on the command line"),
        ("cma=64MB cma_pernuma=16M", "text-ignored", "write `cma=64M` on the command line"),
        ("cma=64M cma_pernuma=16M", "unknown-parameter", "drop `cma_pernuma=16M` from the command line"),
        ("cma=64M cma-pernuma=16M", "unknown-parameter", "drop `cma-pernuma=16M` from the command line"),
    ],
)
def test_a_remedy_is_of_its_own_parameter(tmp_path: Path, cmdline: str, code: str, remedy: str) -> None:
    """``cma_pernuma`` begins as ``cma`` does, and is another one; dashes are underscores to the kernel."""
    found = report(tmp_path, dts.tree(""), cmdline=cmdline)
    assert {problem.code: problem.remedy for problem in found.problems}[code] == remedy
