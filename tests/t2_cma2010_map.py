"""The map language of the 2010 framework: the 58 vectors of its specification, and a slow matcher.

Vector 23 of the specification (docs/cma2010.md) is ``test_vector[23-...]`` here.
"""

from __future__ import annotations

import errno
import re

import pytest
from cma2010_support import M, framework, with_bf
from hypothesis import given
from hypothesis import strategies as st

from cmafs.drivers.cma2010.map import map_validate, region_names, where_from
from cmafs.drivers.cma2010.profile import PROFILES, QUIRKS, KernelOops, Quirks
from cmafs.drivers.cma2010.regions import CmaInfo, CmaRegion

MFC = "s3c-mfc/A=mfc0,mfc-secure;s3c-mfc/B=mfc1,mfc-normal;s3c-mfc/AB=mfc"
KDOC = "foo=r1;foo/quaz=r2;foo/*=r3;bar/*=r1,r2;baz?/a*,baz?/b*=r3"
SLASHED = "video,camera=region;*/*=common"
STARRED = "video,camera=region;*=common"
MX2 = (
    "ram_console=ram_console;logger=logger;android_pmem.0=pmem;android_pmem.1=pmem_gpu1;"
    "s3cfb.0/fimd=fimd;exynos4-fb.0/fimd=fimd;"
    "s3c-fimc.0=fimc0;s3c-fimc.1=fimc1;s3c-fimc.2=fimc2;s3c-fimc.3=fimc3;"
    "exynos4210-fimc.0=fimc0;exynos4210-fimc.1=fimc1;exynos4210-fimc.2=fimc2;exynos4210-fimc.3=fimc3;"
    "s3c-mfc/A=mfc0,mfc-secure;s3c-mfc/B=mfc1,mfc-normal;s3c-mfc/AB=mfc;samsung-rp=srp;"
    "s5p-jpeg=jpeg;jpeg_v1=jpeg;jpeg_v2=jpeg;exynos4-fimc-is/f=fimc_is;s5p-mixer=tv;s5p-fimg2d=fimg2d;"
    "ion-exynos=ion,fimd,fimc0,fimc1,fimc2,fimc3,fw,b1,b2;"
    "s5p-smem/mfc=mfc0,mfc-secure;s5p-smem/fimc=fimc3;s5p-smem/mfc-shm=mfc1,mfc-normal;"
)
AST, ENOENT, PAST_END = "asterisk regions", "ENOENT", "read past the end"
NEW = "v4 vendor meizu"
DOC, CODE, BOTH = (False,), (True,), (False, True)

