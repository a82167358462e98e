"""memparse, the cutting of a command line, cma= and the per-node lists."""

from __future__ import annotations

import pytest

from cmafs.lib.cmdline import CmaParam, memparse, next_args, parse_early_params, per_node_sizes

M, G = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ("64M", 64 * M, ""),
        ("64m", 64 * M, ""),
        ("512k", 512 << 10, ""),
        ("1G@1-2G", G, "@1-2G"),
        ("64", 64, ""),
        ("010M", 8 * M, ""),
        ("0x400M-0xb80M", 0x400 * M, "-0xb80M"),
        ("0xg", 0, "xg"),
        ("08M", 0, "8M"),
        ("abc", 0, "abc"),
        ("-1", 0, "-1"),
        ("+1M", 0, "+1M"),
        (" 64M", 0, " 64M"),
        ("", 0, ""),
        ("3T", 3 << 40, ""),
        ("5p", 5 << 50, ""),
        ("1E", 1 << 60, ""),
        ("1B", 1, "B"),
        ("16E", 0, ""),
        ("18446744073709551617", 1, ""),
        ("16M,32M", 16 * M, ",32M"),
        ("1KB", 1024, "B"),
    ],
)
def test_memparse(text: str, value: int, rest: str) -> None:
    assert memparse(text) == (value, rest)


def test_words_of_a_command_line() -> None:
    line = 'a b=1  "c d" e="f g" "h=i j"\tk= l="m"'
    assert list(next_args(line)) == [
        ("a", None),
        ("b", "1"),
        ("c d", None),
        ("e", "f g"),
        ("h", "i j"),
        ("k", ""),
        ("l", "m"),
    ]


@pytest.mark.parametrize(
    ("texts", "size", "base", "limit", "fixed"),
    [
        (["64M"], 64 * M, 0, 0, False),
        (["64M@256M"], 64 * M, 256 * M, 320 * M, True),
        (["64M@"], 64 * M, 0, 64 * M, True),
        (["64M@0-4G"], 64 * M, 0, 4 * G, False),
        (["1G@1-2G"], G, 1, 2 * G, False),
        (["64M@256M-320M"], 64 * M, 256 * M, 320 * M, True),
        (["64M@256M-"], 64 * M, 256 * M, 0, False),
        ([""], 0, 0, 0, True),
        (["64M@256M", "32M"], 32 * M, 256 * M, 320 * M, False),
        (["0xffffffffffffffff"], None, 0, 0, True),
    ],
)
def test_early_cma(texts: list[str], size: int | None, base: int, limit: int, fixed: bool) -> None:
    cma = CmaParam()
    for text in texts:
        cma.parse(text)
    assert (cma.size, cma.base, cma.limit, cma.fixed) == (size, base, limit, fixed)


def test_per_node_lists_stop_where_they_are_wrong() -> None:
    assert per_node_sizes("0:16M,1:32M", 16) == ([(0, 16 * M), (1, 32 * M)], False)
    assert per_node_sizes("0:16M,x:32M", 16) == ([(0, 16 * M)], False)
    assert per_node_sizes("99:16M", 99) == ([], False)
    assert per_node_sizes("+0:16M", 16) == ([], False)
    assert per_node_sizes("0:1M,1:2M", 1) == ([(0, M)], False)
    assert per_node_sizes("0:1M,2M", 16) == ([(0, M)], True)
    assert per_node_sizes("010:1M, 18446744073709551617:2M", 11) == ([(10, M), (1, 2 * M)], False)


def test_early_parameters() -> None:
    line = "cma=1M hugetlb-cma=2G cma cma_pernuma=8M numa_cma=1:4M log_buf_len=1M -- cma=9M"
    params = parse_early_params(line, True, 16)
    assert params.cma_seen == ["1M", None]
    assert (params.cma.size, params.hugetlb_cma, params.cma_pernuma) == (M, 2 * G, 8 * M)
    assert (params.numa_cma, params.log_buf_len) == ({1: 4 * M}, M)


def test_the_last_value_counts_and_a_parameter_without_one_does_not() -> None:
    line = "coherent-pool=1M coherent_pool=2M coherent_pool init=/a init init=/b"
    params = parse_early_params(line, True, 16)
    assert (params.coherent_pool, params.init) == (2 * M, "/b")
    assert params.values("coherent-pool") == params.values("coherent_pool") == ["1M", "2M", None]
    nothing = parse_early_params("", True, 16)
    assert (nothing.coherent_pool, nothing.init, nothing.cma.size, nothing.words) == (0, "/init", None, [])


def test_hugetlb_cma_by_node_needs_5_16() -> None:
    assert parse_early_params("hugetlb_cma=0:1G,1:2G", True, 2).hugetlb_cma == 3 * G
    assert parse_early_params("hugetlb_cma=0:1G,1:2G", False).hugetlb_cma == 0


@pytest.mark.parametrize(
    ("line", "size", "nodes"),
    [
        ("hugetlb_cma=1G hugetlb_cma=abc", G, {}),
        ("hugetlb_cma=1G hugetlb_cma=-2G", G, {}),
        ("hugetlb_cma=0:1G,0:2G", 3 * G, {0: 2 * G}),
        ("hugetlb_cma=0:1G hugetlb_cma=1:1G", 2 * G, {0: G, 1: G}),
        ("hugetlb_cma=0:1G,2G", 0, {0: G}),
        ("hugetlb_cma=0x40000000", G, {}),
        ("hugetlb_cma=15:1G", G, {15: G}),
        ("hugetlb_cma=16:1G", 0, {}),
    ],
)
def test_hugetlb_cma_adds_up(line: str, size: int, nodes: dict[int, int]) -> None:
    params = parse_early_params(line, True, 16)
    assert (params.hugetlb_cma, params.hugetlb_cma_node) == (size, nodes)


def test_without_numa_only_node_0_is_read() -> None:
    params = parse_early_params("hugetlb_cma=0:1G,1:1G numa_cma=1:4M", True)
    assert (params.hugetlb_cma, params.hugetlb_cma_node, params.numa_cma) == (G, {0: G}, {})
