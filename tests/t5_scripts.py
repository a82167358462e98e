"""Scripts and programs written for boards run unmodified, on several kernels."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from run_support import SCRIPTS, cmafs

OLD, NEW, NEWEST = "5.10", "6.12", "7.2"
KERNELS = (OLD, NEW, NEWEST)
AREA = {OLD: "cma-reserved", NEW: "reserved", NEWEST: "reserved"}
POOL = 32  # pages: the atomic pool of arm64, 128 KiB for each GiB, is in the default area from boot


def script(
    name: str, kernel: str, *arguments: str, dts: str = "virt", **process: object
) -> subprocess.CompletedProcess[str]:
    """Run a file of tests/scripts on a machine with 16 MiB of CMA."""
    starter = {".py": ["python3"], ".sh": ["sh"], ".bash": ["bash"]}[Path(name).suffix]
    words = [
        "--config",
        "tiny",
        "--cmdline",
        "cma=16M",
        "--dts",
        dts,
        "--kernel",
        kernel,
        "--",
        *starter,
        str(SCRIPTS / name),
        *arguments,
    ]
    return cmafs("run", *words, **process)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the C programs, built."""
    directory = tmp_path_factory.mktemp("programs")
    for source in SCRIPTS.glob("*.c"):
        subprocess.run(["cc", "-O", "-Wall", "-Werror", "-o", directory / source.stem, source], check=True)
    return directory