# number, profiles, document and/or code, map, device, kind (None: absent), result
VECTORS = [
    (1, "v1 v3", BOTH, SLASHED, "camera", None, "region"),
    (2, "v1 v3", BOTH, SLASHED, "gpu", "x", "common"),
    (3, "v3", DOC, SLASHED, "video", "x", "common"),
    (3, "v1", BOTH, SLASHED, "video", "x", "common"),
    (4, NEW, BOTH, SLASHED, "gpu", None, ENOENT),
    (5, NEW, BOTH, SLASHED, "video", "x", "region"),
    (6, NEW, BOTH, STARRED, "gpu", "fw", "common"),
    (7, NEW, BOTH, STARRED, "camera", "fw", "region"),
    (8, "v1", BOTH, STARRED, "gpu", "fw", ENOENT),
    (9, "v3", DOC, STARRED, "gpu", "fw", AST),
    (9, "v3", CODE, STARRED, "gpu", "fw", PAST_END),
    (10, NEW, BOTH, "*=region", "anything", "any", "region"),
    (11, NEW, BOTH, MFC, "s3c-mfc", "A", "mfc0,mfc-secure"),
    (12, NEW, BOTH, MFC, "s3c-mfc", "AB", "mfc"),
    (13, NEW, BOTH, MFC, "s3c-mfc", None, ENOENT),
    (14, NEW, BOTH, MFC, "s3c-mfc", "a", ENOENT),
    (
        15,
        NEW,
        BOTH,
        "s5p-smem/mfc=mfc0,mfc-secure;s5p-smem/mfc-shm=mfc1,mfc-normal",
        "s5p-smem",
        "mfc-shm",
        "mfc1,mfc-normal",
    ),
    (16, NEW, BOTH, "s3cfb.0/fimd=fimd;exynos4-fb.0/fimd=fimd", "s3cfb.0", None, ENOENT),
    (17, NEW, BOTH, "s3c-fimc.0=fimc0;s3c-fimc.1=fimc1", "s3c-fimc.1", "x", "fimc1"),
    (
        18,
        NEW,
        BOTH,
        "ion-exynos=ion,fimd,fimc0,fimc1,fimc2,fimc3,fw,b1,b2",
        "ion-exynos",
        None,
        "ion,fimd,fimc0,fimc1,fimc2,fimc3,fw,b1,b2",
    ),
    (19, "v1", BOTH, KDOC, "foo", "quaz", "r2"),
    (19, "v3", DOC, KDOC, "foo", "quaz", "r2"),
    (19, "v3", CODE, KDOC, "foo", "quaz", "r3"),
    (20, "v1 v3", BOTH, KDOC, "foo", "other", "r3"),
    (21, "v1 v3", BOTH, KDOC, "bar", None, "r1,r2"),
    (22, "v1 v3", BOTH, KDOC, "bazX", "beta", "r3"),
    (23, "v1", BOTH, KDOC, "bazX", "c", ENOENT),
    (23, "v3", DOC, KDOC, "bazX", "c", AST),
    (23, "v3", CODE, KDOC, "bazX", "c", ENOENT),
    (24, "v1", BOTH, KDOC, "baz", "a", ENOENT),
    (24, "v3", DOC, KDOC, "baz", "a", AST),
    (24, "v3", CODE, KDOC, "baz", "a", ENOENT),
    (25, NEW, BOTH, KDOC, "foo", "quaz", "r1"),
    (26, NEW, BOTH, KDOC, "bar", None, ENOENT),
    (27, NEW, BOTH, "baz?/a,baz?/b=r3", "baz1", "b", "r3"),
    (28, "v1 v3", BOTH, "foo/quaz=r1;/*=r2", "foo", "z", "r2"),
    (29, NEW, BOTH, "foo/quaz=r1;/*=r2", "foo", "z", ENOENT),
    (30, "v1 v2 v3 v4 vendor meizu", BOTH, "foo/quaz=r1;/zip=r2", "foo", "zip", "r2"),
    (31, NEW, BOTH, "foo/quaz=r1;bar=r5;/zip=r2", "foo", "zip", ENOENT),
    (32, "v1", BOTH, "foo/quaz=r1;bar=r5;/zip=r2", "bar", "zip", "r2"),
    (32, "v3", DOC, "foo/quaz=r1;bar=r5;/zip=r2", "bar", "zip", "r2"),
    (32, "v3", CODE, "foo/quaz=r1;bar=r5;/zip=r2", "bar", "zip", ENOENT),
    (33, NEW, BOTH, "foo/quaz=r1;bar=r5;/zip=r2", "bar", "zip", "r5"),
    (34, f"v1 {NEW}", BOTH, "/x=r1", "foo", "x", ENOENT),
    (34, "v2 v3", DOC, "/x=r1", "foo", "x", AST),
    (35, NEW, DOC, "foobar=r1;/a=r2", "foo", "a", ENOENT),
    (35, NEW, CODE, "foobar=r1;/a=r2", "foo", "a", "r2"),
    (36, "v1 v2 v3 v4 vendor meizu", BOTH, "foo/a,/b=r1", "foo", "b", "r1"),
    (37, NEW, BOTH, "foo/a=a,b;foo/b=b,a;*=a,b", "foo", "b", "b,a"),
    (38, NEW, BOTH, "foo/a=a,b;foo/b=b,a;*=a,b", "foo", None, "a,b"),
    (39, "v3", DOC, "foo,foobar=r1", "foobar", None, "r1"),
    (39, "v3", CODE, "foo,foobar=r1", "foobar", None, ENOENT),
    (40, NEW, BOTH, "foo,foobar=r1", "foobar", None, "r1"),
    (41, NEW, BOTH, "f*o=r1;*=r2", "foo", None, "r2"),
    (42, "v1 v2 v3 v4 vendor meizu", BOTH, "fo*=r", "fo", None, "r"),
    (43, f"v1 {NEW}", BOTH, "fo?=r", "fo", None, ENOENT),
    (43, "v2 v3", DOC, "fo?=r", "fo", None, AST),
    (44, NEW, BOTH, "foo*/fw=r", "foo.1", "fw", "r"),
    (45, NEW, BOTH, "foo/common=r", "foo", None, "r"),
    (46, NEW, BOTH, "foo/=r", "foo", "", "r"),
    (46, NEW, BOTH, "foo/=r", "foo", None, ENOENT),
    (47, "v1 v3", BOTH, "foo/=r", "foo", None, "r"),
    (48, "v2 v3", BOTH, "foo=*", "foo", None, AST),
    (49, NEW, BOTH, "foo=", "foo", None, ""),
    (53, "v2 v3 v4 vendor meizu", BOTH, "a=b=c", "a", None, "b=c"),
    (54, f"v1 {NEW}", BOTH, "foo = r", "foo", None, ENOENT),
    (54, "v2 v3", DOC, "foo = r", "foo", None, AST),
    (55, NEW, BOTH, "foo=r1;foo=r2", "foo", None, "r1"),
]
CASES = [
    pytest.param(profile, strict, *rest, id=f"{n}-{profile}-{'code' if strict else 'doc'}-{i}")
    for i, (n, profiles, modes, *rest) in enumerate(VECTORS)
    for profile in profiles.split()
    for strict in modes
]


