"""Cma rows: the allocator's decisions and log lines, its files in debugfs and sysfs. See cmafs.abi.

T seen in a transcript of that kernel, V read in its source, P from patch mail or change logs, D derived.
Lines are given without the newline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cmafs.abi import cma_sites
from cmafs.abi.cma_sites import CmaSites
from cmafs.abi.rows import Rows

#: When a failure lists the holes of its area (``CmaAbi.show_areas``).
SHOW_NEVER = "never"
SHOW_CMA_DEBUG = "cma_debug"
SHOW_ALWAYS = "always"

#: Where cma_alloc_start is traced (``CmaAbi.start_event``): nowhere, before all checks, after the zero check.
START_NONE = "none"
START_FIRST = "first"
START_CHECKED = "checked"

#: How the directories in debugfs are called (``CmaAbi.debugfs_name``).
DIR_INDEX = "cma-%d"
DIR_PREFIXED = "cma-%s"
DIR_BARE = "%s"

FILES = ("alloc", "free", "base_pfn", "count", "order_per_bit", "used", "maxchunk", "bitmap")


@dataclass(frozen=True)
class CmaAbi:
    """One row.

    Areas:

    ``name_max``: bytes of an area's name that are kept, 0 all (``CMA_MAX_NAME`` 64, 5.9; T).
    ``unnamed_from``: number of the first area registered without a name (0; 1 from 6.15, V 7.2).
    ``failed_returns_pages``: an area that cannot be activated gives its pages to the buddy allocator and
    leaves CmaTotal (5.12, V 6.1; before neither, V 5.10).
    ``failed_stops_others``: areas after a failed one are not activated (to 5.8, P 3a5139f1c5bb, also in
    5.4.61; V 5.4.286).
    ``failed_says``: an area that cannot be activated has a line (V 4.15.0, not 4.4.155).
    ``lists_failed``: a failed area is shown with count 0 (to 7.1, V; P).

    cma_alloc():

    ``no_hole_is_busy``: a request that fits nowhere answers EBUSY instead of ENOMEM, also one larger than the
    area, which is then a failure like others (6.15; T 7.2).
    ``checks_size``: a request larger than the area is refused before the search (4.9, P 6b36ba599d60; not T
    4.4.155, T 4.15.0).
    ``checks_available``: a request larger than what is available fails before the search (6.15; V 7.2).
    ``early_counts``: requests refused before the search count as failed (5.13 to 6.11; T 6.1 against 6.12).
    ``prints_failure``: the ``alloc failed`` line exists (4.11, P).
    ``failure_names_area``, ``failure_ratelimited``: 5.13 (T 6.1 against 5.10).
    ``show_areas``: when the list of holes is printed: never, with CONFIG_CMA_DEBUG, always (6.9, P; T).
    ``show_ranges``: the list has a line for each range (6.15; T 7.2).
    ``entry_names_area`` (6.6, T 6.12), ``busy_shows_pfn`` (T 6.12 against 6.1; 6.3, P),
    ``release_shows_count`` (5.13, T): which values the debug lines take.
    ``validates_first``: cma_release() prints a line of its own for the search of the range (7.2, T).
    ``sites``: the debug lines.

    Tracing, see abi.trace for the formats:

    ``alloc_event``: one event ``cma_alloc`` at the end (to 5.12) instead of start, busy_retry and finish.
    ``start_event``: where cma_alloc_start stands: V 6.1 and 7.2 after the check for 0, V 6.12 before all
    checks.
    ``start_counts``: it carries available_count and total_count (6.18, T 7.2).
    ``finish_before_failure``: the end event comes before the failure line (V 5.10, 6.1; after it from 6.12).
    ``failed_pfn_is_zero``: pfn of a failure is 0 (6.15, T), before that all ones, or the pfn tried last (V).
    ``finish_errno``: cma_alloc_finish carries errorno (T 6.6.87; not T 6.1).

    Counters:

    ``vmstat_events``: cma_alloc_success, cma_alloc_fail in vmstat (5.13; T).
    ``sysfs_files``: what stands in /sys/kernel/mm/cma/NAME (5.13, 6.9, 6.15; T).
    ``used_is_exact``: ``used`` counts pages, not bits (6.15; T 7.2 with order_per_bit 9).

    debugfs:

    ``debugfs_name``: how directories are called (4.12, 6.1; T); ``debugfs_name_max``: bytes that survive, 0
    all.
    ``collision_message``: a name that is taken gives a line (5.4, V 5.10); ``collision_in_root``: the files
    of the second area land in the debugfs root (to 4.20, where a failed debugfs_create_dir() returned NULL;
    D).
    ``lockdown``: in a locked down kernel ``alloc`` and ``free`` cannot be opened (5.4, P;
    ``fs/debugfs/file.c:debugfs_locked_down()@v5.10``, V).
    ``strict_numbers``: kstrtoull() parses what is written (5.10, T; 488dac0c9237, in the stable releases of
    24 November 2020, P; T 5.4.286, not 4.4.155 and 4.19.72).
    ``ranges``: ``ranges/N/`` with symbolic links to range 0 (6.15; T 7.2).
    ``files``: the files of an area.
    ``used_kib``, ``raw_bitmap``, ``zero_frees_all``: the dialect of seeds/000 (docs/seeds.md).
    """

    sites: CmaSites
    name_max: int = 0
    unnamed_from: int = 0
    failed_returns_pages: bool = False
    failed_stops_others: bool = True
    failed_says: bool = True
    lists_failed: bool = True
    no_hole_is_busy: bool = False
    checks_size: bool = True
    checks_available: bool = False
    early_counts: bool = False
    prints_failure: bool = False
    failure_names_area: bool = False
    failure_ratelimited: bool = False
    show_areas: str = SHOW_NEVER
    show_ranges: bool = False
    entry_names_area: bool = False
    busy_shows_pfn: bool = False
    release_shows_count: bool = False
    validates_first: bool = False
    alloc_event: bool = True
    start_event: str = START_NONE
    start_counts: bool = False
    finish_before_failure: bool = True
    failed_pfn_is_zero: bool = False
    finish_errno: bool = False
    vmstat_events: bool = False
    sysfs_files: tuple[str, ...] = ()
    used_is_exact: bool = False
    debugfs_name: str = DIR_INDEX
    debugfs_name_max: int = 15
    collision_message: bool = False
    collision_in_root: bool = True
    lockdown: bool = False
    strict_numbers: bool = False
    ranges: bool = False
    files: tuple[str, ...] = FILES
    used_kib: bool = False
    raw_bitmap: bool = False
    zero_frees_all: bool = False


_CHANGES: dict[str, dict[str, Any]] = {
    "4.4.246": {"strict_numbers": True},
    "4.15": {
        "prints_failure": True,
        "show_areas": SHOW_CMA_DEBUG,
        "debugfs_name": DIR_PREFIXED,
        "sites": cma_sites.SITES_4_15,
        "checks_size": True,
        "failed_says": True,
    },
    "4.19": {"sites": cma_sites.SITES_4_19},
    "4.19.160": {"strict_numbers": True},
    "5.4": {
        "lockdown": True,
        "sites": cma_sites.SITES_5_4,
        "collision_message": True,
        "collision_in_root": False,
    },
    "5.4.61": {"failed_stops_others": False},
    "5.4.80": {"strict_numbers": True},
    "5.10": {
        "sites": cma_sites.SITES_5_10,
        "name_max": 63,
        "failed_stops_others": False,
        "strict_numbers": True,
    },
    "5.15": {
        "sites": cma_sites.SITES_5_15,
        "failed_returns_pages": True,
        "early_counts": True,
        "failure_names_area": True,
        "failure_ratelimited": True,
        "release_shows_count": True,
        "alloc_event": False,
        "start_event": START_CHECKED,
        "vmstat_events": True,
        "sysfs_files": ("alloc_pages_success", "alloc_pages_fail"),
    },
    "6.1": {"sites": cma_sites.SITES_6_1, "debugfs_name": DIR_BARE, "debugfs_name_max": 0},
    "6.6": {
        "sites": cma_sites.SITES_6_6,
        "entry_names_area": True,
        "busy_shows_pfn": True,
        "finish_errno": True,
    },
    "6.12": {
        "sites": cma_sites.SITES_6_12,
        "early_counts": False,
        "show_areas": SHOW_ALWAYS,
        "start_event": START_FIRST,
        "finish_before_failure": False,
        "sysfs_files": ("alloc_pages_success", "alloc_pages_fail", "release_pages_success"),
    },
    "6.18": {
        "sites": cma_sites.SITES_6_18,
        "unnamed_from": 1,
        "no_hole_is_busy": True,
        "checks_available": True,
        "show_ranges": True,
        "start_event": START_CHECKED,
        "start_counts": True,
        "failed_pfn_is_zero": True,
        "sysfs_files": (
            "alloc_pages_success",
            "alloc_pages_fail",
            "release_pages_success",
            "total_pages",
            "available_pages",
        ),
        "used_is_exact": True,
        "ranges": True,
    },
    "7.2": {"sites": cma_sites.SITES_7_2, "lists_failed": False, "validates_first": True},
    "article": {
        "debugfs_name": DIR_INDEX,
        "files": ("alloc", "base_pfn", "size", "used", "bitmap"),
        "used_kib": True,
        "raw_bitmap": True,
        "zero_frees_all": True,
    },
}

ROWS = Rows(CmaAbi(sites=cma_sites.SITES_4_4, checks_size=False, failed_says=False), _CHANGES)