def program(path: Path, kernel: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["--config", "tiny", "--cmdline", "cma=16M", "--kernel", kernel]
    return cmafs("run", *words, "--", str(path), *arguments)


@pytest.mark.parametrize("kernel", [OLD, NEWEST])
def test_hidumper(programs: Path, kernel: str) -> None:
    done = program(programs / "hidumper_cma", kernel)
    assert (done.stdout, done.returncode) == (f"CmaUsed: {POOL * 4} kB\n", 0)


def test_libmeminfo(programs: Path) -> None:
    assert program(programs / "meminfo_cma_sysfs", NEW).stdout == f"{POOL * 4}\n"
    missing = program(programs / "meminfo_cma_sysfs", OLD)
    assert (missing.stderr, missing.returncode) == ("Failed to open dir: /sys/kernel/mm/cma\n", 1)


@pytest.mark.parametrize("kernel", [OLD, NEWEST])
def test_dumpstate(kernel: str) -> None:
    lines = script("dumpstate_cma.sh", kernel).stdout.splitlines()
    assert lines[:6] == [
        f"--- /d/cma/{AREA[kernel]}",
        "--- count",
        "4096",
        "--- used",
        str(POOL),
        "--- bitmap",
    ]
    assert sum(word.bit_count() for word in map(int, " ".join(lines[6:]).split())) == POOL


@pytest.mark.parametrize("kernel", KERNELS)
def test_ion_heap(programs: Path, kernel: str) -> None:
    done = program(programs / "ion_cma_used", kernel, AREA[kernel])
    assert (done.stdout, done.returncode) == (f"{AREA[kernel]}: buffer 102400, leaked 0\n", 0)
    assert program(programs / "ion_cma_used", kernel, "cma-crypto").stdout == "cma-crypto: absent, 0 bytes\n"


@pytest.mark.parametrize("kernel", ["4.4", *KERNELS])
def test_qualcomm_stress(kernel: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    done = script(
        "qcom_stress.sh", kernel, env={"PATH": "/usr/bin:/bin", "PAUSE": "true", "TRACE": str(trace)}
    )
    assert done.stdout == "".join(f"{megabytes} MB ok\n" for megabytes in range(1, 10)), done.stderr
    events = re.findall(r": (cma_\w+): .*count=(\d+)", trace.read_text())
    expected = [
        (name, str(256 * megabytes)) for megabytes in range(1, 10) for name in ("cma_alloc", "cma_release")
    ]
    alloc = "cma_alloc" if kernel in ("4.4", OLD) else "cma_alloc_finish"
    assert [
        (name.replace(alloc, "cma_alloc"), count) for name, count in events if name in (alloc, "cma_release")
    ] == expected


def test_bash_libraries() -> None:
    assert script("lib_latency.bash", OLD).stdout == "returned: 3\nlatency ok\nfreed\n"
    # without CONFIG_CMA_DEBUG nothing is said of a success
    assert script("lib_latency.bash", NEW).stdout == "returned: 0\nlatency ok\nfreed\n"


@pytest.mark.parametrize("kernel", KERNELS)
def test_spacemit(programs: Path, kernel: str) -> None:
    shown = program(programs / "spacemit_dma_alloc", kernel, AREA[kernel])
    words = ["--config", "tiny", "--cmdline", "cma=16M", "--kernel", kernel]
    pfn = cmafs("run", *words, "--", "cat", f"/d/cma/{AREA[kernel]}/base_pfn")
    assert shown.stdout == f"0x{int(pfn.stdout) * 4096:x}\n"


@pytest.mark.parametrize("kernel", KERNELS)
def test_npu_explorer(kernel: str) -> None:
    lines = script("npu_explorer.py", kernel).stdout.splitlines()
    assert {"alloc: EACCES", "free: EACCES", "count: 4096", f"used: {POOL}", "bitmap: 128 words"} <= set(
        lines
    )
    assert len(lines) == 8


@pytest.mark.parametrize("kernel", [NEW])
def test_adb_collector(kernel: str) -> None:
    assert script("adb_collector.py", kernel).stdout == f"only {POOL * 4} kB\n"


def test_tutorial_loop() -> None:
    assert script("tutorial_loop.sh", NEW).stdout == f"reserved: used={POOL} count=4096\n"


def test_names_that_no_kernel_has() -> None:
    lines = script("negative.sh", NEW).stdout.splitlines()
    assert lines[-2:] == [
        "cat: ./reserved: Is a directory",
        "cat: /sys/kernel/mm/cma/AREA/free_pages: No such file or directory",
    ]
    assert all(line.endswith(": No such file or directory") for line in lines[:-2])
    assert len(lines) == 7


@pytest.mark.parametrize("kernel", [OLD, NEWEST])
def test_s1_sum(kernel: str) -> None:
    assert script("s1_sum_used.sh", kernel).stdout == f"{POOL * 4} kB\n"


@pytest.mark.parametrize("kernel", [OLD, NEWEST])
def test_s2_table(kernel: str) -> None:
    header, row = script("s2_table.sh", kernel).stdout.splitlines()
    assert header.split() == ["AREA", "COUNT", "USED", "USE%", "BASE"]
    assert row.split()[:4] == [AREA[kernel], "4096", str(POOL), "0%"]


@pytest.mark.parametrize("kernel", [OLD, NEWEST])
def test_s3_bitmap(kernel: str) -> None:
    assert script("s3_bitmap.py", kernel).stdout == f"{AREA[kernel]} used True maxchunk True\n0+{POOL}\n"


@pytest.mark.parametrize("kernel", ["4.4", "5.4", *KERNELS])
def test_s4_alloc_free(kernel: str) -> None:
    done = script("s4_alloc_free.sh", kernel)
    assert (done.stdout, done.returncode) == ("all steps ok\n", 0), done.stderr


S5 = {
    OLD: "cma: cma_alloc: alloc failed, req-size: {n} pages, ret: -12",
    NEW: "cma: __cma_alloc: reserved: alloc failed, req-size: {n} pages, ret: -12",
    NEWEST: "cma: __cma_alloc_frozen: reserved: alloc failed, req-size: {n} pages, ret: -16",
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_s5_dmesg(kernel: str) -> None:
    lines = script("s5_dmesg.sh", kernel).stdout.splitlines()
    assert lines[-2:] == [f"returned: {1 if kernel == OLD else 0}", "0"]
    assert lines[-3] == S5[kernel].format(n=4090)


def test_s6_sysfs() -> None:
    assert script("s6_sysfs_delta.sh", OLD).stdout == "no counters\n"
    assert script("s6_sysfs_delta.sh", NEW).stdout == "success +100 fail +4090\n"


@pytest.mark.parametrize("kernel", [OLD, NEWEST])
def test_s7_meminfo(kernel: str) -> None:
    assert script("s7_meminfo.sh", kernel).stdout == "+2048 kB, then 0\n2\n"


S8 = {
    OLD: "cma_alloc - 48\ncma_release - 48\n",
    NEW: "cma_alloc_start reserved 48\ncma_alloc_finish reserved 48\ncma_release reserved 48\n",
    NEWEST: "cma_alloc_start reserved 48\ncma_alloc_finish reserved 48\ncma_release reserved 48\n",
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_s8_trace(kernel: str) -> None:
    done = script("s8_trace.py", kernel)
    assert done.stdout == S8[kernel], done.stderr


S9 = {
    "4.4": "cma-0 base_pfn\nsame\nbase_pfn\nbitmap\n",
    OLD: "cma-reserved base_pfn\nsame\nbase_pfn\nbitmap\n",
    NEW: "reserved base_pfn\nsame\nbase_pfn\nbitmap\n",
    NEWEST: "reserved ranges/0/base_pfn\nsame\nranges/0/base_pfn\nranges/0/bitmap\n",
}


@pytest.mark.parametrize("kernel", S9)
def test_s9_fallback(kernel: str) -> None:
    assert script("s9_fallback.sh", kernel).stdout == S9[kernel]


@pytest.mark.parametrize("kernel", KERNELS)
def test_s10_everything(kernel: str) -> None:
    lines = script("s10_cat_all.sh", kernel).stdout.splitlines()
    shown = dict(line.split(": ", 1) for line in lines)
    area = f"debug/cma/{AREA[kernel]}"
    assert shown[f"{area}/alloc"] == shown[f"{area}/free"] == "Permission denied"
    assert (shown[f"{area}/count"], shown[f"{area}/used"]) == ("4096", str(POOL))
    assert ("mm/cma/reserved/alloc_pages_success" in shown) == (kernel != OLD)
    assert ("debug/cma/reserved/ranges/0/bitmap" in shown) == (kernel == NEWEST)
