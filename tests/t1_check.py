"""`cmafs check`: what it says of good and bad trees, in text, in JSON and by its exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import dts_support as dts
import pytest

from cmafs.abi import RELEASES
from cmafs.abi.sources import source_at
from cmafs.check.rules import RULES
from cmafs.cli.main import main
from cmafs.of.fdt import boards

KERNELS = ("4.4", "4.15", "5.10", "6.1", "6.12", "7.2")


class Checked:
    """One run of the command."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *args: str) -> None:
        self.status = main(["check", *([] if "--dts" in args else ["--dts", "virt"]), *args])
        self.out, self.err = capsys.readouterr()

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def problems(self) -> list[tuple[str | None, str, str, str]]:
        """(node, property, effect, severity) of each."""
        return [
            (p["node"], p["reason"].split(":")[0], p["effect"], p["severity"])
            for p in self.document["problems"]
        ]


def check(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, *args: str) -> Checked:
    return Checked(capsys, "--json", "--dts", dts.write(tmp_path, "a.dts", text), *args)


# -- good trees -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", [board.name for board in boards()])
def test_bundled_boards_are_good_on_every_kernel(
    capsys: pytest.CaptureFixture[str], name: str, kernel: str
) -> None:
    checked = Checked(capsys, "--json", "--dts", name, "--kernel", kernel)
    assert [p for p in checked.document["problems"] if p["severity"] == "error"] == []
    assert checked.status == 0
    assert checked.document["areas"]
    assert checked.err == ""


def test_json_has_the_keys_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    document = Checked(capsys, "--json", "--dts", "rpi4").document
    assert list(document) == ["schema", "kernel", "arch", "areas", "problems", "log"]
    assert (document["schema"], document["kernel"], document["arch"]) == (1, "6.12.117", "arm64")
    assert document["areas"] == [
        {
            "name": "linux,cma",
            "base_pfn": 0x37400,  # as on the board
            "count": 16384,
            "order_per_bit": 0,
            "default": True,
            "node": "/reserved-memory/linux,cma",
        }
    ]
    assert document["problems"] == []
    assert document["log"][0].startswith("[    0.000000] ")


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    checked = Checked(capsys, "--dts", "rpi4", "--log")
    log, _, rest = checked.out.partition("\n\n")
    assert "] Reserved memory: created CMA memory pool at 0x0000000037400000, size 64 MiB\n" in log
    assert rest == (
        "rpi4: Linux 6.12.117 on arm64 (/cpus/cpu@0 is arm,cortex-a72)\n"
        "\n"
        "AREA       BASE        SIZE    BASE_PFN  COUNT  ORDER  DEFAULT  NODE\n"
        "linux,cma  0x37400000  64 MiB  226304    16384  0      default  /reserved-memory/linux,cma\n"
        "\n"
        "1 of 1 regions that ask for an area became one\n"
    )
    assert checked.status == 0
    assert Checked(capsys, "--dts", "rpi4").out == rest


def test_text_without_areas(capsys: pytest.CaptureFixture[str]) -> None:
    checked = Checked(capsys, "--dts", "virt", "--cmdline", "cma=0", "--arch", "arm64")
    assert checked.out == (
        "virt: Linux 6.12.117 on arm64 (--arch)\n\nno areas\n\nno region asks for an area\n"
    )


def test_seeds_003(capsys: pytest.CaptureFixture[str]) -> None:
    document = Checked(capsys, "--json", "--dts", "x86-4g", "--kernel", "4.15").document
    (area,) = document["areas"]
    assert (area["name"], area["base_pfn"], area["count"], area["node"]) == (
        "reserved",
        0x40000,
        262144,
        None,
    )
    (problem,) = document["problems"]
    assert (problem["node"], problem["effect"], problem["severity"]) == (None, "moved", "note")
    assert problem["reason"].startswith(
        "cma=: the base has no suffix, so it counts bytes (1 became 0x40000000); "
    )


# -- one fault each ---------------------------------------------------------------------------------------

