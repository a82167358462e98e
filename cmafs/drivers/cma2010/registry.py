"""Map, regions and allocators of the 2010 framework: what is configured, before any device asks.

Source: ``mm/cma.c`` (2010): ``cma_set_defaults()``, ``cma_region_register()``, ``cma_allocator_register()``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Protocol

from cmafs.drivers.cma2010.early import EarlyRegions
from cmafs.drivers.cma2010.map import map_validate
from cmafs.drivers.cma2010.profile import Profile, Word, quirks_of
from cmafs.drivers.cma2010.regions import CmaAllocator, CmaRegion, cma_param_parse
from cmafs.lib.printk import LOGLEVEL_DEBUG, LOGLEVEL_ERR, LOGLEVEL_INFO, LOGLEVEL_WARNING


class Log(Protocol):
    """What the framework needs of the kernel log: Printk has it."""

    def printk(self, text: str, level: int = LOGLEVEL_INFO) -> None:
        """Store one record; ``text`` without a newline."""


class CmaRegistry:
    """What configuration has made: the map, the regions, the allocators, and the regions still to come.

    ``profile``: the version; ``strict``: with its quirks; ``debug``: ``CONFIG_CMA_DEBUG``, without which the
    debug lines are not there at all.
    """

    def __init__(
        self, profile: Profile, word: Word, log: Log, strict: bool = False, debug: bool = True
    ) -> None:
        self.profile = profile
        self.quirks = quirks_of(profile, strict)
        self.word = word
        self.log = log
        self.debug = debug
        self.map = ""
        self.asterisk: str | None = None  # v2's third string; None: the regions not written with "-"
        self.regions: list[CmaRegion] = []  # named ones before unnamed ones
        self.allocators: list[CmaAllocator] = []
        self.early = EarlyRegions(profile, self.quirks, word, self.pr_debug, self.pr_warn)
        self.on_register: Callable[[CmaRegion], None] | None = None
        self._from_cmdline: set[str] = set()
        self.refused: list[tuple[str, str]] = []  # what boot did not take: (parameter or region, why)

    # The log

    def pr_debug(self, text: str) -> None:
        """Print a line that only CONFIG_CMA_DEBUG compiles in."""
        if self.debug:
            self.log.printk(f"cma: {text}", LOGLEVEL_DEBUG)

    def pr_warn(self, text: str) -> None:
        """Print at KERN_WARNING, behind the framework's prefix."""
        self.log.printk(f"cma: {text}", LOGLEVEL_WARNING)

    def pr_err(self, text: str) -> None:
        """Print at KERN_ERR, behind the framework's prefix."""
        self.log.printk(f"cma: {text}", LOGLEVEL_ERR)

    # Configuration

    def set_map(self, text: str) -> None:
        """Replace the map. Raises OSError EINVAL or ENOSPC: the old map stays, but v1 is left without one."""
        try:
            self.map = map_validate(self.profile, text)
        except OSError as error:
            if self.profile.table:
                self.map = ""
            self.pr_err(str(error.strerror))
            raise

    def cma_map_param(self, text: str) -> None:
        """The map on the command line (``cma.map=``, v1 ``cma_map=``). Raises as set_map()."""
        self.pr_debug(f"param: map: {text}")
        self.set_map(text)
        self._from_cmdline.add("map")

    def cma_param(self, text: str) -> None:
        """The regions on the command line (``cma=``). Raises as cma_param_parse(): earlier entries stay."""
        self.pr_debug(f"param: {text}")
        self._from_cmdline.add("regions")
        self._parse_regions(text)

    def _parse_regions(self, text: str) -> None:
        try:
            cma_param_parse(self.profile, self.quirks, self.word, text, self.early.add)
        except OSError as error:
            self.pr_err(str(error.strerror))
            raise

    def cma_set_defaults(
        self, regions: str | Sequence[CmaRegion] | None, map_text: str | None, asterisk: str | None = None
    ) -> None:
        """What a board's code provides: first the map, then the regions (v1, v2: a string; later: an array).

        An array ends at the first entry of size 0. What the command line gave stays; with Q9 its map is
        replaced and its regions are added to. ``asterisk``: v2 only. Raises OSError as set_map() and
        ``early.register()`` do: after a refused map no region is registered, after a refused region the
        earlier ones stay.
        """
        keeps = set() if self.quirks.q9_defaults_override_cmdline else self._from_cmdline
        if map_text is not None and "map" not in keeps:
            self.set_map(map_text)
        if asterisk is not None:
            self.asterisk = asterisk
        if regions is None or "regions" in keeps:
            return
        if isinstance(regions, str):
            self._parse_regions(regions)
            return
        for reg in regions:
            if not reg.size:
                return
            self.early.register(reg)

    def cma_init(self) -> None:
        """``cma_init()``: the reserved early regions become regions; errors only waste their memory."""
        self.pr_debug("init: initialising")
        early, self.early.regions = self.early.regions, []
        for reg in early:
            if reg.reserved:
                try:
                    self.cma_region_register(reg)
                except OSError:
                    continue

    # Regions and allocators

    def cma_region_register(self, reg: CmaRegion) -> None:
        """Make a region usable. Raises OSError EINVAL (size 0, wrap), EADDRINUSE, or its allocator's."""
        if not reg.size or reg.end > self.word.mask:
            raise OSError(errno.EINVAL, "size 0 or wrap")
        reg.users, reg.used, reg.registered, reg.private_data = 0, False, False, None
        reg.free_space = reg.size
        try:
            if any(r.end > reg.start and r.start < reg.end for r in self.regions):
                raise OSError(errno.EADDRINUSE, "region overlaps another")
            if reg.alloc:
                self.attach(reg)
        except OSError:
            self.pr_debug(f"{reg.label}: region not registered")
            raise
        reg.registered = True
        in_front = reg.name is not None and not self.profile.table
        self.regions.insert(0 if in_front else len(self.regions), reg)
        if self.on_register:
            self.on_register(reg)
        self.pr_debug(f"{reg.label}: region registered")

    def cma_allocator_register(self, alloc: CmaAllocator) -> None:
        """Make an allocator known; the first one is the default. Raises OSError EINVAL without callbacks."""
        if not alloc.alloc or not alloc.free:
            raise OSError(errno.EINVAL, "an allocator needs alloc and free")
        self.allocators.append(alloc)
        for reg in [r for r in self.regions if r.alloc is None and self._attach_now(r, alloc)]:
            reg.alloc = alloc
            try:
                self.attach(reg)
            except OSError:
                continue
        self.pr_debug(f"{alloc.name or '(unnamed)'}: allocator registered")

    def _attach_now(self, reg: CmaRegion, alloc: CmaAllocator) -> bool:
        """v1 attaches at boot, later versions at the first allocation; with Q7 the wrong ones at once."""
        if self.profile.table:
            return reg.alloc_name in (None, alloc.name)
        if not self.quirks.q7_wrong_regions_attached:
            return False
        if reg.alloc_name is not None:
            return alloc.name != reg.alloc_name
        return reg.used or len(self.allocators) > 1

    def _find_allocator(self, name: str | None) -> CmaAllocator | None:
        return next((a for a in self.allocators if name is None or a.name == name), None)

    def attach(self, reg: CmaRegion) -> None:
        """Give a region the allocator it wants. Raises OSError ENOENT (no such one), or its init's."""
        alloc = reg.alloc or self._find_allocator(reg.alloc_name)
        if alloc is None:
            self.pr_warn(f"init: {reg.label}: {reg.alloc_name or '(default)'}: no such allocator")
            reg.used = True
            raise OSError(errno.ENOENT, "no such allocator")
        reg.private_data = None
        try:
            if alloc.init:
                alloc.init(reg)
        except OSError:
            self.pr_err(f"init: {reg.label}: {alloc.name or '(unnamed)'}: unable to initialise allocator")
            reg.alloc, reg.used = None, True
            raise
        reg.alloc = alloc
        self.pr_debug(f"init: {reg.label}: {alloc.name or '(unnamed)'}: initialised allocator")

    def set_allocator(self, reg: CmaRegion, name: str | None) -> None:
        """Detach a region's allocator and want ``name`` next. Raises OSError EBUSY while chunks are held."""
        if reg.alloc and reg.users:
            raise OSError(errno.EBUSY, "region is in use")
        if reg.alloc:
            if reg.alloc.cleanup:
                reg.alloc.cleanup(reg)
            reg.alloc, reg.used = None, True
        reg.alloc_name = name

    def find_region(self, name: str) -> CmaRegion | None:
        """The region that a map means by a name: the one registered last, in v1 the first of the table."""
        for reg in self.regions:
            if reg.name is None or (self.quirks.q11_lookup_stops_at_zero and not reg.start):
                return None
            if reg.name == name:
                return reg
        return None