def answer(profile: str, quirks: Quirks, text: str, device: str, kind: str | None) -> str:
    try:
        found = where_from(PROFILES[profile], quirks, map_validate(PROFILES[profile], text), device, kind)
    except KernelOops:
        return PAST_END
    except OSError as error:
        return errno.errorcode[error.errno]
    return AST if found is None else found


@pytest.mark.parametrize(("profile", "strict", "text", "device", "kind", "expected"), CASES)
def test_vector(profile, strict, text, device, kind, expected):
    assert answer(profile, QUIRKS[profile] if strict else Quirks(), text, device, kind) == expected


def test_every_vector_of_the_map_is_here():
    elsewhere = {50, 51, 52, 56, 57, 58}  # the functions below
    assert {v[0] for v in VECTORS} | elsewhere == set(range(1, 59))


def test_vector_49_empty_region_list_gives_no_memory_and_no_bounds():
    cma = with_bf(framework())
    cma.set_map("foo=")
    with pytest.raises(OSError) as refused:
        cma.cma_alloc("foo", None, 4096)
    info = cma.cma_info("foo")
    assert (refused.value.errno, info) == (errno.ENOMEM, CmaInfo(0xFFFFFFFF, 0, 0, 0, 0))


@pytest.mark.parametrize(("profile", "code"), [("v1", "ENOENT"), ("v4", "ENOENT"), ("vendor", "ENOENT")])
def test_vector_50_no_map(profile, code):
    with pytest.raises(OSError) as refused:
        framework(profile).cma_alloc("foo", None, 4096)
    assert errno.errorcode[refused.value.errno] == code


