"""Machines of the boot tests: from a transcript's header, or from a few lines of device tree, without dtc."""

from __future__ import annotations

import json
import lzma
import re
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmafs.init.machine import BootedMachine
from cmafs.init.main import start_kernel
from cmafs.init.options import MachineOptions
from cmafs.lib.clock import ManualClock
from cmafs.lib.kconfig import FileLine
from cmafs.of import fdt
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

    directory: str
    name: str
    header: dict[str, Any]
    boot: list[str]
    script_output: list[str] | None = None

    @property
    def arch(self) -> str:
        return {"x86": "x86_64"}.get(self.header["arch"], self.header["arch"])

    @property
    def kernel(self) -> str:
        """The release: the name of an image says more than that."""
        match = re.search(r"\d+\.\d+(\.\d+)?", self.header["kernel"])
        assert match
        return match[0]

    @property
    def cmdline(self) -> str:
        """The whole command line, as the log has it; the first recordings' headers only have its end."""
        logged = [line.split(": ", 1)[1] for line in self.boot if line.startswith("Kernel command line: ")]
        printed = iter(self.script_output or [])
        logged += [next(printed) for line in printed if line == "KERNELCMDLINE"]
        console = "ttyS0" if self.arch == "x86_64" else "ttyAMA0"
        return next(iter(logged), f"console={console} quiet panic=-1 {self.header['cmdline']}")

    @property
    def has_config(self) -> bool:
        """Whether the header says how the kernel was configured; else it was the first recordings'."""
        return "config" in self.header

    @property
    def survived(self) -> bool:
        """Whether user space came up."""
        return self.script_output is not None

    def machine(self) -> BootedMachine:
        """The machine of the header, booted. Raises KernelPanic."""
        lines = self.header.get("config")
        config = ("tiny",) if lines is None else tuple(map(FileLine, lines))
        if "numa=fake" in self.cmdline:  # obeyed by a kernel whose header does not name the option
            config = (*config, "CONFIG_NUMA_EMU=y")
        options = MachineOptions(kernel=self.kernel, arch=self.arch, cmdline=self.cmdline, config=config)
        return start_kernel(self.tree(), options, ManualClock())

    def tree(self) -> DeviceTree:
        """The header's tree; else one made of the memblock dump (x86_64), or of the guest's size (arm64)."""
        if text := self.header.get("dts"):
            return compiled(text) if re.search(r"&|\b(chosen|cpus)\b", text) else parse_dts(text)
        memory, reserves = [], []
        dumped = any(line.startswith(" memory[") for line in self.boot)
        pattern = r" (memory|reserved)\[\w+\]\s+" if dumped else r"  (node) +\d+: "
        for line in self.boot:
            match = re.match(pattern + r"\[(?:mem )?(0x\w+)-(0x\w+)\]", line)
            if not match:
                continue
            start, size = int(match[2], 16), int(match[3], 16) + 1 - int(match[2], 16)
            if match[1] != "reserved":
                memory.append(" ".join(f"{n >> 32:#x} {n & 0xFFFFFFFF:#x}" for n in (start, size)))
            elif self.arch == "x86_64":
                reserves.append(f"/memreserve/ {start:#x} {size:#x};")
        return tree_of(memory=f"<{' '.join(memory)}>", head=" ".join(reserves))


def compiled(text: str) -> DeviceTree:
    """A tree for which ``parse_dts()`` does not suffice, by dtc."""
    with tempfile.NamedTemporaryFile("w", suffix=".dts") as dts:
        dts.write(text)
        dts.flush()
        return fdt.load(dts.name)


def transcripts(pattern: str) -> Iterator[Transcript]:
    """The recorded boots whose file matches."""
    for path in sorted(TRANSCRIPTS.glob(pattern)):
        objects = [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines()]
        header = objects[0]["header"]
        name = f"{path.parent.name}/{path.name.removesuffix('.jsonl.xz')}"
        found = Transcript(path.parent.name, name, header, header.get("boot", []))
        for entry in objects[1:]:
            found.script_output = entry.get("script_output", found.script_output)
        yield found
