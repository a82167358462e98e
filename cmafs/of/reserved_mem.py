"""/reserved-memory: which nodes are reserved, where ``size`` nodes go, what becomes of each.

The kernel does this in one sweep up to 6.11 (read, sort, place and initialise) and in two from 6.12 on:
``reg`` nodes are reserved and ``size`` nodes placed when the tree is scanned, ``reg`` nodes initialised when
it is unflattened. Kernel: ``drivers/of/fdt.c``, ``drivers/of/of_reserved_mem.c``. Units are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cmafs.abi.boot import SORT_NONE
from cmafs.lib.boot_event import EFFECT_IGNORED, EFFECT_MOVED, EFFECT_NOTE, EFFECT_REFUSED
from cmafs.lib.intervals import within
from cmafs.lib.printk import LOGLEVEL_ERR, LOGLEVEL_INFO, LOGLEVEL_WARNING
from cmafs.lib.sizes import SZ_1M
from cmafs.lib.sort import overlaps, rmem_sort
from cmafs.mm.early import EarlyMm
from cmafs.mm.memblock import MEMBLOCK_ALLOC_ANYWHERE
from cmafs.of.base import RESERVED_MEMORY, DeviceNode, DeviceTree, of_read_number
from cmafs.of.rmem_init import COMPATIBLE, DEFAULT, ReservedMem, pr_of, reserved_mem_init_node

__all__ = ["ReservedMem", "ReservedMemScan"]

_CELL = 4


@dataclass(eq=False)
class ReservedMemScan:
    """One boot's treatment of /reserved-memory; ``regions`` in initialisation order.

    ``unmapped``: no-map memory given back after the linear map was made, (base, end, node's path).
    ``count``: ``total_reserved_mem_cnt``, how many records the table of the second pass has.
    """

    tree: DeviceTree
    early: EarlyMm
    regions: list[ReservedMem] = field(default_factory=list)
    unmapped: list[tuple[int, int, str]] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.abi = self.early.abi.boot
        self.memblock = self.early.memblock
        self.log = self.early.log
        self.addr_cells, self.size_cells = self.tree.root.reg_cells()
        self.phys_mask = self.early.phys_mask
        # fdt.c's failed reservations became errors when failed allocations did (V 5.10, 6.1)
        self._failure_level = LOGLEVEL_ERR if self.abi.failed_allocation_size else LOGLEVEL_INFO

    def pr_fdt(self, text: str, level: int = LOGLEVEL_ERR) -> None:
        """A line of the scan, which stood in fdt.c up to 6.11."""
        self.log.printk(f"{self.abi.fdt_prefix}Reserved memory: {text}", level)

    # -- the two entry points --------------------------------------------------------------------

    def early_init_fdt_scan_reserved_mem(self) -> None:
        """When the tree is scanned: reserve, place, and up to 6.11 initialise."""
        if self.abi.memreserve_first:
            self._memreserve()
        dynamic = list(self._scan())
        if not self.abi.memreserve_first:
            self._memreserve()
        if self.abi.two_passes:
            self._alloc_dynamic(dynamic)
        else:
            self._init_reserved_mem()

    def fdt_scan_reserved_mem_reg_nodes(self) -> None:
        """When the tree is unflattened, from 6.12 on: initialise the ``reg`` nodes, report overlaps."""
        if not self.abi.two_passes:
            return
        parent = self.parent()
        if parent is None:
            self.pr_fdt("No reserved-memory node in the DT", LOGLEVEL_INFO)
            return
        if not self._check_root(parent):
            return
        for node in parent.children.values():
            if "reg" in node.props and node.is_available():
                self._init_reg_node(node)
        self._report_overlaps()

    # -- reading the tree ------------------------------------------------------------------------

    def _memreserve(self) -> None:
        """/memreserve/ entries, up to the first of size 0."""
        for base, size in self.tree.memreserve:
            if not size:
                return
            self.memblock.reserve(base, size)

    def parent(self) -> DeviceNode | None:
        """/reserved-memory; None without, or where no kernel had heard of it yet (3.15)."""
        if self.abi.framework_2010:
            return None
        if self.abi.scans_nested_nodes:  # by strcmp(): no unit address
            return self.tree.root.children.get(RESERVED_MEMORY)
        return self.tree.reserved_memory()

    def _check_root(self, parent: DeviceNode) -> bool:
        """__reserved_mem_check_root(): cells like the root's, and ``ranges``."""
        wrong = next(
            (
                name
                for name, cells in (("#size-cells", self.size_cells), ("#address-cells", self.addr_cells))
                if parent.property_read_u32(name) != cells
            ),
            None if "ranges" in parent.props else "ranges",
        )
        if wrong:
            self.pr_fdt("unsupported node format, ignoring")
            self.early.event(parent.path, "unsupported-format", EFFECT_IGNORED, wrong)
        return wrong is None

    def _candidates(self, parent: DeviceNode) -> Iterator[DeviceNode]:
        """The nodes looked at: children, on old kernels with everything below them."""
        for node in parent.children.values():
            if self.abi.scans_nested_nodes:
                yield from node.walk()
            else:
                yield node

    def _scan(self) -> Iterator[DeviceNode]:
        """fdt_scan_reserved_mem(): reserve every ``reg`` node; yields the ``size`` nodes."""
        parent = self.parent()
        if parent is None or not self._check_root(parent):
            return
        for node in self._candidates(parent):
            if not node.is_available():
                self.early.event(node.path, "disabled", EFFECT_IGNORED, "status")
                continue
            if self._has_reg(node):
                self._reserve_reg(node)
            elif "size" in node.props:
                if self.abi.two_passes:
                    yield node
                else:
                    self._save(ReservedMem(node, 0, 0))
            elif node.parent is parent:
                self.early.event(node.path, "no-reg-no-size", EFFECT_IGNORED, "reg")

    def _has_reg(self, node: DeviceNode) -> bool:
        if self.abi.validates_properties and "reg" in node.props and not self._pairs(node, "reg"):
            self.early.event(node.path, "invalid-reg", EFFECT_REFUSED, "reg")
            return False
        return "reg" in node.props

    def _pairs(self, node: DeviceNode, prop: str) -> list[tuple[int, int]]:
        """(base, size) pairs, as wide as a phys_addr_t; none if the length is no multiple of a pair or 0."""
        pairs = node.entries(prop, self.addr_cells, self.size_cells, whole=True)
        return [(base & self.phys_mask, size & self.phys_mask) for base, size in pairs]

    # -- reg nodes -------------------------------------------------------------------------------

    def _reserve_reg(self, node: DeviceNode) -> None:
        """__reserved_mem_reserve_reg(): reserve the ranges of one node."""
        pairs = self._pairs(node, "reg")
        if not pairs:
            self.count += not node.props["reg"]
            if node.props["reg"]:
                self.pr_fdt(f"invalid reg property in '{node.name}', skipping node.")
            self.early.event(node.path, "invalid-reg", EFFECT_REFUSED, "reg")
            return
        if self.abi.default_node_skipped and not self._validate(node):
            return
        self.count += 1
        if len(pairs) > 1:
            self.early.event(node.path, "extra-reg", EFFECT_NOTE, "reg", f"{len(pairs)} ranges")
            if self.abi.first_reg_only:
                text = f"node '{node.name}' has {len(pairs)} <base size> entries, only the first is used"
                self.pr_fdt(text, LOGLEVEL_WARNING)
                pairs = pairs[:1]
        for base, size in pairs:
            if size and self._reserve(base, size, "no-map" in node.props):
                self._early_fixup(node, base, size)
            else:
                where = f"base {self.early.pa(base)}, size {size // SZ_1M} MiB"
                self.pr_fdt(f"failed to reserve memory for node '{node.name}': {where}", self._failure_level)
                reason = "reserve-failed" if size else "size-zero"
                self.early.event(node.path, reason, EFFECT_REFUSED, "reg", where)
        if not self.abi.two_passes and pairs:
            self._save(ReservedMem(node, *pairs[0]))

    def _reserve(self, base: int, size: int, nomap: bool) -> bool:
        """early_init_dt_reserve_memory(): memory that is taken cannot become no-map."""
        if not nomap:
            self.memblock.reserve(base, size)
        elif self.abi.nomap_removes:
            self.memblock.remove(base, size)
        elif self.memblock.overlaps_memory(base, size) and self.memblock.is_region_reserved(base, size):
            return False
        else:
            self.memblock.mark_nomap(base, size)
        return True

    def _early_fixup(self, node: DeviceNode, base: int, size: int) -> None:
        """From 6.12 on ``dma_contiguous_early_fixup()`` is called before anything is checked."""
        if self.abi.two_passes and node.is_compatible(COMPATIBLE) and "reusable" in node.props:
            self.early.fixups.append((node.path, base, size))

    def _init_reg_node(self, node: DeviceNode) -> None:
        """One ``reg`` node in the second pass."""
        pairs = self._pairs(node, "reg")
        if not pairs:
            if node.props["reg"] and not self.abi.validates_properties:
                self.pr_fdt(f"invalid reg property in '{node.name}', skipping node.")
            return
        if self.abi.default_node_skipped and not self._validate(node):
            return
        if len(pairs) > 1 and not self.abi.first_reg_only:
            text = f"fdt_scan_reserved_mem_reg_nodes() ignores {len(pairs) - 1} regions in node '{node.name}'"
            pr_of(self.early, text, LOGLEVEL_WARNING)
        base, size = pairs[0]
        if size:
            self._save(ReservedMem(node, base, size))

    def _validate(self, node: DeviceNode) -> bool:
        """rmem_cma_validate()@7.2: with ``cma=`` a default node is refused before it is reserved."""
        default = DEFAULT in node.props and node.is_compatible(COMPATIBLE)
        bypassed = default and self.early.params.cma.given
        if bypassed:
            text = 'Skipping dt linux,cma-default node in favor for "cma=" kernel param.'
            self.log.printk(text, LOGLEVEL_ERR)
            self.early.event(node.path, "bypassed", EFFECT_REFUSED, DEFAULT)
        return not bypassed

    # -- size nodes ------------------------------------------------------------------------------

    def _alloc_dynamic(self, nodes: list[DeviceNode]) -> None:
        """From 6.12 on: place and initialise the ``size`` nodes in device-tree order."""
        for number, node in enumerate(nodes):
            if number >= self.abi.max_reserved_regions:
                pr_of(self.early, f"too many defined dynamic regions, skip '{node.name}'", LOGLEVEL_ERR)
                self.early.event(node.path, "too-many-regions", EFFECT_REFUSED, "size")
                continue
            if place := self._alloc_size(node):
                self.count += 1
                self._save(ReservedMem(node, *place))

    def _size_and_alignment(self, node: DeviceNode) -> tuple[int, int] | None:
        """``size`` and ``alignment``, 0 without; None, with its line, if one has the wrong length."""
        found = []
        for prop, count in (("size", self.size_cells), ("alignment", self.addr_cells)):
            data = node.props.get(prop)
            if data is not None and len(data) != count * _CELL:
                pr_of(self.early, f"invalid {prop} property in '{node.name}' node.", LOGLEVEL_ERR)
                self.early.event(node.path, f"invalid-{prop}", EFFECT_REFUSED, prop)
                return None
            found.append(of_read_number(data, count) & self.phys_mask if data is not None else 0)
        return found[0], found[1]

    def _alloc_size(self, node: DeviceNode) -> tuple[int, int] | None:
        """Find a place for a ``size`` node: (base, size), or None. __reserved_mem_alloc_size()."""
        found = self._size_and_alignment(node) if "size" in node.props else None
        if found is None or (self.abi.default_node_skipped and not self._validate(node)):
            return None
        size, align = found
        if self._is_cma(node):
            align = max(align, self.early.areas.min_alignment)
        ranges = self._alloc_ranges(node)
        if ranges is None:
            pr_of(self.early, f"invalid alloc-ranges property in '{node.name}', skipping node.", LOGLEVEL_ERR)
            self.early.event(node.path, "invalid-alloc-ranges", EFFECT_REFUSED, "alloc-ranges")
            return None
        base = self._alloc_in_ranges(node, size, align, ranges)
        if not base:
            self._say_no_room(node, size, "alloc-ranges" if ranges else "size")
            return None
        self._early_fixup(node, base, size)
        return base, size

    def _say_no_room(self, node: DeviceNode, size: int, prop: str) -> None:
        suffix = f": size {size // SZ_1M} MiB" if self.abi.failed_allocation_size else ""
        pr_of(self.early, f"failed to allocate memory for node '{node.name}'{suffix}", self._failure_level)
        self.early.event(node.path, "no-room", EFFECT_REFUSED, prop, f"{size:#x} bytes")

    def _is_cma(self, node: DeviceNode) -> bool:
        shared = "reusable" in node.props and "no-map" not in node.props
        return node.is_compatible(COMPATIBLE) and (shared or self.abi.any_pool_is_aligned)

    def _alloc_ranges(self, node: DeviceNode) -> list[tuple[int, int]] | None:
        """(base, size) pairs of ``alloc-ranges``; empty without; None if its length is wrong."""
        pairs = self._pairs(node, "alloc-ranges")
        if node.props.get("alloc-ranges") and not pairs:
            if not self.abi.validates_properties:
                return None
            self.early.event(node.path, "invalid-alloc-ranges", EFFECT_MOVED, "alloc-ranges")
        return pairs

    def _alloc_in_ranges(self, node: DeviceNode, size: int, align: int, ranges: list[tuple[int, int]]) -> int:
        """The first of the ranges that has room; anywhere without ranges."""
        nomap = "no-map" in node.props
        if not ranges:
            anywhere = "alloc-ranges" not in node.props or self.abi.validates_properties
            return self._alloc(size, align, 0, 0, nomap) if anywhere else 0
        for start, length in ranges:
            end = (start + length) & self.phys_mask
            saved = self.memblock.bottom_up
            self.memblock.bottom_up = self._bottom_up(start, end)
            base = self._alloc(size, align, start, end, nomap)
            self.memblock.bottom_up = saved
            if base:
                return base
        return 0

    def _bottom_up(self, start: int, end: int) -> bool:
        """__reserved_mem_alloc_in_range(): towards a region that one end of the range alone touches."""
        if not self.abi.keeps_ranges_contiguous:
            return self.memblock.bottom_up
        placed = [region for region in self.regions if region.size]
        bottom_up = any(region.base <= start <= region.base + region.size for region in placed)
        top_down = any(region.base <= end <= region.base + region.size for region in placed)
        return bottom_up if bottom_up != top_down else self.memblock.bottom_up

    def _alloc(self, size: int, align: int, start: int, end: int, nomap: bool) -> int:
        """early_init_dt_alloc_reserved_memory_arch(): take memory in [start, end), 0 if there is no room."""
        base = self.memblock.phys_alloc_range(size, align, start, end or MEMBLOCK_ALLOC_ANYWHERE)
        if base and nomap:
            if self.abi.nomap_removes:
                self.memblock.phys_free(base, size)
                self.memblock.remove(base, size)
            else:
                self.memblock.mark_nomap(base, size)
        return base

    # -- initialisation --------------------------------------------------------------------------

    def _save(self, region: ReservedMem) -> None:
        """fdt_reserved_mem_save_node(): into the table; from 6.12 on initialised at once."""
        if not self.abi.two_passes and len(self.regions) >= self.abi.max_reserved_regions:
            pr_of(self.early, self.abi.no_space_text, LOGLEVEL_ERR)
            self.early.event(region.node.path, "too-many-regions", EFFECT_REFUSED)
            return
        self.regions.append(region)
        if self.abi.two_passes:
            self._init_node(region)

    def _init_reserved_mem(self) -> None:
        """fdt_init_reserved_mem() up to 6.11: sort, report overlaps, then place and initialise one by one."""
        if len(self.regions) > 1:
            rmem_sort(self.regions, self.abi.reserved_mem_sort, self.abi.overlaps_at_zero)
            self._say_overlaps(self.regions)
        for region in self.regions:
            if not region.size:
                place = self._alloc_size(region.node)
                if not place:
                    region.failed = True
                    continue
                region.base, region.size = place
            self._init_node(region)

    def _report_overlaps(self) -> None:
        regions = list(self.regions)
        rmem_sort(regions, SORT_NONE)
        self._say_overlaps(regions)

    def _say_overlaps(self, regions: list[ReservedMem]) -> None:
        for this, other in overlaps(regions, self.abi.overlaps_at_zero):
            text = " overlaps with ".join(self._span(region) for region in (this, other))
            pr_of(self.early, f"OVERLAP DETECTED!\n{text}", LOGLEVEL_ERR)
            self.early.event(other.node.path, "overlap", EFFECT_NOTE, "reg", text)

    def _span(self, region: ReservedMem) -> str:
        pa = self.early.pa
        return f"{region.name} ({pa(region.base)}--{pa(region.base + region.size)})"

    def _init_node(self, region: ReservedMem) -> None:
        """fdt_init_reserved_mem_node(): hand the region to its driver; give it back if that fails."""
        if not reserved_mem_init_node(self.early, region):
            region.failed = True
            if not self.abi.failed_pool_freed:
                return
            pr_of(self.early, f"node {region.name} compatible matching fail")
            if not region.nomap:
                self.memblock.phys_free(region.base, region.size)
            elif self.abi.nomap_removes:
                self.memblock.add(region.base, region.size)
            else:
                self._clear_nomap(region)
            return
        if self.abi.prints_regions:
            end = self.early.pa((region.base + region.size - 1) & self.phys_mask)
            mapped = "nomap" if region.nomap else "map"
            reusable = "reusable" if region.reusable else "non-reusable"
            span = f"{self.early.pa(region.base)}..{end} ({region.size >> 10} KiB)"
            pr_of(self.early, f"{span} {mapped} {reusable} {region.name}")

    def _clear_nomap(self, region: ReservedMem) -> None:
        """Give no-map memory back; that of a ``reg`` node, from 6.12 on, when the linear map is made."""
        end = region.base + region.size
        if self.abi.two_passes and "reg" in region.node.props:
            nomap = ((memory.base, memory.end) for memory in self.memblock.memory if memory.nomap)
            self.unmapped += [(*span, region.node.path) for span in within(nomap, region.base, end)]
        self.memblock.clear_nomap(region.base, region.size)
