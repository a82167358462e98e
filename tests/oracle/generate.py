"""Random machines: banks of memory, /reserved-memory, command lines, operations; all from one number.

A generator of our own, not Hypothesis: an example costs a boot (seconds), so that shrinking must be told how
many boots it may take and what to try first (``shrink.py``), and a case must be the same again from its
number.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from oracle.guest import INITRD_BYTES, RAM, SZ_2M, SZ_128M, Guest
from oracle.operations import KINDS, TRACED, Operation, generate
from oracle.record import Case

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
#: Memory of a case: base, size, and its node or None; a region of /reserved-memory: base, size.
Bank = tuple[int, int, int | None]
Region = tuple[int, int]
_POOL = 'compatible = "shared-dma-pool"; reusable;'
#: Properties of a node with ``reg``, and of one with ``size``; what is there often is likely.
_FIXED_KINDS = (
    *[_POOL] * 3,
    _POOL + " linux,cma-default;",
    _POOL + ' status = "disabled";',
    _POOL + ' status = "okay";',
    _POOL + " no-map;",
    'compatible = "vendor,pool", "shared-dma-pool"; reusable;',
    'compatible = "shared-dma-pool"; no-map;',
    'compatible = "shared-dma-pool";',
    'compatible = "vendor,fw"; no-map;',
    "reusable;",
    "no-map;",
    "",
)
_DYNAMIC_KINDS = (
    *[_POOL] * 3,
    *[_POOL + " linux,cma-default;"] * 2,
    _POOL + ' status = "disabled";',
    _POOL + ' status = "fail";',
    'compatible = "shared-dma-pool"; no-map;',
    'compatible = "shared-dma-pool"; linux,cma-default;',
    "no-map;",
    "",
)
_ALIGNMENTS = (4 * KIB, 64 * KIB, MIB, 2 * MIB, 4 * MIB, 4 * MIB, 16 * MIB, 3 * MIB, 0)


@dataclass(frozen=True)
class Machine:
    """A case in parts that can be taken away.

    ``children``: of /reserved-memory, as text; no banks: x86_64.
    """

    memory: int
    banks: tuple[Bank, ...]
    children: tuple[str, ...]
    words: tuple[str, ...]
    operations: tuple[Operation, ...]
    cpus: int = 1

    def dts(self) -> str:
        """The tree's part of memory and reserved memory."""
        if not self.banks:
            return ""
        nodes = [_memory(*bank) for bank in self.banks]
        if self.cpus > 1:
            nodes.append(_cpus(self.cpus))
        inside = "\n  ".join(self.children)
        reserved = f"reserved-memory {{ #address-cells = <2>; #size-cells = <2>; ranges;\n  {inside}\n}};"
        head = '/dts-v1/;\n/ { #address-cells = <2>; #size-cells = <2>; compatible = "linux,dummy-virt";'
        tail = [reserved] if self.children else []
        return "\n".join([head, *nodes, *tail, "chosen { };", "};", ""])

    def case(self, name: str) -> Case:
        """What the recorder is given."""
        return Case(name, Guest(self.memory, " ".join(self.words), self.dts(), self.cpus), self.operations)


def cells(*numbers: int) -> str:
    """Two cells each."""
    return "<" + " ".join(f"{n >> 32:#x} {n & 0xFFFFFFFF:#x}" for n in numbers) + ">"


def _cpus(count: int) -> str:
    """The nodes that QEMU gives them, as far as cmafs reads them."""
    nodes = (f'cpu@{n} {{ device_type = "cpu"; reg = <{n}>; }};' for n in range(count))
    return f"cpus {{ #address-cells = <1>; #size-cells = <0>; {' '.join(nodes)} }};"


def _memory(base: int, size: int, node: int | None) -> str:
    numa = "" if node is None else f" numa-node-id = <{node}>;"
    return f'memory@{base:x} {{ device_type = "memory"; reg = {cells(base, size)};{numa} }};'


# sizes and places


def _size(rng: random.Random, most: int) -> int:
    """Bytes of a region: whole MiB, rarely single pages or bytes."""
    size = rng.choice((1, 2, 4, 4, 8, 16, 16, 32, 64, 128, 256, rng.randrange(1, 300))) * MIB
    odd = rng.random()
    if odd < 0.12:
        size += rng.randrange(1, 600) * 4 * KIB
    elif odd < 0.16:
        size += rng.randrange(1, 4096)
    elif odd < 0.2:
        size = rng.randrange(1, 512) * 4 * KIB
    return max(1, min(size, most))


