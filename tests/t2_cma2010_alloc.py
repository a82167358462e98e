"""The calls of the 2010 framework: vectors B1 to B9, best-fit, every error, /dev/cma's ioctl."""

from __future__ import annotations

import errno
import struct

import pytest
from cma2010_support import (
    BASE_A,
    BASE_B,
    K,
    M,
    boot_memory,
    cma_request,
    framework,
    log_of,
    region,
    two_regions,
    with_bf,
)
from cma_support import refused
from hypothesis import given
from hypothesis import strategies as st

from cmafs.drivers.cma2010.chardev import (
    BY_DEVICE,
    BY_REGIONS,
    CMA_MAGIC,
    IOCTL_CMA_ALLOC,
    CmaFile,
)
from cmafs.drivers.cma2010.profile import MissingInterface
from cmafs.drivers.cma2010.regions import CmaAllocator, CmaChunk, CmaInfo, CmaRegion

MEIZU = [(5000, 0, 12288), (8192, 128 * K, 256 * K), (128 * K, 128 * K, 128 * K)]


def state(cma):
    return [(r.name, r.free_space, r.users) for r in cma.regions], cma.map


def one_region(size: int = M, start: int = BASE_A, profile: str = "vendor"):
    cma = framework(profile)
    cma.set_map("d=r")
    cma.cma_region_register(CmaRegion("r", start, size))
    return with_bf(cma)


# Vectors


def test_vector_b1_info():
    assert two_regions().cma_info("foo") == CmaInfo(0x40000000, 0x41100000, 2 * M, 2 * M, 2)


def test_vector_b2_region_after_region_then_enomem():
    cma = two_regions()
    assert [cma.cma_alloc("foo", None, M) for _ in "ab"] == [BASE_A, BASE_B]
    assert refused(cma.cma_alloc, "foo", None, 4096) == "ENOMEM"


def test_vector_b3_arguments_are_checked_before_the_map():
    cma = two_regions()
    before = state(cma)
    assert refused(cma.cma_alloc, "foo", None, 0) == "EINVAL"
    assert refused(cma.cma_alloc, "foo", None, 4096, 3) == "EINVAL"
    assert refused(cma.cma_alloc, "unmapped", None, 0) == "EINVAL"
    assert refused(cma.cma_alloc, "unmapped", None, 4096) == "ENOENT"
    assert state(cma) == before


def test_vector_b4_free_needs_the_chunk_s_start():
    cma = two_regions()
    cma.cma_alloc("foo", None, 2 * 4096)
    before = state(cma)
    assert refused(cma.cma_free, 0x40001000) == "ENOENT"
    assert state(cma) == before
    assert log_of(cma)[-2:] == ["no chunk starting at 40001000", "cma: free(40001000): not found"]


def test_vector_b5_sizes_are_rounded_to_a_page():
    cma = two_regions()
    cma.cma_alloc("foo", None, 1)
    assert (region(cma, "a").users, region(cma, "a").free_space) == (1, M - 4096)


def test_vector_b6_alloc_attribute_is_in_t3():
    cma = two_regions()
    reg = region(cma, "a")
    cma.set_allocator(reg, "bf")
    assert (reg.alloc, reg.alloc_name) == (None, "bf")
    start = cma.cma_alloc("foo", None, 1)
    assert refused(cma.set_allocator, reg, "bf") == "EBUSY"
    cma.cma_free(start)
    cma.set_allocator(reg, "bf")
    assert cma.cma_alloc("foo", None, 1) == BASE_A


def test_vector_b7_a_new_map_does_not_touch_live_chunks():
    cma = two_regions()
    start = cma.cma_alloc("foo", None, M)
    cma.set_map("foo=b")
    cma.cma_free(start)
    assert (cma.cma_alloc("foo", None, 4096), region(cma, "a").free_space) == (BASE_B, M)


def test_vector_b8_overlap():
    cma = two_regions()
    before = state(cma)
    assert refused(cma.cma_region_register, CmaRegion("c", 0x400FF000, 8 * K)) == "EADDRINUSE"
    assert state(cma) == before


@pytest.mark.parametrize(
    ("size", "align", "consumed"), [(5000, 0, 12288), (8192, 131072, 262144), (131072, 131072, 131072)]
)
def test_vector_b9_meizu_pads_sizes(size, align, consumed):
    cma = two_regions("meizu")
    cma.cma_alloc("foo", None, size, align)
    assert M - region(cma, "a").free_space == consumed
    plain = two_regions("meizu")
    plain.cma_alloc_from_region(region(plain, "a"), 5000)
    assert M - region(plain, "a").free_space == 8192


# Best-fit


