"""The 16 quirks of the 2010 framework: off, the documents' way; on (``--strict-quirks``), the code's."""

from __future__ import annotations

import pytest
from cma2010_support import BASE_A, BASE_B, K, M, framework, log_of, region, two_regions, with_bf
from cma_support import refused

from cmafs.drivers.cma2010.map import where_from
from cmafs.drivers.cma2010.profile import PROFILES, KernelOops, Quirks, quirks_of
from cmafs.drivers.cma2010.regions import CmaAllocator, CmaChunk, CmaRegion

CRASHING = [("v1", True), ("v3", True), ("v4", True), ("vendor", True), ("meizu", False)]


def lookup(profile: str, strict: bool, text: str, device: str, kind: str | None) -> str | None:
    return where_from(PROFILES[profile], quirks_of(PROFILES[profile], strict), text, device, kind)


def second_allocator(name: str) -> CmaAllocator:
    return CmaAllocator(name, alloc=lambda r, s, a: CmaChunk(r, r.start, s), free=lambda chunk: None)


@pytest.mark.parametrize("profile", ["v1", "v4", "vendor", "meizu"])
@pytest.mark.parametrize("text", ["foobar=r1;/a=r2", "f*o=r1;/a=r2"])
def test_quirk_q1_longer_pattern_sets_the_memory(profile, text):
    assert refused(lookup, profile, False, text, "foo", "a") == "ENOENT"
    assert lookup(profile, True, text, "foo", "a") == "r2"


@pytest.mark.parametrize("profile", ["v2", "v3"])
def test_quirk_q1_in_the_versions_with_an_asterisk(profile):
    assert lookup(profile, False, "foobar=r1;/a=r2", "foo", "a") is None
    assert lookup(profile, True, "foobar=r1;/a=r2", "foo", "a") == "r2"


def test_quirk_q2_v3_swallows_a_rule():
    text = "foo=r1;foo/quaz=r2;foo/*=r3"
    assert lookup("v3", False, text, "foo", "quaz") == "r2"
    assert lookup("v3", True, text, "foo", "quaz") == "r3"
    with pytest.raises(KernelOops, match=r"^Q2: "):
        lookup("v3", True, "foo=r1", "foo", "quaz")
    assert lookup("v3", True, "foo,/quaz=r1;foo/quaz=r2", "foo", "quaz") == "r2"  # /quaz is swallowed


def test_quirk_q3_v3_comma_is_wild():
    assert lookup("v3", False, "fo,bar=r1", "foobar", None) is None
    assert lookup("v3", True, "fo,bar=r1", "foobar", None) == "r1"
    assert lookup("v3", False, "foo,foobar=r1", "foobar", None) == "r1"
    assert refused(lookup, "v3", True, "foo,foobar=r1", "foobar", None) == "ENOENT"


def test_quirk_q4_v3_no_rule_is_enoent():
    assert lookup("v3", False, "foo=r1", "bar", None) is None
    assert refused(lookup, "v3", True, "foo=r1", "bar", None) == "ENOENT"


@pytest.mark.parametrize("profile", ["v3", "v4"])
def test_quirk_q5_region_list_is_lost_behind_its_first_name(profile):
    for strict in (False, True):
        cma = two_regions(profile, strict)
        assert cma.cma_alloc("foo", None, M) == BASE_A
        if not strict:
            assert cma.cma_alloc("foo", None, M) == BASE_B
            continue
        with pytest.raises(KernelOops, match=r"^Q5: "):
            cma.cma_alloc("foo", None, M)
        with pytest.raises(KernelOops, match=r"^Q5: "):
            cma.cma_info("foo")
    fixed = two_regions("vendor", strict=True)
    assert [fixed.cma_alloc("foo", None, M) for _ in "ab"] == [BASE_A, BASE_B]


@pytest.mark.parametrize(("profile", "crashes"), CRASHING)
def test_quirk_q6_best_fit_advances_from_a_null_node(profile, crashes):
    for strict in (False, True):
        cma = framework(profile, strict)
        cma.set_map("d=r")
        cma.cma_region_register(CmaRegion("r", BASE_A, 256 * K))
        with_bf(cma)
        cma.cma_alloc("d", None, 4 * K)
        middle = cma.cma_alloc("d", None, 68 * K)
        cma.cma_alloc("d", None, 4 * K)
        cma.cma_put(middle) if profile == "v1" else cma.cma_free(middle)
        if strict and crashes:
            with pytest.raises(KernelOops, match=r"^Q6: "):
                cma.cma_alloc("d", None, 64 * K, 64 * K)
        else:
            assert cma.cma_alloc("d", None, 64 * K, 64 * K) == 0x40030000


