"""proc/ and boot/ without a mount: formats by row, figures that add up, sysctls.

Modules: cmafs.fs.proc.root, cmafs.fs.proc.buddyinfo, cmafs.fs.proc.iomem, cmafs.fs.proc.vmstat.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import re
from dataclasses import astuple

import pytest
from boot_support import boot, tree_of
from cma_support import Files, refused_with

from cmafs.abi import RELEASES, kernel_abi
from cmafs.abi.kconfig import SYMBOLS
from cmafs.abi.vmstat_items import ITEMS_5_10, ITEMS_6_18
from cmafs.fs.namei import O_RDONLY, O_RDWR, O_WRONLY, Syscalls
from cmafs.fs.proc.meminfo import meminfo
from cmafs.fs.proc.sysctl import proc_dointvec
from cmafs.fs.proc.vmstat import VmstatFiles
from cmafs.fs.tree import build_tree
from cmafs.init.task import Task

ROWS = list(RELEASES)
TWO_BANKS = "<0x0 0x40000000 0x0 0x20000000>, <0x0 0x80000000 0x0 0x20000000>"


class Proc(Files):
    """A booted machine and its /proc."""

    def __init__(
        self, kernel: str = "6.12", arch: str = "arm64", memory: str = "", **options: object
    ) -> None:
        tree = tree_of("", memory) if memory else tree_of()
        super().__init__(boot(tree, kernel, "cma=16M", arch, **options), "/proc")  # type: ignore[arg-type]

    def control(self, lines: str) -> None:
        self.calls.write_file("/sim/control", lines.encode())

    def meminfo(self) -> dict[str, int]:
        return {line.split(":")[0]: int(line.split()[1]) for line in self.read("meminfo").splitlines()}

    def vmstat(self) -> dict[str, int]:
        return {name: int(count) for name, count in map(str.split, self.read("vmstat").splitlines())}


@pytest.fixture
def proc() -> Proc:
    return Proc()


# formats


@pytest.mark.parametrize("kernel", ROWS)
@pytest.mark.parametrize("arch", ["arm64", "x86_64"])
def test_meminfo_lines(kernel: str, arch: str) -> None:
    text = Proc(kernel, arch).read("meminfo")
    for line in text.splitlines():
        unit = "" if line.startswith("HugePages_") else " kB"
        assert re.fullmatch(rf"\S+: +\d+{unit}", line)
        assert len(line) == 24 + len(unit) or line.startswith("VmallocTotal")
    names = [line.split(":")[0] for line in text.splitlines()]
    assert names[:5] == ["MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached"]
    assert names[names.index("CmaTotal") + 1] == "CmaFree"
    assert ("DirectMap2M" in names) == (arch == "x86_64")


def test_meminfo_of_the_first_and_the_last_row() -> None:
    first = {line.split(":")[0] for line in Proc("4.4").read("meminfo").splitlines()}
    last = {line.split(":")[0] for line in Proc("7.2").read("meminfo").splitlines()}
    assert first - last == set()
    assert last - first == {
        "ShmemHugePages",
        "ShmemPmdMapped",
        "Hugetlb",
        "Percpu",
        "KReclaimable",
        "FileHugePages",
        "FilePmdMapped",
        "SecPageTables",
        "Balloon",
        "GPUActive",
        "GPUReclaim",
    }


def test_meminfo_highmem() -> None:
    machine = Proc("5.10", "arm", "<0x0 0x40000000 0x0 0x60000000>").machine
    files = VmstatFiles(machine, frozenset({"HIGHMEM"}))
    names = ("HighTotal", "HighFree", "LowTotal", "LowFree", "MemTotal", "MemFree")
    figures = {n: int(v.split()[0]) for n, v in _pairs(meminfo(files, names).decode())}
    assert (figures["HighTotal"], figures["HighFree"] > 0) == ((0x60000000 - 0x30000000) >> 10, True)
    assert figures["HighTotal"] + figures["LowTotal"] == figures["MemTotal"]
    assert figures["HighFree"] + figures["LowFree"] == figures["MemFree"]


#: ``fs/proc/meminfo.c:meminfo_proc_show()@v6.12``: a line and the counters that it adds up.
MEMINFO = {
    "MemFree": ["nr_free_pages"],
    "Cached": ["nr_file_pages"],
    "Active": ["nr_active_anon", "nr_active_file"],
    "Inactive": ["nr_inactive_anon", "nr_inactive_file"],
    "Active(anon)": ["nr_active_anon"],
    "Inactive(anon)": ["nr_inactive_anon"],
    "Active(file)": ["nr_active_file"],
    "Inactive(file)": ["nr_inactive_file"],
    "Unevictable": ["nr_unevictable"],
    "Mlocked": ["nr_mlock"],
    "Dirty": ["nr_dirty"],
    "Writeback": ["nr_writeback"],
    "AnonPages": ["nr_anon_pages"],
    "Mapped": ["nr_mapped"],
    "Shmem": ["nr_shmem"],
    "KReclaimable": ["nr_slab_reclaimable", "nr_kernel_misc_reclaimable"],
    "Slab": ["nr_slab_reclaimable", "nr_slab_unreclaimable"],
    "SReclaimable": ["nr_slab_reclaimable"],
    "SUnreclaim": ["nr_slab_unreclaimable"],
    "PageTables": ["nr_page_table_pages"],
    "CmaFree": ["nr_free_cma"],
    "Committed_AS": ["nr_anon_pages", "nr_shmem"],
}


@pytest.mark.parametrize("kernel", ["4.4", "5.4", "6.12", "7.2"])
def test_each_line_of_meminfo_and_its_counters(kernel: str) -> None:
    proc = Proc(kernel)
    empty = proc.meminfo()
    work = ["anon 3M", "file 7M", "tmpfs 11M", "slab 13M", "kernel 17M", "anon 19M", "file 23M", "tmpfs 29M"]
    proc.control("\n".join(f"spawn t{i} {words}" for i, words in enumerate(work)))
    proc.control("mlock t5\nmlock t6\nmlock t7\ndirty t1 100\n")
    lines, counts = proc.meminfo(), proc.vmstat()
    for line in MEMINFO.keys() & lines.keys():
        assert lines[line] == 4 * sum(counts.get(name, 0) for name in MEMINFO[line]), line
    expected = {
        "AnonPages": 22,
        "Shmem": 40,
        "Slab": 13,
        "Mlocked": 71,
        "Unevictable": 71,
        "Committed_AS": 62,
    }
    grown = {name: lines[name] - empty[name] for name in lines if lines[name] != empty[name]}
    assert {name: grown[name] for name in expected} == {name: mib << 10 for name, mib in expected.items()}
    assert (lines["Dirty"], lines["CmaTotal"]) == (400, 16384)
    managed = sum(map(int, re.findall(r"managed +(\d+)", proc.read("zoneinfo"))))
    assert (lines["MemTotal"], lines["CommitLimit"]) == (managed * 4, managed // 2 * 4)
    others = grown.keys() - MEMINFO.keys() - {"MemAvailable"}
    assert not others


@pytest.mark.parametrize(
    ("config", "kib"), [((), 2048), (("ARM64_16K_PAGES=y",), 32768), (("ARM64_64K_PAGES=y",), 524288)]
)
def test_meminfo_of_large_pages(config: tuple[str, ...], kib: int) -> None:
    figures = Proc("6.12", memory="<0x0 0x40000000 0x1 0x0>", config=("HUGETLB_PAGE=y", *config)).meminfo()
    assert (figures["Hugepagesize"], figures["HugePages_Total"]) == (kib, 0)
    assert 4 << 20 > figures["MemTotal"] > figures["MemFree"] > 3900 << 10


def test_a_huge_page_stays_one_where_page_blocks_are_smaller() -> None:
    """``huge_page_size()``, whatever ``PAGE_BLOCK_MAX_ORDER`` says (7.0 on)."""
    proc = Proc("7.2", config=("HUGETLB_PAGE=y", "PAGE_BLOCK_MAX_ORDER=4"))
    assert (proc.machine.memory.pageblock_order, proc.meminfo()["Hugepagesize"]) == (4, 2048)


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (line.partition(":") for line in text.splitlines())]


@pytest.mark.parametrize("kernel", ROWS)
@pytest.mark.parametrize("arch", ["arm64", "x86_64"])
def test_vmstat_names(kernel: str, arch: str) -> None:
    pairs = [line.split(" ") for line in Proc(kernel, arch).read("vmstat").splitlines()]
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)) > 80
    assert all(re.fullmatch(r"[a-z][a-z0-9_]+", name) and value.isdigit() for name, value in pairs)
    assert names[0] == "nr_free_pages"
    assert ("cma_alloc_success" in names) == (kernel not in ("4.4", "4.15", "4.19", "5.4", "5.10"))
    assert ("pgalloc_dma32" in names) == (arch == "x86_64")
    # a counter of NFS until 5.7, then a line of the file itself (mm/vmstat.c:vmstat_show()@v5.10)
    assert "nr_unstable" in names
    assert (names[-1] == "nr_unstable") == (kernel not in ("4.4", "4.15", "4.19", "5.4"))


def test_vmstat_order_of_a_real_kernel() -> None:
    """The counters around CMA's as a real 6.18 lists them, and those of 5.10's source."""
    listed = ITEMS_6_18.all()
    assert listed[:2] == ("nr_free_pages", "nr_free_pages_blocks")
    at = listed.index("nr_kernel_misc_reclaimable")
    assert listed[at - 1 : at + 4] == (
        "nr_throttled_written",
        "nr_kernel_misc_reclaimable",
        "nr_foll_pin_acquired",
        "nr_foll_pin_released",
        "nr_kernel_stack",
    )
    at = ITEMS_5_10.events.index("pgmigrate_success")
    assert ITEMS_5_10.events[at : at + 6] == (
        "pgmigrate_success",
        "pgmigrate_fail",
        "thp_migration_success",
        "thp_migration_fail",
        "thp_migration_split",
        "compact_migrate_scanned",
    )


@pytest.mark.parametrize("kernel", ROWS)
def test_zoneinfo(kernel: str) -> None:
    proc = Proc(kernel, "x86_64")
    abi = kernel_abi(kernel).proc
    text = proc.read("zoneinfo")
    zones = re.findall(r"^Node 0, zone {1,8}(\w+)$", text, re.MULTILINE)
    assert zones == (["DMA32", "Normal", "Movable"] if abi.zoneinfo_by_node else ["DMA32"])
    assert ("per-node stats" in text) == abi.zoneinfo_by_node
    for word, there in (
        ("        boost    0\n", abi.zoneinfo_boost),
        ("        promo    ", abi.zoneinfo_promo),
        ("        cma      4096\n", abi.zoneinfo_cma),
        ("              high_max: ", abi.pcp_high_range),
        ("  all_unreclaimable: 0\n", not abi.zoneinfo_by_node),
    ):
        assert (word in text) == there, word
    zone = next(zone for zone in proc.machine.memory.zones if zone.name == "DMA32")
    assert f"\n  pages free     {zone.nr_free}\n" in text
    assert re.search(rf"^ +nr_free_cma  {zone.nr_free_cma}$", text, re.MULTILINE)
    assert text.count("\n        protection: (0, 0, 0)") == len(zones)


def zoneinfo_without_counters(proc: Proc) -> list[str]:
    """The lines that are no counter of a zone or a node, those of the first zone."""
    lines = proc.read("zoneinfo").split("\nNode 0")[0].splitlines()
    return [line for line in lines if not re.match(r" {4,6}(nr|numa|workingset|pg\w+)_", line)]


def test_the_lines_of_a_zone() -> None:
    """Indentation and widths as a running 6.18 has them."""
    proc = Proc("6.12", "x86_64")
    zone = next(zone for zone in proc.machine.memory.zones if zone.name == "DMA32")
    low, high = zone.watermark[1:]
    assert zoneinfo_without_counters(proc) == [
        "Node 0, zone    DMA32",
        "  per-node stats",
        f"  pages free     {zone.nr_free}",
        "        boost    0",
        f"        min      {zone.watermark[0]}",
        f"        low      {low}",
        f"        high     {high}",
        f"        promo    {2 * high - low}",
        "        spanned  262144",
        "        present  262144",
        f"        managed  {zone.managed_pages}",
        "        cma      4096",
        "        protection: (0, 0, 0)",
        "  pagesets",
        "    cpu: 0",
        "              count: 0",
        f"              high:  {low}",
        "              batch: 63",
        "  vm stats threshold: 8",
        "  node_unreclaimable:  0",
        "  start_pfn:           262144",
    ]


@pytest.mark.parametrize(("pages", "ratio"), [(0x4000_0000, 1), (0x1_C000_0000, 7)])
def test_the_lines_of_a_zone_of_4_4(pages: int, ratio: int) -> None:
    """inactive_ratio: the root of ten times the gigabytes."""
    proc = Proc("4.4", memory=f"<0x0 0x40000000 {pages >> 32:#x} {pages & 0xFFFFFFFF:#x}>")
    zone = proc.machine.memory.zones[0]
    lines = zoneinfo_without_counters(proc)
    assert lines[:9] == [
        f"Node 0, zone {zone.name:>8}",
        f"  pages free     {zone.nr_free}",
        f"        min      {zone.watermark[0]}",
        f"        low      {zone.watermark[1]}",
        f"        high     {zone.watermark[2]}",
        "        scanned  0",
        f"        spanned  {pages >> 12}",
        f"        present  {pages >> 12}",
        f"        managed  {zone.managed_pages}",
    ]
    assert lines[10:13] == ["  pagesets", "    cpu: 0", "              count: 0"]
    assert lines[-3:] == [
        "  all_unreclaimable: 0",
        "  start_pfn:         262144",
        f"  inactive_ratio:    {ratio}",
    ]


def test_inactive_ratio_of_large_pages() -> None:
    """The gigabytes are those of the kernel's pages: 8 GiB of 64 KiB ones, less what boot took."""
    proc = Proc("4.4", memory="<0x0 0x40000000 0x2 0x00000000>", config=("ARM64_64K_PAGES=y",))
    ratios = re.findall(r"inactive_ratio: +(\d+)", proc.read("zoneinfo"))
    gib = [zone.managed_pages >> 14 for zone in proc.machine.memory.zones]
    assert (gib, ratios) == ([7], ["8"])