def test_vector_50_no_map_v3_takes_asterisk_regions():
    cma = with_bf(framework("v3"))
    cma.cma_region_register(CmaRegion("plain", 0x50000000, M))
    cma.cma_region_register(CmaRegion("starred", 0x40000000, M, asterisk=True))
    assert cma.cma_alloc("foo", None, M) == 0x40000000


@pytest.mark.parametrize("profile", ["v3", "v4", "vendor", "meizu"])
@pytest.mark.parametrize("bad", ["foo", "=r", ";foo=r", "foo=r;bar", "foo=r;;bar=r", "a=r;;"])
def test_vector_51_bad_map_is_refused_and_the_old_one_kept(profile, bad):
    cma = framework(profile)
    cma.set_map("old=r")
    with pytest.raises(OSError) as refused:
        cma.set_map(bad)
    assert (refused.value.errno, cma.map) == (errno.EINVAL, "old=r")
    regions = [CmaRegion("r", 0, M)]
    with pytest.raises(OSError):
        cma.cma_set_defaults(regions, bad)
    assert (cma.map, cma.early.regions) == ("old=r", [])


@pytest.mark.parametrize("profile", ["v3", "v4", "vendor", "meizu"])
@pytest.mark.parametrize("text", ["a=r;", "a=r\njunk", "a=r;\njunk"])
def test_vector_52_what_is_stored(profile, text):
    assert map_validate(PROFILES[profile], text) == "a=r"
    assert answer(profile, Quirks(), text, "a", None) == "r"


def test_vector_55_only_the_first_rule_counts_even_when_its_region_is_full():
    cma = with_bf(framework())
    cma.set_map("foo=r1;foo=r2")
    cma.cma_region_register(CmaRegion("r1", 0x40000000, M))
    cma.cma_region_register(CmaRegion("r2", 0x41000000, M))
    assert cma.cma_alloc("foo", None, M) == 0x40000000
    with pytest.raises(OSError) as refused:
        cma.cma_alloc("foo", None, M)
    assert refused.value.errno == errno.ENOMEM


def test_vector_56_v1_discards_a_bad_map_whole():
    cma = framework("v1")
    cma.set_map("foo=r")
    with pytest.raises(OSError) as refused:
        cma.set_map("foo=r;;bar=r")
    assert (refused.value.errno, cma.map) == (errno.EINVAL, "")
    with pytest.raises(OSError) as unmapped:
        cma.cma_alloc("foo", None, 4096)
    assert unmapped.value.errno == errno.ENOENT


def test_vector_57_unknown_names_are_passed_over():
    cma = with_bf(framework())
    cma.set_map("foo=nosuch,r")
    cma.cma_region_register(CmaRegion("r", 0x40000000, M))
    info = cma.cma_info("foo")
    assert (cma.cma_alloc("foo", None, 4096), info.count) == (0x40000000, 1)


def test_vector_58_v2_default_asterisk_is_every_region_without_minus():
    cma = framework("v2")
    regions = "-mfc_fw=1M/128K;mfc_b1=32M;mfc_b2=16M@0x40000000"
    cma.cma_set_defaults(regions, "s3c-mfc5/f=mfc_fw;s3c-mfc5/a=mfc_b1;s3c-mfc5/b=mfc_b2")
    for start, reg in zip((0x50000000, 0x51000000, 0x40000000), cma.early.regions, strict=True):
        reg.start, reg.reserved = start, True
    cma.cma_init()
    with_bf(cma)
    assert cma.asterisk_list() == "mfc_b1,mfc_b2"
    assert cma.cma_alloc("cam", None, 32 * M) == 0x51000000
    assert cma.cma_alloc("cam", None, 16 * M) == 0x40000000
    cma.asterisk = "mfc_fw"
    assert cma.cma_alloc("cam", None, M) == 0x50000000


def test_v1_map_limits():
    assert map_validate(PROFILES["v1"], ";".join(["a=b"] * 64)).count("=") == 64
    with pytest.raises(OSError) as refused:
        map_validate(PROFILES["v1"], ";".join(["a=b"] * 65))
    assert refused.value.errno == errno.ENOSPC
    assert len(map_validate(PROFILES["v1"], "a=" + "b" * 600)) == 511


