"""The oracle without a kernel: its protocol, generator and shrinking, and that its comparison sees things.

The cases that it kept, recorded from real kernels, are compared here too.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import random
from pathlib import Path

import boot_support
import pytest
import replay
from oracle import build, compare, generate, guest, operations, record, shrink

from cmafs.replay.transcript import Transcript

CONFIG = ("CONFIG_NUMA=y", "CONFIG_HUGETLBFS=y")
CASES = sorted((Path(__file__).parent / "oracle" / "cases").glob("*.jsonl.xz"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.split(".jsonl")[0])
def test_kept_cases_are_answered_as_the_kernel_did(path: Path) -> None:
    assert compare.compare(replay.load(path)) == []


def test_a_case_keeps_every_byte() -> None:
    texts = ["a\tb\n", "%41", "\0", "ÿ", "", " "]
    case = [{"op": "W", "path": "/x y", "data": text} for text in texts]
    case.append({"op": "2", "path": "/x", "a": "1\n", "b": "%"})
    assert operations.decode(operations.encode(case)) == case
    assert operations.encode(case[:1]) == b"W\t/x y\ta%09b%0a\n"


def test_random_operations_are_ones_that_the_recorder_knows() -> None:
    found = operations.generate(random.Random(1), 3000)
    assert {op["op"] for op in found} >= set("WARBPSKLMUDCT2Z")
    lines = operations.encode(found).decode().splitlines()
    assert len(lines) == len(found)
    assert all(len(line.split("\t")) == 2 + len(operations.FIELDS[line[0]]) for line in lines)


def test_what_a_recorder_says_is_read() -> None:
    boot = guest.Boot()
    for line in (
        '{"release": "6.12.117"}',
        '{"boot": "<6>[    0.000000] cma: Reserved"}',
        '{"script": "CmaTotal:  4 kB"}',
        '{"n": 3, "path": "/a", "ret": -1, "errno": 12}',
        '{"dmesg": "cma: \\u00ff"}',
        '{"seconds": 1}',
    ):
        assert not boot.complete
        guest.parse(line, boot)
    assert (boot.release, boot.log, boot.complete) == ("6.12.117", ["cma: Reserved"], True)
    assert boot.outcomes == {3: {"path": "/a", "ret": -1, "errno": 12}}
    assert (boot.state, boot.dmesg) == (["CmaTotal:  4 kB"], ["cma: ÿ"])


def test_a_boot_becomes_a_transcript(tmp_path: Path) -> None:
    case = record.Case(
        "x", guest.Guest(1 << 30, "cma=1M", "/dts-v1/;"), tuple(operations.generate(random.Random(2), 9))
    )
    boot = guest.Boot(
        ["Zone ranges"], "6.12.117", ["CmaTotal: 4 kB"], {0: {"path": "/a", "errno": 0}}, ["cma: x", "y"], 1
    )
    kernel = build.Kernel("6.12-arm64-tiny", "6.12", "arm64", Path("Image"), ("CONFIG_CMA=y",))
    for name in ("x.jsonl", "x.jsonl.xz"):
        path = tmp_path / "6.12" / name
        made = record.transcript(kernel, case, boot, "6.12/x")
        record.write(made, path)
        assert vars(replay.load(path)) == vars(made)
    assert [op["path"] for op in made.operations] == ["/a"]
    assert (made.dmesg, made.script_output, made.header["mem"]) == (["cma: x"], boot.state, "1024M")
    assert record.case_of(made, "arm64") is None  # not of a kind


def test_an_archive_is_one_that_the_kernel_unpacks() -> None:
    """newc: names and contents at multiples of four, sizes in hexadecimal."""
    archive = guest.cpio([("a", 0o100644, b"12345", 0)])
    assert archive[:6] == b"070701" and len(archive) % 4 == 0
    assert int(archive[54:62], 16) == 5 and archive[110:112] == b"a\0" and archive[112:117] == b"12345"
    assert archive[120:126] == b"070701" and b"TRAILER!!!\0" in archive


@pytest.mark.parametrize("arch", ["arm64", "arm", "x86_64"])
def test_a_number_makes_one_machine(arch: str) -> None:
    made = [generate.machine(seed, arch, CONFIG) for seed in range(40)]
    assert made == [generate.machine(seed, arch, CONFIG) for seed in range(40)]
    assert len({machine.case("").guest for machine in made}) > 35
    assert all(len(machine.operations) >= 80 for machine in made)


def test_machines_are_trees_that_leave_the_kernel_room() -> None:
    for seed in range(200):
        machine = generate.machine(seed, "arm64", CONFIG)
        tree = boot_support.parse_dts(machine.dts())
        assert len(tree.root.children) >= len(machine.banks)
        for child in machine.children:
            for base, size in _regs(child):
                loaded = generate._loaded(machine.banks)
                assert all(base + size <= start or base >= end for start, end in loaded), (seed, child)


def _regs(child: str) -> list[tuple[int, int]]:
    """The first pair of a child's reg."""
    if "reg = <" not in child:
        return []
    words = [int(word, 0) for word in child.split("reg = <")[1].split(">")[0].split()]
    return [((words[0] << 32) + words[1], (words[2] << 32) + words[3])]


def test_shrinking_finds_the_part_that_matters() -> None:
    machine = generate.machine(3, "arm64", CONFIG)
    machine = dataclasses.replace(machine, words=("a", "cma=1M", "b"), children=("x", "y", "z"))
    needed = machine.operations[17]

    def differs(one: generate.Machine) -> bool:
        return "cma=1M" in one.words and "y" in one.children and needed in one.operations

    small, boots = shrink.shrink(machine, differs, budget=200)
    assert (small.words, small.children, set(map(str, small.operations))) == (
        ("cma=1M",),
        ("y",),
        {str(needed)},
    )
    assert boots <= 200
    assert shrink.shrink(machine, differs, budget=3)[1] == 3


