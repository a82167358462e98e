"""dynamic_debug/control: what is listed, which queries are understood, dyndbg= on the command line."""

from __future__ import annotations

import errno

import pytest
from cma_support import build_areas, tables

from cmafs.fs.namei import Syscalls
from cmafs.lib.dynamic_debug import DynamicDebug
from cmafs.mm.cma import CmaAreas, cma_alloc

CONTROL = "/sys/kernel/debug/dynamic_debug/control"


@pytest.fixture
def areas() -> CmaAreas:
    return build_areas("6.12")


@pytest.fixture
def system(areas: CmaAreas) -> Syscalls:
    return tables(areas, "6.12")


def flags(areas: CmaAreas) -> dict[str, str]:
    """function and line -> flags, as the control file shows them."""
    debug = DynamicDebug(areas.log)
    return {
        f"{site.function}:{site.lineno}": debug.describe_flags(on)
        for site, on in areas.log.debug_flags.items()
    }


def switched(areas: CmaAreas) -> set[str]:
    return {key.split(":")[0] for key, value in flags(areas).items() if value != "_"}


def test_the_listing(system: Syscalls) -> None:
    lines = system.read_file(CONTROL).decode().splitlines()
    assert lines[0] == "# filename:lineno [module]function flags format"
    sites = [line.split(":")[0] for line in lines[1:]]
    assert sites == ["mm/cma.c"] * 6 + ["mm/cma_debug.c"]
    entry = next(line for line in lines if "[cma]__cma_alloc =" in line)
    assert entry.endswith('[cma]__cma_alloc =_ "%s(cma %p, name: %s, count %lu, align %d)\\n"')
    assert lines[-1].endswith(
        '[cma_debug]cma_free_mem =_ "cma: cannot release partial block when order_per_bit != 0\\n"'
    )
    assert system.lstat(CONTROL).st_mode == 0o100644


def test_older_kernels_list_newlines_in_octal() -> None:
    for kernel, end in (("5.15", "\\012"), ("6.1", "\\n")):
        lines = tables(build_areas(kernel, cma_debug=True), kernel).read_file(CONTROL).decode().splitlines()
        assert any(line.endswith(f'cma_release =p "%s(page %p, count %lu){end}"') for line in lines)


def test_classes_are_known_from_6_1_on() -> None:
    areas = build_areas("6.1")
    tables(areas, "6.1").write_file(CONTROL, b"class DRM_UT_CORE =pflmt")
    assert not any("f" in value for value in flags(areas).values())
    with pytest.raises(OSError) as refused:
        tables(build_areas("5.15"), "5.15").write_file(CONTROL, b"class DRM_UT_CORE =pflmt")
    assert refused.value.errno == errno.EINVAL


def test_a_kernel_with_cma_debug_lists_its_lines_as_on() -> None:
    areas = build_areas("6.1", cma_debug=True)
    assert switched(areas) == {"cma_declare_contiguous_nid", "cma_alloc", "cma_pages_valid", "cma_release"}
    system = tables(areas, "6.1")
    system.write_file(CONTROL, b"module cma -p")
    cma_alloc(areas[0], 1)
    assert areas.log.lines() == []