def test_best_fit_worked_example():
    cma = one_region()
    requests = [(64 * K, 0), (4 * K, 64 * K), (8 * K, 64 * K), (64 * K, 64 * K), (0xF000, 0)]
    starts = [cma.cma_alloc("d", None, size, align) for size, align in requests]
    assert starts == [0x40000000, 0x40010000, 0x40020000, 0x400F0000, 0x40011000]


def test_best_fit_takes_the_hole_that_changed_last():
    cma = one_region(6 * 64 * K)
    chunks = [cma.cma_alloc("d", None, 64 * K) for _ in range(6)]
    for freed in (0, 4, 2):
        cma.cma_free(chunks[freed])
    assert cma.cma_alloc("d", None, 32 * K) == chunks[2]


def test_best_fit_passes_over_a_hole_that_only_fits_unaligned():
    cma = one_region(4 * 64 * K)
    first = cma.cma_alloc("d", None, 4 * K)
    guard = cma.cma_alloc("d", None, 68 * K)
    assert cma.cma_alloc("d", None, 4 * K) == guard + 68 * K
    cma.cma_free(guard)  # a hole of 68 KiB that holds 64 KiB aligned only from 0x40010000
    assert first == BASE_A
    assert cma.cma_alloc("d", None, 64 * K, 64 * K) == 0x40030000


def test_best_fit_merges_with_both_neighbours():
    cma = one_region(3 * 64 * K)
    chunks = [cma.cma_alloc("d", None, 64 * K) for _ in range(3)]
    for chunk in (chunks[0], chunks[2], chunks[1]):
        cma.cma_free(chunk)
    assert cma.cma_alloc("d", None, 3 * 64 * K) == BASE_A


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40), st.sampled_from([0, 1, 2, 4, 8])), max_size=60))
def test_best_fit_never_overlaps_nor_loses_memory(steps):
    cma = one_region(64 * 4 * K)
    live: dict[int, int] = {}
    for free, pages, align in steps:
        if free and live:
            start = sorted(live)[pages % len(live)]
            cma.cma_free(start)
            del live[start]
        else:
            try:
                start = cma.cma_alloc("d", None, pages * 4 * K, align * 4 * K)
            except OSError:
                assert pages > 64 - sum(live.values()) or len(live) > 0
                continue
            assert start % max(align * 4 * K, 4 * K) == 0
            assert all(start >= s + n * 4 * K or s >= start + pages * 4 * K for s, n in live.items())
            live[start] = pages
        assert cma.regions[0].free_space == (64 - sum(live.values())) * 4 * K
        assert cma.regions[0].users == len(live)
    for start in live:
        cma.cma_free(start)
    assert cma.cma_alloc("d", None, 64 * 4 * K) == BASE_A


# The calls and their errors, in the order they are checked


def test_alloc_errors_in_order():
    cma = two_regions()
    assert refused(cma.cma_alloc, "", None, 4096) == "EINVAL"
    cma.set_map("")
    assert refused(cma.cma_alloc, "", None, 4096) == "ENOENT"  # the map is looked at before the name
    v1 = framework("v1")
    assert refused(v1.cma_alloc, "", None, 4096) == "EINVAL"  # v1 looks at the name first
    assert refused(v1.cma_alloc, "foo", None, 4096) == "ENOENT"


def test_alloc_from():
    cma = two_regions()
    assert refused(cma.cma_alloc_from, "a", 0) == "EINVAL"
    assert refused(cma.cma_alloc_from, "a", 1, 3) == "EINVAL"
    assert refused(cma.cma_alloc_from, "", 1) == "ENOMEM"
    assert refused(cma.cma_alloc_from, "nosuch", 1) == "ENOMEM"
    assert cma.cma_alloc_from("nosuch,,b;a", 1) == BASE_B


def test_alloc_from_in_v3_takes_the_asterisk_regions_for_an_asterisk():
    cma = with_bf(framework("v3"))
    cma.cma_region_register(CmaRegion(None, 0x30000000, M, asterisk=True))
    for name, start in (("old", 0x40000000), ("new", 0x41000000)):
        cma.cma_region_register(CmaRegion(name, start, M, asterisk=True))
    cma.cma_region_register(CmaRegion("plain", 0x42000000, M))
    assert cma.cma_alloc_from("*", M) == 0x41000000  # the newest named one first
    assert cma.cma_alloc_from("*anything", M) == 0x40000000
    assert cma.cma_alloc_from("*", M) == 0x30000000  # unnamed ones last
    assert refused(cma.cma_alloc_from, "*", M) == "ENOMEM"