GOOD = "size = <0x0 0x400000>"
AT = "/reserved-memory/"


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (
            dts.pool("a@50100000", "reg = <0 0x50100000 0 0x400000>"),
            ("a@50100000", "reg", "refused", "error"),
        ),
        (
            dts.pool("a@50000000", "reg = <0 0x50000000 0 0x500000>"),
            ("a@50000000", "reg", "refused", "error"),
        ),
        (dts.pool("a", "reg = <0x50000000 0x400000>, <0>"), ("a", "reg", "refused", "error")),
        (dts.pool("a", "size = <0x400000>"), ("a", "size", "refused", "error")),
        (dts.pool("a", "size = <0 0>"), ("a", "size", "refused", "error")),
        (dts.pool("a", "size = <0 0x500000>"), ("a", "size", "refused", "error")),
        (dts.pool("a", "size = <0 0x80000000>"), ("a", "size", "refused", "error")),
        (dts.pool("a", GOOD, "alignment = <0x400000>"), ("a", "alignment", "refused", "error")),
        (dts.pool("a", GOOD, "alloc-ranges = <0 0 0x40000000>"), ("a", "alloc-ranges", "refused", "error")),
        (dts.pool("a", GOOD, "alloc-ranges = <0 0 0 0x40000000>"), ("a", "alloc-ranges", "refused", "error")),
        (dts.pool("a", GOOD, "no-map"), ("a", "no-map", "refused", "error")),
        (dts.pool("a"), ("a", "reg", "ignored", "error")),
        (dts.pool("a", GOOD, 'status = "disabled"'), ("a", "status", "ignored", "note")),
        (f'a {{ compatible = "shared-dma-pool"; {GOOD}; }};', ("a", "reusable", "moved", "error")),
        (f'a {{ compatible = "shared-dma-pool"; no-map; {GOOD}; }};', ("a", "reusable", "note", "note")),
        (f'a {{ compatible = "acme,pool"; reusable; {GOOD}; }};', ("a", "compatible", "ignored", "error")),
        (dts.pool("a", GOOD, "alignment = <0 0x1000>"), ("a", "alignment", "moved", "note")),
        (dts.pool("a@1", "reg = <0 0x50000000 0 0x400000>"), ("a@1", "reg", "note", "note")),
        (
            dts.pool("a@50000000", "reg = <0 0x50000000 0 0x400000>, <0 0x60000000 0 0x400000>"),
            ("a@50000000", "reg", "note", "note"),
        ),
        (f"b {{ {dts.pool('a', GOOD)} }};", ("b/a", "compatible", "ignored", "error")),
    ],
)
def test_one_fault(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, node: str, expected: tuple[str, str, str, str]
) -> None:
    checked = check(capsys, tmp_path, dts.tree(node))
    name, prop, effect, severity = expected
    assert checked.problems == [(AT + name, prop, effect, severity)]
    assert checked.status == (1 if severity == "error" else 0)


def test_paragraph_of_a_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = dts.tree(dts.pool("a@50100000", "reg = <0 0x50100000 0 0x400000>"))
    path = dts.write(tmp_path, "a.dts", text)
    line, column = at(text, "reg = <0 0x50100000")
    out = Checked(capsys, "--dts", path, "--kernel", "5.10").out
    assert out[out.index("\n\n/") :] == (
        f"\n\n{path}:{line}:{column}: error: /reserved-memory/a@50100000: "
        "reg: the base is not a multiple of the CMA unit (0x50100000, 0x400000 bytes, unit 0x400000) "
        "[base-misaligned]\n"
        "  effect on 5.10.223: refused, no area\n"
        "  rule: kernel/dma/contiguous.c:rmem_cma_setup()@v5.10\n"
        "  remedy: write `reg = <0x0 0x50000000 0x0 0x400000>;`\n"
        "  log: [    0.000000] Reserved memory: incorrect alignment of CMA region\n"
        "  log: [    0.000000] OF: reserved mem: node a@50100000 compatible matching fail\n"
        "\n"
        "1 problem; 0 of 1 regions that ask for an area became one\n"
    )


def at(text: str, piece: str) -> tuple[int, int]:
    """Line and column of a piece of a source."""
    before = text[: text.index(piece)]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


