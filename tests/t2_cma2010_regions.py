"""The regions string and early regions of the 2010 framework: vectors R1 to R16 of its specification."""

from __future__ import annotations

import errno

import pytest
from cma2010_support import K, M, boot_memory, framework, log_of, with_bf
from cma_support import refused

from cmafs.drivers.cma2010.profile import PROFILES, Word, quirks_of
from cmafs.drivers.cma2010.regions import SUFFIX_SHIFTS, CmaRegion, cma_param_parse, strict_strtoul
from cmafs.lib.cmdline import memparse

ALL = list(PROFILES)
NEW = ["v3", "v4", "vendor", "meizu"]


def parse(profile: str, text: str, bits: int = 32, strict: bool = False) -> tuple[list[CmaRegion], str]:
    """The regions kept and the errno's name, or "" for none."""
    kept: list[CmaRegion] = []
    version = PROFILES[profile]
    try:
        cma_param_parse(version, quirks_of(version, strict), Word(bits), text, kept.append)
    except OSError as error:
        return kept, errno.errorcode[error.errno]
    return kept, ""


def numbers(profile: str, text: str) -> list[tuple[str | None, int, int, int, str | None]]:
    kept, code = parse(profile, text)
    assert code == "", (profile, text, code)
    return [(r.name, r.size, r.start, r.alignment, r.alloc_name) for r in kept]


@pytest.mark.parametrize("profile", ALL)
def test_vector_r1_three_regions(profile):
    assert numbers(profile, "reg1=64M:bf;reg2=32M@0x100000:bf;reg3=64M/1M:bf") == [
        ("reg1", 64 * M, 0, 4 * K, "bf"),
        ("reg2", 32 * M, M, 4 * K, "bf"),
        ("reg3", 64 * M, 0, M, "bf"),
    ]


def test_vector_r2_allocator_parameters():
    v1 = parse("v1", "r1=64M@512M/1M:foo(bar)")[0][0]
    assert (v1.alloc_name, v1.alloc_params) == ("foo", "bar")
    for profile in NEW:
        reg = parse(profile, "r1=64M@512M/1M:foo(bar)")[0][0]
        assert (reg.alloc_name, reg.alloc_params) == ("foo(bar)", None)
    assert parse("v1", "r=1M:foo(a;b);s=1M")[0][0].alloc_params == "a;b"
    assert parse("v1", "r=1M:foo(bar") == ([], "EINVAL")


@pytest.mark.parametrize("profile", ALL)
def test_vector_r3_size_only(profile):
    assert numbers(profile, "r=20M") == [("r", 20 * M, 0, 4 * K, None)]


@pytest.mark.parametrize("profile", ALL)
def test_vector_r4_comma_is_no_separator(profile):
    assert parse(profile, "v=20M,c=20M") == ([], "EINVAL")


def test_vector_r5_leading_minus():
    text = "-mfc_fw=1M/128K;mfc_b1=32M;mfc_b2=16M@0x40000000"
    for profile in ("v2", "v3"):
        kept, _ = parse(profile, text)
        assert [(r.name, r.asterisk) for r in kept] == [("mfc_fw", False), ("mfc_b1", True), ("mfc_b2", True)]
        assert kept[0].alignment == 128 * K
        assert parse(profile, "-=1M")[1] == "EINVAL"
    for profile in ("v1", "v4", "vendor", "meizu"):
        assert parse(profile, text)[0][0].name == "-mfc_fw"


@pytest.mark.parametrize("profile", ALL)
@pytest.mark.parametrize("bad", ["r=0", "r=", "=64M", "r", "r=64Mx", "r=64M/3M", "r=4G"])
def test_vector_r6_refused(profile, bad):
    assert parse(profile, bad) == ([], "EINVAL")


@pytest.mark.parametrize("profile", ALL)
def test_vector_r7_rounding(profile):
    assert numbers(profile, "r=1")[0][1] == 4096
    assert numbers(profile, "r=64M/1K")[0][3] == 4 * K
    assert numbers(profile, "r=64M@1/1M")[0][2] == M


@pytest.mark.parametrize("text", ["r=64M@0", "r=64M/0"])
def test_vector_r8_explicit_zero(text):
    assert numbers("v1", text) == [("r", 64 * M, 0, 4 * K, None)]
    for profile in NEW:
        assert parse(profile, text) == ([], "EINVAL")


