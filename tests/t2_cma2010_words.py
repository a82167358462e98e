"""The 2010 framework at the bounds of C's types: what rounds up to 2^32 or 2^64, what is cut, what wraps.

By default such a request is refused; with ``--strict-quirks`` each version does what its code did (Q15, Q17,
Q18, Q19 of docs/cma2010.md). In both, chunks are disjoint, inside their region, and free space adds up.
"""

from __future__ import annotations

import errno
import struct

import pytest
from cma2010_support import K, M, boot_memory, cma_request, framework, log_of, with_bf
from hypothesis import example, given
from hypothesis import strategies as st

import cmafs
from cmafs.drivers.cma2010.chardev import (
    BY_DEVICE,
    BY_REGIONS,
    IOCTL_CMA_ALLOC,
    CmaFile,
)
from cmafs.drivers.cma2010.framework import Cma2010
from cmafs.drivers.cma2010.profile import PROFILES, KernelOops
from cmafs.drivers.cma2010.regions import CmaRegion
from cmafs.sim.validate_drivers import validate_2010

PAGE = 4096
TOP32, TOP64 = 1 << 32, 1 << 64
LATER = ["v2", "v3", "v4", "vendor"]


def one_region(profile: str, strict: bool, bits: int, start: int = 0x40000000, size: int = M) -> Cma2010:
    """A region ``r`` that serves every device."""
    cma = framework(profile, strict, bits)
    cma.cma_region_register(CmaRegion("r", start, size))
    cma.set_map("*=r")
    return with_bf(cma)


def ask(file: CmaFile, size: int, alignment: int = 0, by: int = BY_DEVICE) -> int | str:
    """The answer to an ioctl: where the chunk is in its region, or the errno's name, or the quirk's."""
    v1, spec = file.cma.profile.table, b"r" if by == BY_REGIONS else b"dev"
    request = cma_request(spec, size, alignment, type_=by, v1=v1)
    try:
        answer = file.ioctl(IOCTL_CMA_ALLOC, request)
    except OSError as error:
        return errno.errorcode[error.errno]
    except KernelOops as oops:
        return oops.quirk
    return struct.unpack_from("<Q", answer, 56 if v1 else 24)[0] - file.cma.regions[0].start


def asked(cma: Cma2010, size: int, alignment: int = 0, by: int = BY_DEVICE) -> int | str:
    return ask(CmaFile(cma), size, alignment, by)


def figures(cma: Cma2010) -> tuple[int, int]:
    return cma.regions[0].users, cma.regions[0].free_space


# attack.md 6, and its relatives at every entry


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_size_that_rounds_up_to_2_64_on_a_machine(profile):
    machine = cmafs.Machine.boot(
        kernel="2010", profile=profile, cmdline="cma=a=1M cma_map=foo=a cma.map=foo=a"
    )
    calls = machine.syscalls
    if PROFILES[profile].map_parameter is None:
        machine.write("/sys/kernel/mm/contiguous/map", "foo=a")

    def grant(size: int, alignment: int) -> tuple[int, str]:
        packed = bytearray(cma_request(b"foo", size, alignment, v1=profile == "v1"))
        descriptor = calls.open("/dev/cma", 2)
        try:
            calls.ioctl(descriptor, IOCTL_CMA_ALLOC, packed)
        except OSError as error:
            return descriptor, errno.errorcode[error.errno]
        assert machine.verify() == []
        return descriptor, "granted"

    first, answer = grant(0x10000, 4096)
    assert answer == "granted"
    assert grant(0xFFFFFFFFFFFFFFFF, 4096)[1] == "ENOMEM"
    calls.close(first)
    assert [grant(1, 0)[1], grant(0x10000, 1)[1]] == ["granted", "granted"]
    assert machine.verify() == []
    assert machine.read("/sim/log") == b""


