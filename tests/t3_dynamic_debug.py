"""dynamic_debug/control: what is listed, which queries are understood, dyndbg= on the command line.

Modules: cmafs.fs.dynamic_debug, cmafs.lib.dynamic_debug.
"""

from __future__ import annotations

import errno
import re

import pytest
from boot_support import boot, tree_of
from cma_support import build_areas, tables

from cmafs.fs.namei import Syscalls
from cmafs.lib.dynamic_debug import DynamicDebug, unescape
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
    form = re.compile(r'(mm/\w+\.c):\d+ \[cma(_debug)?\]\w+ =_ "[^"]+\\n"')
    assert all(form.fullmatch(line) for line in lines[1:])
    sites = [line.split(":")[0] for line in lines[1:]]
    assert sites == ["mm/cma.c"] * 6 + ["mm/cma_debug.c"]
    entry = next(line for line in lines if "[cma]__cma_alloc =" in line)
    assert entry.endswith('[cma]__cma_alloc =_ "%s(cma %p, name: %s, count %lu, align %d)\\n"')
    assert lines[-1].endswith(
        '[cma_debug]cma_free_mem =_ "cma: cannot release partial block when order_per_bit != 0\\n"'
    )
    assert system.lstat(CONTROL).st_mode == 0o100644


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ((), ["mm/cma_debug.c", "kernel/dma/contiguous.c"]),
        (("CMA_DEBUGFS=n",), ["kernel/dma/contiguous.c"]),
        (("DMA_CMA=n",), ["mm/cma_debug.c"]),
    ],
)
def test_files_that_are_not_built_have_no_sites(config: tuple[str, ...], files: list[str]) -> None:
    """mm/Makefile, kernel/dma/Makefile@v6.12"""
    machine = boot(tree_of(), "6.12", "cma=16M", config=("DYNAMIC_DEBUG=y", *config))
    found = {site.filename for site in machine.log.debug_flags}
    assert found == {"mm/cma.c", *files}


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
        (b"file mm/cma.c line 300- +p", {"__cma_alloc", "cma_pages_valid", "cma_release"}),
        (b"file mm/cma.c:*lloc +p", {"__cma_alloc"}),
        (b"file mm/cma.c:?_cma_alloc +p", {"__cma_alloc"}),
        (b"file mm/cma.c:c?a_release +p", {"cma_release"}),
        (b"module cma func cma_free_mem +p", set()),
        (b"func [c]ma_release +p", set()),
        (b"class x +p", set()),
        (b'format "page %p, count" +p', {"cma_pages_valid", "cma_release"}),
        (b"module\t'cma_debug' +p", {"cma_free_mem"}),
        (b"line +400-480 +p", {"__cma_alloc"}),
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


def test_lines_of_a_query_are_inclusive(areas: CmaAreas, system: Syscalls) -> None:
    """ddebug_change(): neither before the first nor behind the last, which alone is both."""

    def lines(query: str) -> list[int]:
        system.write_file(CONTROL, f"=_;file mm/cma.c line {query} =p".encode())
        return [site.lineno for site, on in areas.log.debug_flags.items() if on]

    every = sorted(site.lineno for site in areas.log.debug_flags if site.filename == "mm/cma.c")
    assert len(every) == 6
    for index, line in enumerate(every):
        assert lines(f"{line}") == lines(f"{line}-{line}") == [line]
        assert sorted(lines(f"-{line}")) == sorted(lines(f"1-{line}")) == every[: index + 1]
        assert sorted(lines(f"{line}-")) == sorted(lines(f"{line}-4294967295")) == every[index:]
        assert sorted(lines(f"{line + 1}-")) == every[index + 1 :]
        assert lines(f"{line + 1}") == []


BAD_QUERIES = [
    (b"file mm/cma.c", "bad flag-op m, at start of mm/cma.c", "ddebug_parse_flags", "flags"),
    (b"~+p", "bad flag-op ~, at start of ~+p", "ddebug_parse_flags", "flags"),
    (b"file mm/cma.c +x", "unknown flag 'x'", "ddebug_parse_flags", "flags"),
    (b"file +p", "expecting pairs of match-spec <value>", "ddebug_parse_query", "query"),
    (b"files mm/cma.c +p", 'unknown keyword "files"', "ddebug_parse_query", "query"),
    (b"func a func b +p", "match-spec:func val:a overridden by b", "check_set", "query"),
    (b"file a file b +p", "match-spec:file val:a overridden by b", "check_set", "query"),
    (b"format a format b +p", "match-spec:format val:a overridden by b", "check_set", "query"),
    (b"module a module b +p", "match-spec:module val:a overridden by b", "check_set", "query"),
    (b"line 3 line 4 +p", "match-spec: line used 2x", "parse_linerange", "query"),
    (b"line -3 line 4 +p", "match-spec: line used 2x", "parse_linerange", "query"),
    (b"line x +p", "bad line-number: x", "parse_lineno", "query"),
    (b"line 4294967296 +p", "bad line-number: 4294967296", "parse_lineno", "query"),
    (b"line 9-3 +p", "last-line:3 < 1st-line:9", "parse_linerange", "query"),
    (b'format "open +p', "unclosed quote: open +p", "ddebug_tokenize", "tokenize"),
    (b"a b c d e f g h i +p", "too many words, legal max <=9", "ddebug_tokenize", "tokenize"),
]
STEPS = {"flags": "flags parse failed", "query": "query parse failed", "tokenize": "tokenize failed"}