@pytest.mark.parametrize(
    "wrong", ["#address-cells = <1>;", "#size-cells = <1>;", "/delete-property/ ranges;"]
)
def test_parent_of_another_format(capsys: pytest.CaptureFixture[str], tmp_path: Path, wrong: str) -> None:
    text = dts.tree(dts.pool("a", GOOD)) + f"/ {{ reserved-memory {{ {wrong} }}; }};"
    checked = check(capsys, tmp_path, text)
    (parent, prop, effect, severity), child = checked.problems
    assert (parent, effect, severity) == ("/reserved-memory", "ignored", "error")
    assert prop in wrong
    assert child == ("/reserved-memory/a", "compatible", "ignored", "error")
    assert checked.status == 1


def test_a_pool_elsewhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    checked = check(capsys, tmp_path, dts.tree(root=dts.pool("a", GOOD)))
    assert checked.problems == [("/a", "compatible", "ignored", "error")]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("reg", ["0 0x7f000000 0 0x2000000", "0 0x90000000 0 0x2000000"])
def test_outside_memory_is_a_panic(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, reg: str, kernel: str
) -> None:
    base = reg.split()[1].removeprefix("0x")
    text = dts.tree(dts.pool("good", GOOD) + dts.pool(f"a@{base}", f"reg = <{reg}>"))
    checked = check(capsys, tmp_path, text, "--kernel", kernel)
    assert checked.status == 1
    assert checked.document["areas"] == []
    assert checked.problems[0] == (f"{AT}a@{base}", "reg", "panic", "error")


