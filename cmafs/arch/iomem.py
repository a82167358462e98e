"""/proc/iomem's tree: memory, what of it is reserved, where the kernel is. Bytes, ends inclusive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmafs.arch.setup import EarlyBoot
from cmafs.lib.intervals import union, without
from cmafs.lib.math import rounddown, roundup
from cmafs.lib.sizes import SZ_1K, SZ_4K

_X86_KERNEL = 0x1000000
_X86_SECTION = 2 << 20


@dataclass(frozen=True)
class Resource:
    """``struct resource``: ``end`` inclusive."""

    start: int
    end: int
    name: str
    children: tuple[Resource, ...] = ()


def _kernel(boot: EarlyBoot) -> list[Resource]:
    """What of the kernel is where the image was loaded; on x86_64 at 16 MiB if the tree reserves it."""
    sizes = [size * SZ_1K for size in boot.kernel_sizes_kib()]
    if boot.config.arch == "x86_64":
        reserved = boot.memblock.is_region_reserved(_X86_KERNEL, sizes[0])
        return _x86_kernel(sizes, boot.data.iomem_rodata) if reserved else []
    code, rwdata, rodata, init, bss = sizes
    start = boot.kernel_start
    data = start + code + rodata + init
    return [
        Resource(start, start + code + rodata - 1, "Kernel code"),
        Resource(data, data + rwdata + bss - 1, "Kernel data"),
    ]


def _x86_kernel(sizes: Sequence[int], tells_rodata: bool) -> list[Resource]:
    """arch/x86/kernel/setup.c:setup_arch(); vmlinux.lds.S aligns code, rodata and data to 2 MiB."""
    code, rwdata, rodata, init, bss = sizes
    text_end = _X86_KERNEL + code
    ro_start = roundup(text_end, _X86_SECTION)
    data = roundup(ro_start + rodata, _X86_SECTION)
    bss_start = data + roundup(rwdata, SZ_4K) + roundup(init, SZ_4K)
    parts = [Resource(_X86_KERNEL, text_end - 1, "Kernel code")]
    if tells_rodata:
        parts.append(Resource(ro_start, ro_start + rodata - 1, "Kernel rodata"))
    parts.append(Resource(data if tells_rodata else text_end, data + rwdata - 1, "Kernel data"))
    return [*parts, Resource(bss_start, bss_start + bss - 1, "Kernel bss")]


def iomem_resources(boot: EarlyBoot) -> list[Resource]:
    """System RAM with the kernel and the reservations in it, lowest first."""
    result = []
    crash = [Resource(base, base + size - 1, "Crash kernel") for base, size in boot.crash_kernel if size]
    kernel = _kernel(boot)
    arm64 = boot.config.arch == "arm64"
    for region in boot.memblock.memory:
        if region.nomap:
            result.append(Resource(region.base, region.end - 1, "reserved"))
            continue
        inside = [part for part in kernel if region.base <= part.start and part.end < region.end]
        if arm64:
            inside += _reserved_children(boot, region.base, region.end, inside)
        inside += [part for part in crash if region.base <= part.start and part.end < region.end]
        children = tuple(sorted(inside, key=lambda part: part.start))
        result.append(Resource(region.base, region.end - 1, "System RAM", children))
    return result


def _reserved_children(boot: EarlyBoot, base: int, end: int, kernel: list[Resource]) -> list[Resource]:
    """arm64 lists each reservation that is not the kernel itself (reserve_memblock_reserved_regions())."""
    size = boot.page_size
    pages = ((rounddown(r.base, size), roundup(r.end, size)) for r in boot.memblock.reserved)
    found = union(
        (start, stop)
        for start, stop in pages
        if base <= start and stop <= end
        if not any(start <= part.end and part.start < stop for part in kernel)
    )
    crash = ((start, start + bytes_) for start, bytes_ in boot.crash_kernel)
    return [Resource(start, stop - 1, "reserved") for start, stop in without(found, union(crash))]