def test_zoneinfo_figures_of_a_real_kernel() -> None:
    """Batch, high and threshold follow from a zone's size as on a running 6.18."""
    text = Proc("6.18", "x86_64").read("zoneinfo")
    low, managed = (int(re.findall(rf"        {name} +(\d+)", text)[0]) for name in ("low", "managed"))
    assert "              count:    0\n" in text
    assert f"              high:     {low}\n              batch:    63\n" in text
    assert f"              high_min: {low}\n              high_max: {managed // 8}\n" in text


@pytest.mark.parametrize(
    ("arch", "config", "mib", "threshold"),
    [
        ("arm64", "SMP=y", 1024, 8),
        ("arm64", "SMP=n", 1024, 8),  # which has no other kernel
        ("x86_64", "SMP=y", 1024, 8),
        ("x86_64", "SMP=n", 1024, None),
        ("x86_64", "SMP=y", 1100, 10),
        ("x86_64", "SMP=y", 120, 2),
    ],
)
def test_the_threshold_of_counters_is_smp_s(arch: str, config: str, mib: int, threshold: int | None) -> None:
    """mm/vmstat.c:calculate_normal_threshold()@v6.12: by the bits of the zone's size in 128 MiB."""
    machine = boot(tree_of(memory=f"<0 0x40000000 0 {mib << 20:#x}>"), "6.12", "", arch, (config,))
    text = Syscalls(build_tree(machine)).read_file("/proc/zoneinfo").decode()
    found = re.findall(r"^  vm stats threshold: (\d+)$", text, re.M)
    assert found[:1] == ([] if threshold is None else [str(threshold)])


