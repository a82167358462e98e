"""Board trees for tests: small ones from pieces, and boards of many shapes.

``board()`` makes one tree's source from a seed: cells, depth, labels, phandles, a large /soc, and reserved
regions of which it knows what each should become.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

MIB = 1 << 20


def dtc(source: str, *flags: str) -> bytes:
    """The blob of a source, by dtc itself."""
    command = ["dtc", "-q", "-I", "dts", "-O", "dtb", *flags, "-"]
    return subprocess.run(command, input=source.encode(), capture_output=True, check=True).stdout


def write(directory: Path, name: str, text: str | bytes) -> str:
    """A file in a directory; its path as a user would type it."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def tree(
    reserved: str = "", *, memory: str = "0x0 0x40000000 0x0 0x40000000", root: str = "", cells: int = 2
) -> str:
    """A small arm64 board with the given children of /reserved-memory."""
    parent = (
        f"reserved-memory {{ #address-cells = <{cells}>; #size-cells = <{cells}>; ranges; {reserved} }};"
        if reserved
        else ""
    )
    return f"""/dts-v1/;
/ {{
	#address-cells = <{cells}>; #size-cells = <{cells}>; compatible = "test,board"; model = "test board";
	chosen {{ }};
	memory@40000000 {{ device_type = "memory"; reg = <{memory}>; }};
	cpus {{ #address-cells = <1>; #size-cells = <0>;
		cpu@0 {{ device_type = "cpu"; compatible = "arm,cortex-a53"; reg = <0>; }}; }};
	{parent}
	{root}
}};
"""


def pool(name: str, *properties: str) -> str:
    """A node that asks for a CMA area, with more properties."""
    return f'{name} {{ compatible = "shared-dma-pool"; reusable; {" ".join(p + ";" for p in properties)} }};'


@dataclass
class Board:
    """A synthetic board: its source, and its pools, all good: node name -> (base or None, size)."""

    source: str
    pools: dict[str, tuple[int | None, int]] = field(default_factory=dict)


def _number(value: int, cells: int) -> str:
    return " ".join(f"0x{value >> 32 * i & 0xFFFFFFFF:x}" for i in reversed(range(cells)))


def _devices(rng: random.Random, count: int, labels: list[str]) -> str:
    """A /soc with nested buses, labels and references, as deep as boards go."""
    lines, depth = [], 0
    for index in range(count):
        lines.append(f'd{index}: dev@{index:x} {{ compatible = "vendor,dev{index % 9}", "vendor,generic";')
        lines.append(f"reg = <0x{index:x} 0x10>; interrupts = <0 {rng.randrange(200)} 4>;")
        lines.append(f"clocks = <&d{rng.randrange(count)} {rng.randrange(4)}>;")
        if labels and rng.random() < 0.2:
            lines.append(f"memory-region = <&{rng.choice(labels)}>;")
        if rng.random() < 0.3 and depth < 12:
            lines.append("#address-cells = <1>; #size-cells = <1>; ranges;")
            depth += 1
        else:
            lines.append("};")
    return "soc { #address-cells = <1>; #size-cells = <1>; ranges; " + "\n".join(lines) + "};" * depth + "};"