@pytest.mark.parametrize("empty", ["", "\n", "\0", "\nfoo=bar"])
def test_empty_map(empty):
    assert map_validate(PROFILES["vendor"], empty) == ""


def test_mx2_map_of_the_seed():
    stored = map_validate(PROFILES["meizu"], MX2)
    assert stored == MX2[:-1]
    rules = [rule.split("=") for rule in stored.split(";")]
    assert len(rules) == 28
    for pattern, regions in rules:
        device, slash, kind = pattern.partition("/")
        assert answer("meizu", Quirks(), stored, device, kind if slash else None) == regions
        assert answer("meizu", Quirks(), stored, device, "other") == (ENOENT if slash else regions)
    for device, kind in [("s3c-mfc", None), ("s3c-mfc", "ABC"), ("unknown", None), ("s3c-fimc.4", None)]:
        assert answer("meizu", Quirks(), stored, device, kind) == ENOENT


# An independent slow matcher: every pattern becomes a regular expression, the map a list of them.


def slow(profile: str, text: str, device: str, kind: str | None) -> str:
    old = profile in ("v1", "v2", "v3")
    if kind is None:
        kind = "" if old else "common"
    memory = None
    for rule in text.split(";"):
        left, regions = rule[: rule.index("=")], rule[rule.index("=") + 1 :]
        for pattern in left.split(","):
            if pattern[:1] != "/":
                memory = bool(re.fullmatch(regex(pattern.split("/")[0]), device, re.DOTALL))
            kind_pattern = None if "/" not in pattern else pattern[pattern.index("/") + 1 :]
            if kind_pattern is None:
                fits = not old or kind == ""
            elif old:
                fits = bool(re.fullmatch(regex(kind_pattern), kind, re.DOTALL))
            else:
                fits = kind_pattern == kind
            if memory and fits:
                return AST if profile in ("v2", "v3") and regions[:1] == "*" else regions
    return AST if profile in ("v2", "v3") else ENOENT


def regex(pattern: str) -> str:
    if "*" in pattern[:-1]:
        return "(?!)"  # an asterisk that is not last never matches
    return "".join({"?": ".", "*": ".*"}.get(c, re.escape(c)) for c in pattern)


words = st.text("ab?*", max_size=4)
patterns = st.builds(lambda d, s, k: f"{d}/{k}" if s else d, words, st.booleans(), words)
rules = st.builds(
    lambda p, r: f"{','.join(p)}={','.join(r)}",
    st.lists(patterns, min_size=1, max_size=3).filter(lambda p: ",".join(p)),
    st.lists(st.text("rs*", max_size=2), max_size=2),
)


@given(
    st.sampled_from(list(PROFILES)),
    st.lists(rules, min_size=1, max_size=4).map(";".join),
    st.text("ab", min_size=1, max_size=4),
    st.none() | st.text("ab", max_size=3) | st.just("common"),
)
def test_matcher_agrees_with_a_slow_one(profile, text, device, kind):
    assert answer(profile, Quirks(), text, device, kind) == slow(profile, text, device, kind)


@given(
    st.lists(rules, min_size=1, max_size=4).map(";".join),
    st.text("ab", min_size=1, max_size=4),
    st.text("ab", max_size=3),
)
def test_v3_code_always_ends(text, device, kind):
    found = answer("v3", QUIRKS["v3"], text, device, kind)
    assert found in (AST, ENOENT, PAST_END) or f"={found}" in text


@given(st.lists(st.text("ab=", max_size=3), max_size=4))
def test_region_names_are_the_parts_between_commas(names):
    text = ",".join(names)
    expected = names[:-1] if names and not names[-1] else names
    assert region_names(text + ";junk") == expected