@pytest.mark.parametrize("kernel", ["4.4", "5.10", "6.12", "7.2"])
def test_pagetypeinfo(kernel: str) -> None:
    proc = Proc(kernel)
    lines = proc.read("pagetypeinfo").splitlines()
    assert lines[:3] == ["Page block order: 9", "Pages per block:  512", ""]
    orders = "".join(f"{order:6d} " for order in range(11))
    assert lines[3] == f"{'Free pages count per migrate type at order':<43} {orders}"
    names = [
        re.fullmatch(r"Node    0, zone   Normal, type {1,12}(\w+)( +\d+){11} ", line) for line in lines[4:10]
    ]
    assert [name and name[1] for name in names] == [
        "Unmovable",
        "Movable",
        "Reclaimable",
        "HighAtomic",
        "CMA",
        "Isolate",
    ]
    assert lines[10:12] == [
        "",
        "Number of blocks type  " + "".join(f"{name[1]:>12} " for name in names if name),
    ]
    assert re.fullmatch(r"Node 0, zone   Normal( {1,12}\d+){6} ", lines[12])
    assert sum(map(int, lines[12].split()[4:])) == 512
    assert lines[12].split()[8] == "8"
    mode = proc.calls.lstat("/proc/pagetypeinfo").st_mode
    assert mode == (0o100444 if kernel == "4.4" else 0o100400)


def test_buddyinfo_and_pagetypeinfo_agree(proc: Proc) -> None:
    proc.control("spawn a anon 5M\nspawn s slab 300K\nspawn f file 77K\n")
    zone, *_ = proc.read("buddyinfo").splitlines()
    assert re.fullmatch(r"Node 0, zone   Normal( +\d+ ){11}", zone)
    blocks = [int(count) for count in zone.split()[4:]]
    by_type = [line.split()[6:] for line in proc.read("pagetypeinfo").splitlines()[4:10]]
    assert blocks == [sum(int(row[order]) for row in by_type) for order in range(11)]
    pages = sum(count << order for order, count in enumerate(blocks))
    assert pages == proc.vmstat()["nr_free_pages"] == proc.meminfo()["MemFree"] // 4


@pytest.mark.parametrize(("kernel", "arch"), [("6.18", "arm64"), ("7.2", "x86_64"), ("7.2", "arm")])
def test_pages_in_free_page_blocks(kernel: str, arch: str) -> None:
    """NR_FREE_PAGES_BLOCKS: in blocks of a page block or more; of an arm they have 4 MiB."""
    proc = Proc(kernel, arch)
    proc.control("spawn a anon 101M\nspawn k kernel 3M\nspawn b anon 1M\nkill a\n")
    first = int(proc.read("pagetypeinfo").split()[3])
    rows = [line.split()[6:] for line in proc.read("pagetypeinfo").splitlines() if ", type " in line]
    pages = sum(int(count) << order for row in rows for order, count in enumerate(row) if order >= first)
    assert proc.vmstat()["nr_free_pages_blocks"] == pages < proc.vmstat()["nr_free_pages"]
    shown = re.findall(r" nr_free_pages_blocks (\d+)", proc.read("zoneinfo"))
    assert sum(map(int, shown)) == pages > 0


def test_many_free_blocks_are_not_counted_to_the_end() -> None:
    proc = Proc("6.12", memory="<0x0 0x40000000 0x70 0x0>")
    lines = [line for line in proc.read("pagetypeinfo").splitlines() if ", type " in line]
    for line in lines:
        assert re.fullmatch(r"Node    0, zone +\w+, type +\w+ (>100000 | {0,5}\d{1,6} ){11}", line)
    assert sum(line.count(">100000") for line in lines) == 1
    assert ">" not in Proc("4.19", memory="<0x0 0x40000000 0x70 0x0>").read("pagetypeinfo")


@pytest.mark.parametrize(
    ("kernel", "arch", "blocks"),
    [
        ("6.12", "arm64", 512),  # sections of 128 MiB: none of the hole is in one with memory
        ("5.15", "arm64", 512),
        ("5.10", "arm64", 512),  # of 1 GiB: but its pfn_valid() asks for mapped memory
        ("4.4", "arm64", 512),
        ("5.10", "x86_64", 512),
        ("6.12", "arm", 256),  # no sections, and page blocks of 4 MiB
    ],
)
def test_page_blocks_of_a_hole_count_where_a_section_has_memory(kernel: str, arch: str, blocks: int) -> None:
    zones = Proc(kernel, memory=TWO_BANKS, arch=arch).read("pagetypeinfo").split("Number of blocks")[1]
    assert sum(int(n) for line in zones.splitlines()[1:] for n in line.split()[4:]) == blocks