def _banks(rng: random.Random, arch: str, numa: bool) -> tuple[Bank, ...]:
    """One bank, or up to three with holes between them or none; with ``numa`` some have nodes."""
    top = RAM + (2 * GIB if arch == "arm" else rng.choice((2, 4, 8, 13)) * GIB)
    shapes = (128, 192, 256, 512, 512, 768, 1024, 1024, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288)
    at, banks = RAM, []
    nodes = numa and rng.random() < 0.15
    for number in range(rng.choice((1, 1, 1, 2, 2, 3)) if not nodes else 2):
        size = rng.choice(shapes) * MIB
        if rng.random() < 0.15:
            size += rng.randrange(1, 512) * 4 * KIB
        if at + size > top:
            size = (top - at) // (16 * MIB) * 16 * MIB
        if size < 64 * MIB:
            break
        banks.append((at, size, number if nodes else None))
        at += size
        if rng.random() < 0.7:
            at = (at // SZ_2M + 1 + rng.choice((0, 1, 7, 32, 100, 512))) * SZ_2M
    return tuple(banks)


def _loaded(banks: tuple[Bank, ...]) -> tuple[tuple[int, int], ...]:
    """Where image, initramfs and tree stand, with room to spare.

    An area on top of them breaks the real kernel later and in its own way (the initramfs is freed twice).
    """
    initrd = RAM + min(first_bank(banks) // 2, SZ_128M)
    return (RAM, RAM + 48 * MIB), (initrd, initrd + -(-INITRD_BYTES // SZ_2M) * SZ_2M + 4 * MIB)


def first_bank(banks: tuple[Bank, ...]) -> int:
    """Bytes of memory from where RAM begins: banks that touch are one."""
    end = RAM
    for base, size, _ in banks:
        end = base + size if base == end else end
    return end - RAM


def _place(
    rng: random.Random, banks: tuple[Bank, ...], size: int, used: list[Region], pools: list[Region] | None
) -> int | None:
    """A base for a fixed region, clear of what is loaded; None if none was found.

    A pool (``pools``: the others) is all memory and on no other pool: the kernel takes one over a hole, or
    frees the pages of two that overlap twice, and dies of it at some later time.
    """
    for _ in range(50):
        base = _any_place(rng, banks, size, used)
        taken = [*_loaded(banks), *((start, start + length) for start, length in pools or ())]
        clear = all(base + size <= start or base >= end for start, end in taken)
        if base >= 0 and clear and (pools is None or _all_memory(banks, base, base + size)):
            return base
    return None


def _all_memory(banks: tuple[Bank, ...], start: int, end: int) -> bool:
    """Whether there is memory at every address."""
    for base, size, _ in banks:
        if base <= start < base + size:
            start = base + size
    return start >= end


def _any_place(rng: random.Random, banks: tuple[Bank, ...], size: int, used: list[Region]) -> int:
    """Mostly whole; sometimes on another region, or at the edge of a bank or over it."""
    if used and rng.random() < 0.12:
        base, length = rng.choice(used)
        return base + rng.choice((0, length // 2, length, -size // 2)) // (4 * KIB) * 4 * KIB
    start, length, _ = rng.choice(banks)
    end = start + length
    unit = rng.choice((4 * MIB, 4 * MIB, 4 * MIB, 2 * MIB, MIB, 64 * KIB, 4 * KIB))
    last = end - size if rng.random() < 0.93 else end
    if last <= start:
        return start
    return (
        rng.choice((start, last, rng.randrange(start, last + 1), rng.randrange(start, last + 1)))
        // unit
        * unit
    )


# /reserved-memory


def _fixed(
    rng: random.Random,
    number: int,
    banks: tuple[Bank, ...],
    used: list[Region],
    pools: list[Region],
    most: int,
) -> str:
    size, kind = _size(rng, most), rng.choice(_FIXED_KINDS)
    base = _place(rng, banks, size, used, pools if "reusable" in kind else None)
    if base is None:
        return ""
    used.append((base, size))
    if "reusable" in kind:
        pools.append((base, size))
    name = rng.choice((f"r{number}@{base:x}", f"r{number}@{base:x}", f"linux,cma@{base:x}", f"pool-{number}"))
    second = ", " + cells(base + 2 * size, size) if rng.random() < 0.03 else ""
    return f"{name} {{ {kind} reg = {cells(base, size)}{second}; }};"


def _ranges(rng: random.Random, banks: tuple[Bank, ...]) -> str:
    found = []
    for _ in range(rng.choice((1, 1, 2))):
        base, length, _node = rng.choice(banks)
        start = base + rng.randrange(0, length) // MIB * MIB
        found += [start, rng.choice((length, length // 2, 64 * MIB, 256 * MIB, GIB))]
    return f" alloc-ranges = {cells(*found)};"


def _dynamic(rng: random.Random, number: int, banks: tuple[Bank, ...], most: int) -> str:
    kind = rng.choice(_DYNAMIC_KINDS)
    text = f"{kind} size = {cells(_size(rng, most))};"
    if rng.random() < 0.5:
        text += f" alignment = {cells(rng.choice(_ALIGNMENTS))};"
    if rng.random() < 0.35:
        text += _ranges(rng, banks)
    return f"{rng.choice((f'd{number}', f'd{number}', 'linux,cma', f'pool@{number}'))} {{ {text} }};"


def _children(rng: random.Random, banks: tuple[Bank, ...]) -> tuple[str, ...]:
    """Up to six, which together leave the kernel half of its memory; no name twice."""
    count = rng.choice((0, 0, 1, 1, 2, 2, 3, 4, 5, 6))
    used: list[Region] = []
    pools: list[Region] = []
    most = sum(size for _, size, _ in banks) // (2 * max(count, 1))
    found: dict[str, str] = {}
    for number in range(count):
        child = (
            _fixed(rng, number, banks, used, pools, most)
            if rng.random() < 0.55
            else _dynamic(rng, number, banks, most)
        )
        if child:
            found.setdefault(child.split(" {")[0], child)
    return tuple(found.values())


# the command line


def _cma(rng: random.Random, memory: int, base: int) -> str:
    size = min(_size(rng, memory // 3), memory // 3)
    text = rng.choice(
        (f"{-(-size // MIB)}M", f"{-(-size // MIB)}m", f"{size // KIB}K", f"{size}", f"{size:#x}")
    )
    where = base + rng.randrange(0, memory) // MIB * MIB
    limit = base + memory // rng.choice((1, 2, 4))
    forms = (
        text, text, text, text, f"{text}@{where:#x}", f"{text}@{where >> 20}M", f"{text}@0-{limit >> 20}M",
        f"{text}@{where >> 20}M-{limit >> 20}M", "0", "0M", f"{text}@0-4G", "", "xyz", "1", "16Mx", "-1",
    )  # fmt: skip
    return "cma=" + rng.choice(forms)


def _crashkernel(rng: random.Random, memory: int, base: int) -> str:
    """``crashkernel=`` as people write it, and as they should not; sometimes more than there can be."""
    size = f"{rng.choice((1, 16, 33, 64, 128, 256, 500, 900, 3000))}M"
    where = base + rng.randrange(32, memory // MIB) * MIB
    forms = (
        size, size, f"{size}@{where:#x}", f"{size}@{where // (16 * MIB) * 16}M", f"0-2G:{size},2G-:256M",
        f"1G-:{size}@{where:#x}", f"512M-1G:8M,1G-4G:{size},4G-:64M", f"{size},high", f"{size},low",
        f"{size},high crashkernel={rng.choice(('0', '16M', '72M', '4G', 'x'))},low",
        f"64M crashkernel={size},cma", f"{size},cma", f"16M crashkernel={size}", "0", "", "x", f"{size};",
        f"1G:{size}", f"1G-{size}", "2G-1G:64M", "0-:x", f"0-:{size}@", "16777217", f"{size},highs",
    )  # fmt: skip
    return "crashkernel=" + rng.choice(forms)


def _ordinary(rng: random.Random, arch: str, memory: int) -> tuple[str, ...]:
    """Words that people have on their command lines; most change nothing that a user of CMA sees."""
    crash = rng.choice((16, 64, 128, 256))
    where = (0 if arch == "x86_64" else RAM) + rng.randrange(32, memory // MIB) // 2 * 2 * MIB
    words = (
        "earlycon", "debug", "loglevel=7", "ignore_loglevel", "nokaslr", "cma.dyndbg=+p",
        'dyndbg="file mm/cma.c +p"', 'dyndbg="file cma.c +p; func cma_alloc +flmt"', "page_owner=on",
        "slub_debug=FZP", "slub_debug", "debug_pagealloc=on", "init_on_alloc=1", "init_on_alloc=0",
        "init_on_free=1", "page_poison=1", "transparent_hugepage=never", "hugepagesz=2M hugepages=4",
        "default_hugepagesz=2M", f"crashkernel={crash}M", f"crashkernel={crash}M@{where:#x}",
        f"crashkernel=0M-2G:{crash}M,2G-:256M", f"crashkernel={crash}M,high", "iommu.passthrough=1",
        "swiotlb=65536,force", "swiotlb=16384", "swiotlb=2048,1", "swiotlb=noforce", "audit=1", "rodata=off",
        "rodata=full", "numa_balancing=disable", f"mem={rng.choice((192, 300, 511, 1024, 3000))}M",
        "mminit_loglevel=4", "acpi=off", "efi=noruntime", "kpti=0", "log_buf_len=1M", "log_buf_len=4M",
        "hashdist=0", "dhash_entries=65536", "movable_node", "kernelcore=30%", "movablecore=25%",
        "kernelcore=mirror", "numa=fake=2", "reserve_mem=4M:4096:trace", "nr_cpus=1", "maxcpus=1",
        "root=/dev/mmcblk0p2 rootwait rw", "splash", "cgroup_enable=memory", "coherent_pool=2M",
        "cma_pernuma=8M", "page_alloc.shuffle=1", "hugetlb_free_vmemmap=on", "nosmp",
        f"mem={rng.choice((256, 512))}M@{RAM:#x}", "reserve=0x50000000,0x100000", "stack_depot_disable=on",
        "mitigations=off", "psi=1", "fw_devlink=permissive", "vmalloc=300M", "user_debug=31", "highmem=64M",
    )  # fmt: skip
    if arch == "x86_64":
        base = rng.randrange(64, max(65, memory // MIB - 64))
        words += (
            f"memmap=32M#{base}M", f"memmap=32M@{base}M", "memmap=exactmap memmap=640K@0 memmap=200M@1M",
            f"memmap=16M!{base}M", f"memmap={8 * MIB:#x}${base * MIB:#x}", "iommu=soft", "intel_iommu=on",
            "nopti", "nox2apic", "pci=nocrs", "gbpages", "nogbpages", "mce=off", "efi=nosoftreserve",
            f"crashkernel={crash}M,low crashkernel={crash}M,high", "no5lvl", "disable_mtrr_cleanup",
        )  # fmt: skip
    return words


def _words(rng: random.Random, arch: str, memory: int, config: frozenset[str]) -> tuple[str, ...]:
    base = 0 if arch == "x86_64" else RAM
    words = [_cma(rng, memory, base)] if rng.random() < (0.9 if arch == "x86_64" else 0.5) else []
    part = rng.randrange(1, 8) * memory // 8 // MIB
    extra = [
        (0.08, f"mem={max(part, 192)}M"),
        (0.06, f"kernelcore={part}M"),
        (0.06, f"movablecore={part}M"),
        (0.05, f"swiotlb={rng.choice(('force', 'noforce', '8192', '65536'))}"),
        (0.04, f"coherent_pool={rng.choice(('64K', '1M', '4M', '3M'))}"),
        (0.3, "dyndbg_cma"),
        (0.03, "cma=8M"),
        (0.08, _crashkernel(rng, memory, base)),
        (0.02, rng.choice(("foo", "cma", "cma.x=1", "hugepages=2"))),
    ]
    if "HUGETLBFS" in config:
        extra.append((0.1, f"hugetlb_cma={rng.choice(('1G', '1G', '2G', '512M', '1500M', '0:1G'))}"))
    if "NUMA" in config:
        extra += [
            (0.04, "numa=off"),
            (0.05, rng.choice(("cma_pernuma=16M", "numa_cma=0:16M", "numa_cma=1:8M"))),
        ]
    if arch == "arm":  # 1G would leave the initramfs outside of low memory
        extra.append(
            (0.15, f"vmalloc={rng.choice(('64M', '128M', '384M', '512M', '700M', '600M', '8M', '240M'))}")
        )
    if arch == "x86_64":
        hole = rng.randrange(64, max(65, memory // MIB - 64))
        extra.append((0.2, f"memmap={rng.choice((4, 16, 64))}M${hole}M"))
    words += [word for chance, word in extra if rng.random() < chance]
    if rng.random() < 0.4:
        words += rng.sample(_ordinary(rng, arch, memory), rng.choice((1, 2, 2, 4)))
    rng.shuffle(words)
    return (*words, "memblock=debug") if arch == "x86_64" else tuple(words)


def machine(
    seed: int, arch: str, config: Iterable[str] = (), operations: int = 80, traced: bool = False
) -> Machine:
    """The machine of a number; ``config``: the lines of the kernel's configuration; ``traced``: it has the
    tracer, and is asked about that.
    """
    rng = random.Random(seed)
    on = frozenset(line[len("CONFIG_") :].split("=")[0] for line in config if line.startswith("CONFIG_"))
    banks: tuple[Bank, ...] = ()
    if arch == "x86_64":
        memory = total = (
            rng.choice((96, 128, 256, 512, 1000, 1024, 2048, 3072, 4096, 6144, 8192, 12288)) * MIB
        )
    else:
        banks = _banks(rng, arch, "NUMA" in on)
        memory, total = (
            -(-(banks[-1][0] + banks[-1][1] - RAM) // MIB) * MIB,
            sum(size for _, size, _ in banks),
        )
    children = _children(rng, banks) if banks else ()
    words = _words(rng, arch, total, on)
    makers = TRACED if traced else KINDS
    asked = tuple(generate(rng, operations, makers))
    cpus = rng.choice((1, 1, 1, 2, 4)) if "SMP" in on and arch != "x86_64" else 1
    return Machine(memory, banks, children, words, asked, cpus)