@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize(("bits", "top"), [(32, TOP32), (64, TOP64)])
@pytest.mark.parametrize("alignment", [0, 1, PAGE, 64 * K, 1 << 31])
def test_sizes_below_the_top_are_more_than_there_is(profile, bits, top, alignment):
    cma = one_region(profile, False, bits)
    entries = [BY_DEVICE] if profile == "v1" else [BY_DEVICE, BY_REGIONS]
    for size in (top - 1, top - PAGE + 1, top - PAGE, top - PAGE - 1, top // 2 + 1, top - alignment - 1):
        for entry in entries:
            assert asked(cma, size, alignment, entry) == "ENOMEM"
    if profile != "v1":
        with pytest.raises(OSError) as refused:
            cma.cma_alloc_from_region(cma.regions[0], top - 1, alignment)
        assert refused.value.errno == errno.ENOMEM
    assert figures(cma) == (0, M)


@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize(
    ("size", "alignment"),
    [
        (0, 0),
        (0, PAGE),
        (1, 3),
        (1, TOP32 - 1),
        (1, TOP64 - 1),
        (1, TOP32 + 1),
        (TOP64 - 1, TOP64 - 1),
        (TOP32, 0),
        (TOP32 + PAGE, 0),
        (TOP64 - 1, 0),
        (PAGE, TOP32),
        (PAGE, 1 << 63),
        (TOP32 + 1, TOP32),
    ],
)
def test_what_no_word_of_32_bits_holds_is_no_argument(profile, size, alignment):
    cma = one_region(profile, False, 32)
    assert asked(cma, size, alignment) == "EINVAL"
    assert figures(cma) == (0, M)


@pytest.mark.parametrize("profile", list(PROFILES))
def test_an_alignment_whose_next_multiple_is_beyond_the_word(profile):
    cma = one_region(profile, False, 32, start=0x90000000)
    assert asked(cma, PAGE, 1 << 31) == "ENOMEM"
    assert asked(one_region(profile, False, 64, start=0x90000000), PAGE, 1 << 63) == "ENOMEM"
    if profile != "meizu":  # which would ask for two alignments more
        assert asked(one_region(profile, False, 32, start=0x80000000), PAGE, 1 << 31) == 0
    assert figures(cma) == (0, M)


def test_sums_of_sizes_wrap_as_size_t():
    cma = one_region("vendor", False, 32, size=1 << 30)
    cma.set_map("dev=r,r,r,r,r")
    info = cma.cma_info("dev")
    assert (info.count, info.total_size, info.free_size) == (5, 1 << 30, 1 << 30)


# The regions of the command line


def early(profile: str, strict: bool, bits: int, text: str) -> tuple[list[tuple[str | None, int, int]], str]:
    """The early regions that ``cma=`` made as (name, size, start), and the errno's name if it was refused."""
    cma = framework(profile, strict, bits)
    try:
        cma.cma_param(text)
        code = ""
    except OSError as error:
        code = errno.errorcode[error.errno]
    return [(reg.name, reg.size, reg.start) for reg in cma.early.regions], code


@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (32, "r=0xffffffff"),
        (32, "r=0xfffff001"),
        (64, "r=0xffffffffffffffff"),
        (32, "r=1M@0xffffffff"),
        (32, "r=1M@0xfff00001/1M"),
        (32, "r=1M@1/0x80000000;s=1M@0x80000001/0x80000000"),
        (64, "r=1M@0xffffffffffffffff"),
        (64, "r=1M@0x8000000000000001/0x8000000000000000"),
    ],
)
def test_a_region_that_rounds_up_beyond_the_word_is_refused(profile, bits, text):
    kept, code = early(profile, False, bits, text)
    assert ([name for name, *_ in kept], code) == (["r"] if ";" in text else [], "EINVAL")


@pytest.mark.parametrize("profile", list(PROFILES))
def test_q17_the_code_takes_what_is_left_in_a_word(profile):
    assert early(profile, True, 32, "r=0xffffffff") == ([("r", 0, 0)], "")
    assert early(profile, True, 64, "r=0xffffffffffffffff;s=1M") == ([("r", 0, 0), ("s", M, 0)], "")
    assert early(profile, True, 32, "r=1M@0xfff00001/1M") == ([("r", M, 0)], "")  # 0 is "anywhere"


