"""The versions of the 2010 framework as data: what each one offers, and where its code left its document.

Source of every field: the posted versions of July to September 2010 and the vendor trees made from them
(``docs/cma2010.md`` has the history). ``Profile`` is what a version documents, ``Quirks`` what its code did
instead; a machine has the quirks only with ``--strict-quirks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cmafs.lib.math import round_up


class UnknownProfile(ValueError):
    """``--profile`` names no version of the framework."""


class KernelOops(Exception):
    """Here the code of that version leaves its own memory, and what follows cannot be told.

    It runs off a string, follows a pointer that is null or was never set, or hands out memory that is not
    its own. ``quirk`` says by which fault.
    """

    def __init__(self, quirk: str, text: str) -> None:
        super().__init__(f"{quirk}: {text}")
        self.quirk = quirk


class MissingInterface(AttributeError):
    """That version of the framework has no such function: a driver calling it does not link."""


@dataclass(frozen=True)
class Profile:
    """What one version of the framework offers, as its document says.

    The map: ``map_parameter`` is its name on the command line, None where only the platform sets it;
    ``asterisk`` says what serves a device that no rule matches: nothing, a region list (v2), or the regions
    that carry a flag (v3); ``default_type`` is what an absent kind or type means; ``type_wildcards``: ``?``
    and ``*`` work in a kind; ``bare_pattern_any_type``: a pattern without a slash matches every type.
    ``map_rules`` and ``text_limit`` are how many rules and characters v1 keeps, 0 for no limit.

    Regions: at most ``regions_limit`` entries of ``cma=``; ``zero_allowed``: an explicit ``@0`` or ``/0`` is
    no error; ``wrap_check``: a region that reaches the top of the address space is one; ``minus``: a leading
    ``-`` takes the region out of the asterisk; ``allocator_params``: ``:name(params)``. ``table``: v1's fixed
    table of regions, with allocators attached at boot and chunks that are put, not freed.
    ``pads_alignment``: a size that is no multiple of its alignment grows by one alignment more (meizu).

    Files: ``sysfs`` are those in contiguous/, ``region_files`` those of one region.
    """

    name: str
    map_parameter: str | None = "cma_map"
    asterisk: Literal["none", "list", "flag"] = "none"
    default_type: str = ""
    type_wildcards: bool = True
    bare_pattern_any_type: bool = False
    map_rules: int = 64
    text_limit: int = 511
    regions_limit: int = 16
    zero_allowed: bool = True
    wrap_check: bool = False
    minus: bool = False
    allocator_params: bool = True
    table: bool = True
    pads_alignment: bool = False
    sysfs: tuple[str, ...] = ()
    region_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quirks:
    """Where the code of a version differs from its document, by the numbers of docs/cma2010.md.

    All off is the document; Q10, Q14 and Q16 are in both, Q12 and Q13 in code that boards call themselves.
    """

    q1_longer_pattern_remembered: bool = False
    q2_rule_swallowed: bool = False
    q3_comma_is_wild: bool = False
    q4_no_asterisk_without_rule: bool = False
    q5_list_walk_broken: bool = False
    q6_bestfit_null_advance: bool = False
    q7_wrong_regions_attached: bool = False
    q8_failed_attach_is_final: bool = False
    q9_defaults_override_cmdline: bool = False
    q11_lookup_stops_at_zero: bool = False
    q15_sizes_not_rounded: bool = False
    q17_rounding_wraps: bool = False
    q18_aligning_wraps: bool = False
    q19_request_cut_to_word: bool = False


_REGION_FILES = ("name", "start", "size", "free", "users", "alloc")

_V1 = Profile("v1")
_V2 = replace(
    _V1,
    name="v2",
    map_parameter=None,
    asterisk="list",
    map_rules=0,
    text_limit=0,
    regions_limit=15,
    zero_allowed=False,
    wrap_check=True,
    minus=True,
    allocator_params=False,
    table=False,
    sysfs=("map", "asterisk"),
)
_V3 = replace(
    _V2,
    name="v3",
    map_parameter="cma.map",
    asterisk="flag",
    sysfs=("map", "allocators", "regions"),
    region_files=(*_REGION_FILES, "asterisk"),
)
_V4 = replace(
    _V3,
    name="v4",
    asterisk="none",
    default_type="common",
    type_wildcards=False,
    bare_pattern_any_type=True,
    minus=False,
    region_files=_REGION_FILES,
)
_VENDOR = replace(_V4, name="vendor")
_MEIZU = replace(_VENDOR, name="meizu", pads_alignment=True)

PROFILES: Mapping[str, Profile] = {p.name: p for p in (_V1, _V2, _V3, _V4, _VENDOR, _MEIZU)}

_ALL = Quirks(
    q1_longer_pattern_remembered=True,
    q6_bestfit_null_advance=True,
    q17_rounding_wraps=True,
    q18_aligning_wraps=True,
    q19_request_cut_to_word=True,
)
_Q_V1 = replace(_ALL, q11_lookup_stops_at_zero=True, q15_sizes_not_rounded=True)
_Q_V2 = _ALL
_Q_V4 = replace(
    _ALL,
    q5_list_walk_broken=True,
    q7_wrong_regions_attached=True,
    q8_failed_attach_is_final=True,
    q9_defaults_override_cmdline=True,
)
_Q_V3 = replace(_Q_V4, q2_rule_swallowed=True, q3_comma_is_wild=True, q4_no_asterisk_without_rule=True)
_Q_VENDOR = replace(_Q_V4, q5_list_walk_broken=False)
_Q_MEIZU = replace(_Q_VENDOR, q6_bestfit_null_advance=False)

QUIRKS: Mapping[str, Quirks] = {
    "v1": _Q_V1,
    "v2": _Q_V2,
    "v3": _Q_V3,
    "v4": _Q_V4,
    "vendor": _Q_VENDOR,
    "meizu": _Q_MEIZU,
}


def find_profile(name: str) -> Profile:
    """The version of that name. Raises UnknownProfile."""
    if name not in PROFILES:
        raise UnknownProfile(f"unknown profile '{name}': known are {', '.join(PROFILES)}")
    return PROFILES[name]


def quirks_of(profile: Profile, strict: bool) -> Quirks:
    """What the code of that version does otherwise than its document: nothing unless ``strict``."""
    return QUIRKS[profile.name] if strict else Quirks()


@dataclass(frozen=True)
class Word:
    """The machine's native word and page: ``bits`` of size_t and dma_addr_t, ``page_size`` bytes."""

    bits: int = 32
    page_size: int = 4096

    @property
    def mask(self) -> int:
        """The largest value that a word holds."""
        return (1 << self.bits) - 1

    def page_align(self, value: int) -> int:
        """``PAGE_ALIGN()`` without C's bounds: the caller says what happens beyond ``mask``."""
        return round_up(value, self.page_size)

    def pointer(self, value: int) -> str:
        """``%p`` as that era prints it: bare hex of the word's width, not hashed; 0 is ``(null)``."""
        value &= self.mask
        return f"{value:0{self.bits // 4}x}" if value else "(null)"


def is_power_of_two_or_zero(value: int) -> bool:
    """Whether a number can be an alignment; 0 stands for a page."""
    return value & (value - 1) == 0