def test_quirk_q7_registering_attaches_the_wrong_regions():
    for strict, shown in ((False, [None, None]), (True, ["bf", None])):
        cma = framework("vendor", strict)
        other, default = CmaRegion("o", BASE_A, M, alloc_name="other"), CmaRegion("d", BASE_B, M)
        cma.cma_region_register(other)
        cma.cma_region_register(default)
        with_bf(cma)
        assert [r.alloc and r.alloc.name for r in (other, default)] == shown
        cma.cma_allocator_register(second_allocator("second"))
        assert (default.alloc and default.alloc.name) == ("second" if strict else None)


def test_quirk_q8_a_failed_attach_is_final():
    for strict, code in ((False, ""), (True, "ENOMEM")):
        cma = framework("vendor", strict)
        reg = CmaRegion("r", BASE_A, M)
        cma.cma_region_register(reg)
        assert refused(cma.cma_alloc_from, "r", 1) == "ENOMEM"  # no allocator yet
        cma.allocators.append(second_allocator("late"))  # known, but no registration passes by
        if code:
            assert refused(cma.cma_alloc_from, "r", 1) == code
            cma.cma_allocator_register(second_allocator("second"))  # a later one picks it up
        assert cma.cma_alloc_from("r", 1) == BASE_A


def test_quirk_q8_a_detached_region_stays_detached():
    for strict in (False, True):
        cma = two_regions("vendor", strict)
        cma.cma_free(cma.cma_alloc("foo", None, 1))
        cma.set_allocator(region(cma, "a"), "bf")
        assert cma.cma_alloc("foo", None, 1) == (BASE_B if strict else BASE_A)


@pytest.mark.parametrize("profile", ["v3", "v4", "vendor", "meizu"])
def test_quirk_q9_platform_against_command_line(profile):
    for strict, expected in ((False, ("x=boot", ["boot"])), (True, ("y=board", ["boot", "board"]))):
        cma = framework(profile, strict)
        cma.cma_param("boot=1M")
        cma.cma_map_param("x=boot")
        cma.cma_set_defaults([CmaRegion("board", 0, M)], "y=board")
        assert (cma.map, [r.name for r in cma.early.regions]) == expected


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("profile", ["v4", "vendor", "meizu"])
def test_quirk_q10_minus_is_part_of_the_name(profile, strict):
    cma = framework(profile, strict)
    cma.cma_param("-fw=1M")
    assert [r.name for r in cma.early.regions] == ["-fw"]


def test_quirk_q11_v1_lookup_stops_at_a_region_at_0():
    for strict in (False, True):
        cma = framework("v1", strict)
        cma.cma_region_register(CmaRegion("zero", 0, M))
        cma.cma_region_register(CmaRegion("behind", BASE_A, M))
        assert (cma.find_region("behind") is None) == strict


@pytest.mark.parametrize("strict", [False, True])
def test_quirk_q14_meizu_pads_by_one_alignment_too_many(strict):
    cma = two_regions("meizu", strict)
    cma.cma_alloc("foo", None, 5000)
    assert M - region(cma, "a").free_space == 12288
    vendor = two_regions("vendor", strict)
    vendor.cma_alloc("foo", None, 5000)
    assert M - region(vendor, "a").free_space == 8192


def test_quirk_q15_v1_does_not_round():
    for strict, consumed in ((False, 8192), (True, 5000)):
        cma = framework("v1", strict)
        cma.set_map("foo=a")
        cma.cma_region_register(CmaRegion("a", BASE_A, M))
        with_bf(cma)
        first = cma.cma_alloc("foo", None, 5000, 0)
        assert cma.cma_alloc("foo", None, 1, 0) == first + consumed


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("profile", ["v4", "vendor", "meizu"])
def test_quirk_q16_slash_asterisk_is_a_literal_type(profile, strict):
    assert lookup(profile, strict, "foo/*=r", "foo", "*") == "r"
    assert refused(lookup, profile, strict, "foo/*=r", "foo", "x") == "ENOENT"
    assert refused(lookup, profile, strict, "foo/a=q;/*=r", "foo", None) == "ENOENT"


def test_documents_are_the_default():
    assert all(quirks_of(profile, strict=False) == Quirks() for profile in PROFILES.values())


def test_an_oops_leaves_the_state_as_it_was():
    cma = two_regions("v4", strict=True)
    cma.cma_alloc("foo", None, M)
    before = [(r.free_space, r.users) for r in cma.regions]
    with pytest.raises(KernelOops):
        cma.cma_alloc("foo", None, M)
    assert [(r.free_space, r.users) for r in cma.regions] == before
    assert not any("not found" in line for line in log_of(cma))