def test_overlap(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    one = dts.pool("a@50000000", "reg = <0 0x50000000 0 0x400000>")
    two = dts.pool("b@50200000", "reg = <0 0x50200000 0 0x400000>")
    checked = check(capsys, tmp_path, dts.tree(one + two))
    assert checked.problems == [(f"{AT}b@50200000", "reg", "note", "error")]
    assert len(checked.document["areas"]) == 3
    assert checked.status == 1


def test_memreserve_inside_an_area(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = dts.tree(dts.pool("a@50000000", "reg = <0 0x50000000 0 0x400000>"))
    text = text.replace("/dts-v1/;", "/dts-v1/; /memreserve/ 0x50100000 0x1000;")
    checked = check(capsys, tmp_path, text)
    assert checked.problems == [(f"{AT}a@50000000", "reg", "note", "error")]


def test_two_defaults(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nodes = dts.pool("a", GOOD, "linux,cma-default") + dts.pool("b", GOOD, "linux,cma-default")
    checked = check(capsys, tmp_path, dts.tree(nodes))
    assert checked.problems == [(f"{AT}b", "linux,cma-default", "note", "note")]
    assert [(a["name"], a["default"]) for a in checked.document["areas"]] == [("a", False), ("b", True)]
    assert checked.status == 0


@pytest.mark.parametrize(("kernel", "lost"), [("5.10", []), ("6.12", ["p7"]), ("7.2", ["p7"])])
def test_more_pools_than_slots(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kernel: str, lost: list[str]
) -> None:
    nodes = "".join(dts.pool(f"p{i}", GOOD) for i in range(8))
    tiny = ("--kernel", kernel, "--config", "tiny")
    checked = check(capsys, tmp_path, dts.tree(nodes), *tiny)
    errors = [(node, effect) for node, _, effect, severity in checked.problems if severity == "error"]
    assert errors == [*((AT + name, "refused") for name in lost), (None, "refused")]
    assert checked.status == 1
    roomy = check(capsys, tmp_path, dts.tree(nodes), *tiny, "--config", "CMA_AREAS=9")
    assert (roomy.status, len(roomy.document["areas"])) == (0, 9)


def test_devices_without_their_region(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nodes = "a: " + dts.pool("a", GOOD, 'status = "disabled"')
    checked = check(capsys, tmp_path, dts.tree(nodes, root="one { memory-region = <&a 0x77>; };"))
    assert checked.problems[1:] == [("/one", "memory-region", "note", "note")] * 2
    assert checked.status == 0


# -- the command line, overlays, memory -------------------------------------------------------------------


def test_cmdline_displaces_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    for kernel, node in (("5.4", []), ("5.10", ["refused"]), ("6.12", ["refused"]), ("7.2", ["refused"])):
        args = ("--json", "--dts", "rpi4", "--kernel", kernel, "--cmdline", "cma=320M")
        checked = Checked(capsys, *args)
        assert [p[2] for p in checked.problems if p[0] == "/reserved-memory/linux,cma"] == node
        assert checked.status == len(node)


@pytest.mark.parametrize(
    ("cmdline", "effect"),
    [
        ("cma=2G", "refused"),
        ("cma=64M@0x50100000", "refused"),
        ("cma=64M@0x10000000", "panic"),  # below memory: nothing checks that before the area is activated
    ],
)
def test_cmdline_that_fails(capsys: pytest.CaptureFixture[str], cmdline: str, effect: str) -> None:
    checked = Checked(capsys, "--json", "--cmdline", cmdline)
    assert checked.problems == [(None, "cma=", effect, "error")]
    assert checked.document["areas"] == []
    assert checked.status == 1


def test_cmdline_that_is_not_taken_literally(capsys: pytest.CaptureFixture[str]) -> None:
    checked = Checked(capsys, "--json", "--cmdline", "cma=3M@0x50000000-0x60000000")
    assert checked.problems == [(None, "cma=", "moved", "note")] * 2
    assert checked.status == 0


def test_overlay_and_memory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    overlay = dts.write(tmp_path, "o.dts", "/dts-v1/;/plugin/;&cma { size = <0x20000000>; };")
    checked = Checked(capsys, "--json", "--dts", "rpi4", "--overlay", overlay)
    (area,) = checked.document["areas"]
    assert (area["count"], area["base_pfn"]) == (131072, 0x1B400)
    small = Checked(capsys, "--json", "--dts", "rpi4", "--overlay", overlay, "--memory", "512M")
    assert small.problems[0][:3] == ("/reserved-memory/linux,cma", "alloc-ranges", "refused")


def test_memory_that_the_boot_loader_fills_in(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = dts.tree(dts.pool("a@50000000", "reg = <0 0x50000000 0 0x400000>"), memory="0 0x40000000 0 0")
    path = dts.write(tmp_path, "a.dts", text)
    empty = Checked(capsys, "--json", "--dts", path)
    assert (empty.status, empty.out) == (2, "")
    assert "--memory" in empty.err
    assert Checked(capsys, "--json", "--dts", path, "--memory", "1G").status == 0


# -- nothing to check -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--dts", "/nowhere/a.dts"], "cmafs: /nowhere/a.dts: No such file or directory"),
        (["--dts", "rpi5"], "cmafs: unknown board 'rpi5': known are am62x, "),
        (["--kernel", "3.2"], "cmafs: unknown kernel '3.2': known are 4.4, "),
        (["--config", "NO_SUCH=1"], "cmafs: "),
        (["--memory", "lots"], "cmafs: "),
        (["--overlay", "/nowhere/o.dtbo"], "cmafs: /nowhere/o.dtbo: No such file or directory"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_status_2(capsys: pytest.CaptureFixture[str], args: list[str], why: str, form: list[str]) -> None:
    checked = Checked(capsys, *form, *args)
    assert (checked.status, checked.out) == (2, "")
    assert checked.err.startswith(why)
    assert checked.err.count("\n") == 1


def test_no_memory_node(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    checked = Checked(capsys, "--dts", dts.write(tmp_path, "a.dts", "/dts-v1/; / { };"))
    assert (checked.status, checked.out, checked.err.count("\n")) == (2, "", 1)


# -- the rules themselves ---------------------------------------------------------------------------------


def test_every_reason_that_boot_gives_has_words() -> None:
    top = Path(__file__).resolve().parent.parent / "cmafs"
    given = set()
    for path in top.rglob("*.py"):
        text = path.read_text()
        given |= set(re.findall(r'BootEvent\(\s*[\w.]+,\s*"([a-z-]+)"', text))
        given |= set(re.findall(r'\.event\(\s*[\w.]+,\s*"([a-z-]+)"', text))
        given |= set(re.findall(r'CmaRefused\(\s*errno\.\w+,\s*"([a-z-]+)"', text))
    assert given - set(RULES) == set()
    assert len(given) > 30


def test_rules_are_cited_for_the_kernel_that_was_asked_for() -> None:
    for key, rule in RULES.items():
        for row in RELEASES:
            source = source_at(rule.source, row)
            document = re.search(r"\.yaml|\.rst|Specification|\(2010\)", source)
            assert document or re.fullmatch(rf"[\w/-]+\.[ch]:\w+(\(\))?@v{row}", source), key
        assert rule.what, key
        assert "\n" not in rule.what + rule.source, key


@pytest.mark.parametrize(
    ("kernel", "cmdline", "expected"),
    [
        ("5.4", "cma=32M", ("cma=", "ignored", "note")),  # the tree's default goes first
        ("6.12", "cma=abc", ("cma=", "note", "note")),
        ("6.12", "cma=16M,32M", ("cma=", "note", "note")),
        ("5.4", "hugetlb_cma=1G", ("hugetlb_cma=", "ignored", "error")),
        ("5.10", "numa_cma=0:16M", ("numa_cma=", "ignored", "error")),
    ],
)
def test_parameters_that_do_nothing(
    capsys: pytest.CaptureFixture[str], kernel: str, cmdline: str, expected: tuple[str, str, str]
) -> None:
    checked = Checked(capsys, "--json", "--dts", "rpi4", "--kernel", kernel, "--cmdline", cmdline)
    mine = [problem[1:] for problem in checked.problems if problem[0] is None]
    assert mine == [expected]


def test_an_option_of_other_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    checked = Checked(capsys, "--json", "--cmdline", "cma=16M", "--config", "CMA_DEBUG=y")
    (problem,) = checked.document["problems"]
    assert (problem["node"], problem["effect"], problem["severity"]) == (None, "note", "note")
    assert problem["reason"].startswith("CONFIG_CMA_DEBUG: this kernel or architecture has no such option")
    assert checked.status == 0


def test_no_room_for_a_parameter_is_no_matter_of_the_tree(capsys: pytest.CaptureFixture[str]) -> None:
    (problem,) = Checked(capsys, "--json", "--cmdline", "cma=2G").document["problems"]
    assert problem["reason"].startswith("cma=: no free range of that size below the limit (")
    assert "of_reserved_mem" not in problem["reason"]


@pytest.mark.parametrize("arch", ["arm64", "arm"])
def test_memory_that_does_not_hold_the_kernel(capsys: pytest.CaptureFixture[str], arch: str) -> None:
    def codes(*args: str) -> list[tuple[str, str]]:
        (board,) = Checked(capsys, "--format", "json", "--arch", arch, *args).document["boards"]
        return [(problem["code"], problem["effect"]) for problem in board["problems"]]

    assert codes("--memory", "1M") == [("no-room-for-image", "panic")]
    assert codes("--memory", "256M") == []
    assert "no-room-for-image" not in dict(codes("--cmdline", "mem=4M"))


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        ("0x40000000", "reg of /memory@40000000 is no (address, size) pair of the root's 2 and 2 cells"),
        ("0 0x40000000 0 0x800", "/memory@40000000 has no whole page that this machine can address"),
        ("0 0x40000000 0 0", "/memory@40000000 has size 0, which a boot loader fills in"),
    ],
)
def test_memory_that_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, memory: str, why: str
) -> None:
    checked = check(capsys, tmp_path, dts.tree(memory=memory))
    assert (checked.status, checked.out) == (2, "")
    assert checked.err.endswith(f": no memory: {why}; say how much with --memory SIZE\n")
    assert checked.err.count("\n") == 1


@pytest.mark.parametrize(("kernel", "cut"), [("5.4", []), ("5.10", [("name", "note", "note")])])
def test_long_names_are_cut_since_5_9(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kernel: str, cut: list[tuple[str, str, str]]
) -> None:
    checked = check(capsys, tmp_path, dts.tree(dts.pool("p" * 64, GOOD)), "--kernel", kernel)
    assert [problem[1:] for problem in checked.problems] == cut
