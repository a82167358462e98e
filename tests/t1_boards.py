"""The bundled boards: all load, say where their facts come from, and have the machine that they claim.

Modules: cmafs.of.cpu.
"""

from __future__ import annotations

import json
import subprocess

import pytest
from boot_support import parse_dts

from cmafs.cli.main import main
from cmafs.of.base import DeviceTree
from cmafs.of.cpu import cpu_arch, cpu_nodes, machine_arch
from cmafs.of.fdt import boards, load

NAMES = ("am62x", "article-1", "article-2", "camera", "imx8mm", "rk3588", "rpi4", "virt", "x86-4g")


def ranges(tree: DeviceTree) -> list[tuple[int, int]]:
    """Every (base, size) of the /memory nodes."""
    address, size = tree.root.address_cells(), tree.root.size_cells()
    found = []
    for node in tree.root.children.values():
        if node.property_read_string("device_type") == "memory":
            found += [(base, length) for base, length in node.entries("reg", address, size)]
    return found


def test_the_names_of_the_contract() -> None:
    assert tuple(board.name for board in boards()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_board_loads_and_says_its_sources(name: str) -> None:
    tree = load(name)
    board = next(b for b in boards() if b.name == name)
    assert board.model == tree.model != ""
    assert ranges(tree)
    text = board.path.read_text()
    assert "Facts:" in text or "seeds/000" in text


@pytest.mark.parametrize("name", NAMES)
def test_dtc_has_nothing_to_say_that_matters(name: str) -> None:
    """unit_address_vs_reg is in the originals: the article's cma@0, Rockchip's cma, Raspberry Pi's soc."""
    path = next(b.path for b in boards() if b.name == name)
    command = ["dtc", "-I", "dts", "-O", "dtb", "-W", "no-unit_address_vs_reg", "-o", "/dev/null", str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


@pytest.mark.parametrize(
    ("name", "kib"),
    [
        ("virt", 1048576),
        ("rpi4", 4050944),  # of every boot log of a 4 GiB board
        ("imx8mm", 2097152),
        ("am62x", 2097152),
        ("x86-4g", 4193716),  # seeds/003
        ("article-1", 4194304),
        ("article-2", 4194304),
    ],
)
def test_memory(name: str, kib: int) -> None:
    assert sum(size for _, size in ranges(load(name))) == kib << 10


def test_seeds_003_command_line_and_limit() -> None:
    tree = load("x86-4g")
    bootargs = tree.root.children["chosen"].property_read_string("bootargs")
    assert bootargs is not None
    assert bootargs.startswith("BOOT_IMAGE=/boot/vmlinuz-4.15.0CMA20190430 root=UUID=3865b135-")
    assert bootargs.endswith(" console-setup/modelcode=evdev cma=1G@1-2G")
    assert max(base + size for base, size in ranges(tree)) == 0x140000000
    assert tree.root.children["chosen"].parse_phandles("cmafs,boot-allocations") == [1, 1, 1]


def test_the_articles_examples_as_printed() -> None:
    first = load("article-1").find_node_by_path("/reserved-memory/cma@0")
    second = load("article-2").find_node_by_path("/reserved-memory/cma@80000000")
    assert first is not None
    assert second is not None
    assert {k: v for k, v in first.props.items() if k != "phandle"} == {
        "compatible": b"shared-dma-pool\0",
        "reusable": b"",
        "size": b"\x10\0\0\0",
        "alignment": b"\0\x10\0\0",
    }
    assert second.entries("reg", 2, 2) == [(0x80000000, 1 << 30)]
    assert second.property_read_bool("linux,cma-default")


def test_camera_devices_name_their_pools() -> None:
    tree = load("camera")
    pools = {}
    for node in tree.walk():
        for phandle in node.parse_phandles("memory-region"):
            target = tree.find_node_by_phandle(phandle)
            assert target is not None
            pools[node.name] = target.name
    assert pools == {
        "isi@32e00000": "camera@60000000",
        "isp@32e10000": "camera@60000000",
        "video-codec@38300000": "vpu@70000000",
        "video-codec@38310000": "vpu@70000000",
        "dsp@3b6e8000": "dsp@92400000",
    }


@pytest.mark.parametrize(
    ("compatible", "arch"),
    [
        ("arm,cortex-a53", "arm64"),
        ("arm,cortex-a520", "arm64"),
        ("arm,cortex-x4", "arm64"),
        ("arm,neoverse-n2", "arm64"),
        ("arm,armv8", "arm64"),
        ("apple,firestorm", "arm64"),
        ("qcom,kryo385", "arm64"),
        ("brcm,brahma-b53", "arm64"),
        ("nvidia,tegra194-carmel", "arm64"),
        ("arm,cortex-a5", "arm"),
        ("arm,cortex-a7", "arm"),
        ("arm,cortex-a9", "arm"),
        ("arm,cortex-a15", "arm"),
        ("arm,cortex-a32", "arm"),
        ("arm,arm1176jzf-s", "arm"),
        ("qcom,krait", "arm"),
        ("marvell,sheeva-v7", "arm"),
        *((name, "arm") for name in (
            "arm,cortex-a8", "arm,cortex-a12", "arm,cortex-a17", "arm,cortex-m4", "arm,cortex-r5f",
            "arm,arm926ej-s", "arm,armv7", "arm,sc300", "qcom,scorpion", "brcm,brahma-b15", "faraday,fa526",
            "intel,sa1100", "intel,xscale", "marvell,pj4b", "marvell,feroceon", "marvell,mohawk",
            "marvell,xsc3", "marvell,88sv331x",
        )),
        *((name, "arm64") for name in (
            "arm,foundation-aarch64", "arm,rainier", "arm,c1-ultra", "arm,armv9", "apm,potenza",
            "cavium,thunder", "fujitsu,a64fx", "hisilicon,tsv110", "phytium,ftc663", "ampere,emag",
            "brcm,vulcan", "samsung,mongoose-m2", "ARM,Cortex-A53",
        )),
        ("intel,ce4100", "x86_64"),
        ("amd,epyc", "x86_64"),
        ("via,c3", "x86_64"),
        ("centaur,x", "x86_64"),
        ("i486", "x86_64"),
        ("i786", None),
        ("x86", "x86_64"),
        ("riscv", None),
    ],
)  # fmt: skip
def test_architecture_of_a_core(compatible: str, arch: str | None) -> None:
    assert cpu_arch(compatible) == arch


def test_architecture_and_why() -> None:
    assert machine_arch(load("x86-4g")) == ("x86_64", "/cpus/cpu@0 is x86")
    assert machine_arch(load("rk3588")) == ("arm64", "/cpus/cpu@0 is arm,cortex-a55")
    tree = load("virt")
    tree.root.children["cpus"].children["cpu@0"].props["compatible"] = b"riscv\0"
    assert machine_arch(tree) == ("arm64", "/cpus/cpu@0 is riscv, which names none of ours")
    tree.root.children["cpus"].children["cpu@0"].props["compatible"] = b"riscv\0acme,x\0"
    assert machine_arch(tree) == ("arm64", "/cpus/cpu@0 is riscv, acme,x, which names none of ours")
    tree.root.children["cpus"].children["cpu@0"].props["compatible"] = b"riscv\0arm,cortex-a7\0"
    assert machine_arch(tree) == ("arm", "/cpus/cpu@0 is arm,cortex-a7")
    del tree.root.children["cpus"].children["cpu@0"].props["compatible"]
    assert machine_arch(tree) == ("arm64", "/cpus/cpu@0 is without compatible, which names none of ours")
    del tree.root.children["cpus"]
    assert machine_arch(tree) == ("arm64", "the tree has no cpu node")


def test_which_children_of_cpus_are_a_cpu() -> None:
    """drivers/of/base.c:of_get_next_cpu_node()@v6.12: by device_type or by name."""
    tree = parse_dts(
        """/dts-v1/; / { cpus { cpu-map { }; cpu@0 { }; core@1 { device_type = "cpu"; };
        cpu@2 { device_type = "cpu"; }; cpu@3 { device_type = "other"; }; l2-cache { device_type = "cache"; };
        idle-states { }; cpus@4 { }; cpu { }; }; };"""
    )
    assert [node.name for node in cpu_nodes(tree)] == ["cpu@0", "core@1", "cpu@2", "cpu@3", "cpu"]
    assert cpu_nodes(parse_dts("/dts-v1/; / { cpu@0 { }; };")) == []


def test_the_table_of_boards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boards"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == ["BOARD", "ARCH", "MEMORY", "AREAS", "MODEL"]
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert lines[NAMES.index("rpi4")].split("  ", 1)[1].split() == (
        ["arm64", "3956", "MiB", "linux,cma", "64", "MiB", "Raspberry", "Pi", "4", "Model", "B"]
    )
    assert main(["boards", "--json"]) == 0
    found = {board["name"]: board for board in json.loads(capsys.readouterr().out)}
    assert found["rpi4"] == {
        "name": "rpi4",
        "model": "Raspberry Pi 4 Model B",
        "arch": "arm64",
        "memory": 3956 << 20,
        "areas": [{"name": "linux,cma", "base": 0x37400000, "size": 64 << 20}],
    }


def test_the_tables_of_kernels_and_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for option in ("--kernels", "--configs"):
        assert main(["boards", option]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert main(["boards", option, "--json"]) == 0
        found[option] = [line.split()[0] for line in lines if line], json.loads(capsys.readouterr().out)
    names, data = found["--kernels"]
    assert [one["name"] for one in data["kernels"]] == names[: names.index("RECORDED")]
    assert [one["kernel"].split()[0] for one in data["recorded"]] == names[names.index("RECORDED") + 1 :]
    names, data = found["--configs"]
    assert [one["name"] for one in data] == names