def test_a_bank_that_is_less_than_a_section_counts_as_one() -> None:
    small = "<0x0 0x40000000 0x0 0x8000000>, <0x0 0x60000000 0x0 0x8000000>"
    counts = {}
    for kernel, arch in (("6.12", "arm64"), ("6.12", "arm"), ("5.10", "arm64")):
        text = Proc(kernel, memory=small, arch=arch).read("pagetypeinfo").split("Number of blocks")[1]
        counts[kernel, arch] = sum(int(n) for line in text.splitlines()[1:] for n in line.split()[4:])
    assert counts == {("6.12", "arm64"): 128, ("6.12", "arm"): 64, ("5.10", "arm64"): 128}


@pytest.mark.parametrize(
    ("kernel", "arch", "config", "blocks"),
    [
        ("6.12", "arm64", ("defconfig",), 510),  # has MEMORY_HOTPLUG: by subsections
        ("6.12", "arm64", ("defconfig", "MEMORY_HOTPLUG=n"), 512),
        ("6.12", "arm64", ("defconfig", "SPARSEMEM_VMEMMAP=n"), 512),  # no subsections
        ("6.1", "x86_64", ("MEMORY_HOTPLUG=y", "SPARSEMEM_VMEMMAP=y"), 510),
        ("5.10", "x86_64", ("MEMORY_HOTPLUG=y",), 512),  # by sections
        ("5.10", "arm64", (), 510),
    ],
)
def test_page_blocks_of_a_hole_within_a_section(
    kernel: str, arch: str, config: tuple[str, ...], blocks: int
) -> None:
    memory = "<0x0 0x40000000 0x0 0x10000000>, <0x0 0x50400000 0x0 0x2fc00000>"
    text = Proc(kernel, memory=memory, arch=arch, config=config).read("pagetypeinfo")
    zones = text.split("Number of blocks")[1].splitlines()[1:]
    assert sum(int(n) for line in zones for n in line.split()[4:]) == blocks


def test_page_blocks_without_a_mapping_count_on_arm64_since_5_15() -> None:
    """arch/arm64/mm/init.c:pfn_valid()@v5.10 is memblock_is_map_memory()."""
    for kernel, blocks in (("5.10", 508), ("5.15", 512)):
        machine = boot(tree_of("fw@50000000 { reg = <0 0x50000000 0 0x800000>; no-map; };"), kernel)
        text = Syscalls(build_tree(machine)).read_file("/proc/pagetypeinfo").decode()
        zones = text.split("Number of blocks")[1].splitlines()[1:]
        assert sum(int(n) for line in zones for n in line.split()[4:]) == blocks


# figures


def test_what_a_task_holds_is_seen_everywhere(proc: Proc) -> None:
    before, counted = proc.meminfo(), proc.vmstat()
    proc.control("spawn a anon 8M\nspawn f file 4M\nspawn t tmpfs 2M\nspawn s slab 1M\nmlock a\n")
    after, counts = proc.meminfo(), proc.vmstat()
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown.pop("MemAvailable") < -(11 << 10)
    assert grown == {
        "MemFree": -(15 << 10),
        "Cached": 6 << 10,
        "Inactive": 6 << 10,
        "Inactive(anon)": 2 << 10,
        "Inactive(file)": 4 << 10,
        "Unevictable": 8 << 10,
        "Mlocked": 8 << 10,
        "AnonPages": 8 << 10,
        "Shmem": 2 << 10,
        "KReclaimable": 1 << 10,
        "Slab": 1 << 10,
        "SReclaimable": 1 << 10,
        "Committed_AS": 10 << 10,
    }
    assert counts["pgalloc_normal"] - counted["pgalloc_normal"] == 15 * 256
    assert counts["numa_hit"] - counted["numa_hit"] == 15 * 256
    assert counts["nr_zone_unevictable"] == counts["nr_mlock"] == 8 * 256
    assert f"      nr_zone_inactive_file {counts['nr_inactive_file']}\n" in proc.read("zoneinfo")


@pytest.mark.parametrize("kernel", ["4.4", "6.12"])
def test_a_zone_counts_the_pages_of_tasks_in_it(kernel: str) -> None:
    """Of 832 MiB on arm the last 64 are HighMem, which users' pages take first."""
    proc = Proc(kernel, "arm", "<0x0 0x40000000 0x0 0x34000000>", config=("HIGHMEM=y",))
    kinds = {"a": "anon", "b": "anon", "f": "file", "g": "file", "t": "tmpfs", "u": "tmpfs", "s": "slab"}
    proc.control("\n".join(f"spawn {name} {kind} 5M" for name, kind in kinds.items()))
    proc.control("mlock b\nmlock g\nmlock u\n" + "\n".join(f"grow {name} 9M" for name in kinds))
    low = dict.fromkeys(kinds, 0)
    for line in proc.calls.read_file("/sim/tasks").decode().splitlines()[1:]:
        name, ranges = line.split("\t")[0], line.split("\t")[6].split(",")
        for first, last in ([int(pfn, 16) for pfn in range_.split("-")] for range_ in ranges):
            low[name] += max(0, min(last + 1, 0x70000) - first)
    assert low["s"] == 14 * 256 < sum(low.values()) < 7 * 14 * 256
    states = {
        "inactive_anon": low["a"] + low["t"],
        "inactive_file": low["f"],
        "unevictable": low["b"] + low["g"] + low["u"],
        "active_anon": 0,
    }
    if kernel == "4.4":
        states |= {
            "anon_pages": low["a"] + low["b"],
            "file_pages": low["f"] + low["g"] + low["t"] + low["u"],
            "shmem": low["t"] + low["u"],
            "slab_reclaimable": low["s"],
        }
    prefix = "nr_" if kernel == "4.4" else "nr_zone_"
    normal, highmem = re.split(r"\nNode 0, zone +HighMem\n", proc.read("zoneinfo"))
    for state, pages in states.items():
        assert re.findall(rf" {prefix}{state} +(\d+)", normal)[-1:] == [str(pages)], state
        rest = proc.vmstat()[prefix + state] - pages
        assert re.findall(rf" {prefix}{state} +(\d+)", highmem)[:1] == [str(rest)], state