@pytest.mark.parametrize(
    ("query", "functions"),
    [
        (
            b"file mm/cma.c +p\n",
            {"cma_declare_contiguous_nid", "__cma_alloc", "cma_pages_valid", "cma_release"},
        ),
        (b"file cma_debug.c +p", {"cma_free_mem"}),
        (
            b"file cma* =p",
            {"cma_declare_contiguous_nid", "__cma_alloc", "cma_pages_valid", "cma_release", "cma_free_mem"},
        ),
        (b"func cma_release +p", {"cma_release"}),
        (b"func cma_?elease +p", {"cma_release"}),
        (b"module cma_debug +p", {"cma_free_mem"}),
        (b'format "partial block" +p', {"cma_free_mem"}),
        (b"format partial\\040block +p", {"cma_free_mem"}),
        (b'format "^cma: cannot" +p', {"cma_free_mem"}),
        (b"format ^cannot +p", set()),
        (b"file mm/cma.c:cma_release +p", {"cma_release"}),
        (b"file mm/cma.c line 1-300 +p", {"cma_declare_contiguous_nid"}),
        (b"file mm/cma.c:400-480 +p", {"__cma_alloc"}),
        (b"file mm/cma.c line -300 +p", {"cma_declare_contiguous_nid"}),
        (b"# nothing\n", set()),
        (b"func cma_release +p; func cma_free_mem +p", {"cma_release", "cma_free_mem"}),
        (b"func cma_release +p\nfunc cma_release -p\n", set()),
        (
            b"+p # all of them",
            {"cma_declare_contiguous_nid", "__cma_alloc", "cma_pages_valid", "cma_release", "cma_free_mem"},
        ),
        (b"file no/such.c +p", set()),
    ],
)
def test_queries(areas: CmaAreas, system: Syscalls, query: bytes, functions: set[str]) -> None:
    assert system.write_file(CONTROL, query) == len(query)
    assert switched(areas) == functions


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        (b"file mm/cma.c", ["bad flag-op m, at start of mm/cma.c", "flags parse failed"]),
        (b"file mm/cma.c +x", ["unknown flag 'x'", "flags parse failed"]),
        (b"file +p", ["expecting pairs of match-spec <value>", "query parse failed"]),
        (b"files mm/cma.c +p", ['unknown keyword "files"', "query parse failed"]),
        (b"func a func b +p", ["match-spec:func val:a overridden by b", "query parse failed"]),
        (b"line x +p", ["bad line-number: x", "query parse failed"]),
        (b"line 9-3 +p", ["last-line:3 < 1st-line:9", "query parse failed"]),
        (b'format "open +p', ["unclosed quote: open +p", "tokenize failed"]),
        (b"a b c d e f g h i +p", ["too many words, legal max <=9", "tokenize failed"]),
    ],
)
def test_bad_queries(areas: CmaAreas, system: Syscalls, query: bytes, lines: list[str]) -> None:
    with pytest.raises(OSError) as refused:
        system.write_file(CONTROL, query)
    assert refused.value.errno == errno.EINVAL
    assert areas.log.lines() == [f"dyndbg: {line}" for line in lines]
    assert switched(areas) == set()


def test_a_bad_query_does_not_stop_the_others(areas: CmaAreas, system: Syscalls) -> None:
    with pytest.raises(OSError):
        system.write_file(CONTROL, b"nonsense\nfunc cma_release +p\n")
    assert switched(areas) == {"cma_release"}


def test_a_write_that_is_too_long(system: Syscalls) -> None:
    with pytest.raises(OSError) as refused:
        system.write_file(CONTROL, b"#" * 4096)
    assert refused.value.errno == errno.E2BIG
    assert system.write_file(CONTROL, b"#" * 4095) == 4095


def test_flags_add_up(areas: CmaAreas, system: Syscalls) -> None:
    for query, shown in ((b"+pf", "pf"), (b"+l", "pfl"), (b"-p", "fl"), (b"=_", "_"), (b"=pt", "pt")):
        system.write_file(CONTROL, b"func cma_release " + query)
        assert [value for key, value in flags(areas).items() if key.startswith("cma_release")] == [shown]


def test_lines_with_function_and_line(areas: CmaAreas, system: Syscalls) -> None:
    system.write_file(CONTROL, b"func __cma_alloc line 1-460 =pmflt")
    cma_alloc(areas[0], 3)
    site = areas.abi.sites.entry
    pointer = areas.log.hash_ptr(areas[0].address)
    assert areas.log.lines() == [
        f"[38] cma:__cma_alloc:{site.lineno}: "
        f"cma: __cma_alloc(cma {pointer}, name: reserved, count 3, align 0)"
    ]


def test_old_kernels_name_the_function_that_complains() -> None:
    areas = build_areas("5.4")
    with pytest.raises(OSError):
        tables(areas, "5.4").write_file(CONTROL, b"file mm/cma.c")
    assert areas.log.lines()[0] == "dynamic_debug:ddebug_parse_flags: bad flag-op m, at start of mm/cma.c"


def test_the_command_line(areas: CmaAreas) -> None:
    debug = DynamicDebug(areas.log)
    debug.boot_params(
        [("cma", "16M"), ("dyndbg", "bad"), ("dyndbg", "func cma_release +p"), ("cma_debug.dyndbg", None)]
    )
    assert switched(areas) == {"cma_release", "cma_free_mem"}
    assert areas.log.lines() == ["dyndbg: bad flag-op b, at start of bad", "dyndbg: flags parse failed"]
    debug.boot_params([("cma.dyndbg", "func cma_pages_valid +p; func cma_free_mem -p")])
    assert switched(areas) == {"cma_release", "cma_free_mem", "cma_pages_valid"}