def test_private_region_is_reached_by_its_object_only():
    cma = two_regions()
    private = CmaRegion(None, 0x50000000, M)
    assert refused(cma.cma_alloc_from_region, private, 1) == "EINVAL"  # not registered
    cma.cma_region_register(private)
    assert cma.regions[-1] is private
    assert cma.cma_alloc_from_region(private, 1) == 0x50000000
    assert refused(cma.cma_alloc_from_region, private, 0) == "EINVAL"
    assert refused(cma.cma_alloc_from_region, private, 1, 6) == "EINVAL"
    assert refused(cma.cma_alloc_from_region, private, M) == "ENOMEM"


def test_alloc_from_region_tells_an_allocator_gone_wrong():
    cma = framework()
    cma.cma_allocator_register(
        CmaAllocator(
            "stuck", alloc=lambda reg, size, align: CmaChunk(reg, reg.start, size), free=lambda chunk: None
        )
    )
    reg = CmaRegion("r", BASE_A, M)
    cma.cma_region_register(reg)
    assert cma.cma_alloc_from_region(reg, 1) == BASE_A
    assert refused(cma.cma_alloc_from_region, reg, 1) == "EADDRINUSE"
    assert refused(cma.cma_alloc_from, "r", 1) == "ENOMEM"
    assert (reg.users, reg.free_space) == (1, M - 4096)


def test_region_register_errors():
    cma = framework()
    assert refused(cma.cma_region_register, CmaRegion("r", BASE_A, 0)) == "EINVAL"
    assert refused(cma.cma_region_register, CmaRegion("r", 0xFFF00000, 2 * M)) == "EINVAL"

    def no_init(reg):
        raise OSError(errno.ENODEV, "no")

    failing = CmaAllocator("x", init=no_init, alloc=lambda *a: None, free=lambda c: None)
    assert refused(cma.cma_region_register, CmaRegion("r", BASE_A, M, alloc=failing)) == "ENODEV"
    assert cma.regions == []


def test_the_newest_region_of_a_name_is_the_one_meant():
    cma = with_bf(framework())
    cma.cma_region_register(CmaRegion("r", BASE_A, M))
    cma.cma_region_register(CmaRegion("r", BASE_B, M))
    assert cma.cma_alloc_from("r", 1) == BASE_B


def test_allocator_register_needs_alloc_and_free():
    assert refused(framework().cma_allocator_register, CmaAllocator("x", alloc=lambda *a: None)) == "EINVAL"
    assert refused(framework().cma_allocator_register, CmaAllocator("x", free=lambda c: None)) == "EINVAL"


def test_the_first_allocator_is_the_default_and_a_named_one_can_be_wanted():
    cma = with_bf(framework())
    cma.cma_allocator_register(
        CmaAllocator("top", alloc=lambda r, s, a: CmaChunk(r, r.end - s, s), free=lambda chunk: None)
    )
    cma.cma_region_register(CmaRegion("r", BASE_A, M))
    cma.cma_region_register(CmaRegion("t", BASE_B, M, alloc_name="top"))
    assert (cma.cma_alloc_from("r", 4096), cma.cma_alloc_from("t", 4096)) == (BASE_A, BASE_B + M - 4096)


def test_an_unknown_allocator_is_enomem_until_it_is_registered():
    cma = with_bf(framework())
    cma.cma_region_register(CmaRegion("r", BASE_A, M, alloc_name="later"))
    assert refused(cma.cma_alloc_from, "r", 1) == "ENOMEM"
    assert "cma: init: r: later: no such allocator" in log_of(cma)
    later = CmaAllocator("later", alloc=lambda r, s, a: CmaChunk(r, r.start, s), free=lambda chunk: None)
    cma.cma_allocator_register(later)
    assert cma.cma_alloc_from("r", 1) == BASE_A


def test_info_errors():
    cma = two_regions()
    assert refused(cma.cma_info, "") == "EINVAL"
    assert refused(cma.cma_info, "unmapped") == "ENOENT"
    cma.set_map("")
    assert refused(cma.cma_info, "foo") == "ENOENT"


def test_info_counts_a_name_twice_and_unknown_ones_not():
    cma = two_regions()
    cma.set_map("foo=a,a,nosuch,b;bar=nosuch")
    info = cma.cma_info("foo")
    assert (info.count, info.total_size, info.upper_bound) == (3, 3 * M, 0x41100000)
    assert cma.cma_info("bar") == CmaInfo(0xFFFFFFFF, 0, 0, 0, 0)


def test_info_in_v1_has_no_free_size():
    cma = framework("v1")
    cma.cma_set_defaults("a=1M@0x40000000", "foo=a")
    cma.early.reserve_all(boot_memory(BASE_A, 64 * M))
    cma.cma_init()
    assert with_bf(cma).cma_info("foo") == CmaInfo(BASE_A, BASE_A + M, M, 0, 1)


