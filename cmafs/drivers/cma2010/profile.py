"""The versions of the 2010 framework as data: what each one offers, and where its code left its document.

Source of every field: the posted versions of July to September 2010 and the vendor trees made from them
(``docs/cma2010.md`` has the history). ``Profile`` is what a version documents, ``Quirks`` what its code did
instead; a machine has the quirks only with ``--strict-quirks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal


class UnknownProfile(ValueError):
    """``--profile`` names no version of the framework."""


class KernelOops(Exception):
    """The code of that version would run off a string or a null pointer here; ``quirk`` says which one."""

    def __init__(self, quirk: str, text: str) -> None:
        super().__init__(f"{quirk}: {text}")
        self.quirk = quirk


class MissingInterface(AttributeError):
    """That version of the framework has no such function: a driver calling it does not link."""


@dataclass(frozen=True)
class Profile:
    """One version of the framework.

    ``map_parameter``: the map's name on the command line, None where only the platform sets it.
    ``asterisk``: what answers when no rule does: nothing, a region list (v2), or flagged regions (v3).
    ``default_type``: what an absent kind or type means; ``type_wildcards``: ``?`` and ``*`` work in it;
    ``bare_pattern_any_type``: a pattern without a slash matches every type.
    ``map_rules``, ``text_limit``: rules and characters kept (v1), 0 for no limit; ``regions_limit`` entries
    of ``cma=``. ``zero_allowed``: an explicit ``@0`` or ``/0``; ``wrap_check``: start + size must not wrap;
    ``minus``: a leading ``-`` takes the region out of the asterisk; ``allocator_params``:
    ``:name(params)``. ``table``: regions are a fixed table kept in order, allocators are attached at boot
    (v1). ``pads_alignment``: a device's size that is no multiple of its alignment grows by one alignment
    more (meizu). ``get_put``, ``free``, ``get_virt``: which calls exist; ``sysfs`` the files below
    contiguous/, ``region_files`` those of one region.
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
    get_put: bool = True
    free: bool = False
    get_virt: bool = False
    sysfs: tuple[str, ...] = ()
    region_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quirks:
    """Where the code of a version differs from its document; all off is the document."""

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
    q12_negative_count: bool = False
    q13_fixed_start_unregistered: bool = False
    q15_sizes_not_rounded: bool = False


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
    get_put=False,
    free=True,
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
_VENDOR = replace(_V4, name="vendor", get_virt=True)
_MEIZU = replace(_VENDOR, name="meizu", pads_alignment=True)

PROFILES: Mapping[str, Profile] = {p.name: p for p in (_V1, _V2, _V3, _V4, _VENDOR, _MEIZU)}

_Q_V1 = Quirks(
    q1_longer_pattern_remembered=True,
    q6_bestfit_null_advance=True,
    q11_lookup_stops_at_zero=True,
    q12_negative_count=True,
    q15_sizes_not_rounded=True,
)
_Q_V2 = Quirks(q1_longer_pattern_remembered=True, q6_bestfit_null_advance=True)
_Q_V4 = Quirks(
    q1_longer_pattern_remembered=True,
    q5_list_walk_broken=True,
    q6_bestfit_null_advance=True,
    q7_wrong_regions_attached=True,
    q8_failed_attach_is_final=True,
    q9_defaults_override_cmdline=True,
)
_Q_V3 = replace(_Q_V4, q2_rule_swallowed=True, q3_comma_is_wild=True, q4_no_asterisk_without_rule=True)
_Q_VENDOR = replace(_Q_V4, q5_list_walk_broken=False, q13_fixed_start_unregistered=True)
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
        """The largest value of a word."""
        return (1 << self.bits) - 1

    def align(self, value: int, alignment: int) -> int:
        """``ALIGN()`` in the word: rounding up may wrap to 0. ``alignment`` a power of two."""
        return (value + alignment - 1) & ~(alignment - 1) & self.mask

    def page_align(self, value: int) -> int:
        """``PAGE_ALIGN()`` in the word."""
        return self.align(value, self.page_size)

    def pointer(self, value: int) -> str:
        """``%p`` as that era prints it: bare hex of the word's width, not hashed; 0 is ``(null)``."""
        return f"{value & self.mask:0{self.bits // 4}x}" if value else "(null)"


def is_power_of_two_or_zero(value: int) -> bool:
    """The framework's test of an alignment."""
    return value & (value - 1) == 0
