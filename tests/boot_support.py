"""Machines of the boot tests: from a transcript's header, or from a few lines of device tree, without dtc."""

from __future__ import annotations

import json
import lzma
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cmafs.init.machine import BootedMachine
from cmafs.init.main import start_kernel
from cmafs.init.options import MachineOptions
from cmafs.lib.clock import ManualClock
from cmafs.of.base import DeviceNode, DeviceTree

TRANSCRIPTS = Path(__file__).parent / "transcripts"

_TOKEN = re.compile(
    r'\s+|//[^\n]*|/\*.*?\*/|(/memreserve/)|(/dts-v1/)|("[^"]*")|([{};=<>])|([^\s{};=<>"]+)', re.S
)


def cells(*values: int) -> bytes:
    """Big-endian 32-bit cells."""
    return b"".join(struct.pack(">I", value) for value in values)


def parse_dts(text: str) -> DeviceTree:
    """The small part of the dts language that headers use: nodes, strings, cells, flags, memreserve."""
    tokens = [match[0] for match in _TOKEN.finditer(text) if match.lastindex]
    tree = DeviceTree(DeviceNode(""))
    at = 0
    while at < len(tokens):
        if tokens[at] == "/dts-v1/":
            at += 2
        elif tokens[at] == "/memreserve/":
            tree.memreserve.append((int(tokens[at + 1], 0), int(tokens[at + 2], 0)))
            at += 4
        else:
            assert tokens[at : at + 2] == ["/", "{"], tokens[at]
            at = _parse_node(tokens, at + 2, tree.root) + 1
    return tree


def _parse_node(tokens: list[str], at: int, node: DeviceNode) -> int:
    while tokens[at] != "}":
        name = tokens[at]
        if tokens[at + 1] == "{":
            child = DeviceNode(name)
            node.append(child)
            at = _parse_node(tokens, at + 2, child) + 1
            assert tokens[at - 1] == ";"
        elif tokens[at + 1] == ";":
            node.props[name] = b""
            at += 2
        else:
            at, node.props[name] = _parse_value(tokens, at + 2)
    return at + 1


def _parse_value(tokens: list[str], at: int) -> tuple[int, bytes]:
    value, inside = b"", False
    while tokens[at] != ";":
        token = tokens[at]
        if token in "<>":
            inside = token == "<"
        elif token.startswith('"'):
            value += token[1:-1].encode() + b"\0"
        elif inside:
            value += cells(int(token, 0))
        at += 1
    return at + 1, value


def tree_of(
    reserved: str = "", memory: str = "<0x0 0x40000000 0x0 0x40000000>", head: str = ""
) -> DeviceTree:
    """QEMU's arm64 machine with these children of /reserved-memory."""
    parent = (
        f"reserved-memory {{ #address-cells = <2>; #size-cells = <2>; ranges; {reserved} }};"
        if reserved
        else ""
    )
    return parse_dts(
        f"""/dts-v1/; {head} / {{ #address-cells = <2>; #size-cells = <2>; compatible = "linux,dummy-virt";
        memory@40000000 {{ device_type = "memory"; reg = {memory}; }}; {parent} chosen {{ }}; }};"""
    )


def boot(
    tree: DeviceTree,
    kernel: str = "6.12",
    cmdline: str = "",
    arch: str = "arm64",
    config: Iterable[str] = (),
    memory: int | None = None,
) -> BootedMachine:
    """Boot on a clock that stands still."""
    options = MachineOptions(
        kernel=kernel, arch=arch, cmdline=cmdline, config=("tiny", *config), memory=memory
    )
    return start_kernel(tree, options, ManualClock())


def lines_with(machine: BootedMachine, *words: str) -> list[str]:
    """The log's lines that have any of these words."""
    return [line for line in machine.log.lines() if any(word in line for word in words)]


def areas(machine: BootedMachine) -> list[tuple[str, int, int]]:
    """(name, base, size) of every area, bytes, in slot order."""
    shift = machine.config.page_shift
    return [(cma.name, cma.base_pfn << shift, cma.count << shift) for cma in machine.cma]


@dataclass
class Transcript:
    """A recorded boot: its header, and what its script printed."""

    name: str
    header: dict[str, str]
    boot: list[str]
    script_output: list[str] | None = None
    areas: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    cma_total: int | None = None

    @property
    def arch(self) -> str:
        return {"x86": "x86_64"}.get(self.header["arch"], self.header["arch"])

    @property
    def kernel(self) -> str:
        match = re.search(r"\d+\.\d+(\.\d+)?", self.header["kernel"])
        assert match
        return match[0]

    @property
    def cmdline(self) -> str:
        console = "ttyS0" if self.arch == "x86_64" else "ttyAMA0"
        return f"console={console} quiet panic=-1 {self.header['cmdline']}"

    def tree(self) -> DeviceTree:
        """The header's tree; else one made of the memblock dump (x86_64), or of the guest's size (arm64)."""
        if self.header.get("dts"):
            return parse_dts(self.header["dts"])
        memory, reserves = [], []
        for line in self.boot:
            match = re.match(r" (memory|reserved)\[\w+\]\s+\[(0x\w+)-(0x\w+)\]", line)
            if not match:
                continue
            start, size = int(match[2], 16), int(match[3], 16) + 1 - int(match[2], 16)
            if match[1] == "memory":
                memory.append(" ".join(f"{n >> 32:#x} {n & 0xFFFFFFFF:#x}" for n in (start, size)))
            elif self.arch == "x86_64":
                reserves.append(f"/memreserve/ {start:#x} {size:#x};")
        return tree_of(memory=f"<{' '.join(memory)}>", head=" ".join(reserves))


_AREA = re.compile(r"area (.*) base_pfn=(\d+) count=(\d+) order_per_bit=(\d+) used=(\d+) maxchunk=\d+")


def transcripts(pattern: str) -> Iterator[Transcript]:
    """The recorded boots whose file matches."""
    for path in sorted(TRANSCRIPTS.glob(pattern)):
        objects = [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines()]
        header = objects[0]["header"]
        found = Transcript(header["name"], header, header["boot"])
        for entry in objects[1:]:
            found.script_output = entry.get("script_output", found.script_output)
        for line in found.script_output or ():
            if match := _AREA.fullmatch(line):
                found.areas.append((match[1], int(match[2]), int(match[3]), int(match[4]), int(match[5])))
            if match := re.fullmatch(r"CmaTotal: +(\d+) kB", line):
                found.cma_total = int(match[1])
        yield found