@pytest.mark.parametrize("profile", ALL)
def test_vector_r9_order_of_the_parts(profile):
    assert parse(profile, "r=64M/1M@512M") == ([], "EINVAL")


@pytest.mark.parametrize("profile", ALL)
def test_vector_r10_trailing_semicolons(profile):
    assert [r.name for r in parse(profile, "a=1M;")[0]] == ["a"]
    kept, code = parse(profile, "a=1M;;")
    assert ([r.name for r in kept], code) == (["a"], "EINVAL")


@pytest.mark.parametrize("profile", ALL)
def test_vector_r11_semicolon_in_a_name(profile):
    assert [n[0] for n in numbers(profile, "a=1M;;b=1M")] == ["a", ";b"]


@pytest.mark.parametrize("profile", ALL)
def test_vector_r12_empty_allocator_is_the_default(profile):
    assert numbers(profile, "r=64M:") == [("r", 64 * M, 0, 4 * K, None)]


def test_vector_r13_wrap():
    assert numbers("v1", "r=1M@0xFFF80000")[0][2] == 0xFFF80000
    for profile in NEW:
        assert parse(profile, "r=1M@0xFFF80000") == ([], "EINVAL")
        assert parse(profile, "r=512K@0xFFF80000") == ([], "EINVAL")  # ends exactly at the top
        assert len(parse(profile, "r=1M@0xFFF80000", bits=64)[0]) == 1


@pytest.mark.parametrize("profile", ALL)
def test_vector_r14_numbers(profile):
    assert [numbers(profile, f"r={n}")[0][1] for n in ("0x100000", "010K", "64m")] == [M, 8 * K, 64 * M]


def test_vector_r15_too_many():
    text = ";".join(f"r{i}=4K" for i in range(17))
    kept, code = parse("v1", text)
    assert (len(kept), code) == (16, "ENOSPC")
    for profile in NEW:
        kept, code = parse(profile, text.rpartition(";")[0])
        assert (len(kept), code) == (15, "ENOSPC")


@pytest.mark.parametrize("profile", ALL)
def test_vector_r16_empty_string(profile):
    assert parse(profile, "") == ([], "")


def test_v1_cuts_its_text_at_511_characters():
    text = "a=1M;" + "b" * 600 + "=1M"
    assert parse("v1", text)[1] == "EINVAL"
    assert [r.size for r in parse("v4", text)[0]] == [M, M]


def test_64_bit_machines_take_4g():
    assert parse("vendor", "r=4G", bits=64)[0][0].size == 4 << 30


def test_memparse():
    assert memparse("0x", SUFFIX_SHIFTS) == (0, "x")
    assert memparse("08", SUFFIX_SHIFTS) == (0, "8")
    assert memparse("1T", SUFFIX_SHIFTS) == (1, "T")
    assert memparse("2gk", SUFFIX_SHIFTS) == (2 << 30, "k")


def test_memparse_wraps_at_64_bits_and_takes_any_number_of_digits():
    assert memparse("0x10000000000001000") == (4096, "")
    assert memparse("17179869185G") == (1 << 30, "")
    assert memparse("0" * 5000 + "17K") == (15 << 10, "")
    for text in ("9" * 5000, "1" + "0" * 5000, "0x" + "f" * 5000, "7" * 5000):
        sign_free = int(text[2:], 16) if text.startswith("0x") else sum_of_digits(text)
        assert memparse(text) == (sign_free % (1 << 64), "")


def sum_of_digits(text: str) -> int:
    """The value of decimal digits, in pieces that int() takes."""
    value = 0
    for i in range(0, len(text), 1000):
        value = value * 10 ** len(text[i : i + 1000]) + int(text[i : i + 1000])
    return value


@pytest.mark.parametrize(
    ("text", "bits", "value"),
    [
        ("", 32, None),
        ("\n", 32, None),
        ("-1", 32, None),
        ("x", 32, None),
        ("10k", 32, None),
        ("08", 32, None),
        ("1\n\n", 32, None),
        ("1\njunk", 32, None),
        ("010", 32, 8),
        ("0x10\n", 32, 16),
        ("0x100000000", 32, 0),
        ("0x100000000", 64, 1 << 32),
        ("0x10000000000000000", 64, 0),
    ],
)
def test_strict_strtoul(text, bits, value):
    assert strict_strtoul(text, Word(bits)) == value


