"""Numbers of thousands of digits, wherever one may be written: the kernel's answer, and at once."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator

import pytest

from cmafs import api
from cmafs.lib.kstrtox import U64_MAX

NINES = "9" * 5000
#: What 5000 sevens are modulo 2^64: int() would refuse to say.
SEVENS = "7" * 5000
WRAPPED = sum(7 * 10**n for n in range(5000)) & U64_MAX

TRACING, CMA = "/sys/kernel/tracing", "/sys/kernel/debug/cma/reserved"


@pytest.fixture(scope="module")
def machine() -> api.Machine:
    return api.boot(cmdline="cma=16M")


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("path", "text", "code"),
    [
        (f"{TRACING}/buffer_size_kb", NINES, errno.ERANGE),
        (f"{TRACING}/buffer_size_kb", "0" * 5000 + "1", errno.EINVAL),  # 66 of them are looked at
        (f"{TRACING}/tracing_on", NINES, errno.ERANGE),
        (f"{TRACING}/events/enable", NINES, errno.ERANGE),
        (f"{TRACING}/events/cma/enable", NINES, errno.ERANGE),
        (f"{TRACING}/events/cma/cma_release/enable", NINES, errno.ERANGE),
        (f"{TRACING}/events/cma/cma_release/filter", f"count == {NINES}", errno.EINVAL),
        (f"{TRACING}/events/cma/cma_release/filter", "count == " + "9" * 23, errno.EINVAL),
        (f"{CMA}/alloc", NINES, errno.ERANGE),
        (f"{CMA}/free", f"0x{NINES}", errno.ERANGE),
        ("/proc/sys/vm/compact_memory", NINES, errno.EINVAL),
        ("/proc/sys/vm/drop_caches", "0" * 5000 + "1", errno.EINVAL),
        ("/proc/sys/vm/drop_caches", "18446744073709551617", errno.EINVAL),
        ("/sys/kernel/debug/dynamic_debug/control", f"line {'9' * 4000} +p", errno.EINVAL),
        ("/sim/control", f"pin pfn {NINES}", errno.EINVAL),
        ("/sim/control", f"unpin pfn {NINES}", errno.EINVAL),
        ("/sim/control", f"spawn a anon {NINES}", errno.ENOMEM),
        ("/sim/control", f"dma_alloc {NINES} {NINES}", errno.ENOENT),
    ],
)
def test_files(machine: api.Machine, path: str, text: str, code: int) -> None:
    for written in (text, f"{text}\n"):
        with pytest.raises(OSError) as refused:
            machine.write(path, written)
        assert refused.value.errno == code
    assert machine.verify() == []


def test_pins_of_a_task(machine: api.Machine) -> None:
    machine.control("spawn task anon 1M")
    with pytest.raises(OSError, match="has only 256 pages that are not pinned"):
        machine.control(f"pin task {NINES}")


def test_zeros_are_no_number_that_is_too_large(machine: api.Machine) -> None:
    machine.write(f"{TRACING}/tracing_on", "0" * 5000)
    assert machine.read(f"{TRACING}/tracing_on") == b"0\n"


def test_a_priority_wraps(machine: api.Machine) -> None:
    machine.write("/dev/kmsg", f"<{'9' * 900}>far")
    last = machine.booted.log.record(machine.booted.log.next_seq - 1)
    number = (10**900 - 1) & U64_MAX
    assert last is not None
    assert (last.text, last.level, last.facility) == ("far", number & 7, number >> 3 & 0xFF)


def test_the_size_of_the_trace_buffer_wraps_in_bytes(machine: api.Machine) -> None:
    with pytest.raises(OSError) as refused:
        machine.write(f"{TRACING}/buffer_size_kb", str((1 << 53) + 1))
    assert refused.value.errno == errno.ENOMEM
    machine.write(f"{TRACING}/buffer_size_kb", str((1 << 54) + 8))
    assert machine.read(f"{TRACING}/buffer_size_kb") == b"11\n"  # 8 KiB in whole sub-buffers


def test_unsigned_long_of_a_32_bit_machine() -> None:
    old = api.boot(arch="arm", cmdline="cma=16M")
    with pytest.raises(OSError) as refused:
        old.write(f"{TRACING}/tracing_on", str(1 << 32))
    assert refused.value.errno == errno.ERANGE


@pytest.mark.parametrize("name", ["cma", "coherent_pool", "cma_pernuma", "hugetlb_cma", "log_buf_len"])
def test_sizes_of_the_command_line_wrap(name: str) -> None:
    params = api.boot(cmdline=f"{name}={SEVENS} trace_buf_size={NINES}").booted.params
    assert (params.cma.size if name == "cma" else getattr(params, name)) == WRAPPED


def test_nodes_of_the_command_line_wrap() -> None:
    params = api.boot(
        cmdline=f"numa_cma={NINES}:1M,1:{NINES} hugetlb_cma={'0' * 5000}1:{SEVENS}"
    ).booted.params
    assert params.numa_cma == {}
    assert params.hugetlb_cma_node == {}  # 1 is no node of this machine


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"config": [f"CMA_SIZE_MBYTES={NINES}"]}, api.ConfigError, "CONFIG_CMA_SIZE_MBYTES is from 0 to"),
        ({"config": [f"CMA_AREAS=0x{NINES}"]}, api.ConfigError, "CONFIG_CMA_AREAS is from 1 to"),
        ({"memory": NINES}, api.DtError, "TiB; at most 16 can be simulated"),
        ({"kernel": f"6.{NINES}"}, api.UnknownKernel, "unknown kernel '6.999"),
        ({"kernel": f"{NINES}.1"}, api.UnknownKernel, "unknown kernel '999"),
        ({"kernel": f"6.12.{NINES}"}, api.UnknownKernel, "unknown kernel '6.12.999"),
    ],
)
def test_options_are_refused_in_one_line(
    options: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as refused:
        api.boot(**options)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_any_seed_will_do() -> None:
    assert api.boot(seed=1 << 200).dmesg()