def test_v1_put():
    cma = framework("v1")
    cma.set_map("foo=a")
    cma.cma_region_register(CmaRegion("a", BASE_A, M))
    with_bf(cma)
    start = cma.cma_alloc("foo", None, 4096)
    cma.cma_put(start)
    assert refused(cma.cma_put, start) == "ENOENT"
    assert (region(cma, "a").free_space, region(cma, "a").users) == (M, 0)


def test_v1_skips_regions_of_unknown_allocators():
    cma = framework("v1")
    cma.set_map("foo=a,b")
    cma.cma_region_register(CmaRegion("a", BASE_A, M, alloc_name="nosuch"))
    cma.cma_region_register(CmaRegion("b", BASE_B, M))
    with_bf(cma)
    assert cma.cma_alloc("foo", None, 1) == BASE_B


@pytest.mark.parametrize(
    ("profile", "call", "args"),
    [
        ("v1", "cma_free", (0,)),
        ("v1", "cma_alloc_from", ("a", 1)),
        ("v1", "cma_alloc_from_region", (CmaRegion(), 1)),
        ("v2", "cma_put", (0,)),
        ("vendor", "cma_put", (0,)),
    ],
)
def test_calls_that_a_version_does_not_have(profile, call, args):
    with pytest.raises(MissingInterface):
        getattr(framework(profile), call)(*args)


# /dev/cma


def request(
    spec: bytes, size: int = 4096, type_: int = BY_DEVICE, magic: int = CMA_MAGIC, align: int = 0
) -> bytes:
    return cma_request(spec, size, align, type_=type_, magic=magic)


def started(answer: bytes) -> int:
    return struct.unpack_from("<Q", answer, 24)[0]


def test_ioctl_allocates_and_close_frees():
    cma = two_regions()
    file = CmaFile(cma)
    answer = file.ioctl(IOCTL_CMA_ALLOC, request(b"foo", 5000))
    assert (len(answer), started(answer)) == (64, BASE_A)
    file.release()
    assert region(cma, "a").users == 0


def test_ioctl_cuts_the_spec_at_its_last_slash():
    cma = two_regions()
    cma.set_map("x?y/z=b;x=a")
    assert started(CmaFile(cma).ioctl(IOCTL_CMA_ALLOC, request(b"x/y/z"))) == BASE_B
    assert started(CmaFile(cma).ioctl(IOCTL_CMA_ALLOC, request(b"x"))) == BASE_A


def test_ioctl_by_region_list():
    answer = CmaFile(two_regions()).ioctl(IOCTL_CMA_ALLOC, request(b"b,a", type_=BY_REGIONS))
    assert started(answer) == BASE_B


@pytest.mark.parametrize(
    ("cmd", "arg", "code"),
    [
        (0xC0407001, None, "ENOTTY"),
        (IOCTL_CMA_ALLOC, b"short", "EFAULT"),
        (IOCTL_CMA_ALLOC, request(b"foo", magic=1), "ENOTTY"),
        (IOCTL_CMA_ALLOC, request(b"foo", type_=2), "EINVAL"),
        (IOCTL_CMA_ALLOC, request(b"f" * 32), "EINVAL"),
        (IOCTL_CMA_ALLOC, request(b"foo", size=0), "EINVAL"),
        (IOCTL_CMA_ALLOC, request(b"nosuch"), "ENOENT"),
        (IOCTL_CMA_ALLOC, request(b"foo", size=2 * M), "ENOMEM"),
    ],
)
def test_ioctl_errors_leave_everything_as_it_was(cmd, arg, code):
    cma = two_regions()
    before = state(cma)
    file = CmaFile(cma)
    assert refused(file.ioctl, cmd, arg) == code
    assert state(cma) == before
    assert file.start is None


def test_ioctl_second_chunk_is_refused_before_the_request_is_read():
    file = CmaFile(two_regions())
    file.ioctl(IOCTL_CMA_ALLOC, request(b"foo"))
    assert refused(file.ioctl, IOCTL_CMA_ALLOC, b"short") == "EBADFD"


def test_ioctl_of_v1_has_its_own_layout():
    cma = framework("v1")
    cma.set_map("foo/x=a")
    cma.cma_region_register(CmaRegion("a", BASE_A, M))
    file = CmaFile(with_bf(cma))
    packed = cma_request(b"foo/x", v1=True)
    answer = file.ioctl(IOCTL_CMA_ALLOC, packed)
    assert (len(answer), struct.unpack_from("<Q", answer, 56)[0]) == (64, BASE_A)
    file.release()
    assert region(cma, "a").users == 0
    assert refused(CmaFile(cma).ioctl, IOCTL_CMA_ALLOC, packed[:4] + b"f" * 17 + packed[21:]) == "EINVAL"