def test_q17_a_region_of_size_0_is_dropped_and_ends_the_table_of_v1():
    for profile, names in (("v1", ["a"]), ("vendor", ["c", "a"])):
        cma = framework(profile, strict=True)
        cma.cma_param("a=1M;b=0xffffffff;c=1M")
        cma.early.reserve_all(boot_memory(0x40000000, 64 * M))
        cma.cma_init()
        assert [reg.name for reg in cma.regions] == names
        assert "b" in {reg.name for reg in cma.early.unreserved}


@pytest.mark.parametrize("digits", ["9" * 5000, "0x" + "f" * 5000, "0" + "7" * 5000, "0" * 5000])
def test_numbers_of_any_length_are_an_answer(digits):
    text = f"r={digits};s=1M@{digits};t=1M/{digits}"
    machine = cmafs.Machine.boot(kernel="2010", cmdline=f"cma={text} cma.map=d=r")
    assert machine.booted.cma2010 is not None
    assert [what for what, _ in machine.booted.cma2010.refused] == ["cma="]
    assert machine.read("/sim/log") == b""
    v3 = cmafs.Machine.boot(kernel="2010", profile="v3", cmdline="cma=a=1M")
    path = "/sys/kernel/mm/contiguous/regions/a/asterisk"
    assert v3.write(path, digits[:4000]) == min(len(digits), 4000)
    assert v3.read(path) == (b"0\n" if digits == "0" * 5000 else b"1\n")


# What the code did, version by version


@pytest.mark.parametrize("profile", LATER)
def test_q17_a_size_that_wraps_to_0_is_an_empty_chunk(profile):
    cma = one_region(profile, True, 64)
    first, empty = CmaFile(cma), CmaFile(cma)
    assert [ask(first, 0x10000, 4096), ask(empty, TOP64 - 1, 4096)] == [0, 0x10000]
    assert figures(cma) == (2, M - 0x10000)
    first.release()
    assert [asked(cma, 1), asked(cma, 0x10000, 1)] == [0, 0x1000]
    empty.release()
    assert (figures(cma), validate_2010(cma)) == ((2, M - 0x11000), [])


@pytest.mark.parametrize("profile", LATER)
def test_q17_the_next_chunk_from_there_is_an_oops(profile):
    cma = one_region(profile, True, 32)
    empty = CmaFile(cma)
    assert ask(empty, TOP32 - 1) == 0
    assert [asked(cma, PAGE), asked(cma, TOP32 - 1)] == ["Q17", "Q17"]
    assert (figures(cma), validate_2010(cma)) == ((1, M), [])
    assert asked(cma, PAGE, 64 * K) == "Q17"
    empty.release()
    assert "a hole starts at 40000000 already, the chunk is lost" in log_of(cma)[-2]
    assert [asked(cma, PAGE), asked(cma, M - PAGE)] == [0, PAGE]


def test_q17_an_empty_chunk_may_cut_a_hole_in_two():
    cma = one_region("vendor", True, 32, start=0x40001000, size=68 * K)
    empty = CmaFile(cma)
    assert ask(empty, TOP32 - 1, 64 * K) == 0xF000
    empty.release()
    assert asked(cma, 68 * K) == "ENOMEM"  # both halves are there, and are not joined
    cma.set_allocator(cma.regions[0], None)
    assert log_of(cma)[-1] == "cma: bf: r: more than one hole is left"
    assert asked(cma, 60 * K) == "ENOMEM"  # Q8: no allocator any more
    assert validate_2010(cma) == []


def test_q14_and_q17_meizu_pads_beyond_the_top():
    cma = one_region("meizu", True, 64)
    assert asked(cma, TOP64 - 1) == 0
    assert figures(cma) == (1, M - PAGE)  # one page for 16 EiB
    assert asked(cma, TOP64 - 5000) == PAGE
    assert figures(cma) == (2, M - PAGE)  # an empty chunk
    assert asked(cma, TOP64 - PAGE) == "ENOMEM"  # a multiple is not padded


