"""The four seeds as somebody would follow them: their commands, in `cmafs run`, and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cma2010_support import cma_request
from run_support import cmafs

import cmafs as package

PTR = "([0-9a-f]{16})"
ARTICLE = ("--dts", "article-2", "--kernel", "article")
PC = ("--dts", "x86-4g", "--kernel", "4.15", "--config", "CMA_SIZE_MBYTES=2048")


def run(script: str, *options: str) -> list[str]:
    """The lines that a bash script prints on a machine."""
    done: subprocess.CompletedProcess[str] = cmafs("run", *options, "--", "bash", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_demo_walks_through_all_seeds():
    demo = Path(__file__).parent / "scripts" / "demo.sh"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(demo)], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    parts = re.split(r"^=== (.*)\n", done.stdout, flags=re.MULTILINE)
    shown = dict(zip(parts[1::2], parts[2::2], strict=True))
    for seed, line in [
        ("seeds/000", "00000090  00 00 00 00"),
        ("seeds/001", "bash: echo: write error: Invalid argument\n# cat map\n*=region\n"),
        ("seeds/002", "misc cma_test: free virt: "),
        ("seeds/003", "cma: cma_release(page "),
    ]:
        assert line in next(text for title, text in shown.items() if title.startswith(seed)), seed


# seeds/000: the article


def test_seed_000_workflow():
    lines = run(
        """ls /sys/kernel/debug/cma/
        cd /sys/kernel/debug/cma/cma-0; ls; before=$(cat used)
        echo 1024 > /sys/kernel/debug/cma/cma-0/alloc
        echo $(($(cat /sys/kernel/debug/cma/cma-0/used) - before)) KiB
        cat base_pfn size
        hexdump -C bitmap | head -n 1
        echo 0 > /sys/kernel/debug/cma/cma-0/alloc
        [ $(cat used) = $before ] && echo released""",
        *ARTICLE,
    )
    assert lines == [
        "cma-0",
        "alloc",
        "base_pfn",
        "bitmap",
        "size",
        "used",
        "4096 KiB",
        "524288",
        "262144",
        "00000000  ff ff ff ff ff ff ff ff  ff ff ff ff ff ff ff ff  |................|",
        "released",
    ]


@pytest.mark.parametrize(
    ("board", "cmdline", "low", "high", "size"),
    [
        ("article-1", "", 0, 4 << 30, 256 << 20),  # the tree names no place, only a size and an alignment
        ("article-2", "", 0x80000000, 0xC0000000, 1 << 30),
        ("article-1", "cma=64M@0x38000000", 0x38000000, 0x3C000000, 64 << 20),
        ("article-1", "cma=256M@3G-4G", 3 << 30, 4 << 30, 256 << 20),
    ],
)
def test_seed_000_regions_by_device_tree_and_command_line(board, cmdline, low, high, size):
    machine = package.Machine.boot(dts=board, kernel="article", cmdline=cmdline)
    cma = machine.booted.cma.default if cmdline or board == "article-2" else machine.booted.cma[0]
    assert cma is not None
    start, end = cma.base_pfn << 12, (cma.base_pfn + cma.count) << 12
    assert (low <= start, end <= high, end - start, start % (1 << 20)) == (True, True, size, 0)


def test_seed_000_struct_cma():
    machine = package.Machine.boot(dts="article-2", kernel="article")
    cma = machine.booted.cma[0]
    assert (cma.base_pfn, cma.count, cma.order_per_bit) == (0x80000, 1 << 18, 0)
    assert (cma.name, list(cma.mem_head)) == ("cma@80000000", [])
    machine.write("/sys/kernel/debug/cma/cma-0/alloc", "3")
    assert cma.ranges[0].bitmap.weight == cma.used()
    assert [count for _, count in cma.mem_head] == [3]


def test_seed_000_debug_options():
    lines = run(
        """zcat /proc/config.gz | grep -x -e CONFIG_CMA_DEBUG=y -e CONFIG_CMA_DEBUGFS=y
        echo 1024 > /sys/kernel/debug/cma/cma-0/alloc; dmesg | tail -n 1 | cut -c16-""",
        *(*ARTICLE, "--config", "CMA_DEBUG=y"),
    )
    assert lines[:2] == ["CONFIG_CMA_DEBUG=y", "CONFIG_CMA_DEBUGFS=y"]
    assert re.fullmatch(rf"cma: __cma_alloc\(\): returned {PTR}", lines[2])


def test_seed_000_migration_error_ps_and_release():
    lines = run(
        """S=$CMAFS_MOUNT/sim
        printf 'spawn mlock-app anon 3200M\\nmlock mlock-app\\n' > $S/control
        cd /sys/kernel/debug/cma/cma-0
        echo 262000 > alloc || echo refused
        dmesg | grep -m 1 'is locked'
        until pid=$(pgrep -x mlock-app); do :; done
        ps -eLo pid,cmd | grep '[0-9] mlock-app'
        kill $pid
        while grep -q mlock-app $S/tasks; do :; done
        echo 1 > /proc/sys/vm/compact_memory
        echo 261000 > alloc && echo allocated
        cat $S/verify""",
        *ARTICLE,
    )
    assert lines[0] == "refused"
    assert re.fullmatch(r"\[ +\d+\.\d{6}\] cma: migrate_pages failed, page 0x[0-9a-f]+ is locked", lines[1])
    assert re.fullmatch(r" +\d+ mlock-app *", lines[2])
    assert lines[3:] == ["allocated", "ok"]


def test_seed_000_lines_of_real_kernels_stay_as_they_are():
    """On a kernel mlocked pages move, and there is no such line."""
    machine = package.Machine.boot(dts="article-2", kernel="6.12")
    machine.control("spawn app anon 3200M")
    machine.control("mlock app")
    machine.write("/sys/kernel/debug/cma/cma@80000000/alloc", "100000")
    assert "is locked" not in machine.dmesg()


# seeds/001: the framework of 2010


def test_seed_001_files_and_messages():
    lines = run(
        """cd /sys/kernel/mm/contiguous
        cat map allocators regions/region/size regions/common/size
        echo 'video=common' > map; cat map
        echo nonsense > map; echo $?; cat map
        ls -d /sys/kernel/debug/cma 2> /dev/null
        dmesg | grep -c 'cma: '""",
        *("--kernel", "2010", "--cmdline", "cma=region=20M;common=5M cma.map=video,camera=region;*=common"),
    )
    shown = ["video,camera=region;*=common", "bf", "20971520", "5242880", "video=common", "1", "video=common"]
    assert lines == [*shown, "12"]  # eleven of the boot, one of the refused map


def test_seed_001_ioctl_through_the_mount():
    request = cma_request(b"camera")
    program = f"""