@pytest.mark.parametrize(("query", "line", "function", "step"), BAD_QUERIES)
def test_bad_queries(
    areas: CmaAreas, system: Syscalls, query: bytes, line: str, function: str, step: str
) -> None:
    with pytest.raises(OSError) as refused:
        system.write_file(CONTROL, query)
    assert refused.value.errno == errno.EINVAL
    assert areas.log.lines() == [f"dyndbg: {line}", f"dyndbg: {STEPS[step]}"]
    assert [record.level for record in areas.log.records()] == [3, 3]
    assert switched(areas) == set()


@pytest.mark.parametrize(("query", "line", "function", "step"), BAD_QUERIES)
def test_old_kernels_name_the_function_that_complains(
    query: bytes, line: str, function: str, step: str
) -> None:
    areas = build_areas("5.4")
    with pytest.raises(OSError):
        tables(areas, "5.4").write_file(CONTROL, query)
    assert areas.log.lines() == [
        f"dynamic_debug:{function}: {line}",
        f"dynamic_debug:ddebug_exec_query: {STEPS[step]}",
    ]


def test_a_bad_query_does_not_stop_the_others(areas: CmaAreas, system: Syscalls) -> None:
    with pytest.raises(OSError):
        system.write_file(CONTROL, b"nonsense\nfunc cma_release +p\n")
    assert switched(areas) == {"cma_release"}


@pytest.mark.parametrize(
    ("kernel", "prefix"), [("5.4", "dynamic_debug:ddebug_proc_write"), ("5.10", "dyndbg"), ("6.12", "dyndbg")]
)
def test_a_write_that_is_too_long(kernel: str, prefix: str) -> None:
    areas = build_areas(kernel)
    system = tables(areas, kernel)
    assert system.write_file(CONTROL, b"#" * 4095) == 4095
    assert areas.log.lines() == []
    with pytest.raises(OSError) as refused:
        system.write_file(CONTROL, b"#" * 4096)
    assert refused.value.errno == errno.E2BIG
    (record,) = areas.log.records()
    assert (record.level, record.text) == (4, f"{prefix}: expected <4096 bytes into control")
    assert system.write_file(CONTROL, b"\0 nonsense") == 10


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


def test_the_command_line(areas: CmaAreas) -> None:
    debug = DynamicDebug(areas.log)
    debug.boot_params(
        [("cma", "16M"), ("dyndbg", "bad"), ("dyndbg", "func cma_release +p"), ("cma_debug.dyndbg", None)]
    )
    assert switched(areas) == {"cma_release", "cma_free_mem"}
    assert areas.log.lines() == ["dyndbg: bad flag-op b, at start of bad", "dyndbg: flags parse failed"]
    debug.boot_params([("cma.dyndbg", "func cma_pages_valid +p; func cma_free_mem -p")])
    assert switched(areas) == {"cma_release", "cma_free_mem", "cma_pages_valid"}


def test_a_query_of_a_module_s_parameter_is_of_that_module(areas: CmaAreas) -> None:
    debug = DynamicDebug(areas.log)
    debug.boot_params(
        [("cma.dyndbg", "module cma_debug +p"), ("cma_debug.dyndbg", "=pf;# nothing; func x +p")]
    )
    assert switched(areas) == {"cma_free_mem"}
    assert areas.log.lines() == [
        "dyndbg: match-spec:module val:cma overridden by cma_debug",
        "dyndbg: query parse failed",
    ]


def test_escapes_in_a_format() -> None:
    assert unescape(r"\n\r\t\v\f|\a\e|\\|\"|\101\7\400|\x\q") == '\n\r\t\v\f|\a\033|\\|"|A\7\0|\\x\\q'


@pytest.mark.parametrize(("kernel", "taken"), [("6.1", ""), ("6.12", "s"), ("7.2", "sd")])
def test_the_flags_that_newer_kernels_have(kernel: str, taken: str) -> None:
    system = tables(build_areas(kernel), kernel)
    for flag in "sd":
        if flag in taken:
            system.write_file(CONTROL, f"file mm/cma.c +{flag}\n".encode())
        else:
            with pytest.raises(OSError) as caught:
                system.write_file(CONTROL, f"file mm/cma.c +{flag}\n".encode())
            assert caught.value.errno == errno.EINVAL
    assert f"={taken or '_'} " in system.read_file(CONTROL).decode()


def test_a_file_that_is_named_twice_is_said_as_it_was_written(areas: CmaAreas, system: Syscalls) -> None:
    with pytest.raises(OSError):
        system.write_file(CONTROL, b"file mm/cma.c:cma_alloc file mm/cma.c:1-20 +p\n")
    assert areas.log.lines()[-2:] == [
        "dyndbg: match-spec:file val:mm/cma.c overridden by mm/cma.c:1-20",
        "dyndbg: query parse failed",
    ]