def test_meizu_pads_what_is_asked_of_a_region_list_too():
    cma = one_region("meizu", False, 32)
    assert asked(cma, 5000, 0, BY_REGIONS) == 0
    assert figures(cma) == (1, M - 12288)


@pytest.mark.parametrize("bits", [32, 64])
def test_q15_v1_has_nothing_to_round(bits):
    cma = one_region("v1", True, bits)
    assert asked(cma, (1 << bits) - 1) == "ENOMEM"
    assert figures(cma) == (0, M)


@pytest.mark.parametrize("profile", list(PROFILES))
def test_q18_aligning_wraps_and_finds_room_outside_the_region(profile):
    cma = one_region(profile, True, 32, start=0x90000000)
    assert asked(cma, PAGE, 1 << 31) == "Q18"
    assert (figures(cma), validate_2010(cma)) == ((0, M), [])


@pytest.mark.parametrize("profile", list(PROFILES))
def test_q19_a_request_is_cut_to_the_word(profile):
    cma = one_region(profile, True, 32)
    assert asked(cma, TOP32 + PAGE, TOP32 + PAGE) == 0
    assert figures(cma) == (1, M - PAGE)
    assert [asked(cma, TOP32), asked(cma, PAGE, TOP32 + 3)] == ["EINVAL", "EINVAL"]


def test_an_empty_chunk_is_no_sound_state_where_no_quirk_made_it():
    cma = one_region("vendor", False, 32)
    assert asked(cma, PAGE) == 0
    cma.regions[0].free_space += PAGE
    cma.chunks()[0].size = 0
    assert validate_2010(cma) == ["region r: a chunk of no bytes"]


numbers = st.one_of(
    st.sampled_from(
        ["", "0", "1", "4K", "64k", "1M", "4G", "0x40000000", "010", "0xffffffff", "0xffffffffffffffff"]
    ),
    st.integers(0, 1 << 66).map(str),
    st.integers(0, 1 << 66).map(hex),
)
entries = st.builds(
    lambda name, size, start, alignment, rest: f"{name}={size}{start}{alignment}{rest}",
    st.text("ab-=,;", max_size=2),
    numbers,
    st.just("") | numbers.map("@{}".format),
    st.just("") | numbers.map("/{}".format),
    st.sampled_from(["", "", ":", ":bf", ":x(y)", ":x(", "x"]),
)


@given(
    st.sampled_from(list(PROFILES)),
    st.booleans(),
    st.sampled_from([32, 64]),
    st.lists(entries, max_size=18).map(";".join) | st.text("a=@/:;()-0x9KMG\n\0", max_size=20),
)
def test_any_cma_parameter_makes_sound_regions_or_is_refused(profile, strict, bits, text):
    cma = framework(profile, strict, bits)
    try:
        cma.cma_param(text)
    except OSError as error:
        assert error.errno in (errno.EINVAL, errno.ENOSPC)
    kept = len(cma.early.regions)
    cma.early.reserve_all(boot_memory(0x40000000, 64 * M))
    cma.cma_init()
    with_bf(cma)
    assert len(cma.regions) <= kept <= PROFILES[profile].regions_limit
    place = 1
    for reg in sorted(cma.regions, key=lambda reg: reg.start):
        assert place <= reg.start < reg.end <= cma.word.mask
        assert reg.start % PAGE == reg.size % PAGE == 0
        place = reg.end
    assert validate_2010(cma) == []


# Any sequence of opens and closes

EDGES = [0, 1, PAGE, 64 * K, M, 1 << 31, TOP32, 1 << 63, TOP64 - 1]
sizes = st.one_of(
    st.integers(1, 40).map(lambda pages: pages * PAGE),
    st.integers(0, 64 * PAGE),
    st.builds(lambda edge, off: max(edge + off, 0) % TOP64, st.sampled_from(EDGES), st.integers(-9000, 9000)),
)
alignments = st.one_of(
    st.just(0), st.integers(0, 63).map(lambda order: 1 << order), st.integers(0, TOP64 - 1)
)
steps = st.lists(
    st.one_of(
        st.tuples(sizes, alignments, st.sampled_from([BY_DEVICE, BY_REGIONS])),
        st.integers(0, 20).map(lambda which: (which,)),
    ),
    max_size=30,
)
places = st.sampled_from([PAGE, 0x40000000, 0x8FFFF000, 0xFF000000])


