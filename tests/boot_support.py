"""Machines of the boot tests: from a transcript's header, or from a few lines of device tree, without dtc."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterable, Iterator

from replay import TRANSCRIPTS, load

from cmafs.init.machine import BootedMachine
from cmafs.init.main import start_kernel
from cmafs.init.options import MachineOptions
from cmafs.lib.clock import ManualClock
from cmafs.of import fdt
from cmafs.of.base import DeviceNode, DeviceTree
from cmafs.replay.transcript import Transcript, header_config, header_dts, machine_options

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


def arm_tree(
    reserved: str = "", memory: str = "0x40000000 0x20000000", root: str = "linux,dummy-virt"
) -> DeviceTree:
    """A 32-bit machine, addresses of one cell."""
    return parse_dts(
        f"""/dts-v1/; / {{ #address-cells = <1>; #size-cells = <1>; compatible = "{root}";
        memory@40000000 {{ device_type = "memory"; reg = <{memory}>; }};
        reserved-memory {{ #address-cells = <1>; #size-cells = <1>; ranges; {reserved} }}; }};"""
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


class RecordedBoot:
    """What the boot tests ask of a transcript."""

    def __init__(self, found: Transcript) -> None:
        self.name = found.name
        self.directory = found.name.partition("/")[0]
        self.header = found.header
        self.boot: list[str] = found.header["boot"]
        self.script_output = found.script_output

    @property
    def cmdline(self) -> str:
        """The whole command line, as the log has it; the first recordings' headers only have its end."""
        logged = [line.split(": ", 1)[1] for line in self.boot if line.startswith("Kernel command line: ")]
        printed = iter(self.script_output)
        logged += [next(printed) for line in printed if line == "KERNELCMDLINE"]
        console = "ttyS0" if self.header["arch"] == "x86" else "ttyAMA0"
        return next(iter(logged), f"console={console} quiet panic=-1 {self.header['cmdline']}")

    @property
    def has_config(self) -> bool:
        """Whether the header says how the kernel was configured; else it was the first recordings'."""
        return "config" in self.header

    @property
    def survived(self) -> bool:
        """Whether user space came up."""
        return bool(self.script_output)

    def machine(self) -> BootedMachine:
        """The machine of the header, booted. Raises KernelPanic."""
        config = header_config(self.header)
        named_there = any("NUMA_EMU" in line for line in config)
        if "numa=fake" in self.cmdline and not named_there:  # obeyed by a kernel, so that it has the option
            config.append("CONFIG_NUMA_EMU=y")
        named = {**machine_options(self.header), "cmdline": self.cmdline}
        return start_kernel(self.tree(), MachineOptions(**named, config=tuple(config)), ManualClock())

    def tree(self) -> DeviceTree:
        """The tree of the header."""
        text = header_dts(self.header)
        return compiled(text) if re.search(r"&|\w:\s", text) else parse_dts(text)


def compiled(text: str) -> DeviceTree:
    """A tree for which ``parse_dts()`` does not suffice, by dtc."""
    with tempfile.NamedTemporaryFile("w", suffix=".dts") as dts:
        dts.write(text)
        dts.flush()
        return fdt.load(dts.name)


def transcripts(pattern: str) -> Iterator[RecordedBoot]:
    """The recorded boots whose file matches."""
    return map(RecordedBoot, map(load, sorted(TRANSCRIPTS.glob(pattern))))
