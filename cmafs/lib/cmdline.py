"""The kernel command line: how its words are cut, what a size is, what is said early about memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cmafs.lib.kstrtox import SPACE, U64_MAX, simple_strtoull

#: Suffix of a size -> log2 of its factor.
SIZE_SHIFTS = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}

#: What ``sscanf("%lu%n")`` finds of a per-node list, and the colon behind a node.
_NODE = re.compile(r"\s*([0-9]+)(:?)")


def memparse(text: str, shifts: Mapping[str, int] = SIZE_SHIFTS) -> tuple[int, str]:
    """A size with an optional suffix K, M, G, T, P, E: (bytes, the text behind it). 0 if there is no number.

    No sign and no blank before it; wraps at 64 bits. ``shifts``: the suffixes of another kernel.
    ``lib/cmdline.c:memparse()@v6.12``.
    """
    value, rest = simple_strtoull(text)
    shift = shifts.get(rest[:1].lower(), 0)
    return (value << shift) & U64_MAX, rest[1:] if shift else rest


def next_args(cmdline: str) -> Iterator[tuple[str, str | None]]:
    """The words of a command line as (parameter, value or None): ``lib/cmdline.c:next_arg()@v6.12``.

    Double quotes keep blanks together; quotes around a word or a value are taken off.
    """
    for word in _words(cmdline):
        quoted = word.startswith('"')
        text = word[1:] if quoted else word
        name, equals, value = text.partition("=")
        if not equals:
            yield text.removesuffix('"') if quoted else text, None
            continue
        if value.startswith('"'):
            value = value[1:].removesuffix('"')
        elif quoted:
            value = value.removesuffix('"')
        yield name, value


def _words(cmdline: str) -> Iterator[str]:
    word, quoted = "", False
    for char in cmdline:
        if char in SPACE and not quoted:
            if word:
                yield word
            word = ""
            continue
        quoted ^= char == '"'
        word += char
    if word:
        yield word


@dataclass(eq=False)
class CmaParam:
    """``cma=``: kernel/dma/contiguous.c's three static variables, in bytes; ``size`` None: never given.

    Each ``cma=`` sets what it mentions; what it leaves out keeps the value of the one before.
    """

    size: int | None = None
    base: int = 0
    limit: int = 0

    def parse(self, text: str) -> None:
        """early_cma(): takes ``size[@base[-limit]]`` and ignores what else there is."""
        size, rest = memparse(text)
        self.size = None if size == U64_MAX else size
        if not rest.startswith("@"):
            return
        self.base, rest = memparse(rest[1:])
        if rest.startswith("-"):
            self.limit, _ = memparse(rest[1:])
        else:
            self.limit = (self.base + size) & U64_MAX

    @property
    def given(self) -> bool:
        """Whether there was one."""
        return self.size is not None

    def within(self, phys_mask: int) -> CmaParam:
        """The same as ``phys_addr_t`` holds it."""
        size = None if self.size is None else self.size & phys_mask
        return CmaParam(size, self.base & phys_mask, self.limit & phys_mask)

    @property
    def fixed(self) -> bool:
        """Whether base and limit leave exactly one place."""
        return ((self.base + (self.size or 0)) & U64_MAX) == self.limit


def per_node_sizes(text: str, max_numnodes: int) -> tuple[list[tuple[int, int]], bool]:
    """``nid:size,nid:size``: ([(node, bytes)], whether it stopped at a number that is no node's).

    Ids are decimal, without a sign, below MAX_NUMNODES. early_numa_cma(), cmdline_parse_hugetlb_cma().
    """
    sizes: list[tuple[int, int]] = []
    while match := _NODE.match(text):
        nid, _ = simple_strtoull(match[1], 10)
        if not match[2]:
            return sizes, True
        if nid >= max_numnodes:
            break
        size, text = memparse(text[match.end() :])
        sizes.append((nid, size))
        if not text.startswith(","):
            break
        text = text[1:]
    return sizes, False


@dataclass(eq=False)
class EarlyParams:
    """What the command line says about memory. Sizes in bytes.

    ``words`` every (parameter, value); ``errors`` log lines of parameters that were refused while parsing.
    """

    words: list[tuple[str, str | None]] = field(default_factory=list)
    cma: CmaParam = field(default_factory=CmaParam)
    cma_seen: list[str | None] = field(default_factory=list)
    hugetlb_cma: int = 0
    hugetlb_cma_node: dict[int, int] = field(default_factory=dict)
    cma_pernuma: int = 0
    numa_cma: dict[int, int] = field(default_factory=dict)
    coherent_pool: int = 0
    log_buf_len: int = 0
    init: str = "/init"

    def values(self, name: str) -> list[str | None]:
        """The values given for a parameter, in order; dashes and underscores are the same (parameq())."""
        wanted = name.replace("-", "_")
        return [value for key, value in self.words if key.replace("-", "_") == wanted]


def _last_size(params: EarlyParams, name: str) -> int:
    given = [value for value in params.values(name) if value is not None]
    return memparse(given[-1])[0] if given else 0


def _hugetlb_cma(params: EarlyParams, text: str, max_numnodes: int) -> None:
    """cmdline_parse_hugetlb_cma()@v6.12: what a list by node says adds up, also over several parameters; a
    number without a node makes the size what the whole text begins with.
    """
    sizes, whole = per_node_sizes(text, max_numnodes)
    for nid, size in sizes:
        params.hugetlb_cma_node[nid] = size
        params.hugetlb_cma = (params.hugetlb_cma + size) & U64_MAX
    if whole:
        params.hugetlb_cma, _ = memparse(text)


def parse_early_params(cmdline: str, hugetlb_per_node: bool, max_numnodes: int = 1) -> EarlyParams:
    """parse_early_param(): everything here is independent of the machine; whether a kernel knows a name,
    boot decides. ``max_numnodes``: MAX_NUMNODES, 1 without CONFIG_NUMA.
    """
    words: list[tuple[str, str | None]] = []
    for name, value in next_args(cmdline):
        if name == "--" and value is None:
            break
        words.append((name, value))
    params = EarlyParams(words)
    for value in params.values("cma"):
        params.cma_seen.append(value)
        if value is not None:
            params.cma.parse(value)
    for value in params.values("hugetlb_cma"):
        if hugetlb_per_node:
            _hugetlb_cma(params, value or "", max_numnodes)
        else:
            params.hugetlb_cma, _ = memparse(value or "")
    for value in params.values("numa_cma"):
        params.numa_cma.update(per_node_sizes(value or "", max_numnodes)[0])
    for name in ("cma_pernuma", "coherent_pool", "log_buf_len"):
        setattr(params, name, _last_size(params, name))
    params.init = next((value for value in reversed(params.values("init")) if value), params.init)
    return params