def sound(cma: Cma2010) -> None:
    """Chunks are disjoint, inside, counted; holes and chunks fill the region without a gap."""
    assert validate_2010(cma) == []
    reg = cma.regions[0]
    holes = reg.private_data.by_size if reg.private_data else [(reg.size, 0, reg.start)]
    ranges = [(start, size) for size, _, start in holes] + [(c.start, c.size) for c in cma.chunks() if c.size]
    place = reg.start
    for start, size in sorted(ranges):
        assert (start, size > 0) == (place, True)
        place += size
    assert place == reg.end


def expected(cma: Cma2010, size: int, alignment: int) -> str:
    """What the document says of a request: arguments first, then whether any gap holds it."""
    if not 0 < size <= cma.word.mask or alignment > cma.word.mask or alignment.bit_count() > 1:
        return "EINVAL"
    step = max(alignment, PAGE)
    if cma.profile.pads_alignment and size % step:
        size = -(-(size + step) // step) * step
    size = -(-size // PAGE) * PAGE
    reg = cma.regions[0]
    place = reg.start
    for start, end in [*sorted((c.start, c.start + c.size) for c in cma.chunks()), (reg.end, 0)]:
        if -(-place // step) * step + size <= start:
            return "granted"
        place = end
    return "ENOMEM"


def requests(cma: Cma2010, sequence):
    """Requests and releases, then all releases; of each request what the document says, the answer and the
    figures before it.
    """
    files: list[CmaFile] = []
    for step in sequence:
        if len(step) == 1:
            if files:
                files.pop(step[0] % len(files)).release()
        else:
            size, alignment, by = step
            file, before, wanted = CmaFile(cma), figures(cma), expected(cma, size, alignment)
            answer = ask(file, size, alignment, BY_DEVICE if cma.profile.table else by)
            yield alignment, wanted, answer, before
            if isinstance(answer, int):
                files.append(file)
        sound(cma)
    for file in files:
        file.release()
    sound(cma)


@given(st.sampled_from(list(PROFILES)), st.sampled_from([32, 64]), places, steps)
@example(
    "vendor", 64, 0x40000000, [(0x10000, PAGE, 0), (TOP64 - 1, PAGE, 0), (0,), (1, 0, 0), (0x10000, 1, 0)]
)
@example("vendor", 32, 0x8FFFF000, [(PAGE, 1 << 31, 0), (PAGE, 0, 1)])
def test_any_sequence_of_requests_by_the_document(profile, bits, start, sequence):
    cma = one_region(profile, False, bits, start, 64 * PAGE)
    for alignment, wanted, answer, before in requests(cma, sequence):
        if wanted == "granted":
            assert isinstance(answer, int)
            assert (start + answer) % max(alignment, PAGE) == 0
        else:
            assert (answer, figures(cma)) == (wanted, before)
    assert asked(cma, 64 * PAGE) == 0


@given(st.sampled_from(list(PROFILES)), st.sampled_from([32, 64]), places, steps)
@example(
    "vendor", 64, 0x40000000, [(0x10000, PAGE, 0), (TOP64 - 1, PAGE, 0), (0,), (1, 0, 0), (0x10000, 1, 0)]
)
@example("meizu", 32, 0x40000000, [(TOP32 - 5000, 0, 0), (PAGE, 1 << 31, 1), (1, 0, 0), (0,), (0,)])
def test_any_sequence_of_requests_by_the_code(profile, bits, start, sequence):
    cma = one_region(profile, True, bits, start, 64 * PAGE)
    for _, _, answer, before in requests(cma, sequence):
        if not isinstance(answer, int):
            assert answer in ("EINVAL", "ENOMEM", "Q6", "Q17", "Q18")
            assert figures(cma) == before
    assert figures(cma) == (0, 64 * PAGE)