@pytest.mark.parametrize("kernel", ["4.4", "4.15", "5.10", "6.12", "7.2"])
def test_counters_in_zoneinfo_are_those_of_vmstat_in_its_order(kernel: str) -> None:
    """zoneinfo_show_print(): of one zone, and since 4.8 of its node before it."""
    proc = Proc(kernel)
    proc.control("spawn a anon 3M\nspawn f file 5M\nspawn s slab 7M\nspawn t tmpfs 11M\nmlock t")
    lines = proc.read("zoneinfo").splitlines()
    pages = next(i for i, line in enumerate(lines) if line.startswith("  pages free"))
    node = lines[2:pages] if lines[1] == "  per-node stats" else []
    last = lines.index("  pagesets")
    zone = [line for line in lines[pages:last] if re.match(r" +(nr|numa|pg|workingset|drop)\w+ +\d+$", line)]
    counts = proc.vmstat()
    width = "    " if kernel == "4.4" else "      "
    for found in (node, zone):
        assert found == [f"{width}{name:<12} {counts[name]}" for name in map(_first_word, found)]
    order = list(counts)
    places = [order.index(_first_word(line)) for line in (*zone, *node)]
    assert places == list(range(len(places)))
    assert order[len(places)].startswith(("nr_dirty_threshold", "pgpgin", "nr_memmap", "pswpin"))
    assert ("nr_zone_inactive_anon" in counts) == bool(node)


def _first_word(line: str) -> str:
    return line.split()[0]


def test_modes_of_proc(proc: Proc) -> None:
    modes = {name: oct(proc.calls.lstat(f"/proc/{name}").st_mode) for name in proc.calls.listdir("/proc")}
    files = ["meminfo", "vmstat", "zoneinfo", "buddyinfo", "iomem", "cmdline", "version", "config.gz"]
    others = {"pagetypeinfo": "0o100400", "sys": "0o40555", "device-tree": "0o120777"}
    assert modes == {**dict.fromkeys(files, "0o100444"), **others}
    vm = {
        name: oct(proc.calls.lstat(f"/proc/sys/vm/{name}").st_mode)
        for name in proc.calls.listdir("/proc/sys/vm")
    }
    assert vm == dict.fromkeys(["compact_memory", "drop_caches"], "0o100200")
    assert oct(proc.calls.lstat("/proc/sys/vm").st_mode) == "0o40555"
    assert oct(proc.calls.lstat("/boot/config-6.12.117").st_mode) == "0o100644"


def test_thresholds_of_dirty_pages_follow_free_memory() -> None:
    """vm_dirty_ratio 20 and dirty_background_ratio 10, of free memory and file cache."""
    proc = Proc("6.12")
    proc.control("spawn f file 40M")
    counts = proc.vmstat()
    pages = counts["nr_free_pages"] + counts["nr_inactive_file"]
    assert counts["nr_dirty_threshold"] == pages * 20 // 100
    assert counts["nr_dirty_background_threshold"] == pages * 10 // 100
    assert counts["numa_local"] == counts["numa_hit"] > 0


@pytest.mark.parametrize(
    ("arch", "config", "zones"),
    [
        ("arm64", (), ["Normal", "Movable"]),
        ("x86_64", ("ZONE_DMA=y",), ["DMA", "DMA32", "Normal", "Movable"]),
        ("arm", ("HIGHMEM=y",), ["Normal", "HighMem", "Movable"]),
    ],
)
def test_zones_that_the_kernel_was_built_with(arch: str, config: tuple[str, ...], zones: list[str]) -> None:
    machine = boot(tree_of(), "6.12", "cma=16M", arch, config)
    text = Syscalls(build_tree(machine)).read_file("/proc/zoneinfo").decode()
    assert re.findall(r"^Node 0, zone {1,8}(\w+)$", text, re.MULTILINE) == zones


def test_direct_map_covers_memory() -> None:
    figures = Proc("6.12", "x86_64", "<0x0 0x100000 0x0 0xbff00000>, <0x1 0x0 0x0 0x40000000>").meminfo()
    assert figures["DirectMap1G"] == 3 << 20
    assert figures["DirectMap4k"] + figures["DirectMap2M"] == (1 << 20) - 1024
    small = Proc("6.12", "x86_64", "<0x0 0x100000 0x0 0x20101000>").meminfo()
    assert [small[f"DirectMap{size}"] for size in ("1G", "2M", "4k")] == [0, 512 << 10, 1028]
    pc = Proc("6.12", "x86_64", "<0x0 0x1000 0x0 0x9e000>, <0x0 0x100000 0x0 0x7ff00000>").meminfo()
    assert [pc[f"DirectMap{size}"] for size in ("1G", "2M", "4k")] == [1 << 20, 1022 << 10, 632 + 1024]


@pytest.mark.parametrize(("kernel", "batches"), [("5.10", 6), ("5.15", 0), ("6.12", 0)])
def test_how_much_the_lists_of_a_cpu_may_hold(kernel: str, batches: int) -> None:
    """mm/page_alloc.c:zone_highsize()@v6.12: up to the low watermark; before 5.14 six batches."""
    text = Proc(kernel, "arm", "<0x0 0x40000000 0x0 0x70000000>", config=("HIGHMEM=y",)).read("zoneinfo")
    low, high, batch = (
        [int(found) for found in re.findall(rf" {name}:? +(\d+)$", text, re.M) if found != "0"]
        for name in ("low", "high:", "batch")
    )
    assert len(high) == 2 and low[0] > low[1] > 4 * batch[1]
    assert high == ([batches * size for size in batch] if batches else low[:2])


def test_figures_that_follow_from_the_machine() -> None:
    for arch, vmalloc in (("x86_64", 34359738367), ("arm64", 133141626880), ("arm", 245760)):
        figures = Proc("6.12", arch).meminfo()
        assert figures["VmallocTotal"] == vmalloc
        assert figures.get("Hugepagesize") in ({2048} if arch != "arm" else {None, 2048})
        assert figures["CommitLimit"] == figures["MemTotal"] // 8 * 4
        assert figures["Active"] == figures["Active(anon)"] + figures["Active(file)"]
        assert figures["Inactive"] == figures["Inactive(anon)"] + figures["Inactive(file)"]
        assert 0 < figures["MemAvailable"] < figures["MemFree"] + figures["Cached"]


def zones_of(zoneinfo: str) -> list[dict[str, int]]:
    """The figures of every zone, with the largest of its reserves as ``reserve``."""
    found = []
    for text in re.split(r"^Node ", zoneinfo, flags=re.MULTILINE)[1:]:
        figures = {name: int(n) for name, n in re.findall(r"^        (\w+) +(\d+)$", text, re.MULTILINE)}
        reserves = re.findall(r"protection: \((.*)\)", text)[0].split(", ")
        found.append(figures | {"reserve": max(map(int, reserves))})
    return found