import errno, fcntl, struct
request = bytearray({request!r})
def users():
    return open("/sys/kernel/mm/contiguous/regions/region/users").read().strip()
def refused(*args):
    try:
        fcntl.ioctl(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
with open("/dev/cma", "rb+", buffering=0) as device:
    fcntl.ioctl(device, 0xC0407000, request)
    start = open("/sys/kernel/mm/contiguous/regions/region/start").read().strip()
    print(struct.unpack_from("<Q", request, 24)[0] == int(start, 16), users())
    print(refused(device, 0xC0407000, bytearray(64)), refused(device, 0x7001))
with open("/dev/cma", "rb+", buffering=0) as device:
    print(refused(device, 0xC0407000, bytearray(64)), users())
"""
    options = ("--kernel", "2010", "--cmdline", "cma=region=20M cma.map=camera=region")
    done = cmafs("run", *options, "--", "/usr/bin/python3", "-c", program)
    assert (done.stdout.splitlines(), done.stderr) == (["True 1", "EBADFD ENOTTY", "ENOTTY 0"], "")


# seeds/002: the test module, and the walk


def test_seed_002_write_allocates_read_frees():
    lines = run(
        """cd /sys/kernel/debug/cma/reserved; before=$(cat used)
        echo 0 > /dev/cma_test; echo 0 > /dev/cma_test
        echo $(($(cat used) - before))
        cat /dev/cma_test; echo $(($(cat used) - before))
        cat /dev/cma_test; echo $(($(cat used) - before))
        cat $CMAFS_MOUNT/sim/devices/cma_test
        dmesg | grep cma_test | cut -c16-""",
        *("--cmdline", "cma=16M"),
    )
    assert lines[:3] == ["768", "512", "0"]
    verbs = [re.fullmatch(f"misc cma_test: (alloc|free) virt: {PTR} phys: {PTR}", line) for line in lines[4:]]
    assert lines[3] == "misc cma_test: registered."
    assert all(verbs)
    assert [m[1] for m in verbs if m] == ["alloc", "alloc", "free", "free"]
    assert [m[2] for m in verbs if m][:2] == [m[2] for m in verbs if m][2:]


def test_seed_002_all_ten_buffers_and_an_area_that_is_full():
    lines = run(
        """cd /sys/kernel/debug/cma/cma-reserved; before=$(cat used)
        shown() { echo $(($(cat used) - before)); }
        for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo 0 > /dev/cma_test || echo failed; done; shown
        for i in 1 2 3 4 5 6 7 8 9 10 11 12; do timeout 9 cat /dev/cma_test || echo hangs; done; shown
        dmesg | grep -c 'cma_test: alloc'; dmesg | grep -c 'cma_test: free'
        echo $(($(cat count) - before - 1024)) > alloc
        for i in 1 2 3; do echo 0 > /dev/cma_test || echo failed; done
        dmesg | tail -n 1 | cut -c16-; cat $CMAFS_MOUNT/sim/verify""",
        *("--kernel", "4.15", "--cmdline", "cma=64M"),
    )
    assert lines == [str(256 * 55), "0", "10", "10", "misc cma_test: no mem in CMA area", "ok"]


def test_seed_002_the_walk_can_be_watched():
    done = cmafs("trace-alloc", "--cmdline", "cma=64M", "--do", "spawn a anon 900M", "reserved", "512")
    for function in ("start_isolate_page_range", "migrate_pages", "undo_isolate_page_range"):
        assert function in done.stdout


# seeds/003: a 4.15 PC


def test_seed_003_configuration():
    lines = run(
        "zcat /proc/config.gz | grep -e CMA -e DMA_CONTIGUOUS; cat /boot/config-4.15.0 | grep -c CMA=", *PC
    )
    shown = ["CMA=y", "CMA_DEBUG=y", "CMA_DEBUGFS=y", "CMA_AREAS=7", "CMA_SIZE_MBYTES=2048", "DMA_CMA=y"]
    assert {f"CONFIG_{line}" for line in [*shown, "HAVE_DMA_CONTIGUOUS=y"]} <= set(lines)


def test_seed_003_configuration_of_a_distribution_s_kernel():
    command = "cat /boot/config-4.15.0-20-generic | grep -c ^CONFIG_CMA=y; uname -r"
    assert run(command, *PC[:2], "--kernel", "4.15.0-20-generic") == ["1", "4.15.0-20-generic"]


def test_seed_003_boot_log():
    lines = [line[15:] for line in run("dmesg | grep cma", *PC)]
    assert lines[1:6] == [
        "cma: early_cma(1G@1-2G)",
        "cma: dma_contiguous_reserve(limit 140000000)",
        "cma: dma_contiguous_reserve: reserving 1024 MiB for global area",
        "cma: cma_declare_contiguous(size 0x0000000040000000, base 0x0000000000000001, "
        "limit 0x0000000080000000 alignment 0x0000000000000000)",
        "cma: Reserved 1024 MiB at 0x0000000040000000",
    ]
    assert lines[0].startswith("Command line: BOOT_IMAGE=/boot/vmlinuz-4.15.0CMA20190430 ")
    assert lines[6].startswith("Kernel command line: BOOT_IMAGE=/boot/vmlinuz-4.15.0CMA20190430 ")
    assert re.fullmatch(
        r"Memory: \d+K/4193716K available \(12300K kernel code, 2471K rwdata, 4192K rodata, 2396K init, "
        r"2416K bss, \d+K reserved, 1048576K cma-reserved\)",
        lines[7],
    )
    area = re.fullmatch(f"cma: cma_alloc\\(cma {PTR}, count 1, align 0\\)", lines[8])
    assert area is not None
    for alloc, returned in (lines[8:10], lines[10:12], lines[12:14]):
        assert alloc == f"cma: cma_alloc(cma {area[1]}, count 1, align 0)"
        assert re.fullmatch(f"cma: cma_alloc\\(\\): returned {PTR}", returned)


def test_seed_003_meminfo_alloc_free_and_dmesg():
    lines = run(
        """cd /sys/kernel/debug/cma/cma-reserved; dmesg -c > /dev/null
        cat /proc/meminfo | grep Cma
        echo 102400 > alloc
        cat /proc/meminfo | grep Cma
        dmesg -c
        echo 102400 > free
        dmesg -c
        cat /proc/meminfo | grep Cma""",
        *PC,
    )
    before, after, end = (int(lines[i].split()[1]) for i in (1, 3, 8))
    assert {lines[i] for i in (0, 2, 7)} == {"CmaTotal:        1048576 kB"}
    assert (before - after, end) == (102400 * 4, before)
    alloc = re.fullmatch(rf"\[ +\d+\.\d+\] cma: cma_alloc\(cma {PTR}, count 102400, align 0\)", lines[4])
    returned = re.fullmatch(rf"\[ +\d+\.\d+\] cma: cma_alloc\(\): returned {PTR}", lines[5])
    released = re.fullmatch(rf"\[ +\d+\.\d+\] cma: cma_release\(page {PTR}\)", lines[6])
    assert alloc and returned and released
    assert returned[1] == released[1]


def test_4_4_directories_and_files():
    lines = run(
        """cd /sys/kernel/debug/cma; ls; ls cma-0 | tr '\\n' ' '
        echo junk > cma-0/alloc || echo refused; echo 10 > cma-0/alloc; cat cma-0/used
        echo 10 > cma-0/free; cat cma-0/used; dmesg | tail -n 1 | cut -c16-""",
        *("--kernel", "4.4", "--dts", "article-2"),
    )
    assert lines[0] == "cma-0"
    assert lines[1].strip() == "alloc base_pfn bitmap count free maxchunk order_per_bit used refused"
    assert int(lines[2]) - int(lines[3]) == 10
    assert re.fullmatch(r"cma: cma_release\(page [0-9a-f]{16}\)", lines[4])
