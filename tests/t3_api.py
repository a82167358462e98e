"""The Python API: the same tables without a mount."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import dts_support as dts
import pytest

import cmafs
from cmafs import api

AREA = "/sys/kernel/debug/cma/reserved"


def boot(**options: object) -> cmafs.Machine:
    return cmafs.Machine.boot(**{"cmdline": "cma=16M", **options})  # type: ignore[arg-type]


def test_files_by_path() -> None:
    machine = boot()
    assert machine.write(f"{AREA}/alloc", "4\n") == 2
    assert machine.write(f"{AREA}/alloc", b"5\n") == 2
    assert machine.read(f"{AREA}/used") == b"105\n"
    assert machine.listdir("/sys/kernel/debug/cma") == ["reserved"]
    assert machine.stat(f"{AREA}/alloc").st_mode == 0o100200
    machine.chmod(f"{AREA}/alloc", 0o600)
    machine.truncate(f"{AREA}/alloc", 3)
    assert (machine.stat(f"{AREA}/alloc").st_mode, machine.stat(f"{AREA}/alloc").st_size) == (0o100600, 3)
    assert machine.readlink("/proc/device-tree") == "../sys/firmware/devicetree/base"
    assert machine.verify() == []


def test_errors_are_the_kernels() -> None:
    machine = boot()
    with pytest.raises(OSError) as caught:
        machine.write(f"{AREA}/alloc", "x")
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError) as caught:
        machine.read(f"{AREA}/alloc")
    assert caught.value.errno == errno.EACCES


def test_control_says_why() -> None:
    machine = boot()
    machine.control("spawn a anon 1M")
    with pytest.raises(OSError, match=r"^\[Errno 17\] spawn: task 'a' exists$"):
        machine.control("spawn a anon 1M")


def test_time_stands_still_until_told() -> None:
    machine = boot()
    machine.write("/dev/kmsg", "one\n")
    machine.clock.advance(1_500_000_000)  # type: ignore[attr-defined]
    machine.write("/dev/kmsg", "two\n")
    assert machine.dmesg().splitlines()[-2:] == ["[    0.000000] one", "[    1.500000] two"]


def test_a_real_clock_passes() -> None:
    clock = api.RealClock()
    machine = boot(clock=clock)
    assert {line[:14] for line in machine.dmesg().splitlines()} == {"[    0.000000]"}
    first = clock.now()
    assert 0 < first <= clock.now()


def test_memory_is_a_size_or_a_number() -> None:
    def total(machine: cmafs.Machine) -> bytes:
        return machine.read("/proc/meminfo").split(b"\n")[0]

    assert total(boot(memory="512M")) == total(boot(memory=512 << 20))
    assert total(boot(memory="512M")) != total(boot())


def test_configuration_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("# a comment\nCONFIG_CMA_SIZE_MBYTES=24\n# CONFIG_CMA_SYSFS is not set\n")
    machine = cmafs.Machine.boot(config=[str(file)])
    assert machine.read(f"{AREA}/count") == b"6144\n"
    assert machine.listdir("/sys/kernel/mm") == []
    file.write_bytes(machine.read("/boot/config-6.12.117"))  # a whole .config, as a board has it
    again = cmafs.Machine.boot(config=[str(file)], kernel="5.10")
    assert again.read("/sys/kernel/debug/cma/cma-reserved/count") == b"6144\n"
    file.write_text("CMA_ARES=3\n")
    with pytest.raises(api.ConfigError, match="unknown option 'CMA_ARES'"):
        cmafs.Machine.boot(config=[str(file)])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dts": "nosuch"}, api.DtError),
        ({"kernel": "9.9"}, api.UnknownKernel),
        ({"config": ["CMA_AREAS=many"]}, api.ConfigError),
        ({"config": ["/nonexistent"]}, api.BadOption),
        ({"memory": "much"}, api.BadOption),
        ({"memory": 1 << 64}, api.BadOption),
        ({"memory": 1 << 63}, api.DtError),
        ({"memory": -1}, api.DtError),
        ({"memory": 1.5}, api.BadOption),
        ({"kernel": 6.12}, api.BadOption),
        ({"cmdline": b"cma=4M"}, api.BadOption),
        ({"config": "CMA=y"}, api.BadOption),
        ({"config": ["CMA=y", 7]}, api.BadOption),
        ({"arch": "mips"}, api.BadOption),
        ({"seed": 10**5000}, api.BadOption),
        ({"seed": "7"}, api.BadOption),
        ({"strict_quirks": 1}, api.BadOption),
    ],
)
def test_what_cannot_be_booted(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        boot(**options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory": 1.5}, "memory: wanted is a text or a number, not 1.5"),
        ({"kernel": 6.12}, "kernel: wanted is a text, not 6.12"),
        ({"cmdline": 5}, "cmdline: wanted is a text, not 5"),
        ({"config": ["CMA=y", 7]}, "config: wanted is a list of texts, not "),
        ({"seed": "7"}, "seed: wanted is a number, not '7'"),
        ({"strict_quirks": 1}, "strict_quirks: wanted is true or false, not 1"),
    ],
)
def test_what_an_option_can_be_is_said(options: dict[str, object], said: str) -> None:
    with pytest.raises(api.BadOption) as refused:
        api.boot(**options)  # type: ignore[arg-type]
    assert str(refused.value).startswith(said)


def test_two_machines_do_not_meet() -> None:
    first, second = boot(), boot()
    first.write(f"{AREA}/alloc", "100\n")
    assert [machine.read(f"{AREA}/used") for machine in (first, second)] == [b"196\n", b"96\n"]


def test_same_seed_same_machine() -> None:
    def pointers(seed: int) -> str:
        machine = boot(kernel="6.1", seed=seed, config=["CMA_DEBUG=y"])
        machine.write(f"{AREA}/alloc", "1\n")
        return machine.dmesg()

    assert pointers(1) == pointers(1)
    assert pointers(1) != pointers(2)


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, cmafs; print(sorted(name for name in sys.modules if name.startswith('cmafs.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("kernel", ["5.4", "5.10", "6.1", "6.12", "7.2"])
def test_memory_that_a_refused_region_gave_back_is_not_free_twice(tmp_path: Path, kernel: str) -> None:
    fine = dts.pool("a@50000000", "reg = <0 0x50000000 0 0x1000000>")
    refused = dts.pool("b@50800000", "reg = <0 0x50800000 0 0x1100800>")
    machine = boot(dts=dts.write(tmp_path, "a.dts", dts.tree(fine + refused)), kernel=kernel)
    assert machine.verify() == []
    directory = next(name for name in machine.listdir("/sys/kernel/debug/cma") if "a@5" in name)
    machine.write(f"/sys/kernel/debug/cma/{directory}/alloc", "4096")
    assert machine.verify() == []