@pytest.mark.parametrize(
    ("arch", "config", "memory"),
    [
        ("arm64", (), "<0x0 0x40000000 0x0 0x40000000>"),
        ("arm64", ("ZONE_DMA=y", "ZONE_DMA32=y"), "<0x0 0x80000000 0x1 0x80000000>"),
        # a ZONE_DMA that is smaller than what is kept in it
        ("x86_64", ("ZONE_DMA=y",), "<0x0 0x100000 0x0 0xbff00000>, <0x1 0x0 0x2 0x40000000>"),
        ("arm", ("HIGHMEM=y",), "<0x0 0x40000000 0x0 0x60000000>"),
        ("arm", ("HIGHMEM=y",), "<0x0 0x40000000 0x0 0x20000000>"),  # HighMem is empty
    ],
)
def test_available_memory_leaves_out_reserves_and_half_of_the_cache(
    arch: str, config: tuple[str, ...], memory: str
) -> None:
    """si_mem_available(): what is free, less the reserve; of caches what is above the low watermarks, which
    zones above Normal have without memory too: for_each_zone().
    """
    proc = Proc("6.12", arch, memory, config=config)
    zones = zones_of(proc.read("zoneinfo"))
    low = sum(zone["low"] for zone in zones)
    reserve = sum(min(zone["reserve"] + zone["high"], zone["managed"]) for zone in zones)

    def available(figures: dict[str, int]) -> int:
        free, cache = figures["MemFree"] // 4, (figures["Active(file)"] + figures["Inactive(file)"]) // 4
        slab = figures["KReclaimable"] // 4
        return max(free - reserve + cache - min(cache // 2, low) + slab - min(slab // 2, low), 0) * 4

    for line in (
        "spawn f file 1M",
        "spawn g file 100M",
        "spawn s slab 4M",
        "grow s 71M",
        "spawn a anon 200M",
    ):
        proc.control(line)
        assert proc.meminfo()["MemAvailable"] == available(proc.meminfo()), line
    with contextlib.suppress(OSError):
        proc.control(f"spawn k kernel {proc.meminfo()['MemFree'] + 170_000}K")
    assert proc.meminfo()["MemAvailable"] == available(proc.meminfo())


# reading


def test_seq_files_are_rendered_anew_after_a_rewind(proc: Proc) -> None:
    fd = proc.calls.open("/proc/meminfo", O_RDONLY)
    first = proc.calls.read(fd, 4096)
    proc.control("spawn a anon 8M")
    assert proc.calls.read(fd, 4096) == b""
    proc.calls.lseek(fd, 0)
    again = proc.calls.read(fd, 4096)
    assert first != again
    assert proc.calls.pread(fd, 9, 0) == b"MemTotal:"
    assert proc.calls.pread(fd, 20, 28) == again[28:48]


def test_proc_refuses(proc: Proc) -> None:
    fd = proc.calls.open("/proc/meminfo", O_WRONLY)
    refused_with(errno.EIO, proc.calls.write, fd, b"x")
    for directory in (
        "/proc",
        "/proc/sys",
        "/proc/sys/vm",
    ):  # T 6.18, and "mkdir: … No such file or directory"
        refused_with(errno.ENOENT, proc.calls.open, f"{directory}/new", O_WRONLY | 0o100)
        refused_with(errno.ENOENT, proc.calls.mkdir, f"{directory}/new")
        refused_with(errno.ENOENT, proc.calls.symlink, "x", f"{directory}/new")
        refused_with(errno.EEXIST, proc.calls.mkdir, directory)
    refused_with(errno.EPERM, proc.calls.rmdir, "/proc/sys")
    refused_with(errno.EPERM, proc.calls.unlink, "/proc/meminfo")
    assert proc.calls.lstat("/proc/meminfo").st_size == 0


def test_directories_of_sysctls_do_not_count_links(proc: Proc) -> None:
    """T 6.12, 6.18."""
    assert [
        proc.calls.lstat(f"/proc/{name}").st_nlink for name in ("sys", "sys/vm", "sys/vm/drop_caches")
    ] == [1] * 3


def test_a_mount_point_is_not_removed(proc: Proc) -> None:
    """fs/namei.c:vfs_rmdir()@v6.12: EBUSY, where directories have an rmdir operation at all."""
    for path in ("/proc", "/sys", "/sys/kernel/debug", "/sys/kernel/tracing"):
        refused_with(errno.EBUSY, proc.calls.rmdir, path)
    refused_with(errno.EPERM, proc.calls.rmdir, "/sys/kernel/debug/tracing")
    refused_with(errno.EPERM, proc.calls.rmdir, "/sys/kernel/mm")


def test_cmdline_version_iomem(proc: Proc) -> None:
    assert proc.read("cmdline") == "cma=16M\n"
    banner = proc.read("version").rstrip()
    assert banner.startswith("Linux version 6.12.117 ")
    assert banner == next(line for line in proc.machine.log.lines() if line.startswith("Linux version"))
    lines = proc.read("iomem").splitlines()
    assert lines[0] == "40000000-7fffffff : System RAM"
    assert re.fullmatch(r"  40[0-9a-f]{6}-40[0-9a-f]{6} : Kernel code", lines[1])
    wide = Proc("6.12", memory="<0x8 0x0 0x0 0x40000000>").read("iomem")
    assert wide.startswith("800000000-83fffffff : System RAM\n")
    low = Proc("6.12", "x86_64", "<0x0 0x1000 0x0 0x9e000>, <0x0 0x100000 0x0 0x3ff00000>").read("iomem")
    assert low.startswith("00001000-0009efff : System RAM\n00100000-3fffffff : System RAM\n")


def test_config(proc: Proc) -> None:
    packed = proc.calls.read_file("/proc/config.gz")
    assert proc.calls.lstat("/proc/config.gz").st_size == len(packed)
    text = gzip.decompress(packed)
    assert b"CONFIG_CMA=y\n" in text
    assert proc.calls.read_file("/boot/config-6.12.117") == text
    assert proc.calls.lstat("/boot/config-6.12.117").st_size == len(text)
    assert Proc().calls.read_file("/proc/config.gz") == packed
    refused_with(errno.EROFS, proc.calls.write, proc.calls.open("/boot/config-6.12.117", O_WRONLY), b"x")
    refused_with(errno.EROFS, proc.calls.open, "/boot/new", O_WRONLY | 0o100)


# sysctls


@pytest.mark.parametrize(
    ("text", "value", "consumed"),
    [
        ("1", 1, 1),
        ("1\n", 1, 2),
        (" \t2  \n", 2, 6),
        ("0x3\n", 3, 4),
        ("010", 8, 3),
        ("-1", -1, 2),
        ("1 2\n", 1, 2),
        ("\xa0\v4\n\xa0", 4, 5),  # isspace() knows Latin-1
    ],
)
def test_numbers(text: str, value: int, consumed: int) -> None:
    assert proc_dointvec(text.encode("latin-1")) == (value, consumed)


@pytest.mark.parametrize("blank", list(" \t\n\v\f\r\xa0"))
def test_blanks_before_a_number_and_behind_it(blank: str) -> None:
    """proc_skip_spaces(), before and behind; what ends a number is a blank, a tab or a newline."""
    assert proc_dointvec(f"{blank}{blank}7".encode("latin-1")) == (7, 3)
    assert proc_dointvec(f"7\n{blank}8".encode("latin-1")) == (7, 3)
    if blank in " \t\n":
        assert proc_dointvec(f"7{blank}".encode()) == (7, 2)
    else:
        refused_with(errno.EINVAL, proc_dointvec, f"7{blank}".encode("latin-1"))


@pytest.mark.parametrize(
    ("text", "value", "consumed"),
    [
        ("2147483647", 2147483647, 10),
        ("-2147483648\n", -2147483648, 12),
        ("00000000000000000001", 1, 20),  # a digit less than the buffer
        ("0x00000000000000001f ", 31, 21),
    ],
)
def test_the_largest_numbers_and_the_longest(text: str, value: int, consumed: int) -> None:
    """proc_get_long(): TMPBUFLEN of 22 with a NUL; an int."""
    assert proc_dointvec(text.encode()) == (value, consumed)


@pytest.mark.parametrize("text", ["~1", "-2147483649", "0" * 20 + "1", "-", "- 1"])
def test_numbers_that_are_too_long_or_none(text: str) -> None:
    refused_with(errno.EINVAL, proc_dointvec, text.encode())


@pytest.mark.parametrize(
    "text", ["", "\n", "x", "1x", "1\xa0", "\x851", "\x1c1", "+1", "--1", "1.", "2147483648", "0x", "9" * 30]
)
def test_numbers_that_are_none(text: str) -> None:
    refused_with(errno.EINVAL, proc_dointvec, text.encode("latin-1"))


@pytest.mark.parametrize(("kernel", "strict"), [("4.4", False), ("6.12", True)])
def test_a_sysctl_is_written_at_its_start(kernel: str, strict: bool) -> None:
    proc = Proc(kernel)
    fd = proc.calls.open("/proc/sys/vm/drop_caches", O_WRONLY)
    assert proc.calls.write(fd, b"1 2\n") == 2
    assert proc.calls.write(fd, b"2\n") == 2
    assert proc.vmstat()["drop_slab"] == (0 if strict else 1)
    if strict:
        assert proc.calls.write(fd, b"nonsense") == 8
    else:
        refused_with(errno.EINVAL, proc.calls.write, fd, b"nonsense")


def test_figures_that_came_and_stayed() -> None:
    text = Proc("6.12", "x86_64").read("zoneinfo")
    figures = dict(re.findall(r"        (high|low|promo) +(\d+)", text)[:3])
    low = int(figures["low"])
    assert int(figures["promo"]) == 2 * int(figures["high"]) - low
    assert f"    count: 0\n              high:  {low}\n              batch: 63\n  vm stats thr" in text
    assert "thp_split_pud" in Proc("6.12", "x86_64").vmstat()
    assert "thp_split_pud" not in Proc("6.12").vmstat()


@pytest.mark.parametrize("kernel", ["6.1", "6.6"])
def test_compact_memory(kernel: str) -> None:
    proc = Proc(kernel)
    path = "sys/vm/compact_memory"
    assert proc.calls.lstat(f"/proc/{path}").st_mode == 0o100200
    refused_with(errno.EACCES, proc.calls.open, f"/proc/{path}", O_RDONLY)
    refused_with(errno.EACCES, proc.calls.open, f"/proc/{path}", O_RDWR)
    proc.control("spawn a anon 3M\nspawn b anon 3M\nspawn c anon 3M\nkill b\n")
    before = proc.vmstat()["compact_migrate_scanned"]
    assert proc.write(path, "1\n") == 2
    assert proc.vmstat()["compact_migrate_scanned"] > before
    assert proc.calls.read_file("/sim/verify") == b"ok\n"
    for text in ("2", "0", "x"):
        if kernel == "6.6":
            refused_with(errno.EINVAL, proc.write, path, text)
        else:
            assert proc.write(path, text) == 1


def test_drop_caches(proc: Proc) -> None:
    path = "sys/vm/drop_caches"
    proc.machine.current = lambda: Task(77, "cma_stress")
    proc.control("spawn f file 4M\nspawn s slab 4M\nspawn t tmpfs 4M")
    assert proc.meminfo()["Slab"] == 4096
    proc.write(path, "1\n")
    assert (proc.meminfo()["Slab"], proc.meminfo()["Cached"]) == (4096, 4096)
    proc.write(path, "2\n")
    assert proc.meminfo()["Slab"] == 0
    proc.write(path, "4\n")
    proc.write(path, "3\n")  # no more lines after a 4
    dmesg = proc.calls.read_file("/sim/dmesg").decode()
    assert re.findall(r"cma_stress.*", dmesg) == [f"cma_stress (77): drop_caches: {n}" for n in (1, 2, 4)]
    for text in ("0", "5", "-1", "x", "1\0", "1\0\n"):
        refused_with(errno.EINVAL, proc.append, path, text)
    counts = proc.vmstat()
    assert (counts["drop_pagecache"], counts["drop_slab"]) == (2, 2)
    assert proc.append(path, "") == 0  # T 6.12: once more what it was
    counts = proc.vmstat()
    assert (counts["drop_pagecache"], counts["drop_slab"]) == (3, 3)
    refused_with(errno.EACCES, proc.calls.open, f"/proc/{path}", O_RDONLY)


def test_nobody_changes_the_mode_of_a_sysctl(proc: Proc) -> None:
    """T 5.10, 6.12, 7.2: proc_sys_setattr(), proc_sys_permission(); other files of /proc it is done to."""
    refused_with(errno.EPERM, proc.calls.chmod, "/proc/sys/vm/drop_caches", 0o644)
    refused_with(errno.EACCES, proc.calls.unlink, "/proc/sys/vm/drop_caches")
    proc.calls.chmod("/proc/vmstat", 0o400)
    assert proc.calls.lstat("/proc/vmstat").st_mode == 0o100400
    refused_with(errno.EPERM, proc.calls.unlink, "/proc/vmstat")


@pytest.mark.parametrize(("kernel", "shown"), [("6.1", 0), ("6.12", len("cma=16M\n"))])
def test_what_stat_shows_in_proc(kernel: str, shown: int) -> None:
    calls = Syscalls(build_tree(boot(tree_of(), kernel, "cma=16M")))
    found = calls.lstat("/proc/cmdline")
    assert (found.st_size, found.st_blksize) == (shown, 1024)
    assert calls.lstat("/sys/kernel/debug/cma").st_blksize == 4096


def test_old_kernels_show_drop_caches() -> None:
    proc = Proc("5.4")
    assert proc.read("sys/vm/drop_caches") == "0\n"
    proc.write("sys/vm/drop_caches", "3")
    assert proc.read("sys/vm/drop_caches") == "3\n"


def test_reclaim_moves_the_counters_of_old_and_new_rows() -> None:
    for kernel, suffix in (("4.4", "_normal"), ("6.12", "")):
        proc = Proc(kernel)
        proc.control("spawn f file 900M\nspawn a anon 300M\n")
        counts = proc.vmstat()
        dropped = counts[f"pgsteal_kswapd{suffix}"] + counts[f"pgsteal_direct{suffix}"]
        assert dropped >= 200 * 256
        assert proc.calls.read_file("/sim/verify") == b"ok\n"


def test_reclaim_is_counted_by_zone_in_4_4() -> None:
    """Whose stalls are in one sum; what was scanned and taken is the largest zone's here."""
    proc = Proc("4.4", "arm", "<0x0 0x40000000 0x0 0x34000000>", config=("HIGHMEM=y",))
    events = proc.machine.memory.vmstat.events
    reclaimed = {"pgsteal_kswapd": 3, "pgsteal_direct": 5, "pgscan_kswapd": 7, "pgscan_direct": 11}
    events.update({**reclaimed, "allocstall_normal": 13, "allocstall_high": 17})
    counts = proc.vmstat()
    for event, count in reclaimed.items():
        assert (counts[f"{event}_normal"], counts[f"{event}_high"], counts[f"{event}_movable"]) == (
            count,
            0,
            0,
        )
    assert counts["allocstall"] == 30
    assert counts["pgscan_direct_throttle"] == 0
    late = Proc("6.12", "arm", "<0x0 0x40000000 0x0 0x34000000>", config=("HIGHMEM=y",))
    late.machine.memory.vmstat.events.update({**reclaimed, "allocstall_normal": 13, "allocstall_high": 17})
    counts = late.vmstat()
    assert {event: counts[event] for event in reclaimed} == reclaimed
    assert (counts["allocstall_normal"], counts["allocstall_high"], counts["allocstall_movable"]) == (
        13,
        17,
        0,
    )


def two_nodes() -> Syscalls:
    """1 GiB in two nodes, with users' pages in both."""
    config = ("NUMA=y", "NUMA_EMU=y")
    calls = Syscalls(build_tree(boot(tree_of(), "6.12", "cma=16M numa=fake=2", config=config)))
    calls.write_file("/sim/control", b"spawn a anon 700M\nspawn f file 100M\nmlock f\nspawn s slab 20M\n")
    return calls


def test_each_node_counts_its_own_pages() -> None:
    calls = two_nodes()
    zoneinfo, vmstat = (calls.read_file(f"/proc/{name}").decode() for name in ("zoneinfo", "vmstat"))
    assert re.findall(r"^Node (\d), zone +(\w+)$", zoneinfo, re.M) == [
        ("0", "Normal"), ("0", "Movable"), ("1", "Normal"), ("1", "Movable")
    ]  # fmt: skip
    nodes = zoneinfo.split("Node 1, zone   Normal")
    counts = dict(line.split() for line in vmstat.splitlines())
    assert [node.count("per-node stats") for node in nodes] == [1, 1]
    for name in (
        *("nr_inactive_anon", "nr_inactive_file", "nr_unevictable", "nr_anon_pages", "nr_file_pages"),
        *("nr_free_pages", "nr_zone_unevictable", "nr_mlock", "nr_slab_reclaimable", "nr_free_cma"),
    ):
        shown = [int(re.findall(rf"^ +{name} +(\d+)$", node, re.M)[0]) for node in nodes]
        assert sum(shown) == int(counts[name]) > 0, name
        assert shown[1] > 0 or name.endswith("inactive_file")
    allocated = sum(int(count) for name, count in counts.items() if name.startswith("pgalloc_"))
    assert int(counts["numa_hit"]) == allocated  # each allocation once, whichever node's zone it was of
    assert re.findall(r"^        cma +(\d+)$", zoneinfo, re.M) == ["0", "0", "4096", "0"]
    assert re.findall(r"start_pfn: +(\d+)", zoneinfo) == ["262144", "393216"]


def test_each_node_s_free_blocks_and_page_blocks() -> None:
    calls = two_nodes()
    buddyinfo = calls.read_file("/proc/buddyinfo").decode().splitlines()
    before, *types = calls.read_file("/proc/pagetypeinfo").decode().split("Page block order: 9\n")
    assert before == ""
    assert all(
        text.startswith("Pages per block:  512\n\nFree pages") and text[-2:] == " \n" for text in types
    )
    assert [line[:22] for line in buddyinfo] == ["Node 0, zone   Normal ", "Node 1, zone   Normal "]
    for nid, (line, text) in enumerate(zip(buddyinfo, types, strict=True)):
        rows = re.findall(rf"^Node    {nid}, zone   Normal, type +\w+ ([ \d]+)$", text, re.M)
        assert len(rows) == 6
        columns = zip(*(map(int, row.split()) for row in rows), strict=True)
        assert list(map(int, line[22:].split())) == [sum(column) for column in columns]
        (blocks,) = re.findall(rf"^Node {nid}, zone   Normal ([ \d]+)$", text, re.M)
        assert sum(map(int, blocks.split())) == 256
        assert blocks.split()[4] == ("8" if nid else "0")


@pytest.mark.parametrize("kernel", ["4.4", "5.10"])
def test_per_cpu_lists_held_six_batches_up_to_5_13(kernel: str) -> None:
    """mm/page_alloc.c:pageset_set_batch()@v5.10"""
    text = Proc(kernel).read("zoneinfo")
    batches = [int(n) for n in re.findall(r"batch: +(\d+)", text)]
    assert batches and [int(n) for n in re.findall(r" high: +(\d+)", text)] == [6 * n for n in batches]


def test_every_option_of_a_counter_is_a_symbol_or_an_architecture() -> None:
    """One that no configuration has would never be shown."""
    known = {symbol.name for symbol in SYMBOLS} | {"X86_64", "ARM64", "ARM"}
    for name in RELEASES:
        listed = astuple(kernel_abi(name).proc.vmstat)
        asked = {item.partition("?")[2] for group in listed for item in group}
        assert asked - {""} <= known, name


def test_counters_of_drivers_and_compressed_memory_follow_the_configuration() -> None:
    for config, shown in ((["IOMMU_SUPPORT=y"], True), (["IOMMU_SUPPORT=n"], False)):
        files = Files(boot(tree_of(), "6.12", config=config), "/proc")
        for path in ("vmstat", "zoneinfo"):
            assert ("nr_iommu_pages" in files.read(path)) == shown
            assert "nr_zspages" not in files.read(path)
    files = Files(boot(tree_of(), "6.12", config=["ZSMALLOC=y"]), "/proc")
    assert "nr_zspages 0\n" in files.read("vmstat")