def _pools(rng: random.Random, base: int, size: int, address: int, cells: int) -> tuple[str, Board]:
    """Between one and five pools that all fit: fixed ones in the lower half, the others anywhere."""
    found = Board("")
    text, default = [], rng.random() < 0.7
    place = (base + size // 4) & ~(64 * MIB - 1)
    for index in range(rng.randint(1, 5)):
        length = rng.choice((4, 8, 16, 32, 64)) * MIB
        extra = "linux,cma-default;" if default and index == 0 else ""
        if rng.random() < 0.5:
            name = f"pool@{place:x}"
            where, at = f"reg = <{_number(place, address)} {_number(length, cells)}>;", place
            place += 64 * MIB
        else:
            name = "linux,cma" if index == 0 else f"region-{index}"
            where, at = f"size = <{_number(length, cells)}>;", None
            if rng.random() < 0.4:
                where += f" alignment = <{_number(rng.choice((4096, 4 * MIB)), address)}>;"
            if rng.random() < 0.4:
                where += f" alloc-ranges = <{_number(base, address)} {_number(size, cells)}>;"
        found.pools[name] = (at, length)
        text.append(f'p{index}: {name} {{ compatible = "shared-dma-pool"; reusable; {extra} {where} }};')
    return "\n".join(text), found


def board(seed: int) -> Board:
    """One board of many: all its pools are good."""
    rng = random.Random(seed)
    address, cells = rng.choice(((1, 1), (2, 1), (2, 2)))
    base = rng.choice((0, 0x40000000, 0x80000000))
    size = rng.choice((512, 1024, 2047)) * MIB
    reserved, found = _pools(rng, base, size, address, cells)
    labels = [f"p{index}" for index in range(len(found.pools))]
    carve_out = f"fw@{base:x} {{ reg = <{_number(base, address)} {_number(MIB, cells)}>; no-map; }};"
    memory = f"<{_number(base, address)} {_number(size, cells)}>"
    nodes = [
        f'memory@{base:x} {{ device_type = "memory"; reg = {memory}; }};',
        f"reserved-memory {{ #address-cells = <{address}>; #size-cells = <{cells}>; ranges;"
        f" {carve_out if rng.random() < 0.3 else ''} {reserved} }};",
        "cpus { #address-cells = <1>; #size-cells = <0>;"
        ' cpu@0 { device_type = "cpu"; compatible = "arm,cortex-a53"; reg = <0>; }; };',
        _devices(rng, rng.choice((0, 5, 40)), labels),
    ]
    rng.shuffle(nodes)
    head = (
        f'/dts-v1/;\n/ {{ #address-cells = <{address}>; #size-cells = <{cells}>; compatible = "test,b{seed}";'
    )
    found.source = f"{head}\nchosen {{ }};\n" + "\n".join(nodes) + "\n};\n"
    return found


# boards with faults

Fault: TypeAlias = "Callable[[random.Random, str, dict[str, str]], None]"


def _misaligned(rng: random.Random, name: str, props: dict[str, str]) -> None:
    key = "reg" if "reg" in props else "size"
    if key not in props:
        return
    props[key] = re.sub(r"(0x[0-9a-f]*)00000>", rf"\g<1>{rng.choice(('10', '81', 'ff'))}000>", props[key])


def _without(*names: str) -> Fault:
    def fault(rng: random.Random, name: str, props: dict[str, str]) -> None:
        props.pop(rng.choice(names), None)

    return fault


def _with(name: str, *values: str) -> Fault:
    def fault(rng: random.Random, node: str, props: dict[str, str]) -> None:
        props[name] = rng.choice(values)

    return fault


def _misspelt(rng: random.Random, name: str, props: dict[str, str]) -> None:
    wrong = {
        "reusable": "reuseable",
        "linux,cma-default": "linux,cma_default",
        "alloc-ranges": "alloc-range",
        "compatible": "compatable",
    }
    found = rng.choice([key for key in wrong if key in props] or ["reusable"])
    props[wrong[found]] = props.pop(found, "")


def _one_cell_less(rng: random.Random, name: str, props: dict[str, str]) -> None:
    keys = [key for key in ("reg", "size", "alignment", "alloc-ranges") if key in props]
    if not keys:
        return
    key = rng.choice(keys)
    props[key] = re.sub(r"<(\S+) ", "<", props[key], count=1)


FAULTS: tuple[Fault, ...] = (
    _misaligned,
    _misaligned,
    _without("reusable", "compatible"),
    _without("reg", "size"),
    _with("no-map", ""),
    _with("status", '= "disabled"'),
    _with("compatible", '= "shared-dma-pools"', '= "acme,pool"'),
    _with("alignment", "= <0x1000>", "= <0x0 0x1000>", "= <0x0 0x30000>"),
    _with("alloc-ranges", "= <0x1000 0x1000>", "= <0x0 0x1000 0x0 0x1000>"),
    _with("linux,cma-default", ""),
    _with("reg", "= <0x50000000 0x400000>", "= <0x0 0x50000000 0x0 0x1000000>", "= <0x0 0x0>"),
    _with("size", "= <0x0>", "= <0x0 0x0>", "= <0x70000000>", "= <0x0 0x70000000>"),
    _misspelt,
    _one_cell_less,
)


def faulty_board(seed: int) -> str:
    """The source of a board, a line a property, whose pools have between one and four faults."""
    rng = random.Random(seed ^ 0xFA17)
    lines = []
    for line in board(seed).source.splitlines():
        match = re.match(r"(.*)(p\d+: (\S+) \{) ([^{}]*) \};(.*)$", line)
        if match and rng.random() < 0.6:
            parts = (one.strip() for one in match[4].split(";") if one.strip())
            props = {
                name: f"= {value}" if value else "" for name, _, value in (p.partition(" = ") for p in parts)
            }
            for _ in range(rng.randint(1, 2)):
                rng.choice(FAULTS)(rng, match[3], props)
            body = (f"\t{name} {value};" for name, value in props.items())
            lines += [match[1], match[2], *body, "};", match[5]]
        else:
            lines.append(line)
    text = "\n".join(lines) + "\n"
    for old, new in (
        ("ranges;", ""),
        ("memory-region =", "memory-regions ="),
        ("reserved-memory {", "rmem {"),
    ):
        if rng.random() < 0.04:
            text = text.replace(old, new)
    return text.replace("chosen { };", f'chosen {{ bootargs = "{rng.choice(CMDLINES)}"; }};')


CMDLINES = (
    "",
    "",
    "",
    "cma=16M",
    "cma=16M@0x50000000",
    "cma=3M",
    "cma=4G",
    "cma=16M@1",
    "cma=x",
    "hugetlb_cma=1G",
)