# Early regions


def test_early_registration_rounds_and_refuses():
    early = framework().early
    reg = CmaRegion("r", 0x40000001, 5000, alignment=64 * K)
    early.register(reg)
    assert (reg.start, reg.size, reg.alignment) == (0x40010000, 8192, 64 * K)
    assert refused(early.register, CmaRegion("r", 0, M, alignment=3)) == "EINVAL"
    assert refused(early.register, CmaRegion("r", 0xFFF00000, M)) == "EINVAL"
    assert early.regions == [reg]


def test_a_platform_array_ends_at_size_0_and_stops_at_an_error():
    cma = framework()
    good, bad, after = CmaRegion("a", 0, M), CmaRegion("b", 0, M, alignment=3), CmaRegion("c", 0, M)
    assert refused(cma.cma_set_defaults, [good, bad, after], "*=a") == "EINVAL"
    assert ([r.name for r in cma.early.regions], cma.map) == (["a"], "*=a")
    other = framework()
    other.cma_set_defaults([good, CmaRegion(), after], None)
    assert other.early.regions == [good]


def reserved(cma, regions: list[CmaRegion], memory) -> list[bool]:
    """Which of a board's regions get memory."""
    cma.cma_set_defaults(regions, None)
    cma.early.reserve_all(memory)
    return [reg.reserved for reg in regions]


def test_memblock_takes_a_start_as_an_order():
    memory = boot_memory(0x40000000, 64 * M)
    memory.reserve(0x40000000, M)
    top, huge = CmaRegion("top", 0, M, alignment=2 * M), CmaRegion("huge", 0, 128 * M)
    fixed, taken = CmaRegion("fixed", 0x42000000, M), CmaRegion("taken", 0x40080000, M)
    assert reserved(framework(), [top, fixed, taken, huge], memory) == [True, True, False, False]
    assert (top.start, fixed.start, taken.start) == (0x43E00000, 0x42000000, 0x40080000)
    assert [(r.base, r.end) for r in memory.reserved] == [
        (0x40000000, 0x40100000),
        (0x42000000, 0x42100000),
        (0x43E00000, 0x43F00000),
    ]


def test_address_0_counts_as_failure():
    memory = boot_memory(0, M)
    assert reserved(framework(), [CmaRegion("a", 0, M)], memory) == [False]
    assert memory.reserved == []


def test_room_at_the_top_of_the_address_space_is_not_used():
    memory = boot_memory(0xFFF00000, M)
    assert reserved(framework(), [CmaRegion("a", 0, M), CmaRegion("b", 0, 64 * K)], memory) == [False, False]
    assert memory.reserved == []


def test_reserving_goes_on_after_a_failure_and_init_drops_the_failed():
    cma = framework()
    cma.cma_set_defaults([CmaRegion("a", 0, M), CmaRegion("b", 0, 128 * M), CmaRegion("c", 0, M)], "d=b,c")
    cma.early.reserve_all(boot_memory(0x40000000, 64 * M))
    cma.cma_init()
    with_bf(cma)
    assert [r.name for r in cma.regions] == ["c", "a"]  # the last one registered is found first
    assert cma.cma_alloc("d", None, 4096) == 0x43E00000
    assert "cma: init: b: unable to reserve 08000000@(null)/00001000" in log_of(cma)
    assert "cma: init: a: reserved 00100000@43f00000" in log_of(cma)


def test_v1_removes_a_region_that_cannot_be_reserved():
    cma = framework("v1")
    cma.cma_set_defaults("a=1M;b=128M;c=1M", "d=b,c")
    cma.early.reserve_all(boot_memory(0x40000000, 64 * M))
    assert [r.name for r in cma.early.regions] == ["a", "c"]
    assert [r.name for r in cma.early.unreserved] == ["b"]


def test_v1_platform_strings_serve_only_without_boot_parameters():
    cma = framework("v1")
    cma.cma_param("boot=1M")
    cma.cma_map_param("x=boot")
    cma.cma_set_defaults("board=2M", "y=board")
    assert ([r.name for r in cma.early.regions], cma.map) == (["boot"], "x=boot")