def test_inputs_of_recorded_transcripts_are_asked_again() -> None:
    for arch in ("arm64", "arm", "x86_64"):
        names = [case.name for case in record.cases(arch, "tiny")]
        assert len(names) == len(set(names))
        assert {name.split("-")[0] for name in names} >= {"walk", "parse", "files", "exhaust"}


def test_a_configuration_is_merged_as_kconfig_reads_it(tmp_path: Path) -> None:
    fragment = tmp_path / "fragment"
    fragment.write_text("CONFIG_A=y\n# CONFIG_B is not set\n# a comment\n")
    assert build._merge(["# CONFIG_A is not set", "CONFIG_B=y", "CONFIG_C=1"], [fragment]).split("\n") == [
        "CONFIG_C=1", "CONFIG_A=y", "# CONFIG_B is not set", "",
    ]  # fmt: skip
    lines = build.config_lines("CONFIG_CMA=y\nCONFIG_CMA_AREAS=7\nCONFIG_NOT_READ=y\n")
    assert {"CONFIG_CMA=y", "CONFIG_CMA_AREAS=7", "# CONFIG_ZONE_DMA is not set"} <= set(lines)
    assert not any("NOT_READ" in line or "CMA_SIZE_MBYTES" in line for line in lines)


def test_what_is_missing_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None if "qemu" in name or "apt" in name else name)
    with pytest.raises(
        build.OracleError, match=r"missing: .*qemu-system-arm.*; as root: apt-get install"
    ) as caught:
        build.require("arm64")
    assert "\n" not in str(caught.value)


def test_a_package_comes_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    (mirror / "pool").mkdir(parents=True)
    (mirror / "pool" / "linux.deb").write_bytes(b"package")
    monkeypatch.setenv("CMAFS_ORACLE_MIRROR", mirror.as_uri())
    monkeypatch.setenv("CMAFS_ORACLE_CACHE", str(cache))
    monkeypatch.setattr(build, "MIRRORS", ())
    right = build.Package("pool/linux.deb", hashlib.sha256(b"package").hexdigest())
    assert build.fetch(right) == cache / "linux.deb"
    (mirror / "pool" / "linux.deb").unlink()
    assert build.fetch(right).read_bytes() == b"package"
    with pytest.raises(build.OracleError, match=r"its sha256 is .*, not 00: delete it"):
        build.fetch(build.Package("pool/linux.deb", "00"))
    with pytest.raises(build.OracleError, match=r"cannot download other\.deb: put it into"):
        build.fetch(build.Package("pool/other.deb", "00"))


# planted differences


@pytest.fixture
def case() -> Transcript:
    return copy.deepcopy(
        replay.load(next(path for path in CASES if path.name == "6.12-arm64-tiny-1.jsonl.xz"))
    )


def test_a_planted_difference_is_found(case: Transcript) -> None:
    out, header = case.script_output, case.header
    area = next(n for n, line in enumerate(out) if line.startswith("area "))
    zone = next(n for n, line in enumerate(out) if line.strip().startswith("spanned"))
    total = next(n for n, line in enumerate(out) if line.startswith("CmaTotal"))
    block = next(n for n, line in enumerate(out) if line.startswith("Number of blocks type")) + 1
    logged = next(n for n, line in enumerate(header["boot"]) if "Zone ranges" in line)
    write = next(op for op in case.operations if op["op"] == "W" and op.get("ret", 0) > 0)
    changes = {
        "area": lambda: out.__setitem__(area, out[area].replace("count=", "count=1")),
        "zone": lambda: out.__setitem__(zone, out[zone] + "1"),
        "CmaTotal": lambda: out.__setitem__(total, "CmaTotal: 1 kB"),
        "page blocks": lambda: out.__setitem__(block, out[block][:-1] + "9"),
        "boot recorded": lambda: header["boot"].__setitem__(logged, "Zone ranges!"),
        "operation": lambda: write.update(errno=5),
        "log": lambda: case.dmesg.append("cma: said by nobody"),
    }
    for what, plant in changes.items():
        before = copy.deepcopy((case.script_output, header["boot"], case.operations, case.dmesg))
        plant()
        problems = compare.compare(case)
        assert problems and all(problem.startswith((what, "boot here")) for problem in problems), (
            what,
            problems,
        )
        case.script_output[:], header["boot"][:], old, case.dmesg[:] = before
        write.update(old[case.operations.index(write)])


def test_a_kernel_that_died_must_die_here(case: Transcript) -> None:
    case.script_output.clear()
    assert compare.compare(case) == ["recorded: the kernel did not survive its boot"]


def test_figures_do_not_make_another_way_to_differ() -> None:
    path = "/sys/kernel/debug/cma/a/used"
    first = f"operation 17 {{'op': 'R', 'path': '{path}'}}: recorded {{'out': '1'}}, here {{'out': '2'}}"
    other = first.replace("17", "3").replace("'1", "'44").replace("cma/a/", "cma/reserved/")
    assert compare.signature(first) == compare.signature(other)
    assert compare.signature(first) != compare.signature(first.replace("used", "bitmap"))
    area = "area {}: recorded [{}, 1024, 0, 256, 768], ours [{}, 1024, 0, {}, 896]"
    assert compare.signature(area.format("a", 4, 4, 2)) == "area: used maxchunk"
    assert compare.signature(area.format("b", 4, 8, 256)) == "area: base_pfn maxchunk"
    assert compare.signature("area b: recorded [1, 2, 0, 0, 2], ours None") == "area: none here"
